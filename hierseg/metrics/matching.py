"""Matches the detections of one image to its ground truth: rules 3 to 5 of the Open Images protocol.

Shape letters: D detections of one class in order of descending score, I objects of that class,
J a subset of those.

Arithmetic follows the reference evaluator to the type: masks overlap in float32, boxes in float64. Equal
scores come in reverse order of the submission, which is what the reference's reversed sort gives
wherever that sort keeps equal elements in order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from hierseg.errors import EvaluationError
from hierseg.metrics.records import (
    BoolArray,
    FloatArray,
    ImageDetections,
    ImageGroundTruth,
    ImageMatches,
    IntArray,
    IouType,
)

OVERLAP_THRESHOLD = 0.5
SCORE_FLOOR = -10.0  # the reference ignores what scores no better,
MAX_DETECTIONS = 10_000  # and what comes after this many of one class on one image

Overlaps = npt.NDArray[np.float32] | npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class _Stage:
    """Two stages of rule 4: a and b for masked objects, c and d for the others; the boxes variant has one such pair.

    Attributes:
        objects: (I,) bool; the objects of the image that it is about.
        by_mask: Compare masks, else boxes.
        counts: Its objects count as ground truth; if not, what finds one is removed from scoring.
    """

    objects: BoolArray
    by_mask: bool
    counts: bool


def match_image(
    ground_truth: ImageGroundTruth,
    detections: ImageDetections,
    *,
    image_id: str,
    iou_type: IouType = 'segm',
    group_of_weight: float = 0.0,
) -> ImageMatches:
    """Matches one image.

    Args:
        ground_truth: Its objects, expanded.
        detections: Its detections.
        image_id: Its id.
        iou_type: ``segm`` compares masks, and boxes where an object has no mask; ``bbox`` boxes only.
        group_of_weight: w, what finding a group counts.

    Raises:
        EvaluationError: If the masks of ground truth and detections differ in size.
    """
    if iou_type == 'segm':
        _check_sizes(ground_truth, detections, image_id)
        counted = ground_truth.mask_areas > 0
        stages = [_Stage(counted, by_mask=True, counts=True), _Stage(~counted, by_mask=False, counts=False)]
    else:
        counted = np.ones(len(ground_truth.labels), dtype=bool)
        stages = [_Stage(counted, by_mask=False, counts=True)]
    order = _evaluatable(ground_truth, detections, iou_type)
    labels, first = np.unique(detections.labels[order], return_index=True)
    entries: list[tuple[FloatArray, FloatArray]] = []
    for label, (begin, end) in zip(labels.tolist(), pairwise([*first.tolist(), len(order)]), strict=True):
        members = order[begin:end][:MAX_DETECTIONS]
        of_class = ground_truth.labels == label
        if of_class.any():
            entries.append(_match_class(ground_truth, detections, of_class, members, stages, group_of_weight))
        else:
            entries.append((detections.scores[members], np.zeros(len(members))))
    weight_of_object = np.where(ground_truth.group_of, group_of_weight, 1.0) * counted
    counted_labels, inverse = np.unique(ground_truth.labels, return_inverse=True)
    return ImageMatches(
        image_id=image_id,
        labels=np.repeat(labels, [len(scores) for scores, _ in entries]),
        scores=np.concatenate([np.zeros(0), *(scores for scores, _ in entries)]),
        weights=np.concatenate([np.zeros(0), *(weights for _, weights in entries)]),
        counted_labels=counted_labels,
        counts=np.bincount(inverse, weights=weight_of_object, minlength=len(counted_labels)).astype(np.float64),
    )


def descending(scores: FloatArray) -> IntArray:
    """Order of descending scores; of equal scores the last comes first."""
    return np.argsort(scores, kind='stable')[::-1]


def box_overlaps(boxes: FloatArray, others: FloatArray, *, over_first_area: bool = False) -> FloatArray:
    """Intersection over union of every pair of boxes, or over the area of the first box.

    Args:
        boxes: (N, 4) float64 xyxy, of positive area.
        others: (M, 4) float64 xyxy.
        over_first_area: Divide by the area of ``boxes`` instead.

    Returns:
        (N, M) float64.
    """
    first, second = boxes[:, None, :], others[None, :, :]
    extent = np.minimum(first[..., 2:], second[..., 2:]) - np.maximum(first[..., :2], second[..., :2])
    extent = np.maximum(extent, 0.0)
    intersection: FloatArray = extent[..., 1] * extent[..., 0]
    area: FloatArray = (first[..., 3] - first[..., 1]) * (first[..., 2] - first[..., 0])
    if over_first_area:
        return intersection / area
    other_area: FloatArray = (second[..., 3] - second[..., 1]) * (second[..., 2] - second[..., 0])
    return intersection / (area + other_area - intersection)


def mask_overlaps(
    masks: Sequence[bytes], areas: IntArray, others: Sequence[bytes], other_areas: IntArray, size: tuple[int, int]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Overlaps of every pair of masks.

    Args:
        masks: N run lengths, none blank, without empty runs inside.
        areas: (N,) int64, pixels.
        others: M run lengths of the same kind.
        other_areas: (M,) int64, pixels.
        size: Height and width.

    Returns:
        Two (N, M) float32 arrays: intersection over union and intersection over the area of ``masks``.
    """
    first, second = (_as_coco(group, size) for group in (masks, others))
    # Called for crowds, pycocotools divides by the area of the first mask, from which the whole number
    # of pixels comes back; it skips pairs whose boxes do not meet.
    over_area = coco_mask.iou(first, second, [1] * len(second))
    intersection = np.rint(over_area * areas[:, None]).astype(np.float32)
    first_area, second_area = areas.astype(np.float32)[:, None], other_areas.astype(np.float32)[None, :]
    return intersection / (first_area + second_area - intersection), intersection / (first_area + np.float32(1e-7))


def _as_coco(masks: Sequence[bytes], size: tuple[int, int]) -> list[dict[str, object]]:
    return [{'size': size, 'counts': mask} for mask in masks]


def _check_sizes(ground_truth: ImageGroundTruth, detections: ImageDetections, image_id: str) -> None:
    if ground_truth.size is None or detections.size is None or ground_truth.size == detections.size:
        return
    (height, width), (other_height, other_width) = ground_truth.size, detections.size
    raise EvaluationError(
        f'detection masks are {other_width}×{other_height} pixels, ground-truth masks {width}×{height}',
        where=f'image {image_id}',
        fix='Give the masks of detections at the size of the ground truth.',
    )


def _evaluatable(ground_truth: ImageGroundTruth, detections: ImageDetections, iou_type: IouType) -> IntArray:
    """Indices of the detections that are looked at, sorted by class and descending score."""
    classes = np.union1d(ground_truth.verified, ground_truth.labels)
    keep = np.isin(detections.labels, classes) & (detections.scores > SCORE_FLOOR)
    if iou_type == 'segm' and detections.mask_areas is not None:
        keep &= detections.mask_areas[detections.regions] > 0
    else:
        boxes = detections.boxes[detections.regions]
        keep &= (boxes[:, 0] < boxes[:, 2]) & (boxes[:, 1] < boxes[:, 3])
    kept = np.flatnonzero(keep)
    kept = kept[descending(detections.scores[kept])]
    return kept[np.argsort(detections.labels[kept], kind='stable')]


def _match_class(
    ground_truth: ImageGroundTruth,
    detections: ImageDetections,
    of_class: BoolArray,
    members: IntArray,
    stages: Sequence[_Stage],
    group_of_weight: float,
) -> tuple[FloatArray, FloatArray]:
    """Scores and weights of the scored entries of one class; the four stages of rule 4.

    Args:
        ground_truth: All objects of the image.
        detections: All detections of the image.
        of_class: (I,) which objects are of the class.
        members: (D,) indices of the detections of the class by descending score.
        stages: Stages a and b, then c and d.
        group_of_weight: w.
    """
    scores = detections.scores[members]
    is_open = np.ones(len(members), dtype=bool)  # has not succeeded in a stage yet
    hit = np.zeros(len(members), dtype=bool)
    found_groups: FloatArray = np.zeros(0)
    for stage in stages:
        objects = np.flatnonzero(of_class & stage.objects)
        if not len(objects):
            continue
        iou, ioa = _overlaps(ground_truth, detections, objects, members, by_mask=stage.by_mask)
        is_group = ground_truth.group_of[objects]
        takers = _first_to_take(iou[:, ~is_group], is_open)
        is_open[takers] = False
        best = _best_in_groups(ioa[:, is_group], is_open, scores)
        if stage.counts:
            hit[takers] = True
            found_groups = best[best > 0] if group_of_weight > 0 else best[:0]
    kept = is_open | hit
    return (
        np.concatenate([scores[kept], found_groups]),
        np.concatenate([hit[kept].astype(np.float64), np.full(len(found_groups), group_of_weight)]),
    )


def _overlaps(
    ground_truth: ImageGroundTruth, detections: ImageDetections, stage: IntArray, members: IntArray, *, by_mask: bool
) -> tuple[Overlaps, Overlaps]:
    """(D, J) intersection over union and over detection area."""
    regions = detections.regions[members]
    if not by_mask:
        boxes, others = detections.boxes[regions], ground_truth.boxes[stage]
        return box_overlaps(boxes, others), box_overlaps(boxes, others, over_first_area=True)
    if detections.mask_areas is None or ground_truth.size is None:
        raise EvaluationError('masks are compared but not given', fix="Give masks, or use iou_type='bbox'.")
    return mask_overlaps(
        [detections.masks[region] for region in regions],
        detections.mask_areas[regions],
        [ground_truth.masks[index] for index in stage],
        ground_truth.mask_areas[stage],
        ground_truth.size,
    )


def _first_to_take(iou: Overlaps, is_open: BoolArray) -> IntArray:
    """Indices of the detections that are the first to take an object: stages a and c.

    Each tries only the object of largest overlap, the first on ties, even if that is taken already.
    """
    if not iou.shape[1]:
        return np.zeros(0, dtype=np.int64)
    tried = iou.argmax(axis=1)
    takers = np.flatnonzero(is_open & (iou[np.arange(len(iou)), tried] >= OVERLAP_THRESHOLD))
    return takers[np.unique(tried[takers], return_index=True)[1]]


def _best_in_groups(ioa: Overlaps, is_open: BoolArray, scores: FloatArray) -> FloatArray:
    """(J,) best score within each group, 0 if none; closes the detections within: stages b and d."""
    best = np.zeros(ioa.shape[1])
    if len(best):
        tried = ioa.argmax(axis=1)
        within = np.flatnonzero(is_open & (ioa[np.arange(len(ioa)), tried] >= OVERLAP_THRESHOLD))
        np.maximum.at(best, tried[within], scores[within])
        is_open[within] = False
    return best
