"""Average precision over all images: rules 5 and 6 of the Open Images protocol.

Shape letters: S scored entries, T true positives, C classes, K criteria, P recalls.

Groups of classes whose mean average precision is told apart: layers, depths, and how often training shows them.

Shape letter: C classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Protocol, TypeVar

import numpy as np

from hierseg.errors import EvaluationError
from hierseg.formats import FloatArray, IntArray
from hierseg.metrics.matching import descending
from hierseg.metrics.records import Criterion, ImageMatches, ImageMatchTable, OpenImagesResult
from hierseg.taxonomy import Taxonomy

FREQUENCY_BANDS = ('rare', 'common', 'frequent')


def class_groups(taxonomy: Taxonomy, *, train_images: IntArray | None = None) -> dict[str, tuple[int, ...]]:
    """Labels of each group of classes, ascending.

    ``all``; ``layer0`` and ``layer1``, the root classes and all deeper ones; ``depth0``, ``depth1``, … by the longest
    path from a root class; and with counts ``rare``, ``common`` and ``frequent``, see :func:`frequency_bands`. Bands
    are taken of all classes of the taxonomy, evaluated or not: a class stays in its band whatever it is tested on.

    Args:
        taxonomy: The classes.
        train_images: (C,) int64; training images with an instance of each class or of one below it.

    Raises:
        EvaluationError: If there is not one count for each class.
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
    """The rarest, middle and most frequent third of classes, each in ascending order of labels.

    Where the classes do not divide by three, the rarer bands have one more; of equally frequent classes those of
    smaller label come first. A class without a training image is rare.

    Args:
        train_images: (C,) int64; training images of each class.
        labels: The classes to divide.

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


class _OfImage(Protocol):
    @property
    def image_id(self) -> str: ...


ImageRecord = TypeVar('ImageRecord', bound=_OfImage)


def average_precision(scores: FloatArray, weights: FloatArray, num_ground_truth: float) -> float:
    """Area under the monotone precision envelope at every recall step.

    Args:
        scores: (S,) float64.
        weights: (S,) float64; 0 for a false positive, otherwise what the true positive counts.
        num_ground_truth: Counted ground truth.

    Returns:
        A value in [0, 1]; 0 without entries; nan without ground truth.
    """
    return _area(*_recall_steps(scores, weights), num_ground_truth)


def precision_at_recalls(
    scores: FloatArray, weights: FloatArray, num_ground_truth: float, *, recalls: FloatArray = RECALLS
) -> FloatArray:
    """The precision-recall curve on a grid: the best precision at that recall or a greater one.

    Args:
        scores: (S,) float64.
        weights: (S,) float64; 0 for a false positive, otherwise what the true positive counts.
        num_ground_truth: Counted ground truth.
        recalls: (P,) float64, from 0 to 1.

    Returns:
        (P,) float64, not ascending; 0 where the recall is not reached; nan without ground truth.
    """
    return _sampled(*_recall_steps(scores, weights), num_ground_truth, recalls)


def summarise(matches: Iterable[ImageMatches], num_classes: int) -> OpenImagesResult:
    """Average precision of every class.

    Args:
        matches: One record for every image with ground truth, detections or not, in any order.
        num_classes: C.

    Raises:
        EvaluationError: If an image occurs twice.
    """
    images = in_order(matches)
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
    values, curves = np.empty(num_classes), np.empty((num_classes, len(RECALLS)))
    for label, (begin, end) in enumerate(pairwise(bounds)):
        members, total = by_class[begin:end], float(num_ground_truth[label])
        if total == 0:
            values[label] = curves[label] = np.nan
            continue
        steps = _recall_steps(scores[members], weights[members])
        values[label], curves[label] = _area(*steps, total), _sampled(*steps, total, RECALLS)
    return OpenImagesResult(
        average_precision=values,
        precision_curves=curves,
        num_ground_truth=num_ground_truth.astype(np.float64),
        num_scored=np.bincount(labels, minlength=num_classes),
        num_true_positives=np.bincount(labels, weights=weights, minlength=num_classes).astype(np.float64),
        num_images=len(images),
    )


def summarise_by(
    tables: Iterable[ImageMatchTable], num_classes: int, *, criteria: Sequence[Criterion]
) -> dict[Criterion, OpenImagesResult]:
    """Average precision of every class by each criterion.

    Args:
        tables: One for every image with ground truth, detections or not, in any order.
        num_classes: C.
        criteria: K criteria, those of the tables.

    Raises:
        EvaluationError: If an image occurs twice or was matched by other criteria.
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


def in_order(records: Iterable[ImageRecord]) -> list[ImageRecord]:
    """One record of each image, in the order of image ids.

    Raises:
        EvaluationError: If an image occurs twice.
    """
    images = sorted(records, key=lambda image: image.image_id)
    for image, following in pairwise(images):
        if image.image_id == following.image_id:
            raise EvaluationError(
                'the image was evaluated twice', where=f'image {image.image_id}', fix='Each image counts once.'
            )
    return images


def _recall_steps(scores: FloatArray, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    """(T,) sum of the weights and precision envelope at each true positive, by descending score."""
    weights = weights[descending(scores)]
    true_positives = np.cumsum(weights)
    false_positives = np.cumsum(weights <= 0)
    steps = weights > 0
    precision = true_positives / (true_positives + false_positives)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return true_positives[steps], envelope[steps]


def _area(true_positives: FloatArray, envelope: FloatArray, num_ground_truth: float) -> float:
    if num_ground_truth == 0:
        return float('nan')
    recall_steps = np.diff(true_positives / num_ground_truth, prepend=0.0)
    return float((recall_steps * envelope).sum())


def _sampled(
    true_positives: FloatArray, envelope: FloatArray, num_ground_truth: float, recalls: FloatArray
) -> FloatArray:
    if num_ground_truth == 0:
        return np.full(len(recalls), np.nan)
    reached = np.searchsorted(true_positives / num_ground_truth, recalls)
    return np.append(envelope, 0.0)[reached]
