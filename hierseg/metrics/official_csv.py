"""The official Open Images evaluation files, read into arrays that yield one image at a time.

Rows are joined and expanded as rules 1 and 2 of the protocol say. Image ids are text, whatever they look
like. Shape letters: F images, I objects, D detections, V verified labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike

import numpy as np

from hierseg.errors import EvaluationError
from hierseg.metrics.csv_tables import CsvTable, positions
from hierseg.metrics.expansion import Expansion
from hierseg.metrics.joining import InstanceRows, join_boxes_and_masks
from hierseg.metrics.mask_text import decode_masks
from hierseg.metrics.records import (
    BoolArray,
    FloatArray,
    ImageDetections,
    ImageGroundTruth,
    IntArray,
    IouType,
)
from hierseg.metrics.run_lengths import measure, regular
from hierseg.taxonomy import Taxonomy

Path = str | PathLike[str]

BOX_COLUMNS = ('ImageID', 'LabelName', 'XMin', 'XMax', 'YMin', 'YMax', 'IsGroupOf')
LABEL_COLUMNS = ('ImageID', 'LabelName', 'Confidence')
MASK_COLUMNS = (*BOX_COLUMNS, 'ImageWidth', 'ImageHeight', 'Mask')
MASK_SUBMISSION_COLUMNS = ('ImageID', 'ImageWidth', 'ImageHeight', 'LabelName', 'Score', 'Mask')
BOX_SUBMISSION_COLUMNS = ('ImageID', 'LabelName', 'Score', 'XMin', 'XMax', 'YMin', 'YMax')


@dataclass(frozen=True, eq=False)
class MaskColumn:
    """The masks of a file: run lengths (``b''`` for none), areas and tight boxes (N, 4) in pixels, sizes (N, 2).

    Sizes are height and width, zeros where there is no mask.
    """

    masks: list[bytes]
    areas: IntArray
    boxes: IntArray
    sizes: IntArray


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


def read_ground_truth(
    boxes: Path, labels: Path, masks: Path | None, *, taxonomy: Taxonomy, expand: bool = True
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
    tables = [CsvTable(boxes, BOX_COLUMNS), CsvTable(labels, LABEL_COLUMNS)]
    if masks is not None:
        tables.append(CsvTable(masks, MASK_COLUMNS))
    coded = [table.categories('ImageID') for table in tables]
    image_ids = sorted({image_id for _, ids in coded for image_id in ids})
    index_of = {image_id: index for index, image_id in enumerate(image_ids)}
    images = [positions(ids, index_of)[codes] for codes, ids in coded]

    objects = _expanded_rows(tables[0], images[0], taxonomy, expansion)
    sizes: IntArray = np.zeros((len(image_ids), 2), dtype=np.int64)
    if masks is None:
        objects = objects.take(np.argsort(objects.images, kind='stable'))
        object_masks = [b''] * len(objects)
        areas: IntArray = np.zeros(len(objects), dtype=np.int64)
    else:
        column = _read_masks(tables[2])
        sizes = _sizes_of_images(tables[2], images[2], column.sizes, sizes)
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
    predictions: Path, ground_truth: GroundTruthTable, *, taxonomy: Taxonomy, iou_type: IouType
) -> DetectionTable:
    """Reads a submission. Detections on images without ground truth are dropped.

    Args:
        predictions: CSV of masks (ImageID, ImageWidth, ImageHeight, LabelName, Score, Mask) or boxes
            (ImageID, LabelName, Score, XMin, XMax, YMin, YMax).
        ground_truth: Decides the images and the size of their masks.
        taxonomy: The classes.
        iou_type: ``segm`` or ``bbox``.

    Raises:
        EvaluationError: If the file cannot be used; it names the line.
    """
    table = CsvTable(predictions, MASK_SUBMISSION_COLUMNS if iou_type == 'segm' else BOX_SUBMISSION_COLUMNS)
    labels, scores = table.labels('LabelName', taxonomy.label_of), table.numbers('Score')
    codes, ids = table.categories('ImageID')
    images = positions(ids, {image_id: index for index, image_id in enumerate(ground_truth.image_ids)})[codes]
    masks, areas, sizes = None, None, ground_truth.sizes
    if iou_type == 'segm':
        column = _read_masks(table)
        sizes = _sizes_of_images(table, images, column.sizes, ground_truth.sizes)
        boxes = column.boxes / np.maximum(column.sizes[:, [1, 0, 1, 0]], 1)
    else:
        boxes = _read_boxes(table)
    order = np.argsort(images, kind='stable')
    order = order[images[order] >= 0]
    if iou_type == 'segm':
        masks, areas = [column.masks[row] for row in order.tolist()], column.areas[order]
    first = _first_rows(images[order], len(ground_truth.image_ids))
    return DetectionTable(labels[order], scores[order], boxes[order], masks, areas, sizes, first)


def _join(boxes: InstanceRows, masks: InstanceRows, column: MaskColumn) -> tuple[InstanceRows, list[bytes], IntArray]:
    """I objects, their masks and their areas; an empty mask makes an object box-only."""
    objects, mask_of = join_boxes_and_masks(boxes, masks)
    areas: IntArray = np.append(column.areas, 0)[mask_of]
    rows = zip(mask_of.tolist(), areas.tolist(), strict=True)
    return objects, [column.masks[row] if area else b'' for row, area in rows], areas


def _first_rows(images: IntArray, num_images: int) -> IntArray:
    return np.searchsorted(images, np.arange(num_images + 1))


def _read_boxes(table: CsvTable) -> FloatArray:
    """(N, 4) float64 xyxy, as the file has them."""
    return np.stack([table.numbers(name) for name in ('XMin', 'YMin', 'XMax', 'YMax')], axis=1)


def _expanded_rows(table: CsvTable, images: IntArray, taxonomy: Taxonomy, expansion: Expansion) -> InstanceRows:
    boxes = _read_boxes(table)
    inverted = (boxes[:, 0] > boxes[:, 2]) | (boxes[:, 1] > boxes[:, 3])
    if inverted.any():
        row = int(inverted.argmax())
        raise EvaluationError(
            'the box ends before it begins',
            where=table.where(row),
            fix='XMin must not exceed XMax, nor YMin exceed YMax.',
        )
    labels = table.labels('LabelName', taxonomy.label_of)
    rows = InstanceRows(images, labels, boxes, table.flags('IsGroupOf'), np.arange(len(labels)))
    return rows.expanded(*expansion.upward(labels))


def _verified(table: CsvTable, images: IntArray, taxonomy: Taxonomy, expansion: Expansion) -> tuple[IntArray, IntArray]:
    """Images and labels of the verified labels, expanded by their sign, sorted by image."""
    labels, positive = table.labels('LabelName', taxonomy.label_of), table.flags('Confidence')
    above, labels_above = expansion.upward(labels[positive])
    below, labels_below = expansion.downward(labels[~positive])
    labelled = np.concatenate([images[positive][above], images[~positive][below]])
    order = np.argsort(labelled, kind='stable')
    return labelled[order], np.concatenate([labels_above, labels_below])[order]


def _read_masks(table: CsvTable) -> MaskColumn:
    """Decodes, checks and measures the column Mask."""
    blank: BoolArray = table.blank('Mask')
    sizes = np.stack([table.sizes(name, where_not=blank) for name in ('ImageHeight', 'ImageWidth')], axis=1)
    rows = np.flatnonzero(~blank)
    texts = table.text('Mask')

    def where(index: int) -> str:
        return table.where(int(rows[index]))

    given = decode_masks([texts[row] for row in rows.tolist()], where=where)
    measures = measure(given, sizes[rows, 0], sizes[rows, 1], where=where)
    masks = [b''] * len(blank)
    for row, mask in zip(rows.tolist(), given, strict=True):
        masks[row] = mask
    for index in np.flatnonzero(measures.irregular).tolist():
        height, width = sizes[rows[index]].tolist()
        masks[rows[index]] = regular(given[index], (height, width))
    areas, boxes = np.zeros(len(blank), dtype=np.int64), np.zeros((len(blank), 4), dtype=np.int64)
    areas[rows], boxes[rows] = measures.areas, measures.boxes
    return MaskColumn(masks, areas, boxes, sizes)


def _sizes_of_images(table: CsvTable, images: IntArray, sizes: IntArray, known: IntArray) -> IntArray:
    """(F, 2) mask sizes of images: those known, else of an image's first mask.

    Raises:
        EvaluationError: At the first mask of another size.
    """
    rows = np.flatnonzero((sizes[:, 0] > 0) & (images >= 0))
    of_images = known.copy()
    new = rows[of_images[images[rows], 0] == 0][::-1]  # reversed: the first mask of an image is written last
    of_images[images[new]] = sizes[new]
    differs = (of_images[images[rows]] != sizes[rows]).any(axis=1)
    if differs.any():
        row = int(rows[differs.argmax()])
        (height, width), (other_height, other_width) = sizes[row].tolist(), of_images[images[row]].tolist()
        raise EvaluationError(
            f'the mask is {width}×{height} pixels, the other masks of its image are {other_width}×{other_height}',
            where=table.where(row),
            fix='All masks of an image, of ground truth and detections, need one size.',
        )
    return of_images
