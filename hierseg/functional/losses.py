"""Losses of the softmax over outcomes, without reduction.

Shape letters: N RoIs, C classes, L the longest preferred path.

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

from hierseg.functional.probabilities import add_columns_
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
    background, which most labels are, need no sum for the second; RoIs with an internal label have theirs in a second,
    small matrix. The scores are copied once, and the copy becomes the gradient in place.
    """

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, labels: Tensor, relations: Relations, counted: Tensor | None, path_sums: bool
    ) -> Tensor:
        internal = relations.internal.index_select(0, labels).nonzero().squeeze(1)
        rows = _shifted_scores(logits, relations, counted=counted, path_sums=path_sums)
        within = rows.gather(1, labels[:, None])
        below = relations.below.index_select(0, labels.index_select(0, internal))
        inner = rows.index_select(0, internal).masked_fill_(~below, float('-inf'))
        shares = inner.softmax(dim=1)
        # Their log-sum-exp, for the largest share is one over Σ e^{s − max s}.
        within.index_copy_(0, internal, inner.amax(dim=1, keepdim=True) - shares.amax(dim=1, keepdim=True).log_())
        ctx.numerators = rows.exp_()
        total = rows.sum(dim=1, keepdim=True)
        ctx.relations, ctx.path_sums = relations, path_sums
        ctx.save_for_backward(logits, labels, internal, shares, counted, total)
        return total.log().sub_(within).clamp_(min=0).squeeze(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, factors: Tensor) -> tuple[Tensor, None, None, None, None]:
        logits, labels, internal, shares, counted, total = ctx.saved_tensors
        gradient, ctx.numerators = ctx.numerators, None
        if gradient is None:
            # A graph that is kept comes here again, and the numerators have left as the first gradient.
            gradient = _shifted_scores(logits, ctx.relations, counted=counted, path_sums=ctx.path_sums).exp_()
        factors = factors[:, None]
        gradient.mul_(factors / total)
        gradient.scatter_add_(1, labels[:, None], -factors.index_fill(0, internal, 0))
        gradient.index_add_(0, internal, shares * factors.index_select(0, internal), alpha=-1)
        if ctx.path_sums:
            classes, ancestors = ctx.relations.ancestor_pairs.unbind()
            add_columns_(gradient, classes, ancestors)
        return gradient, None, None, None, None


def _shifted_scores(logits: Tensor, relations: Relations, *, counted: Tensor | None, path_sums: bool) -> Tensor:
    """(N, C + 1) scores less the largest of their row, −∞ where they do not count.

    Small losses among large scores depend on it: what scores differ by may be less than a sum with one could hold.
    """
    rows = logits.clone()
    if path_sums:
        classes, ancestors = relations.ancestor_pairs.unbind()
        add_columns_(rows, ancestors, classes)
    if counted is not None:
        rows.masked_fill_(~counted, float('-inf'))
    return rows.sub_(rows.amax(dim=1, keepdim=True))


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
