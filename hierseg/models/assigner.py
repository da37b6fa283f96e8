"""Which points learn which objects: mmdet's dynamic soft labels, with what a hierarchical loss says of a class."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from mmdet.models.task_modules.assigners import AssignResult, DynamicSoftLabelAssigner
from mmdet.structures.bbox import bbox_overlaps
from mmengine.structures import InstanceData
from torch import Tensor

from hierseg.registry import TASK_UTILS

EPS = 1e-7  # mmdet's


@TASK_UTILS.register_module()
class HierarchicalSoftLabelAssigner(DynamicSoftLabelAssigner):
    """mmdet's dynamic soft label assigner whose cost of a class is what the head's loss would be.

    With one sigmoid for each class of a flat taxonomy it assigns as mmdet's does. Beyond that:

    - The cost is looked up by label, where mmdet writes a target for every class of every pair of point and object.
    - A point that no object takes, and whose box lies over ``ignore_iof_thr`` of its area within an ignored one, is
      left out (−1), where mmdet makes it background.
    - An object without a mask, an all-zero plane, has the centre of its box, where mmdet takes the image's corner.

    Args:
        ignore_iof_thr: Part of a point's box, in (0, 1].
        **kwargs: As mmdet's.
    """

    class_costs: Callable[[Tensor, Tensor, Tensor], Tensor]
    """(N, K) costs of (N, G) logits, (K,) labels and (N, K) overlaps; the head sets it."""

    def __init__(self, *, ignore_iof_thr: float = 0.5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.ignore_iof_thr = ignore_iof_thr

    def assign(
        self,
        pred_instances: InstanceData,
        gt_instances: InstanceData,
        gt_instances_ignore: InstanceData | None = None,
        **kwargs: Any,
    ) -> AssignResult:
        """Assigns the objects of one image to its points.

        Args:
            pred_instances: ``bboxes`` (N, 4) xyxy, ``scores`` (N, G) logits and ``priors`` (N, 4): centre and stride.
            gt_instances: ``bboxes`` (K, 4), ``labels`` (K,) and, if any, ``masks`` (K, H, W) bool.
            gt_instances_ignore: ``bboxes`` (I, 4).
            **kwargs: Not used.

        Returns:
            ``gt_inds`` (N,): 1 + the object, 0 for background, −1 for points left out; ``labels`` (N,), −1 without an
            object; ``max_overlaps`` (N,), the overlap with the object, 0 without one.
        """
        boxes, objects = pred_instances.bboxes, gt_instances.bboxes
        assigned, labels = boxes.new_zeros(len(boxes), dtype=torch.long), boxes.new_full((len(boxes),), -1).long()
        overlaps = boxes.new_zeros(len(boxes))
        points = pred_instances.priors[:, None, :2]
        inside = torch.cat([points - objects[:, :2], objects[:, 2:] - points], dim=2).amin(dim=2) > 0
        near = inside.any(dim=1)
        if near.any():
            pairs = self.iou_calculator(boxes[near], objects)
            costs = self.class_costs(pred_instances.scores[near], gt_instances.labels, pairs)
            costs = (
                costs
                - (pairs + EPS).log() * self.iou_weight
                + self._distances(pred_instances.priors[near], gt_instances)
            )
            # The last argument becomes the points that have an object.
            found, places = self.dynamic_k_matching(costs, pairs, len(objects), near)
            assigned[near], labels[near], overlaps[near] = places + 1, gt_instances.labels[places], found.to(overlaps)
        if gt_instances_ignore is not None and len(gt_instances_ignore):
            within = bbox_overlaps(boxes, gt_instances_ignore.bboxes, mode='iof').amax(dim=1)
            assigned[(assigned == 0) & (within > self.ignore_iof_thr)] = -1
        return AssignResult(len(objects), assigned, overlaps, labels=labels)

    def _distances(self, priors: Tensor, gt_instances: InstanceData) -> Tensor:
        """(N, K) costs of lying far from the centre of an object."""
        centers = (gt_instances.bboxes[:, :2] + gt_instances.bboxes[:, 2:]) / 2
        if 'masks' in gt_instances:
            centers = centers_of_mass(gt_instances.masks, centers)
        distances = (priors[:, None, :2] - centers).square().sum(dim=2).sqrt() / priors[:, 2:3]
        return 10 ** (distances - self.soft_center_radius)


def centers_of_mass(masks: Tensor, otherwise: Tensor) -> Tensor:
    """(K, 2) mean x and y of the pixels set in (K, H, W) bool masks; of empty ones the (K, 2) points ``otherwise``.

    From counts of rows and columns: mmdet multiplies every pixel by its coordinates. In whole numbers, for half
    precision could not hold the sums.
    """
    lines = [masks.sum(dim=axis) for axis in (1, 2)]
    counts = lines[0].sum(dim=1)
    sums = [(line * torch.arange(line.shape[1], device=line.device)).sum(dim=1) for line in lines]
    means = torch.stack(sums, dim=1).to(otherwise.dtype) / counts.clamp(min=1).to(otherwise.dtype)[:, None]
    return torch.where((counts > 0)[:, None], means, otherwise)
