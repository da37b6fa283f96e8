"""RetinaNet with a taxonomy: boxes without masks, by one stage of anchors."""

from __future__ import annotations

from mmdet.models.dense_heads import RetinaHead

from hierseg.models.dense_head import HierarchicalDenseHead
from hierseg.registry import MODELS


@MODELS.register_module()
class HierarchicalRetinaHead(HierarchicalDenseHead, RetinaHead):
    """mmdet's head of RetinaNet whose detections carry all classes instead of one.

    Anchors have labels without a quality, so that a :class:`~hierseg.models.HierarchicalQualityLoss` is the focal loss
    of its scheme: (1 − p(y))^β · L(y). Arguments are those of mmdet and of
    :class:`~hierseg.models.dense_head.HierarchicalDenseHead`.
    """

    classifiers = 'retina_cls'
