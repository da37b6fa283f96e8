"""One split of Open Images, from its servers to a folder of the same layout."""

from __future__ import annotations

import csv
import fcntl
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from urllib.parse import urlsplit

from hierseg.downloads.catalogue import (
    BASE_URL,
    IMAGE_BYTES,
    IMAGES_URL,
    NUM_IMAGES,
    RELEASES,
    SPLITS,
    image_file,
    split_files,
)
from hierseg.downloads.fetch import Download, Fetcher
from hierseg.downloads.ledger import Ledger
from hierseg.downloads.partial import disk_faults
from hierseg.downloads.patience import Patience
from hierseg.downloads.plan import (
    Plan,
    PlannedFile,
    in_words,
    require_space,
)
from hierseg.downloads.pool import Outcome, fetch_all, in_parallel
from hierseg.downloads.remote import (
    Client,
    Failure,
    Unreachable,
    unreachable,
)
from hierseg.downloads.selection import class_ids, image_ids, sample
from hierseg.errors import AnnotationError, ConfigError, DownloadError
from hierseg.files import write_atomically

IMAGES_WITH = ('labels', 'boxes', 'masks')
FAILURES_NAME = 'not_fetched.csv'


@dataclass(frozen=True)
class DownloadOptions:
    """What to fetch, and from where.

    Attributes:
        split: One of ``SPLITS``.
        release: One of ``RELEASES``.
        classes: Names or ids; only images that have something of them or their descendants. Empty: no such limit.
        hierarchy: Gives the descendants, and the classes if there are none above; None for the official one.
        images_with: The least that an image must have: verified labels, boxes or masks (of the classes). None stands
            for labels without classes, and for boxes with them.
        max_images: At most so many, drawn at random.
        seed: Of that draw.
        base_url: Stands for ``https://storage.googleapis.com/openimages/``.
        images_url: Stands for ``https://open-images-dataset.s3.amazonaws.com/``.
        workers: Connections at a time.
        recheck: Compare what is there with its server, even if it was verified before.
        patience: Time limits and retries.

    Raises:
        ConfigError: On a value that none of these can be.
    """

    split: str
    release: str = RELEASES[0]
    classes: tuple[str, ...] = ()
    hierarchy: str | PathLike[str] | None = None
    images_with: str | None = None
    max_images: int | None = None
    seed: int = 0
    base_url: str = BASE_URL
    images_url: str = IMAGES_URL
    workers: int = 16
    recheck: bool = False
    patience: Patience = field(default_factory=Patience)

    def __post_init__(self) -> None:
        for value, known in [(self.split, SPLITS), (self.release, RELEASES), (self.images_with, (None, *IMAGES_WITH))]:
            if value not in known:
                raise ConfigError(f'{value!r} is none of {", ".join(map(str, known))}')
        for name, number in [('max_images', self.max_images), ('workers', self.workers)]:
            if number is not None and number < 1:
                raise ConfigError(f'{name} is {number}', fix='It is at least 1.')
        for url in (self.base_url, self.images_url):
            if urlsplit(url).scheme not in ('http', 'https') or not urlsplit(url).netloc:
                raise ConfigError(f'{url!r} is no address of a mirror', fix='It begins with https:// or http://.')


@dataclass(frozen=True)
class Selection:
    """The images to have, and the archives with their masks.

    Attributes:
        image_ids: Ascending.
        archives: Paths.
        num_named: Images that the tables name for the classes, before ``max_images``.
        num_bytes: About what is missing of images and archives.
    """

    image_ids: tuple[str, ...]
    archives: tuple[str, ...]
    num_named: int
    num_bytes: int

    def __str__(self) -> str:
        return (
            f'{len(self.image_ids):,} of {self.num_named:,} images, {len(self.archives)} archives of masks: '
            f'about {in_words(self.num_bytes)} to fetch'
        )


class OpenImagesDownload:
    """The steps of a download, to be taken in this order: plan, tables, select, fetch.

    Args:
        out: The folder. In it paths are as below the official addresses, so that it can serve as a mirror itself.
        options: What to fetch.
        show_progress: Draw bars on stderr.

    Raises:
        ConfigError: If the release has no such split.
    """

    def __init__(self, out: str | PathLike[str], options: DownloadOptions, *, show_progress: bool = False) -> None:
        self._out = Path(out)
        self._options = options
        self._show_progress = show_progress
        self._files = split_files(options.release, options.split)
        self._client = Client(options.patience)
        with disk_faults(self._out):
            ledger = Ledger(self._out)
        self._fetcher = Fetcher(
            self._out, client=self._client, patience=options.patience, ledger=ledger, recheck=options.recheck
        )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Makes the folder, and keeps other downloads out of it.

        Raises:
            DownloadError: If another one is at work there, or the folder cannot be made.
        """
        with disk_faults(self._out):
            self._out.mkdir(parents=True, exist_ok=True)
            lock = (self._out / '.lock').open('w')
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise DownloadError('another download writes here', where=str(self._out), fix='Let it end.') from None
            yield

    def plan(self) -> Plan:
        """Asks for the sizes of tables and archives, and looks what is there.

        Raises:
            DownloadError: If a server cannot be reached, or lacks a table.
        """
        names = (*self._files.tables, *self._files.archives.values())
        for url in (self._options.base_url, self._options.images_url):
            self._client.require_server(url)
        planned: dict[str, PlannedFile] = {}

        def look(name: str) -> None:
            planned[name] = self._planned(name)

        in_parallel(look, names, workers=min(self._options.workers, len(names)), stop=self._fetcher.stop)
        tables = tuple(planned[name] for name in self._files.tables)
        for table in tables:
            if table.problem:
                raise DownloadError(
                    f'the table cannot be had ({table.problem})',
                    where=self._address(table.name),
                    fix='A mirror keeps the official paths; is --base-url right?',
                )
        most = min(self._options.max_images or NUM_IMAGES[self._options.split], NUM_IMAGES[self._options.split])
        archives = tuple(planned[name] for name in self._files.archives.values())
        return Plan(tables, archives, most, IMAGE_BYTES)

    def tables(self, plan: Plan, outcome: Outcome) -> None:
        """Fetches the tables.

        Raises:
            DownloadError: If one of them cannot be had, or does not fit on the disk.
        """
        missing = [table for table in plan.tables if not table.is_whole]
        require_space(sum(table.num_missing for table in missing), self._out, what='the tables')
        self._fetch([self._download(table.name) for table in missing], [table.size or 0 for table in missing], outcome)
        if outcome.failed:
            failed = outcome.failed[0]
            raise DownloadError(f'cannot be fetched ({failed.why})', where=failed.file.address)

    def select(self, plan: Plan) -> Selection:
        """Reads in the tables, which are there, what to fetch.

        Raises:
            AnnotationError: If a table cannot be read, or no image has what is asked for.
            TaxonomyError: If a class is unknown.
        """
        options, files = self._options, self._files
        classes = None
        if options.classes or options.hierarchy is not None:
            hierarchy = self._out / files.hierarchy if options.hierarchy is None else options.hierarchy
            classes = class_ids(options.classes, hierarchy=hierarchy, classes=self._out / files.classes)
        least = options.images_with or ('labels' if classes is None else 'boxes')
        tables = dict(zip(IMAGES_WITH, (files.labels, files.boxes, files.masks), strict=True))
        asked = [self._out / tables[kind] for kind in IMAGES_WITH[IMAGES_WITH.index(least) :]]
        named = image_ids(asked, classes=classes)
        if not named:
            where = ', '.join(map(str, asked))
            raise AnnotationError('no image has anything of these classes', where=where, fix='Ask for other classes.')
        chosen = named if options.max_images is None else sample(named, options.max_images, seed=options.seed)
        masked = set(image_ids([self._out / files.masks], classes=None)).intersection(chosen)
        archives = tuple(files.archives[digit] for digit in sorted({image_id[0] for image_id in masked}))
        missing = {archive.name: archive.num_missing for archive in plan.archives}
        num_bytes = sum(missing[name] for name in archives) + sum(map(self._expected, self._images(chosen)))
        return Selection(tuple(chosen), archives, len(named), num_bytes)

    def fetch(self, selection: Selection, plan: Plan, outcome: Outcome) -> None:
        """Fetches images and archives, and writes the list of those that cannot be had.

        Raises:
            DownloadError: If they do not fit on the disk, or a server cannot be reached any more.
        """
        require_space(selection.num_bytes, self._out, what='images and masks')
        sizes = {archive.name: archive.size or 0 for archive in plan.archives if not archive.is_whole}
        archives = [self._download(name) for name in selection.archives if name in sizes]
        images = self._images(selection.image_ids)
        expected = [sizes[file.name] for file in archives] + [self._expected(file) for file in images]
        try:
            self._fetch([*archives, *images], expected, outcome)
        finally:
            self._write_failures(outcome)

    @property
    def failures_path(self) -> Path:
        """Where the list of what could not be had is, if there is anything on it: file, address, why."""
        return self._out / FAILURES_NAME

    def _write_failures(self, outcome: Outcome) -> None:
        with disk_faults(self.failures_path):
            if not outcome.failed:
                self.failures_path.unlink(missing_ok=True)
                return
            text = io.StringIO()
            writer = csv.writer(text, lineterminator='\n')
            writer.writerow(['file', 'address', 'why'])
            rows = [(failed.file.name, failed.file.address, failed.why) for failed in outcome.failed]
            writer.writerows(sorted(rows))
            write_atomically(text.getvalue().encode(), self.failures_path)

    def _fetch(self, files: Sequence[Download], expected: Sequence[int], outcome: Outcome) -> None:
        if files:
            workers = min(self._options.workers, len(files))
            fetch_all(
                files,
                self._fetcher,
                expected=expected,
                outcome=outcome,
                workers=workers,
                show_progress=self._show_progress,
            )

    def _planned(self, name: str) -> PlannedFile:
        try:
            remote = self._fetcher.ask(self._address(name))
        except Unreachable as failure:
            raise unreachable(self._address(name), failure) from None
        except Failure as failure:
            return PlannedFile(name, None, 0, False, str(failure))
        is_whole = self._fetcher.is_whole(name, remote)
        return PlannedFile(name, remote.size, len(self._fetcher.partial(name)), is_whole)

    def _expected(self, image: Download) -> int:
        return 0 if self._fetcher.is_known(image.name) else IMAGE_BYTES

    def _images(self, ids: Sequence[str]) -> list[Download]:
        names = [image_file(self._options.split, image_id) for image_id in ids]
        return [Download(name, f'{self._options.images_url.rstrip("/")}/{name}') for name in names]

    def _download(self, name: str) -> Download:
        return Download(name, self._address(name))

    def _address(self, name: str) -> str:
        return f'{self._options.base_url.rstrip("/")}/{name}'
