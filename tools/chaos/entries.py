"""What can be damaged: an honest corpus of each kind of file, and how a user's tool reads it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from chaos.mutations import mutated


@dataclass(frozen=True)
class Case:
    """One damaged copy of an entry's files.

    Attributes:
        folder: The copy.
        corpus: The honest files of this entry, where they were made.
        lenient: Whether the tool is told to leave out what cannot be used, where it has such an option.
    """

    folder: Path
    corpus: Path
    lenient: bool = False


@dataclass(frozen=True)
class Entry:
    """A kind of file.

    Attributes:
        name: Unique.
        make: Writes the honest files into a folder.
        read: Reads them as a user's tool does and gives back what comes out of it.
        damaged: Patterns of the files that are damaged.
        sealed: Whether all damage that changes what comes out must be refused.
        at_once: Files that one process reads, one after the other.
    """

    name: str
    make: Callable[[Path], None]
    read: Callable[[Case], Any]
    damaged: tuple[str, ...]
    sealed: bool = False
    at_once: int = 40


def files_of(folder: Path, entry: Entry) -> list[Path]:
    """The files that are damaged, in order of their names."""
    return sorted(path for pattern in entry.damaged for path in folder.glob(pattern) if path.is_file())


def contents_of(folder: Path) -> list[bytes]:
    """The contents of all files below a folder."""
    return [path.read_bytes() for path in sorted(folder.rglob('*')) if path.is_file()]


LINKS = ('is missing', 'is a folder', 'is a dangling link', 'is a link in a circle', 'is a link to another file')


def damage(folder: Path, entry: Entry, generator: Random) -> tuple[Path, str]:
    """Damages one file of a copy, and tells which and how."""
    files = files_of(folder, entry)
    path = generator.choice(files)
    if generator.random() < 0.03:
        how = generator.choice(LINKS)
        other = generator.choice(files).resolve()
        path.unlink()
        if how == 'is a folder':
            path.mkdir()
        elif how == 'is a dangling link':
            path.symlink_to(path.with_name('nowhere'))
        elif how == 'is a link in a circle':
            path.symlink_to(path)
        elif how == 'is a link to another file':
            path.symlink_to(other)
        return path, how
    content, how = mutated(path.read_bytes(), path.suffix, generator, contents_of(folder))
    path.write_bytes(content)
    return path, how


def digest(value: Any) -> str:
    """A digest of what came out, by value: arrays, records, texts, containers."""
    found = hashlib.sha256()
    for piece in _pieces(value):
        found.update(piece + b'\n')
    return found.hexdigest()


def _pieces(value: Any) -> Iterator[bytes]:
    if isinstance(value, np.ndarray) and value.dtype != object:
        yield f'{value.dtype}{value.shape}'.encode()
        yield np.ascontiguousarray(value).tobytes()
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield repr(key).encode('utf-8', 'surrogatepass')
            yield from _pieces(item)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield from _pieces({field.name: getattr(value, field.name) for field in dataclasses.fields(value)})
    elif isinstance(value, Sequence | np.ndarray) and not isinstance(value, str | bytes):
        yield f'{len(value)} values'.encode()
        for item in value:
            yield from _pieces(item)
    elif isinstance(value, set | frozenset):
        yield from _pieces(sorted(value))
    elif hasattr(value, 'detach'):
        yield from _pieces(value.detach().cpu().numpy())
    else:
        yield repr(value).encode('utf-8', 'surrogatepass')


def make_corpus(folder: Path, entries: Sequence[Entry]) -> dict[str, str]:
    """Makes the honest files of entries that are not there yet; gives back the digest of what each reads as.

    A process of its own does it, so that threads and memory of what it takes are not in those that come after.
    """
    scratch = folder / 'scratch'
    scratch.mkdir(parents=True, exist_ok=True)
    child = os.fork()
    if child == 0:
        try:
            tempfile.tempdir = str(scratch)
            said = os.open(scratch / 'said', os.O_CREAT | os.O_WRONLY)
            for stream in (1, 2):
                os.dup2(said, stream)
            digests = {entry.name: _made(folder, entry) for entry in entries}
            (folder / DIGESTS).write_text(json.dumps(digests))
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    last = (scratch / 'said').read_text(errors='replace')[-1000:]
    shutil.rmtree(scratch)
    if status:
        raise SystemExit(f'error: the honest files cannot be made, or read\n{last}')
    found: dict[str, str] = json.loads((folder / DIGESTS).read_text())
    return found


DIGESTS = 'digests.json'


def _made(folder: Path, entry: Entry) -> str:
    """The digest of an entry, which is made if need be."""
    place, partial, copy = (folder / f'{entry.name}{suffix}' for suffix in ('', '.partial', '.copy'))
    if not place.exists():
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        entry.make(partial)
        partial.rename(place)
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(place, copy)
    found = digest(entry.read(Case(copy, place)))
    shutil.rmtree(copy)
    return found
