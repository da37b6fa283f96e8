"""The masks of a file, decoded, checked and measured.

Shape letters: N rows of the file, F images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from hierseg.errors import EvaluationError
from hierseg.metrics.mask_text import decode_masks
from hierseg.metrics.records import BoolArray, IntArray
from hierseg.metrics.run_lengths import measure, regular


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
