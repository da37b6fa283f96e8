"""Masks sampled in their boxes are those of whole planes that PyTorch interpolates, cut to the boxes."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import interpolate

from hierseg.functional.mask_sampling import bilinear_weights, masks_in_boxes


def random_boxes(count: int, size: tuple[int, int], generator: torch.Generator) -> torch.Tensor:
    """Some reach over the border."""
    corners = torch.rand(count, 2, 2, generator=generator) * torch.tensor([size[1] + 20, size[0] + 20]) - 10
    return torch.cat([corners.amin(dim=1), corners.amax(dim=1)], dim=1)


def cut_by(boxes: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """(M, H, W) bool; the pixels of which a box has some part."""
    x, y = torch.arange(size[1]), torch.arange(size[0])[:, None]
    left, top, right, bottom = boxes[:, :, None, None].unbind(dim=1)
    return (x + 1 > left) & (x < right) & (y + 1 > top) & (y < bottom)


@pytest.mark.parametrize('threshold', [0.5, 0.3])
# Enlarged by whole and broken steps, of its own size, and made smaller.
@pytest.mark.parametrize('size', [(60, 80), (45, 100), (37, 53), (15, 20), (11, 9)])
def test_they_are_those_of_whole_planes(size: tuple[int, int], threshold: float) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(30, 15, 20, generator=generator, dtype=torch.float64)
    boxes = random_boxes(30, size, generator)
    boxes[0] = torch.tensor([3.0, 4.0, 3.0, 4.0])  # empty
    masks = masks_in_boxes(logits, boxes, size, steps=(size[1] / 20, size[0] / 15), threshold=threshold)

    planes = interpolate(logits[None], size=size, mode='bilinear', align_corners=False)[0]
    expected = (planes.sigmoid() > threshold) & cut_by(boxes, size)
    expected[0] = False
    assert masks.dtype == torch.bool
    assert torch.equal(masks, expected)
    assert expected.any(dim=(1, 2)).sum() > 15


def test_a_padded_plane_is_cut_to_its_image() -> None:
    """Planes of a padded image of 160 × 128 pixels, of which the image has 150 × 100, shown at 1.6 times its size."""
    logits = torch.randn(4, 20, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    whole = torch.tensor([[0.0, 0.0, 160.0, 240.0]]).repeat(4, 1)
    masks = masks_in_boxes(logits, whole, (240, 160), steps=(8 * 1.6, 8 * 1.6))
    planes = interpolate(logits[None], size=(256, 205), mode='bilinear', align_corners=False)[0]
    # 16 · 12.8 is 204.8 pixels, and the interpolated plane's are a thousandth smaller.
    padded = masks_in_boxes(logits, whole, (240, 160), steps=(205 / 16, 12.8))
    assert torch.equal(padded, planes[:, :240, :160] > 0)
    assert (masks != padded).double().mean() < 0.01


@pytest.mark.parametrize(
    ('box', 'rows', 'columns'),
    [
        ([-50.0, -9, 6, 5], (0, 5), (0, 6)),  # over the upper left corner
        ([30.0, 20, 900, 70], (20, 24), (30, 32)),  # over the lower right one
        ([0.0, 0, 32, 24], (0, 24), (0, 32)),  # all of it
        ([4.2, 3.9, 7.1, 5.0], (3, 5), (4, 8)),  # pixels that the box cuts
        ([40.0, 3, 60, 9], (0, 0), (0, 0)),  # beyond the image
        ([-20.0, -20, -1, -1], (0, 0), (0, 0)),
        ([9.0, 9, 9, 20], (0, 0), (0, 0)),  # empty
        ([12.0, 9, 5, 20], (0, 0), (0, 0)),  # and turned round
    ],
)
def test_nothing_is_set_outside_the_box(box: list[float], rows: tuple[int, int], columns: tuple[int, int]) -> None:
    masks = masks_in_boxes(torch.ones(1, 3, 4), torch.tensor([box]), (24, 32), steps=(8.0, 8.0))
    expected = torch.zeros(1, 24, 32, dtype=torch.bool)
    expected[:, slice(*rows), slice(*columns)] = True
    assert torch.equal(masks, expected)


def test_no_detections() -> None:
    assert masks_in_boxes(torch.zeros(0, 3, 4), torch.zeros(0, 4), (24, 32), steps=(8, 8)).shape == (0, 24, 32)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_moves_only_what_lies_at_the_level(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 4 * torch.randn(5, 15, 20, generator=generator)
    boxes = random_boxes(5, (120, 160), generator)
    full = masks_in_boxes(logits.to(dtype).float(), boxes, (120, 160), steps=(8, 8))
    half = masks_in_boxes(logits.to(dtype), boxes, (120, 160), steps=(8, 8))
    assert (full != half).float().mean() < 0.005


def test_weights_by_hand() -> None:
    # Two pixels to one of the plane: centres at 0.25, 0.75, 1.25 and so on less one half, and ends go on.
    expected = torch.tensor([[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]], dtype=torch.float64)
    torch.testing.assert_close(bilinear_weights(4, 2.0, 2, expected), expected)
