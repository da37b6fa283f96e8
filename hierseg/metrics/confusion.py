"""Which class is called which: counts of (true class, name) on localised pairs, and of missed objects.

Counts are of annotations as they are. A coarse label has a row of its own, and a name below it, such as Man for what
was annotated as Person, is unknown rather than wrong; at the depth of the coarse label both are one class.

Shape letters: K cells that are not empty, P pairs, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hierseg.errors import EvaluationError
from hierseg.metrics.localised_pairs import LocalisedPairs
from hierseg.metrics.records import IntArray
from hierseg.taxonomy import TaxonomyArrays

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
        """Counts the names of pairs, and missed objects.

        Args:
            pairs: P pairs.
            named: (P,) int64 labels.
            arrays: The taxonomy.
        """
        true = np.concatenate([pairs.true_labels, pairs.missed_labels])
        names = np.concatenate([named, np.full(len(pairs.missed_labels), MISSED, dtype=np.int64)])
        return cls._summed(true, names, np.ones(len(true), dtype=np.int64), len(arrays.depths))

    def collapsed(self, arrays: TaxonomyArrays, *, depth: int) -> Confusion:
        """The same counts where every class is replaced by its ancestor at a depth.

        Args:
            arrays: The taxonomy.
            depth: Edges below the root class; see :func:`labels_at_depth`.
        """
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
        totals = np.zeros(len(cells), dtype=np.int64)
        np.add.at(totals, inverse, counts)
        return cls(cells // (num_classes + 1), cells % (num_classes + 1) - 1, totals, num_classes)


def labels_at_depth(arrays: TaxonomyArrays, *, depth: int) -> IntArray:
    """(C,) int64; the class on each class's preferred path that is ``depth`` edges below the root class.

    A class that is less deep stands for itself. Depth is counted on the preferred path, which on a DAG may be shorter
    than the longest.

    Raises:
        EvaluationError: On a negative depth.
    """
    if depth < 0:
        raise EvaluationError(f'depth={depth}', fix='Root classes have the depth 0.')
    steps = np.zeros(len(arrays.depths), dtype=np.int64)
    parents = arrays.preferred_parents
    # Depth by the longest path: a parent is known before its children.
    for label in np.argsort(arrays.depths, kind='stable'):
        if parents[label] >= 0:
            steps[label] = steps[parents[label]] + 1
    labels = np.arange(len(parents))
    while (deeper := steps[labels] > depth).any():
        labels[deeper] = parents[labels[deeper]]
    return labels
