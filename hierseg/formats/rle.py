"""COCO run-length encodings: checked before pycocotools sees them, since its C code trusts its input.

Shape letters: H height and W width of a mask, K runs. Runs count pixels column by column, zeros first.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from hierseg.formats import IntArray

# Seven characters of five bits hold every count that pycocotools can (32 bits); longer ones are damage.
LONGEST_NUMBER = 7
LARGEST_TEXT = 1 << 26

Mask = npt.NDArray[np.uint8]


class MalformedMaskError(ValueError):
    """An encoded mask is damaged; the message says how. Callers add the file and the line."""


def parse_counts(counts: bytes) -> IntArray:
    """The run lengths in compressed COCO counts.

    Args:
        counts: Each number in characters of five bits, lowest first, bit 5 set where more follow; from
            the fourth number on the difference to the number two before (pycocotools' ``rleFrString``).

    Returns:
        (K,) int64.

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
    """Checks compressed counts against a size.

    Returns:
        The number of pixels in the mask.

    Raises:
        MalformedMaskError: If the runs do not fill the size exactly.
    """
    runs = parse_counts(counts)
    return _check_runs(runs, height, width)


def _check_runs(runs: IntArray, height: int, width: int) -> int:
    if runs.sum() != height * width:
        raise MalformedMaskError(
            f'the runs cover {runs.sum()} pixels, {width} x {height} (width x height) has {height * width}'
        )
    return int(runs[1::2].sum())


def encode_runs(runs: Sequence[object], height: int, width: int) -> bytes:
    """Compresses uncompressed COCO counts.

    Raises:
        MalformedMaskError: If they are no whole numbers from 0, or do not fill the size exactly.
    """
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


def decode_text(text: str) -> bytes:
    """The counts in the text of the official evaluation form: base64 of zlib of compressed counts.

    Raises:
        MalformedMaskError: If the text is something else.
    """
    try:
        packed = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise MalformedMaskError(f'it is not base64 ({error})') from None
    unpacker = zlib.decompressobj()
    try:
        counts = unpacker.decompress(packed, LARGEST_TEXT)
    except zlib.error as error:
        raise MalformedMaskError(f'it is not zlib data ({error})') from None
    if not unpacker.eof:
        raise MalformedMaskError('its zlib data is cut off')
    return counts


def encode_mask(mask: Mask) -> bytes:
    """Compressed counts of a mask, (H, W) uint8; every value but 0 is inside. They are those of pycocotools."""
    return compress_runs(runs_of(mask))


def runs_of(mask: Mask) -> IntArray:
    """The run lengths of a mask, (H, W) uint8; every value but 0 is inside; H and W at least 1.

    Returns:
        (K,) int64; zeros first, column by column.
    """
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


def decode_mask(counts: bytes, height: int, width: int) -> Mask:
    """(H, W) uint8 of 0 and 1, from counts that :func:`check_counts` has passed."""
    mask: Mask = coco_mask.decode({'size': [height, width], 'counts': counts})
    return mask


def resize_nearest(mask: Mask, height: int, width: int) -> Mask:
    """A mask at another size; each pixel takes the value at its centre in the source."""
    resized = cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    return np.asarray(resized, dtype=np.uint8)
