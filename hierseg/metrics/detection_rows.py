"""A submission as Arrow rows, block after block, and detections made of such rows.

Rows are small until their masks are decoded: so they are what is kept of a submission, and what goes to worker
processes. Shape letters: F images of the ground truth, D detections.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from os import PathLike

import numpy as np
import pyarrow as pa

from hierseg.metrics.csv_tables import CsvTable, line_of, positions
from hierseg.metrics.mask_column import read_masks, sizes_of_images
from hierseg.metrics.records import BoolArray, FloatArray, ImageDetections, IntArray, IouType
from hierseg.taxonomy import Taxonomy

Path = str | PathLike[str]

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


def detection_rows(
    predictions: Path, image_ids: Sequence[str], *, taxonomy: Taxonomy, iou_type: IouType
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
    index_of = {image_id: index for index, image_id in enumerate(image_ids)}
    columns = MASK_SUBMISSION_COLUMNS if iou_type == 'segm' else BOX_SUBMISSION_COLUMNS
    for table in CsvTable.blocks(predictions, columns):
        labels, scores = table.labels('LabelName', taxonomy.label_of), table.numbers('Score')
        codes, ids = table.categories('ImageID')
        images = positions(ids, index_of)[codes]
        if iou_type == 'segm':
            blank = table.blank('Mask')
            sizes = [table.sizes(name, where_not=blank) for name in ('ImageHeight', 'ImageWidth')]
            regions = [*sizes, table.column('Mask')]
        else:
            regions = [table.numbers(side) for side in SIDES]
        rows = table.first_row + np.arange(len(table))
        batch = pa.record_batch([rows, images, labels, scores, *regions], schema=SCHEMAS[iou_type])
        yield batch if (images >= 0).all() else batch.filter(pa.array(images >= 0))


def detections_of_rows(
    rows: pa.Table,
    sizes: IntArray,
    *,
    predictions: Path,
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
        return line_of(predictions, file_rows[row].as_py())

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
