"""The join of masks and boxes against the plainest implementation of its definition."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hierseg.converters import open_images_tables
from hierseg.converters.open_images_tables import BoxRows, MaskRows, join_masks

TOLERANCE = 0.25
# Eighths, so that distances are exact and ties are frequent.
ROW = st.tuples(st.integers(0, 2), st.integers(0, 1), st.integers(0, 4), st.booleans(), st.sampled_from(['', 'p', 'q']))


def columns(rows: list[tuple[int, int, int, bool, str]]) -> tuple[dict[str, object], np.ndarray]:
    boxes = np.array([[row[2] / 8, 0, 1, 1] for row in rows]).reshape(-1, 4)
    images = np.array([row[0] for row in rows], dtype=np.int64)
    common = {
        'path': Path('x.csv'),
        'rows': np.arange(len(rows)),
        'image_ids': pa.chunked_array([[str(row[0]) for row in rows]], type=pa.string()),
        'labels': np.array([row[1] for row in rows], dtype=np.int64),
        'boxes': boxes,
        'group_of': np.array([row[3] for row in rows], dtype=bool),
        'box_ids': pa.chunked_array([[row[4] for row in rows]], type=pa.string()),
    }
    return common, images


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


@given(boxes=st.lists(ROW, max_size=12), masks=st.lists(ROW, max_size=12), groups=st.booleans())
def test_equal_to_the_greedy_join(boxes, masks, groups):
    check(boxes, masks, groups)


@pytest.mark.parametrize('pairs_at_a_time', [1, 3])
def test_in_small_portions(monkeypatch, pairs_at_a_time):
    monkeypatch.setattr(open_images_tables, 'PAIRS_AT_A_TIME', pairs_at_a_time)
    generator = np.random.default_rng(0)
    for _ in range(30):
        boxes, masks = (
            [
                (*generator.integers(0, 2, 2).tolist(), int(generator.integers(5)), bool(generator.integers(2)), '')
                for _ in range(generator.integers(0, 15))
            ]
            for _ in range(2)
        )
        check(boxes, masks, groups=True)


def check(boxes: list, masks: list, groups: bool) -> None:
    if not groups:
        masks = [(*mask[:3], False, mask[4]) for mask in masks]
    box_columns, box_images = columns(boxes)
    mask_columns, mask_images = columns(masks)
    references = pa.chunked_array([[''] * len(masks)], type=pa.string())
    found = join_masks(
        BoxRows(**box_columns),
        MaskRows(**mask_columns, references=references, sizes=None, has_group_of=groups),
        box_images,
        mask_images,
        num_classes=2,
        tolerance=TOLERANCE,
    )
    assert found.tolist() == greedy(boxes, masks, groups=groups)
