"""One split of Open Images: its official files, the images that classes need, and the steps of a download.

Sources: https://storage.googleapis.com/openimages/web/challenge2019_downloads.html and …/web/download_v7.html for
tables, masks and classes; https://github.com/cvdfoundation/open-images-dataset for images, their number and size.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa

from hierseg.downloads.fetch import Download, Failure, Fetcher, Outcome, RetryPolicy
from hierseg.errors import AnnotationError, ConfigError, DownloadError, TaxonomyError
from hierseg.files import csv_text, disk_faults, free_bytes, in_words, make_folder, output_folder, write_atomically
from hierseg.formats.csv_tables import read_chunks
from hierseg.locks import locked
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

    The hierarchy is any taxonomy file, whose classes are ids or names of the list of classes (``id,name``), which may
    have more. Part edges are ignored.
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
                ids = chunk.texts['ImageID']
                if classes is not None:
                    ids = ids.filter(pa.array(chunk.labels('LabelName', [*classes], refuse=False) >= 0))
                found.update(ids.unique().to_pylist())
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


@dataclass(frozen=True)
class PlannedFile(Download):
    """A table or an archive of masks, before anything is fetched."""

    size: int | None = None  # bytes, if known
    num_there: int = 0  # bytes that are there
    is_whole: bool = False
    problem: str = ''  # why it will not be had

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
    """Images to have, of ``num_named`` that the tables name, and archives with their masks."""

    image_ids: tuple[str, ...]
    archives: tuple[PlannedFile, ...]
    num_named: int
    num_missing: Mapping[Download, int]  # bytes to fetch, about, of the archives that are not there and of all images


@dataclass
class OpenImagesDownload:
    """The steps of a download, to be taken in this order: plan, tables, select, fetch.

    In the folder paths are as below the official addresses, so that it can serve as a mirror itself.
    """

    out: str | PathLike[str]  # the folder
    split: str
    release: str = RELEASES[0]
    classes: Sequence[str] = ()  # names or ids; only images that have something of them or their descendants
    hierarchy: str | PathLike[str] | None = None  # gives the descendants, and the classes if none; None: the official
    images_with: str | None = None  # the least an image must have; None: labels without classes, boxes with them
    max_images: int | None = None  # drawn at random by ``seed``
    seed: int = 0
    recheck: bool = False  # compare what is there with its server, even if it was verified before
    base_url: str = BASE_URL
    images_url: str = IMAGES_URL
    workers: int = 16  # connections at a time
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
        self._out = output_folder(self.out, error=DownloadError)
        self._tables, self._archives = official_files(self.release, self.split)
        self._fetcher = Fetcher(self._out, policy=self.policy, recheck=self.recheck, workers=self.workers)
        self.failures_path = self._out / 'not_fetched.csv'  # file, address, why; if anything could not be had

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Makes the folder, and keeps other downloads out of it."""
        with locked(make_folder(self._out, error=DownloadError), error=DownloadError):
            yield

    def plan(self) -> Plan:
        """Asks for the sizes of tables and archives, and looks what is there."""
        planned: dict[str, PlannedFile] = {}

        def look(name: str) -> None:
            address = f'{self.base_url.rstrip("/")}/{name}'
            try:
                remote = self._fetcher.ask(address)
            except Failure as failure:
                planned[name] = PlannedFile(name, address, problem=str(failure))
            else:
                state = self._fetcher.num_there(name, remote), self._fetcher.is_whole(name, remote)
                planned[name] = PlannedFile(name, address, remote.size, *state)

        for url in (self.base_url, self.images_url):
            with suppress(Failure):  # any answer will do
                self._fetcher.ask(url, attempts=1)
        names = (*self._tables.values(), *self._archives.values())
        self._fetcher.in_parallel(look, names)
        tables, archives = (tuple(planned[name] for name in kind.values()) for kind in (self._tables, self._archives))
        for table in tables:
            if table.problem:
                fix = 'A mirror keeps the official paths; is --base-url right?'
                raise DownloadError(f'the table cannot be had ({table.problem})', where=table.address, fix=fix)
        return Plan(tables, archives, min(self.max_images or NUM_IMAGES[self.split], NUM_IMAGES[self.split]))

    def tables(self, plan: Plan, outcome: Outcome) -> None:
        """Fetches the tables, without which nothing goes on."""
        missing: dict[Download, int] = {table: table.num_missing for table in plan.tables if not table.is_whole}
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
        digits = {image_id[0] for image_id in masked}
        archives = tuple(file for digit, file in zip(self._archives, plan.archives, strict=True) if digit in digits)
        missing: dict[Download, int] = {file: file.num_missing for file in archives if not file.is_whole}
        for image_id in chosen:
            name = f'{self.split}/{image_id}.jpg'
            image = Download(name, f'{self.images_url.rstrip("/")}/{name}')
            missing[image] = 0 if self._fetcher.is_known(name) else IMAGE_BYTES
        return Selection(tuple(chosen), archives, len(named), missing)

    def fetch(self, selection: Selection, outcome: Outcome) -> None:
        """Fetches images and archives, and lists those that cannot be had in ``failures_path``."""
        try:
            self._fetch(selection.num_missing, outcome, what='images and masks')
        finally:
            rows = sorted((file.name, file.address, why) for file, why in outcome.failed.items())
            with disk_faults(self.failures_path, error=DownloadError):
                if rows:
                    write_atomically(csv_text([('file', 'address', 'why'), *rows]).encode(), self.failures_path)
                else:
                    self.failures_path.unlink(missing_ok=True)

    def _fetch(self, files: Mapping[Download, int], outcome: Outcome, *, what: str) -> None:
        missing, free = sum(files.values()), free_bytes(self._out)
        if missing > free:
            why = f'{what} take {in_words(missing)} more, and {in_words(free)} are free'
            fix = 'Make room, name another folder, or ask for less (--classes, --images-with masks, --max-images).'
            raise DownloadError(why, where=str(self._out), fix=fix)
        self._fetcher.fetch_all(files, outcome, show_progress=self.show_progress)
