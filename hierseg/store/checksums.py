"""Checksums of files: JSON that carries its own, and the parts of a member of a store.

A *part* is a stretch of a file. The parts of a file follow each other without a gap, so that every byte has a checksum.
They are told apart by when they are checked:

- ``head``: the frame of an Arrow file, or a whole JSON document; when a store is opened, or the document is read.
- ``rows``: a record batch without its masks; when one of its rows is first read.
- ``masks``: by ``python -m hierseg.store`` alone, since training reads masks far apart, and all of them are gigabytes.
"""

from __future__ import annotations

import json
import mmap
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c

from hierseg.errors import StoreError

BLOCK_BYTES = 1 << 18
"""So many bytes at a time stay in the processor's cache between copying and counting."""
SEAL = 'crc32c'
_PART = re.compile(r'(head|rows|masks) ([0-9]{1,18}) ([0-9a-f]{8})')


def crc32c(content: bytes | mmap.mmap, first: int = 0, last: int | None = None) -> str:
    """The CRC-32C of the bytes [first, last), as eight hexadecimal digits."""
    checksum = 0
    last = len(content) if last is None else last
    for start in range(first, last, BLOCK_BYTES):
        block = content[start : min(start + BLOCK_BYTES, last)]
        checksum = google_crc32c.extend(checksum, block)
    return f'{checksum:08x}'


@dataclass(frozen=True)
class FilePart:
    """The bytes [first, last) of a file, what they are and their checksum."""

    kind: str
    first: int
    last: int
    checksum: str

    def fits(self, content: bytes | mmap.mmap) -> bool:
        """True if the file still holds these bytes."""
        return crc32c(content, self.first, self.last) == self.checksum


def measure_parts(content: bytes | mmap.mmap, cuts: Iterable[tuple[str, int]]) -> list[str]:
    """Parts as ``store.json`` says them, of the kinds and ends that the cuts give; empty ones are left out.

    Example:
        >>> measure_parts(b'123456789', [('head', 4), ('rows', 9)])
        ['head 4 f63af4ee', 'rows 5 83b565d8']
    """
    first, parts = 0, []
    for kind, last in cuts:
        if last > first:
            parts.append(f'{kind} {last - first} {crc32c(content, first, last)}')
            first = last
    return parts


def read_parts(said: object, *, where: str) -> list[FilePart]:
    """Parts that :func:`measure_parts` gave; StoreError if they are something else."""
    parts: list[FilePart] = []
    for text in said if isinstance(said, list) and said else [said]:
        found = _PART.fullmatch(text) if isinstance(text, str) else None
        if found is None:
            raise StoreError(f'says no parts of a file ({text!r:.80})', where=where, fix='Convert the data set again.')
        first = parts[-1].last if parts else 0
        parts.append(FilePart(found[1], first, first + int(found[2]), found[3]))
    return parts


def batches(parts: Iterable[FilePart]) -> Iterator[list[FilePart]]:
    """The parts of each record batch of an Arrow file: what lies between one head and the next."""
    batch: list[FilePart] = []
    for part in parts:
        if part.kind != 'head':
            batch.append(part)
        elif batch:
            yield batch
            batch = []


def seal(document: dict[str, Any]) -> bytes:
    """JSON of an object, with a checksum of its other values as its last one."""
    return (json.dumps({**document, SEAL: _checksum(document)}, ensure_ascii=False, indent=1) + '\n').encode()


def _checksum(document: dict[str, Any]) -> str:
    return crc32c(json.dumps(document, ensure_ascii=False, sort_keys=True).encode())


def read_object(content: bytes, *, where: Path, sealed: bool, fix: str) -> dict[str, Any]:
    """The JSON object in a file.

    Args:
        content: Of the file.
        where: The file.
        sealed: Whether it must have the checksum of :func:`seal`. One that it has must fit in any case.
        fix: What to do about damage.

    Raises:
        StoreError: If it is no JSON object, or another than was sealed.
    """
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise StoreError(f'is not JSON ({error})', where=str(where), fix=fix) from None
    if not isinstance(document, dict):
        raise StoreError('is no JSON object', where=str(where), fix=fix)
    found = document.pop(SEAL, None)
    if found is None and not sealed:
        return document
    try:
        fits = found == _checksum(document)
    except ValueError:  # half a character
        fits = False
    if not fits:
        raise StoreError('is damaged: its checksum does not fit', where=str(where), fix=fix)
    return document
