"""What turns one of mmdet's dense heads into a hierarchical one: anchors or points instead of RoIs.

Shape letters: B images, N candidates (points or anchors) of an image, G channels, C classes.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import Any

import torch
from mmdet.models.dense_heads import AnchorHead
from mmdet.structures import SampleList
from mmdet.structures.bbox import scale_boxes
from mmengine.structures import InstanceData
from torch import Tensor, nn

from hierseg.errors import ConfigError
from hierseg.models.detections import Detections
from hierseg.models.hierarchical_loss import AsksItsLoss
from hierseg.models.quality_loss import HierarchicalQualityLoss
from hierseg.models.verified import KnownClasses, pass_known_classes

FOREGROUND = 0.01
"""Probability that a head which has learnt nothing gives to there being an object; mmdet's for a class."""


class HierarchicalDenseHead(AsksItsLoss):
    """Mixin for heads that build on mmdet's ``AnchorHead``, before it among the bases.

    Channels, probabilities and prior follow from the loss, a :class:`~hierseg.models.HierarchicalQualityLoss`; classes
    that nobody verified leave it; a box is one detection with the probabilities of all classes. ``test_cfg`` takes
    mmdet's ``score_thr``, ``nms_pre``, ``nms`` and ``max_per_img``, and ``decision``, see
    :class:`~hierseg.models.detections.Decision`.

    A subclass names its last layers in ``classifiers``, and is of mmdet's kind otherwise. What a head says
    of how good each box is, such as its centerness, is multiplied to the probabilities of all classes.

    Args:
        verified: Arguments of :class:`~hierseg.models.verified.KnownClasses`; None: whatever is not annotated is not
            there.
        *args: As mmdet's.
        **kwargs: As mmdet's.

    Raises:
        ConfigError: If the loss is no ``HierarchicalQualityLoss``, or has a taxonomy of another number of classes, or
            the head cannot take ``verified``.
    """

    classifiers: str
    """Name of the layer that gives the logits, or of a list of such layers."""

    def __init__(self, *args: Any, verified: dict[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Others, such as FCOS, put the points of all images together, level by level.
        if verified is not None and not isinstance(self, AnchorHead):
            what = f'{type(self).__name__} does not keep the boxes of an image together'
            raise ConfigError(what, where='verified', fix='Leave the option out, or build on an AnchorHead.')
        self.detections = Detections(self.loss_cls, self.test_cfg, where='test_cfg')
        self.known_classes = None if verified is None else KnownClasses(self.loss_cls.taxonomy, **verified)

    def _init_layers(self) -> None:
        if not isinstance(self.loss_cls, HierarchicalQualityLoss):
            raise ConfigError(
                f'loss_cls is a {type(self.loss_cls).__name__}',
                where=type(self).__name__,
                fix="Use type='hierseg.HierarchicalQualityLoss', with _delete_=True if it replaces another.",
            )
        # mmdet asks the config of the loss, not the loss.
        self.cls_out_channels = self.loss_cls.get_cls_channels(self.num_classes)
        super()._init_layers()

    def init_weights(self) -> None:
        """Initialises as mmdet does, and the classifier so that an object is rare, by whatever scheme."""
        super().init_weights()
        layers = getattr(self, self.classifiers)
        for layer in layers if isinstance(layers, nn.ModuleList) else [layers]:
            nn.init.zeros_(layer.bias)
            if self.cls_out_channels > self.num_classes:
                odds = (1 - FOREGROUND) / FOREGROUND * self.num_classes
                layer.bias.data.view(-1, self.cls_out_channels)[:, -1] = math.log(odds)

    def loss(self, x: tuple[Tensor], batch_data_samples: SampleList) -> dict[str, Any]:
        """The losses of mmdet, of the classes that are known on each image; the arguments are mmdet's."""
        if self.known_classes is None:
            known = nullcontext()
        else:
            known = pass_known_classes(self.loss_cls, self.known_classes(batch_data_samples).to(x[0].device))
        with known:
            return super().loss(x, batch_data_samples)

    def _predict_by_feat_single(
        self,
        cls_score_list: list[Tensor],
        bbox_pred_list: list[Tensor],
        score_factor_list: list[Tensor],
        mlvl_priors: list[Tensor],
        img_meta: dict[str, Any],
        cfg: Any,
        rescale: bool = False,
        with_nms: bool = True,
    ) -> InstanceData:
        cfg = self.test_cfg if cfg is None else cfg
        logits = torch.cat([self._by_candidate(level, self.cls_out_channels) for level in cls_score_list])
        factors = None
        if score_factor_list[0] is not None:
            factors = torch.cat([self._by_candidate(level, 1) for level in score_factor_list]).sigmoid()
        rows, probabilities = self.probable(logits, cfg, factors)
        deltas = torch.cat([self._by_candidate(level, self.bbox_coder.encode_size) for level in bbox_pred_list])
        boxes = self.bbox_coder.decode(torch.cat(mlvl_priors)[rows], deltas[rows], max_shape=img_meta['img_shape'])
        if rescale:
            boxes = scale_boxes(boxes, [1 / factor for factor in img_meta['scale_factor']])
        return self.detections(boxes, probabilities, cfg)[0]

    def probable(self, logits: Tensor, cfg: Any, factors: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The rows of an image's (N, G) logits that may become detections, best first, and their (n, C) probabilities.

        These are the ``nms_pre`` most probable, or all below zero, of those of which a root class is more probable than
        ``score_thr``. ``factors``, (N, 1), are multiplied to the probabilities of a row.
        """
        probabilities = self.loss_cls.get_activation(logits)[:, :-1]
        if factors is not None:
            probabilities = probabilities * factors
        roots = self.loss_cls.relations_on(logits.device).root_classes
        best = probabilities.index_select(1, roots).amax(dim=1)
        rows = (best > cfg.score_thr).nonzero().squeeze(1)
        most = cfg.nms_pre if cfg.nms_pre >= 0 else None
        rows = rows[best[rows].argsort(descending=True, stable=True)[:most]]
        return rows, probabilities[rows]

    @staticmethod
    def _by_candidate(level: Tensor, channels: int) -> Tensor:
        """A level's (anchors · channels, h, w) outputs as (h · w · anchors, channels)."""
        return level.permute(1, 2, 0).reshape(-1, channels)
