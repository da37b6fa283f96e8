"""Which mask belongs to which box.

The released mask and box tables share no key, and their coordinates differ in the decimals, so that
rows are joined by image, class and nearly equal box.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hierseg.annotations.csv_tables import index_in
from hierseg.annotations.openimages_tables import BoxRows, MaskRows
from hierseg.annotations.records import FloatArray, IntArray

# As a fraction of the image: about one pixel of the released images. Rounding to three decimals stays
# below it; two boxes of one class in one image closer than that on all four sides are the same object.
BOX_TOLERANCE = 1e-3
PAIRS_AT_A_TIME = 1 << 22


def join_masks(
    boxes: BoxRows,
    masks: MaskRows,
    box_images: IntArray,
    mask_images: IntArray,
    *,
    num_classes: int,
    tolerance: float = BOX_TOLERANCE,
) -> IntArray:
    """Joins masks to boxes one to one, nearest first.

    Candidates have the same image and class (and IsGroupOf, where the masks say it). Equal BoxIDs join
    whatever the coordinates; other pairs join if no coordinate differs by more than ``tolerance``, in
    ascending order of the largest difference, ties in file order.

    Args:
        boxes: B box rows.
        masks: M mask rows.
        box_images: (B,) int64 image index.
        mask_images: (M,) int64 image index.
        num_classes: C.
        tolerance: As a fraction of the image's width and height.

    Returns:
        (M,) int64; the box of each mask, -1 for none.
    """
    box_groups = boxes.group_of if masks.has_group_of else np.zeros(len(boxes), dtype=bool)
    box_keys = (box_images * num_classes + boxes.labels) * 2 + box_groups
    mask_keys = (mask_images * num_classes + masks.labels) * 2 + masks.group_of
    order = np.argsort(box_keys, kind='stable')
    first = np.searchsorted(box_keys[order], mask_keys, side='left')
    counts = np.searchsorted(box_keys[order], mask_keys, side='right') - first
    box_ids, mask_ids = _shared_ids(boxes, masks)
    near: list[tuple[IntArray, IntArray, FloatArray]] = []
    ends = np.cumsum(counts)
    start = 0
    while start < len(masks):
        done = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, done + PAIRS_AT_A_TIME, side='right')))
        chunk = np.arange(start, stop)
        mask_index = np.repeat(chunk, counts[chunk])
        within = np.arange(len(mask_index)) - np.repeat(ends[chunk] - counts[chunk] - done, counts[chunk])
        box_index = order[first[mask_index] + within]
        distance = np.abs(boxes.boxes[box_index] - masks.boxes[mask_index]).max(axis=1, initial=0)
        same_id = (box_ids[box_index] == mask_ids[mask_index]) & (box_ids[box_index] >= 0)
        distance[same_id] = -1
        keep = distance <= tolerance
        near.append((mask_index[keep], box_index[keep], distance[keep]))
        start = stop
    return _one_to_one(near, num_masks=len(masks))


def _shared_ids(boxes: BoxRows, masks: MaskRows) -> tuple[IntArray, IntArray]:
    """BoxIDs as numbers, the same text the same number; -1 where there is none."""
    if boxes.box_ids is None or masks.box_ids is None:
        return np.full(len(boxes), -1, dtype=np.int64), np.full(len(masks), -1, dtype=np.int64)
    known = pc.unique(boxes.box_ids)
    known = known.filter(pc.not_equal(known, pa.scalar('')))
    return index_in(boxes.box_ids, known), index_in(masks.box_ids, known)


def _one_to_one(near: list[tuple[IntArray, IntArray, FloatArray]], *, num_masks: int) -> IntArray:
    """Takes the nearest pair, strikes out its mask and box, and so on; whole arrays at a time."""
    joined = np.full(num_masks, -1, dtype=np.int64)
    if not near:
        return joined
    mask_index, box_index, distance = (np.concatenate(column) for column in zip(*near, strict=True))
    order = np.lexsort((box_index, mask_index, distance))
    mask_index, box_index = mask_index[order], box_index[order]
    while len(mask_index):
        # A pair that is the nearest left for both its mask and its box is the one that would be taken.
        best_of_mask = np.zeros(len(mask_index), dtype=bool)
        best_of_mask[np.unique(mask_index, return_index=True)[1]] = True
        best_of_box = np.zeros(len(mask_index), dtype=bool)
        best_of_box[np.unique(box_index, return_index=True)[1]] = True
        taken = best_of_mask & best_of_box
        joined[mask_index[taken]] = box_index[taken]
        left = ~np.isin(mask_index, mask_index[taken]) & ~np.isin(box_index, box_index[taken])
        mask_index, box_index = mask_index[left], box_index[left]
    return joined
