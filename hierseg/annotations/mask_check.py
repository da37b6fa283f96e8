"""What can be wrong with one mask of a store."""

from __future__ import annotations

from enum import Enum

import numpy as np
from pycocotools import mask as coco_mask

from hierseg.annotations.records import FloatArray
from hierseg.annotations.rle import MalformedMaskError, check_counts

ALLOWED_PIXELS = 2.0
"""So far a tight box may always be from the annotated one: both were rounded."""


class MaskFault(Enum):
    """Kinds of damage, in the words of a report."""

    MALFORMED = 'masks that cannot be decoded'
    BLANK = 'masks without a pixel'
    ELSEWHERE = 'masks that are not where their box is'


def mask_fault(
    counts: bytes, box: FloatArray, size: tuple[int, int], *, tolerance: float
) -> tuple[MaskFault, str] | None:
    """What is wrong with a mask, and how; None if nothing is.

    Args:
        counts: Compressed run lengths.
        box: (4,) float64; the annotated box, xyxy, pixels.
        size: Height and width of the image, pixels.
        tolerance: How far a side of the mask's tight box may be from that side of ``box``, as a share of its width
            or height; 2 pixels are always allowed.

    Example:
        >>> square = coco_mask.encode(np.ones((8, 8), dtype=np.uint8, order='F'))['counts']
        >>> mask_fault(square, np.array([0.0, 0, 8, 8]), (8, 8), tolerance=0) is None
        True
        >>> mask_fault(square, np.array([0.0, 3, 8, 8]), (8, 8), tolerance=0)[1]
        'mask from (0, 0) to (8, 8), box from (0, 3) to (8, 8)'
    """
    height, width = size
    try:
        pixels = check_counts(counts, height, width)
    except MalformedMaskError as error:
        return MaskFault.MALFORMED, str(error)
    if not pixels:
        return MaskFault.BLANK, f'{width} x {height} pixels of background'
    left, top, wide, high = coco_mask.toBbox({'size': [height, width], 'counts': counts}).tolist()
    tight = np.array([left, top, left + wide, top + high])
    sides = np.tile(box[2:] - box[:2], 2)
    if (np.abs(tight - box) <= np.maximum(ALLOWED_PIXELS, tolerance * sides)).all():
        return None
    told = ['({:g}, {:g}) to ({:g}, {:g})'.format(*corners.round(1)) for corners in (tight, box)]
    return MaskFault.ELSEWHERE, f'mask from {told[0]}, box from {told[1]}'
