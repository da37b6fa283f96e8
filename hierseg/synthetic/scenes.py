"""Pictures of objects: overlapping, lit, casting shadows, with the visible part of each one known.

Shape letters: H and W image size in pixels, I objects of an image, P outline points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from hierseg.synthetic.backgrounds import BackgroundPainter, lit
from hierseg.synthetic.looks import EXTENT, Look, UInt8Array, class_traits
from hierseg.synthetic.outlines import ANGLES, DIRECTIONS, FloatArray
from hierseg.taxonomy import Taxonomy

Int16Array = npt.NDArray[np.int16]
BoolArray = npt.NDArray[np.bool_]

MIN_VISIBLE = 0.35
"""The least part of an object (of what lies inside the image) that later objects leave visible."""

_ATTEMPTS = 14
_ASPECTS = (3 / 4, 3 / 4, 2 / 3, 1.0)
_SUBPIXEL_BITS = 4


@dataclass(frozen=True, eq=False)
class Scene:
    """A painted image.

    Attributes:
        image: (H, W, 3) uint8, BGR.
        owners: (H, W) int16; index of the object seen at each pixel, −1 for background.
        is_painted: (I,) bool; false for an object that found no place.
    """

    image: UInt8Array
    owners: Int16Array
    is_painted: BoolArray


@dataclass(frozen=True, eq=False)
class _Part:
    """One body of an object: single objects have one, groups several.

    Attributes:
        transform: (2, 3) float64; from the outline's frame (radius 1) to image pixels.
        outline: (P, 2) float64; corners in image pixels.
    """

    transform: FloatArray
    outline: FloatArray
    hole: FloatArray | None


class ScenePainter:
    """Paints scenes with objects of the classes of a taxonomy.

    Args:
        taxonomy: What there is to paint.
        size: Longest side of the images in pixels; objects scale with it.
    """

    def __init__(self, taxonomy: Taxonomy, *, size: int) -> None:
        self.size = size
        self._traits = class_traits(taxonomy)
        self._background = BackgroundPainter()
        self._texture_pixels = int(np.clip(0.6 * size, 64, 192))
        self._look = lru_cache(maxsize=None)(lambda label: Look(self._traits[label], self._texture_pixels))

    def paint(self, labels: Sequence[int], group_of: Sequence[bool], generator: np.random.Generator) -> Scene:
        """Paints one image with an object of each label; ``group_of`` makes it a cluster of small ones.

        Large objects come first, so small ones lie on top of them; none is hidden by more than
        1 − MIN_VISIBLE. An object that finds no such place even after shrinking is left out.
        """
        short_side = max(1, round(self.size * _ASPECTS[int(generator.integers(len(_ASPECTS)))]))
        width, height = (self.size, short_side) if generator.random() < 0.75 else (short_side, self.size)
        image = self._background.paint(width, height, generator)
        owners = np.full((height, width), -1, dtype=np.int16)
        is_painted = np.zeros(len(labels), dtype=bool)
        areas = np.zeros(len(labels), dtype=np.int64)
        light = generator.normal(0, 1, 2)
        light /= max(float(np.hypot(*light)), 1e-6)
        extents = self._extents(labels, group_of, generator)
        for index in np.argsort(-extents, kind='stable').tolist():
            look = self._look(labels[index])
            placed = self._place(look, float(extents[index]), group_of[index], owners, areas, generator)
            if placed is None:
                continue
            for part in placed:
                self._paint_part(image, owners, index, look, part, light, generator)
            areas[index] = np.count_nonzero(owners == index)
            is_painted[index] = areas[index] > 0
        return Scene(self._background.finish(image, generator), owners, is_painted)

    def _extents(self, labels: Sequence[int], group_of: Sequence[bool], generator: np.random.Generator) -> FloatArray:
        """Half of the longest side of each object in pixels, (I,); smaller where the image is crowded."""
        crowding = min(1.0, 2.2 / max(1, len(labels)) ** 0.5)
        shares = np.exp(generator.uniform(np.log(0.2), np.log(0.58 * crowding), len(labels)))
        return np.where(np.array(group_of, dtype=bool), np.maximum(shares, 0.42 * crowding), shares) * self.size / 2

    def _place(
        self,
        look: Look,
        extent: float,
        is_group: bool,
        owners: Int16Array,
        areas: npt.NDArray[np.int64],
        generator: np.random.Generator,
    ) -> list[_Part] | None:
        """Parts of an object at a free enough place; None where none was found."""
        height, width = owners.shape
        visible = np.bincount(owners.ravel() + 1, minlength=len(areas) + 1)[1:]
        for _ in range(_ATTEMPTS):
            margin = 0.55 * extent
            centre = margin + generator.random(2) * np.maximum([width - 2 * margin, height - 2 * margin], 1)
            parts = (
                self._group(look, centre, extent, generator)
                if is_group
                else [self._part(look, centre, extent, generator)]
            )
            covered = np.zeros_like(visible)
            own = 0
            for part in parts:
                x, y, alpha = _silhouette(part, width, height)
                inside = owners[y : y + alpha.shape[0], x : x + alpha.shape[1]][alpha > 127]
                covered += np.bincount(inside + 1, minlength=len(covered) + 1)[1:]
                own += inside.size
            if own >= 16 and (visible - covered >= MIN_VISIBLE * areas).all():
                return parts
            extent *= 0.93
        return None

    def _part(self, look: Look, centre: FloatArray, extent: float, generator: np.random.Generator) -> _Part:
        """One body, turned, stretched and dented a little, each time differently."""
        turn, flip = generator.normal(0, 0.2), generator.choice([-1.0, 1.0])
        stretch = np.exp(generator.normal(0, 0.1))
        rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        linear = extent * rotation @ np.diag([flip * np.sqrt(stretch), 1 / np.sqrt(stretch)])
        dents = sum(
            generator.normal(0, 0.025) * np.cos(waves * ANGLES + generator.uniform(0, 2 * np.pi)) for waves in (2, 3, 4)
        )
        outline = (look.traits.outline * (1 + dents))[:, None] * DIRECTIONS
        hole = look.traits.hole * look.traits.outline[:, None] * DIRECTIONS if look.traits.hole > 0.1 else None
        return _Part(
            transform=np.column_stack([linear, centre]),
            outline=outline @ linear.T + centre,
            hole=None if hole is None else hole @ linear.T + centre,
        )

    def _group(self, look: Look, centre: FloatArray, extent: float, generator: np.random.Generator) -> list[_Part]:
        """Six to nine small bodies close together, laid out like the seeds of a sunflower."""
        count = int(generator.integers(6, 10))
        index = np.arange(count)
        angles = index * 2.39996 + generator.uniform(0, 2 * np.pi)
        reach = 0.72 * extent * np.sqrt((index + 0.3) / count)
        places = centre + reach[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        places += generator.normal(0, 0.06 * extent, places.shape)
        sizes = extent * generator.uniform(0.28, 0.38, count)
        return [self._part(look, place, float(size), generator) for place, size in zip(places, sizes, strict=True)]

    def _paint_part(
        self,
        image: UInt8Array,
        owners: Int16Array,
        index: int,
        look: Look,
        part: _Part,
        light: FloatArray,
        generator: np.random.Generator,
    ) -> None:
        """Paints one body with its shadow into image (H, W, 3) and owners (H, W)."""
        height, width = owners.shape
        x, y, alpha = _silhouette(part, width, height)
        if alpha.size == 0:
            return
        size = (alpha.shape[1], alpha.shape[0])
        _cast_shadow(image, x, y, alpha, light)
        to_texture = np.array(
            [[2 * EXTENT / look.pixels, 0, -EXTENT], [0, 2 * EXTENT / look.pixels, -EXTENT], [0, 0, 1]]
        )
        matrix = part.transform @ to_texture - np.array([[0, 0, x], [0, 0, y]])
        colours = cv2.warpAffine(look.texture, matrix, size, borderMode=cv2.BORDER_REPLICATE).astype(
            np.uint8, copy=False
        )
        slopes = cv2.warpAffine(look.relief, matrix, size, borderMode=cv2.BORDER_REPLICATE)
        linear = part.transform[:, :2]
        towards_light = (linear / np.linalg.norm(linear, axis=0)).T @ -light
        shade = 0.95 + 0.45 * (slopes @ towards_light.astype(np.float32))
        material = self._background.noise(size[0], size[1], generator).astype(np.float32)
        shade *= 1 + (material - 128) * np.float32(generator.uniform(0.0005, 0.0016))
        tint = (generator.normal(1, 0.06) * generator.normal(1, 0.05, 3)).astype(np.float32)
        body = lit(colours, shade[..., None] * tint)
        weight = alpha.astype(np.float32) / 255
        region = image[y : y + size[1], x : x + size[0]]
        region[:] = cv2.blendLinear(body, np.ascontiguousarray(region), weight, 1 - weight)
        owners[y : y + size[1], x : x + size[0]][alpha > 127] = index


def _silhouette(part: _Part, width: int, height: int) -> tuple[int, int, UInt8Array]:
    """Left, top and anti-aliased opacity (h, w) uint8 of the part inside the image."""
    left, top = np.maximum(np.floor(part.outline.min(axis=0)), 0).astype(int).tolist()
    right, bottom = np.minimum(np.ceil(part.outline.max(axis=0)) + 1, [width, height]).astype(int).tolist()
    alpha = np.zeros((max(0, bottom - top), max(0, right - left)), dtype=np.uint8)
    if alpha.size:
        for contour, opacity in ((part.outline, 255), (part.hole, 0)):
            if contour is not None:
                points = np.round((contour - [left, top]) * 2**_SUBPIXEL_BITS).astype(np.int32)
                cv2.fillPoly(alpha, [points], opacity, lineType=cv2.LINE_AA, shift=_SUBPIXEL_BITS)
    return left, top, alpha


def _cast_shadow(image: UInt8Array, x: int, y: int, alpha: UInt8Array, light: FloatArray) -> None:
    """Darkens image (H, W, 3) around the silhouette, away from the light."""
    height, width = image.shape[:2]
    reach = max(2, round(0.12 * max(alpha.shape)))
    padded = cv2.copyMakeBorder(alpha, reach, reach, reach, reach, cv2.BORDER_CONSTANT, value=0)
    padded = cv2.blur(padded, (reach | 1, reach | 1))
    offset = np.round(light * 0.6 * reach).astype(int)
    left, top = x - reach + int(offset[0]), y - reach + int(offset[1])
    x0, y0 = max(0, left), max(0, top)
    x1, y1 = min(width, left + padded.shape[1]), min(height, top + padded.shape[0])
    if x0 < x1 and y0 < y1:
        shadow = cv2.convertScaleAbs(padded[y0 - top : y1 - top, x0 - left : x1 - left], alpha=-0.45, beta=255)
        region = image[y0:y1, x0:x1]
        region[:] = cv2.multiply(np.ascontiguousarray(region), cv2.merge([shadow] * 3), scale=1 / 255)
