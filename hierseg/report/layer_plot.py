"""The plot of a layer report: how long the tail of classes is, and what the cap does to it.

Shape letters: K classes of a layer.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hierseg.report.class_axes import DATA, draw_bars, name_classes, style_counts
from hierseg.report.layer_report import LayerReport

AFTER, CAP = '#2563eb', '#dc2626'


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
    name_classes(lower, [report.view.taxonomy.names[label] for label in order.tolist()])
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
    draw_bars(axes, before, color=DATA, label='before the cap')
    draw_bars(axes, after, color=AFTER, label='after the cap')
    style_counts(axes)
