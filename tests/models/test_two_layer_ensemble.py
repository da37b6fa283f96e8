from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from taxonomies import ANIMAL, BEAR, CAR, TEDDY
from tiny_models import tiny_ensemble

from hierseg.errors import ConfigError
from hierseg.models import TwoLayerEnsemble
from hierseg.registry import MODELS


@pytest.fixture(scope='module')
def model() -> TwoLayerEnsemble:
    torch.manual_seed(0)
    return MODELS.build(tiny_ensemble()).eval()


def instances(labels: list[int], boxes: list[list[int]], scores: list[float]) -> InstanceData:
    masks = torch.zeros(len(labels), 32, 32, dtype=torch.bool)
    for mask, (left, top, right, bottom) in zip(masks, boxes, strict=True):
        mask[top:bottom, left:right] = True
    return InstanceData(
        bboxes=torch.tensor(boxes, dtype=torch.float).reshape(-1, 4),
        labels=torch.tensor(labels, dtype=torch.long),
        scores=torch.tensor(scores),
        masks=masks,
    )


def test_merges_into_the_record_of_the_end_to_end_model(model: TwoLayerEnsemble) -> None:
    # Labels of the layers: root classes are toy 0, animal 1, car 2; deeper ones bear 0, teddy 1.
    first = instances([2, 1], [[0, 0, 8, 8], [10, 10, 30, 30]], [0.5, 0.9])
    second = instances([0, 1], [[10, 10, 30, 29], [0, 20, 8, 30]], [0.6, 0.7])
    merged, _ = model.merged(first, second)
    # Animal > Bear, then the car; the teddy belongs to nothing.
    assert merged.labels.tolist() == [BEAR, CAR]
    assert merged.scores.tolist() == pytest.approx([0.6, 0.5])
    assert merged.class_scores[0, ANIMAL].item() == pytest.approx(0.9)
    assert merged.bboxes[0].tolist() == [10, 10, 30, 30]
    assert merged.masks[1].sum() == 64


def test_keeps_what_belongs_to_nothing_where_it_is_told_to() -> None:
    model = MODELS.build({**tiny_ensemble(), 'merge': {'unmatched': 'keep'}})
    merged, _ = model.merged(instances([2], [[0, 0, 8, 8]], [0.5]), instances([1], [[0, 20, 8, 30]], [0.7]))
    assert merged.labels.tolist() == [TEDDY, CAR]
    assert merged.scores.tolist() == pytest.approx([0.7, 0.5])
    assert merged.masks[0].sum() == 80


def test_predicts_with_both_layers(model: TwoLayerEnsemble) -> None:
    images = [torch.randint(0, 255, (3, 64, 96), dtype=torch.uint8) for _ in range(2)]
    meta = dict(img_shape=(64, 96), ori_shape=(64, 96), scale_factor=(1.0, 1.0))
    with torch.no_grad():
        results = model.test_step(dict(inputs=images, data_samples=[DetDataSample(metainfo=meta) for _ in images]))
    for result in results:
        found = result.pred_instances
        assert len(found) > 0
        assert found.class_scores.shape == (len(found), 5)
        assert found.masks.shape == (len(found), 64, 96)
        assert (found.class_scores.gather(1, found.labels[:, None]).squeeze(1) == found.scores).all()


def test_a_layer_starts_with_the_weights_that_it_has_alone() -> None:
    config = tiny_ensemble()
    torch.manual_seed(3)
    together = MODELS.build(copy.deepcopy(config))
    for name in ('layer0', 'layer1'):
        torch.manual_seed(3)
        alone = MODELS.build(copy.deepcopy(config[name]))
        for key, value in alone.state_dict().items():
            assert torch.equal(value, together.state_dict()[f'{name}.{key}']), key


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'merge': {'unmatched': 'guess'}}, "unmatched='keep' or 'drop'"),
        ({'merge': {'iou': 0.5}}, 'Use iou_threshold'),
        ({'merge': {'iou_threshold': 0}}, r'iou_threshold in \(0, 1\]'),
        ({'merge': {'decision_thr': 2}}, r'decision_thr in \[0, 1\]'),
    ],
)
def test_clear_errors(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MODELS.build({**tiny_ensemble(), **change})


def test_refuses_a_head_of_another_size() -> None:
    config = tiny_ensemble()
    config.layer1.roi_head.bbox_head.num_classes = 7
    with pytest.raises(ConfigError, match=r'layer1 has num_classes=7, the layer 2 classes'):
        MODELS.build(config)
