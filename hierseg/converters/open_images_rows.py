"""The rows that the three official tables have on some images, joined and cut into images.

Rows of tables of any size, grouped by image on disk in bounded memory.

The rows of an official table do not come image by image. Each block of a table is sorted by image id and written in
small pieces; the rows of a range of images are then found in the few pieces of every block that overlap the range.

The official tables on disk by image, so that any range of images can be converted on its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from hierseg.converters.open_images_masks import ImageTask
from hierseg.converters.open_images_tables import (
    BoxRows,
    LabelRows,
    MaskRows,
    Rows,
    TableReader,
    join_masks,
    masks_are_files,
)
from hierseg.converters.options import ShardNumber
from hierseg.errors import AnnotationError
from hierseg.formats import FloatArray, IntArray
from hierseg.formats.csv_tables import index_in

KEY = 'image_id'
ROWS_PER_PIECE = 2048
IDS_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class PieceRanges:
    """The first and the last image id in each piece of a file."""

    first: Sequence[str]
    last: Sequence[str]


class SortedRowsWriter:
    """Writes blocks of one table.

    Args:
        path: The Arrow file to write.
        schema: Of the rows; one column is ``image_id``.

    Attributes:
        rows: How many have been added.
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.rows = 0
        self._file = pa.ipc.new_file(str(path), schema)
        self._first: list[str] = []
        self._last: list[str] = []

    def add(self, block: pa.RecordBatch) -> None:
        """Adds rows with an image id each, in any order; those of one image keep theirs."""
        block = block.take(pc.sort_indices(block.column(KEY)))
        for start in range(0, block.num_rows, ROWS_PER_PIECE):
            piece = block.slice(start, ROWS_PER_PIECE)
            self._first.append(piece.column(KEY)[0].as_py())
            self._last.append(piece.column(KEY)[-1].as_py())
            self._file.write_batch(piece)
        self.rows += block.num_rows

    def close(self) -> PieceRanges:
        """Ends the file."""
        self._file.close()
        return PieceRanges(self._first, self._last)


class SortedRows:
    """Reads what :class:`SortedRowsWriter` wrote."""

    def __init__(self, path: Path, ranges: PieceRanges) -> None:
        # No memory map: its pages would count as this process's memory until something else needs them.
        self._file = pa.ipc.open_file(pa.OSFile(str(path)))
        self._first, self._last = (np.array(ids, dtype=object) for ids in (ranges.first, ranges.last))

    def of(self, image_ids: pa.Array) -> pa.Table:
        """All rows of consecutive images, given ascending; those of one image in the order of the file."""
        tables = []
        overlapping = (self._last >= image_ids[0].as_py()) & (self._first <= image_ids[-1].as_py())
        for number in np.flatnonzero(overlapping).tolist():
            piece = self._file.get_batch(number)
            tables.append(piece.filter(pa.array(index_in(piece.column(KEY), image_ids) >= 0)))
        return pa.Table.from_batches(tables, self._file.schema)


class UniqueIds:
    """Collects image ids from blocks in which most come several times, in memory of a few times the distinct ones."""

    def __init__(self) -> None:
        self._known = pa.array([], pa.string())
        self._new: list[pa.Array] = []
        self._count = 0

    def add(self, ids: pa.Array) -> None:
        """Adds ids, repeated or not."""
        self._new.append(pc.unique(ids))
        self._count += len(self._new[-1])
        if self._count >= max(IDS_AT_ONCE, len(self._known)):
            self._gather()

    def _gather(self) -> None:
        self._known = pc.unique(pa.chunked_array([self._known, *self._new], pa.string()))
        self._new, self._count = [], 0

    def ascending(self) -> pa.Array:
        """All of them, each once."""
        self._gather()
        return self._known.take(pc.sort_indices(self._known))


ROWS = [(KEY, pa.string()), ('label', pa.int32()), ('row', pa.int64())]
BOXES = [*ROWS, ('box', pa.list_(pa.float64(), 4)), ('group_of', pa.bool_()), ('box_id', pa.string())]
SCHEMAS = {
    'masks': pa.schema([*BOXES, ('reference', pa.string()), ('height', pa.int32()), ('width', pa.int32())]),
    'boxes': pa.schema(BOXES),
    'labels': pa.schema([*ROWS, ('positive', pa.bool_())]),
}


@dataclass(frozen=True)
class Partition:
    """What is known of the tables beside their rows on disk.

    Attributes:
        num_images: N images that any of the tables names.
        masks_are_files: Whether masks are PNG files; otherwise they are text in their table.
        ranges: Table → the image ids in each piece of its file.
    """

    num_images: int
    masks_are_files: bool
    ranges: dict[str, PieceRanges]

    def to_json(self) -> dict[str, Any]:
        """Read back by :meth:`from_json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Partition:
        """Reads what :meth:`to_json` gave."""
        return cls(**{**document, 'ranges': {name: PieceRanges(**found) for name, found in document['ranges'].items()}})


def write_partition(
    folder: Path,
    reader: TableReader,
    tables: dict[str, Path],
    *,
    shard: ShardNumber,
    images_per_batch: int,
    progress: bool = False,
) -> Partition:
    """Reads the tables once and writes their rows, and the image ids in batches, into a folder.

    In memory are one block of a table, some hundred megabytes while it is parsed, and the image ids, about 20 bytes
    each, three times while they are gathered.

    Args:
        folder: Exists; what is in it may be replaced.
        reader: Reads, and counts the rows that are left out and those that are not.
        tables: ``masks``, ``boxes`` and ``labels``: their files.
        shard: Which images are to be read back.
        images_per_batch: So many at a time.
        progress: Show a bar on stderr.

    Raises:
        AnnotationError: On bad rows, or if there are neither boxes nor masks.
    """
    are_files = masks_are_files(tables['masks'])
    ids, ranges, counts = UniqueIds(), {}, {}
    for name, schema in SCHEMAS.items():
        blocks: Iterable[Rows] = getattr(reader, name)(tables[name])
        writer = SortedRowsWriter(folder / f'{name}.arrow', schema)
        with tqdm(desc=f'sorting {name}', unit='row', unit_scale=True, disable=not progress) as bar:
            for rows in blocks:
                writer.add(_record_batch(rows, schema))
                ids.add(rows.image_ids)
                bar.update(len(rows))
        ranges[name], counts[name] = writer.close(), writer.rows
    if counts['boxes'] + counts['masks'] == 0:
        raise AnnotationError(
            'the split is empty: there are no boxes and no masks of classes of the taxonomy',
            where=f'{tables["boxes"]}, {tables["masks"]}',
            fix='Check that the files are of one split and fit the taxonomy.',
        )
    reader.summary.box_rows, reader.summary.mask_rows = counts['boxes'], counts['masks']
    image_ids = ids.ascending()
    schema = pa.schema([(KEY, pa.string())])
    with pa.ipc.new_file(str(folder / 'ids.arrow'), schema) as file:
        for first, last in shard.batches(len(image_ids), images_per_batch):
            file.write_batch(pa.record_batch([image_ids.slice(first, last - first)], schema=schema))
    return Partition(len(image_ids), are_files, ranges)


def _record_batch(rows: Rows, schema: pa.Schema) -> pa.RecordBatch:
    found: dict[str, Any] = {KEY: rows.image_ids, 'label': rows.labels, 'row': rows.rows}
    if isinstance(rows, LabelRows):
        found['positive'] = rows.positive
    if isinstance(rows, BoxRows):
        found['box'] = pa.FixedSizeListArray.from_arrays(pa.array(rows.boxes.reshape(-1)), 4)
        found['group_of'] = rows.group_of
        found['box_id'] = [''] * len(rows) if rows.box_ids is None else rows.box_ids
    if isinstance(rows, MaskRows):
        sizes = np.zeros((len(rows), 2), dtype=np.int64) if rows.sizes is None else rows.sizes
        found |= {'reference': rows.references, 'height': sizes[:, 0], 'width': sizes[:, 1]}
    columns = [found[field.name] for field in schema]
    arrays = [
        column if isinstance(column, pa.Array) else pa.array(column, field.type)
        for field, column in zip(schema, columns, strict=True)
    ]
    return pa.record_batch(arrays, schema=schema)


class PartitionedTables:
    """Reads the rows of batches of images back.

    Args:
        folder: What :func:`write_partition` wrote.
        partition: What it returned.
        tables: The files that the rows came from, to say where something is wrong.
        num_classes: C.
        tolerance: Of the join, see ``join_masks``.
    """

    def __init__(
        self, folder: Path, partition: Partition, tables: dict[str, Path], *, num_classes: int, tolerance: float
    ) -> None:
        self.folder, self.partition, self.tables = folder, partition, tables
        self.num_classes, self.tolerance = num_classes, tolerance
        self._rows = {name: SortedRows(folder / f'{name}.arrow', partition.ranges[name]) for name in SCHEMAS}
        self._ids = pa.ipc.open_file(pa.OSFile(str(folder / 'ids.arrow')))

    def __reduce__(self) -> tuple[Callable[..., PartitionedTables], tuple[object, ...]]:
        return _partitioned_tables, (self.folder, self.partition, self.tables, self.num_classes, self.tolerance)

    def batch(self, number: int) -> Split:
        """All rows of one batch of images."""
        image_ids = self._ids.get_batch(number).column(0)
        boxes, labels, masks = (self._columns(name, image_ids) for name in ('boxes', 'labels', 'masks'))
        box_rows, mask_rows = (
            {
                **_common(self.tables[name], columns),
                'boxes': _boxes(columns['box']),
                'group_of': columns['group_of'].to_numpy(zero_copy_only=False),
                'box_ids': columns['box_id'],
            }
            for name, columns in (('boxes', boxes), ('masks', masks))
        )
        are_files = self.partition.masks_are_files
        sizes = np.stack([masks[name].to_numpy().astype(np.int64) for name in ('height', 'width')], axis=1)
        return Split(
            image_ids,
            boxes=BoxRows(**box_rows),
            labels=LabelRows(
                **_common(self.tables['labels'], labels),
                positive=labels['positive'].to_numpy(zero_copy_only=False),
            ),
            masks=MaskRows(
                **mask_rows,
                references=masks['reference'],
                sizes=None if are_files else sizes,
                has_group_of=not are_files,
            ),
            num_classes=self.num_classes,
            tolerance=self.tolerance,
        )

    def _columns(self, table: str, image_ids: pa.Array) -> dict[str, pa.Array]:
        rows = self._rows[table].of(image_ids)
        return {name: rows.column(name).combine_chunks() for name in rows.column_names}


def _partitioned_tables(
    folder: Path, partition: Partition, tables: dict[str, Path], num_classes: int, tolerance: float
) -> PartitionedTables:
    return PartitionedTables(folder, partition, tables, num_classes=num_classes, tolerance=tolerance)


def _common(path: Path, columns: dict[str, pa.Array]) -> dict[str, Any]:
    labels = columns['label'].to_numpy().astype(np.int64)
    return {'path': path, 'rows': columns['row'].to_numpy(), 'image_ids': columns[KEY], 'labels': labels}


def _boxes(column: pa.FixedSizeListArray) -> FloatArray:
    boxes: FloatArray = column.flatten().to_numpy().reshape(-1, 4)
    return boxes


class Split:
    """All rows of N images, joined and sorted by image.

    Args:
        image_ids: (N,) text, ascending.
        boxes: Box rows.
        labels: Image-label rows.
        masks: Mask rows.
        num_classes: C.
        tolerance: Of the join, see :func:`join_masks`.

    Attributes:
        image_ids: As given.
    """

    def __init__(
        self,
        image_ids: pa.Array,
        *,
        boxes: BoxRows,
        labels: LabelRows,
        masks: MaskRows,
        num_classes: int,
        tolerance: float,
    ) -> None:
        self.image_ids = image_ids
        box_images, label_images, mask_images = (index_in(rows.image_ids, image_ids) for rows in (boxes, labels, masks))
        box_of_mask = join_masks(boxes, masks, box_images, mask_images, num_classes=num_classes, tolerance=tolerance)
        alone = np.flatnonzero(box_of_mask < 0)
        mask_of_box = np.full(len(boxes), -1, dtype=np.int64)
        joined = np.flatnonzero(box_of_mask >= 0)
        mask_of_box[box_of_mask[joined]] = joined
        images = np.concatenate([box_images, mask_images[alone]])
        order = np.argsort(images, kind='stable')
        self._images = images[order]
        self._labels = np.concatenate([boxes.labels, masks.labels[alone]])[order]
        self._boxes: FloatArray = np.concatenate([boxes.boxes, masks.boxes[alone]])[order]
        self._group_of = np.concatenate([boxes.group_of, masks.group_of[alone]])[order]
        self._mask: IntArray = np.concatenate([mask_of_box, alone])[order]
        self._box: IntArray = np.concatenate([np.arange(len(boxes)), np.full(len(alone), -1)])[order]
        self._box_ids, self._mask_ids, self._masks = boxes.box_ids, masks.box_ids, masks
        order = np.argsort(label_images, kind='stable')
        self._verified = (label_images[order], labels.labels[order], labels.positive[order])

    def task(self, image: int) -> ImageTask:
        """The rows of one image."""
        rows = slice(*np.searchsorted(self._images, [image, image + 1]))
        mask = self._mask[rows]
        sizes = np.zeros((len(mask), 2), dtype=np.int64)
        if self._masks.sizes is not None:
            sizes[mask >= 0] = self._masks.sizes[mask[mask >= 0]]
        mask_ids = _texts(self._mask_ids, mask)
        box_ids = _texts(self._box_ids, self._box[rows])
        return ImageTask(
            self.image_ids[image].as_py(),
            labels=self._labels[rows],
            boxes=self._boxes[rows],
            group_of=self._group_of[rows],
            annotation_ids=[of_mask or of_box or '' for of_mask, of_box in zip(mask_ids, box_ids, strict=True)],
            references=_texts(self._masks.references, mask),
            mask_sizes=sizes,
            mask_rows=np.where(mask >= 0, self._masks.rows[mask], -1) if len(self._masks) else mask,
        )

    def num_joined(self, first: int, last: int) -> tuple[int, int]:
        """How many masks of the images ``first`` to ``last - 1`` have a box row, and how many have none."""
        rows = slice(*np.searchsorted(self._images, [first, last]))
        alone = self._box[rows] < 0
        return int(np.count_nonzero(self._mask[rows] >= 0) - np.count_nonzero(alone)), int(np.count_nonzero(alone))

    def verified(self, image: int) -> tuple[IntArray, IntArray]:
        """Labels verified as present and as absent."""
        images, labels, positive = self._verified
        first, last = np.searchsorted(images, [image, image + 1])
        return labels[first:last][positive[first:last]], labels[first:last][~positive[first:last]]


def _texts(column: pa.Array | None, rows: IntArray) -> Sequence[str | None]:
    """Values of a text column; None where the row is -1."""
    if column is None or len(rows) == 0:
        return [None] * len(rows)
    return [column[row].as_py() if row >= 0 else None for row in rows.tolist()]
