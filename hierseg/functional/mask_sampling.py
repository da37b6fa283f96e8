"""Masks of an image's size from small planes of logits, sampled within their boxes alone.

Shape letters: M detections, h × w planes, H × W pixels of the image.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def masks_in_boxes(
    logits: Tensor, boxes: Tensor, size: tuple[int, int], *, steps: tuple[float, float], threshold: float = 0.5
) -> Tensor:
    """Masks of a whole image, each sampled bilinearly within its box; outside it nothing is set.

    Along each axis bilinear sampling is a matrix, so that a mask is a product of three small ones; to interpolate 100
    whole planes first takes ten times as long. The planes' pixels are squares of the image: the centre of plane pixel
    (i, j) lies at ((j + ½) · step, (i + ½) · step). Beyond the outermost centres their values go on.

    Args:
        logits: (M, h, w) floats, in one coordinate frame with the image, from its top left corner.
        boxes: (M, 4) xyxy, pixels of the image; pixels that they cut count as inside.
        size: H and W.
        steps: Pixels of the image in one of a plane, horizontally and vertically.
        threshold: Probability above which a pixel is set, in (0, 1).

    Returns:
        (M, H, W) bool.
    """
    masks = torch.zeros(len(logits), *size, dtype=torch.bool, device=logits.device)
    level = math.log(threshold / (1 - threshold))
    limits = boxes.new_tensor([size[1], size[0]]).repeat(2)
    corners = torch.cat([boxes[:, :2].floor(), boxes[:, 2:].ceil()], dim=1).clamp(min=0).minimum(limits)
    for mask, plane, (left, top, right, bottom) in zip(masks, logits, corners.long().tolist(), strict=True):
        if left < right and top < bottom:
            across, first = bilinear_weights(left, right, steps[0], plane.shape[1], plane)
            down, upper = bilinear_weights(top, bottom, steps[1], plane.shape[0], plane)
            part = plane[upper : upper + down.shape[1], first : first + across.shape[1]]
            mask[top:bottom, left:right] = down @ (part @ across.T) > level
    return masks


def bilinear_weights(start: int, stop: int, step: float, count: int, like: Tensor) -> tuple[Tensor, int]:
    """The matrix that samples pixels ``start`` to ``stop − 1`` from plane pixels, and the first of those it takes.

    ``step`` pixels are one of ``count`` plane pixels. Dtype and device are those of ``like``.
    """
    places = ((torch.arange(start, stop, dtype=torch.float64) + 0.5) / step - 0.5).clamp(0, count - 1)
    first, last = int(places[0]), min(int(places[-1]) + 1, count - 1)
    taken = torch.arange(first, last + 1, dtype=torch.float64)
    weights = (1 - (places[:, None] - taken).abs()).clamp(min=0)
    return weights.to(like), first
