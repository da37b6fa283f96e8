"""Processes that read damaged files, and what becomes of each.

Each is forked from this one, which has imported all, and reads one file after the other, so that a file that ends it
ends nothing else. Time is that of the processor, and memory is what a file needs beyond what the process has before it.
"""

from __future__ import annotations

import faulthandler
import json
import os
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

from chaos.entries import Case, Entry, damage, digest
from chaos.mutations import MARKER, RESEALED
from hierseg.errors import HiersegError

SECONDS, WAITING, BYTES = 10.0, 120.0, 2 << 30
"""Limits of one file: of the processor, of the clock without any of the processor (it waits for ever), of memory."""
FAULTS = ('foreign', 'died', 'time', 'memory', 'silent', 'ran code')


@dataclass
class Outcome:
    """What became of one damaged file.

    ``what`` is ``accepted``, ``refused``, or one of :data:`FAULTS`.
    """

    entry: str
    number: int
    what: str
    file: str = ''
    how: str = ''
    detail: str = ''
    seconds: float = 0.0
    mebibytes: float = 0.0


Prepared = tuple[Case, Path, str]
"""A damaged copy, the file in it that is damaged, and how."""


def prepare(entry: Entry, corpus: Path, folder: Path, number: int, *, seed: int) -> Prepared:
    """Copies the honest files and damages one of them; it follows from seed, entry and number."""
    generator = Random(f'{seed} {entry.name} {number}')
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(corpus / entry.name, folder)
    path, how = damage(folder, entry, generator)
    return Case(folder, corpus / entry.name, lenient=generator.random() < 0.5), path, how


def attempt(entry: Entry, number: int, prepared: Prepared, *, honest: str) -> Outcome:
    """Reads a damaged file, and says what came of it."""
    case, path, how = prepared
    outcome = Outcome(entry.name, number, 'accepted', str(path.relative_to(case.folder)), how)
    with suppress(OSError):
        Path('/proc/self/clear_refs').write_text('5')  # the peak begins anew
    before, began = _memory('VmRSS'), time.process_time()
    try:
        found = digest(entry.read(case))
        if entry.sealed and found != honest and how not in RESEALED:
            outcome.what, outcome.detail = 'silent', 'what came out differs from that of the honest files'
    except HiersegError as error:
        outcome.what, outcome.detail = 'refused', str(error)
        if any(ord(letter) < 32 and letter not in '\n\t' for letter in outcome.detail):
            outcome.what = 'foreign'
            outcome.detail = f'a message with control characters: {outcome.detail[:200]!r}'
    except MemoryError:
        outcome.what, outcome.detail = 'memory', _place()
    except BaseException as error:
        outcome.what, outcome.detail = 'foreign', f'{type(error).__name__}: {str(error)[:200]} ({_place()})'
    outcome.seconds = time.process_time() - began
    outcome.mebibytes = max(0, _memory('VmHWM') - before) / 2**20
    if outcome.what in ('accepted', 'refused'):
        if outcome.seconds > SECONDS:
            outcome.what = 'time'
        elif outcome.mebibytes > BYTES / 2**20:
            outcome.what = 'memory'
    if any(Path(place, MARKER).exists() for place in ('.', case.folder)):
        outcome.what = 'ran code'
    return outcome


def _memory(name: str) -> int:
    """Bytes of this process, as /proc names them."""
    (line,) = (line for line in Path('/proc/self/status').read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) << 10


def _place() -> str:
    """The innermost line of hierseg in the traceback of the error that is being handled."""
    frames = traceback.extract_tb(sys.exc_info()[2])
    own = [frame for frame in frames if '/hierseg/' in frame.filename] or frames
    return f'{Path(own[-1].filename).name}:{own[-1].lineno}'


@dataclass
class _Worker:
    """A process at work on some numbers of an entry.

    ``used`` is its time of the processor at the last outcome, ``seen`` the one seen last and when it was first seen.
    """

    process: int
    pipe: int
    entry: Entry
    numbers: Sequence[int]
    folder: Path
    done: int = 0
    used: float = 0.0
    seen: tuple[float, float] = (-1.0, 0.0)
    text: bytes = b''
    killed: str = ''


class Pool:
    """Keeps some processes at work.

    Args:
        corpus: Folder of the honest files.
        digests: Of what the honest files read as, by entry.
        scratch: Folder for copies.
        workers: Processes.
        damaged: Makes the damaged copy of a number, such as :func:`prepare` with a seed.
    """

    def __init__(
        self, corpus: Path, digests: dict[str, str], *, scratch: Path, workers: int, damaged: Callable[..., Prepared]
    ) -> None:
        self.corpus, self.digests, self.scratch = corpus, digests, scratch
        self.workers, self.damaged = workers, damaged
        self._running: dict[int, _Worker] = {}
        self._started = 0

    def run(self, tasks: Iterator[tuple[Entry, Sequence[int]]]) -> Iterator[Outcome]:
        """The outcomes of tasks, an entry and numbers each, as they come; stopping early ends the processes."""
        left: list[tuple[Entry, Sequence[int]]] = []
        try:
            while True:
                while len(self._running) < self.workers:
                    task = left.pop() if left else next(tasks, None)
                    if task is None:
                        break
                    self._start(*task)
                if not self._running:
                    return
                ready, _, _ = select.select(list(self._running), [], [], 0.2)
                for pipe in ready:
                    yield from self._listen(self._running[pipe], left)
                for worker in self._running.values():
                    self._watch(worker)
        finally:
            for worker in self._running.values():
                os.kill(worker.process, signal.SIGKILL)
                os.waitpid(worker.process, 0)
                os.close(worker.pipe)
                shutil.rmtree(worker.folder, ignore_errors=True)

    def _start(self, entry: Entry, numbers: Sequence[int]) -> None:
        reader, writer = os.pipe()
        self._started += 1
        folder = self.scratch / str(self._started)
        folder.mkdir(parents=True)
        child = os.fork()
        if child == 0:
            os.close(reader)
            try:
                self._work(entry, numbers, folder, writer)
            except BaseException:  # of this tool, which is told as if the file had done it
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(0)
        os.close(writer)
        self._running[reader] = _Worker(child, reader, entry, numbers, folder)

    def _work(self, entry: Entry, numbers: Sequence[int], folder: Path, writer: int) -> None:
        os.chdir(folder)
        tempfile.tempdir = str(folder)  # so that nothing of a process that dies is left
        said = os.open('said', os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        for stream in (1, 2):
            os.dup2(said, stream)
        faulthandler.enable(file=2)
        limit = _memory('VmSize') + BYTES + (1 << 30)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for number in numbers:
            prepared = self.damaged(entry, self.corpus, folder / 'case', number)
            outcome = attempt(entry, number, prepared, honest=self.digests[entry.name])
            os.chdir(folder)  # a training has one of its own
            os.truncate('said', 0)
            with suppress(OSError):
                os.unlink(MARKER)
            os.write(writer, json.dumps(asdict(outcome)).encode() + b'\n')

    def _listen(self, worker: _Worker, left: list[tuple[Entry, Sequence[int]]]) -> Iterator[Outcome]:
        """The outcomes that a process tells; where it ended before its time, what ended it."""
        told = os.read(worker.pipe, 1 << 16)
        worker.text += told
        *lines, worker.text = worker.text.split(b'\n')
        for line in lines:
            yield Outcome(**json.loads(line))
            worker.done += 1
            worker.used = _processor_time(worker.process)
        if told:
            return
        _, status = os.waitpid(worker.process, 0)
        os.close(worker.pipe)
        del self._running[worker.pipe]
        if worker.done < len(worker.numbers):
            yield self._ended(worker, status)
            rest = worker.numbers[worker.done + 1 :]
            if rest:
                left.append((worker.entry, rest))
        shutil.rmtree(worker.folder, ignore_errors=True)

    def _ended(self, worker: _Worker, status: int) -> Outcome:
        number = worker.numbers[worker.done]
        case, path, how = self.damaged(worker.entry, self.corpus, worker.folder / 'again', number)
        code = os.waitstatus_to_exitcode(status)
        name = signal.Signals(-code).name if code < 0 else f'exit status {code}'
        said = (worker.folder / 'said').read_text(errors='replace') if (worker.folder / 'said').exists() else ''
        frames = [line.strip() for line in said.splitlines() if '/hierseg/' in line]
        detail = f'{worker.killed or name} ({frames[0] if frames else said[-200:]})'
        what = worker.killed or 'died'
        return Outcome(worker.entry.name, number, what, str(path.relative_to(case.folder)), how, detail)

    def _watch(self, worker: _Worker) -> None:
        """Ends a process that is beyond a limit."""
        if worker.killed:
            return
        try:
            used, now = _processor_time(worker.process), time.monotonic()
            resident = int(Path(f'/proc/{worker.process}/statm').read_text().split()[1]) * resource.getpagesize()
        except OSError:  # it has just ended
            return
        if used != worker.seen[0]:
            worker.seen = used, now
        if used - worker.used > SECONDS or now - worker.seen[1] > WAITING:
            worker.killed = 'time'
        elif resident > _memory('VmRSS') + BYTES + (1 << 29):
            worker.killed = 'memory'
        if worker.killed:
            os.kill(worker.process, signal.SIGKILL)


def _processor_time(process: int) -> float:
    """Seconds of the processor that a process has taken."""
    try:
        fields = Path(f'/proc/{process}/stat').read_text().rpartition(')')[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')
