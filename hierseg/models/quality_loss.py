"""The hierarchical loss of one-stage detectors: candidates are many, nearly all background, and no box is sampled.

Shape letters: N candidates (points or anchors), C classes, G channels, K objects.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hierseg.errors import ConfigError
from hierseg.functional.schemes import is_at_least_zero
from hierseg.functional.softmax_losses import marginal_negative_log_likelihood
from hierseg.models.hierarchical_loss import HierarchicalLoss, Reduction
from hierseg.registry import MODELS


@MODELS.register_module()
class HierarchicalQualityLoss(HierarchicalLoss):
    """Any scheme of :class:`HierarchicalLoss` in the form of the quality focal loss.

    A candidate of label y whose box overlaps its object by q costs
    ``|q − p(y)|^β · [q · L(y) + (1 − q) · L(background)]``: its score learns to say how good the box is, and what is
    right already counts little. L is the scheme's loss, p(y) the probability that it trains. A coarse label is the mass
    of what is below it, in L and in p. With q = 1 and β = 0 it is the scheme itself. Background has q = 1. Schemes with
    a sigmoid for each class have the form class by class: the label and its ancestors have the target q, undecided
    classes no weight. Source: Li et al., "Generalized focal loss", NeurIPS 2020, who have one sigmoid for each class,
    and no hierarchy.

    Every balance composes. What ``seesaw`` and, under a softmax, ``eql`` add to the scores of label y is in L(y) and
    p(y), and not in L(background), as of background they add nothing; what ``logit_adjustment`` adds is in all three.
    So p(y) with it learns to be q; at test it is gone, as in the scheme itself. What ``eql`` multiplies, a candidate's
    loss or its gradients, is the whole form, which stays least where it was.

    Args:
        *args: As of :class:`HierarchicalLoss`.
        beta: β, 0 or at least 1; the paper's 2. Between them the slope is infinite where p(y) is q, as it is where
            what is right has been learnt. What a focal scheme has under ``gamma`` is added to it.
        **kwargs: As of :class:`HierarchicalLoss`.

    Raises:
        ConfigError: As of :class:`HierarchicalLoss`, and if ``beta``, with what is added to it, is another number.
    """

    def __init__(self, *args: Any, beta: float = 2.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        gamma = self.options.get('gamma', 0.0)
        if not is_at_least_zero(beta) or 0 < beta + gamma < 1:
            what = f'beta={beta!r}' + (f' with gamma={gamma!r}' if gamma else '')
            fix = 'Give 0 or a finite number of at least 1.'
            raise ConfigError(what, where='HierarchicalQualityLoss', fix=fix)
        self.beta = beta + gamma

    def forward(
        self,
        cls_score: Tensor,
        labels: Tensor | tuple[Tensor, Tensor],
        label_weights: Tensor | None = None,
        avg_factor: float | None = None,
        reduction_override: Reduction | None = None,
        *,
        known: Tensor | None = None,
        quality: Tensor | None = None,
    ) -> Tensor:
        """The weighted loss.

        Args:
            cls_score: (N, G) logits.
            labels: (N,) int64 in [0, C], or these and the quality, as mmdet's heads give them to a quality focal loss.
            label_weights: As of :meth:`HierarchicalLoss.forward`.
            avg_factor: As there.
            reduction_override: As there.
            known: As there.
            quality: (N,) in [0, 1]; one where it is None, and of background whatever it says.

        Returns:
            A scalar, or (N,) without reduction.
        """
        if isinstance(labels, tuple):
            labels, quality = labels
        return super().forward(
            cls_score, labels, label_weights, avg_factor, reduction_override, known=known, quality=quality
        )

    def pairwise(self, cls_score: Tensor, labels: Tensor, quality: Tensor) -> Tensor:
        """(N, K) losses of each of N candidates if it were the one of each of K objects.

        What a candidate would cost as that object, without balances and with all classes known; an assigner weighs it
        against the overlap. It is computed once for each class among the objects: for each pair, with a target for
        every class as mmdet has it, it would take N · K · C of memory.

        Args:
            cls_score: (N, G) logits.
            labels: (K,) int64 in [0, C).
            quality: (N, K) in [0, 1].
        """
        relations = self.relations_on(cls_score.device)
        with torch.autocast(cls_score.device.type, enabled=False):
            scores, costs = self._scheme.scores(cls_score, relations), torch.zeros_like(quality)
            if not costs.numel():
                return costs
            background = torch.full_like(labels[:1], self.taxonomy.num_classes)
            nothing = None if self._scheme.terms else self._losses_as(scores, background)
            for label in labels.unique():
                objects = (labels == label).nonzero().squeeze(1)
                wanted = quality.index_select(1, objects)
                if nothing is None:
                    terms = self._scheme.terms(scores, label.expand(len(scores)), relations)
                    found = terms.quality_losses(wanted, beta=self.beta)
                else:
                    losses = self._losses_as(scores, label)
                    mixed = wanted * losses[:, None] + (1 - wanted) * nothing[:, None]
                    right = self._probability(scores, label.expand(len(scores)), losses, None)
                    found = (wanted - right[:, None]).abs().pow(self.beta) * mixed
                costs[:, objects] = found.to(costs.dtype)
            return costs

    def _losses_as(self, scores: Tensor, label: Tensor) -> Tensor:
        """(N,) losses of all scores with one label."""
        relations = self.relations_on(scores.device)
        return self._scheme.losses(scores, label.expand(len(scores)), relations, known=None, **self.options)

    def _probability(self, scores: Tensor, labels: Tensor, losses: Tensor, known: Tensor | None) -> Tensor:
        """(N,) probabilities of the labels among what the losses of the same scores and labels count."""
        if not self._scheme.is_likelihood:
            relations = self.relations_on(scores.device)
            losses = marginal_negative_log_likelihood(scores, labels, relations, known=known)
        return torch.exp(-losses)

    def _losses(self, logits: Tensor, *, labels: Tensor, known: Tensor | None, quality: Tensor | None = None) -> Tensor:
        if quality is None:
            quality = logits.new_ones(len(logits))
        quality = torch.where(labels < self.taxonomy.num_classes, quality.to(logits.dtype), 1)
        if self._scheme.terms:
            relations = self.relations_on(logits.device)
            terms = self._scheme.terms(self._shifted(logits, labels), labels, relations, known=known)
            return terms.quality_losses(quality[:, None], beta=self.beta).squeeze(1)
        losses = super()._losses(logits, labels=labels, known=known)
        factors: Tensor | int = 1
        if self.beta:
            scores = logits if self._scheme.is_likelihood else self._shifted(logits, labels)
            factors = (quality - self._probability(scores, labels, losses, known)).abs().pow(self.beta)
        # Only they have a part in background.
        rows = (quality < 1).nonzero().squeeze(1)
        if len(rows):
            if known is not None:
                known = known.index_select(0, rows) | self._own(labels.index_select(0, rows))
            background = super()._losses(
                logits.index_select(0, rows), labels=torch.full_like(rows, self.taxonomy.num_classes), known=known
            )
            share = quality.index_select(0, rows)
            mixed = share * losses.index_select(0, rows) + (1 - share) * background
            losses = losses.index_copy(0, rows, mixed)
        return factors * losses

    def _own(self, labels: Tensor) -> Tensor:
        """(N, C) bool; what a softmax counts of a label whether it is known or not.

        Background is weighed against the same, or mass could leave the label for unknown classes below it.
        """
        relations = self.relations_on(labels.device)
        own = relations.below.mask(labels) if self._scheme.has_outcomes else relations.above_mask(labels)
        return own[:, :-1]
