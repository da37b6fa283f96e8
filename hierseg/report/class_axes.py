"""What plots over all classes share: names at the axis, and a logarithmic scale that knows 0."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes

ALL_NAMED = 40
"""Up to this many classes have all their names at the axis."""
SOME_NAMED = 24
"""Of more classes, about this many are named, evenly spaced."""
DATA = '#a1a1aa'
"""Grey: a data set as it is."""


def name_classes(axes: Axes, names: Sequence[str]) -> None:
    """Writes the names of classes below an axis that has one place for each, from 0."""
    count = len(names)
    places = np.arange(count) if count <= ALL_NAMED else np.unique(np.linspace(0, count - 1, SOME_NAMED).astype(int))
    axes.set_xticks(places, [names[place] for place in places], rotation=50, ha='right', rotation_mode='anchor')
    axes.set_xlim(-0.5, count - 0.5)


def draw_bars(axes: Axes, values: npt.NDArray[np.number], *, color: str, label: str) -> None:
    """A bar for every class."""
    count = len(values)
    if count <= ALL_NAMED:
        axes.bar(np.arange(count), values, width=0.85, color=color, label=label)
    else:  # one outline: thin bars would flicker
        axes.stairs(values, np.arange(count + 1) - 0.5, fill=True, color=color, label=label)


def style_counts(axes: Axes, *, lowest: float = 0.0) -> None:
    """A logarithmic scale of whole numbers, down to the power of ten below the lowest that is shown."""
    if lowest >= 1:
        axes.set_yscale('log')
        axes.set_ylim(bottom=10 ** np.floor(np.log10(lowest)))
    else:  # linear up to 1, so that a class without images is seen at 0
        axes.set_yscale('symlog', linthresh=1)
        axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter('{x:,.0f}')
    axes.grid(axis='y', color='#e4e4e7', linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[['top', 'right']].set_visible(False)
