"""Detectors by stand-in operators against mmcv's compiled ones, in loss and prediction; skipped where mmcv has none."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from mmdet.registry import DATASETS, MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.hub import get_config
from mmengine.optim import OptimWrapper
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

import hierseg.operators
import hierseg.registry
from hierseg.converters.open_images import ConversionOptions, OpenImagesFiles, convert_open_images
from hierseg.synthetic import AnnotationRates, SplitOptions, SynthesisOptions, default_taxonomy, synthesize

pytestmark = pytest.mark.skipif(
    hierseg.operators.backend() != 'compiled', reason='mmcv has no compiled operators to compare with'
)
QUICKSTART = Path(__file__).parents[2] / 'configs' / 'quickstart' / 'hier_e2e.py'
SIZE = 128
BACKBONE = {'depth': 18, 'base_channels': 8, 'stem_channels': 8, 'frozen_stages': -1, 'norm_eval': False}
WIDTHS = [8, 16, 32, 64]
FPN = {'neck': {'in_channels': WIDTHS, 'out_channels': 16}}
RPN = {'rpn_head': {'in_channels': 16, 'feat_channels': 16}, 'test_cfg.rcnn': {'score_thr': 0.0, 'max_per_img': 20}}
ATTENTION = {'self_attn_cfg.embed_dims': 32, 'ffn_cfg.embed_dims': 32, 'ffn_cfg.feedforward_channels': 32}
CROSS = {**ATTENTION, 'cross_attn_cfg.embed_dims': 32}


def below(key: str, changes: dict[str, Any]) -> dict[str, Any]:
    return {f'{key}.{name}': value for name, value in changes.items()}


def of_rois(*heads: str, box_heads: int = 1) -> dict[str, Any]:
    """Slim heads of a detector in two stages."""
    box = {'in_channels': 16, 'fc_out_channels': 32}
    slim: dict[str, Any] = {**FPN, **RPN, 'roi_head.bbox_roi_extractor.out_channels': 16}
    if box_heads == 1:
        slim['roi_head.bbox_head'] = box
    else:
        slim |= {f'roi_head.bbox_head.{index}.{key}': value for index in range(box_heads) for key, value in box.items()}
    if 'mask' in heads:
        slim['roi_head.mask_roi_extractor.out_channels'] = 16
        slim['roi_head.mask_head'] = {'in_channels': 16, 'conv_out_channels': 8, 'num_convs': 1}
    return slim


DETECTORS: dict[str, tuple[str, dict[str, Any]]] = {
    'Faster R-CNN': ('_base_/models/faster-rcnn_r50_fpn.py', of_rois()),
    'Mask R-CNN': ('_base_/models/mask-rcnn_r50_fpn.py', of_rois('mask')),
    'Cascade Mask R-CNN': ('_base_/models/cascade-mask-rcnn_r50_fpn.py', of_rois('mask', box_heads=3)),
    'RetinaNet': (
        '_base_/models/retinanet_r50_fpn.py',
        {**FPN, 'bbox_head': {'in_channels': 16, 'feat_channels': 16}, 'test_cfg.score_thr': 0.0},
    ),
    'FCOS': (
        'fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py',
        {**FPN, 'bbox_head': {'in_channels': 16, 'feat_channels': 32}, 'neck.out_channels': 16,
         'test_cfg.score_thr': 0.0},
    ),
    'RTMDet-Ins': (
        'rtmdet/rtmdet-ins_tiny_8xb32-300e_coco.py',
        {'backbone.widen_factor': 0.125, 'neck': {'in_channels': [32, 64, 128], 'out_channels': 32},
         'bbox_head': {'in_channels': 32, 'feat_channels': 32}, 'test_cfg': {'score_thr': 0.0, 'max_per_img': 20}},
    ),
    'Mask2Former': (
        'mask2former/mask2former_r50_8xb2-lsj-50e_coco.py',
        {
            'data_preprocessor.batch_augments': None,
            'panoptic_head': {'in_channels': WIDTHS, 'feat_channels': 32, 'out_channels': 32, 'num_queries': 10},
            **below('panoptic_head.pixel_decoder.encoder', {'num_layers': 2, **below('layer_cfg', ATTENTION)}),
            'panoptic_head.pixel_decoder.positional_encoding.num_feats': 16,
            'panoptic_head.positional_encoding.num_feats': 16,
            **below('panoptic_head.transformer_decoder', {'num_layers': 2, **below('layer_cfg', CROSS)}),
            'train_cfg.num_points': 200, 'test_cfg.max_per_image': 10,
        },
    ),
    'Deformable DETR': (
        'deformable_detr/deformable-detr_r50_16xb2-50e_coco.py',
        {
            'neck': {'in_channels': WIDTHS[1:], 'out_channels': 32}, 'bbox_head.embed_dims': 32, 'num_queries': 20,
            'positional_encoding.num_feats': 16, 'test_cfg.max_per_img': 20,
            **below('encoder', {'num_layers': 2, **below('layer_cfg', ATTENTION)}),
            **below('decoder', {'num_layers': 2, **below('layer_cfg', CROSS)}),
        },
    ),
}  # fmt: skip


def build(name: str) -> torch.nn.Module:
    init_default_scope('mmdet')
    path, slim = DETECTORS[name]
    config = Config(dict(model=get_config(f'mmdet::{path}').model))
    if config.model.backbone.type == 'ResNet':
        config.merge_from_dict(below('model.backbone', BACKBONE))
    config.merge_from_dict(below('model', slim))
    config.model.backbone.init_cfg = None
    text = config.pretty_text.replace("'SyncBN'", "'BN'")  # SyncBN needs a GPU
    torch.manual_seed(0)
    model: torch.nn.Module = MODELS.build(Config.fromstring(text, '.py').model)
    return model


def batch(count: int, *, num_classes: int, seed: int = 0) -> dict[str, list[Any]]:
    """Random images, each with three objects."""
    generator = torch.Generator().manual_seed(seed)
    images, samples = [], []
    for _ in range(count):
        corners = torch.randint(0, SIZE - 60, (3, 2), generator=generator)
        boxes = torch.cat([corners, corners + torch.randint(20, 60, (3, 2), generator=generator)], dim=1)
        masks = np.zeros((3, SIZE, SIZE), dtype=np.uint8)
        for mask, (left, top, right, bottom) in zip(masks, boxes.tolist(), strict=True):
            mask[top:bottom, left:right] = 1
        shape = (SIZE, SIZE)
        sample = DetDataSample(metainfo=dict(img_shape=shape, ori_shape=shape, scale_factor=(1.0, 1.0)))
        labels = torch.randint(0, num_classes, (3,), generator=generator)
        sample.gt_instances = InstanceData(bboxes=boxes.float(), labels=labels, masks=BitmapMasks(masks, *shape))
        sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=labels[:0])
        samples.append(sample)
        images.append(torch.randint(0, 256, (3, *shape), generator=generator, dtype=torch.uint8))
    return {'inputs': images, 'data_samples': samples}


def outcome(model: torch.nn.Module, data: dict[str, list[Any]]) -> dict[str, torch.Tensor]:
    """Losses, gradients and predictions."""
    model.train()
    model.zero_grad()
    torch.manual_seed(1)
    prepared = model.data_preprocessor(copy.deepcopy(data), training=True)
    losses = model(**prepared, mode='loss')
    found = {name: sum(torch.as_tensor(part) for part in torch.utils._pytree.tree_leaves(loss))
             for name, loss in losses.items()}  # fmt: skip
    sum(loss for name, loss in found.items() if 'loss' in name).backward()
    found |= {f'gradient of {name}': each.grad for name, each in model.named_parameters() if each.grad is not None}
    model.eval()
    with torch.no_grad():
        predictions = model.test_step(copy.deepcopy(data))
    for index, sample in enumerate(predictions):
        for name, value in sample.pred_instances.items():
            found[f'{name} of image {index}'] = torch.as_tensor(value)
    return found


@pytest.mark.parametrize('name', DETECTORS)
def test_losses_and_predictions_are_the_same(name: str, in_mmcv: Callable[[], Any]) -> None:
    model, data = build(name), batch(2, num_classes=80)
    state = copy.deepcopy(model.state_dict())
    expected = outcome(model, data)
    model.load_state_dict(state)
    with in_mmcv():
        found = outcome(model, data)
    assert len(expected['scores of image 0']) > 0
    assert found.keys() == expected.keys()
    close = {'rtol': 1e-3, 'atol': 1e-4}
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, **close, msg=lambda text, key=key: f'{key}: {text}')


@pytest.fixture
def batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Four batches of four images that the quickstart draws, loaded as it does, in its folder."""
    data = tmp_path / 'data/quickstart'
    splits = (SplitOptions('train', 16, 30.0, AnnotationRates()),)
    synthesize(data, SynthesisOptions(splits=splits, seed=0, size=160), taxonomy=default_taxonomy())
    tables = {
        name: data / f'challenge-2019-train-segmentation-{file}.csv'
        for name, file in (('boxes', 'bbox'), ('labels', 'labels'), ('masks', 'masks'))
    }
    files = OpenImagesFiles(**tables, images=data / 'train', mask_dir=data / 'train-masks')
    convert_open_images(files, default_taxonomy(), out=data / 'store/train', options=ConversionOptions())
    monkeypatch.chdir(tmp_path)
    init_default_scope('mmdet')
    np.random.seed(0)  # noqa: NPY002
    dataset = DATASETS.build(Config.fromfile(QUICKSTART).train_dataloader.dataset)
    return [pseudo_collate([dataset[index % len(dataset)] for index in range(first, first + 4)])
            for first in range(0, 16, 4)]  # fmt: skip


def train(batches: list[dict[str, Any]]) -> list[float]:
    """Losses of a step on each batch, of the quickstart's end-to-end model, with its optimizer and warm-up."""
    config = Config.fromfile(QUICKSTART)
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    model = MODELS.build(config.model)
    model.init_weights()
    model.train()
    settings, warm_up = config.optim_wrapper.optimizer, config.param_scheduler[0]
    weights = torch.optim.AdamW(model.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
    scheduler = torch.optim.lr_scheduler.LinearLR(weights, warm_up.start_factor, total_iters=warm_up.end)
    optimizer = OptimWrapper(weights, clip_grad=dict(config.optim_wrapper.clip_grad))
    losses = []
    for batch in batches:
        losses.append(model.train_step(copy.deepcopy(batch), optimizer)['loss'].item())
        scheduler.step()
    return losses


@pytest.mark.slow
def test_first_steps_of_the_quickstart(
    stand_in: ModuleType, in_mmcv: Callable[[], Any], batches: list[dict[str, Any]]
) -> None:
    expected = train(batches)
    with in_mmcv():
        found = train(batches)
    # Later steps tell nothing: a proposal that rounding moves over a threshold changes what is drawn from then on. The
    # compiled operators themselves part from a training whose RoI align is a rounding step larger: by 0.0005 at the
    # third step, 0.03 at the sixth.
    differences = [abs(one - other) for one, other in zip(found, expected, strict=True)]
    assert max(differences) <= (0 if stand_in.get_compiler_version().endswith('torchvision') else 0.02), differences
