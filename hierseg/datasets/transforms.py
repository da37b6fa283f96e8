"""Transforms: mmdet's in less time, bit for bit; boxes painted for a layer; boxes without a mask ignored.

Shape letters: I instances, H × W pixels of the image, K channels.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from mmcv.transforms import BaseTransform
from mmdet.datasets.transforms import LoadAnnotations as MmdetLoadAnnotations
from mmdet.datasets.transforms import PackDetInputs as MmdetPackDetInputs
from mmdet.structures.mask import BitmapMasks
from pycocotools import mask as coco_mask

from hierseg.errors import ConfigError
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
        compressed = all(isinstance(mask, dict) and isinstance(mask['counts'], str) for mask in masks)
        if not (masks and self.poly2mask and compressed):
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


@TRANSFORMS.register_module()
class PaintBoxes(BaseTransform):
    """Fills the ``painted_boxes`` of a sample, (P, 4) xyxy pixels from ``StoreDataset`` with ``layer``, with grey.

    Belongs directly behind ``LoadImageFromFile``, while the image has the pixels that boxes are counted in; elsewhere,
    or without such boxes, it is a ConfigError. A box covers every pixel that it touches, so that nothing of the object
    shows at its border, and is clipped to the image. ``value`` is written to all channels of a pixel.

    Required keys: ``img``, ``painted_boxes``. Modified keys: ``img``.
    """

    def __init__(self, value: int = 128) -> None:
        self.value = value

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Paints a copy of the image."""
        if 'painted_boxes' not in results:
            fix = 'Give layer=0 or layer=1 to StoreDataset, or take PaintBoxes out of the pipeline.'
            raise ConfigError('the sample has no painted_boxes', where='PaintBoxes', fix=fix)
        # mmdet's transforms record what they did to the geometry.
        if any(key in results for key in ('scale_factor', 'flip', 'homography_matrix')):
            fix = 'Put PaintBoxes directly behind LoadImageFromFile.'
            raise ConfigError('the image was transformed before its boxes are painted', where='PaintBoxes', fix=fix)
        boxes = results['painted_boxes']
        if len(boxes) == 0:
            return results
        image = results['img'].copy()
        lower = np.floor(boxes[:, :2]).clip(min=0).astype(int).tolist()
        upper = np.ceil(boxes[:, 2:]).clip(min=0).astype(int).tolist()
        for (left, top), (right, bottom) in zip(lower, upper, strict=True):
            image[top:bottom, left:right] = self.value
        results['img'] = image
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(value={self.value})'


@TRANSFORMS.register_module()
class IgnoreMaskless(BaseTransform):
    """Marks boxes without a mask as regions to ignore.

    MMDetection's Mask R-CNN would learn from the empty mask of such a box that the object has no pixel.
    Dropped, it would count as background. Ignored, it trains neither box nor mask. Belongs behind
    ``LoadAnnotations(with_mask=True)``; the assigners of the model must ignore (``ignore_iof_thr``).

    Required keys: ``gt_masks``. Modified keys: ``gt_ignore_flags``. A sample without any instance left to train
    on is refused (None), and the data set takes another image.
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any] | None:
        """Flags the boxes."""
        masks = results['gt_masks'].masks
        results['gt_ignore_flags'] = results['gt_ignore_flags'] | ~masks.any(axis=(1, 2))
        return None if results['gt_ignore_flags'].all() else results


def _planes(image: np.ndarray) -> np.ndarray:
    """(K, H, W) of (H, W, K), which may be a view that runs backwards, as a flipped image is."""
    backwards = [axis for axis in (0, 1) if image.strides[axis] < 0]
    planes = np.empty((image.shape[2], *image.shape[:2]), dtype=image.dtype)
    cv2.split(np.flip(image, backwards), list(planes))
    if backwards:
        for plane in planes:
            cv2.flip(plane, -1 if len(backwards) == 2 else backwards[0], dst=plane)
    return planes
