"""The join of masks and boxes against the plainest implementation of its definition."""

from __future__ import annotations

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hierseg.converters.open_images_tables import SCHEMAS, join_masks
from hierseg.errors import AnnotationError

TOLERANCE = 0.25
# Eighths, so that distances are exact and ties are frequent.
ROW = st.tuples(st.integers(0, 2), st.integers(0, 1), st.integers(0, 4), st.booleans(), st.sampled_from(['', 'p', 'q']))


def table(rows: list[tuple[int, int, int, bool, str]], name: str) -> pa.Table:
    found = [
        {
            'image_id': str(row[0]),
            'label': row[1],
            'row': at,
            'x1': row[2] / 8,
            'y1': 0,
            'x2': 1,
            'y2': 1,
            'group_of': row[3],
            'box_id': row[4],
            'reference': '',
            'height': 0,
            'width': 0,
        }
        for at, row in enumerate(rows)
    ]
    return pa.Table.from_pylist(found, SCHEMAS[name])


def greedy(boxes: list, masks: list, *, groups: bool) -> list[int]:
    pairs = []
    for m, mask in enumerate(masks):
        for b, box in enumerate(boxes):
            if box[:2] == mask[:2] and (not groups or box[3] == mask[3]):
                same_id = box[4] == mask[4] != ''
                distance = -1 if same_id else abs(box[2] - mask[2]) / 8
                if distance <= TOLERANCE:
                    pairs.append((distance, m, b))
    joined = [-1] * len(masks)
    for _, m, b in sorted(pairs):
        if joined[m] < 0 and b not in joined:
            joined[m] = b
    return joined


@settings(deadline=None)
@given(boxes=st.lists(ROW, max_size=12), masks=st.lists(ROW, max_size=12), groups=st.booleans())
def test_equal_to_the_greedy_join(boxes, masks, groups):
    check(boxes, masks, groups)


@pytest.mark.parametrize('seed', range(10))
def test_in_crowds(seed):
    generator = np.random.default_rng(seed)
    boxes, masks = (
        [
            (*generator.integers(0, 2, 2).tolist(), int(generator.integers(5)), bool(generator.integers(2)), '')
            for _ in range(generator.integers(0, 60))
        ]
        for _ in range(2)
    )
    check(boxes, masks, groups=True)


def check(boxes: list, masks: list, groups: bool) -> None:
    if not groups:
        masks = [(*mask[:3], False, mask[4]) for mask in masks]
    with duckdb.connect(config={'threads': 1}) as database:
        for name, rows in (('boxes', boxes), ('masks', masks)):
            database.from_arrow(table(rows, name)).create(name)
        join_masks(database, has_group_of=groups, tolerance=TOLERANCE)
        box_of_mask = dict(database.execute('SELECT mask, box FROM joined').fetchall())
    assert [box_of_mask.get(mask, -1) for mask in range(len(masks))] == greedy(boxes, masks, groups=groups)


def test_a_crowd_of_equal_boxes_joins_in_the_order_of_the_files():
    rows = [(0, 0, 3, False, '')] * 600
    with duckdb.connect(config={'threads': 1}) as database:
        for name in ('boxes', 'masks'):
            database.from_arrow(table(rows, name)).create(name)
        join_masks(database, has_group_of=False, tolerance=TOLERANCE)
        assert database.execute('SELECT mask, box FROM joined ORDER BY mask').fetchall() == [(i, i) for i in range(600)]


def test_more_pairs_than_a_disk_should_hold_are_refused():
    rows = [(0, 0, 3, False, '')] * 2049
    with duckdb.connect(config={'threads': 1}) as database:
        for name in ('boxes', 'masks'):
            database.from_arrow(table(rows, name)).create(name)
        with pytest.raises(AnnotationError, match=r'has 4,198,401 pairs of a mask and a nearly equal box of one class'):
            join_masks(database, has_group_of=False, tolerance=TOLERANCE)
