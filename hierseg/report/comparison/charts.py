"""Charts, the tree of classes with their average precision, and names of the objects: what templates draw as SVG.

Coordinates are those of the drawing, x to the right and y downwards. Names are collapsed to a level of the taxonomy: a
class deeper than the level counts as its ancestor on that level by preferred parents; one above it stays what it is.
Shape letters: C classes.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.ticker import MaxNLocator

from hierseg.formats import FloatArray
from hierseg.metrics.names import MISSED
from hierseg.metrics.system import System
from hierseg.report.comparison.document import Comparison
from hierseg.report.comparison.scores import NONE, formatted
from hierseg.taxonomy import Taxonomy

LEFT, RIGHT, TOP, BOTTOM = 46, 390, 26, 242
"""Ends of the scales, on a drawing of 400 by 280."""
MOST_POINTS = 160
"""Of a line; more would not be seen."""
FEWEST_TICKS = 3
"""A logarithmic scale with fewer powers of ten has twice and five times as much, too."""
SMALLEST_EXTENT = 0.05
"""The scale of differences reaches at least this far, so that tiny ones look tiny."""
OPEN_UP_TO = 60
"""A tree of up to this many classes stands open at first."""
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
class Scale:
    """From values, ``low`` to ``high``, to places on the drawing, ``start`` to ``end``.

    A logarithmic scale is linear in log(1 + value), which knows 0.
    """

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def place(self, value: float) -> float:
        """Where a value stands, on a tenth of a pixel."""
        low, high, at = (math.log1p(number) if self.logarithmic else number for number in (self.low, self.high, value))
        return round(self.start + (at - low) / (high - low) * (self.end - self.start), 1)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Places and texts of about five round values, or of the powers of ten."""
        if not self.logarithmic:
            values = [float(value) for value in MaxNLocator(nbins=5).tick_values(self.low, self.high)]
            return [(self.place(value), _tick_text(value)) for value in self._inside(values)]
        for steps in ((1.0,), (1.0, 2.0, 5.0)):
            values = self._inside([0.0, *(step * 10.0**power for power in range(13) for step in steps)])
            if len(values) >= FEWEST_TICKS:
                break
        return [(self.place(value), _tick_text(value)) for value in values]

    def _inside(self, values: Sequence[float]) -> list[float]:
        margin = 1e-9 * (self.high - self.low)  # of rounding
        return [value for value in values if self.low - margin <= value <= self.high + margin]


@dataclass(frozen=True)
class Series:
    """A line: its name, its points, the positions of its colour and of its dash pattern, and a note for the legend."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    color: int
    dash: int = 0
    note: str = ''


@dataclass(frozen=True)
class Dot:
    """A dot and what it says when pointed at."""

    x: float
    y: float
    color: int | None
    title: str


@dataclass(frozen=True)
class Chart:
    """A chart, its lines and dots from the back to the front; with a summary for those who do not see it."""

    title: str
    x: Scale
    y: Scale
    x_label: str
    y_label: str
    summary: str
    lines: Sequence[Series] = ()
    dots: Sequence[Dot] = ()

    def points(self, line: Series) -> str:
        """Places of a line's points, as SVG writes them."""
        pairs = zip(line.x, line.y, strict=True)
        return ' '.join(f'{self.x.place(at):g},{self.y.place(value):g}' for at, value in pairs)


def x_scale(low: float, high: float, *, logarithmic: bool = False) -> Scale:
    """A horizontal scale; widened if it has no extent."""
    return Scale(low, high if high > low else low + 1, LEFT, RIGHT, logarithmic)


def y_scale(low: float, high: float) -> Scale:
    """A vertical scale; widened if it has no extent."""
    return Scale(low, high if high > low else low + 1, BOTTOM, TOP)


def line_chart(title: str, series: Sequence[Series], *, x: Scale, y: Scale, x_label: str, y_label: str) -> Chart:
    """Lines over each other, the last one in front."""
    drawn = [entry for entry in series if len(entry.x)]
    summary = '; '.join(
        f'{entry.name}: {entry.y[0]:.3g} at {entry.x[0]:.3g}, {entry.y[-1]:.3g} at {entry.x[-1]:.3g}' for entry in drawn
    )
    return Chart(title, x, y, x_label, y_label, f'{y_label} by {x_label}. {summary}', drawn)


def averaged(points: npt.ArrayLike) -> tuple[list[float], list[float]]:
    """The (P, 2) points that are numbers; where they are more than ``MOST_POINTS``, means of their neighbours."""
    values = np.asarray(points, dtype=np.float64).reshape(-1, 2)
    values = values[np.isfinite(values).all(axis=1)]
    if len(values) > MOST_POINTS:
        values = np.stack([part.mean(axis=0) for part in np.array_split(values, MOST_POINTS)])
    return values[:, 0].tolist(), values[:, 1].tolist()


def _tick_text(value: float) -> str:
    if abs(value) >= 1000:
        return f'{value / 1e6:g}M' if abs(value) >= 1e6 else f'{value / 1e3:g}k'
    return f'{round(value, 9):g}'.replace('-', '−')


@dataclass(frozen=True)
class ClassDifference:
    """A further system's average precision minus the first one's; None where one of them has none.

    Its bar, by left end and width, and the places of the classes below it are in percent, where 50 is no difference.
    The winner is the position of the better system.
    """

    value: float | None
    below: tuple[float, ...]
    text: str = NONE
    winner: int | None = None
    start: float = 50.0
    width: float = 0.0


@dataclass(frozen=True)
class ClassRow:
    """A class with those below it; average precision and differences are None where there is none.

    It says nothing where neither it nor a class below it has any average precision.
    """

    name: str
    path: str
    depth: int
    also_under: tuple[str, ...]
    objects: int
    train_images: int | None
    values: tuple[float | None, ...]
    differences: tuple[ClassDifference, ...]
    children: tuple[ClassRow, ...]

    @property
    def says_nothing(self) -> bool:
        """Whether there is no number."""
        return all(value is None for value in self.values) and all(child.says_nothing for child in self.children)

    @property
    def idle(self) -> int:
        """Classes among it and those below it that say nothing."""
        return self.says_nothing + sum(child.idle for child in self.children)


@dataclass(frozen=True)
class ClassTree:
    """The root classes with all below them, and the difference at the ends of the scale."""

    rows: tuple[ClassRow, ...]
    extent: float
    is_open: bool

    @property
    def idle(self) -> int:
        """Classes that say nothing."""
        return sum(row.idle for row in self.rows)


def class_tree(document: Comparison) -> ClassTree:
    """Every class stands once, below its preferred parent; root classes without children come last."""
    differences = [_differences(document, position) for position in range(1, len(document.systems))]
    known = [abs(value) for values in differences for value in values if value is not None]
    extent = max([SMALLEST_EXTENT, *known])
    taxonomy, precisions = document.taxonomy, [_known(system.class_ap) for system in document.systems]

    def row(label: int, depth: int) -> ClassRow:
        children = [child for child in taxonomy.children[label] if taxonomy.parents[child][0] == label]
        below = taxonomy.descendants(label)
        return ClassRow(
            name=taxonomy.names[label],
            path=taxonomy.path_name(label),
            depth=depth,
            also_under=tuple(taxonomy.path_name(parent) for parent in taxonomy.parents[label][1:]),
            objects=int(document.objects[label]),
            train_images=None if document.train_images is None else int(document.train_images[label]),
            values=tuple(of_classes[label] for of_classes in precisions),
            differences=tuple(
                _difference(position, values[label], [values[other] for other in below], extent)
                for position, values in enumerate(differences, start=1)
            ),
            children=tuple(row(child, depth + 1) for child in children),
        )

    roots = sorted((row(label, 0) for label in taxonomy.root_classes), key=lambda root: not root.children)
    return ClassTree(tuple(roots), extent, taxonomy.num_classes <= OPEN_UP_TO)


def frequency_chart(document: Comparison) -> Chart | None:
    """A dot for every class: each further system's difference by training images; None where those are unknown."""
    if document.train_images is None or len(document.systems) < 2:
        return None
    points = [
        (int(images), value, name, position)
        for position in range(1, len(document.systems))
        for name, images, value in zip(
            document.taxonomy.names, document.train_images, _differences(document, position), strict=True
        )
        if value is not None
    ]
    if not points:
        return None
    images, values, *_ = zip(*points, strict=True)
    extent = max([SMALLEST_EXTENT, *map(abs, values)])
    x, y = x_scale(min(images), max(images), logarithmic=True), y_scale(-extent, extent)
    ahead = sum(value > 0 for value in values)
    return Chart(
        title='Difference by how frequent a class is in training',
        x=x,
        y=y,
        x_label='training images',
        y_label='difference in average precision',
        summary=f'A dot for each class. {ahead} of {len(points)} differences are above 0.',
        dots=[
            Dot(
                x.place(count),
                y.place(value),
                _winner(value, position),
                f'{name}: {_signed(value)}, {count:,} training images',
            )
            for count, value, name, position in points
        ],
    )


def _differences(document: Comparison, position: int) -> list[float | None]:
    """(C,) of a further system."""
    return _known(document.systems[position].class_ap - document.systems[0].class_ap)


def _known(values: FloatArray) -> list[float | None]:
    return [None if math.isnan(value) else value for value in values.tolist()]


def _difference(position: int, value: float | None, below: Sequence[float | None], extent: float) -> ClassDifference:
    places = tuple(sorted(_place(entry, extent) for entry in below if entry is not None))
    if value is None:
        return ClassDifference(None, places)
    start, end = sorted((50.0, _place(value, extent)))
    return ClassDifference(value, places, _signed(value), _winner(value, position), start, round(end - start, 1))


def _winner(value: float, position: int) -> int | None:
    return None if value == 0 else position if value > 0 else 0


def _place(value: float, extent: float) -> float:
    return round(50 + 50 * value / extent, 1)


def _signed(value: float) -> str:
    return formatted(value, '.2f', signed=True)


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
