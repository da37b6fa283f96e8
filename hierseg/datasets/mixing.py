"""Mosaic, mix-up and random crops of images whose boxes need not have masks and whose classes need not be known.

They follow those of mmdet's RTMDet-Ins. mmdet's own draw from images that the process has kept, so that a resumed run
draws others; here the other images are those that follow in the stream. Nor do mmdet's know of boxes without a mask,
which recomputing boxes from masks would empty, or of verified labels.

Shape letters: I instances, H × W pixels, C classes, K labels of one image.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import cv2
import mmcv
import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmdet.structures.bbox import HorizontalBoxes

from hierseg.datasets.pieces import UNKNOWN, Piece, PieceMasks, trimmed
from hierseg.errors import ConfigError
from hierseg.formats import BoolArray, IntArray
from hierseg.models.verified import known_classes
from hierseg.registry import TRANSFORMS
from hierseg.taxonomy import TaxonomyArrays

Size = tuple[int, int]  # width, height in pixels


class MixingTransform(BaseTransform):
    """Base of transforms that ask for other images.

    ``hierseg.StoreDataset`` sets ``draw_partner``, which gives a sample of another image that has gone through the
    transforms before this one in the pipeline, and ``arrays``, the tables of its taxonomy. So the partner of a mix-up
    behind a mosaic is a mosaic, too.
    """

    arrays: TaxonomyArrays

    def draw_partner(self) -> dict[str, Any]:
        """Refuses: there is no data set. A data set puts its own function in this one's place."""
        fix = "Use it in the pipeline of a dataset=dict(type='hierseg.StoreDataset', ...)."
        raise ConfigError('there is no data set to draw other images from', where=type(self).__name__, fix=fix)


@TRANSFORMS.register_module()
class Mosaic(MixingTransform):
    """Puts four images around a point of a canvas of twice the size, as YOLOX and RTMDet do.

    Each image is scaled to fit into ``img_scale``. What reaches over the canvas is cut off (:func:`placed_objects`).
    Verified labels become those of :func:`verified_on_all`.

    Required keys: ``img``, ``gt_bboxes``, ``gt_bboxes_labels``, ``gt_ignore_flags``. Modified keys: these,
    ``img_shape`` and, where they are there, ``gt_masks``, ``verified_positive``, ``verified_negative``,
    ``not_exhaustive``. What names the image, such as ``img_id``, stays that of the upper left one.

    Args:
        img_scale: Width and height of a quarter of the canvas, pixels.
        center_ratio_range: Where the four images meet, as a part of ``img_scale``, in both directions.
        pad_val: Written where there is no image.
        prob: How often the image becomes a mosaic.
    """

    def __init__(
        self,
        img_scale: Size = (640, 640),
        *,
        center_ratio_range: tuple[float, float] = (0.5, 1.5),
        pad_val: float = 114.0,
        prob: float = 1.0,
    ) -> None:
        self.img_scale, self.center_ratio_range = tuple(img_scale), tuple(center_ratio_range)
        self.pad_val, self.prob = pad_val, prob

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Draws three partners and places all four."""
        if random.uniform(0, 1) > self.prob:
            return results
        parts = [results, *(self.draw_partner() for _ in range(3))]
        width, height = canvas = 2 * self.img_scale[0], 2 * self.img_scale[1]
        center_x, center_y = (int(random.uniform(*self.center_ratio_range) * side) for side in self.img_scale)
        image = np.full((height, width, *results['img'].shape[2:]), self.pad_val, dtype=results['img'].dtype)
        placed = []
        for number, part in enumerate(parts):
            scaled = fitting(part['img'].shape, self.img_scale)
            left = center_x if number % 2 else center_x - scaled[0]
            top = center_y if number >= 2 else center_y - scaled[1]
            _paste(mmcv.imresize(part['img'], scaled), image, left, top)
            placed.append(placed_objects(part, size=scaled, offset=(left, top), canvas=canvas))
        return mixed(results, image, placed, parts, arrays=self.arrays)

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(img_scale={self.img_scale}, center_ratio_range={self.center_ratio_range}, '
            f'pad_val={self.pad_val}, prob={self.prob})'
        )


@TRANSFORMS.register_module()
class MixUp(MixingTransform):
    """Takes the mean of the image and another one, with the objects of both, as YOLOX and RTMDet do.

    The partner is scaled to fit into ``img_scale``, then by a factor drawn from ``ratio_range``, perhaps flipped, and
    cut, or filled up, to the size of the image. One without an object changes nothing. Keys as of :class:`Mosaic`.

    Args:
        img_scale: Width and height that the partner is fitted into, pixels.
        ratio_range: Smallest and greatest factor.
        flip_ratio: How often the partner is flipped from left to right.
        pad_val: Written where there is no partner.
        prob: How often the image is mixed.
    """

    def __init__(
        self,
        img_scale: Size = (640, 640),
        *,
        ratio_range: tuple[float, float] = (0.5, 1.5),
        flip_ratio: float = 0.5,
        pad_val: float = 114.0,
        prob: float = 1.0,
    ) -> None:
        self.img_scale, self.ratio_range = tuple(img_scale), tuple(ratio_range)
        self.flip_ratio, self.pad_val, self.prob = flip_ratio, pad_val, prob

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Draws a partner and mixes both."""
        if random.uniform(0, 1) > self.prob:
            return results
        partner = self.draw_partner()
        if not len(partner['gt_bboxes']):
            return results
        height, width = results['img'].shape[:2]
        factor = random.uniform(*self.ratio_range)
        scaled = tuple(max(int(side * factor), 1) for side in fitting(partner['img'].shape, self.img_scale))
        # A partner that is larger than the image shows a part of it, drawn.
        left, top = -random.randint(0, max(scaled[0] - width, 0)), -random.randint(0, max(scaled[1] - height, 0))
        flip = random.uniform(0, 1) < self.flip_ratio
        other = np.full_like(results['img'], self.pad_val)
        picture = mmcv.imresize(partner['img'], scaled)
        _paste(picture[:, ::-1] if flip else picture, other, left, top)
        placed = [
            Objects.of(results),
            placed_objects(partner, size=scaled, offset=(left, top), canvas=(width, height), flip=flip),
        ]
        image = cv2.addWeighted(results['img'], 0.5, other, 0.5, 0)
        return mixed(results, image, placed, [results, partner], arrays=self.arrays)

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(img_scale={self.img_scale}, ratio_range={self.ratio_range}, '
            f'flip_ratio={self.flip_ratio}, pad_val={self.pad_val}, prob={self.prob})'
        )


@TRANSFORMS.register_module()
class RandomResizeCrop(BaseTransform):
    """Does what mmdet's ``RandomResize`` with ``keep_ratio`` and ``RandomCrop`` do after each other, in that order.

    It cuts before it scales, so that no pixel is made that is then cut off. Boxes are recomputed from masks as with
    ``RandomCrop(recompute_bbox=True)``, but only those that are cut and have a mask (:func:`placed_objects`); the image
    may be left without an object.

    Required and modified keys: as of :class:`Mosaic`, but verified labels stay; it adds ``scale_factor``.

    Args:
        scale: Width and height that the whole image is fitted into, pixels.
        ratio_range: Smallest and greatest factor for ``scale``.
        crop_size: Width and height of the part that is kept, at most; pixels after scaling.
    """

    def __init__(self, scale: Size, *, ratio_range: tuple[float, float], crop_size: Size) -> None:
        self.scale, self.ratio_range, self.crop_size = tuple(scale), tuple(ratio_range), tuple(crop_size)

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Draws scale and part."""
        height, width = results['img'].shape[:2]
        factor = random.uniform(*self.ratio_range)
        scaled = mmcv.rescale_size((width, height), tuple(int(side * factor) for side in self.scale))
        size: Size = (min(scaled[0], self.crop_size[0]), min(scaled[1], self.crop_size[1]))
        part_width, part_height = (
            max(round(cut * whole / after), 1) for cut, whole, after in zip(size, (width, height), scaled, strict=True)
        )
        left, top = random.randint(0, width - part_width), random.randint(0, height - part_height)
        window = left, top, left + part_width, top + part_height
        objects = placed_objects(results, window=window, size=size, offset=(0, 0), canvas=size)
        results['img'] = mmcv.imresize(results['img'][top : window[3], left : window[2]], size)
        results['img_shape'] = results['img'].shape[:2]
        results['scale_factor'] = (size[0] / part_width, size[1] / part_height)
        return objects.written_to(results)

    def __repr__(self) -> str:
        return f'{type(self).__name__}(scale={self.scale}, ratio_range={self.ratio_range}, crop_size={self.crop_size})'


class Objects(NamedTuple):
    """Annotated objects as mmdet's transforms have them: boxes (I, 4) float32 xyxy pixels; masks, or None without."""

    boxes: torch.Tensor
    labels: IntArray
    ignored: BoolArray
    masks: list[Piece] | None

    @classmethod
    def of(cls, sample: Mapping[str, Any]) -> Objects:
        """Those of a sample."""
        masks = PieceMasks.of(sample['gt_masks']).pieces if 'gt_masks' in sample else None
        return cls(sample['gt_bboxes'].tensor, sample['gt_bboxes_labels'], sample['gt_ignore_flags'], masks)

    def written_to(self, results: dict[str, Any]) -> dict[str, Any]:
        """The sample with these objects, on the image that it has."""
        results['gt_bboxes'] = HorizontalBoxes(self.boxes)
        results['gt_bboxes_labels'], results['gt_ignore_flags'] = self.labels, self.ignored
        if self.masks is not None:
            results['gt_masks'] = PieceMasks(self.masks, *results['img'].shape[:2])
        return results


def fitting(shape: Sequence[int], size: Size) -> Size:
    """Width and height of an image of (H, W, …) pixels, scaled to fit into a size."""
    height, width = shape[:2]
    factor = min(size[1] / height, size[0] / width)
    return max(int(width * factor), 1), max(int(height * factor), 1)


def placed_objects(
    part: Mapping[str, Any],
    *,
    size: Size,
    offset: tuple[int, int],
    canvas: Size,
    window: tuple[int, int, int, int] | None = None,
    flip: bool = False,
) -> Objects:
    """The objects of an image, or of a window of it, that is scaled and put on a canvas, as far as they are seen.

    - An object is left out where no pixel of its box, or of its mask if it has one, is on the canvas.
    - A box that the border of window or canvas cuts ends at the border; where it has a mask, it becomes the bounds of
      what is seen of the mask.
    - A box without a mask (an all-zero plane) keeps none.

    Args:
        part: A sample with ``gt_bboxes`` and perhaps ``gt_masks``; not changed.
        size: Width and height of the scaled window, pixels.
        offset: Where the upper left corner of the scaled window lies on the canvas, x and y; may be negative.
        canvas: Width and height, pixels.
        window: The part of the image to take, xyxy pixels; all of it by default.
        flip: Turns left and right, within ``size``, after scaling.
    """
    left, top, right, bottom = window or (0, 0, part['img'].shape[1], part['img'].shape[0])
    scale_x, scale_y = size[0] / (right - left), size[1] / (bottom - top)
    x, y = offset
    given = Objects.of(part)
    boxes = given.boxes
    boxes = (boxes - boxes.new_tensor([left, top, left, top])) * boxes.new_tensor([scale_x, scale_y] * 2)
    if flip:
        boxes = torch.stack([size[0] - boxes[:, 2], boxes[:, 1], size[0] - boxes[:, 0], boxes[:, 3]], dim=1)
    whole = boxes + boxes.new_tensor([x, y, x, y])
    # What is seen of the window: the canvas shows a part of it, or all.
    seen = max(x, 0), max(y, 0), min(x + size[0], canvas[0]), min(y + size[1], canvas[1])
    boxes = whole.clamp(whole.new_tensor(seen[:2] * 2), whole.new_tensor(seen[2:] * 2))
    keep: BoolArray = (boxes[:, 2:] > boxes[:, :2]).all(dim=1).numpy()
    pieces = None
    if given.masks is not None:
        # The pixel of the image that is seen in each column and row of the canvas: the nearest, as OpenCV has it.
        columns = left + np.floor(np.arange(size[0]) / scale_x).astype(int).clip(max=right - left - 1)
        rows = top + np.floor(np.arange(size[1]) / scale_y).astype(int).clip(max=bottom - top - 1)
        columns = (columns[::-1] if flip else columns)[seen[0] - x : seen[2] - x]
        rows = rows[seen[1] - y : seen[3] - y]
        pieces = []
        for number in np.flatnonzero(keep).tolist():
            piece = given.masks[number]
            moved = _looked_at(piece, columns, rows, seen[:2]) if piece.is_known else UNKNOWN
            if moved is None:
                keep[number] = False
                continue
            pieces.append(moved)
            if moved.is_known and not torch.equal(boxes[number], whole[number]):
                height, width = moved.plane.shape
                bounds = moved.left, moved.top, moved.left + width, moved.top + height
                boxes[number] = boxes.new_tensor(bounds)
    return Objects(boxes[keep], given.labels[keep], given.ignored[keep], pieces)


def _looked_at(piece: Piece, columns: IntArray, rows: IntArray, corner: tuple[int, int]) -> Piece | None:
    """A piece as it is seen through some columns and rows of pixels, of which the first are at a corner."""
    height, width = piece.plane.shape
    across = np.flatnonzero((columns >= piece.left) & (columns < piece.left + width))
    down = np.flatnonzero((rows >= piece.top) & (rows < piece.top + height))
    if not len(across) or not len(down):
        return None
    plane = piece.plane[rows[down] - piece.top][:, columns[across] - piece.left]
    return trimmed(plane, corner[0] + int(across[0]), corner[1] + int(down[0]))


def mixed(
    results: dict[str, Any],
    image: np.ndarray,
    placed: Sequence[Objects],
    parts: Sequence[Mapping[str, Any]],
    *,
    arrays: TaxonomyArrays,
) -> dict[str, Any]:
    """The sample of an image made of several parts, with the objects seen on it and what is known on all parts."""
    labels = np.concatenate([objects.labels for objects in placed])
    if 'verified_negative' in results:
        results.update(verified_on_all(parts, shown=labels, arrays=arrays))
    results['img'], results['img_shape'] = image, image.shape[:2]
    masks = [objects.masks for objects in placed if objects.masks is not None]
    everything = Objects(
        torch.cat([objects.boxes for objects in placed]),
        labels,
        np.concatenate([objects.ignored for objects in placed]),
        [*chain.from_iterable(masks)] if len(masks) == len(placed) else None,
    )
    return everything.written_to(results)


def verified_on_all(
    parts: Sequence[Mapping[str, Any]], *, shown: IntArray, arrays: TaxonomyArrays
) -> dict[str, IntArray]:
    """The verified labels of an image that shows a piece of each of several images.

    - ``verified_negative``: the classes that are absent from every part, as verified or because a class above them is.
      One that was not looked for on a part may be there.
    - ``verified_positive``: those of any part of which an object is shown, at the class or below it. Of another it is
      not known if the piece that is shown has one.
    - ``not_exhaustive``: those of any part.

    A class that is annotated on one part counts on all of them, through its objects, as the federated loss counts the
    classes of a batch on each of its images.

    Args:
        parts: Samples as they were before they were cut.
        shown: (K,) labels of the objects that are seen on the whole.
        arrays: The taxonomy.
    """
    nothing = np.zeros(0, dtype=np.int64)
    absent = np.ones(len(arrays.depths), dtype=bool)
    for part in parts:
        present = np.concatenate([part['verified_positive'], part['gt_bboxes_labels']])
        known = known_classes(present, part['verified_negative'], arrays)
        absent &= known & ~known_classes(present, nothing, arrays)
    positive = np.unique(np.concatenate([part['verified_positive'] for part in parts]))
    return {
        'verified_positive': positive[np.isin(positive, arrays.all_above(shown))],
        'verified_negative': np.flatnonzero(absent),
        'not_exhaustive': np.unique(np.concatenate([part['not_exhaustive'] for part in parts])),
    }


def _paste(picture: np.ndarray, canvas: np.ndarray, left: int, top: int) -> None:
    """Writes a picture to a place of a canvas, as far as it lies on it."""
    bottom, right = min(top + picture.shape[0], canvas.shape[0]), min(left + picture.shape[1], canvas.shape[1])
    first_row, first_column = max(top, 0), max(left, 0)
    canvas[first_row:bottom, first_column:right] = picture[
        first_row - top : bottom - top, first_column - left : right - left
    ]
