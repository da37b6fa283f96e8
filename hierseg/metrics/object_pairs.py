"""Pairs of a detection and an object of one class on one image, and which detections take an object.

Shape letters: D detections in order of their keys (see :class:`~hierseg.metrics.image_batch.ImageBatch`), I objects
of the batch, J some of them, P pairs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from hierseg.errors import EvaluationError
from hierseg.metrics.image_batch import ImageBatch
from hierseg.metrics.overlaps import Overlaps, as_coco, over_first_area, overlaps_of_box_pairs, overlaps_of_mask_pairs
from hierseg.metrics.records import BoolArray, FloatArray, IntArray


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


def pairs_with(batch: ImageBatch, order: IntArray, objects: IntArray, *, by_mask: bool) -> tuple[Pairs, Pairs]:
    """Pairs with single objects by intersection over union, and with groups by intersection over detection area.

    Args:
        batch: The images.
        order: (D,) int64; detections by ascending key, of positive area.
        objects: (J,) int64, ascending; the objects that are looked at.
        by_mask: Compare masks, else boxes.

    Raises:
        EvaluationError: If masks are compared that are not given.
    """
    objects = objects[np.argsort(batch.object_keys[objects], kind='stable')]
    keys, object_keys = batch.keys[order], batch.object_keys[objects]
    begin = np.searchsorted(object_keys, keys)
    counts = np.searchsorted(object_keys, keys, side='right') - begin
    detections = np.repeat(np.arange(len(order)), counts)
    nth = np.arange(len(detections)) - np.repeat(np.cumsum(counts) - counts, counts)
    partners = objects[np.repeat(begin, counts) + nth]
    regions, is_group = batch.regions[order[detections]], batch.group_of[partners]
    iou: Overlaps
    ioa: Overlaps
    if by_mask:
        some = np.flatnonzero(counts)
        blocks = [np.zeros(0), *_blocks(batch, order[some], objects, begin[some], begin[some] + counts[some])]
        areas = batch.areas[regions], batch.object_areas[partners]
        iou, ioa = overlaps_of_mask_pairs(np.concatenate(blocks), *areas)
    else:
        boxes, others = batch.boxes[regions], batch.object_boxes[partners]
        iou, ioa = overlaps_of_box_pairs(boxes, others), overlaps_of_box_pairs(boxes, others, over_first_area=True)
    single, group = np.flatnonzero(~is_group), np.flatnonzero(is_group)
    return (
        Pairs(detections[single], partners[single], iou[single]),
        Pairs(detections[group], partners[group], ioa[group]),
    )


def _blocks(
    batch: ImageBatch, detections: IntArray, objects: IntArray, begin: IntArray, end: IntArray
) -> Iterator[FloatArray]:
    """Intersections over the detection's area of all masks of one key after another, (detections × objects,) each.

    Args:
        batch: The images.
        detections: (D,) int64, by ascending key; each has an object of its key.
        objects: (J,) int64, by ascending key.
        begin: (D,) int64; where the objects of the detection's key begin.
        end: (D,) int64; where they end.
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
        yield over_first_area(as_coco(of_detections[top:bottom], size), as_coco(of_objects[low:high], size)).ravel()
