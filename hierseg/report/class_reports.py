"""Reports on the classes that training sees: in layers with a cap, and as samplers show them. Text, CSV, JSON, plots.

Nothing is trained or drawn at random for them: numbers of a sampler are means. Shape letters: n images, C classes of
a data set, K classes of a layer.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from mmengine.dataset import DefaultSampler, InfiniteSampler

from hierseg.datasets import ClassAwareStreamSampler, RepeatFactorSampler, StreamSampler
from hierseg.datasets.balanced_samplers import training_labels
from hierseg.errors import ConfigError
from hierseg.files import whole_file, write_atomically
from hierseg.formats import FloatArray, IntArray
from hierseg.registry import DATA_SAMPLERS, DATASETS
from hierseg.store import LayerView, Store
from hierseg.store.frequency import ClassCounts, LayerCounts, TrainingLabels, count_layer
from hierseg.taxonomy import Taxonomy

PLAIN, RFS, IRFS, CLASS_AWARE = 'plain', 'RFS', 'IRFS', 'class-aware'
TENTH = 10
"""Head and tail are the most and the least frequent one in so many classes."""
NAME_WIDTH, WIDTH = 38, 12
SHOWN_CLASSES = 5
"""The text names this many of the most and of the least frequent classes of a layer; the CSV has all."""
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
LAYER_TITLES = ('root classes', 'deeper classes')


def layer_reports(store: Store, *, images_per_class: int, seed: int = 0) -> tuple[LayerReport, LayerReport]:
    """Counts both layers of a training split, with a cap on the images of each class, whose draw has the seed.

    Raises:
        ConfigError: If a layer has no classes or no image to train on.
    """

    def report(layer: int) -> LayerReport:
        view = LayerView(store, layer, images_per_class=images_per_class, seed=seed)
        return LayerReport(view, count_layer(LayerView(store, layer)), count_layer(view))

    return report(0), report(1)


@dataclass(frozen=True, eq=False)
class LayerReport:
    """Counts of one layer before and after the cap, and the view with it; as text, totals and some classes."""

    view: LayerView
    before: LayerCounts
    after: LayerCounts

    @property
    def title(self) -> str:
        """Such as ``Layer 0: 213 root classes``."""
        return f'Layer {self.view.layer}: {self.view.taxonomy.num_classes} {LAYER_TITLES[self.view.layer]}'

    @property
    def by_frequency(self) -> IntArray:
        """(K,) labels; the class with the most images before the cap first, then by label."""
        return np.argsort(-self.before.images_per_class, kind='stable')

    @property
    def columns(self) -> dict[str, IntArray]:
        """(K,) int64 each: images and instances of the classes, before and after the cap."""
        return {
            'images_before': self.before.images_per_class,
            'images_after': self.after.images_per_class,
            'instances_before': self.before.instances_per_class,
            'instances_after': self.after.instances_per_class,
        }

    def __str__(self) -> str:
        before, after, view = self.before, self.after, self.view
        cap = f'{view.images_per_class:,} images per class, and those that rarer classes bring; seed {view.seed}'
        lines = [self.title, f'  cap: {cap}', '', f'{"":<34}{"before":>12}{"after":>12}']
        rows = [
            ('training images', before.images, after.images),
            ('instances', before.instances, after.instances),
            ('boxes painted', before.painted, after.painted),
            ('  on as many images', before.images_painted, after.images_painted),
            ('boxes spared by the 25 % rule', before.spared, after.spared),
            ('classes without a training image', *(int((c.images_per_class == 0).sum()) for c in (before, after))),
        ]
        lines += [f'  {name:<32}{one:>12,}{other:>12,}' for name, one, other in rows]
        lines += ['', f'  {"class":<40}{"images":>10}{"after":>10}{"instances":>12}{"after":>10}']
        order = self.by_frequency.tolist()
        hidden = len(order) - 2 * SHOWN_CLASSES
        if hidden <= 1:
            return '\n'.join([*lines, *map(self._line, order)])
        most, fewest = map(self._line, order[:SHOWN_CLASSES]), map(self._line, order[-SHOWN_CLASSES:])
        return '\n'.join([*lines, *most, f'  … {hidden} more', *fewest])

    def _line(self, label: int) -> str:
        name = self.view.store.taxonomy.path_name(int(self.view.labels_of_layer[label]))
        name = name if len(name) < 40 else f'{name[:38]}…'
        counts = zip(self.columns.values(), (10, 10, 12, 10), strict=True)
        return f'  {name:<40}' + ''.join(f'{values[label]:>{width},}' for values, width in counts)

    def write_csv(self, path: Path) -> None:
        """Writes a row for every class, in the order of :attr:`by_frequency`."""
        order = self.by_frequency
        _write_csv(path, self.view.store.taxonomy, order, self.view.labels_of_layer[order], self.columns)


def sampling_report(sampler: Any, *, compare: bool = False, threshold: float = 1e-3) -> SamplingReport:
    """Asks a sampler what it is going to show.

    Args:
        sampler: One of hierseg's, or a sampler of MMEngine that draws all images alike.
        compare: Over as many draws as there are images, also what the alternatives would show of the same data set.
        threshold: Of repeat factors among the alternatives; the sampler's own goes before.

    Raises:
        ConfigError: If it cannot be told what the sampler shows.
    """
    labels = training_labels(sampler.dataset, where='sampling report')
    own = _sampling(sampler, labels)
    samplings = [own]
    if compare:
        dataset, given = sampler.dataset, getattr(sampler, 'threshold', threshold)
        alternatives = {
            PLAIN: StreamSampler(dataset, seed=0),
            RFS: RepeatFactorSampler(dataset, given, seed=0),
            IRFS: RepeatFactorSampler(dataset, given, instance_aware=True, seed=0),
            CLASS_AWARE: ClassAwareStreamSampler(dataset, seed=0),
        }
        samplings = [own if name == own.name else _sampling(other, labels) for name, other in alternatives.items()]
        samplings = [sampling.of_as_many_draws(labels.num_images) for sampling in samplings]
    return SamplingReport(labels.taxonomy, labels.num_images, labels.counts(), samplings)


def configured_samplers(config: Mapping[str, Any]) -> dict[str, Any]:
    """Builds data set and sampler of an MMDetection config's training, of each layer where there are several.

    Returns:
        Samplers by the name of their layer, which is '' for a model that is trained as a whole.

    Raises:
        ConfigError: If the config trains nothing, or without a sampler.
    """
    loader = config.get('train_dataloader')
    if not loader:
        raise ConfigError('the config has no train_dataloader', where='sampling report')
    layers = {
        name: {**loader, **value}
        for name, value in loader.items()
        if isinstance(value, Mapping) and isinstance(value.get('dataset'), Mapping)
    }
    samplers = {}
    for name, settings in (layers or {'': loader}).items():
        for key in ('dataset', 'sampler'):
            if not settings.get(key):
                raise ConfigError(f'train_dataloader has no {key}', where='sampling report')
        dataset = DATASETS.build(settings['dataset'])
        # What is expected does not depend on the seed.
        samplers[name] = DATA_SAMPLERS.build(settings['sampler'], default_args=dict(dataset=dataset, seed=0))
    return samplers


@dataclass(frozen=True, eq=False)
class SamplingReport:
    """Classes of a data set as they are, and as samplers show them; as text, totals and every class along the tree.

    Attributes:
        taxonomy: The C classes.
        num_images: n, what the data set's filter leaves.
        counts: Images and instances that train, over labels expanded to ancestors.
        samplings: One for an epoch of the sampler in the config; or several over n draws each, to be compared.
    """

    taxonomy: Taxonomy
    num_images: int
    counts: ClassCounts
    samplings: Sequence[Sampling]

    @cached_property
    def by_frequency(self) -> IntArray:
        """(C,) labels; the class on most images first, then by label."""
        return np.argsort(-self.counts.images, kind='stable')

    @cached_property
    def _present(self) -> IntArray:
        """Labels of the classes that have images, the most frequent first."""
        return self.by_frequency[self.counts.images[self.by_frequency] > 0]

    def extremes(self, images: npt.NDArray[Any]) -> float:
        """Images of the class that has most, for each of the class that has fewest; classes without one left out."""
        shown = images[self._present]
        return float(shown.max() / shown.min()) if len(shown) else 1.0

    @property
    def tenth(self) -> int:
        """Number of classes in the head, and in the tail."""
        return max(1, len(self._present) // TENTH)

    def head_to_tail(self, images: npt.NDArray[Any]) -> float:
        """Images of the head for each of the tail: the tenths of classes that have most and fewest in the data."""
        present = self._present
        if not len(present):
            return 1.0
        return float(images[present[: self.tenth]].mean() / images[present[-self.tenth :]].mean())

    def __str__(self) -> str:
        samplings, counts = self.samplings, self.counts
        lines = [f'{self.num_images:,} images to train on, {self.taxonomy.num_classes} classes', '']
        lines += [f'{sampling.name}: {sampling.description}' for sampling in samplings]
        if len(samplings) > 1:
            lines += ['', f'Images of each class in {self.num_images:,} draws:']
        heads = ['in the data', *(sampling.name for sampling in samplings)]
        images = [counts.images, *(sampling.images for sampling in samplings)]
        columns, details, titles = images, list[FloatArray](), heads
        if len(samplings) == 1:
            columns = [*images, counts.instances, samplings[0].instances]
            details = [*samplings[0].details.values()]
            titles = ['images', 'shown', 'instances', 'shown', *samplings[0].details]
        rows = [
            _line('', heads),
            _line('images', _numbers([self.num_images, *(sampling.epoch for sampling in samplings)], digits=0)),
            _line('most to least shown class, images', _numbers(map(self.extremes, images), digits=1)),
            _line(f'head to tail, {self.tenth} of each', _numbers(map(self.head_to_tail, images), digits=1)),
            _line('most shown image, times', _numbers([1, *(s.draws.max() for s in samplings)], digits=2)),
            _line('least shown image, times', _numbers([1, *(s.draws.min() for s in samplings)], digits=2)),
            '',
            _line('class', titles),
        ]
        # Along preferred parents: a class before those below it, frequent siblings first.
        rank, paths = np.argsort(self.by_frequency), map(self.taxonomy.preferred_path, range(self.taxonomy.num_classes))
        for *above, label in sorted(paths, key=lambda path: rank[list(path)].tolist()):
            numbers = _numbers([column[label] for column in columns], digits=0)
            numbers += [f'{values[label]:.4g}' for values in details]
            rows.append(_line('  ' * len(above) + self.taxonomy.names[label], numbers))
        return '\n'.join([*lines, '', *rows] if len(samplings) == 1 else [*lines, *rows])

    def to_json(self) -> dict[str, Any]:
        """The totals, for JSON."""
        return {
            'images': self.num_images,
            'classes': self.taxonomy.num_classes,
            'classes_without_images': int((self.counts.images == 0).sum()),
            'classes_of_head_and_of_tail': self.tenth,
            'most_to_least_shown_class': self.extremes(self.counts.images),
            'head_to_tail': self.head_to_tail(self.counts.images),
            'samplers': [
                {
                    'name': sampling.name,
                    'description': sampling.description,
                    'images': sampling.epoch,
                    'most_to_least_shown_class': self.extremes(sampling.images),
                    'head_to_tail': self.head_to_tail(sampling.images),
                    'most_shown_image': float(sampling.draws.max()),
                    'least_shown_image': float(sampling.draws.min()),
                }
                for sampling in self.samplings
            ],
        }

    def write_csv(self, path: Path) -> None:
        """Writes a row for every class, the most frequent first; numbers of each sampler under its name."""
        columns = {'images': self.counts.images, 'instances': self.counts.instances}
        for one in self.samplings:
            shown = {'images': one.images, 'instances': one.instances, **one.details}
            columns |= {f'{one.name} {name}': [f'{value:.6g}' for value in values] for name, values in shown.items()}
        _write_csv(path, self.taxonomy, self.by_frequency, self.by_frequency, columns)


@dataclass(frozen=True, eq=False)
class Sampling:
    """Images and instances that a sampler shows in some stretch of its stream.

    Attributes:
        name: ``plain``, ``RFS``, ``IRFS`` or ``class-aware``.
        description: The sampler and its settings.
        draws: (n,) float64; how often each image comes.
        images: (C,) float64; images with each class that come, over labels expanded to ancestors.
        instances: (C,) float64; instances of each class.
        details: Grounds of its choice, (C,) float64 each: frequency and factor, or probability.
    """

    name: str
    description: str
    draws: FloatArray
    images: FloatArray
    instances: FloatArray
    details: Mapping[str, FloatArray]

    @property
    def epoch(self) -> float:
        """Images that come, repeated ones counted as often as they do."""
        return float(self.draws.sum())

    def of_as_many_draws(self, count: int) -> Sampling:
        """The same over another number of images."""
        scale = count / self.epoch
        return replace(self, draws=self.draws * scale, images=self.images * scale, instances=self.instances * scale)


def _sampling(sampler: Any, labels: TrainingLabels) -> Sampling:
    details: dict[str, FloatArray] = {}
    name, description = PLAIN, 'all images alike'
    if isinstance(sampler, RepeatFactorSampler):
        name = IRFS if sampler.instance_aware else RFS
        kind = 'geometric mean of image and instance frequency' if sampler.instance_aware else 'image frequency'
        description = f'threshold {sampler.threshold} of the {kind}, power {sampler.power:g}'
        if sampler.max_repeats is not None:
            description += f', at most {sampler.max_repeats:g} times a pass'
        details = {'frequency': sampler.class_frequencies, 'factor': sampler.class_factors}
    elif isinstance(sampler, ClassAwareStreamSampler):
        name, description = CLASS_AWARE, f'power {sampler.power:g} of the images of a class'
        details = {'probability': sampler.class_probabilities}
    elif type(sampler) not in (StreamSampler, DefaultSampler, InfiniteSampler):
        raise ConfigError(
            f'it is not known how often {type(sampler).__name__} draws an image',
            where='sampling report',
            fix="Use a sampler of hierseg, such as dict(type='hierseg.RepeatFactorSampler').",
        )
    if not getattr(sampler, 'expanded', True):
        description += ', labels not expanded to ancestors'
    draws = sampler.expected_draws() if isinstance(sampler, StreamSampler) else np.ones(labels.num_images)
    images, instances = labels.counts_of_draws(draws)
    return Sampling(name, f'{type(sampler).__name__}, {description}', draws, images, instances, details)


def _write_csv(
    path: Path, taxonomy: Taxonomy, order: IntArray, nodes: IntArray, columns: Mapping[str, Sequence[Any] | IntArray]
) -> None:
    """Writes classes, of which ``nodes`` are the places in the taxonomy, with their columns."""
    described = [(taxonomy.ids[node], taxonomy.names[node], taxonomy.path_name(node)) for node in nodes.tolist()]
    table = pd.DataFrame(described, index=pd.Index(order, name='label'), columns=['id', 'name', 'path'])
    text = table.join(pd.DataFrame(columns)).to_csv(lineterminator='\n')
    write_atomically(text.encode('utf-8'), path)


def _numbers(values: Iterable[float], *, digits: int) -> list[str]:
    return [f'{value:,.{digits}f}' for value in values]


def _line(name: str, cells: Sequence[str]) -> str:
    name = name if len(name) < NAME_WIDTH else f'{name[: NAME_WIDTH - 2]}…'
    return f'{name:<{NAME_WIDTH}}' + ''.join(f'{cell:>{WIDTH}}' for cell in cells)


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
    with whole_file(path) as file:
        figure.savefig(file, format='png', dpi=DPI)


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
    with whole_file(path) as file:
        figure.savefig(file, format='png', dpi=DPI)


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
    """Writes a PNG of scores in [0, 1], one for each training, by variant, from the top, and name of the score.

    Panels share their rows; each has at most three scores, by their names.
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
