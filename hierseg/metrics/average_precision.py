"""Average precision over all images: rules 5 and 6 of the Open Images protocol.

Shape letters: S scored entries, C classes.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import numpy as np

from hierseg.errors import EvaluationError
from hierseg.metrics.matching import descending
from hierseg.metrics.records import FloatArray, ImageMatches, OpenImagesResult


def average_precision(scores: FloatArray, weights: FloatArray, num_ground_truth: float) -> float:
    """Area under the monotone precision envelope at every recall step.

    Args:
        scores: (S,) float64.
        weights: (S,) float64; 0 for a false positive, otherwise what the true positive counts.
        num_ground_truth: Counted ground truth.

    Returns:
        A value in [0, 1]; 0 without entries; nan without ground truth.
    """
    if num_ground_truth == 0:
        return float('nan')
    if not len(scores):
        return 0.0
    weights = weights[descending(scores)]
    true_positives = np.cumsum(weights)
    precision = true_positives / (true_positives + np.cumsum(weights <= 0))
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    steps = weights > 0
    recall_steps = np.diff(true_positives[steps] / num_ground_truth, prepend=0.0)
    return float((recall_steps * envelope[steps]).sum())


def summarise(matches: Iterable[ImageMatches], num_classes: int) -> OpenImagesResult:
    """Average precision of every class.

    Args:
        matches: One record for every image with ground truth, detections or not, in any order.
        num_classes: C.

    Raises:
        EvaluationError: If an image occurs twice.
    """
    images = sorted(matches, key=lambda image: image.image_id)
    for image, following in pairwise(images):
        if image.image_id == following.image_id:
            raise EvaluationError(
                'the image was evaluated twice', where=f'image {image.image_id}', fix='Each image counts once.'
            )
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
    values = [
        average_precision(scores[by_class[begin:end]], weights[by_class[begin:end]], float(total))
        for (begin, end), total in zip(pairwise(bounds), num_ground_truth, strict=True)
    ]
    return OpenImagesResult(
        average_precision=np.array(values, dtype=np.float64),
        num_ground_truth=num_ground_truth.astype(np.float64),
        num_scored=np.bincount(labels, minlength=num_classes),
        num_true_positives=np.bincount(labels, weights=weights, minlength=num_classes).astype(np.float64),
        num_images=len(images),
    )
