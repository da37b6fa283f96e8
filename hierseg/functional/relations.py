"""Relations of a taxonomy's classes as tensors that are looked up by label.

Shape letters: N labels, C classes, K (class, strict ancestor) pairs, A the most classes at or above one, L the longest
preferred path, R root classes, V leaves. Row and column C are background. A matrix of C × C would take gigabytes for
thousands of classes, so rows are lists, and only those of the labels at hand become rows of a matrix.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hierseg.taxonomy import TaxonomyArrays

BLOCK = 2**19
"""Numbers in a block of rows on a CPU: what is done to a block in turn finds it in the cache."""

WIDEST_FAMILY = 32
"""Families of up to this size share one table, larger ones one with others of up to twice their size."""


@dataclass(frozen=True, eq=False)
class Rows:
    """A set of classes for each label.

    Attributes:
        starts: (C + 2,) int64; the set of label y stands from ``starts[y]`` to before ``starts[y + 1]``.
        members: int64, ascending in each set.
    """

    starts: Tensor
    members: Tensor

    @classmethod
    def of(cls, starts: npt.NDArray[np.int64], members: npt.NDArray[np.int64]) -> Rows:
        """Sets of the C classes, whose (C + 1,) starts and members these are; background gets itself."""
        background = len(starts) - 1
        return cls(
            torch.from_numpy(np.append(starts, len(members) + 1)), torch.from_numpy(np.append(members, background))
        )

    def places(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Row in (N,) ``labels`` and place in ``members`` of every member of the labels' sets, row by row."""
        last = self.starts.index_select(0, labels + 1)
        ends = (last - self.starts.index_select(0, labels)).cumsum(0)
        places = torch.arange(int(ends[-1]) if len(ends) else 0, device=labels.device)
        # repeat_interleave says the same and takes five times as long.
        rows = torch.searchsorted(ends, places, right=True)
        return rows, places + (last - ends).index_select(0, rows)

    def mask(self, labels: Tensor) -> Tensor:
        """(N, C + 1) bool; whether a class is in the label's set."""
        rows, places = self.places(labels)
        width = len(self.starts) - 1
        mask = torch.zeros(len(labels) * width, dtype=torch.bool, device=labels.device)
        return mask.index_fill_(0, rows * width + self.members.index_select(0, places), True).view(-1, width)

    def to(self, device: torch.device) -> Rows:
        """The same on a device."""
        return Rows(self.starts.to(device), self.members.to(device))


@dataclass(frozen=True, eq=False)
class Relations:
    """Tables of a taxonomy; all int64 unless said so.

    Attributes:
        ancestor_pairs: (2, K); class and strict ancestor.
        root_pairs: (2, at least C); class and the place in ``root_classes`` of one that is at or above it.
        ancestors: (C + 1, A); each label and its ancestors by every path, background none; filled up with −1.
        ancestor_steps: (C + 1, A); the fewest edges up to each of these.
        below: Each label and its descendants, background alone.
        below_steps: Edges, as ``ancestor_steps``, for each of the members of ``below``.
        compatible: What an object labelled y may be: the classes at or above some class at or below y. In a tree
            these are y, its ancestors and its descendants.
        internal: (C + 1,) bool; whether there are classes below.
        depths: (C,); edges from a root class by the longest path.
        steps_to_virtual_root: (C,); the fewest edges, 1 for root classes.
        preferred_paths: (C + 1, L); root class … label by preferred parents, filled up with the label.
        sibling_groups: (C + 1,); 0 for the root classes and background, one number for the children of each class
            that is somebody's preferred parent.
        families: From the deepest parents up, parents of one height, each above its children: (most children + 1,
            parents), filled up with the parent.
        root_classes: (R,).
        leaves: (V,).
        num_sibling_groups: How many there are.
        longest_distance: The most edges between two classes, by a common ancestor or the virtual root; at least 1.
    """

    ancestor_pairs: Tensor
    root_pairs: Tensor
    ancestors: Tensor
    ancestor_steps: Tensor
    below: Rows
    below_steps: Tensor
    compatible: Rows
    internal: Tensor
    depths: Tensor
    steps_to_virtual_root: Tensor
    preferred_paths: Tensor
    sibling_groups: Tensor
    families: tuple[Tensor, ...]
    root_classes: Tensor
    leaves: Tensor
    num_sibling_groups: int
    longest_distance: int

    @classmethod
    def of(cls, arrays: TaxonomyArrays) -> Relations:
        """The tables, on the CPU."""
        numbers, groups = np.unique(np.append(arrays.preferred_parents, -1), return_inverse=True)
        starts, at_or_below, below_steps = arrays.rows_below
        roots = np.flatnonzero(arrays.preferred_parents < 0)
        has_root = arrays.preferred_parents[arrays.at_or_above] < 0
        root_pairs = np.stack([arrays.classes, np.searchsorted(roots, arrays.at_or_above)])[:, has_root]
        return cls(
            ancestor_pairs=torch.from_numpy(arrays.ancestor_pairs.copy()),
            root_pairs=torch.from_numpy(root_pairs),
            ancestors=_padded(arrays.starts, arrays.at_or_above),
            ancestor_steps=_padded(arrays.starts, arrays.steps),
            below=Rows.of(starts, at_or_below),
            below_steps=torch.from_numpy(np.append(below_steps, 0).astype(np.int64)),
            compatible=_compatible(arrays),
            internal=torch.from_numpy(np.append(~arrays.is_leaf, False)),
            depths=torch.from_numpy(arrays.depths.copy()),
            steps_to_virtual_root=torch.from_numpy(arrays.steps_to_virtual_root.copy()),
            preferred_paths=_preferred_paths(arrays),
            sibling_groups=torch.from_numpy(groups.astype(np.int64)),
            families=_families(arrays),
            root_classes=torch.from_numpy(roots),
            leaves=torch.from_numpy(np.flatnonzero(arrays.is_leaf)),
            num_sibling_groups=len(numbers),
            longest_distance=max(arrays.longest_distance, 1),
        )

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.depths)

    @property
    def device(self) -> torch.device:
        """Where the tables lie."""
        return self.depths.device

    def to(self, device: torch.device) -> Relations:
        """The same on a device; itself where it already is there."""
        if self.device == device:
            return self
        tables = vars(self).items()
        moved: dict[str, Any] = {name: value.to(device) for name, value in tables if isinstance(value, Tensor | Rows)}
        return replace(self, **moved, families=tuple(family.to(device) for family in self.families))

    def above_mask(self, labels: Tensor) -> Tensor:
        """(N, C + 1) bool; whether a class is at or above the label, background above itself alone."""
        above = self.ancestors[labels]
        mask = torch.zeros(len(labels), self.num_classes + 1, dtype=torch.bool, device=labels.device)
        return mask.scatter_(1, torch.where(above < 0, labels[:, None], above), True)

    def is_below(self, classes: Tensor, labels: Tensor) -> Tensor:
        """(N,) bool; whether the class is the label or below it, background below itself alone."""
        return (classes == labels) | (self.ancestors[classes] == labels[:, None]).any(dim=1)

    def distances_from(self, labels: Tensor) -> Tensor:
        """(N, C) int64 edges from (N,) classes: up to a common ancestor, or the virtual root, and down again."""
        climb = self.steps_to_virtual_root
        rows, columns = (self.ancestors[labels] >= 0).nonzero(as_tuple=True)
        pairs, places = self.below.places(self.ancestors[labels][rows, columns])
        edges = self.ancestor_steps[labels][rows, columns][pairs] + self.below_steps[places]
        distances = (climb[labels][:, None] + climb).view(-1)
        targets = rows[pairs] * self.num_classes + self.below.members[places]
        return distances.scatter_reduce_(0, targets, edges, 'amin').view(-1, self.num_classes)

    @cached_property
    def steps(self) -> tuple[tuple[Tensor, Tensor, Tensor | None], ...]:
        """Classes, ancestors and factors by which columns become sums over paths, one step after the other.

        Up to one ancestor a class on average, all pairs are one step. Where paths are longer, a class takes its
        parents' sums instead of its ancestors' columns, depth by depth: S(v) = θ(v) − Σ_a μ(v, a) S(a) with the factors
        of :attr:`inclusion`, which for a class with one parent is θ(v) + S(parent). No factors means that all are one.
        """
        if self.ancestor_pairs.shape[1] <= self.num_classes:
            return ((self.ancestor_pairs[0], self.ancestor_pairs[1], None),)
        classes, ancestors, factors = self.inclusion
        depths = self.depths[classes].masked_fill(classes == ancestors, 0)
        steps = []
        for depth in range(1, int(self.depths.max()) + 1):
            places = (depths == depth).nonzero().squeeze(1)
            places = places[classes[places].argsort(stable=True)]
            weights = -factors[places]
            steps.append((classes[places], ancestors[places], None if (weights == 1).all() else weights))
        return tuple(steps)

    @cached_property
    def inclusion(self) -> tuple[Tensor, Tensor, Tensor]:
        """Factors of inclusion and exclusion: the inverse of the ancestor mask, or Möbius function of the taxonomy.

        Triples of class u, class v at or above it, and the factor with which the probability of u counts in the mass
        of v: 1 for v itself, −1 for its children, and what corrects for classes that several of them share. On a
        tree it ends with the children.
        """
        factors: list[dict[int, int]] = [{label: 1} for label in range(self.num_classes)]
        starts, members = self.below.starts.tolist(), self.below.members.tolist()
        # Depth by the longest path: everything below a class comes before it.
        for label in self.depths.argsort(descending=True).tolist():
            own = factors[label]
            for below in members[starts[label] : starts[label + 1]]:
                for other, factor in factors[below].items() if below != label else ():
                    own[other] = own.get(other, 0) - factor
        found = [(u, v, factor) for v, own in enumerate(factors) for u, factor in own.items() if factor]
        sources, targets, weights = torch.tensor(found, device=self.device).unbind(1)
        return sources, targets, weights.float()


def row_blocks(values: Tensor) -> list[slice]:
    """Rows of (N, …) values in blocks that a CPU's cache holds; all in one where it is another device."""
    count = max(BLOCK // max(values.shape[1], 1), 1) if values.device.type == 'cpu' else max(len(values), 1)
    return [slice(first, first + count) for first in range(0, max(len(values), 1), count)]


def sums_above(values: Tensor, relations: Relations) -> Tensor:
    """Each class's column of (N, C) or (N, C + 1) values plus those of its ancestors; background stays as it is."""
    return _Sums.apply(values, relations, False)  # type: ignore[no-any-return, no-untyped-call]


def sums_below(values: Tensor, relations: Relations) -> Tensor:
    """Each class's column plus those of its descendants, arguments as of :func:`sums_above`."""
    return _Sums.apply(values, relations, True)  # type: ignore[no-any-return, no-untyped-call]


def add_sums_(values: Tensor, relations: Relations, *, below: bool) -> Tensor:
    """:func:`sums_below` or :func:`sums_above` in place, for values that autograd does not follow."""
    for classes, ancestors, factors in reversed(relations.steps) if below else relations.steps:
        sources, targets = (classes, ancestors) if below else (ancestors, classes)
        for block in row_blocks(values):
            rows = values[block]
            terms = rows.index_select(1, sources)
            if factors is not None:
                terms *= factors.to(terms.dtype)
            # On a CPU it is a little faster than index_add_, which does the same.
            rows.scatter_add_(1, targets.expand(len(rows), -1), terms)
    return values


class _Sums(torch.autograd.Function):
    """The gradient of sums above are sums below, which autograd would find by way of two more such tensors."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, relations: Relations, below: bool) -> Tensor:
        ctx.relations, ctx.below = relations, below
        return add_sums_(values.clone(), relations, below=below)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return (sums_above if ctx.below else sums_below)(gradient, ctx.relations), None, None


def max_at_or_below(values: Tensor, relations: Relations) -> Tensor:
    """The largest of (N, C) values at or below each class; its gradient goes to the one class that has it.

    Climbs from the deepest parents, so that it costs one look at every edge instead of at every pair of a class
    and an ancestor.
    """
    return _MaxAtOrBelow.apply(values, relations.families)  # type: ignore[no-any-return, no-untyped-call]


class _MaxAtOrBelow(torch.autograd.Function):
    """Remembers for each parent which member of its family won, and sends its gradient there."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, families: tuple[Tensor, ...]) -> Tensor:
        best, winners = values.clone(), []
        for family in families:
            members = best.index_select(1, family.flatten()).view(len(values), *family.shape)
            top, position = members.max(dim=1)
            best[:, family[0]] = top
            winners.append(family.gather(0, position))
        ctx.families = families
        ctx.save_for_backward(*winners)
        return best

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        gradient = gradient.clone()
        for family, winner in zip(reversed(ctx.families), reversed(ctx.saved_tensors), strict=True):
            parents = gradient.index_select(1, family[0])
            gradient.index_fill_(1, family[0], 0).scatter_add_(1, winner, parents)
        return gradient, None


def min_at_or_above(values: Tensor, relations: Relations) -> Tensor:
    """The smallest of (N, C) values at or above each class, by any path."""
    for classes, ancestors, _ in relations.steps:
        index = classes.expand(len(values), -1)
        values = values.scatter_reduce(1, index, values.index_select(1, ancestors), 'amin')
    return values


def _padded(starts: npt.NDArray[np.int64], values: npt.NDArray[Any]) -> Tensor:
    """Rows of equal length, filled up with −1, and one for background that has nothing else."""
    lengths = np.diff(starts)
    padded = np.full((len(lengths) + 1, lengths.max()), -1, dtype=np.int64)
    padded[:-1][np.arange(lengths.max()) < lengths[:, None]] = values
    return torch.from_numpy(padded)


def _compatible(arrays: TaxonomyArrays) -> Rows:
    starts, at_or_below, _ = arrays.rows_below
    labels = np.arange(len(arrays.depths))
    # Each class at or below a label brings all that is at or above it.
    lengths = np.diff(arrays.starts)[at_or_below]
    places = np.arange(lengths.sum()) + np.repeat(arrays.starts[at_or_below] - np.cumsum(lengths) + lengths, lengths)
    rows = np.repeat(np.repeat(labels, np.diff(starts)), lengths)
    keys = np.unique(rows * len(labels) + arrays.at_or_above[places])
    return Rows.of(np.searchsorted(keys, np.arange(len(labels) + 1) * len(labels)), keys % len(labels))


def _preferred_paths(arrays: TaxonomyArrays) -> Tensor:
    parents, paths = arrays.preferred_parents.tolist(), []
    for label in range(len(parents)):
        path = [label]
        while parents[path[-1]] >= 0:
            path.append(parents[path[-1]])
        paths.append(path[::-1])
    paths.append([len(parents)])
    longest = max(map(len, paths))
    return torch.tensor([[*path, *path[-1:] * (longest - len(path))] for path in paths])


def _families(arrays: TaxonomyArrays) -> tuple[Tensor, ...]:
    starts, at_or_below, steps = arrays.rows_below
    families = []
    for height in range(1, arrays.heights.max() + 1):
        rows = []
        for parent in np.flatnonzero(arrays.heights == height):
            row = slice(starts[parent], starts[parent + 1])
            rows.append([int(parent), *at_or_below[row][steps[row] == 1].tolist()])
        # Filling up wastes little memory: beyond the first, the longest of a table is at most twice the shortest.
        longest = WIDEST_FAMILY
        while rows:
            part, rows = [row for row in rows if len(row) <= longest], [row for row in rows if len(row) > longest]
            longest *= 2
            if part:
                most = max(map(len, part))
                families.append(torch.tensor([[*row, *row[:1] * (most - len(row))] for row in part]).T.contiguous())
    return tuple(families)
