from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from mmengine.evaluator import Evaluator
from mmengine.registry import DefaultScope
from open_images_samples import instances, sample, write_store
from taxonomies import ANIMAL, BEAR, CAR, TEDDY, TOY, teddy_taxonomy

from hierseg.errors import ConfigError, EvaluationError
from hierseg.evaluation import LocalisedPairsMetric
from hierseg.evaluation.predictions import ImageTruth, prediction_of
from hierseg.metrics.records import Expansion
from hierseg.store import Store
from hierseg.taxonomy import Taxonomy

LEFT, RIGHT, BELOW = (0, 0, 4, 4), (4, 0, 8, 4), (0, 4, 8, 8)


@pytest.fixture
def store(tmp_path):
    """Image a: a Bear and a Car; no Teddy, as was verified. Image b: an Animal, Cars as a group, a Toy's box."""
    return write_store(
        tmp_path / 'store',
        [
            ('a', instances((BEAR, LEFT, 'mask'), (CAR, RIGHT, 'mask')), (BEAR, CAR), (TEDDY,)),
            (
                'b',
                instances((ANIMAL, LEFT, 'mask'), (CAR, BELOW, 'mask group'), (TOY, RIGHT, 'box')),
                (ANIMAL, CAR, TOY),
                (),
            ),
        ],
    )


def evaluate(metric, *samples):
    metric.process(None, samples)
    return metric.evaluate(len(samples))


def test_names_are_judged_on_what_was_found(store):
    metric = LocalisedPairsMetric(store)
    found = evaluate(
        metric,
        # An Animal on the Bear is right; a Toy on the Car is not.
        sample('a', (LEFT, {ANIMAL: 0.6, BEAR: 0.2}), (RIGHT, {TOY: 0.9})),
        # A Bear on the Animal: it may be. Group and box take nothing.
        sample('b', (LEFT, {BEAR: 0.5, ANIMAL: 0.6}), (BELOW, {CAR: 0.9}), (RIGHT, {TOY: 0.9})),
    )
    assert found == {
        'pairs/match_rate': 1.0,
        'pairs/correctness': 0.5,
        'pairs/exact': 0.0,
        'pairs/distance': 1.5,  # 1 and 2
        'pairs/information': 1.0,
        'pairs/information_recall': 0.5,  # all of the Bear's, nothing of the Car's
        'pairs/unknown': pytest.approx(1 / 3),
    }
    # In the order of their best class, image after image.
    assert metric.pairs.true_labels.tolist() == [CAR, BEAR, ANIMAL]
    expected = [[0.9, 0, 0, 0, 0], [0, 0.6, 0.2, 0, 0], [0, 0.6, 0.5, 0, 0]]
    assert metric.pairs.class_scores == pytest.approx(np.array(expected))


def test_an_absent_class_is_wrong_below_a_coarse_label(store, tmp_path):
    # Bear on image a, where there is no Teddy; were that not verified, the Bear might be one.
    found = evaluate(LocalisedPairsMetric(store), sample('a', (LEFT, {TEDDY: 0.6})))
    assert (found['pairs/correctness'], found['pairs/unknown'], found['pairs/match_rate']) == (0, 0, 0.5)
    other = write_store(tmp_path / 'other', [('a', instances((BEAR, LEFT, 'mask')))])
    found = evaluate(LocalisedPairsMetric(other), sample('a', (LEFT, {TEDDY: 0.6})))
    assert found['pairs/unknown'] == 1
    assert math.isnan(found['pairs/correctness'])


def test_what_is_absent_has_nothing_below_it(tmp_path):
    store = write_store(tmp_path / 'store', [('a', instances((TOY, LEFT, 'mask')), (), (BEAR,))])
    # No Bear, so no Teddy; the Toy is none.
    assert evaluate(LocalisedPairsMetric(store), sample('a', (LEFT, {TEDDY: 0.6})))['pairs/correctness'] == 0


def test_a_plain_detector_names_one_class(store):
    found = evaluate(LocalisedPairsMetric(store), sample('a', (LEFT, {BEAR: 0.6}), class_scores=False))
    assert found['pairs/exact'] == 1


def test_improbable_detections_can_be_left_out(store):
    claims = sample('a', (LEFT, {BEAR: 0.6}), (RIGHT, {CAR: 0.5}))
    assert evaluate(LocalisedPairsMetric(store, score_thr=0.55), claims)['pairs/match_rate'] == 0.5


def test_runs_in_an_evaluator(store):
    with DefaultScope.overwrite_default_scope('mmdet'):
        evaluator = Evaluator([dict(type='hierseg.LocalisedPairsMetric', store=store)])
    evaluator.dataset_meta = {'taxonomy': teddy_taxonomy().to_json()}
    evaluator.process(data_samples=[sample('a', (LEFT, {BEAR: 0.6}))])
    assert evaluator.evaluate(1)['pairs/match_rate'] == 0.5


def test_masks_of_another_size(store):
    opened = Store.open(store)
    truth = ImageTruth.read(opened, 0, expansion=Expansion.of(opened.taxonomy))
    found = sample('a', (LEFT, {BEAR: 0.6}))['pred_instances']
    prediction = replace(prediction_of(found, opened.image(0), num_classes=5), size=(9, 16))
    with pytest.raises(EvaluationError, match=r'^image a: detection masks are 16×9'):
        truth.common_pixels(prediction)


def test_clear_errors(store):
    metric = LocalisedPairsMetric(store)
    with pytest.raises(ConfigError, match='taxonomies differ'):
        metric.dataset_meta = {'taxonomy': Taxonomy.from_edges(['x'], []).to_json()}
    unnamed = sample('a', (LEFT, {BEAR: 0.6}))
    del unnamed['pred_instances']['labels']
    with pytest.raises(EvaluationError, match='image a: pred_instances has no labels'):
        metric.process(None, [unnamed])
    with pytest.raises(EvaluationError, match='no img_id'):
        metric.process(None, [{'pred_instances': {}}])
