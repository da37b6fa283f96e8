"""COCO categories as a taxonomy: two levels by ``supercategory``, or more with an edge list beside it.

The id of a category's class is ``str(category id)``, so that annotations find their way back. Labels follow the
file, as in MMDetection's COCO data set; classes that are no category come after all categories and
have the id ``supercategory:<name>``, which no category can have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from hierseg.errors import TaxonomyError
from hierseg.taxonomy.class_list import ClassList
from hierseg.taxonomy.draft import TaxonomyDraft
from hierseg.taxonomy.edge_list import Edge, edge_list_draft

GROUP_PREFIX = 'supercategory:'
NO_SUPERCATEGORY = ('', 'none')
"""What exporters write for a category that has no supercategory; compared in lower case."""


def coco_draft(document: dict[str, Any], *, where: str, edges: Sequence[Edge] = ()) -> TaxonomyDraft:
    """Makes a draft of a COCO file's categories.

    A supercategory with the name of a category is that category, and a category that is its own
    supercategory (person) is a root class.

    Args:
        document: The parsed JSON; only its categories are looked at.
        where: The file, for messages.
        edges: More levels. They may name categories by id or name; any other parent is a class of its own,
            above categories. A category with an edge there takes its parents from there alone; others keep
            their supercategory.

    Raises:
        TaxonomyError: On a malformed category.
    """
    categories, supercategories = parse_categories(document, where=where)
    groups: dict[str, str] = {}
    problems: list[TaxonomyError] = list(categories.problems)
    moved = {edge.child for edge in edges}
    pairs: list[tuple[str, str]] = []
    for class_id, name, above, place in zip(
        categories.ids, categories.names, supercategories, categories.places, strict=True
    ):
        if above is None or above == name or moved & {class_id, name}:
            continue
        candidates = categories.ids_of.get(above) or [_group(above, groups)]
        if len(candidates) > 1:
            what = f'supercategory {above!r} is the name of the categories {", ".join(candidates)}'
            problems.append(TaxonomyError(what, where=place, fix='Give categories different names.'))
        pairs.append((class_id, candidates[0]))
    _add_parents(edges, categories, groups)
    classes = ClassList(where, (*categories.ids, *groups), (*categories.names, *groups.values()), ())
    draft = edge_list_draft(edges, where=where, classes=classes)
    return replace(draft, edges=(*pairs, *draft.edges), problems=(*problems, *draft.problems))


def parse_categories(document: dict[str, Any], *, where: str) -> tuple[ClassList, list[str | None]]:
    """The categories of a COCO file and the supercategory of each.

    Raises:
        TaxonomyError: On a malformed category.
    """
    entries = document.get('categories')
    if not isinstance(entries, list):
        raise TaxonomyError('"categories" is not a list', where=where)
    rows: dict[str, tuple[str, str | None]] = {}
    problems = []
    for position, entry in enumerate(entries):
        match entry:
            case {'id': int(number), 'name': str(name)} if name and not isinstance(number, bool):
                above = entry.get('supercategory') or ''
            case _:
                above = None
        if not isinstance(above, str):
            raise TaxonomyError(
                f'malformed category {entry!r:.80}',
                where=f'{where}, categories[{position}]',
                fix='It needs a whole number "id", a text "name" and, if any, a text "supercategory".',
            )
        if str(number) in rows:
            what = f'category id {number} occurs twice: {rows[str(number)][0]!r} and {name!r}'
            problems.append(TaxonomyError(what, where=where, fix='Give each category an id of its own.'))
        else:
            rows[str(number)] = (name, None if above.lower() in NO_SUPERCATEGORY else above)
    names = tuple(name for name, _ in rows.values())
    places = tuple(f'{where}, category {class_id}' for class_id in rows)
    return ClassList(where, tuple(rows), names, places, tuple(problems)), [above for _, above in rows.values()]


def _group(text: str, groups: dict[str, str]) -> str:
    name = text.removeprefix(GROUP_PREFIX)
    groups[GROUP_PREFIX + name] = name
    return GROUP_PREFIX + name


def _add_parents(edges: Sequence[Edge], categories: ClassList, groups: dict[str, str]) -> None:
    """Adds the parents in an edge list that are no categories; a child that is neither is a misspelt category."""
    for edge in edges:
        if edge.parent and edge.parent not in categories.name_of and edge.parent not in categories.ids_of:
            _group(edge.parent, groups)
