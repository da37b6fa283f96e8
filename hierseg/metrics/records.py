"""Records of the evaluation as plain arrays: ground truth and its expansion, predictions, criteria, results.

Shape letters: I ground-truth objects, D claims, R detections, V verified labels, S scored entries, G classes with
counted ground truth, C classes, P recalls, K criteria, N rows or areas.

Boxes are float64 xyxy in any unit that ground truth and detections of an image share; the official
files normalise them to [0, 1]. Masks are COCO compressed run lengths; ``b''`` means no mask.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from enum import IntEnum
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from hierseg.errors import EvaluationError
from hierseg.formats import BoolArray, FloatArray, IntArray
from hierseg.taxonomy import Taxonomy

IouType = Literal['segm', 'bbox']

DEFAULT_GROUP_OF_WEIGHTS = {'segm': 0.0, 'bbox': 1.0}


def checked_iou_type(iou_type: str) -> IouType:
    """The argument itself; an EvaluationError if it is neither ``segm`` nor ``bbox``."""
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
        not_exhaustive: int64; classes of which there may be objects beyond these, expanded to all above them. What
            finds no object of such a class is ignored (the rule of LVIS). Open Images has none.
    """

    labels: IntArray
    boxes: FloatArray
    group_of: BoolArray
    masks: Sequence[bytes]
    mask_areas: IntArray
    verified: IntArray
    size: tuple[int, int] | None = None
    not_exhaustive: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))


@dataclass(frozen=True, eq=False)
class ImagePrediction:
    """The detections of one image: what a model gives, a submission holds, measures judge and pages show.

    Attributes:
        image_id: Id of the image.
        boxes: (R, 4) float64 xyxy, parts of the image's size.
        class_scores: (R, C) float; the probability of every class that a detection claims, else 0.
        named_labels: (R,) int64; the class that each names.
        masks: R run lengths; empty for detections without masks.
        mask_areas: (R,) int64, pixels; 0 marks a blank mask; None for detections without masks.
        size: Height and width of the masks in pixels; None likewise.
        image_path: The file of the image; None where it is not known.
    """

    image_id: str
    boxes: FloatArray
    class_scores: npt.NDArray[np.floating[Any]]
    named_labels: IntArray
    masks: Sequence[bytes] = ()
    mask_areas: IntArray | None = None
    size: tuple[int, int] | None = None
    image_path: str | None = None

    def claims(self) -> ImageDetections:
        """Every class of positive probability as a claim on its detection; detection after detection."""
        regions, labels = np.nonzero(self.class_scores > 0)
        scores = self.class_scores[regions, labels].astype(np.float64)
        return ImageDetections(labels, scores, regions, self.boxes, self.masks, self.mask_areas, self.size)

    @property
    def measured_areas(self) -> IntArray:
        """The areas of the masks; an EvaluationError if there are none."""
        if self.mask_areas is None:
            raise EvaluationError(
                'the detections have no masks', where=f'image {self.image_id}', fix='The model must predict masks.'
            )
        return self.mask_areas

    @property
    def named_scores(self) -> FloatArray:
        """(R,) float64; the probability of the class that each detection names."""
        scores: FloatArray = self.class_scores[np.arange(len(self.named_labels)), self.named_labels].astype(np.float64)
        return scores


@dataclass(frozen=True, eq=False)
class ImageDetections:
    """Claims on one image, in the order of the submission: rows of the official file, and what is matched by class.

    Attributes:
        labels: (D,) int64.
        scores: (D,) float64, finite.
        regions: (D,) int64; index of the claim's box and mask. Person > Man is two claims on one region.
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
    """Record that matching leaves of one image: all that average precision needs.

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
        return float(mean_over_classes(self.average_precision, labels))

    def mean_curve(self, labels: Sequence[int]) -> FloatArray:
        """(P,) float64; mean of the curves of those of ``labels`` that have one; nan if none has."""
        return mean_over_classes(self.precision_curves, labels)

    def to_json(self, class_ids: Sequence[str]) -> dict[str, Any]:
        """The document that the command writes: means, and ``AP`` by class id; None for a value that does not exist."""
        mean, *values = (
            None if math.isnan(value) else value
            for value in (self.mean_average_precision, *self.average_precision.tolist())
        )
        return {
            'mAP': mean,
            'num_classes_evaluated': self.num_classes_evaluated,
            'AP': dict(zip(class_ids, values, strict=True)),
        }


def mean_over_classes(values: FloatArray, labels: Sequence[int]) -> FloatArray:
    """Mean over those rows of ``labels`` that are not nan; nan if there is none.

    Args:
        values: (C, ...) float64; a row is nan in all places or in none.
        labels: Classes.
    """
    rows = values[np.asarray(labels, dtype=np.int64)]
    rows = rows[~np.isnan(rows).any(axis=tuple(range(1, rows.ndim)))]
    mean: FloatArray = rows.mean(axis=0) if len(rows) else np.full(values.shape[1:], np.nan)
    return mean


OVERLAP_THRESHOLD = 0.5
IOU_THRESHOLDS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
"""Those of COCO."""
ANY_AREA = (0.0, math.inf)
AREA_RANGES = {'small': (0.0, 32**2), 'medium': (32**2, 96**2), 'large': (96**2, math.inf)}
"""Least and greatest area in pixels by size of object, as in COCO."""


@dataclass(frozen=True)
class Criterion:
    """Condition that average precision is computed under; an EvaluationError if a value is out of range.

    Attributes:
        iou_threshold: Least overlap, above 0 and at most 1: intersection over union with a single object and
            intersection over the detection's area with a group, as in the reference evaluator and COCO's crowds.
        area_range: Least and greatest area of an object's mask in pixels, both included as in COCO: an object of
            exactly 32² pixels is small and medium.
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

    def contains(self, areas: IntArray) -> BoolArray:
        """(N,) bool; which areas, in pixels, are within the range."""
        low, high = self.area_range
        inside: BoolArray = (areas >= low) & (areas <= high)
        return inside


OPEN_IMAGES = Criterion()
"""That of the Open Images Challenge: overlap 0.5, every size."""


class Verdict(IntEnum):
    """Verdict of a criterion on a detection."""

    REMOVED = 0
    FALSE_POSITIVE = 1
    TRUE_POSITIVE = 2
    GROUP_FOUND = 3
    """The best detection in a group that counts."""


@dataclass(frozen=True, eq=False)
class ImageMatchTable:
    """Record that matching leaves of one image, for several criteria: a byte for each criterion and detection.

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


@dataclass(frozen=True, eq=False)
class Expansion:
    """Repeats rows for the classes that they imply: what is a Man is a Person, what has no Person has no Man.

    Rule 1 of the Open Images protocol: boxes, masks and labels verified as present are copied to all
    ancestors by every path, labels verified as absent to all descendants. An ancestor that several paths
    reach gets one copy. Predictions are never expanded.

    Attributes:
        above: (C + 1,) and (P,) int64; the classes that v implies are those from ``above[0][v]`` to before
            ``above[0][v + 1]`` of the second.
        below: The classes whose absence the absence of v implies, likewise.
    """

    above: tuple[IntArray, IntArray]
    below: tuple[IntArray, IntArray]

    @classmethod
    def of(cls, taxonomy: Taxonomy) -> Expansion:
        """Expansion through the taxonomy."""
        arrays = taxonomy.arrays
        return cls((arrays.starts, arrays.at_or_above), arrays.rows_below[:2])

    @classmethod
    def none(cls, num_classes: int) -> Expansion:
        """For files that are expanded already: every row stays what it is."""
        itself = np.arange(num_classes + 1), np.arange(num_classes)
        return cls(itself, itself)

    def upward(self, labels: IntArray) -> tuple[IntArray, IntArray]:
        """Copies N rows to their ancestors: (M,) indices of the rows to repeat, ascending, and (M,) new labels."""
        return _copies(*self.above, labels)

    def downward(self, labels: IntArray) -> tuple[IntArray, IntArray]:
        """Copies rows to their descendants, likewise."""
        return _copies(*self.below, labels)

    def verified(self, positive: IntArray, negative: IntArray) -> IntArray:
        """Classes of one image that are verified, directly or by implication, ascending and unique."""
        labels: IntArray = np.unique(np.concatenate([self.upward(positive)[1], self.downward(negative)[1]]))
        return labels


def _copies(starts: IntArray, classes: IntArray, labels: IntArray) -> tuple[IntArray, IntArray]:
    begin = starts[labels]
    rows, nth = repeated(starts[labels + 1] - begin)
    return rows, classes[begin[rows] + nth]


def check_once(ascending: Sequence[str]) -> None:
    """Raises an EvaluationError if one of the image ids, which ascend, occurs twice."""
    for image, following in pairwise(ascending):
        if image == following:
            raise EvaluationError('the image occurs twice', where=f'image {image}', fix='Each image counts once.')


def repeated(counts: IntArray) -> tuple[IntArray, IntArray]:
    """(M,) index of each thing as often as it counts, and (M,) the number of each repetition, from 0."""
    which = np.repeat(np.arange(len(counts)), counts)
    return which, np.arange(len(which)) - np.repeat(np.cumsum(counts) - counts, counts)


@dataclass(frozen=True, eq=False)
class InstanceRows:
    """Rows of a box or mask table.

    Attributes:
        images: (N,) int64; index of the image.
        labels: (N,) int64.
        boxes: (N, 4) float64 xyxy.
        group_of: (N,) bool.
        sources: (N,) int64; row of the file that the row was expanded from.
    """

    images: IntArray
    labels: IntArray
    boxes: FloatArray
    group_of: BoolArray
    sources: IntArray

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: IntArray) -> InstanceRows:
        """The given rows."""
        return self.expanded(rows, self.labels[rows])

    def expanded(self, rows: IntArray, labels: IntArray) -> InstanceRows:
        """The given rows with new labels."""
        return InstanceRows(self.images[rows], labels, self.boxes[rows], self.group_of[rows], self.sources[rows])


def join_boxes_and_masks(boxes: InstanceRows, masks: InstanceRows) -> tuple[InstanceRows, IntArray]:
    """Joins box rows with mask rows into objects: rule 2 of the Open Images protocol.

    An outer join on image, class, the four coordinates as floats and the group-of flag. k box rows and m
    mask rows with one key make k × m objects; a box row alone makes a box-only object, a mask row alone an
    object with that mask.

    Returns:
        I objects and (I,) int64 the ``sources`` of their mask rows, -1 without one. Objects are sorted by
        image, class, coordinates (x1, x2, y1, y2) and group-of flag, as the reference's join sorts them:
        where overlaps tie, the first object is the one that a detection tries.
    """
    both = InstanceRows(
        *(np.concatenate([getattr(boxes, part.name), getattr(masks, part.name)]) for part in fields(InstanceRows))
    )
    if not len(both):
        return both, np.zeros(0, dtype=np.int64)
    x1, y1, x2, y2 = both.boxes.T
    keys = (both.images, both.labels, x1, x2, y1, y2, both.group_of)
    order = np.lexsort(keys[::-1])  # stable: within one key box rows come first, in file order
    differs = np.zeros(len(both), dtype=bool)
    for key in keys:
        differs[1:] |= key[order][1:] != key[order][:-1]
    group = np.cumsum(differs)
    is_box = order < len(boxes)
    num_boxes = np.bincount(group, weights=is_box).astype(np.int64)
    num_masks = np.bincount(group, weights=~is_box).astype(np.int64)
    first = np.cumsum(num_boxes + num_masks) - num_boxes - num_masks

    # The objects of a group: its box rows (or one stand-in) times its mask rows (or one stand-in).
    per_box = np.maximum(num_masks, 1)
    num_objects = np.maximum(num_boxes, 1) * per_box
    of_group, nth = repeated(num_objects)
    box_position = first[of_group] + nth // per_box[of_group]
    mask_position = first[of_group] + num_boxes[of_group] + nth % per_box[of_group]
    has_mask = num_masks[of_group] > 0
    mask_sources = np.full(len(of_group), -1, dtype=np.int64)
    mask_sources[has_mask] = both.sources[order[mask_position[has_mask]]]
    return both.take(order[box_position]), mask_sources
