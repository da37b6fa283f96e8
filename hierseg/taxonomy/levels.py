"""Levels above the categories of a COCO file, from what the file or a companion of it says.

- ``paths``: ``supercategory`` is a path from the root on, ``animal/mammal`` or ``animal > mammal``;
- ``ranks``: ``kingdom`` to ``genus``, as iNaturalist has them;
- ``wordnet``: ``synset``, as LVIS has it, and the hypernyms of a WordNet that is installed for NLTK;
- :func:`tree_draft`: V3Det's category tree, a file of its own.

Nodes are what stands above, or for, a category. Hierarchies that were made for more than these categories (all but
``paths``) are cut to what tells them apart: of nodes that have the same categories below, the nearest to them stays,
and of those above all categories none. Ids of categories are theirs, those of other nodes ``supercategory:<node>``.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Generic, Literal, TypeVar

import networkx as nx

from hierseg.errors import TaxonomyError
from hierseg.formats.json_files import key_of
from hierseg.formats.reading import shown
from hierseg.taxonomy.graph import MOST_LEVELS, TaxonomyDraft

Levels = Literal['paths', 'ranks', 'wordnet']
RANKS = ('kingdom', 'phylum', 'class', 'order', 'family', 'genus')
GROUP_PREFIX = 'supercategory:'
NO_SUPERCATEGORY = ('', 'none')
"""Words that exporters write for a category that has no supercategory; compared in lower case."""

Node = TypeVar('Node', bound=Hashable)
Path = tuple[str, ...]
Category = Mapping[str, Any]
SHOWN = 5


def levelled_draft(categories: Mapping[str, Category], levels: Levels, *, where: str) -> TaxonomyDraft:
    """Makes a draft of categories and the levels above them.

    Args:
        categories: Id of the class → entry of the file, with a text ``name``.
        levels: See the module.
        where: The file, for messages.

    Raises:
        TaxonomyError: If no category says anything about levels, or WordNet is asked for and not there.
    """
    if levels == 'wordnet':
        return _wordnet_draft(categories, where=where)
    find = _ranks if levels == 'ranks' else _supercategories
    paths = {class_id: find(category) for class_id, category in categories.items()}
    if not any(paths.values()):
        fields = ', '.join(RANKS) if levels == 'ranks' else 'supercategory'
        raise TaxonomyError(f'no category has {fields}', where=where, fix='Choose other --levels.')
    if (longest := max(map(len, paths.values()))) >= MOST_LEVELS:
        what = f'a category has {longest:,} levels above it'
        raise TaxonomyError(what, where=where, fix=f'At most {MOST_LEVELS} classes stand on one path.')
    nodes = {
        class_id: path if path[-1:] == (categories[class_id]['name'],) else (*path, categories[class_id]['name'])
        for class_id, path in paths.items()
    }
    return Hierarchy(
        nodes,
        lambda path: [path[:-1]] if len(path) > 1 else [],
        name_of=lambda path: path[-1],
        text_of='/'.join,
    ).draft(categories, where=where, whole=levels == 'paths')


def path_of(supercategory: str) -> Path:
    """The levels of a supercategory that is a path.

    Example:
        >>> path_of('animal/mammal'), path_of('animal > mammal'), path_of('none')
        (('animal', 'mammal'), ('animal', 'mammal'), ())
    """
    if supercategory.strip().lower() in NO_SUPERCATEGORY:
        return ()
    parts = (part.strip() for part in supercategory.replace('>', '/').split('/'))
    return tuple(part for part in parts if part)


def _supercategories(category: Category) -> Path:
    return path_of(category.get('supercategory') or '')


def _ranks(category: Category) -> Path:
    return tuple(text.strip() for rank in RANKS if (text := key_of(category.get(rank))))


def tree_draft(tree: Mapping[str, Any], categories: Mapping[str, Category], *, where: str) -> TaxonomyDraft:
    """Makes a draft of categories and V3Det's category tree.

    Args:
        tree: ``categoryid2treeid``: id of a category → its node; ``child2father``: node → node or nodes above it;
            ``id2name``: node → name.
        categories: As of :func:`levelled_draft`; V3Det's annotations have them.
        where: The file of the tree, for messages.

    Raises:
        TaxonomyError: If the tree is malformed.
    """
    node_of, fathers, names = (tree.get(key) for key in ('categoryid2treeid', 'child2father', 'id2name'))
    if not (isinstance(node_of, dict) and isinstance(fathers, dict) and isinstance(names, dict)):
        what = 'the category tree lacks "categoryid2treeid", "child2father" or "id2name"'
        raise TaxonomyError(what, where=where, fix='Give v3det_2023_v1_category_tree.json as it was released.')

    def parents_of(node: str) -> Sequence[str]:
        above = fathers.get(node) or []
        above = [above] if isinstance(above, str) else above
        if not isinstance(above, list) or not all(isinstance(parent, str) for parent in above):
            what = f'"child2father" of {shown(node)} is {shown(above)}'
            raise TaxonomyError(what, where=where, fix='It is the id of a node, or a list of such.')
        return above

    def name_of(node: str) -> str:
        return key_of(names.get(node)) or node

    nodes = {class_id: key_of(node_of[class_id]) or '' for class_id in categories if class_id in node_of}
    return Hierarchy(nodes, parents_of, name_of=name_of, text_of=str).draft(categories, where=where)


def _wordnet_draft(categories: Mapping[str, Category], *, where: str) -> TaxonomyDraft:
    wordnet, error = _load_wordnet(where)
    nodes = {}
    for class_id, category in categories.items():
        try:
            nodes[class_id] = wordnet.synset(category['synset']).name()
        except (KeyError, AttributeError, ValueError, error):
            continue  # LVIS has made synsets of its own; the draft says which are not found
    if not nodes:
        fix = 'Choose other --levels; a synset is a text such as "dog.n.01".'
        raise TaxonomyError('no category has a synset that is in WordNet', where=where, fix=fix)

    def parents_of(name: str) -> Sequence[str]:
        # NLTK gives them in any order. The one with the longest way to the top says most, and is preferred.
        synset = wordnet.synset(name)
        above = {*synset.hypernyms(), *synset.instance_hypernyms()}
        return [found.name() for found in sorted(above, key=lambda found: (-found.max_depth(), found.name()))]

    def name_of(name: str) -> str:
        return str(wordnet.synset(name).lemma_names()[0]).replace('_', ' ')

    return Hierarchy(nodes, parents_of, name_of=name_of, text_of=str).draft(categories, where=where)


def _load_wordnet(where: str) -> tuple[Any, type[Exception]]:
    """NLTK's reader of WordNet, and the error that it raises."""
    try:
        from nltk.corpus.reader.wordnet import WordNetCorpusReader, WordNetError
        from nltk.corpus.util import LazyCorpusLoader
    except ImportError:
        fix = "Install it: pip install 'hierseg[wordnet]'."
        raise TaxonomyError('NLTK, which reads WordNet, is not installed', where=where, fix=fix) from None
    reader = LazyCorpusLoader('wordnet', WordNetCorpusReader, None)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # other languages are not asked for
            reader.ensure_loaded()
    except (LookupError, OSError):
        fix = 'Fetch it once: python -m nltk.downloader wordnet. Where it lies elsewhere, set NLTK_DATA.'
        raise TaxonomyError('WordNet is not among the data of NLTK', where=where, fix=fix) from None
    return reader, WordNetError


class Hierarchy(Generic[Node]):
    """Nodes above categories.

    Args:
        nodes: Id of a class → the node that stands for it. A category without a node is a root class; of several
            with one node, the first is that node, and the others stand beside it.
        parents_of: Nodes above a node, the preferred one first.
        name_of: Name of a class that is none of the categories.
        text_of: What makes its id.
    """

    def __init__(
        self,
        nodes: Mapping[str, Node],
        parents_of: Callable[[Node], Sequence[Node]],
        *,
        name_of: Callable[[Node], str],
        text_of: Callable[[Node], str],
    ) -> None:
        self._nodes, self._name_of, self._text_of = nodes, name_of, text_of
        self._class_of: dict[Node, str] = {}
        for class_id, node in nodes.items():
            self._class_of.setdefault(node, class_id)
        self._graph: nx.DiGraph[Node] = nx.DiGraph()
        waiting = list(dict.fromkeys(reversed([*nodes.values()])))
        self._graph.add_nodes_from(reversed(waiting))
        seen = set(waiting)
        while waiting:
            node = waiting.pop()
            for parent in parents_of(node):
                self._graph.add_edge(node, parent)
                if parent not in seen:
                    seen.add(parent)
                    waiting.append(parent)

    def draft(self, categories: Mapping[str, Category], *, where: str, whole: bool = False) -> TaxonomyDraft:
        """The draft; ``whole`` keeps every node.

        Raises:
            TaxonomyError: If a node is above itself.
        """
        if not nx.is_directed_acyclic_graph(self._graph):
            cycle = ' → '.join(self._text_of(child) for child, _ in nx.find_cycle(self._graph))
            raise TaxonomyError(f'cycle {cycle}', where=where, fix='No class is its own ancestor.')
        graph = self._graph if whole else self._telling()
        groups = [node for node in graph if node not in self._class_of]
        edges = [(key, self._id(above)) for key, node in self._nodes.items() for above in _parents(graph, node)]
        edges += [(self._id(node), self._id(above)) for node in groups for above in _parents(graph, node)]
        missing = [f'{entry["name"]} ({key})' for key, entry in categories.items() if key not in self._nodes]
        notes: tuple[str, ...] = ()
        if missing:
            more = ', …' if len(missing) > SHOWN else ''
            shown = ', '.join(missing[:SHOWN]) + more
            notes = (f'{len(missing)} categories are not found there and become root classes: {shown}',)
        return TaxonomyDraft(
            where,
            (*categories, *map(self._id, groups)),
            (*(entry['name'] for entry in categories.values()), *map(self._name_of, groups)),
            tuple(edges),
            warnings=notes,
        )

    def _telling(self) -> nx.DiGraph[Node]:
        """The graph with one node for each set of categories below; see the module."""
        below: dict[Node, int] = dict.fromkeys(self._graph, 0)  # a bit for each category
        for position, node in enumerate(self._nodes.values()):
            below[node] |= 1 << position
        order = list(nx.topological_sort(self._graph))
        for node in order:
            for above in self._graph.successors(node):
                below[above] |= below[node]
        # Of nodes above the same categories the category itself, or else the nearest to them.
        keeper = {below[node]: node for node in self._class_of}
        for node in order:
            keeper.setdefault(below[node], node)
        everything = (1 << len(self._nodes)) - 1
        if keeper.get(everything) not in self._class_of:
            keeper.pop(everything, None)
        graph: nx.DiGraph[Node] = nx.DiGraph()
        graph.add_nodes_from(node for node in self._graph if keeper.get(below[node]) == node)
        for node in (*graph, *order):  # first the edges of the nodes that stay: they say which parent is preferred
            for above in self._graph.successors(node):
                if below[above] != below[node] and below[above] in keeper:
                    graph.add_edge(keeper[below[node]], keeper[below[above]])
        return graph

    def _id(self, node: Node) -> str:
        return self._class_of.get(node, GROUP_PREFIX + self._text_of(node))


def _parents(graph: nx.DiGraph[Node], node: Node) -> list[Node]:
    """The nodes above a node, in order, without those that stand above another of them."""
    found = list(graph.successors(node))
    if len(found) > 1:
        higher = set().union(*(nx.descendants(graph, above) for above in found))
        found = [above for above in found if above not in higher]
    return found
