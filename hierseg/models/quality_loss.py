"""The hierarchical loss of one-stage detectors: candidates are many, nearly all background, and no box is sampled.

Shape letters: N candidates (points or anchors), C classes, G channels, K objects.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hierseg.errors import ConfigError
from hierseg.functional.schemes import is_at_least_zero
from hierseg.models.hierarchical_loss import HierarchicalLoss, Reduction
from hierseg.registry import MODELS


@MODELS.register_module()
class HierarchicalQualityLoss(HierarchicalLoss):
    """Any scheme of :class:`HierarchicalLoss` in the form of the quality focal loss.

    A candidate of label y whose box overlaps its object by q costs |q − p(y)|^β · [q · L(y) + (1 − q) · L(background)]:
    its score learns to say how good the box is, and what is right already counts little. L is the scheme's loss, p(y)
    the probability that it trains. A coarse label is the mass of what is below it, in L and in p. With q = 1 and β = 0
    it is the scheme itself. Background has q = 1. Schemes with a sigmoid for each class have the form class by class:
    the label and its ancestors have the target q, undecided classes no weight. Source: Li et al., "Generalized focal
    loss", NeurIPS 2020, who have one sigmoid for each class, and no hierarchy.

    Balances shift scores or scale gradients as they do in the scheme itself.

    Args:
        *args: As of :class:`HierarchicalLoss`.
        beta: β; the paper's 2. What a focal scheme has under ``gamma`` is added to it.
        **kwargs: As of :class:`HierarchicalLoss`.

    Raises:
        ConfigError: As of :class:`HierarchicalLoss`, and if ``beta`` is no number of at least 0.
    """

    def __init__(self, *args: Any, beta: float = 2.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not is_at_least_zero(beta):
            what = f'beta={beta!r}'
            raise ConfigError(what, where='HierarchicalQualityLoss', fix='Give a finite number of at least 0.')
        self.beta = beta + self.options.get('gamma', 0.0)

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

        What a candidate would cost as that object, without balances; an assigner weighs it against the overlap. It is
        computed once for each class among the objects: for each pair, with a target for every class as mmdet has it, it
        would take N · K · C of memory.

        Args:
            cls_score: (N, G) logits.
            labels: (K,) int64 in [0, C).
            quality: (N, K) in [0, 1].
        """
        relations = self.relations_on(cls_score.device)
        with torch.autocast(cls_score.device.type, enabled=False):
            scores, costs = self._scheme.scores(cls_score, relations), torch.zeros_like(quality)
            if not len(scores):
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
                    found = (wanted - self._probability(scores, label, losses)[:, None]).abs().pow(self.beta) * mixed
                costs[:, objects] = found.to(costs.dtype)
            return costs

    def _losses_as(self, scores: Tensor, label: Tensor) -> Tensor:
        """(N,) losses of all scores with one label."""
        relations = self.relations_on(scores.device)
        return self._scheme.losses(scores, label.expand(len(scores)), relations, known=None, **self.options)

    def _probability(self, scores: Tensor, labels: Tensor, losses: Tensor) -> Tensor:
        """(N,) probabilities of the labels, of which the scheme's losses are known."""
        if self._scheme.is_likelihood:
            return torch.exp(-losses)
        probabilities = self._scheme.probabilities(scores, self.relations_on(scores.device))
        return probabilities.gather(1, labels.expand(len(scores))[:, None]).squeeze(1)

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
            factors = (quality - self._probability(scores, labels, losses)).abs().pow(self.beta)
        # Only they have a part in background.
        rows = (quality < 1).nonzero().squeeze(1)
        if len(rows):
            background = super()._losses(
                logits.index_select(0, rows),
                labels=torch.full_like(rows, self.taxonomy.num_classes),
                known=None if known is None else known.index_select(0, rows),
            )
            share = quality.index_select(0, rows)
            mixed = share * losses.index_select(0, rows) + (1 - share) * background
            losses = losses.index_copy(0, rows, mixed)
        return factors * losses
