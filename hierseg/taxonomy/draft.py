"""What a file says about a hierarchy, before it is known to be one.

Readers make a draft instead of a taxonomy, so that a lint report can show all that is wrong with a file and
not the first error alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

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
