"""Reads a taxonomy from a file in any of the formats that hierseg knows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from hierseg.errors import TaxonomyError
from hierseg.taxonomy.draft import AnyPath, ClassList, TaxonomyDraft, parse_class_list, parse_json_text, read_text
from hierseg.taxonomy.formats import Edge, coco_draft, edge_list_draft, open_images_draft, parse_csv, parse_yaml
from hierseg.taxonomy.graph import Taxonomy, parse_json

OPEN_IMAGES_PREFERRED_PARENTS: Mapping[str, str] = {'/m/0kmg4': '/m/0138tl'}
"""Teddy bear is a Toy before it is a Bear; applied where a file has that edge."""


def read_taxonomy(
    path: AnyPath,
    *,
    classes: AnyPath | None = None,
    preferred_parents: Mapping[str, str] | None = None,
    ignore_parts: bool = False,
) -> Taxonomy:
    """Reads a taxonomy.

    The format follows from the ending and the content:

    - ``.json``: the Open Images hierarchy (nested ``LabelName`` and ``Subcategory``; the top node is the virtual
      root and no class), a COCO file (``categories`` with ``supercategory``), or what
      :meth:`Taxonomy.to_json` made.
    - ``.csv``: an edge list under the header ``child,parent`` or ``child,parent,name``. An empty parent says that
      the child is a root class, which a class that occurs only as a parent is too.
    - ``.yaml``, ``.yml``: an edge list as a mapping ``child: parent``, ``child: [parents]`` or ``child: null``, or as a
      list of ``[child, parent]``.

    Args:
        path: The hierarchy.
        classes: Ids, names and label order, where the hierarchy has not all of them: the class-description
            CSV of Open Images (rows ``id,name``), or a COCO file, of which an edge list then gives the
            levels above the categories. Without it labels follow the first mention in the hierarchy.
        preferred_parents: Child → the parent to follow where there are several, by id or name; otherwise
            it is the one that the file mentions first. Added to ``OPEN_IMAGES_PREFERRED_PARENTS``, which it can
            overrule.
        ignore_parts: Whether to leave out the Part edges of an Open Images hierarchy instead of refusing it.

    Raises:
        TaxonomyError: If a file cannot be read, is malformed, or does not hold a DAG over its classes.
    """
    return read_draft(path, classes=classes, preferred_parents=preferred_parents, ignore_parts=ignore_parts).build()


def read_draft(
    path: AnyPath,
    *,
    classes: AnyPath | None = None,
    preferred_parents: Mapping[str, str] | None = None,
    ignore_parts: bool = False,
) -> TaxonomyDraft:
    """Reads what :func:`read_taxonomy` reads, without requiring that it is a taxonomy.

    Raises:
        TaxonomyError: If a file cannot be read or is malformed.
    """
    where, text = str(path), read_text(path)
    match Path(path).suffix.lower():
        case '.json':
            draft = _from_json(text, where=where, classes=classes, ignore_parts=ignore_parts)
        case '.csv':
            draft = _from_edges(parse_csv(text, where=where), where=where, classes=classes)
        case '.yaml' | '.yml':
            draft = _from_edges(parse_yaml(text, where=where), where=where, classes=classes)
        case suffix:
            raise TaxonomyError(
                f'unknown ending {suffix!r} of a hierarchy', where=where, fix='Use .json, .csv, .yaml or .yml.'
            )
    return replace(draft, preferred_parents={**draft.preferred_parents, **draft.resolve(preferred_parents or {})})


def _from_json(text: str, *, where: str, classes: AnyPath | None, ignore_parts: bool) -> TaxonomyDraft:
    document = parse_json_text(text, where=where)
    keys = document.keys() if isinstance(document, dict) else set()
    if keys & {'LabelName', 'Subcategory', 'Part'}:
        class_list = _read_classes(classes)
        if isinstance(class_list, dict):
            raise TaxonomyError(
                f'an Open Images hierarchy cannot stand over the COCO categories of {classes}',
                where=where,
                fix='Give an edge list.',
            )
        draft = open_images_draft(document, text, where=where, classes=class_list, ignore_parts=ignore_parts)
        return _with_default_preferences(draft)
    if not keys & {'categories', 'format'}:
        raise TaxonomyError(
            'the JSON is no hierarchy that hierseg knows',
            where=where,
            fix='It has "LabelName" (Open Images), "categories" (COCO) or "format": "hierseg-taxonomy".',
        )
    if classes is not None:
        raise TaxonomyError(f'the file names its classes itself, and {classes} does too', where=where, fix='Give one.')
    if 'format' in keys:
        ids, names, edges = parse_json(document, where=where)
        return TaxonomyDraft(where, tuple(ids), tuple(names), tuple(edges))
    return coco_draft(document, where=where)


def _from_edges(edges: list[Edge], *, where: str, classes: AnyPath | None) -> TaxonomyDraft:
    class_list = _read_classes(classes)
    if isinstance(class_list, dict):
        draft = replace(coco_draft(class_list, where=str(classes), edges=edges), source=where)
    else:
        draft = edge_list_draft(edges, where=where, classes=class_list)
    return _with_default_preferences(draft)


def _read_classes(path: AnyPath | None) -> ClassList | dict[str, object] | None:
    """The class list in a CSV, or the whole COCO document."""
    if path is None:
        return None
    text = read_text(path)
    if Path(path).suffix.lower() != '.json':
        return parse_class_list(text, where=str(path))
    document = parse_json_text(text, where=str(path))
    if not isinstance(document, dict) or 'categories' not in document:
        raise TaxonomyError('no list of classes', where=str(path), fix='Give a CSV with rows "id,name" or a COCO file.')
    return document


def _with_default_preferences(draft: TaxonomyDraft) -> TaxonomyDraft:
    edges = set(draft.edges)
    return replace(draft, preferred_parents={c: p for c, p in OPEN_IMAGES_PREFERRED_PARENTS.items() if (c, p) in edges})
