"""The masks of a file, decoded, checked and measured.

Shape letters: N rows of the file, F images.

Checks COCO run lengths and measures them, many masks at a time, before pycocotools touches them.

pycocotools reads past the end of truncated run lengths and believes any total, so whatever comes from
a file passes here first. Shape letters: R masks.

The format: run lengths of background and foreground in turn, column by column, each written as a
little-endian number in 5-bit digits (bit 6 says that more follow, the top bit of the last digit is
the sign), the fourth and later ones as the difference to the run two before.

Masks as the official files write them: base64(zlib(COCO compressed RLE counts)).
"""

from __future__ import annotations

import binascii
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from hierseg.errors import EvaluationError
from hierseg.formats import BoolArray, IntArray

_CHUNK_BYTES = 1 << 16  # keeps a chunk's arrays in the cache
_MAX_DIGITS = 8  # 40 bits are beyond any image
_MORE = 0x20  # the bit of a digit that another follows
_SIGN = 0x10  # the bit of a last digit that makes it negative


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
    size = np.cumsum(lengths[order]) // _CHUNK_BYTES
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
    overlong[np.searchsorted(behind, longer[_MAX_DIGITS - 1])] = True
    # Six digits hold 2**29: a sum of such differences turns negative before it can wrap around.
    narrow = not len(longer[5]) and int(num_pixels.sum()) < 1 << 29
    dtype = np.dtype(np.int32 if narrow else np.int64)
    last_digits = ((digits & 0x1F) ^ _SIGN).view(np.int8) - np.int8(_SIGN)
    of_digits: npt.NDArray[np.integer[Any]] = last_digits.astype(dtype)
    for digit, at in enumerate(longer[: _MAX_DIGITS - 1], start=1):
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
    """Where the last digits of numbers of more than 1, 2, …, ``_MAX_DIGITS`` digits are; none is at the beginning."""
    longer = [np.flatnonzero(is_last[1:] > is_last[:-1]) + 1]
    while len(longer) < _MAX_DIGITS:
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


def encode_mask(counts: bytes) -> str:
    """The text of one mask.

    Args:
        counts: COCO compressed run lengths.
    """
    return binascii.b2a_base64(zlib.compress(counts), newline=False).decode('ascii')


def decode_masks(texts: Sequence[str], *, where: Callable[[int], str]) -> list[bytes]:
    """COCO compressed run lengths of many masks; their content is not checked yet.

    Args:
        texts: The masks.
        where: Says of the index of a mask where it comes from.

    Raises:
        EvaluationError: At the first text that is not base64 or not zlib.
    """
    try:
        return [zlib.decompress(binascii.a2b_base64(text)) for text in texts]
    except (ValueError, zlib.error):
        for index, text in enumerate(texts):
            try:
                zlib.decompress(binascii.a2b_base64(text))
            except (ValueError, zlib.error) as error:
                raise EvaluationError(
                    f'the mask cannot be decoded ({error})',
                    where=where(index),
                    fix='A mask is base64(zlib(COCO compressed RLE counts)).',
                ) from None
        raise


@dataclass(frozen=True, eq=False)
class MaskColumn:
    """The masks of a file: run lengths (``b''`` for none), areas and tight boxes (N, 4) in pixels."""

    masks: list[bytes]
    areas: IntArray
    boxes: IntArray


def read_masks(
    texts: Sequence[str], sizes: IntArray, *, boxed: BoolArray | None = None, where: Callable[[int], str]
) -> MaskColumn:
    """Decodes the masks of N rows.

    Args:
        texts: As the official files write them; those of rows without a mask are not looked at.
        sizes: (N, 2) int64; height and width, zeros where a row has no mask.
        boxed: (N,) bool; the rows whose boxes are asked for, None for all. The boxes of others are zeros.
        where: Says of a row where it stands.

    Raises:
        EvaluationError: At a mask that cannot be decoded or is of another size.
    """
    rows = np.flatnonzero(sizes[:, 0])
    names = rows.tolist()

    def where_mask(index: int) -> str:
        return where(names[index])

    given = decode_masks([texts[row] for row in names], where=where_mask)
    wanted = None if boxed is None else boxed[rows]
    measures = measure(given, sizes[rows, 0], sizes[rows, 1], boxed=wanted, where=where_mask)
    for index in np.flatnonzero(measures.irregular).tolist():
        height, width = sizes[names[index]].tolist()
        given[index] = regular(given[index], (height, width))
    if len(rows) == len(texts):
        return MaskColumn(given, measures.areas, measures.boxes)
    masks = [b''] * len(texts)
    for row, mask in zip(names, given, strict=True):
        masks[row] = mask
    areas, boxes = np.zeros(len(texts), dtype=np.int64), np.zeros((len(texts), 4), dtype=np.int64)
    areas[rows], boxes[rows] = measures.areas, measures.boxes
    return MaskColumn(masks, areas, boxes)


def sizes_of_images(images: IntArray, sizes: IntArray, known: IntArray, *, where: Callable[[int], str]) -> IntArray:
    """(F, 2) mask sizes of images: those known, else of an image's first mask.

    Args:
        images: (N,) int64; the image of each row, below F.
        sizes: (N, 2) int64; height and width, zeros where a row has no mask.
        known: (F, 2) int64; likewise, zeros for images whose size is not known.
        where: Says of a row where it stands.

    Raises:
        EvaluationError: At the first mask of another size.
    """
    rows = np.flatnonzero(sizes[:, 0])
    of_images = known.copy()
    new = rows[of_images[images[rows], 0] == 0][::-1]  # reversed: the first mask of an image is written last
    of_images[images[new]] = sizes[new]
    differs = (of_images[images[rows]] != sizes[rows]).any(axis=1)
    if differs.any():
        row = int(rows[differs.argmax()])
        (height, width), (other_height, other_width) = sizes[row].tolist(), of_images[images[row]].tolist()
        raise EvaluationError(
            f'the mask is {width}×{height} pixels, the other masks of its image are {other_width}×{other_height}',
            where=where(row),
            fix='All masks of an image, of ground truth and detections, need one size.',
        )
    return of_images
