"""Operators in plain torch against definitions by hand, whatever mmcv is installed."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from hierseg.operators import plain
from hierseg.operators.plain import RoiAlign


def greedy(boxes: Tensor, scores: Tensor, threshold: float) -> list[int]:
    """Suppression by its definition, box after box."""
    kept: list[int] = []
    for index in scores.sort(0, True)[1].tolist():
        x1, y1, x2, y2 = boxes[index].tolist()
        for other in kept:
            a1, b1, a2, b2 = boxes[other].tolist()
            inside = max(0.0, min(x2, a2) - max(x1, a1)) * max(0.0, min(y2, b2) - max(y1, b1))
            if inside / ((x2 - x1) * (y2 - y1) + (a2 - a1) * (b2 - b1) - inside) > threshold:
                break
        else:
            kept.append(index)
    return kept


@given(st.integers(0, 150), st.integers(0, 10**6))
def test_suppression_is_the_greedy_one(count: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    # Whole numbers up to 12: many ties of scores, many equal boxes, overlaps of exactly one half.
    corners = torch.randint(0, 12, (count, 2), generator=generator)
    boxes = torch.cat([corners, corners + torch.randint(1, 6, (count, 2), generator=generator)], dim=1).float()
    scores = torch.randint(0, 8, (count,), generator=generator) / 8
    assert plain.nms(boxes, scores, 0.5, 0).tolist() == greedy(boxes, scores, 0.5)


def test_a_chain_is_resolved_in_order() -> None:
    # Each overlaps the next by 6 of 14, more than 0.4: the first, third, fifth, … stay.
    left = 4.0 * torch.arange(300)
    boxes = torch.stack([left, torch.zeros(300), left + 10, torch.ones(300)], dim=1)
    assert plain.nms(boxes, torch.arange(300, 0, -1.0), 0.4, 0).tolist() == list(range(0, 300, 2))


def test_roi_align_of_a_plane_gives_its_values() -> None:
    # Bilinear samples of v = 2 x + 3 y are exact; with aligned centres a bin's mean is v at its centre − ½.
    y, x = torch.meshgrid(torch.arange(12.0), torch.arange(16.0), indexing='ij')
    plane = (2 * x + 3 * y)[None, None]
    rois = torch.tensor([[0, 2.0, 3.0, 10.0, 7.0]])
    found = plain.roi_align_forward(plane, rois, RoiAlign(2, 4, 1.0, 0, True))
    centres_x, centres_y = torch.tensor([3.0, 5, 7, 9]) - 0.5, torch.tensor([4.0, 6]) - 0.5
    assert torch.allclose(found[0, 0], 2 * centres_x + 3 * centres_y[:, None])


@pytest.mark.parametrize('aligned', [False, True])
@pytest.mark.parametrize('sampling_ratio', [0, 2])
@pytest.mark.parametrize('at_once', [1, 1 << 20])
def test_gradient_of_roi_align_is_its_transpose(
    aligned: bool, sampling_ratio: int, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The operator is linear: ⟨A f, g⟩ = ⟨f, Aᵀ g⟩. RoIs reach over the edges, one is empty.
    monkeypatch.setattr(plain, 'ENTRIES_AT_ONCE', at_once)
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 3, 9, 7, generator=generator, dtype=torch.float64)
    corners = torch.rand(8, 2, generator=generator, dtype=torch.float64) * 40 - 8
    rois = torch.cat([torch.arange(8.0)[:, None] % 2, corners, corners + 20 * corners.sin().abs()], dim=1)
    rois[3, 3:] = rois[3, 1:3]
    settings = RoiAlign(3, 2, 0.25, sampling_ratio, aligned)
    found = plain.roi_align_forward(features, rois, settings)
    gradient = torch.randn(found.shape, generator=generator, dtype=torch.float64)
    back = plain.roi_align_backward(gradient, rois, features.shape, settings)
    assert math.isclose((found * gradient).sum(), (features * back).sum(), rel_tol=1e-12)


def test_without_rois_there_is_no_output_and_no_gradient() -> None:
    features, settings = torch.ones(1, 3, 8, 8), RoiAlign(7, 7, 1.0, 0, True)
    assert plain.roi_align_forward(features, torch.zeros(0, 5), settings).shape == (0, 3, 7, 7)
    assert not plain.roi_align_backward(torch.zeros(0, 3, 7, 7), torch.zeros(0, 5), features.shape, settings).any()


def test_a_roi_that_is_not_a_number_gives_none_and_leaves_others_alone() -> None:
    rois = torch.tensor([[0, 1.0, 1, 5, 5], [0, math.nan, 1, 5, 5], [0, 1, 1, 7, 5]])
    found = plain.roi_align_forward(torch.ones(1, 2, 8, 8), rois, RoiAlign(2, 2, 1.0, 0, True))
    assert found[1].isnan().all()
    torch.testing.assert_close(found[[0, 2]], torch.ones(2, 2, 2, 2))


def test_focal_loss_has_its_derivative() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = 3 * torch.randn(6, 4, generator=generator, dtype=torch.float64)
    labels, weight = torch.tensor([0, 1, 2, 3, 1, 0]), torch.tensor([1.0, 2, 0, 0.5], dtype=torch.float64)

    def loss(values: Tensor) -> Tensor:
        return plain.sigmoid_focal_loss_forward(values, labels, weight, 2.0, 0.25)

    expected = torch.autograd.functional.jacobian(lambda values: loss(values).sum(), scores)
    assert torch.allclose(plain.sigmoid_focal_loss_backward(scores, labels, weight, 2.0, 0.25), expected)
    # With γ = 0 and α = ½ it is half the binary cross-entropy; label 4 is background.
    background = torch.full((6,), 4)
    plain_loss = plain.sigmoid_focal_loss_forward(scores, background, torch.empty(0), 0.0, 0.5)
    entropy = torch.nn.functional.binary_cross_entropy_with_logits(scores, torch.zeros_like(scores), reduction='none')
    assert torch.allclose(plain_loss, entropy / 2)


def test_soft_suppression_lowers_by_the_overlap() -> None:
    # The second overlaps the first by 1/3: 0.8 · (1 − 1/3) = 0.5333; the third is free.
    boxes = torch.tensor([[0.0, 0, 10, 10], [5, 0, 15, 10], [30, 0, 40, 10]])
    found, picked = plain.soft_nms(
        boxes, torch.tensor([0.9, 0.8, 0.6]), iou_threshold=0.3, sigma=0.5, min_score=0.01, method=1, offset=0
    )
    assert picked.tolist() == [0, 2, 1]
    assert torch.allclose(found[:, 4], torch.tensor([0.9, 0.6, 0.8 * 2 / 3]))
