"""Objects and detections of one image, drawn as rectangles (x1, y1, x2, y2), ends exclusive."""

from __future__ import annotations

import numpy as np
from open_images_files import counts_of, rectangle
from plain_open_images import tight_box

from hierseg.metrics import ImageDetections, ImageGroundTruth


def ground_truth(*objects, verified=(), size=(8, 8)):
    """Objects are (rectangle, kind) of class 0; kinds: 'mask', 'box', 'mask group', 'box group', or with a label."""
    masks = [rectangle(*place, size=size) for place, *_ in objects]
    has_mask = [kind[0].startswith('mask') for _, *kind in objects]
    return ImageGroundTruth(
        labels=np.array([kind[1] if len(kind) > 1 else 0 for _, *kind in objects], dtype=np.int64),
        boxes=np.array([tight_box(mask) for mask in masks], dtype=np.float64).reshape(-1, 4),
        group_of=np.array([kind[0].endswith('group') for _, *kind in objects], dtype=bool),
        masks=[counts_of(mask) if has else b'' for mask, has in zip(masks, has_mask, strict=True)],
        mask_areas=np.array([mask.sum() * has for mask, has in zip(masks, has_mask, strict=True)], dtype=np.int64),
        verified=np.array(verified, dtype=np.int64),
        size=size if any(has_mask) else None,
    )


def detections(*claims, size=(8, 8)):
    """Claims are (rectangle, score) of class 0, or with a label."""
    masks = [rectangle(*place, size=size) for place, *_ in claims]
    return ImageDetections(
        labels=np.array([claim[2] if len(claim) > 2 else 0 for claim in claims], dtype=np.int64),
        scores=np.array([claim[1] for claim in claims], dtype=np.float64),
        regions=np.arange(len(claims)),
        boxes=np.array([tight_box(mask) for mask in masks], dtype=np.float64).reshape(-1, 4),
        masks=[counts_of(mask) for mask in masks],
        mask_areas=np.array([mask.sum() for mask in masks], dtype=np.int64),
        size=size,
    )
