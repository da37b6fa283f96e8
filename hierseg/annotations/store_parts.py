"""Finished parts of a store: Arrow tables of some images, and files of them that are whole or not there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from hierseg.annotations.records import IMAGES_SCHEMA, INSTANCES_SCHEMA, VERIFIED_SCHEMA, ImageRow, Instances, IntArray
from hierseg.errors import StoreError
from hierseg.files import whole_file

COUNTS = ('num_instances', 'num_verified')
# Counts in place of the spans of rows, which depend on the parts before.
PART_IMAGES_SCHEMA = pa.schema([*list(IMAGES_SCHEMA)[:4], *((name, pa.int32()) for name in COUNTS)])
PART_SCHEMAS = {'images': PART_IMAGES_SCHEMA, 'instances': INSTANCES_SCHEMA, 'verified': VERIFIED_SCHEMA}
DIGEST_BYTES = hashlib.sha256().digest_size
NOTES = b'hierseg-notes'


@dataclass(frozen=True, eq=False)
class StorePart:
    """Consecutive images of a store, with all that belongs to them.

    Attributes:
        images: As in the store, but with ``num_instances`` and ``num_verified`` in place of spans of rows.
        instances: Of one image after the other.
        verified: Likewise; of each image the present labels, then the absent ones, both ascending.
    """

    images: pa.Table
    instances: pa.Table
    verified: pa.Table

    @classmethod
    def of(cls, images: Sequence[ImageRow], instances: Sequence[Instances], verified: Sequence[Verified]) -> StorePart:
        """Puts images together; each has its instances and its labels, present and absent, both ascending."""
        num_instances = [len(some) for some in instances]
        num_verified = [len(positive) + len(negative) for positive, negative in verified]
        columns = [[getattr(image, name) for image in images] for name in ('id', 'file_name', 'width', 'height')]
        return cls(
            _table([*columns, num_instances, num_verified], PART_IMAGES_SCHEMA),
            _table(_instance_columns(instances), INSTANCES_SCHEMA),
            _table(
                [
                    _joined([labels for pair in verified for labels in pair], np.int64),
                    np.repeat([True, False] * len(verified), [len(labels) for pair in verified for labels in pair]),
                ],
                VERIFIED_SCHEMA,
            ),
        )

    @classmethod
    def concatenate(cls, parts: Sequence[StorePart]) -> StorePart:
        """One part of several, in order."""
        return cls(*(pa.concat_tables([getattr(part, name) for part in parts]) for name in PART_SCHEMAS))


Verified = tuple[IntArray, IntArray]


def _instance_columns(instances: Sequence[Instances]) -> list[Any]:
    boxes = _joined([some.boxes for some in instances], np.float64).reshape(-1, 4)
    return [
        _joined([some.labels for some in instances], np.int64),
        *boxes.T,
        [mask for some in instances for mask in some.masks],
        _joined([some.has_mask for some in instances], np.bool_),
        _joined([some.group_of for some in instances], np.bool_),
        _joined([some.areas for some in instances], np.float64),
        [text for some in instances for text in some.annotation_ids],
    ]


def _joined(arrays: Iterable[Any], dtype: type[np.generic]) -> Any:
    return np.concatenate([np.zeros(0, dtype), *(np.ravel(array) for array in arrays)])


def _table(columns: Sequence[Any], schema: pa.Schema) -> pa.Table:
    arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
    return pa.Table.from_arrays(arrays, schema=schema)


def write_part(part: StorePart, notes: dict[str, Any], path: Path) -> None:
    """Writes a file that ends with a digest of what is before; it takes its name when it is whole.

    Args:
        part: The tables.
        notes: Anything that JSON can hold, to be read back with them.
        path: In a folder that exists.
    """
    sink = pa.BufferOutputStream()
    for name, schema in PART_SCHEMAS.items():
        metadata = {NOTES: json.dumps(notes).encode()} if name == 'images' else None
        with pa.ipc.new_stream(sink, schema.with_metadata(metadata)) as stream:
            stream.write_table(getattr(part, name).combine_chunks())
    content = sink.getvalue()
    with whole_file(path) as file:
        file.write(content)
        file.write(hashlib.sha256(content).digest())


def read_part(path: Path) -> tuple[StorePart, dict[str, Any]]:
    """Reads what :func:`write_part` wrote.

    Raises:
        StoreError: If the file is missing, cut off or damaged.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StoreError(f'cannot be read ({error.strerror})', where=str(path), fix='Convert it again.') from None
    body, digest = memoryview(content)[:-DIGEST_BYTES], content[-DIGEST_BYTES:]
    if hashlib.sha256(body).digest() != digest:
        raise StoreError(
            'is damaged or cut off', where=str(path), fix='Copy it again; or delete it, and convert it again.'
        )
    source = pa.BufferReader(pa.py_buffer(body))
    tables, notes = {}, {}
    for name, schema in PART_SCHEMAS.items():
        stream = pa.ipc.open_stream(source)
        notes.update(json.loads((stream.schema.metadata or {}).get(NOTES, b'{}')))
        tables[name] = stream.read_all().cast(schema)
    return StorePart(**tables), notes
