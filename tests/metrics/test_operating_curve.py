from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hierseg.errors import EvaluationError
from hierseg.metrics.localised_pairs import ImagePairs, LocalisedPairs
from hierseg.metrics.names import OperatingCurve, information_shares, operating_curve, operating_point
from hierseg.taxonomy import Taxonomy

PERSON, MAN, WOMAN, CAR = range(4)
ARRAYS = Taxonomy.from_edges(['person', 'man', 'woman', 'car'], [('man', 'person'), ('woman', 'person')]).arrays
# 3 leaves, 2 of them below person.
PERSON_SAYS = 1 - math.log(2) / math.log(3)


def pairs_of(*true):
    labels = np.array(true, dtype=np.int64)
    nothing = np.zeros(0, dtype=np.int64)
    scores = np.ones((len(true), 4), dtype=np.float32)
    return LocalisedPairs.gather([ImagePairs('a', labels, labels, scores, nothing, nothing)], ARRAYS)


def curve():
    pairs = pairs_of(MAN, MAN, WOMAN, CAR)
    names = np.array([[MAN, MAN, PERSON], [MAN, MAN, PERSON], [MAN, PERSON, PERSON], [MAN, MAN, PERSON]])
    return operating_curve(pairs, names, ARRAYS, thresholds=[0.2, 0.5, 1.0])


def test_by_hand():
    found = curve()
    assert found.thresholds == (0.2, 0.5, 1.0)
    assert found.correctness == pytest.approx([2 / 4, 3 / 4, 3 / 4])
    assert found.information == pytest.approx([1, (3 + PERSON_SAYS) / 4, PERSON_SAYS])
    # Two men; the woman as far as she is a person; the car not at all.
    expected = [(2 + PERSON_SAYS) / 4, (2 + PERSON_SAYS) / 4, 3 * PERSON_SAYS / 4]
    assert [point.information_recall for point in found.points] == pytest.approx(expected)


def test_recall_at_correctness_by_hand():
    found = curve()
    assert found.recall_at_correctness(0.75) == found.recall_at_correctness(0.5) == pytest.approx((2 + PERSON_SAYS) / 4)
    assert found.recall_at_correctness(0.9) == 0  # only saying nothing is as right


def test_without_a_name_that_is_known():
    found = operating_curve(pairs_of(PERSON), np.array([[MAN]]), ARRAYS, thresholds=[0.5])
    assert math.isnan(found.recall_at_correctness(0.9))


def test_one_name_for_each_pair_and_threshold():
    with pytest.raises(EvaluationError, match=r'names have the shape \(1, 2\)'):
        operating_curve(pairs_of(MAN), np.zeros((1, 2), dtype=np.int64), ARRAYS, thresholds=[0.5])


def test_what_says_nothing_is_all_right():
    # A chain has one leaf, and no name says anything.
    chain = Taxonomy.from_edges(['top', 'leaf'], [('leaf', 'top')]).arrays
    for shares in information_shares(np.array([0, 1]), np.array([1, 0]), chain):
        assert shares.tolist() == [1, 1]


@given(st.lists(st.integers(0, 3), min_size=1, max_size=6), st.integers(0, 99), st.floats(0.01, 1))
def test_points_are_those_of_each_threshold_and_the_recall_is_the_best_allowed(true, seed, wanted):
    pairs = pairs_of(*true)
    names = np.random.default_rng(seed).integers(4, size=(len(true), 5))
    found = operating_curve(pairs, names, ARRAYS, thresholds=[0.1, 0.2, 0.3, 0.4, 0.5])
    points = [operating_point(pairs, names[:, at], ARRAYS) for at in range(5)]
    assert str(found) == str(OperatingCurve((0.1, 0.2, 0.3, 0.4, 0.5), tuple(points)))
    judged = [point for point in points if not math.isnan(point.correctness)]
    allowed = [point.information_recall for point in judged if point.correctness >= wanted]
    expected = max(allowed, default=0) if judged else math.nan
    assert found.recall_at_correctness(wanted) == pytest.approx(expected, nan_ok=True)
