"""One file, from a server that misbehaves."""

from __future__ import annotations

import errno
import threading
import time

import pytest
from mirror import HURRIED, Fault, PlainMeter, google_hash

from hierseg.downloads.fetch import Stopped
from hierseg.downloads.partial import PartialFile
from hierseg.downloads.patience import Patience
from hierseg.downloads.remote import (
    Corrupt,
    Failure,
    Transient,
    Unreachable,
)
from hierseg.errors import DownloadError


def ranges(mirror) -> list[str]:
    return [request.range for request in mirror.gets('a.zip')]


class TestWhole:
    def test_in_one_go(self, mirror, fetch, content, tmp_path):
        mirror.files['sub/folder/a.zip'] = content
        assert fetch('sub/folder/a.zip')
        assert (tmp_path / 'sub/folder/a.zip').read_bytes() == content

    def test_an_empty_file(self, mirror, fetch, tmp_path):
        mirror.files['a.zip'] = b''
        assert fetch()
        assert (tmp_path / 'a.zip').read_bytes() == b''

    def test_not_again(self, mirror, fetch, content):
        mirror.files['a.zip'] = content
        fetch()
        before = len(mirror.requests)
        assert not fetch()
        assert len(mirror.requests) == before

    def test_from_a_server_without_head(self, mirror, fetch, content, tmp_path):
        mirror.head = False
        mirror.files['a.zip'] = content
        (tmp_path / 'a.zip').write_bytes(content)
        assert fetch()


class TestThere:
    """A file that is there before, from who knows where."""

    @pytest.mark.parametrize('has_checksum', [True, False])
    def test_is_not_fetched_if_it_fits(self, mirror, fetch, content, tmp_path, has_checksum):
        mirror.headers = google_hash if has_checksum else mirror.headers
        mirror.files['a.zip'] = content
        (tmp_path / 'a.zip').write_bytes(content)
        assert not fetch()
        assert mirror.sent('a.zip') == 0

    def test_is_fetched_if_its_size_does_not_fit(self, mirror, fetch, content, tmp_path):
        mirror.files['a.zip'] = content
        (tmp_path / 'a.zip').write_bytes(content[:-1])
        assert fetch()
        assert (tmp_path / 'a.zip').read_bytes() == content

    def test_is_fetched_if_its_checksum_does_not_fit(self, mirror, fetch, content, tmp_path):
        mirror.headers = google_hash
        mirror.files['a.zip'] = content
        (tmp_path / 'a.zip').write_bytes(b'x' + content[1:])
        assert fetch()
        assert (tmp_path / 'a.zip').read_bytes() == content

    def test_is_trusted_once_verified_unless_told_otherwise(self, mirror, fetch, content, tmp_path):
        mirror.files['a.zip'] = content
        fetch()
        mirror.files['a.zip'] = content[::-1]  # of the same size; only the version tells
        assert not fetch()
        assert fetch(recheck=True)
        assert (tmp_path / 'a.zip').read_bytes() == content[::-1]

    def test_rechecked_and_the_same(self, mirror, fetch, content):
        mirror.files['a.zip'] = content
        fetch()
        assert not fetch(recheck=True)
        assert mirror.sent('a.zip') == len(content)


class TestResume:
    def test_after_a_dropped_connection(self, mirror, fetch, content, tmp_path):
        mirror.files['a.zip'] = content
        mirror.faults['a.zip'] = [Fault(drop_after=100_000), Fault(drop_after=50_000)]
        meter = PlainMeter()
        assert fetch(meter=meter)
        assert (tmp_path / 'a.zip').read_bytes() == content
        assert ranges(mirror) == ['', 'bytes=100000-', 'bytes=150000-']
        assert mirror.sent('a.zip') == meter.arrived == len(content)

    def test_in_another_run(self, mirror, fetch, content, tmp_path):
        mirror.files['a.zip'] = content
        mirror.faults['a.zip'] = [Fault(drop_after=100_000), Fault(status=500)]
        with pytest.raises(Transient, match='500'):
            fetch(patience=Patience(attempts=2, backoff=0.01))
        assert not (tmp_path / 'a.zip').exists()
        assert fetch()
        assert (tmp_path / 'a.zip').read_bytes() == content
        assert ranges(mirror) == ['', 'bytes=100000-', 'bytes=100000-']

    def test_getting_further_is_no_failed_attempt(self, mirror, fetch, content):
        # 30 drops with 3 attempts: each but the last brings 10,000 bytes.
        mirror.files['a.zip'] = content
        mirror.faults['a.zip'] = [Fault(drop_after=10_000) for _ in range(30)]
        assert fetch()
        assert len(mirror.gets('a.zip')) == 31
        assert mirror.sent('a.zip') == len(content)

    def test_small_files_start_over(self, mirror, fetch, content, tmp_path):
        mirror.files['a.zip'] = content
        mirror.faults['a.zip'] = [Fault(drop_after=100_000)]
        meter = PlainMeter()
        assert fetch(resumed_from=len(content) + 1, meter=meter)
        assert (tmp_path / 'a.zip').read_bytes() == content
        assert ranges(mirror) == ['', '']
        assert mirror.sent('a.zip') == meter.arrived == len(content) + 100_000

    def test_where_ranges_are_ignored(self, mirror, fetch, content, tmp_path):
        mirror.ranges = False
        mirror.files['a.zip'] = content
        mirror.faults['a.zip'] = [Fault(drop_after=100_000)]
        assert fetch()
        assert (tmp_path / 'a.zip').read_bytes() == content
        assert mirror.sent('a.zip') == len(content) + 100_000

    @pytest.mark.parametrize('etags', [True, False])
    @pytest.mark.parametrize('if_range', [True, False])
    @pytest.mark.parametrize('length', [300_001, 300_000, 50_000])
    def test_never_joins_two_versions(self, mirror, fetch, content, tmp_path, etags, if_range, length):
        """A server that ignores If-Range too is found out by its ETag, date or size; or says 416."""
        mirror.etags, mirror.if_range = etags, if_range
        mirror.files['a.zip'] = content
        mirror.faults['a.zip'] = [Fault(drop_after=100_000)]
        with pytest.raises(Transient):
            fetch(patience=Patience(attempts=1))
        mirror.files['a.zip'] = content[::-1][:length]
        assert fetch()
        assert (tmp_path / 'a.zip').read_bytes() == content[::-1][:length]
        if if_range:  # the server answers with the whole of the new version at once
            assert ranges(mirror) == ['', 'bytes=100000-']

    def test_a_part_of_which_nobody_knows_the_version_is_thrown_away(self, mirror, fetch, content, tmp_path):
        mirror.files['a.zip'] = content
        (tmp_path / '.a.zip.partial').write_bytes(b'x' * 1000)
        for note in (
            None,
            b'',
            b'{"size": 3',
            b'[]',
            b'{"size": 300001, "etag": "", "modified": "", "checksum": null}',
        ):
            (tmp_path / 'a.zip').unlink(missing_ok=True)
            (tmp_path / '.a.zip.partial').write_bytes(b'x' * 1000)
            if note is not None:
                (tmp_path / '.a.zip.partial.json').write_bytes(note)
            assert fetch()
            assert (tmp_path / 'a.zip').read_bytes() == content
            (tmp_path / '.verified.csv').unlink()
        assert set(ranges(mirror)) == {''}

    @pytest.mark.parametrize('is_right', [True, False])
    def test_killed_between_the_last_byte_and_the_verdict(self, mirror, fetch, content, tmp_path, is_right):
        mirror.headers = google_hash
        mirror.files['a.zip'] = content
        mirror.faults['a.zip'] = [Fault(drop_after=100_000)]
        with pytest.raises(Transient):
            fetch(patience=Patience(attempts=1))
        rest = content[100_000:] if is_right else b'x' * 200_001
        with (tmp_path / '.a.zip.partial').open('ab') as file:
            file.write(rest)
        assert fetch()
        assert (tmp_path / 'a.zip').read_bytes() == content
        assert len(mirror.gets('a.zip')) == (1 if is_right else 2)


class TestFailures:
    @pytest.mark.parametrize('status', [429, 500, 502, 503, 504])
    def test_a_busy_server_is_asked_again(self, mirror, fetch, content, status):
        mirror.files['a.zip'] = content
        mirror.faults['a.zip'] = [Fault(status=status), Fault(status=status)]
        assert fetch()
        assert len(mirror.gets('a.zip')) == 3

    def test_but_not_for_ever(self, mirror, fetch, content, tmp_path):
        mirror.always['a.zip'] = Fault(status=503)
        with pytest.raises(Transient, match='503 Service Unavailable'):
            fetch()
        assert len(mirror.gets('a.zip')) == HURRIED.attempts
        assert not (tmp_path / 'a.zip').exists()

    @pytest.mark.parametrize('status', [404, 403, 400, 410])
    def test_a_refusal_is_final(self, mirror, fetch, content, status):
        mirror.files['a.zip'] = content
        mirror.faults['a.zip'] = [Fault(status=status)]
        with pytest.raises(Failure, match=str(status)) as caught:
            fetch()
        assert not isinstance(caught.value, Transient)
        assert len(mirror.gets('a.zip')) == 1

    def test_waits_as_long_as_it_is_asked_to(self, mirror, fetch, content):
        mirror.files['a.zip'] = content
        mirror.faults['a.zip'] = [Fault(status=429, headers={'Retry-After': '60'})]
        start = time.monotonic()
        assert fetch(patience=Patience(backoff=0.01, max_backoff=0.3))
        assert 0.3 <= time.monotonic() - start < 30  # a minute, within max_backoff

    def test_a_dripping_connection(self, mirror, fetch, content, tmp_path):
        # A byte every 20 ms never lets 0.4 s pass without one, but 50 bytes a second are under 1,000.
        content = content[:250]
        mirror.files['a.zip'] = content
        mirror.faults['a.zip'] = [Fault(pause=0.02)]
        assert fetch()
        assert (tmp_path / 'a.zip').read_bytes() == content
        assert len(mirror.gets('a.zip')) == 2

    @pytest.mark.parametrize('fault', [Fault(silent=True), Fault(wait_after=1000)])
    def test_a_silent_connection(self, mirror, fetch, content, tmp_path, fault):
        mirror.files['a.zip'] = content
        mirror.faults['a.zip'] = [fault]
        assert fetch()
        fault.go_on.set()
        assert (tmp_path / 'a.zip').read_bytes() == content

    def test_a_wrong_checksum_is_fetched_once_more_and_not_kept(self, mirror, fetch, content, tmp_path):
        mirror.headers = lambda path, _: google_hash(path, b'something else')
        mirror.files['a.zip'] = content
        with pytest.raises(Corrupt, match='md5 is not the published'):
            fetch()
        assert ranges(mirror) == ['', '']
        assert list(tmp_path.iterdir()) == []

    def test_damage_on_the_way(self, mirror, fetch, content, tmp_path):
        """What was on the disk of a resumed file is part of the checksum."""
        mirror.headers = google_hash
        mirror.files['a.zip'] = content
        mirror.faults['a.zip'] = [Fault(drop_after=100_000)]
        with pytest.raises(Transient):
            fetch(patience=Patience(attempts=1))
        with (tmp_path / '.a.zip.partial').open('r+b') as file:
            file.write(b'x')
        assert fetch()
        assert (tmp_path / 'a.zip').read_bytes() == content
        assert ranges(mirror) == ['', 'bytes=100000-', '']

    def test_compression_that_nobody_asked_for(self, mirror, fetch, content):
        mirror.headers = lambda path, _: {'Content-Encoding': 'gzip'}
        mirror.files['a.zip'] = content
        with pytest.raises(Failure, match='compressed'):
            fetch()

    def test_nobody_listens(self, mirror, fetch):
        mirror.url = 'http://127.0.0.1:1/'
        with pytest.raises(Unreachable, match='refused'):
            fetch()

    def test_a_full_disk(self, mirror, fetch, content, tmp_path, monkeypatch):
        class FullDisk:
            def write(self, data):
                raise OSError(errno.ENOSPC, 'No space left on device')

            def __enter__(self):
                return self

            def __exit__(self, *error):
                return None

        mirror.files['a.zip'] = content
        monkeypatch.setattr(PartialFile, 'appending', lambda self: FullDisk())
        with pytest.raises(DownloadError, match=r'a\.zip: cannot be written \(No space left on device\)'):
            fetch()
        assert len(mirror.gets('a.zip')) == 1

    def test_stops_when_told(self, mirror, fetch, content, tmp_path):
        mirror.files['a.zip'] = content
        mirror.faults['a.zip'] = [Fault(status=500)]
        stop = threading.Event()
        threading.Timer(0.2, stop.set).start()
        start = time.monotonic()
        with pytest.raises(Stopped):
            fetch(stop=stop, patience=Patience(backoff=300))
        assert time.monotonic() - start < 60
