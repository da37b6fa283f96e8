"""Logits → outcome logits → class probabilities on a taxonomy.

Shape letters: N RoIs, C classes, K (class, strict ancestor) pairs. Those of the sigmoids and of the softmax among
siblings stand beside their losses. An *outcome* says "this box is class v
and nothing deeper"; every class, internal ones too, has one and background is the last, so a head has
C + 1 logits. The probability of a class is the mass of the outcomes at or below it: p(parent) ≥ p(child)
holds by construction, and a class with several parents feeds all of its ancestors.

``ancestor_pairs`` is ``TaxonomyArrays.ancestor_pairs`` as a tensor: (2, K) int64, class and ancestor.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hierseg.functional.relations import Relations


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
    return add_columns(logits, ancestors, classes)


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
    return add_columns(outcomes, classes, ancestors).clamp(max=1)


def add_columns(values: Tensor, sources: Tensor, targets: Tensor) -> Tensor:
    """Each column, and to the target of every pair the source as it was before.

    Its gradient adds the targets to the sources, which autograd would do by way of two more (N, C + 1) tensors.

    Args:
        values: (N, C + 1).
        sources: (K,) int64 columns.
        targets: (K,) int64 columns.
    """
    return _AddColumns.apply(values, sources, targets)  # type: ignore[no-any-return, no-untyped-call]


def add_columns_(values: Tensor, sources: Tensor, targets: Tensor) -> Tensor:
    """:func:`add_columns` in place, for values that autograd does not follow."""
    # On a CPU it is a little faster than index_add_, which does the same.
    return values.scatter_add_(1, targets.expand(len(values), -1), values.index_select(1, sources))


class _AddColumns(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, sources: Tensor, targets: Tensor) -> Tensor:
        ctx.save_for_backward(sources, targets)
        return add_columns_(values.clone(), sources, targets)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        sources, targets = ctx.saved_tensors
        return add_columns(gradient, targets, sources), None, None


def most_probable_leaf_or_background(probabilities: Tensor, relations: Relations) -> Tensor:
    """Background where it is more probable than every root class, else the most probable leaf.

    Args:
        probabilities: (N, C + 1), background last.
        relations: Of the taxonomy.

    Returns:
        (N,) int64 labels in [0, C].
    """
    leaf = relations.leaves[probabilities.index_select(1, relations.leaves).argmax(dim=1)]
    best_root = probabilities.index_select(1, relations.root_classes).amax(dim=1)
    return torch.where(probabilities[:, -1] > best_root, relations.num_classes, leaf)
