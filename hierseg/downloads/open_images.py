"""One split of Open Images: its official files, the images that classes need, and the steps of a download.

Sources: https://storage.googleapis.com/openimages/web/challenge2019_downloads.html and …/web/download_v7.html for
tables, masks and classes; https://github.com/cvdfoundation/open-images-dataset for images, their number and size.
"""

from __future__ import annotations

import csv
import difflib
import fcntl
import io
import re
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from hierseg.downloads.fetch import Download, Failure, Fetcher, Outcome, RetryPolicy, disk_faults
from hierseg.errors import AnnotationError, ConfigError, DownloadError, TaxonomyError
from hierseg.files import write_atomically
from hierseg.formats.csv_tables import read_chunks
from hierseg.taxonomy import read_taxonomy
from hierseg.taxonomy.formats import AnyPath, parse_class_list, read_text

BASE_URL = 'https://storage.googleapis.com/openimages/'
IMAGES_URL = 'https://open-images-dataset.s3.amazonaws.com/'
# Images on the host, of which the challenge's tables name a part.
NUM_IMAGES: Mapping[str, int] = {'train': 1_743_042, 'validation': 41_620, 'test': 125_436}
IMAGE_BYTES = 294_000  # mean of the three splits: 561 GB for 1,910,098 images of at most 1024 pixels
SPLITS = tuple(NUM_IMAGES)
IMAGES_WITH = ('labels', 'boxes', 'masks')

TABLES = {
    'challenge-2019': {
        'hierarchy': 'challenge_2019/challenge-2019-label300-segmentable-hierarchy.json',
        'classes': 'challenge_2019/challenge-2019-classes-description-segmentable.csv',
        'boxes': 'challenge_2019/challenge-2019-{split}-segmentation-bbox.csv',
        'labels': 'challenge_2019/challenge-2019-{split}-segmentation-labels.csv',
        'masks': 'challenge_2019/challenge-2019-{split}-segmentation-masks.csv',
    },
    'v7': {
        'hierarchy': '2018_04/bbox_labels_600_hierarchy.json',
        'classes': 'v7/oidv7-class-descriptions-boxable.csv',
        'boxes': 'v5/{split}-annotations-bbox.csv',
        'labels': 'v5/{split}-annotations-human-imagelabels-boxable.csv',
        'masks': 'v5/{split}-annotations-object-segmentation.csv',  # those of V5, V6 and V7 are the same
    },
}
ARCHIVES = {
    'challenge-2019': 'challenge_2019/{split}-masks/challenge-2019-{split}-masks-{digit}.zip',
    'v7': 'v5/{split}-masks/{split}-masks-{digit}.zip',
}
RELEASES = tuple(TABLES)


def official_files(release: str, split: str) -> tuple[dict[str, str], dict[str, str]]:
    """Paths below the base address: of tables by kind, and of zips of mask PNGs by the first hex digit of images."""
    if (release, split) == ('challenge-2019', 'test'):
        raise ConfigError(
            'the annotations of the test images of the Challenge 2019 were never published',
            fix='Take --split validation, or --release v7, whose test split has masks.',
        )
    tables = {kind: path.format(split=split) for kind, path in TABLES[release].items()}
    if (release, split) == ('v7', 'train'):
        tables['boxes'] = 'v6/oidv6-train-annotations-bbox.csv'
    return tables, {digit: ARCHIVES[release].format(split=split, digit=digit) for digit in '0123456789abcdef'}


def class_ids(names: Sequence[str], *, hierarchy: AnyPath, classes: AnyPath) -> frozenset[str]:
    """Finds the ids of classes, given by name or id, and of all their descendants; without names of all classes.

    Args:
        names: Names or ids.
        hierarchy: Any taxonomy file, whose classes are ids or names of the list. Part edges are ignored.
        classes: Class descriptions (``id,name``). It may have classes that the hierarchy lacks.
    """
    taxonomy = read_taxonomy(hierarchy, ignore_parts=True)
    class_list = parse_class_list(read_text(classes), where=str(classes))
    ids = [class_list.find(known, where=str(hierarchy)) or known for known in taxonomy.ids]
    wanted = set() if names else set(ids)
    for name in names:
        found = class_list.find(name, where='--classes') or (name if name in ids else None)
        if found is None:
            close = ' or '.join(map(repr, difflib.get_close_matches(name, class_list.name_of.values(), n=3)))
            fix = f'Is it {close}?' if close else 'Give names or ids of that list.'
            raise TaxonomyError(f'no class is called {name!r}', where=str(classes), fix=fix)
        wanted.add(found)
        for label in [label for label, class_id in enumerate(ids) if class_id == found]:
            wanted |= {ids[below] for below in taxonomy.descendants(label)}
    return frozenset(wanted)


def image_ids(tables: Iterable[Path], *, classes: Collection[str] | None) -> list[str]:
    """Finds the images, ascending, that tables name in rows of some classes, or in all rows without classes."""
    found: set[str] = set()
    for path in tables:
        try:
            for chunk in read_chunks(path, ['ImageID', 'LabelName']):
                ids, labels = chunk.texts['ImageID'], chunk.texts['LabelName']
                chosen = (
                    ids if classes is None else ids.filter(pc.is_in(labels, value_set=pa.array(classes, pa.string())))
                )
                found.update(pc.unique(chosen).to_pylist())
        except AnnotationError as error:
            why, fix = f'cannot be read as a table ({error})', 'Remove it, and it is fetched again.'
            raise AnnotationError(why, where=str(path), fix=fix) from None
        if odd := [image_id for image_id in found if not re.fullmatch('[0-9a-f]{16}', image_id)]:
            # It would become a path and an address.
            why = f'image {odd[0]!r} is not named by 16 hex digits'
            raise AnnotationError(why, where=str(path), fix='Give the official file.')
    return sorted(found)


def sample(ids: Sequence[str], count: int, *, seed: int) -> list[str]:
    """Draws some of the ids, ascending; a smaller sample with the same seed is part of a larger one."""
    order = np.random.default_rng(seed).permutation(len(ids))
    return sorted(ids[position] for position in order[:count])


def in_words(num_bytes: int) -> str:
    """Writes bytes in decimal units, three digits: 12.3 MB."""
    amount, units = float(num_bytes), ['B', 'kB', 'MB', 'GB', 'TB']
    while amount >= 999.5 and len(units) > 1:
        amount, units = amount / 1000, units[1:]
    return f'{amount:.3g} {units[0]}'


@dataclass(frozen=True)
class PlannedFile:
    """A table or an archive, its bytes if known, those that are there, and why it will not be had ('' if it will)."""

    name: str
    size: int | None = None
    num_there: int = 0
    is_whole: bool = False
    problem: str = ''

    @property
    def num_missing(self) -> int:
        """Bytes to fetch, as far as is known."""
        return 0 if self.is_whole else max(0, (self.size or 0) - self.num_there)


@dataclass(frozen=True)
class Plan:
    """Files of a split before anything is fetched, and an upper bound of the number of images."""

    tables: tuple[PlannedFile, ...]
    archives: tuple[PlannedFile, ...]
    most_images: int


@dataclass(frozen=True)
class Selection:
    """Images to have, of ``num_named`` that the tables name, archives with their masks, and about what is missing."""

    image_ids: tuple[str, ...]
    archives: tuple[str, ...]
    num_named: int
    num_bytes: int


@dataclass
class OpenImagesDownload:
    """The steps of a download, to be taken in this order: plan, tables, select, fetch.

    Attributes:
        out: The folder. In it paths are as below the official addresses, so that it can serve as a mirror itself.
        classes: Names or ids; only images that have something of them or their descendants. Empty: no such limit.
        hierarchy: Gives the descendants, and the classes if there are none above; None for the official one.
        images_with: The least that an image must have: verified labels, boxes or masks (of the classes). None stands
            for labels without classes, and for boxes with them.
        max_images: At most so many, drawn at random by ``seed``.
        recheck: Compare what is there with its server, even if it was verified before.
        workers: Connections at a time.
    """

    out: str | PathLike[str]
    split: str
    release: str = RELEASES[0]
    classes: Sequence[str] = ()
    hierarchy: str | PathLike[str] | None = None
    images_with: str | None = None
    max_images: int | None = None
    seed: int = 0
    recheck: bool = False
    base_url: str = BASE_URL
    images_url: str = IMAGES_URL
    workers: int = 16
    policy: RetryPolicy = field(default_factory=RetryPolicy)
    show_progress: bool = False

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
        self._out = Path(self.out)
        self._tables, self._archives = official_files(self.release, self.split)
        self._fetcher = Fetcher(self._out, policy=self.policy, recheck=self.recheck)
        self.failures_path = self._out / 'not_fetched.csv'  # file, address, why; if anything could not be had

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Makes the folder, and keeps other downloads out of it."""
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
        """Asks for the sizes of tables and archives, and looks what is there."""
        planned: dict[str, PlannedFile] = {}

        def look(name: str) -> None:
            try:
                remote = self._fetcher.ask(self._official(name).address)
            except Failure as failure:
                planned[name] = PlannedFile(name, problem=str(failure))
            else:
                is_whole = self._fetcher.is_whole(name, remote)
                planned[name] = PlannedFile(name, remote.size, self._fetcher.num_there(name, remote), is_whole)

        for url in (self.base_url, self.images_url):
            with suppress(Failure):  # any answer will do
                self._fetcher.ask(url, attempts=1)
        names = (*self._tables.values(), *self._archives.values())
        self._fetcher.in_parallel(look, names, workers=self.workers)
        tables = tuple(planned[name] for name in self._tables.values())
        for table in tables:
            if table.problem:
                raise DownloadError(
                    f'the table cannot be had ({table.problem})',
                    where=self._official(table.name).address,
                    fix='A mirror keeps the official paths; is --base-url right?',
                )
        most = min(self.max_images or NUM_IMAGES[self.split], NUM_IMAGES[self.split])
        return Plan(tables, tuple(planned[name] for name in self._archives.values()), most)

    def tables(self, plan: Plan, outcome: Outcome) -> None:
        """Fetches the tables, without which nothing goes on."""
        missing = {self._official(table.name): table.num_missing for table in plan.tables if not table.is_whole}
        self._fetch(missing, outcome, what='the tables')
        for file, why in outcome.failed.items():
            raise DownloadError(f'cannot be fetched ({why})', where=file.address)

    def select(self, plan: Plan) -> Selection:
        """Reads in the tables, which are there, what to fetch."""
        tables = {kind: self._out / name for kind, name in self._tables.items()}
        classes = None
        if self.classes or self.hierarchy is not None:
            hierarchy = tables['hierarchy'] if self.hierarchy is None else self.hierarchy
            classes = class_ids(self.classes, hierarchy=hierarchy, classes=tables['classes'])
        least = self.images_with or ('labels' if classes is None else 'boxes')
        asked = [tables[kind] for kind in IMAGES_WITH[IMAGES_WITH.index(least) :]]
        named = image_ids(asked, classes=classes)
        if not named:
            where = ', '.join(map(str, asked))
            raise AnnotationError('no image has anything of these classes', where=where, fix='Ask for other classes.')
        chosen = named if self.max_images is None else sample(named, self.max_images, seed=self.seed)
        masked = set(image_ids([tables['masks']], classes=None)).intersection(chosen)
        archives = tuple(self._archives[digit] for digit in sorted({image_id[0] for image_id in masked}))
        num_bytes = sum(self._needed(chosen, archives, plan).values())
        return Selection(tuple(chosen), archives, len(named), num_bytes)

    def fetch(self, selection: Selection, plan: Plan, outcome: Outcome) -> None:
        """Fetches images and archives, and lists those that cannot be had in ``failures_path``."""
        try:
            self._fetch(self._needed(selection.image_ids, selection.archives, plan), outcome, what='images and masks')
        finally:
            with disk_faults(self.failures_path):
                if not outcome.failed:
                    self.failures_path.unlink(missing_ok=True)
                else:
                    text = io.StringIO()
                    rows = sorted((file.name, file.address, why) for file, why in outcome.failed.items())
                    csv.writer(text, lineterminator='\n').writerows([('file', 'address', 'why'), *rows])
                    write_atomically(text.getvalue().encode(), self.failures_path)

    def _needed(self, ids: Sequence[str], archives: Collection[str], plan: Plan) -> dict[Download, int]:
        """Bytes that are missing, about, of the archives that are not there and of all images."""
        needed = {
            self._official(archive.name): archive.num_missing
            for archive in plan.archives
            if archive.name in archives and not archive.is_whole
        }
        for image_id in ids:
            name = f'{self.split}/{image_id}.jpg'
            image = Download(name, f'{self.images_url.rstrip("/")}/{name}')
            needed[image] = 0 if self._fetcher.is_known(name) else IMAGE_BYTES
        return needed

    def _fetch(self, files: Mapping[Download, int], outcome: Outcome, *, what: str) -> None:
        folder = self._out.absolute()
        free = shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.exists())).free
        if sum(files.values()) > free:
            raise DownloadError(
                f'{what} take {in_words(sum(files.values()))} more, and {in_words(free)} are free',
                where=str(self._out),
                fix='Make room, name another folder, or ask for less (--classes, --images-with masks, --max-images).',
            )
        self._fetcher.fetch_all(files, outcome, workers=self.workers, show_progress=self.show_progress)

    def _official(self, name: str) -> Download:
        return Download(name, f'{self.base_url.rstrip("/")}/{name}')
