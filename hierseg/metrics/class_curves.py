"""Curves of single classes: precision by recall, and F1 by the least score that counts.

Both are of the records that average precision is computed from, so that the area under a curve is the class's average
precision. Shape letters: C classes, K steps of a curve, T thresholds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from hierseg.formats import FloatArray
from hierseg.metrics.average_precision import ClassMatches, matches_by_class, precision_steps
from hierseg.metrics.records import ImageMatches

THRESHOLDS: FloatArray = np.arange(101) / 100
"""(T,) scores from which on detections count."""
MOST_STEPS = 80
"""Of a curve; more would not be seen. Neighbouring steps are joined so that the area stays the same."""


@dataclass(frozen=True, eq=False)
class ClassCurve:
    """The curves of a class, or the mean over classes.

    Attributes:
        recall: (K,) float64, ascending; ends of the steps.
        precision: (K,) float64; from the end of the step before, 0 for the first, to that of its own. Beyond the last
            end no detection is left, and the precision is 0.
        f1: (T,) float64; harmonic mean of precision and recall of the detections with at least that score. 0 where
            there is none.
    """

    recall: FloatArray
    precision: FloatArray
    f1: FloatArray

    @property
    def area(self) -> float:
        """That under the steps: the average precision."""
        return float((np.diff(self.recall, prepend=0.0) * self.precision).sum())

    @property
    def best(self) -> tuple[float, float]:
        """The highest F1, and the lowest threshold that reaches it."""
        at = int(self.f1.argmax())
        return float(self.f1[at]), float(THRESHOLDS[at])


def class_curves(matches: Iterable[ImageMatches], num_classes: int) -> list[ClassCurve | None]:
    """The curves of each class, None for one without counted ground truth.

    Args:
        matches: One record for every image with ground truth, detections or not, in any order.
        num_classes: C.

    Raises:
        EvaluationError: If an image occurs twice.
    """
    return [
        _curve_of(of_class) if of_class.num_ground_truth > 0 else None
        for of_class in matches_by_class(matches, num_classes)
    ]


def mean_curve(curves: Sequence[ClassCurve]) -> ClassCurve:
    """The mean of at least one curve at every recall, whose area is the mean average precision, and of F1."""
    ends = np.unique(np.concatenate([curve.recall for curve in curves]))
    heights = [np.append(curve.precision, 0.0)[np.searchsorted(curve.recall, ends)] for curve in curves]
    f1: FloatArray = np.mean([curve.f1 for curve in curves], axis=0)
    return ClassCurve(*_joined(ends, np.mean(heights, axis=0)), f1)


def _curve_of(of_class: ClassMatches) -> ClassCurve:
    scores, weights, total = of_class.scores, of_class.weights, of_class.num_ground_truth
    order = np.argsort(scores, kind='stable')
    first = np.searchsorted(scores[order], THRESHOLDS)
    found, false = (np.append(np.cumsum(part[order][::-1])[::-1], 0.0)[first] for part in (weights, weights <= 0))
    # 2PR / (P + R) with P = found / (found + false) and R = found / total.
    f1 = 2 * found / (found + false + total)
    return ClassCurve(*_joined(*precision_steps(scores, weights, total)), f1)


def _joined(ends: FloatArray, heights: FloatArray) -> tuple[FloatArray, FloatArray]:
    """At most ``MOST_STEPS`` steps of the same area; equal neighbours are one step."""
    is_last = np.append(np.diff(heights) != 0, True)[: len(ends)]
    ends, heights = ends[is_last], heights[is_last]
    if len(ends) <= MOST_STEPS:
        return ends, heights
    areas = np.cumsum(np.diff(ends, prepend=0.0) * heights)
    last = np.array([part[-1] for part in np.array_split(np.arange(len(ends)), MOST_STEPS)])
    return ends[last], np.diff(areas[last], prepend=0.0) / np.diff(ends[last], prepend=0.0)
