"""One file, from a server that misbehaves."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import CancelledError

import pytest
from mirror import HURRIED, Fault, google_hash
from small_disk import small_files

from hierseg.downloads import RetryPolicy
from hierseg.downloads.fetch import Corrupt, Failure
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
        assert fetch()
        assert (tmp_path / 'a.zip').read_bytes() == content


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
        arrived = []
        assert fetch(arrived=arrived)
        assert (tmp_path / 'a.zip').read_bytes() == content
        assert ranges(mirror) == ['', 'bytes=100000-', 'bytes=150000-']
        assert mirror.sent('a.zip') == sum(arrived) == len(content)

    def test_in_another_run(self, mirror, fetch, content, tmp_path):
        mirror.files['a.zip'] = content
        mirror.faults['a.zip'] = [Fault(drop_after=100_000), Fault(status=500)]
        with pytest.raises(Failure, match='500'):
            fetch(policy=RetryPolicy(attempts=2, backoff=0.01))
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
        arrived = []
        assert fetch(resumed_from=len(content) + 1, arrived=arrived)
        assert (tmp_path / 'a.zip').read_bytes() == content
        assert ranges(mirror) == ['', '']
        assert mirror.sent('a.zip') == sum(arrived) == len(content) + 100_000

    def test_where_ranges_are_ignored(self, mirror, fetch, content, tmp_path):
        mirror.ranges = False
        mirror.files['a.zip'] = content
        mirror.faults['a.zip'] = [Fault(drop_after=100_000)]
        assert fetch()
        assert (tmp_path / 'a.zip').read_bytes() == content
        assert ranges(mirror) == ['', 'bytes=100000-', '']

    @pytest.mark.parametrize('etags', [True, False])
    @pytest.mark.parametrize('conditions', [True, False])
    @pytest.mark.parametrize('at_once', [True, False])
    @pytest.mark.parametrize('length', [300_001, 300_000, 50_000])
    def test_never_joins_two_versions(self, mirror, fetch, content, tmp_path, etags, conditions, length, at_once):
        """Neither if a file changed since the first part came, nor between question and answer.

        A server that ignores If-Match is found out by the ETag, date or size of its answer.
        """
        mirror.etags, mirror.conditions = etags, conditions
        mirror.files['a.zip'] = content
        mirror.faults['a.zip'] = [Fault(drop_after=100_000)]
        with pytest.raises(Failure):
            fetch(policy=RetryPolicy(attempts=1))
        changed = content[::-1][:length]
        if at_once:
            mirror.after_head['a.zip'] = changed
        else:
            mirror.files['a.zip'] = changed
        assert fetch()
        assert (tmp_path / 'a.zip').read_bytes() == changed
        assert ranges(mirror) == (['', 'bytes=100000-', ''] if at_once else ['', ''])

    def test_a_part_of_which_nobody_knows_the_version_is_thrown_away(self, mirror, fetch, content, tmp_path):
        mirror.files['a.zip'] = content
        for note in ('.a.zip.partial\n', '.a.zip.partial,,\n', '.a.zip.partial,,,"v-1"\n', '.a.zip.partial,1'):
            (tmp_path / 'a.zip').unlink(missing_ok=True)
            (tmp_path / '.a.zip.partial').write_bytes(b'x' * 1000)
            (tmp_path / '.verified.csv').write_text(note)
            assert fetch()
            assert (tmp_path / 'a.zip').read_bytes() == content
        assert set(ranges(mirror)) == {''}

    @pytest.mark.parametrize('is_right', [True, False])
    def test_killed_between_the_last_byte_and_the_verdict(self, mirror, fetch, content, tmp_path, is_right):
        mirror.headers = google_hash
        mirror.files['a.zip'] = content
        mirror.faults['a.zip'] = [Fault(drop_after=100_000)]
        with pytest.raises(Failure):
            fetch(policy=RetryPolicy(attempts=1))
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
        mirror.files['a.zip'] = content
        mirror.always['a.zip'] = Fault(status=503)
        with pytest.raises(Failure, match='503 Service Unavailable'):
            fetch()
        assert len(mirror.gets('a.zip')) == HURRIED.attempts
        assert not (tmp_path / 'a.zip').exists()

    @pytest.mark.parametrize('status', [404, 403, 400, 410])
    def test_a_refusal_is_final(self, mirror, fetch, content, status):
        mirror.files['a.zip'] = content
        mirror.faults['a.zip'] = [Fault(status=status)]
        with pytest.raises(Failure, match=str(status)) as caught:
            fetch()
        assert not caught.value.again
        assert len(mirror.gets('a.zip')) == 1

    def test_waits_as_long_as_it_is_asked_to(self, mirror, fetch, content):
        mirror.files['a.zip'] = content
        mirror.heads['a.zip'] = [Fault(status=429, headers={'Retry-After': '60'})]
        start = time.monotonic()
        assert fetch(policy=RetryPolicy(backoff=0.01, max_backoff=0.3))
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
        assert [path.name for path in tmp_path.iterdir()] == ['.verified.csv']

    def test_damage_on_the_way(self, mirror, fetch, content, tmp_path):
        """What was on the disk of a resumed file is part of the checksum."""
        mirror.headers = google_hash
        mirror.files['a.zip'] = content
        mirror.faults['a.zip'] = [Fault(drop_after=100_000)]
        with pytest.raises(Failure):
            fetch(policy=RetryPolicy(attempts=1))
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
        with pytest.raises(DownloadError, match=r'^http://127\.0\.0\.1:1: the server cannot be reached \(.*refused'):
            fetch()

    @pytest.mark.parametrize('resumed_from', [0, 1 << 20])
    def test_a_full_disk(self, mirror, fetch, content, tmp_path, resumed_from):
        mirror.files['a.zip'] = content
        message = r'a\.zip: cannot be written \(it grew beyond the largest file that is allowed here: .* free\)'
        with small_files(1000), pytest.raises(DownloadError, match=message):
            fetch(resumed_from=resumed_from)
        assert not (tmp_path / 'a.zip').exists()
        assert fetch(resumed_from=resumed_from)
        assert (tmp_path / 'a.zip').read_bytes() == content
        assert {path.name for path in tmp_path.iterdir()} == {'a.zip', '.verified.csv'}

    @pytest.mark.parametrize(
        'kind', ['file', 'link', 'link to nothing', 'recorded link', 'recorded hard link', 'folder']
    )
    def test_a_part_of_another_is_left_alone(self, mirror, fetch, content, tmp_path, kind):
        mirror.files['a.zip'] = content
        part, precious = tmp_path / '.a.zip.partial', tmp_path / 'precious'
        if kind != 'link to nothing':
            precious.write_bytes(content[:1000])
        if kind == 'file':
            precious.rename(part)
        elif kind == 'folder':
            part.mkdir()
        elif kind == 'recorded hard link':
            part.hardlink_to(precious)
        else:
            part.symlink_to('precious')
        if kind.startswith('recorded'):
            (tmp_path / '.verified.csv').write_text('.a.zip.partial,,,"v-1"\n')
        with pytest.raises(
            DownloadError, match=r'\.a\.zip\.partial: has the name of a part of a download, and is none'
        ):
            fetch()
        assert os.path.lexists(part)
        kept = part if kind == 'file' else precious
        assert kind == 'link to nothing' or kept.read_bytes() == content[:1000]
        assert kind != 'link to nothing' or not precious.exists()

    def test_stops_when_told(self, mirror, fetch, content, tmp_path):
        mirror.files['a.zip'] = content
        mirror.faults['a.zip'] = [Fault(status=500)]
        stop = threading.Event()
        threading.Timer(0.2, stop.set).start()
        start = time.monotonic()
        with pytest.raises(CancelledError):
            fetch(stop=stop, policy=RetryPolicy(backoff=300))
        assert time.monotonic() - start < 60


class TestOddServers:
    """Each is a failed attempt: nothing of it is kept, and nothing else comes out than a failure."""

    @pytest.mark.parametrize(
        'headers',
        [
            {'Content-Length': '²'},
            {'Content-Length': '9' * 5000},
            {'Content-Length': '-1'},
            {'x-goog-hash': 'md5=AAA'},
            {'x-goog-hash': 'md5=%%%%'},
            {'x-goog-hash': 'crc32c=²'},
        ],
    )
    def test_a_header_without_sense(self, mirror, fetch, content, tmp_path, headers):
        mirror.files['a.zip'] = content
        mirror.headers = lambda path, _: headers
        with pytest.raises(Failure, match='header without sense'):
            fetch()
        assert len(mirror.requests) == HURRIED.attempts
        assert not (tmp_path / 'a.zip').exists()

    @pytest.mark.parametrize(
        'headers', [{'Content-Length': '²'}, {'Content-Length': '9' * 5000}, {'Content-Range': 'bytes ²-3/4'}]
    )
    def test_a_header_without_sense_with_the_bytes(self, mirror, fetch, content, tmp_path, headers):
        mirror.files['a.zip'] = content
        mirror.faults['a.zip'] = [Fault(drop_after=100_000), Fault(headers=headers)]
        assert fetch()
        assert (tmp_path / 'a.zip').read_bytes() == content
        assert len(mirror.gets('a.zip')) == 3

    @pytest.mark.parametrize('value', ['²', '9' * 5000, '-1', 'soon', 'Wed, 21 Oct 2026 07:28:00 GMT'])
    def test_a_time_to_wait_without_sense(self, mirror, fetch, content, value):
        mirror.files['a.zip'] = content
        mirror.heads['a.zip'] = [Fault(status=503, headers={'Retry-After': value})]
        start = time.monotonic()
        assert fetch(policy=RetryPolicy(backoff=0.01))
        assert time.monotonic() - start < 30

    @pytest.mark.parametrize('headers', [{}, {'Content-Range': 'bytes 100000-300000/300001'}])
    @pytest.mark.parametrize('drop_after', [100_000, None])
    def test_a_body_longer_than_promised(self, mirror, fetch, content, tmp_path, drop_after, headers):
        mirror.files['a.zip'] = content
        mirror.faults['a.zip'] = [Fault(drop_after=drop_after)] if drop_after else []
        mirror.faults['a.zip'] += [Fault(extra=10, headers=headers)]
        assert fetch()
        assert (tmp_path / 'a.zip').read_bytes() == content

    @pytest.mark.parametrize('location', ['file:///etc/passwd', 'ftp://127.0.0.1/a.zip', 'data:,x'])
    def test_a_redirect_away_from_the_web(self, mirror, fetch, content, tmp_path, location):
        mirror.files['a.zip'] = content
        mirror.heads['a.zip'] = [Fault(status=302, headers={'Location': location})]
        with pytest.raises(Failure) as caught:
            fetch()
        assert not caught.value.again
        assert not (tmp_path / 'a.zip').exists()

    @pytest.mark.parametrize('location', ['file:///etc/passwd', 'ftp://127.0.0.1/a.zip'])
    def test_a_redirect_of_the_bytes_away_from_the_web(self, mirror, fetch, content, tmp_path, location):
        mirror.files['a.zip'] = content
        mirror.always['a.zip'] = Fault(status=302, headers={'Location': location})
        with pytest.raises(Failure):
            fetch()
        assert not (tmp_path / 'a.zip').exists()

    @pytest.mark.parametrize('at_once', [True, False])
    @pytest.mark.parametrize('location', ['http://127.0.0.1:1/a.zip', 'ftp://127.0.0.1/a.zip', 'file:///etc/passwd'])
    def test_a_redirect_from_https_stays_there(self, tls_mirror, fetch, content, tmp_path, location, at_once):
        tls_mirror.files['a.zip'] = content
        fault = Fault(status=302, headers={'Location': location})
        tls_mirror.heads['a.zip'], tls_mirror.always['a.zip'] = [fault] if at_once else [], fault
        message = 'redirected from https to http:.*, which is not encrypted'
        with pytest.raises(Failure, match=message if at_once and location.startswith('http') else None):
            fetch()
        assert not (tmp_path / 'a.zip').exists()

    def test_a_redirect_within_https(self, tls_mirror, fetch, content, tmp_path):
        tls_mirror.files['b.zip'] = tls_mirror.files['a.zip'] = content
        fault = Fault(status=302, headers={'Location': f'{tls_mirror.url}b.zip'})
        tls_mirror.heads['a.zip'], tls_mirror.always['a.zip'] = [fault], fault
        assert fetch()
        assert (tmp_path / 'a.zip').read_bytes() == content

    @pytest.mark.parametrize('status', [301, 302, 307, 308])
    def test_a_redirect_within_the_web(self, mirror, fetch, content, tmp_path, status):
        mirror.files['b.zip'] = mirror.files['a.zip'] = content
        fault = Fault(status=status, headers={'Location': f'{mirror.url}b.zip'})
        mirror.heads['a.zip'], mirror.always['a.zip'] = [fault], fault
        assert fetch()
        assert (tmp_path / 'a.zip').read_bytes() == content
