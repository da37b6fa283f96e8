"""Several images end to end, so that their classes are matched together instead of one by one.

Shape letters: B images, I objects, D detections, R regions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from hierseg.metrics.records import BoolArray, FloatArray, ImageDetections, ImageGroundTruth, IntArray


@dataclass(frozen=True, eq=False)
class ImageBatch:
    """Objects and detections of B images, in the order of the images.

    A key stands for a class on an image: the image times ``num_labels`` plus the label.

    Attributes:
        num_labels: Above every label.
        num_images: B.
        object_keys: (I,) int64.
        object_boxes: (I, 4) float64 xyxy.
        object_masks: I run lengths; ``b''`` for a box-only object.
        object_areas: (I,) int64, pixels; 0 for a box-only object.
        group_of: (I,) bool.
        verified_keys: int64; classes verified on an image.
        keys: (D,) int64.
        labels: (D,) int64.
        scores: (D,) float64.
        regions: (D,) int64; index of the detection's box and mask.
        boxes: (R, 4) float64 xyxy.
        masks: R run lengths; ``b''`` where the image's detections have none.
        areas: (R,) int64, pixels; 0 likewise.
        has_masks: (R,) bool; the image's detections have masks.
        sizes: Height and width of the masks of each image, None for an image without any.
    """

    num_labels: int
    num_images: int
    object_keys: IntArray
    object_boxes: FloatArray
    object_masks: Sequence[bytes]
    object_areas: IntArray
    group_of: BoolArray
    verified_keys: IntArray
    keys: IntArray
    labels: IntArray
    scores: FloatArray
    regions: IntArray
    boxes: FloatArray
    masks: Sequence[bytes]
    areas: IntArray
    has_masks: BoolArray
    sizes: Sequence[tuple[int, int] | None]

    @classmethod
    def of(cls, ground_truths: Sequence[ImageGroundTruth], detections: Sequence[ImageDetections]) -> ImageBatch:
        """The images in their order; one of each for every image, at least one image."""
        object_labels, verified = ([getattr(one, name) for one in ground_truths] for name in ('labels', 'verified'))
        labels = [one.labels for one in detections]
        num_labels = 1 + max(int(part.max(initial=0)) for part in chain(object_labels, verified, labels))
        num_regions = [len(one.boxes) for one in detections]
        first_region = np.cumsum([0, *num_regions[:-1]])
        areas = [
            np.zeros(count, dtype=np.int64) if one.mask_areas is None else one.mask_areas
            for one, count in zip(detections, num_regions, strict=True)
        ]
        blank = [b'']
        masks = [
            blank * count if one.mask_areas is None else one.masks
            for one, count in zip(detections, num_regions, strict=True)
        ]
        return cls(
            num_labels=num_labels,
            num_images=len(ground_truths),
            object_keys=_keys(object_labels, num_labels),
            object_boxes=np.concatenate([one.boxes for one in ground_truths]),
            object_masks=list(chain.from_iterable(one.masks for one in ground_truths)),
            object_areas=np.concatenate([one.mask_areas for one in ground_truths]),
            group_of=np.concatenate([one.group_of for one in ground_truths]),
            verified_keys=_keys(verified, num_labels),
            keys=_keys(labels, num_labels),
            labels=np.concatenate(labels),
            scores=np.concatenate([one.scores for one in detections]),
            regions=np.concatenate([one.regions for one in detections])
            + np.repeat(first_region, [len(part) for part in labels]),
            boxes=np.concatenate([one.boxes for one in detections]),
            masks=list(chain.from_iterable(masks)),
            areas=np.concatenate(areas),
            has_masks=np.repeat([one.mask_areas is not None for one in detections], num_regions),
            sizes=[one.size for one in ground_truths],
        )

    def bounds(self, keys: IntArray) -> list[int]:
        """Where the keys of each image begin among ascending ones, and the end of all; B + 1 numbers."""
        first: list[int] = np.searchsorted(keys, np.arange(self.num_images + 1) * self.num_labels).tolist()
        return first


def _keys(labels: Sequence[IntArray], num_labels: int) -> IntArray:
    """Keys of the labels of each image, end to end."""
    images = np.repeat(np.arange(len(labels)), [len(part) for part in labels])
    return images * num_labels + np.concatenate(labels)
