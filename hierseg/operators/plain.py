"""Operators of mmcv in plain torch, for any device: RoI align, suppression, focal loss.

RoI align is a sparse matrix product: each bin of the output is a weighted sum of a window of pixels, all channels of
one after another in memory, which ``torch.nn.functional.embedding_bag`` computes. A weight is a product of one down and
one across, so that few are computed, and samples that share a pixel are added up first. The gradient is the product
with the transposed matrix.

Shape letters: B images, C channels, H × W pixels of a feature map, N RoIs or boxes, R bins (rows of the sparse matrix),
K pixels of a window.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

ENTRIES_AT_ONCE = 1 << 17
"""Entries of the sparse matrix that are laid out at a time: about 3 MB with what computing them takes.

The gradient of the pixels that these entries touch is laid out, too, so that more at a time would take more for it."""
BOXES_AT_ONCE = 128
"""Boxes that suppression decides at a time."""


class RoiAlign(NamedTuple):
    """Settings of RoI align (He et al., Mask R-CNN, 2017).

    Attributes:
        height: Bins of the output.
        width: Bins of the output.
        spatial_scale: Pixels of the feature map for each pixel of the image.
        sampling_ratio: Samples of a bin along each side; 0 takes one for each pixel that the bin spans.
        aligned: Whether pixel centres lie at half a pixel, as in Detectron2.
    """

    height: int
    width: int
    spatial_scale: float
    sampling_ratio: int
    aligned: bool


def roi_align_forward(features: Tensor, rois: Tensor, settings: RoiAlign) -> Tensor:
    """Averages of bilinear samples in the bins of each RoI.

    Args:
        features: (B, C, H, W).
        rois: (N, 5); index of the image, then xyxy in pixels of the image.
        settings: Of the operator.

    Returns:
        (N, C, height, width).
    """
    channels, bins = features.shape[1], settings.height * settings.width
    pixels = features.permute(0, 2, 3, 1).reshape(-1, channels)
    output = pixels.new_empty((len(rois), bins, channels))
    for block in _blocks(rois, features.shape, settings, dtype=pixels.dtype):
        found = F.embedding_bag(block.pixels, pixels, mode='sum', per_sample_weights=block.weights)
        output[block.rois] = found.view(-1, bins, channels)
    return output.transpose(1, 2).reshape(len(rois), channels, *settings[:2])


def roi_align_backward(gradient: Tensor, rois: Tensor, shape: torch.Size, settings: RoiAlign) -> Tensor:
    """Gradient of the features.

    Args:
        gradient: (N, C, height, width); of the output.
        rois: As of :func:`roi_align_forward`.
        shape: B, C, H, W.
        settings: Of the operator.

    Returns:
        (B, C, H, W).
    """
    images, channels, height, width = shape
    bins = settings.height * settings.width
    of_bins = gradient.flatten(2).transpose(1, 2).reshape(-1, channels)
    of_pixels = of_bins.new_zeros((images * height * width, channels))
    for block in _blocks(rois, shape, settings, dtype=gradient.dtype):
        touched, order = torch.sort(block.pixels.flatten())
        pixels, counts = torch.unique_consecutive(touched, return_counts=True)
        rows = (block.rois[:, None] * bins + torch.arange(bins, device=order.device)).flatten()
        part = F.embedding_bag(
            rows[order // block.pixels.shape[1]], of_bins, counts.cumsum(0) - counts, mode='sum',
            per_sample_weights=block.weights.flatten()[order],
        )  # fmt: skip
        of_pixels.index_add_(0, pixels, part)
    return of_pixels.view(images, height, width, channels).permute(0, 3, 1, 2)


class _Block(NamedTuple):
    """Rows of the sparse matrix, with windows of one size: for each bin the pixels that it averages, and their weights.

    Attributes:
        rois: (N,) int64; the RoIs whose bins these are.
        pixels: (R, K) int32 or int64; index of image, row and column of the feature map in one.
        weights: (R, K); 0 for pixels of the window that no sample is near.
    """

    rois: Tensor
    pixels: Tensor
    weights: Tensor


def _blocks(rois: Tensor, shape: torch.Size, settings: RoiAlign, *, dtype: torch.dtype) -> Iterator[_Block]:
    """All rows, RoIs with about equally many samples in one block."""
    images, _, height, width = shape
    # Samples are placed in at least single precision; half precision would move them by pixels.
    rois = rois if rois.dtype == torch.float64 else rois.float()
    offset = 0.5 if settings.aligned else 0.0
    low, high = (rois[:, 1:].view(-1, 2, 2) * settings.spatial_scale - offset).unbind(1)  # (N, 2): x, y
    sides = high - low if settings.aligned else (high - low).clamp(min=1)
    spans = sides / sides.new_tensor([settings.width, settings.height])
    if settings.sampling_ratio > 0:
        samples = torch.full_like(spans, settings.sampling_ratio, dtype=torch.int64)
    else:
        samples = spans.ceil().long().clamp(min=0)
    most = samples.amax(dim=1)
    index = torch.int32 if images * height * width < 2**31 else torch.int64
    for count in torch.unique(most).tolist():
        side = 2 * count if settings.sampling_ratio > 0 else min(count, height, width) + 2
        at_once = max(1, ENTRIES_AT_ONCE // (settings.height * settings.width * max(side, 1) ** 2))
        for part in torch.split(torch.nonzero(most == count)[:, 0], at_once):
            columns, across = _windows(low[part, 0], spans[part, 0], samples[part, 0], settings.width, width)
            rows, down = _windows(low[part, 1], spans[part, 1], samples[part, 1], settings.height, height)
            rows = (rois[part, 0].long()[:, None, None] * height + rows) * width
            pixels = rows.to(index)[:, :, None, :, None] + columns.to(index)[:, None, :, None, :]
            weights = down[:, :, None, :, None] * across[:, None, :, None, :]
            entries = rows.shape[2] * columns.shape[2]
            yield _Block(part, pixels.view(-1, entries), weights.to(dtype).view(-1, entries))


def _windows(low: Tensor, spans: Tensor, counts: Tensor, bins: int, size: int) -> tuple[Tensor, Tensor]:
    """Along one axis, the pixels that the samples of each bin lie between, and their weights: (N, bins, K) both.

    Args:
        low: (N,); where the RoIs begin, in pixels of the feature map.
        spans: (N,); of a bin.
        counts: (N,) int64; samples of a bin.
        bins: Of a RoI.
        size: Pixels of the feature map.
    """
    low, spans, counts = (values[:, None, None] for values in (low, spans, counts))
    number = torch.arange(max(int(counts.max()), 1), device=low.device)
    used = number < counts
    divisor = counts.clamp(min=1)
    places = low + torch.arange(bins, device=low.device)[:, None] * spans + (number + 0.5) * spans / divisor
    weights = (used & (places >= -1) & (places <= size)) / divisor.to(low.dtype)
    places = places.clamp(min=0)
    first = places.long().clamp(min=0, max=size - 1)  # min for what is not a number, whose weights are neither
    fraction = torch.where(first >= size - 1, torch.zeros_like(places), places - first)
    first = torch.where(used, first, first[..., :1])
    begin = first.amin(dim=2, keepdim=True)
    within = first - begin
    window = torch.arange(int(within.max()) + 2, device=low.device)
    if len(window) >= 2 * len(number):  # few samples, far apart: the two pixels of each, instead of all between them
        neighbours = torch.stack([first, (first + 1).clamp(max=size - 1)], dim=3)
        return neighbours.flatten(2), (torch.stack([1 - fraction, fraction], dim=3) * weights[..., None]).flatten(2)
    of_window = low.new_zeros((*begin.shape[:2], len(window)))
    of_window.scatter_add_(2, within, (1 - fraction) * weights)
    of_window.scatter_add_(2, within + 1, fraction * weights)
    return (begin + window).clamp(max=size - 1), of_window


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Greedy suppression: a box goes if a better one that stays overlaps it by more than the threshold.

    Decides a block of the best boxes that are left at a time: within the block by repeated elimination, which ends
    when nothing changes, then the block's survivors against all that is left.

    Args:
        boxes: (N, 4) xyxy, pixels.
        scores: (N,).
        iou_threshold: Rounded to single precision, as the compiled operator does.
        offset: Added to widths and heights: 0 or 1.

    Returns:
        Indices of the boxes that stay, the best score first.
    """
    # The compiled operator sorts unstably, too: with a stable sort, ties are decided differently.
    order = scores.sort(0, True)[1]
    threshold = torch.tensor(iou_threshold, dtype=torch.float32).item()
    left = boxes.T[:, order]
    kept = []
    while len(order):
        block, left = left[:, :BOXES_AT_ONCE], left[:, BOXES_AT_ONCE:]
        stays = _undefeated((_overlaps(block, block, offset) > threshold).tril(-1))
        kept.append(order[:BOXES_AT_ONCE][stays])
        free = ~(_overlaps(block[:, stays], left, offset) > threshold).any(dim=0)
        left, order = left[:, free], order[BOXES_AT_ONCE:][free]
    return torch.cat(kept) if kept else order


def _undefeated(beaten_by: Tensor) -> Tensor:
    """(N,) bool; members that no undefeated member before them beats.

    Args:
        beaten_by: (N, N) bool; ``[j, i]`` says that i, which comes before j, would beat j.
    """
    stays = ~beaten_by.any(dim=1)
    while True:
        # Members beaten by a certain survivor are out; those beaten only by members that are out stay.
        now = ~(beaten_by & stays).any(dim=1)
        again = ~(beaten_by & now).any(dim=1)
        if torch.equal(again, now) or torch.equal(again, stays):
            return again
        stays = again


def _overlaps(boxes: Tensor, others: Tensor, offset: int) -> Tensor:
    """(N, M) intersections over unions of (4, N) and (4, M) boxes, in the arithmetic of the compiled operator."""
    areas, other_areas = ((each[2] - each[0] + offset) * (each[3] - each[1] + offset) for each in (boxes, others))
    sides = []
    for low, high in ((0, 2), (1, 3)):
        side = torch.minimum(boxes[high, :, None], others[high])
        side -= torch.maximum(boxes[low, :, None], others[low])
        sides.append((side.add_(offset) if offset else side).clamp_(min=0))
    inside = sides[0].mul_(sides[1])
    return inside.div_((other_areas + areas[:, None]).sub_(inside))


def soft_nms(
    boxes: Tensor, scores: Tensor, *, iou_threshold: float, sigma: float, min_score: float, method: int, offset: int
) -> tuple[Tensor, Tensor]:
    """Suppression that lowers scores (Bodla et al., Soft-NMS, 2017).

    Args:
        boxes: (N, 4) xyxy, pixels.
        scores: (N,).
        iou_threshold: From this overlap on, ``naive`` and ``linear`` lower a score.
        sigma: Of ``gaussian``.
        min_score: A box goes when its score falls below.
        method: 0 naive, 1 linear, 2 gaussian.
        offset: Added to widths and heights: 0 or 1.

    Returns:
        (K, 5) boxes that stay with their lowered scores, and their (K,) indices, in the order of picking.
    """
    boxes, scores = boxes.detach().clone(), scores.detach().clone()
    left = torch.arange(len(boxes))
    found, picked = [], []
    while len(left):
        best = int(scores.argmax())
        found.append(torch.cat([boxes[best], scores[best, None]]))
        picked.append(left[best])
        overlap = _overlaps(boxes[best, None].T, boxes.T, offset)[0]
        if method == 2:
            weights = torch.exp(-(overlap * overlap) / sigma)
        else:
            lowered = 1 - overlap if method == 1 else torch.zeros_like(overlap)
            weights = torch.where(overlap >= iou_threshold, lowered, torch.ones_like(overlap))
        scores = scores * weights
        stays = scores >= min_score
        stays[best] = False
        boxes, scores, left = boxes[stays], scores[stays], left[stays]
    if not found:
        return boxes.new_zeros((0, 5)), left
    return torch.stack(found), torch.stack(picked)


def sigmoid_focal_loss_forward(scores: Tensor, labels: Tensor, weight: Tensor, gamma: float, alpha: float) -> Tensor:
    """Focal loss (Lin et al., RetinaNet, 2017), without reduction.

    Args:
        scores: (N, C) logits.
        labels: (N,) int64; C is background.
        weight: (C,) by class of the label, or empty.
        gamma: Exponent.
        alpha: Weight of positives; negatives have 1 − alpha.

    Returns:
        (N, C).
    """
    positive, probability, tiny = _focal_parts(scores, labels)
    of_positive = (1 - probability) ** gamma * probability.clamp(min=tiny).log()
    of_negative = probability**gamma * (1 - probability).clamp(min=tiny).log()
    loss = -torch.where(positive, alpha * of_positive, (1 - alpha) * of_negative)
    return loss * weight[labels, None] if len(weight) else loss


def sigmoid_focal_loss_backward(scores: Tensor, labels: Tensor, weight: Tensor, gamma: float, alpha: float) -> Tensor:
    """(N, C) derivative of :func:`sigmoid_focal_loss_forward` by the logits."""
    positive, probability, tiny = _focal_parts(scores, labels)
    other = 1 - probability
    of_positive = other**gamma * (other - gamma * probability * probability.clamp(min=tiny).log())
    of_negative = probability**gamma * (gamma * other * other.clamp(min=tiny).log() - probability)
    gradient = -torch.where(positive, alpha * of_positive, (1 - alpha) * of_negative)
    return gradient * weight[labels, None] if len(weight) else gradient


def _focal_parts(scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, float]:
    positive = labels[:, None] == torch.arange(scores.shape[1], device=scores.device)
    return positive, scores.sigmoid(), torch.finfo(scores.dtype).tiny
