"""Many files at once, with one progress bar over bytes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import TypeVar

from tqdm import tqdm

from hierseg.downloads.fetch import Download, Fetcher, Stopped
from hierseg.downloads.remote import Failure, Unreachable, unreachable

Item = TypeVar('Item')

POLL_SECONDS = 0.1
# A worker that waits for a server sees no stop; what it was at is as safe as after a kill.
LAST_WORD_SECONDS = 2.0


@dataclass(frozen=True)
class Failed:
    """A file that could not be had, and why."""

    file: Download
    why: str


@dataclass
class Outcome:
    """What became of the files.

    Attributes:
        num_fetched: Files that came from a server.
        num_there: Files that were there.
        num_bytes: Bytes that arrived in this run.
        failed: The others.
    """

    num_fetched: int = 0
    num_there: int = 0
    num_bytes: int = 0
    failed: list[Failed] = field(default_factory=list)

    def add(self, failed: Failed | None, *, was_fetched: bool, num_bytes: int) -> None:
        """Counts one file."""
        self.num_bytes += num_bytes
        if failed is not None:
            self.failed.append(failed)
        elif was_fetched:
            self.num_fetched += 1
        else:
            self.num_there += 1


class ByteBar:
    """A bar over the bytes of all files, for any number of threads.

    Args:
        total: Bytes expected.
        show: Draw it on stderr.
    """

    def __init__(self, total: int, *, show: bool) -> None:
        self._lock = threading.Lock()
        self._bar = tqdm(
            total=total, unit='B', unit_scale=True, unit_divisor=1000, disable=not show, smoothing=0.05, mininterval=0.5
        )

    def move(self, num_bytes: int, *, total: int = 0) -> None:
        """So many bytes more are there, and so many more are expected; fewer if negative."""
        with self._lock:
            if total and self._bar.total is not None:
                self._bar.total += total
            self._bar.update(num_bytes)

    def __enter__(self) -> ByteBar:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._bar.close()


class FileMeter:
    """The part of one file in a :class:`ByteBar`.

    Args:
        bar: The bar.
        expected: Bytes of the file that the bar's total includes.
    """

    def __init__(self, bar: ByteBar, *, expected: int) -> None:
        self._bar, self._expected = bar, expected
        self._position, self._arrived = 0, 0

    def at(self, position: int) -> None:
        """So many bytes of the file are there; what comes next comes after them."""
        self._bar.move(position - self._position)
        self._position = position

    def add(self, num_bytes: int) -> None:
        """So many bytes more arrived."""
        self._bar.move(num_bytes)
        self._position += num_bytes
        self._arrived += num_bytes

    def settle(self) -> int:
        """Corrects the bar's total when the file is done with; bytes that arrived."""
        self._bar.move(0, total=self._position - self._expected)
        return self._arrived


def in_parallel(work: Callable[[Item], None], items: Iterable[Item], *, workers: int, stop: threading.Event) -> None:
    """Does some work on each of the items, in their order, in daemon threads.

    Args:
        work: May raise ``Stopped``, which ends its thread, or anything else, which ends them all.
        items: What to work on.
        workers: Threads.
        stop: Is set when something is raised, for the work to see.

    Raises:
        BaseException: What the work raised first, or a KeyboardInterrupt when it comes.
    """
    errors: list[BaseException] = []
    lock, left = threading.Lock(), iter(items)

    def run() -> None:
        while not stop.is_set():
            with lock:
                item = next(left, None)
            if item is None:
                return
            try:
                work(item)
            except Stopped:
                return
            except BaseException as error:  # the caller has it
                errors.append(error)
                stop.set()

    threads = [threading.Thread(target=run, daemon=True) for _ in range(workers)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                thread.join(POLL_SECONDS)
    except BaseException:
        stop.set()
        for thread in threads:
            thread.join(LAST_WORD_SECONDS / workers)
        raise
    if errors:
        raise errors[0]


def fetch_all(
    files: Sequence[Download],
    fetcher: Fetcher,
    *,
    expected: Sequence[int],
    outcome: Outcome,
    workers: int,
    show_progress: bool,
) -> None:
    """Fetches files in parallel, in their order.

    Args:
        files: What to have.
        fetcher: Does it.
        expected: For each file, about how many bytes it has.
        outcome: Takes what becomes of each, also if the run ends early.
        workers: Threads.
        show_progress: Draw a bar on stderr.

    Raises:
        DownloadError: If a server cannot be reached any more, or the disk cannot be written.
        KeyboardInterrupt: When it comes; the workers are stopped first.
    """
    lock = threading.Lock()

    def fetch(item: tuple[Download, int]) -> None:
        file, num_bytes = item
        meter = FileMeter(bar, expected=num_bytes)
        was_fetched, failed = False, None
        try:
            was_fetched = fetcher.fetch(file, meter)
        except Unreachable as failure:
            raise unreachable(file.address, failure) from None
        except Failure as failure:
            failed = Failed(file, str(failure))
        with lock:
            outcome.add(failed, was_fetched=was_fetched, num_bytes=meter.settle())

    with ByteBar(sum(expected), show=show_progress) as bar:
        in_parallel(fetch, zip(files, expected, strict=True), workers=workers, stop=fetcher.stop)
