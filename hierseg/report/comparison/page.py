"""The comparison page: one HTML file that needs no network, no server and, to be read, no JavaScript.

Beside it lie all numbers as JSON and CSV, and the scores as a Markdown table.
"""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from hierseg.files import make_folder, write_atomically, write_json
from hierseg.metrics.declarations import FEWEST_IMAGES
from hierseg.report.comparison.class_tree import class_tree, frequency_chart
from hierseg.report.comparison.confusions import KIND_WORDS, confusion, levels
from hierseg.report.comparison.curve_charts import curve_choices, operating_chart, training_charts
from hierseg.report.comparison.document import Comparison
from hierseg.report.comparison.scores import answer, big_numbers, cost_rows, score_groups
from hierseg.report.comparison.tables import TABLE_NAMES, address, csv_tables, scores_table

PAGE, RESULTS, TABLE, TABLES = 'index.html', 'results.json', 'table.md', 'tables'
TEMPLATES = Path(__file__).parent / 'templates'
STYLES = ('page.css', 'pictures.css')
SCRIPTS = ('classes.js', 'charts.js', 'pictures.js', 'viewer.js', 'page.js')
ENVIRONMENT = Environment(
    loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)
COLORS = 6
"""Systems have this many colours in turn."""
ON_A_PAGE = 8
"""Pictures of images that are seen at once."""
ONLY_BESIDE = ('curves',)
"""Tables that are too long to be part of the page."""


def render_page(document: Comparison) -> str:
    """The page as HTML."""
    style, script = (
        '\n'.join((TEMPLATES / name).read_text(encoding='utf-8') for name in names) for names in (STYLES, SCRIPTS)
    )
    images, names = _images(document), levels(document)
    counts, costs = [system.errors for system in document.systems], cost_rows(document)
    tables, groups = csv_tables(document), score_groups(document)
    return ENVIRONMENT.get_template('page.html.jinja').render(
        document=document,
        head=document.head,
        systems=document.systems,
        answer=answer(document),
        big_numbers=big_numbers(document),
        score_groups=groups,
        idle_scores=sum(row.says_nothing for rows in groups.values() for row in rows),
        cost_rows=costs,
        is_doubtful=any(cell.doubt for cells in costs.values() for cell in cells),
        tree=class_tree(document),
        frequency_chart=frequency_chart(document),
        curves=curve_choices(document),
        operating=operating_chart(document),
        training=training_charts(document),
        error_kinds=[kind for kind in document.error_kinds if any(errors.get(kind.key) for errors in counts)],
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
        on_a_page=ON_A_PAGE,
        shown_from=round(100 * document.score_threshold),
        downloads={name: address(table) for name, table in tables.items() if name not in ONLY_BESIDE},
        table_files=[f'{TABLES}/{name}.csv' for name in tables],
        colors=COLORS,
        fewest_images=FEWEST_IMAGES,
        style=Markup(style),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _images(document: Comparison) -> list[dict[str, Any]]:
    """The images, those first on which the systems' scores are furthest apart.

    ``classes`` are labels of annotated classes and of all above them, ``leaders`` positions of the systems with the
    best score; none where all are equal. The ground truth is the first panel. ``scores`` are those of the detections of
    each system, in hundredths.
    """
    mask, names = document.taxonomy.arrays.ancestor_mask, document.taxonomy.names
    shown = []
    for image in sorted(document.images, key=lambda image: -image.spread):
        panels = [(system.name, image.panels[system.name]) for system in document.systems]
        best = max(image.scores) if image.spread > 0 else None
        shown.append({
            'file_name': image.file_name,
            'photograph': image.photograph,
            'classes': np.flatnonzero(mask[np.array(image.classes, dtype=int)].any(axis=0)).tolist(),
            'names': [names[label] for label in dict.fromkeys(image.classes)],
            'leaders': [at for at, (_, panel) in enumerate(panels) if panel.score == best is not None],
            'panels': [('Ground truth', image.ground_truth), *panels],
            'scores': [[entry.score for entry in panel.instances] for _, panel in panels],
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
    """Writes ``index.html``, ``results.json`` (all but the pictures), ``table.md`` and the folder ``tables`` of CSVs.

    Each file is written whole or not at all. The folder is made if need be. Gives back the path of the page.

    Raises:
        OutputError: If a file cannot be written.
    """
    folder = Path(folder)
    page, table = render_page(document), scores_table(document)
    write_atomically(table.encode('utf-8'), folder / TABLE)
    make_folder(folder / TABLES)
    tables = csv_tables(document)
    for name in tables:
        write_atomically(tables[name].encode('utf-8'), folder / TABLES / f'{name}.csv')
    for name in TABLE_NAMES - tables.keys():
        (folder / TABLES / f'{name}.csv').unlink(missing_ok=True)  # of an earlier comparison
    write_json(document.to_json(), folder / RESULTS)
    write_atomically(page.encode('utf-8'), folder / PAGE)
    return folder / PAGE
