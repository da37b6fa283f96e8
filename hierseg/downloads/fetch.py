"""Files from servers to a folder: resumed, verified, whole or not there.

Bytes come by obstore, which keeps connections and checks lengths. It shows neither all headers nor what a server asks
for when it refuses, so that a HEAD of the standard library goes first: for verdict, version and checksum.
"""

from __future__ import annotations

import csv
import hashlib
import http.client
import io
import os
import random
import re
import ssl
import stat
import threading
import time
import urllib.error
import urllib.request
from base64 import b64decode
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import CancelledError, ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from email.message import Message
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypeVar
from urllib.parse import unquote, urlsplit

import google_crc32c
import obstore
from obstore.exceptions import BaseError, NotSupportedError
from obstore.store import HTTPStore
from tqdm import tqdm

from hierseg import __version__
from hierseg.errors import DownloadError
from hierseg.files import csv_text, disk_faults, make_folder, whole_path

if TYPE_CHECKING:
    from obstore import GetOptions, ObjectMeta
    from obstore.store import ClientConfig

Item = TypeVar('Item')
Result = TypeVar('Result')

HEADERS = {'User-Agent': f'hierseg/{__version__}', 'Accept-Encoding': 'identity'}
RETRIED = frozenset({408, 429, 500, 502, 503, 504})
RESUMED_FROM_BYTES = 1 << 20  # smaller files come in one piece: a line about each would cost more than it saves


@dataclass(frozen=True)
class RetryPolicy:
    """Time limits and retries; times are seconds."""

    timeout: float = 30.0  # without a byte, after which a connection is given up
    min_rate: float = 1024.0  # bytes a second, below which it is given up
    rate_window: float = 60.0  # over which that rate is taken
    attempts: int = 8  # that get no further with a file; at least 1
    backoff: float = 1.0  # before the second attempt, doubled before each further one
    max_backoff: float = 60.0

    def pause(self, failures: int, *, asked_for: float, jitter: random.Random) -> float:
        """Seconds to wait after failures in a row; jitter keeps workers that failed together from coming back so."""
        longest = min(self.max_backoff, self.backoff * 2.0 ** min(failures - 1, 64))
        return max(longest * jitter.uniform(0.5, 1.0), min(asked_for, self.max_backoff))


class Failure(Exception):
    """A file that could not be had; it may work ``again`` after some seconds, with what is there of it or ``anew``."""

    def __init__(self, why: str, *, again: bool = True, after: float = 0.0, anew: bool = False) -> None:
        super().__init__(why)
        self.again, self.after, self.anew = again, after, anew


class Corrupt(Failure):
    """A whole file that is not the published one."""


class Unreachable(Failure):
    """A server without a connection to it: not the file's fault."""


@dataclass(frozen=True)
class Download:
    """A file to have: its path below the root folder, and its address."""

    name: str
    address: str


@dataclass
class Outcome:
    """Numbers of files that came and that were there, of bytes that came, and why other files could not be had."""

    num_fetched: int = 0
    num_there: int = 0
    num_bytes: int = 0
    failed: dict[Download, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RemoteFile:
    """A file as the headers of its server describe it: '' and None where they say nothing."""

    size: int | None
    etag: str
    modified: str
    algorithm: str
    digest: bytes

    @classmethod
    def of(cls, headers: Message) -> RemoteFile:
        """Reads headers; one without sense is a ValueError.

        - Google Cloud Storage: ``x-goog-hash: crc32c=…,md5=…`` in base64, of the content as stored; it is not of the
          content as sent if that was stored compressed. Files that were uploaded in parts have no MD5.
        - Amazon S3 and its like: an ETag of 32 hex digits is the MD5, unless the file was encrypted with keys of a
          customer; one with a hyphen is of a file uploaded in parts. Other servers make ETags as they please.
        """
        length, etag = headers.get('Content-Length'), headers.get('ETag', '')
        if length is not None and not re.fullmatch('[0-9]{1,18}', length):
            raise ValueError(f'Content-Length: {length[:20]}')
        algorithm, digest = '', b''
        if headers.get('x-goog-stored-content-encoding', 'identity') == 'identity':
            published = dict(re.findall(r'(\w+)=([^\s,]+)', ','.join(headers.get_all('x-goog-hash', []))))
            for algorithm in [name for name in ('crc32c', 'md5') if name in published]:  # MD5 if there are both
                digest = b64decode(published[algorithm], validate=True)
        encrypted = headers.get('x-amz-server-side-encryption', 'AES256') != 'AES256'
        encrypted |= 'x-amz-server-side-encryption-customer-algorithm' in headers
        if 'x-amz-request-id' in headers and not encrypted and re.fullmatch('"[0-9a-f]{32}"', etag):
            algorithm, digest = 'md5', bytes.fromhex(etag.strip('"'))
        size = None if length is None else int(length)
        return cls(size, etag, headers.get('Last-Modified', ''), algorithm, digest)

    @property
    def validator(self) -> str:
        """Name of this version of the file to its server; '' if nothing names it."""
        return self.modified if not self.etag or self.etag.startswith('W/') else self.etag

    def is_described_by(self, meta: ObjectMeta) -> bool:
        """Tells whether an answer is of this version; servers may ignore If-Match."""
        if self.etag and meta['e_tag']:
            return self.etag == meta['e_tag'] and self.size in (None, meta['size'])
        same_time = not self.modified or parsedate_to_datetime(self.modified) == meta['last_modified']
        return same_time and self.size in (None, meta['size'])

    def fits(self, path: Path) -> bool:
        """Tells whether a file is there with this size and checksum, as far as they are known."""
        if not path.is_file() or self.size not in (None, path.stat().st_size):
            return False
        hasher = google_crc32c.Checksum() if self.algorithm == 'crc32c' else hashlib.md5(usedforsecurity=False)  # type: ignore[no-untyped-call]
        with path.open('rb') as file:
            while self.algorithm and (block := file.read(1 << 20)):
                hasher.update(block)
        return not self.algorithm or bool(hasher.digest() == self.digest)


class VerifiedFiles:
    """Record of the files that were found whole, so that the next run need not ask for each of a million.

    It grows by a line for each: path, size, time of change, version; without size and time for a part to go on from.
    A file that changed since is no longer known. A line that a killed process cut off spoils no other.
    """

    def __init__(self, root: Path) -> None:
        self._root, self._path, self._lock = root, root / '.verified.csv', threading.Lock()
        text = self._path.read_text(encoding='utf-8', errors='replace') if self._path.exists() else ''
        self._known = {name: rest for name, *rest in filter(None, csv.reader(io.StringIO(text)))}
        if text and not text.endswith('\n'):
            with open(self._path, 'a', opener=_without_links) as file:
                file.write('\n')

    def version(self, name: str) -> str | None:
        """Version of a file when it was recorded; None if it is not there as it was then."""
        *state, version = self._known.get(name) or ['']
        return version if (self._root / name).is_file() and state == self._state(name) else None

    def forget(self, name: str) -> None:
        """Lets a file be unknown until it is recorded again."""
        self._known.pop(name, None)

    def has(self, name: str) -> bool:
        """Tells whether a file or a part was ever recorded, whatever became of it."""
        return name in self._known

    def record(self, name: str, version: str) -> None:
        """Takes note of a verified file, or of a part."""
        with self._lock, open(self._path, 'a', encoding='utf-8', newline='', opener=_without_links) as file:
            self._known[name] = [*self._state(name), version]
            file.write(csv_text([[name, *self._known[name]]]))

    def _state(self, name: str) -> list[str]:
        if name.endswith('.partial'):
            return ['', '']
        status = (self._root / name).stat()
        return [str(status.st_size), str(status.st_mtime_ns)]


class Fetcher:
    """Fetches files into a folder; its methods may run in many threads, each on another file.

    Bytes of large files are appended to ``.name.partial`` as they arrive, which is recorded before it is made. At any
    moment the process may be killed: the file itself appears when it is whole and verified. With ``recheck``, even what
    was verified before is compared with its server.
    """

    def __init__(self, root: Path, *, policy: RetryPolicy, recheck: bool = False, workers: int = 1) -> None:
        self.stop = threading.Event()  # ends all methods soon after it is set
        self._root, self._policy, self._recheck, self._workers = root, policy, recheck, workers
        self._jitter = random.Random()
        self._stores: dict[str, HTTPStore] = {}
        self._opener = urllib.request.OpenerDirector()
        # Those for ftp and local files are missing: no server may send us there.
        for kind in ('Proxy', 'HTTP', 'HTTPS', 'Unknown', 'HTTPDefaultError'):
            self._opener.add_handler(getattr(urllib.request, f'{kind}Handler')())
        self._opener.add_handler(GuardedRedirects())
        self._opener.add_handler(urllib.request.HTTPErrorProcessor())
        with disk_faults(root, error=DownloadError):
            self._verified = VerifiedFiles(root)

    def _ask(self, address: str, method: str = 'HEAD') -> RemoteFile:
        request = urllib.request.Request(address, headers=HEADERS, method=method)
        try:
            with self._opener.open(request, timeout=self._policy.timeout) as answer:
                return RemoteFile.of(answer.headers)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code in (405, 501) and method == 'HEAD':
                return self._ask(address, 'GET')
            raise _refusal(error.code, error.reason, error.headers.get('Retry-After', '')) from None
        except urllib.error.URLError as error:
            reason = error.reason
            if isinstance(reason, str | ssl.SSLCertVerificationError):  # away from the web, or not the server
                raise Failure(str(reason), again=False) from None
            # A reset comes from a server that is there; other faults before a request is out are those of the way.
            if isinstance(reason, ConnectionResetError | ssl.SSLError):
                raise Failure(f'the connection broke ({reason})') from None
            raise Unreachable(getattr(reason, 'strerror', None) or str(reason) or 'no answer in time') from None
        except (OSError, http.client.HTTPException) as error:
            raise Failure(f'the connection broke ({str(error) or type(error).__name__})') from None
        except ValueError as error:
            raise Failure(f'the server sent a header without sense ({error})') from None

    def ask(self, address: str, *, attempts: int | None = None) -> RemoteFile:
        """Asks a server for the description of a file; :class:`Failure` and :class:`DownloadError` as for fetching."""
        return self._patiently(address, lambda: self._ask(address), attempts or self._policy.attempts)

    def is_known(self, name: str) -> bool:
        """Tells whether a file is there and nobody need be asked about it."""
        return not self._recheck and self._verified.version(name) is not None

    def is_whole(self, name: str, remote: RemoteFile) -> bool:
        """Compares a file that is there with its server's, and records the verdict."""
        known = self._verified.version(name)
        if not self._recheck and remote.validator and known == remote.validator:
            return True
        # Where a size is all there is to go by, a file that was recorded under another version has changed.
        comparable = remote.algorithm or (remote.size is not None and known in (None, remote.validator))
        with disk_faults(self._root / name, error=DownloadError):
            if comparable and remote.fits(self._root / name):
                self._verified.record(name, remote.validator)
                return True
        self._verified.forget(name)
        return False

    def num_there(self, name: str, remote: RemoteFile) -> int:
        """Bytes of this version of a file that have arrived and can be gone on from."""
        part = _part(name)
        is_ours = _is_own(self._root / part) and self._verified.version(part) == remote.validator != ''
        num_bytes = (self._root / part).stat().st_size if is_ours else 0
        return num_bytes if num_bytes <= (remote.size or 0) else 0

    def fetch(self, file: Download, count: Callable[[int], None]) -> bool:
        """Sees to it that a file is there, whole; tells whether it had to come, and ``count`` of bytes as they come.

        Raises:
            Failure: If it cannot be had, after all retries. What has arrived is kept.
            DownloadError: If its server cannot be reached, or the disk cannot be written.
            CancelledError: If ``stop`` is set.
        """
        if self.is_known(file.name):
            return False
        part = self._root / _part(file.name)
        return self._patiently(file.address, lambda: self._attempt(file, count), self._policy.attempts, part=part)

    def _patiently(
        self, address: str, action: Callable[[], Result], attempts: int, *, part: Path | None = None
    ) -> Result:
        """Repeats an action while it fails and may yet work; a part that is longer than ever resets the count."""
        failures, furthest, was_corrupt = 0, _size(part), False
        while not self.stop.is_set():
            try:
                return action()
            except Failure as failure:
                failures = 1 if _size(part) > furthest else failures + 1
                furthest = max(furthest, _size(part))
                is_over = failures >= attempts or not failure.again or (was_corrupt and isinstance(failure, Corrupt))
                if is_over and isinstance(failure, Unreachable):
                    raise DownloadError(
                        f'the server cannot be reached ({failure})',
                        where='{0.scheme}://{0.netloc}'.format(urlsplit(address)),
                        fix='Is there a network? HTTPS_PROXY names a proxy, --base-url and --images-url name mirrors. '
                        'What is there already is kept: the same command goes on from it.',
                    ) from None
                if is_over:
                    raise
                was_corrupt |= isinstance(failure, Corrupt)
                self.stop.wait(self._policy.pause(failures, asked_for=failure.after, jitter=self._jitter))
        raise CancelledError

    def _attempt(self, file: Download, count: Callable[[int], None]) -> bool:
        remote, path, part = self._ask(file.address), self._root / file.name, self._root / _part(file.name)
        if self.is_whole(file.name, remote):
            return False
        make_folder(path.parent, error=DownloadError)
        if (remote.size or 0) < RESUMED_FROM_BYTES:
            with whole_path(path, error=DownloadError) as part:
                self._fill(part, file.address, remote, count)
        else:
            with disk_faults(path, error=DownloadError):
                part = self._begun(file.name, remote)
                try:
                    self._fill(part, file.address, remote, count)
                except Failure as failure:
                    if failure.anew:
                        part.unlink()
                    raise
                with part.open('rb') as data:
                    os.fsync(data.fileno())
                part.replace(path)
        with disk_faults(path, error=DownloadError):
            self._verified.record(file.name, remote.validator)
        return True

    def _begun(self, name: str, remote: RemoteFile) -> Path:
        """The part of a large file to go on with, new and empty if nothing of this version is there."""
        part = self._root / _part(name)
        if self.num_there(name, remote):
            return part
        if os.path.lexists(part):
            if not (self._verified.has(_part(name)) and _is_own(part)):
                fix = 'Look what it is, and move it away.'
                raise DownloadError('has the name of a part of a download, and is none', where=str(part), fix=fix)
            part.unlink()
        # Recorded first: what a kill leaves is known to be ours.
        self._verified.record(_part(name), remote.validator)
        with open(part, 'xb', opener=_without_links):
            return part

    def _fill(self, part: Path, address: str, remote: RemoteFile, count: Callable[[int], None]) -> None:
        """Fetches what is missing of a part, and compares the whole with its checksum."""
        if not remote.size or part.stat().st_size != remote.size:
            self._receive(address, remote, part, count)
        if not remote.fits(part):
            raise Corrupt(f'its {remote.algorithm} is not the published {remote.digest.hex()}', anew=True)

    def _receive(self, address: str, remote: RemoteFile, part: Path, count: Callable[[int], None]) -> None:
        """Appends to a part what is missing of it."""
        position, began, arrived = part.stat().st_size, time.monotonic(), 0
        with open(part, 'ab', opener=_without_links) as out:
            for chunk in self._chunks(address, remote, position):
                position, arrived = position + len(chunk), arrived + len(chunk)
                if remote.size is not None and position > remote.size:
                    raise Failure(f'the body is longer than the {remote.size:,} bytes that were promised', anew=True)
                out.write(chunk)
                out.flush()  # what the kernel has survives a kill
                count(len(chunk))
                if self.stop.is_set():
                    raise CancelledError
                if (seconds := time.monotonic() - began) >= self._policy.rate_window:
                    if arrived < self._policy.min_rate * seconds:
                        raise Failure(f'slower than {self._policy.min_rate:g} bytes/s for {seconds:.0f} s')
                    began, arrived = time.monotonic(), 0
        if remote.size not in (None, position):
            raise Failure(f'the body ended after {position:,} of {remote.size:,} bytes')

    def _chunks(self, address: str, remote: RemoteFile, start: int) -> Iterator[bytes]:
        """Gives what comes after the first ``start`` bytes of this version of a file."""
        options: GetOptions = {'range': {'offset': start}} if start else {}
        if remote.validator == remote.etag != '':
            options['if_match'] = remote.etag
        url, limit = urlsplit(address), timedelta(seconds=self._policy.timeout)
        server = f'{url.scheme}://{url.netloc}'
        try:
            if server not in self._stores:
                # The limit of 30 s for a whole body must go; the one for silence stands in for it.
                client: ClientConfig = {'connect_timeout': limit, 'read_timeout': limit, 'timeout': timedelta(days=365)}
                client |= {'allow_http': url.scheme == 'http', 'default_headers': HEADERS}  # not even by a redirect
                self._stores[server] = HTTPStore(server, client_options=client, retry_config={'max_retries': 0})
            answer = obstore.get(self._stores[server], unquote(url.path[1:]), options=options)
            if (encoding := answer.attributes.get('Content-Encoding', 'identity')) != 'identity':
                raise Failure(f'the server sends it compressed ({encoding}), unasked', again=False)
            if not remote.is_described_by(answer.meta):
                raise Failure('the file changed on the server while it was fetched', anew=True)
            yield from answer.stream(min_chunk_size=1)
        except NotSupportedError:
            raise Failure('the server sends only whole files', anew=True) from None
        except (BaseError, OSError, ValueError) as error:  # only its words tell what it was
            if status := re.search(r'status code: (\d{3}) ([^:\n]*)', str(error)):
                raise _refusal(int(status[1]), status[2]) from None
            why = 'sent nothing for too long' if 'TimedOut' in str(error) else f'failed ({str(error).splitlines()[0]})'
            raise Failure(f'the server {why}') from None

    def fetch_all(self, files: Mapping[Download, int], outcome: Outcome, *, show_progress: bool) -> None:
        """Fetches files, of which about so many bytes are missing, in parallel; ``outcome`` is right at any moment."""
        lock, arrived = threading.Lock(), dict.fromkeys(files, 0)

        def fetch(file: Download) -> None:
            def count(num_bytes: int) -> None:
                with lock:
                    arrived[file] += num_bytes
                    outcome.num_bytes += num_bytes
                    bar.update(num_bytes)

            was_fetched, why = False, ''
            try:
                was_fetched = self.fetch(file, count)
            except Failure as failure:
                why = str(failure)
            with lock:
                bar.total = (bar.total or 0) + arrived[file] - files[file]
                outcome.num_fetched += was_fetched
                outcome.num_there += not was_fetched and not why
                if why:
                    outcome.failed[file] = why

        with tqdm(total=sum(files.values()), unit='B', unit_scale=True, disable=not show_progress) as bar:
            self.in_parallel(fetch, files)

    def in_parallel(self, work: Callable[[Item], None], items: Iterable[Item]) -> None:
        """Does some work on each of the items, in their order; what one raises ends them all."""
        left = iter([*items])  # of a list, whose iterator threads may share

        def run() -> None:
            while not self.stop.is_set() and (item := next(left, None)) is not None:
                work(item)

        pool = ThreadPoolExecutor(self._workers)
        try:
            for future in as_completed([pool.submit(run) for _ in range(self._workers)]):
                future.result()
        except BaseException as error:
            self.stop.set()
            # After Ctrl-C nobody waits for a silent server; what a thread was at is as safe as after a kill.
            pool.shutdown(wait=isinstance(error, Exception))
            raise
        pool.shutdown()


class GuardedRedirects(urllib.request.HTTPRedirectHandler):
    """Redirects within the web that do not give up encryption."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        """Follows a redirect, or not; see the base class."""
        if urlsplit(req.full_url).scheme == 'https' and urlsplit(newurl).scheme != 'https':
            raise urllib.error.URLError(f'redirected from https to {newurl}, which is not encrypted')
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _without_links(path: str, flags: int) -> int:
    """Opens a file for Python's ``open``, unless a link has its name."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)


def _is_own(part: Path) -> bool:
    """Tells whether there is a file that no link, of either kind, shares with another place."""
    with suppress(FileNotFoundError):
        status = part.lstat()
        return stat.S_ISREG(status.st_mode) and status.st_nlink == 1
    return False


def _part(name: str) -> str:
    folder, slash, file = name.rpartition('/')
    return f'{folder}{slash}.{file}.partial'


def _size(path: Path | None) -> int:
    return path.stat().st_size if path and path.exists() else 0


def _refusal(status: int, reason: str, retry_after: str = '') -> Failure:
    after = float(retry_after) if re.fullmatch('[0-9]{1,9}', retry_after) else 0.0
    changed = status in (412, 416)  # the version that was asked for is no longer there
    return Failure(f'{status} {reason}', again=changed or status in RETRIED, after=after, anew=changed)
