"""A taxonomy in which label and layer label differ everywhere, and stores for layer views."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from small_store import instances, rectangle_mask

from hierseg.store import ImageRow, Store, StoreWriter
from hierseg.taxonomy import Taxonomy

CAR, MAN, TOY, BEAR, PERSON, TEDDY, CARNIVORE = range(7)


def layered_taxonomy() -> Taxonomy:
    """Car alone; Person > Man; Carnivore > Bear; Teddy under Toy (preferred) and Bear.

    Layer 0: car 0, toy 1, person 2, carnivore 3. Layer 1: man 0, bear 1, teddy 2.
    """
    return Taxonomy.from_edges(
        ['car', 'man', 'toy', 'bear', 'person', 'teddy', 'carnivore'],
        [('man', 'person'), ('bear', 'carnivore'), ('teddy', 'toy'), ('teddy', 'bear')],
        names=['Car', 'Man', 'Toy', 'Bear', 'Person', 'Teddy bear', 'Carnivore'],
    )


class Row(NamedTuple):
    """An instance; ``mask`` fills its box."""

    label: int
    box: tuple[float, float, float, float]
    mask: bool = False
    group_of: bool = False


class Picture(NamedTuple):
    """An image of 100 x 100 pixels."""

    id: str
    rows: Sequence[Row] = ()
    positive: Sequence[int] = ()
    negative: Sequence[int] = ()
    not_exhaustive: Sequence[int] = ()


def write_store(path: Path, pictures: Sequence[Picture], *, taxonomy: Taxonomy | None = None) -> Store:
    """Writes and opens a store."""
    with StoreWriter(path, taxonomy=taxonomy or layered_taxonomy()) as writer:
        for picture in pictures:
            rows: list[Any] = []
            for row in picture.rows:
                mask = rectangle_mask(100, 100, tuple(map(int, row.box))) if row.mask else b''
                rows.append((row.label, row.box, mask, row.group_of))
            image = ImageRow(picture.id, f'{picture.id}.png', 100, 100)
            verified = np.array(picture.positive, int), np.array(picture.negative, int)
            writer.add(image, instances(rows), *verified, not_exhaustive=picture.not_exhaustive)
    return Store.open(path)
