"""The official Open Images evaluation files, read into arrays that yield one image at a time.

Rows are joined and expanded as rules 1 and 2 of the protocol say. Image ids are text, whatever they look
like. Shape letters: F images, I objects, D detections, V verified labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from os import PathLike

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from hierseg.errors import EvaluationError
from hierseg.metrics.csv_tables import CsvTable, positions
from hierseg.metrics.detection_rows import (
    BOX_SUBMISSION_COLUMNS,
    MASK_SUBMISSION_COLUMNS,
    SCHEMAS,
    DetectionTable,
    detection_rows,
    detections_of_rows,
)
from hierseg.metrics.expansion import Expansion
from hierseg.metrics.joining import InstanceRows, join_boxes_and_masks
from hierseg.metrics.mask_column import MaskColumn, read_masks, sizes_of_images
from hierseg.metrics.records import BoolArray, FloatArray, ImageGroundTruth, IntArray, IouType
from hierseg.taxonomy import Taxonomy

__all__ = [
    'BOX_SUBMISSION_COLUMNS',
    'MASK_SUBMISSION_COLUMNS',
    'DetectionTable',
    'GroundTruthTable',
    'read_detections',
    'read_ground_truth',
]

Path = str | PathLike[str]

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
        """Whether rule 3 keeps detections of the given labels on the given images, (D,) int64 each.

        It does if the class has an object on the image or was verified there, as present or absent.
        """
        verified_images = np.repeat(np.arange(len(self.image_ids)), np.diff(self.first_verified))
        known_images = np.concatenate([self.objects.images, verified_images])
        return _are_among(images, labels, known_images, np.concatenate([self.objects.labels, self.verified]))

    def have_box_only(self, images: IntArray, labels: IntArray) -> BoolArray:
        """Whether an object of the label on the image has a box alone; (D,) int64 images and labels."""
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
    tables = [CsvTable.read(boxes, BOX_COLUMNS), CsvTable.read(labels, LABEL_COLUMNS)]
    if masks is not None:
        tables.append(CsvTable.read(masks, MASK_COLUMNS))
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
        blank, texts = tables[2].blank('Mask'), tables[2].text('Mask')
        extents = [tables[2].sizes(name, where_not=blank) for name in ('ImageHeight', 'ImageWidth')]
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
    predictions: Path,
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


def _read_boxes(table: CsvTable) -> FloatArray:
    """(N, 4) float64 xyxy, as the file has them."""
    return np.stack([table.numbers(name) for name in ('XMin', 'YMin', 'XMax', 'YMax')], axis=1)


def _are_among(images: IntArray, labels: IntArray, known_images: IntArray, known_labels: IntArray) -> BoolArray:
    """(D,) bool; which pairs of an image and a label are known."""
    num_labels = 1 + max(int(values.max(initial=0)) for values in (labels, known_labels))
    return np.isin(images * num_labels + labels, known_images * num_labels + known_labels)


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
