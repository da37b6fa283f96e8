"""From the probabilities of all classes on a box to the one class to name.

Probabilities are those that a detection claims; the others are zero, however probable the model thought them. With
a class, all that is above it in a surviving branch is claimed. Every rule names a claimed class.

Shape letters: N detections, C classes.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from hierseg.taxonomy import TaxonomyArrays

ROUNDING = 1e-5
"""Expected distances that differ by less, in edges, are equal."""


def deepest_confident_class(
    probabilities: Tensor, ancestor_mask: Tensor, depths: Tensor, *, threshold: float, relative: bool = True
) -> Tensor:
    """Backs off from the leaves: the deepest class that is probable enough.

    The most probable root class is taken first; among the classes at or below it whose probability is at
    least ``threshold`` times the root's, the deepest wins, the more probable one where several are
    equally deep. Person 0.8, Man 0.6, Woman 0.15 gives Man; Person 0.8, Man 0.35, Woman 0.33 gives Person.
    Without ``relative``, the threshold is compared with the probability itself, and a root class that does not
    reach it is named for want of a better one.

    Args:
        probabilities: (N, C) float, background left out.
        ancestor_mask: (C, C) bool; ``[v, a]`` says that a is v or an ancestor of v.
        depths: (C,) int64; 0 for root classes.
        threshold: In (0, 1]; at 1 a class needs all of its root's mass.
        relative: Whether the threshold is a part of the root class's probability.

    Returns:
        (N,) int64 labels.
    """
    is_root = depths == 0
    root = probabilities.masked_fill(~is_root, -1).argmax(dim=1, keepdim=True)
    needed = threshold * probabilities.gather(1, root) if relative else threshold
    eligible = ancestor_mask.T[root.squeeze(1)] & (probabilities >= needed)
    eligible = eligible.scatter(1, root, True)
    rank = depths + probabilities / probabilities.amax(dim=1, keepdim=True).clamp(min=1e-12) * 0.5
    return rank.masked_fill(~eligible, -1).argmax(dim=1)


def most_probable_leaf(probabilities: Tensor, ancestor_mask: Tensor) -> Tensor:
    """The most probable leaf, whatever the probability of anything above it.

    A detection that claims no leaf takes the most probable of the classes below which it claims nothing.

    Args:
        probabilities: (N, C) float, background left out; zero for classes that are not claimed.
        ancestor_mask: (C, C) bool; ``[v, a]`` says that a is v or an ancestor of v.

    Returns:
        (N,) int64 labels.
    """
    claimed = probabilities > 0
    leaves = claimed & (ancestor_mask.sum(dim=0) == 1)
    # Counts the class itself: nothing else at or below it is claimed.
    lowest = claimed & (claimed.float() @ ancestor_mask.float() < 1.5)
    eligible = torch.where(leaves.any(dim=1, keepdim=True), leaves, lowest)
    return probabilities.masked_fill(~eligible, -1).argmax(dim=1)


def least_expected_distance(probabilities: Tensor, distances: Tensor, inclusion: Tensor) -> Tensor:
    """The class from which the truth is the fewest edges away on average: argmin_c Σ_u m(u) d(c, u).

    The truth is an outcome u, "class u and nothing deeper", of the mass m(u) of :func:`outcome_masses`. Of classes
    equally far, the most probable is named, which is the one that says less. Source: conditional risk minimisation,
    Karthik et al., "No cost likelihood manipulation at test time for making better mistakes", ICLR 2021, with
    outcomes for internal classes, and these as answers.

    Args:
        probabilities: (N, C) float, background left out; zero for classes that are not claimed.
        distances: (C, C) float; edges between classes, ``TaxonomyArrays.distances``.
        inclusion: (C, C) float; see :func:`inclusion_matrix`.

    Returns:
        (N,) int64 labels.
    """
    masses = outcome_masses(probabilities, inclusion)
    risks = (masses @ distances).masked_fill(probabilities <= 0, float('inf'))
    tolerated = risks.amin(dim=1, keepdim=True) + ROUNDING * masses.sum(dim=1, keepdim=True)
    return probabilities.masked_fill(risks > tolerated, -1).argmax(dim=1)


def outcome_masses(probabilities: Tensor, inclusion: Tensor) -> Tensor:
    """What is left of every class's probability after all classes below it: the mass of "this and nothing deeper".

    A class's probability is the sum of the masses at or below it, each counted once whatever the number of paths;
    this undoes the sum by inclusion and exclusion. Subtracting the children alone would take a class with two
    parents off their common ancestor twice. Where probabilities come from outcomes, the masses are those; where they
    do not (a sigmoid may give children more than their parent), nothing is left, never less.

    Args:
        probabilities: (N, C) float, background left out; zero for classes that are not claimed, whose mass then
            stays with what is claimed above them.
        inclusion: (C, C) float; see :func:`inclusion_matrix`.

    Returns:
        (N, C), at least zero.
    """
    return (probabilities @ inclusion).clamp(min=0)


def inclusion_matrix(arrays: TaxonomyArrays) -> Tensor:
    """The factors of inclusion and exclusion: the inverse of the ancestor mask, or Möbius function of the taxonomy.

    ``[u, v]`` is the factor with which the probability of u counts in the mass of v: 1 for v itself, −1 for its
    children, and what corrects for classes that several of them share. On a tree it ends with the children.

    Returns:
        (C, C) float32, whole numbers.
    """
    count = len(arrays.depths)
    factors = np.zeros((count, count), dtype=np.int64)
    # Depth by the longest path: everything below a class comes before it.
    for label in np.argsort(-arrays.depths, kind='stable'):
        below = arrays.ancestor_mask[:, label].copy()
        below[label] = False
        factors[label, label] = 1
        factors[:, label] -= factors[:, below].sum(axis=1)
    return torch.from_numpy(factors).float()
