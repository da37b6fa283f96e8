"""Checks COCO run lengths and measures them, many masks at a time, before pycocotools touches them.

pycocotools reads past the end of truncated run lengths and believes any total, so whatever comes from
a file passes here first. Shape letters: R masks.

The format: run lengths of background and foreground in turn, column by column, each written as a
little-endian number in 5-bit digits (bit 6 says that more follow, the top bit of the last digit is
the sign), the fourth and later ones as the difference to the run two before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from hierseg.errors import EvaluationError
from hierseg.metrics.records import BoolArray, IntArray

_CHUNK_BYTES = 1 << 16  # keeps a chunk's arrays in the cache
_MAX_DIGITS = 8  # 40 bits are beyond any image
_MORE = 0x20  # the bit of a digit that another follows
_LAST_DIGIT = np.arange(32, dtype=np.int32) - 32 * (np.arange(32, dtype=np.int32) >> 4)
"""Value of a number's last digit: five bits with a sign."""


@dataclass(frozen=True, eq=False)
class Measures:
    """Measures of R masks.

    Attributes:
        areas: (R,) int64, foreground pixels.
        boxes: (R, 4) int64 tight xyxy boxes in pixels, ends exclusive; zeros for a mask without foreground.
        irregular: (R,) bool; a run other than the first is empty. Valid, but pycocotools compares such
            masks wrongly: see :func:`regular`.
    """

    areas: IntArray
    boxes: IntArray
    irregular: BoolArray


def measure(
    masks: Sequence[bytes], heights: IntArray, widths: IntArray, *, where: Callable[[int], str] = 'mask {}'.format
) -> Measures:
    """Checks and measures run lengths.

    Args:
        masks: R compressed run lengths; none may be ``b''``.
        heights: (R,) int64, pixels.
        widths: (R,) int64, pixels.
        where: Says of the index of a mask where it comes from.

    Raises:
        EvaluationError: If run lengths are malformed or do not cover height × width pixels.
    """
    areas, irregular = np.zeros(len(masks), dtype=np.int64), np.zeros(len(masks), dtype=bool)
    boxes = np.zeros((len(masks), 4), dtype=np.int64)
    lengths = np.fromiter(map(len, masks), dtype=np.int64, count=len(masks))
    bad = len(masks)
    for part in _chunks(lengths, heights):
        text = b''.join([masks[index] for index in part.tolist()])
        digits: npt.NDArray[np.uint8] = np.frombuffer(text, dtype=np.uint8) - np.uint8(48)
        wrong = _malformed(digits, lengths[part])
        if wrong < 0:
            num_pixels = heights[part] * widths[part]
            runs = _decode(digits, lengths[part], num_pixels)
            wrong = _impossible(runs, num_pixels)
        if wrong < 0:
            areas[part], boxes[part], irregular[part] = _measure(runs, num_pixels, int(heights[part[0]]))
        else:
            bad = min(bad, int(part[wrong]))
    if bad < len(masks):
        raise EvaluationError(
            f'the mask is not made of valid COCO run lengths for {widths[bad]}×{heights[bad]} pixels',
            where=where(bad),
            fix='A mask is base64(zlib(COCO compressed RLE counts)) at the size that its row or image states.',
        )
    return Measures(areas, boxes, irregular)


def regular(mask: bytes, size: tuple[int, int]) -> bytes:
    """The same mask without empty runs. Only for run lengths that passed :func:`measure`.

    Args:
        mask: Compressed run lengths.
        size: Height and width.
    """
    pixels = coco_mask.decode({'size': list(size), 'counts': mask})
    return bytes(coco_mask.encode(np.asfortranarray(pixels))['counts'])


@dataclass(frozen=True, eq=False)
class _Runs:
    """All runs of R masks in pairs, one of background and one of foreground: P pairs, mask after mask.

    A mask that ends with background gets an empty foreground run behind it, so that the pairs of all masks lie alike.

    Attributes:
        background: (P,) int32, or int64 where that is too narrow.
        foreground: (P,) likewise.
        first: (R,) int64; the first pair of each mask.
        num_pairs: (R,) int64.
        padded: (R,) bool; masks with such an empty run.
        overlong: (R,) bool; masks with a number that no image needs.
    """

    background: npt.NDArray[np.integer[Any]]
    foreground: npt.NDArray[np.integer[Any]]
    first: IntArray
    num_pairs: IntArray
    padded: BoolArray
    overlong: BoolArray


def _chunks(lengths: IntArray, heights: IntArray) -> Iterator[IntArray]:
    """Indices of masks of one height, of some ten thousand bytes together."""
    order = np.argsort(heights, kind='stable')
    size = np.cumsum(lengths[order]) // _CHUNK_BYTES
    cuts = (np.diff(heights[order]) != 0) | (np.diff(size) != 0)
    if len(order):
        yield from np.split(order, np.flatnonzero(cuts) + 1)


def _malformed(digits: npt.NDArray[np.uint8], lengths: IntArray) -> int:
    """Index of the first mask that is empty, has a foreign character or ends within a number; else -1."""
    bad = lengths == 0
    last = np.cumsum(lengths) - 1
    bad[~bad] |= (digits[last[~bad]] & 0x20) != 0
    foreign = np.flatnonzero(digits >= 64)
    bad[np.searchsorted(last, foreign)] = True
    return int(bad.argmax()) if bad.any() else -1


def _decode(digits: npt.NDArray[np.uint8], lengths: IntArray, num_pixels: IntArray) -> _Runs:
    """The runs of masks whose digits are well-formed."""
    ends = np.flatnonzero(digits < _MORE)
    num_digits = np.diff(ends, prepend=-1)
    # Six digits hold 2**29: a sum of such differences turns negative before it can wrap around.
    narrow = int(num_digits.max()) <= 6 and int(num_pixels.sum()) < 1 << 29
    values = np.take(_LAST_DIGIT if narrow else _LAST_DIGIT.astype(np.int64), digits[ends])
    several = np.flatnonzero(num_digits > 1)
    if len(several):
        values[several] = _several_digits(digits, ends[several], num_digits[several], values[several])

    run_ends = np.searchsorted(ends, np.cumsum(lengths))
    num_runs = np.diff(run_ends, prepend=0)
    overlong = np.zeros(len(lengths), dtype=bool)
    overlong[np.searchsorted(run_ends, np.flatnonzero(num_digits > _MAX_DIGITS), side='right')] = True
    padded = num_runs % 2 == 1
    values = np.insert(values, run_ends[padded], 0)
    num_pairs = (num_runs + 1) // 2
    first = np.cumsum(num_pairs) - num_pairs
    background, foreground = values[0::2].copy(), values[1::2].copy()
    # Runs 0, 1 and 2 are written as they are: 1 begins the sums of foreground, 2 those of background, 0 stands alone.
    alone = background[first]
    background[first] = 0
    for chain in (background, foreground):
        chain[first[1:]] -= np.add.reduceat(chain, first)[:-1]  # so that each mask begins at 0
        np.cumsum(chain, dtype=chain.dtype, out=chain)
    background[first] = alone
    foreground[(first + num_pairs - 1)[padded]] = 0
    return _Runs(background, foreground, first, num_pairs, padded, overlong)


def _several_digits(
    digits: npt.NDArray[np.uint8], ends: IntArray, num_digits: IntArray, values: npt.NDArray[np.integer[Any]]
) -> npt.NDArray[np.integer[Any]]:
    """Values of numbers of two digits and more, given those of their last digits; overlong ones are cut."""
    for digit in range(1, min(int(num_digits.max()), _MAX_DIGITS)):
        longer = np.flatnonzero(num_digits > digit)
        values[longer] = (values[longer] << 5) | (digits[ends[longer] - digit] & 0x1F)
    return values


def _impossible(runs: _Runs, num_pixels: IntArray) -> int:
    """Index of the first mask with an impossible run or another total than ``num_pixels``; else -1."""
    bad = runs.overlong.copy()
    for chain in (runs.background, runs.foreground):
        if chain.min() < 0:
            bad |= np.minimum.reduceat(chain, runs.first) < 0
    total = sum(np.add.reduceat(chain, runs.first, dtype=np.int64) for chain in (runs.background, runs.foreground))
    bad |= total != num_pixels
    return int(bad.argmax()) if bad.any() else -1


def _measure(runs: _Runs, num_pixels: IntArray, height: int) -> tuple[IntArray, IntArray, BoolArray]:
    """Areas, tight boxes and which masks have an empty run other than the first; masks of one height."""
    first, length = runs.first, runs.foreground
    # Masks cover whole columns, so that columns and rows come out right when all masks are laid side by side.
    end = np.cumsum(runs.background + length, dtype=length.dtype)
    column = (end - length) // height
    top = end - length - column * height
    bottom = top + length
    top[bottom > height] = 0  # reaches the next column: touches its top, and the bottom of its own
    np.minimum(bottom, height, out=bottom)
    empty = length == 0
    top[empty], bottom[empty] = height, 0

    areas: IntArray = np.add.reduceat(length, first, dtype=np.int64)
    some = areas > 0
    solid = np.flatnonzero(~empty)
    leftmost = solid[np.searchsorted(solid, first[some])]
    rightmost = solid[np.searchsorted(solid, (first + runs.num_pairs)[some]) - 1]
    before = (np.cumsum(num_pixels) - num_pixels)[some] // height
    boxes: IntArray = np.zeros((len(first), 4), dtype=np.int64)
    boxes[some, 0] = column[leftmost] - before
    boxes[some, 1] = np.minimum.reduceat(top, first)[some]
    boxes[some, 2] = (end[rightmost] - 1) // height + 1 - before
    boxes[some, 3] = np.maximum.reduceat(bottom, first)[some]

    empty[(first + runs.num_pairs - 1)[runs.padded]] = False
    no_background = runs.background == 0
    no_background[first] = False
    irregular: BoolArray = np.logical_or.reduceat(empty | no_background, first)
    return areas, boxes, irregular
