"""Segmentations of COCO JSON: polygons, uncompressed and compressed run lengths.

They become compressed counts exactly as in pycocotools' ``COCO.annToRLE``, but are checked first, since
its C code trusts its input.
"""

from __future__ import annotations

import math
from typing import Any

from pycocotools import mask as coco_mask

from hierseg.annotations import rle


def encode_segmentation(segmentation: Any, height: int, width: int) -> tuple[bytes, int]:
    """Compressed counts and number of pixels of a segmentation.

    Args:
        segmentation: List of polygons ``[x1, y1, x2, y2, ...]`` in pixels, or a dict of ``size`` and ``counts``.
        height: Pixels, of the image.
        width: Pixels, of the image.

    Returns:
        ``b''`` and 0 if there is no segmentation or it covers no pixel.

    Raises:
        MalformedMaskError: If it is malformed or of another size.
    """
    if segmentation is None or segmentation == []:
        return b'', 0
    if isinstance(segmentation, list):
        counts = _encode_polygons(segmentation, height, width)
    elif isinstance(segmentation, dict):
        counts = _encode_runs(segmentation, height, width)
    else:
        raise rle.MalformedMaskError('the segmentation is neither polygons nor run lengths')
    area = rle.check_counts(counts, height, width)
    return (counts, area) if area else (b'', 0)


def _encode_polygons(polygons: list[Any], height: int, width: int) -> bytes:
    for polygon in polygons:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            raise rle.MalformedMaskError('a polygon has fewer than three points, or half a point')
        if not all(isinstance(value, (int, float)) and math.isfinite(value) for value in polygon):
            raise rle.MalformedMaskError('a polygon holds something that is not a number')
        # pycocotools clips, but walks along every edge: a wild coordinate would take gigabytes.
        for values, size in ((polygon[0::2], width), (polygon[1::2], height)):
            if min(values) < -size or max(values) > 2 * size:
                raise rle.MalformedMaskError('a polygon reaches further outside than the image is large')
    counts: bytes = coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))['counts']
    return counts


def _encode_runs(segmentation: dict[str, Any], height: int, width: int) -> bytes:
    if segmentation.get('size') != [height, width]:
        raise rle.MalformedMaskError(
            f'the mask has the size {segmentation.get("size")}, its image [{height}, {width}] (height, width)'
        )
    counts = segmentation.get('counts')
    if isinstance(counts, list):
        return rle.encode_runs(counts, height, width)
    if isinstance(counts, str) and counts.isascii():
        return counts.encode()
    raise rle.MalformedMaskError('the counts are neither a list nor run-length text')
