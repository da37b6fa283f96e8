"""Average precision over all images: rules 5 and 6 of the Open Images protocol.

Groups of classes whose mean average precision is told apart: layers, depths, and how often training shows them.

Shape letters: S scored entries, C classes, K criteria or steps of a curve, P recalls.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from operator import attrgetter

import numpy as np

from hierseg.errors import EvaluationError
from hierseg.formats import FloatArray, IntArray
from hierseg.metrics.matching import descending
from hierseg.metrics.records import Criterion, ImageMatches, ImageMatchTable, OpenImagesResult, check_once
from hierseg.taxonomy import Taxonomy

FREQUENCY_BANDS = ('rare', 'common', 'frequent')


def class_groups(taxonomy: Taxonomy, *, train_images: IntArray | None = None) -> dict[str, tuple[int, ...]]:
    """Labels of each group of classes, ascending.

    ``all``; ``layer0`` and ``layer1``, the root classes and all deeper ones; ``depth0``, ``depth1``, … by the longest
    path from a root class; and with counts ``rare``, ``common`` and ``frequent``, see :func:`frequency_bands`. Bands
    are taken of all classes of the taxonomy, evaluated or not: a class stays in its band whatever it is tested on.

    Args:
        taxonomy: The classes.
        train_images: (C,) int64; training images with an instance of each class or of one below it. Another number of
            counts is an EvaluationError.
    """
    labels, depths = range(taxonomy.num_classes), taxonomy.arrays.depths
    groups = {'all': tuple(labels), 'layer0': taxonomy.root_classes, 'layer1': taxonomy.deeper_classes}
    for depth in range(int(depths.max()) + 1):
        groups[f'depth{depth}'] = tuple(np.flatnonzero(depths == depth).tolist())
    if train_images is None:
        return groups
    if len(train_images) != taxonomy.num_classes:
        raise EvaluationError(
            f'{len(train_images)} counts of training images for {taxonomy.num_classes} classes',
            fix='Count the training store of the same taxonomy.',
        )
    return groups | frequency_bands(train_images, labels)


def frequency_bands(train_images: IntArray, labels: Sequence[int]) -> dict[str, tuple[int, ...]]:
    """The rarest, middle and most frequent third of the classes by (C,) training images, each in ascending order.

    Where the classes do not divide by three, the rarer bands have one more; of equally frequent classes those of
    smaller label come first. A class without a training image is rare.

    Example:
        >>> frequency_bands(np.array([9, 2, 5, 5]), range(4))
        {'rare': (1, 2), 'common': (3,), 'frequent': (0,)}
    """
    ascending = np.sort(np.asarray(labels, dtype=np.int64))
    by_frequency = ascending[np.argsort(train_images[ascending], kind='stable')]
    thirds = np.array_split(by_frequency, len(FREQUENCY_BANDS))
    return {band: tuple(np.sort(third).tolist()) for band, third in zip(FREQUENCY_BANDS, thirds, strict=True)}


RECALLS: FloatArray = np.arange(101) / 100
"""(P,) where precision-recall curves are sampled: 57 of 100 objects are 0.57 exactly, as 57 / 100 is."""


def average_precision(scores: FloatArray, weights: FloatArray, num_ground_truth: float) -> tuple[float, FloatArray]:
    """Area under the monotone precision envelope at every recall step, and the envelope at :data:`RECALLS`.

    Args:
        scores: (S,) float64.
        weights: (S,) float64; 0 for a false positive, otherwise what the true positive counts.
        num_ground_truth: Counted ground truth.

    Returns:
        A value in [0, 1], and (P,) float64, the best precision at that recall or a greater one, 0 where the recall is
        not reached. Without entries both are 0, without ground truth nan.
    """
    if num_ground_truth == 0:
        return float('nan'), np.full(len(RECALLS), np.nan)
    recall, envelope = precision_steps(scores, weights, num_ground_truth)
    area = float((np.diff(recall, prepend=0.0) * envelope).sum())
    return area, np.append(envelope, 0.0)[np.searchsorted(recall, RECALLS)]


def precision_steps(scores: FloatArray, weights: FloatArray, num_ground_truth: float) -> tuple[FloatArray, FloatArray]:
    """The curve whose area is the average precision; arguments of :func:`average_precision`, with ground truth.

    Returns:
        (K,) float64 recalls, ascending, one for each true positive, and (K,) float64 precisions: the envelope from
        the recall before up to this one.
    """
    weights = weights[descending(scores)]
    true_positives, false_positives = np.cumsum(weights), np.cumsum(weights <= 0)
    steps = weights > 0
    recall: FloatArray = true_positives[steps] / num_ground_truth
    precision = true_positives / (true_positives + false_positives)
    envelope: FloatArray = np.maximum.accumulate(precision[::-1])[::-1][steps]
    return recall, envelope


@dataclass(frozen=True, eq=False)
class ClassMatches:
    """The scored entries of one class on all images.

    Attributes:
        scores: (S,) float64, image after image in the order of their ids.
        weights: (S,) float64; as of :class:`~hierseg.metrics.records.ImageMatches`.
        num_ground_truth: Counted ground truth.
    """

    scores: FloatArray
    weights: FloatArray
    num_ground_truth: float


def matches_by_class(matches: Iterable[ImageMatches], num_classes: int) -> list[ClassMatches]:
    """The entries of each of C classes; arguments and errors as of :func:`summarise`."""
    images = sorted(matches, key=attrgetter('image_id'))
    check_once([image.image_id for image in images])
    labels, scores, weights, counted_labels, counts = (
        np.concatenate([np.zeros(0, dtype=dtype), *(getattr(image, name) for image in images)])
        for name, dtype in (
            ('labels', np.int64), ('scores', np.float64), ('weights', np.float64),
            ('counted_labels', np.int64), ('counts', np.float64),
        )
    )  # fmt: skip
    num_ground_truth = np.bincount(counted_labels, weights=counts, minlength=num_classes)
    by_class = np.argsort(labels, kind='stable')
    bounds = np.searchsorted(labels[by_class], np.arange(num_classes + 1))
    return [
        ClassMatches(scores[by_class[begin:end]], weights[by_class[begin:end]], float(total))
        for (begin, end), total in zip(pairwise(bounds), num_ground_truth, strict=True)
    ]


def summarise(matches: Iterable[ImageMatches], num_classes: int) -> OpenImagesResult:
    """Average precision of every class.

    Args:
        matches: One record for every image with ground truth, detections or not, in any order.
        num_classes: C.

    Raises:
        EvaluationError: If an image occurs twice.
    """
    images = list(matches)
    classes = matches_by_class(images, num_classes)
    values, curves = np.empty(num_classes), np.empty((num_classes, len(RECALLS)))
    for label, of_class in enumerate(classes):
        values[label], curves[label] = average_precision(of_class.scores, of_class.weights, of_class.num_ground_truth)
    return OpenImagesResult(
        average_precision=values,
        precision_curves=curves,
        num_ground_truth=np.array([of_class.num_ground_truth for of_class in classes], dtype=np.float64),
        num_scored=np.array([len(of_class.scores) for of_class in classes], dtype=np.int64),
        num_true_positives=np.array([of_class.weights.sum() for of_class in classes], dtype=np.float64),
        num_images=len(images),
    )


def summarise_by(
    tables: Iterable[ImageMatchTable], num_classes: int, *, criteria: Sequence[Criterion]
) -> dict[Criterion, OpenImagesResult]:
    """Average precision of every class by each criterion; arguments and errors as of :func:`summarise`.

    Raises:
        EvaluationError: Also if an image was matched by other criteria.
    """
    images = list(tables)
    for image in images:
        if image.criteria != tuple(criteria):
            raise EvaluationError(
                f'the image was matched by {len(image.criteria)} criteria, which are not the {len(criteria)} asked for',
                where=f'image {image.image_id}',
                fix='Match all images by the same criteria.',
            )
    return {
        criterion: summarise((image.at(index) for image in images), num_classes)
        for index, criterion in enumerate(criteria)
    }
