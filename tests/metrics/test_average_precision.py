from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from match_records import image_matches as image

from hierseg.errors import EvaluationError
from hierseg.metrics.average_precision import RECALLS, average_precision, summarise

TP, FP = 1.0, 0.0


def ap(weights, total, scores=None):
    scores = np.arange(len(weights), 0, -1, dtype=np.float64) if scores is None else np.array(scores)
    return average_precision(scores, np.array(weights, dtype=np.float64), total)[0]


class TestRule6:
    """Area under the monotone precision envelope at every recall step."""

    def test_every_step_counts_at_the_best_precision_to_its_right(self):
        # TP FP TP TP of 4: precisions 1, 1/2, 2/3, 3/4; envelope 1, 3/4, 3/4, 3/4; three steps of 1/4:
        # (1 + 3/4 + 3/4) / 4.
        assert ap([TP, FP, TP, TP], 4) == pytest.approx(0.625, abs=1e-15)

    def test_eleven_points_would_give_another_value(self):
        # TP FP FP TP of 4: precision 1 up to recall 1/4, 1/2 up to recall 1/2: (1 + 1/2) / 4 = 0.375. Eleven points:
        # three at 1 (0, 0.1, 0.2), three at 1/2 (0.3, 0.4, 0.5), five at 0: 4.5 / 11 = 0.409.
        assert ap([TP, FP, FP, TP], 4) == pytest.approx(0.375, abs=1e-15)

    def test_no_ground_truth_has_no_value_even_with_false_positives(self):
        assert math.isnan(ap([], 0))
        assert math.isnan(ap([FP, FP], 0))

    def test_ground_truth_without_scored_detections_is_zero(self):
        assert ap([], 3) == 0
        assert ap([FP], 3) == 0

    def test_perfect(self):
        assert ap([TP, TP, TP], 3) == 1

    def test_groups_weigh_what_they_weigh(self):
        # Weight 1/2 first, then FP, then 1: true positives 1/2, 1/2, 3/2 of 3/2; false positives 0, 1, 1:
        # precisions 1, 1/3, 3/5; envelope 1, 3/5, 3/5; steps 1/3, 0, 2/3: 1/3 + 2/5.
        assert ap([0.5, FP, TP], 1.5) == pytest.approx(1 / 3 + 2 / 5, abs=1e-15)

    def test_sorted_by_score(self):
        assert ap([FP, TP], 1, scores=[0.2, 0.9]) == 1
        assert ap([FP, TP], 1, scores=[0.9, 0.2]) == 0.5

    def test_of_equal_scores_the_last_comes_first(self):
        assert ap([FP, TP], 1, scores=[0.5, 0.5]) == 1
        assert ap([TP, FP], 1, scores=[0.5, 0.5]) == 0.5


def curve(weights, total):
    scores = np.arange(len(weights), 0, -1, dtype=np.float64)
    return average_precision(scores, np.array(weights, dtype=np.float64), total)[1]


class TestCurve:
    """The precision envelope on a grid of recalls."""

    def test_the_best_precision_at_that_recall_or_a_greater_one(self):
        # TP FP TP TP of 5: precision 1 at recall 0.2, 2/3 at 0.4, 3/4 at 0.6; so 3/4 from above 0.2 up to 0.6.
        found = curve([TP, FP, TP, TP], 5)
        np.testing.assert_allclose(found, [1] * 21 + [0.75] * 40 + [0] * 40, rtol=1e-15)

    def test_a_recall_that_is_reached_exactly_counts(self):
        # 57 of 100, where the 57th step of a linspace over [0, 1] is a little above 0.57.
        found = curve([TP] * 57, 100)
        assert RECALLS[57] == 0.57
        assert found.tolist() == [1.0] * 58 + [0.0] * 43

    def test_a_false_positive_in_front(self):
        assert curve([FP, TP], 1).tolist() == [0.5] * 101

    def test_nothing_found(self):
        assert curve([FP], 2).tolist() == curve([], 2).tolist() == [0] * 101

    def test_no_ground_truth_has_no_value(self):
        assert np.isnan(curve([FP], 0)).all()
        assert np.isnan(curve([], 0)).all()

    def test_mean_over_classes_with_a_value(self):
        # Class 0: TP of 1: precision 1 everywhere. Class 1: FP TP of 2: 1/2 up to recall 1/2. Class 2: no value.
        result = summarise([image('a', [(0, 0.9, TP), (1, 0.9, FP), (1, 0.8, TP), (2, 0.7, FP)], {0: 1.0, 1: 2.0})], 3)
        np.testing.assert_allclose(result.mean_curve([0, 1, 2]), [0.75] * 51 + [0.5] * 50, rtol=1e-15)
        np.testing.assert_allclose(result.mean_curve([1, 2]), [0.5] * 51 + [0.0] * 50, rtol=1e-15)
        assert np.isnan(result.mean_curve([2])).all()
        assert result.mean_curve([]).shape == (101,)


def test_summary_over_images_and_classes():
    result = summarise(
        [
            # Class 0: TP 0.9, FP 0.8 | FP 0.95, TP 0.7, of 3: FP TP FP TP: precisions 0, 1/2, 1/3, 1/2,
            # two steps of 1/3 at 1/2: 1/3. Class 1: ground truth only: 0. Class 2: FP only: no value.
            image('b', [(0, 0.95, FP), (0, 0.7, TP), (2, 0.5, FP)], {0: 1.0, 2: 0.0}),
            image('a', [(0, 0.9, TP), (0, 0.8, FP)], {0: 2.0, 1: 1.0}),
            image('c', [], {}),
        ],
        4,
    )
    np.testing.assert_allclose(result.average_precision, [1 / 3, 0, np.nan, np.nan], rtol=1e-15)
    assert result.mean_average_precision == pytest.approx(1 / 6, rel=1e-15)
    assert result.num_classes_evaluated == 2
    assert result.num_ground_truth.tolist() == [3, 1, 0, 0]
    assert result.num_scored.tolist() == [4, 0, 1, 0]
    assert result.num_true_positives.tolist() == [2, 0, 0, 0]
    assert result.num_images == 3
    assert result.mean_over([1, 2]) == 0
    assert math.isnan(result.mean_over([2, 3]))
    document = result.to_json(['p', 'q', 'r', 's'])
    assert document == {
        'mAP': pytest.approx(1 / 6),
        'num_classes_evaluated': 2,
        'AP': {'p': pytest.approx(1 / 3), 'q': 0.0, 'r': None, 's': None},
    }


def test_without_any_value_the_mean_is_null():
    result = summarise([], 2)
    assert math.isnan(result.mean_average_precision)
    assert result.to_json(['p', 'q']) == {'mAP': None, 'num_classes_evaluated': 0, 'AP': {'p': None, 'q': None}}


def test_an_image_counts_once():
    with pytest.raises(EvaluationError, match=r'image a: .*twice'):
        summarise([image('a', [], {}), image('b', [], {}), image('a', [], {})], 1)


scores_and_weights = st.integers(1, 12).flatmap(
    lambda n: st.tuples(
        hnp.arrays(np.float64, n, elements=st.floats(0, 1), unique=True),
        hnp.arrays(np.float64, n, elements=st.sampled_from([FP, TP])),
    )
)


@given(scores_and_weights, st.integers(0, 3))
def test_bounded_and_a_lower_false_positive_cannot_help(entries, missed):
    scores, weights = entries
    total = float(weights.sum() + missed)
    before, _ = average_precision(scores, weights, total)
    after, _ = average_precision(np.append(scores, scores.min() - 1), np.append(weights, FP), total)
    if total == 0:
        assert math.isnan(before)
        assert math.isnan(after)
    else:
        assert 0 <= after <= before <= 1 + 1e-12


@given(
    st.lists(st.tuples(st.integers(0, 2), st.sampled_from([0.1, 0.5, 0.9]), st.sampled_from([FP, TP])), max_size=12),
    st.randoms(),
)
def test_the_order_of_images_does_not_matter(entries, random):
    images = [image(str(index), [entry], {0: 2.0, 1: 1.0}) for index, entry in enumerate(entries)]
    shuffled = images.copy()
    random.shuffle(shuffled)
    np.testing.assert_array_equal(summarise(images, 3).average_precision, summarise(shuffled, 3).average_precision)


@given(scores_and_weights, st.integers(0, 3))
def test_the_curve_falls_and_its_area_is_the_average_precision(entries, missed):
    scores, weights = entries
    total = float(weights.sum() + missed)
    if total == 0:
        return
    area, curve = average_precision(scores, weights, total)
    # Midway between the recalls that n objects can have, the curve is the height of the step of width 1 / n.
    midways = (np.arange(total) + 0.5) / total
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('hierseg.metrics.average_precision.RECALLS', midways)
        sampled = average_precision(scores, weights, total)[1]
    assert sampled.mean() == pytest.approx(area, abs=1e-12)
    assert (np.diff(curve) <= 0).all()
