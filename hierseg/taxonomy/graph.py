"""The class hierarchy: a frozen directed acyclic graph over classes.

Shape letters: C classes. A class is addressed by its *label*, its index in ``ids``; the virtual root
above all root classes is no class and has no label.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import networkx as nx

from hierseg.errors import TaxonomyError
from hierseg.taxonomy.arrays import TaxonomyArrays

FORMAT = 'hierseg-taxonomy'
VERSION = 1


@dataclass(frozen=True)
class Taxonomy:
    """A DAG of classes. Build it with :meth:`from_edges` or ``hierseg.taxonomy.read_taxonomy``.

    Attributes:
        ids: Unique class identifiers (MIDs in Open Images); the position is the label.
        names: Names for people, one per class.
        parents: Labels of the parents of each class, the preferred parent first; empty for a root class.

    Raises:
        TaxonomyError: Without classes; on empty or duplicate ids, lists of different lengths, labels out of
            range, a repeated parent or a cycle.

    Example:
        >>> animals = Taxonomy.from_edges(['toy', 'animal', 'teddy'], [('teddy', 'toy'), ('teddy', 'animal')])
        >>> animals.preferred_path(2), animals.paths(2)
        ((0, 2), ((0, 2), (1, 2)))
    """

    ids: tuple[str, ...]
    names: tuple[str, ...]
    parents: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        if not self.ids:
            raise TaxonomyError('the taxonomy has no classes', fix='It needs at least one.')
        if not len(self.ids) == len(self.names) == len(self.parents):
            raise TaxonomyError(
                f'{len(self.ids)} ids, {len(self.names)} names and {len(self.parents)} parent lists',
                fix='Each class has one of each.',
            )
        if not all(self.ids):
            raise TaxonomyError('a class id is empty', where=f'label {self.ids.index("")}')
        repeated = [class_id for class_id, count in Counter(self.ids).items() if count > 1]
        if repeated:
            raise TaxonomyError(f'duplicate class ids {repeated}', fix='Each class is listed once.')
        for label, parents in enumerate(self.parents):
            if any(not 0 <= parent < len(self.ids) for parent in parents):
                raise TaxonomyError(f'parents {parents} out of range', where=f'class {self.ids[label]}')
            if len(set(parents)) < len(parents):
                raise TaxonomyError(f'parents {parents} name one twice', where=f'class {self.ids[label]}')
        if not nx.is_directed_acyclic_graph(self.graph):
            cycle = [self.ids[edge[0]] for edge in nx.find_cycle(self.graph)]
            raise TaxonomyError(
                'the hierarchy has a cycle: ' + ' > '.join([*cycle, cycle[0]]),
                fix='A class must not be its own ancestor; remove one of these edges.',
            )

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
            TaxonomyError: On an unknown id, or a preferred parent that is no parent.
        """
        label_of = {class_id: label for label, class_id in enumerate(ids)}
        parents: list[list[int]] = [[] for _ in ids]
        for child, parent in edges:
            for class_id in (child, parent):
                if class_id not in label_of:
                    raise TaxonomyError(
                        f'unknown class {class_id!r}', where=f'edge {child} → {parent}', fix='Add it to the class list.'
                    )
            if label_of[parent] not in parents[label_of[child]]:
                parents[label_of[child]].append(label_of[parent])
        for child, parent in (preferred_parents or {}).items():
            if child not in label_of or label_of.get(parent, -1) not in parents[label_of[child]]:
                raise TaxonomyError(
                    f'preferred parent {parent!r} of {child!r} is none of its parents',
                    fix='Name a class and one of its parents.',
                )
            parents[label_of[child]].remove(label_of[parent])
            parents[label_of[child]].insert(0, label_of[parent])
        return cls(tuple(ids), tuple(names if names is not None else ids), tuple(map(tuple, parents)))

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
        try:
            return self.label_of[class_id]
        except KeyError:
            raise TaxonomyError(
                f'class {class_id!r} is not in the taxonomy of {self.num_classes} classes',
                where=where,
                fix='Add it to the class list and the hierarchy, or leave its rows out.',
            ) from None

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

    def path_name(self, label: int, *, separator: str = ' › ') -> str:
        """The preferred path in names, such as ``Person › Man``."""
        return separator.join(self.names[step] for step in self.preferred_path(label))

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
        """Reads what :meth:`to_json` wrote.

        Raises:
            TaxonomyError: If the document is something else, of another version or no taxonomy.
        """
        ids, names, edges = parse_json(document, where=where)
        try:
            return cls.from_edges(ids, edges, names=names)
        except TaxonomyError as error:
            raise TaxonomyError(
                error.what, where=', '.join(filter(None, [where, error.where])), fix=error.fix
            ) from None

    def __str__(self) -> str:
        return json.dumps(self.to_json(), ensure_ascii=False)

    def dataset_meta(self) -> dict[str, Any]:
        """Classes as data sets and checkpoints describe them: names and ids by label, and :meth:`to_json`."""
        return {'classes': self.names, 'class_ids': self.ids, 'taxonomy': self.to_json()}


def parse_json(document: object, *, where: str = '') -> tuple[list[str], list[str], list[tuple[str, str]]]:
    """The ids, names and (child, parent) edges in a :meth:`Taxonomy.to_json` document, not yet checked.

    Raises:
        TaxonomyError: If the document is something else or of another version.
    """
    fields = document if isinstance(document, Mapping) else {}
    if (fields.get('format'), fields.get('version')) != (FORMAT, VERSION):
        found = f'{fields.get("format")!r} version {fields.get("version")!r}'
        raise TaxonomyError(f'expected {FORMAT!r} version {VERSION}, found {found}', where=where)
    ids: list[str] = []
    names: list[str] = []
    edges: list[tuple[str, str]] = []
    classes = fields.get('classes')
    for entry in classes if isinstance(classes, list) else [classes]:
        match entry:
            case {'id': str(class_id), 'name': str(name), 'parents': [*parents]} if all(
                isinstance(parent, str) for parent in parents
            ):
                ids.append(class_id)
                names.append(name)
                edges.extend((class_id, parent) for parent in parents)
            case _:
                raise TaxonomyError(
                    f'malformed class entry {entry!r:.80}',
                    where=where,
                    fix='"classes" is a list of {"id": text, "name": text, "parents": [ids]}.',
                )
    return ids, names, edges
