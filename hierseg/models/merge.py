"""Joins the instances of the two layers of the ensemble into instances with paths.

Shape letters: N layer-0 instances, M layer-1 instances, K merged instances, C classes of the taxonomy.
Labels are those of the full taxonomy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from hierseg.taxonomy import TaxonomyArrays

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class LayerInstances:
    """What a layer found on one image.

    Attributes:
        labels: (N,) int64.
        scores: (N,) float64.
        masks: N masks as COCO run-length encodings (dicts of size and counts).
    """

    labels: IntArray
    scores: FloatArray
    masks: Sequence[dict[str, Any]]


@dataclass(frozen=True, eq=False)
class MergedInstances:
    """Instances with paths.

    Attributes:
        sources: (K,) int64; the instance whose box and mask it has: i < N of layer 0, N + j of layer 1.
        labels: (K,) int64; the class to name.
        class_scores: (K, C) float64; the score of every class that the instance claims, 0 for the others.
        joined: (M,) int64; the layer-0 instance that each layer-1 instance belongs to, -1 for none.
    """

    sources: IntArray
    labels: IntArray
    class_scores: FloatArray
    joined: IntArray


def merge_layers(
    layer0: LayerInstances,
    layer1: LayerInstances,
    arrays: TaxonomyArrays,
    *,
    iou_threshold: float = 0.5,
    keep_unmatched: bool = True,
) -> MergedInstances:
    """Merges the layers' instances on one image.

    A layer-1 instance belongs to the layer-0 instance whose class is one of its ancestors and whose mask
    overlaps it most. The layer-0 instance takes the best of them, by score, for its name: (Person, Man). The
    others keep their score on it, for they are further opinions on the same object, not further objects.
    Scores stay as each layer gave them; what lies between the two classes, or above the deeper one by another
    path, gets the deeper one's.

    Args:
        layer0: N instances of root classes.
        layer1: M instances of deeper classes.
        arrays: The taxonomy.
        iou_threshold: Masks that overlap less do not belong together.
        keep_unmatched: Keep a layer-1 instance that belongs to none, under its own ancestors; else drop it.
    """
    joined = _join(layer0, layer1, arrays, iou_threshold)
    num_classes, num_first = len(arrays.depths), len(layer0.labels)
    alone = np.flatnonzero(joined < 0) if keep_unmatched else np.zeros(0, dtype=np.int64)
    sources = np.concatenate([np.arange(num_first), num_first + alone]).astype(np.int64)
    row_of: IntArray = joined.copy()
    row_of[alone] = num_first + np.arange(len(alone))

    class_scores: FloatArray = np.zeros((len(sources), num_classes))
    labels = np.concatenate([layer0.labels, layer1.labels[alone]]).astype(np.int64)
    # Ascending, so that the best child of an instance is written last.
    for index in np.argsort(layer1.scores, kind='stable'):
        row, label = row_of[index], layer1.labels[index]
        if row >= 0:
            above = arrays.ancestor_mask[label]
            class_scores[row, above] = np.maximum(class_scores[row, above], layer1.scores[index])
            labels[row] = label
    class_scores[np.arange(num_first), layer0.labels] = layer0.scores
    return MergedInstances(sources, labels, class_scores, joined)


def _join(layer0: LayerInstances, layer1: LayerInstances, arrays: TaxonomyArrays, iou_threshold: float) -> IntArray:
    """(M,) int64 indices of layer-0 instances, -1 for none; the first on ties."""
    if not len(layer0.labels) or not len(layer1.labels):
        return np.full(len(layer1.labels), -1, dtype=np.int64)
    # pycocotools compares run lengths only where the masks' boxes meet.
    overlaps = np.asarray(coco_mask.iou(list(layer1.masks), list(layer0.masks), [0] * len(layer0.masks)))
    overlaps = np.where(arrays.ancestor_mask[np.ix_(layer1.labels, layer0.labels)], overlaps, -1.0)
    best = overlaps.argmax(axis=1)
    return np.where(overlaps[np.arange(len(best)), best] >= iou_threshold, best, -1)
