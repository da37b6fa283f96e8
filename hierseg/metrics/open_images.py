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
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, replace
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
from hierseg.formats import BoolArray, FloatArray, IntArray
from hierseg.formats.csv_tables import Chunk, index_in, place_of, read_chunks, read_table
from hierseg.formats.run_lengths import MalformedMaskError, counts_of_text, measure, regular
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
    InstanceRows,
    IouType,
    OpenImagesResult,
    checked_iou_type,
    join_boxes_and_masks,
)
from hierseg.taxonomy import Taxonomy

MASK_SUBMISSION_COLUMNS = ('ImageID', 'ImageWidth', 'ImageHeight', 'LabelName', 'Score', 'Mask')
BOX_SUBMISSION_COLUMNS = ('ImageID', 'LabelName', 'Score', 'XMin', 'XMax', 'YMin', 'YMax')

SIDES = ('XMin', 'YMin', 'XMax', 'YMax')
_CLAIM = [('row', pa.int64()), ('image', pa.int64()), ('label', pa.int64()), ('score', pa.float64())]
SCHEMAS: dict[IouType, pa.Schema] = {
    'segm': pa.schema([*_CLAIM, ('height', pa.int64()), ('width', pa.int64()), ('mask', pa.string())]),
    'bbox': pa.schema([*_CLAIM, *((side, pa.float64()) for side in SIDES)]),
}
"""Columns of the rows: the row of the file, counted from 0 below the header, the image and what the file says."""


@dataclass(frozen=True, eq=False)
class DetectionTable:
    """Detections on the images of a :class:`GroundTruthTable`, sorted by image, in file order within one.

    Attributes as of :class:`~hierseg.metrics.records.ImageDetections`, over all images.
    """

    labels: IntArray
    scores: FloatArray
    boxes: FloatArray
    masks: list[bytes] | None
    mask_areas: IntArray | None
    sizes: IntArray
    first_detection: IntArray

    def image(self, index: int) -> ImageDetections:
        """The detections on one image."""
        part = slice(int(self.first_detection[index]), int(self.first_detection[index + 1]))
        height, width = self.sizes[index].tolist()
        return ImageDetections(
            labels=self.labels[part],
            scores=self.scores[part],
            regions=np.arange(part.stop - part.start),
            boxes=self.boxes[part],
            masks=() if self.masks is None else self.masks[part],
            mask_areas=None if self.mask_areas is None else self.mask_areas[part],
            size=(height, width) if height else None,
        )


@dataclass(frozen=True, eq=False)
class MaskColumn:
    """The masks of a file: run lengths (``b''`` for none), areas and tight boxes (N, 4) in pixels."""

    masks: list[bytes]
    areas: IntArray
    boxes: IntArray


def read_masks(
    texts: Sequence[str], sizes: IntArray, *, boxed: BoolArray | None = None, where: Callable[[int], str]
) -> MaskColumn:
    """Decodes the masks of N rows.

    Args:
        texts: As the official files write them; those of rows without a mask are not looked at.
        sizes: (N, 2) int64; height and width, zeros where a row has no mask.
        boxed: (N,) bool; the rows whose boxes are asked for, None for all. The boxes of others are zeros.
        where: Says of a row where it stands.

    Raises:
        EvaluationError: At a mask that cannot be decoded or is of another size.
    """
    rows = np.flatnonzero(sizes[:, 0])
    names = rows.tolist()

    def where_mask(index: int) -> str:
        return where(names[index])

    given = [_counts(texts[row], row, where) for row in names]
    wanted = None if boxed is None else boxed[rows]
    measures = measure(given, sizes[rows, 0], sizes[rows, 1], boxed=wanted, where=where_mask)
    for index in np.flatnonzero(measures.irregular).tolist():
        height, width = sizes[names[index]].tolist()
        given[index] = regular(given[index], (height, width))
    if len(rows) == len(texts):
        return MaskColumn(given, measures.areas, measures.boxes)
    masks = [b''] * len(texts)
    for row, mask in zip(names, given, strict=True):
        masks[row] = mask
    areas, boxes = np.zeros(len(texts), dtype=np.int64), np.zeros((len(texts), 4), dtype=np.int64)
    areas[rows], boxes[rows] = measures.areas, measures.boxes
    return MaskColumn(masks, areas, boxes)


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


def _counts(text: str, row: int, where: Callable[[int], str]) -> bytes:
    try:
        return counts_of_text(text)
    except MalformedMaskError as error:
        fix = 'A mask is base64(zlib(COCO compressed RLE counts)).'
        raise EvaluationError(f'the mask cannot be decoded: {error}', where=where(row), fix=fix) from None


def detection_rows(
    predictions: str | PathLike[str], image_ids: Sequence[str], *, taxonomy: Taxonomy, iou_type: IouType
) -> Iterator[pa.RecordBatch]:
    """The rows of a submission on images with ground truth, in file order.

    Args:
        predictions: CSV of masks (ImageID, ImageWidth, ImageHeight, LabelName, Score, Mask) or boxes
            (ImageID, LabelName, Score, XMin, XMax, YMin, YMax).
        image_ids: F ids, each once.
        taxonomy: The classes.
        iou_type: ``segm`` or ``bbox``.

    Yields:
        Batches with the columns of ``SCHEMAS``; ``image`` indexes ``image_ids``. Masks are not decoded yet; height
        and width are 0 where there is none.

    Raises:
        EvaluationError: If the file cannot be used; it names the line.
    """
    known = pa.array(image_ids, pa.string())
    columns = MASK_SUBMISSION_COLUMNS if iou_type == 'segm' else BOX_SUBMISSION_COLUMNS
    for table in read_chunks(predictions, columns, error=EvaluationError):
        labels, scores = table.labels('LabelName', taxonomy.ids), table.numbers('Score')
        images = index_in(table.texts['ImageID'], known)
        if iou_type == 'segm':
            blank = table.blank('Mask')
            sizes = [table.sizes(name, where_not=blank) for name in ('ImageHeight', 'ImageWidth')]
            regions = [*sizes, table.texts['Mask']]
        else:
            regions = [table.numbers(side) for side in SIDES]
        table.check()
        batch = pa.record_batch([table.rows, images, labels, scores, *regions], schema=SCHEMAS[iou_type])
        yield batch if (images >= 0).all() else batch.filter(pa.array(images >= 0))


def detections_of_rows(
    rows: pa.Table,
    sizes: IntArray,
    *,
    predictions: str | PathLike[str],
    first_image: int = 0,
    boxed: Callable[[IntArray, IntArray], BoolArray] | None = None,
) -> DetectionTable:
    """Decodes masks and sorts by image.

    Args:
        rows: Rows in file order with the columns of ``SCHEMAS``, on images from ``first_image`` on.
        sizes: (F, 2) int64; height and width of the ground truth's masks from that image on, zeros without any.
        predictions: The file that the rows are from.
        first_image: The image that becomes the first of the table.
        boxed: Says of images, counted from the first, and labels, (D,) int64 each, where the boxes of masks are asked
            for; None for all. The boxes of other masks are zeros.

    Raises:
        EvaluationError: If a mask cannot be used; it names the line.
    """
    images = rows['image'].to_numpy() - first_image
    if (np.diff(images) < 0).any():
        order = np.argsort(images, kind='stable')
        rows, images = rows.take(pa.array(order)), images[order]
    file_rows = rows['row']

    def where(row: int) -> str:
        return place_of(predictions, file_rows[row].as_py())

    labels = rows['label'].to_numpy()
    masks, areas = None, None
    if 'mask' in rows.column_names:
        mask_sizes = np.stack([rows[name].to_numpy() for name in ('height', 'width')], axis=1)
        wanted = None if boxed is None else boxed(images, labels)
        column = read_masks(rows['mask'].to_numpy().tolist(), mask_sizes, boxed=wanted, where=where)
        sizes = sizes_of_images(images, mask_sizes, sizes, where=where)
        masks, areas = column.masks, column.areas
        boxes = column.boxes / np.maximum(mask_sizes[:, [1, 0, 1, 0]], 1)
    else:
        boxes = np.stack([rows[side].to_numpy() for side in SIDES], axis=1)
    first = np.searchsorted(images, np.arange(len(sizes) + 1))
    return DetectionTable(labels, rows['score'].to_numpy(), boxes, masks, areas, sizes, first)


IMAGES_PER_PART = 64
BYTES_PER_PART = 16 << 20
"""Of the submission, on average; decoded and with what Python adds, it is several times as much."""

Matcher = Callable[..., list[ImageMatches]]


@dataclass(frozen=True, eq=False)
class ImagePart:
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
) -> list[ImagePart]:
    """Writes the rows of a submission into a file, from which each part reads its own.

    Args:
        blocks: From :func:`~hierseg.metrics.open_images.detection_rows`.
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
        ImagePart(ground_truth.images(begin, end), begin, rows, batches[part], Path(predictions))
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
def part_matcher(
    match: Matcher, *, workers: int
) -> Iterator[Callable[[Iterable[ImagePart]], Iterator[list[ImageMatches]]]]:
    """Function that matches parts, in this process or in several, and yields the results in the order of the parts.

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


def _match_part(part: ImagePart) -> list[ImageMatches]:
    return part.match(_worker['match'])


__all__ = [
    'BOX_SUBMISSION_COLUMNS',
    'MASK_SUBMISSION_COLUMNS',
    'DetectionTable',
    'GroundTruthTable',
    'read_detections',
    'read_ground_truth',
]


BOX_COLUMNS = ('ImageID', 'LabelName', 'XMin', 'XMax', 'YMin', 'YMax', 'IsGroupOf')
LABEL_COLUMNS = ('ImageID', 'LabelName', 'Confidence')
MASK_COLUMNS = (*BOX_COLUMNS, 'ImageWidth', 'ImageHeight', 'Mask')


@dataclass(frozen=True, eq=False)
class GroundTruthTable:
    """Ground truth of F images; use :func:`read_ground_truth`, then :meth:`image`.

    Attributes:
        image_ids: F ids, ascending.
        objects: I objects sorted by image.
        masks: I run lengths; ``b''`` for box-only objects.
        mask_areas: (I,) int64.
        sizes: (F, 2) int64 height and width of the masks; zeros without any.
        first_object: (F + 1,) int64.
        verified: (V,) int64 labels sorted by image.
        first_verified: (F + 1,) int64.
    """

    image_ids: list[str]
    objects: InstanceRows
    masks: list[bytes]
    mask_areas: IntArray
    sizes: IntArray
    first_object: IntArray
    verified: IntArray
    first_verified: IntArray

    def image(self, index: int) -> ImageGroundTruth:
        """The ground truth of one image."""
        part = slice(int(self.first_object[index]), int(self.first_object[index + 1]))
        height, width = self.sizes[index].tolist()
        return ImageGroundTruth(
            labels=self.objects.labels[part],
            boxes=self.objects.boxes[part],
            group_of=self.objects.group_of[part],
            masks=self.masks[part],
            mask_areas=self.mask_areas[part],
            verified=self.verified[self.first_verified[index] : self.first_verified[index + 1]],
            size=(height, width) if height else None,
        )

    def evaluatable(self, images: IntArray, labels: IntArray) -> BoolArray:
        """True where rule 3 keeps detections of the given labels on the given images, (D,) int64 each.

        It does if the class has an object on the image or was verified there, as present or absent.
        """
        verified_images = np.repeat(np.arange(len(self.image_ids)), np.diff(self.first_verified))
        known_images = np.concatenate([self.objects.images, verified_images])
        return _are_among(images, labels, known_images, np.concatenate([self.objects.labels, self.verified]))

    def have_box_only(self, images: IntArray, labels: IntArray) -> BoolArray:
        """True where an object of the label on the image has a box alone; (D,) int64 images and labels."""
        box_only = self.mask_areas == 0
        return _are_among(images, labels, self.objects.images[box_only], self.objects.labels[box_only])

    def images(self, begin: int, end: int) -> GroundTruthTable:
        """The ground truth of the images from ``begin`` up to ``end``."""
        objects = slice(int(self.first_object[begin]), int(self.first_object[end]))
        verified = slice(int(self.first_verified[begin]), int(self.first_verified[end]))
        rows = self.objects.take(np.arange(objects.start, objects.stop))
        return GroundTruthTable(
            image_ids=self.image_ids[begin:end],
            objects=replace(rows, images=rows.images - begin),
            masks=self.masks[objects],
            mask_areas=self.mask_areas[objects],
            sizes=self.sizes[begin:end],
            first_object=self.first_object[begin : end + 1] - objects.start,
            verified=self.verified[verified],
            first_verified=self.first_verified[begin : end + 1] - verified.start,
        )


def read_ground_truth(
    boxes: str | PathLike[str],
    labels: str | PathLike[str],
    masks: str | PathLike[str] | None,
    *,
    taxonomy: Taxonomy,
    expand: bool = True,
) -> GroundTruthTable:
    """Reads, expands and joins the ground truth.

    Args:
        boxes: CSV with the columns ImageID, LabelName, XMin, XMax, YMin, YMax, IsGroupOf.
        labels: CSV with the columns ImageID, LabelName, Confidence.
        masks: CSV with the box columns, ImageWidth, ImageHeight and Mask; None for the boxes variant.
        taxonomy: The classes; labels are its labels.
        expand: Copy rows through the hierarchy; False where the files are expanded already.

    Raises:
        EvaluationError: If a file cannot be used; it names the line.
    """
    expansion = Expansion.of(taxonomy) if expand else Expansion.none(taxonomy.num_classes)
    files = [(boxes, BOX_COLUMNS), (labels, LABEL_COLUMNS)]
    if masks is not None:
        files.append((masks, MASK_COLUMNS))
    tables = [read_table(path, columns, error=EvaluationError) for path, columns in files]
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
        extents = [tables[2].sizes(name, where_not=blank) for name in ('ImageHeight', 'ImageWidth')]
        tables[2].check()
        mask_sizes = np.stack(extents, axis=1)
        column = read_masks(texts, mask_sizes, where=tables[2].where)
        sizes = sizes_of_images(images[2], mask_sizes, sizes, where=tables[2].where)
        mask_rows = _expanded_rows(tables[2], images[2], taxonomy, expansion)
        objects, object_masks, areas = _join(objects, mask_rows, column)
    labelled, verified = _verified(tables[1], images[1], taxonomy, expansion)
    return GroundTruthTable(
        image_ids=image_ids,
        objects=objects,
        masks=object_masks,
        mask_areas=areas,
        sizes=sizes,
        first_object=_first_rows(objects.images, len(image_ids)),
        verified=verified,
        first_verified=_first_rows(labelled, len(image_ids)),
    )


def read_detections(
    predictions: str | PathLike[str],
    image_ids: Sequence[str],
    sizes: IntArray,
    *,
    taxonomy: Taxonomy,
    iou_type: IouType,
    progress: bool = False,
) -> DetectionTable:
    """Reads a submission. Detections on other images are dropped.

    Args:
        predictions: CSV of masks (ImageID, ImageWidth, ImageHeight, LabelName, Score, Mask) or boxes
            (ImageID, LabelName, Score, XMin, XMax, YMin, YMax).
        image_ids: F ids, each once.
        sizes: (F, 2) int64; height and width of their masks, zeros where it is not known.
        taxonomy: The classes.
        iou_type: ``segm`` or ``bbox``.
        progress: Show a progress bar on a terminal.

    Raises:
        EvaluationError: If the file cannot be used; it names the line.
    """
    blocks = detection_rows(predictions, image_ids, taxonomy=taxonomy, iou_type=iou_type)
    bar = tqdm(blocks, f'reading {predictions}', unit='block', disable=None if progress else True)
    rows = pa.Table.from_batches(bar, schema=SCHEMAS[iou_type])
    return detections_of_rows(rows, sizes, predictions=predictions)


def _join(boxes: InstanceRows, masks: InstanceRows, column: MaskColumn) -> tuple[InstanceRows, list[bytes], IntArray]:
    """I objects, their masks and their areas; an empty mask makes an object box-only."""
    objects, mask_of = join_boxes_and_masks(boxes, masks)
    areas: IntArray = np.append(column.areas, 0)[mask_of]
    rows = zip(mask_of.tolist(), areas.tolist(), strict=True)
    return objects, [column.masks[row] if area else b'' for row, area in rows], areas


def _first_rows(images: IntArray, num_images: int) -> IntArray:
    return np.searchsorted(images, np.arange(num_images + 1))


def _read_boxes(table: Chunk) -> FloatArray:
    """(N, 4) float64 xyxy, as the file has them."""
    return np.stack([table.numbers(name) for name in ('XMin', 'YMin', 'XMax', 'YMax')], axis=1)


def _are_among(images: IntArray, labels: IntArray, known_images: IntArray, known_labels: IntArray) -> BoolArray:
    """(D,) bool; which pairs of an image and a label are known."""
    num_labels = 1 + max(int(values.max(initial=0)) for values in (labels, known_labels))
    return np.isin(images * num_labels + labels, known_images * num_labels + known_labels)


def _expanded_rows(table: Chunk, images: IntArray, taxonomy: Taxonomy, expansion: Expansion) -> InstanceRows:
    boxes = _read_boxes(table)
    inverted = (boxes[:, 0] > boxes[:, 2]) | (boxes[:, 1] > boxes[:, 3])
    fix = 'XMin must not exceed XMax, nor YMin exceed YMax.'
    table.refuse(inverted, lambda row: 'the box ends before it begins', fix=fix)
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


def evaluate_files(
    boxes: str | PathLike[str],
    labels: str | PathLike[str],
    *,
    predictions: str | PathLike[str],
    taxonomy: Taxonomy,
    masks: str | PathLike[str] | None = None,
    iou_type: str = 'segm',
    group_of_weight: float | None = None,
    expand: bool = True,
    criterion: Criterion = OPEN_IMAGES,
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
        predictions: The submission, CSV.
        taxonomy: The hierarchy.
        masks: Ground-truth masks, CSV; needed for ``segm``, not read for ``bbox``.
        iou_type: ``segm`` or ``bbox``.
        group_of_weight: What finding a group counts; None for the protocol's default: 0 for ``segm``, 1 for ``bbox``.
        expand: Expand the ground truth through the hierarchy; False where it is expanded already.
        criterion: The overlap that a detection needs, and the size of object that is asked for.
        workers: Processes; the result is the same to the last bit for any number.
        progress: Show a progress bar on a terminal.

    Raises:
        EvaluationError: If a file cannot be used or ground truth and predictions do not fit.
    """
    kind = checked_iou_type(iou_type)
    if kind == 'segm' and masks is None:
        raise EvaluationError('ground-truth masks are missing', fix='Give the mask CSV, or evaluate boxes (bbox).')
    weight = DEFAULT_GROUP_OF_WEIGHTS[kind] if group_of_weight is None else group_of_weight
    match = partial(match_images, iou_type=kind, group_of_weight=weight, criterion=criterion)
    matches: list[ImageMatches] = []
    with part_matcher(match, workers=workers) as match_parts, TemporaryDirectory(prefix='hierseg-') as folder:
        used_masks = masks if kind == 'segm' else None
        ground_truth = read_ground_truth(boxes, labels, used_masks, taxonomy=taxonomy, expand=expand)
        image_ids, quiet = ground_truth.image_ids, None if progress else True
        rows = detection_rows(predictions, image_ids, taxonomy=taxonomy, iou_type=kind)
        blocks = tqdm(rows, 'reading', unit='block', disable=quiet)
        parts = split_by_image(blocks, ground_truth, predictions=predictions, iou_type=kind, folder=folder)
        with tqdm(total=len(image_ids), desc='matching', unit='image', disable=quiet) as bar:
            for found in match_parts(parts):
                matches += found
                bar.update(len(found))
    return summarise(matches, taxonomy.num_classes)
