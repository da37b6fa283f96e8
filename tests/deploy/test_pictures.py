"""Pictures as the network takes them, against OpenCV and mmcv."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mmcv import rescale_size

from hierseg.deploy.pictures import batched, fitted_size, interpolated

SIDE = st.integers(1, 200)


@given(height=SIDE, width=SIDE, new_height=SIDE, new_width=SIDE, seed=st.integers(0, 99))
def test_resizing_is_that_of_opencv_to_the_last_bit(
    height: int, width: int, new_height: int, new_width: int, seed: int
) -> None:
    picture = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    expected = cv2.resize(picture, (new_width, new_height), interpolation=cv2.INTER_LINEAR)
    assert np.array_equal(interpolated(picture, new_height, new_width), expected)


@given(height=st.integers(1, 5000), width=st.integers(1, 5000), largest=st.tuples(SIDE, SIDE))
def test_size_is_that_of_mmcv(height: int, width: int, largest: tuple[int, int]) -> None:
    assert fitted_size(height, width, largest) == rescale_size((width, height), largest)[::-1]


def test_a_batch_is_padded_to_whole_strides() -> None:
    pictures = [np.full((30, 50, 3), 7, dtype=np.uint8), np.full((33, 10, 3), 9, dtype=np.uint8)]
    batch = batched(pictures, (1.5, 2.5, 3.5), 32)
    assert batch.shape == (2, 3, 64, 64)
    assert batch[0, :, 29, 49].tolist() == [7, 7, 7]
    assert batch[0, :, 30, 0].tolist() == pytest.approx([1.5, 2.5, 3.5])
    assert batch[1, :, 32, 9].tolist() == [9, 9, 9]
    assert batch[1, :, 0, 10].tolist() == pytest.approx([1.5, 2.5, 3.5])
