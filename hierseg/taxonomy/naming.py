"""The class that a detection names: one rule for models, ensembles and submissions.

:func:`hierseg.functional.decisions.deepest_confident_class` is the same rule on tensors.

Shape letters: N detections, C classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from hierseg.taxonomy.arrays import TaxonomyArrays

NAMING_THRESHOLD = 0.5
"""The part of its root's probability that a class needs to be named, where nothing else is asked for."""


def named_classes(
    class_scores: npt.NDArray[np.floating[Any]], arrays: TaxonomyArrays, *, threshold: float = NAMING_THRESHOLD
) -> npt.NDArray[np.int64]:
    """Backs off from the leaves: the deepest class that is probable enough.

    The most probable root class is taken first; where none is claimed, the most probable class above which nothing is
    claimed. Among the classes at or below it whose probability is at least ``threshold`` times its own, the deepest
    wins; of several equally deep the more probable one, then the first. Animal 0.9, Bear 0.8, Teddy bear 0.5 gives
    Teddy bear; Person 0.8, Man 0.35, Woman 0.33 gives Person.

    Args:
        class_scores: (N, C) float, 0 for classes that a detection does not claim.
        arrays: The taxonomy.
        threshold: At least 0; with 0 the deepest claimed class wins.

    Returns:
        (N,) int64 labels.
    """
    rows, claimed = np.arange(len(class_scores)), class_scores > 0
    above = arrays.ancestor_mask
    tops = claimed & (arrays.depths == 0)
    rootless = np.flatnonzero(~tops.any(axis=1))
    if len(rootless):
        # Counts the class itself: nothing else at or above it is claimed.
        tops[rootless] = claimed[rootless] & (claimed[rootless].astype(np.float32) @ above.T.astype(np.float32) < 1.5)
    top = np.where(tops, class_scores, -1).argmax(axis=1)
    eligible = above.T[top] & claimed & (class_scores >= (threshold * class_scores[rows, top])[:, None])
    eligible[rows, top] = True
    # The depth decides, then the probability: half of its part of the greatest is less than a step.
    share = class_scores / np.maximum(class_scores.max(axis=1, initial=0, keepdims=True), 1e-12)
    ranks = arrays.depths.astype(class_scores.dtype) + share * 0.5
    named: npt.NDArray[np.int64] = np.where(eligible, ranks, -1).argmax(axis=1)
    return named
