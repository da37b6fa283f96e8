"""Objects and detections that are some columns of a 100 × 10 image, so that overlaps can be read off."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from pycocotools import mask as coco_mask

from hierseg.metrics import ImageDetections, ImageGroundTruth

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
    )


def detections_of(regions: Sequence[tuple[Mapping[int, float], int, int]]) -> ImageDetections:
    """Detections as (score by label, first, last column)."""
    claims = [(i, label, score) for i, (scores, _, _) in enumerate(regions) for label, score in scores.items()]
    return ImageDetections(
        labels=np.array([label for _, label, _ in claims], dtype=np.int64),
        scores=np.array([score for _, _, score in claims], dtype=np.float64),
        regions=np.array([i for i, _, _ in claims], dtype=np.int64),
        boxes=np.array([(start, 0, end, 1) for _, start, end in regions]).reshape(-1, 4),
        masks=[strip(start, end) for _, start, end in regions],
        mask_areas=np.array([10 * (end - start) for _, start, end in regions], dtype=np.int64),
        size=SIZE,
    )
