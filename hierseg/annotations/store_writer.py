"""Writing a store: record batches stream to a temporary sibling folder, which is renamed when whole."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import uuid
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from hierseg.annotations.records import FORMAT, SCHEMAS, VERSION, ImageRow, Instances
from hierseg.errors import StoreError
from hierseg.taxonomy.graph import Taxonomy

ROWS_PER_BATCH = 1 << 16
BYTES_PER_BATCH = 1 << 26


class _TableWriter:
    """Collects rows column-wise and writes a record batch when there are enough."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.schema = schema
        self.rows = 0
        self._file = pa.ipc.new_file(str(path), schema)
        self._columns: dict[str, list[Any]] = {name: [] for name in schema.names}
        self._pending_rows = 0
        self._pending_bytes = 0

    def add(self, columns: dict[str, Sequence[Any]], *, num_rows: int, num_bytes: int = 0) -> None:
        """Adds rows that stay together in one batch."""
        for name, values in columns.items():
            self._columns[name].extend(values)
        self.rows += num_rows
        self._pending_rows += num_rows
        self._pending_bytes += num_bytes
        if self._pending_rows >= ROWS_PER_BATCH or self._pending_bytes >= BYTES_PER_BATCH:
            self._flush()

    def _flush(self) -> None:
        if self._pending_rows:
            arrays = [pa.array(self._columns[field.name], type=field.type) for field in self.schema]
            self._file.write_batch(pa.record_batch(arrays, schema=self.schema))
        self._columns = {name: [] for name in self.schema.names}
        self._pending_rows = self._pending_bytes = 0

    def close(self, *, whole: bool) -> None:
        """Ends the file; an aborted one is left as it is, to be deleted."""
        if whole:
            self._flush()
        self._file.close()


class StoreWriter:
    """Writes a store image by image in bounded memory; a context manager.

    The folder appears under its name only when the block ends without an error. Until then everything
    lies in a hidden folder beside it, which goes away on any exception; what a killed run left there is
    removed by the next run for the same path.

    Args:
        path: The folder to make.
        taxonomy: The classes that labels index.
        overwrite: Replace an existing store. Anything that is not a store is never replaced.

    Attributes:
        summary: What was read and skipped, for ``store.json``; set it before the block ends.

    Raises:
        StoreError: If ``path`` exists and is not to be replaced, or if the store would have no images.
    """

    def __init__(self, path: str | PathLike[str], *, taxonomy: Taxonomy, overwrite: bool = False) -> None:
        self.path = Path(path).absolute()
        self.taxonomy = taxonomy
        self.overwrite = overwrite
        self.summary: dict[str, Any] = {}
        self._ids: set[str] = set()
        self._num_masks = 0
        self._lock: int | None = None
        check_target(self.path, overwrite=overwrite)

    def __enter__(self) -> StoreWriter:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(self.path)
        self._partial = self.path.with_name(f'.{self.path.name}.partial-{uuid.uuid4().hex}')
        try:
            self._partial.mkdir()
            # The lock goes with the process, so that a later run can tell a dead folder from a busy one.
            self._lock = os.open(self._partial, os.O_RDONLY)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._tables = {name: _TableWriter(self._partial / f'{name}.arrow', SCHEMAS[name]) for name in SCHEMAS}
            return self
        except BaseException:
            # Python calls no __exit__ for an interruption that comes before the block begins.
            self._discard()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            for table in self._tables.values():
                table.close(whole=kind is None)
            if kind is None:
                self._finish()
        finally:
            self._discard()

    def _discard(self) -> None:
        """Removes the hidden folder, unless it took its name, and lets the lock go."""
        shutil.rmtree(self._partial, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def add(
        self,
        image: ImageRow,
        instances: Instances,
        positive: npt.ArrayLike,
        negative: npt.ArrayLike,
    ) -> None:
        """Adds an image.

        Args:
            image: Its id must be new to this store.
            instances: Labels within the taxonomy, boxes with x1 <= x2 and y1 <= y2.
            positive: Labels verified as present; kept ascending, each once.
            negative: Labels verified as absent; likewise.

        Raises:
            StoreError: If any of that does not hold.
        """
        labels = [np.unique(np.asarray(values, dtype=np.int64)) for values in (positive, negative)]
        self._check(image, instances, labels)
        self._ids.add(image.id)
        tables, count, verified = self._tables, len(instances), len(labels[0]) + len(labels[1])
        first, first_verified = tables['instances'].rows, tables['verified'].rows
        spans = (first, first + count, first_verified, first_verified + verified)
        values = (image.id, image.file_name, image.width, image.height, *spans)
        tables['images'].add({name: (v,) for name, v in zip(SCHEMAS['images'].names, values, strict=True)}, num_rows=1)
        if count:
            self._add_instances(instances)
        if verified:
            positives = [True] * len(labels[0]) + [False] * len(labels[1])
            tables['verified'].add({'label': np.concatenate(labels).tolist(), 'positive': positives}, num_rows=verified)

    def _add_instances(self, instances: Instances) -> None:
        boxes = np.asarray(instances.boxes, dtype=np.float64).T.tolist()
        has_mask = np.asarray(instances.has_mask, dtype=bool)
        columns: dict[str, Sequence[Any]] = dict(zip(('x1', 'y1', 'x2', 'y2'), boxes, strict=True))
        columns['label'] = np.asarray(instances.labels).tolist()
        columns['mask'] = instances.masks
        columns['has_mask'] = has_mask.tolist()
        columns['group_of'] = np.asarray(instances.group_of, dtype=bool).tolist()
        columns['area'] = np.asarray(instances.areas, dtype=np.float64).tolist()
        columns['annotation_id'] = instances.annotation_ids
        self._num_masks += int(has_mask.sum())
        self._tables['instances'].add(
            columns, num_rows=len(instances), num_bytes=sum(len(mask) for mask in instances.masks)
        )

    def _check(self, image: ImageRow, instances: Instances, verified: Sequence[npt.NDArray[np.int64]]) -> None:
        def refuse(what: str, fix: str) -> StoreError:
            return StoreError(what, where=f'image {image.id}', fix=fix)

        if image.id in self._ids:
            raise refuse('is added twice', 'Image ids are unique within a store.')
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

    def _finish(self) -> None:
        if not self._ids:
            raise StoreError(
                'the split is empty: no images were added', where=str(self.path), fix='Check the annotation files.'
            )
        counts = {name: table.rows for name, table in self._tables.items()}
        header = {'format': FORMAT, 'version': VERSION, **counts, 'masks': self._num_masks, 'summary': self.summary}
        for name, document in (('taxonomy.json', self.taxonomy.to_json()), ('store.json', header)):
            text = json.dumps(document, ensure_ascii=False, indent=1)
            (self._partial / name).write_text(text + '\n', encoding='utf-8')
        check_target(self.path, overwrite=self.overwrite)
        if (self.path / 'store.json').is_file():
            old = self.path.with_name(f'.{self.path.name}.partial-{uuid.uuid4().hex}')
            self.path.rename(old)
            try:
                self._partial.rename(self.path)
            except BaseException:
                old.rename(self.path)
                raise
            shutil.rmtree(old)
        else:
            self._partial.rename(self.path)


def check_target(path: Path, *, overwrite: bool) -> None:
    """Refuses an output folder that must not be replaced, before any work is done.

    Raises:
        StoreError: If ``path`` is a file, a folder with something else in it, or a store while
            ``overwrite`` is off.
    """
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    if not (path / 'store.json').is_file():
        raise StoreError('exists and is no store', where=str(path), fix='Name a new folder; it will not be replaced.')
    if not overwrite:
        raise StoreError('exists already', where=str(path), fix='Name another folder, or allow to overwrite it.')


def _remove_leftovers(path: Path) -> None:
    """Deletes temporary folders for this path whose process is gone (its lock went with it)."""
    for leftover in [p for p in path.parent.iterdir() if p.name.startswith(f'.{path.name}.partial-')]:
        with contextlib.suppress(FileNotFoundError):
            lock = os.open(leftover, os.O_RDONLY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(leftover, ignore_errors=True)
            except BlockingIOError:
                continue
            finally:
                os.close(lock)
