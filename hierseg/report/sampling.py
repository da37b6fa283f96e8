"""What samplers show of each class, on average and before anything is trained.

Shape letters: n images, C classes.

A sampling report as text, CSV and JSON.

Shape letters: C classes.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from mmengine.dataset import DefaultSampler, InfiniteSampler

from hierseg.datasets import (
    ClassAwareStreamSampler,
    RepeatFactorSampler,
    StoreDataset,
    StreamSampler,
)
from hierseg.datasets.balanced_samplers import training_labels
from hierseg.errors import ConfigError
from hierseg.formats import FloatArray, IntArray
from hierseg.registry import DATA_SAMPLERS, DATASETS
from hierseg.store.frequency import ClassCounts, TrainingLabels
from hierseg.taxonomy import Taxonomy

NAME_WIDTH, WIDTH = 38, 12


def report_text(report: SamplingReport) -> str:
    """Totals, and every class along the tree: as in the data, and as the samplers show it."""
    lines = [f'{report.num_images:,} images to train on, {report.taxonomy.num_classes} classes', '']
    lines += [f'{sampling.name}: {sampling.description}' for sampling in report.samplings]
    if len(report.samplings) > 1:
        lines += ['', f'Images of each class in {report.num_images:,} draws:']
        return '\n'.join([*lines, *_totals(report), '', *_compared(report)])
    return '\n'.join([*lines, '', *_totals(report), '', *_in_detail(report)])


def _totals(report: SamplingReport) -> list[str]:
    """A row for each total, a column for the data and one for each sampler."""
    samplings, counts = report.samplings, report.counts
    images = [counts.images, *(sampling.images for sampling in samplings)]
    heads = ['in the data', *(sampling.name for sampling in samplings)]
    own = report.num_images, 1.0
    return [
        _line('', heads),
        _line('images', _numbers([own[0], *(sampling.epoch for sampling in samplings)], digits=0)),
        _line('most to least shown class, images', _numbers(map(report.extremes, images), digits=1)),
        _line(f'head to tail, {report.tenth} of each', _numbers(map(report.head_to_tail, images), digits=1)),
        _line('most shown image, times', _numbers([own[1], *(s.draws.max() for s in samplings)], digits=2)),
        _line('least shown image, times', _numbers([own[1], *(s.draws.min() for s in samplings)], digits=2)),
    ]


def _in_detail(report: SamplingReport) -> list[str]:
    (sampling,), counts = report.samplings, report.counts
    rows = [_line('class', ['images', 'shown', 'instances', 'shown', *sampling.details])]
    for label, depth in report.by_tree:
        numbers = [counts.images[label], sampling.images[label], counts.instances[label], sampling.instances[label]]
        details = [f'{values[label]:.4g}' for values in sampling.details.values()]
        rows.append(_line(_indented(report, label, depth), [*_numbers(numbers, digits=0), *details]))
    return rows


def _compared(report: SamplingReport) -> list[str]:
    rows = [_line('class', ['in the data', *(sampling.name for sampling in report.samplings)])]
    for label, depth in report.by_tree:
        numbers = [report.counts.images[label], *(sampling.images[label] for sampling in report.samplings)]
        rows.append(_line(_indented(report, label, depth), _numbers(numbers, digits=0)))
    return rows


def _indented(report: SamplingReport, label: int, depth: int) -> str:
    return '  ' * depth + report.taxonomy.names[label]


def _numbers(values: Iterable[float], *, digits: int) -> list[str]:
    return [f'{value:,.{digits}f}' for value in values]


def _line(name: str, cells: Sequence[str]) -> str:
    name = name if len(name) < NAME_WIDTH else f'{name[: NAME_WIDTH - 2]}…'
    return f'{name:<{NAME_WIDTH}}' + ''.join(f'{cell:>{WIDTH}}' for cell in cells)


def write_csv(report: SamplingReport, path: Path) -> None:
    """Writes a row for every class, the most frequent first; numbers of each sampler under its name."""
    taxonomy, counts = report.taxonomy, report.counts
    columns = [
        (f'{sampling.name} {what}', values) for sampling in report.samplings for what, values in _columns(sampling)
    ]
    with path.open('w', newline='', encoding='utf-8') as file:
        writer = csv.writer(file, lineterminator='\n')
        writer.writerow(['label', 'id', 'name', 'path', 'images', 'instances', *(name for name, _ in columns)])
        for label in report.by_frequency.tolist():
            described = [label, taxonomy.ids[label], taxonomy.names[label], taxonomy.path_name(label)]
            numbers = [f'{values[label]:.6g}' for _, values in columns]
            writer.writerow([*described, counts.images[label], counts.instances[label], *numbers])


def _columns(sampling: Sampling) -> list[tuple[str, Any]]:
    return [('images', sampling.images), ('instances', sampling.instances), *sampling.details.items()]


def report_document(report: SamplingReport) -> dict[str, Any]:
    """The totals, for JSON."""
    return {
        'images': report.num_images,
        'classes': report.taxonomy.num_classes,
        'classes_without_images': int((report.counts.images == 0).sum()),
        'classes_of_head_and_of_tail': report.tenth,
        'most_to_least_shown_class': report.extremes(report.counts.images),
        'head_to_tail': report.head_to_tail(report.counts.images),
        'samplers': [
            {
                'name': sampling.name,
                'description': sampling.description,
                'images': sampling.epoch,
                'most_to_least_shown_class': report.extremes(sampling.images),
                'head_to_tail': report.head_to_tail(sampling.images),
                'most_shown_image': float(sampling.draws.max()),
                'least_shown_image': float(sampling.draws.min()),
            }
            for sampling in report.samplings
        ],
    }


PLAIN, RFS, IRFS, CLASS_AWARE = 'plain', 'RFS', 'IRFS', 'class-aware'
TENTH = 10
"""Head and tail are the most and the least frequent one in so many classes."""


@dataclass(frozen=True, eq=False)
class Sampling:
    """What a sampler shows in some stretch of its stream.

    Attributes:
        name: ``plain``, ``RFS``, ``IRFS`` or ``class-aware``.
        description: The sampler and its settings.
        draws: (n,) float64; how often each image comes.
        images: (C,) float64; images with each class that come, over labels expanded to ancestors.
        instances: (C,) float64; instances of each class.
        details: What the sampler decides by, (C,) float64 each: frequency and factor, or probability.
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
        draws, images, instances = self.draws * scale, self.images * scale, self.instances * scale
        return Sampling(self.name, self.description, draws, images, instances, self.details)


@dataclass(frozen=True, eq=False)
class SamplingReport:
    """Classes of a data set as they are, and as samplers show them.

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
    def by_tree(self) -> list[tuple[int, int]]:
        """Labels and depths along preferred parents: a class before those below it, frequent siblings first."""
        children: dict[int, list[int]] = {}
        for label in self.by_frequency.tolist():
            children.setdefault(int(self.taxonomy.arrays.preferred_parents[label]), []).append(label)
        listed, waiting = [], [(label, 0) for label in reversed(children.get(-1, []))]
        while waiting:
            label, depth = waiting.pop()
            listed.append((label, depth))
            waiting += [(child, depth + 1) for child in reversed(children.get(label, []))]
        return listed

    @cached_property
    def _present(self) -> IntArray:
        """Labels of classes with images, the most frequent first."""
        return self.by_frequency[self.counts.images[self.by_frequency] > 0]

    def extremes(self, images: npt.NDArray[Any]) -> float:
        """Images of the class that has most, for each of the class that has fewest; classes without one left out."""
        shown = images[self._present]
        return float(shown.max() / shown.min()) if len(shown) else 1.0

    @property
    def tenth(self) -> int:
        """How many classes are head, and how many tail."""
        return max(1, len(self._present) // TENTH)

    def head_to_tail(self, images: npt.NDArray[Any]) -> float:
        """Images of the head for each of the tail: the tenths of classes that have most and fewest in the data."""
        present = self._present
        return (
            float(images[present[: self.tenth]].mean() / images[present[-self.tenth :]].mean()) if len(present) else 1
        )


def sampling_report(sampler: Any, *, compare: bool = False, threshold: float = 1e-3) -> SamplingReport:
    """Asks a sampler what it is going to show.

    Args:
        sampler: One of hierseg's, or a sampler of MMEngine that draws all images alike.
        compare: Over as many draws as there are images, also what the alternatives would show of the same data
            set.
        threshold: Of repeat factors among the alternatives; the sampler's own goes before.

    Raises:
        ConfigError: If it cannot be told what the sampler shows.
    """
    labels = training_labels(sampler.dataset, where='sampling report')
    own = _sampling(sampler, labels)
    samplings = [own]
    if compare:
        given = getattr(sampler, 'threshold', threshold)
        power = getattr(sampler, 'power', 0.0)
        samplings = [own if name == own.name else _sampling(other, labels)
                     for name, other in _alternatives(sampler.dataset, threshold=given, power=power)]  # fmt: skip
        samplings = [sampling.of_as_many_draws(labels.num_images) for sampling in samplings]
    return SamplingReport(labels.taxonomy, labels.num_images, labels.counts(), samplings)


def configured_samplers(config: Mapping[str, Any]) -> dict[str, Any]:
    """Builds data set and sampler of a config's training, of each layer where there are several.

    Args:
        config: An MMDetection config.

    Returns:
        Samplers by the name of their layer, which is '' for a model that is trained as a whole.

    Raises:
        ConfigError: If the config trains nothing, or without a sampler.
    """
    loader = config.get('train_dataloader')
    if not loader:
        raise ConfigError('the config has no train_dataloader', where='sampling report')
    layers = {name: {**loader, **value} for name, value in loader.items() if _has_dataset(value)}
    samplers = {}
    for name, settings in (layers or {'': loader}).items():
        for key in ('dataset', 'sampler'):
            if not settings.get(key):
                raise ConfigError(f'train_dataloader has no {key}', where='sampling report')
        dataset = DATASETS.build(settings['dataset'])
        # What is expected does not depend on the seed.
        samplers[name] = DATA_SAMPLERS.build(settings['sampler'], default_args=dict(dataset=dataset, seed=0))
    return samplers


def _has_dataset(value: Any) -> bool:
    return isinstance(value, Mapping) and isinstance(value.get('dataset'), Mapping)


def _alternatives(dataset: StoreDataset, *, threshold: float, power: float) -> list[tuple[str, StreamSampler]]:
    return [
        (PLAIN, StreamSampler(dataset, seed=0)),
        (RFS, RepeatFactorSampler(dataset, threshold, seed=0)),
        (IRFS, RepeatFactorSampler(dataset, threshold, instance_aware=True, seed=0)),
        (CLASS_AWARE, ClassAwareStreamSampler(dataset, power=power, seed=0)),
    ]


def _sampling(sampler: Any, labels: TrainingLabels) -> Sampling:
    details: dict[str, FloatArray] = {}
    name, description = PLAIN, 'all images alike'
    if isinstance(sampler, RepeatFactorSampler):
        name = IRFS if sampler.instance_aware else RFS
        kind = 'geometric mean of image and instance frequency' if sampler.instance_aware else 'image frequency'
        description = f'threshold {sampler.threshold:g} of the {kind}'
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
