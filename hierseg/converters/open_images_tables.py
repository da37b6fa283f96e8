"""Which mask belongs to which box.

The released mask and box tables share no key, and their coordinates differ in the decimals, so that
rows are joined by image, class and nearly equal box.

The official Open Images tables as columns: boxes, image labels, masks in both forms.

Source: the download page of Open Images (V4 to V7, Challenge 2018 and 2019). Columns are read by name,
image ids as text (they can be all digits, or look like the number 1e12). Shape letter: R rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hierseg.converters.options import BOX_TOLERANCE, EXAMPLES, ConversionSummary
from hierseg.errors import AnnotationError
from hierseg.formats import BoolArray, FloatArray, IntArray
from hierseg.formats.csv_tables import (
    Chunk,
    index_in,
    place_of,
    read_chunks,
    read_header,
)
from hierseg.taxonomy import Taxonomy

# Coordinates are published with six decimals; a little more than their rounding may stick out.
OUTSIDE_TOLERANCE = 1e-5
CORNERS = ('XMin', 'YMin', 'XMax', 'YMax')
CONFIDENCE = 'Labels verified by people have 1 (present) or 0 (absent); machine-made labels cannot be used.'


@dataclass(frozen=True, eq=False)
class Rows:
    """What all three tables have: an image, a class, and the place in the file.

    Attributes:
        path: The CSV file.
        rows: (R,) int64; row of the file, 0 below the header.
        image_ids: (R,) text.
        labels: (R,) int64.
    """

    path: Path
    rows: IntArray
    image_ids: pa.Array
    labels: IntArray

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class LabelRows(Rows):
    """Image-level labels verified by people.

    Attributes:
        positive: (R,) bool; present (Confidence 1) or absent (0).
    """

    positive: BoolArray


@dataclass(frozen=True, eq=False)
class BoxRows(Rows):
    """Boxes.

    Attributes:
        boxes: (R, 4) float64; xyxy as fractions of the image, within [0, 1].
        group_of: (R,) bool.
        box_ids: (R,) text, or None if the file has no BoxID.
    """

    boxes: FloatArray
    group_of: BoolArray
    box_ids: pa.Array | None


@dataclass(frozen=True, eq=False)
class MaskRows(BoxRows):
    """Masks and the boxes that they were drawn in.

    Attributes:
        references: (R,) text; the path of a PNG file, or base64 of zlib of COCO compressed RLE counts.
        sizes: (R, 2) int64; height and width of the encoded mask, or None where the references are paths.
        has_group_of: Whether the file says what is a group (the form with paths does not).
    """

    references: pa.Array
    sizes: IntArray | None
    has_group_of: bool


@dataclass(frozen=True)
class TableReader:
    """Reads tables against one taxonomy, a block at a time.

    Attributes:
        taxonomy: Gives the labels.
        summary: Counts what is left out.
        skip_unknown_classes: Leave out rows of classes that are not in the taxonomy, instead of refusing them.
        skip_bad_rows: Leave out rows that make no sense, instead of refusing them.
    """

    taxonomy: Taxonomy
    summary: ConversionSummary
    skip_unknown_classes: bool = False
    skip_bad_rows: bool = False

    def labels(self, path: Path) -> Iterator[LabelRows]:
        """Reads ``ImageID, LabelName, Confidence``."""
        for chunk in self._chunks(path, ['ImageID', 'LabelName', 'Confidence'], 'image-label'):
            yield self._labels(chunk)

    def _labels(self, chunk: Chunk) -> LabelRows:
        positive = chunk.flags('Confidence', fix=CONFIDENCE)
        rows, keep = self._rows(chunk, 'image-label')
        return LabelRows(**vars(rows), positive=positive[keep])

    def boxes(self, path: Path) -> Iterator[BoxRows]:
        """Reads ``ImageID, LabelName, XMin, XMax, YMin, YMax, IsGroupOf`` and, if it is there, ``BoxID``."""
        columns = ['ImageID', 'LabelName', 'BoxID', 'IsGroupOf', *CORNERS]
        for chunk in self._chunks(path, columns, 'box', optional=['BoxID']):
            yield self._boxes(chunk, CORNERS, 'box')[0]

    def masks(self, path: Path) -> Iterator[MaskRows]:
        """Reads masks in the form with PNG paths or the evaluation form, told apart by their columns."""
        are_files = masks_are_files(path)
        coordinates = tuple(f'Box{name}' for name in CORNERS) if are_files else CORNERS
        own = ['MaskPath'] if are_files else ['Mask', 'ImageWidth', 'ImageHeight', 'IsGroupOf']
        columns = [*own, 'ImageID', 'LabelName', 'BoxID', *coordinates]
        for chunk in self._chunks(path, columns, 'mask', optional=['BoxID']):
            yield self._mask_paths(chunk, coordinates) if are_files else self._mask_texts(chunk)

    def _mask_paths(self, chunk: Chunk, coordinates: tuple[str, ...]) -> MaskRows:
        chunk.refuse(_empty(chunk, 'MaskPath'), lambda row: 'MaskPath is empty')
        boxes, keep = self._boxes(chunk, coordinates, 'mask')
        return MaskRows(**vars(boxes), references=chunk.texts['MaskPath'].take(keep), sizes=None, has_group_of=False)

    def _mask_texts(self, chunk: Chunk) -> MaskRows:
        sizes = np.stack([chunk.sizes(name) for name in ('ImageHeight', 'ImageWidth')], axis=1)
        boxes, keep = self._boxes(chunk, CORNERS, 'mask')
        references = chunk.texts['Mask'].take(keep)
        return MaskRows(**vars(boxes), references=references, sizes=sizes[keep], has_group_of=True)

    def _chunks(
        self, path: Path, columns: Sequence[str], kind: str, *, optional: Sequence[str] = ()
    ) -> Iterator[Chunk]:
        def skip(row: int, what: str) -> None:
            self._skip_bad(kind, 1, [(row, what)], path)

        return read_chunks(path, columns, optional=optional, skip_lines=skip if self.skip_bad_rows else None)

    def _boxes(self, chunk: Chunk, coordinates: tuple[str, ...], kind: str) -> tuple[BoxRows, IntArray]:
        boxes = np.stack([chunk.numbers(name) for name in coordinates], axis=1).reshape(-1, 4)

        def said(row: int) -> str:
            return ', '.join(f'{name} {value:g}' for name, value in zip(coordinates, boxes[row], strict=True))

        outside = np.any((boxes < -OUTSIDE_TOLERANCE) | (boxes > 1 + OUTSIDE_TOLERANCE), axis=1)
        fix = 'Coordinates are fractions of the image: 0 <= min <= max <= 1.'
        chunk.refuse(outside, lambda row: f'the box ({said(row)}) is outside the image', fix=fix)
        inverted = np.any(boxes[:, :2] > boxes[:, 2:], axis=1)
        chunk.refuse(inverted, lambda row: f'the box ({said(row)}) has a min above its max', fix=fix)
        # V4 to V7 mark boxes that were not drawn by hand with -1: nobody said that they are groups.
        known = 'IsGroupOf' in chunk.texts
        group_of = chunk.flags('IsGroupOf', unknown=True) if known else np.zeros(len(chunk), dtype=bool)
        rows, keep = self._rows(chunk, kind)
        box_ids = chunk.texts['BoxID'].take(keep) if 'BoxID' in chunk.texts else None
        box_rows = BoxRows(**vars(rows), boxes=boxes[keep].clip(0, 1), group_of=group_of[keep], box_ids=box_ids)
        return box_rows, keep

    def _rows(self, chunk: Chunk, kind: str) -> tuple[Rows, IntArray]:
        """Labels for class ids, and the rows that are kept."""
        ids = chunk.texts['LabelName']
        chunk.refuse(_empty(chunk, 'ImageID'), lambda row: 'ImageID is empty')
        labels = chunk.labels('LabelName', self.taxonomy.ids, refuse=not self.skip_unknown_classes)
        unknown = labels < 0
        wrong = chunk.wrong()
        if wrong.any():
            rows = np.flatnonzero(wrong).tolist()
            if not self.skip_bad_rows:
                raise chunk.fault(rows[0])
            examples = [(int(chunk.rows[row]), chunk.fault_of(row)) for row in rows[:EXAMPLES]]
            self._skip_bad(kind, len(rows), examples, chunk.path)
        unknown &= ~wrong
        if unknown.any():
            classes = pc.unique(ids.filter(pa.array(unknown))).to_pylist()
            self.summary.skip(f'{kind} rows of classes not in the taxonomy', classes, count=int(unknown.sum()))
        keep = np.flatnonzero(~wrong & ~unknown)
        return Rows(chunk.path, chunk.rows[keep], chunk.texts['ImageID'].take(keep), labels[keep]), keep

    def _skip_bad(self, kind: str, count: int, examples: Sequence[tuple[int, str]], path: Path) -> None:
        reason = f'{kind} rows that cannot be used'
        known = len(self.summary.skipped[reason].examples) if reason in self.summary.skipped else 0
        # Lines are looked up for those that will be shown, for that takes reading the file again.
        shown = [f'{place_of(path, row)}: {what}' for row, what in examples[: EXAMPLES - known]]
        self.summary.skip(reason, shown, count=count)


def masks_are_files(path: Path) -> bool:
    """Whether a mask table names PNG files; otherwise it holds encoded masks.

    Raises:
        AnnotationError: If it has the columns of neither form.
    """
    header = read_header(path)
    if 'MaskPath' not in header and 'Mask' not in header:
        raise AnnotationError(
            f'neither a column MaskPath nor a column Mask; the columns are {", ".join(header)}',
            where=str(path),
            fix='Give a segmentation CSV with PNG paths, or one with encoded masks.',
        )
    return 'MaskPath' in header


def _empty(chunk: Chunk, name: str) -> BoolArray:
    empty: BoolArray = pc.equal(chunk.texts[name], '').to_numpy(zero_copy_only=False)
    return empty


PAIRS_AT_A_TIME = 1 << 22


def join_masks(
    boxes: BoxRows,
    masks: MaskRows,
    box_images: IntArray,
    mask_images: IntArray,
    *,
    num_classes: int,
    tolerance: float = BOX_TOLERANCE,
) -> IntArray:
    """Joins masks to boxes one to one, nearest first.

    Candidates have the same image and class (and IsGroupOf, where the masks say it). Equal BoxIDs join
    whatever the coordinates; other pairs join if no coordinate differs by more than ``tolerance``, in
    ascending order of the largest difference, ties in file order.

    Args:
        boxes: B box rows.
        masks: M mask rows.
        box_images: (B,) int64 image index.
        mask_images: (M,) int64 image index.
        num_classes: C.
        tolerance: As a fraction of the image's width and height.

    Returns:
        (M,) int64; the box of each mask, -1 for none.
    """
    box_groups = boxes.group_of if masks.has_group_of else np.zeros(len(boxes), dtype=bool)
    box_keys = (box_images * num_classes + boxes.labels) * 2 + box_groups
    mask_keys = (mask_images * num_classes + masks.labels) * 2 + masks.group_of
    order = np.argsort(box_keys, kind='stable')
    first = np.searchsorted(box_keys[order], mask_keys, side='left')
    counts = np.searchsorted(box_keys[order], mask_keys, side='right') - first
    box_ids, mask_ids = _shared_ids(boxes, masks)
    near: list[tuple[IntArray, IntArray, FloatArray]] = []
    ends = np.cumsum(counts)
    start = 0
    while start < len(masks):
        done = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, done + PAIRS_AT_A_TIME, side='right')))
        chunk = np.arange(start, stop)
        mask_index = np.repeat(chunk, counts[chunk])
        within = np.arange(len(mask_index)) - np.repeat(ends[chunk] - counts[chunk] - done, counts[chunk])
        box_index = order[first[mask_index] + within]
        distance = np.abs(boxes.boxes[box_index] - masks.boxes[mask_index]).max(axis=1, initial=0)
        same_id = (box_ids[box_index] == mask_ids[mask_index]) & (box_ids[box_index] >= 0)
        distance[same_id] = -1
        keep = distance <= tolerance
        near.append((mask_index[keep], box_index[keep], distance[keep]))
        start = stop
    return _one_to_one(near, num_masks=len(masks))


def _shared_ids(boxes: BoxRows, masks: MaskRows) -> tuple[IntArray, IntArray]:
    """BoxIDs as numbers, the same text the same number; -1 where there is none."""
    if boxes.box_ids is None or masks.box_ids is None:
        return np.full(len(boxes), -1, dtype=np.int64), np.full(len(masks), -1, dtype=np.int64)
    known = pc.unique(boxes.box_ids)
    known = known.filter(pc.not_equal(known, pa.scalar('')))
    return index_in(boxes.box_ids, known), index_in(masks.box_ids, known)


def _one_to_one(near: list[tuple[IntArray, IntArray, FloatArray]], *, num_masks: int) -> IntArray:
    """Takes the nearest pair, strikes out its mask and box, and so on; whole arrays at a time."""
    joined = np.full(num_masks, -1, dtype=np.int64)
    if not near:
        return joined
    mask_index, box_index, distance = (np.concatenate(column) for column in zip(*near, strict=True))
    order = np.lexsort((box_index, mask_index, distance))
    mask_index, box_index = mask_index[order], box_index[order]
    while len(mask_index):
        # A pair that is the nearest left for both its mask and its box is the one that would be taken.
        best_of_mask = np.zeros(len(mask_index), dtype=bool)
        best_of_mask[np.unique(mask_index, return_index=True)[1]] = True
        best_of_box = np.zeros(len(mask_index), dtype=bool)
        best_of_box[np.unique(box_index, return_index=True)[1]] = True
        taken = best_of_mask & best_of_box
        joined[mask_index[taken]] = box_index[taken]
        left = ~np.isin(mask_index, mask_index[taken]) & ~np.isin(box_index, box_index[taken])
        mask_index, box_index = mask_index[left], box_index[left]
    return joined
