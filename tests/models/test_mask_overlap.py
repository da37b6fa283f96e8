from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pycocotools import mask as coco_mask

from hierseg.models.mask_overlap import mask_bounds, mask_overlaps


def masks(count: int) -> st.SearchStrategy[torch.Tensor]:
    """Empty ones among them."""
    planes = arrays.arrays(np.bool_, (count, 6, 7)) | arrays.arrays(np.bool_, (count, 6, 7), fill=st.just(False))
    return planes.map(torch.from_numpy)


def by_run_lengths(first: torch.Tensor, second: torch.Tensor) -> np.ndarray:
    encoded = [
        [coco_mask.encode(np.asfortranarray(plane, dtype=np.uint8)) for plane in planes.numpy()]
        for planes in (first, second)
    ]
    return np.asarray(coco_mask.iou(*encoded, [0] * len(second)))


@given(masks(3), masks(4), arrays.arrays(np.bool_, (3, 4)), st.sampled_from([0.05, 0.25, 0.5, 1.0]))
def test_is_what_pycocotools_finds_where_it_is_wanted_and_enough(first, second, wanted, at_least) -> None:
    expected = by_run_lengths(first, second)
    expected = np.where(wanted & (expected >= at_least), expected, 0)
    np.testing.assert_array_equal(mask_overlaps(first, second, wanted, at_least=at_least), expected)


def test_bounds_by_hand() -> None:
    planes = torch.zeros(3, 5, 9, dtype=torch.bool)
    planes[0, 1:3, 2:8] = True
    planes[1, 4, 8] = True
    assert mask_bounds(planes).tolist() == [[2, 1, 8, 3], [8, 4, 9, 5], [0, 0, 0, 0]]


def test_no_masks() -> None:
    planes = torch.zeros(2, 5, 9, dtype=torch.bool)
    assert mask_overlaps(planes[:0], planes, np.ones((0, 2), dtype=bool), at_least=0.5).shape == (0, 2)
    assert mask_overlaps(planes, planes[:0], np.ones((2, 0), dtype=bool), at_least=0.5).shape == (2, 0)
