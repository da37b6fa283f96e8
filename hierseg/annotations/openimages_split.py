"""The three official tables of a split, joined and cut into images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from hierseg.annotations.openimages_images import ImageTask
from hierseg.annotations.openimages_join import join_masks
from hierseg.annotations.openimages_tables import BoxRows, LabelRows, MaskRows, image_rows
from hierseg.annotations.records import FloatArray, IntArray
from hierseg.annotations.summary import ConversionSummary
from hierseg.errors import AnnotationError

IMAGES_PER_TASK = 16


class Split:
    """The three tables, joined and sorted by image.

    Args:
        boxes: Box rows.
        labels: Image-label rows.
        masks: Mask rows.
        num_classes: C.
        tolerance: Of the join, see :func:`join_masks`.
        summary: Takes the counts.

    Attributes:
        image_ids: Text, ascending, of every image that any of the tables names.

    Raises:
        AnnotationError: If there are neither boxes nor masks.
    """

    def __init__(
        self,
        boxes: BoxRows,
        labels: LabelRows,
        masks: MaskRows,
        *,
        num_classes: int,
        tolerance: float,
        summary: ConversionSummary,
    ) -> None:
        if len(boxes) + len(masks) == 0:
            raise AnnotationError(
                'the split is empty: there are no boxes and no masks of classes of the taxonomy',
                where=f'{boxes.path}, {masks.path}',
                fix='Check that the files are of one split and fit the taxonomy.',
            )
        self.image_ids, (box_images, label_images, mask_images) = image_rows([boxes, labels, masks])
        box_of_mask = join_masks(boxes, masks, box_images, mask_images, num_classes=num_classes, tolerance=tolerance)
        alone = np.flatnonzero(box_of_mask < 0)
        summary.box_rows, summary.mask_rows = len(boxes), len(masks)
        summary.masks_joined, summary.masks_without_box = len(masks) - len(alone), len(alone)
        mask_of_box = np.full(len(boxes), -1, dtype=np.int64)
        joined = np.flatnonzero(box_of_mask >= 0)
        mask_of_box[box_of_mask[joined]] = joined
        images = np.concatenate([box_images, mask_images[alone]])
        order = np.argsort(images, kind='stable')
        self._images = images[order]
        self._labels = np.concatenate([boxes.labels, masks.labels[alone]])[order]
        self._boxes: FloatArray = np.concatenate([boxes.boxes, masks.boxes[alone]])[order]
        self._group_of = np.concatenate([boxes.group_of, masks.group_of[alone]])[order]
        self._mask: IntArray = np.concatenate([mask_of_box, alone])[order]
        self._box: IntArray = np.concatenate([np.arange(len(boxes)), np.full(len(alone), -1)])[order]
        self._box_ids, self._mask_ids, self._masks = boxes.box_ids, masks.box_ids, masks
        order = np.argsort(label_images, kind='stable')
        self._verified = (label_images[order], labels.labels[order], labels.positive[order])

    def tasks(self) -> Iterator[list[ImageTask]]:
        """The rows of all images, some images at a time."""
        count = len(self.image_ids)
        ends = np.searchsorted(self._images, np.arange(count + 1))
        for first in range(0, count, IMAGES_PER_TASK):
            last = min(first + IMAGES_PER_TASK, count)
            ids = self.image_ids[first:last].to_pylist()
            yield [self._task(image_id, slice(*ends[first + i : first + i + 2])) for i, image_id in enumerate(ids)]

    def _task(self, image_id: str, rows: slice) -> ImageTask:
        mask = self._mask[rows]
        sizes = np.zeros((len(mask), 2), dtype=np.int64)
        if self._masks.sizes is not None:
            sizes[mask >= 0] = self._masks.sizes[mask[mask >= 0]]
        mask_ids = _texts(self._mask_ids, mask)
        box_ids = _texts(self._box_ids, self._box[rows])
        return ImageTask(
            image_id,
            labels=self._labels[rows],
            boxes=self._boxes[rows],
            group_of=self._group_of[rows],
            annotation_ids=[of_mask or of_box or '' for of_mask, of_box in zip(mask_ids, box_ids, strict=True)],
            references=_texts(self._masks.references, mask),
            mask_sizes=sizes,
            mask_rows=np.where(mask >= 0, self._masks.rows[mask], -1) if len(self._masks) else mask,
        )

    def verified(self, image: int) -> tuple[IntArray, IntArray]:
        """Labels verified as present and as absent."""
        images, labels, positive = self._verified
        first, last = np.searchsorted(images, [image, image + 1])
        return labels[first:last][positive[first:last]], labels[first:last][~positive[first:last]]


def _texts(column: pa.ChunkedArray | None, rows: IntArray) -> Sequence[str | None]:
    """Values of a text column; None where the row is -1."""
    if column is None or len(rows) == 0:
        return [None] * len(rows)
    return [column[row].as_py() if row >= 0 else None for row in rows.tolist()]
