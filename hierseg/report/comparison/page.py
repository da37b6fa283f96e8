"""The comparison page: one HTML file that needs no network, no server and, to be read, no JavaScript.

Beside it lie all numbers as JSON and the scores as a Markdown table. Its panels show one image with its instances, as
JPEG and in words. Boxes are xyxy in pixels of the image given. Shape letters: H, W the image; C classes.
"""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image
from pycocotools import mask as coco_mask

from hierseg.errors import HiersegError
from hierseg.files import write_atomically, write_json
from hierseg.metrics.average_precision import RECALLS
from hierseg.report.comparison.charts import (
    Chart,
    Series,
    averaged,
    class_tree,
    frequency_chart,
    line_chart,
    thinned,
    x_scale,
    y_scale,
)
from hierseg.report.comparison.confusion import KIND_WORDS, confusion, levels
from hierseg.report.comparison.document import Comparison, NamedPath, ShownPanel
from hierseg.report.comparison.scores import NONE, answer, big_numbers, cost_rows, score_groups
from hierseg.report.drawing import (
    SEPARATOR,
    DrawnInstance,
    Picture,
    class_colors,
    draw_instances,
    label_variants,
    path_steps,
)
from hierseg.taxonomy import Taxonomy

LONG_SIDE = 600
"""Pixels of a panel: at the quality below a photograph takes about 42 kB, and 120 of them 7 MB of a page."""
QUALITY = 70
TEXT_SIZE = 17
"""Of the labels: still legible where a panel is as wide as a phone."""
GROUP = '(group)'


@dataclass(frozen=True, eq=False)
class PanelInstance:
    """An annotated or detected instance.

    Attributes:
        label: Its class.
        box: (4,) xyxy, pixels.
        mask: (H, W) bool, or COCO's compressed run lengths at the size of the image; None for a box alone.
        class_scores: (C,) probability of every class; None for ground truth.
        score: Probability of its class, where only that is known.
        group_of: Whether it stands for a group; its box is dashed.
    """

    label: int
    box: npt.NDArray[np.floating]
    mask: npt.NDArray[np.bool_] | bytes | None = None
    class_scores: npt.NDArray[np.floating] | None = None
    score: float | None = None
    group_of: bool = False


def draw_panel(
    image: Picture,
    instances: Sequence[PanelInstance],
    *,
    taxonomy: Taxonomy,
    errors: Sequence[str] = (),
    score: float | None = None,
) -> ShownPanel:
    """Draws instances on an image, each in the colour of its class, whose hue is that of its root class.

    Args:
        image: (H, W, 3) uint8 RGB.
        instances: What to draw; the words are in this order.
        taxonomy: C classes.
        errors: Handed on to the panel.
        score: Handed on.
    """
    height, width = image.shape[:2]
    factor = LONG_SIDE / max(height, width)
    size = max(round(width * factor), 1), max(round(height * factor), 1)
    colors = class_colors(taxonomy)
    drawn, paths = [], []
    for instance in instances:
        steps = path_steps(taxonomy, instance.label, class_scores=instance.class_scores, score=instance.score)
        mark = GROUP if instance.group_of else ''
        color = colors[instance.label]
        box = np.asarray(instance.box, dtype=np.float64) * np.tile((size[0] / width, size[1] / height), 2)
        mask = _resized(_decoded(instance.mask, height, width), size)
        drawn.append(DrawnInstance(box, color, label_variants(steps, mark=mark), mask, instance.group_of))
        paths.append(NamedPath(' '.join(filter(None, [SEPARATOR.join(steps), mark])), f'#{color.tobytes().hex()}'))
    small: Picture = cv2.resize(image, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC).astype(
        np.uint8
    )
    picture, _ = draw_instances(small, drawn, text_size=TEXT_SIZE)
    return ShownPanel(_jpeg(picture), tuple(paths), tuple(errors), score)


def _decoded(mask: npt.NDArray[np.bool_] | bytes | None, height: int, width: int) -> npt.NDArray[np.uint8] | None:
    if isinstance(mask, bytes):
        decoded: npt.NDArray[np.uint8] = coco_mask.decode({'size': [height, width], 'counts': mask})
        return decoded
    return None if mask is None else np.asarray(mask, dtype=np.uint8)


def _resized(mask: npt.NDArray[np.uint8] | None, size: tuple[int, int]) -> npt.NDArray[np.bool_] | None:
    if mask is None:
        return None
    resized: npt.NDArray[np.bool_] = cv2.resize(mask * np.uint8(255), size, interpolation=cv2.INTER_LINEAR) > 127
    return resized


def _jpeg(picture: Picture) -> bytes:
    content = io.BytesIO()
    Image.fromarray(picture).save(content, format='JPEG', quality=QUALITY, optimize=True, progressive=True)
    return content.getvalue()


TEMPLATES = Path(__file__).parent / 'templates'
STYLE, SCRIPTS = 'page.css', ('classes.js', 'charts.js', 'pictures.js', 'page.js')
COLORS = 6
"""Systems have this many colours in turn."""


@dataclass(frozen=True)
class ShownImage:
    """An image with what the template needs.

    Attributes:
        image_id: Its name.
        classes: Labels of its classes and of all above them.
        names: Names of its classes.
        leaders: Positions of the systems with the best score on it; empty where none has one or all are equal.
        panels: Title and panel, the ground truth first, then each system.
    """

    image_id: str
    classes: tuple[int, ...]
    names: tuple[str, ...]
    leaders: tuple[int, ...]
    panels: tuple[tuple[str, ShownPanel], ...]


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
        images=(images := _images(document)),
        picture_classes=_picture_classes(document, images),
        picture_errors=_picture_errors(document),
        colors=COLORS,
        style=Markup(_source(STYLE)),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _errors(document: Comparison) -> dict[str, Any]:
    """The section on errors; kinds that no system counted are left out."""
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


@lru_cache(maxsize=1)
def _environment() -> Environment:
    loader = FileSystemLoader(TEMPLATES)
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


def _source(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding='utf-8')


def _precision_recall(document: Comparison) -> list[Chart]:
    """A chart for every group of classes."""
    groups = dict.fromkeys(group for system in document.systems for group in system.precision_curves)
    charts = []
    for group in groups:
        series = []
        for position, system in enumerate(document.systems):
            if group in system.precision_curves:
                points = thinned(RECALLS, system.precision_curves[group])
                series.append(Series(system.name, *points, position, _dash(position)))
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
    mask, names = document.taxonomy.arrays.ancestor_mask, document.taxonomy.names
    shown = []
    for image in sorted(document.images, key=lambda image: -image.spread):
        panels = [(system.name, image.panels[system.name]) for system in document.systems]
        best = max(image.scores) if image.spread > 0 else None
        shown.append(
            ShownImage(
                image.image_id,
                classes=tuple(sorted({int(above) for label in image.classes for above in mask[label].nonzero()[0]})),
                names=tuple(names[label] for label in dict.fromkeys(image.classes)),
                leaders=tuple(at for at, (_, panel) in enumerate(panels) if panel.score == best is not None),
                panels=(('Ground truth', image.ground_truth), *panels),
            )
        )
    return shown


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


PAGE, RESULTS, TABLE = 'index.html', 'results.json', 'table.md'


def write_comparison(document: Comparison, folder: str | Path) -> Path:
    """Writes ``index.html``, ``results.json`` (all but the pictures) and ``table.md``, each whole or not at all.

    Args:
        document: The comparison.
        folder: Is made if need be.

    Returns:
        The page.

    Raises:
        HiersegError: If a file cannot be written.
    """
    folder = Path(folder)
    page, table = render_page(document), scores_table(document)
    try:
        write_atomically(table.encode('utf-8'), folder / TABLE)
        write_json(document.to_json(), folder / RESULTS)
        write_atomically(page.encode('utf-8'), folder / PAGE)
    except OSError as fault:
        raise HiersegError(f'cannot write the comparison ({fault.strerror})', where=str(folder)) from None
    return folder / PAGE


def scores_table(document: Comparison) -> str:
    """Scores and costs in Markdown: a row each, a column for each system and for each difference to the first.

    Where the interval of a difference lies on one side of 0, the better score is bold.
    """
    first, others = document.systems[0], document.systems[1:]
    titles = ['', *(system.name for system in document.systems)]
    titles += [f'{system.name} against {first.name}' for system in others]
    lines = [_line(titles), _line(['---', *['---:'] * (len(titles) - 1)])]
    for group, rows in score_groups(document).items():
        lines.append(_line([f'*{_escaped(group)}*', *[''] * (len(titles) - 1)], escaped=True))
        for row in rows:
            cells = [
                _with_interval(f'**{cell.text}**' if cell.wins else cell.text, cell.interval) for cell in row.cells
            ]
            cells += [_with_interval(cell.text, cell.interval) for cell in row.differences]
            label = f'{row.metric.label} ({row.metric.unit})' if row.metric.unit else row.metric.label
            lines.append(_line([_escaped(label), *cells], escaped=True))
    costs = cost_rows(document)
    if costs:
        lines.append(_line(['*Costs*', *[''] * (len(titles) - 1)], escaped=True))
    for cost_row in costs:
        ratios = [cell.ratio or NONE for cell in cost_row.cells[1:]]
        lines.append(_line([cost_row.label, *(cell.text for cell in cost_row.cells), *ratios]))
    notes = f'In brackets: {document.head.confidence:.0%} intervals by bootstrap over images.'
    if others:
        notes += f' Bold: better than {first.name}, or {first.name} better than all others, where 0 is outside the'
        notes += f' interval of the difference. Multiples of costs are those of {first.name}.'
    return '\n'.join([*lines, '', _escaped(notes), ''])


def _line(cells: list[str], *, escaped: bool = False) -> str:
    return '| ' + ' | '.join(cells if escaped else map(_escaped, cells)) + ' |'


def _escaped(text: str) -> str:
    """Text that means nothing to Markdown and stays in its cell."""
    for character in '\\`*_[]<>|':
        text = text.replace(character, '\\' + character)
    return ' '.join(text.split())


def _with_interval(text: str, interval: str) -> str:
    return f'{text} ({interval})' if interval else text
