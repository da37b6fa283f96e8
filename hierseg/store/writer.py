"""Writing a store: images, or whole parts of them, stream to a hidden folder that gets its name when it is whole.

A part is the Arrow tables of some images. It can be kept in a file of its own, so that a killed conversion goes on
from the parts that are finished.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from hierseg.errors import StoreError
from hierseg.files import hidden, whole_file
from hierseg.formats import IntArray
from hierseg.store.checksums import measure_parts, seal
from hierseg.store.folders import (
    DOCUMENTS,
    FORMAT,
    STORE_FILE,
    TAXONOMY_FILE,
    VERSION,
    check_target,
    real_path,
    replace_folder,
    store_errors,
)
from hierseg.store.store import ImageRow, Instances
from hierseg.store.tables import (
    IMAGE_FIELDS,
    INSTANCES_SCHEMA,
    NOT_EXHAUSTIVE,
    NOT_EXHAUSTIVE_SCHEMA,
    SCHEMAS,
    SPANS,
    VERIFIED_SCHEMA,
    measure_table,
)
from hierseg.taxonomy.graph import Taxonomy

ROWS_PER_BATCH = 1 << 16
BYTES_PER_BATCH = 1 << 26
IMAGES_AT_ONCE = 256
"""Single images that wait to be written together."""
# The spans of rows depend on the parts before.
_COUNTS = ('num_instances', 'num_verified')
_PART_IMAGES = pa.schema([*IMAGE_FIELDS, *((name, pa.int32()) for name in _COUNTS)])
PART_SCHEMAS = {'images': _PART_IMAGES, 'instances': INSTANCES_SCHEMA, 'verified': VERIFIED_SCHEMA}
_DIGEST_BYTES = hashlib.sha256().digest_size
_NOTES = b'hierseg-notes'

Verified = tuple[IntArray, IntArray]
"""Labels verified as present and as absent on an image, each ascending."""


@dataclass(frozen=True, eq=False)
class StorePart:
    """Consecutive images of a store: its tables, with ``num_instances`` and ``num_verified`` in place of spans of rows.

    Of each image the verified labels are the present ones, then the absent ones, both ascending.
    """

    images: pa.Table
    instances: pa.Table
    verified: pa.Table

    @classmethod
    def of(cls, images: Sequence[ImageRow], instances: Sequence[Instances], verified: Sequence[Verified]) -> StorePart:
        """Puts images together with the instances and the verified labels of each."""
        num_instances = [len(some) for some in instances]
        num_verified = [len(positive) + len(negative) for positive, negative in verified]
        labels = [some for pair in verified for some in pair]
        columns = [[getattr(image, name) for image in images] for name, _ in IMAGE_FIELDS]
        return cls(
            _table([*columns, num_instances, num_verified], _PART_IMAGES),
            _table(
                [
                    _joined([some.labels for some in instances], np.int64),
                    *_joined([some.boxes for some in instances], np.float64).reshape(-1, 4).T,
                    [mask for some in instances for mask in some.masks],
                    _joined([some.has_mask for some in instances], np.bool_),
                    _joined([some.group_of for some in instances], np.bool_),
                    _joined([some.areas for some in instances], np.float64),
                    [text for some in instances for text in some.annotation_ids],
                ],
                INSTANCES_SCHEMA,
            ),
            _table(
                [_joined(labels, np.int64), np.repeat([True, False] * len(verified), [len(some) for some in labels])],
                VERIFIED_SCHEMA,
            ),
        )

    @classmethod
    def concatenate(cls, parts: Sequence[StorePart]) -> StorePart:
        """One part of several, in order."""
        return cls(*(pa.concat_tables([getattr(part, name) for part in parts]) for name in PART_SCHEMAS))


def _joined(arrays: Iterable[Any], dtype: type[np.generic]) -> Any:
    return np.concatenate([np.zeros(0, dtype), *(np.ravel(array) for array in arrays)])


def _table(columns: Sequence[Any], schema: pa.Schema) -> pa.Table:
    arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
    return pa.Table.from_arrays(arrays, schema=schema)


def write_part(part: StorePart, notes: dict[str, Any], path: Path) -> None:
    """Writes a file that takes its name when it is whole: tables, notes that JSON can hold, a digest of both."""
    sink = pa.BufferOutputStream()
    for name, schema in PART_SCHEMAS.items():
        metadata = {_NOTES: json.dumps(notes).encode()} if name == 'images' else None
        with pa.ipc.new_stream(sink, schema.with_metadata(metadata)) as stream:
            stream.write_table(getattr(part, name).combine_chunks())
    content = sink.getvalue()
    needed = content.size + _DIGEST_BYTES
    with whole_file(path, needed=needed, error=StoreError) as file:
        file.write(content)
        file.write(hashlib.sha256(content).digest())


def read_part(path: Path) -> tuple[StorePart, dict[str, Any]]:
    """Reads what :func:`write_part` wrote; StoreError if it is missing, cut off or damaged."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StoreError(f'cannot be read ({error.strerror})', where=str(path), fix='Convert it again.') from None
    body, digest = memoryview(content)[:-_DIGEST_BYTES], content[-_DIGEST_BYTES:]
    if hashlib.sha256(body).digest() != digest:
        fix = 'Copy it again; or delete it, and convert it again.'
        raise StoreError('is damaged or cut off', where=str(path), fix=fix)
    source = pa.BufferReader(pa.py_buffer(body))
    tables, notes = {}, {}
    for name, schema in PART_SCHEMAS.items():
        stream = pa.ipc.open_stream(source)
        notes.update(json.loads((stream.schema.metadata or {}).get(_NOTES, b'{}')))
        tables[name] = stream.read_all().cast(schema)
    return StorePart(**tables), notes


class _TableWriter:
    """Collects groups of rows and writes a record batch when there are enough; errors name the ``final`` file.

    A batch ends with the group that fills it, so that the file does not depend on how many groups come at once.
    """

    def __init__(self, path: Path, schema: pa.Schema, *, final: Path) -> None:
        self.path, self.schema, self.final = path, schema, final
        self.rows = 0
        with store_errors(final):
            self._sink = pa.OSFile(str(path), 'wb')
            self._file = pa.ipc.new_file(self._sink, schema)
        self._tables: list[pa.Table] = []
        self._pending_rows = self._pending_bytes = 0

    def extend(self, table: pa.Table, num_rows: IntArray, num_bytes: IntArray) -> None:
        """Adds G groups of rows, each of which stays together in one batch.

        Args:
            table: The rows.
            num_rows: (G,) int64; of each group.
            num_bytes: (G,) int64; likewise, beyond columns of fixed width.
        """
        row_ends, byte_ends = np.cumsum(num_rows), np.cumsum(num_bytes)
        self.rows += table.num_rows
        group = row = byte = 0
        while group < len(num_rows):
            full = (row_ends >= row + ROWS_PER_BATCH - self._pending_rows) | (
                byte_ends >= byte + BYTES_PER_BATCH - self._pending_bytes
            )
            # The first group that fills the batch, an empty one not among them; or the last.
            fills = np.flatnonzero(full[group:] & (num_rows[group:] > 0))
            last = group + int(fills[0]) if len(fills) else len(num_rows) - 1
            self._tables.append(table.slice(row, int(row_ends[last]) - row))
            self._pending_rows += int(row_ends[last]) - row
            self._pending_bytes += int(byte_ends[last]) - byte
            if len(fills):
                self._flush()
            group, row, byte = last + 1, int(row_ends[last]), int(byte_ends[last])

    def _flush(self) -> None:
        if self._pending_rows:
            columns = [
                # The last bits of a bool that was put together would depend on the pieces.
                pa.array(column.to_numpy()) if pa.types.is_boolean(column.type) else column.combine_chunks()
                for column in pa.concat_tables(self._tables).columns
            ]
            batch = pa.record_batch(columns, schema=self.schema)
            with store_errors(self.final, needed=batch.nbytes):
                self._file.write_batch(batch)
        self._tables = []
        self._pending_rows = self._pending_bytes = 0

    def close(self, *, whole: bool) -> None:
        """Ends the file; an aborted one is left as it is, to be deleted."""
        if whole:
            self._flush()
            with store_errors(self.final):
                self._file.close()
        self._sink.close()


class StoreWriter:
    """Writes a store image by image in bounded memory; a context manager.

    The folder appears under its name only when the block ends without an error. Until then everything lies in a hidden
    folder beside it, which goes away on any exception; what a killed run left there, the next run removes. Whoever
    reads a store that is replaced goes on reading the old one.

    Args:
        path: The folder to make. A link to a folder stays, and that folder is meant.
        taxonomy: The classes that labels index.
        overwrite: Replace an existing store. Anything that is not a store is never replaced.

    Attributes:
        summary: What was read and skipped, for ``store.json``; set it before the block ends.
        orientation: ``'turned'`` where annotations lie on images as EXIF data turns them; likewise.
        documents: File name, one of ``DOCUMENTS`` → JSON document to keep beside the tables, for
            :meth:`Store.document`; likewise.

    Raises:
        StoreError: If ``path`` exists and is not to be replaced, if the store would have no images, or if the disk is
            full.
    """

    def __init__(self, path: str | PathLike[str], *, taxonomy: Taxonomy, overwrite: bool = False) -> None:
        self.path = real_path(path)
        self.taxonomy = taxonomy
        self.overwrite = overwrite
        self.summary: dict[str, Any] = {}
        self.orientation = 'stored'
        self.documents: dict[str, dict[str, Any]] = {}
        # Ids that came one by one; those of whole parts ascend, so that the last one tells enough.
        self._ids: set[str] = set()
        self._largest_id = ''
        self._extended = False
        self._num_images = self._num_masks = 0
        self._waiting: list[tuple[ImageRow, Instances, Verified]] = []
        # Row of the image → labels; of the few images that have such.
        self._not_exhaustive: dict[int, IntArray] = {}
        self._opened = ExitStack()
        self._sealed = False
        check_target(self.path, overwrite=overwrite)

    def __enter__(self) -> StoreWriter:
        with store_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._partial, _ = self._opened.enter_context(hidden(self.path, is_folder=True))
        try:
            self._tables = {name: self._table_writer(name, schema) for name, schema in SCHEMAS.items()}
            return self
        except BaseException:
            # Python calls no __exit__ for an interruption that comes before the block begins.
            self._opened.close()
            raise

    def _table_writer(self, name: str, schema: pa.Schema) -> _TableWriter:
        return _TableWriter(self._partial / f'{name}.arrow', schema, final=self.path / f'{name}.arrow')

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.seal()
                replace_folder(self._partial, self.path, overwrite=self.overwrite)
            else:
                for table in self._tables.values():
                    table.close(whole=False)
        finally:
            self._opened.close()

    def seal(self) -> str:
        """Ends the store, which takes its name when the block ends, and returns its ``generation``.

        Raises:
            StoreError: If the store would have no images, or if the disk is full.
        """
        if not self._sealed:
            self._write_waiting()
            self._write_not_exhaustive()
            for table in self._tables.values():
                table.close(whole=True)
            self._generation = self._write_documents()
            self._sealed = True
        return self._generation

    def add(
        self,
        image: ImageRow,
        instances: Instances,
        positive: npt.ArrayLike,
        negative: npt.ArrayLike,
        *,
        not_exhaustive: npt.ArrayLike = (),
    ) -> None:
        """Adds an image, which is written later, with others: its arrays must not change until the block ends.

        Args:
            image: Its id must be new to this store.
            instances: Labels within the taxonomy, boxes with x1 <= x2 and y1 <= y2.
            positive: Labels verified as present; kept ascending, each once.
            negative: Labels verified as absent; likewise.
            not_exhaustive: Labels of which there may be instances beyond those annotated; likewise.

        Raises:
            StoreError: If any of that does not hold.
        """
        verified = np.unique(np.asarray(positive, np.int64)), np.unique(np.asarray(negative, np.int64))
        beyond = np.unique(np.asarray(not_exhaustive, np.int64))
        self._check(image, instances, (*verified, beyond))
        if len(beyond):
            self._not_exhaustive[self._num_images] = beyond
        self._ids.add(image.id)
        self._largest_id = max(self._largest_id, image.id)
        self._num_images += 1
        self._waiting.append((image, instances, verified))
        if len(self._waiting) == IMAGES_AT_ONCE:
            self._write_waiting()

    def extend(self, part: StorePart) -> None:
        """Adds consecutive images at once; the files are those that :meth:`add` would make of them.

        Raises:
            StoreError: If image ids do not ascend, from all before on, or if the tables contradict each other.
        """
        ids = part.images.column('id').to_pylist()
        if not ids:
            return
        if any(a >= b for a, b in pairwise([self._largest_id, *ids] if self._num_images else ids)):
            raise StoreError('image ids do not ascend', where=str(self.path), fix='Add parts in order, each once.')
        self._write_waiting()
        self._write(part)
        self._num_images += len(ids)
        self._largest_id, self._extended = ids[-1], True

    def _write_waiting(self) -> None:
        if self._waiting:
            images, instances, verified = zip(*self._waiting, strict=True)
            self._write(StorePart.of(images, instances, verified))
            self._waiting = []

    def _write(self, part: StorePart) -> None:
        counts = {name: part.images.column(name).to_numpy().astype(np.int64) for name in _COUNTS}
        names = ('instances', 'verified')
        if [int(count.sum()) for count in counts.values()] != [getattr(part, name).num_rows for name in names]:
            raise StoreError('a part has other rows than its images say', where=str(self.path), fix='Convert it again.')
        spans: list[IntArray] = []
        for name, count in zip(names, counts.values(), strict=True):
            ends = self._tables[name].rows + np.cumsum(count)
            spans += [ends - count, ends]
        images = part.images.select([name for name, _ in IMAGE_FIELDS])
        for name, span in zip(SPANS, spans, strict=True):
            images = images.append_column(name, pa.array(span))
        nothing = np.zeros(len(images), dtype=np.int64)
        instances = part.instances
        mask_bytes = np.cumsum(pc.binary_length(instances.column('mask')).to_numpy())
        ends = np.cumsum(counts['num_instances'])
        bytes_until = np.concatenate([[0], mask_bytes])[np.concatenate([[0], ends])]
        self._tables['images'].extend(images.cast(SCHEMAS['images']), nothing + 1, nothing)
        self._tables['instances'].extend(instances, counts['num_instances'], np.diff(bytes_until))
        self._tables['verified'].extend(part.verified, counts['num_verified'], nothing)
        self._num_masks += int(pc.sum(instances.column('has_mask')).as_py() or 0)

    def _write_not_exhaustive(self) -> None:
        """Writes the further table, if there is anything in it."""
        if not self._not_exhaustive:
            return
        counts = np.array([len(labels) for labels in self._not_exhaustive.values()], dtype=np.int64)
        columns = [np.repeat(list(self._not_exhaustive), counts), np.concatenate([*self._not_exhaustive.values()])]
        table = self._table_writer(NOT_EXHAUSTIVE, NOT_EXHAUSTIVE_SCHEMA)
        table.extend(_table(columns, NOT_EXHAUSTIVE_SCHEMA), counts, np.zeros_like(counts))
        self._tables[NOT_EXHAUSTIVE] = table

    def _check(self, image: ImageRow, instances: Instances, verified: Sequence[IntArray]) -> None:
        def refuse(what: str, fix: str) -> StoreError:
            return StoreError(what, where=f'image {image.id}', fix=fix)

        if image.id in self._ids or (self._extended and image.id <= self._largest_id):
            raise refuse('is added twice', 'Image ids are unique within a store, and ascend after whole parts.')
        if not (image.width > 0 and image.height > 0):
            raise refuse(f'has the size {image.width} x {image.height}', 'Width and height are at least 1 pixel.')
        count = len(instances)
        columns = [instances.boxes, instances.masks, instances.has_mask, instances.group_of, instances.areas]
        if any(len(column) != count for column in [*columns, instances.annotation_ids]):
            raise refuse('has columns of different lengths', 'Each instance has one value in each column.')
        if np.shape(instances.boxes) != (count, 4):
            raise refuse(f'has boxes of shape {np.shape(instances.boxes)}', f'Expected ({count}, 4).')
        labels = np.concatenate([np.asarray(instances.labels, dtype=np.int64), *verified])
        if len(labels) and not (labels.min() >= 0 and labels.max() < self.taxonomy.num_classes):
            wrong = labels[(labels < 0) | (labels >= self.taxonomy.num_classes)]
            raise refuse(f'has the label {wrong[0]}', f'Labels are 0 to {self.taxonomy.num_classes - 1}.')
        if count == 0:
            return
        boxes = np.asarray(instances.boxes, dtype=np.float64)
        if not (np.isfinite(boxes).all() and (boxes[:, :2] <= boxes[:, 2:]).all()):
            raise refuse('has a box with x1 > x2 or y1 > y2 or a value that is not finite', 'Boxes are xyxy, pixels.')
        if [bool(mask) for mask in instances.masks] != np.asarray(instances.has_mask, dtype=bool).tolist():
            raise refuse('has_mask contradicts the masks', "A mask is b'' exactly where has_mask is False.")

    def _write_documents(self) -> str:
        if not self._num_images:
            what = 'the split is empty: no images were added'
            raise StoreError(what, where=str(self.path), fix='Check the annotation files.')
        for name in {*self.documents} - {*DOCUMENTS}:
            raise StoreError(f'{name} is no document of a store', where=str(self.path), fix=f'It may have {DOCUMENTS}.')
        counts = {name: table.rows for name, table in self._tables.items()}
        members = {}
        for table in self._tables.values():
            with store_errors(table.final):
                members[table.path.name] = measure_table(table.path)
        for name, document in {**self.documents, TAXONOMY_FILE: self.taxonomy.to_json()}.items():
            content = (json.dumps(document, ensure_ascii=False, indent=1) + '\n').encode()
            self._write_file(name, content)
            members[name] = measure_parts(content, [('head', len(content))])
        header = {'format': FORMAT, 'version': VERSION, **counts, 'masks': self._num_masks, 'summary': self.summary}
        if self.orientation != 'stored':
            header['orientation'] = self.orientation
        content = seal({**header, 'members': members})
        self._write_file(STORE_FILE, content)
        return hashlib.sha256(content).hexdigest()

    def _write_file(self, name: str, content: bytes) -> None:
        with store_errors(self.path / name, needed=len(content)):
            (self._partial / name).write_bytes(content)
