"""Run lengths of masks, sampled from small planes of logits within boxes: ``hierseg.functional.mask_sampling``."""

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
    """Run lengths of M masks of an image; arguments are those of ``masks_in_boxes`` there."""
    height, width = size
    level = math.log(threshold / (1 - threshold))
    corners = np.concatenate([np.floor(boxes[:, :2]), np.ceil(boxes[:, 2:])], axis=1).clip(0, [width, height] * 2)
    found = []
    for plane, (left, top, right, bottom) in zip(logits, corners.astype(int).tolist(), strict=True):
        inside = np.zeros((0, 0), dtype=bool)
        if left < right and top < bottom:
            across, first = _weights_of_part(left, right, steps[0], plane.shape[1])
            down, upper = _weights_of_part(top, bottom, steps[1], plane.shape[0])
            part = plane[upper : upper + down.shape[1], first : first + across.shape[1]]
            inside = down @ (part @ across.T) > level
        counts = compress_runs(runs_of_part(inside, left, top, size)).decode()
        found.append({'size': [height, width], 'counts': counts})
    return found


def _weights_of_part(start: int, stop: int, step: float, count: int) -> tuple[FloatArray, int]:
    """The matrix that samples pixels ``start`` to ``stop − 1`` from ``count`` plane pixels, and the first it takes."""
    places = ((np.arange(start, stop) + 0.5) / step - 0.5).clip(0, count - 1)
    first, end = int(places[0]), min(int(places[-1]) + 2, count)
    return np.maximum(1 - np.abs(places[:, None] - np.arange(first, end)), 0).astype(np.float32), first


def runs_of_part(inside: BoolArray, left: int, top: int, size: tuple[int, int]) -> IntArray:
    """COCO's run lengths of an image that is empty but for a part, column by column."""
    framed = np.pad(inside.T, ((0, 0), (1, 1)))
    column, row = np.nonzero(framed[:, 1:] != framed[:, :-1])
    bounds = (left + column) * size[0] + top + row
    # Where a run reaches the bottom and the next begins at the top, they are one.
    meeting = np.flatnonzero(bounds[1:] == bounds[:-1])
    runs = np.diff(np.delete(bounds, [meeting, meeting + 1]), prepend=0, append=size[0] * size[1])
    return runs if runs[-1] else runs[:-1]
