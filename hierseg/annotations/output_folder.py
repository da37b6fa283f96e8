"""Output folders: which may be replaced, and which hidden ones beside them nobody works in any more."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import uuid
from pathlib import Path

from hierseg.errors import StoreError

STORE_FILE = 'store.json'


def check_target(path: Path, *, overwrite: bool, marker: str = STORE_FILE) -> None:
    """Refuses an output folder that must not be replaced, before any work is done.

    Args:
        path: The folder.
        overwrite: Whether what is there may be replaced, if it is of the same kind.
        marker: The file by which one of the kind is known.

    Raises:
        StoreError: If ``path`` is a file, a folder with something else in it, or of the kind while
            ``overwrite`` is off.
    """
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    if not (path / marker).is_file():
        kind = 'store' if marker == STORE_FILE else 'shard'
        raise StoreError(f'exists and is no {kind}', where=str(path), fix='Name a new folder; it will not be replaced.')
    if not overwrite:
        raise StoreError('exists already', where=str(path), fix='Name another folder, or allow to overwrite it.')


def new_partial(path: Path) -> Path:
    """A name for a hidden folder beside ``path``, which :func:`remove_leftovers` finds when its process is gone."""
    return path.with_name(f'.{path.name}.partial-{uuid.uuid4().hex}')


def replace_folder(new: Path, path: Path, *, overwrite: bool, marker: str = STORE_FILE) -> None:
    """Gives a finished folder its name; what had the name goes away after that.

    Raises:
        StoreError: As :func:`check_target`.
    """
    check_target(path, overwrite=overwrite, marker=marker)
    if not (path / marker).is_file():
        new.rename(path)
        return
    old = new_partial(path)
    path.rename(old)
    try:
        new.rename(path)
    except BaseException:
        old.rename(path)
        raise
    shutil.rmtree(old)


def remove_leftovers(path: Path) -> None:
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
