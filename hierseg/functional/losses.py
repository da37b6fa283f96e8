"""Losses of the softmax over outcomes, without reduction.

Shape letters: N RoIs, C classes, L the longest preferred path, I RoIs with an internal label.

An outcome says "this box is class v and nothing deeper"; background is the last. An object labelled at an internal
class says only that the truth lies somewhere at or below it, so the label's mass is that of D(y), the label and its
descendants, by whatever path they are below it. All functions take

- ``scores``: (N, C + 1) unnormalised outcome log-probabilities, float32 or float64;
- ``labels``: (N,) int64 in [0, C]; C is background;
- ``relations``: of the taxonomy;
- ``known``: (N, C) bool or None; outcomes that are not known to be absent or present where the RoI lies leave its
  normaliser, except those at or below its label. All are known where it is None;

and return (N,) losses, at least zero, computed in log space throughout.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hierseg.functional.relations import Relations


def marginal_negative_log_likelihood(
    scores: Tensor, labels: Tensor, relations: Relations, *, known: Tensor | None = None
) -> Tensor:
    """−log Σ_{u ∈ D(y)} softmax(s)_u: the cross-entropy of the mass at or below the label.

    At a leaf and for background this is the cross-entropy. Source: the flat softmax with marginal likelihood of
    Valmadre, "Hierarchical classification at multiple operating points", NeurIPS 2022, with an outcome for every
    internal class. The arguments are those of the module.
    """
    counted = None if known is None else _counted(labels, relations, known)
    return _MarginalLoss.apply(scores, labels, relations, counted, False)  # type: ignore[no-any-return, no-untyped-call]


def path_sum_negative_log_likelihood(
    logits: Tensor, labels: Tensor, relations: Relations, *, known: Tensor | None = None
) -> Tensor:
    """:func:`marginal_negative_log_likelihood` of ``path_sum_logits``, in one step.

    Two steps would copy scores and gradient once more each, and a copy costs a tenth of a cross-entropy or more.

    ``logits`` are (N, C + 1), θ, of any precision; half is raised to float32. The others are those of the module.
    """
    logits = logits if logits.dtype == torch.float64 else logits.float()
    counted = None if known is None else _counted(labels, relations, known)
    return _MarginalLoss.apply(logits, labels, relations, counted, True)  # type: ignore[no-any-return, no-untyped-call]


def soft_max_margin(
    scores: Tensor, labels: Tensor, relations: Relations, *, known: Tensor | None = None, tau: float
) -> Tensor:
    """−log Σ_{u ∈ D(y)} e^{s_u} + log Σ_u e^{s_u + τ·1[u cannot be the label's]}: wrong classes must lose by τ.

    At a leaf these wrong classes are all but the label and its ancestors. An internal label spares its descendants
    too and, where those have several parents, their other ancestors: an object labelled Bear may be a Teddy and so a
    Toy. Background has the margin against every object, every class has it against background. τ = 0 gives the
    marginal likelihood. Source: soft-max-margin in Valmadre, NeurIPS 2022. The arguments are those of the module.
    """
    margins = tau * (~relations.compatible).to(scores.dtype)
    # The label and what is below it have no margin, so the label's mass is that of the scores themselves.
    return marginal_negative_log_likelihood(scores + margins[labels], labels, relations, known=known)


def soft_label_cross_entropy(
    scores: Tensor, labels: Tensor, relations: Relations, *, known: Tensor | None = None, beta: float
) -> Tensor:
    """−Σ_c t_c log p_c with targets t_c ∝ e^{−β·d(y, c)}: near classes share in the target.

    d is the fewest edges up to a common ancestor and down again over the largest such number in the taxonomy, so
    that it spans [0, 1] as the published height of the lowest common ancestor does, and is zero for an internal
    label itself. Everything at or below the label counts as one class with d = 0. Background shares with no class: a
    smoothed background would let every object be missed a little. β → ∞ gives the marginal likelihood. Source: soft
    labels in Bertinetto et al., "Making better mistakes", CVPR 2020. The arguments are those of the module.
    """
    apart = relations.distances.to(scores.dtype).masked_fill(relations.below, float('inf'))
    shares = torch.where(apart.isinf(), 0, (-beta * apart.masked_fill(apart.isinf(), 0)).exp())[labels]
    if known is not None:
        shares = shares * torch.nn.functional.pad(known, (0, 1), value=True)
    total = _among_known(scores, labels, relations, known).logsumexp(dim=1)
    wanted = _log_mass(scores, labels, relations) + (shares * scores).sum(dim=1)
    return (total - wanted / (1 + shares.sum(dim=1))).clamp(min=0)


def hierarchical_cross_entropy(
    scores: Tensor, labels: Tensor, relations: Relations, *, known: Tensor | None = None, alpha: float
) -> Tensor:
    """HXE: −Σ_l e^{−α·l} log p(a_l | a_{l−1}) along the path from the root class a_0 to the label.

    p is the softmax mass at or below a class and a_{−1} everything, background included, so that step 0 tells root
    classes and background apart. The deeper a step, the less it counts; α = 0 gives the marginal likelihood. The
    path of an internal label ends there. With several parents it follows the preferred ones, for each class's mass
    lies within that of each of its parents. Source: Bertinetto et al., "Making better mistakes", CVPR 2020; l is the
    number of edges from the root, as in their code. The arguments are those of the module.
    """
    counted = _among_known(scores, labels, relations, known)
    within = counted.logsumexp(dim=1)
    losses = torch.zeros_like(within)
    for step, classes in enumerate(relations.preferred_paths[labels].unbind(dim=1)):
        # Beyond the label the path repeats it, and the step costs nothing.
        mass = _log_mass(counted, classes, relations)
        losses = losses + math.exp(-alpha * step) * (within - mass)
        within = mass
    return losses.clamp(min=0)


class _MarginalLoss(torch.autograd.Function):
    """The marginal likelihood with its gradient, softmax − softmax within the label's descendants, in one pass.

    A loss is the difference of two log-sum-exps, over all outcomes and over those at or below the label. Leaves and
    background, which most labels are, need no sum for the second; of RoIs with an internal label a second row is
    kept that has nothing but these outcomes, and all rows are summed alike. They become the gradient in place.
    """

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, labels: Tensor, relations: Relations, counted: Tensor | None, path_sums: bool
    ) -> Tensor:
        internal = relations.internal.index_select(0, labels).nonzero().squeeze(1)
        count = len(labels)
        rows = _rows(logits, labels, internal, relations, counted=counted, path_sums=path_sums)
        within = rows[:count].gather(1, labels[:, None])
        top = rows.amax(dim=1, keepdim=True)
        ctx.numerators = rows.sub_(top).exp_()
        total = rows.sum(dim=1, keepdim=True)
        ctx.relations, ctx.path_sums = relations, path_sums
        ctx.save_for_backward(logits, labels, internal, counted, top, total)
        # Large scores are subtracted first: what they differ by may be less than a sum with either could hold.
        within.index_copy_(0, internal, top[count:])
        logarithms = total.log()
        losses = (top[:count] - within).add_(logarithms[:count])
        return losses.index_add_(0, internal, logarithms[count:], alpha=-1).clamp_(min=0).squeeze(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, factors: Tensor) -> tuple[Tensor, None, None, None, None]:
        logits, labels, internal, counted, top, total = ctx.saved_tensors
        rows, ctx.numerators = ctx.numerators, None
        if rows is None:
            # A graph that is kept comes here again, and the rows have left as the first gradient.
            rows = _rows(logits, labels, internal, ctx.relations, counted=counted, path_sums=ctx.path_sums)
            rows.sub_(top).exp_()
        rows.mul_(torch.cat((factors, -factors.index_select(0, internal)))[:, None] / total)
        gradient = rows[: len(labels)]
        gradient.scatter_add_(1, labels[:, None], -factors.index_fill(0, internal, 0)[:, None])
        gradient.index_add_(0, internal, rows[len(labels) :])
        if ctx.path_sums:
            classes, ancestors = ctx.relations.ancestor_pairs
            gradient.index_add_(1, ancestors, gradient.index_select(1, classes))
        return gradient, None, None, None, None


def _rows(
    logits: Tensor, labels: Tensor, internal: Tensor, relations: Relations, *, counted: Tensor | None, path_sums: bool
) -> Tensor:
    """(N + I, C + 1) scores, −∞ where they do not count; the last I rows those at or below internal labels."""
    rows = torch.cat((logits, logits.index_select(0, internal)))
    if path_sums:
        classes, ancestors = relations.ancestor_pairs
        rows.index_add_(1, classes, rows.index_select(1, ancestors))
    if counted is not None:
        rows[: len(labels)].masked_fill_(~counted, float('-inf'))
    below = relations.below.index_select(0, labels.index_select(0, internal))
    rows[len(labels) :].masked_fill_(~below, float('-inf'))
    return rows


def _log_mass(scores: Tensor, labels: Tensor, relations: Relations) -> Tensor:
    """(N,) logarithms of the unnormalised mass at or below the labels."""
    below = relations.descendants[labels]
    return scores.gather(1, below.clamp(min=0)).masked_fill(below < 0, float('-inf')).logsumexp(dim=1)


def _among_known(scores: Tensor, labels: Tensor, relations: Relations, known: Tensor | None) -> Tensor:
    """The scores, −∞ where an outcome does not count."""
    return scores if known is None else scores.masked_fill(~_counted(labels, relations, known), float('-inf'))


def _counted(labels: Tensor, relations: Relations, known: Tensor) -> Tensor:
    """(N, C + 1) bool; outcomes that are known, background, or at or below the label."""
    return torch.nn.functional.pad(known, (0, 1), value=True) | relations.below[labels]
