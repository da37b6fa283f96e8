"""Readers of a hierarchy: edge lists in CSV or YAML, Open Images and hierseg JSON, and the categories of a COCO file.

Each makes a draft, which tells all that is wrong with a file. The virtual root of Open Images may be among the
parents of an edge list; it says as much as no parent.

Of COCO categories, the id of a class is ``str(category id)``, so that annotations find their way back. Labels follow
the file, as in MMDetection's COCO data set; classes that are no category come after all categories and have the id
``supercategory:<name>``, which no category can have.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import yaml

from hierseg.errors import TaxonomyError
from hierseg.formats.json_files import parse_json
from hierseg.formats.reading import printable, reading, reason_of, shown
from hierseg.taxonomy.graph import Taxonomy, TaxonomyDraft
from hierseg.taxonomy.levels import GROUP_PREFIX, NO_SUPERCATEGORY, Levels, levelled_draft, path_of, tree_draft

AnyPath = str | PathLike[str]

VIRTUAL_ROOT = '/m/0bl9f'
"""MID of "Entity", which stands above all classes in Open Images and is none."""

HEADERS = {('id', 'name'), ('mid', 'name'), ('labelname', 'displayname')}
"""The challenge files have no header; those of Open Images V7 have the last one."""

OPEN_IMAGES_PREFERRED_PARENTS: Mapping[str, str] = {'/m/0kmg4': '/m/0138tl'}
"""Teddy bear is a Toy before it is a Bear; applied where a file has that edge."""

YAML_NULL, YAML_NULLS = 'tag:yaml.org,2002:null', ('~', 'null', 'Null', 'NULL')
JSON_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
YAML_FORMS = 'Write "child: parent", "child: [parent, parent]" or "child: null", or a list of [child, parent] pairs.'


def read_taxonomy(
    path: AnyPath,
    *,
    classes: AnyPath | None = None,
    preferred_parents: Mapping[str, str] | None = None,
    ignore_parts: bool = False,
    levels: Levels | None = None,
) -> Taxonomy:
    """Reads a taxonomy.

    The format follows from the ending and the content:

    - ``.json``: the Open Images hierarchy (nested ``LabelName`` and ``Subcategory``; the top node is the virtual
      root and no class), a COCO file (``categories`` with ``supercategory``), V3Det's category tree, or what
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
        levels: What the levels above the categories of a COCO file come from, in place of ``supercategory`` as a
            name; see :mod:`hierseg.taxonomy.levels`.

    Raises:
        TaxonomyError: If a file cannot be read, is malformed, or does not hold a DAG over its classes.
    """
    return read_draft(
        path, classes=classes, preferred_parents=preferred_parents, ignore_parts=ignore_parts, levels=levels
    ).build()


def read_draft(
    path: AnyPath,
    *,
    classes: AnyPath | None = None,
    preferred_parents: Mapping[str, str] | None = None,
    ignore_parts: bool = False,
    levels: Levels | None = None,
) -> TaxonomyDraft:
    """Reads what :func:`read_taxonomy` reads, without requiring that it is a taxonomy."""
    where, text = str(path), read_text(path)
    match Path(path).suffix.lower():
        case '.json':
            draft = _from_json(text, where=where, classes=classes, ignore_parts=ignore_parts, levels=levels)
        case '.csv' | '.yaml' | '.yml' if levels:
            raise TaxonomyError('an edge list has all levels itself', where=where, fix='Leave out --levels.')
        case '.csv':
            draft = _from_edges(_csv_edges(text, where=where), where=where, classes=classes)
        case '.yaml' | '.yml':
            draft = _from_edges(_yaml_edges(text, where=where), where=where, classes=classes)
        case suffix:
            raise TaxonomyError(
                f'unknown ending {suffix!r} of a hierarchy', where=where, fix='Use .json, .csv, .yaml or .yml.'
            )
    return replace(draft, preferred_parents={**draft.preferred_parents, **draft.resolve(preferred_parents or {})})


def _from_json(
    text: str, *, where: str, classes: AnyPath | None, ignore_parts: bool, levels: Levels | None
) -> TaxonomyDraft:
    document = parse_json(text, where=where, error=TaxonomyError)
    keys = document.keys() if isinstance(document, dict) else set()
    if levels and 'categories' not in keys:
        fix = 'Leave out --levels, or give the annotations of the data set.'
        raise TaxonomyError('only a COCO file has levels to choose', where=where, fix=fix)
    if 'child2father' in keys:
        annotations = _read_classes(classes)
        if not isinstance(annotations, dict):
            fix = 'Name the annotations: --classes v3det_2023_v1_train.json.'
            raise TaxonomyError("V3Det's category tree does not say which classes are annotated", where=where, fix=fix)
        return tree_draft(document, _categories_of(annotations, where=str(classes)), where=where)
    if keys & {'LabelName', 'Subcategory', 'Part'}:
        class_list = _read_classes(classes)
        if isinstance(class_list, dict):
            raise TaxonomyError(
                f'an Open Images hierarchy cannot stand over the COCO categories of {classes}',
                where=where,
                fix='Give an edge list.',
            )
        draft = _open_images_draft(document, text, where=where, classes=class_list, ignore_parts=ignore_parts)
        return _with_default_preferences(draft)
    if not keys & {'categories', 'format'}:
        raise TaxonomyError(
            'the JSON is no hierarchy that hierseg knows',
            where=where,
            fix='It has "LabelName" (Open Images), "categories" (COCO), "child2father" (V3Det) or '
            '"format": "hierseg-taxonomy".',
        )
    if classes is not None:
        raise TaxonomyError(f'the file names its classes itself, and {classes} does too', where=where, fix='Give one.')
    if 'format' in keys:
        return TaxonomyDraft.from_json(document, where=where)
    if levels:
        return levelled_draft(_categories_of(document, where=where), levels, where=where)
    return coco_draft(document, where=where)


def _from_edges(read: Iterator[Edge], *, where: str, classes: AnyPath | None) -> TaxonomyDraft:
    edges = [
        replace(edge, parent=None) if edge.parent == VIRTUAL_ROOT else edge
        for edge in read
        if edge.child != VIRTUAL_ROOT
    ]
    class_list = _read_classes(classes)
    if isinstance(class_list, dict):
        draft = replace(coco_draft(class_list, where=str(classes), edges=edges), source=where)
    else:
        draft = _edge_list_draft(edges, where=where, classes=class_list)
        if class_list is None:
            draft = _checked_direction(draft, edges)
    return _with_default_preferences(draft)


def _checked_direction(draft: TaxonomyDraft, edges: Sequence[Edge]) -> TaxonomyDraft:
    """Adds what tells that children and parents are exchanged, which no list of classes is there to tell.

    Of a hierarchy, parents have several children rather than children several parents. Where there are lists alone, and
    no class has two children, it groups nothing, and is refused.
    """
    pairs = dict.fromkeys(draft.edges)
    parents_of, children_of = Counter(child for child, _ in pairs), Counter(parent for _, parent in pairs)
    several = [child for child, count in parents_of.items() if count > 1]
    if len(several) <= sum(count > 1 for count in children_of.values()):
        return draft
    child = several[0]
    parents = [parent for below, parent in pairs if below == child]
    what = f'{child!r} is read as a child of {", ".join(map(repr, parents))}'
    fix = f'Write children before their parent: "{parents[0]}: {child}", "{parents[1]}: {child}"'
    if max(children_of.values()) > 1 or not all(edge.in_list for edge in edges if edge.parent):
        advice = f'{what}; if it is their parent, the list is upside down. {fix}.'
        return replace(draft, warnings=(*draft.warnings, advice))
    place = next(edge.place for edge in edges if edge.child == child)
    what += ', and no class has two children: the list is upside down'
    error = TaxonomyError(what, where=place, fix=f'{fix}. If it is meant so, name the classes (--classes).')
    return replace(draft, problems=(*draft.problems, error))


def _read_classes(path: AnyPath | None) -> ClassList | dict[str, object] | None:
    """The class list in a CSV, or the whole COCO document."""
    if path is None:
        return None
    text = read_text(path)
    if Path(path).suffix.lower() != '.json':
        return parse_class_list(text, where=str(path))
    document = parse_json(text, where=str(path), error=TaxonomyError)
    if not isinstance(document, dict) or 'categories' not in document:
        raise TaxonomyError('no list of classes', where=str(path), fix='Give a CSV with rows "id,name" or a COCO file.')
    return document


def _with_default_preferences(draft: TaxonomyDraft) -> TaxonomyDraft:
    edges = set(draft.edges)
    return replace(draft, preferred_parents={c: p for c, p in OPEN_IMAGES_PREFERRED_PARENTS.items() if (c, p) in edges})


def read_text(path: AnyPath) -> str:
    """Reads UTF-8 text, with or without a byte order mark; an error for another encoding or an unreadable file."""
    with reading(path, TaxonomyError):
        content = Path(path).read_bytes()
    try:
        return content.decode('utf-8-sig')
    except UnicodeDecodeError as error:
        line = content.count(b'\n', 0, error.start) + 1
        raise TaxonomyError('not UTF-8 text', where=f'{path}, line {line}', fix='Save the file as UTF-8.') from None


def _csv_rows(text: str, *, where: str) -> Iterator[tuple[int, list[str]]]:
    """Line number and stripped cells of every row that is not blank."""
    reader = csv.reader(io.StringIO(text, newline=''), strict=True)
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if any(cells):
                yield reader.line_num, cells
    except csv.Error as error:
        raise TaxonomyError(f'not valid CSV: {error}', where=f'{where}, line {reader.line_num}') from None


@dataclass(frozen=True)
class ClassList:
    """Classes in label order.

    Attributes:
        source: The file, for messages.
        name_of: Class id → name.
        place_of: Class id → file and line, or the like.
        problems: Classes that are listed twice; the first mention counts.
    """

    source: str
    name_of: Mapping[str, str]
    place_of: Mapping[str, str]
    problems: tuple[TaxonomyError, ...] = ()

    @cached_property
    def ids_of(self) -> Mapping[str, list[str]]:
        """Name → ids of the classes with that name."""
        ids_of = defaultdict(list)
        for class_id, name in self.name_of.items():
            ids_of[name].append(class_id)
        return dict(ids_of)

    def find(self, text: str, *, where: str) -> str | None:
        """The id of the class with this id or this name; None if there is none.

        Raises:
            TaxonomyError: If several classes answer to it.
        """
        candidates: set[str] = {*self.ids_of.get(text, ()), *({text} & self.name_of.keys())}
        if len(candidates) > 1:
            raise TaxonomyError(
                f'{text!r} is the id or the name of several classes: {sorted(candidates)}',
                where=where,
                fix='Name each by an id that is not the name of another.',
            )
        return candidates.pop() if candidates else None


def parse_class_list(text: str, *, where: str) -> ClassList:
    """Parses a class-description CSV with rows ``id,name``; the virtual root is left out.

    Raises:
        TaxonomyError: On a malformed row.
    """
    names: dict[str, str] = {}
    places: dict[str, str] = {}
    problems = []
    for line, row in _csv_rows(text, where=where):
        place = f'{where}, line {line}'
        if line == 1 and tuple(cell.lower() for cell in row) in HEADERS:
            continue
        if len(row) != 2 or not all(row):
            raise TaxonomyError(
                f'expected a class id and a name, found {row}',
                where=place,
                fix='Write "id,name", and quote a name that has a comma.',
            )
        class_id, name = row
        if class_id in names:
            what = f'class {class_id!r} is listed twice, first in {places[class_id]}'
            problems.append(TaxonomyError(what, where=place, fix='List it once: its place is its label.'))
        elif class_id != VIRTUAL_ROOT:
            names[class_id], places[class_id] = name, place
    return ClassList(where, names, places, tuple(problems))


@dataclass(frozen=True)
class Edge:
    """One line of an edge list: ids or names of child and parent, the child's name where given, and file and line."""

    child: str
    parent: str | None  # None says that the class has none
    name: str | None
    place: str
    in_list: bool = False  # in a list of parents, ``child: [parent, parent]``


def _csv_edges(text: str, *, where: str) -> Iterator[Edge]:
    """Rows under the header ``child,parent`` or ``child,parent,name``, in any order of columns."""
    rows = _csv_rows(text, where=where)
    _, header = next(rows, (1, []))
    if sorted(header) not in (['child', 'parent'], ['child', 'name', 'parent']):
        raise TaxonomyError(
            f'the header {",".join(header)!r:.80} is not that of an edge list',
            where=f'{where}, line 1',
            fix='Write "child,parent" or "child,parent,name"; a list of classes is given as such, beside a hierarchy.',
        )
    for line, row in rows:
        place = f'{where}, line {line}'
        cells = dict(zip(header, row, strict=False))
        if len(row) != len(header) or not cells['child']:
            raise TaxonomyError(f'malformed row {row}', where=place, fix=f'Fill in {",".join(header)}.')
        yield Edge(cells['child'], cells['parent'] or None, cells.get('name') or None, place)


def _yaml_edges(text: str, *, where: str) -> Iterator[Edge]:
    """Edges of a mapping of child to parent, list of parents or null, or of a list of (child, parent) pairs.

    Scalars are taken as written: ``no`` and ``007`` are ids, not a bool and a number.
    """
    # Events, not a document: they know lines, keep a key that occurs twice, and come one by one, however deep it is.
    events = _yaml_events(text, where=where)
    start = next(events, None)
    is_mapping = isinstance(start, yaml.MappingStartEvent)
    if start is None or (isinstance(start, yaml.ScalarEvent) and _yaml_scalar(start, where=where) is None):
        next(events, None)
        return
    if not isinstance(start, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
        raise TaxonomyError('not an edge', where=_yaml_place(start, where), fix=YAML_FORMS)
    first_lines: dict[str, int] = {}
    for event in events:
        if isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            break
        if not is_mapping and not isinstance(event, yaml.SequenceStartEvent):
            raise TaxonomyError('not an edge', where=_yaml_place(event, where), fix=YAML_FORMS)
        child_event = event if is_mapping else next(events)
        place = _yaml_place(child_event, where)
        if isinstance(child_event, yaml.SequenceEndEvent):
            raise TaxonomyError('not an edge', where=place, fix=YAML_FORMS)
        child = _yaml_scalar(child_event, where=where)
        if child is None:
            raise TaxonomyError('a child is empty', where=place, fix=YAML_FORMS)
        line = child_event.start_mark.line + 1
        if is_mapping and child in first_lines:
            raise TaxonomyError(
                f'child {child!r} occurs twice, first in line {first_lines[child]}',
                where=place,
                fix='Give several parents as a list: "child: [parent, parent]".',
            )
        first_lines[child] = line
        parents, is_list = _yaml_parents(events, where=where)
        if not is_mapping and not isinstance(next(events), yaml.SequenceEndEvent):
            raise TaxonomyError('not an edge', where=place, fix=YAML_FORMS)
        for parent in parents or [None]:
            yield Edge(child, parent, None, place, is_list)
    next(events, None)  # the end of the document, behind which nothing may follow


def _yaml_events(text: str, *, where: str) -> Iterator[Any]:
    """Events of the first document, from its first node on; none of an empty text."""
    # That of libyaml takes a tenth of the time.
    events = yaml.parse(text, Loader=getattr(yaml, 'CSafeLoader', yaml.SafeLoader))
    try:
        for event in events:
            if isinstance(event, yaml.DocumentEndEvent):
                break
            if not isinstance(event, (yaml.StreamStartEvent, yaml.StreamEndEvent, yaml.DocumentStartEvent)):
                yield event
        if isinstance(other := next(events, None), yaml.DocumentStartEvent):
            fix = 'Write one document: "---" begins another.'
            raise TaxonomyError('not valid YAML: a second document begins', where=_yaml_place(other, where), fix=fix)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        what = f'not valid YAML: {printable(str(error.problem))}'
        raise TaxonomyError(what, where=f'{where}, line {line}') from None
    except yaml.YAMLError as error:
        raise TaxonomyError(f'not valid YAML: {reason_of(error)}', where=where) from None


def _yaml_parents(events: Iterator[Any], *, where: str) -> tuple[list[str | None], bool]:
    """The parents of a child, and whether they are a list."""
    event = next(events)
    if not isinstance(event, yaml.SequenceStartEvent):
        return [_yaml_scalar(event, where=where)], False
    parents = []
    while not isinstance(event := next(events), yaml.SequenceEndEvent):
        parents.append(_yaml_scalar(event, where=where))
    return parents, True


def _yaml_scalar(event: Any, *, where: str) -> str | None:
    if isinstance(event, yaml.AliasEvent):
        what, fix = f'*{event.anchor} stands for something else', 'Write the class itself.'
        raise TaxonomyError(what, where=_yaml_place(event, where), fix=fix)
    if not isinstance(event, yaml.ScalarEvent):
        raise TaxonomyError('not a class', where=_yaml_place(event, where), fix=YAML_FORMS)
    text = str(event.value).strip()
    is_null = event.tag == YAML_NULL or (event.tag is None and event.implicit[0] and text in YAML_NULLS)
    return None if is_null or not text else text


def _yaml_place(event: Any, where: str) -> str:
    return f'{where}, line {event.start_mark.line + 1}'


def _edge_list_draft(edges: Sequence[Edge], *, where: str, classes: ClassList | None) -> TaxonomyDraft:
    """Makes a draft of an edge list.

    ``classes`` give ids, names and label order; edges may name a class by id or by name, and a class without an edge is
    a root class. Without them every class that occurs is one, in order of appearance.
    """
    names = dict(classes.name_of) if classes else {}
    problems = list(classes.problems) if classes else []
    pairs: list[tuple[str, str | None]] = []
    for edge in edges:
        try:
            parent = edge.parent and _find(edge.parent, edge, classes)
            child = _find(edge.child, edge, classes)
        except TaxonomyError as error:
            problems.append(error)
            continue
        pairs.append((child, parent))
        if edge.name and names.setdefault(child, edge.name) != edge.name:
            what = f'class {child!r} is named {names[child]!r} and {edge.name!r}'
            problems.append(TaxonomyError(what, where=edge.place, fix='Give it one name.'))
    ids = classes.name_of if classes else dict.fromkeys(end for pair in pairs for end in pair if end)
    return TaxonomyDraft(
        where,
        tuple(ids),
        tuple(names.get(class_id, class_id) for class_id in ids),
        tuple((child, parent) for child, parent in pairs if parent),
        problems=tuple(problems),
    )


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


def _open_images_draft(
    document: dict[str, Any], text: str, *, where: str, classes: ClassList | None, ignore_parts: bool
) -> TaxonomyDraft:
    """Makes a draft of an Open Images hierarchy; ``text`` is the JSON itself, in which errors find their line.

    The top node is the virtual root, whatever its id. A node that occurs more than once is one class with
    all the parents and children of its occurrences. Without ``classes`` ids are the names and order is that of the
    file. A class that occurs only as a part has no parent.
    """
    top = document.get('LabelName')
    ids: dict[str, None] = {}
    edges: dict[tuple[str, str], None] = {}
    mentions: Counter[str] = Counter()
    problems = []
    place = _Places(text, where)
    for class_id, parent, relation in _walk(document, where=where):
        mentions[class_id] += 1
        if class_id in (top, VIRTUAL_ROOT):
            what = f'the virtual root {class_id!r} occurs again below {parent or class_id!r}'
            problems.append(TaxonomyError(what, where=place(class_id, mention=mentions[class_id])))
            continue
        ids.setdefault(class_id)
        if relation == 'Part' and not ignore_parts:
            problems.append(
                TaxonomyError(
                    f'{class_id!r} is a Part of {parent or top!r}, which does not make it a kind of it',
                    where=place(class_id, mention=mentions[class_id]),
                    fix='Remove the Part edges, or have them ignored (ignore_parts=True, --ignore-parts).',
                )
            )
        elif relation == 'Subcategory' and parent in ids:
            edges.setdefault((class_id, parent))
    if classes is None:
        return TaxonomyDraft(where, tuple(ids), tuple(ids), tuple(edges), problems=tuple(problems))
    problems += [*classes.problems, *_mismatches(ids, classes, place, where=where, top=top)]
    names = classes.name_of
    kept = tuple(edge for edge in edges if names.keys() >= set(edge))
    return TaxonomyDraft(where, tuple(names), tuple(names.values()), kept, problems=tuple(problems))


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
            raise TaxonomyError(
                f'malformed node {shown(node, 80)}', where=where, fix='It needs a "LabelName" with an id.'
            )
    for key, children in others.items():
        if key not in ('Subcategory', 'Part') or not isinstance(children, list):
            raise TaxonomyError(
                f'malformed entry {key!r} in node {node.get("LabelName")!r}',
                where=where,
                fix='A node has "LabelName" and lists of nodes as "Subcategory" and "Part", nothing else.',
            )


def _mismatches(
    ids: Collection[str], classes: ClassList, place: _Places, *, where: str, top: str | None
) -> Iterator[TaxonomyError]:
    """Classes that only the hierarchy or only the class list has."""
    for class_id in ids:
        if class_id not in classes.name_of:
            yield TaxonomyError(
                f'class {class_id!r} is not in the class list {classes.source}',
                where=place(class_id),
                fix='Add it there: the list gives names and label order.',
            )
    for class_id, listed in classes.place_of.items():
        if class_id == top:
            what, fix = f'is the top node of {where}, which stands for no class', 'Put a node above it'
        else:
            what, fix = f'is not in the hierarchy {where}', 'Add it below the top node'
        if class_id not in ids:
            yield TaxonomyError(f'class {class_id!r} {what}', where=listed, fix=f'{fix}, or take it from this list.')


class _Places:
    """Lines on which a text of JSON has its strings; looked up when the first is asked for."""

    def __init__(self, text: str, where: str) -> None:
        self._text, self._where = text, where

    @cached_property
    def _lines(self) -> Mapping[str, Sequence[int]]:
        lines, line, last = defaultdict[str, list[int]](list), 1, 0
        for found in JSON_STRING.finditer(self._text):
            line, last = line + self._text.count('\n', last, found.start()), found.start()
            text = found.group()
            lines[json.loads(text, strict=False) if '\\' in text else text[1:-1]].append(line)
        return lines

    def __call__(self, class_id: str, *, mention: int = 1) -> str:
        """File and line on which the text has this string for the ``mention``-th time; line 1 if it has not."""
        lines = self._lines.get(class_id, ())
        return f'{self._where}, line {lines[mention - 1] if mention <= len(lines) else 1}'


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
    categories, supercategories = _parse_categories(document, where=where)
    names = categories.name_of
    groups: dict[str, str] = {}
    problems: list[TaxonomyError] = list(categories.problems)
    moved = {edge.child for edge in edges}
    pairs: list[tuple[str, str]] = []
    for class_id, above in supercategories.items():
        if above == names[class_id] or moved & {class_id, names[class_id]}:
            continue
        candidates = categories.ids_of.get(above) or [_group(above, groups)]
        if len(candidates) > 1:
            what = f'supercategory {above!r} is the name of the categories {", ".join(candidates)}'
            place = categories.place_of[class_id]
            problems.append(TaxonomyError(what, where=place, fix='Give categories different names.'))
        pairs.append((class_id, candidates[0]))
    for edge in edges:
        # A parent that is no category is a class of its own; a child that is neither is a misspelt category.
        if edge.parent and edge.parent not in names and edge.parent not in categories.ids_of:
            _group(edge.parent, groups)
    draft = _edge_list_draft(edges, where=where, classes=ClassList(where, {**names, **groups}, {}))
    paths = [f'{above!r}' for above in dict.fromkeys(supercategories.values()) if len(path_of(above)) > 1]
    advice = 'is one class; python -m hierseg.taxonomy --levels paths makes levels of it'
    warnings = (f'supercategory {", ".join(paths[:5])} {advice}',) if paths else ()
    return replace(draft, edges=(*pairs, *draft.edges), problems=(*problems, *draft.problems), warnings=warnings)


def _categories_of(document: dict[str, Any], *, where: str) -> dict[str, Mapping[str, Any]]:
    """Class id → entry of each category."""
    categories, _ = _parse_categories(document, where=where)
    if categories.problems:
        raise categories.problems[0]
    return {str(entry['id']): entry for entry in document['categories']}


def _parse_categories(document: dict[str, Any], *, where: str) -> tuple[ClassList, dict[str, str]]:
    """The categories of a COCO file, and the supercategory of each that has one."""
    entries = document.get('categories')
    if not isinstance(entries, list):
        raise TaxonomyError('"categories" is not a list', where=where)
    names: dict[str, str] = {}
    supercategories: dict[str, str] = {}
    problems = []
    for position, entry in enumerate(entries):
        match entry:
            case {'id': int() | str() as number, 'name': str(name)} if name and not isinstance(number, bool):
                above = entry.get('supercategory') or ''
            case _:
                above = None
        if not isinstance(above, str):
            raise TaxonomyError(
                f'malformed category {shown(entry, 80)}',
                where=f'{where}, categories[{position}]',
                fix='It needs an "id" (whole number or text), a text "name" and, if any, a text "supercategory".',
            )
        class_id = str(number)
        if class_id in names:
            what = f'category id {number} occurs twice: {names[class_id]!r} and {name!r}'
            problems.append(TaxonomyError(what, where=where, fix='Give each category an id of its own.'))
            continue
        names[class_id] = name
        if above.lower() not in NO_SUPERCATEGORY:
            supercategories[class_id] = above
    places = {class_id: f'{where}, category {class_id}' for class_id in names}
    return ClassList(where, names, places, tuple(problems)), supercategories


def _group(text: str, groups: dict[str, str]) -> str:
    name = text.removeprefix(GROUP_PREFIX)
    groups[GROUP_PREFIX + name] = name
    return GROUP_PREFIX + name
