"""Files that are whole or not there, whenever a process is killed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

from hierseg.errors import HiersegError


@contextmanager
def whole_file(path: str | PathLike[str]) -> Iterator[BinaryIO]:
    """A file to write, which takes its name when the block ends without an exception.

    Whoever reads ``path``, now or after a crash, finds the old content or the new. What a killed process left
    beside it is overwritten by the next attempt.
    """
    target = Path(path)
    partial = target.with_name(f'.{target.name}.partial')
    try:
        with partial.open('wb') as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def write_atomically(content: bytes, path: str | PathLike[str]) -> None:
    """Writes a whole file, in a folder that is made if need be."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as file:
        file.write(content)


def write_json(document: Any, path: str | PathLike[str], *, error: type[HiersegError] = HiersegError) -> None:
    """Writes a document as JSON, which knows no NaN.

    Args:
        document: What ``json`` can write.
        path: In a folder that exists.
        error: What to raise if the file cannot be written.

    Raises:
        HiersegError: As ``error`` says.
    """
    text = json.dumps(document, ensure_ascii=False, indent=1, allow_nan=False) + '\n'
    try:
        with whole_file(path) as file:
            file.write(text.encode('utf-8'))
    except OSError as fault:
        raise error(f'cannot write the file ({fault.strerror})', where=str(path)) from None
