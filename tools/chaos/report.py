"""What came of all damaged files: a table, JSON, and the files that something went wrong with."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from terminaltables import AsciiTable
from tqdm import tqdm

from chaos.entries import Entry
from chaos.workers import FAULTS, Outcome, prepare
from hierseg.files import write_json
from hierseg.machine import describe_machine

HEADINGS = ('entry', 'damaged', 'accepted', 'refused', *FAULTS, 's at most', 'MiB at most')
NAMED = 40
"""Faults that are named on the screen; the JSON has all."""


class Report:
    """Counts outcomes by entry and keeps the faults.

    Args:
        names: Of the entries.
        seed: Of the mutations.
        crashers: Folder that takes the damaged files of faults, the first of each kind; None for none.
    """

    def __init__(self, names: list[str], *, seed: int, crashers: Path | None = None) -> None:
        self.names, self.seed, self.crashers = names, seed, crashers
        self.counts: dict[str, Counter[str]] = {name: Counter() for name in names}
        self.most: dict[str, list[float]] = {name: [0.0, 0.0] for name in names}
        self.faults: list[Outcome] = []
        self._kept: Counter[str] = Counter()
        self._began = time.monotonic()

    def bar(self, total: int | None) -> Any:
        """A progress bar."""
        return tqdm(total=total, unit='file', disable=None, file=sys.stderr)

    def add(self, outcome: Outcome, entry: Entry, corpus: Path, scratch: Path) -> None:
        """Counts an outcome; the file of a fault is made again to be kept."""
        self.counts[outcome.entry][outcome.what] += 1
        most = self.most[outcome.entry]
        most[:] = max(most[0], outcome.seconds), max(most[1], outcome.mebibytes)
        if outcome.what not in FAULTS:
            return
        self.faults.append(outcome)
        kind = f'{outcome.entry} {outcome.what} {outcome.detail.partition("(")[2]}'
        self._kept[kind] += 1
        if self._kept[kind] == 1:
            tqdm.write(_line(outcome), file=sys.stderr)
        if self.crashers and self._kept[kind] == 1:
            folder = scratch / 'kept'
            _, path, _ = prepare(entry, corpus, folder, outcome.number, seed=self.seed)
            place = self.crashers / outcome.entry / f'{self.seed}-{outcome.number}' / outcome.file
            place.parent.mkdir(parents=True, exist_ok=True)
            if path.is_file():
                shutil.copy(path, place)
            (place.parent / 'outcome.json').write_text(json.dumps(asdict(outcome), indent=1))

    def write(self, path: Path) -> None:
        """Writes all figures as JSON."""
        document = {
            'seed': self.seed,
            'minutes': round((time.monotonic() - self._began) / 60, 2),
            'damaged': sum(count.total() for count in self.counts.values()),
            'entries': {
                name: {**self.counts[name], 'seconds at most': round(most[0], 2), 'MiB at most': round(most[1])}
                for name, most in self.most.items()
            },
            'faults': [asdict(fault) for fault in self.faults],
            'machine': describe_machine(),
        }
        write_json(document, path)

    def __str__(self) -> str:
        rows: list[tuple[Any, ...]] = [HEADINGS]
        for name in self.names:
            count, most = self.counts[name], self.most[name]
            told = (count.total(), count['accepted'], count['refused'], *(count[fault] for fault in FAULTS))
            rows.append((name, *told, f'{most[0]:.1f}', f'{most[1]:.0f}'))
        sums = [sum(row[at] for row in rows[1:]) for at in range(1, len(FAULTS) + 4)]
        rows.append(('all', *sums, '', ''))
        table = AsciiTable([[str(cell) for cell in row] for row in rows])
        table.inner_column_border = False
        kinds: dict[str, list[Outcome]] = {}
        for fault in self.faults:
            kinds.setdefault(f'{fault.entry}: {fault.what}: {fault.detail.rpartition("(")[2]}', []).append(fault)
        most_first = sorted(kinds.values(), key=len, reverse=True)
        return '\n'.join([table.table, *(f'{len(some)} × {_line(some[0])}' for some in most_first[:NAMED])])


def _line(fault: Outcome) -> str:
    """A fault in a line, with what reproduces it."""
    return f'{fault.entry}:{fault.number} ({fault.file}: {fault.how}): {fault.what}: {fault.detail[:300]}'
