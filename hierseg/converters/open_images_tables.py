"""The official Open Images tables, checked row by row, then sorted by image and joined by DuckDB.

:func:`write_tables` reads the three tables once. Their rows get labels and are checked block by block; DuckDB sorts
them by image on disk, in bounded memory, and finds the box of each mask. The result lies in small Arrow files, so that
:func:`read_piece` gives the rows of a few images to whoever converts them.

Source: the download page of Open Images (V4 to V7, Challenge 2018 and 2019). Columns are read by name, image ids as
text (they can be all digits, or look like the number 1e12). Shape letter: I instances of an image.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from hierseg.converters.open_images_masks import ImageTask
from hierseg.converters.options import EXAMPLES, ConversionOptions, ConversionSummary
from hierseg.errors import AnnotationError, StoreError
from hierseg.formats import BoolArray
from hierseg.formats.csv_tables import Chunk, place_of, read_chunks, read_header
from hierseg.formats.reading import reason_of
from hierseg.taxonomy import Taxonomy

# Coordinates are published with six decimals; a little more than their rounding may stick out.
OUTSIDE_TOLERANCE = 1e-5
CORNERS = ('XMin', 'YMin', 'XMax', 'YMax')
CONFIDENCE = 'Labels verified by people have 1 (present) or 0 (absent); machine-made labels cannot be used.'

# Rows beyond it go to the disk, into the folder of work.
DUCKDB_MEMORY = '400MB'
ROWS_PER_BLOCK = 1 << 14

ROWS = [('image_id', pa.string()), ('label', pa.int32()), ('row', pa.int64())]
BOXES = [*ROWS, *((name, pa.float64()) for name in ('x1', 'y1', 'x2', 'y2'))]
BOXES = [*BOXES, ('group_of', pa.bool_()), ('box_id', pa.string())]
SCHEMAS = {
    'masks': pa.schema([*BOXES, ('reference', pa.string()), ('height', pa.int32()), ('width', pa.int32())]),
    'boxes': pa.schema(BOXES),
    'labels': pa.schema([*ROWS, ('positive', pa.bool_())]),
}


@dataclass(frozen=True)
class TableReader:
    """Reads tables against one taxonomy, a block of rows at a time, in the form of ``SCHEMAS``.

    The options say which rows to leave out instead of refusing them; the summary counts them.
    """

    taxonomy: Taxonomy
    options: ConversionOptions
    summary: ConversionSummary

    def labels(self, path: Path) -> Iterator[pa.Table]:
        """Reads ``ImageID, LabelName, Confidence``."""
        for chunk in self._chunks(path, ['ImageID', 'LabelName', 'Confidence'], 'image-label'):
            positive = chunk.flags('Confidence', fix=CONFIDENCE)
            yield self._table(chunk, 'image-label', {'positive': positive}, SCHEMAS['labels'])

    def boxes(self, path: Path) -> Iterator[pa.Table]:
        """Reads ``ImageID, LabelName, XMin, XMax, YMin, YMax, IsGroupOf`` and, if it is there, ``BoxID``."""
        columns = ['ImageID', 'LabelName', 'BoxID', 'IsGroupOf', *CORNERS]
        for chunk in self._chunks(path, columns, 'box', optional=['BoxID']):
            yield self._table(chunk, 'box', _boxes(chunk, CORNERS), SCHEMAS['boxes'])

    def masks(self, path: Path) -> Iterator[pa.Table]:
        """Reads masks in the form with PNG paths or the evaluation form, told apart by their columns."""
        are_files = masks_are_files(path)
        coordinates = tuple(f'Box{name}' for name in CORNERS) if are_files else CORNERS
        own = ['MaskPath'] if are_files else ['Mask', 'ImageWidth', 'ImageHeight', 'IsGroupOf']
        columns = [*own, 'ImageID', 'LabelName', 'BoxID', *coordinates]
        for chunk in self._chunks(path, columns, 'mask', optional=['BoxID']):
            found: dict[str, Any] = {'reference': chunk.texts[own[0]]}
            if are_files:
                chunk.refuse(_empty(chunk, 'MaskPath'), lambda row: 'MaskPath is empty')
                chunk.refuse_outside('MaskPath')
                found |= dict.fromkeys(('height', 'width'), np.zeros(len(chunk), dtype=np.int64))
            else:
                found |= {'height': chunk.sizes('ImageHeight'), 'width': chunk.sizes('ImageWidth')}
                chunk.refuse_large(found['height'], found['width'], self.options.max_pixels)
            yield self._table(chunk, 'mask', found | _boxes(chunk, coordinates), SCHEMAS['masks'])

    def _chunks(
        self, path: Path, columns: Sequence[str], kind: str, *, optional: Sequence[str] = ()
    ) -> Iterator[Chunk]:
        def skip(row: int, what: str) -> None:
            self._skip_bad(kind, 1, [(row, what)], path)

        return read_chunks(path, columns, optional=optional, skip_lines=skip if self.options.skip_bad_rows else None)

    def _table(self, chunk: Chunk, kind: str, columns: dict[str, Any], schema: pa.Schema) -> pa.Table:
        """The rows that are kept, with labels for class ids."""
        ids = chunk.texts['LabelName']
        chunk.refuse(_empty(chunk, 'ImageID'), lambda row: 'ImageID is empty')
        chunk.refuse_outside('ImageID')
        labels = chunk.labels('LabelName', self.taxonomy.ids, refuse=not self.options.skip_unknown_classes)
        wrong = chunk.wrong()
        if wrong.any():
            if not self.options.skip_bad_rows:
                chunk.check()
            rows = np.flatnonzero(wrong).tolist()
            examples = [(int(chunk.rows[row]), chunk.fault_of(row)) for row in rows[:EXAMPLES]]
            self._skip_bad(kind, len(rows), examples, chunk.path)
        unknown = (labels < 0) & ~wrong
        if unknown.any():
            classes = pc.unique(ids.filter(pa.array(unknown))).to_pylist()
            self.summary.skip(f'{kind} rows of classes not in the taxonomy', classes, count=int(unknown.sum()))
        columns |= {'image_id': chunk.texts['ImageID'], 'label': labels.astype(np.int32), 'row': chunk.rows}
        table = pa.table({name: columns[name] for name in schema.names}).cast(schema)
        keep = ~wrong & ~unknown
        return table if keep.all() else table.filter(pa.array(keep))

    def _skip_bad(self, kind: str, count: int, examples: Sequence[tuple[int, str]], path: Path) -> None:
        reason = f'{kind} rows that cannot be used'
        known = len(self.summary.skipped[reason].examples) if reason in self.summary.skipped else 0
        # Lines are looked up for those that will be shown, for that takes reading the file again.
        shown = [f'{place_of(path, row)}: {what}' for row, what in examples[: EXAMPLES - known]]
        self.summary.skip(reason, shown, count=count)


def _boxes(chunk: Chunk, coordinates: Sequence[str]) -> dict[str, Any]:
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
    box_ids = chunk.texts['BoxID'] if 'BoxID' in chunk.texts else pa.repeat('', len(chunk))
    corners = zip(('x1', 'y1', 'x2', 'y2'), boxes.clip(0, 1).T, strict=True)
    return {**dict(corners), 'group_of': group_of, 'box_id': box_ids}


def masks_are_files(path: Path) -> bool:
    """True where a mask table names PNG files; otherwise it holds encoded masks, or AnnotationError is raised."""
    header = read_header(path)
    if 'MaskPath' not in header and 'Mask' not in header:
        raise AnnotationError(
            f'neither a column MaskPath nor a column Mask; the columns are {", ".join(header)}',
            where=str(path),
            fix='Give a segmentation CSV with PNG paths, or one with encoded masks.',
        )
    return 'MaskPath' in header


def _empty(chunk: Chunk, name: str) -> BoolArray:
    return np.asarray(pc.equal(chunk.texts[name], ''))


MOST_PAIRS = 1 << 22
"""Of nearly equal masks and boxes of one class on one image; more would fill the disk."""
# Equal BoxIDs join whatever the coordinates; -1 comes before all distances. Left sides leave few pairs to measure.
PAIRS = """
SELECT image_id, masks.label AS label, masks.row AS mask, boxes.row AS box,
    CASE WHEN masks.box_id = boxes.box_id AND masks.box_id <> '' THEN -1 ELSE greatest(
        abs(masks.x1 - boxes.x1), abs(masks.y1 - boxes.y1), abs(masks.x2 - boxes.x2), abs(masks.y2 - boxes.y2)
    ) END AS distance
FROM {masks} AS masks JOIN boxes USING (image_id) WHERE masks.label = boxes.label
    AND (abs(masks.x1 - boxes.x1) <= $tolerance OR (masks.box_id <> '' AND masks.box_id = boxes.box_id))
    AND masks.group_of = (boxes.group_of AND $has_group_of) AND distance <= $tolerance
"""
# Pairs are counted only where so many masks and boxes of one class meet that there could be too many.
CROWDED = f"""
WITH crowds AS (
    SELECT image_id, label FROM (
        SELECT image_id, label, true AS is_mask FROM masks UNION ALL SELECT image_id, label, false FROM boxes
    ) GROUP BY ALL HAVING count(*) FILTER (is_mask) * count(*) FILTER (NOT is_mask) > {MOST_PAIRS}
)
SELECT image_id, count(*) AS number FROM ({PAIRS.format(masks='(FROM masks SEMI JOIN crowds USING (image_id, label))')})
GROUP BY image_id, label HAVING number > {MOST_PAIRS} LIMIT 1
"""
NEAREST_FIRST = f'SELECT mask, box FROM ({PAIRS.format(masks="masks")}) ORDER BY distance, mask, box'


def join_masks(database: duckdb.DuckDBPyConnection, *, has_group_of: bool, tolerance: float) -> None:
    """Joins masks to boxes one to one, nearest first, into a table ``joined`` of ``mask`` and ``box``, their rows.

    The released tables share no key, and their coordinates differ in the decimals. Candidates have the same image and
    class (and IsGroupOf, where the masks say it). Equal BoxIDs join whatever the coordinates; other pairs join if no
    coordinate differs by more than ``tolerance``, in ascending order of the largest difference, ties in file order.

    Args:
        database: Has the tables ``masks`` and ``boxes``.
        has_group_of: Whether the mask table says what is a group (the form with paths does not).
        tolerance: As a fraction of the image's width and height.
    """
    options = {'has_group_of': has_group_of, 'tolerance': tolerance}
    for image_id, number in database.execute(CROWDED, options).fetchall():
        what = f'has {number:,} pairs of a mask and a nearly equal box of one class; {MOST_PAIRS:,} are allowed'
        raise AnnotationError(what, where=f'image {image_id}', fix='Leave out what is there twice.')
    mask_taken, box_taken = (bytearray(_rows(database, name)) for name in ('masks', 'boxes'))
    joined: list[tuple[int, int]] = []
    for pairs in database.sql(NEAREST_FIRST, params=options).to_arrow_reader(ROWS_PER_BLOCK):
        masks, boxes = (np.asarray(column) for column in pairs.columns)
        left = (np.frombuffer(mask_taken, bool)[masks] | np.frombuffer(box_taken, bool)[boxes]) == 0
        for mask, box in zip(masks[left].tolist(), boxes[left].tolist(), strict=True):
            if not (mask_taken[mask] or box_taken[box]):
                mask_taken[mask] = box_taken[box] = True
                joined.append((mask, box))
    rows = np.array(joined, dtype=np.int64).reshape(-1, 2).T
    database.from_arrow(pa.table([*rows], names=['mask', 'box'])).create('joined')


def _rows(database: duckdb.DuckDBPyConnection, table: str) -> int:
    """The number behind that of the last row."""
    [(count,)] = database.execute(f'SELECT coalesce(max(row), -1) + 1 FROM {table}').fetchall()
    return int(count)


FIND_IMAGES = """
CREATE TABLE images AS SELECT image_id, row_number() OVER (ORDER BY image_id) - 1 AS image
FROM (SELECT image_id FROM masks UNION SELECT image_id FROM boxes UNION SELECT image_id FROM labels)
"""
# By image: its verified labels, ascending, each once; its boxes in the order of their file, each with its mask, then
# the masks without a box in theirs.
BY_IMAGE = {
    'images': 'SELECT image, image_id FROM images ORDER BY image',
    'labels': """
        SELECT DISTINCT image, label, positive FROM labels JOIN images USING (image_id) ORDER BY image, label
    """,
    'instances': """
        SELECT image, boxes.label, boxes.x1, boxes.y1, boxes.x2, boxes.y2, boxes.group_of,
            coalesce(nullif(masks.box_id, ''), boxes.box_id) AS annotation_id, masks.reference,
            coalesce(masks.height, 0) AS height, coalesce(masks.width, 0) AS width,
            coalesce(masks.row, -1) AS mask_row, true AS has_box, boxes.row AS place
        FROM boxes JOIN images USING (image_id)
        LEFT JOIN joined ON joined.box = boxes.row LEFT JOIN masks ON masks.row = joined.mask
        UNION ALL
        SELECT image, label, x1, y1, x2, y2, group_of, box_id, reference, height, width, row, false, row
        FROM masks JOIN images USING (image_id) ANTI JOIN joined ON joined.mask = masks.row
        ORDER BY image, has_box DESC, place
    """,
}


def write_tables(
    folder: Path,
    reader: TableReader,
    tables: dict[str, Path],
    *,
    images_per_batch: int,
    images_per_piece: int,
    progress: bool = False,
) -> int:
    """Reads the tables once and writes their rows by image into a folder, a file for each batch of images.

    In memory are one block of a table, some hundred megabytes while it is parsed, and ``DUCKDB_MEMORY``.

    Args:
        folder: To make; what is there is removed.
        reader: Reads, and counts the rows that are left out and those that are not.
        tables: ``masks``, ``boxes`` and ``labels``: their files.
        images_per_batch: So many to a file.
        images_per_piece: So many to read back at a time.
        progress: Show bars on stderr.

    Returns:
        The number of images that any of the tables names; they are sorted by id.

    Raises:
        AnnotationError: On bad rows, or if there are neither boxes nor masks.
        StoreError: If the folder cannot be written.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    scratch = folder / 'scratch'
    scratch.mkdir()
    limits: dict[str, Any] = {'threads': 1, 'memory_limit': DUCKDB_MEMORY, 'temp_directory': str(scratch / 'spilled')}
    try:
        with duckdb.connect(str(scratch / 'tables.duckdb'), config=limits) as database:
            for name, schema in SCHEMAS.items():
                with tqdm(desc=f'reading {name}', unit='row', unit_scale=True, disable=not progress) as bar:
                    database.from_arrow(schema.empty_table()).create(name)
                    for block in getattr(reader, name)(tables[name]):
                        database.from_arrow(block).insert_into(name)
                        bar.update(block.num_rows)
            reader.summary.box_rows, reader.summary.mask_rows = (_count(database, name) for name in ('boxes', 'masks'))
            if reader.summary.box_rows + reader.summary.mask_rows == 0:
                raise AnnotationError(
                    'the split is empty: there are no boxes and no masks of classes of the taxonomy',
                    where=f'{tables["boxes"]}, {tables["masks"]}',
                    fix='Check that the files are of one split and fit the taxonomy.',
                )
            database.execute(FIND_IMAGES)
            has_group_of = not masks_are_files(tables['masks'])
            join_masks(database, has_group_of=has_group_of, tolerance=reader.options.box_tolerance)
            num_images = _count(database, 'images')
            for name, query in BY_IMAGE.items():
                rows = database.sql(query).to_arrow_reader(ROWS_PER_BLOCK)
                _write_batches(folder, name, rows, num_images, images_per_batch, images_per_piece)
    except (duckdb.IOException, duckdb.OutOfMemoryException) as error:
        what = f'cannot hold the sorted tables ({reason_of(error)})'
        raise StoreError(what, where=str(scratch), fix='Make room.') from None
    shutil.rmtree(scratch)
    return num_images


def _count(database: duckdb.DuckDBPyConnection, table: str) -> int:
    [(count,)] = database.execute(f'SELECT count(*) FROM {table}').fetchall()
    return int(count)


def batches_of(num_images: int, images_per_batch: int) -> list[tuple[int, int]]:
    """First image of each batch, and the first behind it.

    Example:
        >>> batches_of(10, 4)
        [(0, 4), (4, 8), (8, 10)]
    """
    return [(first, min(first + images_per_batch, num_images)) for first in range(0, num_images, images_per_batch)]


def _write_batches(
    folder: Path, name: str, rows: pa.RecordBatchReader, num_images: int, images_per_batch: int, images_per_piece: int
) -> None:
    """Cuts rows that are sorted by image: a file for each batch, a record batch for each of its pieces."""
    pending = rows.schema.empty_table()
    for first, last in batches_of(num_images, images_per_batch):
        with pa.ipc.new_file(f'{folder}/{first:08}-{name}.arrow', rows.schema) as file:
            for end in [*range(first + images_per_piece, last, images_per_piece), last]:
                parts = []
                while pending is not None:
                    stop = int(np.searchsorted(pending['image'].to_numpy(), end))
                    parts.append(pending.slice(0, stop))
                    pending = pending.slice(stop)
                    if pending.num_rows:
                        break
                    block = next(rows, None)
                    pending = None if block is None else pa.Table.from_batches([block])
                piece = pa.concat_tables(parts) if parts else rows.schema.empty_table()
                columns = [column.combine_chunks() for column in piece.columns]
                file.write_batch(pa.RecordBatch.from_arrays(columns, schema=rows.schema))


def read_piece(folder: Path, first: int, piece: int) -> list[ImageTask]:
    """The rows of the images of one piece, in the order of their ids.

    Args:
        folder: Of :func:`write_tables`; StoreError if it is not there.
        first: The first image of the piece's batch.
        piece: Its number within the batch.
    """
    try:
        images, labels, instances = (
            # Of a buffer: to open a file, mapped or not, Arrow asks its threads, which takes ten times as long.
            pa.ipc.open_file(pa.memory_map(f'{folder}/{first:08}-{name}.arrow').read_buffer()).get_batch(piece)
            for name in BY_IMAGE
        )
    except OSError as error:
        fix = 'All workers must see the folder of the output.'
        raise StoreError(f'cannot be read ({error.strerror})', where=str(folder), fix=fix) from None
    numbers = images['image'].to_numpy()
    of_image, of_label = (
        [*np.searchsorted(rows['image'].to_numpy(), numbers).tolist(), len(rows)] for rows in (instances, labels)
    )
    columns = {name: instances[name].to_numpy(zero_copy_only=False) for name in instances.schema.names}
    sizes = np.stack([columns[name] for name in ('height', 'width')], axis=1, dtype=np.int64)
    boxes = np.stack([columns[name] for name in ('x1', 'y1', 'x2', 'y2')], axis=1)
    classes, verified = (rows['label'].to_numpy().astype(np.int64) for rows in (instances, labels))
    annotation_ids, references = (columns[name].tolist() for name in ('annotation_id', 'reference'))
    positive = labels['positive'].to_numpy(zero_copy_only=False)
    tasks = []
    for at, image_id in enumerate(images['image_id'].to_pylist()):
        mine, own = slice(of_image[at], of_image[at + 1]), slice(of_label[at], of_label[at + 1])
        tasks.append(
            ImageTask(
                image_id,
                labels=classes[mine],
                boxes=boxes[mine],
                group_of=columns['group_of'][mine],
                annotation_ids=annotation_ids[mine],
                references=references[mine],
                mask_sizes=sizes[mine],
                mask_rows=columns['mask_row'][mine],
                has_box=columns['has_box'][mine],
                positive=verified[own][positive[own]],
                negative=verified[own][~positive[own]],
            )
        )
    return tasks
