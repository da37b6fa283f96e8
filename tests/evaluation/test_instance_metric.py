from __future__ import annotations

import json
import math
import os
import subprocess
from pathlib import Path

import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.registry import DefaultScope
from open_images_samples import instances, sample, write_store
from taxonomies import ANIMAL, BEAR, CAR, TEDDY, TOY, teddy_taxonomy
from warm_python import warm_python

from hierseg.errors import ConfigError, EvaluationError, StoreError
from hierseg.evaluation import OpenImagesInstanceMetric
from hierseg.registry import METRICS
from hierseg.taxonomy import Taxonomy


def evaluate(metric, samples, size=None):
    metric.process(None, samples)
    return metric.evaluate(len(samples) if size is None else size)


@pytest.fixture
def store(tmp_path):
    """Image a: a Teddy with a mask. Image b: a Car without; no Animal, as was verified. Image c: nothing."""
    return write_store(
        tmp_path / 'store',
        [
            ('a', instances((TEDDY, (0, 0, 4, 4), 'mask'))),
            ('b', instances((CAR, (0, 0, 4, 4), 'box')), (), (ANIMAL,)),
            ('c', instances()),
        ],
    )


def test_every_claimed_class_of_an_instance_is_a_detection(store, tmp_path):
    # Teddy expands to Toy, Bear and Animal. One instance claims Teddy, Toy and Bear, not Animal: AP 1, 1, 1, 0.
    # On image b nobody looked for toys; Animal is absent there, so Bear is too: a false positive behind, AP stays 1.
    metric = OpenImagesInstanceMetric(store, results_file=str(tmp_path / 'results.json'))
    found = evaluate(
        metric,
        [
            sample('a', ((0, 0, 4, 4), {TEDDY: 0.7, TOY: 0.9, BEAR: 0.8})),
            sample('b', ((0, 0, 4, 4), {TOY: 0.99}), ((4, 4, 8, 8), {BEAR: 0.3})),
            sample('c'),
        ],
    )
    assert found == {
        'segm/mAP': 0.75,
        'segm/mAP_layer0': 0.5,  # Toy 1, Animal 0; Car has no mask, so no value
        'segm/mAP_layer1': 1.0,  # Bear, Teddy
        'segm/num_classes_evaluated': 4,
    }
    assert json.loads((tmp_path / 'results.json').read_text()) == {
        'mAP': 0.75,
        'num_classes_evaluated': 4,
        'AP': {'toy': 1.0, 'animal': 0.0, 'bear': 1.0, 'teddy': 1.0, 'car': None},
    }


def test_a_false_positive_ahead_costs(store):
    metric = OpenImagesInstanceMetric(store)
    samples = [sample('a', ((0, 0, 4, 4), {BEAR: 0.5})), sample('b', ((4, 4, 8, 8), {BEAR: 0.6}))]
    # Bear: false positive, then true positive: 1/2. Toy, Teddy and Animal: 0.
    assert evaluate(metric, samples)['segm/mAP'] == 0.125


def test_without_class_scores_labels_and_scores_count(store):
    metric = OpenImagesInstanceMetric(store)
    found = evaluate(metric, [sample('a', ((0, 0, 4, 4), {TEDDY: 0.7, TOY: 0.9}), class_scores=False)])
    assert found['segm/mAP'] == 0.25  # Teddy only


def test_boxes(store):
    metric = OpenImagesInstanceMetric(store, iou_type='bbox')
    samples = [sample('a'), sample('b', ((0, 0, 4, 3), {CAR: 0.5}))]
    for one in samples:
        del one['pred_instances']['masks']
    found = evaluate(metric, samples)
    assert found['bbox/num_classes_evaluated'] == 5
    assert found['bbox/mAP'] == 0.2


def test_group_of_weights(tmp_path):
    store = write_store(
        tmp_path / 'store', [('a', instances((CAR, (0, 0, 8, 4), 'mask group'), (CAR, (0, 4, 8, 8), 'mask')))]
    )
    one = sample('a', ((0, 0, 2, 2), {CAR: 0.9}), ((2, 0, 4, 2), {CAR: 0.8}))
    # Weight 0: both are removed, 0 of 1 found. Weight 1: the group is found, the single is not: 1/2.
    assert evaluate(OpenImagesInstanceMetric(store), [one])['segm/mAP'] == 0
    assert evaluate(OpenImagesInstanceMetric(store, group_of_weight=1.0), [one])['segm/mAP'] == 0.5
    assert evaluate(OpenImagesInstanceMetric(store, iou_type='bbox'), [one])['bbox/mAP'] == 0.5


def test_images_without_ground_truth_or_detections(tmp_path):
    store = write_store(tmp_path / 'store', [('a', instances())])
    for one in (sample('a'), sample('a', ((0, 0, 4, 4), {CAR: 0.5}))):
        found = evaluate(OpenImagesInstanceMetric(store), [one])
        assert math.isnan(found['segm/mAP'])
        assert found['segm/num_classes_evaluated'] == 0


def test_evaluating_again_starts_afresh(store, tmp_path):
    metric = OpenImagesInstanceMetric(store, submission_file=str(tmp_path / 'submission.csv'))
    samples = [sample('a', ((0, 0, 4, 4), {TEDDY: 0.7})), sample('b'), sample('c')]
    assert evaluate(metric, samples) == evaluate(metric, samples)
    assert len((tmp_path / 'submission.csv').read_text().splitlines()) == 2


def test_padded_images_count_once(store, tmp_path):
    # A distributed sampler repeats images so that all ranks have as many; MMEngine cuts the records to the size.
    metric = OpenImagesInstanceMetric(store, submission_file=str(tmp_path / 'submission.csv'))
    one = sample('a', ((0, 0, 4, 4), {TEDDY: 0.7}))
    assert evaluate(metric, [one, sample('b'), one], size=2)['segm/mAP'] == 0.25
    assert len((tmp_path / 'submission.csv').read_text().splitlines()) == 2


def test_is_built_from_a_config_and_runs_in_an_evaluator(store):
    config = dict(type='hierseg.OpenImagesInstanceMetric', store=store)
    assert isinstance(METRICS.build(config), OpenImagesInstanceMetric)
    with DefaultScope.overwrite_default_scope('mmdet'):
        evaluator = Evaluator([config, {**config, 'iou_type': 'bbox'}, {**config, 'prefix': 'again'}])
    evaluator.dataset_meta = {'classes': teddy_taxonomy().names, 'taxonomy': teddy_taxonomy().to_json()}
    evaluator.process([{**sample('a', ((0, 0, 4, 4), {TEDDY: 0.5}))}])
    found = evaluator.evaluate(1)
    assert {key.split('/')[0] for key in found} == {'segm', 'bbox', 'again'}


def test_another_taxonomy_is_refused(store):
    metric = OpenImagesInstanceMetric(store)
    flat = Taxonomy.from_edges(teddy_taxonomy().ids, [])
    with pytest.raises(ConfigError, match='taxonomies differ'):
        metric.dataset_meta = {'taxonomy': flat.to_json()}


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'masks': torch.zeros(1, 9, 16)}, r'masks have the shape \(1, 9, 16\)'),
        ({'masks': None}, 'pred_instances has no masks'),
        ({'class_scores': torch.ones(1, 4)}, r'class_scores have the shape \(1, 4\), the store has 5 classes'),
        ({'class_scores': torch.full((1, 5), math.nan)}, 'a score is not finite'),
        ({'class_scores': None, 'labels': torch.tensor([5])}, 'labels run from 5 to 5, the store has 5 classes'),
        ({'class_scores': None, 'scores': None}, 'pred_instances has no scores'),
    ],
)
def test_bad_predictions_are_refused_with_their_image(store, changes, message):
    one = sample('a', ((0, 0, 4, 4), {TEDDY: 0.5}))
    predicted = {name: value for name, value in {**one['pred_instances'], **changes}.items() if value is not None}
    with pytest.raises(EvaluationError, match=f'image a: {message}'):
        OpenImagesInstanceMetric(store).process(None, [{**one, 'pred_instances': predicted}])


def test_bad_samples_are_refused(store):
    metric = OpenImagesInstanceMetric(store)
    with pytest.raises(StoreError, match="'x'"):
        metric.process(None, [sample('x')])
    with pytest.raises(EvaluationError, match='no pred_instances'):
        metric.process(None, [{'img_id': 'a'}])


@pytest.mark.distributed
def test_two_ranks_give_what_one_gives(store, tmp_path):
    # Of three images rank 0 takes a and c, rank 1 b and, as padding, a again.
    shares = [['a', 'c'], ['b', 'a']]
    script = Path(__file__).with_name('evaluate_one_rank.py')
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(map(str, [script.parents[2], script.parents[1]]))}
    ranks = [
        subprocess.Popen(
            [warm_python(), script, str(rank), store, ','.join(share)],
            cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True,
        )
        for rank, share in enumerate(shares)
    ]  # fmt: skip
    outputs = [rank.communicate(timeout=120)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0]
    found = [json.loads(output.splitlines()[-1]) for output in outputs]

    metric = OpenImagesInstanceMetric(store, submission_file=str(tmp_path / 'one.csv'))
    alone = evaluate(metric, [sample(image_id, ((0, 0, 4, 4), {TEDDY: 0.7, BEAR: 0.8})) for image_id in 'abc'])
    assert found == [alone, alone]
    rows = [(tmp_path / name).read_text().splitlines() for name in ('one.csv', 'two.csv')]
    assert rows[0] == rows[1]
    assert len(rows[0]) == 1 + 3 * 2
    assert not list(tmp_path.glob('.*.partial'))


def test_bad_arguments(store, tmp_path):
    with pytest.raises(EvaluationError, match="unknown iou_type 'boxes'"):
        OpenImagesInstanceMetric(store, iou_type='boxes')
    with pytest.raises(StoreError):
        OpenImagesInstanceMetric(str(tmp_path / 'nowhere'))
