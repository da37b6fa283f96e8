"""Losses of one sigmoid per class, without reduction: the sum over the classes of each RoI.

Shape letters: N RoIs, C classes, A the most classes at or above one class.

The label and all of its ancestors, by every path, are positive; every class is negative for background. Undecided, and
without weight, is what an object of that label may or may not be: the descendants of the label and, where those have
several parents, their other ancestors (an object labelled Bear may be a Teddy and so a Toy). All other classes are
negative. All functions take

- ``scores``: (N, C) logits, float32 or float64; there is no channel for background;
- ``labels``: (N,) int64 in [0, C]; C is background;
- ``relations``: of the taxonomy;
- ``known``: (N, C) bool or None; classes that are not known have no weight either, except the positive ones. All are
  known where it is None;

and return (N,) losses, at least zero. σ(x) is the sigmoid; being monotonous, it lets maxima and minima be taken of
logits, and every logarithm is that of a sigmoid's, computed from the logit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from hierseg.functional.relations import Relations, max_at_or_below, min_at_or_above

PRIOR = 0.01
"""Probability that a head which has learnt nothing gives to each class."""


def prior_shifted_logits(logits: Tensor, relations: Relations) -> Tensor:
    """θ + log(π / (1 − π)) with π = ``PRIOR``: the scores of a head whose logits start at zero.

    From one half, 300 negative classes would cost 208 a RoI, and training would begin with unlearning that or with
    diverging. Source: the bias of Lin et al., "Focal loss for dense object detection", ICCV 2017, here a constant so
    that no head needs an initialisation of its own.

    ``logits`` are (N, C), θ; half precision is raised to float32. No relation of classes matters.
    """
    logits = logits if logits.dtype == torch.float64 else logits.float()
    return logits + math.log(PRIOR / (1 - PRIOR))


@dataclass(frozen=True)
class Terms:
    """The scores that a scheme compares with targets: each term is a binary cross-entropy.

    Attributes:
        positive: (N, A) scores of the label and its ancestors, whose target is one, or the quality.
        is_positive: (N, A) bool; which of these places are filled.
        negative: (N, C) scores of all classes, whose target is zero.
        is_negative: (N, C) bool; which of them count.
    """

    positive: Tensor
    is_positive: Tensor
    negative: Tensor
    is_negative: Tensor

    def losses(self, *, gamma: float = 0.0) -> Tensor:
        """(N,) sums of the terms; with gamma > 0 in the focal form, in which what is right already counts less."""
        gains, costs = softplus(-self.positive), softplus(self.negative)
        if gamma:
            # 1 − σ(x) = σ(−x), and a power of a sigmoid is a multiple of its logarithm.
            gains = gains * (gamma * logsigmoid(-self.positive)).exp()
            costs = costs * (gamma * logsigmoid(self.negative)).exp()
        return (gains * self.is_positive).sum(dim=1) + (costs * self.is_negative).sum(dim=1)

    def quality_losses(self, quality: Tensor, *, beta: float) -> Tensor:
        """(N, K) sums where positive classes have each of (N, K) targets q in [0, 1] instead of one.

        A term is ``|t − σ(x)|^β`` times the binary cross-entropy of σ(x) and its target t. Source: the quality focal
        loss of Li et al., "Generalized focal loss", NeurIPS 2020, for classes that are positive together.
        """
        costs = softplus(self.negative)
        if beta:
            costs = costs * (beta * logsigmoid(self.negative)).exp()
        scores, target = self.positive[:, None, :], quality[:, :, None]
        gains = target * softplus(-scores) + (1 - target) * softplus(scores)
        if beta:
            gains = gains * (target - scores.sigmoid()).abs().pow(beta)
        gains = (gains * self.is_positive[:, None, :]).sum(dim=2)
        return gains + (costs * self.is_negative).sum(dim=1, keepdim=True)


def own_terms(scores: Tensor, labels: Tensor, relations: Relations, *, known: Tensor | None = None) -> Terms:
    """Every class by itself.

    Source: the hierarchy-aware loss of UniDet (Zhou et al., "Simple multi-dataset detection", CVPR 2022), whose
    taxonomy is a tree.
    """
    positive, valid = _positives(scores, labels, relations)
    return Terms(positive, valid, scores, _negatives(labels, relations, known))


def max_constraint_terms(scores: Tensor, labels: Tensor, relations: Relations, *, known: Tensor | None = None) -> Terms:
    """MCM: p_v = max_{u ∈ D(v)} σ(s_u), which no child can exceed.

    A positive class is max_{u ∈ D(v) ∩ A(y)} σ(s_u): lifted by positive classes alone, so that no wrong child takes the
    credit. Undecided and unknown classes are left out of the maxima of negative classes as well, for they may be above
    zero rightly. Source: C-HMCNN, Giunchiglia and Lukasiewicz, "Coherent hierarchical multi-label classification
    networks", NeurIPS 2020, which holds on any DAG.
    """
    positive, valid = _positives(scores, labels, relations)
    # [n, v, u]: the u-th positive class is at or below the v-th.
    beneath = _among_positives(labels, relations).transpose(1, 2)
    lifted = positive[:, None, :].masked_fill(~beneath, -_far(scores)).amax(dim=2)
    return Terms(lifted, valid, *_worst_negatives(scores, labels, relations, known))


def tree_min_terms(scores: Tensor, labels: Tensor, relations: Relations, *, known: Tensor | None = None) -> Terms:
    """Tree-min: a positive class is as good as its worst ancestor, a negative one as bad as its worst descendant.

    m_v = min_{a ∈ A(v)} σ(s_a) and M_v = max_{u ∈ D(v)} σ(s_u). Undecided and unknown classes are left out of the
    maxima. Source: Li et al., "Deep hierarchical semantic segmentation" (HSSN), CVPR 2022; here A(v) holds the
    ancestors by every path.
    """
    positive, valid = _positives(scores, labels, relations)
    # [n, v, a]: the a-th positive class is at or above the v-th.
    over = _among_positives(labels, relations)
    lowered = positive[:, None, :].masked_fill(~over, _far(scores)).amin(dim=2)
    return Terms(lowered, valid, *_worst_negatives(scores, labels, relations, known))


def ancestor_positive_bce(
    scores: Tensor, labels: Tensor, relations: Relations, *, known: Tensor | None = None
) -> Tensor:
    """−Σ_{v ∈ A(y)} log σ(s_v) − Σ_{v negative} log(1 − σ(s_v)): the losses of :func:`own_terms`."""
    return own_terms(scores, labels, relations, known=known).losses()


def max_constraint_bce(scores: Tensor, labels: Tensor, relations: Relations, *, known: Tensor | None = None) -> Tensor:
    """−Σ_{v ∈ A(y)} log p_v − Σ_{v negative} log(1 − p_v) with the p_v of :func:`max_constraint_terms`.

    On a flat taxonomy this is the binary cross-entropy.
    """
    return max_constraint_terms(scores, labels, relations, known=known).losses()


def tree_min_bce(
    scores: Tensor, labels: Tensor, relations: Relations, *, known: Tensor | None = None, gamma: float = 0.0
) -> Tensor:
    """−Σ_{v ∈ A(y)} (1 − m_v)^γ log m_v − Σ_{v negative} M_v^γ log(1 − M_v), as of :func:`tree_min_terms`.

    γ > 0 is the focal form.
    """
    return tree_min_terms(scores, labels, relations, known=known).losses(gamma=gamma)


def max_below_probabilities(scores: Tensor, relations: Relations) -> Tensor:
    """p(v) = max_{u ∈ D(v)} σ(s_u), the probabilities that :func:`max_constraint_bce` trains."""
    return _with_background(max_at_or_below(scores, relations), relations)


def min_above_probabilities(scores: Tensor, relations: Relations) -> Tensor:
    """p(v) = min_{a ∈ A(v)} σ(s_a): a class is at most as probable as each of its ancestors.

    Rather than the maximum over descendants, because an ancestor is trained on all that is below it and so has seen
    more: where it contradicts a child, the child is what is wrong.
    """
    return _with_background(min_at_or_above(scores, relations), relations)


def _with_background(scores: Tensor, relations: Relations) -> Tensor:
    """(N, C + 1) in [0, 1]; column C is background, 1 − max p(root class). Rows do not sum to one."""
    best_root = scores.index_select(1, relations.root_classes).amax(dim=1, keepdim=True)
    return torch.cat([scores, -best_root], dim=1).sigmoid()


def _positives(scores: Tensor, labels: Tensor, relations: Relations) -> tuple[Tensor, Tensor]:
    """(N, A) scores of the label and its ancestors, and which of these places are filled."""
    above = relations.ancestors[labels]
    return scores.gather(1, above.clamp(min=0)), above >= 0


def _among_positives(labels: Tensor, relations: Relations) -> Tensor:
    """(N, A, A) bool; ``[n, v, a]`` says that the a-th positive class is at or above the v-th.

    A place that is not filled is above itself, so that no maximum is empty.
    """
    above = relations.ancestors[labels]
    # [n, v, i, a]: the i-th class at or above the v-th positive class is the a-th one.
    over = (relations.ancestors[above.clamp(min=0)][:, :, :, None] == above[:, None, None, :]).any(dim=2)
    filled = (above >= 0)[:, :, None] & (above >= 0)[:, None, :]
    itself = torch.eye(above.shape[1], dtype=torch.bool, device=above.device)
    return (over & filled) | itself


def _negatives(labels: Tensor, relations: Relations, known: Tensor | None) -> Tensor:
    """(N, C) bool."""
    negative = ~relations.compatible.mask(labels)[:, :-1]
    return negative if known is None else negative & known


def _worst_negatives(
    scores: Tensor, labels: Tensor, relations: Relations, known: Tensor | None
) -> tuple[Tensor, Tensor]:
    """(N, C) largest score among the negative classes at or below each class, and which classes are negative."""
    negative = _negatives(labels, relations, known)
    return max_at_or_below(scores.masked_fill(~negative, -_far(scores)), relations), negative


def _far(scores: Tensor) -> float:
    """A logit beyond all others that still is finite, so that zero weights make zeros of it."""
    return torch.finfo(scores.dtype).max / 4
