"""Hierarchical classification losses without reduction.

Shape letters: N RoIs, C classes, D the most classes at or below one class.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from hierseg.taxonomy import TaxonomyArrays


def marginal_negative_log_likelihood(
    outcome_logits: Tensor, labels: Tensor, descendants: Tensor, *, known: Tensor | None = None
) -> Tensor:
    """−log of the softmax mass at or below each label, in log space throughout.

    A box labelled at an internal class says only that the truth lies somewhere below it, so it costs
    −log Σ_{u ∈ D(y)} softmax(s)_u with D(y) the label and its descendants. At a leaf this is the
    cross-entropy. Source: the flat softmax with marginal likelihood of Valmadre, NeurIPS 2022, with an
    outcome for every internal class.

    Args:
        outcome_logits: (N, C + 1) unnormalised outcome log-probabilities; background last.
        labels: (N,) int64 in [0, C]; C is background.
        descendants: (C + 1, D) int64; row v lists v and its descendants, filled up with −1.
        known: (N, C) bool; outcomes that are not known to be absent or present where the RoI lies leave its
            normaliser, except those at or below its label. All are known where it is None.

    Returns:
        (N,) losses, at least zero.
    """
    below = descendants[labels]
    mass = outcome_logits.gather(1, below.clamp(min=0)).masked_fill(below < 0, float('-inf'))
    if known is not None:
        counted = torch.nn.functional.pad(known, (0, 1), value=True)
        # The −1 that fill up a row say nothing: they go where background is, which always counts.
        counted = counted.scatter(1, below.masked_fill(below < 0, known.shape[1]), True)
        outcome_logits = outcome_logits.masked_fill(~counted, float('-inf'))
    return (outcome_logits.logsumexp(dim=1) - mass.logsumexp(dim=1)).clamp(min=0)


def padded_descendants(arrays: TaxonomyArrays) -> Tensor:
    """The ``descendants`` table of a taxonomy.

    Returns:
        (C + 1, D) int64: each class and its descendants, then background alone; filled up with −1.
    """
    rows = [np.flatnonzero(column) for column in arrays.ancestor_mask.T] + [np.array([len(arrays.depths)])]
    padded = np.full((len(rows), max(map(len, rows))), -1, dtype=np.int64)
    for label, row in enumerate(rows):
        padded[label, : len(row)] = row
    return torch.from_numpy(padded)
