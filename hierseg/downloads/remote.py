"""Asking a server for a file, or for the rest of one; everything that can go wrong becomes a :class:`Failure`."""

from __future__ import annotations

import http.client
import re
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from typing import Any
from urllib.parse import urlsplit

from hierseg import __version__
from hierseg.downloads.checksums import Checksum, published_checksum
from hierseg.downloads.patience import Patience, RateWatch
from hierseg.errors import DownloadError

CHUNK_BYTES = 1 << 18
RETRIED = frozenset({408, 416, 429, 500, 502, 503, 504})
HEAD_REFUSED = frozenset({405, 501})


class Failure(Exception):
    """A file that could not be had; asking again is of no use.

    Attributes:
        status: HTTP status, 0 if there was none.
        retry_after: Seconds that the server asks to wait.
    """

    def __init__(self, why: str, *, status: int = 0, retry_after: float = 0.0) -> None:
        super().__init__(why)
        self.status, self.retry_after = status, retry_after


class Transient(Failure):
    """It may work the next time."""


class Corrupt(Transient):
    """The whole file arrived, and it is not the published one."""


class Unreachable(Transient):
    """No connection to the server: not the file's fault."""


@dataclass(frozen=True)
class RemoteFile:
    """What the headers say of a file.

    Attributes:
        size: Bytes of the whole file; None if unknown.
        etag: As sent, '' if there is none.
        modified: ``Last-Modified`` as sent, '' if there is none.
        checksum: Of the whole file, if published.
    """

    size: int | None = None
    etag: str = ''
    modified: str = ''
    checksum: Checksum | None = None

    @property
    def validator(self) -> str:
        """What names this version of the file to its server; '' if nothing does."""
        return self.modified if not self.etag or self.etag.startswith('W/') else self.etag

    def is_version_of(self, other: RemoteFile) -> bool:
        """Whether nothing that both say differs, and something names the version."""
        pairs = [(self.size, other.size), (self.etag, other.etag), (self.modified, other.modified)]
        same = all(ours == theirs for ours, theirs in pairs if ours and theirs)
        return same and bool(self.validator and other.validator)


@dataclass(frozen=True)
class Answer:
    """An answer with a body.

    Attributes:
        file: What the headers say.
        start: Bytes of the file before the first one of the body.
    """

    file: RemoteFile
    start: int
    _body: http.client.HTTPResponse
    _patience: Patience

    def chunks(self) -> Iterator[bytes]:
        """The body, as it comes in.

        Raises:
            Transient: If it stops, drips or ends early.
        """
        position, watch = self.start, RateWatch(self._patience)
        while True:
            with _network_faults():
                chunk = self._body.read1(CHUNK_BYTES)
            if not chunk:
                break
            position += len(chunk)
            yield chunk
            if watch.is_too_slow(len(chunk)):
                raise Transient(f'slower than {self._patience.min_rate:g} bytes/s for {self._patience.rate_window:g} s')
        if self.file.size is not None and position != self.file.size:
            raise Transient(f'the body ended after {position:,} of {self.file.size:,} bytes')


class Client:
    """Sends requests; safe to share between threads. Proxies are those of the environment."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._opener = urllib.request.build_opener()

    def head(self, address: str) -> RemoteFile:
        """What the server says of a file; nothing if it answers no such questions.

        Raises:
            Failure: If there is no such file, or the server fails.
        """
        try:
            with self._open(address, 'HEAD', {}) as answer:
                return answer.file
        except Failure as failure:
            if failure.status in HEAD_REFUSED:
                return RemoteFile()
            raise

    @contextmanager
    def get(self, address: str, *, start: int = 0, version: RemoteFile | None = None) -> Iterator[Answer]:
        """Asks for a file, or for what comes after its first ``start`` bytes if it is still this version.

        The answer says where its body starts: servers may send the whole file all the same.

        Raises:
            Failure: If the server does not answer with the file.
        """
        headers = {'Range': f'bytes={start}-'} if start else {}
        if start and version is not None:
            headers['If-Range'] = version.validator
        with self._open(address, 'GET', headers) as answer:
            yield answer

    def require_server(self, address: str) -> None:
        """Any answer will do.

        Raises:
            DownloadError: If nothing answers there.
        """
        try:
            self.head(address)
        except Unreachable as failure:
            raise unreachable(address, failure) from None
        except Failure:
            return

    @contextmanager
    def _open(self, address: str, method: str, headers: dict[str, str]) -> Iterator[Answer]:
        headers = {'User-Agent': f'hierseg/{__version__}', 'Accept-Encoding': 'identity', **headers}
        request = urllib.request.Request(address, headers=headers, method=method)
        with _network_faults():
            body = self._opener.open(request, timeout=self._patience.timeout)
        with body:
            yield _answer(body, self._patience)


def unreachable(address: str, failure: Failure) -> DownloadError:
    """The error for a server that cannot be reached."""
    parts = urlsplit(address)
    return DownloadError(
        f'the server cannot be reached ({failure})',
        where=f'{parts.scheme}://{parts.netloc}',
        fix='Is there a network? HTTPS_PROXY names a proxy, --base-url and --images-url name mirrors. '
        'What is there already is kept: the same command goes on from it.',
    )


def _answer(body: Any, patience: Patience) -> Answer:
    headers: Message = body.headers
    encoding = headers.get('Content-Encoding', 'identity')
    if encoding != 'identity':
        raise Failure(f'the server sends it compressed ({encoding}), which was not asked for')
    size: int | None = int(headers['Content-Length']) if headers.get('Content-Length', '').isdigit() else None
    start = 0
    if body.status == 206:
        place = re.fullmatch(r'bytes (\d+)-\d+/(\d+|\*)', headers.get('Content-Range', ''))
        if place is None:
            raise Failure(f'a part of the file from nobody knows where: {headers.get("Content-Range")!r}')
        start, size = int(place[1]), None if place[2] == '*' else int(place[2])
    file = RemoteFile(size, headers.get('ETag', ''), headers.get('Last-Modified', ''), published_checksum(headers))
    return Answer(file, start, body, patience)


@contextmanager
def _network_faults() -> Iterator[None]:
    """Turns whatever the standard library raises over a connection into a :class:`Failure`."""
    try:
        yield
    except urllib.error.HTTPError as error:
        error.close()
        raise _refusal(error) from None
    except urllib.error.URLError as error:
        raise _no_connection(error.reason) from None
    except TimeoutError:
        raise Transient('the server sent nothing for too long') from None
    except (OSError, http.client.HTTPException) as error:
        raise Transient(f'the connection broke ({str(error) or type(error).__name__})') from None


def _refusal(error: urllib.error.HTTPError) -> Failure:
    wait = error.headers.get('Retry-After', '')
    kind = Transient if error.code in RETRIED else Failure
    return kind(f'{error.code} {error.reason}', status=error.code, retry_after=float(wait) if wait.isdigit() else 0.0)


def _no_connection(reason: object) -> Failure:
    if isinstance(reason, ssl.SSLCertVerificationError):
        return Failure(f'the certificate of the server is not valid ({reason.verify_message})')
    if isinstance(reason, socket.gaierror | TimeoutError | ConnectionRefusedError):
        return Unreachable(getattr(reason, 'strerror', None) or str(reason) or 'no answer in time')
    # What is left of OSError before a request is out is a missing route; a reset comes from a server that is there.
    if isinstance(reason, OSError) and not isinstance(reason, ConnectionError | ssl.SSLError):
        return Unreachable(reason.strerror or str(reason))
    return Transient(f'the connection broke ({reason})')
