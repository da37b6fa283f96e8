"""Everything about the names of localised pairs in one record: whether, how far and how deep they are right.

Three kinds of pairs, because objects may be annotated coarsely (a Person who is a Man):

- *known*: the name is right or wrong for all that is known; see :meth:`LocalisedPairs.judged`. Most numbers are means
  over these.
- *settled*: the object can be nothing but its class and what is above it, because that is a leaf or because everything
  else was verified as absent. Which pairs are settled does not depend on what is named.
- all.

Ancestors of a class are always those by every path, the class itself included and the virtual root left out. Two
classes have many common ancestors in a DAG; the lowest is the one of
:attr:`~hierseg.taxonomy.TaxonomyArrays.lowest_common_ancestors`, of several the one that says most.

Shape letters: P pairs, N detections, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hierseg.metrics.bootstrap import ImageSums
from hierseg.metrics.localised_pairs import LocalisedPairs, ScoreArray
from hierseg.metrics.operating_curve import OperatingPoint, information_shares, operating_sums
from hierseg.metrics.records import BoolArray, FloatArray, IntArray
from hierseg.taxonomy import TaxonomyArrays

CANDIDATES = (1, 5, 20)
"""Numbers of most probable classes whose distance is averaged."""

ROUNDING = 1e-5
"""A part by which a parent may be less probable than its child: what sums in float32 leave."""


@dataclass(frozen=True)
class HierarchicalResult(OperatingPoint):
    """An operating point and everything beyond; nan where nothing counts.

    Attributes:
        match_rate: Part of the objects that were found; the others speak of these alone.
        severity: Mean height of the lowest common ancestor over the known names that are not exact; a coarser name
            has the height of the name, two classes with nothing in common one more than the highest class has.
            Source: Bertinetto et al., "Making better mistakes", CVPR 2020. Read it beside ``exact``: a system that
            makes more errors, but slight ones, has the lower severity.
        hierarchical_precision: Mean part of the name's ancestors that are the true class's, over known pairs.
        hierarchical_recall: Mean part of the true class's ancestors that are the name's, over known pairs.
        hierarchical_f: Mean over known pairs of the harmonic mean of both.
        information_precision: Mean part of what the name says that is right; see :func:`information_shares`.
        distance_at_1: Mean distance of the most probable candidate over settled pairs; see :func:`distances_at`.
        distance_at_5: Of the five most probable ones.
        distance_at_20: Of the twenty most probable ones.
        path_consistency: Part of all pairs whose name is claimed with a consistent path; see
            :func:`consistent_paths`.
    """

    match_rate: float
    severity: float
    hierarchical_precision: float
    hierarchical_recall: float
    hierarchical_f: float
    information_precision: float
    distance_at_1: float
    distance_at_5: float
    distance_at_20: float
    path_consistency: float


def hierarchical_result(pairs: LocalisedPairs, named: IntArray, arrays: TaxonomyArrays) -> HierarchicalResult:
    """Judges a name for every pair.

    Args:
        pairs: P pairs.
        named: (P,) int64 labels.
        arrays: The taxonomy.
    """
    return HierarchicalResult(**{name: sums.ratio for name, sums in hierarchical_sums(pairs, named, arrays).items()})


def hierarchical_sums(pairs: LocalisedPairs, named: IntArray, arrays: TaxonomyArrays) -> dict[str, ImageSums]:
    """The numbers of a :class:`HierarchicalResult` as sums over images, for :meth:`Resampling.ratios`.

    Args:
        pairs: P pairs.
        named: (P,) int64 labels.
        arrays: The taxonomy.
    """
    true = pairs.true_labels
    _, known = pairs.judged(named, arrays)
    every: BoolArray = np.ones(len(pairs), dtype=bool)
    settled = ~(pairs.possible & ~arrays.ancestor_mask[true]).any(axis=1)
    guessed: BoolArray = np.asarray(settled & pairs.class_scores.any(axis=1))
    above_name, above_true = arrays.ancestor_mask[named].sum(axis=1), arrays.ancestor_mask[true].sum(axis=1)
    shared = (arrays.ancestor_mask[named] & arrays.ancestor_mask[true]).sum(axis=1)
    # -1, the virtual root, is the last.
    heights = np.append(arrays.heights, arrays.heights.max() + 1)[arrays.lowest_common_ancestors[true, named]]
    distances = distances_at(pairs.class_scores, true, arrays)
    return {
        **operating_sums(pairs, named, arrays),
        'match_rate': _match_sums(pairs),
        'severity': pairs.image_sums(heights, known & (named != true)),
        'hierarchical_precision': pairs.image_sums(shared / above_name, known),
        'hierarchical_recall': pairs.image_sums(shared / above_true, known),
        'hierarchical_f': pairs.image_sums(2 * shared / (above_name + above_true), known),
        'information_precision': pairs.image_sums(information_shares(true, named, arrays)[0], known),
        **{f'distance_at_{k}': pairs.image_sums(values, guessed) for k, values in distances.items()},
        'path_consistency': pairs.image_sums(consistent_paths(pairs.class_scores, named, arrays), every),
    }


def distances_at(class_scores: ScoreArray, labels: IntArray, arrays: TaxonomyArrays) -> dict[int, FloatArray]:
    """Mean distance to the true class over the k most probable candidates, for each k of :data:`CANDIDATES`.

    Candidates are the most specific classes that a detection claims, those below which it claims nothing: leaves, or
    where a system stops before. A class above a candidate is no further guess. What is not claimed has no order, so
    that k is at most the number of candidates, and two systems are comparable at k > 1 only if they claim about as
    many. Of equal probabilities the first label comes first. Source: average hierarchical distance in Bertinetto et
    al., CVPR 2020, with edges for distance.

    Args:
        class_scores: (P, C) float32; 0 for classes that are not claimed.
        labels: (P,) int64; the true classes.
        arrays: The taxonomy.

    Returns:
        (P,) float64 by k; 0 for a detection that claims nothing.
    """
    claimed = class_scores > 0
    # Counts the class itself: nothing else at or below it is claimed.
    specific = claimed & (claimed.astype(np.float32) @ arrays.ancestor_mask.astype(np.float32) < 1.5)
    ranked = np.argsort(-np.where(specific, class_scores, 0), axis=1, kind='stable')[:, : max(CANDIDATES)]
    counted = np.take_along_axis(specific, ranked, axis=1)
    distances = arrays.distances[labels[:, None], ranked] * counted
    return {
        k: distances[:, :k].sum(axis=1) / np.maximum(counted[:, :k].sum(axis=1), 1).astype(np.float64)
        for k in CANDIDATES
    }


def consistent_paths(class_scores: ScoreArray, named: IntArray, arrays: TaxonomyArrays) -> BoolArray:
    """Which names come with a consistent path.

    That is one from a root class down to the name, by any parents, on which the detection claims every class and no
    parent is less probable than its child. A model whose probabilities are sums over outcomes has no others; of a
    merged ensemble these are the detections whose layers agree that the parent is the surer one; a Man without his
    Person has none.

    Args:
        class_scores: (N, C) float32; 0 for classes that a detection does not claim.
        named: (N,) int64 labels.
        arrays: The taxonomy.

    Returns:
        (N,) bool.
    """
    consistent = class_scores > 0
    # Depth by the longest path: parents come before their children.
    for label in np.argsort(arrays.depths, kind='stable'):
        parents = np.flatnonzero(arrays.up_steps[label] == 1)
        if len(parents):
            surer = class_scores[:, parents] >= class_scores[:, [label]] * np.float32(1 - ROUNDING)
            consistent[:, label] &= (consistent[:, parents] & surer).any(axis=1)
    of_names: BoolArray = consistent[np.arange(len(named)), named]
    return of_names


def _match_sums(pairs: LocalisedPairs) -> ImageSums:
    found, missed = (
        np.bincount(image_of, minlength=pairs.num_images).astype(np.float64)
        for image_of in (pairs.image_of, pairs.missed_image_of)
    )
    return ImageSums(pairs.image_ids, found, found + missed)
