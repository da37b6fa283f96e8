"""The softmax among siblings: p(v) is the product of the conditional probabilities on the path to v.

Shape letters: N RoIs, C classes, A the most classes at or above one class. For trees alone: with two parents a class
would need a conditional probability under each.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hierseg.functional.relations import Relations


def sibling_log_softmax(scores: Tensor, relations: Relations) -> Tensor:
    """Logarithm of p(v | parent): the log-softmax within each group of siblings.

    Each group is shifted by its own largest score, so that groups of very different scores lose nothing.

    Args:
        scores: (N, C + 1), finite.
        relations: Of a tree; root classes and background are siblings.

    Returns:
        (N, C + 1), at most zero.
    """
    groups = relations.sibling_groups
    top = scores.new_full((len(scores), relations.num_sibling_groups), torch.finfo(scores.dtype).min)
    top = top.scatter_reduce(1, groups.expand(scores.shape), scores.detach(), 'amax')
    shifted = scores - top.index_select(1, groups)
    totals = torch.zeros_like(top).index_add(1, groups, shifted.exp())
    return (shifted - totals.log().index_select(1, groups)).clamp(max=0)


def conditional_cross_entropy(
    scores: Tensor, labels: Tensor, relations: Relations, *, known: Tensor | None = None
) -> Tensor:
    """−Σ_{a ∈ A(y)} log p(a | parent of a), with a softmax in each group of siblings.

    Background is a sibling of the root classes. An internal label ends its path and asks nothing of the groups
    below. On a flat taxonomy this is the cross-entropy. Source: WordTree in Redmon and Farhadi, "YOLO9000", CVPR
    2017.

    Args:
        scores: (N, C + 1) logits, background last.
        labels: (N,) int64 in [0, C]; C is background.
        relations: Of a tree.
        known: (N, C) bool or None; classes that are not known leave their group, except those at or above the
            label.

    Returns:
        (N,) losses, at least zero.
    """
    if known is not None:
        counted = torch.nn.functional.pad(known, (0, 1), value=True) | relations.above[labels]
        # Finite, for a group may lose all of its members.
        scores = scores.masked_fill(~counted, torch.finfo(scores.dtype).min / 4)
    conditional = sibling_log_softmax(scores, relations)
    path = relations.ancestors[labels]
    # Background's path is itself, which the table leaves out.
    path[:, 0] = torch.where(labels == relations.num_classes, labels, path[:, 0])
    return -conditional.gather(1, path.clamp(min=0)).masked_fill(path < 0, 0).sum(dim=1)


def path_product_probabilities(scores: Tensor, relations: Relations) -> Tensor:
    """p(v) = Π_{a ∈ A(v)} p(a | parent of a): at most p(parent), since no factor exceeds one.

    Args:
        scores: (N, C + 1) logits, background last.
        relations: Of a tree.

    Returns:
        (N, C + 1) in [0, 1]; column C is background. Root classes and background sum to one, and so do leaves
        and background.
    """
    conditional = sibling_log_softmax(scores, relations)
    classes, ancestors = relations.ancestor_pairs
    return conditional.index_add(1, classes, conditional.index_select(1, ancestors)).exp()
