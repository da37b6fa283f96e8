"""The class that a detection names, as ``hierseg.functional.decisions``. Shape letters: M detections, C classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from hierseg.formats import BoolArray, IntArray

FloatArray = npt.NDArray[np.floating[Any]]
ROUNDING = 1e-5  # expected distances that differ by less, in edges, are equal


class Classes:
    """Rules on a taxonomy, from (M, C) probabilities to (M,) labels; ``parents`` has the parents' labels by class."""

    def __init__(self, parents: Sequence[Sequence[int]]) -> None:
        pairs = [(child, parent) for child, above in enumerate(parents) for parent in above]
        child, parent = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
        # The fewest edges from a class up to each other one; the most down to it from a root class.
        self.steps = np.where(np.eye(len(parents), dtype=bool), np.float32(0), np.float32(np.inf))
        self.depths = np.full(len(parents), -1, dtype=np.float32)
        deeper = np.zeros_like(self.depths)
        # Every turn looks one edge further, and no way up is longer than the longest.
        while not np.array_equal(deeper, self.depths):
            self.depths = deeper.copy()
            np.minimum.at(self.steps, child, self.steps[parent] + 1)
            np.maximum.at(deeper, child, self.depths[parent] + 1)
        self.above = np.isfinite(self.steps)
        self.is_leaf = self.above.sum(axis=0) == 1

    def back_off(self, scores: FloatArray, *, threshold: float, relative: bool) -> IntArray:
        """The deepest class at or below the most probable root class that is probable enough."""
        rows = np.arange(len(scores))
        root = np.where(self.depths > 0, -1, scores).argmax(axis=1)
        needed = (threshold * scores[rows, root])[:, None] if relative else threshold
        eligible = self.above.T[root] & (scores >= needed)
        eligible[rows, root] = True
        share = scores / np.maximum(scores.max(axis=1, initial=0, keepdims=True), 1e-12)
        return _largest(self.depths + share * 0.5, eligible)

    def leaf(self, scores: FloatArray) -> IntArray:
        """The most probable leaf; where none is claimed, of the classes below which nothing is."""
        claimed = scores > 0
        leaves = claimed & self.is_leaf
        lowest = claimed & (claimed.astype(np.float32) @ self.above.astype(np.float32) < 1.5)
        return _largest(scores, np.where(leaves.any(axis=1, keepdims=True), leaves, lowest))

    def distance(self, scores: FloatArray) -> IntArray:
        """The class from which the truth is the fewest edges away on average."""
        masses = np.maximum(scores @ np.linalg.inv(self.above.astype(np.float32)), 0)
        to_top = np.where(self.depths == 0, self.steps, np.inf).min(axis=1) + 1
        edges = to_top[:, None] + to_top
        for step in self.steps.T:
            edges = np.minimum(edges, step[:, None] + step)
        risks = np.where(scores <= 0, np.inf, masses @ edges)
        tolerated = risks.min(axis=1, initial=np.inf, keepdims=True) + ROUNDING * masses.sum(axis=1, keepdims=True)
        return _largest(scores, risks <= tolerated)


def _largest(values: FloatArray, eligible: BoolArray) -> IntArray:
    return np.asarray(np.where(eligible, values, -1).argmax(axis=1), dtype=np.int64)
