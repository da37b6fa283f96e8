from __future__ import annotations

from dataclasses import asdict
from itertools import pairwise
from statistics import fmean
from types import SimpleNamespace

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from taxonomies import random_taxonomies

from hierseg.metrics.localised_pairs import ImagePairs, LocalisedPairs
from hierseg.metrics.names import (
    consistent_paths,
    distances_at,
    hierarchical_sums,
    operating_point,
)
from hierseg.taxonomy import Taxonomy

# toy > ball; animal > bear > polar; teddy under toy (preferred) and bear; car. Leaves: teddy, polar, car, ball, so
# that toy, animal and bear, with two leaves each, say log(4 / 2) / log 4 = 1/2. Heights: toy 1, animal 2, bear 1,
# leaves 0, the virtual root 3.
TOY, ANIMAL, BEAR, TEDDY, POLAR, CAR, BALL = range(7)
TAXONOMY = Taxonomy.from_edges(
    ['toy', 'animal', 'bear', 'teddy', 'polar', 'car', 'ball'],
    [('bear', 'animal'), ('teddy', 'toy'), ('teddy', 'bear'), ('polar', 'bear'), ('ball', 'toy')],
)
ARRAYS = TAXONOMY.arrays


def image(image_id, true, scores, *, missed=(), absent=()):
    return ImagePairs(
        image_id=image_id,
        true_labels=np.array(true, dtype=np.int64),
        named_labels=np.array(true, dtype=np.int64),
        class_scores=np.array(scores, dtype=np.float32),
        missed_labels=np.array(missed, dtype=np.int64),
        absent=np.array(absent, dtype=np.int64),
    )


def claims(*by_label: dict[int, float], count: int = 7):
    scores = np.zeros((len(by_label), count), dtype=np.float32)
    for row, claimed in zip(scores, by_label, strict=True):
        row[list(claimed)] = list(claimed.values())
    return scores


def hierarchical_result(pairs, named, arrays):
    return {name: sums.ratio for name, sums in hierarchical_sums(pairs, named, arrays).items()}


class TestByHand:
    def test_names(self):
        true = [TEDDY, TEDDY, TEDDY, TEDDY, BEAR, CAR]
        named = [TEDDY, POLAR, BALL, ANIMAL, TEDDY, TOY]
        pairs = LocalisedPairs.gather([image('a', true, claims(*[{CAR: 1.0}] * 6), missed=[CAR, TOY])], ARRAYS)
        found = SimpleNamespace(**hierarchical_result(pairs, np.array(named), ARRAYS))
        assert found.match_rate == 6 / 8
        assert found.unknown == 1 / 6  # the Bear may be a Teddy
        assert (found.correctness, found.exact) == (2 / 5, 1 / 5)
        # Teddy is below toy, animal, bear; polar below animal and bear, of which bear, of height 1, is the lower. Ball
        # and teddy have toy (1). Animal is its own name (2). Car and toy have nothing in common (3).
        assert found.severity == (1 + 1 + 2 + 3) / 4
        # Shared / of the name: 4/4, {animal, bear} of 3, {toy} of 2, 1/1, 0/1; of the truth: 4/4, 2/4, 1/4, 1/4, 0/1.
        assert found.hierarchical_precision == pytest.approx((1 + 2 / 3 + 1 / 2 + 1 + 0) / 5)
        assert found.hierarchical_recall == pytest.approx((1 + 1 / 2 + 1 / 4 + 1 / 4 + 0) / 5)
        # 2 × shared / both: 8/8, 4/7, 2/6, 2/5, 0/2.
        assert found.hierarchical_f == pytest.approx((1 + 4 / 7 + 1 / 3 + 2 / 5 + 0) / 5)
        # Bear, toy and animal say 1/2 of the leaf's 1; animal is all that is said where it is the name.
        assert found.information_precision == pytest.approx((1 + 1 / 2 + 1 / 2 + 1 + 0) / 5)
        assert found.information_recall == pytest.approx((1 + 1 / 2 + 1 / 2 + 1 / 2 + 0) / 5)
        # teddy–polar over bear, teddy–ball over toy, teddy–bear–animal, car–toy over the virtual root.
        assert found.distance == (0 + 2 + 2 + 2 + 2) / 5
        # All claim car: 3 from teddy (over toy), 0 from car. The Bear is not settled.
        assert found.distance_at_1 == found.distance_at_20 == (3 * 4 + 0) / 5
        assert found.path_consistency == 0

    def test_a_coarse_label_is_settled_where_nothing_else_is_possible(self):
        # Without teddies and polar bears, the Bear is a bear of no known kind: the Polar is wrong and 1 edge away.
        scores = claims({ANIMAL: 0.9, BEAR: 0.9, POLAR: 0.8})
        images = [image('a', [BEAR], scores, absent=[TEDDY, POLAR]), image('b', [BEAR], scores)]
        pairs = LocalisedPairs.gather(images, ARRAYS)
        found = SimpleNamespace(**hierarchical_result(pairs, np.array([POLAR, POLAR]), ARRAYS))
        assert (found.unknown, found.correctness, found.severity) == (0.5, 0, 1)
        assert found.distance_at_1 == 1
        assert found.path_consistency == 1

    def test_candidates_are_the_most_specific_claims(self):
        scores = claims(
            {TOY: 0.9, ANIMAL: 0.5, BEAR: 0.5, TEDDY: 0.5, BALL: 0.4},  # teddy and ball
            {TOY: 0.9},  # nothing below it is claimed
            {},
        )
        found = distances_at(scores, np.array([BALL, BALL, BALL]), ARRAYS)
        assert {k: values.tolist() for k, values in found.items()} == {1: [2, 1, 0], 5: [1, 1, 0], 20: [1, 1, 0]}

    def test_k_cuts(self):
        taxonomy = Taxonomy.from_edges([f'c{i}' for i in range(7)], [])
        scores = claims({i: 0.9 - 0.1 * i for i in range(7)})
        found = distances_at(scores, np.array([6]), taxonomy.arrays)
        # Two root classes are 2 apart; the truth is the last of seven.
        assert {k: values.tolist() for k, values in found.items()} == {1: [2], 5: [2], 20: [pytest.approx(12 / 7)]}

    @pytest.mark.parametrize(
        ('claimed', 'named', 'expected'),
        [
            ({TOY: 0.9, TEDDY: 0.5}, TEDDY, True),
            ({TOY: 0.4, TEDDY: 0.5}, TEDDY, False),  # surer of the child
            ({TOY: 0.4, ANIMAL: 0.7, BEAR: 0.6, TEDDY: 0.5}, TEDDY, True),  # the other path
            ({ANIMAL: 0.55, BEAR: 0.6, TEDDY: 0.5}, TEDDY, False),  # broken further up
            ({ANIMAL: 0.9, TEDDY: 0.5}, TEDDY, False),  # bear is not claimed
            ({BEAR: 0.6, TEDDY: 0.5}, TEDDY, False),  # animal is not claimed
            ({TEDDY: 0.5}, TEDDY, False),
            ({TOY: 0.4, TEDDY: 0.5}, TOY, True),
            ({TEDDY: 0.5}, TOY, False),
            ({TOY: 0.5, TEDDY: 0.5}, TEDDY, True),
            ({TOY: 0.4999999, TEDDY: 0.5}, TEDDY, True),  # rounding
        ],
    )
    def test_consistent_paths(self, claimed, named, expected):
        assert consistent_paths(claims(claimed), np.array([named]), ARRAYS).tolist() == [expected]

    def test_nothing(self):
        found = hierarchical_result(LocalisedPairs.gather([], ARRAYS), np.zeros(0, dtype=np.int64), ARRAYS)
        assert np.isnan(list(found.values())).all()


@st.composite
def named_pairs(draw):
    """A taxonomy, pairs on a few images, and names."""
    taxonomy = draw(random_taxonomies())
    generator = np.random.default_rng(draw(st.integers(0, 9999)))
    count, images = taxonomy.num_classes, []
    for at in range(draw(st.integers(1, 4))):
        num_pairs = int(generator.integers(0, 5))
        negative = set(generator.choice(count, size=generator.integers(0, 2), replace=False).tolist())
        scores = generator.random((num_pairs, count)) * (generator.random((num_pairs, count)) < 0.6)
        images.append(
            image(
                f'{at}',
                generator.integers(count, size=num_pairs),
                scores,
                missed=generator.integers(count, size=generator.integers(0, 3)),
                absent=sorted({v for v in range(count) if negative & ({v} | taxonomy.ancestors(v))}),
            )
        )
    total = sum(len(part.true_labels) for part in images)
    return taxonomy, images, generator.integers(count, size=total)


def plain_result(taxonomy, images, named):
    """The documented definitions in sets and lists."""
    count = taxonomy.num_classes
    up = [{v} | taxonomy.ancestors(v) for v in range(count)]
    down = [{v} | taxonomy.descendants(v) for v in range(count)]
    leaves = [sum(not taxonomy.children[v] for v in down[label]) for label in range(count)]
    num_leaves = sum(not children for children in taxonomy.children)
    said = [np.log(num_leaves / leaves[v]) / np.log(num_leaves) if num_leaves > 1 else 0.0 for v in range(count)] + [
        0.0
    ]
    heights = [nx.dag_longest_path_length(taxonomy.graph.subgraph(down[v])) for v in range(count)]
    heights.append(max(heights) + 1)
    above = nx.DiGraph((child, parent) for child in range(count) for parent in taxonomy.parents[child] or (-1,))
    steps = dict(nx.all_pairs_shortest_path_length(above))
    kept = {name: [] for name in hierarchical_sums(LocalisedPairs.gather([], ARRAYS), named[:0], ARRAYS)}
    names = iter(named.tolist())
    for part in images:
        for true, scores in zip(part.true_labels.tolist(), part.class_scores, strict=True):
            name, absent = next(names), set(part.absent.tolist())
            possible = {v for v in range(count) if (down[true] & down[v]) - absent}
            distance = [min(steps[true][a] + steps[v][a] for a in steps[true].keys() & steps[v]) for v in range(count)]
            common = up[name] & up[true]
            lowest = [v for v in common if not common & (down[v] - {v})]
            depth = taxonomy.arrays.depths
            lca = min(lowest, key=lambda v: (leaves[v], -depth[v], heights[v]), default=-1)
            known = name in up[true] or name not in possible
            kept['information'].append(said[name])
            kept['unknown'].append(not known)
            kept['match_rate'].append(1)
            if known:
                kept['correctness'].append(name in up[true])
                kept['exact'].append(name == true)
                kept['distance'].append(distance[name])
                kept['hierarchical_precision'].append(len(common) / len(up[name]))
                kept['hierarchical_recall'].append(len(common) / len(up[true]))
                kept['hierarchical_f'].append(2 * len(common) / (len(up[name]) + len(up[true])))
                kept['information_precision'].append(said[lca] / said[name] if said[name] else 1)
                kept['information_recall'].append(said[lca] / said[true] if said[true] else 1)
                if name != true:
                    kept['severity'].append(heights[lca])
            claimed = [v for v in range(count) if scores[v] > 0]
            guesses = [v for v in claimed if not set(claimed) & (down[v] - {v})]
            guesses.sort(key=lambda v: -scores[v])
            if possible <= up[true] and guesses:
                for k in (1, 5, 20):
                    kept[f'distance_at_{k}'].append(fmean(distance[v] for v in guesses[:k]))
            kept['path_consistency'].append(
                any(
                    all(scores[v] > 0 for v in path)
                    and all(scores[a] >= scores[b] * np.float32(0.99999) for a, b in pairwise(path))
                    for path in taxonomy.paths(name)
                )
            )
        kept['match_rate'] += [0] * len(part.missed_labels)
    return {name: fmean(values) if values else np.nan for name, values in kept.items()}


@given(named_pairs())
def test_by_brute_force(drawn):
    taxonomy, images, named = drawn
    pairs = LocalisedPairs.gather(images, taxonomy.arrays)
    found = hierarchical_result(pairs, named, taxonomy.arrays)
    expected = plain_result(taxonomy, images, named)
    assert found == {name: pytest.approx(value, abs=1e-12, nan_ok=True) for name, value in expected.items()}
    point = asdict(operating_point(pairs, named, taxonomy.arrays))
    assert point == {name: pytest.approx(found[name], nan_ok=True) for name in point}


@given(named_pairs(), st.data())
def test_renumbering_classes_changes_nothing(drawn, data):
    taxonomy, images, named = drawn
    order = data.draw(st.permutations(range(taxonomy.num_classes)))  # new label → old label
    new = np.argsort(order)
    renumbered = Taxonomy(
        tuple(taxonomy.ids[old] for old in order),
        tuple(taxonomy.names[old] for old in order),
        tuple(tuple(int(new[parent]) for parent in taxonomy.parents[old]) for old in order),
    )
    moved = [
        image(
            part.image_id,
            new[part.true_labels],
            part.class_scores[:, order],
            missed=new[part.missed_labels],
            absent=new[part.absent],
        )
        for part in images
    ]
    before = hierarchical_result(LocalisedPairs.gather(images, taxonomy.arrays), named, taxonomy.arrays)
    after = hierarchical_result(LocalisedPairs.gather(moved, renumbered.arrays), new[named], renumbered.arrays)
    assert after == {name: pytest.approx(value, nan_ok=True) for name, value in before.items()}


@given(random_taxonomies(), st.integers(0, 9999))
def test_sums_over_outcomes_are_always_consistent(taxonomy, seed):
    count = taxonomy.num_classes
    masses = np.random.default_rng(seed).dirichlet(np.full(count, 0.3), size=20).astype(np.float32)
    scores = masses @ taxonomy.arrays.ancestor_mask.astype(np.float32)
    for label in range(count):
        named = np.full(20, label)
        assert consistent_paths(scores, named, taxonomy.arrays).tolist() == (scores[:, label] > 0).tolist()


@given(named_pairs())
def test_changes_are_the_differences_to_the_results_without_each_image(drawn):
    taxonomy, images, named = drawn
    arrays = taxonomy.arrays
    pairs = LocalisedPairs.gather(images, arrays)
    order = np.argsort(pairs.image_ids)
    for name, sums in hierarchical_sums(pairs, named, arrays).items():
        for change, left_out in zip(sums.effects.changes, order, strict=True):
            rest = LocalisedPairs.gather([part for at, part in enumerate(images) if at != left_out], arrays)
            expected = sums.ratio - hierarchical_sums(rest, named[pairs.image_of != left_out], arrays)[name].ratio
            assert np.isnan(change) or change == pytest.approx(expected, abs=1e-12)
