"""Options of a synthetic data set, checked; how often each class occurs, from a CSV; the built-in taxonomy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hierseg.errors import ConfigError
from hierseg.formats import FloatArray
from hierseg.formats.csv_tables import read_table
from hierseg.taxonomy import Taxonomy

MIN_SIZE, MAX_SIZE = 64, 4096
SPLIT_NAMES = ('train', 'validation')


@dataclass(frozen=True)
class AnnotationRates:
    """Shares in [0, 1] of what is annotated imperfectly in a split.

    A family of classes is a connected part of the taxonomy, so that a verified class never has unannotated objects
    below it. Classes of fewer than ``RARE`` objects are always annotated.
    """

    coarse: float = 0.15  # of the (image, deeper class) pairs: at an ancestor only, besides what counts ask for
    unannotated: float = 0.2  # of the (image, family) pairs: in the picture, and nobody verified them
    group_of: float = 0.05  # of the objects: a cluster under one group-of box without a mask
    box_only: float = 0.25  # of the other objects: with a box but no mask
    resized_mask: float = 0.1  # of the mask files: of another size than their image
    negatives: int | None = 4  # verified-absent labels per image; None verifies every class on every image

    def __post_init__(self) -> None:
        for name in ('coarse', 'unannotated', 'group_of', 'box_only', 'resized_mask'):
            rate = getattr(self, name)
            if not 0 <= rate <= 1:
                raise ConfigError(f'the {name.replace("_", "-")} rate is {rate}', fix='It is a share from 0 to 1.')
        if self.negatives is not None and self.negatives < 0:
            raise ConfigError(f'{self.negatives} negative labels per image', fix='Ask for 0 or more.')


VALIDATION_RATES = AnnotationRates(coarse=0.0, unannotated=0.0, box_only=0.1, resized_mask=0.0, negatives=None)
"""Validation splits are annotated at the finest class and verified exhaustively, as an evaluation needs."""


@dataclass(frozen=True)
class SplitOptions:
    """One split of a data set.

    Attributes:
        tail_ratio: Objects of the most frequent class per object of the rarest one. With given counts
            it is the most that the counts' own ratio may be; None leaves them as they are.
    """

    name: str  # one of SPLIT_NAMES
    num_images: int
    tail_ratio: float | None
    rates: AnnotationRates

    def __post_init__(self) -> None:
        if self.name not in SPLIT_NAMES:
            raise ConfigError(f'split {self.name!r}', fix=f'It is one of {", ".join(SPLIT_NAMES)}.')
        where = f'{self.name} split'
        if self.num_images < 1:
            raise ConfigError(f'{self.num_images} images', where=where, fix='Ask for at least 1.')
        if self.tail_ratio is not None and not self.tail_ratio >= 1:
            raise ConfigError(f'head to tail {self.tail_ratio} : 1', where=where, fix='The ratio is 1 or more.')


@dataclass(frozen=True)
class SynthesisOptions:
    """A whole data set."""

    splits: tuple[SplitOptions, ...]  # at least one, no two of one name
    seed: int = 0  # everything random follows from it; 0 to 2³² − 1
    size: int = 160  # longest side of the images in pixels; the objects scale with it
    objects_per_image: float = 3.5  # mean number, at least 1

    def __post_init__(self) -> None:
        names = [split.name for split in self.splits]
        if not names or len(set(names)) < len(names):
            raise ConfigError(f'splits {names}', fix='Ask for train, validation or both, each once.')
        if not 0 <= self.seed < 2**32:
            raise ConfigError(f'seed {self.seed}', fix='It is a number from 0 to 4294967295.')
        if not MIN_SIZE <= self.size <= MAX_SIZE:
            fix = f'The longest side is {MIN_SIZE} to {MAX_SIZE} pixels.'
            raise ConfigError(f'images of {self.size} pixels', fix=fix)
        if not 1 <= self.objects_per_image <= 10:
            raise ConfigError(f'{self.objects_per_image} objects per image', fix='The mean is 1 to 10.')


def read_counts(path: Path, taxonomy: Taxonomy) -> FloatArray:
    """Reads objects per class, (C,) float64, from a CSV with the columns ``class`` and ``count``.

    Classes that the file leaves out have 0.

    Raises:
        AnnotationError: If the file is missing, lacks a column, has an unknown class or one twice, or no number.
    """
    table = read_table(path, ['class', 'count'])
    labels, numbers = table.labels('class', taxonomy.ids), table.numbers('count')
    table.refuse(numbers < 0, lambda row: f'count is {numbers[row]:g}', fix='It must be 0 or more.')
    is_repeated = np.ones(len(labels), dtype=bool)
    is_repeated[np.unique(labels, return_index=True)[1]] = False
    table.refuse(is_repeated, lambda row: f'class {taxonomy.ids[labels[row]]} occurs twice', fix='Give it one row.')
    table.check()
    counts = np.zeros(taxonomy.num_classes)
    counts[labels] = numbers
    return counts


# Name → parents, the preferred one first; parents come before their children.
_PARENTS: dict[str, tuple[str, ...]] = {
    'Person': (), 'Man': ('Person',), 'Woman': ('Person',), 'Child': ('Person',),
    'Vehicle': (), 'Car': ('Vehicle',), 'Taxi': ('Car',), 'Van': ('Car',),
    'Bicycle': ('Vehicle',), 'Boat': ('Vehicle',),
    'Toy': (), 'Doll': ('Toy',),
    'Animal': (), 'Bird': ('Animal',), 'Bear': ('Animal',), 'Brown bear': ('Bear',), 'Polar bear': ('Bear',),
    'Teddy bear': ('Toy', 'Bear'),
    'Tree': (), 'Lamp': (), 'Guitar': (), 'Drum': (),
}  # fmt: skip


def default_taxonomy() -> Taxonomy:
    """Twenty-two classes in three levels, with one class under two parents and four childless root classes.

    The identifiers look like Open Images' MIDs and are none of them.
    """
    id_of = {name: f'/m/0syn{index:02d}' for index, name in enumerate(_PARENTS)}
    edges = [(id_of[name], id_of[parent]) for name, parents in _PARENTS.items() for parent in parents]
    return Taxonomy.from_edges(list(id_of.values()), edges, names=list(id_of))


def large_taxonomy() -> Taxonomy:
    """Three hundred classes in the shape of those that Open Images segments, for measurements of its size.

    213 root classes, of which 23 have children; 82 classes below them and 5 below those. Most deeper classes are below
    a few root classes, as Clothing and Animal have most in Open Images.
    """
    roots, children, grandchildren, with_children = 213, 82, 5, 23
    ids = [f'/m/0big{index:03d}' for index in range(roots + children + grandchildren)]
    # Each parent has a child; the others go to the first ones, half of what is left to each.
    parents = list(range(with_children))
    while len(parents) < children:
        parents += [place for place in range(with_children) for _ in range(max(1, 16 >> place))]
    edges = [(ids[roots + child], ids[parent]) for child, parent in enumerate(parents[:children])]
    edges += [(ids[roots + children + index], ids[roots + index]) for index in range(grandchildren)]
    return Taxonomy.from_edges(ids, edges)
