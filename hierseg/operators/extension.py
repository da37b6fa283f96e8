"""Functions of the module ``mmcv._ext``, in the signatures that mmcv calls, over a backend."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable
from functools import lru_cache, wraps
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hierseg.operators import VARIABLE, plain
from hierseg.operators.plain import RoiAlign

NEEDED_BY = {
    'deform_conv': 'RepPoints, VFNet, TOOD, FoveaBox, CentripetalNet, Cascade RPN, Guided Anchoring and any `dcn`',
    'modulated_deform_conv': 'DCNv2, DyHead and ATSS with VLFusion',
    'masked_im2col': 'Guided Anchoring',
    'nms_match': 'PISA',
    'line_nms': 'CLRNet',
    'carafe': 'CARAFE',
    'roi_pool': 'RoIPool',
    'sync_bn': "mmcv's synchronised batch normalisation; torch's is `SyncBN`",
}
"""Detectors that need an operator which has no form here, by the beginning of its name."""
FEWEST_CHANNELS = 16
"""Of feature maps whose RoI align is quicker in plain torch; masks have one."""


class OperatorError(RuntimeError):
    """An operator of mmcv that only a compiled mmcv has."""

    def __init__(self, name: str, what: str = '') -> None:
        users = next((users for prefix, users in NEEDED_BY.items() if name.startswith(prefix)), None)
        super().__init__(
            f"mmcv's operator {name}{what} is not here, since mmcv was installed without compiled operators"
            + (f'; it is needed by {users}' if users else '')
            + '. For a compiled mmcv: pip install --force-reinstall --no-deps --no-build-isolation onedl-mmcv, after '
            'torch, with a C++ compiler (and nvcc for CUDA).'
        )


class Backend(NamedTuple):
    """A way to compute what has more than one.

    Attributes:
        name: ``torchvision`` or ``torch``.
        reason: The fault of torchvision where it is not taken; empty otherwise.
        roi_align_forward: As of :mod:`hierseg.operators.plain`.
        roi_align_backward: Likewise.
        nms: Likewise.
    """

    name: str
    reason: str
    roi_align_forward: Callable[[Tensor, Tensor, RoiAlign], Tensor]
    roi_align_backward: Callable[[Tensor, Tensor, torch.Size, RoiAlign], Tensor]
    nms: Callable[[Tensor, Tensor, float, int], Tensor]


@lru_cache(maxsize=1)
def choose_backend() -> Backend:
    """The backend of this process, logged once.

    Raises:
        RuntimeError: If the environment insists on a backend that is unknown or does not work.
    """
    wanted = os.environ.get(VARIABLE, '')
    if wanted == 'compiled':
        raise RuntimeError(f'{VARIABLE} asks for compiled operators, which the mmcv here does not have')
    if wanted not in ('', 'torch', 'torchvision'):
        raise RuntimeError(f'{VARIABLE} is {wanted!r}; it may be compiled, torchvision or torch')
    chosen = _plain('') if wanted == 'torch' else _torchvision()
    if wanted and chosen.name != wanted:
        raise RuntimeError(f'{VARIABLE} asks for torchvision, which does not work here: {chosen.reason}')
    logging.getLogger('hierseg').info('mmcv has no compiled operators; they are computed by %s', chosen.name)
    return chosen


def _plain(reason: str) -> Backend:
    return Backend('torch', reason, plain.roi_align_forward, plain.roi_align_backward, plain.nms)


def _torchvision() -> Backend:
    """Torchvision's operators if they import and work, else those in plain torch with the reason."""
    try:
        import torchvision  # noqa: F401

        ops = torch.ops.torchvision
        box = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
        ops.nms(box, torch.ones(1), 0.5)
        ops.roi_align(torch.ones(1, 1, 2, 2), torch.cat([torch.zeros(1, 1), box], dim=1), 1.0, 1, 1, 0, True)
    except Exception as error:  # a build for another torch raises RuntimeError, a lost library OSError
        return _plain(f'{type(error).__name__}: {error}')

    def precise(tensor: Tensor) -> Tensor:
        # In half precision coordinates are off by pixels, and torchvision's operators for the CPU refuse it.
        return tensor if tensor.dtype == torch.float64 else tensor.float()

    def roi_align_forward(features: Tensor, rois: Tensor, settings: RoiAlign) -> Tensor:
        features = precise(features)
        return ops.roi_align(  # type: ignore[no-any-return]
            features, rois.to(features.dtype), settings.spatial_scale, settings.height, settings.width,
            settings.sampling_ratio, settings.aligned,
        )  # fmt: skip

    def roi_align_backward(gradient: Tensor, rois: Tensor, shape: torch.Size, settings: RoiAlign) -> Tensor:
        gradient = precise(gradient)
        return ops._roi_align_backward(  # type: ignore[no-any-return]
            gradient, rois.to(gradient.dtype), settings.spatial_scale, settings.height, settings.width, *shape,
            settings.sampling_ratio, settings.aligned,
        )  # fmt: skip

    def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
        if offset:  # torchvision has none
            return plain.nms(boxes, scores, iou_threshold, offset)
        boxes = precise(boxes)
        # By rank, so that ties are ordered as by mmcv, and with its threshold in single precision.
        order = scores.sort(0, True)[1]
        ranks = torch.arange(len(order), 0, -1, device=boxes.device, dtype=boxes.dtype)
        threshold = torch.tensor(iou_threshold, dtype=torch.float32).item()
        return order[ops.nms(boxes[order], ranks, threshold)]

    return Backend('torchvision', '', roi_align_forward, roi_align_backward, nms)


def plain_is_better(features: Tensor) -> bool:
    """Whether RoI align of (…, C, H, W) features, or gradients, is quicker in plain torch, or possible there alone."""
    in_full = features.dtype in (torch.float32, torch.float64)  # the compiled one refuses bfloat16 on a processor
    return features.device.type == 'cpu' and (features.shape[1] >= FEWEST_CHANNELS or not in_full)


def quicken(compiled: ModuleType) -> None:
    """Puts plain torch in front of compiled RoI align, where it is better; the compiled one is its ``__wrapped__``."""
    ours = _roi_align(_plain(''))
    theirs = {name: getattr(compiled, name) for name in ours if hasattr(compiled, name)}

    def chosen(name: str) -> Callable[..., None]:
        @wraps(theirs[name])
        def call(features: Tensor, *tensors: Tensor, **settings: Any) -> None:
            traced = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
            better = settings['pool_mode'] == 1 and not traced and plain_is_better(features)
            (ours if better else theirs)[name](features, *tensors, **settings)

        return call

    vars(compiled).update({name: chosen(name) for name in theirs})


def operators() -> dict[str, Any]:
    """Functions of the module by name."""
    backend = choose_backend()

    def nms(boxes: Tensor, scores: Tensor, *, iou_threshold: float, offset: int) -> Tensor:
        return backend.nms(boxes, scores, iou_threshold, offset)

    return {
        **_roi_align(backend),
        'nms': _traced_whole(nms),
        'softnms': _traced_whole(_soft_nms),
        'sigmoid_focal_loss_forward': _focal_forward,
        'sigmoid_focal_loss_backward': _focal_backward,
        'ms_deform_attn_forward': _deformable_attention_forward,
        'ms_deform_attn_backward': _deformable_attention_backward,
        # For the report on the environment that MMEngine logs.
        'get_compiler_version': lambda: f'none: operators by {backend.name}',
        'get_compiling_cuda_version': lambda: 'none',
    }


def _roi_align(backend: Backend) -> dict[str, Callable[..., None]]:
    """RoI align and its gradient as mmcv calls them."""

    def roi_align_forward(
        features: Tensor, rois: Tensor, output: Tensor, argmax_y: Tensor, argmax_x: Tensor, *, aligned_height: int,
        aligned_width: int, spatial_scale: float, sampling_ratio: int, pool_mode: int, aligned: bool,
    ) -> None:  # fmt: skip
        if pool_mode != 1:
            raise OperatorError('roi_align_forward', ' with maxima')
        settings = RoiAlign(aligned_height, aligned_width, spatial_scale, sampling_ratio, aligned)
        output.copy_(backend.roi_align_forward(features, rois, settings))

    def roi_align_backward(
        gradient: Tensor, rois: Tensor, argmax_y: Tensor, argmax_x: Tensor, of_features: Tensor, *, aligned_height: int,
        aligned_width: int, spatial_scale: float, sampling_ratio: int, pool_mode: int, aligned: bool,
    ) -> None:  # fmt: skip
        settings = RoiAlign(aligned_height, aligned_width, spatial_scale, sampling_ratio, aligned)
        of_features.copy_(backend.roi_align_backward(gradient, rois, of_features.shape, settings))

    return {'roi_align_forward': _traced_whole(roi_align_forward), 'roi_align_backward': roi_align_backward}


def missing(name: str) -> Callable[..., Any]:
    """A function that says what is missing when it is called; mmcv looks up the names of all its operators.

    Raises:
        AttributeError: If the name is one of Python's own.
    """
    if name.startswith('__'):
        raise AttributeError(name)

    def refuse(*args: Any, **options: Any) -> Any:
        raise OperatorError(name)

    return refuse


def _traced_whole(operator: Callable[..., Any]) -> Callable[..., Any]:
    """The operator without warnings of `torch.jit.trace`, which records mmcv's call of it as a whole."""

    @wraps(operator)
    def call(*args: Any, **settings: Any) -> Any:
        if not torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
            return operator(*args, **settings)
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', torch.jit.TracerWarning)  # type: ignore[attr-defined]
            return operator(*args, **settings)

    return call


def _soft_nms(boxes: Tensor, scores: Tensor, detections: Tensor, **settings: Any) -> Tensor:
    found, picked = plain.soft_nms(boxes, scores, **settings)
    detections[: len(found)] = found
    return picked


def _focal_forward(
    scores: Tensor, labels: Tensor, weight: Tensor, output: Tensor, *, gamma: float, alpha: float
) -> None:
    output.copy_(plain.sigmoid_focal_loss_forward(scores, labels, weight, gamma, alpha))


def _focal_backward(
    scores: Tensor, labels: Tensor, weight: Tensor, gradient: Tensor, *, gamma: float, alpha: float
) -> None:
    gradient.copy_(plain.sigmoid_focal_loss_backward(scores, labels, weight, gamma, alpha))


def _attend(value: Tensor, shapes: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch

    return multi_scale_deformable_attn_pytorch(value, shapes, locations, weights)  # type: ignore[no-any-return]


def _deformable_attention_forward(
    value: Tensor, shapes: Tensor, starts: Tensor, locations: Tensor, weights: Tensor, *, im2col_step: int
) -> Tensor:
    return _attend(value, shapes, locations, weights)


def _deformable_attention_backward(
    value: Tensor, shapes: Tensor, starts: Tensor, locations: Tensor, weights: Tensor, gradient: Tensor,
    of_value: Tensor, of_locations: Tensor, of_weights: Tensor, *, im2col_step: int,
) -> None:  # fmt: skip
    inputs = [tensor.detach().requires_grad_() for tensor in (value, locations, weights)]
    with torch.enable_grad():
        output = _attend(inputs[0], shapes, inputs[1], inputs[2])
    found = torch.autograd.grad(output, inputs, gradient)
    for target, part in zip((of_value, of_locations, of_weights), found, strict=True):
        target.copy_(part)
