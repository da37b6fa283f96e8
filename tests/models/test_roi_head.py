from __future__ import annotations

import copy
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from taxonomies import ANIMAL, BEAR, CAR, TEDDY, TOY, teddy_taxonomy
from tiny_models import losses, sample, tiny_model
from warm_python import warm_python

from hierseg.errors import ConfigError
from hierseg.models.roi_head import mask_channel_of_classes
from hierseg.registry import MODELS
from hierseg.taxonomy import Taxonomy


@pytest.fixture
def model():
    init_default_scope('mmdet')
    torch.manual_seed(0)
    return MODELS.build(tiny_model())


def test_trains_on_every_kind_of_image(model) -> None:
    model.train()
    samples = [
        sample([BEAR, CAR, ANIMAL], masks=[True, False, True]),
        sample([], masks=[]),
        sample([TEDDY, TOY], masks=[False, False], ignored=1),
    ]
    found = losses(model, samples)
    total = sum(value if torch.is_tensor(value) else sum(value) for name, value in found.items() if 'loss' in name)
    total.backward()
    assert torch.isfinite(total)
    assert found['loss_mask'] > 0
    assert model.roi_head.bbox_head.fc_cls.weight.grad.abs().sum() > 0


def test_a_box_without_a_mask_trains_the_box_branch_only(model) -> None:
    model.train()
    found = losses(model, [sample([BEAR, CAR], masks=[False, False])])
    assert found['loss_mask'].item() == 0
    assert found['loss_bbox'].item() > 0
    # The same image with masks has a mask loss, so the zero above is not an accident.
    assert losses(model, [sample([BEAR, CAR], masks=[True, True])])['loss_mask'].item() > 0


def test_predictions_carry_a_box_a_mask_and_all_classes(model) -> None:
    model.eval()
    model.test_cfg.rcnn.score_thr = model.roi_head.test_cfg.score_thr = 0.01
    images = [torch.randint(0, 255, (3, 64, 96), dtype=torch.uint8) for _ in range(2)]
    samples = [sample([], masks=[]) for _ in images]
    with torch.no_grad():
        results = model.test_step(dict(inputs=images, data_samples=samples))
    detections = results[0].pred_instances
    assert len(detections) > 0
    assert detections.class_scores.shape == (len(detections), 5)
    assert detections.masks.shape == (len(detections), 64, 96)
    taxonomy = teddy_taxonomy()
    for label, score, row in zip(detections.labels, detections.scores, detections.class_scores, strict=True):
        assert row[label] == score > 0
        for child, parents in enumerate(taxonomy.parents):
            assert all(row[parent] == 0 or row[parent] >= row[child] for parent in parents)
    assert (detections.class_scores.amax(dim=1).diff() <= 0).all()


def test_at_most_max_per_img_detections(model) -> None:
    model.eval()
    model.roi_head.test_cfg.score_thr = 0.0
    model.roi_head.test_cfg.max_per_img = 3
    images = [torch.randint(0, 255, (3, 64, 96), dtype=torch.uint8)]
    with torch.no_grad():
        results = model.test_step(dict(inputs=images, data_samples=[sample([], masks=[])]))
    assert len(results[0].pred_instances) == 3


def test_nothing_found(model) -> None:
    model.eval()
    model.roi_head.test_cfg.score_thr = 1.0
    images = [torch.randint(0, 255, (3, 64, 96), dtype=torch.uint8)]
    with torch.no_grad():
        results = model.test_step(dict(inputs=images, data_samples=[sample([], masks=[])]))
    detections = results[0].pred_instances
    assert len(detections) == 0
    assert detections.class_scores.shape == (0, 5)
    assert detections.masks.shape == (0, 64, 96)


@pytest.mark.distributed
def test_a_rank_without_any_roi_keeps_step_with_the_others(tmp_path: Path) -> None:
    script = Path(__file__).with_name('roi_head_one_rank.py')
    root = script.parents[2]
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(map(str, [root, script.parents[1]]))}
    ranks = [
        subprocess.Popen([warm_python(), script, str(rank), tmp_path], cwd=root, env=environment) for rank in range(2)
    ]
    try:
        assert [rank.wait(timeout=120) for rank in ranks] == [0, 0]
    finally:
        for rank in ranks:
            rank.kill()
    first, second = (torch.load(tmp_path / f'state{rank}.pt') for rank in range(2))
    # Five steps in all have RoIs, and each has the proposal on the bear, the bear itself and the car: 10 bears, which
    # are animals too, and 5 cars.
    assert first['balance.seesaw.class_counts'].tolist() == [0, 10, 10, 0, 5]
    assert first.keys() == second.keys()
    assert all(value.equal(second[name]) for name, value in first.items())


def test_clear_errors() -> None:
    init_default_scope('mmdet')
    per_class = copy.deepcopy(tiny_model())
    per_class.roi_head.bbox_head.reg_class_agnostic = False
    with pytest.raises(ConfigError, match='reg_class_agnostic=True'):
        MODELS.build(per_class)
    plain = copy.deepcopy(tiny_model())
    plain.roi_head.bbox_head.loss_cls = dict(type='CrossEntropyLoss')
    with pytest.raises(ConfigError, match=r'hierseg\.HierarchicalLoss'):
        MODELS.build(plain)


# Root classes are toy, animal and car.
NUM_CHANNELS = {'shared': 1, 'root': 3, 'class': 5}


def model_with(mask_channels: str, **mask_head: Any) -> Any:
    config = tiny_model()
    config.roi_head.mask_channels = mask_channels
    count = 5 if mask_channels == 'shared' else NUM_CHANNELS[mask_channels]
    config.roi_head.mask_head.update(class_agnostic=mask_channels == 'shared', num_classes=count)
    config.roi_head.mask_head.update(mask_head)
    torch.manual_seed(0)
    return MODELS.build(config)


@pytest.mark.parametrize(
    ('mask_channels', 'label', 'channel'),
    [
        ('shared', BEAR, 0),
        ('root', BEAR, 1),
        ('root', ANIMAL, 1),
        ('root', CAR, 2),
        # By the preferred parent: toy, and not animal.
        ('root', TEDDY, 0),
        ('class', BEAR, BEAR),
        # A coarse label trains the mask of the coarse class.
        ('class', ANIMAL, ANIMAL),
        ('class', TEDDY, TEDDY),
    ],
)
def test_an_instance_trains_the_mask_of_its_label_alone(mask_channels: str, label: int, channel: int) -> None:
    model = model_with(mask_channels).train()
    losses(model, [sample([label, CAR], masks=[True, False])])['loss_mask'].backward()
    gradient = model.roi_head.mask_head.conv_logits.weight.grad.abs().sum(dim=(1, 2, 3))
    assert gradient.shape == (NUM_CHANNELS[mask_channels],)
    assert gradient.nonzero().flatten().tolist() == [channel]


@pytest.mark.parametrize(
    ('mask_channels', 'channel', 'expected'),
    [
        ('shared', 0, [True, True, True, True]),
        ('root', 0, [True, False, False, False]),
        ('root', 1, [False, True, True, False]),
        ('class', BEAR, [False, True, False, False]),
        ('class', ANIMAL, [False, False, True, False]),
    ],
)
def test_an_instance_is_drawn_by_the_mask_of_the_class_to_name(
    mask_channels: str, channel: int, expected: list[bool]
) -> None:
    model = model_with(mask_channels).eval()
    logits = model.roi_head.mask_head.conv_logits
    with torch.no_grad():
        logits.weight.zero_()
        logits.bias.fill_(-9)[channel] = 9
        boxes = torch.tensor([[4.0, 20, 28, 44]]).repeat(4, 1)
        # Two images, so that results and their labels must stay together.
        named = [[TEDDY, BEAR], [ANIMAL, CAR]]
        results = [InstanceData(bboxes=boxes[:2], labels=torch.tensor(labels)) for labels in named]
        metas = [dict(img_shape=(64, 96), ori_shape=(64, 96), scale_factor=(1.0, 1.0))] * 2
        results = model.roi_head.predict_mask(model.extract_feat(torch.zeros(2, 3, 64, 96)), metas, results)
    assert [mask.any().item() for result in results for mask in result.masks] == expected
    assert [result.labels.tolist() for result in results] == named


def test_without_instances_labels_stay_too() -> None:
    model = model_with('root').eval()
    empty = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long))
    metas = [dict(img_shape=(64, 96), ori_shape=(64, 96), scale_factor=(1.0, 1.0))]
    results = model.roi_head.predict_mask(model.extract_feat(torch.zeros(1, 3, 64, 96)), metas, [empty])
    assert results[0].masks.shape == (0, 64, 96)
    assert results[0].labels.dtype == torch.long


def test_channels_of_root_classes_follow_their_labels() -> None:
    # Root classes are labels 1 and 3; 0 lies below 3 and 2 below 1.
    taxonomy = Taxonomy.from_edges(['a', 'r', 'b', 's'], [('a', 's'), ('b', 'r')])
    head = model_with('root', num_classes=3).roi_head.mask_head
    head.num_classes = 2
    assert mask_channel_of_classes(head, taxonomy, 'root').tolist() == [1, 0, 0, 1]


def test_masks_are_those_of_root_classes_unless_said_otherwise() -> None:
    config = tiny_model()
    del config.roi_head.mask_channels
    # Toy, Animal and Car have one each; Bear and Teddy draw in those of their preferred roots.
    channels = MODELS.build(config).roi_head.mask_channel_of
    assert channels.tolist() == model_with('root').roi_head.mask_channel_of.tolist()
    assert channels.max() == 2


@pytest.mark.parametrize(
    ('mask_channels', 'mask_head', 'fix'),
    [
        ('root', dict(num_classes=5), r'class_agnostic=False, num_classes=3\.'),
        ('class', dict(num_classes=3), r'class_agnostic=False, num_classes=5\.'),
        ('class', dict(class_agnostic=True), r'class_agnostic=False, num_classes=5\.'),
        ('shared', dict(class_agnostic=False), r'class_agnostic=True, num_classes=5\.'),
        ('shared', dict(num_classes=3), r'class_agnostic=True, num_classes=5\.'),
    ],
)
def test_a_head_with_other_channels_is_refused(mask_channels: str, mask_head: dict[str, Any], fix: str) -> None:
    with pytest.raises(ConfigError, match=fix):
        model_with(mask_channels, **mask_head)


def test_an_unknown_word_is_refused() -> None:
    head = model_with('shared').roi_head.mask_head
    with pytest.raises(ConfigError, match='Use shared, root or class'):
        mask_channel_of_classes(head, teddy_taxonomy(), 'leaf')  # type: ignore[arg-type]


def test_the_toy_is_the_first_root_class() -> None:
    """The expectations above count root classes in the order of their labels."""
    assert teddy_taxonomy().root_classes == (TOY, ANIMAL, CAR)
