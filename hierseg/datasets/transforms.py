"""Transforms that give what mmdet's of the same name give, bit for bit, in less time.

Shape letters: I instances, H × W pixels of the image, K channels.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from mmdet.datasets.transforms import LoadAnnotations as MmdetLoadAnnotations
from mmdet.datasets.transforms import PackDetInputs as MmdetPackDetInputs
from mmdet.structures.mask import BitmapMasks
from pycocotools import mask as coco_mask

from hierseg.registry import TRANSFORMS


@TRANSFORMS.register_module()
class LoadAnnotations(MmdetLoadAnnotations):
    """mmdet's, with masks decoded together.

    pycocotools decodes column by column, and mmdet leaves masks so for the transforms that follow, which want rows;
    here OpenCV turns them first. Anything but compressed run lengths, such as polygons, goes mmdet's way.
    Arguments and keys as there.
    """

    def _load_masks(self, results: dict[str, Any]) -> None:
        masks = self._process_masks(results)
        if not (masks and self.poly2mask and all(_is_compressed(mask) for mask in masks)):
            super()._load_masks(results)
            return
        height, width = results['ori_shape']
        columns = coco_mask.decode(masks).transpose(2, 1, 0)  # (I, W, H), as they lie in memory
        loaded = BitmapMasks(np.zeros((0, height, width), dtype=np.uint8), height, width)
        loaded.masks = np.empty((len(masks), height, width), dtype=np.uint8)
        for transposed, mask in zip(columns, loaded.masks, strict=True):
            cv2.transpose(transposed, dst=mask)
        results['gt_masks'] = loaded


@TRANSFORMS.register_module()
class PackDetInputs(MmdetPackDetInputs):
    """mmdet's, with the channels of the image taken apart by OpenCV. Arguments and keys as there."""

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Packs the sample."""
        image = results.get('img')
        if image is not None and image.ndim == 3 and image.dtype in (np.uint8, np.float32):
            # What mmdet makes of a transposed view of planes is the planes themselves.
            results = {**results, 'img': _planes(image).transpose(1, 2, 0)}
        packed: dict[str, Any] = super().transform(results)
        return packed


def _is_compressed(mask: Any) -> bool:
    return isinstance(mask, dict) and isinstance(mask['counts'], str)


def _planes(image: np.ndarray) -> np.ndarray:
    """(K, H, W) of (H, W, K), which may be a view that runs backwards, as a flipped image is."""
    backwards = [axis for axis in (0, 1) if image.strides[axis] < 0]
    planes = np.empty((image.shape[2], *image.shape[:2]), dtype=image.dtype)
    cv2.split(np.flip(image, backwards), list(planes))
    if backwards:
        for plane in planes:
            cv2.flip(plane, -1 if len(backwards) == 2 else backwards[0], dst=plane)
    return planes
