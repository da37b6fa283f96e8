"""Folders that take their name when they are whole, and replace only what is known to be a store.

While a store is written it lies in a hidden folder beside its name, ``.NAME.partial-`` and 32 random digits, which its
process has locked. It replaces an older one by a single exchange of both names, where the file system can do that
(Linux; not on NFS and a few others). Elsewhere the older one steps aside first, as ``.NAME.replaced-…``, and comes back
if a kill comes between.

What bears a name of ours is not for that ours. Nothing is emptied or deleted but plain files with the names of a
store's members, in a real folder; a symbolic link is never followed there.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import re
import stat
import uuid
from pathlib import Path

from hierseg.errors import StoreError
from hierseg.files import disk_faults, output_folder
from hierseg.store.checksums import read_object

STORE_FILE = 'store.json'
TAXONOMY_FILE = 'taxonomy.json'
FORMAT = 'hierseg-store'
VERSION = 2
VERSIONS = (1, VERSION)
"""Versions that are read. Stores of version 1 have no checksums."""
DOCUMENTS = ('coco.json',)
"""Documents that a store may have beside its tables."""
MEMBERS = frozenset(
    {
        STORE_FILE, TAXONOMY_FILE, *DOCUMENTS,
        'images.arrow', 'instances.arrow', 'verified.arrow', 'not_exhaustive.arrow',
    }
)  # fmt: skip
LEFTOVERS = MEMBERS | {'begun.json', 'result.json'}
"""Files of hidden folders: those of stores, and the last ones of a conversion's folder of work."""
CONVERT_AGAIN = 'Convert the data set again.'
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


def check_target(path: Path, *, overwrite: bool) -> None:
    """Refuses, before any work is done, an output that must not be replaced; removes what killed runs left beside it.

    Args:
        path: A :func:`real_path`.
        overwrite: Whether a store may be replaced.

    Raises:
        StoreError: If ``path`` is anything but a free name, an empty folder, or, with ``overwrite``, a store that has
            nothing else in it.
    """
    with store_errors(path):
        remove_leftovers(path)
        if not path.exists() or (path.is_dir() and not any(path.iterdir())):
            return
        if not (path / STORE_FILE).is_file():
            fix = 'Name a new folder; it will not be replaced.'
            raise StoreError('exists and is no store', where=str(path), fix=fix)
        check_identity(path)
    if not overwrite:
        fix = 'Name another folder, or replace it with --overwrite (overwrite=True).'
        raise StoreError('exists already', where=str(path), fix=fix)


def check_identity(path: Path) -> None:
    """Refuses to take for a store what has another mark, a version that is not read, or anything else in it."""
    kept = 'It will not be replaced; name another folder, or remove it yourself.'
    header = read_object((path / STORE_FILE).read_bytes(), where=path / STORE_FILE, sealed=False, fix=kept)
    check_version(header, path / STORE_FILE, fix=kept)
    for entry in sorted(os.scandir(path), key=lambda entry: entry.name):
        if entry.name not in MEMBERS or not entry.is_file(follow_symlinks=False):
            raise StoreError('is in the store, but no part of it', where=entry.path, fix=f'Move it away. {kept}')


def check_version(header: dict[str, object], where: Path, *, fix: str) -> None:
    """Refuses a ``store.json`` of another format or version."""
    if header.get('format') != FORMAT or header.get('version') not in VERSIONS:
        known = ' or '.join(map(str, VERSIONS))
        found = f'{header.get("format")!r:.80} version {header.get("version")!r:.80}'
        raise StoreError(f'expected {FORMAT!r} version {known}, found {found}', where=str(where), fix=fix)


def hidden_name(path: Path, purpose: str = 'partial') -> Path:
    """A name beside ``path`` that nobody guesses and :func:`remove_leftovers` finds."""
    return path.with_name(f'.{path.name}.{purpose}-{uuid.uuid4().hex}')


def hidden_folders(path: Path, purpose: str) -> list[Path]:
    """Folders beside ``path`` that have names of :func:`hidden_name`."""
    name = re.compile(re.escape(f'.{path.name}.{purpose}-') + '[0-9a-f]{32}')
    with contextlib.suppress(FileNotFoundError):
        return sorted(Path(e.path) for e in os.scandir(path.parent) if name.fullmatch(e.name) and _is_folder(e))
    return []


def _is_folder(entry: os.DirEntry[str]) -> bool:
    return entry.is_dir(follow_symlinks=False)


def new_folder(path: Path) -> tuple[Path, int]:
    """Makes a hidden folder beside ``path``; also the lock on it, of :func:`lock_folder`."""
    while True:
        folder = hidden_name(path)
        folder.mkdir()
        try:
            lock = lock_folder(folder)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                folder.rmdir()
            raise
        # Another run may have taken it for a leftover before it was locked.
        if lock is not None:
            return folder, lock


def lock_folder(path: Path) -> int | None:
    """Locks a folder until the descriptor is closed or the process is gone; None if another has the lock or it is gone.

    Raises:
        OSError: If it is no folder, or a link.
    """
    try:
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(lock), os.lstat(path)):
            return lock
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        os.close(lock)
        raise
    os.close(lock)
    return None


def has_only_members(folder: Path) -> bool:
    """True for a hidden folder of ours: one with nothing in it but plain files of known names."""
    return all(entry.name in LEFTOVERS and entry.is_file(follow_symlinks=False) for entry in list(os.scandir(folder)))


def remove_members(folder: Path) -> None:
    """Removes a hidden folder of ours; all of it stays if there is anything else in it."""
    with contextlib.suppress(FileNotFoundError):  # another run was faster
        if has_only_members(folder):
            # What tells that it is ours goes last.
            for entry in sorted(os.scandir(folder), key=lambda entry: entry.name in (STORE_FILE, 'result.json')):
                os.unlink(entry)
            with contextlib.suppress(OSError):  # NFS keeps files that are open under other names for a while
                folder.rmdir()


def remove_leftovers(path: Path) -> None:
    """Deletes hidden folders for this path whose process is gone; what is not known to be ours stays."""
    bring_back(path)
    for purpose in ('partial', 'replaced'):
        for leftover in hidden_folders(path, purpose):
            with contextlib.suppress(OSError):  # of another user, or where there are no locks
                _remove_leftover(path, leftover, purpose)


def _remove_leftover(path: Path, leftover: Path, purpose: str) -> None:
    lock = lock_folder(leftover)
    if lock is None:
        return
    try:
        if purpose == 'partial':
            remove_members(leftover)
        elif has_only_members(leftover):
            _put_away(path, leftover)
    finally:
        os.close(lock)


def replace_folder(new: Path, path: Path, *, overwrite: bool) -> None:
    """Gives a finished folder its name; what had the name goes away after that. Errors are of :func:`check_target`."""
    check_target(path, overwrite=overwrite)
    with store_errors(path):
        if not (path / STORE_FILE).is_file():
            new.rename(path)
            return
        _flush(new)
        if _exchange(new, path):
            remove_members(new)
            if new.exists():
                what = 'is the store that was replaced, and holds what was put into it meanwhile'
                raise StoreError(what, where=str(new), fix='Move it away.')
            return
        old = hidden_name(path, 'replaced')
        lock = lock_folder(path)
        if lock is None:
            raise StoreError('is being replaced by another process', where=str(path), fix='Wait for it.')
        try:
            path.rename(old)
            try:
                new.rename(path)
            except BaseException:
                old.rename(path)
                raise
            _put_away(path, old)
        finally:
            os.close(lock)


def _put_away(path: Path, old: Path) -> None:
    """Removes a store that stepped aside, under a name that :func:`bring_back` does not find when it is half gone."""
    leftover = hidden_name(path)
    old.rename(leftover)
    remove_members(leftover)


def _flush(folder: Path) -> None:
    """Brings a folder to the disk, before an older one goes away."""
    for path in [*folder.iterdir(), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _exchange(one: Path, other: Path) -> bool:
    """Exchanges two names in one step; False where the system or the file system cannot."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), 'renameat2', None)
    if rename is None:
        return False
    if rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in _CANNOT_EXCHANGE:
        return False
    raise OSError(number, os.strerror(number), str(other))


def bring_back(path: Path) -> None:
    """Gives a store its name again that stepped aside for another one, where a kill came between."""
    for old in hidden_folders(path, 'replaced'):
        lock = None if os.path.lexists(path) else lock_folder(old)
        if lock is not None:
            try:
                if (old / STORE_FILE).is_file():
                    old.rename(path)
            finally:
                os.close(lock)


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
