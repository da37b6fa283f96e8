"""The class hierarchy: a frozen directed acyclic graph over classes, and what keeps classes and edges from being one.

Shape letters: C classes. A class is addressed by its *label*, its index in ``ids``; the virtual root
above all root classes is no class and has no label.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import zip_longest
from typing import Any

import networkx as nx

from hierseg.errors import ConfigError, TaxonomyError
from hierseg.formats.reading import shown
from hierseg.taxonomy.arrays import TaxonomyArrays

FORMAT = 'hierseg-taxonomy'
VERSION = 1

MOST_LEVELS = 512
"""Classes on the longest path; WordNet has 20. What is drawn and stored of a path grows with it."""

SHOWN_PROBLEMS = 5
"""The error of :meth:`TaxonomyDraft.build` tells this many problems in full."""

SHOWN_DIFFERENCES = 3
"""An error about two taxonomies names this many of the differences and counts the others."""


@dataclass(frozen=True)
class Taxonomy:
    """A DAG of classes. Build it with :meth:`from_edges` or ``hierseg.taxonomy.read_taxonomy``.

    Attributes:
        ids: Unique class identifiers (MIDs in Open Images); the position is the label.
        names: Names for people, one per class.
        parents: Labels of the parents of each class, the preferred parent first; empty for a root class.

    Example:
        >>> animals = Taxonomy.from_edges(['toy', 'animal', 'teddy'], [('teddy', 'toy'), ('teddy', 'animal')])
        >>> animals.preferred_path(2), animals.paths(2)
        ((0, 2), ((0, 2), (1, 2)))
    """

    ids: tuple[str, ...]
    names: tuple[str, ...]
    parents: tuple[tuple[int, ...], ...]

    @classmethod
    def from_edges(
        cls,
        ids: Sequence[str],
        edges: Iterable[tuple[str, str]],
        *,
        names: Sequence[str] | None = None,
        preferred_parents: Mapping[str, str] | None = None,
    ) -> Taxonomy:
        """Builds a taxonomy from (child id, parent id) pairs.

        Args:
            ids: Class ids in label order.
            edges: Child and parent ids; a pair that occurs twice counts once. The order of a child's
                pairs is the order of its parents: the first one is the preferred parent.
            names: Names in label order; the ids when omitted.
            preferred_parents: Child id → id of the parent to put first.

        Raises:
            TaxonomyError: On all that :meth:`TaxonomyDraft.errors` knows.
        """
        names = ids if names is None else names
        return TaxonomyDraft('', tuple(ids), tuple(names), tuple(edges), preferred_parents or {}).build()

    def __reduce__(self) -> tuple[object, ...]:
        # A copy for a worker process carries no matrices: they grow with the square of the classes.
        return Taxonomy, (self.ids, self.names, self.parents)

    @property
    def num_classes(self) -> int:
        """C, the virtual root left out."""
        return len(self.ids)

    @cached_property
    def graph(self) -> nx.DiGraph[int]:
        """The frozen networkx graph, edges from parent to child label."""
        graph: nx.DiGraph[int] = nx.DiGraph()
        graph.add_nodes_from(range(len(self.ids)))
        graph.add_edges_from((parent, child) for child, parents in enumerate(self.parents) for parent in parents)
        nx.freeze(graph)
        return graph

    @cached_property
    def arrays(self) -> TaxonomyArrays:
        """The matrices that hot paths use instead of the graph."""
        return TaxonomyArrays.from_parents(self.parents, order=tuple(nx.topological_sort(self.graph)))

    @cached_property
    def label_of(self) -> Mapping[str, int]:
        """Class id → label. Use :meth:`label` where an unknown id is the user's."""
        return {class_id: label for label, class_id in enumerate(self.ids)}

    def label(self, class_id: str, *, where: str = '') -> int:
        """The label of a class id.

        Raises:
            TaxonomyError: If the id is not in the taxonomy; ``where`` says who asked.
        """
        if class_id not in self.label_of:
            raise TaxonomyError(
                f'class {class_id!r} is not in the taxonomy of {self.num_classes} classes',
                where=where,
                fix='Add it to the class list and the hierarchy, or leave its rows out.',
            )
        return self.label_of[class_id]

    @cached_property
    def children(self) -> tuple[tuple[int, ...], ...]:
        """Labels of the children of each class, ascending."""
        return tuple(tuple(sorted(self.graph.successors(label))) for label in range(self.num_classes))

    @cached_property
    def root_classes(self) -> tuple[int, ...]:
        """Labels of the classes without a parent (layer 0)."""
        return tuple(label for label, parents in enumerate(self.parents) if not parents)

    @cached_property
    def deeper_classes(self) -> tuple[int, ...]:
        """Labels of the classes with a parent (layer 1)."""
        return tuple(label for label, parents in enumerate(self.parents) if parents)

    @cached_property
    def leaves(self) -> tuple[int, ...]:
        """Labels of the classes without children."""
        return tuple(label for label, children in enumerate(self.children) if not children)

    def preferred_path(self, label: int) -> tuple[int, ...]:
        """Labels from the root class to ``label``, following preferred parents."""
        path = [label]
        while self.parents[path[-1]]:
            path.append(self.parents[path[-1]][0])
        return tuple(reversed(path))

    def paths(self, label: int) -> tuple[tuple[int, ...], ...]:
        """Every path from a root class to ``label``, the preferred one first.

        Their number can double with every class that has two parents.
        """
        if not self.parents[label]:
            return ((label,),)
        return tuple((*path, label) for parent in self.parents[label] for path in self.paths(parent))

    @cached_property
    def named_paths(self) -> tuple[tuple[str, ...], ...]:
        """The preferred path of each class in names, such as ``('Person', 'Man')``."""
        return tuple(
            tuple(self.names[step] for step in self.preferred_path(label)) for label in range(self.num_classes)
        )

    def path_name(self, label: int) -> str:
        """The preferred path in names, such as ``Person › Man``."""
        return ' › '.join(self.named_paths[label])

    def ancestors(self, label: int) -> frozenset[int]:
        """Labels of all ancestors by every path, ``label`` itself left out."""
        return frozenset(nx.ancestors(self.graph, label))

    def descendants(self, label: int) -> frozenset[int]:
        """Labels of all descendants, ``label`` itself left out."""
        return frozenset(nx.descendants(self.graph, label))

    def to_json(self) -> dict[str, Any]:
        """A JSON-serialisable description, read back by :meth:`from_json`."""
        classes = [
            {'id': class_id, 'name': name, 'parents': [self.ids[parent] for parent in parents]}
            for class_id, name, parents in zip(self.ids, self.names, self.parents, strict=True)
        ]
        return {'format': FORMAT, 'version': VERSION, 'classes': classes}

    @classmethod
    def from_json(cls, document: object, *, where: str = '') -> Taxonomy:
        """Reads what :meth:`to_json` wrote; an error if it is something else, of another version or no taxonomy."""
        return TaxonomyDraft.from_json(document, where=where).build()

    def dataset_meta(self) -> dict[str, Any]:
        """Classes as data sets and checkpoints describe them: names and ids by label, and :meth:`to_json`."""
        return {'classes': self.names, 'class_ids': self.ids, 'taxonomy': self.to_json()}


@dataclass(frozen=True)
class TaxonomyDraft:
    """Classes and edges as read, so that a lint report can show all that is wrong with a file.

    Attributes:
        source: The file, for messages.
        ids: Class ids in label order.
        names: Names in label order.
        edges: Child and parent ids.
        preferred_parents: Child id → id of the parent to put first.
        problems: What the reader found wrong and could pass over.
        warnings: What is odd, for the lint report.
    """

    source: str
    ids: tuple[str, ...]
    names: tuple[str, ...]
    edges: tuple[tuple[str, str], ...]
    preferred_parents: Mapping[str, str] = field(default_factory=dict)
    problems: tuple[TaxonomyError, ...] = ()
    warnings: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, document: object, *, where: str) -> TaxonomyDraft:
        """Reads a :meth:`Taxonomy.to_json` document; an error if it is something else or of another version."""
        fields = document if isinstance(document, Mapping) else {}
        if (fields.get('format'), fields.get('version')) != (FORMAT, VERSION):
            found = f'{shown(fields.get("format"))} version {shown(fields.get("version"))}'
            raise TaxonomyError(f'expected {FORMAT!r} version {VERSION}, found {found}', where=where)
        classes = fields.get('classes')
        entries: list[Any] = classes if isinstance(classes, list) else [classes]
        for entry in entries:
            match entry:
                case {'id': str(), 'name': str(), 'parents': [*parents]} if set(map(type, parents)) <= {str}:
                    continue
            raise TaxonomyError(
                f'malformed class entry {shown(entry, 80)}',
                where=where,
                fix='"classes" is a list of {"id": text, "name": text, "parents": [ids]}.',
            )
        ids, names = (tuple(entry[key] for entry in entries) for key in ('id', 'name'))
        return cls(where, ids, names, tuple((entry['id'], parent) for entry in entries for parent in entry['parents']))

    def errors(self) -> list[TaxonomyError]:
        """All that keeps this draft from being a taxonomy; nothing, if it is one."""
        errors = list(self.problems)
        if not self.ids:
            errors.append(self._error('no classes', fix='A taxonomy needs at least one.'))
        if len(self.ids) != len(self.names):
            errors.append(self._error(f'{len(self.ids)} ids and {len(self.names)} names', fix='Name each class.'))
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
        errors += [
            self._error(f'preferred parent {parent!r} of {child!r} is none of its parents', fix='Name one.')
            for child, parent in self.preferred_parents.items()
            if (child, parent) not in edges
        ]
        graph: nx.DiGraph[str] = nx.DiGraph()
        graph.add_edges_from(self.edges)
        cycles = _cycles(graph)
        if not cycles and (levels := sum(1 for _ in nx.topological_generations(graph))) > MOST_LEVELS:
            errors.append(self._error(f'{levels:,} levels', fix=f'At most {MOST_LEVELS} classes stand on one path.'))
        return errors + [
            self._error(f'cycle {" → ".join(cycle)}', fix='No class is its own ancestor: remove one of these edges.')
            for cycle in cycles
        ]

    def build(self) -> Taxonomy:
        """The taxonomy.

        Raises:
            TaxonomyError: On anything in :meth:`errors`, of which it tells the first few.
        """
        errors = self.errors()
        if len(errors) > 1:
            told = '; '.join(': '.join(filter(None, (error.where, error.what))) for error in errors[:SHOWN_PROBLEMS])
            more = f'; and {len(errors) - SHOWN_PROBLEMS} more' if len(errors) > SHOWN_PROBLEMS else ''
            raise TaxonomyError(
                f'{len(errors)} problems: {told}{more}', fix=f'{errors[0].fix} `python -m hierseg.taxonomy` tells all.'
            )
        if errors:
            raise errors[0]
        label_of = {class_id: label for label, class_id in enumerate(self.ids)}
        # Dictionaries, for a pair that occurs twice counts once.
        parents: list[dict[int, None]] = [{} for _ in self.ids]
        for child, parent in (*self.preferred_parents.items(), *self.edges):
            parents[label_of[child]][label_of[parent]] = None
        return Taxonomy(self.ids, self.names, tuple(map(tuple, parents)))

    def resolve(self, ids_or_names: Mapping[str, str]) -> dict[str, str]:
        """Replaces names by ids, in keys and values; what is no name of just one class stays as it is."""
        counts = Counter(self.names)
        id_of = {name: class_id for class_id, name in zip(self.ids, self.names, strict=True) if counts[name] == 1}
        id_of |= dict(zip(self.ids, self.ids, strict=True))
        return {id_of.get(child, child): id_of.get(parent, parent) for child, parent in ids_or_names.items()}

    def _error(self, what: str, *, fix: str) -> TaxonomyError:
        return TaxonomyError(what, where=self.source, fix=fix)


def _cycles(graph: nx.DiGraph[str]) -> list[list[str]]:
    """One cycle, child to parent and back to its start, of every knot of classes that has one."""
    cycles = []
    for knot in nx.strongly_connected_components(graph):
        start = min(knot)
        if len(knot) > 1 or graph.has_edge(start, start):
            cycle = [edge[0] for edge in nx.find_cycle(graph.subgraph(knot), start)]
            cycles.append([*cycle, cycle[0]])
    return sorted(cycles)


def require_same_taxonomy(expected: Taxonomy, found: Taxonomy, *, where: str) -> None:
    """Requires the same class ids in the same order with the same parents; names may differ.

    A label is a position, so classes in another order train and score without any sign of a fault.

    Raises:
        ConfigError: If they differ; it names the first differences by label, after whose taxonomies these are.

    Example:
        >>> wide = Taxonomy.from_edges(['animal', 'dog'], [('dog', 'animal')])
        >>> require_same_taxonomy(wide, Taxonomy.from_edges(['animal', 'dog'], []), where='loss')
        Traceback (most recent call last):
        ...
        hierseg.errors.ConfigError: loss: the taxonomies differ: class 1 (dog) has parents [animal] expected, \
none found. Name the taxonomy that the store was made with, or convert the data anew.
    """

    def parents(taxonomy: Taxonomy, label: int) -> str:
        ids = [taxonomy.ids[parent] for parent in taxonomy.parents[label]]
        return f'[{", ".join(ids)}]' if ids else 'none'

    differences = _list_differences(expected.ids, found.ids) or [
        f'class {label} ({class_id}) has parents {parents(expected, label)} expected, {parents(found, label)} found'
        for label, class_id in enumerate(expected.ids)
        if expected.parents[label] != found.parents[label]
    ]
    fix = 'Name the taxonomy that the store was made with, or convert the data anew.'
    _raise_if_any(differences, 'the taxonomies differ', where=where, fix=fix)


def require_same_class_names(expected: Sequence[str], found: Sequence[str], *, where: str) -> None:
    """Requires the same class names in the same order; errors as of :func:`require_same_taxonomy`."""
    fix = 'Leave the names out: they come from the store.'
    _raise_if_any(_list_differences(expected, found), 'the class names differ', where=where, fix=fix)


def _list_differences(expected: Sequence[str], found: Sequence[str]) -> list[str]:
    """One sentence per label at which two class lists differ, their lengths first."""
    differences = []
    if len(expected) != len(found):
        differences.append(f'{len(expected)} classes expected, {len(found)} found')
    for label, (one, other) in enumerate(zip_longest(expected, found)):
        if one != other:
            one, other = ('none' if entry is None else repr(entry) for entry in (one, other))
            differences.append(f'class {label} is {one} expected, {other} found')
    return differences


def _raise_if_any(differences: Sequence[str], what: str, *, where: str, fix: str) -> None:
    if differences:
        more = f'; and {len(differences) - SHOWN_DIFFERENCES} more' if len(differences) > SHOWN_DIFFERENCES else ''
        raise ConfigError(f'{what}: {"; ".join(differences[:SHOWN_DIFFERENCES])}{more}', where=where, fix=fix)
