"""Drafts of a taxonomy, the text of files as they are read from, and lists of classes that come beside a hierarchy.

Readers make a draft instead of a taxonomy, so that a lint report can show all that is wrong with a file and
not the first error alone.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import networkx as nx

from hierseg.errors import TaxonomyError
from hierseg.taxonomy.graph import Taxonomy

SHOWN_PROBLEMS = 5
"""The error of :meth:`TaxonomyDraft.build` tells this many problems in full."""


@dataclass(frozen=True)
class TaxonomyDraft:
    """Classes and edges as read.

    Attributes:
        source: The file, for messages.
        ids: Class ids in label order.
        names: Names in label order.
        edges: Child and parent ids.
        preferred_parents: Child id → id of the parent to put first.
        problems: What the reader found wrong and could pass over.
    """

    source: str
    ids: tuple[str, ...]
    names: tuple[str, ...]
    edges: tuple[tuple[str, str], ...]
    preferred_parents: Mapping[str, str] = field(default_factory=dict)
    problems: tuple[TaxonomyError, ...] = ()

    def errors(self) -> list[TaxonomyError]:
        """All that keeps this draft from being a taxonomy; nothing, if it is one."""
        errors = list(self.problems)
        if not self.ids:
            errors.append(self._error('no classes', fix='A taxonomy needs at least one.'))
        if '' in self.ids:
            errors.append(self._error(f'the id of class {self.ids.index("")} is empty', fix='Give it one.'))
        for class_id, count in Counter(self.ids).items():
            if count > 1:
                errors.append(self._error(f'class {class_id!r} is listed {count} times', fix='List it once.'))
        known, edges = set(self.ids), set(self.edges)
        errors += [
            self._error(f'unknown class {class_id!r} in the edge {child} → {parent}', fix='Add it as a class.')
            for child, parent in self.edges
            for class_id in {child, parent} - known
        ]
        for child, parent in self.preferred_parents.items():
            if (child, parent) not in edges:
                errors.append(
                    self._error(f'preferred parent {parent!r} of {child!r} is none of its parents', fix='Name one.')
                )
        return errors + [
            self._error(f'cycle {" → ".join(cycle)}', fix='No class is its own ancestor: remove one of these edges.')
            for cycle in self._cycles()
        ]

    def build(self) -> Taxonomy:
        """The taxonomy.

        Raises:
            TaxonomyError: On anything in :meth:`errors`, of which it tells the first few.
        """
        errors = self.errors()
        if len(errors) > 1:
            told = '; '.join(f'{error.where}: {error.what}' for error in errors[:SHOWN_PROBLEMS])
            more = f'; and {len(errors) - SHOWN_PROBLEMS} more' if len(errors) > SHOWN_PROBLEMS else ''
            raise TaxonomyError(
                f'{len(errors)} problems: {told}{more}',
                fix=f'{errors[0].fix} `python -m hierseg.taxonomy` tells all.',
            )
        if errors:
            raise errors[0]
        return Taxonomy.from_edges(self.ids, self.edges, names=self.names, preferred_parents=self.preferred_parents)

    def resolve(self, ids_or_names: Mapping[str, str]) -> dict[str, str]:
        """Replaces names by ids, in keys and values; what is no name of just one class stays as it is."""
        ids_of: dict[str, list[str]] = {}
        for class_id, name in zip(self.ids, self.names, strict=True):
            ids_of.setdefault(name, []).append(class_id)

        def class_id_of(text: str) -> str:
            return ids_of[text][0] if text not in self.ids and len(ids_of.get(text, ())) == 1 else text

        return {class_id_of(child): class_id_of(parent) for child, parent in ids_or_names.items()}

    def _error(self, what: str, *, fix: str) -> TaxonomyError:
        return TaxonomyError(what, where=self.source, fix=fix)

    def _cycles(self) -> list[list[str]]:
        """One cycle, child to parent and back to its start, of every knot of classes that has one."""
        graph: nx.DiGraph[str] = nx.DiGraph()
        graph.add_edges_from(self.edges)
        cycles = []
        for knot in nx.strongly_connected_components(graph):
            start = min(knot)
            if len(knot) > 1 or graph.has_edge(start, start):
                cycle = [edge[0] for edge in nx.find_cycle(graph.subgraph(knot), start)]
                cycles.append([*cycle, cycle[0]])
        return sorted(cycles)


VIRTUAL_ROOT = '/m/0bl9f'
"""MID of "Entity", which stands above all classes in Open Images and is none."""

HEADERS = {('id', 'name'), ('mid', 'name'), ('labelname', 'displayname')}
"""The challenge files have no header; those of Open Images V7 have the last one."""


@dataclass(frozen=True)
class ClassList:
    """Classes in label order.

    Attributes:
        source: The file, for messages.
        ids: Class ids, unique.
        names: Names.
        places: File and line, or the like, of each class.
        problems: Classes that are listed twice; the first mention counts.
    """

    source: str
    ids: tuple[str, ...]
    names: tuple[str, ...]
    places: tuple[str, ...]
    problems: tuple[TaxonomyError, ...] = ()

    @cached_property
    def name_of(self) -> Mapping[str, str]:
        """Class id → name."""
        return dict(zip(self.ids, self.names, strict=True))

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
        candidates = {*self.ids_of.get(text, ()), *({text} & self.name_of.keys())}
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
    rows: dict[str, tuple[str, str]] = {}
    problems = []
    for line, row in csv_rows(text, where=where):
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
        if class_id in rows:
            what = f'class {class_id!r} is listed twice, first in {rows[class_id][1]}'
            problems.append(TaxonomyError(what, where=place, fix='List it once: its place is its label.'))
        elif class_id != VIRTUAL_ROOT:
            rows[class_id] = (name, place)
    names, places = tuple(name for name, _ in rows.values()), tuple(place for _, place in rows.values())
    return ClassList(where, tuple(rows), names, places, tuple(problems))


AnyPath = str | PathLike[str]


def read_text(path: AnyPath) -> str:
    """Reads UTF-8 text, with or without a byte order mark.

    Raises:
        TaxonomyError: If the file cannot be read or is in another encoding.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise TaxonomyError(f'cannot read the file ({error.strerror})', where=str(path)) from None
    try:
        return content.decode('utf-8-sig')
    except UnicodeDecodeError as error:
        line = content.count(b'\n', 0, error.start) + 1
        raise TaxonomyError('not UTF-8 text', where=f'{path}, line {line}', fix='Save the file as UTF-8.') from None


def parse_json_text(text: str, *, where: str) -> Any:
    """Parses JSON and refuses an object with the same key twice, of which the first would be lost.

    Raises:
        TaxonomyError: If the text is no valid JSON.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        fields = dict(pairs)
        if len(fields) < len(pairs):
            keys = [key for key, _ in pairs]
            repeated = next(key for key in keys if keys.count(key) > 1)
            raise TaxonomyError(
                f'an object has the key {repeated!r} twice: {dict(pairs)!r:.80}', where=where, fix='Join the two.'
            )
        return fields

    try:
        return json.loads(text, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        raise TaxonomyError(f'not valid JSON: {error.msg}', where=f'{where}, line {error.lineno}') from None
    except RecursionError:
        raise TaxonomyError('the JSON is nested too deeply to be a hierarchy', where=where) from None


def csv_rows(text: str, *, where: str) -> Iterator[tuple[int, list[str]]]:
    """Line number and stripped cells of every row that is not blank.

    Raises:
        TaxonomyError: On broken quoting and the like.
    """
    reader = csv.reader(io.StringIO(text, newline=''), strict=True)
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if any(cells):
                yield reader.line_num, cells
    except csv.Error as error:
        raise TaxonomyError(f'not valid CSV: {error}', where=f'{where}, line {reader.line_num}') from None


def line_of(text: str, value: str, *, mention: int = 1) -> int:
    """The line, from 1, on which a JSON text has this string for the ``mention``-th time; 1 if it has not."""
    position = -1
    for _ in range(mention):
        position = text.find(json.dumps(value), position + 1)
    return text.count('\n', 0, max(position, 0)) + 1
