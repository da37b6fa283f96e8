"""The loss schemes by name: what the scores mean, how they are trained and what they say at test time.

Shape letters: N RoIs, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from hierseg.errors import ConfigError, TaxonomyError
from hierseg.functional import sigmoid_losses as sigmoid
from hierseg.functional import softmax_losses as softmax
from hierseg.functional.relations import Relations
from hierseg.taxonomy import Taxonomy


@dataclass(frozen=True)
class Scheme:
    """One way to train class scores on a taxonomy.

    Attributes:
        losses: ``(scores, labels, relations, *, known, **options)`` → (N,) losses.
        probabilities: ``(scores, relations)`` → (N, C + 1) probabilities of the classes and, last, of background;
            p(parent) ≥ p(child).
        scores: ``(logits, relations)`` → scores of the same shape in float32 or float64, what ``losses`` and
            ``probabilities`` take.
        has_background: Whether background has a channel.
        has_outcomes: Whether the scores are unnormalised log-probabilities of outcomes ("this class and nothing
            deeper").
        trees_only: Whether the formula cannot hold where a class has several parents.
        is_likelihood: Whether a loss is −log p(label).
        terms: Of schemes with a sigmoid for each class, ``(scores, labels, relations, *, known)`` →
            :class:`~hierseg.functional.sigmoid_losses.Terms`.
        losses_of_logits: What ``losses`` of ``scores`` is, faster and of logits, for schemes that can skip the step.
        options: Names and defaults of the numbers that ``losses`` takes; all are at least zero.
    """

    losses: Callable[..., Tensor]
    probabilities: Callable[[Tensor, Relations], Tensor] = softmax.class_probabilities
    scores: Callable[[Tensor, Relations], Tensor] = softmax.own_logits
    has_background: bool = True
    has_outcomes: bool = True
    trees_only: bool = False
    is_likelihood: bool = False
    terms: Callable[..., sigmoid.Terms] | None = None
    losses_of_logits: Callable[..., Tensor] | None = None
    options: Mapping[str, float] = field(default_factory=dict)

    def channels(self, num_classes: int) -> int:
        """Logits that a head must give for C classes."""
        return num_classes + self.has_background

    def chosen(self, scores: Tensor, relations: Relations) -> Tensor:
        """(N,) int64 labels in [0, C] of the most probable outcomes.

        Without outcomes: background where it is more probable than every root class, else the most probable leaf.
        """
        if self.has_outcomes:
            return scores.argmax(dim=1)
        probabilities = self.probabilities(scores, relations)
        leaf = relations.leaves[probabilities.index_select(1, relations.leaves).argmax(dim=1)]
        best_root = probabilities.index_select(1, relations.root_classes).amax(dim=1)
        return torch.where(probabilities[:, -1] > best_root, relations.num_classes, leaf)


_sigmoids = partial(Scheme, scores=sigmoid.prior_shifted_logits, has_background=False, has_outcomes=False)

SCHEMES: Mapping[str, Scheme] = {
    'path_sum': Scheme(
        softmax.marginal_negative_log_likelihood,
        scores=softmax.path_sum_logits,
        is_likelihood=True,
        losses_of_logits=softmax.path_sum_negative_log_likelihood,
    ),
    'flat': Scheme(softmax.marginal_negative_log_likelihood, is_likelihood=True),
    'margin': Scheme(softmax.soft_max_margin, options={'tau': 5.0}),
    'soft_labels': Scheme(softmax.soft_label_cross_entropy, options={'beta': 10.0}),
    'hxe': Scheme(softmax.hierarchical_cross_entropy, options={'alpha': 0.1}),
    'conditional': Scheme(
        softmax.conditional_cross_entropy,
        softmax.path_product_probabilities,
        has_outcomes=False,
        trees_only=True,
        is_likelihood=True,
    ),
    'sigmoid': _sigmoids(sigmoid.ancestor_positive_bce, sigmoid.min_above_probabilities, terms=sigmoid.own_terms),
    'mcm': _sigmoids(sigmoid.max_constraint_bce, sigmoid.max_below_probabilities, terms=sigmoid.max_constraint_terms),
    'tree_min': _sigmoids(sigmoid.tree_min_bce, sigmoid.min_above_probabilities, terms=sigmoid.tree_min_terms),
    'tree_min_focal': _sigmoids(
        sigmoid.tree_min_bce, sigmoid.min_above_probabilities, terms=sigmoid.tree_min_terms, options={'gamma': 2.0}
    ),
}


def find_scheme(name: str, taxonomy: Taxonomy) -> Scheme:
    """The scheme of a name, once it can hold on the taxonomy.

    Raises:
        ConfigError: If there is none of that name.
        TaxonomyError: If it is for trees alone and a class has several parents.
    """
    if name not in SCHEMES:
        raise ConfigError(f'unknown scheme {name!r}', where='scheme', fix=f'Use one of {", ".join(SCHEMES)}.')
    several = [taxonomy.names[label] for label, parents in enumerate(taxonomy.parents) if len(parents) > 1]
    if SCHEMES[name].trees_only and several:
        raise TaxonomyError(
            f'scheme {name!r} is for trees, but these classes have several parents: {", ".join(several)}',
            where='scheme',
            fix='Use another scheme, such as path_sum, or leave each of them one parent.',
        )
    return SCHEMES[name]


def complete_options(name: str, options: Mapping[str, float]) -> dict[str, float]:
    """The options of a scheme with the defaults of those that are not given.

    Raises:
        ConfigError: On an option that the scheme does not have, or a value that is no finite number of at least 0.
    """
    defaults = SCHEMES[name].options
    for option, value in options.items():
        if option not in defaults:
            raise ConfigError(
                f'scheme {name!r} has no option {option!r}',
                where='options',
                fix=f'It has {", ".join(defaults) or "none"}.',
            )
        if not is_at_least_zero(value):
            raise ConfigError(f'{option}={value!r}', where='options', fix='Give a finite number of at least 0.')
    return {**defaults, **options}


def is_at_least_zero(value: object) -> bool:
    """Whether a value is a finite number of at least 0."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float('inf')
