"""Operators of mmcv in plain torch, for any device: RoI align, suppression, focal loss.

RoI align is a sparse matrix product: each bin of the output is a weighted sum of a few pixels, which
``torch.nn.functional.embedding_bag`` computes without laying the samples out in memory. Its gradient is the product
with the transposed matrix.

Shape letters: B images, C channels, H × W pixels of a feature map, N RoIs or boxes, E entries of the sparse matrix.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

ENTRIES_AT_ONCE = 1 << 16
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
    output = pixels.new_empty((len(rois) * bins, channels))
    for begin, entries in _entries(rois, features.shape, settings, dtype=pixels.dtype):
        output[begin : begin + len(entries.starts)] = F.embedding_bag(
            entries.pixels, pixels, entries.starts, mode='sum', per_sample_weights=entries.weights
        )
    return output.view(len(rois), bins, channels).transpose(1, 2).reshape(len(rois), channels, *settings[:2])


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
    of_bins = gradient.flatten(2).transpose(1, 2).reshape(-1, channels)
    of_pixels = of_bins.new_zeros((images * height * width, channels))
    for begin, entries in _entries(rois, shape, settings, dtype=gradient.dtype):
        counts = torch.diff(entries.starts, append=entries.starts.new_tensor([len(entries.pixels)]))
        bins = torch.arange(begin, begin + len(counts), device=counts.device).repeat_interleave(counts)
        touched, order = torch.sort(entries.pixels)
        pixels, counts = torch.unique_consecutive(touched, return_counts=True)
        part = F.embedding_bag(
            bins[order], of_bins, counts.cumsum(0) - counts, mode='sum', per_sample_weights=entries.weights[order]
        )
        of_pixels.index_add_(0, pixels, part)
    return of_pixels.view(images, height, width, channels).permute(0, 3, 1, 2)


class _Entries(NamedTuple):
    """A block of rows of the sparse matrix: for each bin the pixels that it averages, and their weights.

    Attributes:
        pixels: (E,) int64; index of image, row and column of the feature map in one.
        weights: (E,).
        starts: First entry of each bin, int64.
    """

    pixels: Tensor
    weights: Tensor
    starts: Tensor


def _entries(
    rois: Tensor, shape: torch.Size, settings: RoiAlign, *, dtype: torch.dtype
) -> Iterator[tuple[int, _Entries]]:
    """The first bin of each block of RoIs, and its entries."""
    height, width = shape[2:]
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
    bins = settings.height * settings.width
    sizes = samples.prod(dim=1) * (4 * bins)
    blocks = (sizes.cumsum(0) // ENTRIES_AT_ONCE).tolist()
    begin = 0
    while begin < len(rois):
        end = begin + 1
        while end < len(rois) and blocks[end] == blocks[begin]:
            end += 1
        part = slice(begin, end)
        across = _Samples.of(low[part, 0], spans[part, 0], samples[part, 0], settings.width, width)
        down = _Samples.of(low[part, 1], spans[part, 1], samples[part, 1], settings.height, height)
        entries = _products(rois[part, 0].long(), down, across, shape, (settings.height, settings.width))
        yield begin * bins, entries._replace(weights=entries.weights.to(dtype))
        begin = end


class _Samples(NamedTuple):
    """Samples along one axis, for each RoI those of all bins one after another.

    Attributes:
        counts: (N,); samples of a bin.
        starts: (N,); first sample of each RoI.
        pixels: (S, 2); the neighbours of each sample.
        weights: (S, 2); 0 outside the feature map.
    """

    counts: Tensor
    starts: Tensor
    pixels: Tensor
    weights: Tensor

    @classmethod
    def of(cls, low: Tensor, spans: Tensor, counts: Tensor, bins: int, size: int) -> _Samples:
        """Samples of RoIs that begin at ``low`` and whose bins span ``spans`` of ``size`` pixels."""
        per_roi = counts * bins
        starts = per_roi.cumsum(0) - per_roi
        roi = torch.arange(len(low), device=low.device).repeat_interleave(per_roi)
        number = torch.arange(len(roi), device=low.device) - starts[roi]
        count = counts[roi]
        bin_of = number // count
        span = spans[roi]
        places = low[roi] + bin_of * span + ((number - bin_of * count) + 0.5) * span / count
        inside = (places >= -1) & (places <= size)
        places = places.clamp(min=0)
        first = places.long().clamp(max=size - 1)
        fraction = torch.where(first >= size - 1, torch.zeros_like(places), places - first)
        return cls(
            counts=counts,
            starts=starts,
            pixels=torch.stack([first, (first + 1).clamp(max=size - 1)], dim=1),
            weights=torch.stack([1 - fraction, fraction], dim=1) * inside[:, None],
        )


def _products(images: Tensor, down: _Samples, across: _Samples, shape: torch.Size, bins: tuple[int, int]) -> _Entries:
    """Entries of all pairs of a sample down and a sample across, bin by bin.

    Args:
        images: (N,) int64.
        down: Samples along the height.
        across: Samples along the width.
        shape: B, C, H, W.
        bins: Height and width of the output.
    """
    num_bins = bins[0] * bins[1]
    per_bin = down.counts * across.counts
    per_roi = per_bin * num_bins
    roi = torch.arange(len(images), device=images.device).repeat_interleave(per_roi)
    number = torch.arange(len(roi), device=images.device) - (per_roi.cumsum(0) - per_roi)[roi]
    samples, columns = per_bin[roi], across.counts[roi]
    bin_of = number // samples
    within = number - bin_of * samples
    at_down = down.starts[roi] + bin_of // bins[1] * down.counts[roi] + within // columns
    at_across = across.starts[roi] + bin_of % bins[1] * columns + within % columns
    rows = (images[roi, None] * shape[2] + down.pixels[at_down]) * shape[3]
    pixels = rows[:, :, None] + across.pixels[at_across][:, None]
    weights = (down.weights[at_down] / samples[:, None])[:, :, None] * across.weights[at_across][:, None]
    lengths = (4 * per_bin).repeat_interleave(num_bins)
    return _Entries(pixels.flatten(), weights.flatten(), lengths.cumsum(0) - lengths)


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
