"""One writer of an output at a time."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import subprocess
import sys

import pytest

from hierseg.errors import DownloadError, OutputError
from hierseg.locks import NAME, locked

HOLDS = """
import sys, time, multiprocessing
from hierseg.locks import locked
with locked(sys.argv[1]):
    if sys.argv[2:] == ['with a worker']:
        context = multiprocessing.get_context('fork')
        begun = context.Event()
        worker = context.Process(target=lambda: begun.set() or time.sleep(60))
        worker.start()
        begun.wait()  # until then it may have the lock
        print(worker.pid, flush=True)
    print('has it', flush=True)
    sys.stdin.read(1)
"""


def holder(output, *words):
    process = subprocess.Popen(
        [sys.executable, '-c', HOLDS, str(output), *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    said = []
    while not said or said[-1] != 'has it':
        said.append(process.stdout.readline().strip())
        assert said[-1], 'it ended'
    return process, said


@pytest.fixture(params=['folder', 'file', 'new file'])
def output(request, tmp_path):
    path = tmp_path / 'out'
    if request.param == 'folder':
        path.mkdir()
    elif request.param == 'file':
        path.touch()
    return path


def lock_of(output):
    return output / NAME if output.is_dir() else output.with_name(f'.out{NAME}')


def test_a_second_run_is_told_so_and_by_whom(output):
    process, _ = holder(output)
    with pytest.raises(OutputError) as caught, locked(output):
        pass
    expected = (
        rf'{re.escape(str(output))}: another run writes here \(process {process.pid} on {os.uname().nodename} since '
        r'20\d\d-\d\d-\d\d \d\d:\d\d:\d\d\)\. Let it end, or name another output\.'
    )
    assert re.fullmatch(expected, str(caught.value))
    process.communicate('x')
    assert process.returncode == 0
    assert not lock_of(output).exists()
    with locked(output):
        pass


def test_other_outputs_of_a_folder_are_free(tmp_path):
    with locked(tmp_path), locked(tmp_path / 'a'), locked(tmp_path / 'b'):
        assert len(list(tmp_path.iterdir())) == 3
    assert list(tmp_path.iterdir()) == []


def test_a_link_is_what_it_leads_to(tmp_path):
    (tmp_path / 'real').mkdir()
    (tmp_path / 'link').symlink_to('real')
    with locked(tmp_path / 'link'), pytest.raises(OutputError, match='another run'), locked(tmp_path / 'real'):
        pass


def test_a_kill_leaves_no_lock(output):
    process, _ = holder(output)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    with locked(output, error=DownloadError):
        pass
    assert not lock_of(output).exists()


def test_a_worker_that_outlives_a_killed_run_has_no_lock(tmp_path):
    process, said = holder(tmp_path, 'with a worker')
    worker = int(said[0])
    process.kill()
    process.wait()
    os.kill(worker, 0)
    try:
        with locked(tmp_path):
            pass
    finally:
        os.kill(worker, signal.SIGKILL)


def test_of_many_that_begin_at_once_one_has_it(tmp_path):
    code = """
import sys
from hierseg.locks import locked
from hierseg.errors import OutputError
sys.stdin.readline()
try:
    with locked(sys.argv[1]):
        print('mine', flush=True)
        sys.stdin.readline()
except OutputError:
    print('told', flush=True)
"""
    pipes = {'stdin': subprocess.PIPE, 'stdout': subprocess.PIPE, 'text': True}
    runs = [subprocess.Popen([sys.executable, '-c', code, str(tmp_path)], **pipes) for _ in range(4)]
    for run in runs:
        run.stdin.write('begin\n')
        run.stdin.flush()
    assert sorted(run.stdout.readline() for run in runs) == ['mine\n', 'told\n', 'told\n', 'told\n']
    for run in runs:
        run.communicate('end\n')
    assert list(tmp_path.iterdir()) == []


class TestForeignNames:
    def test_a_link_is_not_followed(self, tmp_path):
        (tmp_path / 'precious').write_text('mine')
        (tmp_path / 'out').mkdir()
        (tmp_path / 'out' / NAME).symlink_to('../precious')
        with pytest.raises(OutputError, match='a link has the name of a lock'), locked(tmp_path / 'out'):
            pass
        assert (tmp_path / 'precious').read_text() == 'mine'
        assert (tmp_path / 'out' / NAME).is_symlink()

    @pytest.mark.parametrize('kind', ['file', 'hard link', 'pipe'])
    def test_a_file_is_not_emptied(self, tmp_path, kind):
        (tmp_path / 'precious').write_text('mine')
        lock = tmp_path / 'out' / NAME
        lock.parent.mkdir()
        if kind == 'file':
            lock.write_text('mine')
        elif kind == 'hard link':
            lock.hardlink_to(tmp_path / 'precious')
        else:
            os.mkfifo(lock)
        with pytest.raises(OutputError, match='a file that is no lock has the name of one'), locked(lock.parent):
            pass
        assert lock.exists()
        assert kind == 'pipe' or lock.read_text() == 'mine'


def test_a_file_system_without_locks_is_a_warning(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(37, 'No locks available')

    monkeypatch.setattr(fcntl, 'flock', refuse)
    with pytest.warns(UserWarning, match=r'no locks here \(No locks available\)'), locked(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == [NAME]
    assert list(tmp_path.iterdir()) == []
