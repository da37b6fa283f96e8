"""Detections and the objects that they are on, paired whatever their classes: what tells whether names are right.

Average precision asks whether an object was found under its class; here the object is found already, and the
question is what it is called. Only regular objects with a mask count: a group is several objects, and a box without
a mask cannot be compared.

Shape letters: R detections, D of them that count, I objects, J of them that count, P pairs, M missed objects,
C classes, A absent classes, N images.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hierseg.formats import BoolArray, IntArray
from hierseg.metrics.intervals import ImageSums
from hierseg.metrics.matching import overlaps_of_masks
from hierseg.metrics.records import OVERLAP_THRESHOLD, ImageGroundTruth, ImagePrediction
from hierseg.taxonomy import TaxonomyArrays

ScoreArray = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class ImagePairs:
    """The pairs of one image.

    Attributes:
        image_id: The image.
        true_labels: (P,) int64; what the objects are, as annotated: possibly an internal class.
        named_labels: (P,) int64; what the detections name them.
        class_scores: (P, C) float32; the probability of every class that a detection claims, else 0.
        missed_labels: (M,) int64; what the objects are that were not found.
        absent: (A,) int64; classes that people verified as absent, with all below them.
    """

    image_id: str
    true_labels: IntArray
    named_labels: IntArray
    class_scores: ScoreArray
    missed_labels: IntArray
    absent: IntArray


@dataclass(frozen=True, eq=False)
class LocalisedPairs:
    """The pairs of all images.

    Attributes:
        image_ids: N ids, those of images without a pair included.
        image_of: (P,) int64, ascending; position of a pair's image among them.
        true_labels: (P,) int64.
        named_labels: (P,) int64.
        class_scores: (P, C) float32.
        possible: (P, C) bool; classes that the object may be; see :func:`possible_names`.
        missed_image_of: (M,) int64, ascending; position of a missed object's image.
        missed_labels: (M,) int64.
    """

    image_ids: tuple[str, ...]
    image_of: IntArray
    true_labels: IntArray
    named_labels: IntArray
    class_scores: ScoreArray
    possible: BoolArray
    missed_image_of: IntArray
    missed_labels: IntArray

    @classmethod
    def gather(cls, images: Sequence[ImagePairs], arrays: TaxonomyArrays) -> LocalisedPairs:
        """The pairs of images, one after another."""
        num_classes, count = len(arrays.depths), len(images)
        image_of = np.repeat(np.arange(count), [len(image.true_labels) for image in images])
        true_labels = _joined(image.true_labels for image in images)
        absent = np.zeros((count, num_classes), dtype=bool)
        for row, image in zip(absent, images, strict=True):
            row[image.absent] = True
        no_scores: ScoreArray = np.zeros((0, num_classes), dtype=np.float32)
        return cls(
            image_ids=tuple(image.image_id for image in images),
            image_of=image_of,
            true_labels=true_labels,
            named_labels=_joined(image.named_labels for image in images),
            class_scores=np.concatenate([no_scores, *(image.class_scores for image in images)]),
            possible=possible_names(true_labels, absent[image_of], arrays),
            missed_image_of=np.repeat(np.arange(count), [len(image.missed_labels) for image in images]),
            missed_labels=_joined(image.missed_labels for image in images),
        )

    def __len__(self) -> int:
        return len(self.true_labels)

    @property
    def num_images(self) -> int:
        """N, images without a pair included."""
        return len(self.image_ids)

    @property
    def num_objects(self) -> int:
        """Objects that could have been found."""
        return len(self) + len(self.missed_labels)

    @property
    def match_sums(self) -> ImageSums:
        """Part of the objects that were found."""
        found, missed = (
            np.bincount(image_of, minlength=self.num_images).astype(np.float64)
            for image_of in (self.image_of, self.missed_image_of)
        )
        return ImageSums(self.image_ids, found, found + missed)

    def judged(self, named: IntArray, arrays: TaxonomyArrays) -> tuple[BoolArray, BoolArray]:
        """(P,) which of (P,) names are the true class or an ancestor of it, and (P,) of which it is known."""
        correct: BoolArray = arrays.ancestor_mask[self.true_labels, named]
        known: BoolArray = correct | ~self.possible[np.arange(len(named)), named]
        return correct, known

    def image_sums(self, values: npt.NDArray[Any], counted: BoolArray) -> ImageSums:
        """The mean of (P,) values over the pairs that count, as sums over the pairs of each image."""
        numerators, denominators = (
            np.bincount(self.image_of[counted], weights, self.num_images).astype(np.float64)
            for weights in (values[counted], None)
        )
        return ImageSums(self.image_ids, numerators, denominators)


def possible_names(true_labels: IntArray, absent: BoolArray, arrays: TaxonomyArrays) -> BoolArray:
    """(P, C) bool; classes that objects may be, for all that is known.

    Those that have a class in common with the true one, at or below both, that nobody verified as absent on the
    image. A Person may be a Man; a Bear may be a Toy, since a Teddy is both.

    Args:
        true_labels: (P,) int64; as annotated.
        absent: (P, C) bool; classes verified as absent on the object's image, with all below them.
        arrays: The taxonomy.
    """
    below_true = arrays.ancestor_mask.T[true_labels] & ~absent
    shared = below_true.astype(np.float32) @ arrays.ancestor_mask.astype(np.float32)
    possible: BoolArray = shared > 0.5
    return possible


def pair_image(
    ground_truth: ImageGroundTruth,
    prediction: ImagePrediction,
    *,
    common: IntArray,
    absent: IntArray,
    score_threshold: float = 0.0,
) -> ImagePairs:
    """Pairs the detections of one image with its objects.

    In descending order of their most probable class, each detection takes the object that its mask overlaps most
    among those that none took before it, if the overlap is at least 0.5. Classes play no part. An object that none
    takes is *missed*, here and wherever else hierseg says so.

    Args:
        ground_truth: Its objects with their masks, as annotated: not expanded.
        prediction: Its detections with their masks.
        common: (R, I) int64; pixels that detections and objects have in common.
        absent: (A,) int64; classes verified as absent, expanded to all below them.
        score_threshold: Detections whose most probable class is less probable do not count.

    Raises:
        EvaluationError: If the detections have no masks.
    """
    best, order = counted_detections(prediction)
    regions = order[best >= score_threshold]
    objects = single_objects(ground_truth)
    taken = take_objects(overlaps_with_objects(ground_truth, prediction, common)[0][np.ix_(regions, objects)])
    pairs = np.flatnonzero(taken >= 0)
    return ImagePairs(
        image_id=prediction.image_id,
        true_labels=ground_truth.labels[objects[taken[pairs]]],
        named_labels=prediction.named_labels[regions[pairs]],
        class_scores=prediction.class_scores[regions[pairs]].astype(np.float32),
        missed_labels=ground_truth.labels[np.delete(objects, taken[pairs])],
        absent=absent,
    )


def counted_detections(prediction: ImagePrediction) -> tuple[ScoreArray, IntArray]:
    """Detections that count, blank masks left out, in descending order of their most probable class.

    Returns:
        (D,) float32 probabilities of that class and (D,) int64 indices of the detections.
    """
    best: ScoreArray = prediction.class_scores.max(axis=1, initial=0).astype(np.float32)
    counted = np.flatnonzero((prediction.measured_areas > 0) & (best > 0))
    order = counted[np.argsort(-best[counted], kind='stable')]
    return best[order], order


def single_objects(ground_truth: ImageGroundTruth) -> IntArray:
    """(J,) int64; the objects that can be found or missed: those with a mask that are no groups."""
    return np.flatnonzero((ground_truth.mask_areas > 0) & ~ground_truth.group_of)


def overlaps_with_objects(
    ground_truth: ImageGroundTruth, prediction: ImagePrediction, common: IntArray
) -> tuple[ScoreArray, ScoreArray]:
    """(R, I) float32 intersection over union and over the detection's area; 0 where a mask is missing or blank.

    Arguments are those of :func:`pair_image`.
    """
    # Two blank masks have no union: they count as one pixel that is not shared.
    return overlaps_of_masks(common, np.maximum(prediction.measured_areas, 1)[:, None], ground_truth.mask_areas[None])


def take_objects(overlaps: ScoreArray) -> IntArray:
    """Lets detections in their order take the object that they overlap most among those not taken yet.

    Overlaps are (D, J); from 0.5 on a detection takes an object. Returned are (D,) objects, -1 for none.
    """
    overlaps, taken = overlaps.copy(), np.full(len(overlaps), -1, dtype=np.int64)
    for at in range(len(overlaps) if overlaps.size else 0):
        best = int(overlaps[at].argmax())
        if overlaps[at, best] >= OVERLAP_THRESHOLD:
            taken[at] = best
            overlaps[:, best] = 0
    return taken


def _joined(labels: Iterable[IntArray]) -> IntArray:
    return np.concatenate([np.zeros(0, dtype=np.int64), *labels])
