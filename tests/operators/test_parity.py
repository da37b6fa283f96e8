"""Stand-in operators against mmcv's compiled ones; skipped where mmcv has none."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

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
@pytest.mark.parametrize('channels', [5, 16])
def test_roi_align_and_its_gradient(
    stand_in: ModuleType, dtype: torch.dtype, aligned: bool, sampling_ratio: int, channels: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, channels, 25, 34, generator=generator, dtype=dtype)
    rois = random_boxes(60, generator, whole=False) * torch.tensor([2.0, 1.3, 2.2, 1.4]) - 30  # over the edges, too
    rois = torch.cat([torch.randint(0, 2, (60, 1), generator=generator), rois], dim=1).to(dtype)
    rois[:, 3:] = torch.maximum(rois[:, 3:], rois[:, 1:3])
    settings = {
        'aligned_height': 7, 'aligned_width': 5, 'spatial_scale': 1 / 16, 'sampling_ratio': sampling_ratio,
        'pool_mode': 1, 'aligned': aligned,
    }  # fmt: skip
    no_maxima = features.new_zeros(0)
    gradient = torch.randn(60, channels, 7, 5, generator=generator, dtype=dtype)
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


EDGES = {
    'empty': [10.0, 10, 10, 10],
    'outside': [-200.0, -90, -120, -40],
    'far outside': [900.0, 700, 1000, 800],
    'over a corner': [-40.0, -30, 60, 50],
    'the whole image': [0.0, 0, 544, 400],
    'around the image': [-64.0, -64, 700, 500],
    'one pixel': [16.0, 32, 32, 48],
    'a line': [5.0, 7, 500, 7],
}


@pytest.mark.parametrize('edge', EDGES)
@pytest.mark.parametrize('aligned', [False, True])
@pytest.mark.parametrize('channels', [3, 16])
def test_roi_align_at_the_edges(in_mmcv: Callable[[], Any], edge: str, aligned: bool, channels: int) -> None:
    from mmcv.ops import roi_align

    generator = torch.Generator().manual_seed(0)
    features = torch.randn(1, channels, 25, 34, generator=generator, requires_grad=True)
    rois = torch.tensor([[0.0, *EDGES[edge]]])

    def outcome() -> tuple[Tensor, Tensor]:
        output = roi_align(features, rois, 7, 1 / 16, 0, 'avg', aligned)
        (gradient,) = torch.autograd.grad((output * output).sum(), features)
        return output.detach(), gradient

    expected = outcome()
    with in_mmcv():
        torch.testing.assert_close(outcome(), expected, rtol=1e-5, atol=1e-5)


def test_bfloat16_autocast_computes_as_in_single_precision(in_mmcv: Callable[[], Any]) -> None:
    from mmcv.ops import RoIAlign

    # The compiled one refuses bfloat16 on a CPU, so that single precision is what to compare with.
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(1, 4, 25, 34, generator=generator).bfloat16()
    rois = torch.cat([torch.zeros(20, 1), 3 * random_boxes(20, generator, whole=False)], dim=1)
    layer = RoIAlign(7, 1 / 16, 0)
    outcomes = []
    for values, block in ((features.float(), nullcontext()), (features, in_mmcv())):
        values.requires_grad_()
        with block, torch.autocast('cpu', dtype=torch.bfloat16, enabled=values.dtype == torch.bfloat16):
            output = layer(values, rois)
            assert output.dtype == values.dtype
            output.sum().backward()
        outcomes.append((output.detach().float(), values.grad.float()))
    # Rounding to 8 bits of outputs near 1, and of gradients that add up to several units.
    torch.testing.assert_close(outcomes[1], outcomes[0], rtol=2**-7, atol=2**-7)


@pytest.mark.filterwarnings('ignore:Converting a tensor')  # in mmcv, at the shape of the RoIs
def test_a_traced_and_a_pickled_layer_compute_the_same(in_mmcv: Callable[[], Any]) -> None:
    from mmcv.ops import RoIAlign

    features, rois = torch.randn(1, 3, 25, 34), torch.tensor([[0.0, 12, 20, 300, 260], [0, 100, 0, 180, 70]])
    layer = RoIAlign(7, 1 / 16, 2)
    expected = layer(features, rois)
    with in_mmcv():
        # Traced with one RoI, called with two.
        for other in (torch.jit.trace(layer, (features, rois[:1])), pickle.loads(pickle.dumps(layer))):
            torch.testing.assert_close(other(features, rois), expected)


def test_export_to_onnx_has_a_roi_align_node(in_mmcv: Callable[[], Any], tmp_path: Path) -> None:
    onnx = pytest.importorskip('onnx', reason='onnx is not installed')
    from mmcv.ops import RoIAlign

    inputs = (torch.randn(1, 3, 25, 34), torch.tensor([[0.0, 12, 20, 300, 260]]))
    with in_mmcv():
        torch.onnx.export(RoIAlign(7, 1 / 16, 2), inputs, tmp_path / 'layer.onnx', dynamo=False, opset_version=16)
    nodes = [node.op_type for node in onnx.load(tmp_path / 'layer.onnx').graph.node]
    assert nodes.count('RoiAlign') == 1


def test_deformable_attention_has_the_gradient_of_its_plain_form(
    stand_in: ModuleType, in_mmcv: Callable[[], Any]
) -> None:
    if not stand_in.get_compiler_version().startswith('none'):
        pytest.skip('the compiled one is for CUDA')
    attention = import_module('mmcv.ops.multi_scale_deform_attn')
    generator = torch.Generator().manual_seed(0)
    shapes = torch.tensor([[6, 8], [3, 4]])
    starts = torch.tensor([0, 48])
    value, locations, weights = (
        torch.rand(*size, generator=generator, dtype=torch.float64).requires_grad_()
        for size in ((2, 60, 2, 4), (2, 5, 2, 2, 3, 2), (2, 5, 2, 2, 3))
    )
    plain_form = attention.multi_scale_deformable_attn_pytorch(value, shapes, locations, weights)
    expected = torch.autograd.grad((plain_form**2).sum(), (value, locations, weights))
    with in_mmcv():
        output = attention.MultiScaleDeformableAttnFunction.apply(value, shapes, starts, locations, weights, 64)
        found = torch.autograd.grad((output**2).sum(), (value, locations, weights))
    torch.testing.assert_close(output, plain_form)
    torch.testing.assert_close(found, expected)
