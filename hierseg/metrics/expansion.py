"""Hierarchical expansion of ground truth: what is a Man is a Person, what has no Person has no Man.

Rule 1 of the Open Images protocol: boxes, masks and labels verified as present are copied to all
ancestors by every path, labels verified as absent to all descendants. An ancestor that several paths
reach gets one copy. Predictions are never expanded.

Joins box rows with mask rows into objects: rule 2 of the Open Images protocol.

An outer join on image, class, the four coordinates as floats and the group-of flag. k box rows and m
mask rows with one key make k × m objects; a box row alone makes a box-only object, a mask row alone an
object with that mask. Shape letters: B box rows, M mask rows, I objects.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hierseg.formats import BoolArray, FloatArray, IntArray
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


@dataclass(frozen=True, eq=False)
class InstanceRows:
    """Rows of a box or mask table.

    Attributes:
        images: (N,) int64; index of the image.
        labels: (N,) int64.
        boxes: (N, 4) float64 xyxy.
        group_of: (N,) bool.
        sources: (N,) int64; row of the file that the row was expanded from.
    """

    images: IntArray
    labels: IntArray
    boxes: FloatArray
    group_of: BoolArray
    sources: IntArray

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: IntArray) -> InstanceRows:
        """The given rows."""
        return InstanceRows(
            self.images[rows], self.labels[rows], self.boxes[rows], self.group_of[rows], self.sources[rows]
        )

    def expanded(self, rows: IntArray, labels: IntArray) -> InstanceRows:
        """The given rows with new labels."""
        return InstanceRows(self.images[rows], labels, self.boxes[rows], self.group_of[rows], self.sources[rows])


def join_boxes_and_masks(boxes: InstanceRows, masks: InstanceRows) -> tuple[InstanceRows, IntArray]:
    """Joins the two tables.

    Args:
        boxes: B rows.
        masks: M rows; ``sources`` says which mask each has.

    Returns:
        I objects and (I,) int64 the ``sources`` of their mask rows, -1 without one. Objects are sorted by
        image, class, coordinates (x1, x2, y1, y2) and group-of flag, as the reference's join sorts them:
        where overlaps tie, the first object is the one that a detection tries.
    """
    both = InstanceRows(
        *(
            np.concatenate([getattr(boxes, name), getattr(masks, name)])
            for name in ('images', 'labels', 'boxes', 'group_of', 'sources')
        )
    )
    if not len(both):
        return both, np.zeros(0, dtype=np.int64)
    x1, y1, x2, y2 = both.boxes.T
    keys = (both.images, both.labels, x1, x2, y1, y2, both.group_of)
    order = np.lexsort(keys[::-1])  # stable: within one key box rows come first, in file order
    differs = np.zeros(len(both), dtype=bool)
    for key in keys:
        differs[1:] |= key[order][1:] != key[order][:-1]
    group = np.cumsum(differs)
    is_box = order < len(boxes)
    num_boxes = np.bincount(group, weights=is_box).astype(np.int64)
    num_masks = np.bincount(group, weights=~is_box).astype(np.int64)
    first = np.cumsum(num_boxes + num_masks) - num_boxes - num_masks

    # The objects of a group: its box rows (or one stand-in) times its mask rows (or one stand-in).
    per_box = np.maximum(num_masks, 1)
    num_objects = np.maximum(num_boxes, 1) * per_box
    of_group = np.repeat(np.arange(len(first)), num_objects)
    within = np.arange(len(of_group)) - np.repeat(np.cumsum(num_objects) - num_objects, num_objects)
    box_position = first[of_group] + within // per_box[of_group]
    mask_position = first[of_group] + num_boxes[of_group] + within % per_box[of_group]
    has_mask = num_masks[of_group] > 0
    mask_sources = np.full(len(of_group), -1, dtype=np.int64)
    mask_sources[has_mask] = both.sources[order[mask_position[has_mask]]]
    return both.take(order[box_position]), mask_sources
