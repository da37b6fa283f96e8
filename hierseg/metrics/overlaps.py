"""Overlaps of boxes and of masks.

Shape letters: N boxes or masks, M others.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from hierseg.errors import EvaluationError
from hierseg.metrics.records import FloatArray, ImageDetections, ImageGroundTruth, IntArray

Overlaps = npt.NDArray[np.float32] | npt.NDArray[np.float64]


def box_overlaps(boxes: FloatArray, others: FloatArray, *, over_first_area: bool = False) -> FloatArray:
    """Intersection over union of every pair of boxes, or over the area of the first box.

    Args:
        boxes: (N, 4) float64 xyxy, of positive area.
        others: (M, 4) float64 xyxy.
        over_first_area: Divide by the area of ``boxes`` instead.

    Returns:
        (N, M) float64.
    """
    return overlaps_of_box_pairs(boxes[:, None], others[None], over_first_area=over_first_area)


def overlaps_of_box_pairs(first: FloatArray, second: FloatArray, *, over_first_area: bool = False) -> FloatArray:
    """As :func:`box_overlaps`, of boxes side by side: (..., 4) float64 that broadcast give (...) float64."""
    extent = np.minimum(first[..., 2:], second[..., 2:]) - np.maximum(first[..., :2], second[..., :2])
    extent = np.maximum(extent, 0.0)
    intersection: FloatArray = extent[..., 1] * extent[..., 0]
    area: FloatArray = (first[..., 3] - first[..., 1]) * (first[..., 2] - first[..., 0])
    if over_first_area:
        return intersection / area
    other_area: FloatArray = (second[..., 3] - second[..., 1]) * (second[..., 2] - second[..., 0])
    return intersection / (area + other_area - intersection)


def mask_overlaps(
    masks: Sequence[bytes], areas: IntArray, others: Sequence[bytes], other_areas: IntArray, size: tuple[int, int]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Overlaps of every pair of masks.

    Args:
        masks: N run lengths, none blank, without empty runs inside.
        areas: (N,) int64, pixels.
        others: M run lengths of the same kind.
        other_areas: (M,) int64, pixels.
        size: Height and width.

    Returns:
        Two (N, M) float32 arrays: intersection over union and intersection over the area of ``masks``.
    """
    over_area = over_first_area(as_coco(masks, size), as_coco(others, size))
    return overlaps_of_mask_pairs(over_area, areas[:, None], other_areas[None])


def over_first_area(masks: Sequence[dict[str, object]], others: Sequence[dict[str, object]]) -> FloatArray:
    """(N, M) float64; intersection of masks from :func:`as_coco` over the area of the first, as pycocotools has it.

    Called for crowds, it divides by that area, from which :func:`overlaps_of_mask_pairs` takes back the whole number
    of pixels; it skips pairs whose boxes do not meet.
    """
    over_area: FloatArray = coco_mask.iou(masks, others, [1] * len(others))
    return over_area


def overlaps_of_mask_pairs(
    over_area: FloatArray, areas: IntArray, other_areas: IntArray
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """As :func:`mask_overlaps`, of masks side by side.

    Args:
        over_area: (...) float64; from :func:`over_first_area`.
        areas: int64 pixels of the first masks, that broadcast to it.
        other_areas: int64 pixels of the second masks, likewise.
    """
    intersection = np.rint(over_area * areas).astype(np.float32)
    first_area, second_area = areas.astype(np.float32), other_areas.astype(np.float32)
    return intersection / (first_area + second_area - intersection), intersection / (first_area + np.float32(1e-7))


def as_coco(masks: Iterable[bytes], size: tuple[int, int]) -> list[dict[str, object]]:
    """Run lengths with their height and width, as pycocotools takes them."""
    return [{'size': size, 'counts': mask} for mask in masks]


def check_sizes(ground_truth: ImageGroundTruth, detections: ImageDetections, image_id: str) -> None:
    """Checks that the masks of an image can be compared.

    Raises:
        EvaluationError: If the masks of ground truth and detections differ in size.
    """
    if ground_truth.size is None or detections.size is None or ground_truth.size == detections.size:
        return
    (height, width), (other_height, other_width) = ground_truth.size, detections.size
    raise EvaluationError(
        f'detection masks are {other_width}×{other_height} pixels, ground-truth masks {width}×{height}',
        where=f'image {image_id}',
        fix='Give the masks of detections at the size of the ground truth.',
    )
