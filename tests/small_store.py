"""A store of four small images that has every kind of annotation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from hierseg.store import ImageRow, Instances, StoreWriter
from hierseg.store.checksums import measure_parts, seal
from hierseg.store.tables import measure_table
from hierseg.taxonomy import Taxonomy

# Labels: 0 toy, 1 animal, 2 teddy (a toy and an animal), 3 dog (an animal).
PETS = Taxonomy.from_edges(
    ['/m/toy', '/m/animal', '/m/teddy', '/m/dog'],
    [('/m/teddy', '/m/toy'), ('/m/teddy', '/m/animal'), ('/m/dog', '/m/animal')],
    names=['Toy', 'Animal', 'Teddy bear', 'Dog'],
)


def reseal(store: Path, **changes: Any) -> None:
    """Gives a store that was changed on purpose the checksums that fit, and its ``store.json`` other values."""
    header = json.loads((store / 'store.json').read_text())
    members = {}
    for name in header['members']:
        content = (store / name).read_bytes()
        is_table = name.endswith('.arrow')
        members[name] = measure_table(store / name) if is_table else measure_parts(content, [('head', len(content))])
    header = {key: value for key, value in header.items() if key != 'crc32c'}
    (store / 'store.json').write_bytes(seal({**header, 'members': members, **changes}))


class Prepared(NamedTuple):
    store: Path
    images: Path


def rectangle_mask(height: int, width: int, box: tuple[int, int, int, int]) -> bytes:
    """RLE counts of the filled box; the last row and column are not in it."""
    mask = np.zeros((height, width), dtype=np.uint8, order='F')
    mask[box[1] : box[3], box[0] : box[2]] = 1
    return coco_mask.encode(mask)['counts']


def instances(rows: list[tuple[int, tuple[float, ...], bytes, bool]]) -> Instances:
    """From (label, box, mask, group_of) rows."""
    boxes = np.array([box for _, box, _, _ in rows], dtype=np.float64).reshape(-1, 4)
    return Instances(
        labels=np.array([label for label, _, _, _ in rows], dtype=np.int64),
        boxes=boxes,
        masks=[mask for _, _, mask, _ in rows],
        has_mask=np.array([bool(mask) for _, _, mask, _ in rows], dtype=bool),
        group_of=np.array([group for _, _, _, group in rows], dtype=bool),
        areas=np.prod(boxes[:, 2:] - boxes[:, :2], axis=1),
        annotation_ids=[str(index) for index in range(len(rows))],
    )


@pytest.fixture
def pets(tmp_path: Path) -> Prepared:
    """Images by row.

    0: 40 x 30 pixels; a dog with a mask, a teddy without one, animals as a group.
    1: 40 x 30; verified labels only.
    2: 30 x 40; a group alone.
    3: 20 x 16; a dog with a mask, and one that is half a pixel wide.
    """
    contents = [
        (40, 30, [(3, (4, 5, 14, 15), rectangle_mask(30, 40, (4, 5, 14, 15)), False),
                  (2, (20, 10, 30, 22), b'', False),
                  (1, (0, 0, 40, 30), b'', True)], [2, 3], [0]),
        (40, 30, [], [], [1]),
        (30, 40, [(0, (2, 2, 28, 38), b'', True)], [0], []),
        (20, 16, [(3, (2, 2, 10, 10), rectangle_mask(16, 20, (2, 2, 10, 10)), False),
                  (3, (12, 2, 12.5, 10), b'', False)], [3], []),
    ]  # fmt: skip
    prepared = Prepared(tmp_path / 'store', tmp_path / 'images')
    prepared.images.mkdir()
    with StoreWriter(prepared.store, taxonomy=PETS) as writer:
        for row, (width, height, rows, positive, negative) in enumerate(contents):
            pixels = np.random.default_rng(row).integers(0, 256, (height, width, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(prepared.images / f'{row:016x}.jpg')
            writer.add(
                ImageRow(f'{row:016x}', f'{row:016x}.jpg', width, height),
                instances(rows),
                np.array(positive, dtype=np.int64),
                np.array(negative, dtype=np.int64),
            )
    return prepared
