"""The DAG: what it refuses, how it is walked, and its JSON."""

from __future__ import annotations

import copy
import json
import pickle

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from taxonomies import ANIMAL, BEAR, CAR, TEDDY, TOY, lowest_common_ancestors, random_taxonomies, teddy_taxonomy

from hierseg.errors import TaxonomyError
from hierseg.taxonomy import Taxonomy

# Two root classes above two classes that each have both as parents: two lowest common ancestors.
CROSS = Taxonomy.from_edges(['a', 'b', 'x', 'y'], [('x', 'a'), ('x', 'b'), ('y', 'b'), ('y', 'a')])


class TestStructure:
    def test_layers_and_leaves(self):
        taxonomy = teddy_taxonomy()
        assert taxonomy.num_classes == 5
        assert taxonomy.root_classes == (TOY, ANIMAL, CAR)
        assert taxonomy.deeper_classes == (BEAR, TEDDY)
        assert taxonomy.leaves == (TEDDY, CAR)
        assert taxonomy.children == ((TEDDY,), (BEAR,), (TEDDY,), (), ())

    def test_paths_follow_all_parents_the_preferred_first(self):
        taxonomy = teddy_taxonomy()
        assert taxonomy.paths(TEDDY) == ((TOY, TEDDY), (ANIMAL, BEAR, TEDDY))
        assert taxonomy.preferred_path(TEDDY) == (TOY, TEDDY)
        assert taxonomy.path_name(TEDDY) == 'Toy › Teddy'
        assert taxonomy.path_name(BEAR, separator='/') == 'Animal/Bear'
        assert taxonomy.paths(CAR) == ((CAR,),)

    def test_ancestors_and_descendants_leave_the_class_itself_out(self):
        taxonomy = teddy_taxonomy()
        assert taxonomy.ancestors(TEDDY) == {TOY, ANIMAL, BEAR}
        assert taxonomy.descendants(ANIMAL) == {BEAR, TEDDY}
        assert taxonomy.ancestors(CAR) == taxonomy.descendants(CAR) == frozenset()

    def test_graph_is_frozen(self):
        with pytest.raises(nx.NetworkXError):
            teddy_taxonomy().graph.add_edge(0, 4)

    def test_label_names_who_asked_for_an_unknown_id(self):
        assert teddy_taxonomy().label('bear') == BEAR
        with pytest.raises(TaxonomyError, match=r"boxes.csv, line 3: class '/m/x' is not in the taxonomy of 5 classes"):
            teddy_taxonomy().label('/m/x', where='boxes.csv, line 3')


class TestConstruction:
    def test_first_edge_gives_the_preferred_parent_and_a_repeated_edge_counts_once(self):
        taxonomy = Taxonomy.from_edges(['a', 'b', 'x'], [('x', 'b'), ('x', 'a'), ('x', 'b')])
        assert taxonomy.parents == ((), (), (1, 0))

    def test_preferred_parents_move_to_the_front_and_the_others_keep_their_order(self):
        edges = [('x', 'a'), ('x', 'b'), ('x', 'c')]
        taxonomy = Taxonomy.from_edges(['a', 'b', 'c', 'x'], edges, preferred_parents={'x': 'c'})
        assert taxonomy.parents[3] == (2, 0, 1)

    def test_names_default_to_ids(self):
        assert CROSS.names == CROSS.ids

    @pytest.mark.parametrize('preferred', [{'x': 'y'}, {'x': 'nowhere'}, {'nowhere': 'a'}, {'a': 'x'}])
    def test_a_preferred_parent_must_be_a_parent(self, preferred):
        with pytest.raises(TaxonomyError, match='is none of its parents'):
            Taxonomy.from_edges(CROSS.ids, [('x', 'a'), ('y', 'b')], preferred_parents=preferred)

    @pytest.mark.parametrize('edge', [('x', 'a'), ('a', 'x')])
    def test_an_edge_to_an_unknown_class(self, edge):
        with pytest.raises(TaxonomyError, match=r"unknown class 'x'"):
            Taxonomy.from_edges(['a'], [edge])

    @pytest.mark.parametrize(
        ('edges', 'cycle'),
        [
            ([('a', 'a')], 'a > a'),
            ([('a', 'b'), ('b', 'a')], 'a > b > a'),
            # The cycle, from parent to child, and not the class that hangs from it.
            ([('a', 'b'), ('b', 'c'), ('c', 'a'), ('d', 'a')], 'a > c > b > a'),
        ],
    )
    def test_a_cycle_is_told(self, edges, cycle):
        with pytest.raises(TaxonomyError, match=f'the hierarchy has a cycle: {cycle}'):
            Taxonomy.from_edges(['a', 'b', 'c', 'd'], edges)

    @pytest.mark.parametrize(
        ('ids', 'names', 'parents', 'message'),
        [
            ((), (), (), 'no classes'),
            (('a', 'b', 'a'), ('A', 'B', 'C'), ((), (), ()), r"duplicate class ids \['a'\]"),
            (('a', ''), ('A', 'B'), ((), ()), 'label 1: a class id is empty'),
            (('a', 'b'), ('A',), ((), ()), '2 ids, 1 names and 2 parent lists'),
            (('a', 'b'), ('A', 'B'), ((), (2,)), r'class b: parents \(2,\) out of range'),
            (('a', 'b'), ('A', 'B'), ((), (-1,)), 'out of range'),
            (('a', 'b'), ('A', 'B'), ((), (0, 0)), 'name one twice'),
        ],
    )
    def test_what_the_constructor_refuses(self, ids, names, parents, message):
        with pytest.raises(TaxonomyError, match=message):
            Taxonomy(ids, names, parents)


class TestCopies:
    @pytest.mark.parametrize('copied', [lambda t: pickle.loads(pickle.dumps(t)), copy.deepcopy])
    def test_a_copy_is_equal_and_read_only(self, copied):
        taxonomy = teddy_taxonomy()
        assert not taxonomy.arrays.depths.flags.writeable
        twin = copied(taxonomy)
        assert twin == taxonomy
        assert hash(twin) == hash(taxonomy)
        assert not twin.arrays.depths.flags.writeable

    def test_a_pickle_carries_no_matrices(self):
        taxonomy = teddy_taxonomy()
        before = len(pickle.dumps(taxonomy))
        assert taxonomy.arrays.distances.size
        assert len(pickle.dumps(taxonomy)) == before

    @given(random_taxonomies())
    def test_json_round_trip_keeps_everything(self, taxonomy):
        assert Taxonomy.from_json(json.loads(json.dumps(taxonomy.to_json()))) == taxonomy
        assert json.loads(str(taxonomy)) == taxonomy.to_json()

    def test_json_keeps_the_order_of_parents(self):
        swapped = Taxonomy.from_edges(['a', 'b', 'x'], [('x', 'b'), ('x', 'a')], names=['A', 'B', 'Äxt'])
        assert Taxonomy.from_json(swapped.to_json()).parents[2] == (1, 0)
        assert Taxonomy.from_json(swapped.to_json()).names[2] == 'Äxt'

    @pytest.mark.parametrize(
        ('document', 'message'),
        [
            ({'format': 'hierseg-taxonomy', 'version': 2, 'classes': []}, "found 'hierseg-taxonomy' version 2"),
            ({'classes': []}, 'found None version None'),
            ([], 'found None version None'),
        ],
    )
    def test_json_of_another_kind(self, document, message):
        with pytest.raises(TaxonomyError, match=f't.json: expected .*{message}'):
            Taxonomy.from_json(document, where='t.json')

    @pytest.mark.parametrize(
        ('classes', 'message'),
        [
            (None, 't.json: malformed class entry None'),
            ([{'id': 'a', 'name': 'A'}], 't.json: malformed class entry'),
            ([{'id': 7, 'name': 'A', 'parents': []}], 't.json: malformed class entry'),
            ([{'id': 'a', 'name': 'A', 'parents': 'bc'}], 't.json: malformed class entry'),
            ([{'id': 'a', 'name': 'A', 'parents': [1]}], 't.json: malformed class entry'),
            ([{'id': 'a', 'name': 'A', 'parents': ['b']}], "t.json, edge a → b: unknown class 'b'"),
            ([], 't.json: the taxonomy has no classes'),
        ],
    )
    def test_json_with_bad_classes(self, classes, message):
        with pytest.raises(TaxonomyError, match=message):
            Taxonomy.from_json({'format': 'hierseg-taxonomy', 'version': 1, 'classes': classes}, where='t.json')


@given(random_taxonomies(), st.data())
def test_walks_agree_with_brute_force(taxonomy, data):
    """Parity with networkx on the plain edge set."""
    graph = nx.DiGraph((parent, child) for child, parents in enumerate(taxonomy.parents) for parent in parents)
    graph.add_nodes_from(range(taxonomy.num_classes))
    first, second = (data.draw(st.integers(0, taxonomy.num_classes - 1)) for _ in range(2))
    above = [nx.ancestors(graph, label) | {label} for label in range(taxonomy.num_classes)]
    common = above[first] & above[second]
    lowest = {a for a in common if not any(a in above[b] for b in common - {a})}
    assert lowest_common_ancestors(taxonomy, first, second) == tuple(sorted(lowest))
    roots = [label for label in graph if graph.in_degree(label) == 0]
    paths = {tuple(p) for root in roots if root != first for p in nx.all_simple_paths(graph, root, first)}
    assert set(taxonomy.paths(first)) == (paths or {(first,)})
    assert len(taxonomy.paths(first)) == len(set(taxonomy.paths(first)))
    assert taxonomy.paths(first)[0] == taxonomy.preferred_path(first)
    assert set(taxonomy.leaves) == {label for label in graph if graph.out_degree(label) == 0}
    assert sorted(taxonomy.root_classes + taxonomy.deeper_classes) == list(range(taxonomy.num_classes))
