"""Intersection over union of masks, where it can matter.

Shape letters: M and N masks of one image, H, W the image.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


def mask_overlaps(first: Tensor, second: Tensor, wanted: npt.NDArray[np.bool_], *, at_least: float) -> FloatArray:
    """Compares the wanted pairs of masks.

    Detectors hand out masks as planes, on their device. To encode 100 planes of 1024 × 768 pixels as run lengths
    takes pycocotools 0.2 s, to find the rectangles that they fill 0.01 s; and since the overlap of two rectangles
    bounds that of their masks, few pairs are left to compare, within those rectangles.

    Args:
        first: (M, H, W) bool.
        second: (N, H, W) bool, on the same device.
        wanted: (M, N) bool; pairs to compare.
        at_least: Overlaps below it do not matter; above 0.

    Returns:
        (M, N) intersection over union; 0 where it is below ``at_least`` or not wanted.
    """
    bounds, other_bounds = mask_bounds(first), mask_bounds(second)
    areas, other_areas = _areas(first, bounds), _areas(second, other_bounds)
    corners = np.maximum(bounds[:, None, :2], other_bounds[None, :, :2])
    opposite = np.minimum(bounds[:, None, 2:], other_bounds[None, :, 2:])
    rectangles = np.clip(opposite - corners, 0, None).prod(axis=2)
    limits = rectangles / np.maximum(np.maximum(areas[:, None], other_areas[None]), 1)

    overlaps: FloatArray = np.zeros(wanted.shape)
    rows, columns = np.nonzero(wanted & (limits >= at_least))
    common = []
    for row, column in zip(rows, columns, strict=True):
        (left, top), (right, bottom) = corners[row, column], opposite[row, column]
        common.append(_count(first[row, top:bottom, left:right] & second[column, top:bottom, left:right]))
    intersections = _gathered(common)
    found = intersections / (areas[rows] + other_areas[columns] - intersections)
    overlaps[rows, columns] = np.where(found >= at_least, found, 0)
    return overlaps


def mask_bounds(masks: Tensor) -> IntArray:
    """(N, 4) int64 left, top, right and bottom of the pixels set in (N, H, W) masks, ends excluded; 0 without any."""
    if not masks.numel():
        return np.zeros((len(masks), 4), dtype=np.int64)
    # PyTorch takes the maximum of bytes ten times as fast as it asks for any truth.
    planes = masks.to(torch.bool).view(torch.uint8)
    columns, rows = (planes.amax(dim=axis).cpu().numpy().astype(bool) for axis in (1, 2))
    ends = [(line.argmax(axis=1), line.shape[1] - line[:, ::-1].argmax(axis=1)) for line in (columns, rows)]
    (left, right), (top, bottom) = ends
    bounds = np.stack([left, top, right, bottom], axis=1)
    return np.where(rows.any(axis=1)[:, None], bounds, 0).astype(np.int64)


def _areas(masks: Tensor, bounds: IntArray) -> IntArray:
    """(N,) pixels set in each mask."""
    return _gathered(
        [_count(mask[top:bottom, left:right]) for mask, (left, top, right, bottom) in zip(masks, bounds, strict=True)]
    )


def _count(mask: Tensor) -> Tensor:
    return torch.count_nonzero(mask)


def _gathered(counts: list[Tensor]) -> IntArray:
    """Single numbers, fetched from their device together."""
    return torch.stack(counts).cpu().numpy() if counts else np.zeros(0, dtype=np.int64)
