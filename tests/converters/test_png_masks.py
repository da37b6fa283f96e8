"""Mask PNGs into pixels, of every kind, and damaged ones."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask

from hierseg.converters.open_images_masks import PackedMask, read_mask
from hierseg.errors import AnnotationError
from hierseg.formats.run_lengths import compress_runs, runs_of

MASK = np.random.default_rng(0).random((37, 51)) < 0.4


def encode(mode: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(MASK.astype(np.uint8) * 200).convert(mode, dither=Image.Dither.NONE).save(buffer, 'PNG')
    return buffer.getvalue()


@pytest.mark.parametrize('mode', ['1', 'L', 'P', 'RGB', 'LA', 'I;16'])
def test_every_value_but_black_is_inside(mode, monkeypatch):
    content = encode(mode)
    if mode in ('1', 'L'):  # OpenCV decodes them
        monkeypatch.delattr(Image, 'open')
    mask = read_mask(content)
    assert mask.shape == MASK.shape
    assert mask.pixels().dtype == np.uint8
    np.testing.assert_array_equal(mask.pixels() != 0, MASK)
    assert compress_runs(mask.runs()) == coco_mask.encode(np.asfortranarray(MASK.astype(np.uint8)))['counts']


@pytest.mark.parametrize('filter_type', range(5))
def test_one_bit_with_every_filter_and_bits_behind_the_last_pixel(filter_type):
    # By hand from the PNG specification: a row of 11 pixels takes two bytes; each is stored as its difference to
    # nothing, the byte before, the byte above, their mean, or the Paeth predictor of both and the one above before.
    rows = np.random.default_rng(filter_type).integers(0, 256, (9, 2)).tolist()
    stored = bytearray()
    for at, row in enumerate(rows):
        up = rows[at - 1] if at else [0, 0]
        stored.append(filter_type)
        for x in range(2):
            left, above, corner = (row[0], up[1], up[0]) if x else (0, up[0], 0)
            near = min((left, above, corner), key=lambda value: abs(left + above - corner - value))
            stored.append((row[x] - [0, left, above, (left + above) // 2, near][filter_type]) % 256)
    mask = read_mask(png(11, 9, 1, stored))
    expected = np.unpackbits(np.array(rows, dtype=np.uint8), axis=1)[:, :11]
    np.testing.assert_array_equal(mask.pixels(), expected)
    assert compress_runs(mask.runs()) == coco_mask.encode(np.asfortranarray(expected))['counts']


def png(width: int, height: int, depth: int, rows: bytes, *extra: tuple[bytes, bytes], interlace: int = 0) -> bytes:
    header = struct.pack('>IIBBBBB', width, height, depth, 0, 0, 0, interlace)
    chunks = [(b'IHDR', header), *extra, (b'IDAT', zlib.compress(bytes(rows))), (b'IEND', b'')]
    parts = [struct.pack('>I', len(body)) + name + body for name, body in chunks]
    return b'\x89PNG\r\n\x1a\n' + b''.join(part + struct.pack('>I', zlib.crc32(part[4:])) for part in parts)


def test_what_the_header_trick_does_not_fit_goes_through_pillow():
    # 8 x 1 pixels interlaced: passes of pixel 0, pixel 4, pixels 2 and 6, the odd ones; each begins with its filter.
    interlaced = png(8, 1, 1, b'\0\x80\0\x80\0\x40\0\x90', interlace=1)
    assert read_mask(interlaced).pixels().astype(bool).tolist() == [[1, 1, 0, 0, 1, 0, 1, 1]]
    transparent = png(8, 1, 1, b'\0\xa5', (b'tRNS', b'\0\0'))
    assert read_mask(transparent).pixels().astype(bool).tolist() == [[1, 0, 1, 0, 0, 1, 0, 1]]
    assert read_mask(png(4, 1, 2, b'\0\x1b')).pixels().astype(bool).tolist() == [[0, 1, 1, 1]]


@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_packed_runs_are_those_of_pixels(width, height, seed):
    generator = np.random.default_rng(seed)
    rows = generator.integers(0, 256, (height, -(-width // 8)), dtype=np.uint8)
    rows &= generator.integers(0, 256, rows.shape, dtype=np.uint8)
    mask = PackedMask(rows, width)
    np.testing.assert_array_equal(mask.runs(), runs_of(mask.pixels()))


@pytest.mark.parametrize('mode', ['1', 'L', 'RGB'])
@pytest.mark.parametrize('kept', [0, 10, 30, 100])
def test_a_picture_that_is_cut_off_is_refused(mode, kept):
    with pytest.raises(AnnotationError):
        read_mask(encode(mode)[:kept])


@pytest.mark.parametrize('mode', ['1', 'L'])
def test_every_damaged_byte_is_noticed(mode, capfd):
    content = encode(mode)
    for at in range(8, len(content) - 12, 7):
        damaged = bytearray(content)
        damaged[at] ^= 0x10
        with pytest.raises(AnnotationError):
            read_mask(bytes(damaged))
