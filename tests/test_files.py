"""Files and folders that are whole or not there."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from small_disk import small_files

from hierseg.errors import EvaluationError, OutputError, TaxonomyError
from hierseg.files import (
    PARTIAL,
    disk_faults,
    in_words,
    make_folder,
    output_file,
    output_folder,
    whole_file,
    whole_folder,
    whole_path,
    write_atomically,
    write_json,
)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def in_another_process(code, *arguments, **options):
    """Runs code that has all of ``hierseg.files``, and gives what it said."""
    code = 'import os, signal, sys\nfrom pathlib import Path\nfrom hierseg.files import *\n' + textwrap.dedent(code)
    command = [sys.executable, '-c', code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, **options)


class TestWriting:
    def test_leaves_nothing_beside_the_file(self, tmp_path):
        write_json({'a': 'ä'}, tmp_path / 'out.json')
        write_json({'a': 'ö'}, tmp_path / 'out.json')
        assert names(tmp_path) == ['out.json']
        assert json.loads((tmp_path / 'out.json').read_text(encoding='utf-8')) == {'a': 'ö'}

    def test_a_failed_write_keeps_what_was_there(self, tmp_path):
        write_json({'a': 1}, tmp_path / 'out.json')
        with pytest.raises(TypeError):
            write_json({'a': object()}, tmp_path / 'out.json')
        assert names(tmp_path) == ['out.json']
        assert json.loads((tmp_path / 'out.json').read_text()) == {'a': 1}

    def test_numbers_that_json_does_not_know(self, tmp_path):
        with pytest.raises(ValueError, match='JSON'):
            write_json({'mAP': float('nan')}, tmp_path / 'out.json')
        assert names(tmp_path) == []

    def test_a_folder_that_is_not_there(self, tmp_path):
        with pytest.raises(TaxonomyError, match=r'cannot be written \(No such file'):
            write_json({}, tmp_path / 'none' / 'out.json', error=TaxonomyError)

    def test_a_name_that_the_file_system_does_not_take(self, tmp_path):
        with pytest.raises(OutputError, match=r'cannot be written \(File name too long\)'):
            write_json({}, tmp_path / ('x' * 300))

    def test_the_longest_name(self, tmp_path):
        write_json({}, tmp_path / ('x' * 255))
        assert names(tmp_path) == ['x' * 255]

    @pytest.mark.parametrize('mask', [0o022, 0o077, 0o002])
    def test_permissions_are_those_of_an_ordinary_new_file(self, tmp_path, mask):
        before = os.umask(mask)
        try:
            write_atomically(b'x', tmp_path / 'out')
        finally:
            os.umask(before)
        assert (tmp_path / 'out').stat().st_mode & 0o777 == 0o666 & ~mask

    def test_permissions_of_a_file_that_is_replaced_stay(self, tmp_path):
        (tmp_path / 'out').touch(0o640)
        (tmp_path / 'out').chmod(0o640)
        write_atomically(b'x', tmp_path / 'out')
        assert (tmp_path / 'out').stat().st_mode & 0o777 == 0o640

    def test_file_and_folder_are_on_the_disk_before_it_returns(self, tmp_path, monkeypatch):
        synced, replaced = [], []
        monkeypatch.setattr(os, 'fsync', lambda descriptor: synced.append(os.readlink(f'/proc/self/fd/{descriptor}')))
        monkeypatch.setattr('pathlib.Path.replace', lambda *paths: replaced.append(len(synced)) or os.replace(*paths))
        write_atomically(b'x', tmp_path / 'out')
        assert replaced == [1]
        assert PARTIAL.fullmatch(os.path.basename(synced[0]))
        assert synced[1:] == [str(tmp_path)]

    def test_a_library_that_opens_by_name(self, tmp_path):
        (tmp_path / 'out.mp4').write_text('old')
        with whole_path(tmp_path / 'out.mp4') as path:
            path.write_text('new')
            assert (path.parent, path.suffix) == (tmp_path, '.mp4')
            assert (tmp_path / 'out.mp4').read_text() == 'old'
        assert (tmp_path / 'out.mp4').read_text() == 'new'
        assert names(tmp_path) == ['out.mp4']

    def test_a_folder_appears_when_it_is_whole(self, tmp_path):
        with whole_folder(tmp_path / 'deep' / 'out') as folder:
            (folder / 'a').write_text('a')
            assert not (tmp_path / 'deep' / 'out').exists()
        assert names(tmp_path / 'deep' / 'out') == ['a']
        with pytest.raises(OutputError, match='out: cannot be written'), whole_folder(tmp_path / 'deep' / 'out'):
            pass
        assert names(tmp_path / 'deep') == ['out']


class TestFullDisk:
    def test_names_the_file_what_it_needed_and_what_is_left(self, tmp_path):
        with small_files(1000), pytest.raises(OutputError) as caught:
            write_atomically(bytes(123_456), tmp_path / 'out')
        expected = r'out: cannot be written \(it grew beyond the largest file that is allowed here: 123 kB needed, '
        assert re.search(
            expected + r'[\d.]+ [kMGT]B free\)\. The same command works once there is room\.', str(caught.value)
        )
        assert names(tmp_path) == []

    def test_keeps_what_was_there(self, tmp_path):
        (tmp_path / 'out').write_text('old')
        with small_files(1000), pytest.raises(OutputError):
            write_atomically(bytes(123_456), tmp_path / 'out')
        assert names(tmp_path) == ['out']
        assert (tmp_path / 'out').read_text() == 'old'

    def test_what_is_still_in_a_buffer_counts(self, tmp_path):
        with small_files(1), pytest.raises(OutputError), whole_file(tmp_path / 'out') as file:
            file.write(b'xx')
        assert names(tmp_path) == []

    def test_a_folder(self, tmp_path):
        with small_files(1), pytest.raises(OutputError), whole_folder(tmp_path / 'out') as folder:
            (folder / 'a').write_text('xx')
        assert names(tmp_path) == []

    def test_arrays_of_numpy_which_tells_no_number(self, tmp_path):
        with small_files(1000), pytest.raises(OutputError, match='free'), whole_file(tmp_path / 'out') as file:
            np.save(file, np.zeros(100_000))

    @pytest.mark.parametrize(
        ('code', 'words'), [(errno.ENOSPC, 'no space is left'), (errno.EDQUOT, 'quota'), (errno.EFBIG, 'largest file')]
    )
    def test_each_kind_is_said_in_words(self, tmp_path, code, words):
        place, message = tmp_path / 'not' / 'there', rf'{words}.*5 B needed, .* free'
        with pytest.raises(EvaluationError, match=message), disk_faults(place, needed=5, error=EvaluationError):
            raise OSError(code, os.strerror(code))

    def test_a_device_that_is_full(self):
        message = 'no space is left on its disk'
        with pytest.raises(OutputError, match=message), disk_faults('x'), open('/dev/full', 'wb') as file:
            file.write(b'x')

    def test_other_faults_tell_no_space(self, tmp_path):
        with pytest.raises(OutputError) as caught, disk_faults('x'):
            raise OSError(errno.EACCES, 'Permission denied')
        assert str(caught.value) == 'x: cannot be written (Permission denied)'


class TestLinks:
    def test_a_link_to_a_file_stays_and_the_file_is_replaced(self, tmp_path):
        (tmp_path / 'real').mkdir()
        (tmp_path / 'real' / 'a').write_text('old')
        (tmp_path / 'link').symlink_to('real/a')
        write_atomically(b'new', tmp_path / 'link')
        assert (tmp_path / 'link').is_symlink()
        assert (tmp_path / 'real' / 'a').read_text() == 'new'
        assert names(tmp_path) == ['link', 'real']
        assert names(tmp_path / 'real') == ['a']

    @pytest.mark.parametrize('check', [output_file, output_folder, make_folder])
    @pytest.mark.parametrize('below', ['', 'x', 'x/y'])
    def test_a_link_to_nothing_is_refused(self, tmp_path, check, below):
        (tmp_path / 'link').symlink_to(tmp_path / 'none')
        with pytest.raises(OutputError, match=r'is a link to .*none, which is not there\. Remove the link'):
            check(tmp_path / 'link' / below if below else tmp_path / 'link')
        assert names(tmp_path) == ['link']

    def test_a_link_in_a_circle_is_refused(self, tmp_path):
        (tmp_path / 'a').symlink_to('b')
        (tmp_path / 'b').symlink_to('a')
        with pytest.raises(OutputError):
            write_atomically(b'', tmp_path / 'a')
        with pytest.raises(OutputError):
            make_folder(tmp_path / 'a')

    def test_links_to_folders_are_followed(self, tmp_path):
        (tmp_path / 'real').mkdir()
        (tmp_path / 'link').symlink_to('real')
        assert make_folder(tmp_path / 'link') == tmp_path / 'real'
        write_atomically(b'', tmp_path / 'link' / 'a')
        assert names(tmp_path / 'real') == ['a']

    @pytest.mark.parametrize('path', ['/dev/null', '/dev/full'])
    def test_a_device_is_not_replaced(self, path):
        with pytest.raises(OutputError, match='no ordinary file'):
            write_atomically(b'', path)
        assert os.path.exists(path)
        assert not os.path.isfile(path)

    def test_a_folder_is_no_file_and_a_file_no_folder(self, tmp_path):
        (tmp_path / 'file').touch()
        with pytest.raises(OutputError, match='is a folder'):
            write_atomically(b'', tmp_path)
        with pytest.raises(OutputError, match='is a file'):
            make_folder(tmp_path / 'file')
        with pytest.raises(OutputError, match='file is a file, not a folder'):
            make_folder(tmp_path / 'file' / 'x' / 'y')


KILLED = """
    with whole_file(Path(sys.argv[1]) / 'out') as file:
        file.write(b'half')
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
"""
KILLED_FOLDER = """
    with whole_folder(Path(sys.argv[1]) / 'out') as folder:
        (folder / 'a').write_text('half')
        os.kill(os.getpid(), signal.SIGKILL)
"""


class TestKills:
    @pytest.mark.parametrize('code', [KILLED, KILLED_FOLDER])
    def test_the_next_run_removes_what_is_left(self, tmp_path, code):
        assert in_another_process(code, tmp_path).returncode == -signal.SIGKILL
        [left] = names(tmp_path)
        assert PARTIAL.fullmatch(left)
        write_atomically(b'whole', tmp_path / 'other')
        assert names(tmp_path) == ['other']

    @pytest.mark.parametrize('kind', ['file', 'folder'])
    def test_what_a_living_run_writes_is_left_alone(self, tmp_path, kind):
        write = whole_file if kind == 'file' else whole_folder
        with write(tmp_path / 'out'):
            code = "write_atomically(b'', Path(sys.argv[1]) / 'other')"
            assert in_another_process(code, tmp_path).returncode == 0
        assert names(tmp_path) == ['other', 'out']

    def test_links_and_files_of_other_names_are_left_alone(self, tmp_path):
        folder = tmp_path / 'folder'
        folder.mkdir()
        (tmp_path / 'precious').write_text('mine')
        (tmp_path / 'full').mkdir()
        (tmp_path / 'full' / 'a').write_text('mine')
        (folder / f'.hierseg-{1:016x}.partial').symlink_to('../precious')
        (folder / f'.hierseg-{2:016x}.partial').symlink_to('../full')
        os.mkfifo(folder / f'.hierseg-{3:016x}.partial')
        for name in ['.hierseg-1.partial', '.out.partial', f'.hierseg-{4:016x}.partially', f'hierseg-{5:016x}.partial']:
            (folder / name).write_text('mine')
        before = names(folder)
        write_atomically(b'', folder / 'out')
        assert names(folder) == sorted([*before, 'out'])
        assert (tmp_path / 'precious').read_text() == (tmp_path / 'full' / 'a').read_text() == 'mine'

    def test_names_cannot_be_guessed(self, tmp_path):
        found = set()
        for _ in range(5):
            with whole_file(tmp_path / 'out'):
                found.update(names(tmp_path))
        assert len(found - {'out'}) == 5


@pytest.mark.parametrize(
    ('num_bytes', 'words'), [(0, '0 B'), (999, '999 B'), (1_234_567, '1.23 MB'), (561 * 10**9, '561 GB')]
)
def test_bytes_in_words(num_bytes, words):
    assert in_words(num_bytes) == words
