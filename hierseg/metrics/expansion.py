"""Hierarchical expansion of ground truth: what is a Man is a Person, what has no Person has no Man.

Rule 1 of the Open Images protocol: boxes, masks and labels verified as present are copied to all
ancestors by every path, labels verified as absent to all descendants. An ancestor that several paths
reach gets one copy. Predictions are never expanded.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hierseg.metrics.records import BoolArray, IntArray
from hierseg.taxonomy import Taxonomy


@dataclass(frozen=True, eq=False)
class Expansion:
    """Repeats rows for the classes that they imply.

    Attributes:
        upward_mask: (C, C) bool; ``[v, a]`` says that a row of class v is copied to class a.
    """

    upward_mask: BoolArray

    @classmethod
    def of(cls, taxonomy: Taxonomy) -> Expansion:
        """Expansion through the taxonomy."""
        return cls(taxonomy.arrays.ancestor_mask)

    @classmethod
    def none(cls, num_classes: int) -> Expansion:
        """For files that are expanded already: every row stays what it is."""
        return cls(np.eye(num_classes, dtype=bool))

    @cached_property
    def _above(self) -> _Implied:
        return _Implied.of(self.upward_mask)

    @cached_property
    def _below(self) -> _Implied:
        return _Implied.of(self.upward_mask.T)

    def upward(self, labels: IntArray) -> tuple[IntArray, IntArray]:
        """Copies rows to their ancestors.

        Args:
            labels: (N,) int64.

        Returns:
            (M,) indices of the rows to repeat, ascending, and (M,) their new labels.
        """
        return _repeat(self._above, labels)

    def downward(self, labels: IntArray) -> tuple[IntArray, IntArray]:
        """Copies rows to their descendants; arguments and result as of :meth:`upward`."""
        return _repeat(self._below, labels)

    def verified(self, positive: IntArray, negative: IntArray) -> IntArray:
        """Classes of one image that are verified, directly or by implication, ascending and unique."""
        labels: IntArray = np.unique(np.concatenate([self.upward(positive)[1], self.downward(negative)[1]]))
        return labels


@dataclass(frozen=True, eq=False)
class _Implied:
    """Implied classes of every class, one class after another: those of v are ``classes[first[v] : first[v + 1]]``."""

    classes: IntArray
    first: IntArray

    @classmethod
    def of(cls, mask: BoolArray) -> _Implied:
        sources, classes = np.nonzero(mask)
        return cls(classes, np.searchsorted(sources, np.arange(len(mask) + 1)))


def _repeat(implied: _Implied, labels: IntArray) -> tuple[IntArray, IntArray]:
    begin = implied.first[labels]
    repeats = implied.first[labels + 1] - begin
    rows = np.repeat(np.arange(len(labels)), repeats)
    within = np.arange(len(rows)) - np.repeat(np.cumsum(repeats) - repeats, repeats)
    return rows, implied.classes[begin[rows] + within]
