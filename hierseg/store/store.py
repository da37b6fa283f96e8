"""Reading a store: memory-mapped Arrow files, so that ranks and their workers share one page cache.

Shape letters: I instances of one image, N images, M instances in all. A mask is the ``counts`` bytes of a COCO
*compressed* run-length encoding of size (height, width) of its image; pycocotools reads
``{'size': [height, width], 'counts': mask}``.
"""

from __future__ import annotations

import json
import mmap
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from hierseg.errors import StoreError
from hierseg.formats import BoolArray, FloatArray, IntArray
from hierseg.taxonomy.graph import Taxonomy

FORMAT = 'hierseg-store'
VERSION = 1

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


@dataclass(frozen=True)
class ImageRow:
    """One image.

    Attributes:
        id: Unique within the store.
        file_name: Relative to the image folder.
        width: Pixels, as the file's header says; turned as EXIF says where the store's annotations are.
        height: Pixels, likewise.
    """

    id: str
    file_name: str
    width: int
    height: int


@dataclass(frozen=True, eq=False)
class Instances:
    """The annotated instances of one image, labels as released (not expanded to ancestors).

    Attributes:
        labels: (I,) int64; index in the taxonomy.
        boxes: (I, 4) float64; xyxy, pixels.
        masks: I times RLE counts; ``b''`` where there is no mask.
        has_mask: (I,) bool.
        group_of: (I,) bool; one box around several objects (``iscrowd`` in COCO).
        areas: (I,) float64; pixels of the mask, of the box where there is no mask.
        annotation_ids: I times the BoxID or COCO annotation id; ``''`` where unknown.
    """

    labels: IntArray
    boxes: FloatArray
    masks: Sequence[bytes]
    has_mask: BoolArray
    group_of: BoolArray
    areas: FloatArray
    annotation_ids: Sequence[str]

    def __len__(self) -> int:
        return len(self.labels)

    @classmethod
    def empty(cls) -> Instances:
        """No instances: an image that carries verified labels only."""
        none = np.zeros(0, dtype=bool)
        return cls(np.zeros(0, dtype=np.int64), np.zeros((0, 4)), [], none, none, np.zeros(0), [])


Views = dict[str, npt.NDArray[Any]]


class _Table:
    """One memory-mapped Arrow file of several record batches, addressed by row.

    An image's rows never straddle two batches (the writer sees to it), so that they are a slice of one batch.
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        try:
            with path.open('rb') as file:
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            # pa.memory_map would ask the system for whole batches, masks and all, and so does its reading ahead.
            mapped.madvise(mmap.MADV_RANDOM)
            reader = pa.ipc.open_file(pa.BufferReader(pa.py_buffer(mapped)))
            self.batches = [reader.get_batch(index) for index in range(reader.num_record_batches)]
            mapped.madvise(mmap.MADV_NORMAL)
            found = reader.schema
        except (OSError, ValueError) as error:  # pyarrow's own errors are of these kinds
            raise StoreError(f'cannot be read ({error})', where=str(path), fix='Convert the data set again.') from None
        if not found.equals(schema):
            what = f'holds the columns {found.names}, expected {schema.names}'
            raise StoreError(what, where=str(path), fix='Convert it again.')
        self.schema = schema
        starts = np.cumsum([0, *(batch.num_rows for batch in self.batches)])
        self.starts: list[int] = starts.tolist()
        self._views: dict[int, Views] = {}

    def __len__(self) -> int:
        return self.starts[-1]

    def batch_with(self, row: int) -> tuple[int, Views]:
        """First row and :meth:`views` of the batch that holds a row."""
        index = bisect_right(self.starts, row) - 1
        return self.starts[index], self.views(index)

    def views(self, index: int) -> Views:
        """Numpy views of a batch's fixed-width columns, and of offsets and bytes of the others."""
        if index not in self._views:
            views: Views = {}
            # From the buffers themselves: pyarrow's conversions to numpy import pandas, 25 MB in every process.
            for field, column in zip(self.schema, self.batches[index].columns, strict=True):
                *_, data = column.buffers()
                content = np.frombuffer(data, dtype=np.uint8) if data else np.zeros(0, np.uint8)
                if pa.types.is_boolean(field.type):
                    bits = np.unpackbits(content, count=len(column), bitorder='little')
                    views[field.name] = bits.view(bool)
                elif pa.types.is_primitive(field.type):
                    views[field.name] = content.view(str(field.type))[: len(column)]
                else:
                    width = np.int64 if pa.types.is_large_binary(field.type) else np.int32
                    offsets = column.buffers()[1]
                    views[f'{field.name}.offsets'] = np.frombuffer(offsets, dtype=width, count=len(column) + 1)
                    views[field.name] = content
            self._views[index] = views
        return self._views[index]

    def column(self, name: str) -> npt.NDArray[Any]:
        """A whole fixed-width column, copied out of its batches."""
        empty: npt.NDArray[Any] = np.zeros(0, dtype=str(self.schema.field(name).type))
        return np.concatenate([empty, *(self.views(index)[name] for index in range(len(self.batches)))])


def _slices(views: Views, name: str, first: int, last: int) -> list[bytes]:
    """Texts or masks of the rows [first, last) of a batch."""
    offsets = views[f'{name}.offsets'][first : last + 1].tolist()
    if not offsets:
        return []
    data = views[name][offsets[0] : offsets[-1]].tobytes()
    return [data[a - offsets[0] : b - offsets[0]] for a, b in pairwise(offsets)]


class Store:
    """A prepared split. Open it with :meth:`open`; write it with ``StoreWriter``.

    It can be pickled (it travels as its path) and used after fork as well as spawn.

    Attributes:
        path: The folder.
        taxonomy: The classes that labels index.
        summary: What the converter read and skipped, and why.
        num_masks: Instances with a mask, as ``store.json`` says.
        orientation: How annotations lie on images that EXIF data turns: on the pixels as ``'stored'`` in the file,
            or as a viewer shows them ``'turned'``.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = Path(path)
        header = read_object(self.path / 'store.json')
        if header.get('format') != FORMAT or header.get('version') != VERSION:
            found = f'{header.get("format")!r} version {header.get("version")!r}'
            raise StoreError(
                f'expected {FORMAT!r} version {VERSION}, found {found}',
                where=str(self.path / 'store.json'),
                fix='Convert the data set again with this version of hierseg.',
            )
        self.summary: dict[str, Any] = header.get('summary', {})
        self.num_masks: int = header.get('masks', 0)
        self.orientation: str = header.get('orientation', 'stored')
        self.taxonomy = Taxonomy.from_json(
            read_object(self.path / 'taxonomy.json'), where=str(self.path / 'taxonomy.json')
        )
        self._tables = {name: _Table(self.path / f'{name}.arrow', schema) for name, schema in SCHEMAS.items()}
        self._images, self._instances, self._verified = self._tables.values()
        if NOT_EXHAUSTIVE in header:
            path = self.path / f'{NOT_EXHAUSTIVE}.arrow'
            self._tables[NOT_EXHAUSTIVE] = _Table(path, NOT_EXHAUSTIVE_SCHEMA)
        for name, table in self._tables.items():
            if header.get(name) != len(table):
                raise StoreError(
                    f'holds {len(table)} rows, store.json says {header.get(name)}',
                    where=str(self.path / f'{name}.arrow'),
                    fix='The store is damaged; convert the data set again.',
                )

    @classmethod
    def open(cls, path: str | PathLike[str]) -> Store:
        """Opens a store in milliseconds, whatever its size; StoreError if it is damaged or of another version."""
        return cls(path)

    def document(self, name: str) -> dict[str, Any]:
        """The JSON document of a file name that the converter kept beside the tables; empty where it kept none."""
        return read_object(self.path / name) if (self.path / name).is_file() else {}

    def __reduce__(self) -> tuple[type[Store], tuple[Path]]:
        return type(self), (self.path,)

    def __len__(self) -> int:
        return len(self._images)

    def __repr__(self) -> str:
        return f'Store({str(self.path)!r}: {len(self)} images, {len(self._instances)} instances)'

    def _image_views(self, row: int) -> tuple[int, Views]:
        if not 0 <= row < len(self):
            raise StoreError(f'image row {row} of {len(self)} images does not exist', where=str(self.path))
        start, views = self._images.batch_with(row)
        return row - start, views

    def image(self, row: int) -> ImageRow:
        """The image in a row, 0 <= row < len(store)."""
        at, views = self._image_views(row)
        (id_,), (file_name,) = (_slices(views, name, at, at + 1) for name in ('id', 'file_name'))
        return ImageRow(id_.decode(), file_name.decode(), int(views['width'][at]), int(views['height'][at]))

    def instances(self, row: int) -> Instances:
        """The instances of the image in a row; arrays and bytes are the caller's own."""
        at, image = self._image_views(row)
        first, last = int(image['first_instance'][at]), int(image['last_instance'][at])
        if first == last:
            return Instances.empty()
        start, views = self._instances.batch_with(first)
        first, last = first - start, last - start
        rows = slice(first, last)
        return Instances(
            labels=views['label'][rows].astype(np.int64),
            boxes=np.stack([views[name][rows] for name in SIDES], axis=1),
            masks=_slices(views, 'mask', first, last),
            has_mask=views['has_mask'][rows].copy(),
            group_of=views['group_of'][rows].copy(),
            areas=views['area'][rows].copy(),
            annotation_ids=[text.decode() for text in _slices(views, 'annotation_id', first, last)],
        )

    def verified(self, row: int) -> tuple[IntArray, IntArray]:
        """Labels verified as present and as absent on the image in a row, ascending, int64 each."""
        at, image = self._image_views(row)
        first, last = int(image['first_verified'][at]), int(image['last_verified'][at])
        if first == last:
            return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
        start, views = self._verified.batch_with(first)
        labels = views['label'][first - start : last - start].astype(np.int64)
        positive = views['positive'][first - start : last - start]
        return labels[positive], labels[~positive]

    @property
    def has_not_exhaustive(self) -> bool:
        """True if :meth:`not_exhaustive` is not empty on some image."""
        return NOT_EXHAUSTIVE in self._tables

    def not_exhaustive(self, row: int) -> IntArray:
        """Labels of which the image in a row may have instances beyond those annotated, ascending, int64.

        Of all other classes, the instances of a verified one are annotated without exception.
        """
        if not self.has_not_exhaustive:
            return np.zeros(0, dtype=np.int64)
        images, labels = self._not_exhaustive_columns
        first, last = np.searchsorted(images, [row, row + 1])
        return labels[first:last].astype(np.int64)

    @cached_property
    def _not_exhaustive_columns(self) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        # Few images have such labels, and few of them: whole columns are small beside the others.
        table = self._tables[NOT_EXHAUSTIVE]
        return table.column('image'), table.column('label')

    def tables(self) -> dict[str, pa.Table]:
        """``images``, ``instances``, ``verified`` and, where there is one, ``not_exhaustive`` as they lie on disk.

        One chunk for each record batch; no copy.
        """
        return {name: pa.Table.from_batches(table.batches, schema=table.schema) for name, table in self._tables.items()}

    @cached_property
    def _ids(self) -> pa.ChunkedArray:
        return pa.chunked_array([batch.column(0) for batch in self._images.batches], type=pa.string())

    @cached_property
    def _rows_by_id(self) -> npt.NDArray[np.uint64]:
        # Eight bytes an image in each process, where a dict of all ids takes more than a hundred.
        return np.frombuffer(pc.sort_indices(self._ids).buffers()[1], dtype=np.uint64, count=len(self))

    def row_of(self, image_id: str) -> int:
        """The row of an image; StoreError if there is no such image."""
        order = self._rows_by_id
        at = bisect_left(range(len(order)), image_id, key=lambda i: str(self._ids[int(order[i])].as_py()))
        if at < len(order) and self._ids[int(order[at])].as_py() == image_id:
            return int(order[at])
        what = f'no image {image_id!r} among {len(self)}'
        raise StoreError(what, where=str(self.path), fix='Is it of another split?')

    @property
    def image_ids(self) -> npt.NDArray[np.object_]:
        """(N,) str; a copy, of some hundred bytes an image."""
        ids: npt.NDArray[np.object_] = self._ids.to_numpy()
        return ids

    @cached_property
    def num_instances_per_image(self) -> IntArray:
        """(N,) int64, found without touching a mask."""
        return self._images.column('last_instance') - self.first_instances

    @cached_property
    def first_instances(self) -> IntArray:
        """(N,) int64; where each image's instances begin in :attr:`labels`."""
        return self._images.column('first_instance')

    @cached_property
    def labels(self) -> IntArray:
        """(M,) int64; labels of all instances, image after image."""
        return self._instances.column('label').astype(np.int64)

    def all_boxes(self) -> FloatArray:
        """(M, 4) float64; boxes of all instances, xyxy, pixels; a copy."""
        return np.stack([self._instances.column(side) for side in SIDES], axis=1)

    def image_column(self, name: str) -> npt.NDArray[Any]:
        """(N,) one fixed-width column of all images, such as ``width``; a copy."""
        return self._images.column(name)

    def instance_column(self, name: str) -> npt.NDArray[Any]:
        """(M,) one fixed-width column of all instances, such as ``group_of`` or ``x1``; a copy."""
        return self._instances.column(name)

    def verified_column(self, name: str) -> npt.NDArray[Any]:
        """One column of all verified labels, ``label`` or ``positive``; a copy."""
        return self._verified.column(name)


def read_object(path: Path) -> dict[str, Any]:
    """The object in a file of a store or of an unfinished one; StoreError if there is none."""
    try:
        document = json.loads(path.read_text(encoding='utf-8'))
    except OSError:
        raise StoreError(
            f'no {path.name} here, so this is no store',
            where=str(path.parent),
            fix='Write one with tools/dataset_converters, or correct the path.',
        ) from None
    except ValueError as error:
        raise StoreError(f'is not JSON ({error})', where=str(path), fix='Convert the data set again.') from None
    if not isinstance(document, dict):
        raise StoreError('is no JSON object', where=str(path), fix='Convert the data set again.')
    return document
