"""The rule that names classes: by hand, and equal to its twin on tensors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from taxonomies import ANIMAL, BEAR, CAR, TEDDY, TOY, random_taxonomies, teddy_taxonomy

from hierseg.functional import Relations
from hierseg.models.detections import Decision
from hierseg.taxonomy import Taxonomy
from hierseg.taxonomy.arrays import named_classes

ARRAYS = teddy_taxonomy().arrays


def name(claims: dict[int, float], **options) -> int:
    scores = np.zeros((1, 5), dtype=np.float32)
    scores[0, list(claims)] = list(claims.values())
    return int(named_classes(scores, ARRAYS, **options)[0])


def test_the_deepest_class_with_half_of_its_roots_score() -> None:
    claims = {ANIMAL: 0.9, BEAR: 0.8, TEDDY: 0.5, TOY: 0.5}
    assert name(claims) == TEDDY
    assert name(claims, threshold=0.6) == BEAR
    assert name(claims, threshold=0.9) == ANIMAL
    assert name({ANIMAL: 0.9, BEAR: 0.45}) == BEAR
    assert name({ANIMAL: 0.9, BEAR: 0.44}) == ANIMAL


def test_a_class_with_two_parents_follows_the_surer_root() -> None:
    assert name({TOY: 0.9, ANIMAL: 0.5, BEAR: 0.4, TEDDY: 0.4}) == TOY
    assert name({TOY: 0.5, ANIMAL: 0.7, BEAR: 0.4, TEDDY: 0.35}) == TEDDY


def test_ties_go_to_the_more_probable_class_then_to_the_first() -> None:
    people = Taxonomy.from_edges(['person', 'man', 'woman'], [('man', 'person'), ('woman', 'person')]).arrays
    scores = np.array([[0.8, 0.5, 0.6], [0.8, 0.6, 0.6]], dtype=np.float32)
    assert named_classes(scores, people).tolist() == [2, 1]
    assert name({TOY: 0.5, CAR: 0.5}) == TOY


def test_without_a_root_class_the_best_of_the_highest_claims_leads() -> None:
    assert name({BEAR: 0.6}) == BEAR
    assert name({BEAR: 0.6, TEDDY: 0.4}) == TEDDY
    assert name({BEAR: 0.6, TEDDY: 0.2}) == BEAR


def test_no_detections() -> None:
    assert named_classes(np.zeros((0, 5)), ARRAYS).tolist() == []


@given(random_taxonomies(), st.integers(0, 99999), st.sampled_from([0.1, 0.5, 0.75, 1.0]))
def test_equals_the_rule_on_tensors(taxonomy: Taxonomy, seed: int, threshold: float) -> None:
    generator, arrays = np.random.default_rng(seed), taxonomy.arrays
    # Few distinct values, so that there are ties; with a class, all that is above it is claimed.
    leaves = generator.integers(0, 8, (20, taxonomy.num_classes)) * (generator.random((20, taxonomy.num_classes)) < 0.4)
    leaves[:, 0] += leaves.sum(axis=1) == 0
    scores = (leaves[:, :, None] * arrays.ancestor_mask).max(axis=1).astype(np.float32) / 8
    decision = Decision(Relations.of(arrays), threshold=threshold)
    expected = decision(torch.from_numpy(scores)).tolist()
    assert named_classes(scores, arrays, threshold=threshold).tolist() == expected


@pytest.mark.parametrize('dtype', [np.float32, np.float64])
def test_the_type_of_scores_does_not_matter_at_half(dtype: type) -> None:
    assert named_classes(np.array([[0, 0.9, 0.45, 0, 0]], dtype=dtype), ARRAYS).tolist() == [BEAR]
