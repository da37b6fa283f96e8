"""Rules from the probabilities of all classes on a box to the one class to name, and the table of them.

Every rule takes (N, C) probabilities, background left out, and the relations of the taxonomy, and gives (N,) int64
labels. Probabilities are those that a detection claims; the others are zero, however probable the model thought them.
With a class, all that is above it in a surviving branch is claimed. Every rule names a claimed class.

Shape letters: N detections, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from hierseg.functional.relations import Relations, add_sums_

ROUNDING = 1e-5
"""Expected distances that differ by less, in edges, are equal."""


def deepest_confident_class(
    probabilities: Tensor, relations: Relations, *, threshold: float, relative: bool = True
) -> Tensor:
    """Backs off from the leaves: the deepest class that is probable enough.

    The most probable root class is taken first; among the classes at or below it whose probability is at
    least ``threshold`` times the root's, the deepest wins, the more probable one where several are
    equally deep. Person 0.8, Man 0.6, Woman 0.15 gives Man; Person 0.8, Man 0.35, Woman 0.33 gives Person.
    Without ``relative``, the threshold is compared with the probability itself, and a root class that does not
    reach it is named for want of a better one.
    ``threshold`` lies in (0, 1]; at 1 a class needs all of its root's mass.
    """
    depths = relations.depths
    root = probabilities.masked_fill(depths > 0, -1).argmax(dim=1, keepdim=True)
    needed = threshold * probabilities.gather(1, root) if relative else threshold
    eligible = relations.below.mask(root.squeeze(1))[:, :-1] & (probabilities >= needed)
    eligible = eligible.scatter(1, root, True)
    rank = depths + probabilities / probabilities.amax(dim=1, keepdim=True).clamp(min=1e-12) * 0.5
    return rank.masked_fill(~eligible, -1).argmax(dim=1)


def most_probable_leaf(probabilities: Tensor, relations: Relations) -> Tensor:
    """The most probable leaf, whatever the probability of anything above it.

    A detection that claims no leaf takes the most probable of the classes below which it claims nothing.
    """
    claimed = probabilities > 0
    leaves = claimed & ~relations.internal[:-1]
    # Counts the class itself: nothing else at or below it is claimed.
    lowest = claimed & (add_sums_(claimed.float(), relations, below=True) < 1.5)
    eligible = torch.where(leaves.any(dim=1, keepdim=True), leaves, lowest)
    return probabilities.masked_fill(~eligible, -1).argmax(dim=1)


def least_expected_distance(probabilities: Tensor, relations: Relations) -> Tensor:
    """The class from which the truth is the fewest edges away on average: argmin_c Σ_u m(u) d(c, u).

    The truth is an outcome u, "class u and nothing deeper", of the mass m(u) of :func:`outcome_masses`. Of classes
    equally far, the most probable is named, which is the one that says less. Source: conditional risk minimisation,
    Karthik et al., "No cost likelihood manipulation at test time for making better mistakes", ICLR 2021, with
    outcomes for internal classes, and these as answers.
    """
    masses = outcome_masses(probabilities, relations)
    # A detection claims few classes, and only those with a mass need distances.
    outcomes = (masses > 0).any(dim=0).nonzero().squeeze(1)
    distances = relations.distances_from(outcomes).to(probabilities.dtype)
    risks = (masses.index_select(1, outcomes) @ distances).masked_fill(probabilities <= 0, float('inf'))
    tolerated = risks.amin(dim=1, keepdim=True) + ROUNDING * masses.sum(dim=1, keepdim=True)
    return probabilities.masked_fill(risks > tolerated, -1).argmax(dim=1)


def outcome_masses(probabilities: Tensor, relations: Relations) -> Tensor:
    """(N, C) masses, at least 0, of "this class and nothing deeper": a probability less that of all classes below.

    A class's probability is the sum of the masses at or below it, each counted once whatever the number of paths;
    this undoes the sum by inclusion and exclusion. Subtracting the children alone would take a class with two
    parents off their common ancestor twice. Where probabilities come from outcomes, the masses are those; where they
    do not (a sigmoid may give children more than their parent), nothing is left, never less. The mass of a class
    that is not claimed stays with what is claimed above it.
    """
    sources, targets, factors = relations.inclusion
    terms = probabilities.index_select(1, sources) * factors.to(probabilities.dtype)
    return torch.zeros_like(probabilities).index_add_(1, targets, terms).clamp_(min=0)


@dataclass(frozen=True)
class Rule:
    """One way to name a class of each detection: a function as above, and which of the options it takes."""

    choose: Callable[..., Tensor]
    options: tuple[Literal['threshold', 'relative'], ...] = ()


RULES: Mapping[str, Rule] = {
    'back_off': Rule(deepest_confident_class, options=('threshold', 'relative')),
    'leaf': Rule(most_probable_leaf),
    'distance': Rule(least_expected_distance),
}
"""The rules by the names that a config gives them, as the ``rule`` of a ``decision``."""
