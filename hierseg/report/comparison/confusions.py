"""Names of the objects by true class, as drawings.

Names are collapsed to a level of the taxonomy: a class deeper than the level counts as its ancestor on that level by
preferred parents; one above it stays what it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from hierseg.metrics.names import MISSED
from hierseg.metrics.system import System
from hierseg.report.comparison.document import Comparison
from hierseg.taxonomy import Taxonomy

MOST_CLASSES = 16
"""A drawing has at most this many; those that take part in most confusions are chosen."""
FEW_CLASSES = 10
"""A drawing of up to this many has the counts written into it."""
MOST_FREQUENT = 8
"""As many confusions are listed."""
OTHER = -2
"""All classes that have no row of their own."""
CORRECT, SHALLOW, POSSIBLE, WRONG, LOST = 'right', 'shallow', 'possible', 'wrong', 'lost'
"""Possible is what an object may be for all that is annotated, such as Man for a Person."""
KIND_WORDS = {
    CORRECT: 'right',
    SHALLOW: 'right but less deep',
    POSSIBLE: 'deeper than annotated',
    WRONG: 'wrong',
    LOST: 'missed',
}
NAME_LENGTH = 17
"""Longer names are cut."""
LETTER = 7.2
"""About the pixels of a letter."""

Counts = dict[tuple[int, int], int]
"""By true and named label."""


@dataclass(frozen=True)
class ConfusionCell:
    """A place in the drawing: what was named what, how often, and its part of the row."""

    row: int
    column: int
    kind: str
    count: int
    share: float
    title: str


@dataclass(frozen=True)
class ConfusionDrawing:
    """Names that the system at a position gave the objects, on one level, 0 for root classes.

    Rows are true classes, columns named ones, the missed last; cells are those that are not empty. The most frequent
    confusions come with their counts, and the summary has the parts of the kinds, in words.
    """

    system: int
    level: int
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: tuple[ConfusionCell, ...]
    frequent: tuple[tuple[str, int], ...]
    summary: str

    @property
    def writes_counts(self) -> bool:
        """Whether there is room for them."""
        return len(self.rows) <= FEW_CLASSES

    @property
    def size(self) -> int:
        """Pixels of a cell."""
        return 34 if self.writes_counts else 21

    @property
    def left(self) -> int:
        """Pixels that the names of the rows take."""
        return round(12 + LETTER * max(len(name) for name in self.rows))

    @property
    def top(self) -> int:
        """Pixels that the names of the columns take, which stand aslant."""
        return round(16 + 0.79 * LETTER * max(len(name) for name in self.columns))


def levels(document: Comparison) -> list[str]:
    """Names of the levels, root classes first; empty where no system has a confusion."""
    if not any(len(system.confusion.counts) for system in document.systems):
        return []
    deepest = int(document.taxonomy.arrays.depths.max())
    names = ['root classes', *(f'down to level {level}' for level in range(1, deepest)), 'all classes']
    return names if deepest else names[-1:]


def confusion(document: Comparison, position: int, level: int) -> ConfusionDrawing:
    """Collapses and lays out what the system at a position named the objects."""
    taxonomy = document.taxonomy
    every = [collapsed(taxonomy, system, level) for system in document.systems]
    counts = every[position]
    cells, rows = _cells(taxonomy, counts, _shown(taxonomy, every))
    kinds, wrong = Counter[str](), Counter[tuple[int, int]]()
    for pair, count in counts.items():
        kinds[_kind(taxonomy, *pair)] += count
        if _kind(taxonomy, *pair) == WRONG:
            wrong[pair] = count
    parts = [f'{kinds[kind] / kinds.total():.0%} {word}' for kind, word in KIND_WORDS.items() if kinds[kind]]
    return ConfusionDrawing(
        system=position,
        level=level,
        rows=tuple(_name(taxonomy, label, NAME_LENGTH) for label in rows),
        columns=tuple(_name(taxonomy, label, NAME_LENGTH) for label in [*rows, MISSED]),
        cells=cells,
        frequent=tuple(
            (f'{taxonomy.names[true]} → {taxonomy.names[named]}', count)
            for (true, named), count in wrong.most_common(MOST_FREQUENT)
        ),
        summary=', '.join(parts),
    )


def collapsed(taxonomy: Taxonomy, system: System, level: int) -> Counts:
    """Counts by true and named label on a level, ``MISSED`` for what was not found."""
    found = system.confusion.collapsed(taxonomy.arrays, depth=level)
    pairs = zip(found.true_labels.tolist(), found.named_labels.tolist(), strict=True)
    return dict(zip(pairs, found.counts.tolist(), strict=True))


def _kind(taxonomy: Taxonomy, true: int, named: int) -> str:
    if named == MISSED:
        return LOST
    if true == named:
        return CORRECT
    mask = taxonomy.arrays.ancestor_mask
    if mask[true, named]:
        return SHALLOW
    return POSSIBLE if (mask[:, true] & mask[:, named]).any() else WRONG


def _shown(taxonomy: Taxonomy, every: Sequence[Counts]) -> list[int]:
    """Labels with a row of their own, along the tree: those in most confusions, then those with most objects.

    They are the same for all systems.
    """
    confusions, objects = Counter[int](), Counter[int]()
    for (true, named), count in (entry for counts in every for entry in counts.items()):
        objects[true] += count
        if named != MISSED:
            objects[named] += 0  # may be no object's class
        if _kind(taxonomy, true, named) == WRONG:
            confusions.update({true: count, named: count})
    candidates = sorted(objects, key=lambda label: (-confusions[label], -objects[label], label))
    return sorted(candidates[:MOST_CLASSES], key=taxonomy.preferred_path)


def _cells(taxonomy: Taxonomy, counts: Counts, shown: list[int]) -> tuple[tuple[ConfusionCell, ...], list[int]]:
    """The cells that are not empty, and the labels of the rows, ``OTHER`` last where it is needed."""
    merged: dict[tuple[int, int], Counter[str]] = {}
    totals = Counter[int]()
    for (true, named), count in counts.items():
        row = true if true in shown else OTHER
        column = named if named in shown or named == MISSED else OTHER
        merged.setdefault((row, column), Counter())[_kind(taxonomy, true, named)] += count
        totals[row] += count
    rows = [*shown, OTHER] if any(OTHER in pair for pair in merged) else shown
    columns = [*rows, MISSED]
    cells = []
    for (row, column), kinds in merged.items():
        count = kinds.total()
        share = count / max(totals[row], 1)
        verb = 'missed' if column == MISSED else f'named {_name(taxonomy, column)}'
        title = f'{_name(taxonomy, row)} {verb}: {count:,} ({share:.0%})'
        kind = kinds.most_common(1)[0][0]  # under "other" several may meet
        cells.append(ConfusionCell(rows.index(row), columns.index(column), kind, count, share, title))
    return tuple(sorted(cells, key=lambda cell: (cell.row, cell.column))), rows


def _name(taxonomy: Taxonomy, label: int, length: int | None = None) -> str:
    name = {MISSED: 'missed', OTHER: 'other'}.get(label) or taxonomy.names[label]
    return name if length is None or len(name) <= length else name[: length - 1].rstrip() + '…'
