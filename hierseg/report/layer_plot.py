"""The plot of a layer report: how long the tail of classes is, and what the cap does to it.

Shape letters: K classes of a layer.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hierseg.report.layer_report import LayerReport

ALL_NAMED = 40
"""A layer of up to this many classes has all of them named at the axis."""
SOME_NAMED = 24
"""A larger one has about this many named, evenly spaced."""
BEFORE, AFTER, CAP = '#a1a1aa', '#2563eb', '#dc2626'


def plot_layer_report(report: LayerReport, path: Path) -> None:
    """Draws images and instances of every class before and after the cap, on a logarithmic scale.

    Args:
        report: One layer.
        path: The PNG to write.
    """
    figure = Figure(figsize=(13, 8), layout='constrained')
    upper, lower = figure.subplots(2, 1, sharex=True)
    order, before, after = report.by_frequency, report.before, report.after
    cap = report.view.images_per_class
    _draw(upper, before.images_per_class[order], after.images_per_class[order])
    label = f'cap: {cap:,} images per class, and those that rarer classes bring'
    upper.axhline(cap, color=CAP, linewidth=1, linestyle='--', label=label)
    upper.set_ylabel('training images')
    upper.legend(loc='lower right', bbox_to_anchor=(1, 1), ncols=3, frameon=False)
    _draw(lower, before.instances_per_class[order], after.instances_per_class[order])
    lower.set_ylabel('instances')
    names = [report.view.taxonomy.names[label] for label in order.tolist()]
    count = len(names)
    places = np.arange(count) if count <= ALL_NAMED else np.unique(np.linspace(0, count - 1, SOME_NAMED).astype(int))
    lower.set_xticks(places, [names[place] for place in places], rotation=50, ha='right', rotation_mode='anchor')
    lower.set_xlim(-0.5, count - 0.5)
    figure.suptitle(_heading(report), x=0.01, ha='left', fontsize=11)
    figure.savefig(path, dpi=110)


def _heading(report: LayerReport) -> str:
    before, after = report.before, report.after
    text = (
        f'{report.title}, by number of images\n'
        f'{before.images:,} training images and {before.instances:,} instances, '
        f'after the cap {after.images:,} and {after.instances:,}'
    )
    if report.view.classes.painted.any():
        text += (
            f'\n{before.painted:,} boxes painted grey and {before.spared:,} spared by the 25 % rule, '
            f'after the cap {after.painted:,} and {after.spared:,}'
        )
    return text


def _draw(axes: Axes, before: npt.NDArray[np.int64], after: npt.NDArray[np.int64]) -> None:
    count = len(before)
    for values, color, label in ((before, BEFORE, 'before the cap'), (after, AFTER, 'after the cap')):
        if count <= ALL_NAMED:
            axes.bar(np.arange(count), values, width=0.85, color=color, label=label)
        else:  # one outline: thin bars would flicker
            axes.stairs(values, np.arange(count + 1) - 0.5, fill=True, color=color, label=label)
    # Linear up to 1, so that a class without images is seen at 0.
    axes.set_yscale('symlog', linthresh=1)
    axes.yaxis.set_major_formatter('{x:,.0f}')
    axes.set_ylim(bottom=0)
    axes.grid(axis='y', color='#e4e4e7', linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[['top', 'right']].set_visible(False)
