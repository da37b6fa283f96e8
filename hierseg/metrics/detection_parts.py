"""A submission of any size and order, split by image on disk and matched part by part, in several processes.

The submission is read once, in blocks; each block is sorted by part and written as record batches, one for each part
that it touches. A part is then some images, their ground truth and its batches, wherever in the file they came from:
enough for a process that knows nothing else, and a bounded amount of it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas  # noqa: F401 - pyarrow would import it for its first array, in each process anew
import pyarrow as pa

from hierseg.errors import EvaluationError
from hierseg.metrics.detection_rows import SCHEMAS, detections_of_rows
from hierseg.metrics.official_csv import GroundTruthTable
from hierseg.metrics.records import ImageMatches, IntArray, IouType

IMAGES_PER_PART = 64
BYTES_PER_PART = 16 << 20
"""Of the submission, on average; decoded and with what Python adds, it is several times as much."""

Matcher = Callable[..., list[ImageMatches]]


@dataclass(frozen=True, eq=False)
class Part:
    """Some images of a submission, complete in itself.

    Attributes:
        ground_truth: Of those images.
        first_image: What ``image`` is in the rows of the first of them.
        rows: The Arrow file of all parts.
        batches: Which of its record batches are this part's, in the order of the submission.
        predictions: The submission that the rows are from.
    """

    ground_truth: GroundTruthTable
    first_image: int
    rows: Path
    batches: list[int]
    predictions: Path

    def match(self, match: Matcher) -> list[ImageMatches]:
        """Matches the images of the part, in their order.

        Args:
            match: ``match_images`` with its options.

        Raises:
            EvaluationError: If a mask cannot be used; it names the line.
        """
        with pa.memory_map(str(self.rows)) as source:
            reader = pa.ipc.open_file(source)
            rows = pa.Table.from_batches([reader.get_batch(index) for index in self.batches], schema=reader.schema)
        # What rule 3 drops anyway is dropped before its mask is decoded, which is most of the work.
        kept = self.ground_truth.evaluatable(rows['image'].to_numpy() - self.first_image, rows['label'].to_numpy())
        rows = rows if kept.all() else rows.filter(pa.array(kept))
        detections = detections_of_rows(
            rows,
            self.ground_truth.sizes,
            predictions=self.predictions,
            first_image=self.first_image,
            boxed=self.ground_truth.have_box_only,  # other objects are compared by their masks
        )
        image_ids = self.ground_truth.image_ids
        truth, found = (
            [table.image(index) for index in range(len(image_ids))] for table in (self.ground_truth, detections)
        )
        return match(truth, found, image_ids=image_ids)


def split_by_image(
    blocks: Iterable[pa.RecordBatch],
    ground_truth: GroundTruthTable,
    *,
    predictions: str | os.PathLike[str],
    iou_type: IouType,
    folder: str | os.PathLike[str],
) -> list[Part]:
    """Writes the rows of a submission into a file, from which each part reads its own.

    Args:
        blocks: From :func:`~hierseg.metrics.detection_rows.detection_rows`.
        ground_truth: Of all images.
        predictions: The submission that the rows are from.
        iou_type: ``segm`` or ``bbox``.
        folder: Where the file is written; it takes about as much room as the submission.
    """
    num_images = len(ground_truth.image_ids)
    num_parts = max(1, num_images // IMAGES_PER_PART, Path(predictions).stat().st_size // BYTES_PER_PART)
    bounds = np.unique(np.linspace(0, num_images, num_parts + 1).astype(np.int64))
    batches: list[list[int]] = [[] for _ in bounds[1:]]
    rows, count = Path(folder) / 'rows.arrow', 0
    with pa.ipc.new_file(str(rows), SCHEMAS[iou_type]) as file:
        for block in blocks:
            for part, batch in _by_part(block, bounds):
                file.write_batch(batch)
                batches[part].append(count)
                count += 1
    return [
        Part(ground_truth.images(begin, end), begin, rows, batches[part], Path(predictions))
        for part, (begin, end) in enumerate(pairwise(bounds.tolist()))
    ]


def _by_part(block: pa.RecordBatch, bounds: IntArray) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The rows of each part that a block has, in the block's order; a part has images from its bound to the next."""
    parts = np.searchsorted(bounds, block['image'].to_numpy(), side='right') - 1
    if (np.diff(parts) < 0).any():
        order = np.argsort(parts, kind='stable')
        block, parts = block.take(pa.array(order)), parts[order]
    cuts = [0, *(np.flatnonzero(np.diff(parts)) + 1).tolist(), len(parts)]
    for begin, end in pairwise(cuts):
        if end > begin:
            yield int(parts[begin]), block.slice(begin, end - begin)


@contextmanager
def part_matcher(match: Matcher, *, workers: int) -> Iterator[Callable[[Iterable[Part]], Iterator[list[ImageMatches]]]]:
    """What matches parts, in this process or in several, and yields the results in the order of the parts.

    Args:
        match: ``match_images`` with its options.
        workers: How many processes; 1 for this one.

    Raises:
        EvaluationError: If ``workers`` is below 1, or a process died.
    """
    if workers < 1:
        raise EvaluationError(f'workers={workers}', fix='Give at least 1.')
    if workers == 1:
        yield lambda parts: (part.match(match) for part in parts)
        return
    # Forked as early as possible: a fork costs next to nothing while there is little to inherit, and no threads.
    context = get_context('fork' if sys.platform == 'linux' else 'spawn')
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker, initargs=(match,))
    pool.submit(os.getpid).result()
    try:
        yield lambda parts: pool.map(_match_part, parts)
    except BrokenProcessPool:
        raise EvaluationError(
            'a worker process died', fix='Most often memory ran out: evaluate with fewer workers.'
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


_worker: dict[str, Matcher] = {}


def _start_worker(match: Matcher) -> None:
    _worker['match'] = match


def _match_part(part: Part) -> list[ImageMatches]:
    return part.match(_worker['match'])
