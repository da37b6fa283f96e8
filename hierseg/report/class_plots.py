"""Scores of several variants of a model as a picture: a dot for each training, in panels of related scores.

What plots over all classes share: names at the axis, and a logarithmic scale that knows 0.

The plot of a sampling report: the tail of classes in the data, and as samplers show it.

Shape letters: C classes.

The plot of a layer report: how long the tail of classes is, and what the cap does to it.

Shape letters: K classes of a layer.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hierseg.files import write_atomically
from hierseg.report.layer_report import LayerReport
from hierseg.report.sampling import (
    CLASS_AWARE,
    IRFS,
    PLAIN,
    RFS,
    SamplingReport,
)

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


SAMPLER_COLORS = {PLAIN: '#52525b', RFS: '#2563eb', IRFS: '#0d9488', CLASS_AWARE: '#ea580c'}


def plot_sampling_report(report: SamplingReport, path: Path) -> None:
    """Draws images and instances of every class on a logarithmic scale, the most frequent class first.

    Args:
        report: Of one sampler, or of several.
        path: The PNG to write.
    """
    figure = Figure(figsize=(13, 8.5), layout='constrained')
    upper, lower = figure.subplots(2, 1, sharex=True)
    order = report.by_frequency
    # As the data is, the plain sampler shows it.
    shown = [sampling for sampling in report.samplings if sampling.name != PLAIN] or report.samplings
    names = [_label(report, name, images) for name, images in ((s.name, s.images) for s in shown)]
    labels = [_label(report, 'in the data', report.counts.images), *names]
    colors = [SAMPLER_COLORS[sampling.name] for sampling in shown]
    images = [report.counts.images[order], *(sampling.images[order] for sampling in shown)]
    instances = [report.counts.instances[order], *(sampling.instances[order] for sampling in shown)]
    _draw_samplings(upper, images, colors=colors, labels=labels)
    _draw_samplings(lower, instances, colors=colors, labels=labels)
    upper.set_ylabel('images with the class')
    lower.set_ylabel('instances of the class')
    handles, found = upper.get_legend_handles_labels()
    ordered = [handles[found.index(label)] for label in labels]
    figure.legend(ordered, labels, loc='outside upper right', frameon=False)
    name_classes(lower, [report.taxonomy.names[label] for label in order.tolist()])
    figure.suptitle(_sampling_heading(report), x=0.01, ha='left', fontsize=11)
    figure.savefig(path, dpi=110)


def _label(report: SamplingReport, name: str, images: npt.NDArray[np.number]) -> str:
    return f'{name}: head to tail {report.head_to_tail(images):,.1f}'


def _sampling_heading(report: SamplingReport) -> str:
    text = (
        f'{report.taxonomy.num_classes} classes, labels expanded to ancestors, by number of images; head and tail are '
        f'the {report.tenth} most and least frequent\n'
    )
    if len(report.samplings) > 1:
        descriptions = '\n'.join(sampling.description for sampling in report.samplings if sampling.name != PLAIN)
        return f'{text}{report.num_images:,} images, and what samplers show of them in as many draws\n{descriptions}'
    (sampling,) = report.samplings
    return f'{text}{report.num_images:,} images, and the {sampling.epoch:,.0f} of an epoch\n{sampling.description}'


def _draw_samplings(
    axes: Axes, values: Sequence[npt.NDArray[np.number]], *, colors: list[str], labels: list[str]
) -> None:
    """The first as bars, the others as lines in front of them: a sampler may show less as well as more."""
    draw_bars(axes, values[0], color=DATA, label=labels[0])
    edges = np.arange(len(values[0]) + 1) - 0.5
    for one, color, label in zip(values[1:], colors, labels[1:], strict=True):
        axes.stairs(one, edges, baseline=None, color=color, label=label, linewidth=2)
    style_counts(axes, lowest=min(float(one.min()) for one in values))


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
    _draw_cap(upper, before.images_per_class[order], after.images_per_class[order])
    label = f'cap: {cap:,} images per class, and those that rarer classes bring'
    upper.axhline(cap, color=CAP, linewidth=1, linestyle='--', label=label)
    upper.set_ylabel('training images')
    upper.legend(loc='lower right', bbox_to_anchor=(1, 1), ncols=3, frameon=False)
    _draw_cap(lower, before.instances_per_class[order], after.instances_per_class[order])
    lower.set_ylabel('instances')
    name_classes(lower, [report.view.taxonomy.names[label] for label in order.tolist()])
    figure.suptitle(_layer_heading(report), x=0.01, ha='left', fontsize=11)
    figure.savefig(path, dpi=110)


def _layer_heading(report: LayerReport) -> str:
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


def _draw_cap(axes: Axes, before: npt.NDArray[np.int64], after: npt.NDArray[np.int64]) -> None:
    draw_bars(axes, before, color=DATA, label='before the cap')
    draw_bars(axes, after, color=AFTER, label='after the cap')
    style_counts(axes)


DOT_COLORS = ('#2563eb', '#ea580c', '#16a34a')
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
        _draw_dots(axes, scores, names)
    content = io.BytesIO()
    figure.savefig(content, format='png', dpi=110)
    write_atomically(content.getvalue(), path)


def _draw_dots(axes: Axes, scores: Scores, names: Sequence[str]) -> None:
    rows = np.arange(len(scores))
    for index, (name, color) in enumerate(zip(names, DOT_COLORS, strict=False)):
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
