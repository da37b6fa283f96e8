"""Reading a store: memory-mapped Arrow files, so that ranks and their workers share one page cache.

What is read is of one store, and what was written, or an error: see :mod:`hierseg.store.folders` and ``tables``.

Shape letters: I instances of one image, N images, M instances in all. A mask is the ``counts`` bytes of a COCO
*compressed* run-length encoding of size (height, width) of its image; pycocotools reads
``{'size': [height, width], 'counts': mask}``.
"""

from __future__ import annotations

import hashlib
import os
import time
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from hierseg.errors import StoreError
from hierseg.formats import BoolArray, FloatArray, IntArray
from hierseg.store.checksums import FilePart, read_object, read_parts
from hierseg.store.folders import (
    CONVERT_AGAIN,
    DOCUMENTS,
    STORE_FILE,
    TAXONOMY_FILE,
    check_version,
    open_folder,
    open_member,
    stepped_aside,
)
from hierseg.store.tables import (
    NOT_EXHAUSTIVE,
    NOT_EXHAUSTIVE_SCHEMA,
    SCHEMAS,
    SIDES,
    MappedFile,
    MappedTable,
    Views,
    image_fault,
    label_fault,
    slices,
)
from hierseg.taxonomy.graph import Taxonomy

ATTEMPTS = 1000
"""So often a store is opened anew because another one took its name meanwhile."""
SECONDS_TO_WAIT = 1.0
"""For a store that steps aside for another one, where the file system cannot exchange them in one step."""


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


class Store:
    """A prepared split. Open it with :meth:`open`; write it with ``StoreWriter``.

    It can be pickled (it travels as its path and generation) and used after fork as well as spawn.

    Args:
        path: The folder.
        generation: Of the store that it must be; StoreError if another one has its name by now.

    Attributes:
        path: The folder.
        generation: A digest that tells this store from others.
        taxonomy: The classes that labels index.
        summary: What the converter read and skipped, and why.
        num_masks: Instances with a mask, as ``store.json`` says.
        orientation: How annotations lie on images that EXIF data turns: on the pixels as ``'stored'`` in the file,
            or as a viewer shows them ``'turned'``.
    """

    def __init__(self, path: str | PathLike[str], *, generation: str | None = None) -> None:
        self.path = Path(path)
        for _ in range(ATTEMPTS):
            folder = self._open_folder()
            try:
                self._read(folder)
                break
            except StoreError:
                if not self._is_replaced(folder):
                    raise
            finally:
                os.close(folder)
        if generation not in (None, self.generation):
            what = 'is another store than the one that was opened before: it was replaced meanwhile'
            raise StoreError(what, where=str(self.path), fix='Start again.')

    def _open_folder(self) -> int:
        """A descriptor of the folder, so that all members are of one store even while another one takes its name."""
        until = time.monotonic() + SECONDS_TO_WAIT
        while True:
            try:
                return open_folder(self.path)
            except OSError as error:
                gone = isinstance(error, FileNotFoundError)
                if gone and time.monotonic() < until and stepped_aside(self.path):
                    time.sleep(0.01)
                    continue
                raise _no_store(self.path, STORE_FILE) from None

    def _is_replaced(self, folder: int) -> bool:
        try:
            return not os.path.samestat(os.fstat(folder), os.stat(self.path))
        except OSError:
            return bool(stepped_aside(self.path))

    def _read(self, folder: int) -> None:
        """Opens all members; none of them is read but for the frames of its tables."""
        header_file = self.path / STORE_FILE
        content = _content(folder, header_file)
        self.generation = hashlib.sha256(content).hexdigest()
        header = read_object(content, where=header_file, sealed=False, fix=CONVERT_AGAIN)
        check_version(header, header_file, fix=f'{CONVERT_AGAIN[:-1]} with this version of hierseg.')
        self._parts: dict[str, list[FilePart]] | None = None
        if header['version'] != 1 or 'members' in header:
            # Another time, now that it must have its checksum.
            header = read_object(content, where=header_file, sealed=True, fix=CONVERT_AGAIN)
            members = header.get('members')
            found = members if isinstance(members, dict) else {}
            self._parts = {name: read_parts(parts, where=str(header_file)) for name, parts in found.items()}
        summary, masks, self.orientation = (
            header.get(name, default) for name, default in (('summary', {}), ('masks', 0), ('orientation', 'stored'))
        )
        if not (isinstance(summary, dict) and isinstance(masks, int) and self.orientation in ('stored', 'turned')):
            what = 'has a summary, a count of masks or an orientation that is none'
            raise StoreError(what, where=str(header_file), fix=CONVERT_AGAIN)
        self.summary: dict[str, Any] = summary
        self.num_masks: int = masks
        self._documents = {name: self._map(folder, name) for name in self._document_names(folder)}
        where = self.path / TAXONOMY_FILE
        self.taxonomy = Taxonomy.from_json(self._document(self._map(folder, TAXONOMY_FILE)), where=str(where))
        self._tables = self._open_tables(folder, header)
        self._images, self._instances, self._verified = (self._tables[name] for name in SCHEMAS)

    def _open_tables(self, folder: int, header: dict[str, Any]) -> dict[str, MappedTable]:
        labels = partial(label_fault, num_classes=self.taxonomy.num_classes)
        rows: dict[str, Any] = {
            kind: header.get(name) for kind, name in (('instance', 'instances'), ('verified', 'verified'))
        }
        faults: dict[str, Any] = {'images': partial(image_fault, num_rows=rows)}
        schemas = dict(SCHEMAS)
        if NOT_EXHAUSTIVE in header:
            schemas[NOT_EXHAUSTIVE] = NOT_EXHAUSTIVE_SCHEMA
        tables = {}
        for name, schema in schemas.items():
            file = self._map(folder, f'{name}.arrow')
            tables[name] = MappedTable(file, schema, faults.get(name, labels))
            if header.get(name) != len(tables[name]):
                raise file.error(f'holds {len(tables[name])} rows, store.json says {header.get(name)!r:.80}')
        return tables

    def _map(self, folder: int, name: str) -> MappedFile:
        if self._parts is not None and name not in self._parts:
            what = f'says nothing of {name}'
            raise StoreError(what, where=str(self.path / STORE_FILE), fix=CONVERT_AGAIN)
        return MappedFile(folder, self.path / name, None if self._parts is None else self._parts[name])

    def _document_names(self, folder: int) -> list[str]:
        known = self._parts if self._parts is not None else os.listdir(folder)
        return [name for name in DOCUMENTS if name in known]

    def _document(self, file: MappedFile) -> dict[str, Any]:
        file.check(file.parts)
        return read_object(file.content[:], where=file.path, sealed=False, fix=CONVERT_AGAIN)

    @classmethod
    def open(cls, path: str | PathLike[str]) -> Store:
        """Opens a store in milliseconds, whatever its size.

        All that is read later is of this store, even if another one takes its name.

        Raises:
            StoreError: If it is damaged, or of another version. Damage to rows is told when they are first read, damage
                to masks by ``python -m hierseg.store``.
        """
        return cls(path)

    def document(self, name: str) -> dict[str, Any]:
        """The JSON document of a file name that the converter kept beside the tables; empty where it kept none."""
        return self._document(self._documents[name]) if name in self._documents else {}

    def damaged_parts(self) -> dict[str, list[FilePart]]:
        """Stretches of files, by file name, that are not as they were written; all bytes are read, masks too."""
        files = [*self._documents.values(), *(table.file for table in self._tables.values())]
        return {file.path.name: damaged for file in files if (damaged := file.damaged())}

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (type(self), self.path, self.generation)

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
        (id_,), (file_name,) = (slices(views, name, at, at + 1) for name in ('id', 'file_name'))
        return ImageRow(id_.decode(), file_name.decode(), int(views['width'][at]), int(views['height'][at]))

    def instances(self, row: int) -> Instances:
        """The instances of the image in a row; arrays and bytes are the caller's own."""
        at, image = self._image_views(row)
        first, last = int(image['first_instance'][at]), int(image['last_instance'][at])
        if first == last:
            return Instances.empty()
        start, views = self._instances.batch_with(first)
        first, last = self._within(self._instances, views, first - start, last - start)
        rows = slice(first, last)
        return Instances(
            labels=views['label'][rows].astype(np.int64),
            boxes=np.stack([views[name][rows] for name in SIDES], axis=1),
            masks=slices(views, 'mask', first, last),
            has_mask=views['has_mask'][rows].copy(),
            group_of=views['group_of'][rows].copy(),
            areas=views['area'][rows].copy(),
            annotation_ids=[text.decode() for text in slices(views, 'annotation_id', first, last)],
        )

    def verified(self, row: int) -> tuple[IntArray, IntArray]:
        """Labels verified as present and as absent on the image in a row, ascending, int64 each."""
        at, image = self._image_views(row)
        first, last = int(image['first_verified'][at]), int(image['last_verified'][at])
        if first == last:
            return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
        start, views = self._verified.batch_with(first)
        first, last = self._within(self._verified, views, first - start, last - start)
        labels, positive = views['label'][first:last].astype(np.int64), views['positive'][first:last]
        return labels[positive], labels[~positive]

    @staticmethod
    def _within(table: MappedTable, views: Views, first: int, last: int) -> tuple[int, int]:
        """Rows of one image, which lie within one batch."""
        if last > len(views['label']):
            raise table.file.error('holds rows of one image in several record batches')
        return first, last

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
        images, labels = table.column('image'), table.column('label')
        if len(images) and (images[0] < 0 or images[-1] >= len(self) or (np.diff(images) < 0).any()):
            raise table.file.error('holds rows of no image, or not in the order of images')
        return images, labels

    def tables(self) -> dict[str, pa.Table]:
        """``images``, ``instances``, ``verified`` and, where there is one, ``not_exhaustive`` as they lie on disk.

        One chunk for each record batch; no copy. The bytes are those that were written, masks apart; stores without
        checksums may hold any.
        """
        return {
            name: pa.Table.from_batches(table.batches(), schema=table.schema) for name, table in self._tables.items()
        }

    @cached_property
    def _ids(self) -> pa.ChunkedArray:
        self._images.column('width')  # checks all rows, before Arrow follows their offsets
        return pa.chunked_array([batch.column(0) for batch in self._images.batches()], type=pa.string())

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
        first, last = (self._images.column(name) for name in ('first_instance', 'last_instance'))
        ends = np.concatenate([[0], last])
        if (first != ends[:-1]).any() or ends[-1] != len(self._instances):
            raise self._images.file.error('holds images whose instances do not follow each other')
        return first

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


def _reopen(kind: type[Store], path: Path, generation: str) -> Store:
    return kind(path, generation=generation)


def _content(folder: int, path: Path) -> bytes:
    """What a file in an open folder holds."""
    try:
        with os.fdopen(open_member(folder, path.name), 'rb') as file:
            return file.read()
    except OSError:
        raise _no_store(path.parent, path.name) from None


def _no_store(path: Path, name: str) -> StoreError:
    fix = 'Write one with tools/dataset_converters, or correct the path.'
    return StoreError(f'no {name} here, so this is no store', where=str(path), fix=fix)
