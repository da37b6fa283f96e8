"""The list of verified files."""

from __future__ import annotations

import os

from hierseg.downloads.fetch import VerifiedFiles


def with_files(folder, *names):
    (folder / 'train').mkdir()
    for name in names:
        (folder / name).write_bytes(b'12345')
    return VerifiedFiles(folder)


def test_the_next_run_knows_what_was_recorded(tmp_path):
    verified = with_files(tmp_path, 'a.csv', 'train/b.jpg', 'c.csv')
    verified.record('a.csv', '"one, two"')
    verified.record('train/b.jpg', '')
    assert verified.version('a.csv') == '"one, two"'
    again = VerifiedFiles(tmp_path)
    assert [again.version(name) for name in ('a.csv', 'train/b.jpg', 'c.csv', 'd.csv')] == [
        '"one, two"',
        '',
        None,
        None,
    ]


def test_a_file_that_changed_is_not_known(tmp_path):
    verified = with_files(tmp_path, 'a', 'b', 'c')
    for name in 'abc':
        verified.record(name, '1')
    (tmp_path / 'a').write_bytes(b'123456')
    os.utime(tmp_path / 'b', ns=(0, 0))
    (tmp_path / 'c').unlink()
    assert [VerifiedFiles(tmp_path).version(name) for name in 'abc'] == [None, None, None]


def test_the_last_line_counts(tmp_path):
    verified = with_files(tmp_path, 'a')
    verified.record('a', '1')
    verified.record('a', '2')
    assert VerifiedFiles(tmp_path).version('a') == '2'


def test_a_line_that_was_cut_off_spoils_no_other(tmp_path):
    verified = with_files(tmp_path, 'a', 'b', 'c')
    verified.record('a', '1')
    verified.record('b', '1')
    path = tmp_path / '.verified.csv'
    whole = path.read_bytes()
    first = whole.index(b'\n') + 1
    for end in range(first, len(whole)):
        path.write_bytes(whole[:end])
        after = VerifiedFiles(tmp_path)
        after.record('c', '1')
        again = VerifiedFiles(tmp_path)
        assert (again.version('a'), again.version('c')) == ('1', '1')
        # The last two characters are the version and the line feed: without them size and time still are whole.
        assert again.version('b') == {1: '1', 2: ''}.get(len(whole) - end)
