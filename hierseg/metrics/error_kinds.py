"""Kinds of errors: a verdict on each detection of an image, and the objects that were missed.

In the manner of TIDE (Bolya et al., "TIDE: A General Toolbox for Identifying Object Detection Errors", ECCV 2020), but
a wrong name is told by how it is related to the right one. Masks are compared; classes that nobody verified on the
image, groups and objects without a mask count against nobody.

Shape letters: D detections that count, J objects with a mask that are no groups, I all objects, V verified classes,
C classes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from hierseg.formats import BoolArray, FloatArray, IntArray
from hierseg.metrics.declarations import CountedKind
from hierseg.metrics.localised_pairs import (
    ScoreArray,
    counted_detections,
    overlaps_with_objects,
    possible_names,
    single_objects,
    take_objects,
)
from hierseg.metrics.matching import box_overlaps
from hierseg.metrics.records import OVERLAP_THRESHOLD, ImageGroundTruth, ImagePrediction
from hierseg.taxonomy import TaxonomyArrays

BACKGROUND_THRESHOLD = 0.1
"""Detections that overlap no object as much lie on background, as in TIDE."""


class ErrorKind(IntEnum):
    """Kinds of detections; of several that apply, a detection is of the first.

    A name is *compatible* with an object if it is the object's class, an ancestor of it, or what the object may be
    for all that is known (:func:`~hierseg.metrics.localised_pairs.possible_names`). A detection *lies on* an object
    from a mask IoU of 0.5. In descending order of their most probable class, detections take objects that they lie on:
    first all that name the class itself, then all that name an ancestor, then all others with a compatible name. Each
    takes the one that it overlaps most among those not taken.

    Attributes:
        CORRECT: Took an object of the class that it names.
        COARSER: Took an object of a class below the one that it names.
        FINER: Took an object that may be what it names: unknown rather than wrong.
        IGNORED: Its name is compatible with a group within which it lies by at least half of itself, or with an object
            without a mask whose box it overlaps by at least 0.5.
        DUPLICATE: Lies on an object that its name is compatible with and that another detection took.
        SIBLING: Lies on an object of another class that has a parent in common with its name.
        COUSIN: Lies on an object of another class of its branch: with a common ancestor, itself included.
        FAR: Lies on an object of another root class.
        LOCALISATION: Overlaps an object that its name is compatible with by less than 0.5, but at least 0.1.
        UNVERIFIED: None of these, and nobody verified on the image whether there is what it names, or not every object
            of it is annotated: not counted.
        BACKGROUND: None of these.
    """

    CORRECT = 0
    COARSER = 1
    FINER = 2
    IGNORED = 3
    DUPLICATE = 4
    SIBLING = 5
    COUSIN = 6
    FAR = 7
    LOCALISATION = 8
    UNVERIFIED = 9
    BACKGROUND = 10


MISSED = 'missed'
"""The name under which missed objects are counted, which are no detections."""

COUNTED_KINDS = (
    CountedKind('correct', 'correct', 'Found an object and named its class.'),
    CountedKind('coarser', 'coarser', 'Found an object and named an ancestor of its class.'),
    CountedKind('finer', 'finer', 'Found an object annotated coarsely and named what it may be: unknown, not wrong.'),
    CountedKind('duplicate', 'duplicate', 'Fits an object that another detection found.'),
    CountedKind('sibling', 'sibling', 'Lies on an object, and names a sibling of its class.'),
    CountedKind('cousin', 'cousin', 'Lies on an object, and names another class of its branch.'),
    CountedKind('far', 'far', 'Lies on an object of another root class.'),
    CountedKind('localisation', 'localisation', 'The right name, but the mask overlaps the object by 0.1 to 0.5 only.'),
    CountedKind('background', 'background', 'Lies on nothing that is annotated, or hardly.'),
    CountedKind(MISSED, 'missed', 'An object that no detection found.'),
)
"""Those shown; what counts against nobody is not among them."""


@dataclass(frozen=True, eq=False)
class ImageErrors:
    """The detections of an image that count, each with its kind.

    Attributes:
        image_id: The image.
        regions: (D,) int64; which detections, in descending order of their most probable class.
        kinds: (D,) int64 of :class:`ErrorKind`.
        objects: (D,) int64; index of the annotated object that the kind is about, -1 for those without.
        missed: (M,) int64; indices of the objects that no detection took, whatever its name and probability; see
            :func:`~hierseg.metrics.localised_pairs.pair_image`.
    """

    image_id: str
    regions: IntArray
    kinds: IntArray
    objects: IntArray
    missed: IntArray


def error_kinds(
    ground_truth: ImageGroundTruth,
    prediction: ImagePrediction,
    arrays: TaxonomyArrays,
    *,
    common: IntArray,
    absent: IntArray,
    score_threshold: float = 0.0,
) -> ImageErrors:
    """Finds the kind of every detection of an image, blank masks left out.

    Args:
        ground_truth: Its objects with their masks, as annotated: not expanded.
        prediction: Its detections with their masks.
        arrays: The taxonomy.
        common: (R, I) int64; pixels that detections and objects have in common.
        absent: (A,) int64; classes verified as absent, expanded to all below them.
        score_threshold: Detections whose most probable class is less probable get no kind; they still find objects.

    Raises:
        EvaluationError: If the detections have no masks.
    """
    best, order = counted_detections(prediction)
    regions, singles = order[best >= score_threshold], single_objects(ground_truth)
    ious, within = overlaps_with_objects(ground_truth, prediction, common)
    missed = np.setdiff1d(np.arange(len(singles)), take_objects(ious[np.ix_(order, singles)]))
    names, labels = prediction.named_labels[regions], ground_truth.labels
    overlaps: ScoreArray = np.zeros((len(regions), len(labels)), dtype=np.float32)
    overlaps[:, singles] = ious[np.ix_(regions, singles)]
    compatible = _compatible(labels, names, absent, arrays)
    uncounted = _uncounted(ground_truth, prediction.boxes[regions], within[regions]) & compatible

    kinds, objects = _taken(labels, names, compatible, overlaps, arrays)
    for kind, evidence in ((ErrorKind.IGNORED, uncounted), *_wrong(labels, names, compatible, overlaps, arrays)):
        chosen = np.flatnonzero((kinds == ErrorKind.BACKGROUND) & evidence.any(axis=1))
        kinds[chosen] = kind
        # The object that it overlaps most; of those without a mask the first.
        objects[chosen] = np.where(evidence[chosen], 1 + overlaps[chosen], 0).argmax(axis=1) if len(chosen) else -1
    # Classes that are annotated or verified on the image, directly or by implication.
    present = np.union1d(labels, np.setdiff1d(ground_truth.verified, absent))
    known = np.asarray(arrays.ancestor_mask[present].any(axis=0))
    known[absent] = True
    known[ground_truth.not_exhaustive] = False
    kinds[(kinds == ErrorKind.BACKGROUND) & ~known[names]] = ErrorKind.UNVERIFIED
    return ImageErrors(prediction.image_id, regions, kinds, objects, missed=singles[missed])


def count_kinds(images: Iterable[ImageErrors]) -> dict[str, int]:
    """Counts the detections of each kind, by its name in lower case, and missed objects."""
    totals, missed = np.zeros(len(ErrorKind), dtype=np.int64), 0
    for image in images:
        totals += np.bincount(image.kinds, minlength=len(ErrorKind))
        missed += len(image.missed)
    return {**{kind.name.lower(): int(totals[kind]) for kind in ErrorKind}, MISSED: missed}


def _compatible(labels: IntArray, names: IntArray, absent: IntArray, arrays: TaxonomyArrays) -> BoolArray:
    """(D, I) which names are right of which objects, or may be."""
    is_absent = np.zeros((len(labels), len(arrays.depths)), dtype=bool)
    is_absent[:, absent] = True
    right_or_possible: BoolArray = arrays.ancestor_mask[labels] | possible_names(labels, is_absent, arrays)
    return right_or_possible[:, names].T


def _taken(
    labels: IntArray, names: IntArray, compatible: BoolArray, overlaps: ScoreArray, arrays: TaxonomyArrays
) -> tuple[IntArray, IntArray]:
    """Kinds and objects of the detections that take an object, :attr:`ErrorKind.BACKGROUND` and -1 for the others."""
    kinds = np.full(len(names), ErrorKind.BACKGROUND, dtype=np.int64)
    objects = np.full(len(names), -1, dtype=np.int64)
    relations = (
        (ErrorKind.CORRECT, names[:, None] == labels),
        (ErrorKind.COARSER, arrays.ancestor_mask[labels][:, names].T),
        (ErrorKind.FINER, compatible),
    )
    for kind, related in relations:
        is_free = ~np.isin(np.arange(len(labels)), objects)
        taken = take_objects(overlaps * (related & (objects < 0)[:, None] & is_free))
        kinds[taken >= 0] = kind
        objects[taken >= 0] = taken[taken >= 0]
    return kinds, objects


def _uncounted(ground_truth: ImageGroundTruth, boxes: FloatArray, within: ScoreArray) -> BoolArray:
    """(D, I) which detections lie within which groups, or on which objects without a mask.

    ``boxes`` are those of the detections; ``within`` is the (D, I) part of their masks that lies within the objects'.
    """
    has_mask, is_group = ground_truth.mask_areas > 0, ground_truth.group_of
    overlaps = np.zeros(within.shape)
    for of, over_first in ((is_group & ~has_mask, True), (~is_group & ~has_mask, False)):
        overlaps[:, of] = box_overlaps(boxes[:, None], ground_truth.boxes[of], over_first_area=over_first)
    overlaps[:, is_group & has_mask] = within[:, is_group & has_mask]
    return overlaps >= OVERLAP_THRESHOLD


def _wrong(
    labels: IntArray, names: IntArray, compatible: BoolArray, overlaps: ScoreArray, arrays: TaxonomyArrays
) -> tuple[tuple[ErrorKind, BoolArray], ...]:
    """Faults of detections that took nothing: kinds in their order and (D, I) on which objects they show."""
    lies_on = overlaps >= OVERLAP_THRESHOLD
    parents = (arrays.up_steps == 1).astype(np.float32)
    share_a_parent = parents[names] @ parents[labels].T > 0.5
    share_a_branch = arrays.lowest_common_ancestors[names[:, None], labels] >= 0
    return (
        (ErrorKind.DUPLICATE, lies_on & compatible),
        (ErrorKind.SIBLING, lies_on & share_a_parent),
        (ErrorKind.COUSIN, lies_on & share_a_branch),
        (ErrorKind.FAR, lies_on),
        (ErrorKind.LOCALISATION, compatible & (overlaps >= BACKGROUND_THRESHOLD)),
    )
