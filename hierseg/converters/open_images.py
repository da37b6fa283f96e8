"""Conversion of the official Open Images files to a store.

The tables are sorted by image once. Then batches of images are made into parts of the store, one after the other, each
by all workers together: processes of this machine, or those of a Dask cluster. A batch is what a killed conversion
loses at most, since nobody begins the next before one is on disk.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from os import PathLike
from pathlib import Path
from threading import Thread

import cv2
import numpy as np
from tqdm import tqdm

from hierseg.converters.open_images_masks import Folder, ImageConverter, MaskZips, Problem, Trouble, ZipIndex, find_zips
from hierseg.converters.open_images_progress import WorkFolder, describe_task, fingerprint, finished_task
from hierseg.converters.open_images_tables import TableReader, batches_of, masks_are_files, read_piece, write_tables
from hierseg.converters.options import ConversionOptions, ConversionSummary, OpenImagesFiles
from hierseg.errors import AnnotationError, StoreError
from hierseg.files import whole_file
from hierseg.formats.csv_tables import place_of
from hierseg.store.folders import check_target, real_path, store_errors
from hierseg.store.store import Store
from hierseg.store.writer import StorePart, StoreWriter
from hierseg.taxonomy import Taxonomy

IMAGES_PER_BATCH = 8192
IMAGES_PER_TASK = 32
SECONDS_TO_CONNECT = 30

Piece = tuple[StorePart, ConversionSummary]


@dataclass(frozen=True)
class PieceConverter:
    """Converts some images of a batch, from the folder of ``write_tables``; it travels to the workers.

    The mask table, ``masks``, is there to say where something is wrong.
    """

    folder: Path
    masks: Path
    images: ImageConverter
    options: ConversionOptions

    def __call__(self, first: int, piece: int) -> Piece:
        """Converts a piece of the batch that begins with the image ``first``."""
        summary = ConversionSummary()
        images, instances, verified = [], [], []
        for task in read_piece(self.folder, first, piece):
            summary.masks_joined += int(np.count_nonzero(task.has_box & (task.mask_rows >= 0)))
            summary.masks_without_box += int(np.count_nonzero(~task.has_box))
            result = self.images(task)
            self._settle(result.problems, summary)
            if result.image is not None:
                images.append(result.image)
                instances.append(result.instances)
                verified.append((task.positive, task.negative))
                summary.count_image(result.instances, task.positive, task.negative)
                summary.masks_resized += result.num_resized
        return StorePart.of(images, instances, verified), summary

    def _settle(self, problems: Iterable[Problem], summary: ConversionSummary) -> None:
        """Counts what is tolerated; raises for the rest."""
        for problem in problems:
            is_missing_mask = problem.trouble is Trouble.MASK_MISSING
            allowed = not self.options.strict if is_missing_mask else self.options.skip_broken
            if allowed or problem.trouble is Trouble.MASK_EMPTY:
                summary.skip(problem.trouble.value, [problem.path or f'image {problem.image_id}'])
                continue
            line = place_of(self.masks, problem.mask_row) if problem.mask_row >= 0 else ''
            where = f'{problem.path} ({line})' if problem.path and line else problem.path or line
            fix = 'Get the file again, or leave such files out with --skip-broken.'
            if is_missing_mask:
                fix = 'Get the file, or convert without --strict.'
            raise AnnotationError(f'{problem.what} (image {problem.image_id})', where=where, fix=fix)


def convert_batch(
    convert: PieceConverter, pool: Executor | None, first: int, last: int, *, tell: Callable[[int], object]
) -> Piece:
    """Converts the images ``first`` to ``last - 1``, and tells again and again how many more are done.

    The result does not depend on the workers; an AnnotationError is for the first image, in their order, that the
    options do not tolerate.
    """
    sizes = [stop - start for start, stop in batches_of(last - first, IMAGES_PER_TASK)]
    pieces = (pool.map if pool else map)(convert, [first] * len(sizes), range(len(sizes)))
    parts, summary = [], ConversionSummary()
    for size, (part, counts) in zip(sizes, pieces, strict=True):
        parts.append(part)
        summary.add(counts)
        tell(size)
    return StorePart.concatenate(parts), summary


@contextmanager
def worker_pool(workers: int, scheduler: str | None = None) -> Iterator[Executor | None]:
    """Processes that convert: none for one worker, which is this process; those of a Dask cluster if one is given.

    Raises:
        AnnotationError: If a process dies within the block, or if the cluster cannot be had.
    """
    if scheduler is not None:
        with _cluster(scheduler) as cluster:
            yield cluster
        return
    if workers <= 1:
        yield None
        return
    pool = ProcessPoolExecutor(workers, mp_context=get_context('spawn'), initializer=_begin_worker)
    try:
        yield pool
    except BrokenProcessPool:
        raise AnnotationError('a worker process died', fix='Is memory short? Use fewer workers.') from None
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _cluster(scheduler: str) -> Iterator[Executor]:
    try:
        from distributed import Client, KilledWorker
    except ImportError:
        raise AnnotationError('Dask is not installed', fix="Run pip install 'hierseg[distributed]'.") from None
    try:
        client = Client(scheduler, timeout=SECONDS_TO_CONNECT, set_as_default=False)
    except (OSError, ValueError) as error:
        raise AnnotationError(
            f'no Dask scheduler answers ({error})', where=scheduler, fix='Start one with: dask scheduler'
        ) from None
    with client:
        try:
            client.wait_for_workers(1, timeout=SECONDS_TO_CONNECT)
        except TimeoutError:
            raise AnnotationError(
                'the Dask scheduler has no workers', where=scheduler, fix=f'Start some with: dask worker {scheduler}'
            ) from None
        try:
            # A worker that dies is no error: its task goes to another one. One that ends several workers is.
            yield client.get_executor(pure=False)
        except KilledWorker as error:
            raise AnnotationError(f'worker processes died ({error})', where=scheduler, fix='Is memory short?') from None


def _begin_worker() -> None:
    """Leaves Ctrl-C to the parent, which ends the workers, and keeps OpenCV to one thread in each."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(0)
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Ends a worker whose parent was killed and could not."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def convert_open_images(
    files: OpenImagesFiles,
    taxonomy: Taxonomy,
    *,
    out: str | PathLike[str],
    options: ConversionOptions | None = None,
    overwrite: bool = False,
    workers: int = 1,
    scheduler: str | None = None,
    progress: bool = False,
) -> ConversionSummary:
    """Writes a store of one split.

    Images are those of any of the three tables, in ascending order of their id. Masks join their boxes by image, class
    and nearly equal box (see ``join_masks``), and the box table's coordinates are kept; a mask without a box row
    becomes an instance with the box of its own row. Sizes come from the image headers (EXIF rotation is not applied;
    damage behind the header goes unseen). Labels are kept as released, not expanded. The workers change nothing.

    Finished batches of images wait in a hidden folder beside ``out``. A run that is killed is gone on with by the
    next one with the same input and options, and gives the same store.

    Args:
        files: The input.
        taxonomy: The classes.
        out: The store's folder; it appears when it is whole.
        options: What to do about imperfect input.
        overwrite: Replace a store that is there, and an unfinished conversion that was begun with something else.
        workers: Processes that read images and masks; 1 reads in this one.
        scheduler: Address of a Dask scheduler whose workers read them instead. All of them see the files and the
            folder of ``out`` under the same absolute paths.
        progress: Show bars on stderr.

    Raises:
        AnnotationError: On bad input, with file and line or image.
        StoreError: If ``out`` cannot be written, or an unfinished conversion was begun with something else.
    """
    out, options = real_path(out), options or ConversionOptions()
    finished = finished_task(out)
    if finished is None:
        check_target(out, overwrite=overwrite)
    if scheduler is not None:
        _check_absolute(files)
    images = Folder.scan(files.images)
    masks, archives = masks_of(files)
    zips = None
    if archives:
        with worker_pool(min(workers, len(archives)), scheduler) as pool:
            zips = ZipIndex.build(archives, pool)
    sizes = {'images_per_batch': IMAGES_PER_BATCH, 'images_per_piece': IMAGES_PER_TASK}
    begun = describe_task(files, taxonomy, options, sizes=sizes, zip_digests=zips.digests if zips else ())
    if finished == fingerprint(begun):
        # The process was killed between giving the store its name and removing its folder of work.
        with WorkFolder(out, begun, overwrite=True) as work:
            work.discard()
        return ConversionSummary.from_json(Store.open(out).summary)
    check_target(out, overwrite=overwrite)
    with WorkFolder(out, begun, overwrite=overwrite) as work:
        found = work.sorted_tables()
        if found is None:
            reader = TableReader(taxonomy, options, ConversionSummary())
            with store_errors(work.tables):
                num_images = write_tables(work.tables, reader, files.tables, **sizes, progress=progress)
            work.keep_tables(num_images, reader.summary)
            found = num_images, reader.summary
        num_images, summary = found
        index = work.path / 'zips.npy'
        if zips is not None:
            with whole_file(index, error=StoreError) as file:
                np.save(file, zips.members)
        zips = None  # from here on it is mapped
        source = MaskZips(archives, index) if archives else masks
        convert = PieceConverter(
            work.tables, Path(files.masks), ImageConverter(images, source, options.max_pixels), options
        )
        batches = batches_of(num_images, IMAGES_PER_BATCH)
        spans = [span for span in batches if not work.part_path(*span).exists()]
        left = sum(last - first for first, last in spans)
        done = num_images - left
        with (
            worker_pool(min(workers, -(-left // IMAGES_PER_TASK)), scheduler if spans else None) as pool,
            tqdm(total=num_images, initial=done, unit='image', disable=not progress, smoothing=0.05) as bar,
        ):
            for first, last in spans:
                part, counts = convert_batch(convert, pool, first, last, tell=bar.update)
                work.keep_part(part, counts, first, last)
        with (
            StoreWriter(out, taxonomy=taxonomy, overwrite=overwrite) as writer,
            tqdm(desc='writing the store', total=num_images, unit='image', disable=not progress) as bar,
        ):
            for span in batches:
                part, counts = work.part(*span)
                writer.extend(part)
                summary.add(counts)
                bar.update(part.images.num_rows)
            if summary.images == 0:
                work.discard()  # nothing in the batches is worth going on with
                what = 'none of the images can be read'
                raise AnnotationError(what, where=str(files.images), fix='Check the folder.')
            writer.summary = summary.to_json()
            work.keep_result(writer.seal())
        work.discard()
    return summary


def _check_absolute(files: OpenImagesFiles) -> None:
    folders = [files.images, *([] if files.mask_dir is None else [files.mask_dir]), *files.mask_zips]
    for path in map(Path, [*files.tables.values(), *folders]):
        if not path.is_absolute():
            fix = 'Workers on other machines need absolute paths, in a folder that all of them see.'
            raise AnnotationError('is a relative path', where=str(path), fix=fix)


def masks_of(files: OpenImagesFiles) -> tuple[Folder | None, list[Path]]:
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
    return (None, find_zips(files.mask_zips)) if files.mask_dir is None else (Folder.scan(files.mask_dir), [])
