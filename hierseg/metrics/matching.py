"""Matches the detections of images to their ground truth: rules 3 to 5 of the Open Images protocol.

Images are laid end to end and their classes matched together, several at a time, which is what makes it fast.
Arithmetic follows the reference evaluator to the type: masks overlap in float32, boxes in float64. Equal
scores come in reverse order of the submission, which is what the reference's reversed sort gives
wherever that sort keeps equal elements in order.

Shape letters: B images, D claims that are looked at, by image, class and descending score, R regions, I objects of
the batch, J some of them, K criteria, P pairs of a claim and an object, N and M boxes or masks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from hierseg.errors import EvaluationError
from hierseg.formats import BoolArray, FloatArray, IntArray
from hierseg.metrics.records import (
    ANY_AREA,
    OPEN_IMAGES,
    Criterion,
    ImageDetections,
    ImageGroundTruth,
    ImageMatchTable,
    ImagePrediction,
    IouType,
    Verdict,
    repeated,
)

Overlaps = npt.NDArray[np.float32] | npt.NDArray[np.float64]


def box_overlaps(boxes: FloatArray, others: FloatArray, *, over_first_area: bool = False) -> FloatArray:
    """(...) intersection over union of (..., 4) xyxy boxes that broadcast, or over the area of the first ones."""
    extent = np.minimum(boxes[..., 2:], others[..., 2:]) - np.maximum(boxes[..., :2], others[..., :2])
    extent = np.maximum(extent, 0.0)
    intersection: FloatArray = extent[..., 1] * extent[..., 0]
    area: FloatArray = (boxes[..., 3] - boxes[..., 1]) * (boxes[..., 2] - boxes[..., 0])
    if over_first_area:
        return intersection / area
    other_area: FloatArray = (others[..., 3] - others[..., 1]) * (others[..., 2] - others[..., 0])
    return intersection / (area + other_area - intersection)


def common_pixels(masks: Sequence[bytes], areas: IntArray, others: Sequence[bytes], size: tuple[int, int]) -> IntArray:
    """(N, M) int64; pixels that every pair of masks has in common; what all overlaps of an image follow from.

    pycocotools is asked as for crowds: it divides by the area of the first mask, from which the whole number of pixels
    is taken back, and skips pairs whose boxes do not meet.

    Args:
        masks: N run lengths, without empty runs inside.
        areas: (N,) int64, pixels.
        others: M run lengths of the same kind.
        size: Height and width.
    """
    if not masks or not others:
        return np.zeros((len(masks), len(others)), dtype=np.int64)
    first, second = ([{'size': size, 'counts': mask} for mask in side] for side in (masks, others))
    over_area: FloatArray = coco_mask.iou(first, second, [1] * len(others))
    return np.rint(over_area * areas[:, None]).astype(np.int64)


def overlaps_of_masks(
    common: IntArray, areas: IntArray, other_areas: IntArray
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Intersection over union and over the area of the first mask, in the type of the reference evaluator.

    Pixels in common and areas, none of them 0, are int64 and broadcast.
    """
    intersection = common.astype(np.float32)
    first_area, second_area = areas.astype(np.float32), other_areas.astype(np.float32)
    return intersection / (first_area + second_area - intersection), intersection / (first_area + np.float32(1e-7))


def check_sizes(ground_truth: ImageGroundTruth, detections: ImageDetections | ImagePrediction, image_id: str) -> None:
    """Raises an EvaluationError if the masks of ground truth and detections differ in size."""
    if ground_truth.size is None or detections.size is None or ground_truth.size == detections.size:
        return
    (height, width), (other_height, other_width) = ground_truth.size, detections.size
    raise EvaluationError(
        f'detection masks are {other_width}×{other_height} pixels, ground-truth masks {width}×{height}',
        where=f'image {image_id}',
        fix='Give the masks of detections at the size of the ground truth.',
    )


@dataclass(frozen=True, eq=False)
class Pairs:
    """P pairs, by ascending detection and, of one detection, by ascending object.

    Attributes:
        detections: (P,) int64; positions among the D.
        objects: (P,) int64; indices of the I.
        overlaps: (P,) float32 or float64.
    """

    detections: IntArray
    objects: IntArray
    overlaps: Overlaps

    def taken(self, wanted: BoolArray, is_open: BoolArray, threshold: float) -> tuple[IntArray, IntArray]:
        """Open detections that overlap a wanted object enough, ascending, and that object of each.

        Each tries only the object of largest overlap, the first on ties, even if that is taken already. The threshold
        is rounded to the type of the overlaps, so that 7 of 10 pixels are 0.7 in float32 too.

        Args:
            wanted: (I,) bool.
            is_open: (D,) bool.
            threshold: Least overlap.
        """
        too_small = self.overlaps < self.overlaps.dtype.type(threshold)
        near = np.flatnonzero(~too_small & is_open[self.detections] & wanted[self.objects])
        detections, overlaps = self.detections[near], self.overlaps[near]
        first = np.flatnonzero(np.diff(detections, prepend=-1))
        if not len(first):
            return detections, near
        # Where an overlap is nan, which a box turned inside out may bring about, it is the best, and equals nothing.
        best = np.maximum.reduceat(overlaps, first).repeat(np.diff(first, append=len(near)))
        is_best = np.flatnonzero(overlaps == best)
        is_best = is_best[np.diff(detections[is_best], prepend=-1) != 0]
        return detections[is_best], self.objects[near[is_best]]


def first_of_each(found: IntArray, objects: IntArray) -> tuple[IntArray, IntArray]:
    """The first detection of each object, which is its best, and that object."""
    distinct, first = np.unique(objects, return_index=True)
    return found[first], distinct


def pairs_with(
    batch: ImageBatch, order: IntArray, objects: IntArray, *, by_mask: bool, common: IntArray | None
) -> tuple[Pairs, Pairs]:
    """Pairs with single objects by intersection over union, and with groups by intersection over detection area.

    Args:
        batch: The images.
        order: (D,) int64; detections by ascending key, of positive area.
        objects: (J,) int64, ascending; the objects that are looked at.
        by_mask: Compare masks, else boxes; an EvaluationError where masks are not given.
        common: (R, I) int64; pixels in common of all regions and objects, where they are known.
    """
    objects = objects[np.argsort(batch.object_keys[objects], kind='stable')]
    keys, object_keys = batch.keys[order], batch.object_keys[objects]
    begin = np.searchsorted(object_keys, keys)
    counts = np.searchsorted(object_keys, keys, side='right') - begin
    detections, nth = repeated(counts)
    partners = objects[begin[detections] + nth]
    regions, is_group = batch.regions[order[detections]], batch.group_of[partners]
    iou: Overlaps
    ioa: Overlaps
    if by_mask:
        if common is None:
            some = np.flatnonzero(counts)
            blocks = _blocks(batch, order[some], objects, begin[some], begin[some] + counts[some])
            pixels = np.concatenate([np.zeros(0, dtype=np.int64), *blocks])
        else:
            pixels = common[regions, partners]
        iou, ioa = overlaps_of_masks(pixels, batch.areas[regions], batch.object_areas[partners])
    else:
        boxes, others = batch.boxes[regions], batch.object_boxes[partners]
        iou, ioa = box_overlaps(boxes, others), box_overlaps(boxes, others, over_first_area=True)
    return (
        Pairs(detections[~is_group], partners[~is_group], iou[~is_group]),
        Pairs(detections[is_group], partners[is_group], ioa[is_group]),
    )


def _blocks(
    batch: ImageBatch, detections: IntArray, objects: IntArray, begin: IntArray, end: IntArray
) -> Iterator[IntArray]:
    """Pixels in common of all masks of one key after another, (detections × objects,) each.

    Detections and objects come by ascending key; those of a detection's key lie between its ``begin`` and ``end``.
    """
    regions = batch.regions[detections]
    images = batch.keys[detections] // batch.num_labels
    missing = ~batch.has_masks[regions]
    if missing.any() or any(batch.sizes[image] is None for image in np.unique(images).tolist()):
        raise EvaluationError('masks are compared but not given', fix="Give masks, or use iou_type='bbox'.")
    first = np.flatnonzero(np.diff(begin, prepend=-1))
    of_detections = [batch.masks[region] for region in regions.tolist()]
    of_objects = [batch.object_masks[index] for index in objects.tolist()]
    rows = zip(images[first].tolist(), begin[first].tolist(), end[first].tolist(), strict=True)
    for (image, low, high), (top, bottom) in zip(rows, pairwise([*first.tolist(), len(detections)]), strict=True):
        size = batch.sizes[image]
        areas = batch.areas[regions[top:bottom]]
        yield common_pixels(of_detections[top:bottom], areas, of_objects[low:high], size).ravel()


@dataclass(frozen=True, eq=False)
class ImageBatch:
    """Objects and detections of B images, in the order of the images.

    A key stands for a class on an image: the image times ``num_labels`` plus the label.

    Attributes:
        num_labels: Above every label.
        object_keys: (I,) int64.
        object_boxes: (I, 4) float64 xyxy.
        object_masks: I run lengths; ``b''`` for a box-only object.
        object_areas: (I,) int64, pixels; 0 for a box-only object.
        group_of: (I,) bool.
        verified_keys: int64; classes verified on an image.
        open_keys: int64; classes of an image of which not every object is given.
        keys: (D,) int64.
        scores: (D,) float64.
        regions: (D,) int64; index of the detection's box and mask.
        boxes: (R, 4) float64 xyxy.
        masks: R run lengths; ``b''`` where the image's detections have none.
        areas: (R,) int64, pixels; 0 likewise.
        has_masks: (R,) bool; the image's detections have masks.
        sizes: Height and width of the masks of each image, None for an image without any.
    """

    num_labels: int
    object_keys: IntArray
    object_boxes: FloatArray
    object_masks: Sequence[bytes]
    object_areas: IntArray
    group_of: BoolArray
    verified_keys: IntArray
    open_keys: IntArray
    keys: IntArray
    scores: FloatArray
    regions: IntArray
    boxes: FloatArray
    masks: Sequence[bytes]
    areas: IntArray
    has_masks: BoolArray
    sizes: Sequence[tuple[int, int] | None]

    @classmethod
    def of(cls, ground_truths: Sequence[ImageGroundTruth], detections: Sequence[ImageDetections]) -> ImageBatch:
        """The images in their order; one of each for every image, at least one image."""
        object_labels, verified, beyond = (
            [getattr(one, name) for one in ground_truths] for name in ('labels', 'verified', 'not_exhaustive')
        )
        labels = [one.labels for one in detections]
        num_labels = 1 + max(int(part.max(initial=0)) for part in chain(object_labels, verified, beyond, labels))
        num_regions = [len(one.boxes) for one in detections]
        first_region = np.cumsum([0, *num_regions[:-1]])
        has_masks = [one.mask_areas is not None for one in detections]
        areas = [np.zeros(len(one.boxes), np.int64) if one.mask_areas is None else one.mask_areas for one in detections]
        masks = [[b''] * len(one.boxes) if one.mask_areas is None else one.masks for one in detections]
        return cls(
            num_labels=num_labels,
            object_keys=_keys(object_labels, num_labels),
            object_boxes=np.concatenate([one.boxes for one in ground_truths]),
            object_masks=list(chain.from_iterable(one.masks for one in ground_truths)),
            object_areas=np.concatenate([one.mask_areas for one in ground_truths]),
            group_of=np.concatenate([one.group_of for one in ground_truths]),
            verified_keys=_keys(verified, num_labels),
            open_keys=_keys(beyond, num_labels),
            keys=_keys(labels, num_labels),
            scores=np.concatenate([one.scores for one in detections]),
            regions=np.concatenate([one.regions for one in detections])
            + np.repeat(first_region, [len(part) for part in labels]),
            boxes=np.concatenate([one.boxes for one in detections]),
            masks=list(chain.from_iterable(masks)),
            areas=np.concatenate(areas),
            has_masks=np.repeat(has_masks, num_regions),
            sizes=[one.size for one in ground_truths],
        )

    def bounds(self, keys: IntArray) -> list[int]:
        """Where the keys of each image begin among ascending ones, and the end of all; B + 1 numbers."""
        first: list[int] = np.searchsorted(keys, np.arange(len(self.sizes) + 1) * self.num_labels).tolist()
        return first


def _keys(labels: Sequence[IntArray], num_labels: int) -> IntArray:
    """Keys of the labels of each image, end to end."""
    images = np.repeat(np.arange(len(labels)), [len(part) for part in labels])
    return images * num_labels + np.concatenate(labels)


SCORE_FLOOR = -10.0  # the reference ignores what scores no better,
MAX_DETECTIONS = 10_000  # and what comes after this many of one class on one image
MAX_PAIRS = 1 << 20  # of a detection and an object of any class, in images that are matched together

Verdicts = npt.NDArray[np.uint8]


def match_image(
    ground_truth: ImageGroundTruth,
    detections: ImageDetections,
    *,
    image_id: str,
    criteria: Sequence[Criterion] = (OPEN_IMAGES,),
    iou_type: IouType = 'segm',
    group_of_weight: float = 0.0,
    common: IntArray | None = None,
) -> ImageMatchTable:
    """Matches one image; arguments and errors as of :func:`match_images`.

    Where it is known, ``common`` gives the (R, I) pixels that regions of detections and objects have in common.
    """
    _check(ground_truth, detections, criteria, iou_type, image_id)
    batch = ImageBatch.of((ground_truth,), (detections,))
    return next(_match_batch(batch, criteria, (image_id,), iou_type, group_of_weight, common))


def match_images(
    ground_truths: Sequence[ImageGroundTruth],
    detections: Sequence[ImageDetections],
    *,
    image_ids: Sequence[str],
    criteria: Sequence[Criterion] = (OPEN_IMAGES,),
    iou_type: IouType = 'segm',
    group_of_weight: float = 0.0,
) -> list[ImageMatchTable]:
    """Matches images by several criteria; overlaps, which take most of the time, are computed once.

    With a range of area, objects out of the range are ignored as in COCO: they do not count, and what finds one of
    them, and none in the range, is removed; so are detections that find nothing and are out of the range themselves.
    Objects without a mask have no area: they count in no range, and remain ignored by rule 4 in each.

    Where not every object of a class is given on an image, detections of the class that find nothing are removed, as
    in the evaluation of LVIS (Gupta et al., "LVIS: A dataset for large vocabulary instance segmentation", CVPR 2019).

    Args:
        ground_truths: The objects of each image, expanded.
        detections: The detections of each image.
        image_ids: The id of each image.
        criteria: K criteria.
        iou_type: ``segm`` compares masks, and boxes where an object has no mask; ``bbox`` boxes only.
        group_of_weight: w, what finding a group counts.

    Returns:
        A table for each image.

    Raises:
        EvaluationError: If the masks of ground truth and detections differ in size, or a criterion asks for areas
            and there are no masks.
    """
    for ground_truth, found, image_id in zip(ground_truths, detections, image_ids, strict=True):
        _check(ground_truth, found, criteria, iou_type, image_id)
    tables: list[ImageMatchTable] = []
    for part in _parts(ground_truths, detections):
        batch = ImageBatch.of(ground_truths[part], detections[part])
        tables += _match_batch(batch, criteria, image_ids[part], iou_type, group_of_weight)
    return tables


def descending(scores: FloatArray) -> IntArray:
    """Order of descending scores; of equal scores the last comes first."""
    return np.argsort(scores, kind='stable')[::-1]


def _check(
    ground_truth: ImageGroundTruth,
    detections: ImageDetections,
    criteria: Sequence[Criterion],
    iou_type: IouType,
    image_id: str,
) -> None:
    by_size = any(criterion.area_range != ANY_AREA for criterion in criteria)
    if by_size and (iou_type == 'bbox' or detections.mask_areas is None):
        raise EvaluationError(
            'a range of area is asked for, but boxes are compared',
            where=f'image {image_id}',
            fix='Sizes are areas of masks: compare masks, or take objects of every size.',
        )
    if iou_type == 'segm':
        check_sizes(ground_truth, detections, image_id)


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
    common: IntArray | None = None,
) -> Iterator[ImageMatchTable]:
    """The tables of images; arguments as of :func:`match_images`."""
    counted = batch.object_areas > 0 if iou_type == 'segm' else np.ones(len(batch.object_keys), dtype=bool)
    order = _evaluatable(batch, iou_type)
    # Stages a and b are of the objects that count as ground truth, c and d of the others.
    stages = [
        (*pairs_with(batch, order, objects, by_mask=by_mask, common=common), counts)
        for by_mask, counts, of_stage in ((iou_type == 'segm', True, counted), (False, False, ~counted))
        if len(objects := np.flatnonzero(of_stage))
    ]
    verdicts = np.array([_verdicts(batch, order, stages, criterion) for criterion in criteria], dtype=np.uint8)
    verdicts = verdicts.reshape(len(criteria), len(order))
    if group_of_weight <= 0:
        verdicts[verdicts == Verdict.GROUP_FOUND] = Verdict.REMOVED
    scored = (verdicts != Verdict.REMOVED).any(axis=0)
    order, verdicts = order[scored], verdicts[:, scored]
    labels, scores = batch.keys[order] % batch.num_labels, batch.scores[order]

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


def _verdicts(
    batch: ImageBatch, order: IntArray, stages: Sequence[tuple[Pairs, Pairs, bool]], criterion: Criterion
) -> Verdicts:
    """(D,) what the criterion makes of the detections that are looked at; the four stages of rule 4.

    Two stages are pairs with single objects, pairs with groups, and whether these objects count as ground truth; if
    not, what finds one is removed from scoring.
    """
    threshold, inside = criterion.iou_threshold, criterion.contains(batch.object_areas)
    is_open: BoolArray = np.ones(len(order), dtype=bool)  # has not succeeded in a stage yet
    verdicts: Verdicts = np.full(len(order), Verdict.FALSE_POSITIVE, dtype=np.uint8)
    for singles, groups, are_counted in stages:
        counts = inside & are_counted
        for wanted, verdict in ((counts, Verdict.TRUE_POSITIVE), (~counts, Verdict.REMOVED)):
            takers, _ = first_of_each(*singles.taken(wanted, is_open, threshold))
            is_open[takers] = False
            verdicts[takers] = verdict
        within, around = groups.taken(np.ones_like(inside), is_open, threshold)
        is_open[within] = False
        verdicts[within] = Verdict.REMOVED
        best, found = first_of_each(within, around)
        verdicts[best[counts[found] & (batch.scores[order[best]] > 0)]] = Verdict.GROUP_FOUND
    uncounted = ~criterion.contains(batch.areas[batch.regions[order]])
    if len(batch.open_keys):
        uncounted |= np.isin(batch.keys[order], batch.open_keys)
    verdicts[is_open & uncounted] = Verdict.REMOVED
    return verdicts
