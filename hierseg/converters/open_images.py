"""From the official Open Images files to a store.

Batches of images, each made into a part of a store by all workers together.

A batch is what a killed conversion loses at most: nobody begins the next before one is on disk.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context, parent_process
from os import PathLike
from pathlib import Path
from threading import Thread

import cv2
import numpy as np
from tqdm import tqdm

from hierseg.converters.open_images_masks import (
    Folder,
    ImageConverter,
    MaskSource,
    MaskZips,
    Problem,
    Trouble,
    ZipIndex,
    find_zips,
)
from hierseg.converters.open_images_progress import (
    SHARD_FILE,
    WorkFolder,
    describe,
    part_path,
    write_store,
)
from hierseg.converters.open_images_rows import Partition, PartitionedTables, Split, write_partition
from hierseg.converters.open_images_tables import TableReader, masks_are_files
from hierseg.converters.options import ConversionOptions, ConversionSummary, OpenImagesFiles, ShardNumber
from hierseg.errors import AnnotationError
from hierseg.files import whole_file
from hierseg.formats.csv_tables import place_of
from hierseg.store.writer import StorePart, check_target, write_part
from hierseg.taxonomy import Taxonomy

IMAGES_PER_BATCH = 8192
IMAGES_PER_TASK = 32

Piece = tuple[StorePart, ConversionSummary]


@dataclass
class PieceConverter:
    """Converts some images of a batch; it travels to the workers, and each reads the rows of a batch once.

    Attributes:
        tables: The rows.
        images: Opens images and masks.
        options: What to do about imperfect input.
    """

    tables: PartitionedTables
    images: ImageConverter
    options: ConversionOptions
    _batch: tuple[int, Split] | None = field(default=None, init=False)

    def __call__(self, batch: int, first: int, last: int) -> Piece:
        """Converts the images ``first`` to ``last - 1`` of a batch.

        Raises:
            AnnotationError: For the first of what the options do not tolerate.
        """
        if self._batch is None or self._batch[0] != batch:
            self._batch = (batch, self.tables.batch(batch))
        split = self._batch[1]
        summary = ConversionSummary()
        summary.masks_joined, summary.masks_without_box = split.num_joined(first, last)
        images, instances, verified = [], [], []
        for row in range(first, last):
            result = self.images(split.task(row))
            self._settle(result.problems, summary)
            if result.image is not None:
                positive, negative = (np.unique(labels) for labels in split.verified(row))
                images.append(result.image)
                instances.append(result.instances)
                verified.append((positive, negative))
                summary.count_image(result.instances, positive, negative)
                summary.masks_resized += result.num_resized
        return StorePart.of(images, instances, verified), summary

    def _settle(self, problems: Iterable[Problem], summary: ConversionSummary) -> None:
        """Counts what is tolerated; raises for the rest."""
        table = self.tables.tables['masks']
        for problem in problems:
            if self.options.tolerates(problem.trouble):
                summary.skip(problem.trouble.value, [problem.path or f'image {problem.image_id}'])
                continue
            line = place_of(table, problem.mask_row) if problem.mask_row >= 0 else ''
            where = f'{problem.path} ({line})' if problem.path and line else problem.path or line
            fix = 'Get the file again, or leave such files out with --skip-broken.'
            if problem.trouble is Trouble.MASK_MISSING:
                fix = 'Get the file, or convert without --strict.'
            raise AnnotationError(f'{problem.what} (image {problem.image_id})', where=where, fix=fix)


def convert_batch(
    convert: PieceConverter, pool: Executor | None, batch: int, num_images: int, *, tell: Callable[[int], object]
) -> Piece:
    """Converts a whole batch; the result does not depend on the number of workers.

    Args:
        convert: For this process, if there is no pool; workers have their own.
        pool: What :func:`worker_pool` gave.
        batch: Its number.
        num_images: Images in it.
        tell: Called with the number of images that have been converted, again and again.

    Raises:
        AnnotationError: For the first image, in their order, that the options do not tolerate.
    """
    firsts = range(0, num_images, IMAGES_PER_TASK)
    lasts = [min(first + IMAGES_PER_TASK, num_images) for first in firsts]
    parts, summary = [], ConversionSummary()
    batches = [batch] * len(lasts)
    pieces = pool.map(_convert, batches, firsts, lasts) if pool else map(convert, batches, firsts, lasts)
    for first, last, (part, counts) in zip(firsts, lasts, pieces, strict=True):
        parts.append(part)
        summary.add(counts)
        tell(last - first)
    return StorePart.concatenate(parts), summary


@contextmanager
def worker_pool(workers: int, convert: PieceConverter | None = None) -> Iterator[ProcessPoolExecutor | None]:
    """A pool of processes that begin with a converter; none for one worker, which is this process.

    Raises:
        AnnotationError: If a process dies within the block.
    """
    if workers <= 1:
        yield None
        return
    pool = ProcessPoolExecutor(workers, mp_context=get_context('spawn'), initializer=_begin_worker, initargs=(convert,))
    try:
        yield pool
    except BrokenProcessPool:
        raise AnnotationError('a worker process died', fix='Is memory short? Use fewer workers.') from None
    finally:
        pool.shutdown(cancel_futures=True)


def _begin_worker(convert: PieceConverter | None) -> None:
    """Leaves Ctrl-C to the parent, which ends the workers, and keeps OpenCV to one thread in each."""
    global _converter
    _converter = convert
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(0)
    Thread(target=_end_with_parent, daemon=True).start()


_converter: PieceConverter | None = None


def _convert(batch: int, first: int, last: int) -> Piece:
    if _converter is None:
        raise RuntimeError('this worker process began without a converter')
    return _converter(batch, first, last)


def _end_with_parent() -> None:
    """A parent that is killed cannot end its workers."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


__all__ = ['ConversionOptions', 'OpenImagesFiles', 'ShardNumber', 'convert_openimages', 'convert_shard']


def convert_openimages(
    files: OpenImagesFiles,
    taxonomy: Taxonomy,
    *,
    out: str | PathLike[str],
    options: ConversionOptions | None = None,
    overwrite: bool = False,
    workers: int = 1,
    progress: bool = False,
) -> ConversionSummary:
    """Writes a store of one split.

    Images are those of any of the three tables, in ascending order of their id. Masks join their boxes by
    image, class and nearly equal box (see ``join_masks``), and the box table's coordinates are kept; a
    mask without a box row becomes an instance with the box of its own row. Sizes come from the image
    headers (EXIF rotation is not applied; damage behind the header goes unseen). Labels are kept as
    released, not expanded. The store is the same whatever the number of workers.

    Finished batches of images wait in a hidden folder beside ``out``. A run that is killed is gone on with by the
    next one with the same input and options, and gives the same store.

    Args:
        files: The input.
        taxonomy: The classes.
        out: The store's folder; it appears when it is whole.
        options: What to do about imperfect input.
        overwrite: Replace a store that is there, and an unfinished conversion that was begun with something else.
        workers: Processes that read images and masks; 1 reads in this one.
        progress: Show bars on stderr.

    Raises:
        AnnotationError: On bad input, with file and line or image.
        StoreError: If ``out`` cannot be written, or an unfinished conversion was begun with something else.
    """
    out = Path(out)
    check_target(out, overwrite=overwrite)
    conversion = _Conversion(
        files,
        taxonomy,
        options=options or ConversionOptions(),
        shard=ShardNumber(),
        workers=workers,
        progress=progress,
    )
    with WorkFolder(out, conversion.begun, overwrite=overwrite) as work:
        num_images, summary = conversion.run(work)
        parts = [part_path(work.path, *span) for span in conversion.batches(num_images)]
        try:
            summary = write_store(
                parts, taxonomy, summary, out=out, num_images=num_images, overwrite=overwrite, progress=progress
            )
        except AnnotationError as error:
            # Nothing in the batches is worth going on with.
            work.discard()
            raise AnnotationError(error.what, where=str(files.images), fix=error.fix) from None
        work.discard()
    return summary


def convert_shard(
    files: OpenImagesFiles,
    taxonomy: Taxonomy,
    *,
    out: str | PathLike[str],
    shard: ShardNumber,
    options: ConversionOptions | None = None,
    overwrite: bool = False,
    workers: int = 1,
    progress: bool = False,
) -> None:
    """Converts one of several shares of the images, for ``merge_shards`` to make a store of all.

    Every share reads the tables as a whole, and images and masks of its own alone.

    Args:
        files: The input.
        taxonomy: The classes.
        out: The shard's folder; it appears when it is whole.
        shard: Which share.
        options: What to do about imperfect input.
        overwrite: Replace a shard that is there, and an unfinished conversion that was begun with something else.
        workers: Processes that read images and masks; 1 reads in this one.
        progress: Show bars on stderr.

    Raises:
        AnnotationError: On bad input, with file and line or image.
        StoreError: If ``out`` cannot be written, or an unfinished conversion was begun with something else.
    """
    out = Path(out)
    check_target(out, overwrite=overwrite, marker=SHARD_FILE)
    conversion = _Conversion(
        files,
        taxonomy,
        options=options or ConversionOptions(),
        shard=shard,
        workers=workers,
        progress=progress,
    )
    with WorkFolder(out, conversion.begun, overwrite=overwrite) as work:
        num_images, summary = conversion.run(work)
        work.finish(num_images, summary)


class _Conversion:
    """What converting a share of the images takes.

    Attributes:
        begun: All that it is told, see ``describe``.
    """

    def __init__(
        self,
        files: OpenImagesFiles,
        taxonomy: Taxonomy,
        *,
        options: ConversionOptions,
        shard: ShardNumber,
        workers: int,
        progress: bool,
    ) -> None:
        self.files, self.taxonomy, self.options, self.shard = files, taxonomy, options, shard
        self.workers, self.progress = workers, progress
        self.images = _folder(files.images)
        self.mask_folder, self.archives = _masks_of(files)
        self.zips: ZipIndex | None = None
        if self.archives:
            with worker_pool(min(workers, len(self.archives))) as pool:
                self.zips = ZipIndex.build(self.archives, pool)
        self.images_per_batch = IMAGES_PER_BATCH
        self.begun = describe(
            files,
            taxonomy,
            options,
            shard=shard,
            images_per_batch=self.images_per_batch,
            zip_digests=self.zips.digests if self.zips else (),
        )

    def batches(self, num_images: int) -> list[tuple[int, int]]:
        """First image of each batch, and the first behind it."""
        return self.shard.batches(num_images, self.images_per_batch)

    def run(self, work: WorkFolder) -> tuple[int, ConversionSummary]:
        """Makes all batches that are not there.

        Returns:
            The number of images of all shares, and what was counted in the tables.
        """
        partition, summary = work.partition() or self._partition(work)
        batches = self.batches(partition.num_images)
        spans = {number: span for number, span in enumerate(batches) if not part_path(work.path, *span).exists()}
        total = sum(last - first for first, last in batches)
        left = sum(last - first for first, last in spans.values())
        convert = PieceConverter(
            PartitionedTables(
                work.tables,
                partition,
                self.files.tables,
                num_classes=self.taxonomy.num_classes,
                tolerance=self.options.box_tolerance,
            ),
            ImageConverter(self.images, self._masks(work)),
            self.options,
        )
        with (
            worker_pool(min(self.workers, -(-left // IMAGES_PER_TASK)), convert) as pool,
            tqdm(total=total, initial=total - left, unit='image', disable=not self.progress, smoothing=0.05) as bar,
        ):
            for number, (first, last) in spans.items():
                part, counts = convert_batch(convert, pool, number, last - first, tell=bar.update)
                write_part(part, counts.to_json(), part_path(work.path, first, last))
        return partition.num_images, summary

    def _partition(self, work: WorkFolder) -> tuple[Partition, ConversionSummary]:
        work.tables.mkdir(exist_ok=True)
        reader = TableReader(
            self.taxonomy,
            ConversionSummary(),
            skip_unknown_classes=self.options.skip_unknown_classes,
            skip_bad_rows=self.options.skip_bad_rows,
        )
        partition = write_partition(
            work.tables,
            reader,
            self.files.tables,
            shard=self.shard,
            images_per_batch=self.images_per_batch,
            progress=self.progress,
        )
        work.keep_partition(partition, reader.summary)
        return partition, reader.summary

    def _masks(self, work: WorkFolder) -> MaskSource | None:
        if self.zips is None:
            return self.mask_folder
        index = work.path / 'zips.npy'
        with whole_file(index) as file:
            np.save(file, self.zips.members)
        self.zips = None
        return MaskZips(self.archives, index)


def _masks_of(files: OpenImagesFiles) -> tuple[Folder | None, list[Path]]:
    """The folder or the archives of mask PNGs; neither if masks are text."""
    if not masks_are_files(Path(files.masks)):
        return None, []
    if (files.mask_dir is None) == (not files.mask_zips):
        raise AnnotationError(
            'names PNG files, but no folder of masks is given'
            if files.mask_dir is None
            else 'is given both a folder and archives of masks',
            where=str(files.masks),
            fix='Give either --mask-dir or --mask-zips.',
        )
    return (_folder(files.mask_dir), []) if files.mask_dir is not None else (None, find_zips(files.mask_zips))


def _folder(path: str | PathLike[str]) -> Folder:
    if not Path(path).is_dir():
        raise AnnotationError('is no folder', where=str(path), fix='Give the folder that holds the files.')
    return Folder.scan(Path(path))
