"""Masks sampled in their boxes are those of whole planes that PyTorch interpolates, cut to the boxes."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import interpolate

from hierseg.functional.mask_sampling import masks_in_boxes


@pytest.mark.parametrize('threshold', [0.5, 0.3])
@pytest.mark.parametrize('size', [(60, 80), (45, 100)])
def test_they_are_those_of_whole_planes(size: tuple[int, int], threshold: float) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(30, 15, 20, generator=generator, dtype=torch.float64)
    corners = torch.rand(30, 2, 2, generator=generator) * torch.tensor([size[1] + 20, size[0] + 20]) - 10
    boxes = torch.cat([corners.amin(dim=1), corners.amax(dim=1)], dim=1)  # some reach over the border
    boxes[0] = torch.tensor([3.0, 4.0, 3.0, 4.0])  # and one is empty
    masks = masks_in_boxes(logits, boxes, size, steps=(size[1] / 20, size[0] / 15), threshold=threshold)

    planes = interpolate(logits[None], size=size, mode='bilinear', align_corners=False)[0]
    x, y = torch.arange(size[1]), torch.arange(size[0])[:, None]
    left, top, right, bottom = boxes[:, :, None, None].unbind(dim=1)
    inside = (x + 1 > left) & (x < right) & (y + 1 > top) & (y < bottom)  # the box cuts the pixel
    expected = (planes.sigmoid() > threshold) & inside
    expected[0] = False
    assert torch.equal(masks, expected)
    assert expected.any(dim=(1, 2)).sum() > 20
