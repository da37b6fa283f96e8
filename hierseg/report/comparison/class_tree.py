"""Classes with their average precision, along the tree and by how frequent they are in training.

Shape letters: C classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hierseg.formats import FloatArray
from hierseg.report.comparison.charts import Chart, Dot, x_scale, y_scale
from hierseg.report.comparison.document import Comparison
from hierseg.report.comparison.scores import NONE, formatted

SMALLEST_EXTENT = 0.05
"""The scale of differences reaches at least this far, so that tiny ones look tiny."""
OPEN_UP_TO = 60
"""A tree of up to this many classes stands open at first."""


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
