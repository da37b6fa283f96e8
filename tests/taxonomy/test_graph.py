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

from hierseg.errors import ConfigError, TaxonomyError
from hierseg.taxonomy import Taxonomy, arrays
from hierseg.taxonomy.graph import require_same_class_names, require_same_taxonomy

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
        assert taxonomy.path_name(BEAR) == 'Animal › Bear'
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
            ([('a', 'a')], 'a → a'),
            ([('a', 'b'), ('b', 'a')], 'a → b → a'),
            # The cycle, from child to parent, and not the class that hangs from it.
            ([('a', 'b'), ('b', 'c'), ('c', 'a'), ('d', 'a')], 'a → b → c → a'),
        ],
    )
    def test_a_cycle_is_told(self, edges, cycle):
        with pytest.raises(TaxonomyError, match=f'^cycle {cycle}. No class is its own ancestor'):
            Taxonomy.from_edges(['a', 'b', 'c', 'd'], edges)

    @pytest.mark.parametrize(
        ('ids', 'names', 'message'),
        [
            ([], None, 'no classes'),
            (['a', 'b', 'a'], None, "class 'a' is listed 2 times"),
            (['a', ''], None, 'the id of class 1 is empty'),
            (['a', 'b'], ['A'], '2 ids and 1 names'),
        ],
    )
    def test_what_classes_it_refuses(self, ids, names, message):
        with pytest.raises(TaxonomyError, match=message):
            Taxonomy.from_edges(ids, [], names=names)

    def test_several_problems_are_told_together(self):
        with pytest.raises(TaxonomyError, match=r"^2 problems: unknown class 'x' in the edge a → x; cycle b → b\. "):
            Taxonomy.from_edges(['a', 'b'], [('a', 'x'), ('b', 'b')])


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
            ([{'id': 'a', 'name': 'A', 'parents': ['b']}], "t.json: unknown class 'b' in the edge a → b"),
            ([], 't.json: no classes'),
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


IDS = ['toy', 'animal', 'teddy', 'dog']
EDGES = [('teddy', 'toy'), ('teddy', 'animal'), ('dog', 'animal')]
PETS = Taxonomy.from_edges(IDS, EDGES)


def test_equal_taxonomies_pass_and_names_do_not_count():
    require_same_taxonomy(PETS, Taxonomy.from_edges(IDS, EDGES, names=['A', 'B', 'C', 'D']), where='loss')


def test_two_swapped_classes_are_both_named():
    swapped = Taxonomy.from_edges(['animal', 'toy', 'teddy', 'dog'], EDGES)
    with pytest.raises(ConfigError, match=r"loss: .*class 0 is 'toy' expected, 'animal' found; class 1 is 'animal'"):
        require_same_taxonomy(PETS, swapped, where='loss')


def test_a_missing_class_gives_both_counts():
    smaller = Taxonomy.from_edges(IDS[:3], EDGES[:2])
    with pytest.raises(ConfigError, match=r"4 classes expected, 3 found; class 3 is 'dog' expected, none found"):
        require_same_taxonomy(PETS, smaller, where='loss')


def test_another_preferred_parent_is_a_difference():
    other = Taxonomy.from_edges(IDS, EDGES, preferred_parents={'teddy': 'animal'})
    with pytest.raises(ConfigError, match=r'class 2 \(teddy\) has parents \[toy, animal\] expected, \[animal, toy\]'):
        require_same_taxonomy(PETS, other, where='loss')


def test_a_lost_edge_is_a_difference():
    with pytest.raises(ConfigError, match=r'class 3 \(dog\) has parents \[animal\] expected, none found'):
        require_same_taxonomy(PETS, Taxonomy.from_edges(IDS, EDGES[:2]), where='loss')


def test_many_differences_are_counted():
    # Ten names against none: one sentence for the counts, ten for the labels; three are shown.
    with pytest.raises(ConfigError, match='; and 8 more'):
        require_same_class_names([f'c{label}' for label in range(10)], [], where='config')


class TestLimits:
    """Hierarchies whose tables would take gigabytes."""

    def test_a_chain_of_too_many_levels(self) -> None:
        ids = [str(number) for number in range(600)]
        with pytest.raises(TaxonomyError, match='600 levels'):
            Taxonomy.from_edges(ids, list(zip(ids[1:], ids, strict=False)))

    def test_too_many_pairs_and_too_large_a_matrix(self, monkeypatch: pytest.MonkeyPatch) -> None:
        taxonomy = Taxonomy.from_edges(['a', 'b', 'c'], [('b', 'a'), ('c', 'b')])
        monkeypatch.setattr(arrays, 'MOST_BYTES', 8)
        with pytest.raises(TaxonomyError, match='3 classes, of which a table of all pairs'):
            _ = taxonomy.arrays.ancestor_mask
        monkeypatch.setattr(arrays, 'MOST_PAIRS', 5)
        with pytest.raises(TaxonomyError, match='more than 5 pairs'):
            _ = Taxonomy.from_edges(['a', 'b', 'c'], [('b', 'a'), ('c', 'b')]).arrays
