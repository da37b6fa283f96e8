"""COCO run lengths of masks: checked and measured before pycocotools sees them, since its C code trusts its input.

Counts are run lengths of background and foreground in turn, column by column, each written as a little-endian number
in 5-bit digits (bit 5 of a character says that more follow, bit 4 of the last digit is the sign), the fourth and later
ones as the difference to the run two before. One mask at a time is checked with words on what is wrong
(:func:`check_counts`), many at a time are measured (:func:`measure`).

Shape letters: H height and W width of a mask, K runs, R masks.
"""

from __future__ import annotations

import binascii
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hierseg.errors import EvaluationError
from hierseg.formats import BoolArray, IntArray
from hierseg.limits import MAX_PIXELS

LARGEST_TEXT = 1 << 26
"""Bytes that the text of one mask may unpack to."""
LONGEST_NUMBER = 7
"""Characters of a count: five bits each hold every count that pycocotools can (32 bits); longer ones are damage."""
CHUNK_BYTES = 1 << 16
"""Masks that are measured at a time: it keeps their arrays in the cache."""
_MORE = 0x20  # the bit of a digit that another follows
_SIGN = 0x10  # the bit of a last digit that makes it negative

Mask = npt.NDArray[np.uint8]


class MalformedMaskError(ValueError):
    """An encoded mask is damaged; the message says how. Callers add the file and the line."""


def parse_counts(counts: bytes) -> IntArray:
    """The run lengths in compressed COCO counts (pycocotools' ``rleFrString``), (K,) int64.

    Raises:
        MalformedMaskError: If these are no such numbers, or a run is negative.
    """
    codes = np.frombuffer(counts, dtype=np.uint8).astype(np.int64) - 48
    if len(codes) == 0:
        raise MalformedMaskError('there are no run lengths')
    if codes.min() < 0 or codes.max() > 63:
        raise MalformedMaskError('a character is none of the run-length alphabet')
    last = np.flatnonzero(codes < 32)
    if len(last) == 0 or last[-1] != len(codes) - 1:
        raise MalformedMaskError('the run lengths are cut off')
    first = np.concatenate([[0], last[:-1] + 1])
    lengths = last - first + 1
    if lengths.max() > LONGEST_NUMBER:
        raise MalformedMaskError('a run length has too many digits')
    place = np.arange(len(codes)) - np.repeat(first, lengths)
    numbers = np.add.reduceat((codes & 31) << (5 * place), first)
    numbers -= ((codes[last] & 16) != 0) * (np.int64(1) << (5 * lengths))
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    if numbers.min() < 0:
        raise MalformedMaskError('a run length is negative')
    return numbers


def check_counts(counts: bytes, height: int, width: int) -> int:
    """The number of pixels in a mask; MalformedMaskError if the runs do not fill the size exactly."""
    return _check_runs(parse_counts(counts), height, width)


def _check_runs(runs: IntArray, height: int, width: int) -> int:
    if runs.sum() != height * width:
        raise MalformedMaskError(
            f'the runs cover {runs.sum()} pixels, {width} x {height} (width x height) has {height * width}'
        )
    return int(runs[1::2].sum())


def encode_runs(runs: Sequence[object], height: int, width: int) -> bytes:
    """Compresses COCO counts; MalformedMaskError if they are no whole numbers from 0, or do not fill the size."""
    numbers = [run for run in runs if isinstance(run, int) and 0 <= run <= height * width]
    if len(numbers) < len(runs):
        raise MalformedMaskError(f'a run length is no whole number from 0 to {height * width}')
    whole = np.asarray(numbers, dtype=np.int64)
    _check_runs(whole, height, width)
    return compress_runs(whole)


def compress_runs(runs: IntArray) -> bytes:
    """Compressed counts of (K,) int64 run lengths, those that pycocotools' ``rleToString`` gives."""
    left = runs.copy()
    left[3:] -= runs[1:-2]
    characters = np.empty((len(runs), LONGEST_NUMBER), dtype=np.uint8)
    used = np.zeros(characters.shape, dtype=bool)
    rows = np.arange(len(runs))
    for place in range(LONGEST_NUMBER):
        digit = left & 31
        left >>= 5
        # Done when what is left is the sign alone: 0, or -1 with the sign bit set.
        more = left != -(digit >> 4)
        characters[rows, place] = digit + (more << 5) + 48
        used[rows, place] = True
        rows, left = rows[more], left[more]
        if not len(rows):
            break
    counts: bytes = characters[used].tobytes()
    return counts


def counts_of_text(text: str, num_pixels: int = MAX_PIXELS) -> bytes:
    """Counts, not checked yet, in the text of the official files: base64 of zlib; else MalformedMaskError.

    No more is unpacked than a mask of that many pixels can need: a character for each, and as many for empty runs.
    """
    most = min(2 * num_pixels + 64, LARGEST_TEXT)
    try:
        packed = binascii.a2b_base64(text)
    except ValueError as error:
        raise MalformedMaskError(f'it is not base64 ({error})') from None
    if text and not packed:
        raise MalformedMaskError('it is not base64')
    unpacker = zlib.decompressobj()
    try:
        counts = unpacker.decompress(packed, most)
    except zlib.error as error:
        raise MalformedMaskError(f'it is not zlib data of base64 ({error})') from None
    if not unpacker.eof and len(counts) == most:
        raise MalformedMaskError(f'it unpacks to more than {most:,} bytes, which is more than its size can need')
    if not unpacker.eof:
        raise MalformedMaskError('its zlib data is cut off')
    return counts


def text_of_counts(counts: bytes) -> str:
    """Text of the official files, of compressed counts."""
    return binascii.b2a_base64(zlib.compress(counts), newline=False).decode('ascii')


def counts_of_mask(mask: Mask) -> bytes:
    """Compressed counts of a mask, (H, W) uint8; every value but 0 is inside. They are those of pycocotools."""
    return compress_runs(runs_of(mask))


def runs_of(mask: Mask) -> IntArray:
    """The run lengths, (K,) int64, of a mask, (H, W) uint8; every value but 0 is inside; H and W at least 1."""
    return runs_of_packed(np.packbits(mask, axis=1), mask.shape[1])


def runs_of_packed(rows: Mask, width: int) -> IntArray:
    """:func:`runs_of` a mask of one bit a pixel, (H, ⌈W / 8⌉) uint8, highest bit first; W >= 1.

    Neighbouring rows are compared eight pixels to a byte, so that the outline is nearly all that costs time;
    pycocotools walks down every column.
    """
    height, stride = rows.shape
    values = rows.reshape(-1)
    changes = values[stride:] ^ values[:-stride]
    above = np.flatnonzero(changes != 0)
    bits = np.flatnonzero(np.unpackbits(changes[above]).view(np.bool_))
    row, byte = np.divmod(above[bits >> 3], stride)
    column = byte * 8 + (bits & 7)
    inside = column < width
    begins, bottom = np.unpackbits(rows[[0, -1]], axis=1, count=width).view(np.bool_)
    # A column's first pixel follows the last one of the column before.
    begins[1:] ^= bottom[:-1]
    bounds = [[0], (column * height + row + 1)[inside], np.flatnonzero(begins) * height, [height * width]]
    starts = np.concatenate(bounds).astype(np.int64, copy=False)
    starts.sort()
    runs: IntArray = starts[1:] - starts[:-1]
    return runs


def mask_of_counts(counts: bytes, height: int, width: int) -> Mask:
    """(H, W) uint8 of 0 and 1, from counts that :func:`check_counts` has passed."""
    runs = parse_counts(counts)
    values = np.zeros(len(runs), dtype=np.uint8)
    values[1::2] = 1
    return np.repeat(values, runs).reshape(width, height).T


def resize_nearest(mask: Mask, height: int, width: int) -> Mask:
    """A mask at another size; each pixel takes the value at its centre in the source."""
    import cv2  # here alone: the deployed model, which has no OpenCV, writes masks too

    resized = cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    return np.asarray(resized, dtype=np.uint8)


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
    masks: Sequence[bytes],
    heights: IntArray,
    widths: IntArray,
    *,
    boxed: BoolArray | None = None,
    where: Callable[[int], str] = 'mask {}'.format,
) -> Measures:
    """Checks and measures run lengths.

    Args:
        masks: R compressed run lengths; none may be ``b''``.
        heights: (R,) int64, pixels.
        widths: (R,) int64, pixels.
        boxed: (R,) bool; the masks whose boxes are asked for, None for all. The boxes of others are zeros.
        where: Says of the index of a mask where it comes from.

    Raises:
        EvaluationError: If run lengths are malformed or do not cover height × width pixels.
    """
    areas, irregular = np.zeros(len(masks), dtype=np.int64), np.zeros(len(masks), dtype=bool)
    boxes = np.zeros((len(masks), 4), dtype=np.int64)
    lengths = np.fromiter(map(len, masks), dtype=np.int64, count=len(masks))
    bad = len(masks)
    for part in _chunks(lengths, heights):
        # A run of no pixels behind each mask ends those with a number of runs that is odd.
        text = b'0'.join([masks[index] for index in part.tolist()]) + b'0'
        digits: npt.NDArray[np.uint8] = np.frombuffer(text, dtype=np.uint8) - np.uint8(48)
        behind = np.cumsum(lengths[part] + 1) - 1
        wrong = _malformed(digits, behind)
        if wrong < 0:
            num_pixels = heights[part] * widths[part]
            runs = _decode(digits, behind, num_pixels)
            totals = runs.totals()
            wrong = _impossible(runs, totals, num_pixels)
        if wrong < 0:
            areas[part], irregular[part] = totals[:, 1], _irregular(runs)
            wanted = np.ones(len(part), dtype=bool) if boxed is None else boxed[part]
            if wanted.any():
                found = _boxes(runs.of(wanted), totals[wanted, 1], num_pixels[wanted], int(heights[part[0]]))
                boxes[part[wanted]] = found
        else:
            bad = min(bad, int(part[wrong]))
    if bad < len(masks):
        height, width, why = int(heights[bad]), int(widths[bad]), ''
        try:
            check_counts(masks[bad], height, width)
        except MalformedMaskError as error:
            why = str(error)
        raise EvaluationError(
            f'the mask is not made of valid COCO run lengths for {width}×{height} pixels: {why}',
            where=where(bad),
            fix='A mask is compressed RLE counts of COCO, in a CSV base64(zlib(counts)), at the size that is stated.',
        )
    return Measures(areas, boxes, irregular)


def regular(mask: bytes) -> bytes:
    """The same mask without empty runs but the first; it has passed :func:`measure`."""
    runs = parse_counts(mask)
    solid = np.flatnonzero(runs)
    inside = solid & 1
    first = np.flatnonzero(np.diff(inside, prepend=-1))
    joined = np.add.reduceat(runs[solid], first)
    return compress_runs(np.concatenate([[0], joined]) if inside[0] else joined)


@dataclass(frozen=True, eq=False)
class _Runs:
    """All runs of R masks in pairs, one of background and one of foreground: P pairs, mask after mask.

    A mask that ends with background gets an empty foreground run behind it, so that the pairs of all masks lie alike.

    Attributes:
        pairs: (P, 2) int32, or int64 where that is too narrow.
        first: (R,) int64; the first pair of each mask.
        last: (R,) int64; the last one.
        padded: (R,) bool; masks with such an empty run.
        overlong: (R,) bool; masks with a number that no image needs.
    """

    pairs: npt.NDArray[np.integer[Any]]
    first: IntArray
    last: IntArray
    padded: BoolArray
    overlong: BoolArray

    def totals(self) -> IntArray:
        """(R, 2) int64; pixels of background and foreground."""
        totals: IntArray = np.add.reduceat(self.pairs, self.first, axis=0, dtype=np.int64)
        return totals

    def of(self, wanted: BoolArray) -> _Runs:
        """Those of the wanted masks, (R,) bool."""
        if wanted.all():
            return self
        num_pairs = self.last - self.first + 1
        end = np.cumsum(num_pairs[wanted])
        pairs = self.pairs[np.flatnonzero(np.repeat(wanted, num_pairs))]
        return _Runs(pairs, end - num_pairs[wanted], end - 1, self.padded[wanted], self.overlong[wanted])


def _chunks(lengths: IntArray, heights: IntArray) -> Iterator[IntArray]:
    """Indices of masks of one height, of some ten thousand bytes together."""
    order = np.argsort(heights, kind='stable')
    size = np.cumsum(lengths[order]) // CHUNK_BYTES
    cuts = (np.diff(heights[order]) != 0) | (np.diff(size) != 0)
    if len(order):
        yield from np.split(order, np.flatnonzero(cuts) + 1)


def _malformed(digits: npt.NDArray[np.uint8], behind: IntArray) -> int:
    """Index of the first mask that is empty, has a foreign character or ends within a number; else -1.

    Args:
        digits: Those of all masks, each followed by a 0.
        behind: (R,) int64; where those zeros are.
    """
    bad = (np.diff(behind, prepend=-1) == 1) | (digits[behind - 1] >= _MORE)
    if digits.max() >= 2 * _MORE:
        bad[np.searchsorted(behind, np.flatnonzero(digits >= 2 * _MORE))] = True
    return int(bad.argmax()) if bad.any() else -1


def _decode(digits: npt.NDArray[np.uint8], behind: IntArray, num_pixels: IntArray) -> _Runs:
    """The runs of masks whose digits are well-formed; arguments as of :func:`_malformed`."""
    begin = np.append(0, behind[:-1] + 1)
    is_last = digits < _MORE
    num_runs = np.add.reduceat(is_last, begin, dtype=np.int32).astype(np.int64) - 1
    longer = _longer(digits, is_last)
    overlong = np.zeros(len(behind), dtype=bool)
    overlong[np.searchsorted(behind, longer[LONGEST_NUMBER - 1])] = True
    # Six digits hold 2**29: a sum of such differences turns negative before it can wrap around.
    narrow = not len(longer[5]) and int(num_pixels.sum()) < 1 << 29
    dtype = np.dtype(np.int32 if narrow else np.int64)
    last_digits = ((digits & 0x1F) ^ _SIGN).view(np.int8) - np.int8(_SIGN)
    of_digits: npt.NDArray[np.integer[Any]] = last_digits.astype(dtype)
    for digit, at in enumerate(longer[: LONGEST_NUMBER - 1], start=1):
        of_digits[at] = (of_digits[at] << 5) | (digits[at - digit] & 0x1F)
    padded = num_runs % 2 == 1
    is_last[behind[~padded]] = False
    pairs: npt.NDArray[np.integer[Any]] = of_digits[np.flatnonzero(is_last)].reshape(-1, 2)

    end = np.cumsum((num_runs + 1) // 2)
    first, last = np.append(0, end[:-1]), end - 1
    # Runs 0, 1 and 2 are written as they are: 1 begins the sums of foreground, 2 those of background, 0 stands alone.
    alone = pairs[first, 0]
    pairs[first, 0] = 0
    pairs[first[1:]] -= np.add.reduceat(pairs, first, axis=0)[:-1]  # so that each mask begins at 0
    np.cumsum(pairs, axis=0, dtype=pairs.dtype, out=pairs)
    pairs[first, 0] = alone
    pairs[last[padded], 1] = 0
    return _Runs(pairs, first, last, padded, overlong)


def _longer(digits: npt.NDArray[np.uint8], is_last: BoolArray) -> list[IntArray]:
    """Places of the last digits of numbers of more than 1, 2, …, ``LONGEST_NUMBER`` digits; none is the first."""
    longer = [np.flatnonzero(is_last[1:] > is_last[:-1]) + 1]
    while len(longer) < LONGEST_NUMBER:
        at = longer[-1]
        longer.append(at[digits[at - len(longer) - 1] >= _MORE] if len(at) else at)
    return longer


def _impossible(runs: _Runs, totals: IntArray, num_pixels: IntArray) -> int:
    """Index of the first mask with an impossible run or another total than ``num_pixels``; else -1."""
    bad = runs.overlong | (totals.sum(axis=1) != num_pixels)
    if runs.pairs.min() < 0:
        bad |= (np.minimum.reduceat(runs.pairs, runs.first, axis=0) < 0).any(axis=1)
    return int(bad.argmax()) if bad.any() else -1


def _boxes(runs: _Runs, areas: IntArray, num_pixels: IntArray, height: int) -> IntArray:
    """(R, 4) int64; tight boxes of masks of one height."""
    # Masks cover whole columns, so that columns and rows come out right when all masks are laid side by side.
    ends = np.cumsum(runs.pairs, axis=0, dtype=runs.pairs.dtype)
    end, length = ends[:, 0] + ends[:, 1], runs.pairs[:, 1].copy()
    begin = end - length
    top = begin - begin // height * height
    bottom = top + length
    top[bottom > height] = 0  # reaches the next column: touches its top, and the bottom of its own
    np.minimum(bottom, height, out=bottom)
    empty = length == 0
    top[empty], bottom[empty] = height, 0

    some = areas > 0
    solid = np.flatnonzero(~empty)
    leftmost = solid[np.searchsorted(solid, runs.first[some])]
    rightmost = solid[np.searchsorted(solid, runs.last[some], side='right') - 1]
    before = (np.cumsum(num_pixels) - num_pixels)[some] // height
    boxes: IntArray = np.zeros((len(areas), 4), dtype=np.int64)
    boxes[some, 0] = begin[leftmost] // height - before
    boxes[some, 1] = np.minimum.reduceat(top, runs.first)[some]
    boxes[some, 2] = (end[rightmost] - 1) // height + 1 - before
    boxes[some, 3] = np.maximum.reduceat(bottom, runs.first)[some]
    return boxes


def _irregular(runs: _Runs) -> BoolArray:
    """(R,) bool; masks with an empty run other than the first."""
    empty = runs.pairs == 0
    empty[runs.first, 0] = False
    empty[runs.last[runs.padded], 1] = False
    if not empty.any():
        return np.zeros(len(runs.first), dtype=bool)
    irregular: BoolArray = np.logical_or.reduceat(empty.any(axis=1), runs.first)
    return irregular
