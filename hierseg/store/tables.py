"""Tables of a store: memory-mapped Arrow files, checked before anything in them is trusted.

Arrow's own frame is checked when a file is opened, and its rows when a record batch is first read, by checksums where
the store has them (version 2) and for sense in any case: a wild offset in a file would be a wild address in memory.
"""

from __future__ import annotations

import mmap
import os
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from hierseg.errors import StoreError
from hierseg.store.checksums import FilePart, batches, measure_parts
from hierseg.store.folders import CONVERT_AGAIN, open_member

SIDES = ('x1', 'y1', 'x2', 'y2')
IMAGE_FIELDS = [('id', pa.string()), ('file_name', pa.string()), ('width', pa.int32()), ('height', pa.int32())]
SPANS = ('first_instance', 'last_instance', 'first_verified', 'last_verified')
"""Rows of the other tables that belong to an image, as half-open ranges."""
IMAGES_SCHEMA = pa.schema([*IMAGE_FIELDS, *((name, pa.int64()) for name in SPANS)])
INSTANCES_SCHEMA = pa.schema(
    [
        ('label', pa.int32()),
        *((side, pa.float64()) for side in SIDES),
        ('mask', pa.large_binary()),
        ('has_mask', pa.bool_()),
        ('group_of', pa.bool_()),
        ('area', pa.float64()),
        ('annotation_id', pa.string()),
    ]
)
VERIFIED_SCHEMA = pa.schema([('label', pa.int32()), ('positive', pa.bool_())])
SCHEMAS = {'images': IMAGES_SCHEMA, 'instances': INSTANCES_SCHEMA, 'verified': VERIFIED_SCHEMA}
NOT_EXHAUSTIVE = 'not_exhaustive'
NOT_EXHAUSTIVE_SCHEMA = pa.schema([('image', pa.int64()), ('label', pa.int32())])
"""A further table, of the stores alone that have such labels: rows ascend by image, then by label."""

Views = dict[str, npt.NDArray[Any]]


class MappedFile:
    """A file of a store in memory, as it was when it was opened.

    Args:
        folder: Descriptor of the store's folder.
        path: The file, within the folder.
        parts: Its parts with their checksums; None where the store has none.

    Raises:
        StoreError: If it is missing, empty, no plain file, or of another size than its parts.
    """

    def __init__(self, folder: int, path: Path, parts: Sequence[FilePart] | None) -> None:
        self.path = path
        try:
            descriptor = open_member(folder, path.name)
            try:
                # Also keeps a descriptor of its own, which tells the size of the file at any time.
                self.content = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
            finally:
                os.close(descriptor)
        except (OSError, ValueError) as error:  # ValueError: an empty file
            raise self.error(f'cannot be read ({error})') from None
        self.size = len(self.content)
        if parts is not None and self.size != parts[-1].last:
            raise self.error(f'has {self.size:,} bytes, store.json says {parts[-1].last:,}')
        self.parts = [FilePart('unchecked', 0, self.size, '')] if parts is None else parts

    def error(self, what: str) -> StoreError:
        """The error of something wrong with this file."""
        return StoreError(what, where=str(self.path), fix=f'The store is damaged. {CONVERT_AGAIN}')

    def check(self, parts: Sequence[FilePart]) -> None:
        """Raises a StoreError if the file no longer holds some of its parts."""
        self.check_size()
        for part in parts:
            if part.checksum and not part.fits(self.content):
                raise self.error(f'is damaged in its bytes {part.first:,} to {part.last:,}: a checksum does not fit')

    def check_size(self) -> None:
        """Raises a StoreError if the file was cut off since: reading on would end the process."""
        if self.content.size() != self.size:
            raise self.error(f'has {self.content.size():,} bytes, {self.size:,} when it was opened')

    def damaged(self) -> list[FilePart]:
        """All parts that do not fit, masks too."""
        self.check_size()
        return [part for part in self.parts if part.checksum and not part.fits(self.content)]


class MappedTable:
    """One Arrow file of several record batches, addressed by row.

    An image's rows never straddle two batches (the writer sees to it), so that they are a slice of one batch.

    Args:
        file: The file.
        schema: Its columns.
        fault: Says what is wrong with the :class:`Views` of a batch, or nothing.
    """

    def __init__(self, file: MappedFile, schema: pa.Schema, fault: Callable[[Views], str | None]) -> None:
        self.file, self.schema, self._fault = file, schema, fault
        heads = [part for part in file.parts if part.kind == 'head']
        self._rows = [[part for part in batch if part.kind == 'rows'] for batch in batches(file.parts)]
        content = file.content
        # pa.memory_map would ask the system for whole batches, masks and all, and so does its reading ahead.
        content.madvise(mmap.MADV_RANDOM)
        file.check(heads)
        found = open_batches(file, schema)
        content.madvise(mmap.MADV_NORMAL)
        if heads and len(self._rows) != len(found):
            raise file.error(f'has {len(found)} record batches, store.json says {len(self._rows)}')
        self._batches = found
        starts = np.cumsum([0, *(batch.num_rows for batch in found)])
        self.starts: list[int] = starts.tolist()
        self._views: dict[int, Views] = {}

    def __len__(self) -> int:
        return self.starts[-1]

    def batches(self) -> list[pa.RecordBatch]:
        """All record batches, whose bytes are those that were written."""
        self.file.check([part for rows in self._rows for part in rows])
        return self._batches

    def batch_with(self, row: int) -> tuple[int, Views]:
        """First row and :meth:`views` of the batch that holds a row."""
        self.file.check_size()
        index = bisect_right(self.starts, row) - 1
        return self.starts[index], self.views(index)

    def views(self, index: int) -> Views:
        """Numpy views of a batch's fixed-width columns, and of offsets and bytes of the others."""
        if index not in self._views:
            self.file.check(self._rows[index] if self._rows else ())
            try:
                views = views_of(self._batches[index])
            except ValueError as error:
                raise self.file.error(f'holds a record batch that makes no sense ({error})') from None
            fault = self._fault(views)
            if fault is not None:
                raise self.file.error(f'holds {fault}')
            self._views[index] = views
        return self._views[index]

    def column(self, name: str) -> npt.NDArray[Any]:
        """A whole fixed-width column, copied out of its batches."""
        self.file.check_size()
        empty: npt.NDArray[Any] = np.zeros(0, dtype=str(self.schema.field(name).type))
        return np.concatenate([empty, *(self.views(index)[name] for index in range(len(self._batches)))])


def open_batches(file: MappedFile, schema: pa.Schema) -> list[pa.RecordBatch]:
    """The record batches of an Arrow file of these columns, which lie within the file; no row of them is read."""
    whole = pa.py_buffer(file.content)
    try:
        reader = pa.ipc.open_file(pa.BufferReader(whole))
        if not reader.schema.equals(schema):
            raise file.error(f'holds the columns {reader.schema.names}, expected {schema.names}')
        found = [reader.get_batch(index) for index in range(reader.num_record_batches)]
        for batch in found:
            batch.validate()
    except StoreError:
        raise
    except (OSError, ValueError, MemoryError, pa.ArrowException) as error:
        raise file.error(f'cannot be read ({error})') from None
    for batch in found:
        for buffer in buffers_of(batch):
            if not whole.address <= buffer.address <= buffer.address + buffer.size <= whole.address + whole.size:
                raise file.error('cannot be read (a record batch is compressed)')
    return found


def buffers_of(batch: pa.RecordBatch) -> list[pa.Buffer]:
    """The buffers of a record batch that hold something."""
    return [buffer for column in batch.columns for buffer in column.buffers() if buffer is not None and buffer.size]


def views_of(batch: pa.RecordBatch) -> Views:
    """Numpy views of the buffers of a record batch; ValueError if its columns cannot be made of them."""
    views: Views = {}
    # From the buffers themselves: pyarrow's conversions to numpy import pandas, 25 MB in every process.
    for field, column in zip(batch.schema, batch.columns, strict=True):
        name, count = field.name, len(column)
        if column.offset or column.null_count:
            raise ValueError(f'column {name} lacks values')
        *_, data = column.buffers()
        content = np.frombuffer(data, dtype=np.uint8) if data else np.zeros(0, np.uint8)
        if pa.types.is_boolean(field.type):
            views[name] = np.unpackbits(content, count=count, bitorder='little').view(bool)
            # unpackbits fills up what is not there.
            if len(content) * 8 < count:
                raise ValueError(f'column {name} is cut off')
        elif pa.types.is_primitive(field.type):
            values = content[: len(content) // field.type.byte_width * field.type.byte_width]
            views[name] = values.view(str(field.type))[:count]
            if len(views[name]) < count:
                raise ValueError(f'column {name} is cut off')
        else:
            width = np.int64 if pa.types.is_large_binary(field.type) else np.int32
            read = np.frombuffer(column.buffers()[1] or b'', width, count + 1) if count else np.zeros(1, width)
            offsets: npt.NDArray[Any] = read
            if offsets[0] < 0 or (offsets[1:] < offsets[:-1]).any() or offsets[-1] > len(content):
                raise ValueError(f'column {name} has texts or masks that end before they begin or beyond all')
            if pa.types.is_string(field.type):
                column.validate(full=True)  # UTF-8
            views[f'{name}.offsets'] = offsets
            views[name] = content
    return views


def slices(views: Views, name: str, first: int, last: int) -> list[bytes]:
    """Texts or masks of the rows [first, last) of a batch."""
    offsets = views[f'{name}.offsets'][first : last + 1].tolist()
    if not offsets:
        return []
    data = views[name][offsets[0] : offsets[-1]].tobytes()
    return [data[a - offsets[0] : b - offsets[0]] for a, b in pairwise(offsets)]


def measure_table(path: Path) -> list[str]:
    """The parts of a table that was written, for ``store.json``."""
    with path.open('rb') as stream:
        content = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    whole = pa.py_buffer(content)
    reader = pa.ipc.open_file(pa.BufferReader(whole))
    cuts: list[tuple[str, int]] = []
    for index in range(reader.num_record_batches):
        batch = reader.get_batch(index)
        spans = [(b.address - whole.address, b.address - whole.address + b.size) for b in buffers_of(batch)]
        cuts.append(('head', min(first for first, _ in spans)))
        if 'mask' in batch.schema.names:
            *_, masks = batch.column('mask').buffers()
            if masks is not None and masks.size:
                first = masks.address - whole.address
                cuts += [('rows', first), ('masks', first + masks.size)]
        cuts.append(('rows', max(last for _, last in spans)))
    return measure_parts(content, [*cuts, ('head', len(content))])


def image_fault(views: Views, *, num_rows: dict[str, int]) -> str | None:
    """What is wrong with images: their sizes, or the rows of other tables that they name."""
    if (views['width'] < 1).any() or (views['height'] < 1).any():
        return 'an image without a size'
    for kind, count in num_rows.items():
        first, last = views[f'first_{kind}'], views[f'last_{kind}']
        if (first < 0).any() or (last < first).any() or (last > count).any():
            return f'an image whose {kind} rows do not exist'
        if (first[1:] != last[:-1]).any():
            return f'images whose {kind} rows do not follow each other'
    return None


def label_fault(views: Views, *, num_classes: int) -> str | None:
    """What is wrong with rows that have labels: a label of no class, or a box that is none."""
    labels = views['label']
    if (labels < 0).any() or (labels >= num_classes).any():
        return f'a label of none of the {num_classes} classes'
    if 'x1' in views:
        x1, y1, x2, y2 = (views[side] for side in SIDES)
        # Written so that NaN is bad, too.
        if not ((x1 > -np.inf) & (x1 <= x2) & (x2 < np.inf) & (y1 > -np.inf) & (y1 <= y2) & (y2 < np.inf)).all():
            return 'a box that ends before it begins or is not finite'
    return None
