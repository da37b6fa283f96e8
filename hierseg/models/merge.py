"""Joins the instances of the two layers of the ensemble into instances with paths.

Shape letters: N layer-0 instances, M layer-1 instances, K merged instances, C classes of the taxonomy, H, W the
image. Labels are those of the full taxonomy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

from hierseg.models.mask_overlap import mask_overlaps
from hierseg.taxonomy import TaxonomyArrays
from hierseg.taxonomy.naming import deepest_confident_class

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class LayerInstances:
    """What a layer found on one image.

    Attributes:
        labels: (N,) int64.
        scores: (N,) float64.
        masks: (N, H, W) bool, on any device.
    """

    labels: IntArray
    scores: FloatArray
    masks: Tensor


@dataclass(frozen=True, eq=False)
class MergedInstances:
    """Instances with paths.

    Attributes:
        sources: (K,) int64; the instance whose box and mask it has: i < N of layer 0, N + j of layer 1.
        labels: (K,) int64; the class to name.
        class_scores: (K, C) float64; the score of every class that the instance claims, 0 for the others.
        joined: (M,) int64; the layer-0 instance that each layer-1 instance belongs to, -1 for none.
        best: (K,) int64; the layer-1 instance that speaks for it: the best of those that belong to it and have its
            name, else the best of all of them, or itself where it is of layer 1; -1 for none.
    """

    sources: IntArray
    labels: IntArray
    class_scores: FloatArray
    joined: IntArray
    best: IntArray


def merge_layers(
    layer0: LayerInstances,
    layer1: LayerInstances,
    arrays: TaxonomyArrays,
    *,
    iou_threshold: float = 0.5,
    keep_unmatched: bool = False,
    decision_threshold: float = 0.5,
) -> MergedInstances:
    """Merges the layers' instances on one image.

    A layer-1 instance belongs to the layer-0 instance whose class is one of its ancestors and whose mask
    overlaps it most, the one of higher score where two overlap it equally. All of them give it their scores, for
    they are opinions on the same object, not further objects. Scores stay as each layer gave them; what lies between
    the two classes, or above the deeper one by another path, gets the deeper one's.

    A detector gives a Man of score 0.05 on most Persons of score 0.99, which is no reason to name them so. The rule
    is that of the end-to-end model: of the classes that have a part of their root's score the deepest gives the name.

    Args:
        layer0: N instances of root classes.
        layer1: M instances of deeper classes.
        arrays: The taxonomy.
        iou_threshold: Masks that overlap less do not belong together; above 0.
        keep_unmatched: Keep a layer-1 instance that belongs to none, under its own ancestors; else drop it.
        decision_threshold: The part of its root's score that a class needs to give the name; with 0 the deepest one
            always does. No score depends on it.
    """
    joined = _join(layer0, layer1, arrays, iou_threshold)
    num_classes, num_first = len(arrays.depths), len(layer0.labels)
    alone = np.flatnonzero(joined < 0) if keep_unmatched else np.zeros(0, dtype=np.int64)
    sources = np.concatenate([np.arange(num_first), num_first + alone]).astype(np.int64)
    row_of: IntArray = joined.copy()
    row_of[alone] = num_first + np.arange(len(alone))

    class_scores: FloatArray = np.zeros((len(sources), num_classes))
    best = np.full(len(sources), -1, dtype=np.int64)
    # Ascending, so that the best child of an instance is written last.
    for index in np.argsort(layer1.scores, kind='stable'):
        row = row_of[index]
        if row >= 0:
            above = arrays.ancestor_mask[layer1.labels[index]]
            class_scores[row, above] = np.maximum(class_scores[row, above], layer1.scores[index])
            best[row] = index
    class_scores[np.arange(num_first), layer0.labels] = layer0.scores

    labels = deepest_confident_class(class_scores, arrays, threshold=decision_threshold)
    # The best of those that have the name speaks before the others.
    for index in np.argsort(layer1.scores, kind='stable'):
        if row_of[index] >= 0 and layer1.labels[index] == labels[row_of[index]]:
            best[row_of[index]] = index
    return MergedInstances(sources, labels, class_scores, joined, best)


def _join(layer0: LayerInstances, layer1: LayerInstances, arrays: TaxonomyArrays, iou_threshold: float) -> IntArray:
    """(M,) int64 indices of layer-0 instances, -1 for none."""
    if not len(layer0.labels) or not len(layer1.labels):
        return np.full(len(layer1.labels), -1, dtype=np.int64)
    descends = arrays.ancestor_mask[np.ix_(layer1.labels, layer0.labels)]
    overlaps = mask_overlaps(layer1.masks, layer0.masks, descends, at_least=iou_threshold)
    # The first of equal overlaps is then the one of the highest score.
    by_score = np.argsort(-layer0.scores, kind='stable')
    joined = by_score[overlaps[:, by_score].argmax(axis=1)]
    return np.where(overlaps.max(axis=1) > 0, joined, -1).astype(np.int64)
