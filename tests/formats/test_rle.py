"""Run lengths: equal to pycocotools on what is right, an error instead of a crash on what is not."""

from __future__ import annotations

import base64
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from hierseg.formats import rle

masks = st.tuples(st.integers(1, 12), st.integers(1, 12)).flatmap(
    lambda size: st.lists(st.booleans(), min_size=size[0] * size[1], max_size=size[0] * size[1]).map(
        lambda bits: np.array(bits, dtype=np.uint8).reshape(size)
    )
)


@given(masks)
def test_equal_to_pycocotools(mask):
    height, width = mask.shape
    expected = coco_mask.encode(np.asfortranarray(mask))['counts']
    assert rle.encode_mask(mask) == expected
    assert rle.encode_mask(mask * 255) == expected
    assert rle.check_counts(expected, height, width) == mask.sum()
    runs = rle.parse_counts(expected)
    # Runs alternate between outside and inside, column by column.
    np.testing.assert_array_equal(np.repeat(np.arange(len(runs)) % 2, runs), mask.T.ravel())
    assert rle.encode_runs(runs.tolist(), height, width) == expected
    np.testing.assert_array_equal(rle.decode_mask(expected, height, width), mask)


@given(st.lists(st.integers(0, 1 << 28), min_size=1, max_size=30))
def test_large_runs(runs):
    # Sizes of no real picture, so that numbers of several characters and both signs of difference occur.
    encoded = coco_mask.frPyObjects({'counts': runs, 'size': [1, sum(runs)]}, 1, sum(runs))['counts']
    if sum(runs) < 1 << 31:
        assert rle.parse_counts(encoded).tolist() == runs


@given(st.binary(max_size=40))
def test_any_bytes_are_parsed_or_refused(counts):
    try:
        runs = rle.parse_counts(counts)
    except rle.MalformedMaskError:
        return
    assert (runs >= 0).all()


GOOD = coco_mask.encode(np.asfortranarray(np.eye(20, dtype=np.uint8)))['counts']


@pytest.mark.parametrize(
    ('counts', 'message'),
    [
        (b'', 'there are no run lengths'),
        (GOOD + b'\x7f', 'none of the run-length alphabet'),
        (GOOD + b' ', 'none of the run-length alphabet'),
        # The diagonal's runs are 0, 1, then 20 outside and 1 inside by turns, 400 in all; the last is 1.
        (GOOD[:-1], r'cover 399 pixels, 20 x 20 \(width x height\) has 400'),
        # '5' is 5: five more than the run two before, which is 20.
        (GOOD + b'5', 'cover 425 pixels'),
        (GOOD + b'P', 'cut off'),  # 'P' is 32: more characters follow
        (b'PPPPPPPP0', 'too many digits'),
        # 'N' is 30: five bits 11110, sign bit set: -2.
        (b'N', 'negative'),
    ],
)
def test_malformed_counts(counts, message):
    with pytest.raises(rle.MalformedMaskError, match=message):
        rle.check_counts(counts, 20, 20)


@pytest.mark.parametrize('runs', [[1, 2], [-1, 5], [2.0, 2], ['4'], [5, -1], [1 << 40]])
def test_malformed_runs(runs):
    with pytest.raises(rle.MalformedMaskError):
        rle.encode_runs(runs, 2, 2)


def test_text_of_the_evaluation_form():
    assert rle.decode_text(base64.b64encode(zlib.compress(GOOD)).decode()) == GOOD


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('not base64!', 'not base64'),
        ('é', 'not base64'),
        ('AAAA', 'not zlib data'),
        ('', 'zlib data is cut off'),
        (base64.b64encode(zlib.compress(GOOD * 50)[:-6]).decode(), 'zlib data is cut off'),
    ],
)
def test_malformed_text(text, message):
    with pytest.raises(rle.MalformedMaskError, match=message):
        rle.decode_text(text)


def test_a_zip_bomb_is_refused(monkeypatch):
    monkeypatch.setattr(rle, 'LARGEST_TEXT', 1000)
    with pytest.raises(rle.MalformedMaskError, match='cut off'):
        rle.decode_text(base64.b64encode(zlib.compress(b'0' * 100_000)).decode())


def test_nearest_neighbour():
    mask = np.array([[0, 1], [1, 0]], dtype=np.uint8)
    np.testing.assert_array_equal(
        rle.resize_nearest(mask, 4, 4), [[0, 0, 1, 1], [0, 0, 1, 1], [1, 1, 0, 0], [1, 1, 0, 0]]
    )
    # Three columns of a row of six: the centres 0.5, 1.5, 2.5 lie at 1, 3, 5 in the source: columns 1, 3, 5.
    row = np.array([[0, 1, 0, 0, 1, 1]], dtype=np.uint8)
    np.testing.assert_array_equal(rle.resize_nearest(row, 1, 3), [[1, 0, 1]])
    # Eight rows become two: centres 0.5 and 1.5 lie at 2 and 6.
    column = np.array([[0, 0, 1, 0, 0, 0, 1, 0]], dtype=np.uint8).T
    np.testing.assert_array_equal(rle.resize_nearest(column, 2, 1), [[1], [1]])
