"""Matches the detections of one image to its ground truth: rules 3 to 5 of the Open Images protocol.

Shape letters: D detections of one class in order of descending score, I objects of that class, J a subset of
those, K criteria, S detections of all classes.

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

from hierseg.errors import EvaluationError
from hierseg.metrics.criteria import OPEN_IMAGES, Criterion, ImageMatchTable, Verdict
from hierseg.metrics.overlaps import Overlaps, box_overlaps, check_sizes, mask_overlaps
from hierseg.metrics.records import (
    BoolArray,
    FloatArray,
    ImageDetections,
    ImageGroundTruth,
    ImageMatches,
    IntArray,
    IouType,
)

SCORE_FLOOR = -10.0  # the reference ignores what scores no better,
MAX_DETECTIONS = 10_000  # and what comes after this many of one class on one image

Verdicts = npt.NDArray[np.uint8]


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


@dataclass(frozen=True, eq=False)
class _StageOverlaps:
    """Overlaps of the detections of one class with the objects of a stage: all that criteria differ in comes later.

    Attributes:
        iou: (D, J) intersection over union with the single objects.
        areas: (J,) int64, pixels; of those.
        ioa: (D, J) intersection over detection area with the groups.
        group_areas: (J,) int64, pixels; of those.
        counts: As of the stage.
    """

    iou: Overlaps
    areas: IntArray
    ioa: Overlaps
    group_areas: IntArray
    counts: bool


def match_image(
    ground_truth: ImageGroundTruth,
    detections: ImageDetections,
    *,
    image_id: str,
    iou_type: IouType = 'segm',
    group_of_weight: float = 0.0,
    criterion: Criterion = OPEN_IMAGES,
) -> ImageMatches:
    """Matches one image by one criterion; arguments and errors as of :func:`match_image_by`."""
    table = match_image_by(
        ground_truth,
        detections,
        criteria=(criterion,),
        image_id=image_id,
        iou_type=iou_type,
        group_of_weight=group_of_weight,
    )
    return table.at(0)


def match_image_by(
    ground_truth: ImageGroundTruth,
    detections: ImageDetections,
    *,
    criteria: Sequence[Criterion],
    image_id: str,
    iou_type: IouType = 'segm',
    group_of_weight: float = 0.0,
) -> ImageMatchTable:
    """Matches one image by several criteria; overlaps, which take most of the time, are computed once.

    With a range of area, objects out of the range are ignored as in COCO: they do not count, and what finds one of
    them, and none in the range, is removed; so are detections that find nothing and are out of the range themselves.
    Objects without a mask have no area: they count in no range, and remain ignored by rule 4 in each.

    Args:
        ground_truth: Its objects, expanded.
        detections: Its detections.
        criteria: K criteria.
        image_id: Its id.
        iou_type: ``segm`` compares masks, and boxes where an object has no mask; ``bbox`` boxes only.
        group_of_weight: w, what finding a group counts.

    Raises:
        EvaluationError: If the masks of ground truth and detections differ in size, or a criterion asks for areas
            and there are no masks.
    """
    _check_areas(criteria, detections, iou_type, image_id)
    if iou_type == 'segm':
        check_sizes(ground_truth, detections, image_id)
        counted = ground_truth.mask_areas > 0
        stages = [_Stage(counted, by_mask=True, counts=True), _Stage(~counted, by_mask=False, counts=False)]
    else:
        counted = np.ones(len(ground_truth.labels), dtype=bool)
        stages = [_Stage(counted, by_mask=False, counts=True)]
    order = _evaluatable(ground_truth, detections, iou_type)
    verdicts = _verdicts(ground_truth, detections, order, stages, criteria)
    if group_of_weight <= 0:
        verdicts[verdicts == Verdict.GROUP_FOUND] = Verdict.REMOVED
    scored = (verdicts != Verdict.REMOVED).any(axis=0)
    weight_of_object = np.where(ground_truth.group_of, group_of_weight, 1.0) * counted
    counted_labels, inverse = np.unique(ground_truth.labels, return_inverse=True)
    counts = [
        np.bincount(inverse, weight_of_object * criterion.contains(ground_truth.mask_areas), len(counted_labels))
        for criterion in criteria
    ]
    return ImageMatchTable(
        image_id=image_id,
        criteria=tuple(criteria),
        labels=detections.labels[order[scored]],
        scores=detections.scores[order[scored]],
        verdicts=verdicts[:, scored],
        counted_labels=counted_labels,
        counts=np.array(counts, dtype=np.float64).reshape(len(criteria), len(counted_labels)),
        group_of_weight=group_of_weight,
    )


def descending(scores: FloatArray) -> IntArray:
    """Order of descending scores; of equal scores the last comes first."""
    return np.argsort(scores, kind='stable')[::-1]


def _check_areas(criteria: Sequence[Criterion], detections: ImageDetections, iou_type: IouType, image_id: str) -> None:
    if all(criterion.has_any_area for criterion in criteria):
        return
    if iou_type == 'bbox' or detections.mask_areas is None:
        raise EvaluationError(
            'a range of area is asked for, but boxes are compared',
            where=f'image {image_id}',
            fix='Sizes are areas of masks: compare masks, or take objects of every size.',
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


def _verdicts(
    ground_truth: ImageGroundTruth,
    detections: ImageDetections,
    order: IntArray,
    stages: Sequence[_Stage],
    criteria: Sequence[Criterion],
) -> Verdicts:
    """(K, S) what each criterion makes of each detection of the image.

    Args:
        ground_truth: All objects of the image.
        detections: All detections of the image.
        order: (S,) int64; the detections that are looked at, by class and descending score.
        stages: Stages a and b, then c and d.
        criteria: K criteria.
    """
    verdicts = np.full((len(criteria), len(order)), Verdict.REMOVED, dtype=np.uint8)
    labels, first = np.unique(detections.labels[order], return_index=True)
    for label, (begin, end) in zip(labels.tolist(), pairwise([*first.tolist(), len(order)]), strict=True):
        members = order[begin:end][:MAX_DETECTIONS]
        of_class = ground_truth.labels == label
        overlaps = [
            _overlaps(ground_truth, detections, objects, members, stage=stage)
            for stage in stages
            if len(objects := np.flatnonzero(of_class & stage.objects))
        ]
        areas: IntArray = np.zeros(len(members), dtype=np.int64)
        if detections.mask_areas is not None:
            areas = detections.mask_areas[detections.regions[members]]
        for row, criterion in zip(verdicts, criteria, strict=True):
            row[begin : begin + len(members)] = _match_class(overlaps, detections.scores[members], areas, criterion)
    return verdicts


def _match_class(
    stages: Sequence[_StageOverlaps], scores: FloatArray, areas: IntArray, criterion: Criterion
) -> Verdicts:
    """(D,) what the criterion makes of the detections of one class; the four stages of rule 4.

    Args:
        stages: Overlaps in stages a and b, then c and d.
        scores: (D,) float64, descending.
        areas: (D,) int64, pixels.
        criterion: The criterion.
    """
    threshold = criterion.iou_threshold
    is_open = np.ones(len(scores), dtype=bool)  # has not succeeded in a stage yet
    verdicts = np.full(len(scores), Verdict.FALSE_POSITIVE, dtype=np.uint8)
    for stage in stages:
        counts = criterion.contains(stage.areas) & stage.counts
        for singles, verdict in ((counts, Verdict.TRUE_POSITIVE), (~counts, Verdict.REMOVED)):
            takers, _ = _first_of_each(*_best_overlap(stage.iou[:, singles], is_open, threshold))
            is_open[takers] = False
            verdicts[takers] = verdict
        within, groups = _best_overlap(stage.ioa, is_open, threshold)
        is_open[within] = False
        verdicts[within] = Verdict.REMOVED
        best, found = _first_of_each(within, groups)
        counts = criterion.contains(stage.group_areas[found]) & stage.counts & (scores[best] > 0)
        verdicts[best[counts]] = Verdict.GROUP_FOUND
    verdicts[is_open & ~criterion.contains(areas)] = Verdict.REMOVED
    return verdicts


def _overlaps(
    ground_truth: ImageGroundTruth, detections: ImageDetections, objects: IntArray, members: IntArray, *, stage: _Stage
) -> _StageOverlaps:
    """Overlaps of D detections with the objects of a class in a stage."""
    regions, areas = detections.regions[members], ground_truth.mask_areas[objects]
    iou: Overlaps
    ioa: Overlaps
    if not stage.by_mask:
        boxes, others = detections.boxes[regions], ground_truth.boxes[objects]
        iou, ioa = box_overlaps(boxes, others), box_overlaps(boxes, others, over_first_area=True)
    elif detections.mask_areas is None or ground_truth.size is None:
        raise EvaluationError('masks are compared but not given', fix="Give masks, or use iou_type='bbox'.")
    else:
        iou, ioa = mask_overlaps(
            [detections.masks[region] for region in regions],
            detections.mask_areas[regions],
            [ground_truth.masks[index] for index in objects],
            areas,
            ground_truth.size,
        )
    is_group = ground_truth.group_of[objects]
    return _StageOverlaps(iou[:, ~is_group], areas[~is_group], ioa[:, is_group], areas[is_group], stage.counts)


def _best_overlap(overlaps: Overlaps, is_open: BoolArray, threshold: float) -> tuple[IntArray, IntArray]:
    """Open detections that overlap an object enough, ascending, and that object of each.

    Each tries only the object of largest overlap, the first on ties, even if that is taken already. The threshold is
    rounded to the type of the overlaps, so that 7 of 10 pixels are 0.7 in float32 too.
    """
    if not overlaps.shape[1]:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    tried = overlaps.argmax(axis=1)
    enough = overlaps[np.arange(len(overlaps)), tried] >= overlaps.dtype.type(threshold)
    found = np.flatnonzero(is_open & enough)
    return found, tried[found]


def _first_of_each(found: IntArray, objects: IntArray) -> tuple[IntArray, IntArray]:
    """The first detection of each object, which is its best, and that object."""
    distinct, first = np.unique(objects, return_index=True)
    return found[first], distinct
