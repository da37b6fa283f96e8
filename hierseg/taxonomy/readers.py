"""Reads a taxonomy from a file."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from hierseg.errors import TaxonomyError
from hierseg.taxonomy.graph import Taxonomy

VIRTUAL_ROOT = '/m/0bl9f'
OPEN_IMAGES_PREFERRED_PARENTS = {'/m/0kmg4': '/m/0138tl'}


def read_taxonomy(
    path: str | PathLike[str],
    *,
    classes: str | PathLike[str] | None = None,
    preferred_parents: Mapping[str, str] | None = None,
    ignore_parts: bool = False,
) -> Taxonomy:
    """Reads a taxonomy; the format follows from the file."""
    with open(path, encoding='utf-8-sig') as file:
        document = json.load(file)
    if 'format' in document:
        return Taxonomy.from_json(document, where=str(path))
    if 'categories' in document:
        return _from_coco(document['categories'])
    ids: dict[str, str] = {}
    edges: list[tuple[str, str]] = []
    for child in document.get('Subcategory', []):
        _walk(child, None, ids, edges, ignore_parts=ignore_parts, where=str(path))
    if classes is not None:
        with Path(classes).open(encoding='utf-8-sig', newline='') as file:
            ids = {row[0]: row[1] for row in csv.reader(file)}
    preferred = {**OPEN_IMAGES_PREFERRED_PARENTS, **(preferred_parents or {})}
    preferred = {child: parent for child, parent in preferred.items() if (child, parent) in edges}
    return Taxonomy.from_edges(list(ids), edges, names=list(ids.values()), preferred_parents=preferred)


def _walk(
    node: dict[str, Any],
    parent: str | None,
    ids: dict[str, str],
    edges: list[tuple[str, str]],
    *,
    ignore_parts: bool,
    where: str,
) -> None:
    ids.setdefault(node['LabelName'], node['LabelName'])
    if parent is not None:
        edges.append((node['LabelName'], parent))
    if 'Part' in node and not ignore_parts:
        raise TaxonomyError('Part edges', where=where)
    for child in node.get('Subcategory', []):
        _walk(child, node['LabelName'], ids, edges, ignore_parts=ignore_parts, where=where)


def _from_coco(categories: list[dict[str, Any]]) -> Taxonomy:
    """Categories in file order (id = str(category id)), then supercategories ('supercategory:<name>')."""
    names = {str(category['id']): category['name'] for category in categories}
    id_of = {name: class_id for class_id, name in names.items()}
    edges = []
    for category in categories:
        above = category.get('supercategory')
        if above and above != category['name']:
            if above not in id_of:
                id_of[above] = f'supercategory:{above}'
                names[id_of[above]] = above
            edges.append((str(category['id']), id_of[above]))
    return Taxonomy.from_edges(list(names), edges, names=list(names.values()))
