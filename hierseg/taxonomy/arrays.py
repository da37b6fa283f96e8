"""The taxonomy as frozen tables, for forward(), matching and sampling, and the class that a detection names.

Shape letters: N detections, C classes, K ancestor pairs, P such pairs and each class with itself. No class is its own
ancestor unless said so.

What training needs is a list of pairs: their number grows with classes and depth. Matrices of C × C are made when they
are first asked for, which takes up to 13 bytes for each pair of classes: 1 MB at 300 classes, 2.3 GB at 13,204.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from hierseg.errors import TaxonomyError
from hierseg.formats import BoolArray, IntArray

StepArray = npt.NDArray[np.int32]

AnyArray = TypeVar('AnyArray', bound=npt.NDArray[Any])
AnyScalar = TypeVar('AnyScalar', bound=np.generic)

MOST_PAIRS = 1 << 22
"""P of the largest taxonomy: 100,000 classes with 41 ancestors each; iNaturalist has 80,000 pairs."""
MOST_BYTES = 1 << 31
"""Of a matrix of C × C."""


@dataclass(frozen=True, eq=False)
class TaxonomyArrays:
    """Read-only tables of a taxonomy.

    Attributes:
        starts: (C + 1,) int64; the pairs of class v are those from ``starts[v]`` to before ``starts[v + 1]``.
        at_or_above: (P,) int64; each class and its ancestors by any path, class by class, ascending in each.
        steps: (P,) int32; the fewest edges from the class up to it, 0 for the class itself.
        depths: (C,) int64; edges from a root class down to v by the longest path; 0 for root classes.
        preferred_parents: (C,) int64; label of the preferred parent, -1 for root classes.
        preferred_roots: (C,) int64; the root class reached by preferred parents.
    """

    starts: IntArray
    at_or_above: IntArray
    steps: StepArray
    depths: IntArray
    preferred_parents: IntArray
    preferred_roots: IntArray

    @classmethod
    def from_parents(cls, parents: Sequence[Sequence[int]], *, order: Sequence[int]) -> TaxonomyArrays:
        """Builds the tables of the parents of each class, the preferred one first; ``order`` has parents first."""
        count = len(parents)
        steps_up: list[dict[int, int]] = [{} for _ in range(count)]
        depths = np.zeros(count, dtype=np.int64)
        preferred_parents = np.full(count, -1, dtype=np.int64)
        preferred_roots = np.arange(count, dtype=np.int64)
        num_pairs = 0
        for label in order:
            steps = steps_up[label] = {label: 0}
            for parent in parents[label]:
                for above, more in steps_up[parent].items():
                    steps[above] = min(steps.get(above, count), more + 1)
                depths[label] = max(depths[label], depths[parent] + 1)
            num_pairs += len(steps)
            if num_pairs > MOST_PAIRS:
                what = f'more than {MOST_PAIRS:,} pairs of a class and one at or above it, in {count:,} classes'
                raise TaxonomyError(what, fix='Leave out levels, or parents of classes that have several.')
            if parents[label]:
                preferred_parents[label] = parents[label][0]
                preferred_roots[label] = preferred_roots[parents[label][0]]
        rows = [sorted(steps.items()) for steps in steps_up]
        pairs = np.array([pair for row in rows for pair in row], dtype=np.int64)
        return cls(
            starts=_read_only(np.cumsum([0, *map(len, rows)])),
            at_or_above=_read_only(pairs[:, 0].copy()),
            steps=_read_only(pairs[:, 1].astype(np.int32)),
            depths=_read_only(depths),
            preferred_parents=_read_only(preferred_parents),
            preferred_roots=_read_only(preferred_roots),
        )

    def above(self, label: int) -> IntArray:
        """Labels at or above a class, ascending."""
        return self.at_or_above[self.starts[label] : self.starts[label + 1]]

    def below(self, label: int) -> IntArray:
        """Labels at or below a class, ascending."""
        starts, at_or_below, _ = self.rows_below
        return at_or_below[starts[label] : starts[label + 1]]

    def all_above(self, labels: IntArray) -> IntArray:
        """Labels at or above any of some classes, ascending."""
        found: IntArray = np.unique(np.concatenate([labels[:0], *(self.above(label) for label in labels)]))
        return found

    def sums_below(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """(C,) sums of (C,) values over the classes at or below each, every class counted once."""
        sums = np.zeros_like(values)
        np.add.at(sums, self.at_or_above, values[self.classes])
        return sums

    @cached_property
    def classes(self) -> IntArray:
        """(P,) int64; the class that a pair belongs to."""
        return np.repeat(np.arange(len(self.depths)), np.diff(self.starts))

    @cached_property
    def rows_below(self) -> tuple[IntArray, IntArray, StepArray]:
        """The pairs by ancestor: starts (C + 1,), classes at or below (P,) and steps (P,), as the attributes."""
        order = np.argsort(self.at_or_above, kind='stable')
        counts = np.bincount(self.at_or_above, minlength=len(self.depths))
        starts = np.concatenate([[0], np.cumsum(counts)])
        return _read_only(starts), _read_only(self.classes[order]), _read_only(self.steps[order])

    @cached_property
    def ancestor_pairs(self) -> IntArray:
        """(2, K) int64; class and strict ancestor of every pair."""
        strict = self.steps > 0
        return _read_only(np.stack([self.classes[strict], self.at_or_above[strict]]))

    @cached_property
    def is_leaf(self) -> BoolArray:
        """(C,) bool; nothing is below the class."""
        return _read_only(np.bincount(self.at_or_above, minlength=len(self.depths)) == 1)

    @cached_property
    def leaf_counts(self) -> IntArray:
        """(C,) int64; leaves at or below each class, each leaf counted once; 1 for a leaf."""
        return _read_only(self.sums_below(self.is_leaf.astype(np.int64)))

    @cached_property
    def heights(self) -> IntArray:
        """(C,) int64; edges from a class down to a leaf by the longest path; 0 for leaves."""
        heights = np.zeros(len(self.depths), dtype=np.int64)
        # Depth by the longest path: everything below a class comes before it.
        for label in np.argsort(-self.depths, kind='stable'):
            parents = self._parents(label)
            heights[parents] = np.maximum(heights[parents], heights[label] + 1)
        return _read_only(heights)

    def _parents(self, label: int) -> IntArray:
        parents: IntArray = self.above(label)[self.steps[self.starts[label] : self.starts[label + 1]] == 1]
        return parents

    @cached_property
    def steps_to_virtual_root(self) -> IntArray:
        """(C,) int64; the fewest edges up to the virtual root, 1 for root classes."""
        is_root = self.preferred_parents[self.at_or_above] < 0
        fewest = np.full(len(self.depths), len(self.depths), dtype=np.int64)
        np.minimum.at(fewest, self.classes[is_root], self.steps[is_root])
        return _read_only(fewest + 1)

    @cached_property
    def longest_distance(self) -> int:
        """The largest of :attr:`distances`, found without that matrix."""
        climb, longest = self.steps_to_virtual_root, 0
        starts, at_or_below, steps = self.rows_below
        # No class is further away than by the virtual root, so most are passed over.
        for label in np.argsort(-climb, kind='stable'):
            if climb[label] + climb.max() <= longest:
                break
            distances = climb[label] + climb
            for place in range(self.starts[label], self.starts[label + 1]):
                row = slice(starts[self.at_or_above[place]], starts[self.at_or_above[place] + 1])
                below = at_or_below[row]
                distances[below] = np.minimum(distances[below], self.steps[place] + steps[row])
            longest = max(longest, int(distances.max()))
        return longest

    def _matrix(self, value: int, dtype: type[AnyScalar]) -> npt.NDArray[AnyScalar]:
        """(C, C) of a value; a TaxonomyError if so many classes would take too much memory."""
        size = len(self.depths) ** 2 * np.dtype(dtype).itemsize
        if size > MOST_BYTES:
            what = f'{len(self.depths):,} classes, of which a table of all pairs takes {size / 2**30:.1f} GiB'
            raise TaxonomyError(what, fix='Leave out classes that are not needed.')
        return np.full((len(self.depths), len(self.depths)), value, dtype=dtype)

    @cached_property
    def ancestor_mask(self) -> BoolArray:
        """(C, C) bool; ``[v, a]`` says that a is v or an ancestor of v, by any path."""
        mask = self._matrix(False, np.bool_)
        mask[self.classes, self.at_or_above] = True
        return _read_only(mask)

    @cached_property
    def up_steps(self) -> StepArray:
        """(C, C) int32; ``[v, a]`` is the fewest edges from v up to a, 0 for v itself; -1 if a is not above v."""
        up_steps = self._matrix(-1, np.int32)
        up_steps[self.classes, self.at_or_above] = self.steps
        return _read_only(up_steps)

    @cached_property
    def lowest_common_ancestors(self) -> StepArray:
        """(C, C) int32; the common ancestor that says most, a class being its own; -1 if that is the virtual root.

        A tree has one lowest common ancestor. A DAG may have several: then it is the one with the fewest leaves
        below it, of these the deepest, then the one of the least height, then the first in label order. No common
        ancestor is below it.
        """
        labels = np.arange(len(self.depths))
        lowest = self._matrix(-1, np.int32)
        # The best is written last.
        for label in np.lexsort((-labels, -self.heights, self.depths, -self.leaf_counts)):
            below = self.below(label)
            lowest[np.ix_(below, below)] = label
        return _read_only(lowest)

    @cached_property
    def distances(self) -> StepArray:
        """(C, C) int32; fewest edges up to a common ancestor and down again, the virtual root included.

        Two root classes are 2 apart. On a tree this is the length of the path between the classes; on
        a DAG the shortest such path over all common ancestors.
        """
        starts, at_or_below, steps = self.rows_below
        distances = self._matrix(0, np.int32)
        # A shortest path into a class only climbs, or its last step comes down from a parent. Depth by the
        # longest path is an order in which every parent comes before its children.
        for label in np.argsort(self.depths, kind='stable'):
            parents = self._parents(label)
            distances[label] = (distances[parents].min(axis=0) if len(parents) else self.steps_to_virtual_root) + 1
            row = slice(starts[label], starts[label + 1])
            np.minimum.at(distances[label], at_or_below[row], steps[row])
        return _read_only(distances)


def _read_only(array: AnyArray) -> AnyArray:
    array.flags.writeable = False
    return array


def named_classes(
    class_scores: npt.NDArray[np.floating[Any]], arrays: TaxonomyArrays, *, threshold: float = 0.5
) -> IntArray:
    """(N,) int64 classes that detections name; the one rule for models, ensembles and submissions.

    The most probable root class is taken first; where none is claimed, the most probable class above which nothing is
    claimed. Among the classes at or below it whose probability is at least ``threshold`` times its own, the deepest
    wins; of several equally deep the more probable one, then the first. Animal 0.9, Bear 0.8, Teddy bear 0.5 gives
    Teddy bear; Person 0.8, Man 0.35, Woman 0.33 gives Person.
    :func:`hierseg.functional.decisions.deepest_confident_class` is the same rule on tensors.

    ``class_scores`` are (N, C), 0 for classes that a detection does not claim; with a threshold of 0 the deepest
    claimed class wins.
    """
    rows, claimed = np.arange(len(class_scores)), class_scores > 0
    above = arrays.ancestor_mask
    tops = claimed & (arrays.depths == 0)
    rootless = np.flatnonzero(~tops.any(axis=1))
    if len(rootless):
        # Counts the class itself: nothing else at or above it is claimed.
        tops[rootless] = claimed[rootless] & (claimed[rootless].astype(np.float32) @ above.T.astype(np.float32) < 1.5)
    top = np.where(tops, class_scores, -1).argmax(axis=1)
    eligible = above.T[top] & claimed & (class_scores >= (threshold * class_scores[rows, top])[:, None])
    eligible[rows, top] = True
    # The depth decides, then the probability: half of its part of the greatest is less than a step.
    share = class_scores / np.maximum(class_scores.max(axis=1, initial=0, keepdims=True), 1e-12)
    ranks = arrays.depths.astype(class_scores.dtype) + share * 0.5
    named: IntArray = np.where(eligible, ranks, -1).argmax(axis=1)
    return named
