"""One detection for each physical instance: a box, a mask and the probability of every class on it.

Shape letters: B images, N RoIs of an image, C classes, R root classes, M detections.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, Literal

import numpy as np
import torch
from mmdet.models.roi_heads import StandardRoIHead
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch import Tensor, nn

from hierseg.errors import ConfigError
from hierseg.models.detections import Detections
from hierseg.models.verified import KnownClasses, pass_known_classes
from hierseg.registry import MODELS
from hierseg.taxonomy import Taxonomy

MaskChannels = Literal['shared', 'root', 'class']


@MODELS.register_module()
class HierarchicalRoIHead(StandardRoIHead):
    """mmdet's two-stage RoI head whose detections carry all classes instead of one.

    Training is mmdet's, except that an instance without a mask (an all-zero plane in ``gt_masks``; see
    ``hierseg.datasets``) trains the box branch only. Testing suppresses duplicates per root class and
    computes one mask per surviving box. Results hold, beside mmdet's ``bboxes``, ``masks``, ``labels``
    (the class to name) and ``scores`` (its probability), ``class_scores`` (M, C): the probability of
    every class that the detection claims and zero for the others.

    ``test_cfg`` takes mmdet's ``score_thr``, ``nms``, ``max_per_img`` and ``mask_thr_binary``, and
    ``decision``, the rule by which the class to name is chosen: see :class:`~hierseg.models.detections.Decision`.

    Args:
        mask_channels: Which classes share a mask, in training and testing; see :func:`mask_channel_of_classes`.
        verified: Arguments of :class:`~hierseg.models.verified.KnownClasses`: on each image, classes that nobody
            verified leave the loss of its RoIs. None: whatever is not annotated is not there.
        *args: As mmdet's.
        **kwargs: As mmdet's.

    Raises:
        ConfigError: If there are several box heads, the box head's loss has no taxonomy, its boxes depend on the
            class, the mask head's channels are not those of ``mask_channels``, or there is no such rule.
    """

    def __init__(
        self, *args: Any, mask_channels: MaskChannels = 'root', verified: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        if 'num_stages' in kwargs or isinstance(kwargs.get('bbox_head'), (list, tuple)):
            raise ConfigError(
                'a cascade of box heads gives one instance several boxes and probabilities',
                where='HierarchicalRoIHead',
                fix="Keep mmdet's CascadeRoIHead with type='hierseg.HierarchicalLoss' in each box head, or build on "
                'Mask R-CNN.',
            )
        super().__init__(*args, **kwargs)
        self.detections = Detections(self.bbox_head.loss_cls, self.test_cfg, where='test_cfg.rcnn')
        if not self.bbox_head.reg_class_agnostic:
            raise ConfigError(
                'boxes are regressed per class, which gives one instance several boxes',
                where='HierarchicalRoIHead.bbox_head',
                fix='Set reg_class_agnostic=True.',
            )
        taxonomy = self.bbox_head.loss_cls.taxonomy
        if self.with_mask:
            channels = mask_channel_of_classes(self.mask_head, taxonomy, mask_channels)
            self.register_buffer('mask_channel_of', channels, persistent=False)
        self.known_classes = None if verified is None else KnownClasses(taxonomy, **verified)
        # (B, C) while the loss of a batch is computed.
        self._known: Tensor | None = None

    def predict_bbox(
        self, x: Any, batch_img_metas: Any, rpn_results_list: Any, rcnn_test_cfg: Any, rescale: bool = False
    ) -> list[InstanceData]:
        """Boxes with the scores of all classes; the arguments are mmdet's."""
        # Without a test configuration mmdet returns every RoI's box and class probabilities.
        raw = super().predict_bbox(x, batch_img_metas, rpn_results_list, None, rescale)
        if rcnn_test_cfg is None:
            return raw
        return [self.detections(result.bboxes, result.scores[:, :-1], rcnn_test_cfg)[0] for result in raw]

    def loss(
        self, x: tuple[Tensor], rpn_results_list: list[InstanceData], batch_data_samples: list[DetDataSample]
    ) -> dict[str, Tensor]:
        """The losses of mmdet, of the classes that are known on each image; the arguments are mmdet's."""
        if self.known_classes is not None:
            self._known = self.known_classes(batch_data_samples).to(x[0].device)
        try:
            return super().loss(x, rpn_results_list, batch_data_samples)
        finally:
            self._known = None

    def bbox_loss(self, x: tuple[Tensor], sampling_results: list[Any]) -> dict[str, Any]:
        """The losses of mmdet's box head; its loss also gets the classes that are known where each RoI lies."""
        loss = self.bbox_head.loss_cls
        known = nullcontext()
        if self._known is not None:
            rois = torch.tensor([len(sample.priors) for sample in sampling_results], device=self._known.device)
            known = pass_known_classes(loss, self._known.repeat_interleave(rois, dim=0))
        with known:
            results = super().bbox_loss(x, sampling_results)
            scores = results['cls_score']
            if not len(scores):
                # mmdet leaves it out, and other ranks would wait for what the balances sum and for gradients.
                labels = torch.zeros(0, dtype=torch.long, device=scores.device)
                results['loss_bbox']['loss_cls'] = loss(scores, labels, avg_factor=1)
        return results

    def mask_loss(
        self, x: tuple[Tensor], sampling_results: list[Any], bbox_feats: Tensor, batch_gt_instances: list[InstanceData]
    ) -> dict[str, Any]:
        """The mask loss of mmdet over the positive RoIs whose instance has a mask, in its label's channel."""
        masked = []
        for sample, instances in zip(sampling_results, batch_gt_instances, strict=True):
            has_mask = torch.as_tensor(instances.masks.masks.any(axis=(1, 2)), device=sample.pos_priors.device)
            chosen = has_mask[sample.pos_assigned_gt_inds]
            masked.append(
                InstanceData(
                    pos_priors=sample.pos_priors[chosen],
                    pos_assigned_gt_inds=sample.pos_assigned_gt_inds[chosen],
                    pos_gt_labels=self.mask_channel_of[sample.pos_gt_labels[chosen]],
                )
            )
        return super().mask_loss(x, masked, bbox_feats, batch_gt_instances)

    def predict_mask(
        self, x: Any, batch_img_metas: Any, results_list: list[InstanceData], rescale: bool = False
    ) -> list[InstanceData]:
        """Masks from the channels of the classes to name; the arguments are mmdet's."""
        labels = [results.labels for results in results_list]
        # mmdet's mask heads take a label for a channel.
        for results in results_list:
            results.labels = self.mask_channel_of[results.labels]
        results_list = super().predict_mask(x, batch_img_metas, results_list, rescale)
        for results, named in zip(results_list, labels, strict=True):
            results.labels = named
        return results_list


def mask_channel_of_classes(mask_head: nn.Module, taxonomy: Taxonomy, mask_channels: MaskChannels) -> Tensor:
    """(C,) int64 channel of each class in an mmdet mask head.

    Args:
        mask_head: One whose channels mmdet chooses by label, such as ``FCNMaskHead``.
        taxonomy: The classes.
        mask_channels: ``shared``: one mask for all classes; ``root``: one for each root class, by the preferred
            parents of a class, in the order of their labels; ``class``: one for each class, internal ones too.

    Raises:
        ConfigError: On another word, or a head with another number of channels.
    """
    roots = np.flatnonzero(taxonomy.arrays.preferred_parents < 0)
    channels_of = {
        'shared': np.zeros(taxonomy.num_classes, dtype=np.int64),
        'root': np.searchsorted(roots, taxonomy.arrays.preferred_roots),
        'class': np.arange(taxonomy.num_classes),
    }
    if mask_channels not in channels_of:
        what = f'mask_channels={mask_channels!r}'
        raise ConfigError(what, where='HierarchicalRoIHead', fix='Use shared, root or class.')
    channels = channels_of[mask_channels]
    shared = mask_channels == 'shared'
    count = taxonomy.num_classes if shared else int(channels.max()) + 1
    if mask_head.class_agnostic != shared or mask_head.num_classes != count:
        raise ConfigError(
            f'mask_channels={mask_channels!r} and a mask head with class_agnostic={mask_head.class_agnostic}, '
            f'num_classes={mask_head.num_classes}',
            where='HierarchicalRoIHead',
            fix=f'Give it class_agnostic={shared}, num_classes={count}.',
        )
    return torch.from_numpy(channels)
