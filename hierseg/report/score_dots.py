"""Scores of several variants of a model as a picture: a dot for each training, in panels of related scores."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hierseg.files import write_atomically

COLORS = ('#2563eb', '#ea580c', '#16a34a')
ROW_HEIGHT = 0.36
"""Inches for each score of a variant."""

Scores = Mapping[str, Mapping[str, Sequence[float]]]


def plot_score_dots(scores: Scores, panels: Sequence[Sequence[str]], path: str | Path, *, title: str) -> None:
    """Draws the scores and writes them as PNG.

    Args:
        scores: By variant and name of the score, its values in [0, 1], one for each training. The first variant is
            drawn on top.
        panels: Names of the scores of each panel, at most three; the panels share their rows.
        path: Where to write.
        title: Stands above the panels.
    """
    height = 1.3 + ROW_HEIGHT * len(scores) * max(map(len, panels))
    figure = Figure(figsize=(1.8 + 3.6 * len(panels), height), layout='constrained')
    figure.suptitle(title, x=0.01, ha='left', fontsize=11)
    for axes, names in zip(np.atleast_1d(figure.subplots(1, len(panels), sharey=True)), panels, strict=True):
        _draw(axes, scores, names)
    content = io.BytesIO()
    figure.savefig(content, format='png', dpi=110)
    write_atomically(content.getvalue(), path)


def _draw(axes: Axes, scores: Scores, names: Sequence[str]) -> None:
    rows = np.arange(len(scores))
    for index, (name, color) in enumerate(zip(names, COLORS, strict=False)):
        # Scores of one variant lie below each other, close together.
        places = rows + 0.22 * (index - (len(names) - 1) / 2)
        means = [np.mean(values[name]) for values in scores.values()]
        axes.hlines(places, 0, means, color=color, alpha=0.3, linewidth=5)
        for place, values in zip(places, scores.values(), strict=True):
            label = name if place == places[0] else None
            axes.plot(values[name], np.full(len(values[name]), place), 'o', color=color, markersize=5, label=label)
    axes.set_yticks(rows, list(scores))
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.grid(axis='x', color='#e5e7eb')
    axes.set_axisbelow(True)
    axes.legend(loc='upper center', bbox_to_anchor=(0.5, -0.12), ncols=len(names), frameon=False, fontsize=9)
    for side in ('top', 'right'):
        axes.spines[side].set_visible(False)
