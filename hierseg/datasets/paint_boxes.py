"""Paints boxes grey that a layer of the two-layer ensemble must not see."""

from __future__ import annotations

from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform

from hierseg.errors import ConfigError
from hierseg.registry import TRANSFORMS


@TRANSFORMS.register_module()
class PaintBoxes(BaseTransform):
    """Fills the ``painted_boxes`` of a sample with grey.

    Belongs directly behind ``LoadImageFromFile``, while the image has the pixels that boxes are counted in. A
    box covers every pixel that it touches, so that nothing of the object shows at its border, and is clipped to
    the image.

    Args:
        value: What is written to all channels of a pixel.

    Required keys: ``img``, ``height``, ``width``, ``painted_boxes`` ((P, 4) xyxy pixels, from
    ``StoreDataset`` with ``layer``). Modified keys: ``img``.

    Raises:
        ConfigError: If the sample has no ``painted_boxes``, or if its image was transformed before.
    """

    def __init__(self, value: int = 128) -> None:
        self.value = value

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Paints a copy of the image."""
        if 'painted_boxes' not in results:
            raise ConfigError(
                'the sample has no painted_boxes',
                where='PaintBoxes',
                fix='Give layer=0 or layer=1 to StoreDataset, or take PaintBoxes out of the pipeline.',
            )
        # mmdet's transforms record what they did to the geometry.
        if any(key in results for key in ('scale_factor', 'flip', 'homography_matrix')):
            raise ConfigError(
                'the image was transformed before its boxes are painted',
                where='PaintBoxes',
                fix='Put PaintBoxes directly behind LoadImageFromFile.',
            )
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
