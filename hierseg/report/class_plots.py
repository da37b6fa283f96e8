"""Plots over classes and trainings: the tail of the classes in layers and samplers, and scores of variants.

Shape letters: C classes.
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
from hierseg.report.class_reports import CLASS_AWARE, IRFS, PLAIN, RFS, LayerReport, SamplingReport

DPI = 110
ALL_NAMED = 40
"""Up to this many classes have all their names at the axis."""
SOME_NAMED = 24
"""Of more classes, about this many are named, evenly spaced."""
DATA = '#a1a1aa'
"""Grey: a data set as it is."""
AFTER, CAP = '#2563eb', '#dc2626'
SAMPLER_COLORS = {PLAIN: '#52525b', RFS: '#2563eb', IRFS: '#0d9488', CLASS_AWARE: '#ea580c'}
DOT_COLORS = ('#2563eb', '#ea580c', '#16a34a')
ROW_HEIGHT = 0.36
"""Inches for each score of a variant."""
Scores = Mapping[str, Mapping[str, Sequence[float]]]


def plot_sampling_report(report: SamplingReport, path: Path) -> None:
    """Writes a PNG: images and instances of every class on a logarithmic scale, the most frequent class first."""
    order, counts = report.by_frequency, report.counts
    # The plain sampler shows the data as it is.
    shown = [sampling for sampling in report.samplings if sampling.name != PLAIN] or report.samplings
    labels = [
        f'{name}: head to tail {report.head_to_tail(images):,.1f}'
        for name, images in [('in the data', counts.images), *((one.name, one.images) for one in shown)]
    ]
    figure, panels = _two_panels([report.taxonomy.names[label] for label in order.tolist()], _sampling_heading(report))
    rows = [counts.images, *(one.images for one in shown)], [counts.instances, *(one.instances for one in shown)]
    edges = np.arange(len(order) + 1) - 0.5
    for axes, (data, *samplings), title in zip(panels, rows, ('images with', 'instances of'), strict=True):
        _draw_bars(axes, data[order], color=DATA, label=labels[0])
        # Lines in front of the bars: a sampler may show less as well as more.
        for values, one, label in zip(samplings, shown, labels[1:], strict=True):
            color = SAMPLER_COLORS[one.name]
            axes.stairs(values[order], edges, baseline=None, color=color, label=label, linewidth=2)
        _style_counts(axes, lowest=min(float(values.min()) for values in (data, *samplings)))
        axes.set_ylabel(f'{title} the class')
    handles, found = panels[0].get_legend_handles_labels()
    figure.legend([handles[found.index(label)] for label in labels], labels, loc='outside upper right', frameon=False)
    figure.savefig(path, dpi=DPI)


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


def plot_layer_report(report: LayerReport, path: Path) -> None:
    """Writes a PNG: images and instances of every class before and after the cap, on a logarithmic scale."""
    order, columns, cap = report.by_frequency, report.columns, report.view.images_per_class
    names = report.view.taxonomy.names
    figure, panels = _two_panels([names[label] for label in order.tolist()], _layer_heading(report))
    for axes, counted, title in zip(panels, ('images', 'instances'), ('training images', 'instances'), strict=True):
        _draw_bars(axes, columns[f'{counted}_before'][order], color=DATA, label='before the cap')
        _draw_bars(axes, columns[f'{counted}_after'][order], color=AFTER, label='after the cap')
        _style_counts(axes)
        axes.set_ylabel(title)
    label = f'cap: {cap:,} images per class, and those that rarer classes bring'
    panels[0].axhline(cap, color=CAP, linewidth=1, linestyle='--', label=label)
    panels[0].legend(loc='lower right', bbox_to_anchor=(1, 1), ncols=3, frameon=False)
    figure.savefig(path, dpi=DPI)


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


def _two_panels(names: Sequence[str], heading: str) -> tuple[Figure, npt.NDArray[np.object_]]:
    """A figure with images above and instances below, over the same classes, one place for each from 0."""
    figure = Figure(figsize=(13, 8.5), layout='constrained')
    panels = figure.subplots(2, 1, sharex=True)
    count = len(names)
    places = np.arange(count) if count <= ALL_NAMED else np.unique(np.linspace(0, count - 1, SOME_NAMED).astype(int))
    panels[1].set_xticks(places, [names[place] for place in places], rotation=50, ha='right', rotation_mode='anchor')
    panels[1].set_xlim(-0.5, count - 0.5)
    figure.suptitle(heading, x=0.01, ha='left', fontsize=11)
    return figure, panels


def _draw_bars(axes: Axes, values: npt.NDArray[np.number], *, color: str, label: str) -> None:
    """A bar for every class."""
    count = len(values)
    if count <= ALL_NAMED:
        axes.bar(np.arange(count), values, width=0.85, color=color, label=label)
    else:  # one outline: thin bars would flicker
        axes.stairs(values, np.arange(count + 1) - 0.5, fill=True, color=color, label=label)


def _style_counts(axes: Axes, *, lowest: float = 0.0) -> None:
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


def plot_score_dots(scores: Scores, panels: Sequence[Sequence[str]], path: str | Path, *, title: str) -> None:
    """Draws the scores and writes them as PNG.

    Args:
        scores: By variant, from the top, and name of the score, its values in [0, 1], one for each training.
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
    figure.savefig(content, format='png', dpi=DPI)
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
    axes.spines[['top', 'right']].set_visible(False)
