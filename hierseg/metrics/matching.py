"""Matches the detections of images to their ground truth: rules 3 to 5 of the Open Images protocol.

Images and their classes are matched together, several at a time, which is what makes it fast.

Shape letters: B images, D detections that are looked at, by image, class and descending score, I objects, K criteria.

Arithmetic follows the reference evaluator to the type: masks overlap in float32, boxes in float64. Equal
scores come in reverse order of the submission, which is what the reference's reversed sort gives
wherever that sort keeps equal elements in order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from hierseg.errors import EvaluationError
from hierseg.metrics.criteria import OPEN_IMAGES, Criterion, ImageMatchTable, Verdict
from hierseg.metrics.image_batch import ImageBatch
from hierseg.metrics.object_pairs import Pairs, first_of_each, pairs_with
from hierseg.metrics.overlaps import check_sizes
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
MAX_PAIRS = 1 << 20  # of a detection and an object of any class, in images that are matched together

Verdicts = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class _Stage:
    """Two stages of rule 4: a and b for masked objects, c and d for the others; the boxes variant has one such pair.

    Attributes:
        singles: Pairs with single objects.
        groups: Pairs with groups.
        counts: Its objects count as ground truth; if not, what finds one is removed from scoring.
    """

    singles: Pairs
    groups: Pairs
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
    """Matches one image by one criterion; arguments and errors as of :func:`match_images_by`."""
    table = match_image_by(
        ground_truth,
        detections,
        criteria=(criterion,),
        image_id=image_id,
        iou_type=iou_type,
        group_of_weight=group_of_weight,
    )
    return table.at(0)


def match_images(
    ground_truths: Sequence[ImageGroundTruth],
    detections: Sequence[ImageDetections],
    *,
    image_ids: Sequence[str],
    iou_type: IouType = 'segm',
    group_of_weight: float = 0.0,
    criterion: Criterion = OPEN_IMAGES,
) -> list[ImageMatches]:
    """Matches images by one criterion; arguments and errors as of :func:`match_images_by`."""
    tables = match_images_by(
        ground_truths,
        detections,
        criteria=(criterion,),
        image_ids=image_ids,
        iou_type=iou_type,
        group_of_weight=group_of_weight,
    )
    return [table.at(0) for table in tables]


def match_image_by(
    ground_truth: ImageGroundTruth,
    detections: ImageDetections,
    *,
    criteria: Sequence[Criterion],
    image_id: str,
    iou_type: IouType = 'segm',
    group_of_weight: float = 0.0,
) -> ImageMatchTable:
    """Matches one image by several criteria; arguments and errors as of :func:`match_images_by`."""
    tables = match_images_by(
        (ground_truth,),
        (detections,),
        criteria=criteria,
        image_ids=(image_id,),
        iou_type=iou_type,
        group_of_weight=group_of_weight,
    )
    return tables[0]


def match_images_by(
    ground_truths: Sequence[ImageGroundTruth],
    detections: Sequence[ImageDetections],
    *,
    criteria: Sequence[Criterion],
    image_ids: Sequence[str],
    iou_type: IouType = 'segm',
    group_of_weight: float = 0.0,
) -> list[ImageMatchTable]:
    """Matches images by several criteria; overlaps, which take most of the time, are computed once.

    With a range of area, objects out of the range are ignored as in COCO: they do not count, and what finds one of
    them, and none in the range, is removed; so are detections that find nothing and are out of the range themselves.
    Objects without a mask have no area: they count in no range, and remain ignored by rule 4 in each.

    Args:
        ground_truths: The objects of each image, expanded.
        detections: The detections of each image.
        criteria: K criteria.
        image_ids: The id of each image.
        iou_type: ``segm`` compares masks, and boxes where an object has no mask; ``bbox`` boxes only.
        group_of_weight: w, what finding a group counts.

    Returns:
        A table for each image.

    Raises:
        EvaluationError: If the masks of ground truth and detections differ in size, or a criterion asks for areas
            and there are no masks.
    """
    for ground_truth, found, image_id in zip(ground_truths, detections, image_ids, strict=True):
        _check_areas(criteria, found, iou_type, image_id)
        if iou_type == 'segm':
            check_sizes(ground_truth, found, image_id)
    tables: list[ImageMatchTable] = []
    for part in _parts(ground_truths, detections):
        batch = ImageBatch.of(ground_truths[part], detections[part])
        tables += _match_batch(batch, criteria, image_ids[part], iou_type, group_of_weight)
    return tables


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


def _parts(ground_truths: Sequence[ImageGroundTruth], detections: Sequence[ImageDetections]) -> Iterator[slice]:
    """Images that are matched together, so many that their pairs are not too many for the memory."""
    begin = pairs = 0
    for index, (ground_truth, found) in enumerate(zip(ground_truths, detections, strict=True)):
        of_image = len(ground_truth.labels) * len(found.labels)
        if index > begin and pairs + of_image > MAX_PAIRS:
            yield slice(begin, index)
            begin, pairs = index, 0
        pairs += of_image
    if begin < len(detections):
        yield slice(begin, len(detections))


def _match_batch(
    batch: ImageBatch,
    criteria: Sequence[Criterion],
    image_ids: Sequence[str],
    iou_type: IouType,
    group_of_weight: float,
) -> Iterator[ImageMatchTable]:
    """Matches images by several criteria and yields their tables; arguments as of :func:`match_images_by`."""
    counted = batch.object_areas > 0 if iou_type == 'segm' else np.ones(len(batch.object_keys), dtype=bool)
    order = _evaluatable(batch, iou_type)
    stages = [
        _Stage(*pairs_with(batch, order, objects, by_mask=by_mask), counts=counts)
        for by_mask, counts, of_stage in ((iou_type == 'segm', True, counted), (False, False, ~counted))
        if len(objects := np.flatnonzero(of_stage))
    ]
    verdicts = np.array([_verdicts(batch, order, stages, criterion) for criterion in criteria], dtype=np.uint8)
    verdicts = verdicts.reshape(len(criteria), len(order))
    if group_of_weight <= 0:
        verdicts[verdicts == Verdict.GROUP_FOUND] = Verdict.REMOVED
    scored = (verdicts != Verdict.REMOVED).any(axis=0)
    order, verdicts = order[scored], verdicts[:, scored]
    labels, scores = batch.labels[order], batch.scores[order]

    weights = np.where(batch.group_of, group_of_weight, 1.0) * counted
    counted_keys, inverse = np.unique(batch.object_keys, return_inverse=True)
    counts: FloatArray = np.zeros((len(criteria), len(counted_keys)))
    for row, criterion in zip(counts, criteria, strict=True):
        row[:] = np.bincount(inverse, weights * criterion.contains(batch.object_areas), len(counted_keys))
    counted_labels = counted_keys % batch.num_labels
    spans = zip(pairwise(batch.bounds(batch.keys[order])), pairwise(batch.bounds(counted_keys)), strict=True)
    for image_id, ((begin, end), (first, last)) in zip(image_ids, spans, strict=True):
        yield ImageMatchTable(
            image_id=image_id,
            criteria=tuple(criteria),
            labels=labels[begin:end],
            scores=scores[begin:end],
            verdicts=verdicts[:, begin:end],
            counted_labels=counted_labels[first:last],
            counts=counts[:, first:last],
            group_of_weight=group_of_weight,
        )


def _evaluatable(batch: ImageBatch, iou_type: IouType) -> IntArray:
    """(D,) int64; the detections that are looked at, by image, class and descending score."""
    known = np.concatenate([batch.verified_keys, batch.object_keys])
    keep = np.isin(batch.keys, known) & (batch.scores > SCORE_FLOOR)
    solid = (batch.boxes[:, 0] < batch.boxes[:, 2]) & (batch.boxes[:, 1] < batch.boxes[:, 3])
    if iou_type == 'segm':
        solid = np.where(batch.has_masks, batch.areas > 0, solid)
    order = np.flatnonzero(keep & solid[batch.regions])
    order = order[descending(batch.scores[order])]
    order = order[np.argsort(batch.keys[order], kind='stable')]
    keys = batch.keys[order]
    return order[np.arange(len(keys)) - np.searchsorted(keys, keys) < MAX_DETECTIONS]


def _verdicts(batch: ImageBatch, order: IntArray, stages: Sequence[_Stage], criterion: Criterion) -> Verdicts:
    """(D,) what the criterion makes of the detections; the four stages of rule 4.

    Args:
        batch: The images.
        order: (D,) int64; the detections that are looked at.
        stages: Stages a and b, then c and d.
        criterion: The criterion.
    """
    threshold, inside = criterion.iou_threshold, criterion.contains(batch.object_areas)
    is_open: BoolArray = np.ones(len(order), dtype=bool)  # has not succeeded in a stage yet
    verdicts: Verdicts = np.full(len(order), Verdict.FALSE_POSITIVE, dtype=np.uint8)
    for stage in stages:
        counts = inside & stage.counts
        for singles, verdict in ((counts, Verdict.TRUE_POSITIVE), (~counts, Verdict.REMOVED)):
            takers, _ = first_of_each(*stage.singles.taken(singles, is_open, threshold))
            is_open[takers] = False
            verdicts[takers] = verdict
        within, groups = stage.groups.taken(np.ones_like(inside), is_open, threshold)
        is_open[within] = False
        verdicts[within] = Verdict.REMOVED
        best, found = first_of_each(within, groups)
        verdicts[best[counts[found] & (batch.scores[order[best]] > 0)]] = Verdict.GROUP_FOUND
    verdicts[is_open & ~criterion.contains(batch.areas[batch.regions[order]])] = Verdict.REMOVED
    return verdicts
