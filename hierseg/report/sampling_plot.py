"""The plot of a sampling report: the tail of classes in the data, and as samplers show it.

Shape letters: C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hierseg.report.class_axes import DATA, draw_bars, name_classes, style_counts
from hierseg.report.sampling import CLASS_AWARE, IRFS, PLAIN, RFS, SamplingReport

COLORS = {PLAIN: '#52525b', RFS: '#2563eb', IRFS: '#0d9488', CLASS_AWARE: '#ea580c'}


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
    colors = [COLORS[sampling.name] for sampling in shown]
    images = [report.counts.images[order], *(sampling.images[order] for sampling in shown)]
    instances = [report.counts.instances[order], *(sampling.instances[order] for sampling in shown)]
    _draw(upper, images, colors=colors, labels=labels)
    _draw(lower, instances, colors=colors, labels=labels)
    upper.set_ylabel('images with the class')
    lower.set_ylabel('instances of the class')
    handles, found = upper.get_legend_handles_labels()
    ordered = [handles[found.index(label)] for label in labels]
    figure.legend(ordered, labels, loc='outside upper right', frameon=False)
    name_classes(lower, [report.taxonomy.names[label] for label in order.tolist()])
    figure.suptitle(_heading(report), x=0.01, ha='left', fontsize=11)
    figure.savefig(path, dpi=110)


def _label(report: SamplingReport, name: str, images: npt.NDArray[np.number]) -> str:
    return f'{name}: head to tail {report.head_to_tail(images):,.1f}'


def _heading(report: SamplingReport) -> str:
    text = (
        f'{report.taxonomy.num_classes} classes, labels expanded to ancestors, by number of images; head and tail are '
        f'the {report.tenth} most and least frequent\n'
    )
    if len(report.samplings) > 1:
        descriptions = '\n'.join(sampling.description for sampling in report.samplings if sampling.name != PLAIN)
        return f'{text}{report.num_images:,} images, and what samplers show of them in as many draws\n{descriptions}'
    (sampling,) = report.samplings
    return f'{text}{report.num_images:,} images, and the {sampling.epoch:,.0f} of an epoch\n{sampling.description}'


def _draw(axes: Axes, values: Sequence[npt.NDArray[np.number]], *, colors: list[str], labels: list[str]) -> None:
    """The first as bars, the others as lines in front of them: a sampler may show less as well as more."""
    draw_bars(axes, values[0], color=DATA, label=labels[0])
    edges = np.arange(len(values[0]) + 1) - 0.5
    for one, color, label in zip(values[1:], colors, labels[1:], strict=True):
        axes.stairs(one, edges, baseline=None, color=color, label=label, linewidth=2)
    style_counts(axes, lowest=min(float(one.min()) for one in values))
