"""Masks as pieces are those of mmdet, whatever is done with them."""

from __future__ import annotations

import pickle

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from mmdet.structures.mask import BitmapMasks

from hierseg.datasets.pieces import PieceMasks

HEIGHT, WIDTH = 5, 7
planes = arrays.arrays(
    np.uint8, st.tuples(st.integers(0, 3), st.just(HEIGHT), st.just(WIDTH)), elements=st.integers(0, 1)
)


def both(masks: np.ndarray) -> tuple[PieceMasks, BitmapMasks]:
    theirs = BitmapMasks(masks, HEIGHT, WIDTH)
    return PieceMasks.of(theirs), theirs


def assert_same(found: BitmapMasks, expected: BitmapMasks) -> None:
    assert (len(found), found.height, found.width) == (len(expected), expected.height, expected.width)
    np.testing.assert_array_equal(found.masks, expected.masks)


@given(planes, st.sampled_from(['horizontal', 'vertical', 'diagonal']), st.data())
def test_whatever_is_done(masks: np.ndarray, direction: str, data: st.DataObject) -> None:
    ours, theirs = both(masks)
    assert_same(ours, theirs)
    assert [piece.is_known for piece in ours.pieces] == [bool(mask.any()) for mask in masks]
    assert_same(ours.flip(direction), theirs.flip(direction))
    assert_same(ours.pad((8, 9)), theirs.pad((8, 9)))
    chosen = np.array(data.draw(st.lists(st.booleans(), min_size=len(masks), max_size=len(masks))), dtype=bool)
    assert_same(ours[chosen], theirs[chosen])
    assert_same(ours[chosen.nonzero()[0]].flip(direction).pad((9, 9)), theirs[chosen].flip(direction).pad((9, 9)))
    assert_same(pickle.loads(pickle.dumps(ours)), theirs)
    # What is not their own they do with planes.
    assert_same(ours.resize((10, 14)), theirs.resize((10, 14)))
    assert_same(ours.pad((8, 9), 1), theirs.pad((8, 9), 1))
    assert (ours.to_tensor(bool, 'cpu') == theirs.to_tensor(bool, 'cpu')).all()


def test_a_worker_sends_the_object_alone() -> None:
    masks = np.zeros((1, 640, 640), dtype=np.uint8)
    masks[0, 100:110, 200:220] = 1
    # 200 pixels, and what says where they lie.
    assert 200 < len(pickle.dumps(PieceMasks.of(BitmapMasks(masks, 640, 640)))) < 700
