"""The official tables on disk by image, so that any range of images can be converted on its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from hierseg.annotations.openimages_options import ShardNumber
from hierseg.annotations.openimages_split import Split
from hierseg.annotations.openimages_tables import BoxRows, LabelRows, MaskRows, Rows, TableReader, masks_are_files
from hierseg.annotations.records import FloatArray
from hierseg.annotations.sorted_rows import KEY, PieceRanges, SortedRows, SortedRowsWriter, UniqueIds
from hierseg.errors import AnnotationError

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
