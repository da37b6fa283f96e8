from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hierseg.formats import FloatArray
from hierseg.synthetic.options import VALIDATION_RATES, AnnotationRates, SplitOptions, default_taxonomy
from hierseg.synthetic.population import (
    NOT_ANNOTATED,
    RARE,
    Population,
    apportioned,
    leaf_shares,
    limited_shares,
    long_tail_shares,
    plan_population,
    verified_labels,
)
from hierseg.taxonomy import Taxonomy

TAXONOMY = default_taxonomy()
PERFECT = AnnotationRates(coarse=0, unannotated=0, group_of=0, box_only=0)


def plan(
    rates: AnnotationRates = PERFECT,
    *,
    images: int = 400,
    shares: FloatArray | None = None,
    seed: int = 0,
    taxonomy: Taxonomy = TAXONOMY,
) -> Population:
    return plan_population(
        taxonomy,
        long_tail_shares(taxonomy, 1500) if shares is None else shares,
        SplitOptions('train', images, None, rates),
        objects_per_image=3.5,
        generator=np.random.default_rng(seed),
    )


def image_slices(population: Population) -> list[slice]:
    first = population.first_objects.tolist()
    return [slice(start, end) for start, end in pairwise(first)]


@pytest.mark.parametrize(
    ('shares', 'total', 'expected'),
    [
        # One each, 7 left; due 5 − 1, 3 − 1, 2 − 1 = 4, 2, 1.
        ([0.5, 0.3, 0.2], 10, [5, 3, 2]),
        # One each, 1 left; due 4·0.6 − 1 = 1.4 and 4·0.3 − 1 = 0.2, scaled to 0.875 and 0.125.
        ([0.6, 0.3, 0.1, 0.0], 4, [2, 1, 1, 0]),
        # Not enough for all: 1.2, 0.6, 0.2 → 1, 0, 0 and the one left to the largest remainder.
        ([0.6, 0.3, 0.1], 2, [1, 1, 0]),
    ],
)
def test_apportioned_by_hand(shares: list[float], total: int, expected: list[int]) -> None:
    assert apportioned(np.array(shares), total).tolist() == expected


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30).filter(lambda s: sum(s) > 0.01), st.integers(1, 5000))
def test_apportioned_keeps_the_total_and_leaves_nobody_out(shares: list[float], total: int) -> None:
    share = np.array(shares) / sum(shares)
    counts = apportioned(share, total)
    assert counts.sum() == total
    assert (counts[share == 0] == 0).all()
    if total >= (share > 0).sum():
        assert (counts[share > 0] >= 1).all()


def test_limited_shares_by_hand() -> None:
    # Ratio 100 to at most 10: exponent log 10 / log 100 = 1/2, so 100 : 10 : 1 becomes 10 : √10 : 1.
    limited = limited_shares(np.array([100, 10, 0, 1]) / 111, 10)
    assert limited == pytest.approx(np.array([10, np.sqrt(10), 0, 1]) / (11 + np.sqrt(10)))
    assert limited_shares(np.array([0.6, 0.4]), 10).tolist() == [0.6, 0.4]


def test_leaf_shares_hand_down_in_proportion() -> None:
    taxonomy = Taxonomy.from_edges(
        ['animal', 'cat', 'dog', 'fox', 'car'], [(c, 'animal') for c in ('cat', 'dog', 'fox')]
    )
    # 0.4 of Animal goes to cat and dog as 0.3 : 0.1; fox has nothing to be in proportion to.
    assert leaf_shares(taxonomy, np.array([0.4, 0.3, 0.1, 0, 0.2])) == pytest.approx([0, 0.6, 0.2, 0, 0.2])
    # No leaf of its own at all: in equal parts.
    assert leaf_shares(taxonomy, np.array([0.6, 0, 0, 0, 0.4])) == pytest.approx([0, 0.2, 0.2, 0.2, 0.4])


@pytest.mark.parametrize('seed', range(3))
def test_long_tail_of_500_to_1_at_5000_images(seed: int) -> None:
    """After all that annotation loses, over the classes that objects are annotated as, boxes and masks."""
    population = plan(AnnotationRates(), images=5000, seed=seed)
    is_annotated = population.annotated_labels != NOT_ANNOTATED
    for chosen in (is_annotated, is_annotated & population.has_mask):
        counts = np.bincount(population.annotated_labels[chosen], minlength=TAXONOMY.num_classes)
        assert counts.min() >= 1
        assert counts.max() / counts.min() >= 500


def test_head_and_tail_are_the_same_for_another_label_order() -> None:
    renumbered = Taxonomy.from_edges(TAXONOMY.ids[::-1], [])
    flat = Taxonomy.from_edges(TAXONOMY.ids, [])
    assert long_tail_shares(renumbered, 50)[::-1] == pytest.approx(long_tail_shares(flat, 50))


def test_objects_are_leaves_annotated_as_themselves_in_a_perfect_world() -> None:
    population = plan()
    assert set(population.labels.tolist()) == set(TAXONOMY.leaves)
    np.testing.assert_array_equal(population.labels, population.annotated_labels)
    assert population.has_mask.all()
    assert not population.group_of.any()
    sizes = np.diff(population.first_objects)
    assert sizes.min() >= 1
    assert sizes.mean() == pytest.approx(3.5, abs=0.3)


def test_coarse_labels_are_ancestors_and_the_same_for_all_of_a_class_in_an_image() -> None:
    population = plan(AnnotationRates(coarse=0.3, unannotated=0))
    mask = TAXONOMY.arrays.ancestor_mask
    assert mask[population.labels, population.annotated_labels].all()
    is_deeper = np.isin(population.labels, TAXONOMY.deeper_classes)
    is_coarse = population.labels != population.annotated_labels
    assert is_coarse[is_deeper].mean() == pytest.approx(0.3, abs=0.04)
    assert not is_coarse[~is_deeper].any()
    for own in image_slices(population):
        for label in set(population.labels[own].tolist()):
            of_class = population.labels[own] == label
            assert len(set(population.annotated_labels[own][of_class].tolist())) == 1


def test_unannotated_objects_are_of_families_that_nobody_verified() -> None:
    """Law: a verified-present class has every object at or below it annotated in that image."""
    population = plan(AnnotationRates(unannotated=0.3))
    mask = TAXONOMY.arrays.ancestor_mask
    generator = np.random.default_rng(1)
    for own in image_slices(population):
        labels, annotated = population.labels[own], population.annotated_labels[own]
        positive, _ = verified_labels(TAXONOMY, labels, annotated, negatives=4, generator=generator)
        verified = mask[positive].any(axis=0)
        for label, target in zip(labels, annotated, strict=True):
            if target == NOT_ANNOTATED:
                assert not (mask[label] & verified).any()
    is_left_out = population.annotated_labels == NOT_ANNOTATED
    assert is_left_out.mean() == pytest.approx(0.3, abs=0.06)
    rare = np.flatnonzero(np.bincount(population.labels, minlength=TAXONOMY.num_classes) < RARE)
    assert len(rare) > 0
    assert not is_left_out[np.isin(population.labels, rare)].any()


def test_group_of_and_box_only_rates() -> None:
    population = plan(AnnotationRates(group_of=0.1, box_only=0.4))
    assert population.group_of.mean() == pytest.approx(0.1, abs=0.02)
    assert not (population.group_of & population.has_mask).any()
    assert population.has_mask[~population.group_of].mean() == pytest.approx(0.6, abs=0.03)
    # Every class keeps a mask, the rarest too.
    assert set(population.labels[population.has_mask].tolist()) == set(TAXONOMY.leaves)


def test_rates_of_one_are_taken_at_their_word() -> None:
    assert plan(AnnotationRates(group_of=1.0)).group_of.all()
    assert not plan(AnnotationRates(box_only=1.0)).has_mask.any()


def test_given_shares_of_internal_classes_become_coarse_annotations() -> None:
    person, man, woman = (TAXONOMY.names.index(name) for name in ('Person', 'Man', 'Woman'))
    shares = np.zeros(TAXONOMY.num_classes)
    shares[[person, man, woman]] = [0.5, 0.3, 0.2]
    population = plan(shares=shares, images=200)
    counts = np.bincount(population.annotated_labels, minlength=TAXONOMY.num_classes)
    assert counts[[person, man, woman]] / counts.sum() == pytest.approx([0.5, 0.3, 0.2], abs=0.01)
    # Children have no share, so an unspecific person is a man or a woman.
    assert set(population.labels.tolist()) == {man, woman}


def test_more_classes_than_objects() -> None:
    many = Taxonomy.from_edges([f'c{index}' for index in range(300)], [])
    population = plan(images=5, taxonomy=many, rates=AnnotationRates())
    assert len(population.labels) == population.first_objects[-1] < 300


@settings(deadline=None)
@given(st.lists(st.sampled_from(TAXONOMY.leaves), max_size=6), st.integers(0, 30), st.integers(0, 1000))
def test_verified_absent_classes_are_absent(labels: list[int], negatives: int, seed: int) -> None:
    """Law: after expansion, positives up and negatives down, no class is both."""
    present = np.array(labels, dtype=np.int64)
    positive, negative = verified_labels(
        TAXONOMY, present, present, negatives=negatives, generator=np.random.default_rng(seed)
    )
    mask = TAXONOMY.arrays.ancestor_mask
    upwards, downwards = mask[positive].any(axis=0), mask[:, negative].any(axis=1)
    assert not (upwards & downwards).any()
    assert set(positive.tolist()) == set(labels)
    absent = TAXONOMY.num_classes - int(mask[present].any(axis=0).sum())
    assert len(set(negative.tolist())) == min(negatives, absent)


def test_exhaustive_verification_names_every_class_once() -> None:
    teddy = TAXONOMY.names.index('Teddy bear')
    labels = np.array([teddy])
    positive, negative = verified_labels(TAXONOMY, labels, labels, negatives=None, generator=np.random.default_rng(0))
    assert sorted([*positive.tolist(), *negative.tolist()]) == list(range(TAXONOMY.num_classes))
    assert {TAXONOMY.names[label] for label in positive} == {'Teddy bear', 'Toy', 'Bear', 'Animal'}


def test_relatives_are_verified_absent_more_often() -> None:
    man, woman, drum = (TAXONOMY.names.index(name) for name in ('Man', 'Woman', 'Drum'))
    labels, hits = np.array([man]), np.zeros(TAXONOMY.num_classes)
    for seed in range(300):
        _, negative = verified_labels(TAXONOMY, labels, labels, negatives=2, generator=np.random.default_rng(seed))
        hits[negative] += 1
    assert hits[woman] > 2 * hits[drum] > 0


def test_validation_is_annotated_at_the_finest_class() -> None:
    population = plan(VALIDATION_RATES)
    np.testing.assert_array_equal(population.labels, population.annotated_labels)
