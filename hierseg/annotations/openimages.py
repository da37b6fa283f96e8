"""From the official Open Images files to a store."""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass
from multiprocessing import get_context
from os import PathLike
from pathlib import Path

import cv2
from tqdm import tqdm

from hierseg.annotations.csv_tables import line_of
from hierseg.annotations.openimages_images import Folder, ImageConverter, ImageResult, ImageTask, Problem, Trouble
from hierseg.annotations.openimages_join import BOX_TOLERANCE
from hierseg.annotations.openimages_split import Split
from hierseg.annotations.openimages_tables import MaskRows, TableReader
from hierseg.annotations.store_writer import StoreWriter, check_target
from hierseg.annotations.summary import ConversionSummary
from hierseg.errors import AnnotationError
from hierseg.taxonomy import Taxonomy

TASKS_IN_FLIGHT_PER_WORKER = 4


@dataclass(frozen=True)
class OpenImagesFiles:
    """The official files of one split.

    Attributes:
        boxes: ``ImageID, LabelName, XMin, XMax, YMin, YMax, IsGroupOf``.
        labels: ``ImageID, LabelName, Confidence``.
        masks: ``MaskPath, ImageID, LabelName, BoxXMin, …`` or ``ImageID, LabelName, …, Mask``.
        images: Folder of ``<ImageID>.jpg``.
        mask_dir: Folder of the PNG files that ``masks`` names; None if it holds encoded masks.
    """

    boxes: str | PathLike[str]
    labels: str | PathLike[str]
    masks: str | PathLike[str]
    images: str | PathLike[str]
    mask_dir: str | PathLike[str] | None = None


@dataclass(frozen=True)
class ConversionOptions:
    """What to do about imperfect input.

    Attributes:
        skip_unknown_classes: Leave out rows of classes that the taxonomy does not have.
        skip_broken: Leave out images without a readable file, and unreadable masks (their boxes stay).
        strict: A mask PNG that is named but not there is an error; otherwise its box stays, without a mask.
        box_tolerance: Largest difference, as a fraction of the image, of coordinates of one box in two files.
    """

    skip_unknown_classes: bool = False
    skip_broken: bool = False
    strict: bool = False
    box_tolerance: float = BOX_TOLERANCE

    def tolerates(self, trouble: Trouble) -> bool:
        """Whether it goes into the summary instead of ending the conversion."""
        if trouble is Trouble.MASK_EMPTY:
            return True
        return not self.strict if trouble is Trouble.MASK_MISSING else self.skip_broken


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

    Args:
        files: The input.
        taxonomy: The classes.
        out: The store's folder; it appears when it is whole.
        options: What to do about imperfect input.
        overwrite: Replace a store that is there.
        workers: Processes that read images and masks; 1 reads in this one.
        progress: Show a bar on stderr.

    Raises:
        AnnotationError: On bad input, with file and line or image.
        StoreError: If ``out`` cannot be written.
    """
    options = options or ConversionOptions()
    check_target(Path(out), overwrite=overwrite)
    summary = ConversionSummary()
    reader = TableReader(taxonomy, summary, skip_unknown_classes=options.skip_unknown_classes)
    masks = reader.masks(Path(files.masks))
    split = Split(
        reader.boxes(Path(files.boxes)),
        reader.labels(Path(files.labels)),
        masks,
        num_classes=taxonomy.num_classes,
        tolerance=options.box_tolerance,
        summary=summary,
    )
    convert = ImageConverter(_folder(files.images), _mask_folder(files, masks))
    with (
        StoreWriter(out, taxonomy=taxonomy, overwrite=overwrite) as writer,
        tqdm(total=len(split.image_ids), unit='image', disable=not progress, smoothing=0.05) as bar,
        closing(_in_order(convert, split.tasks(), workers)) as results,
    ):
        for row, result in enumerate(results):
            _settle(result.problems, masks.path, options, summary)
            if result.image is not None:
                verified = split.verified(row)
                writer.add(result.image, result.instances, *verified)
                summary.count_image(result.instances, *verified)
                summary.masks_resized += result.num_resized
            bar.update()
        if summary.images == 0:
            raise AnnotationError('none of the images can be read', where=str(files.images), fix='Check the folder.')
        writer.summary = summary.to_json()
    return summary


def _folder(path: str | PathLike[str]) -> Folder:
    if not Path(path).is_dir():
        raise AnnotationError('is no folder', where=str(path), fix='Give the folder that holds the files.')
    return Folder.scan(Path(path))


def _mask_folder(files: OpenImagesFiles, masks: MaskRows) -> Folder | None:
    if masks.sizes is not None:
        return None
    if files.mask_dir is None:
        raise AnnotationError(
            'names PNG files, but no folder of masks is given', where=str(masks.path), fix='Give --mask-dir.'
        )
    return _folder(files.mask_dir)


def _settle(
    problems: Iterable[Problem], mask_table: Path, options: ConversionOptions, summary: ConversionSummary
) -> None:
    """Counts what is tolerated; raises for the rest."""
    for problem in problems:
        if options.tolerates(problem.trouble):
            summary.skip(problem.trouble.value, [problem.path or f'image {problem.image_id}'])
            continue
        where = problem.path or f'{mask_table}, line {line_of(mask_table, problem.mask_row)}'
        if problem.mask_row >= 0 and problem.path:
            where += f' ({mask_table}, line {line_of(mask_table, problem.mask_row)})'
        fix = 'Get the file again, or leave such files out with --skip-broken.'
        if problem.trouble is Trouble.MASK_MISSING:
            fix = 'Get the file, or convert without --strict.'
        raise AnnotationError(f'{problem.what} (image {problem.image_id})', where=where, fix=fix)


def _in_order(
    convert: Callable[[Sequence[ImageTask]], list[ImageResult]], tasks: Iterator[list[ImageTask]], workers: int
) -> Generator[ImageResult, None, None]:
    """Results in the order of the tasks, a bounded number of tasks ahead of the reader."""
    if workers <= 1:
        for task in tasks:
            yield from convert(task)
        return
    pool = ProcessPoolExecutor(workers, mp_context=get_context('spawn'), initializer=_begin_worker)
    pending: deque[Future[list[ImageResult]]] = deque()
    try:
        for task in tasks:
            pending.append(pool.submit(convert, task))
            if len(pending) >= workers * TASKS_IN_FLIGHT_PER_WORKER:
                yield from pending.popleft().result()
        while pending:
            yield from pending.popleft().result()
    except BrokenProcessPool:
        raise AnnotationError('a worker process died', fix='Is memory short? Use fewer workers.') from None
    finally:
        pool.shutdown(cancel_futures=True)


def _begin_worker() -> None:
    """Leaves Ctrl-C to the parent, which ends the workers, and keeps OpenCV to one thread in each."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(0)
