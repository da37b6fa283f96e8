"""Which annotated instances train a detector, said once for data set, cap and counts.

Shape letters: I instances.
"""

from __future__ import annotations

import numpy as np

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
    shortest_sides = np.minimum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])
    trains: BoolArray = (shortest_sides >= SHORTEST_SIDE) & ~group_of
    return trains
