"""Readers in a loop beside a writer that replaces a store in a loop."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from chaos.data import TAXONOMY, contents
from chaos.entries import digest
from hierseg.errors import HiersegError
from hierseg.store import ImageRow, Instances, Store, StoreWriter

KINDS = 2
"""Stores that the writer writes by turns; they differ in every class."""


def write_store(path: Path, kind: int, *, images: int = 30) -> None:
    """Writes the store of a kind, over the one that is there."""
    with StoreWriter(path, taxonomy=TAXONOMY, overwrite=True) as writer:
        for number in range(images):
            count = 1 + (number + kind) % 3
            labels = np.full(count, (number + kind) % TAXONOMY.num_classes, dtype=np.int64)
            none = np.zeros(count, dtype=bool)
            boxes = np.tile([0.0, 0, 4 + kind, 4], (count, 1))
            instances = Instances(labels, boxes, [b''] * count, none, none, boxes[:, 2] * 4, [''] * count)
            writer.add(ImageRow(f'{number:04}', f'{number:04}.jpg', 32, 32), instances, labels[:1], ())


def watch(folder: Path, *, seconds: float, readers: int) -> Counter[str]:
    """Reads and writes for so long.

    Returns:
        How often a reader found a store of either kind whole (``right``), something else (``wrong``), an error of
        hierseg's (``refused``) or another one (``foreign``), and how often the store was written (``written``).
    """
    path = folder / 'store'
    expected = []
    for kind in range(KINDS):
        write_store(folder / f'kind{kind}', kind)
        expected.append(digest(contents(Store.open(folder / f'kind{kind}'))))
        shutil.rmtree(folder / f'kind{kind}')
    write_store(path, 0)
    end = time.monotonic() + seconds

    def read() -> str:
        try:
            found = digest(contents(Store.open(path)))
        except HiersegError as error:
            return f'refused ({error})'
        except Exception as error:
            return f'foreign ({type(error).__name__}: {error})'
        return 'right' if found in expected else 'wrong'

    turn = iter(range(1 << 60))

    def write() -> str:
        write_store(path, next(turn) % KINDS)
        return 'written'

    started = [_fork(act, folder / str(at), end) for at, act in enumerate([write, *[read] * readers])]
    total: Counter[str] = Counter()
    for process, notes in started:
        _, status = os.waitpid(process, 0)
        if status:
            total[f'died ({signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else status})'] += 1
        for line in notes.read_text().splitlines():
            count, _, name = line.partition(' ')
            total[name] += int(count)
        notes.unlink()
    # What is beside the store now has no owner.
    total.update(f'left over ({entry.name})' for entry in folder.iterdir() if entry.name != 'store')
    return total


def _fork(act: Callable[[], str], notes: Path, end: float) -> tuple[int, Path]:
    """Starts a process that acts again and again, and notes how often it gave what."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            found: Counter[str] = Counter()
            while time.monotonic() < end:
                found[act().replace('\n', ' ')] += 1
            notes.write_text(''.join(f'{count} {name}\n' for name, count in found.items()))
            code = 0
        finally:
            os._exit(code)
    return child, notes
