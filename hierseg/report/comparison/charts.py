"""Charts that templates draw as SVG: scales, lines and dots.

Coordinates are those of the drawing, x to the right and y downwards.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.ticker import MaxNLocator

LEFT, RIGHT, TOP, BOTTOM = 46, 390, 26, 242
"""Ends of the scales, on a drawing of 400 by 280."""
MOST_POINTS = 160
"""Of a line; more would not be seen."""
FEWEST_TICKS = 3
"""A logarithmic scale with fewer powers of ten has twice and five times as much, too."""


@dataclass(frozen=True)
class Scale:
    """From values, ``low`` to ``high``, to places on the drawing, ``start`` to ``end``.

    A logarithmic scale is linear in log(1 + value), which knows 0. One of counts has ticks at whole numbers.
    """

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False
    counts: bool = False

    def place(self, value: float) -> float:
        """Where a value stands, on a tenth of a pixel."""
        low, high, at = (math.log1p(number) if self.logarithmic else number for number in (self.low, self.high, value))
        return round(self.start + (at - low) / (high - low) * (self.end - self.start), 1)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Places and texts of about five round values, or of the powers of ten."""
        if not self.logarithmic:
            values = [float(value) for value in MaxNLocator(5, integer=self.counts).tick_values(self.low, self.high)]
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


def x_scale(low: float, high: float, *, logarithmic: bool = False, counts: bool = False) -> Scale:
    """A horizontal scale; widened if it has no extent."""
    return Scale(low, high if high > low else low + 1, LEFT, RIGHT, logarithmic, counts)


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
