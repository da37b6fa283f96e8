"""The matrices: hand-derived on a DAG with a class of two parents, laws, and parity with networkx."""

from __future__ import annotations

from dataclasses import fields

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from taxonomies import lowest_common_ancestors, random_taxonomies

from hierseg.taxonomy import Taxonomy, TaxonomyArrays

# Labels: 0 toy, 1 animal, 2 bear, 3 teddy, 4 polar bear, 5 car, 6 ball.
#
#   (virtual root) ── toy ──┬── ball
#        │  │               └── teddy ──┐       teddy has two parents: toy (preferred) and bear
#        │  └─ animal ── bear ──────────┤
#        └─ car                         └── polar bear (below bear alone)
TAXONOMY = Taxonomy.from_edges(
    ['toy', 'animal', 'bear', 'teddy', 'polar', 'car', 'ball'],
    [('bear', 'animal'), ('teddy', 'toy'), ('teddy', 'bear'), ('polar', 'bear'), ('ball', 'toy')],
)


def test_up_steps_and_ancestors():
    # teddy: toy and bear are its parents (1), animal is above bear (2). Every class is 0 from itself.
    expected = [
        [0, -1, -1, -1, -1, -1, -1],
        [-1, 0, -1, -1, -1, -1, -1],
        [-1, 1, 0, -1, -1, -1, -1],
        [1, 2, 1, 0, -1, -1, -1],
        [-1, 2, 1, -1, 0, -1, -1],
        [-1, -1, -1, -1, -1, 0, -1],
        [1, -1, -1, -1, -1, -1, 0],
    ]
    np.testing.assert_array_equal(TAXONOMY.arrays.up_steps, expected)
    np.testing.assert_array_equal(TAXONOMY.arrays.ancestor_mask, np.array(expected) >= 0)
    # The pairs of the positive steps above, row by row.
    np.testing.assert_array_equal(TAXONOMY.arrays.ancestor_pairs, [[2, 3, 3, 3, 4, 4, 6], [1, 0, 1, 2, 1, 2, 0]])


def test_depth_is_that_of_the_longest_path():
    # teddy is 1 below toy but 2 below animal (animal > bear > teddy).
    np.testing.assert_array_equal(TAXONOMY.arrays.depths, [0, 0, 1, 2, 2, 0, 1])


def test_preferred_parents_and_roots():
    np.testing.assert_array_equal(TAXONOMY.arrays.preferred_parents, [-1, -1, 1, 0, 2, -1, 0])
    # teddy follows toy, not bear; polar bear climbs bear > animal.
    np.testing.assert_array_equal(TAXONOMY.arrays.preferred_roots, [0, 1, 1, 0, 1, 5, 0])


def test_leaf_counts_count_a_shared_leaf_once_per_class():
    # Leaves: teddy, polar bear, car, ball. toy: teddy, ball. animal and bear: teddy, polar bear.
    np.testing.assert_array_equal(TAXONOMY.arrays.leaf_counts, [2, 2, 2, 1, 1, 1, 1])


def test_a_leaf_below_a_class_by_two_paths_is_one_leaf():
    diamond = Taxonomy.from_edges(['top', 'l', 'r', 'x'], [('l', 'top'), ('r', 'top'), ('x', 'l'), ('x', 'r')])
    np.testing.assert_array_equal(diamond.arrays.leaf_counts, [1, 1, 1, 1])


def test_distances():
    # Up to a common ancestor and down again; V is the virtual root above toy, animal and car.
    # toy–bear: toy, V, animal, bear = 3 (toy, teddy, bear would go down first). teddy–polar over bear = 2.
    # teddy–car: teddy, toy, V, car = 3. polar–ball: polar, bear, animal, V, toy, ball = 5.
    # animal–teddy: animal, bear, teddy = 2. bear–ball: bear, animal, V, toy, ball = 4.
    expected = [
        # toy animal bear teddy polar car ball
        [0, 2, 3, 1, 4, 2, 1],
        [2, 0, 1, 2, 2, 2, 3],
        [3, 1, 0, 1, 1, 3, 4],
        [1, 2, 1, 0, 2, 3, 2],
        [4, 2, 1, 2, 0, 4, 5],
        [2, 2, 3, 3, 4, 0, 3],
        [1, 3, 4, 2, 5, 3, 0],
    ]
    np.testing.assert_array_equal(TAXONOMY.arrays.distances, expected)


def test_height_is_that_of_the_longest_path_to_a_leaf():
    # animal > bear > teddy; toy > ball.
    np.testing.assert_array_equal(TAXONOMY.arrays.heights, [1, 2, 1, 0, 0, 0, 0])


def test_lowest_common_ancestors():
    # Above both teddy and polar bear are animal and bear, with two leaves each: bear is deeper. Toy and bear have
    # teddy in common below them and nothing above.
    expected = [
        # toy animal bear teddy polar car ball
        [0, -1, -1, 0, -1, -1, 0],
        [-1, 1, 1, 1, 1, -1, -1],
        [-1, 1, 2, 2, 2, -1, -1],
        [0, 1, 2, 3, 2, -1, 0],
        [-1, 1, 2, 2, 4, -1, -1],
        [-1, -1, -1, -1, -1, 5, -1],
        [0, -1, -1, 0, -1, -1, 6],
    ]
    np.testing.assert_array_equal(TAXONOMY.arrays.lowest_common_ancestors, expected)


def test_of_several_lowest_common_ancestors_the_one_with_fewest_leaves_counts():
    # x and y are below both l and r; r has a leaf more.
    edges = [('x', 'l'), ('y', 'l'), ('x', 'r'), ('y', 'r'), ('z', 'r')]
    taxonomy = Taxonomy.from_edges(['r', 'l', 'x', 'y', 'z'], edges)
    assert taxonomy.arrays.lowest_common_ancestors[2, 3] == 1


def test_a_redundant_edge_shortens_steps_but_not_depth():
    # c is below a directly and through b: one step up, depth two.
    taxonomy = Taxonomy.from_edges(['a', 'b', 'c'], [('b', 'a'), ('c', 'b'), ('c', 'a')])
    np.testing.assert_array_equal(taxonomy.arrays.up_steps[2], [1, 1, 0])
    np.testing.assert_array_equal(taxonomy.arrays.depths, [0, 1, 2])
    assert taxonomy.arrays.distances[2, 0] == 1


def test_a_single_class_has_all_matrices():
    arrays = Taxonomy.from_edges(['only'], []).arrays
    assert arrays.ancestor_pairs.shape == (2, 0)
    assert arrays.distances.tolist() == [[0]]
    assert arrays.leaf_counts.tolist() == [1]


@pytest.mark.parametrize(
    'name',
    [
        *(field.name for field in fields(TaxonomyArrays)),
        *('ancestor_mask', 'up_steps', 'is_leaf', 'steps_to_virtual_root'),
        *('ancestor_pairs', 'leaf_counts', 'heights', 'lowest_common_ancestors', 'distances'),
    ],
)
def test_matrices_are_read_only_and_typed(name):
    matrix = getattr(TAXONOMY.arrays, name)
    types = dict.fromkeys(('ancestor_mask', 'is_leaf'), np.bool_)
    types |= dict.fromkeys(('steps', 'up_steps', 'distances', 'lowest_common_ancestors'), np.int32)
    assert matrix.dtype == types.get(name, np.int64)
    with pytest.raises(ValueError, match='read-only'):
        matrix[...] = 0


@given(random_taxonomies(), st.integers(0, 99))
def test_pairs_say_what_the_matrices_say(taxonomy, seed):
    arrays, mask = taxonomy.arrays, taxonomy.arrays.ancestor_mask
    for label in range(taxonomy.num_classes):
        np.testing.assert_array_equal(arrays.above(label), np.flatnonzero(mask[label]))
        np.testing.assert_array_equal(arrays.below(label), np.flatnonzero(mask[:, label]))
        steps_to_roots = arrays.up_steps[label, mask[label] & (arrays.depths == 0)]
        assert arrays.steps_to_virtual_root[label] == steps_to_roots.min() + 1
    values = np.random.default_rng(seed).integers(0, 9, taxonomy.num_classes)
    np.testing.assert_array_equal(arrays.sums_below(values), values @ mask)


@given(random_taxonomies())
def test_ancestor_mask_is_reflexive_and_its_own_closure(taxonomy):
    mask = taxonomy.arrays.ancestor_mask
    assert mask.diagonal().all()
    np.testing.assert_array_equal(mask.astype(int) @ mask.astype(int) > 0, mask)
    assert not (mask & mask.T & ~np.eye(len(mask), dtype=bool)).any()


@given(random_taxonomies())
def test_distances_are_symmetric_and_zero_on_the_diagonal_alone(taxonomy):
    distances = taxonomy.arrays.distances
    np.testing.assert_array_equal(distances, distances.T)
    np.testing.assert_array_equal(distances == 0, np.eye(len(distances), dtype=bool))
    assert taxonomy.arrays.longest_distance == distances.max()


@given(random_taxonomies(), st.data())
def test_renumbering_classes_permutes_everything(taxonomy, data):
    count = taxonomy.num_classes
    order = data.draw(st.permutations(range(count)))  # new label → old label
    new_label = np.argsort(order)
    renumbered = Taxonomy(
        tuple(taxonomy.ids[old] for old in order),
        tuple(taxonomy.names[old] for old in order),
        tuple(tuple(int(new_label[parent]) for parent in taxonomy.parents[old]) for old in order),
    )
    before, after = taxonomy.arrays, renumbered.arrays
    for name in ('ancestor_mask', 'up_steps', 'distances'):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name)[np.ix_(order, order)], err_msg=name)
    for name in ('depths', 'leaf_counts', 'heights'):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name)[order], err_msg=name)
    np.testing.assert_array_equal(after.preferred_roots, new_label[before.preferred_roots[order]])
    parents = before.preferred_parents[order]
    np.testing.assert_array_equal(after.preferred_parents, np.where(parents < 0, -1, new_label[parents]))


@given(random_taxonomies())
def test_parity_with_networkx(taxonomy):
    """The matrices against path searches in a graph that has the virtual root as node −1."""
    graph = nx.DiGraph()
    for child, parents in enumerate(taxonomy.parents):
        graph.add_edges_from((parent, child) for parent in parents or (-1,))
    arrays = taxonomy.arrays
    down = dict(nx.all_pairs_shortest_path_length(graph))
    above = [nx.ancestors(graph, label) | {label} for label in range(taxonomy.num_classes)]
    for first in range(taxonomy.num_classes):
        longest = max(len(path) for path in [*nx.all_simple_paths(graph, -1, first)])
        assert arrays.depths[first] == longest - 2  # nodes of the path less its two ends
        below = nx.descendants(graph, first) | {first}
        assert arrays.heights[first] == nx.dag_longest_path_length(graph.subgraph(below))
        leaves = [v for v in nx.descendants(graph, first) | {first} if graph.out_degree(v) == 0]
        assert arrays.leaf_counts[first] == len(leaves)
        for second in range(taxonomy.num_classes):
            assert arrays.up_steps[first, second] == down[second].get(first, -1)
            shortest = min(down[a][first] + down[a][second] for a in above[first] & above[second])
            assert arrays.distances[first, second] == shortest
            lowest = lowest_common_ancestors(taxonomy, first, second)
            chosen = min(
                lowest, key=lambda v: (arrays.leaf_counts[v], -arrays.depths[v], arrays.heights[v], v), default=-1
            )
            assert arrays.lowest_common_ancestors[first, second] == chosen
