"""The Open Images hierarchy: nested ``{LabelName, Subcategory, Part}`` nodes in JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from typing import Any

from hierseg.errors import TaxonomyError
from hierseg.taxonomy.class_list import VIRTUAL_ROOT, ClassList
from hierseg.taxonomy.draft import TaxonomyDraft
from hierseg.taxonomy.files import line_of


def open_images_draft(
    document: dict[str, Any], text: str, *, where: str, classes: ClassList | None, ignore_parts: bool
) -> TaxonomyDraft:
    """Makes a draft of an Open Images hierarchy.

    The top node is the virtual root, whatever its id. A node that occurs more than once is one class with
    all the parents and children of its occurrences.

    Args:
        document: The parsed JSON.
        text: The JSON itself, in which errors find their line.
        where: The file, for messages.
        classes: Ids, names and label order; without it ids are the names and order is that of the file.
        ignore_parts: Whether to leave out Part edges, instead of reporting each as a problem. A class that
            occurs only as a part has no parent then.

    Raises:
        TaxonomyError: On a malformed node.
    """
    top = document.get('LabelName')
    ids: dict[str, None] = {}
    edges: dict[tuple[str, str], None] = {}
    mentions: Counter[str] = Counter()
    problems = []
    for class_id, parent, relation in _walk(document, where=where):
        mentions[class_id] += 1
        if class_id in (top, VIRTUAL_ROOT):
            what = f'the virtual root {class_id!r} occurs again below {parent or class_id!r}'
            problems.append(TaxonomyError(what, where=_place(class_id, text, where, mention=mentions[class_id])))
            continue
        ids.setdefault(class_id)
        if relation == 'Part' and not ignore_parts:
            problems.append(
                TaxonomyError(
                    f'{class_id!r} is a Part of {parent or top!r}, which does not make it a kind of it',
                    where=_place(class_id, text, where, mention=mentions[class_id]),
                    fix='Remove the Part edges, or have them ignored (ignore_parts=True, --ignore-parts).',
                )
            )
        elif relation == 'Subcategory' and parent in ids:
            edges.setdefault((class_id, parent))
    if classes is None:
        return TaxonomyDraft(where, tuple(ids), tuple(ids), tuple(edges), problems=tuple(problems))
    problems += [*classes.problems, *_mismatches(ids, classes, text, where=where, top=top)]
    known = set(classes.ids)
    kept = tuple(edge for edge in edges if known.issuperset(edge))
    return TaxonomyDraft(where, classes.ids, classes.names, kept, problems=tuple(problems))


def _walk(document: Any, *, where: str) -> Iterator[tuple[str, str | None, str]]:
    """Id, parent (None: the virtual root) and relation of all nodes below the top one, in file order."""
    stack: list[tuple[Any, str | None, str]] = [(document, None, '')]
    while stack:
        node, parent, relation = stack.pop()
        _require_node(node, is_top=not relation, where=f'{where}, below {parent or "the top node"!r}')
        if relation:
            yield node['LabelName'], parent, relation
        own_id = node['LabelName'] if relation else None
        below = [(child, own_id, key) for key in node if key != 'LabelName' for child in node[key]]
        stack.extend(reversed(below))


def _require_node(node: Any, *, is_top: bool, where: str) -> None:
    match node:
        case {'LabelName': str(class_id), **others} if class_id:
            pass
        case {**others} if is_top and 'LabelName' not in others:
            pass
        case _:
            raise TaxonomyError(f'malformed node {node!r:.80}', where=where, fix='It needs a "LabelName" with an id.')
    for key, children in others.items():
        if key not in ('Subcategory', 'Part') or not isinstance(children, list):
            raise TaxonomyError(
                f'malformed entry {key!r} in node {node.get("LabelName")!r}',
                where=where,
                fix='A node has "LabelName" and lists of nodes as "Subcategory" and "Part", nothing else.',
            )


def _mismatches(
    ids: Collection[str], classes: ClassList, text: str, *, where: str, top: str | None
) -> Iterator[TaxonomyError]:
    """Classes that only the hierarchy or only the class list has."""
    listed = set(classes.ids)
    for class_id in ids:
        if class_id not in listed:
            yield TaxonomyError(
                f'class {class_id!r} is not in the class list {classes.source}',
                where=_place(class_id, text, where),
                fix='Add it there: the list gives names and label order.',
            )
    for class_id, place in zip(classes.ids, classes.places, strict=True):
        if class_id == top:
            what, fix = f'is the top node of {where}, which stands for no class', 'Put a node above it'
        else:
            what, fix = f'is not in the hierarchy {where}', 'Add it below the top node'
        if class_id not in ids:
            yield TaxonomyError(f'class {class_id!r} {what}', where=place, fix=f'{fix}, or take it from this list.')


def _place(class_id: str, text: str, where: str, *, mention: int = 1) -> str:
    return f'{where}, line {line_of(text, class_id, mention=mention)}'
