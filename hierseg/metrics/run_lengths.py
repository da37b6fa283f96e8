"""Checks COCO run lengths and measures them, many masks at a time, before pycocotools touches them.

pycocotools reads past the end of truncated run lengths and believes any total, so whatever comes from
a file passes here first. Shape letters: R masks.

The format: run lengths of background and foreground in turn, column by column, each written as a
little-endian number in 5-bit digits (bit 6 says that more follow, the top bit of the last digit is
the sign), the fourth and later ones as the difference to the run two before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from hierseg.errors import EvaluationError
from hierseg.metrics.records import BoolArray, IntArray

_CHUNK_BYTES = 1 << 16  # keeps a chunk's arrays in the cache
_MAX_DIGITS = 8


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
    chunk_of = np.cumsum(lengths) // _CHUNK_BYTES
    starts = [0, *(np.flatnonzero(np.diff(chunk_of)) + 1).tolist(), len(masks)] if len(masks) else []
    for begin, end in pairwise(starts):
        part = slice(begin, end)
        digits: npt.NDArray[np.uint8] = np.frombuffer(b''.join(masks[part]), dtype=np.uint8) - np.uint8(48)
        bad = _malformed(digits, lengths[part])
        if bad < 0:
            runs, num_runs = _decode(digits, lengths[part])
            bad = _wrong_total(runs, num_runs, heights[part] * widths[part])
        if bad >= 0:
            size = f'{widths[begin + bad]}×{heights[begin + bad]}'
            raise EvaluationError(
                f'the mask is not made of valid COCO run lengths for {size} pixels',
                where=where(begin + bad),
                fix='A mask is base64(zlib(COCO compressed RLE counts)) at the size that its row or image states.',
            )
        areas[part], boxes[part], irregular[part] = _measure(runs, num_runs, heights[part])
    return Measures(areas, boxes, irregular)


def regular(mask: bytes, size: tuple[int, int]) -> bytes:
    """The same mask without empty runs. Only for run lengths that passed :func:`measure`.

    Args:
        mask: Compressed run lengths.
        size: Height and width.
    """
    pixels = coco_mask.decode({'size': list(size), 'counts': mask})
    return bytes(coco_mask.encode(np.asfortranarray(pixels))['counts'])


def _malformed(digits: npt.NDArray[np.uint8], lengths: IntArray) -> int:
    """Index of the first mask that is empty, has a foreign character or ends within a number; else -1."""
    bad = lengths == 0
    last = np.cumsum(lengths) - 1
    bad[~bad] |= (digits[last[~bad]] & 0x20) != 0
    foreign = np.flatnonzero(digits >= 64)
    bad[np.searchsorted(last, foreign)] = True
    return int(bad.argmax()) if bad.any() else -1


def _decode(digits: npt.NDArray[np.uint8], lengths: IntArray) -> tuple[IntArray, IntArray]:
    """All runs of all masks, one after another, and (R,) how many each mask has."""
    number_ends = np.flatnonzero((digits & 0x20) == 0)
    number_starts = np.concatenate([[0], number_ends[:-1] + 1])
    num_digits = number_ends - number_starts + 1
    values = np.zeros(len(number_ends), dtype=np.int64)
    for digit in range(min(int(num_digits.max()), _MAX_DIGITS)):
        longer = np.flatnonzero(num_digits > digit)
        values[longer] |= (digits[number_starts[longer] + digit] & 0x1F).astype(np.int64) << 5 * digit
    negative = np.flatnonzero(digits[number_ends] & 0x10)
    values[negative] -= np.int64(1) << np.minimum(5 * num_digits[negative], 62)
    values[num_digits > _MAX_DIGITS] = -1  # beyond any image: caught as a negative run

    num_runs = np.diff(np.searchsorted(number_ends, np.cumsum(lengths)), prepend=0)
    position = _positions(num_runs)
    for parity, skipped in ((0, 1), (1, 0)):  # the run 0 stands alone; 2, 4, … and 1, 3, … are differences
        chain = np.flatnonzero((position % 2 == parity) & (position >= 2 * skipped))
        sums = np.cumsum(values[chain])
        chain_lengths = (num_runs + 1 - parity) // 2 - skipped
        ends = np.cumsum(chain_lengths)
        before = np.concatenate([[0], sums])[ends - chain_lengths]
        values[chain] = sums - np.repeat(before, chain_lengths)
    return values, num_runs


def _wrong_total(runs: IntArray, num_runs: IntArray, num_pixels: IntArray) -> int:
    """Index of the first mask with an impossible run or another total than ``num_pixels``; else -1."""
    first = np.cumsum(num_runs) - num_runs
    bad = (np.minimum.reduceat(runs, first) < 0) | (np.maximum.reduceat(runs, first) > num_pixels)
    bad |= np.add.reduceat(runs, first) != num_pixels
    return int(bad.argmax()) if bad.any() else -1


def _measure(runs: IntArray, num_runs: IntArray, heights: IntArray) -> tuple[IntArray, IntArray, BoolArray]:
    """Areas, tight boxes and which masks have an empty run other than the first."""
    position = _positions(num_runs)
    mask_of = np.repeat(np.arange(len(num_runs)), num_runs)
    ends = np.cumsum(runs)
    before = np.concatenate([[0], ends])[np.cumsum(num_runs) - num_runs]
    empty = runs == 0
    irregular = np.bincount(mask_of[empty & (position > 0)], minlength=len(num_runs)) > 0

    foreground = np.flatnonzero((position % 2 == 1) & ~empty)
    owner, length = mask_of[foreground], runs[foreground]
    start = ends[foreground] - length - before[owner]
    height = heights[owner]
    top = start % height
    bottom = top + length
    spans = bottom > height  # reaches the next column: touches its top, and the bottom of its own
    areas, boxes = np.zeros(len(num_runs), dtype=np.int64), np.zeros((len(num_runs), 4), dtype=np.int64)
    if len(owner):
        first = np.flatnonzero(np.diff(owner, prepend=-1))
        last = np.concatenate([first[1:], [len(owner)]]) - 1
        some = owner[first]
        areas[some] = np.add.reduceat(length, first)
        boxes[some, 0] = start[first] // height[first]
        boxes[some, 2] = (start[last] + length[last] - 1) // height[last] + 1
        boxes[some, 1] = np.minimum.reduceat(np.where(spans, 0, top), first)
        boxes[some, 3] = np.maximum.reduceat(np.where(spans, height, bottom), first)
    return areas, boxes, irregular


def _positions(num_runs: IntArray) -> IntArray:
    """Index of every run within its mask."""
    return np.arange(int(num_runs.sum())) - np.repeat(np.cumsum(num_runs) - num_runs, num_runs)
