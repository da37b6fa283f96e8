"""Balance options of the hierarchical loss: modules that remember what the classes have seen so far.

Shape letters: N RoIs, C classes, G channels (C, or C + 1 with background last). Labels are (N,) int64 in [0, C]; C is
background.

Each takes the taxonomy and the scheme of the loss and its own options. Their state is the only part of the loss that a
checkpoint carries. It grows in training mode alone, in forward() and summed over all ranks, so that ranks stay equal
and a resumed run goes on as if it had not stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import all_reduce
from torch import Tensor, nn

from hierseg.errors import ConfigError
from hierseg.functional import balance as formulas
from hierseg.functional.relations import Relations
from hierseg.functional.schemes import Scheme, is_at_least_zero
from hierseg.store import Store
from hierseg.store.frequency import count_classes
from hierseg.taxonomy import Taxonomy


class Seesaw(nn.Module):
    """Mitigation and compensation of :func:`~hierseg.functional.balance.seesaw_offsets` by the labels seen so far.

    Args:
        p: Exponent of the mitigation; the paper's 0.8.
        q: Exponent of the compensation; the paper's 2.
    """

    class_counts: Tensor

    def __init__(self, taxonomy: Taxonomy, scheme: Scheme, *, p: float = 0.8, q: float = 2.0) -> None:
        super().__init__()
        self.scheme, self.p, self.q = scheme, p, q
        # float32 would stop counting at 2²⁴.
        self.register_buffer('class_counts', torch.zeros(taxonomy.num_classes, dtype=torch.float64))

    def observe(self, labels: Tensor, label_weights: Tensor | None, relations: Relations) -> None:
        """Counts the labels of RoIs whose weight is above zero, in training mode."""
        if not self.training:
            return
        counted = torch.ones_like(labels) if label_weights is None else label_weights > 0
        counts = formulas.expanded_counts(labels, counted.to(self.class_counts.dtype), relations)
        all_reduce(counts)
        self.class_counts += counts

    def offsets(self, scores: Tensor, labels: Tensor, relations: Relations) -> Tensor:
        """(N, G) offsets of the scores."""
        probabilities = self.scheme.probabilities(scores.detach(), relations)
        offsets = formulas.seesaw_offsets(probabilities, labels, self.class_counts, relations, p=self.p, q=self.q)
        return offsets[:, : scores.shape[1]]


class LogitAdjustment(nn.Module):
    """The offsets of :func:`~hierseg.functional.balance.log_prior_offsets` by the class counts of the training data.

    With outcome scores all classes compete and count for the instances labelled exactly so; otherwise siblings by
    preferred parents compete, and a class counts for the instances below it too.

    Args:
        class_counts: Path of the store to count, or instances labelled exactly so for each class. A store is read
            when the first loss is computed, so that a trained model can be tested where the store is not.
        tau: 1 corrects the whole prior.

    Raises:
        ConfigError: If the counts are of another number of classes, or below zero.
    """

    def __init__(
        self, taxonomy: Taxonomy, scheme: Scheme, *, class_counts: str | Path | Sequence[float], tau: float = 1.0
    ) -> None:
        super().__init__()
        self.taxonomy, self.scheme, self.class_counts, self.tau = taxonomy, scheme, class_counts, tau
        self._offsets: Tensor | None = None
        if not isinstance(class_counts, str | Path):
            self._check(len(class_counts), 'class_counts')
            if not all(map(is_at_least_zero, class_counts)):
                raise ConfigError(f'counts {class_counts}', where='class_counts', fix='Give numbers of at least 0.')

    def observe(self, labels: Tensor, label_weights: Tensor | None, relations: Relations) -> None:
        """Nothing to observe: the counts are those of the data."""

    def offsets(self, scores: Tensor, labels: Tensor, relations: Relations) -> Tensor:
        """(G,) offsets of the scores, the same for all RoIs."""
        if self._offsets is None:
            self._offsets = self._compute(relations)
        padded = torch.nn.functional.pad(self._offsets, (0, 1))[: scores.shape[1]]
        return padded.to(device=scores.device, dtype=scores.dtype)

    def _compute(self, relations: Relations) -> Tensor:
        if isinstance(self.class_counts, str | Path):
            store = Store.open(self.class_counts)
            self._check(store.taxonomy.num_classes, str(self.class_counts))
            counts = torch.from_numpy(count_classes(store, expanded=False).instances).double()
        else:
            counts = torch.tensor(self.class_counts, dtype=torch.float64)
        if self.scheme.has_outcomes:
            return formulas.log_prior_offsets(counts, torch.zeros(len(counts), dtype=torch.long), tau=self.tau)
        expanded = torch.from_numpy(self.taxonomy.arrays.sums_below(counts.numpy()))
        return formulas.log_prior_offsets(expanded, relations.sibling_groups[:-1].cpu(), tau=self.tau)

    def _check(self, found: int, where: str) -> None:
        if found != self.taxonomy.num_classes:
            raise ConfigError(
                f'counts of {found} classes for a taxonomy of {self.taxonomy.num_classes}',
                where=where,
                fix='Count the data that the taxonomy belongs to, one number for each class in label order.',
            )


class GradientBalance(nn.Module):
    """The factors of :func:`~hierseg.functional.balance.gradient_ratio_factors` by what classes have felt so far.

    For schemes with one sigmoid per class. On the way forward the losses are what they were; on the way back the
    gradients of each class's logit are scaled, those that raise it by one factor and those that lower it by another.
    In the loss by binary cross-entropy this is EQLv2. The sizes that are summed are those of the scaled gradients, as
    there; in forward() the scaler of mixed precision and the order in which ranks go backward do not touch them.

    Args:
        gamma: Steepness; the paper's 12.
        mu: Ratio of one half; the paper's 0.8.
        alpha: How much more rare classes are raised; the paper's 4.
    """

    positive: Tensor
    negative: Tensor

    def __init__(
        self, taxonomy: Taxonomy, scheme: Scheme, *, gamma: float = 12.0, mu: float = 0.8, alpha: float = 4.0
    ) -> None:
        super().__init__()
        self.gamma, self.mu, self.alpha = gamma, mu, alpha
        for name in ('positive', 'negative'):
            self.register_buffer(name, torch.zeros(taxonomy.num_classes, dtype=torch.float64))

    def forward(
        self, losses_of: Callable[[Tensor], Tensor], logits: Tensor, labels: Tensor, label_weights: Tensor | None
    ) -> Tensor:
        """The losses of (N, G) logits, float32 or float64, with scaled gradients.

        ``losses_of`` gives the (N,) losses of logits, each of its own row. ``label_weights`` say how much each RoI
        counts in the sums; one where they are None.
        """
        if not torch.is_grad_enabled():
            return losses_of(logits)
        leaf = logits.detach().requires_grad_()
        losses = losses_of(leaf)
        (gradients,) = torch.autograd.grad(losses.sum(), leaf)
        scaled = self._scaled(gradients)
        if self.training:
            counted = scaled if label_weights is None else scaled * label_weights[:, None]
            classes = counted[:, : len(self.positive)].double()
            sums = torch.stack([(-classes).clamp(min=0).sum(dim=0), classes.clamp(min=0).sum(dim=0)])
            all_reduce(sums)
            self.positive += sums[0]
            self.negative += sums[1]
        # Zero going forward, the scaled gradients going back.
        return losses.detach() + ((logits - logits.detach()) * scaled).sum(dim=1)

    def _scaled(self, gradients: Tensor) -> Tensor:
        raising, lowering = self._factors(gradients.dtype)
        return gradients * torch.where(gradients < 0, raising, lowering)

    def _factors(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        options = {'gamma': self.gamma, 'mu': self.mu, 'alpha': self.alpha}
        raising, lowering = formulas.gradient_ratio_factors(self.positive, self.negative, **options)
        return raising.to(dtype), lowering.to(dtype)


class SoftmaxGradientBalance(GradientBalance):
    """:class:`GradientBalance` for schemes where classes and background share a softmax.

    There each gradient that raises a class is the sum of those that lower the others; scaled apart they would be those
    of no objective, and logits would grow without end. So the factors of what lowers classes become offsets of the
    scores, :func:`~hierseg.functional.balance.equalization_offsets`, and those of what raises them factors of the
    losses by label. At every step the loss is one of a proper objective, and its gradients are what is summed.
    """

    def forward(
        self, losses_of: Callable[[Tensor], Tensor], logits: Tensor, labels: Tensor, label_weights: Tensor | None
    ) -> Tensor:
        """The losses, which hold the offsets already, times the factors of their labels; arguments as above."""
        # Background keeps its losses.
        factors = torch.nn.functional.pad(self._factors(logits.dtype)[0], (0, 1), value=1)[labels]
        return super().forward(lambda leaf: losses_of(leaf) * factors, logits, labels, label_weights)

    def observe(self, labels: Tensor, label_weights: Tensor | None, relations: Relations) -> None:
        """Nothing to observe yet: forward() has the gradients."""

    def offsets(self, scores: Tensor, labels: Tensor, relations: Relations) -> Tensor:
        """(N, G) offsets of the scores."""
        return formulas.equalization_offsets(self._factors(scores.dtype)[1], labels, relations)

    def _scaled(self, gradients: Tensor) -> Tensor:
        return gradients


# The one that looks at gradients; with sigmoids it scales them, all else shifts scores.
GRADIENT_BALANCE = 'eql'
BALANCES: Mapping[str, type[nn.Module]] = {
    'seesaw': Seesaw,
    'logit_adjustment': LogitAdjustment,
    GRADIENT_BALANCE: GradientBalance,
}


def build_balances(
    balance: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None, taxonomy: Taxonomy, scheme: Scheme
) -> nn.ModuleDict:
    """The balance modules by name of a config: None, ``dict(type=..., **options)`` or a list of such.

    Raises:
        ConfigError: On an unknown type, one that occurs twice, or options that it does not take.
    """
    modules = nn.ModuleDict()
    for entry in [balance] if isinstance(balance, Mapping) else balance or []:
        options = dict(entry)
        name = options.pop('type', None)
        if name not in BALANCES or name in modules:
            what = f'balance type {name!r} occurs twice' if name in modules else f'unknown balance type {name!r}'
            raise ConfigError(what, where='balance', fix=f'Use each of {", ".join(BALANCES)} once at most.')
        softmax = name == GRADIENT_BALANCE and scheme.has_background
        try:
            modules[name] = (SoftmaxGradientBalance if softmax else BALANCES[name])(taxonomy, scheme, **options)
        except TypeError as error:
            raise ConfigError(f'options {sorted(options)}: {error}', where=f'balance {name!r}') from None
        wrong = [key for key, value in options.items() if key != 'class_counts' and not is_at_least_zero(value)]
        if wrong:
            what = f'{wrong[0]}={options[wrong[0]]!r}'
            raise ConfigError(what, where=f'balance {name!r}', fix='Give a finite number of at least 0.')
    return modules
