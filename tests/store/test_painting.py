"""The 25 % rule on one image and on all at once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hierseg.store import layers


@pytest.mark.parametrize(
    ('box', 'target', 'expected'),
    [
        ((0, 0, 10, 10), (0, 0, 20, 20), False),  # 100 of 400 is 25 %, not more
        ((0, 0, 10.01, 10), (0, 0, 20, 20), True),
        ((5, 5, 6, 6), (0, 0, 1.9, 1.9), False),
        ((0, 0, 10, 10), (-50, 2, 50, 3), False),  # 10 of 100
        ((0, 0, 10, 10), (4, 4, 4, 8), False),  # a target without area
        ((3, 3, 3, 9), (0, 0, 10, 10), False),  # a box without area
    ],
)
def test_covers(box, target, expected):
    assert bool(layers.covers(np.array(box, dtype=float), np.array(target, dtype=float))) is expected


def test_without_targets_nothing_is_spared():
    boxes = np.array([[0.0, 0, 5, 5], [1, 1, 2, 2]])
    assert layers.spared(boxes, np.zeros((0, 4))).tolist() == [False, False]
    assert layers.spared(np.zeros((0, 4)), boxes).tolist() == []


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    counts=st.lists(st.integers(0, 7), min_size=1, max_size=6),
    pairs_at_once=st.sampled_from([1, 5, 1 << 21]),
)
def test_all_images_at_once_equals_each_alone(seed, counts, pairs_at_once):
    generator = np.random.default_rng(seed)
    total = sum(counts)
    boxes = np.sort(generator.uniform(0, 10, (total, 2, 2)), axis=1).reshape(total, 4)
    kinds = generator.integers(0, 3, total)  # 0 may be painted, 1 is a target, 2 is neither
    images = np.repeat(np.arange(len(counts)), counts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layers, 'PAIRS_AT_ONCE', pairs_at_once)
        found = layers.spared_everywhere(boxes, images, kinds == 0, kinds == 1, num_images=len(counts))
    expected = np.zeros(total, dtype=bool)
    for image in range(len(counts)):
        candidates = np.flatnonzero((images == image) & (kinds == 0))
        expected[candidates] = layers.spared(boxes[candidates], boxes[(images == image) & (kinds == 1)])
    assert found.tolist() == expected.tolist()
