from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from taxonomies import ANIMAL, BEAR, CAR, TEDDY, TOY, random_taxonomies, teddy_taxonomy

from hierseg.metrics.records import Expansion
from hierseg.taxonomy import Taxonomy


def pairs(result):
    return sorted(zip(*(part.tolist() for part in result), strict=True))


def test_rule_1_boxes_go_to_all_ancestors_by_every_path():
    # Teddy is a Toy, and a Bear, which is an Animal.
    assert pairs(Expansion.of(teddy_taxonomy()).upward(np.array([CAR, TEDDY, BEAR]))) == [
        (0, CAR),
        (1, TOY), (1, ANIMAL), (1, BEAR), (1, TEDDY),
        (2, ANIMAL), (2, BEAR),
    ]  # fmt: skip


def test_rule_1_absent_labels_go_to_all_descendants():
    # No Animal: no Bear and no Teddy. No Toy: no Teddy.
    assert pairs(Expansion.of(teddy_taxonomy()).downward(np.array([ANIMAL, TOY]))) == [
        (0, ANIMAL), (0, BEAR), (0, TEDDY),
        (1, TOY), (1, TEDDY),
    ]  # fmt: skip


def test_rule_1_verified_labels_go_up_when_present_and_down_when_absent():
    expansion = Expansion.of(teddy_taxonomy())
    verified = expansion.verified(np.array([BEAR]), np.array([TOY]))
    assert verified.tolist() == [TOY, ANIMAL, BEAR, TEDDY]  # present: Bear, Animal; absent: Toy, Teddy


def test_an_ancestor_that_two_paths_reach_gets_one_copy():
    diamond = Taxonomy.from_edges(['a', 'b', 'c', 'd'], [('b', 'a'), ('c', 'a'), ('d', 'b'), ('d', 'c')])
    assert pairs(Expansion.of(diamond).upward(np.array([3]))) == [(0, 0), (0, 1), (0, 2), (0, 3)]


def test_no_expansion_leaves_rows_as_they_are():
    rows, labels = Expansion.none(5).upward(np.array([TEDDY, CAR, TEDDY]))
    assert (rows.tolist(), labels.tolist()) == ([0, 1, 2], [TEDDY, CAR, TEDDY])
    assert pairs(Expansion.none(5).downward(np.array([TOY]))) == [(0, TOY)]


def test_no_rows():
    for result in (
        Expansion.of(teddy_taxonomy()).upward(np.zeros(0, np.int64)),
        Expansion.none(3).downward(np.zeros(0, np.int64)),
    ):
        assert [len(part) for part in result] == [0, 0]


@given(random_taxonomies(), st.data())
def test_expansion_is_idempotent(taxonomy, data):
    labels = np.array(data.draw(st.lists(st.integers(0, taxonomy.num_classes - 1), max_size=4)), dtype=np.int64)
    expansion = Expansion.of(taxonomy)
    for expand in (expansion.upward, expansion.downward):
        once = expand(labels)
        again = expand(once[1])
        assert set(pairs((once[0][again[0]], again[1]))) == set(pairs(once))


@given(random_taxonomies(), st.data())
def test_up_and_down_are_converse(taxonomy, data):
    above, below = (data.draw(st.integers(0, taxonomy.num_classes - 1)) for _ in range(2))
    expansion = Expansion.of(taxonomy)
    assert (above in expansion.upward(np.array([below]))[1]) == (below in expansion.downward(np.array([above]))[1])
