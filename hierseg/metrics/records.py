"""What the evaluation of instances takes and gives, as plain arrays.

Shape letters: I ground-truth objects, D detections, R regions (a box and a mask that several detections
may share), V verified labels, S scored entries, G classes with counted ground truth, C classes, P recalls.

Boxes are float64 xyxy in any unit that ground truth and detections of an image share; the official
files normalise them to [0, 1]. Masks are COCO compressed run lengths; ``b''`` means no mask.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from hierseg.errors import EvaluationError

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
IouType = Literal['segm', 'bbox']

DEFAULT_GROUP_OF_WEIGHTS = {'segm': 0.0, 'bbox': 1.0}


def checked_iou_type(iou_type: str) -> IouType:
    """The argument itself.

    Raises:
        EvaluationError: If it is neither ``segm`` nor ``bbox``.
    """
    if iou_type == 'segm':
        return 'segm'
    if iou_type == 'bbox':
        return 'bbox'
    raise EvaluationError(f'unknown iou_type {iou_type!r}', fix="Use 'segm' or 'bbox'.")


@dataclass(frozen=True, eq=False)
class ImageGroundTruth:
    """The objects of one image after expansion and joining.

    Attributes:
        labels: (I,) int64.
        boxes: (I, 4) float64 xyxy.
        group_of: (I,) bool.
        masks: I run lengths; ``b''`` for a box-only object.
        mask_areas: (I,) int64, pixels; 0 for a box-only object.
        verified: (V,) int64; classes verified on the image, present or absent.
        size: Height and width of the masks in pixels; None where the image has none.
    """

    labels: IntArray
    boxes: FloatArray
    group_of: BoolArray
    masks: Sequence[bytes]
    mask_areas: IntArray
    verified: IntArray
    size: tuple[int, int] | None = None


@dataclass(frozen=True, eq=False)
class ImageDetections:
    """The detections of one image, in the order of the submission.

    Attributes:
        labels: (D,) int64.
        scores: (D,) float64, finite.
        regions: (D,) int64; index of the detection's box and mask. A path such as Person > Man is two
            detections on one region.
        boxes: (R, 4) float64 xyxy; for masks the tight box of the mask.
        masks: R run lengths; empty for box detections.
        mask_areas: (R,) int64, pixels; 0 marks a blank mask.
        size: Height and width of the masks in pixels; None for box detections.
    """

    labels: IntArray
    scores: FloatArray
    regions: IntArray
    boxes: FloatArray
    masks: Sequence[bytes] = ()
    mask_areas: IntArray | None = None
    size: tuple[int, int] | None = None


@dataclass(frozen=True, eq=False)
class ImageMatches:
    """What matching leaves of one image: all that average precision needs.

    Attributes:
        image_id: Decides the order of equal scores, so that the result does not depend on the order of images.
        labels: (S,) int64; classes of the scored entries.
        scores: (S,) float64.
        weights: (S,) float64; 0 for a false positive, 1 for a true positive, the group-of weight for a found group.
        counted_labels: (G,) int64; classes with counted ground truth.
        counts: (G,) float64; masked singles + weight × masked groups of each.
    """

    image_id: str
    labels: IntArray
    scores: FloatArray
    weights: FloatArray
    counted_labels: IntArray
    counts: FloatArray


@dataclass(frozen=True, eq=False)
class OpenImagesResult:
    """Average precision of every class by one criterion, by the Open Images Challenge protocol.

    Attributes:
        average_precision: (C,) float64; nan for classes without counted ground truth.
        precision_curves: (C, P) float64; the precision envelope at recall 0, 0.01, …, 1; nan where there is no value.
        num_ground_truth: (C,) float64; counted ground truth.
        num_scored: (C,) int64; entries that are true or false positives.
        num_true_positives: (C,) float64; sum of the weights.
        num_images: Images with ground truth.
    """

    average_precision: FloatArray
    precision_curves: FloatArray
    num_ground_truth: FloatArray
    num_scored: IntArray
    num_true_positives: FloatArray
    num_images: int

    @property
    def has_value(self) -> BoolArray:
        """(C,) bool; classes that count in the mean."""
        return ~np.isnan(self.average_precision)

    @property
    def num_classes_evaluated(self) -> int:
        """Number of classes with a value."""
        return int(self.has_value.sum())

    @property
    def mean_average_precision(self) -> float:
        """Mean over all classes with a value; nan if there is none."""
        return self.mean_over(range(len(self.average_precision)))

    def mean_over(self, labels: Sequence[int]) -> float:
        """Mean over those of ``labels`` that have a value; nan if none has."""
        return mean_over_classes(self.average_precision, labels)

    def mean_curve(self, labels: Sequence[int]) -> FloatArray:
        """(P,) float64; mean of the curves of those of ``labels`` that have one; nan if none has."""
        return _mean_over(self.precision_curves, labels)

    def to_json(self, class_ids: Sequence[str]) -> dict[str, Any]:
        """The document that the command writes: ``mAP``, ``num_classes_evaluated`` and ``AP`` by class id.

        Values that do not exist are None.
        """
        values = [None if np.isnan(value) else float(value) for value in self.average_precision]
        mean = self.mean_average_precision
        return {
            'mAP': None if np.isnan(mean) else mean,
            'num_classes_evaluated': self.num_classes_evaluated,
            'AP': dict(zip(class_ids, values, strict=True)),
        }


def mean_over_thresholds(results: Iterable[OpenImagesResult]) -> FloatArray:
    """Mean of the average precision of every class over overlap thresholds, such as 0.5, 0.55, …, 0.95.

    Args:
        results: Of the same images, classes and range of area.

    Returns:
        (C,) float64; nan for classes without counted ground truth.

    Raises:
        EvaluationError: If there is no result, or their ground truth differs.
    """
    listed = list(results)
    if not listed:
        raise EvaluationError('there is nothing to average', fix='Give the result of at least one threshold.')
    if any(not np.array_equal(listed[0].num_ground_truth, result.num_ground_truth) for result in listed):
        raise EvaluationError(
            'the results differ in their ground truth', fix='Average over thresholds, not over images or sizes.'
        )
    mean: FloatArray = np.mean([result.average_precision for result in listed], axis=0)
    return mean


def mean_over_classes(values: FloatArray, labels: Sequence[int]) -> float:
    """Mean over those of ``labels`` whose value is not nan; nan if there is none.

    Args:
        values: (C,) float64.
        labels: Classes; see :func:`hierseg.metrics.class_groups`.
    """
    return float(_mean_over(values, labels))


def _mean_over(values: FloatArray, labels: Sequence[int]) -> FloatArray:
    """Mean over the rows of ``labels`` that are not nan; a row is nan in all places or in none."""
    rows = values[np.asarray(labels, dtype=np.int64)]
    rows = rows[~np.isnan(rows).any(axis=tuple(range(1, rows.ndim)))]
    mean: FloatArray = rows.mean(axis=0) if len(rows) else np.full(values.shape[1:], np.nan)
    return mean
