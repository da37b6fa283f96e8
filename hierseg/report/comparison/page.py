"""The comparison page: one HTML file that needs no network, no server and, to be read, no JavaScript."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from hierseg.report.comparison.answer import answer
from hierseg.report.comparison.charts import Chart, Series, averaged, line_chart, thinned, x_scale, y_scale
from hierseg.report.comparison.classes import class_tree, frequency_chart
from hierseg.report.comparison.confusion import KIND_WORDS, confusion, levels
from hierseg.report.comparison.document import ComparedImage, Comparison, Panel
from hierseg.report.comparison.scores import big_numbers, cost_rows, score_groups

TEMPLATES = Path(__file__).parent / 'templates'
STYLE, SCRIPTS = 'page.css', ('classes.js', 'charts.js', 'pictures.js', 'page.js')
COLORS = 6
"""Systems have this many colours in turn."""


@dataclass(frozen=True)
class ShownPanel:
    """A panel with what the template needs: its title, its system's position (None: ground truth), address, size."""

    title: str
    system: int | None
    panel: Panel
    address: str
    width: int
    height: int


@dataclass(frozen=True)
class ShownImage:
    """An image with its panels.

    Attributes:
        image_id: Its name.
        classes: Labels of its classes and of all above them.
        names: Names of its classes.
        leaders: Positions of the systems with the best score on it, '' where none has one or all are equal.
        panels: Ground truth first.
    """

    image_id: str
    classes: tuple[int, ...]
    names: tuple[str, ...]
    leaders: tuple[int, ...]
    panels: tuple[ShownPanel, ...]


def render_page(document: Comparison) -> str:
    """The page as HTML."""
    script = '\n'.join(_source(name) for name in SCRIPTS)
    template = _environment().get_template('page.html.jinja')
    return template.render(
        document=document,
        head=document.head,
        systems=document.systems,
        answer=answer(document),
        big_numbers=big_numbers(document),
        score_groups=score_groups(document),
        cost_rows=cost_rows(document),
        tree=class_tree(document),
        frequency_chart=frequency_chart(document),
        precision_recall=_precision_recall(document),
        operating=_operating(document),
        training=_training(document),
        **_errors(document),
        **_pictures(document),
        colors=COLORS,
        style=Markup(_source(STYLE)),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _errors(document: Comparison) -> dict[str, Any]:
    """What the section on errors shows; kinds that no system counted are left out."""
    counts = [system.errors for system in document.systems]
    names = levels(document)
    return {
        'error_kinds': [kind for kind in document.error_kinds if any(kind.key in errors for errors in counts)],
        'most_errors': max([1, *(count for errors in counts for count in errors.values())]),
        'levels': names,
        'kind_words': KIND_WORDS,
        'confusions': [
            [confusion(document, position, level) for position in range(len(document.systems))]
            for level in range(len(names))
        ],
    }


def _pictures(document: Comparison) -> dict[str, Any]:
    """What the section with pictures shows."""
    images = _images(document)
    return {
        'images': images,
        'picture_classes': _picture_classes(document, images),
        'picture_errors': _picture_errors(document),
    }


@lru_cache(maxsize=1)
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _source(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding='utf-8')


def _precision_recall(document: Comparison) -> list[Chart]:
    """A chart for every group of classes."""
    groups = dict.fromkeys(group for system in document.systems for group in system.precision_recall)
    charts = []
    for group in groups:
        series = []
        for position, system in enumerate(document.systems):
            if group in system.precision_recall:
                curve = system.precision_recall[group]
                series.append(Series(system.name, *thinned(curve.recall, curve.precision), position, _dash(position)))
        charts.append(
            line_chart(group, series, x=x_scale(0, 1), y=y_scale(0, 1), x_label='recall', y_label='precision')
        )
    return charts


def _operating(document: Comparison) -> Chart | None:
    series = []
    for position, system in enumerate(document.systems):
        if (curve := system.operating_curve) is not None:
            points = thinned(curve.information, curve.correctness)
            series.append(Series(system.name, *points, position, _dash(position)))
    lowest = min((value for entry in series for value in entry.y), default=1.0)
    y = y_scale(0.5 if lowest >= 0.5 else 0, 1)
    title = 'Right names against telling names'
    chart = line_chart(title, series, x=x_scale(0, 1), y=y, x_label='information', y_label='correctness')
    return chart if chart.lines else None


def _training(document: Comparison) -> list[tuple[int, Chart]]:
    """A chart for every system that has curves, all on one vertical scale, with the system's position."""
    curves = [
        [(name, *averaged(points)) for name, points in system.training_curves.items()] for system in document.systems
    ]
    highest = max((value for entries in curves for _, _, values in entries for value in values), default=1.0)
    lowest = min((value for entries in curves for _, _, values in entries for value in values), default=0.0)
    charts = []
    for position, (system, entries) in enumerate(zip(document.systems, curves, strict=True)):
        steps = [step for _, x, _ in entries for step in x]
        if steps:
            series = [Series(name, x, y, position, dash) for dash, (name, x, y) in enumerate(entries)]
            x, y = x_scale(0, max(steps)), y_scale(min(lowest, 0), highest)
            charts.append((position, line_chart(system.name, series, x=x, y=y, x_label='epoch', y_label='loss')))
    return charts


def _dash(position: int) -> int:
    """Two systems are told apart by colour; more need the pattern too."""
    return max(position - 1, 0)


def _images(document: Comparison) -> list[ShownImage]:
    """The images, those first on which the systems' scores are furthest apart."""

    def spread(image: ComparedImage) -> float:
        scores = _panel_scores(image, document)
        return max(scores) - min(scores) if scores else 0.0

    return [_shown(image, document) for image in sorted(document.images, key=lambda image: -spread(image))]


def _shown(image: ComparedImage, document: Comparison) -> ShownImage:
    mask = document.taxonomy.arrays.ancestor_mask
    scores = _panel_scores(image, document)
    best = max(scores) if scores and max(scores) > min(scores) else None
    panels = [_shown_panel('Ground truth', None, image.ground_truth)]
    for position, system in enumerate(document.systems):
        panels.append(_shown_panel(system.name, position, image.panels[system.name]))
    return ShownImage(
        image.image_id,
        tuple(sorted({int(above) for label in image.classes for above in mask[label].nonzero()[0]})),
        tuple(document.taxonomy.names[label] for label in dict.fromkeys(image.classes)),
        tuple(entry.system for entry in panels if entry.system is not None and entry.panel.score == best is not None),
        tuple(panels),
    )


def _panel_scores(image: ComparedImage, document: Comparison) -> list[float]:
    scores = [image.panels[system.name].score for system in document.systems]
    return [score for score in scores if score is not None]


def _shown_panel(title: str, system: int | None, panel: Panel) -> ShownPanel:
    with Image.open(io.BytesIO(panel.picture)) as picture:
        width, height = picture.size
    address = 'data:image/jpeg;base64,' + base64.b64encode(panel.picture).decode()
    return ShownPanel(title, system, panel, address, width, height)


def _picture_classes(document: Comparison, images: Sequence[ShownImage]) -> list[dict[str, Any]]:
    """Classes that pictures can be filtered by, along the tree, with the number of pictures."""
    taxonomy = document.taxonomy
    counts = {label: sum(label in image.classes for image in images) for label in range(taxonomy.num_classes)}
    ordered = sorted((label for label in counts if counts[label]), key=taxonomy.preferred_path)
    return [{'label': label, 'name': taxonomy.path_name(label), 'count': counts[label]} for label in ordered]


def _picture_errors(document: Comparison) -> list[dict[str, Any]]:
    """Error kinds by system that pictures can be filtered by, with the number of pictures."""
    entries = []
    for position, system in enumerate(document.systems):
        for kind in document.error_kinds:
            count = sum(kind.key in image.panels[system.name].errors for image in document.images)
            if count:
                entries.append({'system': position, 'key': kind.key, 'label': kind.label, 'count': count})
    return entries
