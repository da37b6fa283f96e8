"""A file in the making: what has arrived of it, and of which version of the file that is.

Beside ``name`` lie ``.name.partial``, to which bytes are appended as they arrive, and ``.name.partial.json``, which
says what the server said of the file when the first byte came. At any moment the process may be killed: what the
kernel has taken is there afterwards, and ``name`` itself appears when it is whole and verified.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO

from hierseg.downloads.checksums import Checksum
from hierseg.downloads.remote import RemoteFile
from hierseg.errors import DownloadError
from hierseg.files import write_atomically

# Smaller files come in one piece: notes about them would cost more than asking for them again.
RESUMED_FROM_BYTES = 1 << 20


@contextmanager
def disk_faults(path: Path) -> Iterator[None]:
    """Turns an error of the local disk into a :class:`DownloadError`: no retry helps against a full one."""
    try:
        yield
    except OSError as error:
        raise DownloadError(
            f'cannot be written ({error.strerror})',
            where=str(path),
            fix='Make room and see to the rights; the same command goes on from what is there.',
        ) from None


class PartialFile:
    """The two files beside ``path``.

    Args:
        path: The file to be; its folder exists.
        resumed_from: Bytes of the whole file from which on a part is kept for later.
    """

    def __init__(self, path: Path, *, resumed_from: int = RESUMED_FROM_BYTES) -> None:
        self.path = path
        self.data = path.with_name(f'.{path.name}.partial')
        self._note = path.with_name(f'.{path.name}.partial.json')
        self._resumed_from = resumed_from

    def __len__(self) -> int:
        """Bytes that are there and can be gone on from."""
        return self.data.stat().st_size if self.data.exists() and self.version() is not None else 0

    def version(self) -> RemoteFile | None:
        """What was noted; None if that is nothing, or nothing that would recognise the file again."""
        try:
            note = json.loads(self._note.read_bytes())
            checksum = note.pop('checksum')
            version = RemoteFile(**note, checksum=checksum and Checksum(**checksum))
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None
        return version if version.validator else None

    def begin(self, version: RemoteFile) -> None:
        """Starts over, with an empty file of this version."""
        self.data.write_bytes(b'')
        self._note.unlink(missing_ok=True)
        if version.size is not None and version.size >= self._resumed_from:
            write_atomically(json.dumps(asdict(version)).encode(), self._note)

    @contextmanager
    def appending(self) -> Iterator[BinaryIO]:
        """The file to append to; what is flushed is in the kernel's hands."""
        with self.data.open('ab') as file:
            yield file

    def discard(self) -> None:
        """Removes both files."""
        self.data.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)

    def finish(self) -> None:
        """Gives the file its name, once it is on the disk."""
        with self.data.open('rb') as file:
            os.fsync(file.fileno())
        self.data.replace(self.path)
        self._note.unlink(missing_ok=True)
