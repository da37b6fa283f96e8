"""The taxonomy as frozen matrices, for forward(), matching and sampling.

Shape letters: C classes, K ancestor pairs. No class is its own ancestor unless said so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class TaxonomyArrays:
    """Read-only matrices of a taxonomy.

    Attributes:
        ancestor_mask: (C, C) bool; ``[v, a]`` says that a is v or an ancestor of v, by any path.
        up_steps: (C, C) int64; ``[v, a]`` is the fewest edges from v up to a; -1 if a is not above v.
        depths: (C,) int64; edges from a root class down to v by the longest path; 0 for root classes.
        preferred_parents: (C,) int64; label of the preferred parent, -1 for root classes.
        preferred_roots: (C,) int64; the root class reached by preferred parents.
    """

    ancestor_mask: BoolArray
    up_steps: IntArray
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
        up_steps = np.full((count, count), -1, dtype=np.int64)
        depths = np.zeros(count, dtype=np.int64)
        preferred_parents = np.full(count, -1, dtype=np.int64)
        preferred_roots = np.arange(count)
        for label in order:
            up_steps[label, label] = 0
            for parent in parents[label]:
                reachable = up_steps[parent] >= 0
                steps = np.where(reachable, up_steps[parent] + 1, -1)
                shorter = reachable & ((up_steps[label] < 0) | (steps < up_steps[label]))
                up_steps[label, shorter] = steps[shorter]
                depths[label] = max(depths[label], depths[parent] + 1)
            if parents[label]:
                preferred_parents[label] = parents[label][0]
                preferred_roots[label] = preferred_roots[parents[label][0]]
        arrays = cls(up_steps >= 0, up_steps, depths, preferred_parents, preferred_roots)
        for matrix in (arrays.ancestor_mask, up_steps, depths, preferred_parents, preferred_roots):
            matrix.flags.writeable = False
        return arrays

    @cached_property
    def root_mask(self) -> BoolArray:
        """(C, C) bool; ``[v, r]`` says that r is a root class and v or an ancestor of v."""
        return self.ancestor_mask & (self.preferred_parents < 0)[None, :]

    @cached_property
    def ancestor_pairs(self) -> IntArray:
        """(2, K) int64; class and strict ancestor of every pair, sparse where the mask is dense."""
        return np.stack(np.nonzero(self.ancestor_mask & ~np.eye(len(self.depths), dtype=bool)))

    @cached_property
    def leaf_counts(self) -> IntArray:
        """(C,) int64; leaves at or below each class, each leaf counted once; 1 for a leaf."""
        is_leaf = self.ancestor_mask.sum(axis=0) == 1
        return self.ancestor_mask[is_leaf].sum(axis=0)

    @cached_property
    def distances(self) -> IntArray:
        """(C, C) int64; fewest edges up to a common ancestor and down again, the virtual root included.

        Two root classes are 2 apart. On a tree this is the length of the path between the classes; on
        a DAG the shortest such path over all common ancestors.
        """
        steps = np.where(self.up_steps >= 0, self.up_steps, len(self.depths) * 2)
        is_root = self.preferred_parents < 0
        to_virtual_root = steps[:, is_root].min(axis=1) + 1
        distances = to_virtual_root[:, None] + to_virtual_root[None, :]
        for ancestor in range(len(self.depths)):
            below = np.nonzero(self.ancestor_mask[:, ancestor])[0]
            via = steps[below, ancestor][:, None] + steps[below, ancestor][None, :]
            block = np.ix_(below, below)
            distances[block] = np.minimum(distances[block], via)
        return distances
