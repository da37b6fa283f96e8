"""The folder that a conversion of Open Images keeps its progress in.

It holds all that the conversion was told (``begun.json``), the tables by image, and a file for every finished
batch. Each of these takes its name when it is whole, so that whoever comes after a killed process finds all or nothing
of it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from hierseg.converters.options import ConversionOptions, ConversionSummary, OpenImagesFiles
from hierseg.errors import AnnotationError, StoreError
from hierseg.files import write_json
from hierseg.store.store import read_object
from hierseg.store.writer import lock_folder, remove_leftovers
from hierseg.taxonomy import Taxonomy

FORMAT, VERSION = 'hierseg-conversion', 1
BLOCK_BYTES = 1 << 24


def describe_task(
    files: OpenImagesFiles,
    taxonomy: Taxonomy,
    options: ConversionOptions,
    *,
    sizes: dict[str, int],
    zip_digests: tuple[tuple[str, str], ...],
) -> dict[str, Any]:
    """All that a conversion is told, by content where that is affordable; equal descriptions give equal results."""
    folders = {'images': files.images, 'mask_dir': files.mask_dir}
    return {
        'format': FORMAT,
        'version': VERSION,
        **sizes,
        'options': asdict(options),
        'taxonomy': taxonomy.to_json(),
        'sources': {
            **{name: _sha256(path) for name, path in files.tables.items()},
            'mask_zips': [list(digest) for digest in zip_digests],
        },
        'folders': {name: None if path is None else str(Path(path).absolute()) for name, path in folders.items()},
    }


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with path.open('rb') as file:
            while block := file.read(BLOCK_BYTES):
                digest.update(block)
    except OSError as error:
        raise AnnotationError(f'cannot be read ({error.strerror})', where=str(path), fix='Check the path.') from None
    return digest.hexdigest()


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """In what two descriptions differ, in words."""
    found = []
    for name in one:
        if name in ('options', 'sources', 'folders'):
            found += [key for key in one[name] if one[name][key] != other.get(name, {}).get(key)]
        elif one[name] != other.get(name):
            found.append(name)
    return found


class WorkFolder:
    """The progress of one conversion, hidden beside its output; a context manager that keeps a second one out.

    After an exception the folder stays for the next run if it has a finished batch, and goes away if it has none.

    Args:
        out: The output.
        begun: What :func:`describe_task` says.
        overwrite: Start anew, if what is there was begun with something else; otherwise that is a StoreError.
    """

    def __init__(self, out: Path, begun: dict[str, Any], *, overwrite: bool) -> None:
        self.out = out.absolute()
        self.path = self.out.with_name(f'.{out.name}.work')
        self.tables = self.path / 'tables'
        self.begun, self.overwrite = begun, overwrite
        self._lock: int | None = None

    def __enter__(self) -> WorkFolder:
        self.path.mkdir(parents=True, exist_ok=True)
        remove_leftovers(self.out)
        try:
            self._lock = lock_folder(self.path)
            if self._lock is None:
                raise StoreError('a conversion is at work here', where=str(self.path), fix='Wait for it.')
            self._begin()
        except BaseException:
            # Python calls no __exit__ for what goes wrong before the block begins.
            self._leave(keep=self._lock is None or self._is_worth_keeping())
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._leave(keep=kind is None or self._is_worth_keeping())

    def _is_worth_keeping(self) -> bool:
        return any(self.path.glob('*.part'))

    def _leave(self, *, keep: bool) -> None:
        if not keep:
            self.discard()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _begin(self) -> None:
        """Goes on with what is there, or begins; what is there without ``begun.json`` is taken for nothing."""
        file = self.path / 'begun.json'
        if file.exists():
            found = differences(self.begun, read_object(file))
            if not found:
                return
            if not self.overwrite and self._is_worth_keeping():
                raise StoreError(
                    f'holds an unfinished conversion that was begun with other {", ".join(found)}',
                    where=str(self.path),
                    fix='Go on with the same input and options, or start anew with --overwrite.',
                )
        file.unlink(missing_ok=True)
        for entry in self.path.iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        write_json(self.begun, file, error=StoreError)

    def discard(self) -> None:
        """Removes the folder."""
        (self.path / 'begun.json').unlink(missing_ok=True)
        shutil.rmtree(self.path, ignore_errors=True)

    def sorted_tables(self) -> tuple[int, ConversionSummary] | None:
        """The number of images and the summary that :meth:`keep_tables` kept, or None."""
        file = self.tables / 'whole.json'
        if not file.exists():
            return None
        document = read_object(file)
        return document['images'], ConversionSummary.from_json(document['summary'])

    def keep_tables(self, num_images: int, summary: ConversionSummary) -> None:
        """Says that the tables by image are whole."""
        document = {'images': num_images, 'summary': summary.to_json()}
        write_json(document, self.tables / 'whole.json', error=StoreError)


def part_path(folder: Path, first: int, last: int) -> Path:
    """The file of a batch of images ``first`` to ``last - 1``."""
    return folder / f'{first:08}-{last:08}.part'
