"""Which annotated instances train a detector, said once for data set, cap and counts.

Shape letters: I instances.
"""

from __future__ import annotations

from hierseg.annotations.records import BoolArray, FloatArray

SHORTEST_SIDE = 1.0
"""Pixels; a box with a shorter side trains nothing."""


def trainable(boxes: FloatArray, group_of: BoolArray) -> BoolArray:
    """Instances that are neither group-of boxes nor shorter than a pixel.

    Args:
        boxes: (I, 4) float64; xyxy, pixels.
        group_of: (I,) bool.

    Returns:
        (I,) bool. The others stay in the data as regions to ignore.
    """
    trains: BoolArray = ~group_of
    for start, end in ((0, 2), (1, 3)):  # one side after the other: of millions of boxes, each array counts
        trains &= boxes[:, end] - boxes[:, start] >= SHORTEST_SIDE
    return trains
