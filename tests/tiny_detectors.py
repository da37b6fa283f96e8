"""Stock detectors of mmdet, slim enough for a test, and images for them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.config import Config, ConfigDict
from mmengine.hub import get_config
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

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
    'HTC': (
        'htc/htc-without-semantic_r50_fpn_1x_coco.py',
        {**of_rois(box_heads=3), 'roi_head.mask_roi_extractor.out_channels': 16,
         **{f'roi_head.mask_head.{stage}.{key}': value for stage in range(3)
            for key, value in {'in_channels': 16, 'conv_out_channels': 16, 'num_convs': 1}.items()}},
    ),
    'PointRend': (
        'point_rend/point-rend_r50-caffe_fpn_ms-1x_coco.py',
        {**of_rois(), 'roi_head.mask_roi_extractor.out_channels': 16,
         'roi_head.mask_head': {'in_channels': 16, 'fc_out_channels': 32, 'conv_out_channels': 16},
         'roi_head.point_head': {'in_channels': 16, 'fc_channels': 16, 'num_fcs': 1}},
    ),
    'SOLOv2': (
        'solov2/solov2_r50_fpn_1x_coco.py',
        {**FPN, 'mask_head': {'in_channels': 16, 'feat_channels': 32, 'stacked_convs': 1,
                              'mask_feature_head': {'feat_channels': 32, 'out_channels': 32}}},
    ),
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
    'DETR': (
        'detr/detr_r50_8xb2-150e_coco.py',
        {'neck': {'in_channels': WIDTHS[3:], 'out_channels': 32}, 'bbox_head.embed_dims': 32,
         'positional_encoding.num_feats': 16, **below('encoder', {'num_layers': 1, **below('layer_cfg', ATTENTION)}),
         **below('decoder', {'num_layers': 1, **below('layer_cfg', CROSS)})},
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


def settings(name: str) -> ConfigDict:
    """The config of a slim model."""
    init_default_scope('mmdet')
    path, slim = DETECTORS[name]
    # Formatting the text below would take longer than building the model.
    config = Config(dict(model=get_config(f'mmdet::{path}').model), format_python_code=False)
    if config.model.backbone.type == 'ResNet':
        config.merge_from_dict(below('model.backbone', BACKBONE))
    config.merge_from_dict(below('model', slim))
    config.model.backbone.init_cfg = None
    text = config.pretty_text.replace("'SyncBN'", "'BN'")  # SyncBN needs a GPU
    model: ConfigDict = Config.fromstring(text, '.py').model
    return model


def build(model: ConfigDict) -> torch.nn.Module:
    """The model with weights of seed 0."""
    torch.manual_seed(0)
    built: torch.nn.Module = MODELS.build(model)
    return built


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
