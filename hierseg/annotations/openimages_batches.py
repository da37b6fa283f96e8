"""Batches of images, each made into a part of a store by all workers together.

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
from threading import Thread

import cv2
import numpy as np

from hierseg.annotations.csv_tables import line_of
from hierseg.annotations.openimages_images import ImageConverter, Problem, Trouble
from hierseg.annotations.openimages_options import ConversionOptions
from hierseg.annotations.openimages_partition import PartitionedTables
from hierseg.annotations.openimages_split import Split
from hierseg.annotations.store_parts import StorePart
from hierseg.annotations.summary import ConversionSummary
from hierseg.errors import AnnotationError

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
            line = f'{table}, line {line_of(table, problem.mask_row)}' if problem.mask_row >= 0 else ''
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
