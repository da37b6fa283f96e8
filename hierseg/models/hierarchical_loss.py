"""The classification loss that turns mmdet's own box head into a hierarchical one.

Shape letters: N RoIs, C classes, D the most classes at or below one class.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from mmdet.models.losses.utils import weight_reduce_loss
from torch import Tensor, nn

from hierseg.errors import ConfigError
from hierseg.functional import (
    class_probabilities,
    marginal_negative_log_likelihood,
    padded_descendants,
    path_sum_logits,
)
from hierseg.registry import MODELS
from hierseg.taxonomy import Taxonomy, read_taxonomy

Scheme = Literal['path_sum', 'flat']
Reduction = Literal['none', 'mean', 'sum']


@MODELS.register_module()
class HierarchicalLoss(nn.Module):
    """Softmax over the outcomes of a taxonomy, trained by marginal likelihood.

    It answers mmdet's ``custom_*`` protocol, through which ``BBoxHead`` takes the number of classifier
    channels (C + 1), the activation at test time (probability of every class, parents included) and the
    accuracy to log from the loss. Labels may be at any depth.

    Args:
        taxonomy: A taxonomy, or the path of a file that ``read_taxonomy`` understands; the same one
            that the data set and the evaluator use.
        scheme: ``path_sum`` adds the logits along each class's ancestors; ``flat`` takes each class's
            own logit alone.
        reduction: As in mmdet.
        loss_weight: Factor on the result.

    Raises:
        ConfigError: On an unknown scheme or reduction.
        TaxonomyError: If the taxonomy cannot be read.
    """

    custom_cls_channels = True
    custom_activation = True
    custom_accuracy = True
    # mmdet's heads read this to choose between softmax and sigmoid when the flags above are off.
    use_sigmoid = False

    ancestor_pairs: Tensor
    descendants: Tensor

    def __init__(
        self,
        taxonomy: Taxonomy | str | Path,
        *,
        scheme: Scheme = 'path_sum',
        reduction: Reduction = 'mean',
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if scheme not in ('path_sum', 'flat'):
            raise ConfigError(f'unknown scheme {scheme!r}', where='HierarchicalLoss', fix='Use path_sum or flat.')
        if reduction not in ('none', 'mean', 'sum'):
            raise ConfigError(
                f'unknown reduction {reduction!r}', where='HierarchicalLoss', fix='Use none, mean or sum.'
            )
        self.taxonomy = taxonomy if isinstance(taxonomy, Taxonomy) else read_taxonomy(taxonomy)
        self.scheme, self.reduction, self.loss_weight = scheme, reduction, loss_weight
        arrays = self.taxonomy.arrays
        # Not persistent: they follow from the taxonomy, so a checkpoint need not carry them.
        self.register_buffer('ancestor_pairs', torch.from_numpy(arrays.ancestor_pairs.copy()), persistent=False)
        self.register_buffer('descendants', padded_descendants(arrays), persistent=False)

    def get_cls_channels(self, num_classes: int) -> int:
        """C + 1, once the head's class count is the taxonomy's.

        Raises:
            ConfigError: If it is not.
        """
        if num_classes != self.taxonomy.num_classes:
            raise ConfigError(
                f'the box head has num_classes={num_classes} but the taxonomy {self.taxonomy.num_classes} classes',
                where='HierarchicalLoss',
                fix='Set num_classes of the heads to the number of classes in the taxonomy.',
            )
        return num_classes + 1

    def outcome_logits(self, cls_score: Tensor) -> Tensor:
        """(N, C + 1) unnormalised outcome log-probabilities in float32 or float64; background last."""
        if self.scheme == 'path_sum':
            return path_sum_logits(cls_score, self.ancestor_pairs)
        return cls_score if cls_score.dtype == torch.float64 else cls_score.float()

    def get_activation(self, cls_score: Tensor) -> Tensor:
        """(N, C + 1) probability of every class and, last, of background."""
        return class_probabilities(self.outcome_logits(cls_score), self.ancestor_pairs)

    def get_accuracy(self, cls_score: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Share of RoIs, in per cent, whose most probable outcome agrees with the label.

        An outcome agrees when it is the label or below it. ``acc`` counts all RoIs, ``acc_classes`` those
        with an object.
        """
        chosen = self.outcome_logits(cls_score).argmax(dim=1, keepdim=True)
        agrees = (self.descendants[labels] == chosen).any(dim=1).float() * 100
        objects = agrees[labels < self.taxonomy.num_classes]
        return {'acc': _mean(agrees), 'acc_classes': _mean(objects)}

    def forward(
        self,
        cls_score: Tensor,
        labels: Tensor,
        label_weights: Tensor | None = None,
        avg_factor: float | None = None,
        reduction_override: Reduction | None = None,
        *,
        known: Tensor | None = None,
    ) -> Tensor:
        """The weighted loss.

        Args:
            cls_score: (N, C + 1) logits, background last.
            labels: (N,) int64 in [0, C]; C is background.
            label_weights: (N,) factors.
            avg_factor: What a mean divides by instead of N.
            reduction_override: Instead of the one set at construction.
            known: (N, C) bool; classes whose presence where the RoI lies somebody verified. The others count
                neither for nor against it; see ``marginal_negative_log_likelihood``. None: all.

        Returns:
            A scalar, or (N,) without reduction.
        """
        # Log-sum-exp of half-precision logits would lose small masses.
        with torch.autocast(cls_score.device.type, enabled=False):
            outcomes = self.outcome_logits(cls_score)
            losses = marginal_negative_log_likelihood(outcomes, labels, self.descendants, known=known)
            weights = None if label_weights is None else label_weights.to(losses.dtype)
            return self.loss_weight * weight_reduce_loss(
                losses, weights, reduction_override or self.reduction, avg_factor
            )


def _mean(values: Tensor) -> Tensor:
    return values.mean() if len(values) else values.new_zeros(())
