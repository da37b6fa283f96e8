"""Objects and detections that are some columns of a 100 × 10 image, so that overlaps can be read off."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from pycocotools import mask as coco_mask

from hierseg.metrics import ImageGroundTruth, ImagePrediction
from hierseg.metrics.matching import common_pixels

SIZE = (10, 100)


def strip(start: int, end: int) -> bytes:
    """The mask of columns ``start`` to ``end``, which is left out."""
    mask = np.zeros(SIZE, dtype=np.uint8, order='F')
    mask[:, start:end] = 1
    return coco_mask.encode(mask)['counts']


def objects_of(
    objects: Sequence[tuple[int, int, int]],
    *,
    groups: Collection[int] = (),
    maskless: Collection[int] = (),
    verified: Sequence[int] = (),
    not_exhaustive: Sequence[int] = (),
) -> ImageGroundTruth:
    """Objects as (label, first, last column)."""
    areas = [0 if i in maskless else 10 * (end - start) for i, (_, start, end) in enumerate(objects)]
    return ImageGroundTruth(
        labels=np.array([label for label, _, _ in objects], dtype=np.int64),
        boxes=np.array([(start, 0, end, 1) for _, start, end in objects]).reshape(-1, 4),
        group_of=np.array([i in groups for i in range(len(objects))], dtype=bool),
        masks=[strip(start, end) if area else b'' for area, (_, start, end) in zip(areas, objects, strict=True)],
        mask_areas=np.array(areas, dtype=np.int64),
        verified=np.array(verified, dtype=np.int64),
        size=SIZE if any(areas) else None,
        not_exhaustive=np.array(not_exhaustive, dtype=np.int64),
    )


def prediction_of(
    regions: Sequence[tuple[Mapping[int, float], int, int]], *, names: Sequence[int], num_classes: int
) -> ImagePrediction:
    """Detections of image a as (score by label, first, last column)."""
    class_scores = np.zeros((len(regions), num_classes), dtype=np.float32)
    for row, (scores, _, _) in zip(class_scores, regions, strict=True):
        row[list(scores)] = list(scores.values())
    return ImagePrediction(
        image_id='a',
        boxes=np.array([(start, 0, end, 1) for _, start, end in regions]).reshape(-1, 4),
        class_scores=class_scores,
        named_labels=np.array(names, dtype=np.int64),
        masks=[strip(start, end) for _, start, end in regions],
        mask_areas=np.array([10 * (end - start) for _, start, end in regions], dtype=np.int64),
        size=SIZE,
    )


def common_of(objects: ImageGroundTruth, prediction: ImagePrediction) -> np.ndarray:
    """(R, I) pixels that detections and objects have in common."""
    common = np.zeros((len(prediction.masks), len(objects.masks)), dtype=np.int64)
    has_mask = np.flatnonzero(objects.mask_areas > 0)
    masks = [objects.masks[index] for index in has_mask]
    common[:, has_mask] = common_pixels(prediction.masks, prediction.mask_areas, masks, objects.size)
    return common


def prediction_without_masks(num_classes: int) -> ImagePrediction:
    nothing = np.zeros(0, dtype=np.int64)
    return ImagePrediction('a', np.zeros((0, 4)), np.zeros((0, num_classes)), nothing)
