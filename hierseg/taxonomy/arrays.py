"""The taxonomy as frozen matrices, for forward(), matching and sampling.

Shape letters: C classes, K ancestor pairs. No class is its own ancestor unless said so.

Memory: 13 bytes for each pair of classes once all matrices are in use, so 1.3 GB at 10,000 classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]
StepArray = npt.NDArray[np.int32]
AnyArray = TypeVar('AnyArray', bound=npt.NDArray[Any])


@dataclass(frozen=True, eq=False)
class TaxonomyArrays:
    """Read-only matrices of a taxonomy.

    Attributes:
        ancestor_mask: (C, C) bool; ``[v, a]`` says that a is v or an ancestor of v, by any path.
        up_steps: (C, C) int32; ``[v, a]`` is the fewest edges from v up to a, 0 for v itself; -1 if a is
            not above v.
        depths: (C,) int64; edges from a root class down to v by the longest path; 0 for root classes.
        preferred_parents: (C,) int64; label of the preferred parent, -1 for root classes.
        preferred_roots: (C,) int64; the root class reached by preferred parents.
    """

    ancestor_mask: BoolArray
    up_steps: StepArray
    depths: IntArray
    preferred_parents: IntArray
    preferred_roots: IntArray

    @classmethod
    def from_parents(cls, parents: Sequence[Sequence[int]], *, order: Sequence[int]) -> TaxonomyArrays:
        """Builds the matrices.

        Args:
            parents: Parent labels of each class, the preferred one first.
            order: All labels, every parent before its children.
        """
        count = len(parents)
        up_steps = np.full((count, count), -1, dtype=np.int32)
        depths = np.zeros(count, dtype=np.int64)
        preferred_parents = np.full(count, -1, dtype=np.int64)
        preferred_roots = np.arange(count, dtype=np.int64)
        for label in order:
            for parent in parents[label]:
                steps = up_steps[parent] + 1
                shorter = (steps > 0) & ((up_steps[label] < 0) | (steps < up_steps[label]))
                up_steps[label, shorter] = steps[shorter]
                depths[label] = max(depths[label], depths[parent] + 1)
            up_steps[label, label] = 0
            if parents[label]:
                preferred_parents[label] = parents[label][0]
                preferred_roots[label] = preferred_roots[parents[label][0]]
        return cls(
            ancestor_mask=_read_only(up_steps >= 0),
            up_steps=_read_only(up_steps),
            depths=_read_only(depths),
            preferred_parents=_read_only(preferred_parents),
            preferred_roots=_read_only(preferred_roots),
        )

    @cached_property
    def root_mask(self) -> BoolArray:
        """(C, C) bool; ``[v, r]`` says that r is a root class and v or an ancestor of v."""
        return _read_only(self.ancestor_mask & (self.preferred_parents < 0)[None, :])

    @cached_property
    def ancestor_pairs(self) -> IntArray:
        """(2, K) int64; class and strict ancestor of every pair, sparse where the mask is dense."""
        return _read_only(np.stack(np.nonzero(self.up_steps > 0)))

    @cached_property
    def leaf_counts(self) -> IntArray:
        """(C,) int64; leaves at or below each class, each leaf counted once; 1 for a leaf."""
        is_leaf = self.ancestor_mask.sum(axis=0) == 1
        counts: IntArray = self.ancestor_mask[is_leaf].sum(axis=0, dtype=np.int64)
        return _read_only(counts)

    @cached_property
    def heights(self) -> IntArray:
        """(C,) int64; edges from a class down to a leaf by the longest path; 0 for leaves."""
        heights = np.zeros(len(self.depths), dtype=np.int64)
        # Depth by the longest path: everything below a class comes before it.
        for label in np.argsort(-self.depths, kind='stable'):
            parents = self.up_steps[label] == 1
            heights[parents] = np.maximum(heights[parents], heights[label] + 1)
        return _read_only(heights)

    @cached_property
    def lowest_common_ancestors(self) -> StepArray:
        """(C, C) int32; the common ancestor that says most, a class being its own; -1 if that is the virtual root.

        A tree has one lowest common ancestor. A DAG may have several: then it is the one with the fewest leaves
        below it, of these the deepest, then the one of the least height, then the first in label order. No common
        ancestor is below it.
        """
        labels = np.arange(len(self.depths))
        lowest = np.full((len(labels), len(labels)), -1, dtype=np.int32)
        # The best is written last.
        for label in np.lexsort((-labels, -self.heights, self.depths, -self.leaf_counts)):
            below = np.flatnonzero(self.ancestor_mask[:, label])
            lowest[np.ix_(below, below)] = label
        return _read_only(lowest)

    @cached_property
    def distances(self) -> StepArray:
        """(C, C) int32; fewest edges up to a common ancestor and down again, the virtual root included.

        Two root classes are 2 apart. On a tree this is the length of the path between the classes; on
        a DAG the shortest such path over all common ancestors.
        """
        count = len(self.depths)
        up_steps = np.where(self.ancestor_mask, self.up_steps, 2 * count)
        to_virtual_root = up_steps[:, self.preferred_parents < 0].min(axis=1) + 1
        distances = np.empty((count, count), dtype=np.int32)
        # A shortest path into a class only climbs, or its last step comes down from a parent. Depth by the
        # longest path is an order in which every parent comes before its children.
        for label in np.argsort(self.depths, kind='stable'):
            parents = np.flatnonzero(self.up_steps[label] == 1)
            before = distances[parents].min(axis=0) if len(parents) else to_virtual_root
            np.minimum(before + 1, up_steps[:, label], out=distances[label])
        return _read_only(distances)


def _read_only(array: AnyArray) -> AnyArray:
    array.flags.writeable = False
    return array
