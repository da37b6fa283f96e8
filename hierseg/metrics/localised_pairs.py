"""Detections and the objects that they are on, paired whatever their classes: what tells whether names are right.

Average precision asks whether an object was found under its class; here the object is found already, and the
question is what it is called. Only regular objects with a mask count: a group is several objects, and a box without
a mask cannot be compared. Shape letters: R regions (detections), J objects, P pairs, C classes, A absent classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hierseg.errors import EvaluationError
from hierseg.metrics.criteria import OVERLAP_THRESHOLD
from hierseg.metrics.overlaps import mask_overlaps
from hierseg.metrics.records import BoolArray, ImageDetections, ImageGroundTruth, IntArray
from hierseg.taxonomy import TaxonomyArrays

ScoreArray = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class ImagePairs:
    """The pairs of one image.

    Attributes:
        num_objects: Objects that could have been found.
        true_labels: (P,) int64; what the objects are, as annotated: possibly an internal class.
        named_labels: (P,) int64; what the detections name them.
        class_scores: (P, C) float32; the probability of every class that a detection claims, else 0.
        absent: (A,) int64; classes that people verified as absent, with all below them.
    """

    num_objects: int
    true_labels: IntArray
    named_labels: IntArray
    class_scores: ScoreArray
    absent: IntArray


@dataclass(frozen=True, eq=False)
class LocalisedPairs:
    """The pairs of all images.

    Attributes:
        num_objects: Objects that could have been found.
        num_images: Images, those without a pair included.
        image_of: (P,) int64, ascending; position of a pair's image among them.
        true_labels: (P,) int64.
        named_labels: (P,) int64.
        class_scores: (P, C) float32.
        possible: (P, C) bool; classes that the object may be, for all that is known: those that have a class in
            common with the true one, at or below both, that nobody verified as absent on the image. A Person may be
            a Man; a Bear may be a Toy, since a Teddy is both.
    """

    num_objects: int
    num_images: int
    image_of: IntArray
    true_labels: IntArray
    named_labels: IntArray
    class_scores: ScoreArray
    possible: BoolArray

    @classmethod
    def gather(cls, images: Sequence[ImagePairs], arrays: TaxonomyArrays) -> LocalisedPairs:
        """The pairs of images, one after another."""
        num_classes = len(arrays.depths)
        counts = np.array([len(image.true_labels) for image in images], dtype=np.int64)
        no_labels: IntArray = np.zeros(0, dtype=np.int64)
        true_labels = np.concatenate([no_labels, *(image.true_labels for image in images)])
        image_of = np.repeat(np.arange(len(images)), counts)
        below_true = arrays.ancestor_mask.T[true_labels]
        for image, first, count in zip(images, np.cumsum(counts) - counts, counts, strict=True):
            below_true[first : first + count, image.absent] = False
        shared = below_true.astype(np.float32) @ arrays.ancestor_mask.astype(np.float32)
        no_scores: ScoreArray = np.zeros((0, num_classes), dtype=np.float32)
        return cls(
            num_objects=sum(image.num_objects for image in images),
            num_images=len(images),
            image_of=image_of,
            true_labels=true_labels,
            named_labels=np.concatenate([no_labels, *(image.named_labels for image in images)]),
            class_scores=np.concatenate([no_scores, *(image.class_scores for image in images)]),
            possible=shared > 0.5,
        )

    def __len__(self) -> int:
        return len(self.true_labels)

    @property
    def match_rate(self) -> float:
        """Part of the objects that were found; nan without any."""
        return len(self) / self.num_objects if self.num_objects else float('nan')


def pair_image(
    ground_truth: ImageGroundTruth,
    detections: ImageDetections,
    *,
    named_labels: IntArray,
    absent: IntArray,
    num_classes: int,
    score_threshold: float = 0.0,
) -> ImagePairs:
    """Pairs the detections of one image with its objects.

    In descending order of their most probable class, each detection takes the object that its mask overlaps most
    among those that none took before it, if the overlap is at least 0.5. Classes play no part.

    Args:
        ground_truth: Its objects with their masks, as annotated: not expanded.
        detections: Its detections with their masks.
        named_labels: (R,) int64; what they name.
        absent: (A,) int64; classes verified as absent, expanded to all below them.
        num_classes: C.
        score_threshold: Detections whose most probable class is less probable do not count.

    Raises:
        EvaluationError: If the detections have no masks.
    """
    if detections.mask_areas is None:
        raise EvaluationError('the detections have no masks', fix='The model must predict masks.')
    class_scores: ScoreArray = np.zeros((len(detections.masks), num_classes), dtype=np.float32)
    class_scores[detections.regions, detections.labels] = detections.scores
    best = class_scores.max(axis=1, initial=0)
    usable = np.flatnonzero((detections.mask_areas > 0) & (best > 0) & (best >= score_threshold))
    regions = usable[np.argsort(-best[usable], kind='stable')]
    objects = np.flatnonzero((ground_truth.mask_areas > 0) & ~ground_truth.group_of)
    chosen = _greedy_pairs(ground_truth, detections, objects, regions)
    return ImagePairs(
        num_objects=len(objects),
        true_labels=ground_truth.labels[objects[chosen[:, 1]]],
        named_labels=named_labels[regions[chosen[:, 0]]],
        class_scores=class_scores[regions[chosen[:, 0]]],
        absent=absent,
    )


def _greedy_pairs(
    ground_truth: ImageGroundTruth, detections: ImageDetections, objects: IntArray, regions: IntArray
) -> IntArray:
    """(P, 2) int64; positions in ``regions``, which are in the order of choosing, and in ``objects``."""
    chosen: list[tuple[int, int]] = []
    if len(objects) and len(regions) and ground_truth.size is not None and detections.mask_areas is not None:
        iou, _ = mask_overlaps(
            [detections.masks[region] for region in regions],
            detections.mask_areas[regions],
            [ground_truth.masks[index] for index in objects],
            ground_truth.mask_areas[objects],
            ground_truth.size,
        )
        for at in range(len(regions)):
            taken = int(iou[at].argmax())
            if iou[at, taken] >= OVERLAP_THRESHOLD:
                chosen.append((at, taken))
                iou[:, taken] = 0
    return np.array(chosen, dtype=np.int64).reshape(-1, 2)
