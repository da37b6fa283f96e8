"""A web server in this process that serves files from memory and misbehaves as it is told."""

from __future__ import annotations

import base64
import hashlib
import re
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from hierseg.downloads.patience import Patience

PIECE = 1 << 14
HURRIED = Patience(timeout=0.4, min_rate=1000, rate_window=0.3, attempts=3, backoff=0.01, max_backoff=0.05)


class PlainMeter:
    """Where a file stands, by what a meter is told."""

    def __init__(self) -> None:
        self.position = 0
        self.arrived = 0

    def at(self, position: int) -> None:
        self.position = position

    def add(self, num_bytes: int) -> None:
        self.position += num_bytes
        self.arrived += num_bytes


@dataclass
class Request:
    """What was asked and what of the body was sent."""

    method: str
    path: str
    range: str
    sent: int = 0


@dataclass
class Fault:
    """How one GET of a path goes wrong.

    Attributes:
        status: Answer with this instead.
        headers: Sent with it.
        drop_after: Bytes of the body after which the connection is closed.
        pause: Seconds before each byte.
        pause_piece: Seconds before each piece of ``PIECE`` bytes.
        wait_after: Bytes of the body after which ``go_on`` is waited for.
        silent: Send no answer at all until ``go_on``.
    """

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    drop_after: int | None = None
    pause: float = 0.0
    pause_piece: float = 0.0
    wait_after: int | None = None
    silent: bool = False
    go_on: threading.Event = field(default_factory=threading.Event)


class Mirror:
    """Files by path.

    Attributes:
        files: Path without the leading slash → content.
        faults: Path → what goes wrong with the next GETs, one each; then all is well.
        always: Path → what goes wrong with every GET.
        requests: All of them, in order.
        ranges: Whether Range is honoured.
        if_range: Whether If-Range is; a server that ignores it sends the rest of whatever is there now.
        etags: Whether ETags are sent.
        head: Whether HEAD is answered.
        headers: Path, content → headers with a checksum; none by default.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.faults: dict[str, list[Fault]] = defaultdict(list)
        self.always: dict[str, Fault] = {}
        self.requests: list[Request] = []
        self.ranges = self.if_range = self.etags = self.head = True
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
def serving(mirror: Mirror) -> Iterator[Mirror]:
    """Serves on a free port of this machine."""

    class Handler(_Handler):
        pass

    Handler.mirror = mirror
    server = _Server(('127.0.0.1', 0), Handler)
    mirror.url = f'http://127.0.0.1:{server.server_port}/'
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
        self._note()
        if not self.mirror.head:
            self._refuse(405, {})
        elif (content := self.mirror.files.get(self.path[1:])) is None:
            self._refuse(404, {})
        else:
            self._answer(200, content, content, '')

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
        else:
            start = self._start(content)
            if start >= len(content) > 0:
                self._refuse(416, {})
                return
            place = f'bytes {start}-{len(content) - 1}/{len(content)}' if start else ''
            self._answer(206 if start else 200, content, content[start:], place)
            self._send(content[start:], fault, request)

    def _note(self) -> Request:
        request = Request(self.command, self.path[1:], self.headers.get('Range', ''))
        self.mirror.requests.append(request)
        return request

    def _start(self, content: bytes) -> int:
        asked = re.fullmatch(r'bytes=(\d+)-', self.headers.get('Range', ''))
        if asked is None or not self.mirror.ranges:
            return 0
        is_same = self.headers.get('If-Range', self._etag(content)) in (self._etag(content), self._modified(content))
        return int(asked[1]) if is_same or not self.mirror.if_range else 0

    def _answer(self, status: int, content: bytes, body: bytes, place: str) -> None:
        self.send_response(status)
        self.send_header('Content-Length', str(len(body)))
        self.send_header('Last-Modified', self._modified(content))
        if self.mirror.etags:
            self.send_header('ETag', self._etag(content))
        if place:
            self.send_header('Content-Range', place)
        for name, value in self.mirror.headers(self.path[1:], content).items():
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
