"""Logits → outcome logits → class probabilities on a taxonomy.

Shape letters: N RoIs, C classes, K (class, strict ancestor) pairs. An *outcome* says "this box is class v
and nothing deeper"; every class, internal ones too, has one and background is the last, so a head has
C + 1 logits. The probability of a class is the mass of the outcomes at or below it: p(parent) ≥ p(child)
holds by construction, and a class with several parents feeds all of its ancestors.

``ancestor_pairs`` is ``TaxonomyArrays.ancestor_pairs`` as a tensor: (2, K) int64, class and ancestor.
"""

from __future__ import annotations

import torch
from torch import Tensor


def path_sum_logits(logits: Tensor, ancestor_pairs: Tensor) -> Tensor:
    """Outcome logits of the path-sum softmax: each class's own logit plus those of its ancestors.

    Outcome u has the logit Σ_{a ∈ A(u)} θ_a, where A(u) holds u and every ancestor by any path once;
    background keeps its own. Source: PS-softmax in Valmadre, "Hierarchical classification at multiple
    operating points", NeurIPS 2022; simplified from Deep-RTC (Wu et al., ECCV 2020).

    Args:
        logits: (N, C + 1), θ; background last. Half precision is raised to float32.
        ancestor_pairs: (2, K) int64.

    Returns:
        (N, C + 1) unnormalised outcome log-probabilities.
    """
    logits = logits if logits.dtype == torch.float64 else logits.float()
    classes, ancestors = ancestor_pairs
    return logits.index_add(1, classes, logits[:, ancestors])


def class_probabilities(outcome_logits: Tensor, ancestor_pairs: Tensor) -> Tensor:
    """Probability of every class: the softmax mass of the outcomes at or below it.

    Args:
        outcome_logits: (N, C + 1); background last.
        ancestor_pairs: (2, K) int64.

    Returns:
        (N, C + 1) in [0, 1]; column C is background. Rows do not sum to one: classes are nested.
    """
    outcomes = outcome_logits.softmax(dim=1)
    classes, ancestors = ancestor_pairs
    # Rounding may lift a root class over one.
    return outcomes.index_add(1, ancestors, outcomes[:, classes]).clamp(max=1)
