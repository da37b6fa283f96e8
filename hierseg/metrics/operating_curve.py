"""How right and how deep the names of localised pairs are, and how sure that is.

Shape letters: P pairs, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

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
        unknown: Part of all pairs whose name is neither right nor wrong for all that is known, such as Man for what
            was annotated as Person.
    """

    correctness: float
    exact: float
    distance: float
    information: float
    unknown: float


def information(arrays: TaxonomyArrays) -> FloatArray:
    """(C,) how much naming a class says: log(leaves / leaves at or below it) / log(leaves).

    A leaf says 1, the virtual root would say 0. Source: Valmadre, "Hierarchical classification at multiple operating
    points", NeurIPS 2022, divided by what a leaf says. With a single leaf no name says anything.
    """
    num_leaves = int((arrays.ancestor_mask.sum(axis=0) == 1).sum())
    said: FloatArray = np.log(num_leaves / arrays.leaf_counts) / max(np.log(num_leaves), np.finfo(np.float64).tiny)
    return said


def operating_point(pairs: LocalisedPairs, named: IntArray, arrays: TaxonomyArrays) -> OperatingPoint:
    """Judges a name for every pair.

    Args:
        pairs: P pairs.
        named: (P,) int64 labels.
        arrays: The taxonomy.
    """
    correct, known = _judged(pairs, named, arrays)
    distances = arrays.distances[named, pairs.true_labels]
    return OperatingPoint(
        correctness=_mean(correct[known]),
        exact=_mean((named == pairs.true_labels)[known]),
        distance=_mean(distances[known]),
        information=_mean(information(arrays)[named]),
        unknown=_mean(~known),
    )


def correctness_interval(
    pairs: LocalisedPairs,
    named: IntArray,
    arrays: TaxonomyArrays,
    *,
    generator: np.random.Generator,
    resamples: int = 1000,
    confidence: float = 0.95,
) -> tuple[float, float]:
    """Percentile interval of the correctness by bootstrap over images, whose objects are not independent.

    Args:
        pairs: P pairs.
        named: (P,) int64 labels.
        arrays: The taxonomy.
        generator: Draws the images.
        resamples: How often.
        confidence: Of the interval.

    Returns:
        Its ends; nan where no name is known to be right or wrong.
    """
    correct, known = _judged(pairs, named, arrays)
    if not known.any():
        return float('nan'), float('nan')
    totals = np.stack([np.bincount(pairs.image_of, flags, pairs.num_images) for flags in (correct & known, known)])
    count = pairs.num_images
    drawn = np.stack([totals[:, generator.integers(count, size=count)].sum(axis=1) for _ in range(resamples)])
    numbers_correct, numbers_known = drawn[drawn[:, 1] > 0].T
    low, high = np.quantile(numbers_correct / numbers_known, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _judged(pairs: LocalisedPairs, named: IntArray, arrays: TaxonomyArrays) -> tuple[BoolArray, BoolArray]:
    """(P,) which names are right, and of which it is known whether they are."""
    correct: BoolArray = arrays.ancestor_mask[pairs.true_labels, named]
    known: BoolArray = correct | ~pairs.possible[np.arange(len(named)), named]
    return correct, known


def _mean(values: npt.NDArray[Any]) -> float:
    return float(values.mean()) if len(values) else float('nan')
