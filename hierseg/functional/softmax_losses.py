"""Losses of a softmax, over all outcomes or among siblings, without reduction, and the probabilities that they train.

Shape letters: N RoIs, C classes.

An outcome says "this box is class v and nothing deeper"; every class has one, internal ones too, and background is
the last, so a head has C + 1 logits. The probability of a class is the mass of the outcomes at or below it:
p(parent) ≥ p(child) holds by construction, and a class with several parents feeds all of its ancestors. An object
labelled at an internal class says only that the truth lies somewhere at or below it, so the label's mass is that of
D(y), the label and its descendants, by whatever path they are below it. All losses take

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

from hierseg.functional.relations import Relations, add_sums_, row_blocks, sums_above, sums_below


def own_logits(logits: Tensor, relations: Relations) -> Tensor:
    """The logits as they are; half precision is raised to float32."""
    return logits if logits.dtype == torch.float64 else logits.float()


def path_sum_logits(logits: Tensor, relations: Relations) -> Tensor:
    """Outcome logits of the path-sum softmax: each class's own logit plus those of its ancestors.

    Outcome u has the logit Σ_{a ∈ A(u)} θ_a, where A(u) holds u and every ancestor by any path once;
    background keeps its own. ``logits`` are (N, C + 1), θ. Source: PS-softmax in Valmadre, "Hierarchical
    classification at multiple operating points", NeurIPS 2022; simplified from Deep-RTC (Wu et al., ECCV 2020).
    """
    return sums_above(own_logits(logits, relations), relations)


def class_probabilities(scores: Tensor, relations: Relations) -> Tensor:
    """Probability of every class: the softmax mass of the outcomes at or below it.

    (N, C + 1) in [0, 1]; column C is background. Rows do not sum to one: classes are nested.
    """
    # Rounding may lift a root class over one.
    return sums_below(scores.softmax(dim=1), relations).clamp(0, 1)


def marginal_negative_log_likelihood(
    scores: Tensor, labels: Tensor, relations: Relations, *, known: Tensor | None = None
) -> Tensor:
    """−log Σ_{u ∈ D(y)} softmax(s)_u: the cross-entropy of the mass at or below the label.

    At a leaf and for background this is the cross-entropy. Source: the flat softmax with marginal likelihood of
    Valmadre, "Hierarchical classification at multiple operating points", NeurIPS 2022, with an outcome for every
    internal class.
    """
    counted = _counted(labels, relations, known)
    return _MarginalLoss.apply(scores, labels, relations, counted, False)  # type: ignore[no-any-return, no-untyped-call]


def path_sum_negative_log_likelihood(
    logits: Tensor, labels: Tensor, relations: Relations, *, known: Tensor | None = None
) -> Tensor:
    """:func:`marginal_negative_log_likelihood` of ``path_sum_logits``, in one step.

    Two steps would copy scores and gradient once more each, and a copy costs a tenth of a cross-entropy or more.
    ``logits`` are (N, C + 1), θ, of any precision.
    """
    logits, counted = own_logits(logits, relations), _counted(labels, relations, known)
    return _MarginalLoss.apply(logits, labels, relations, counted, True)  # type: ignore[no-any-return, no-untyped-call]


def soft_max_margin(
    scores: Tensor, labels: Tensor, relations: Relations, *, known: Tensor | None = None, tau: float
) -> Tensor:
    """−log Σ_{u ∈ D(y)} e^{s_u} + log Σ_u e^{s_u + τ·1[u cannot be the label's]}: wrong classes must lose by τ.

    At a leaf these wrong classes are all but the label and its ancestors. An internal label spares its descendants
    too and, where those have several parents, their other ancestors: an object labelled Bear may be a Teddy and so a
    Toy. Background has the margin against every object, every class has it against background. τ = 0 gives the
    marginal likelihood. Source: soft-max-margin in Valmadre, NeurIPS 2022.
    """
    margins = tau * (~relations.compatible.mask(labels)).to(scores.dtype)
    # The label and what is below it have no margin, so the label's mass is that of the scores themselves.
    return marginal_negative_log_likelihood(scores + margins, labels, relations, known=known)


def soft_label_cross_entropy(
    scores: Tensor, labels: Tensor, relations: Relations, *, known: Tensor | None = None, beta: float
) -> Tensor:
    """−Σ_c t_c log p_c with targets t_c ∝ e^{−β·d(y, c)}: near classes share in the target.

    d is the fewest edges up to a common ancestor and down again over the largest such number in the taxonomy, so
    that it spans [0, 1] as the published height of the lowest common ancestor does, and is zero for an internal
    label itself. Everything at or below the label counts as one class with d = 0. Background shares with no class: a
    smoothed background would let every object be missed a little. β → ∞ gives the marginal likelihood. Source: soft
    labels in Bertinetto et al., "Making better mistakes", CVPR 2020.
    """
    shares = _shares_by_distance(labels, relations, beta=beta, dtype=scores.dtype)
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
    number of edges from the root, as in their code.
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


def sibling_log_softmax(scores: Tensor, relations: Relations) -> Tensor:
    """Logarithm of p(v | parent): the log-softmax within each group of siblings, for trees alone.

    With two parents a class would need a conditional probability under each. Root classes and background are
    siblings. Each group is shifted by its own largest score, so that groups of very different scores lose nothing.
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
    below. Classes that are not known leave their group, except those at or above the label. On a flat taxonomy this
    is the cross-entropy. Source: WordTree in Redmon and Farhadi, "YOLO9000", CVPR 2017.
    """
    if known is not None:
        counted = torch.nn.functional.pad(known, (0, 1), value=True) | relations.above_mask(labels)
        # Finite, for a group may lose all of its members.
        scores = scores.masked_fill(~counted, torch.finfo(scores.dtype).min / 4)
    conditional = sibling_log_softmax(scores, relations)
    path = relations.ancestors[labels]
    # Background's path is itself, which the table leaves out.
    path[:, 0] = torch.where(labels == relations.num_classes, labels, path[:, 0])
    return -conditional.gather(1, path.clamp(min=0)).masked_fill(path < 0, 0).sum(dim=1)


def path_product_probabilities(scores: Tensor, relations: Relations) -> Tensor:
    """p(v) = Π_{a ∈ A(v)} p(a | parent of a): at most p(parent), since no factor exceeds one.

    Of a tree; (N, C + 1), background last. Root classes and background sum to one, and so do leaves and background.
    """
    return sums_above(sibling_log_softmax(scores, relations), relations).exp()


class _MarginalLoss(torch.autograd.Function):
    """The marginal likelihood with its gradient, softmax − softmax within the label's descendants, in one pass.

    A loss is the difference of two log-sum-exps, over all outcomes and over those at or below the label. Leaves and
    background, which most labels are, need no sum for the second; RoIs with an internal label have theirs in a second,
    small matrix. The scores are copied once, and the copy becomes the gradient in place, block of rows by block.
    """

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, labels: Tensor, relations: Relations, counted: Tensor | None, path_sums: bool
    ) -> Tensor:
        internal = relations.internal.index_select(0, labels)
        numerators = torch.empty_like(logits)
        total, within = logits.new_empty(len(logits), 1), logits.new_empty(len(logits), 1)
        insides = []
        for block in row_blocks(logits):
            rows = _shifted_scores_(numerators[block].copy_(logits[block]), relations, counted, block, path_sums)
            within[block] = rows.gather(1, labels[block, None])
            inside = internal[block].nonzero().squeeze(1)
            inner = rows.index_select(0, inside)
            inner.masked_fill_(~relations.below.mask(labels[block].index_select(0, inside)), float('-inf'))
            shares = inner.softmax(dim=1)
            # Their log-sum-exp, for the largest share is one over Σ e^{s − max s}.
            top = inner.amax(dim=1, keepdim=True) - shares.amax(dim=1, keepdim=True).log_()
            within[block].index_copy_(0, inside, top)
            insides.append((inside, shares))
            torch.sum(rows.exp_(), dim=1, keepdim=True, out=total[block])
        ctx.relations, ctx.path_sums, ctx.numerators, ctx.insides = relations, path_sums, numerators, insides
        ctx.save_for_backward(logits, labels, counted, total)
        return total.log().sub_(within).clamp_(min=0).squeeze(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, factors: Tensor) -> tuple[Tensor, None, None, None, None]:
        logits, labels, counted, total = ctx.saved_tensors
        gradient, ctx.numerators = ctx.numerators, None
        # A graph that is kept comes here again, after the first time has turned the numerators into the gradient.
        again = gradient is None
        gradient = torch.empty_like(logits) if again else gradient
        factors = factors[:, None]
        for block, (inside, shares) in zip(row_blocks(logits), ctx.insides, strict=True):
            rows, own = gradient[block], factors[block]
            if again:
                _shifted_scores_(rows.copy_(logits[block]), ctx.relations, counted, block, ctx.path_sums).exp_()
            rows.mul_(own / total[block])
            rows.scatter_add_(1, labels[block, None], -own.index_fill(0, inside, 0))
            rows.index_add_(0, inside, shares * own.index_select(0, inside), alpha=-1)
            if ctx.path_sums:
                add_sums_(rows, ctx.relations, below=True)
        return gradient, None, None, None, None


def _shifted_scores_(
    rows: Tensor, relations: Relations, counted: Tensor | None, block: slice, path_sums: bool
) -> Tensor:
    """Scores less the largest of their row, −∞ where they do not count, in place.

    Small losses among large scores depend on it: what scores differ by may be less than a sum with one could hold.
    """
    if path_sums:
        add_sums_(rows, relations, below=False)
    if counted is not None:
        rows.masked_fill_(~counted[block], float('-inf'))
    return rows.sub_(rows.amax(dim=1, keepdim=True))


def _shares_by_distance(labels: Tensor, relations: Relations, *, beta: float, dtype: torch.dtype) -> Tensor:
    """(N, C + 1) shares e^{−β·d} of the classes; zero at and below the label, and with background on either side."""
    found, place = torch.unique(labels, return_inverse=True)
    objects = found[found < relations.num_classes]  # ascending, so that background alone is left out, at the end
    apart = (relations.distances_from(objects).double() / relations.longest_distance).float().to(dtype)
    shares = (-beta * apart).exp_().masked_fill_(relations.below.mask(objects)[:, :-1], 0)
    return torch.nn.functional.pad(shares, (0, 1, 0, 1)).index_select(0, place)


def _log_mass(scores: Tensor, labels: Tensor, relations: Relations) -> Tensor:
    """(N,) logarithms of the unnormalised mass at or below the labels."""
    rows, places = relations.below.places(labels)
    members = scores[rows, relations.below.members[places]]
    top = scores.new_full((len(labels),), float('-inf')).scatter_reduce(0, rows, members.detach(), 'amax')
    total = torch.zeros_like(top).index_add(0, rows, (members - top[rows]).exp())
    return top + total.log()


def _among_known(scores: Tensor, labels: Tensor, relations: Relations, known: Tensor | None) -> Tensor:
    """The scores, −∞ where an outcome does not count."""
    counted = _counted(labels, relations, known)
    return scores if counted is None else scores.masked_fill(~counted, float('-inf'))


def _counted(labels: Tensor, relations: Relations, known: Tensor | None) -> Tensor | None:
    """(N, C + 1) bool; outcomes that are known, background, or at or below the label; None where all count."""
    if known is None:
        return None
    return torch.nn.functional.pad(known, (0, 1), value=True) | relations.below.mask(labels)
