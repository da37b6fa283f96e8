"""The classification loss that turns mmdet's own box head into a hierarchical one.

Shape letters: N RoIs, C classes, G channels (C, or C + 1 with background last; the scheme says which).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any, Literal

import torch
from mmdet.models.losses.utils import weight_reduce_loss
from mmdet.models.roi_heads.bbox_heads import BBoxHead, ConvFCBBoxHead
from torch import Tensor, nn
from torch.nn.modules.module import register_module_module_registration_hook

from hierseg.errors import ConfigError
from hierseg.functional.relations import Relations
from hierseg.functional.schemes import complete_options, find_scheme
from hierseg.models.balance import GRADIENT_BALANCE, build_balances
from hierseg.registry import MODELS
from hierseg.taxonomy import Taxonomy, read_taxonomy

Reduction = Literal['none', 'mean', 'sum']


@MODELS.register_module()
class HierarchicalLoss(nn.Module):
    """Trains class scores on a taxonomy by one of several schemes; docs/losses.md compares them.

    It answers mmdet's ``custom_*`` protocol, through which ``BBoxHead`` takes the number of classifier
    channels, the activation at test time (probability of every class, parents included) and the accuracy
    to log from the loss. Labels may be at any depth.

    Args:
        taxonomy: A taxonomy, or the path of a file that ``read_taxonomy`` understands; the same one
            that the data set and the evaluator use.
        scheme: A name in ``hierseg.functional.SCHEMES``.
        options: Numbers that the scheme takes, such as ``dict(tau=5.0)`` for ``margin``; its defaults are
            there too.
        balance: What helps rare classes, ``dict(type=..., **options)`` or a list of them, with the types
            ``seesaw``, ``eql`` and ``logit_adjustment``; see ``hierseg.models.balance``.
        reduction: As in mmdet.
        loss_weight: Factor on the result.

    Raises:
        ConfigError: On an unknown scheme, option, balance or reduction; later, when a head that does not keep to
            the protocol takes it as its ``loss_cls``.
        TaxonomyError: If the taxonomy cannot be read, or the scheme does not hold on it.
    """

    custom_cls_channels = True
    custom_activation = True
    custom_accuracy = True

    def __init__(
        self,
        taxonomy: Taxonomy | str | Path,
        *,
        scheme: str = 'path_sum',
        options: Mapping[str, float] | None = None,
        balance: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
        reduction: Reduction = 'mean',
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if reduction not in ('none', 'mean', 'sum'):
            what = f'unknown reduction {reduction!r}'
            raise ConfigError(what, where='HierarchicalLoss', fix='Use none, mean or sum.')
        self.taxonomy = taxonomy if isinstance(taxonomy, Taxonomy) else read_taxonomy(taxonomy)
        self.scheme, self.reduction, self.loss_weight = scheme, reduction, loss_weight
        self._scheme = find_scheme(scheme, self.taxonomy)
        self.options = complete_options(scheme, options or {})
        self.balance = build_balances(balance, self.taxonomy, self._scheme)
        self._score_balances = [module for module in self.balance.values() if hasattr(module, 'offsets')]
        # No buffers: they follow from the taxonomy, so a checkpoint need not carry them.
        self._relations = Relations.of(self.taxonomy.arrays)

    def get_cls_channels(self, num_classes: int) -> int:
        """C + 1, or C for schemes without a channel for background; refuses a head of another number of classes."""
        if num_classes != self.taxonomy.num_classes:
            raise ConfigError(
                f'the box head has num_classes={num_classes} but the taxonomy {self.taxonomy.num_classes} classes',
                where='HierarchicalLoss',
                fix='Set num_classes of the heads to the number of classes in the taxonomy.',
            )
        return self._scheme.channels(num_classes)

    def get_activation(self, cls_score: Tensor) -> Tensor:
        """(N, C + 1) probability of every class and, last, of background."""
        relations = self.relations_on(cls_score.device)
        with torch.autocast(cls_score.device.type, enabled=False):
            return self._scheme.probabilities(self._scheme.scores(cls_score, relations), relations)

    def get_accuracy(self, cls_score: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Share of RoIs, in per cent, whose most probable outcome agrees with the label.

        An outcome agrees when it is the label or below it; schemes without outcomes choose the most probable leaf
        or background. ``acc`` counts all RoIs, ``acc_classes`` those with an object.
        """
        with torch.autocast(cls_score.device.type, enabled=False):
            relations = self.relations_on(cls_score.device)
            chosen = self._scheme.chosen(self._scheme.scores(cls_score.detach(), relations), relations)
        agrees = relations.is_below(chosen, labels).float() * 100
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
        **terms: Any,
    ) -> Tensor:
        """The weighted loss.

        Args:
            cls_score: (N, G) logits.
            labels: (N,) int64 in [0, C]; C is background.
            label_weights: (N,) factors.
            avg_factor: What a mean divides by instead of N.
            reduction_override: Instead of the one set at construction.
            known: (N, C) bool; classes whose presence where the RoI lies somebody verified. The others count
                neither for nor against it; see the modules of ``hierseg.functional``. None: all.
            **terms: What a form of the loss needs beside these.

        Returns:
            A scalar, or (N,) without reduction.
        """
        # Log-sum-exp of half-precision logits would lose small masses. To leave an autocast that is off, or to
        # multiply by one, would cost a twentieth of a cross-entropy each, there and back.
        device = cls_score.device.type
        with torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext():
            logits = cls_score if cls_score.dtype == torch.float64 else cls_score.float()
            weights = None if label_weights is None else label_weights.to(logits.dtype)
            for balance in self._score_balances:
                balance.observe(labels, weights, self.relations_on(logits.device))
            losses_of = partial(self._losses, labels=labels, known=known, **terms)
            if GRADIENT_BALANCE in self.balance:
                losses = self.balance[GRADIENT_BALANCE](losses_of, logits, labels, weights)
            else:
                losses = losses_of(logits)
            loss = weight_reduce_loss(losses, weights, reduction_override or self.reduction, avg_factor)
            return loss if self.loss_weight == 1 else self.loss_weight * loss

    def _losses(self, logits: Tensor, *, labels: Tensor, known: Tensor | None) -> Tensor:
        relations = self.relations_on(logits.device)
        if self._scheme.losses_of_logits and not self._score_balances:
            return self._scheme.losses_of_logits(logits, labels, relations, known=known, **self.options)
        return self._scheme.losses(self._shifted(logits, labels), labels, relations, known=known, **self.options)

    def _shifted(self, logits: Tensor, labels: Tensor) -> Tensor:
        """(N, G) scores with what the balances add."""
        relations = self.relations_on(logits.device)
        scores = self._scheme.scores(logits, relations)
        offsets = [balance.offsets(scores, labels, relations) for balance in self._score_balances]
        return sum(offsets, start=scores)

    def relations_on(self, device: torch.device) -> Relations:
        """The tables of the taxonomy on a device, where they stay."""
        self._relations = self._relations.to(device)
        return self._relations


class AsksItsLoss:
    """Marks a head that keeps to the protocol: channels and probabilities are what its loss says."""


def require_box_heads(settings: Any) -> None:
    """Looks through the config of a model before it is built: heads that keep another loss may fail on this one first.

    Raises:
        ConfigError: A head that does not keep to the protocol has this loss, or the loss has options of another.
    """
    if isinstance(settings, Mapping):
        loss = settings.get('loss_cls')
        kind = _kind_of(loss)
        if kind is not None:
            _require_box_head(settings['type'] if isinstance(settings['type'], type) else MODELS.get(settings['type']))
            options = {*signature(kind).parameters, *signature(HierarchicalLoss).parameters} - {'args', 'kwargs'}
            unknown = sorted(set(loss) - {'type', *options})
            if unknown:
                raise ConfigError(
                    f'unknown option {", ".join(unknown)}',
                    where='HierarchicalLoss',
                    fix='Add _delete_=True to loss_cls, which else keeps the options of the loss that it replaces.',
                )
        settings = list(settings.values())
    if isinstance(settings, (list, tuple)):
        for value in settings:
            require_box_heads(value)


def _kind_of(loss: Any) -> type[HierarchicalLoss] | None:
    """The class of hierarchical loss that a config names; None where it names another or none."""
    kind = loss.get('type') if isinstance(loss, Mapping) else None
    kind = MODELS.get(kind) if isinstance(kind, str) and kind.startswith('hierseg.') else kind
    return kind if isinstance(kind, type) and issubclass(kind, HierarchicalLoss) else None


def _require_box_head(head: type) -> None:
    # Other kinds of BBoxHead, such as Sparse R-CNN's, choose their own channels.
    if head is not BBoxHead and not issubclass(head, (ConvFCBBoxHead, AsksItsLoss)):
        raise ConfigError(
            f'{head.__name__} does not ask its loss for channels and probabilities, so it cannot learn a taxonomy',
            where='HierarchicalLoss',
            fix='Use it in the box head of a detector in two stages such as Mask R-CNN: docs/extending.md has a table.',
        )


def _refuse_other_heads(head: nn.Module, name: str, loss: nn.Module | None) -> None:
    """Refuses heads while a detector is built: RetinaNet's and DETR's would train without a word, and test nonsense."""
    if name == 'loss_cls' and isinstance(loss, HierarchicalLoss):
        _require_box_head(type(head))


# The only place that sees a head and its loss whoever builds them; a loss alone is not told where it goes.
register_module_module_registration_hook(_refuse_other_heads)


def _mean(values: Tensor) -> Tensor:
    return values.mean() if len(values) else values.new_zeros(())
