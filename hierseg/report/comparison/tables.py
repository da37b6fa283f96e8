"""Tables of a comparison as files: scores in Markdown, and everything that the page has a table of as CSV."""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from hierseg.metrics.class_curves import THRESHOLDS
from hierseg.metrics.declarations import FEWEST_IMAGES, Estimate
from hierseg.metrics.names import MISSED
from hierseg.report.comparison.document import Comparison
from hierseg.report.comparison.scores import NONE, answer, cost_rows, score_groups

Rows = Iterable[Sequence[Any]]
"""The first one has the titles of the columns."""


def scores_table(document: Comparison) -> str:
    """Scores and costs in Markdown: a row each, a column for each system and for each difference to the first.

    Where the interval of a difference lies on one side of 0, the better score is bold.
    """
    names = [_escaped(system.name) for system in document.systems]
    first, others = names[0], names[1:]
    titles = ['', *names, *(f'{name} against {first}' for name in others)]
    blanks = [''] * (len(titles) - 1)
    rows = [titles, ['---', *['---:'] * len(blanks)]]
    for group, score_rows in score_groups(document).items():
        rows.append([f'*{_escaped(group)}*', *blanks])
        for row in score_rows:
            label = f'{row.metric.label} ({row.metric.unit})' if row.metric.unit else row.metric.label
            texts = [(f'**{cell.text}**' if cell.wins else cell.text, cell.interval) for cell in row.cells]
            texts += [(cell.text, cell.interval) for cell in row.differences]
            rows.append([_escaped(label), *(f'{text} ({within})' if within else text for text, within in texts)])
    costs = cost_rows(document)
    if costs:
        rows.append(['*Costs*', *blanks])
    for label, cells in costs.items():
        texts = [f'{cell.text} ({cell.doubt})' if cell.doubt else cell.text for cell in cells]
        rows.append([label, *texts, *(cell.ratio or NONE for cell in cells[1:])])
    notes = f'In brackets: {document.head.confidence:.0%} intervals over images.'
    if others:
        notes += f' Bold: better than {first}, or {first} better than all others, where 0 is outside the'
        notes += f' interval of the difference, on at least {FEWEST_IMAGES} images.'
        notes += f' Multiples of costs are those of {first}.'
    conclusion = answer(document)
    warning = [f'**{_escaped(conclusion.headline)}**', ''] if conclusion.is_warning else []
    return '\n'.join([*warning, *(f'| {" | ".join(cells)} |' for cells in rows), '', notes, ''])


def _escaped(text: str) -> str:
    """Text that means nothing to Markdown and stays in its cell."""
    for character in '\\`*_[]<>|':
        text = text.replace(character, '\\' + character)
    return ' '.join(text.split())


def csv_tables(document: Comparison) -> dict[str, str]:
    """Tables by their name, as CSV with full precision; a number that does not exist is an empty cell.

    A table without rows is left out.
    """
    tables = {name: list(rows(document)) for name, rows in TABLES.items()}
    return {name: _text(rows) for name, rows in tables.items() if len(rows) > 1}


def address(table: str) -> str:
    """A CSV as an address of a page."""
    return 'data:text/csv;charset=utf-8;base64,' + base64.b64encode(table.encode()).decode()


def _text(rows: Rows) -> str:
    content = io.StringIO()
    csv.writer(content, lineterminator='\n').writerows(
        [('' if cell is None or cell != cell else cell) for cell in row] for row in rows
    )
    return content.getvalue()


def _scores(document: Comparison) -> Iterator[Sequence[Any]]:
    systems, others = document.systems, document.systems[1:]
    ends = ('', ' low', ' high')
    yield [
        'group', 'score', 'unit', 'higher is better', *(f'{system.name}{end}' for system in systems for end in ends),
        *(f'{system.name} - {systems[0].name}{end}' for system in others for end in (*ends, ' images')),
    ]  # fmt: skip
    for metric in document.metrics:
        scores = [system.scores.get(metric.key, Estimate()) for system in systems]
        differences = [document.difference(system, metric) for system in others]
        yield [
            metric.group, metric.label, metric.unit, metric.higher_is_better,
            *(number for entry in scores for number in (entry.value, entry.low, entry.high)),
            *(number for entry in differences for number in (entry.value, entry.low, entry.high, entry.images)),
        ]  # fmt: skip


def _costs(document: Comparison) -> Iterator[Sequence[Any]]:
    yield ['cost', *(system.name for system in document.systems)]
    of_systems = [asdict(system.costs) for system in document.systems]
    for name in of_systems[0]:
        values = [costs[name] for costs in of_systems]
        if any(value is not None for value in values):
            yield [name, *values]


def _classes(document: Comparison) -> Iterator[Sequence[Any]]:
    taxonomy, systems = document.taxonomy, document.systems
    what = ('average precision', 'best F1', 'from score')
    columns = [f'{system.name} {column}' for system in systems for column in what]
    yield ['id', 'class', 'path', 'objects', 'training images', *columns]
    for label in sorted(range(taxonomy.num_classes), key=taxonomy.preferred_path):
        curves = [system.class_curves[label] if system.class_curves else None for system in systems]
        numbers = [
            (system.class_ap[label], *((None, None) if curve is None else curve.best))
            for system, curve in zip(systems, curves, strict=True)
        ]
        images = None if document.train_images is None else document.train_images[label]
        yield [
            taxonomy.ids[label], taxonomy.names[label], taxonomy.path_name(label), document.objects[label], images,
            *(number for of_system in numbers for number in of_system),
        ]  # fmt: skip


def _curves(document: Comparison) -> Iterator[Sequence[Any]]:
    yield ['class', 'system', 'curve', 'x', 'y']
    for system in document.systems:
        for name, curve in zip(document.taxonomy.names, system.class_curves, strict=bool(system.class_curves)):
            if curve is None:
                continue
            for kind, x, y in (
                ('precision up to recall', curve.recall, curve.precision), ('F1 from score', THRESHOLDS, curve.f1)
            ):  # fmt: skip
                yield from ((name, system.name, kind, *point) for point in zip(x.tolist(), y.tolist(), strict=True))


def _names(document: Comparison) -> Iterator[Sequence[Any]]:
    yield ['system', 'threshold', 'correctness', 'information']
    for system in document.systems:
        curve = system.operating_curve
        if curve is not None:
            points = zip(curve.thresholds, curve.correctness.tolist(), curve.information.tolist(), strict=True)
            yield from ((system.name, *point) for point in points)


def _errors(document: Comparison) -> Iterator[Sequence[Any]]:
    yield ['kind', *(system.name for system in document.systems)]
    for kind in document.error_kinds:
        yield [kind.label, *(system.errors.get(kind.key) for system in document.systems)]


def _confusions(document: Comparison) -> Iterator[Sequence[Any]]:
    yield ['system', 'class', 'named', 'objects']
    names = document.taxonomy.names
    for system in document.systems:
        cells = system.confusion
        for true, named, count in zip(
            cells.true_labels.tolist(), cells.named_labels.tolist(), cells.counts.tolist(), strict=True
        ):
            yield [system.name, names[true], 'missed' if named == MISSED else names[named], count]


def _training(document: Comparison) -> Iterator[Sequence[Any]]:
    yield ['system', 'curve', 'epoch', 'loss']
    for system in document.systems:
        for name, points in system.training_curves.items():
            yield from ((system.name, name, *point) for point in points)


def _images(document: Comparison) -> Iterator[Sequence[Any]]:
    names, labels = (
        [system.name for system in document.systems],
        {kind.key: kind.label for kind in document.error_kinds},
    )
    columns = ('score', 'detections', 'errors')
    yield ['file', 'id', 'classes', *(f'{name} {column}' for name in names for column in columns)]
    for image in document.images:
        cells: list[Any] = []
        for name in names:
            panel = image.panels[name]
            shown = [entry.score for entry in panel.instances if entry.score is not None]
            count = int((np.array(shown) >= round(100 * document.score_threshold)).sum())
            cells += [panel.score, count, ', '.join(labels[key] for key in panel.errors)]
        classes = ', '.join(document.taxonomy.names[label] for label in image.classes)
        yield [image.file_name, image.image_id, classes, *cells]


TABLES: dict[str, Callable[[Comparison], Rows]] = {
    'scores': _scores,
    'costs': _costs,
    'classes': _classes,
    'curves': _curves,
    'names': _names,
    'errors': _errors,
    'confusions': _confusions,
    'training': _training,
    'images': _images,
}
TABLE_NAMES = frozenset(TABLES)
