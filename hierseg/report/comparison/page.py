"""The comparison page: one HTML file that needs no network, no server and, to be read, no JavaScript.

Beside it lie all numbers as JSON and the scores as a Markdown table. Its panels show one image with its instances, as
JPEG and in words. Boxes are xyxy in pixels of the image given. Shape letters: H, W the image; C classes.
"""

from __future__ import annotations

import base64
import hashlib
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image
from pycocotools import mask as coco_mask

from hierseg.drawing import (
    GROUP,
    DrawnInstance,
    Picture,
    class_colors,
    draw_instances,
    label_variants,
    path_steps,
)
from hierseg.files import write_atomically, write_json
from hierseg.metrics.average_precision import RECALLS
from hierseg.metrics.declarations import FEWEST_IMAGES
from hierseg.report.comparison.charts import (
    KIND_WORDS,
    Chart,
    Series,
    averaged,
    class_tree,
    confusion,
    frequency_chart,
    levels,
    line_chart,
    x_scale,
    y_scale,
)
from hierseg.report.comparison.document import Comparison, NamedPath, ShownPanel
from hierseg.report.comparison.scores import NONE, answer, big_numbers, cost_rows, score_groups
from hierseg.taxonomy import Taxonomy

PAGE, RESULTS, TABLE = 'index.html', 'results.json', 'table.md'
TEMPLATES = Path(__file__).parent / 'templates'
STYLE, SCRIPTS = 'page.css', ('classes.js', 'charts.js', 'pictures.js', 'page.js')
ENVIRONMENT = Environment(
    loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)
COLORS = 6
"""Systems have this many colours in turn."""
LONG_SIDE = 600
"""Pixels of a panel: at the quality below a photograph takes about 42 kB, and 120 of them 7 MB of a page."""
QUALITY = 70
TEXT_SIZE = 17
"""Of the labels: still legible where a panel is as wide as a phone."""


@dataclass(frozen=True, eq=False)
class PanelInstance:
    """An annotated or detected instance.

    Attributes:
        label: Its class.
        box: (4,) xyxy, pixels.
        mask: (H, W) bool, or COCO's compressed run lengths at the size of the image; None for a box alone.
        class_scores: (C,) probability of every class; None for ground truth.
        group_of: Whether it stands for a group; its box is dashed.
    """

    label: int
    box: npt.NDArray[np.floating]
    mask: npt.NDArray[np.bool_] | bytes | None = None
    class_scores: npt.NDArray[np.floating] | None = None
    group_of: bool = False


def draw_panel(
    image: Picture,
    instances: Sequence[PanelInstance],
    *,
    taxonomy: Taxonomy,
    errors: Sequence[str] = (),
    score: float | None = None,
) -> ShownPanel:
    """Draws instances on an (H, W, 3) uint8 RGB image, each in the colour of its class; the words are in their order.

    ``errors`` and ``score`` are those of the panel.
    """
    height, width = image.shape[:2]
    factor = LONG_SIDE / max(height, width)
    size = max(round(width * factor), 1), max(round(height * factor), 1)
    colors = class_colors(taxonomy)
    drawn, paths = [], []
    for instance in instances:
        steps = path_steps(taxonomy, instance.label, class_scores=instance.class_scores)
        texts = label_variants(steps, mark=GROUP if instance.group_of else '')
        color = colors[instance.label]
        box = np.asarray(instance.box, dtype=np.float64) * np.tile((size[0] / width, size[1] / height), 2)
        mask = instance.mask
        if isinstance(mask, bytes):
            mask = coco_mask.decode({'size': [height, width], 'counts': mask})
        if mask is not None:
            mask = cv2.resize(mask * np.uint8(255), size, interpolation=cv2.INTER_LINEAR) > 127
        drawn.append(DrawnInstance(box, color, texts, mask, instance.group_of))
        paths.append(NamedPath(texts[0], f'#{color.tobytes().hex()}'))
    resized = cv2.resize(image, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC)
    picture, _ = draw_instances(resized.astype(np.uint8), drawn, text_size=TEXT_SIZE)
    content = io.BytesIO()
    Image.fromarray(picture).save(content, format='JPEG', quality=QUALITY, optimize=True, progressive=True)
    return ShownPanel(content.getvalue(), picture.shape[1::-1], tuple(paths), tuple(errors), score)


def render_page(document: Comparison) -> str:
    """The page as HTML."""
    style, *scripts = ((TEMPLATES / name).read_text(encoding='utf-8') for name in (STYLE, *SCRIPTS))
    script = '\n'.join(scripts)
    images, names = _images(document), levels(document)
    counts, costs = [system.errors for system in document.systems], cost_rows(document)
    return ENVIRONMENT.get_template('page.html.jinja').render(
        document=document,
        head=document.head,
        systems=document.systems,
        answer=answer(document),
        big_numbers=big_numbers(document),
        score_groups=score_groups(document),
        cost_rows=costs,
        is_doubtful=any(cell.doubt for cells in costs.values() for cell in cells),
        tree=class_tree(document),
        frequency_chart=frequency_chart(document),
        precision_recall=_precision_recall(document),
        operating=_operating(document),
        training=_training(document),
        error_kinds=[kind for kind in document.error_kinds if any(kind.key in errors for errors in counts)],
        most_errors=max([1, *(count for errors in counts for count in errors.values())]),
        levels=names,
        kind_words=KIND_WORDS,
        confusions=[
            [confusion(document, position, level) for position in range(len(document.systems))]
            for level in range(len(names))
        ],
        images=images,
        picture_classes=_picture_classes(document, images),
        picture_errors=_picture_errors(document),
        colors=COLORS,
        fewest_images=FEWEST_IMAGES,
        style=Markup(style),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _series(document: Comparison, curves: Iterable[npt.ArrayLike | None]) -> list[Series]:
    """A line for every system that has a curve, (P, 2); two are told apart by colour, more need the pattern too."""
    return [
        Series(system.name, *averaged(curve), position, max(position - 1, 0))
        for position, (system, curve) in enumerate(zip(document.systems, curves, strict=True))
        if curve is not None
    ]


def _precision_recall(document: Comparison) -> list[Chart]:
    """A chart for every group of classes."""
    charts = []
    for group in dict.fromkeys(group for system in document.systems for group in system.precision_curves):
        curves = (system.precision_curves.get(group) for system in document.systems)
        series = _series(document, (None if curve is None else np.stack([RECALLS, curve], 1) for curve in curves))
        x, y = x_scale(0, 1), y_scale(0, 1)
        charts.append(line_chart(group, series, x=x, y=y, x_label='recall', y_label='precision'))
    return charts


def _operating(document: Comparison) -> Chart | None:
    curves = (system.operating_curve for system in document.systems)
    points = (None if curve is None else np.stack([curve.information, curve.correctness], 1) for curve in curves)
    series = _series(document, points)
    lowest = min((value for entry in series for value in entry.y), default=1.0)
    y = y_scale(0.5 if lowest >= 0.5 else 0, 1)
    title = 'Right names against telling names'
    chart = line_chart(title, series, x=x_scale(0, 1), y=y, x_label='information', y_label='correctness')
    return chart if chart.lines else None


def _training(document: Comparison) -> list[tuple[int, Chart]]:
    """A chart for every system that has curves, all on one vertical scale, with the system's position."""
    of_systems = [
        [
            Series(name, *averaged(points), position, dash)
            for dash, (name, points) in enumerate(system.training_curves.items())
        ]
        for position, system in enumerate(document.systems)
    ]
    losses = [loss for series in of_systems for entry in series for loss in entry.y]
    y = y_scale(min([*losses, 0]), max(losses, default=1.0))
    charts = []
    for position, (system, series) in enumerate(zip(document.systems, of_systems, strict=True)):
        epochs = [epoch for entry in series for epoch in entry.x]
        if epochs:
            x = x_scale(0, max(epochs))
            charts.append((position, line_chart(system.name, series, x=x, y=y, x_label='epoch', y_label='loss')))
    return charts


def _images(document: Comparison) -> list[dict[str, Any]]:
    """The images, those first on which the systems' scores are furthest apart.

    ``classes`` are labels of annotated classes and of all above them, ``leaders`` positions of the systems with the
    best score; none where all are equal. The ground truth is the first panel.
    """
    mask, names = document.taxonomy.arrays.ancestor_mask, document.taxonomy.names
    shown = []
    for image in sorted(document.images, key=lambda image: -image.spread):
        panels = [(system.name, image.panels[system.name]) for system in document.systems]
        best = max(image.scores) if image.spread > 0 else None
        shown.append({
            'image_id': image.image_id,
            'classes': np.flatnonzero(mask[np.array(image.classes, dtype=int)].any(axis=0)).tolist(),
            'names': [names[label] for label in dict.fromkeys(image.classes)],
            'leaders': [at for at, (_, panel) in enumerate(panels) if panel.score == best is not None],
            'panels': [('Ground truth', image.ground_truth), *panels],
        })  # fmt: skip
    return shown


def _picture_classes(document: Comparison, images: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Classes that pictures can be filtered by, along the tree, with the number of pictures."""
    taxonomy, counts = document.taxonomy, Counter(label for image in images for label in image['classes'])
    ordered = sorted(counts, key=taxonomy.preferred_path)
    return [{'label': label, 'name': taxonomy.path_name(label), 'count': counts[label]} for label in ordered]


def _picture_errors(document: Comparison) -> list[dict[str, Any]]:
    """Error kinds by system that pictures can be filtered by, with the number of pictures."""
    return [
        {'system': position, 'key': kind.key, 'label': kind.label, 'count': count}
        for position, system in enumerate(document.systems)
        for kind in document.error_kinds
        if (count := sum(kind.key in image.panels[system.name].errors for image in document.images))
    ]


def write_comparison(document: Comparison, folder: str | Path) -> Path:
    """Writes ``index.html``, ``results.json`` (all but the pictures) and ``table.md``, each whole or not at all.

    The folder is made if need be. Gives back the path of the page.

    Raises:
        OutputError: If a file cannot be written.
    """
    folder = Path(folder)
    page, table = render_page(document), scores_table(document)
    write_atomically(table.encode('utf-8'), folder / TABLE)
    write_json(document.to_json(), folder / RESULTS)
    write_atomically(page.encode('utf-8'), folder / PAGE)
    return folder / PAGE


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
