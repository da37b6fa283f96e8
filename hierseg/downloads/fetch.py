"""One file from its server to the disk, through whatever happens on the way."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from hierseg.downloads.checksums import Hasher, update_from
from hierseg.downloads.ledger import Ledger
from hierseg.downloads.partial import RESUMED_FROM_BYTES, PartialFile, disk_faults
from hierseg.downloads.patience import Patience
from hierseg.downloads.remote import (
    Answer,
    Client,
    Corrupt,
    Failure,
    RemoteFile,
    Transient,
)

Result = TypeVar('Result')


@dataclass(frozen=True)
class Download:
    """A file to have.

    Attributes:
        name: Path below the root folder, with ``/``.
        address: Where it is to be had.
    """

    name: str
    address: str


class Meter(Protocol):
    """What is told of the bytes of one file."""

    def at(self, position: int) -> None:
        """So many bytes of the file are there; what comes next comes after them."""

    def add(self, num_bytes: int) -> None:
        """So many bytes more arrived."""


class Stopped(Exception):
    """The run is to end; nothing is wrong with the file."""


class Fetcher:
    """Fetches files into a folder; its methods may run in many threads, each on another file.

    Args:
        root: The folder; it exists.
        client: Sends the requests.
        patience: Limits and retries.
        ledger: Knows what was verified.
        recheck: Compare what is there with its server, even if the ledger knows it.
        resumed_from: Bytes of a file from which on a part is kept for later.
        stop: Ends all methods soon after it is set.
    """

    def __init__(
        self,
        root: Path,
        *,
        client: Client,
        patience: Patience,
        ledger: Ledger,
        recheck: bool = False,
        resumed_from: int = RESUMED_FROM_BYTES,
        stop: threading.Event | None = None,
    ) -> None:
        self.stop = stop or threading.Event()
        self._root = root
        self._client = client
        self._patience = patience
        self._ledger = ledger
        self._recheck = recheck
        self._resumed_from = resumed_from
        self._jitter = random.Random()

    def partial(self, name: str) -> PartialFile:
        """What is there of a file that is not whole."""
        return PartialFile(self._root / name, resumed_from=self._resumed_from)

    def ask(self, address: str) -> RemoteFile:
        """What its server says of a file.

        Raises:
            Failure: If it says nothing, after all retries.
        """
        return self._patiently(lambda: self._client.head(address), lambda: 0)

    def is_known(self, name: str) -> bool:
        """Whether a file is there and nobody need be asked about it."""
        return not self._recheck and self._ledger.version(name) is not None

    def is_whole(self, name: str, remote: RemoteFile) -> bool:
        """Whether a file is there, of the size and with the checksum of its server's; the ledger learns it."""
        if not self._recheck and remote.validator and self._ledger.version(name) == remote.validator:
            return True
        with disk_faults(self._root / name):
            is_whole = self._fits(name, remote)
            if is_whole:
                self._ledger.record(name, version=remote.validator)
            else:
                self._ledger.forget(name)
        return is_whole

    def _fits(self, name: str, remote: RemoteFile) -> bool:
        path = self._root / name
        if not path.is_file() or (remote.size is not None and path.stat().st_size != remote.size):
            return False
        if remote.checksum is not None:
            return remote.checksum.fits_file(path)
        # Its size is all there is to go by; but a file that was recorded under another version has changed.
        return remote.size is not None and self._ledger.version(name) in (None, remote.validator)

    def fetch(self, file: Download, meter: Meter) -> bool:
        """Sees to it that a file is there, whole.

        Returns:
            Whether it had to be fetched.

        Raises:
            Failure: If it cannot be had, after all retries. What has arrived is kept.
            DownloadError: If it cannot be written.
            Stopped: If ``stop`` is set.
        """
        if self.is_known(file.name):
            return False
        path = self._root / file.name
        if path.exists() and self.is_whole(file.name, self.ask(file.address)):
            return False
        with disk_faults(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.partial(file.name)
        version = self._patiently(lambda: self._attempt(file, partial, meter), lambda: len(partial))
        with disk_faults(path):
            partial.finish()
            self._ledger.record(file.name, version=version.validator)
        return True

    def _patiently(self, action: Callable[[], Result], reached: Callable[[], int]) -> Result:
        """Repeats an action while it fails and may yet work; getting further than ever resets the count."""
        failures, furthest, was_corrupt = 0, reached(), False
        while True:
            if self.stop.is_set():
                raise Stopped
            try:
                return action()
            except Transient as failure:
                if reached() > furthest:
                    failures, furthest = 0, reached()
                failures += 1
                if failures >= self._patience.attempts or (was_corrupt and isinstance(failure, Corrupt)):
                    raise
                was_corrupt |= isinstance(failure, Corrupt)
                self.stop.wait(self._patience.pause(failures, asked_for=failure.retry_after, jitter=self._jitter))

    def _attempt(self, file: Download, partial: PartialFile, meter: Meter) -> RemoteFile:
        """Fetches what is missing of a file, and verifies the whole; returns the version."""
        version, start = partial.version(), len(partial)
        meter.at(start)
        if version is not None and start == version.size:  # killed between the last byte and the verdict
            self._verify(partial, version, self._hasher(partial, version))
            return version
        try:
            with self._client.get(file.address, start=start, version=version) as answer:
                version = self._place(answer, partial, start)
                hasher = self._hasher(partial, version)
                self._receive(answer, partial, hasher, meter)
        except Failure as failure:
            if failure.status == 416:  # more is there than the file has now
                self._discard(partial)
            raise
        self._verify(partial, version, hasher)
        return version

    def _place(self, answer: Answer, partial: PartialFile, start: int) -> RemoteFile:
        """Lets the partial file end where the body starts, without joining two versions; returns the version."""
        version = partial.version()
        if answer.start == 0:
            with disk_faults(partial.path):
                partial.begin(answer.file)
            return answer.file
        if answer.start != start or version is None or not answer.file.is_version_of(version):
            self._discard(partial)
            raise Transient('the file changed on the server while it was fetched')
        return version

    def _receive(self, answer: Answer, partial: PartialFile, hasher: Hasher | None, meter: Meter) -> None:
        meter.at(answer.start)
        with disk_faults(partial.path), partial.appending() as out:
            for chunk in answer.chunks():
                out.write(chunk)
                out.flush()
                meter.add(len(chunk))
                if hasher is not None:
                    hasher.update(chunk)
                if self.stop.is_set():
                    raise Stopped

    def _hasher(self, partial: PartialFile, version: RemoteFile) -> Hasher | None:
        """A hasher that has seen what is there; None if no checksum is published."""
        if version.checksum is None:
            return None
        hasher = version.checksum.hasher()
        with disk_faults(partial.path):
            update_from(hasher, partial.data)
        return hasher

    def _verify(self, partial: PartialFile, version: RemoteFile, hasher: Hasher | None) -> None:
        if version.checksum is not None and hasher is not None and not version.checksum.fits(hasher):
            self._discard(partial)
            raise Corrupt(f'its {version.checksum.algorithm} is not the published {version.checksum.hexadecimal}')

    def _discard(self, partial: PartialFile) -> None:
        with disk_faults(partial.path):
            partial.discard()
