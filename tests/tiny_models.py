"""Models small enough for a test."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from taxonomies import teddy_taxonomy

from hierseg.taxonomy import Taxonomy


def tiny_ensemble() -> dict[str, Any]:
    """Three root classes (Toy, Animal, Car) and two deeper ones (Bear, Teddy)."""
    init_default_scope('mmdet')
    config = Config.fromfile('configs/_base_/models/two_layer_mask_rcnn_r50_fpn.py')
    slim = Config.fromfile('configs/_base_/quickstart.py').slim_detector
    for name, count in (('layer0', 3), ('layer1', 2)):
        layer = Config(dict(model=config.model[name]))
        layer.merge_from_dict(dict(model=copy.deepcopy(slim)))
        layer.model.roi_head.bbox_head.num_classes = layer.model.roi_head.mask_head.num_classes = count
        layer.model.test_cfg.rcnn.score_thr = 0.0
        config.model[name] = layer.model
    config.model.taxonomy = teddy_taxonomy()
    return config.model


def tiny_model() -> ConfigDict:
    """The end-to-end model, on the taxonomy of five classes."""
    init_default_scope('mmdet')
    config = Config.fromfile('configs/_base_/models/hier_mask_rcnn_r50_fpn.py')
    config.merge_from_dict(
        {
            'model.backbone': dict(
                depth=18, base_channels=8, stem_channels=8, frozen_stages=-1, norm_eval=False, init_cfg=None
            ),
            'model.neck': dict(in_channels=[8, 16, 32, 64], out_channels=16),
            'model.rpn_head': dict(in_channels=16, feat_channels=16),
            'model.roi_head.bbox_roi_extractor.out_channels': 16,
            'model.roi_head.mask_roi_extractor.out_channels': 16,
            'model.roi_head.bbox_head': dict(in_channels=16, fc_out_channels=32, num_classes=5),
            'model.roi_head.mask_head': dict(in_channels=16, conv_out_channels=8, num_convs=1, num_classes=3),
        }
    )
    config.model.roi_head.bbox_head.loss_cls.taxonomy = teddy_taxonomy()
    return config.model


def tiny_retinanet(file: str | Path = 'configs/_base_/models/hier_retinanet_r50_fpn.py') -> ConfigDict:
    """The one-stage model of boxes alone, on the same taxonomy; or what a file makes of it."""
    init_default_scope('mmdet')
    config = Config.fromfile(file)
    config.merge_from_dict(
        {
            'model.backbone': dict(
                depth=18, base_channels=8, stem_channels=8, frozen_stages=-1, norm_eval=False, init_cfg=None
            ),
            'model.neck': dict(in_channels=[8, 16, 32, 64], out_channels=16),
            'model.bbox_head': dict(in_channels=16, feat_channels=64, stacked_convs=1, num_classes=5),
        }
    )
    config.model.bbox_head.loss_cls.taxonomy = teddy_taxonomy()
    return config.model


def tiny_real_time_model(taxonomy: Taxonomy | None = None, **loss: Any) -> ConfigDict:
    """The one-stage model, on the taxonomy of five classes or another, with options of its loss."""
    init_default_scope('mmdet')
    taxonomy = taxonomy or teddy_taxonomy()
    config = Config.fromfile('configs/_base_/models/hier_rtmdet_ins.py')
    config.merge_from_dict(
        {
            'model.backbone': dict(deepen_factor=0.17, widen_factor=0.125),
            'model.neck': dict(in_channels=[32, 64, 128], out_channels=32),
            'model.bbox_head': dict(in_channels=32, feat_channels=32, num_classes=taxonomy.num_classes),
        }
    )
    config.model.bbox_head.loss_cls.update(taxonomy=taxonomy, **loss)
    return config.model


def sample(labels: list[int], *, masks: list[bool], ignored: int = 0) -> DetDataSample:
    """Squares of 24 pixels in a row; the last ``ignored`` of them are to be ignored."""
    boxes = torch.tensor([[4.0 + 30 * i, 20, 28 + 30 * i, 44] for i in range(len(labels))]).reshape(-1, 4)
    planes = np.zeros((len(labels), 64, 96), dtype=np.uint8)
    for index, has_mask in enumerate(masks):
        planes[index, 20:44, 4 + 30 * index : 28 + 30 * index] = has_mask
    result = DetDataSample(metainfo=dict(img_shape=(64, 96), ori_shape=(64, 96), scale_factor=(1.0, 1.0)))
    keep = len(labels) - ignored
    result.gt_instances = InstanceData(
        bboxes=boxes[:keep],
        labels=torch.tensor(labels[:keep], dtype=torch.long),
        masks=BitmapMasks(planes[:keep], 64, 96),
    )
    result.ignored_instances = InstanceData(
        bboxes=boxes[keep:],
        labels=torch.tensor(labels[keep:], dtype=torch.long),
        masks=BitmapMasks(planes[keep:], 64, 96),
    )
    return result


def losses(model, samples: list[DetDataSample]) -> dict[str, torch.Tensor]:
    images = [torch.full((3, 64, 96), 128, dtype=torch.uint8) for _ in samples]
    data = model.data_preprocessor(dict(inputs=images, data_samples=samples), training=True)
    return model.loss(data['inputs'], data['data_samples'])
