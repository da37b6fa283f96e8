"""Masks from small planes of logits, sampled within their boxes alone, as run lengths.

Shape letters: M detections, h × w planes, H × W pixels of the image.
"""

from __future__ import annotations

import math

import numpy as np

from hierseg.deploy.naming import FloatArray
from hierseg.formats import BoolArray, IntArray
from hierseg.formats.run_lengths import compress_runs
from hierseg.found import RunLengths


def run_lengths_in_boxes(
    logits: FloatArray, boxes: FloatArray, size: tuple[int, int], *, steps: tuple[float, float], threshold: float
) -> list[RunLengths]:
    """Run lengths of the masks of ``hierseg.functional.mask_sampling.masks_in_boxes``, which has the same arguments.

    Args:
        logits: (M, h, w).
        boxes: (M, 4) xyxy, pixels of the image; pixels that they cut count as inside.
        size: H and W.
        steps: Pixels of the image in one of a plane, horizontally and vertically.
        threshold: Probability above which a pixel is set.
    """
    height, width = size
    level = math.log(threshold / (1 - threshold))
    corners = np.concatenate([np.floor(boxes[:, :2]), np.ceil(boxes[:, 2:])], axis=1).clip(0, [width, height] * 2)
    found = []
    for plane, (left, top, right, bottom) in zip(logits, corners.astype(int).tolist(), strict=True):
        inside = np.zeros((0, 0), dtype=bool)
        if left < right and top < bottom:
            across, first = bilinear_weights(left, right, steps[0], plane.shape[1])
            down, upper = bilinear_weights(top, bottom, steps[1], plane.shape[0])
            part = plane[upper : upper + down.shape[1], first : first + across.shape[1]]
            inside = down @ (part @ across.T) > level
        counts = compress_runs(runs_of_part(inside, left, top, size)).decode()
        found.append({'size': [height, width], 'counts': counts})
    return found


def bilinear_weights(start: int, stop: int, step: float, count: int) -> tuple[FloatArray, int]:
    """The matrix that samples pixels ``start`` to ``stop − 1`` from ``count`` plane pixels, and the first it takes."""
    places = ((np.arange(start, stop) + 0.5) / step - 0.5).clip(0, count - 1)
    first, last = int(places[0]), min(int(places[-1]) + 1, count - 1)
    weights = np.maximum(1 - np.abs(places[:, None] - np.arange(first, last + 1)), 0)
    return weights.astype(np.float32), first


def runs_of_part(inside: BoolArray, left: int, top: int, size: tuple[int, int]) -> IntArray:
    """COCO's run lengths of an image that is empty but for a part, column by column."""
    height, width = size
    framed = np.zeros((inside.shape[1], inside.shape[0] + 2), dtype=bool)
    framed[:, 1:-1] = inside.T
    column, row = np.nonzero(framed[:, 1:] != framed[:, :-1])
    bounds = (left + column) * height + top + row
    # Where a run reaches the bottom and the next begins at the top, they are one.
    meeting = np.flatnonzero(bounds[1:] == bounds[:-1])
    runs = np.diff(np.delete(bounds, [meeting, meeting + 1]), prepend=0, append=height * width)
    return runs if runs[-1] else runs[:-1]
