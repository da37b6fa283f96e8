"""One writer of an output at a time: a lock that the system takes back when its process ends, however it ends."""

from __future__ import annotations

import fcntl
import os
import platform
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from os import PathLike
from pathlib import Path

from hierseg.errors import HiersegError, OutputError
from hierseg.files import disk_faults, make_folder, output_file

NAME = '.hierseg.lock'  # in a folder; beside a file, behind its name
MARK = 'hierseg: '  # how a lock's text begins

_held: set[int] = set()


def _leave_to_parent() -> None:
    """Closes the locks in a forked process, or a worker that outlives its killed parent would keep them."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_leave_to_parent)


@contextmanager
def locked(output: str | PathLike[str], *, error: type[HiersegError] = OutputError) -> Iterator[None]:
    """Keeps other runs away from an output while the block runs.

    The lock is on a file, ``.hierseg.lock`` in a folder, ``.NAME.hierseg.lock`` beside a file, which goes with the
    block. A killed process leaves the file behind without a lock on it, and the next run takes it over.

    Args:
        output: A folder that exists, or a file in one.
        error: What to raise.

    Raises:
        HiersegError: As ``error`` says, if another run writes there; it names the process. Likewise if the lock cannot
            be made, or a file or link that is none of ours has its name.

    Warns:
        UserWarning: If the file system knows no locks; the block runs all the same.
    """
    place = Path(output).resolve()
    path = place / NAME if place.is_dir() else place.with_name(f'.{place.name}{NAME}')
    with disk_faults(path, error=error):
        descriptor = _take(path, output, error)
    _held.add(descriptor)
    try:
        yield
    finally:
        if descriptor in _held:  # else this is a forked process
            _held.remove(descriptor)
            path.unlink(missing_ok=True)
            os.close(descriptor)


@contextmanager
def locked_file(path: str | PathLike[str]) -> Iterator[Path]:
    """Decides where a file will lie, makes its folder, and keeps other runs away from it while the block runs.

    Raises:
        OutputError: As of :func:`~hierseg.files.output_file` and :func:`locked`.
    """
    target = output_file(path)
    make_folder(target.parent)
    with locked(target):
        yield target


def _take(path: Path, output: str | PathLike[str], error: type[HiersegError]) -> int:
    """A descriptor that has the lock, of the file that has its name."""
    while True:
        descriptor = _open(path, error)
        try:
            if _has_lock(descriptor, path, output, error):
                text = f'{MARK}process {os.getpid()} on {platform.node()} since {datetime.now():%Y-%m-%d %H:%M:%S}\n'
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, text.encode(), 0)
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _open(path: Path, error: type[HiersegError]) -> int:
    """Opens or makes a lock's file; what has its name and is none is left as it is."""
    fix = 'Look what it is, and move it away.'
    if path.is_symlink():
        raise error('a link has the name of a lock', where=str(path), fix=fix)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    text = os.pread(descriptor, 1000, 0) if stat.S_ISREG(os.fstat(descriptor).st_mode) else b'another kind of file'
    if text and not text.startswith(MARK.encode()):
        os.close(descriptor)
        raise error('a file that is no lock has the name of one', where=str(path), fix=fix)
    return descriptor


def _has_lock(descriptor: int, path: Path, output: str | PathLike[str], error: type[HiersegError]) -> bool:
    """Tries to lock; False if the file lost its name meanwhile, because the run that had the lock ended."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        who = os.pread(descriptor, 1000, 0).decode(errors='replace').removeprefix(MARK).strip()
        what = f'another run writes here ({who})' if who else 'another run writes here'
        raise error(what, where=str(output), fix='Let it end, or name another output.') from None
    except OSError as fault:
        warnings.warn(f'{output}: no locks here ({fault.strerror}); see that no other run writes to it', stacklevel=5)
        return True
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False
