"""Folders that take their name when they are whole, and replace only what is known to be a store.

While a store is written it lies in a folder of :func:`hierseg.files.hidden`. It replaces an older one by a single
exchange of both names, where the file system can do that (Linux; not on NFS and a few others). Elsewhere the older one
steps aside first, as ``.NAME.replaced-…``, and comes back if a kill comes between.

Of what had the name before, nothing is deleted but plain files with the names of a store's members, in a real folder.
A symbolic link is never followed there.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import stat
import uuid
import warnings
from pathlib import Path

from hierseg.errors import StoreError
from hierseg.files import disk_faults, lock, output_folder, tidy
from hierseg.store.checksums import read_object

STORE_FILE = 'store.json'
TAXONOMY_FILE = 'taxonomy.json'
FORMAT = 'hierseg-store'
VERSION = 2
VERSIONS = (1, VERSION)
"""Versions that are read. Stores of version 1 have no checksums."""
DOCUMENTS = ('coco.json',)
"""Documents that a store may have beside its tables."""
TABLES = ('images.arrow', 'instances.arrow', 'verified.arrow')
"""Tables that every store has."""
MEMBERS = frozenset({STORE_FILE, TAXONOMY_FILE, *DOCUMENTS, *TABLES, 'not_exhaustive.arrow'})
CONVERT_AGAIN = 'Convert the data set again.'
_ARROW = b'ARROW1\0\0'
_EXCHANGE = 2
"""``RENAME_EXCHANGE`` of ``renameat2(2)``."""
_AT_FDCWD = -100
_CANNOT_EXCHANGE = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM)


def store_errors(path: Path, *, needed: int | None = None) -> contextlib.AbstractContextManager[None]:
    """Turns what the system says against writing ``path``, of ``needed`` bytes, into a StoreError."""
    return disk_faults(path, needed=needed, error=StoreError)


def real_path(path: str | os.PathLike[str]) -> Path:
    """The folder that a path means, so that no later step follows a link; StoreError if it is a link to nothing."""
    return output_folder(path, error=StoreError).absolute()


def check_target(path: Path, *, overwrite: bool) -> str:
    """Refuses, before any work is done, an output that must not be replaced; removes what killed runs left beside it.

    Args:
        path: A :func:`real_path`.
        overwrite: Whether a store may be replaced.

    Returns:
        How the ``store.json`` of the store that will be replaced is damaged; '' if it is whole or there is none.

    Raises:
        StoreError: If ``path`` is anything but a free name, an empty folder, or, with ``overwrite``, a store that has
            nothing else in it.
    """
    with store_errors(path):
        remove_leftovers(path)
        if is_free(path):
            return ''
        damage = check_identity(path)
    if not overwrite:
        fix = 'Name another folder, or replace it with --overwrite (overwrite=True).'
        raise StoreError('exists already', where=str(path), fix=fix)
    return damage


def is_free(path: Path) -> bool:
    """True for a name that nothing has, or an empty folder."""
    return not path.exists() or (path.is_dir() and not any(path.iterdir()))


def check_identity(path: Path) -> str:
    """Refuses a folder that is not, beyond doubt, a store without anything else in it.

    One whose ``store.json`` is damaged or missing is known by its tables: each is there and begins as Arrow's files do.

    Returns:
        How ``store.json`` is damaged; '' if it is whole.
    """
    kept = 'It will not be replaced; name another folder, or remove it yourself.'
    file, damage = path / STORE_FILE, ''
    unknown = [name for name in TABLES if not _is_arrow(path / name)]
    if not file.is_file():
        if unknown:
            raise StoreError('exists and is no store', where=str(path), fix=kept)
        damage = 'is missing'
    else:
        try:
            header = read_object(file.read_bytes(), where=file, sealed=False, fix=kept)
        except StoreError as error:
            if unknown:
                fix = f'{unknown[0]} does not tell either that this is a store: it is missing or no table. {kept}'
                raise StoreError(error.what, where=str(file), fix=fix) from None
            damage = error.what
        else:
            check_version(header, file, fix=kept)
    for entry in sorted(os.scandir(path), key=lambda entry: entry.name):
        if entry.name not in MEMBERS or not entry.is_file(follow_symlinks=False):
            raise StoreError('is in the store, but no part of it', where=entry.path, fix=f'Move it away. {kept}')
    return damage


def _is_arrow(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open('rb') as file:
        return file.read(len(_ARROW)) == _ARROW


def check_version(header: dict[str, object], where: Path, *, fix: str) -> None:
    """Refuses a ``store.json`` of another format or version."""
    if header.get('format') != FORMAT or header.get('version') not in VERSIONS:
        known = ' or '.join(map(str, VERSIONS))
        found = f'{header.get("format")!r:.80} version {header.get("version")!r:.80}'
        raise StoreError(f'expected {FORMAT!r} version {known}, found {found}', where=str(where), fix=fix)


def stepped_aside(path: Path) -> list[Path]:
    """Folders that had the name ``path`` until another one took it."""
    name = re.compile(re.escape(f'.{path.name}.replaced-') + '[0-9a-f]{32}')
    with contextlib.suppress(FileNotFoundError):
        return sorted(
            Path(entry.path)
            for entry in os.scandir(path.parent)
            if name.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False)
        )
    return []


def remove_members(folder: Path) -> None:
    """Removes a store that stepped aside; all of it stays if there is anything else in it."""
    with contextlib.suppress(FileNotFoundError):  # another run was faster
        entries = list(os.scandir(folder))
        if all(entry.name in MEMBERS and entry.is_file(follow_symlinks=False) for entry in entries):
            # What is half gone has no store.json, and is never brought back.
            for entry in sorted(entries, key=lambda entry: entry.name != STORE_FILE):
                os.unlink(entry)
            with contextlib.suppress(OSError):  # NFS keeps files that are open under other names for a while
                folder.rmdir()


def remove_leftovers(path: Path) -> None:
    """Deletes what killed runs left beside this path; what is not known to be ours stays."""
    with contextlib.suppress(FileNotFoundError):
        tidy(path.parent)
    bring_back(path)
    for old in stepped_aside(path):
        with contextlib.suppress(OSError):  # of another user, or where there are no locks
            descriptor = lock(old)
            if descriptor is not None:
                try:
                    remove_members(old)
                finally:
                    os.close(descriptor)


def replace_folder(new: Path, path: Path, *, overwrite: bool) -> None:
    """Gives a finished folder its name; what had the name goes away after that. Errors are of :func:`check_target`.

    Warns:
        UserWarning: If the ``store.json`` of what had the name was damaged.
    """
    damage = check_target(path, overwrite=overwrite)
    with store_errors(path):
        if is_free(path):
            new.rename(path)
            return
        _flush(new)
        old = path.with_name(f'.{path.name}.replaced-{uuid.uuid4().hex}')
        if not _exchange(new, path, aside=old):
            _step_aside(new, path, aside=old)
        remove_members(old)
        if old.exists():
            what = 'is the store that was replaced, and holds what was put into it meanwhile'
            raise StoreError(what, where=str(old), fix='Move it away.')
    if damage:
        what = f'{path / STORE_FILE} {damage}; since all else in the folder was of a store, it was replaced'
        warnings.warn(what, stacklevel=2)


def _step_aside(new: Path, path: Path, *, aside: Path) -> None:
    """Moves a store aside, and another one into its place."""
    descriptor = lock(path)
    if descriptor is None:
        raise StoreError('is being replaced by another process', where=str(path), fix='Wait for it.')
    try:
        path.rename(aside)
        try:
            new.rename(path)
        except BaseException:
            aside.rename(path)
            raise
    finally:
        os.close(descriptor)


def _flush(folder: Path) -> None:
    """Brings a folder to the disk, before an older one goes away."""
    for path in [*folder.iterdir(), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _exchange(new: Path, path: Path, *, aside: Path) -> bool:
    """Moves a store aside and another one into its place in one step; False where the system cannot."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), 'renameat2', None)
    if rename is None:
        return False
    # Under the name of what steps aside, since what bears the name of something unfinished is removed by anyone.
    new.rename(aside)
    if rename(_AT_FDCWD, os.fsencode(aside), _AT_FDCWD, os.fsencode(path), _EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    aside.rename(new)
    if number in _CANNOT_EXCHANGE:
        return False
    raise OSError(number, os.strerror(number), str(path))


def bring_back(path: Path) -> None:
    """Gives a store its name again that stepped aside for another one, where a kill came between."""
    for old in stepped_aside(path):
        descriptor = None if os.path.lexists(path) else lock(old)
        if descriptor is not None:
            try:
                if (old / STORE_FILE).is_file():
                    old.rename(path)
            finally:
                os.close(descriptor)


def open_folder(path: Path) -> int:
    """A descriptor of a folder; it shows what the folder has, whatever takes its name later."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY)


def open_member(folder: int, name: str) -> int:
    """A descriptor of a plain file in an open folder; OSError if it is something else, such as a pipe."""
    descriptor = os.open(name, os.O_RDONLY | os.O_NONBLOCK, dir_fd=folder)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, 'no plain file', name)
    return descriptor
