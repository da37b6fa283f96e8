"""A web server in this process that serves files from memory and misbehaves as it is told."""

from __future__ import annotations

import base64
import hashlib
import re
import ssl
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from hierseg.downloads import RetryPolicy

PIECE = 1 << 14
NOTHING: Mapping[str, str] = {}
HURRIED = RetryPolicy(timeout=0.4, min_rate=1000, rate_window=0.3, attempts=3, backoff=0.01, max_backoff=0.05)


@dataclass
class Request:
    """What was asked and what of the body was sent."""

    method: str
    path: str
    range: str
    sent: int = 0


@dataclass
class Fault:
    """How one request for a path goes wrong.

    Attributes:
        status: Answer with this instead.
        headers: Sent with it.
        drop_after: Bytes of the body after which the connection is closed.
        pause: Seconds before each byte.
        pause_piece: Seconds before each piece of ``PIECE`` bytes.
        wait_after: Bytes of the body after which ``go_on`` is waited for.
        extra: Bytes of the body beyond the promised ones.
        silent: Send no answer at all until ``go_on``.
    """

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    drop_after: int | None = None
    pause: float = 0.0
    pause_piece: float = 0.0
    wait_after: int | None = None
    extra: int = 0
    silent: bool = False
    go_on: threading.Event = field(default_factory=threading.Event)


class Mirror:
    """Files by path.

    Attributes:
        files: Path without the leading slash → content.
        faults: Path → what goes wrong with the next GETs, one each; then all is well.
        heads: Path → what goes wrong with the next HEADs.
        always: Path → what goes wrong with every GET.
        after_head: Path → content that takes the place of a file once a HEAD is answered.
        requests: All of them, in order.
        ranges: Whether Range is honoured.
        conditions: Whether If-Match is; a server that ignores it sends the rest of whatever is there now.
        etags: Whether ETags are sent.
        head: Whether HEAD is answered.
        headers: Path, content → headers that are added, or take the place of the usual; none by default.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.faults: dict[str, list[Fault]] = defaultdict(list)
        self.heads: dict[str, list[Fault]] = defaultdict(list)
        self.always: dict[str, Fault] = {}
        self.after_head: dict[str, bytes] = {}
        self.requests: list[Request] = []
        self.ranges = self.conditions = self.etags = self.head = True
        self.headers: Callable[[str, bytes], dict[str, str]] = lambda path, content: {}
        self.url = ''

    def sent(self, path: str) -> int:
        """Bytes of bodies sent of a path."""
        return sum(request.sent for request in self.requests if request.path == path)

    def gets(self, path: str) -> list[Request]:
        return [request for request in self.requests if request.path == path and request.method == 'GET']


def google_hash(path: str, content: bytes) -> dict[str, str]:
    """What Google Cloud Storage publishes."""
    digest = base64.b64encode(hashlib.md5(content).digest()).decode()
    return {'x-goog-hash': f'crc32c=AAAAAA==,md5={digest}'}


@contextmanager
def serving(mirror: Mirror, *, certificate: Path | None = None) -> Iterator[Mirror]:
    """Serves on a free port of this machine; over TLS with a file that has certificate and key."""

    class Handler(_Handler):
        pass

    Handler.mirror = mirror
    server = _Server(('127.0.0.1', 0), Handler)
    mirror.url = f'http{"s" if certificate else ""}://127.0.0.1:{server.server_port}/'
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01))
    thread.start()
    try:
        yield mirror
    finally:
        for fault in [*mirror.always.values(), *(fault for faults in mirror.faults.values() for fault in faults)]:
            fault.go_on.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # as many workers may come at once


class _Handler(BaseHTTPRequestHandler):
    mirror: Mirror
    protocol_version = 'HTTP/1.1'
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None:
        """Keeps quiet."""

    def do_HEAD(self) -> None:
        request = self._note()
        heads = self.mirror.heads[request.path]
        fault = heads.pop(0) if heads else Fault()
        if fault.status or not self.mirror.head:
            self._refuse(fault.status or 405, fault.headers)
        elif (content := self.mirror.files.get(self.path[1:])) is None:
            self._refuse(404, {})
        else:
            self._answer(200, content, content, '')
            if request.path in self.mirror.after_head:
                self.mirror.files[request.path] = self.mirror.after_head.pop(request.path)

    def do_GET(self) -> None:
        request = self._note()
        faults = self.mirror.faults[request.path]
        fault = faults.pop(0) if faults else self.mirror.always.get(request.path, Fault())
        content = self.mirror.files.get(request.path)
        if fault.silent:
            fault.go_on.wait()
            self.close_connection = True
        elif fault.status or content is None:
            self._refuse(fault.status or 404, fault.headers)
        elif self.mirror.conditions and self.headers.get('If-Match', self._etag(content)) != self._etag(content):
            self._refuse(412, {})
        else:
            start = self._start(content)
            if start >= len(content) > 0:
                self._refuse(416, {})
                return
            place = f'bytes {start}-{len(content) - 1}/{len(content)}' if start else ''
            body = content[start:] + bytes(fault.extra)
            self._answer(206 if start else 200, content, body, place, fault.headers)
            self._send(body, fault, request)

    def _note(self) -> Request:
        request = Request(self.command, self.path[1:], self.headers.get('Range', ''))
        self.mirror.requests.append(request)
        return request

    def _start(self, content: bytes) -> int:
        asked = re.fullmatch(r'bytes=(\d+)-', self.headers.get('Range', ''))
        if asked is None or not self.mirror.ranges:
            return 0
        return int(asked[1])

    def _answer(self, status: int, content: bytes, body: bytes, place: str, odd: Mapping[str, str] = NOTHING) -> None:
        self.send_response(status)
        headers = {'Content-Length': str(len(body)), 'Last-Modified': self._modified(content)}
        headers |= {'ETag': self._etag(content)} if self.mirror.etags else {}
        headers |= {'Content-Range': place} if place else {}
        for name, value in (headers | self.mirror.headers(self.path[1:], content) | odd).items():
            self.send_header(name, value)
        self.end_headers()

    def _send(self, body: bytes, fault: Fault, request: Request) -> None:
        step = 1 if fault.pause else PIECE
        end = len(body) if fault.drop_after is None else fault.drop_after
        if fault.wait_after is not None:
            self.wfile.write(body[: fault.wait_after])
            request.sent = fault.wait_after
            fault.go_on.wait()
        try:
            while request.sent < end:
                time.sleep(fault.pause or fault.pause_piece)
                piece = body[request.sent : min(request.sent + step, end)]
                self.wfile.write(piece)
                request.sent += len(piece)
        except OSError:
            self.close_connection = True  # the client went away
        if end < len(body):
            self.close_connection = True

    def _refuse(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header('Content-Length', '0')
        self.end_headers()

    @staticmethod
    def _etag(content: bytes) -> str:
        return f'"v-{hashlib.sha1(content).hexdigest()}"'

    def _modified(self, content: bytes) -> str:
        return self.date_time_string(1_500_000_000 + hashlib.sha1(content).digest()[0])
