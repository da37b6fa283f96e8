"""Help for rare classes: offsets of scores, factors of gradients and of losses, for any scheme.

Shape letters: N RoIs, C classes. ``labels`` are (N,) int64 in [0, C], where C is background; ``relations`` are those of
the taxonomy; ``counts`` are (C,) and say how often each class has occurred, where below one counts as one.

Offsets of scores are those of the classes that a RoI's label is a negative of. The label, its ancestors and whatever
else an object of that label may be are no negatives and keep their scores, as does background; RoIs of background
change nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hierseg.functional.relations import Relations


def expanded_counts(labels: Tensor, weights: Tensor, relations: Relations) -> Tensor:
    """(C,) sums of (N,) weights by label, in their dtype; one of a class is one of each of its ancestors."""
    per_label = torch.zeros(relations.num_classes + 1, dtype=weights.dtype, device=weights.device)
    own = per_label.index_add(0, labels, weights)[:-1]
    classes, ancestors = relations.ancestor_pairs
    return own.index_add(0, ancestors, own[classes])


def seesaw_offsets(
    probabilities: Tensor, labels: Tensor, counts: Tensor, relations: Relations, *, p: float, q: float
) -> Tensor:
    """(N, C + 1) offsets log(M_yj · C_yj) of the scores of the negatives j of a RoI labelled y.

    Mitigation M_yj = min(1, n_j / n_y)^p presses less on classes that are rarer than the label, compensation
    C_yj = max(1, p_j / p_y)^q more on those that the model takes the RoI for. ``probabilities`` are (N, C + 1), of
    classes and background, without gradient; p and q are at least 0. Source: Wang et al., "Seesaw loss for
    long-tailed instance segmentation", CVPR 2021, where classes are flat and background is told apart in another head.
    """
    places = labels.clamp(max=relations.num_classes - 1)[:, None]
    frequency = counts.clamp(min=1).to(probabilities.dtype).log()
    mitigation = p * (frequency - frequency[places]).clamp(max=0)
    # A label's probability below 0.01 would let one RoI move a class without limit.
    confidence = probabilities[:, :-1].clamp(min=torch.finfo(probabilities.dtype).tiny).log()
    compensation = q * (confidence - probabilities.gather(1, places).clamp(min=0.01).log()).clamp(min=0)
    return torch.nn.functional.pad((mitigation + compensation) * _wrong(labels, relations), (0, 1))


def log_prior_offsets(counts: Tensor, groups: Tensor, *, tau: float) -> Tensor:
    """(C,) float32 offsets τ·log π_v + log Σ π^{1−τ} of the scores, π_v the share of class v in its group.

    Adding them in training and not at test makes the model answer as if all classes of a group were equally
    frequent. The second term, the same for a whole group, keeps the group's mass against background: equal counts
    give zero offsets. Source: Menon et al., "Long-tail learning via logit adjustment", ICLR 2021, which has no
    background and so needs no second term.

    ``groups`` are (C,) int64; classes that compete with one another have the same number. τ is at least 0; 1 corrects
    the whole prior.
    """
    counts = counts.clamp(min=1).double()
    none = torch.zeros(int(groups.max()) + 1, dtype=counts.dtype, device=counts.device)
    shares = (counts / none.index_add(0, groups, counts)[groups]).log()
    kept = none.index_add(0, groups, ((1 - tau) * shares).exp())[groups].log()
    return (tau * shares + kept).float()


def gradient_ratio_factors(
    positive: Tensor, negative: Tensor, *, gamma: float, mu: float, alpha: float
) -> tuple[Tensor, Tensor]:
    """(C,) factors of the gradients that raise each class's logit, and (C,) of those that lower it.

    Lowering ones get f(g) = 1 / (1 + e^{−γ(g − μ)}) with g the ratio of what has raised the class to what has
    lowered it, raising ones 1 + α·(1 − f(g)). A class that nothing has lowered yet gets factors of one. Source:
    Tan et al., "Equalization loss v2", CVPR 2021, for losses with one sigmoid per class. Gradients of a softmax that
    are scaled so are those of no objective, and nothing keeps the logits finite: :func:`equalization_offsets` is for
    them.

    Args:
        positive: (C,) sum of the sizes of the raising gradients so far.
        negative: (C,) sum of the sizes of the lowering ones.
        gamma: Steepness.
        mu: Ratio at which f is one half.
        alpha: How much more rare classes are raised.
    """
    ratio = positive / negative.clamp(min=torch.finfo(negative.dtype).tiny)
    lowering = torch.where(negative > 0, (gamma * (ratio - mu)).sigmoid(), 1)
    return 1 + alpha * (1 - lowering), lowering


def equalization_offsets(lowering: Tensor, labels: Tensor, relations: Relations) -> Tensor:
    """(N, C + 1) offsets log f_j of the scores of the negatives j of a RoI.

    Each counts f_j times in the RoI's normaliser and so is pressed on less, the rarer it is. ``lowering`` is the (C,) f
    of :func:`gradient_ratio_factors`; below 0.01 counts as 0.01. Source: the softmax equalization loss of Tan et al.,
    "Equalization loss for long-tailed object recognition", CVPR 2020, where the weights of the negatives are 0 or 1 by
    how often a class occurs.
    """
    # A class that next to nothing presses on could rise above the label without limit and the loss not notice.
    return torch.nn.functional.pad(lowering.clamp(min=0.01).log() * _wrong(labels, relations), (0, 1))


def _wrong(labels: Tensor, relations: Relations) -> Tensor:
    """(N, C) bool; what an object of the label cannot be, and nothing for background."""
    return ~relations.compatible.mask(labels)[:, :-1] & (labels < relations.num_classes)[:, None]
