"""The Open Images evaluation of a submission file, from the official files to the result.

Rows are joined and expanded as rules 1 and 2 of the protocol say; image ids are text, whatever they look like. A
submission of any size and order is read once, in blocks, and split by image on disk: each block is sorted by part and
written as record batches. A part is then some images, their ground truth and its batches, enough for a process that
knows nothing else. Rows stay small until their masks are decoded.

Shape letters: F images of the ground truth, I objects, D detections, V verified labels.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from multiprocessing import get_context
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas  # noqa: F401 - pyarrow would import it for its first array, in each process anew
import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from hierseg.errors import EvaluationError
from hierseg.formats import BoolArray, IntArray
from hierseg.formats.csv_tables import Chunk, index_in, read_table
from hierseg.formats.reading import reading
from hierseg.formats.run_lengths import MalformedMaskError, counts_of_text, measure, regular
from hierseg.limits import MAX_PIXELS
from hierseg.metrics.average_precision import summarise
from hierseg.metrics.matching import match_images
from hierseg.metrics.records import (
    DEFAULT_GROUP_OF_WEIGHTS,
    OPEN_IMAGES,
    Criterion,
    Expansion,
    ImageDetections,
    ImageGroundTruth,
    ImageMatches,
    ImageMatchTable,
    InstanceRows,
    IouType,
    OpenImagesResult,
    checked_iou_type,
    join_boxes_and_masks,
)
from hierseg.metrics.submissions import SCHEMAS, SIDES, ResultKeys, detection_rows, is_results, place_in
from hierseg.taxonomy import Taxonomy

BOX_COLUMNS = ('ImageID', 'LabelName', 'XMin', 'XMax', 'YMin', 'YMax', 'IsGroupOf')
LABEL_COLUMNS = ('ImageID', 'LabelName', 'Confidence')
MASK_COLUMNS = (*BOX_COLUMNS, 'ImageWidth', 'ImageHeight', 'Mask')
ROUNDING = 1e-5
"""Coordinates are published with six decimals; a box may stick out by a little more."""


def read_ground_truth(
    boxes: str | PathLike[str],
    labels: str | PathLike[str],
    masks: str | PathLike[str] | None,
    *,
    taxonomy: Taxonomy,
    expand: bool = True,
    max_pixels: int = MAX_PIXELS,
) -> dict[str, ImageGroundTruth]:
    """Reads, expands and joins the ground truth: that of each image by its id, ascending.

    Args:
        boxes: CSV with :data:`BOX_COLUMNS`.
        labels: CSV with :data:`LABEL_COLUMNS`.
        masks: CSV with :data:`MASK_COLUMNS`; None for the boxes variant.
        taxonomy: The classes; labels are its labels.
        expand: Copy rows through the hierarchy; False where the files are expanded already.
        max_pixels: Of a mask; larger ones are refused.

    Raises:
        EvaluationError: If a file cannot be used; it names the line.
    """
    expansion = Expansion.of(taxonomy) if expand else Expansion.none(taxonomy.num_classes)
    files = [(boxes, BOX_COLUMNS), (labels, LABEL_COLUMNS)]
    if masks is not None:
        files.append((masks, MASK_COLUMNS))
    tables = [read_table(path, columns, error=EvaluationError) for path, columns in files]
    for table in tables:
        table.refuse_empty('ImageID')
        table.check()
    image_ids = sorted({image_id for table in tables for image_id in pc.unique(table.texts['ImageID']).to_pylist()})
    images = [index_in(table.texts['ImageID'], pa.array(image_ids, pa.string())) for table in tables]

    objects = _expanded_rows(tables[0], images[0], taxonomy, expansion)
    sizes: IntArray = np.zeros((len(image_ids), 2), dtype=np.int64)
    if masks is None:
        objects = objects.take(np.argsort(objects.images, kind='stable'))
        object_masks = [b''] * len(objects)
        areas: IntArray = np.zeros(len(objects), dtype=np.int64)
    else:
        blank, texts = tables[2].blank('Mask'), tables[2].texts['Mask'].to_pylist()
        heights, widths = (tables[2].sizes(name, where_not=blank) for name in ('ImageHeight', 'ImageWidth'))
        tables[2].refuse_large(heights, widths, max_pixels)
        tables[2].check()
        mask_sizes = np.stack([heights, widths], axis=1)
        sizes = sizes_of_images(images[2], mask_sizes, sizes, where=tables[2].where)
        masks_of_rows, areas_of_rows, _ = read_masks(texts, mask_sizes, where=tables[2].where)
        mask_rows = _expanded_rows(tables[2], images[2], taxonomy, expansion)
        objects, mask_of = join_boxes_and_masks(objects, mask_rows)
        areas = np.append(areas_of_rows, 0)[mask_of]
        # An empty mask makes an object box-only.
        rows = zip(mask_of.tolist(), areas.tolist(), strict=True)
        object_masks = [masks_of_rows[row] if area else b'' for row, area in rows]
    labelled, verified = _verified(tables[1], images[1], taxonomy, expansion)
    bounds, verified_bounds = (
        pairwise(np.searchsorted(sorted_images, np.arange(len(image_ids) + 1)).tolist())
        for sorted_images in (objects.images, labelled)
    )
    return {
        image_id: ImageGroundTruth(
            labels=objects.labels[begin:end],
            boxes=objects.boxes[begin:end],
            group_of=objects.group_of[begin:end],
            masks=object_masks[begin:end],
            mask_areas=areas[begin:end],
            verified=verified[first:last],
            size=(height, width) if height else None,
        )
        for image_id, (begin, end), (first, last), (height, width) in zip(
            image_ids, bounds, verified_bounds, sizes.tolist(), strict=True
        )
    }


def _expanded_rows(table: Chunk, images: IntArray, taxonomy: Taxonomy, expansion: Expansion) -> InstanceRows:
    boxes = np.stack([table.numbers(side) for side in SIDES], axis=1)
    inverted = (boxes[:, 0] > boxes[:, 2]) | (boxes[:, 1] > boxes[:, 3])
    fix = 'XMin must not exceed XMax, nor YMin exceed YMax.'
    table.refuse(inverted, lambda row: 'the box ends before it begins', fix=fix)
    outside = np.abs(boxes - 0.5).max(axis=1, initial=0) > 0.5 + ROUNDING
    fix = 'Coordinates are parts of the image, from 0 to 1, not pixels.'
    table.refuse(outside, lambda row: f'the box {boxes[row].tolist()} is outside its image', fix=fix)
    labels, group_of = table.labels('LabelName', taxonomy.ids), table.flags('IsGroupOf', unknown=True)
    table.check()
    rows = InstanceRows(images, labels, boxes, group_of, np.arange(len(labels)))
    return rows.expanded(*expansion.upward(labels))


def _verified(table: Chunk, images: IntArray, taxonomy: Taxonomy, expansion: Expansion) -> tuple[IntArray, IntArray]:
    """Images and labels of the verified labels, expanded by their sign, sorted by image."""
    labels, positive = table.labels('LabelName', taxonomy.ids), table.flags('Confidence')
    table.check()
    above, labels_above = expansion.upward(labels[positive])
    below, labels_below = expansion.downward(labels[~positive])
    labelled = np.concatenate([images[positive][above], images[~positive][below]])
    order = np.argsort(labelled, kind='stable')
    return labelled[order], np.concatenate([labels_above, labels_below])[order]


def read_detections(
    predictions: str | PathLike[str],
    image_ids: Sequence[str],
    sizes: IntArray,
    *,
    taxonomy: Taxonomy,
    iou_type: IouType,
    keys: ResultKeys | None = None,
    max_pixels: int = MAX_PIXELS,
    progress: bool = False,
) -> list[ImageDetections]:
    """The detections of a submission on each of F images, in file order; those on others are dropped.

    Arguments and errors are those of :func:`detection_rows`; ``sizes`` are (F, 2) int64, height and width of the masks,
    zeros where it is not known. A progress bar appears on a terminal.
    """
    blocks = detection_rows(
        predictions, image_ids, taxonomy=taxonomy, iou_type=iou_type, keys=keys, max_pixels=max_pixels
    )
    bar = tqdm(blocks, f'reading {predictions}', unit='block', disable=None if progress else True)
    rows = pa.Table.from_batches(bar, schema=SCHEMAS[iou_type])
    return detections_of_rows(rows, sizes, predictions=predictions)


def detections_of_rows(
    rows: pa.Table,
    sizes: IntArray,
    *,
    predictions: str | PathLike[str],
    first_image: int = 0,
    boxed: Callable[[IntArray, IntArray], BoolArray] | None = None,
) -> list[ImageDetections]:
    """Decodes masks and sorts by image, in file order within one.

    All that an entry of COCO results claims is on one region.

    Args:
        rows: Rows in file order with the columns of ``SCHEMAS``, on images from ``first_image`` on.
        sizes: (F, 2) int64; height and width of the ground truth's masks from that image on, zeros without any.
        predictions: The file that the rows are from.
        first_image: The first of the F images.
        boxed: Says of images, counted from the first, and labels, (D,) int64 each, where the boxes of masks are asked
            for; None for all. The boxes of other masks are zeros.

    Raises:
        EvaluationError: If a mask cannot be used; it names the line.
    """
    images = rows['image'].to_numpy() - first_image
    if (np.diff(images) < 0).any():
        order = np.argsort(images, kind='stable')
        rows, images = rows.take(pa.array(order)), images[order]

    def where(region: int) -> str:
        return place_in(predictions, of_regions['row'][region].as_py())

    labels, scores = rows['label'].to_numpy(), rows['score'].to_numpy()
    is_first = np.diff(rows['row'].to_numpy(), prepend=-1) != 0 if is_results(predictions) else np.ones(len(rows), bool)
    first, regions = np.flatnonzero(is_first), np.cumsum(is_first) - 1
    of_regions = rows if len(first) == len(rows) else rows.take(pa.array(first))
    masks: list[bytes] = []
    areas: IntArray | None = None
    if 'mask' in rows.column_names:
        mask_sizes = np.stack([of_regions[name].to_numpy() for name in ('height', 'width')], axis=1)
        wanted = None if boxed is None or not len(rows) else np.logical_or.reduceat(boxed(images, labels), first)
        sizes = sizes_of_images(images[first], mask_sizes, sizes, where=where)
        masks, areas, pixels = read_masks(of_regions['mask'].to_numpy().tolist(), mask_sizes, boxed=wanted, where=where)
        boxes = pixels / np.maximum(mask_sizes[:, [1, 0, 1, 0]], 1)
    else:
        boxes = np.stack([of_regions[side].to_numpy() for side in SIDES], axis=1)
    bounds, region_bounds = (
        pairwise(np.searchsorted(sorted_images, np.arange(len(sizes) + 1)).tolist())
        for sorted_images in (images, images[first])
    )
    return [
        ImageDetections(
            labels=labels[begin:end],
            scores=scores[begin:end],
            regions=regions[begin:end] - head,
            boxes=boxes[head:tail],
            masks=masks[head:tail],
            mask_areas=None if areas is None else areas[head:tail],
            size=(height, width) if height else None,
        )
        for (begin, end), (head, tail), (height, width) in zip(bounds, region_bounds, sizes.tolist(), strict=True)
    ]


def read_masks(
    texts: Sequence[str], sizes: IntArray, *, boxed: BoolArray | None = None, where: Callable[[int], str]
) -> tuple[list[bytes], IntArray, IntArray]:
    """Decodes the masks of N rows.

    Args:
        texts: As the official files write them; those of rows without a mask are not looked at.
        sizes: (N, 2) int64; height and width, zeros where a row has no mask.
        boxed: (N,) bool; the rows whose boxes are asked for, None for all. The boxes of others are zeros.
        where: Says of a row where it stands.

    Returns:
        N run lengths (``b''`` for none), (N,) int64 areas and (N, 4) int64 tight boxes in pixels.

    Raises:
        EvaluationError: At a mask that cannot be decoded or is of another size, and where masks need a multiple of the
            memory that detections ever do.
    """
    rows = np.flatnonzero(sizes[:, 0])
    names = rows.tolist()
    heights, widths = sizes[rows].T
    given: list[bytes] = []
    left = SLACK
    for row, num_pixels, width in zip(names, (heights * widths).tolist(), widths.tolist(), strict=True):
        try:
            given.append(counts_of_text(texts[row], num_pixels))
        except MalformedMaskError as error:
            raise EvaluationError(
                f'the mask cannot be decoded: {error}',
                where=where(row),
                fix='A mask is base64(zlib(COCO compressed RLE counts)).',
            ) from None
        left += UNPACKED * (len(texts[row]) + width) - len(given[-1])
        if left < 0:
            raise EvaluationError(
                'up to here the masks unpack to far more than their texts and sizes let expect',
                where=where(row),
                fix='No detector finds so many masks of single pixels: check how they were encoded.',
            )
    wanted = None if boxed is None else boxed[rows]
    measures = measure(given, heights, widths, boxed=wanted, where=lambda index: where(names[index]))
    for index in np.flatnonzero(measures.irregular).tolist():
        given[index] = regular(given[index])
    masks = [b''] * len(texts)
    for row, mask in zip(names, given, strict=True):
        masks[row] = mask
    areas, boxes = np.zeros(len(texts), dtype=np.int64), np.zeros((len(texts), 4), dtype=np.int64)
    areas[rows], boxes[rows] = measures.areas, measures.boxes
    return masks, areas, boxes


def sizes_of_images(images: IntArray, sizes: IntArray, known: IntArray, *, where: Callable[[int], str]) -> IntArray:
    """(F, 2) mask sizes of images: those known, else of an image's first mask.

    Args:
        images: (N,) int64; the image of each row, below F.
        sizes: (N, 2) int64; height and width, zeros where a row has no mask.
        known: (F, 2) int64; likewise, zeros for images whose size is not known.
        where: Says of a row where it stands.

    Raises:
        EvaluationError: At the first mask of another size.
    """
    rows = np.flatnonzero(sizes[:, 0])
    of_images = known.copy()
    new = rows[of_images[images[rows], 0] == 0][::-1]  # reversed: the first mask of an image is written last
    of_images[images[new]] = sizes[new]
    differs = (of_images[images[rows]] != sizes[rows]).any(axis=1)
    if differs.any():
        row = int(rows[differs.argmax()])
        (height, width), (other_height, other_width) = sizes[row].tolist(), of_images[images[row]].tolist()
        raise EvaluationError(
            f'the mask is {width}×{height} pixels, the other masks of its image are {other_width}×{other_height}',
            where=where(row),
            fix='All masks of an image, of ground truth and detections, need one size.',
        )
    return of_images


UNPACKED, SLACK = 4, 1 << 22
"""Bytes that masks may unpack to: so many for each of their texts and for each column of their sizes, and some more.

Shapes have a few runs in a column, others a text that is long, too; noise of many megabytes is no answer to anything.
"""
IMAGES_PER_PART = 64
BYTES_PER_PART = 16 << 20
"""Of the submission, on average; decoded and with what Python adds, it is several times as much."""

UNPACKED_AT_ONCE = 1 << 27
"""Bytes that the masks of images that are matched together may unpack to."""

Matcher = Callable[..., list[ImageMatchTable]]


@dataclass(frozen=True, eq=False)
class ImagePart:
    """Some images of a submission, complete in itself.

    Attributes:
        ground_truth: Of those images, by their ids.
        first_image: What ``image`` is in the rows of the first of them.
        rows: The Arrow file of all parts.
        batches: Which of its record batches are this part's, in the order of the submission.
        predictions: The submission that the rows are from.
    """

    ground_truth: Mapping[str, ImageGroundTruth]
    first_image: int
    rows: Path
    batches: list[int]
    predictions: Path

    def match(self, match: Matcher) -> list[ImageMatches]:
        """Matches the images of the part, in their order, by ``match_images`` with its options."""
        with pa.memory_map(str(self.rows)) as source:
            reader = pa.ipc.open_file(source)
            rows = pa.Table.from_batches([reader.get_batch(index) for index in self.batches], schema=reader.schema)
        truths = list(self.ground_truth.values())
        # What rule 3 drops anyway is dropped before its mask is decoded, which is most of the work.
        known = [np.append(truth.labels, truth.verified) for truth in truths]
        kept = _are_among(known, rows['image'].to_numpy() - self.first_image, rows['label'].to_numpy())
        rows = rows if kept.all() else rows.filter(pa.array(kept))
        box_only = [truth.labels[truth.mask_areas == 0] for truth in truths]
        sizes, image_ids = np.array([truth.size or (0, 0) for truth in truths]), list(self.ground_truth)
        found: list[ImageMatchTable] = []
        for begin, end in self._spans(rows):
            images = rows['image'].to_numpy() - self.first_image
            among = (images >= begin) & (images < end)
            detections = detections_of_rows(
                rows if among.all() else rows.filter(pa.array(among)),
                sizes[begin:end],
                predictions=self.predictions,
                first_image=self.first_image + begin,
                boxed=partial(_are_among, box_only[begin:end]),  # other objects are compared by their masks
            )
            found += match(truths[begin:end], detections, image_ids=image_ids[begin:end])
        return [table.at(0) for table in found]

    def _spans(self, rows: pa.Table) -> Iterator[tuple[int, int]]:
        """Images whose masks may be in memory together: nearly always all."""
        count = len(self.ground_truth)
        cuts = [0, count]
        if 'mask' in rows.column_names:
            lengths = pc.binary_length(rows['mask']).to_numpy() + rows['width'].to_numpy()
            images = rows['image'].to_numpy() - self.first_image
            unpacked = np.cumsum(np.bincount(images, UNPACKED * lengths, minlength=count))
            cuts = [0, *(np.flatnonzero(np.diff(unpacked // UNPACKED_AT_ONCE)) + 1).tolist(), count]
        return pairwise(cuts)


def _are_among(known: Sequence[IntArray], images: IntArray, labels: IntArray) -> BoolArray:
    """(D,) bool; which labels are among those known of their image."""
    num_labels = 1 + max(int(part.max(initial=0)) for part in (labels, *known))
    known_images = np.repeat(np.arange(len(known)), [len(part) for part in known])
    return np.isin(images * num_labels + labels, known_images * num_labels + np.concatenate(known))


def split_by_image(
    blocks: Iterable[pa.RecordBatch],
    ground_truth: Mapping[str, ImageGroundTruth],
    *,
    predictions: str | os.PathLike[str],
    iou_type: IouType,
    folder: str | os.PathLike[str],
) -> list[ImagePart]:
    """Writes the rows of a submission into a file, from which each part reads its own.

    Args:
        blocks: From :func:`detection_rows`.
        ground_truth: Of all images, by their ids.
        predictions: The submission that the rows are from.
        iou_type: ``segm`` or ``bbox``.
        folder: Where the file is written; it takes about as much room as the submission.
    """
    images, num_images = list(ground_truth.items()), len(ground_truth)
    with reading(predictions, EvaluationError, fix='Check the path.'):
        num_bytes = Path(predictions).stat().st_size
    num_parts = max(1, num_images // IMAGES_PER_PART, num_bytes // BYTES_PER_PART)
    bounds = np.unique(np.linspace(0, num_images, num_parts + 1).astype(np.int64))
    batches: list[list[int]] = [[] for _ in bounds[1:]]
    rows, count = Path(folder) / 'rows.arrow', 0
    with pa.ipc.new_file(str(rows), SCHEMAS[iou_type]) as file:
        for block in blocks:
            part_of = np.searchsorted(bounds, block['image'].to_numpy(), side='right') - 1
            order = np.argsort(part_of, kind='stable')
            parts, first = np.unique(part_of[order], return_index=True)
            block = block.take(pa.array(order))
            for part, (begin, end) in zip(parts.tolist(), pairwise([*first.tolist(), len(order)]), strict=True):
                file.write_batch(block.slice(begin, end - begin))
                batches[part].append(count)
                count += 1
    return [
        ImagePart(dict(images[begin:end]), begin, rows, batches[part], Path(predictions))
        for part, (begin, end) in enumerate(pairwise(bounds.tolist()))
    ]


@contextmanager
def part_mapper(workers: int) -> Iterator[Callable[..., Iterator[list[ImageMatches]]]]:
    """The built-in ``map``, in this process or in several; an EvaluationError if one of them dies."""
    if workers < 1:
        raise EvaluationError(f'workers={workers}', fix='Give at least 1.')
    if workers == 1:
        yield map
        return
    # Forked as early as possible: a fork costs next to nothing while there is little to inherit, and no threads.
    pool = ProcessPoolExecutor(workers, mp_context=get_context('fork' if sys.platform == 'linux' else 'spawn'))
    pool.submit(os.getpid).result()
    try:
        yield pool.map
    except BrokenProcessPool:
        raise EvaluationError(
            'a worker process died', fix='Most often memory ran out: evaluate with fewer workers.'
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def evaluate_files(
    boxes: str | PathLike[str],
    labels: str | PathLike[str],
    *,
    predictions: str | PathLike[str],
    taxonomy: Taxonomy,
    masks: str | PathLike[str] | None = None,
    keys: ResultKeys | None = None,
    iou_type: str = 'segm',
    group_of_weight: float | None = None,
    expand: bool = True,
    criterion: Criterion = OPEN_IMAGES,
    max_pixels: int = MAX_PIXELS,
    workers: int = 1,
    progress: bool = False,
) -> OpenImagesResult:
    """Evaluates a submission by the Open Images Challenge protocol.

    The submission may have any size and order: it is split by image into a temporary file of about its size
    (in ``TMPDIR``), and a bounded part of it is in memory at a time. Masks of detections that rule 3 drops, of classes
    that nobody verified on the image, are not decoded.

    Args:
        boxes: Ground-truth boxes, CSV.
        labels: Image-level labels, CSV.
        predictions: The submission, see :mod:`~hierseg.metrics.submissions`.
        taxonomy: The hierarchy.
        masks: Ground-truth masks, CSV; needed for ``segm``, not read for ``bbox``.
        keys: The meaning of ids in COCO results, of which that of the taxonomy's and the images' own when omitted.
        iou_type: ``segm`` or ``bbox``.
        group_of_weight: What finding a group counts; None for the protocol's default: 0 for ``segm``, 1 for ``bbox``.
        expand: Expand the ground truth through the hierarchy; False where it is expanded already.
        criterion: The overlap that a detection needs, and the size of object that is asked for.
        max_pixels: Of a mask; larger ones are refused.
        workers: Processes; the result is the same to the last bit for any number.
        progress: Show a progress bar on a terminal.

    Raises:
        EvaluationError: If a file cannot be used or ground truth and predictions do not fit.
    """
    kind = checked_iou_type(iou_type)
    if kind == 'segm' and masks is None:
        raise EvaluationError('ground-truth masks are missing', fix='Give the mask CSV, or evaluate boxes (bbox).')
    weight = DEFAULT_GROUP_OF_WEIGHTS[kind] if group_of_weight is None else group_of_weight
    match = partial(match_images, criteria=(criterion,), iou_type=kind, group_of_weight=weight)
    matches: list[ImageMatches] = []
    with part_mapper(workers) as map_parts, TemporaryDirectory(prefix='hierseg-') as folder:
        used_masks = masks if kind == 'segm' else None
        ground_truth = read_ground_truth(
            boxes, labels, used_masks, taxonomy=taxonomy, expand=expand, max_pixels=max_pixels
        )
        quiet = None if progress else True
        rows = detection_rows(
            predictions, list(ground_truth), taxonomy=taxonomy, iou_type=kind, keys=keys, max_pixels=max_pixels
        )
        blocks = tqdm(rows, 'reading', unit='block', disable=quiet)
        parts = split_by_image(blocks, ground_truth, predictions=predictions, iou_type=kind, folder=folder)
        with tqdm(total=len(ground_truth), desc='matching', unit='image', disable=quiet) as bar:
            for found in map_parts(partial(ImagePart.match, match=match), parts):
                matches += found
                bar.update(len(found))
    return summarise(matches, taxonomy.num_classes)
