"""Models small enough for a test."""

from __future__ import annotations

import copy
from typing import Any

from mmengine.config import Config
from mmengine.registry import init_default_scope
from taxonomies import teddy_taxonomy


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
