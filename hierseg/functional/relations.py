"""What the losses ask of a taxonomy, as tensors that are looked up by label.

Shape letters: C classes, K (class, strict ancestor) pairs, D the most classes at or below one class, A the most
classes at or above one, L the longest preferred path, R root classes, V leaves. Rows and columns C are background.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hierseg.taxonomy import Taxonomy


@dataclass(frozen=True, eq=False)
class Relations:
    """Tables of a taxonomy; all int64 unless said so.

    Attributes:
        ancestor_pairs: (2, K); class and strict ancestor.
        descendants: (C + 1, D); each label and its descendants, background alone; filled up with −1.
        ancestors: (C + 1, A); each label and its ancestors by every path, background none; filled up with −1.
        below: (C + 1, C + 1) bool; ``[y, u]`` says that u is y or below it.
        above: (C + 1, C + 1) bool; ``[y, a]`` says that a is y or above it.
        compatible: (C + 1, C + 1) bool; ``[y, v]`` says that an object labelled y may be a v: v is at or above
            some class at or below y. In a tree these are y, its ancestors and its descendants.
        internal: (C + 1,) bool; whether there are classes below.
        preferred_paths: (C + 1, L); root class … label by preferred parents, filled up with the label.
        sibling_groups: (C + 1,); 0 for the root classes and background, one number for the children of each class
            that is somebody's preferred parent.
        distances: (C + 1, C + 1) float32; ``TaxonomyArrays.distances`` over the largest of them; background is
            infinitely far from all classes.
        families: From the deepest parents up, the parents of one height, each above its children: (most children +
            1, parents), filled up with the parent.
        root_classes: (R,).
        leaves: (V,).
        num_sibling_groups: How many there are.
    """

    ancestor_pairs: Tensor
    descendants: Tensor
    ancestors: Tensor
    below: Tensor
    above: Tensor
    compatible: Tensor
    internal: Tensor
    preferred_paths: Tensor
    sibling_groups: Tensor
    distances: Tensor
    families: tuple[Tensor, ...]
    root_classes: Tensor
    leaves: Tensor
    num_sibling_groups: int

    @classmethod
    def of(cls, taxonomy: Taxonomy) -> Relations:
        """The tables of a taxonomy, on the CPU."""
        arrays = taxonomy.arrays
        above = np.pad(arrays.ancestor_mask, (0, 1))
        above[-1, -1] = True
        below = above.T
        distances = np.full(above.shape, np.inf, dtype=np.float32)
        distances[:-1, :-1] = arrays.distances / max(arrays.distances.max(), 1)
        distances[-1, -1] = 0
        parents = [0 if not parents else parents[0] + 1 for parents in taxonomy.parents]
        numbers, groups = np.unique([*parents, 0], return_inverse=True)
        ancestors = [np.flatnonzero(row) for row in arrays.ancestor_mask]
        return cls(
            ancestor_pairs=torch.from_numpy(arrays.ancestor_pairs.copy()),
            descendants=_padded([np.flatnonzero(row) for row in below]),
            ancestors=_padded([*ancestors, np.empty(0, dtype=np.int64)]),
            below=torch.from_numpy(below.copy()),
            above=torch.from_numpy(above),
            compatible=torch.from_numpy(np.stack([above[row].any(axis=0) for row in below])),
            internal=torch.from_numpy(below.sum(axis=1) > 1),
            preferred_paths=_preferred_paths(taxonomy),
            sibling_groups=torch.from_numpy(groups.astype(np.int64)),
            distances=torch.from_numpy(distances),
            families=_families(taxonomy),
            root_classes=torch.tensor(taxonomy.root_classes),
            leaves=torch.tensor(taxonomy.leaves),
            num_sibling_groups=len(numbers),
        )

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.below) - 1

    def to(self, device: torch.device) -> Relations:
        """The same on a device; itself where it already is there."""
        if self.below.device == device:
            return self
        moved: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, tuple):
                value = tuple(part.to(device) for part in value)
            moved[field.name] = value.to(device) if isinstance(value, Tensor) else value
        return Relations(**moved)


def max_at_or_below(values: Tensor, relations: Relations) -> Tensor:
    """The largest value at or below each class; its gradient goes to the one class that has it.

    Climbs from the deepest parents, so that it costs one look at every edge instead of at every pair of a class
    and an ancestor.

    Args:
        values: (N, C).
        relations: Of the taxonomy.
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
    """The smallest value at or above each class, by any path.

    Args:
        values: (N, C).
        relations: Of the taxonomy.
    """
    classes, ancestors = relations.ancestor_pairs
    index = classes.expand(len(values), -1)
    return values.scatter_reduce(1, index, values.index_select(1, ancestors), 'amin')


def _padded(rows: list[npt.NDArray[np.int64]]) -> Tensor:
    padded = np.full((len(rows), max(map(len, rows))), -1, dtype=np.int64)
    for label, row in enumerate(rows):
        padded[label, : len(row)] = row
    return torch.from_numpy(padded)


def _preferred_paths(taxonomy: Taxonomy) -> Tensor:
    paths = [taxonomy.preferred_path(label) for label in range(taxonomy.num_classes)] + [(taxonomy.num_classes,)]
    longest = max(map(len, paths))
    return torch.tensor([[*path, *path[-1:] * (longest - len(path))] for path in paths])


def _families(taxonomy: Taxonomy) -> tuple[Tensor, ...]:
    heights = [0] * taxonomy.num_classes
    # Depth by the longest path: every child comes before its parents.
    for label in np.argsort(-taxonomy.arrays.depths, kind='stable'):
        for parent in taxonomy.parents[label]:
            heights[parent] = max(heights[parent], heights[label] + 1)
    families = []
    for height in range(1, max(heights) + 1):
        parents = [label for label in range(taxonomy.num_classes) if heights[label] == height]
        most = max(len(taxonomy.children[parent]) for parent in parents)
        rows = [[parent, *taxonomy.children[parent]] for parent in parents]
        families.append(torch.tensor([[*row, *row[:1] * (most + 1 - len(row))] for row in rows]).T.contiguous())
    return tuple(families)
