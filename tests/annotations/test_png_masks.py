"""Mask PNGs into pixels, of every kind, and damaged ones."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from hierseg.annotations.png_masks import read_mask

MASK = np.random.default_rng(0).random((37, 51)) < 0.4


def encode(mode: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(MASK.astype(np.uint8) * 200).convert(mode, dither=Image.Dither.NONE).save(buffer, 'PNG')
    return buffer.getvalue()


@pytest.mark.parametrize('mode', ['1', 'L', 'P', 'RGB', 'LA', 'I;16'])
def test_every_value_but_black_is_inside(mode):
    mask = read_mask(encode(mode))
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask != 0, MASK)


@pytest.mark.parametrize('mode', ['1', 'L', 'RGB'])
@pytest.mark.parametrize('kept', [0, 10, 30, 100])
def test_a_picture_that_is_cut_off_is_refused(mode, kept):
    with pytest.raises((OSError, SyntaxError)):
        read_mask(encode(mode)[:kept])


@pytest.mark.parametrize('mode', ['1', 'L'])
def test_a_damaged_picture_is_refused(mode):
    content = bytearray(encode(mode))
    content[len(content) // 2] ^= 0x10
    with pytest.raises((OSError, SyntaxError)):
        read_mask(bytes(content))
