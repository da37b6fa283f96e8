"""Every loss scheme once more, for one RoI, in sums and products of plain Python by walking the graph."""

from __future__ import annotations

import math
from collections.abc import Set

from hierseg.taxonomy import Taxonomy


def at_or_below(taxonomy: Taxonomy, label: int) -> set[int]:
    if label == taxonomy.num_classes:
        return {label}
    return {label} | taxonomy.descendants(label)


def at_or_above(taxonomy: Taxonomy, label: int) -> set[int]:
    if label == taxonomy.num_classes:
        return {label}
    return {label} | taxonomy.ancestors(label)


def possible(taxonomy: Taxonomy, label: int) -> set[int]:
    """What an object of the label may be."""
    return set().union(*(at_or_above(taxonomy, below) for below in at_or_below(taxonomy, label)))


def plain_loss(
    scheme: str, logits: list[float], label: int, taxonomy: Taxonomy, *, known: Set[int], options: dict[str, float]
) -> float:
    if len(logits) == taxonomy.num_classes:
        return _sigmoid_loss(scheme, logits, label, taxonomy, known, options.get('gamma', 0))
    if scheme == 'conditional':
        return _conditional_loss(logits, label, taxonomy, known)
    return _outcome_loss(scheme, logits, label, taxonomy, known, options)


def plain_quality_loss(
    scheme: str,
    logits: list[float],
    label: int,
    taxonomy: Taxonomy,
    *,
    known: Set[int],
    options: dict[str, float],
    quality: float,
    beta: float,
) -> float:
    background = taxonomy.num_classes
    if len(logits) == background:
        return _sigmoid_loss(scheme, logits, label, taxonomy, known, beta + options.get('gamma', 0), quality)
    quality = 1 if label == background else quality
    counted = set(known) | (at_or_above if scheme == 'conditional' else at_or_below)(taxonomy, label)
    likelihood = scheme if scheme in ('path_sum', 'conditional') else 'flat'
    right = math.exp(-plain_loss(likelihood, logits, label, taxonomy, known=known, options={}))
    loss = plain_loss(scheme, logits, label, taxonomy, known=known, options=options)
    nothing = plain_loss(scheme, logits, background, taxonomy, known=counted, options=options)
    return abs(quality - right) ** beta * (quality * loss + (1 - quality) * nothing)


def plain_probabilities(scheme: str, logits: list[float], taxonomy: Taxonomy) -> list[float]:
    classes = range(taxonomy.num_classes)
    if len(logits) == taxonomy.num_classes:
        sigmoids = [_sigmoid(logit) for logit in logits]
        if scheme == 'mcm':
            found = [max(sigmoids[u] for u in at_or_below(taxonomy, v)) for v in classes]
        else:
            found = [min(sigmoids[a] for a in at_or_above(taxonomy, v)) for v in classes]
        return [*found, 1 - max(found[root] for root in taxonomy.root_classes)]
    everything = [*classes, taxonomy.num_classes]
    if scheme == 'conditional':
        return [
            math.prod(math.exp(-_conditional_cost(logits, a, taxonomy, set(everything)))
                      for a in at_or_above(taxonomy, v)) for v in everything
        ]  # fmt: skip
    masses = _masses(scheme, logits, taxonomy)
    return [sum(masses[u] for u in at_or_below(taxonomy, v)) / sum(masses) for v in everything]


def _sigmoid(logit: float) -> float:
    """Odds of 1 to 99 at a logit of zero."""
    return 1 / (1 + 99 * math.exp(-logit))


def _masses(scheme: str, logits: list[float], taxonomy: Taxonomy) -> list[float]:
    if scheme != 'path_sum':
        return [math.exp(logit) for logit in logits]
    return [math.exp(sum(logits[a] for a in at_or_above(taxonomy, u))) for u in range(len(logits))]


def _outcome_loss(
    scheme: str, logits: list[float], label: int, taxonomy: Taxonomy, known: Set[int], options: dict[str, float]
) -> float:
    background = taxonomy.num_classes
    masses = _masses(scheme, logits, taxonomy)
    wanted = at_or_below(taxonomy, label)
    counted = set(known) | wanted | {background}

    def mass(of: Set[int]) -> float:
        return sum(masses[u] for u in of & counted)

    if scheme == 'margin':
        lifted = sum(masses[u] * (1 if u in possible(taxonomy, label) else math.exp(options['tau'])) for u in counted)
        return math.log(lifted / mass(wanted))
    if scheme == 'soft_labels':
        distances = taxonomy.arrays.distances / max(taxonomy.arrays.distances.max(), 1)
        shares = {}
        if label != background:
            shares = {c: math.exp(-options['beta'] * distances[label, c]) for c in counted - wanted - {background}}
        target = math.log(mass(wanted)) + sum(share * math.log(masses[c]) for c, share in shares.items())
        return math.log(mass(counted)) - target / (1 + sum(shares.values()))
    if scheme == 'hxe':
        loss, within = 0.0, mass(counted)
        for step, c in enumerate((label,) if label == background else taxonomy.preferred_path(label)):
            loss += math.exp(-options['alpha'] * step) * math.log(within / mass(at_or_below(taxonomy, c)))
            within = mass(at_or_below(taxonomy, c))
        return loss
    return math.log(mass(counted) / mass(wanted))


def _conditional_loss(logits: list[float], label: int, taxonomy: Taxonomy, known: Set[int]) -> float:
    path = at_or_above(taxonomy, label)
    counted = set(known) | path | {taxonomy.num_classes}
    return sum(_conditional_cost(logits, step, taxonomy, counted) for step in path)


def _conditional_cost(logits: list[float], step: int, taxonomy: Taxonomy, counted: Set[int]) -> float:
    parents = [*taxonomy.parents, ()]
    siblings = [c for c in counted if parents[c] == parents[step]]
    return math.log(sum(math.exp(logits[c]) for c in siblings)) - logits[step]


def _sigmoid_loss(
    scheme: str,
    logits: list[float],
    label: int,
    taxonomy: Taxonomy,
    known: Set[int],
    gamma: float,
    quality: float = 1.0,
) -> float:
    background = taxonomy.num_classes
    sigmoids = [_sigmoid(logit) for logit in logits]
    positive = at_or_above(taxonomy, label) - {background}
    negative = set(known) - possible(taxonomy, label) - {background}
    loss = 0.0
    for v in range(background):
        below, above = at_or_below(taxonomy, v), at_or_above(taxonomy, v)
        if v in positive:
            members = {'mcm': below & positive, 'sigmoid': {v}}.get(scheme, above)
            best = (max if scheme == 'mcm' else min)(sigmoids[u] for u in members)
            loss -= abs(quality - best) ** gamma * (quality * math.log(best) + (1 - quality) * math.log(1 - best))
        elif v in negative:
            worst = max(sigmoids[u] for u in ({v} if scheme == 'sigmoid' else below & negative))
            loss -= worst**gamma * math.log(1 - worst)
    return loss
