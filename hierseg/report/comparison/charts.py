"""Charts, which the template draws as SVG, and the tree of classes with their average precision.

Coordinates are those of the drawing, x to the right and y downwards. Shape letters: C classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.ticker import MaxNLocator

from hierseg.formats import FloatArray
from hierseg.report.comparison.document import Comparison
from hierseg.report.comparison.scores import NONE, formatted

WIDTH, HEIGHT = 400, 280
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 26, 38
MOST_POINTS = 160
"""Of a line; more would not be seen."""


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
        if self.logarithmic:
            values = [0.0, *(10.0**power for power in range(13))]
        else:
            values = [float(value) for value in MaxNLocator(nbins=5).tick_values(self.low, self.high)]
        margin = 1e-9 * (self.high - self.low)
        inside = [value for value in values if self.low - margin <= value <= self.high + margin]
        return [(self.place(value), _tick_text(value)) for value in inside]


@dataclass(frozen=True)
class Series:
    """A line: its name, its points, and the positions of its colour and of its dash pattern."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    color: int
    dash: int = 0


@dataclass(frozen=True)
class Dot:
    """A dot and what it says when pointed at."""

    x: float
    y: float
    color: int | None
    title: str


@dataclass(frozen=True)
class Chart:
    """A chart, ready to be drawn.

    Attributes:
        title: Above it.
        x: The horizontal scale.
        y: The vertical one.
        x_label: Below it.
        y_label: Above its left end.
        summary: Its content, for those who do not see it.
        lines: From the back to the front.
        dots: Likewise.
    """

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
    return Scale(low, high if high > low else low + 1, LEFT, WIDTH - RIGHT, logarithmic)


def y_scale(low: float, high: float) -> Scale:
    """A vertical scale; widened if it has no extent."""
    return Scale(low, high if high > low else low + 1, HEIGHT - BOTTOM, TOP)


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


SMALLEST_EXTENT = 0.05
"""The scale of differences reaches at least this far, so that tiny ones look tiny."""
OPEN_UP_TO = 60
"""A tree of up to this many classes stands open at first."""


@dataclass(frozen=True)
class ClassDifference:
    """A further system's average precision minus the first one's.

    Attributes:
        value: None where one of them has none.
        below: Places of the classes below it, in percent; 50 is no difference.
        text: The value as text.
        winner: Position of the better system; None where there is none.
        start: Left end of its bar, in percent.
        width: Of its bar, in percent.
    """

    value: float | None
    below: tuple[float, ...]
    text: str = NONE
    winner: int | None = None
    start: float = 50.0
    width: float = 0.0


@dataclass(frozen=True)
class ClassRow:
    """A class with those below it; average precision and differences are None where there is none."""

    name: str
    path: str
    depth: int
    also_under: tuple[str, ...]
    objects: int
    train_images: int | None
    values: tuple[float | None, ...]
    differences: tuple[ClassDifference, ...]
    children: tuple[ClassRow, ...]


@dataclass(frozen=True)
class ClassTree:
    """The root classes with all below them, and the difference at the ends of the scale."""

    rows: tuple[ClassRow, ...]
    extent: float
    is_open: bool


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
