"""How right and how deep the names of localised pairs are, by the threshold at which a system goes deeper.

Shape letters: P pairs, C classes, T thresholds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hierseg.errors import EvaluationError
from hierseg.metrics.bootstrap import ImageSums, Resampling, interval
from hierseg.metrics.localised_pairs import LocalisedPairs
from hierseg.metrics.records import BoolArray, FloatArray, IntArray
from hierseg.taxonomy import TaxonomyArrays


@dataclass(frozen=True)
class OperatingPoint:
    """How good the names are, on the pairs whose name is known to be right or wrong; nan where there is none.

    Attributes:
        correctness: Part of the names that are the true class or an ancestor of it.
        exact: Part of the names that are the true class: top-1.
        distance: Mean number of edges between the name and the true class, the virtual root included.
        information: Mean over all pairs of how much the name says; see :func:`information`.
        information_recall: Mean part of what the true class says that the name says rightly; see
            :func:`information_shares`.
        unknown: Part of all pairs whose name is neither right nor wrong for all that is known, such as Man for what
            was annotated as Person.
    """

    correctness: float
    exact: float
    distance: float
    information: float
    information_recall: float
    unknown: float


@dataclass(frozen=True, eq=False)
class OperatingCurve:
    """Operating points by threshold.

    Attributes:
        thresholds: T numbers.
        points: What each gives.
    """

    thresholds: tuple[float, ...]
    points: tuple[OperatingPoint, ...]

    @property
    def correctness(self) -> FloatArray:
        """(T,) float64."""
        return np.array([point.correctness for point in self.points], dtype=np.float64)

    @property
    def information(self) -> FloatArray:
        """(T,) float64."""
        return np.array([point.information for point in self.points], dtype=np.float64)

    @property
    def information_recall(self) -> FloatArray:
        """(T,) float64."""
        return np.array([point.information_recall for point in self.points], dtype=np.float64)

    def recall_at_correctness(self, correctness: float) -> float:
        """The largest information recall at which names are at least that correct.

        Where no threshold gets there it is 0, for to say nothing is always right; nan if no name can be judged.
        Source: R@90C and R@95C in Valmadre, NeurIPS 2022.
        """
        known = self.correctness[~np.isnan(self.correctness)]
        if not len(known):
            return float('nan')
        return float(self.information_recall[self.correctness >= correctness].max(initial=0))


def information(arrays: TaxonomyArrays) -> FloatArray:
    """(C,) how much naming a class says: log(leaves / leaves at or below it) / log(leaves).

    A leaf says 1, the virtual root would say 0. Source: Valmadre, "Hierarchical classification at multiple operating
    points", NeurIPS 2022, divided by what a leaf says. With a single leaf no name says anything.
    """
    num_leaves = int((arrays.ancestor_mask.sum(axis=0) == 1).sum())
    said: FloatArray = np.log(num_leaves / arrays.leaf_counts) / max(np.log(num_leaves), np.finfo(np.float64).tiny)
    return said


def information_shares(labels: IntArray, named: IntArray, arrays: TaxonomyArrays) -> tuple[FloatArray, FloatArray]:
    """What the lowest common ancestor of name and true class says, as a part of what each of them says.

    It is the one of :attr:`~hierseg.taxonomy.TaxonomyArrays.lowest_common_ancestors`; the virtual root says nothing.
    The part of a class that says nothing is 1. Source: Valmadre, NeurIPS 2022.

    Args:
        labels: (P,) int64; the true classes.
        named: (P,) int64 labels.
        arrays: The taxonomy.

    Returns:
        (P,) float64 precision, of what the name says, and (P,) float64 recall, of what the true class says.
    """
    said = information(arrays)
    shared = np.append(said, 0.0)[arrays.lowest_common_ancestors[labels, named]]  # -1, the virtual root, is the last
    precision, recall = (
        np.divide(shared, of, out=np.ones_like(shared), where=of > 0) for of in (said[named], said[labels])
    )
    return precision, recall


def operating_sums(pairs: LocalisedPairs, named: IntArray, arrays: TaxonomyArrays) -> dict[str, ImageSums]:
    """The numbers of an :class:`OperatingPoint` as sums over images, for :meth:`Resampling.ratios`.

    Args:
        pairs: P pairs.
        named: (P,) int64 labels.
        arrays: The taxonomy.
    """
    correct, known = pairs.judged(named, arrays)
    every: BoolArray = np.ones(len(pairs), dtype=bool)
    return {
        'correctness': pairs.image_sums(correct, known),
        'exact': pairs.image_sums(named == pairs.true_labels, known),
        'distance': pairs.image_sums(arrays.distances[named, pairs.true_labels], known),
        'information': pairs.image_sums(information(arrays)[named], every),
        'information_recall': pairs.image_sums(information_shares(pairs.true_labels, named, arrays)[1], known),
        'unknown': pairs.image_sums(~known, every),
    }


def operating_point(pairs: LocalisedPairs, named: IntArray, arrays: TaxonomyArrays) -> OperatingPoint:
    """Judges a name for every pair.

    Args:
        pairs: P pairs.
        named: (P,) int64 labels.
        arrays: The taxonomy.
    """
    return OperatingPoint(**{name: sums.ratio for name, sums in operating_sums(pairs, named, arrays).items()})


def operating_curve(
    pairs: LocalisedPairs, names: npt.NDArray[np.int64], arrays: TaxonomyArrays, *, thresholds: Sequence[float]
) -> OperatingCurve:
    """Judges the names that a system gives at each of several thresholds.

    Args:
        pairs: P pairs.
        names: (P, T) int64 labels; for the back-off rule, the deepest class that reaches the threshold.
        arrays: The taxonomy.
        thresholds: T numbers.

    Raises:
        EvaluationError: If there is not one name for each pair and threshold.
    """
    if names.shape != (len(pairs), len(thresholds)):
        raise EvaluationError(
            f'names have the shape {names.shape}',
            fix=f'Give one for each of {len(pairs)} pairs and {len(thresholds)} thresholds.',
        )
    return OperatingCurve(tuple(thresholds), tuple(operating_point(pairs, column, arrays) for column in names.T))


def correctness_interval(
    pairs: LocalisedPairs,
    named: IntArray,
    arrays: TaxonomyArrays,
    *,
    resampling: Resampling,
    confidence: float = 0.95,
) -> tuple[float, float]:
    """Percentile interval of the correctness by bootstrap over images.

    Args:
        pairs: P pairs.
        named: (P,) int64 labels.
        arrays: The taxonomy.
        resampling: Over their images.
        confidence: Of the interval.

    Returns:
        Its ends; nan where no name is known to be right or wrong.

    Raises:
        EvaluationError: If the resampling is of other images.
    """
    correct, known = pairs.judged(named, arrays)
    return interval(resampling.ratios(pairs.image_sums(correct, known)), confidence=confidence)
