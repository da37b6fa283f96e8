"""Stand-in operators against mmcv's compiled ones; skipped where mmcv has none."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

import pytest
import torch
from torch import Tensor

import hierseg.operators

pytestmark = pytest.mark.skipif(
    hierseg.operators.backend() != 'compiled', reason='mmcv has no compiled operators to compare with'
)


def compiled() -> ModuleType:
    return import_module('mmcv._ext')


def random_boxes(count: int, generator: torch.Generator, *, whole: bool) -> Tensor:
    if whole:
        corners, sides = (
            torch.randint(low, high, (count, 2), generator=generator).float() for low, high in ((0, 40), (1, 20))
        )
    else:
        corners, sides = 200 * torch.rand(count, 2, generator=generator), 80 * torch.rand(count, 2, generator=generator)
    return torch.cat([corners, corners + sides], dim=1)


@pytest.mark.parametrize('count', [0, 1, 2, 17, 128, 129, 1000])
@pytest.mark.parametrize('whole', [False, True], ids=['real', 'whole'])
@pytest.mark.parametrize('threshold', [0.3, 0.5, 0.7])
@pytest.mark.parametrize('offset', [0, 1])
def test_suppression_keeps_the_same_boxes_in_the_same_order(
    stand_in: ModuleType, count: int, whole: bool, threshold: float, offset: int
) -> None:
    generator = torch.Generator().manual_seed(count)
    boxes = random_boxes(count, generator, whole=whole)
    for scores in (torch.rand(count, generator=generator), torch.randint(0, 5, (count,), generator=generator) / 4):
        settings = {'iou_threshold': threshold, 'offset': offset}
        assert torch.equal(stand_in.nms(boxes, scores, **settings), compiled().nms(boxes, scores, **settings))


def test_more_than_ten_thousand_boxes_in_groups(stand_in: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    suppression = import_module('mmcv.ops.nms')

    generator = torch.Generator().manual_seed(0)
    boxes, scores = random_boxes(12_000, generator, whole=False), torch.rand(12_000, generator=generator)
    groups, settings = torch.randint(0, 30, (12_000,), generator=generator), {'type': 'nms', 'iou_threshold': 0.6}
    expected = suppression.batched_nms(boxes, scores, groups, settings)
    monkeypatch.setattr(suppression, 'ext_module', stand_in)
    for found, wanted in zip(suppression.batched_nms(boxes, scores, groups, settings), expected, strict=True):
        assert torch.equal(found, wanted)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('aligned', [False, True])
@pytest.mark.parametrize('sampling_ratio', [0, 2])
def test_roi_align_and_its_gradient(
    stand_in: ModuleType, dtype: torch.dtype, aligned: bool, sampling_ratio: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 5, 25, 34, generator=generator, dtype=dtype)
    rois = random_boxes(60, generator, whole=False) * torch.tensor([2.0, 1.3, 2.2, 1.4]) - 30  # over the edges, too
    rois = torch.cat([torch.randint(0, 2, (60, 1), generator=generator), rois], dim=1).to(dtype)
    rois[:, 3:] = torch.maximum(rois[:, 3:], rois[:, 1:3])
    settings = {
        'aligned_height': 7, 'aligned_width': 5, 'spatial_scale': 1 / 16, 'sampling_ratio': sampling_ratio,
        'pool_mode': 1, 'aligned': aligned,
    }  # fmt: skip
    no_maxima = features.new_zeros(0)
    gradient = torch.randn(60, 5, 7, 5, generator=generator, dtype=dtype)
    outputs, gradients = [], []
    for module in (stand_in, compiled()):
        outputs.append(torch.zeros_like(gradient))
        module.roi_align_forward(features, rois, outputs[-1], no_maxima, no_maxima, **settings)
        gradients.append(torch.zeros_like(features))
        module.roi_align_backward(gradient, rois, no_maxima, no_maxima, gradients[-1], **settings)
    bitwise = stand_in.get_compiler_version().endswith('torchvision')
    close = {'rtol': 0, 'atol': 0} if bitwise else {'rtol': 1e-6, 'atol': 1e-6}
    torch.testing.assert_close(outputs[0], outputs[1], **close)
    torch.testing.assert_close(gradients[0], gradients[1], **({'rtol': 1e-5, 'atol': 5e-6} if not bitwise else close))


@pytest.mark.parametrize('method', ['naive', 'linear', 'gaussian'])
def test_soft_suppression(stand_in: ModuleType, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    suppression = import_module('mmcv.ops.nms')
    generator = torch.Generator().manual_seed(0)
    boxes, scores = random_boxes(200, generator, whole=False), torch.rand(200, generator=generator)
    settings = {'iou_threshold': 0.4, 'method': method, 'min_score': 0.05}
    expected, picked = suppression.soft_nms(boxes, scores, **settings)
    monkeypatch.setattr(suppression, 'ext_module', stand_in)
    found, mine = suppression.soft_nms(boxes, scores, **settings)
    assert torch.equal(picked, mine)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
