"""The folder that a conversion of Open Images keeps its progress in.

It holds all that the conversion was told (``begun.json``), the tables by image, and a file for every finished
batch. Each of these takes its name when it is whole, so that whoever comes after a killed process finds all or nothing
of it. Each has a checksum and names the task that it is of, so that damage and mixed folders are refused. A folder that
has anything else in it is not taken for ours, and stays.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from hierseg.converters.options import ConversionOptions, ConversionSummary, OpenImagesFiles
from hierseg.errors import AnnotationError, StoreError
from hierseg.files import PARTIAL, lock, remove_folder, whole_file, whole_folder
from hierseg.store.checksums import crc32c, read_object, seal
from hierseg.store.folders import STORE_FILE, remove_leftovers, store_errors
from hierseg.store.writer import StorePart, read_part, write_part
from hierseg.taxonomy import Taxonomy

FORMAT, VERSION = 'hierseg-conversion', 2
BLOCK_BYTES = 1 << 24
DELETE = 'Delete it, and convert again.'
_FILES = re.compile(r'begun\.json|result\.json|zips\.npy|[0-9]{8,}-[0-9]{8,}\.part|' + PARTIAL.pattern)
_TABLES = re.compile(r'whole\.json|[0-9]{8,}-[a-z]+\.arrow|' + PARTIAL.pattern)


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
        if name in ('options', 'sources', 'folders') and isinstance(other.get(name), dict):
            found += [key for key in one[name] if one[name][key] != other[name].get(key)]
        elif one[name] != other.get(name):
            found.append(name)
    return found


def fingerprint(begun: dict[str, Any]) -> str:
    """A digest of a description of :func:`describe_task`."""
    return hashlib.sha256(json.dumps(begun, sort_keys=True).encode()).hexdigest()


def work_path(out: Path) -> Path:
    """The folder of work for an output."""
    return out.with_name(f'.{out.name}.work')


def finished_task(out: Path) -> str | None:
    """The :func:`fingerprint` of the task that ``out`` is the result of, if a kill left its folder of work."""
    file = work_path(out) / 'result.json'
    try:
        generation = hashlib.sha256((out / STORE_FILE).read_bytes()).hexdigest()
        result = read_object(file.read_bytes(), where=file, sealed=True, fix=DELETE)
    except (OSError, StoreError):
        return None
    return str(result.get('task')) if result.get('generation') == generation else None


class WorkFolder:
    """The progress of one conversion, hidden beside its output; a context manager that keeps a second one out.

    After an exception the folder stays for the next run if it has a finished batch, and goes away if it has none.

    Args:
        out: The output, of :func:`hierseg.store.folders.real_path`.
        begun: What :func:`describe_task` says.
        overwrite: Start anew, if what is there was begun with something else; otherwise that is a StoreError.

    Raises:
        StoreError: If another conversion is at work, or if what has the folder's name is not ours.
    """

    def __init__(self, out: Path, begun: dict[str, Any], *, overwrite: bool) -> None:
        self.out = out
        self.path = work_path(out)
        self.tables = self.path / 'tables'
        self.begun, self.overwrite = begun, overwrite
        self.task = fingerprint(begun)
        self._lock: int | None = None

    def __enter__(self) -> WorkFolder:
        with store_errors(self.path):
            remove_leftovers(self.out)
            if not os.path.lexists(self.path):
                self._begin()
                return self
            self._check_is_folder(self.path)
            self._take()
            try:
                self._go_on()
            except BaseException:
                # Python calls no __exit__ for what goes wrong before the block begins.
                self._unlock()
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is not None and not self._is_worth_keeping():
                self.discard()
        finally:
            self._unlock()

    def _take(self) -> None:
        self._lock = lock(self.path)
        if self._lock is None:
            raise StoreError('a conversion is at work here', where=str(self.path), fix='Wait for it.')

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _is_worth_keeping(self) -> bool:
        return any(self.path.glob('*.part'))

    def _begin(self) -> None:
        """Makes the folder and takes it; who is interrupted on the way leaves none."""
        try:
            self._make()
            self._take()
        except KeyboardInterrupt:
            with suppress(StoreError):
                if os.path.lexists(self.path):
                    if self._lock is None:
                        self._take()
                    self.discard()
            self._unlock()
            raise

    def _make(self) -> None:
        """Makes the folder, which takes its name when it says what it is."""
        content = json.dumps(self.begun, ensure_ascii=False, indent=1).encode()
        errors = store_errors(self.path / 'begun.json', needed=len(content))
        with whole_folder(self.path, error=StoreError) as folder, errors:
            (folder / 'begun.json').write_bytes(content)

    def _go_on(self) -> None:
        """Goes on with what is there, or begins anew."""
        file = self.path / 'begun.json'
        self._check_is_ours()
        begun = read_object(file.read_bytes(), where=file, sealed=False, fix=f'Delete {self.path}, and convert again.')
        if begun.get('format') != FORMAT:
            raise StoreError('is no unfinished conversion', where=str(self.path), fix='Move it away.')
        found = differences(self.begun, begun)
        if not found:
            return
        if not self.overwrite and self._is_worth_keeping():
            raise StoreError(
                f'holds an unfinished conversion that was begun with other {", ".join(found)}',
                where=str(self.path),
                fix='Go on with the same input and options, or start anew with --overwrite.',
            )
        self.discard()
        self._unlock()
        self._begin()

    def _check_is_folder(self, path: Path) -> None:
        if path.is_symlink() or not path.is_dir():
            raise StoreError('is no folder of an unfinished conversion', where=str(path), fix='Move it away.')

    def _check_is_ours(self) -> None:
        """Refuses a folder with anything in it that no conversion has put there."""
        if not (self.path / 'begun.json').is_file():
            raise StoreError('is no folder of an unfinished conversion', where=str(self.path), fix='Move it away.')
        folders = [(self.path, _FILES, 'tables')]
        if os.path.lexists(self.tables):
            folders.append((self.tables, _TABLES, 'scratch'))
        for folder, files, inner in folders:
            self._check_is_folder(folder)
            for entry in list(os.scandir(folder)):
                known = entry.is_file(follow_symlinks=False) and files.fullmatch(entry.name)
                if not known and not (entry.name == inner and entry.is_dir(follow_symlinks=False)):
                    what = 'is in the folder of an unfinished conversion, but no part of it'
                    raise StoreError(what, where=entry.path, fix='Move it away.')

    def discard(self) -> None:
        """Removes the folder; what tells that it is ours goes last."""
        if not os.path.lexists(self.path):
            return
        with store_errors(self.path):
            self._check_is_ours()
            (self.tables / 'whole.json').unlink(missing_ok=True)
            if self.tables.exists():
                shutil.rmtree(self.tables)
            for entry in self.path.iterdir():
                if entry.name not in ('begun.json', 'result.json'):
                    entry.unlink()
            remove_folder(self.path)

    def sorted_tables(self) -> tuple[int, ConversionSummary] | None:
        """The number of images and the summary that :meth:`keep_tables` kept, or None.

        Raises:
            StoreError: If any of the tables is not as it was then.
        """
        file = self.tables / 'whole.json'
        if not file.exists():
            return None
        fix = f'Delete {self.tables}, and convert again.'
        with store_errors(file):
            document = read_object(file.read_bytes(), where=file, sealed=True, fix=fix)
            if document.get('task') != self.task or document['files'] != self._measured():
                raise StoreError('is damaged, or of another conversion', where=str(self.tables), fix=fix)
        return document['images'], ConversionSummary.from_json(document['summary'])

    def _measured(self) -> dict[str, str]:
        files = sorted(self.tables.glob('*.arrow'))
        return {file.name: f'{file.stat().st_size} {crc32c(file.read_bytes())}' for file in files}

    def keep_tables(self, num_images: int, summary: ConversionSummary) -> None:
        """Says that the tables by image are whole."""
        document = {'task': self.task, 'images': num_images, 'summary': summary.to_json(), 'files': self._measured()}
        self._keep(document, self.tables / 'whole.json')

    def keep_result(self, generation: str) -> None:
        """Says which store is the result, before it takes its name, so that a kill after that is known for one."""
        self._keep({'task': self.task, 'generation': generation}, self.path / 'result.json')

    def _keep(self, document: dict[str, Any], path: Path) -> None:
        content = seal(document)
        with whole_file(path, needed=len(content), error=StoreError) as file:
            file.write(content)

    def part_path(self, first: int, last: int) -> Path:
        """The file of a batch of images ``first`` to ``last - 1``."""
        return self.path / f'{first:08}-{last:08}.part'

    def keep_part(self, part: StorePart, summary: ConversionSummary, first: int, last: int) -> None:
        """Keeps a finished batch."""
        notes = {'task': self.task, 'images': [first, last], 'summary': summary.to_json()}
        write_part(part, notes, self.part_path(first, last))

    def part(self, first: int, last: int) -> tuple[StorePart, ConversionSummary]:
        """A batch that :meth:`keep_part` kept; StoreError if it is damaged, or of other images or another task."""
        path = self.part_path(first, last)
        part, notes = read_part(path)
        if (notes.get('task'), notes.get('images')) != (self.task, [first, last]):
            raise StoreError('is of other images, or of another conversion', where=str(path), fix=DELETE)
        return part, ConversionSummary.from_json(notes['summary'])
