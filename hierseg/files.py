"""Files and folders that are whole or not there, whenever a process is killed or a disk is full.

What is written lies under an unguessable hidden name until it is whole, and whoever writes it holds a lock on it.
So the next run tells what a killed one left, ``.hierseg-….partial`` that nobody has locked, and removes it.
"""

from __future__ import annotations

import csv
import errno
import fcntl
import io
import json
import math
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

from hierseg.errors import HiersegError, OutputError

PARTIAL = re.compile(r'\.hierseg-[0-9a-f]{16}\.partial(\..+)?', re.DOTALL)
"""Names of what is being written; an ending is that of the file to be."""

FULL = {
    errno.ENOSPC: 'no space is left on its disk',
    errno.EDQUOT: 'the quota on its disk is used up',
    errno.EFBIG: 'it grew beyond the largest file that is allowed here',
}


def in_words(num_bytes: int) -> str:
    """Writes bytes in decimal units, three digits: 12.3 MB."""
    amount, units = float(num_bytes), ['B', 'kB', 'MB', 'GB', 'TB']
    while amount >= 999.5 and len(units) > 1:
        amount, units = amount / 1000, units[1:]
    return f'{amount:.3g} {units[0]}'


@contextmanager
def disk_faults(
    path: str | PathLike[str],
    *,
    needed: int | None = None,
    error: type[HiersegError] = OutputError,
    only_full: bool = False,
) -> Iterator[None]:
    """Turns what the system says against writing a file or folder into one error, with the space that is left.

    Args:
        path: What is written in the block.
        needed: Its bytes, if they are known.
        error: What to raise.
        only_full: Whether other faults pass as they are, since they may be of something that is read.

    Raises:
        HiersegError: As ``error`` says.
    """
    try:
        yield
    except OSError as fault:
        why = fault.strerror or str(fault)
        # numpy tells a short write without a number.
        is_full = fault.errno in FULL or fault.errno is None
        if only_full and not is_full:
            raise
        if is_full:
            amounts = [] if needed is None else [f'{in_words(needed)} needed']
            with suppress(OSError):
                amounts.append(f'{in_words(free_bytes(path))} free')
            why = f'{FULL.get(fault.errno or 0, why)}: {", ".join(amounts)}'
        fix = 'The same command works once there is room.' if is_full else ''
        raise error(f'cannot be written ({why})', where=str(path), fix=fix) from None


def free_bytes(path: str | PathLike[str]) -> int:
    """Tells how many bytes are free where a file or folder is or would be."""
    place = Path(path).absolute()
    return shutil.disk_usage(next(filter(Path.exists, (place, *place.parents)))).free


def output_file(path: str | PathLike[str], *, error: type[HiersegError] = OutputError) -> Path:
    """Tells where a file will lie, before anything is touched: behind links, as an editor would write it.

    Raises:
        HiersegError: As ``error`` says, if it is a link to nothing, a folder or a device, or lies below a file.
    """
    target = _settled(Path(path), error)
    with disk_faults(path, error=error):
        if target.is_dir():
            raise error('is a folder', where=str(path), fix='Name a file.')
        if target.exists() and not target.is_file():
            raise error('is no ordinary file, and would be replaced', where=str(path), fix='Name another one.')
    return target


def output_folder(path: str | PathLike[str], *, error: type[HiersegError] = OutputError) -> Path:
    """Tells where a folder lies or will lie, before anything is touched; links to folders are followed.

    Raises:
        HiersegError: As ``error`` says, if it is a link to nothing or a file, or lies below a file.
    """
    target = _settled(Path(path), error)
    with disk_faults(path, error=error):
        if target.exists() and not target.is_dir():
            raise error('the output folder is a file', where=str(path), fix='Name another folder.')
    return target


def _settled(path: Path, error: type[HiersegError]) -> Path:
    """What a path stands for, if it or the folder that it will lie in is not a link to nothing."""
    with disk_faults(path, error=error):
        for place in (path, *path.parents):
            if place.is_symlink() and not place.exists():
                what = f'{"" if place == path else f"{place} "}is a link to {os.readlink(place)}, which is not there'
                raise error(what, where=str(path), fix='Remove the link, or make what it leads to.')
            if place != path and place.exists() and not place.is_dir():
                raise error(f'{place} is a file, not a folder', where=str(path), fix='Name another place.')
        return path.resolve() if path.is_symlink() else path


def make_folder(path: str | PathLike[str], *, error: type[HiersegError] = OutputError) -> Path:
    """Makes a folder and those above it if need be, and tells where it lies; errors as of :func:`output_folder`."""
    folder = output_folder(path, error=error)
    with disk_faults(path, error=error):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def whole_file(
    path: str | PathLike[str], *, needed: int | None = None, error: type[HiersegError] = OutputError
) -> Iterator[BinaryIO]:
    """A file to write, which takes its name when the block ends without an exception, and is on the disk then.

    Whoever reads ``path``, now or after a crash, finds the old content or the new. A file that is replaced hands on its
    permissions; a link to a file stays, and the file behind it is replaced.

    Args:
        path: In a folder that exists.
        needed: Bytes that will be written, if they are known; an error tells them.
        error: What to raise.

    Raises:
        HiersegError: As ``error`` says, if the file cannot be written; nothing of it is left then.
    """
    target = output_file(path, error=error)
    with disk_faults(path, needed=needed, error=error), hidden(target) as (partial, descriptor):
        # Closed before the lock goes, so that what is in its buffer comes to the disk, too.
        with open(descriptor, 'wb', closefd=False) as file:
            yield file
        _take_name(partial, target, descriptor)


@contextmanager
def whole_path(path: str | PathLike[str], *, error: type[HiersegError] = OutputError) -> Iterator[Path]:
    """The same for libraries that open files by name: gives the name, with the ending of ``path``."""
    target = output_file(path, error=error)
    with disk_faults(path, error=error), hidden(target, ending=Path(path).suffix) as (partial, descriptor):
        yield partial
        _take_name(partial, target, descriptor)


@contextmanager
def whole_folder(path: str | PathLike[str], *, error: type[HiersegError] = OutputError) -> Iterator[Path]:
    """A new folder to fill, which takes its name when the block ends without an exception.

    Args:
        path: Must not exist, unless as an empty folder; folders above it are made.
        error: What to raise.

    Raises:
        HiersegError: As ``error`` says, if something cannot be written; nothing is left then.
    """
    target = output_folder(path, error=error)
    make_folder(target.parent, error=error)
    with disk_faults(path, error=error), hidden(target, is_folder=True) as (partial, _):
        yield partial
        partial.rename(target)
        _sync_folder(target.parent)


def write_atomically(content: bytes, path: str | PathLike[str]) -> None:
    """Writes a whole file, in a folder that is made if need be."""
    make_folder(Path(path).parent)
    with whole_file(path, needed=len(content)) as file:
        file.write(content)


@contextmanager
def hidden(target: Path, *, ending: str = '', is_folder: bool = False) -> Iterator[tuple[Path, int]]:
    """A new file or folder under a hidden name beside a target, and a descriptor with its lock; removed at the end."""
    _tidy_once(target.parent.absolute())
    partial, descriptor = _new(target, ending, is_folder)
    try:
        yield partial, descriptor
    finally:
        _remove(partial)
        os.close(descriptor)


def _new(target: Path, ending: str, is_folder: bool) -> tuple[Path, int]:
    flags = os.O_RDONLY | os.O_DIRECTORY if is_folder else os.O_RDWR | os.O_CREAT | os.O_EXCL
    while True:
        partial = _hidden_name(target, ending)
        if is_folder:
            partial.mkdir()
        try:
            descriptor = os.open(partial, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        except FileNotFoundError:
            if is_folder:
                continue  # a run that tidied up came between making and opening
            raise
        try:
            with suppress(OSError):  # no locks on this file system: nobody will remove it if we are killed
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if partial.exists():
                return partial, descriptor
        except BaseException:
            _remove(partial)
            os.close(descriptor)
            raise
        os.close(descriptor)  # such a run came between opening and locking


def _hidden_name(target: Path, ending: str = '') -> Path:
    return target.with_name(f'.hierseg-{secrets.token_hex(8)}.partial{ending}')


def _remove(path: Path) -> None:
    """Removes a file or a folder, as far as the system lets us; a link that took its name is not followed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def remove_folder(path: Path) -> None:
    """Removes a folder, of which a kill leaves nothing under its name."""
    gone = _hidden_name(path)
    path.rename(gone)
    _remove(gone)


def _take_name(partial: Path, target: Path, descriptor: int) -> None:
    """Puts a file that is whole into the place of its target, with the permissions of what was there."""
    if target.exists():
        os.fchmod(descriptor, stat.S_IMODE(target.stat().st_mode) & 0o777)
    os.fsync(descriptor)
    partial.replace(target)
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    """Makes new names in a folder survive a crash of the machine, where its file system can."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def tidy(folder: Path) -> None:
    """Removes what killed runs left in a folder. Links and others' files are none of it."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if PARTIAL.fullmatch(entry.name)]
    for name in names:
        # It may be gone, a link, or where there are no locks.
        with suppress(OSError):
            _remove_if_left(folder / name)


_tidy_once = lru_cache(maxsize=4096)(tidy)
"""Once a process, or a folder of pictures would be read for each of them."""


def _remove_if_left(path: Path) -> None:
    descriptor = lock(path)
    if descriptor is None:
        return
    try:
        status = os.fstat(descriptor)
        if status.st_uid == os.geteuid() and (stat.S_ISDIR(status.st_mode) or stat.S_ISREG(status.st_mode)):
            _remove(path)
    finally:
        os.close(descriptor)


def lock(path: Path) -> int | None:
    """Locks a file or a folder until the descriptor is closed or the process is gone; None if it is locked or gone.

    Raises:
        OSError: If it is a link, or if there are no locks on its file system.
    """
    try:
        is_folder = stat.S_ISDIR(path.lstat().st_mode)
        access = os.O_RDONLY | os.O_DIRECTORY if is_folder else os.O_RDWR  # locks over NFS ask for the right to write
        descriptor = os.open(path, access | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), path.lstat()):
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def csv_text(rows: Iterable[Iterable[Any]]) -> str:
    """Rows as CSV, whose lines end in a line feed on all systems."""
    text = io.StringIO()
    csv.writer(text, lineterminator='\n').writerows(rows)
    return text.getvalue()


def write_json(document: Any, path: str | PathLike[str], *, error: type[HiersegError] = OutputError) -> None:
    """Writes a document as JSON, which knows no NaN.

    Args:
        document: What ``json`` can write.
        path: In a folder that exists.
        error: What to raise if the file cannot be written.

    Raises:
        HiersegError: As ``error`` says.
    """
    content = (json.dumps(document, ensure_ascii=False, indent=1, allow_nan=False) + '\n').encode('utf-8')
    with whole_file(path, needed=len(content), error=error) as file:
        file.write(content)


def finite(document: Any) -> Any:
    """The same with null in place of numbers that JSON does not know, such as the score of a class without objects."""
    if isinstance(document, Mapping):
        return {key: finite(value) for key, value in document.items()}
    if isinstance(document, list | tuple):
        return [finite(value) for value in document]
    return None if isinstance(document, float) and not math.isfinite(document) else document
