"""Which boxes of other classes are painted grey before a layer is trained.

An object that is labelled with a root class alone (Person) may be an instance of a class of layer 1 (Man).
Dropping its label there would teach "no object", so it is hidden, unless that would hide a labelled object too.

Shape letters: B boxes that may be painted, T target boxes, M instances of all images, P pairs.
"""

from __future__ import annotations

import numpy as np

from hierseg.annotations.records import BoolArray, FloatArray, IntArray

LARGEST_COVERED_SHARE = 0.25
"""A box that covers more of a target box than this is spared."""
PAIRS_AT_ONCE = 1 << 21
"""Pairs of boxes that are compared in one go: about 300 MB."""


def covers(boxes: FloatArray, targets: FloatArray) -> BoolArray:
    """Whether a box hides more than a quarter of a target box: intersection / target area > 0.25.

    Args:
        boxes: (..., 4) float64; xyxy, pixels.
        targets: (..., 4) float64; likewise, broadcast against ``boxes``.

    Returns:
        (...) bool; never true of a target without area.

    Example:
        >>> covers(np.array([0.0, 0.0, 5.0, 10.0]), np.array([[0.0, 0, 20, 10], [0.0, 0, 19, 10]])).tolist()
        [False, True]
    """
    sides = np.minimum(boxes[..., 2:], targets[..., 2:]) - np.maximum(boxes[..., :2], targets[..., :2])
    intersections = np.prod(np.maximum(sides, 0.0), axis=-1)
    areas = np.prod(targets[..., 2:] - targets[..., :2], axis=-1)
    covered: BoolArray = intersections > LARGEST_COVERED_SHARE * areas
    return covered


def spared(boxes: FloatArray, targets: FloatArray) -> BoolArray:
    """(B,) bool: which of one image's boxes (B, 4) are not painted, for the sake of its targets (T, 4)."""
    hides: BoolArray = np.logical_or.reduce(covers(boxes[:, None], targets[None]), axis=1)
    return hides


def spared_everywhere(
    boxes: FloatArray, images: IntArray, candidates: BoolArray, targets: BoolArray, *, num_images: int
) -> BoolArray:
    """:func:`spared` for all images at once.

    Args:
        boxes: (M, 4) float64; xyxy, pixels.
        images: (M,) int64; the image of each, ascending.
        candidates: (M,) bool; boxes that may be painted.
        targets: (M,) bool; instances of the layer.
        num_images: How many images there are.

    Returns:
        (M,) bool, true for spared candidates alone.
    """
    candidate_rows, target_rows = np.flatnonzero(candidates), np.flatnonzero(targets)
    targets_of_image = np.bincount(images[target_rows], minlength=num_images)
    first_target = np.cumsum(targets_of_image) - targets_of_image
    num_pairs = targets_of_image[images[candidate_rows]]
    result = np.zeros(len(boxes), dtype=bool)
    # Steps end between candidates, at every PAIRS_AT_ONCE pairs or so.
    steps = np.cumsum(num_pairs) // PAIRS_AT_ONCE
    for part in np.split(np.arange(len(candidate_rows)), np.flatnonzero(np.diff(steps)) + 1):
        counts = num_pairs[part]
        first = np.repeat(np.arange(len(part)), counts)
        within = np.arange(len(first)) - np.repeat(np.cumsum(counts) - counts, counts)
        rows = candidate_rows[part][first]
        hides = covers(boxes[rows], boxes[target_rows[first_target[images[rows]] + within]])
        result[rows[hides]] = True
    return result
