"""Where lines and dots of a chart stand; the template draws them as SVG.

Coordinates are those of the drawing, x to the right and y downwards.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.ticker import MaxNLocator

WIDTH, HEIGHT = 400, 280
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 26, 38
MOST_POINTS = 160
"""Of a line; more would not be seen."""


@dataclass(frozen=True)
class Tick:
    """A labelled place on an axis."""

    place: float
    text: str


@dataclass(frozen=True)
class Scale:
    """From values to places on the drawing.

    Attributes:
        low: Value at ``start``.
        high: Value at ``end``; greater than ``low``.
        start: Place.
        end: Place.
        logarithmic: Whether it is linear in log(1 + value), which knows 0.
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
    def ticks(self) -> list[Tick]:
        """About five round values, or the powers of ten."""
        if self.logarithmic:
            values = [0.0, *(10.0**power for power in range(13))]
        else:
            values = [float(value) for value in MaxNLocator(nbins=5).tick_values(self.low, self.high)]
        margin = 1e-9 * (self.high - self.low)
        inside = [value for value in values if self.low - margin <= value <= self.high + margin]
        return [Tick(self.place(value), _tick_text(value)) for value in inside]


@dataclass(frozen=True)
class Line:
    """A line: its name, the position of its colour, the position of its dash pattern, and its points as text."""

    name: str
    color: int
    dash: int
    points: str


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
        lines: From the back to the front.
        dots: Likewise.
        summary: What it shows, for those who do not see it.
    """

    title: str
    x: Scale
    y: Scale
    x_label: str
    y_label: str
    lines: tuple[Line, ...] = ()
    dots: tuple[Dot, ...] = ()
    summary: str = ''


@dataclass(frozen=True)
class Series:
    """What a line shows: values of equally many points."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    color: int
    dash: int = 0


def x_scale(low: float, high: float, *, logarithmic: bool = False) -> Scale:
    """A horizontal scale; widened if it has no extent."""
    return Scale(low, high if high > low else low + 1, LEFT, WIDTH - RIGHT, logarithmic)


def y_scale(low: float, high: float) -> Scale:
    """A vertical scale; widened if it has no extent."""
    return Scale(low, high if high > low else low + 1, HEIGHT - BOTTOM, TOP)


def line_chart(title: str, series: Sequence[Series], *, x: Scale, y: Scale, x_label: str, y_label: str) -> Chart:
    """Lines over each other, the last one in front."""
    drawn = [entry for entry in series if len(entry.x)]
    lines = tuple(
        Line(
            entry.name,
            entry.color,
            entry.dash,
            ' '.join(f'{x.place(at):g},{y.place(value):g}' for at, value in zip(entry.x, entry.y, strict=True)),
        )
        for entry in drawn
    )
    summary = '; '.join(
        f'{entry.name}: {entry.y[0]:.3g} at {entry.x[0]:.3g}, {entry.y[-1]:.3g} at {entry.x[-1]:.3g}' for entry in drawn
    )
    return Chart(title, x, y, x_label, y_label, lines, (), f'{y_label} by {x_label}. {summary}')


def thinned(x: Sequence[float], y: Sequence[float]) -> tuple[list[float], list[float]]:
    """At most ``MOST_POINTS`` of the points that are numbers, evenly chosen, the first and the last among them."""
    points = np.column_stack([np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)])
    points = points[np.isfinite(points).all(axis=1)]
    if len(points) > MOST_POINTS:
        points = points[np.linspace(0, len(points) - 1, MOST_POINTS).round().astype(int)]
    return points[:, 0].tolist(), points[:, 1].tolist()


def averaged(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    """Points that are numbers; where they are more than ``MOST_POINTS``, means of equally many neighbours."""
    values: npt.NDArray[np.float64] = np.asarray(points, dtype=np.float64).reshape(-1, 2)
    values = values[np.isfinite(values).all(axis=1)]
    if len(values) > MOST_POINTS:
        values = np.stack([part.mean(axis=0) for part in np.array_split(values, MOST_POINTS)])
    return values[:, 0].tolist(), values[:, 1].tolist()


def _tick_text(value: float) -> str:
    if abs(value) >= 1000:
        return f'{value / 1e6:g}M' if abs(value) >= 1e6 else f'{value / 1e3:g}k'
    return f'{round(value, 9):g}'.replace('-', '−')
