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
    everything, nothing = np.ones(2, dtype=bool), np.zeros(2, dtype=bool)
    image = np.zeros(2, dtype=int)
    assert layers.spared(boxes, image, everything, nothing).tolist() == [False, False]
    assert layers.spared(boxes, image, nothing, everything).tolist() == [False, False]
    assert layers.spared(boxes[:0], image[:0], nothing[:0], nothing[:0]).tolist() == []


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    counts=st.lists(st.integers(0, 7), min_size=1, max_size=6),
    pairs_at_once=st.sampled_from([1, 5, 1 << 21]),
)
def test_all_images_at_once_equals_every_pair_alone(seed, counts, pairs_at_once):
    generator = np.random.default_rng(seed)
    total = sum(counts)
    boxes = np.sort(generator.uniform(0, 10, (total, 2, 2)), axis=1).reshape(total, 4)
    kinds = generator.integers(0, 3, total)  # 0 may be painted, 1 is a target, 2 is neither
    images = np.repeat(np.arange(len(counts)), counts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layers, 'PAIRS_AT_ONCE', pairs_at_once)
        found = layers.spared(boxes, images, kinds == 0, kinds == 1)
    expected = [
        kinds[one] == 0
        and any(
            layers.covers(boxes[one], boxes[other])
            for other in range(total)
            if images[other] == images[one] and kinds[other] == 1
        )
        for one in range(total)
    ]
    assert found.tolist() == expected
