"""The rows that the three official tables have on some images, joined and cut into images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from hierseg.annotations.csv_tables import index_in
from hierseg.annotations.openimages_images import ImageTask
from hierseg.annotations.openimages_join import join_masks
from hierseg.annotations.openimages_tables import BoxRows, LabelRows, MaskRows
from hierseg.annotations.records import FloatArray, IntArray


class Split:
    """All rows of N images, joined and sorted by image.

    Args:
        image_ids: (N,) text, ascending.
        boxes: Box rows.
        labels: Image-label rows.
        masks: Mask rows.
        num_classes: C.
        tolerance: Of the join, see :func:`join_masks`.

    Attributes:
        image_ids: As given.
    """

    def __init__(
        self,
        image_ids: pa.Array,
        *,
        boxes: BoxRows,
        labels: LabelRows,
        masks: MaskRows,
        num_classes: int,
        tolerance: float,
    ) -> None:
        self.image_ids = image_ids
        box_images, label_images, mask_images = (index_in(rows.image_ids, image_ids) for rows in (boxes, labels, masks))
        box_of_mask = join_masks(boxes, masks, box_images, mask_images, num_classes=num_classes, tolerance=tolerance)
        alone = np.flatnonzero(box_of_mask < 0)
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

    def task(self, image: int) -> ImageTask:
        """The rows of one image."""
        rows = slice(*np.searchsorted(self._images, [image, image + 1]))
        mask = self._mask[rows]
        sizes = np.zeros((len(mask), 2), dtype=np.int64)
        if self._masks.sizes is not None:
            sizes[mask >= 0] = self._masks.sizes[mask[mask >= 0]]
        mask_ids = _texts(self._mask_ids, mask)
        box_ids = _texts(self._box_ids, self._box[rows])
        return ImageTask(
            self.image_ids[image].as_py(),
            labels=self._labels[rows],
            boxes=self._boxes[rows],
            group_of=self._group_of[rows],
            annotation_ids=[of_mask or of_box or '' for of_mask, of_box in zip(mask_ids, box_ids, strict=True)],
            references=_texts(self._masks.references, mask),
            mask_sizes=sizes,
            mask_rows=np.where(mask >= 0, self._masks.rows[mask], -1) if len(self._masks) else mask,
        )

    def num_joined(self, first: int, last: int) -> tuple[int, int]:
        """How many masks of the images ``first`` to ``last - 1`` have a box row, and how many have none."""
        rows = slice(*np.searchsorted(self._images, [first, last]))
        alone = self._box[rows] < 0
        return int(np.count_nonzero(self._mask[rows] >= 0) - np.count_nonzero(alone)), int(np.count_nonzero(alone))

    def verified(self, image: int) -> tuple[IntArray, IntArray]:
        """Labels verified as present and as absent."""
        images, labels, positive = self._verified
        first, last = np.searchsorted(images, [image, image + 1])
        return labels[first:last][positive[first:last]], labels[first:last][~positive[first:last]]


def _texts(column: pa.Array | None, rows: IntArray) -> Sequence[str | None]:
    """Values of a text column; None where the row is -1."""
    if column is None or len(rows) == 0:
        return [None] * len(rows)
    return [column[row].as_py() if row >= 0 else None for row in rows.tolist()]
