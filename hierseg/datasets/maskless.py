"""Boxes without a mask, for detectors that cannot learn from them."""

from __future__ import annotations

from typing import Any

from mmcv.transforms import BaseTransform

from hierseg.registry import TRANSFORMS


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
