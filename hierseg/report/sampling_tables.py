"""A sampling report as text, CSV and JSON.

Shape letters: C classes.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from hierseg.report.sampling import Sampling, SamplingReport

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
