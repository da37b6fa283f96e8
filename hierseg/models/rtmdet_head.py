"""RTMDet-Ins with a taxonomy: real-time instance segmentation in one stage, by convolutions alone.

Shape letters: B images, P points of an image over all levels, G channels, C classes, K objects of an image, M
detections, D numbers of a mask's kernel, h × w cells of the mask features.
"""

from __future__ import annotations

from typing import Any

import torch
from mmdet.models.dense_heads import RTMDetInsSepBNHead
from mmdet.structures.bbox import distance2bbox, scale_boxes
from mmdet.utils import reduce_mean
from mmengine.structures import InstanceData
from torch import Tensor
from torch.nn.functional import interpolate, relu

from hierseg.errors import ConfigError
from hierseg.functional.mask_sampling import masks_in_boxes
from hierseg.models.assigner import HierarchicalSoftLabelAssigner
from hierseg.models.dense_head import HierarchicalDenseHead
from hierseg.registry import MODELS


@MODELS.register_module()
class HierarchicalRTMDetInsHead(HierarchicalDenseHead, RTMDetInsSepBNHead):
    """mmdet's head of RTMDet-Ins whose detections carry all classes instead of one.

    Layers and weights are mmdet's, but for the classifier's channels. What differs:

    - Points are assigned by what the hierarchical loss says of a class, and those within ignored boxes are left out:
      :class:`~hierseg.models.assigner.HierarchicalSoftLabelAssigner`.
    - An object without a mask (an all-zero plane in ``gt_masks``; see ``hierseg.datasets``) trains class and box only.
    - The tower of classes and boxes, one and the same in mmdet, is computed once.
    - Masks are sampled within their boxes, and nothing is set outside.

    Results are those of :class:`~hierseg.models.HierarchicalRoIHead`.

    Args:
        *args: As mmdet's.
        verified: As of :class:`~hierseg.models.dense_head.HierarchicalDenseHead`.
        **kwargs: As mmdet's.

    Raises:
        ConfigError: As of :class:`~hierseg.models.dense_head.HierarchicalDenseHead`, and if the assigner is another or
            there is an objectness.
    """

    classifiers = 'rtm_cls'

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.with_objectness:
            what, fix = 'with_objectness=True', 'Leave it out: p(background) says it.'
            raise ConfigError(what, where='HierarchicalRTMDetInsHead', fix=fix)
        if self.train_cfg:
            if not isinstance(self.assigner, HierarchicalSoftLabelAssigner):
                raise ConfigError(
                    f'train_cfg.assigner is a {type(self.assigner).__name__}',
                    where='HierarchicalRTMDetInsHead',
                    fix="Use type='hierseg.HierarchicalSoftLabelAssigner'.",
                )
            self.assigner.class_costs = self.loss_cls.pairwise

    def forward(self, feats: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], ...]:
        """Logits (B, G, h', w'), distances (B, 4, h', w') and kernels (B, D, h', w') of each level, mask features."""
        levels = []
        for index, (features, stride) in enumerate(zip(feats, self.prior_generator.strides, strict=True)):
            objects, kernels = features, features
            for layer in self.cls_convs[index]:
                objects = layer(objects)
            for layer in self.kernel_convs[index]:
                kernels = layer(kernels)
            distances = relu(self.rtm_reg[index](objects)) * stride[0]
            levels.append((self.rtm_cls[index](objects), distances, self.rtm_kernel[index](kernels)))
        return (*zip(*levels, strict=True), self.mask_head(feats))

    def loss_by_feat(
        self,
        cls_scores: tuple[Tensor, ...],
        bbox_preds: tuple[Tensor, ...],
        kernel_preds: tuple[Tensor, ...],
        mask_feat: Tensor,
        batch_gt_instances: list[InstanceData],
        batch_img_metas: list[dict[str, Any]],
        batch_gt_instances_ignore: list[InstanceData] | None = None,
    ) -> dict[str, Tensor]:
        """The losses of classes, boxes and masks; the arguments are mmdet's."""
        sizes = [level.shape[-2:] for level in cls_scores]
        points, flags = self.get_anchors(sizes, batch_img_metas, device=mask_feat.device)
        priors = torch.cat(points[0])
        logits, distances, kernels = (_by_point(levels) for levels in (cls_scores, bbox_preds, kernel_preds))
        boxes = distance2bbox(priors[:, :2], distances)

        labels = torch.full(logits.shape[:2], self.num_classes, device=logits.device)
        # Of the boxes' precision, which is not halved.
        weights, quality = boxes.new_zeros(logits.shape[:2]), boxes.new_zeros(logits.shape[:2])
        found, targets, masks, planes = [], [], [], []
        for index, annotated in enumerate(batch_gt_instances):
            # Not into what was given, where a second call would find it.
            planes_of = annotated.masks.to_tensor(dtype=torch.bool, device=logits.device)
            objects = InstanceData(bboxes=annotated.bboxes, labels=annotated.labels, masks=planes_of)
            candidates = InstanceData(scores=logits[index].detach(), bboxes=boxes[index].detach(), priors=priors)
            ignored = None if batch_gt_instances_ignore is None else batch_gt_instances_ignore[index]
            assigned = self.assigner.assign(candidates, objects, ignored)
            # Of an image that is smaller than others of its batch, points beyond its border count nowhere.
            taken = assigned.gt_inds.masked_fill(~torch.cat(flags[index]), -1)
            weights[index] = (taken >= 0).to(weights)
            rows = (taken > 0).nonzero().squeeze(1)
            places = taken[rows] - 1
            labels[index, rows], quality[index, rows] = objects.labels[places], assigned.max_overlaps[rows]
            found.append(boxes[index, rows])
            targets.append(objects.bboxes[places])
            has_mask = objects.masks.flatten(1).any(dim=1)[places]
            masks.append(self.mask_logits(mask_feat[index], kernels[index, rows[has_mask]], priors[rows[has_mask]]))
            half = self.mask_loss_stride // 2
            small = objects.masks[:, half :: self.mask_loss_stride, half :: self.mask_loss_stride]
            planes.append(small[places[has_mask]])

        is_object = labels < self.num_classes
        total = float(reduce_mean((quality * is_object).sum()).clamp_(min=1))
        pair = (labels.flatten(), quality.flatten())
        return {
            'loss_cls': self.loss_cls(logits.flatten(0, 1), pair, weights.flatten(), avg_factor=total),
            'loss_bbox': self._box_loss(torch.cat(found), torch.cat(targets), quality[is_object], boxes, total),
            'loss_mask': self._mask_loss(torch.cat(masks), torch.cat(planes), mask_feat, kernels),
        }

    def _box_loss(self, boxes: Tensor, targets: Tensor, quality: Tensor, all_boxes: Tensor, total: float) -> Tensor:
        if not len(boxes):
            return all_boxes.sum() * 0
        return self.loss_bbox(boxes, targets, weight=quality, avg_factor=total)

    def _mask_loss(self, logits: Tensor, planes: Tensor, features: Tensor, kernels: Tensor) -> Tensor:
        count = float(reduce_mean(torch.tensor(float(len(logits)), device=features.device)).clamp_(min=1))
        if not len(logits):
            return features.sum() * 0 + kernels.sum() * 0
        logits = interpolate(logits[None], size=planes.shape[-2:], mode='bilinear', align_corners=False)[0]
        return self.loss_mask(logits, planes, weight=None, avg_factor=count)

    def mask_logits(self, features: Tensor, kernels: Tensor, priors: Tensor) -> Tensor:
        """Mask logits of points by their own three small layers, as products of matrices.

        The first layer sees the features and, in mmdet's scale, where a cell lies from the point. As that is linear,
        the point's part becomes a bias, and one product of the features and the cells' places serves all points.

        Args:
            features: (F, h, w) mask features of an image.
            kernels: (M, D), weights and then biases of the layers, as mmdet has them.
            priors: (M, 4) centre and stride of the points, pixels.

        Returns:
            (M, h, w).
        """
        height, width = features.shape[-2:]
        cells = self.prior_generator.single_level_grid_priors(
            (height, width), level_idx=0, dtype=features.dtype, device=features.device
        )
        places = torch.cat([cells.T, features.flatten(1)])
        parts = kernels.split([*self.weight_nums, *self.bias_nums], dim=1)
        weights, biases = parts[: self.num_dyconvs], parts[self.num_dyconvs :]
        # Hundreds of pixels nearly cancel here, so that half precision would move a mask.
        exact = torch.promote_types(features.dtype, torch.float32)
        with torch.autocast(features.device.type, enabled=False):
            first = weights[0].to(exact).unflatten(1, (self.dyconv_channels, len(places)))
            toward = first[:, :, :2] / (priors[:, 2] * 8).to(exact)[:, None, None]
            bias = biases[0] + (toward * priors[:, None, :2]).sum(dim=2)
            first = torch.cat([-toward, first[:, :, 2:]], dim=2)
            values = (first @ places.to(exact) + bias[:, :, None]).to(features.dtype)
        for weight, bias in zip(weights[1:], biases[1:], strict=True):
            layer = weight.unflatten(1, (bias.shape[1], self.dyconv_channels))
            values = torch.baddbmm(bias[:, :, None], layer, relu(values))
        return values.reshape(len(kernels), height, width)

    def predict_by_feat(
        self,
        cls_scores: tuple[Tensor, ...],
        bbox_preds: tuple[Tensor, ...],
        kernel_preds: tuple[Tensor, ...],
        mask_feat: Tensor,
        score_factors: None = None,
        batch_img_metas: list[dict[str, Any]] | None = None,
        cfg: Any = None,
        rescale: bool = False,
        with_nms: bool = True,
    ) -> list[InstanceData]:
        """Detections with the scores of all classes and masks; the arguments are mmdet's."""
        cfg = self.test_cfg if cfg is None else cfg
        sizes = [level.shape[-2:] for level in cls_scores]
        priors = torch.cat(self.prior_generator.grid_priors(sizes, device=mask_feat.device, with_stride=True))
        logits, distances, kernels = (_by_point(levels) for levels in (cls_scores, bbox_preds, kernel_preds))
        results = []
        for index, meta in enumerate(batch_img_metas or []):
            rows, probabilities = self.probable(logits[index], cfg)
            boxes = distance2bbox(priors[rows, :2], distances[index, rows], meta['img_shape'])
            found, order = self.detections(boxes, probabilities, cfg)
            rows = rows[order]
            planes = self.mask_logits(mask_feat[index], kernels[index, rows], priors[rows])
            across, down = meta['scale_factor'] if rescale else (1.0, 1.0)
            found.bboxes = scale_boxes(found.bboxes, [1 / across, 1 / down])
            stride = self.prior_generator.strides[0]
            found.masks = masks_in_boxes(
                planes,
                found.bboxes,
                tuple(meta['ori_shape' if rescale else 'img_shape'][:2]),
                steps=(stride[0] / across, stride[1] / down),
                threshold=cfg.mask_thr_binary,
            )
            results.append(found)
        return results


def _by_point(levels: tuple[Tensor, ...]) -> Tensor:
    """(B, channels, h', w') of each level as (B, P, channels)."""
    return torch.cat([level.permute(0, 2, 3, 1).flatten(1, 2) for level in levels], dim=1)
