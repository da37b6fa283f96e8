"""Edge lists: a hierarchy as (child, parent) pairs in CSV or YAML, the simplest way to bring one's own.

The virtual root of Open Images may be among the parents; it says as much as no parent.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import yaml

from hierseg.errors import TaxonomyError
from hierseg.taxonomy.class_list import VIRTUAL_ROOT, ClassList
from hierseg.taxonomy.draft import TaxonomyDraft
from hierseg.taxonomy.files import csv_rows

YAML_FORMS = 'Write "child: parent", "child: [parent, parent]" or "child: null", or a list of [child, parent] pairs.'


@dataclass(frozen=True)
class Edge:
    """One line of an edge list.

    Attributes:
        child: Id or name of a class.
        parent: Id or name of its parent; None says that the class has none.
        name: Name of the child where the list gives one.
        place: File and line.
    """

    child: str
    parent: str | None
    name: str | None
    place: str


def parse_csv(text: str, *, where: str) -> list[Edge]:
    """Parses rows under the header ``child,parent`` or ``child,parent,name``, in any order of columns.

    An empty parent says that the child is a root class; an empty name that this row gives none.

    Raises:
        TaxonomyError: On another header or a malformed row.
    """
    rows = csv_rows(text, where=where)
    _, header = next(rows, (1, []))
    if sorted(header) not in (['child', 'parent'], ['child', 'name', 'parent']):
        raise TaxonomyError(
            f'the header {",".join(header)!r:.80} is not that of an edge list',
            where=f'{where}, line 1',
            fix='Write "child,parent" or "child,parent,name"; a list of classes is given as such, beside a hierarchy.',
        )
    edges = []
    for line, row in rows:
        place = f'{where}, line {line}'
        cells = dict(zip(header, row, strict=False))
        if len(row) != len(header) or not cells['child']:
            raise TaxonomyError(f'malformed row {row}', where=place, fix=f'Fill in {",".join(header)}.')
        edges.append(Edge(cells['child'], cells['parent'] or None, cells.get('name') or None, place))
    return _without_virtual_root(edges)


def parse_yaml(text: str, *, where: str) -> list[Edge]:
    """Parses a mapping of child to parent, list of parents or null, or a list of (child, parent) pairs.

    Scalars are taken as written: ``no`` and ``007`` are ids, not a bool and a number.

    Raises:
        TaxonomyError: On invalid YAML, another structure or a child that occurs twice in a mapping.
    """
    try:
        # The node graph, not the loaded document: it knows lines and keeps a key that occurs twice.
        document = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise TaxonomyError(f'not valid YAML: {error.problem}', where=f'{where}, line {line}') from None
    except (yaml.YAMLError, RecursionError) as error:
        raise TaxonomyError(f'not valid YAML: {str(error).splitlines()[0]}', where=where) from None
    if document is None:
        return []
    return _without_virtual_root(_yaml_edges(document, where=where))


def _yaml_edges(document: yaml.Node, *, where: str) -> Iterator[Edge]:
    first_lines: dict[str, int] = {}
    for child_node, parent_node in _yaml_pairs(document, where=where):
        child = _yaml_scalar(child_node, where=where)
        line = child_node.start_mark.line + 1
        place = f'{where}, line {line}'
        if child is None:
            raise TaxonomyError('a child is empty', where=place, fix=YAML_FORMS)
        if isinstance(document, yaml.MappingNode) and child in first_lines:
            raise TaxonomyError(
                f'child {child!r} occurs twice, first in line {first_lines[child]}',
                where=place,
                fix='Give several parents as a list: "child: [parent, parent]".',
            )
        first_lines[child] = line
        is_list = isinstance(parent_node, yaml.SequenceNode)
        parents = [_yaml_scalar(node, where=where) for node in (parent_node.value if is_list else [parent_node])]
        for parent in parents or [None]:
            yield Edge(child, parent, None, place)


def _yaml_pairs(document: yaml.Node, *, where: str) -> Iterator[tuple[yaml.Node, yaml.Node]]:
    if isinstance(document, yaml.MappingNode):
        yield from document.value
        return
    for item in document.value if isinstance(document, yaml.SequenceNode) else [document]:
        if not isinstance(item, yaml.SequenceNode) or len(item.value) != 2:
            raise TaxonomyError('not an edge', where=f'{where}, line {item.start_mark.line + 1}', fix=YAML_FORMS)
        yield item.value[0], item.value[1]


def _yaml_scalar(node: yaml.Node, *, where: str) -> str | None:
    if not isinstance(node, yaml.ScalarNode):
        raise TaxonomyError('not a class', where=f'{where}, line {node.start_mark.line + 1}', fix=YAML_FORMS)
    is_null = node.tag == 'tag:yaml.org,2002:null' or not node.value.strip()
    return None if is_null else str(node.value).strip()


def _without_virtual_root(edges: Iterable[Edge]) -> list[Edge]:
    return [
        replace(edge, parent=None) if edge.parent == VIRTUAL_ROOT else edge
        for edge in edges
        if edge.child != VIRTUAL_ROOT
    ]


def edge_list_draft(edges: Sequence[Edge], *, where: str, classes: ClassList | None) -> TaxonomyDraft:
    """Makes a draft of an edge list.

    Args:
        edges: The pairs.
        where: The file, for messages.
        classes: Ids, names and label order. Edges may name a class by id or by name, and a class without an
            edge is a root class. Without it every class that occurs is one, in order of appearance.
    """
    pairs, problems = _resolve(edges, classes=classes)
    names = dict(classes.name_of) if classes else {}
    for edge, (child, _) in pairs.items():
        if edge.name and names.setdefault(child, edge.name) != edge.name:
            what = f'class {child!r} is named {names[child]!r} and {edge.name!r}'
            problems.append(TaxonomyError(what, where=edge.place, fix='Give it one name.'))
    ids = classes.ids if classes else tuple(dict.fromkeys(end for pair in pairs.values() for end in pair if end))
    return TaxonomyDraft(
        where,
        ids,
        tuple(names.get(class_id, class_id) for class_id in ids),
        tuple((child, parent) for child, parent in pairs.values() if parent),
        problems=(*(classes.problems if classes else ()), *problems),
    )


def _resolve(
    edges: Sequence[Edge], *, classes: ClassList | None
) -> tuple[dict[Edge, tuple[str, str | None]], list[TaxonomyError]]:
    """The ids of child and parent of each edge, and what was wrong with the edges that are missing there."""
    pairs: dict[Edge, tuple[str, str | None]] = {}
    problems = []
    for edge in edges:
        try:
            parent = edge.parent and _find(edge.parent, edge, classes)
            pairs[edge] = (_find(edge.child, edge, classes), parent)
        except TaxonomyError as error:
            problems.append(error)
    return pairs, problems


def _find(text: str, edge: Edge, classes: ClassList | None) -> str:
    if classes is None:
        return text
    class_id = classes.find(text, where=edge.place)
    if class_id is None:
        raise TaxonomyError(
            f'{text!r} is neither id nor name of a class in {classes.source}',
            where=edge.place,
            fix='Check the spelling, or add it there.',
        )
    return class_id
