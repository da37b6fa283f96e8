"""When a detection counts as found: the overlap that it needs, and the size of object that is asked for.

Shape letters: K criteria, S detections that a criterion scores, G classes with ground truth, N areas.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from hierseg.errors import EvaluationError
from hierseg.metrics.records import BoolArray, FloatArray, ImageMatches, IntArray

OVERLAP_THRESHOLD = 0.5
IOU_THRESHOLDS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
"""Those of COCO."""
ANY_AREA = (0.0, math.inf)


@dataclass(frozen=True)
class Criterion:
    """What average precision is asked for.

    Attributes:
        iou_threshold: Least overlap, above 0 and at most 1: intersection over union with a single object and
            intersection over the detection's area with a group. The reference evaluator has one threshold for both,
            and so has COCO with its crowds.
        area_range: Least and greatest area of an object's mask in pixels, both included as in COCO: an object of
            exactly 32² pixels is small and medium.

    Raises:
        EvaluationError: If a value is out of range.
    """

    iou_threshold: float = OVERLAP_THRESHOLD
    area_range: tuple[float, float] = ANY_AREA

    def __post_init__(self) -> None:
        if not 0 < self.iou_threshold <= 1:
            raise EvaluationError(f'iou_threshold={self.iou_threshold}', fix='It must be above 0 and at most 1.')
        low, high = self.area_range
        if not 0 <= low <= high:
            raise EvaluationError(
                f'area_range={self.area_range}', fix='Give the least area in pixels, then the greatest.'
            )

    @property
    def has_any_area(self) -> bool:
        """Whether objects of every size count."""
        return self.area_range == ANY_AREA

    def contains(self, areas: IntArray) -> BoolArray:
        """(N,) bool; which areas, in pixels, are within the range."""
        low, high = self.area_range
        inside: BoolArray = (areas >= low) & (areas <= high)
        return inside


OPEN_IMAGES = Criterion()
"""That of the Open Images Challenge: overlap 0.5, every size."""


def area_ranges(small_to: float = 32**2, medium_to: float = 96**2) -> dict[str, tuple[float, float]]:
    """Ranges of area for small, medium and large objects; COCO's by default.

    Args:
        small_to: Greatest area of a small object and least of a medium one, in pixels.
        medium_to: Greatest area of a medium object and least of a large one, in pixels.

    Raises:
        EvaluationError: If they do not ascend.

    Example:
        >>> area_ranges()
        {'small': (0.0, 1024), 'medium': (1024, 9216), 'large': (9216, inf)}
    """
    if not 0 < small_to < medium_to:
        raise EvaluationError(f'sizes up to {small_to} and {medium_to} pixels', fix='The bounds must ascend.')
    return {'small': (0.0, small_to), 'medium': (small_to, medium_to), 'large': (medium_to, math.inf)}


class Verdict(IntEnum):
    """What a criterion makes of a detection."""

    REMOVED = 0
    FALSE_POSITIVE = 1
    TRUE_POSITIVE = 2
    GROUP_FOUND = 3
    """The best detection in a group that counts."""


@dataclass(frozen=True, eq=False)
class ImageMatchTable:
    """What matching leaves of one image, for several criteria: a byte for each criterion and detection.

    Attributes:
        image_id: As of :class:`ImageMatches`.
        criteria: K criteria.
        labels: (S,) int64, ascending; classes of the detections that at least one criterion scores.
        scores: (S,) float64, descending within a class.
        verdicts: (K, S) uint8; values of :class:`Verdict`.
        counted_labels: (G,) int64; classes with ground truth.
        counts: (K, G) float64; counted ground truth of each.
        group_of_weight: What finding a group counts.
    """

    image_id: str
    criteria: tuple[Criterion, ...]
    labels: IntArray
    scores: FloatArray
    verdicts: npt.NDArray[np.uint8]
    counted_labels: IntArray
    counts: FloatArray
    group_of_weight: float

    def at(self, index: int) -> ImageMatches:
        """The matches by the criterion of that index."""
        verdicts = self.verdicts[index]
        kept = np.flatnonzero(verdicts != Verdict.REMOVED)
        is_group = verdicts[kept] == Verdict.GROUP_FOUND
        if is_group.any():
            # As in the reference, found groups come behind the singles of their class: it decides ties of scores.
            kept = kept[np.lexsort((is_group, self.labels[kept]))]
        return ImageMatches(
            image_id=self.image_id,
            labels=self.labels[kept],
            scores=self.scores[kept],
            weights=np.array([0.0, 0.0, 1.0, self.group_of_weight])[verdicts[kept]],
            counted_labels=self.counted_labels,
            counts=self.counts[index],
        )
