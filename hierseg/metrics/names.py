"""Names of found objects, on localised pairs: how right and how deep they are, and which classes are confused.

Three kinds of pairs, because objects may be annotated coarsely (a Person who is a Man):

- *known*: the name is right or wrong for all that is known; see :meth:`LocalisedPairs.judged`. Most numbers are means
  over these.
- *settled*: the object can be nothing but its class and what is above it, because that is a leaf or because everything
  else was verified as absent. Which pairs are settled does not depend on what is named.
- all.

Annotations count as they are. A coarse label has a row of its own in the confusion, and a name below it, such as Man
for what was annotated as Person, is unknown rather than wrong; at the depth of the coarse label both are one class.
Ancestors of a class are always those by every path, the class itself included and the virtual root left out. Two
classes have many common ancestors in a DAG; the lowest is the one of
:attr:`~hierseg.taxonomy.TaxonomyArrays.lowest_common_ancestors`, of several the one that says most.

Shape letters: K cells that are not empty, P pairs, C classes, T thresholds, N detections or images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hierseg.errors import EvaluationError
from hierseg.formats import BoolArray, FloatArray, IntArray
from hierseg.metrics.declarations import Metric
from hierseg.metrics.intervals import ImageSums
from hierseg.metrics.localised_pairs import LocalisedPairs, ScoreArray
from hierseg.taxonomy import TaxonomyArrays


@dataclass(frozen=True)
class OperatingPoint:
    """Quality of the names, on the pairs whose name is known to be right or wrong; nan where there is none.

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
    """Operating points by threshold: T numbers, and what each gives."""

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

    def recall_at_correctness(self, correctness: float) -> float:
        """The largest information recall at which names are at least that correct; nan if no name can be judged.

        Where no threshold gets there it is 0, for to say nothing is always right. Source: R@90C and R@95C in Valmadre,
        NeurIPS 2022.
        """
        if np.isnan(self.correctness).all():
            return float('nan')
        return max((point.information_recall for point in self.points if point.correctness >= correctness), default=0.0)

    @property
    def recalls(self) -> dict[str, float]:
        """Information recall at which 90 and 95 % of the names are right, by the key of the score."""
        return {f'recall_at_{percent}': self.recall_at_correctness(percent / 100) for percent in (90, 95)}


def information(arrays: TaxonomyArrays) -> FloatArray:
    """(C,) how much naming a class says: log(leaves / leaves at or below it) / log(leaves).

    A leaf says 1, the virtual root would say 0. Source: Valmadre, "Hierarchical classification at multiple operating
    points", NeurIPS 2022, divided by what a leaf says. With a single leaf no name says anything.
    """
    num_leaves = int(arrays.is_leaf.sum())
    said: FloatArray = np.log(num_leaves / arrays.leaf_counts) / max(np.log(num_leaves), np.finfo(np.float64).tiny)
    return said


def information_shares(labels: IntArray, named: IntArray, arrays: TaxonomyArrays) -> tuple[FloatArray, FloatArray]:
    """(P,) precision and recall: what the lowest common ancestor says, of what the name and what the true class says.

    The virtual root says nothing. The part of a class that says nothing is 1. Source: Valmadre, NeurIPS 2022.
    """
    said = information(arrays)
    shared = np.append(said, 0.0)[arrays.lowest_common_ancestors[labels, named]]  # -1, the virtual root, is the last
    precision, recall = (
        np.divide(shared, of, out=np.ones_like(shared), where=of > 0) for of in (said[named], said[labels])
    )
    return precision, recall


def operating_sums(pairs: LocalisedPairs, named: IntArray, arrays: TaxonomyArrays) -> dict[str, ImageSums]:
    """The numbers of an :class:`OperatingPoint` as sums over images; arguments as of :func:`hierarchical_sums`."""
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
    """Judges a name for every pair; arguments as of :func:`hierarchical_sums`."""
    return OperatingPoint(**{name: sums.ratio for name, sums in operating_sums(pairs, named, arrays).items()})


def operating_curve(
    pairs: LocalisedPairs, names: npt.NDArray[np.int64], arrays: TaxonomyArrays, *, thresholds: Sequence[float]
) -> OperatingCurve:
    """Judges the (P, T) names that a system gives to P pairs at T thresholds, such as those of the back-off rule.

    Raises:
        EvaluationError: If there is not one name for each pair and threshold.
    """
    if names.shape != (len(pairs), len(thresholds)):
        raise EvaluationError(
            f'names have the shape {names.shape}',
            fix=f'Give one for each of {len(pairs)} pairs and {len(thresholds)} thresholds.',
        )
    return OperatingCurve(tuple(thresholds), tuple(operating_point(pairs, column, arrays) for column in names.T))


CANDIDATES = (1, 5, 20)
"""Numbers of most probable classes whose distance is averaged."""

ROUNDING = 1e-5
"""A part by which a parent may be less probable than its child: what sums in float32 leave."""


def _declared(
    key: str, label: str, explanation: str, *, edges: bool = False, lower: bool = False, on_page: bool = True
) -> Metric:
    return Metric(
        key, label, 'Names of found objects', explanation, 'edges' if edges else '',
        higher_is_better=not (edges or lower), on_page=on_page,
        has_interval=not key.startswith('recall_at'), headline=key == 'exact',
    )  # fmt: skip


NAME_METRICS = (
    _declared('exact', 'exact names', 'Part of the names that are the annotated class.'),
    _declared('match_rate', 'objects found', 'Part of the objects that a detection lies on, whatever its name.'),
    _declared('correctness', 'right names', 'Part of the names that are the annotated class or an ancestor of it.'),
    _declared('hierarchical_f', 'hierarchical F', 'Agreement of the ancestors of name and annotated class.'),
    _declared('hierarchical_precision', 'hierarchical precision', "Part of the name's ancestors that are right."),
    _declared('hierarchical_recall', 'hierarchical recall', "Part of the class's ancestors that are named."),
    _declared('information', 'information', 'Part of what a leaf would say that a name says.', on_page=False),
    _declared('information_precision', 'information precision', 'Part of what a name says that is right.'),
    _declared('information_recall', 'information recall', 'Part of what is to be said that a name says rightly.'),
    _declared('recall_at_90', 'recall at 90 %', 'Largest information recall at which 90 % of the names are right, '
              'over all thresholds of the back-off rule.'),
    _declared('recall_at_95', 'recall at 95 %', 'The same with 95 % right.'),
    _declared('distance', 'distance', 'Edges between name and annotated class.', edges=True),
    _declared('distance_at_1', 'distance of the best', 'That of the most probable class.', edges=True, on_page=False),
    _declared('distance_at_5', 'distance of the best 5', 'The mean over the five most probable classes.', edges=True),
    _declared('distance_at_20', 'distance of the best 20', 'The mean over the twenty most probable classes.',
              edges=True, on_page=False),
    _declared('severity', 'severity of mistakes', 'Height of the common ancestor, over names that are not exact; '
              'to be read beside exact names.', edges=True),
    _declared('path_consistency', 'consistent paths', 'Part of the names with a path on which no parent is less '
              'probable than its child.'),
    _declared('unknown', 'unknown names', 'Part of the names that are not known to be right or wrong.',
              lower=True, on_page=False),
)  # fmt: skip
"""All of :func:`hierarchical_sums`, and :attr:`OperatingCurve.recalls`."""


def hierarchical_sums(pairs: LocalisedPairs, named: IntArray, arrays: TaxonomyArrays) -> dict[str, ImageSums]:
    """All that is known of the names of P pairs, as sums over images: the ratio of each is the result.

    Args:
        pairs: P pairs.
        named: (P,) int64 labels.
        arrays: The taxonomy.

    Returns:
        By key of :data:`NAME_METRICS`: the numbers of an :class:`OperatingPoint` and

        - ``match_rate``: part of the objects that were found; the others speak of these alone;
        - ``severity``: mean height of the lowest common ancestor over the known names that are not exact; a coarser
          name has the height of the name, two classes with nothing in common one more than the highest class has.
          Source: Bertinetto et al., "Making better mistakes", CVPR 2020. Read it beside ``exact``: a system that
          makes more errors, but slight ones, has the lower severity;
        - ``hierarchical_precision``, ``hierarchical_recall``: mean part of the ancestors of the name that are the
          true class's, and reversely, and ``hierarchical_f``, the mean harmonic mean of both; over known pairs;
        - ``information_precision``: mean part of what the name says that is right; see :func:`information_shares`;
        - ``distance_at_1``, ``_5``, ``_20``: over settled pairs; see :func:`distances_at`;
        - ``path_consistency``: part of all pairs; see :func:`consistent_paths`.
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
        'match_rate': pairs.match_sums,
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
    """(N,) bool; names that come with a consistent path.

    That is one from a root class down to the name, by any parents, on which the detection claims every class and no
    parent is less probable than its child. A model whose probabilities are sums over outcomes has no others; of a
    merged ensemble these are the detections whose layers agree that the parent is the surer one; a Man without his
    Person has none.

    Args:
        class_scores: (N, C) float32; 0 for classes that a detection does not claim.
        named: (N,) int64 labels.
        arrays: The taxonomy.
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


MISSED = -1
"""Stands for a name where an object was not found."""


@dataclass(frozen=True, eq=False)
class Confusion:
    """A sparse confusion matrix, its cells in ascending order of true class, then of name.

    Attributes:
        true_labels: (K,) int64.
        named_labels: (K,) int64; :data:`MISSED` for objects that were not found.
        counts: (K,) int64, positive.
        num_classes: C.
    """

    true_labels: IntArray
    named_labels: IntArray
    counts: IntArray
    num_classes: int

    @classmethod
    def of(cls, pairs: LocalisedPairs, named: IntArray, arrays: TaxonomyArrays) -> Confusion:
        """Counts the (P,) names of pairs, and missed objects."""
        true = np.concatenate([pairs.true_labels, pairs.missed_labels])
        names = np.concatenate([named, np.full(len(pairs.missed_labels), MISSED, dtype=np.int64)])
        return cls._summed(true, names, np.ones(len(true), dtype=np.int64), len(arrays.depths))

    def collapsed(self, arrays: TaxonomyArrays, *, depth: int) -> Confusion:
        """The same counts where every class is replaced by its ancestor at a depth; see :func:`labels_at_depth`."""
        labels = labels_at_depth(arrays, depth=depth)
        names = np.append(labels, MISSED)[self.named_labels]  # the last stands for MISSED itself
        return self._summed(labels[self.true_labels], names, self.counts, self.num_classes)

    def dense(self) -> IntArray:
        """(C, C + 1) int64; rows are true classes, columns names, the last one missed objects."""
        matrix = np.zeros((self.num_classes, self.num_classes + 1), dtype=np.int64)
        matrix[self.true_labels, self.named_labels] = self.counts
        return matrix

    @classmethod
    def _summed(cls, true: IntArray, names: IntArray, counts: IntArray, num_classes: int) -> Confusion:
        cells, inverse = np.unique(true * (num_classes + 1) + names + 1, return_inverse=True)
        totals = np.bincount(inverse, counts, len(cells)).astype(np.int64)
        return cls(cells // (num_classes + 1), cells % (num_classes + 1) - 1, totals, num_classes)


def labels_at_depth(arrays: TaxonomyArrays, *, depth: int) -> IntArray:
    """(C,) int64; the class on each class's preferred path that is ``depth`` edges below the root class.

    A class that is less deep stands for itself. The preferred path may be shorter than the longest. A negative depth is
    an EvaluationError.
    """
    if depth < 0:
        raise EvaluationError(f'depth={depth}', fix='Root classes have the depth 0.')
    parents = above = arrays.preferred_parents
    labels, steps = np.arange(len(parents)), np.zeros(len(parents), dtype=np.int64)
    while (above >= 0).any():
        steps += above >= 0
        above = np.where(above >= 0, parents[above], -1)
    while (deeper := steps[labels] > depth).any():
        labels[deeper] = parents[labels[deeper]]
    return labels
