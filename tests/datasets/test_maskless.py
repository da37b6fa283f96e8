from __future__ import annotations

import numpy as np
from mmdet.structures.mask import BitmapMasks

from hierseg.datasets import IgnoreMaskless


def sample(masked: list[bool], ignored: list[bool]) -> dict[str, object]:
    masks = np.zeros((len(masked), 4, 5), dtype=np.uint8)
    masks[np.array(masked, dtype=bool), 1, 2] = 1
    return {'gt_masks': BitmapMasks(masks, 4, 5), 'gt_ignore_flags': np.array(ignored, dtype=bool)}


def test_boxes_without_a_mask_are_ignored() -> None:
    results = IgnoreMaskless().transform(sample([True, False, True], [False, False, True]))
    assert results is not None
    assert results['gt_ignore_flags'].tolist() == [False, True, True]


def test_an_image_without_anything_to_train_on_is_refused() -> None:
    assert IgnoreMaskless().transform(sample([False, True], [False, True])) is None
    assert IgnoreMaskless().transform(sample([], [])) is None
