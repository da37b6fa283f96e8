"""Curves of classes: their area is the average precision, and F1 is what counting says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from match_records import image_matches

from hierseg.metrics.average_precision import summarise
from hierseg.metrics.class_curves import MOST_STEPS, THRESHOLDS, class_curves, mean_curve


def test_by_hand():
    # Scores 0.9 (right), 0.6 (wrong), 0.5 (right) of 4 objects: precisions 1, 1/2, 2/3 at recalls 1/4, 1/4, 1/2.
    (curve,) = class_curves([image_matches('a', [(0, 0.9, 1), (0, 0.6, 0), (0, 0.5, 1)], {0: 4})], 1)
    assert curve.recall == pytest.approx([0.25, 0.5])
    assert curve.precision == pytest.approx([1, 2 / 3])
    assert curve.area == pytest.approx(0.25 + 0.25 * 2 / 3)
    # 2 TP / (detections + objects): 4/7 up to 0.5, 2/6 up to 0.6, 2/5 up to 0.9, nothing above.
    expected = {0.0: 4 / 7, 0.5: 4 / 7, 0.51: 2 / 6, 0.6: 2 / 6, 0.61: 2 / 5, 0.9: 2 / 5, 0.91: 0.0, 1.0: 0.0}
    assert {at: curve.f1[round(100 * at)] for at in expected} == pytest.approx(expected)
    assert curve.best == (pytest.approx(4 / 7), 0.0)


def test_classes_without_objects_or_detections():
    without, missed = class_curves([image_matches('a', [(0, 0.9, 0)], {1: 2})], 2)
    assert without is None
    assert (len(missed.recall), missed.area, missed.f1.max()) == (0, 0.0, 0.0)


entries = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 100).map(lambda score: score / 100), st.sampled_from([0.0, 1.0])),
    max_size=400,
)


@given(entries, st.integers(1, 3))
def test_areas_are_average_precisions(found, extra):
    counts = {label: sum(entry[2] for entry in found if entry[0] == label) + extra for label in range(3)}
    matches = [image_matches('a', found, counts)]
    result, curves = summarise(matches, 3), class_curves(matches, 3)
    assert [curve.area for curve in curves] == pytest.approx(result.average_precision.tolist(), abs=1e-9)
    assert all(len(curve.recall) <= MOST_STEPS for curve in curves)
    mean = mean_curve(curves)
    assert mean.area == pytest.approx(result.mean_average_precision, abs=1e-9)
    assert mean.f1 == pytest.approx(np.mean([curve.f1 for curve in curves], axis=0))


@given(entries)
def test_f1_by_counting(found):
    (curve, *_) = class_curves([image_matches('a', found, {0: 500})], 1 + 2)
    for threshold, value in zip(THRESHOLDS.tolist(), curve.f1.tolist(), strict=True):
        kept = [weight for label, score, weight in found if label == 0 and score >= threshold]
        assert value == pytest.approx(2 * sum(kept) / (len(kept) + 500))


def test_joined_steps_keep_the_area():
    generator = np.random.default_rng(0)
    found = [(0, float(score), float(generator.random() < score)) for score in generator.random(5000)]
    matches = [image_matches('a', found, {0: 4000})]
    (curve,) = class_curves(matches, 1)
    assert len(curve.recall) == MOST_STEPS
    assert curve.area == pytest.approx(summarise(matches, 1).average_precision[0], abs=1e-12)
    assert (np.diff(curve.recall) > 0).all()
    assert (np.diff(curve.precision) <= 1e-12).all()
