"""Pictures of objects whose looks follow from their class's path in the taxonomy.

**Silhouettes** are polar outlines, one radius for each of A fixed angles, and so star-shaped about their centre:
blending two of them (a class with two parents), rippling or stretching one always gives a sensible silhouette again.
The y axis points down, as in images; "up" is the angle −π/2.

**Looks.** A root class sets silhouette, colours and pattern. Every step down keeps what the parent has and adds
detail: siblings look more alike than strangers. A class with several parents blends their silhouettes, wears the
first one's colour and the second one's pattern and colour on top. Which variant a class takes follows from its rank
among its siblings by id, through additive recurrences (golden ratio and kin) that spread any number of siblings
evenly, so that a class looks the same in every run and label order.

**Scenes.** Objects overlap, are lit and cast shadows on textured backgrounds, and the visible part of each is known.
Expensive noise is drawn once into a pool of tiles; an image takes random crops of them.

Shape letters: H and W image size in pixels, I objects of an image, A angles, P corner points, T texture pixels.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import cv2
import numpy as np
import numpy.typing as npt
from numpy.random import Generator

from hierseg.formats import BoolArray, FloatArray, IntArray
from hierseg.taxonomy import Taxonomy

UInt8Array = npt.NDArray[np.uint8]
Int16Array = npt.NDArray[np.int16]
Float32Array = npt.NDArray[np.float32]
Hsv = tuple[float, float, float]
NUM_ANGLES = 128
ANGLES: FloatArray = np.arange(NUM_ANGLES, dtype=np.float64) * (2 * np.pi / NUM_ANGLES)
DIRECTIONS: FloatArray = np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1)
EXTENT = 1.2
"""A texture covers the square [−EXTENT, EXTENT]² around an outline of radius 1."""
NUM_PATTERNS, NUM_MARKINGS = 7, 6
TILE_PIXELS, NUM_TILES = 256, 24
MIN_VISIBLE = 0.35
"""The least part of an object (of what lies inside the image) that later objects leave visible."""
_ATTEMPTS = 14
_ASPECTS = (3 / 4, 3 / 4, 2 / 3, 1.0)
_SUBPIXEL_BITS = 4


@dataclass(frozen=True, eq=False)
class Scene:
    """A painted image."""

    image: UInt8Array  # (H, W, 3), BGR
    owners: Int16Array  # (H, W); index of the object seen at each pixel, −1 for background
    is_painted: BoolArray  # (I,); false for an object that found no place


class ScenePainter:
    """Paints scenes with objects of the classes of a taxonomy.

    Args:
        taxonomy: What there is to paint.
        size: Longest side of the images in pixels; objects scale with it.
    """

    def __init__(self, taxonomy: Taxonomy, *, size: int) -> None:
        self.size = size
        self._background = BackgroundPainter()
        texture_pixels = int(np.clip(0.6 * size, 64, 192))
        self._looks = [Look(traits, texture_pixels) for traits in class_traits(taxonomy)]  # painted when first seen

    def paint(self, labels: Sequence[int], group_of: Sequence[bool], generator: Generator) -> Scene:
        """Paints one image with an object of each label; ``group_of`` makes it a cluster of small ones.

        Large objects come first, so small ones lie on top of them; none is hidden by more than
        1 − MIN_VISIBLE. An object that finds no such place even after shrinking is left out.
        """
        short_side = max(1, round(self.size * _ASPECTS[int(generator.integers(len(_ASPECTS)))]))
        width, height = (self.size, short_side) if generator.random() < 0.75 else (short_side, self.size)
        image = self._background.paint(width, height, generator)
        owners = np.full((height, width), -1, dtype=np.int16)
        areas = np.zeros(len(labels), dtype=np.int64)
        light = generator.normal(0, 1, 2)
        light /= max(float(np.hypot(*light)), 1e-6)
        # Half of the longest side of each object in pixels, (I,); smaller where the image is crowded.
        crowding = min(1.0, 2.2 / max(1, len(labels)) ** 0.5)
        shares = np.exp(generator.uniform(np.log(0.2), np.log(0.58 * crowding), len(labels)))
        shares = np.where(np.array(group_of, dtype=bool), np.maximum(shares, 0.42 * crowding), shares)
        extents = shares * self.size / 2
        for index in np.argsort(-extents, kind='stable').tolist():
            look, extent = self._looks[labels[index]], float(extents[index])
            for part in _placed(look, extent, owners, areas, generator, is_group=group_of[index]):
                self._paint_part(image, owners, index, part, light, generator)
            areas[index] = np.count_nonzero(owners == index)
        return Scene(self._background.finish(image, generator), owners, areas > 0)

    def _paint_part(
        self, image: UInt8Array, owners: Int16Array, index: int, part: _Part, light: FloatArray, generator: Generator
    ) -> None:
        """Paints one body with its shadow into image (H, W, 3) and owners (H, W)."""
        height, width = owners.shape
        x, y, alpha = _silhouette(part, width, height)
        if alpha.size == 0:
            return
        size = (alpha.shape[1], alpha.shape[0])
        _cast_shadow(image, x, y, alpha, light)
        step = 2 * EXTENT / part.look.pixels
        to_texture = np.array([[step, 0, -EXTENT], [0, step, -EXTENT], [0, 0, 1]])
        matrix = part.transform @ to_texture - np.array([[0, 0, x], [0, 0, y]])
        colours, slopes = (
            cv2.warpAffine(surface, matrix, size, borderMode=cv2.BORDER_REPLICATE)
            for surface in (part.look.texture, part.look.relief)
        )
        linear = part.transform[:, :2]
        towards_light = (linear / np.linalg.norm(linear, axis=0)).T @ -light
        shade = 0.95 + 0.45 * (slopes @ towards_light.astype(np.float32))
        material = self._background.noise(size[0], size[1], generator).astype(np.float32)
        shade *= 1 + (material - 128) * np.float32(generator.uniform(0.0005, 0.0016))
        tint = (generator.normal(1, 0.06) * generator.normal(1, 0.05, 3)).astype(np.float32)
        body = lit(colours.astype(np.uint8, copy=False), shade[..., None] * tint)
        weight = alpha.astype(np.float32) / 255
        region = image[y : y + size[1], x : x + size[0]]
        region[:] = cv2.blendLinear(body, np.ascontiguousarray(region), weight, 1 - weight)
        owners[y : y + size[1], x : x + size[0]][alpha > 127] = index


@dataclass(frozen=True, eq=False)
class _Part:
    """One body of an object: single objects have one, groups several."""

    look: Look
    transform: FloatArray  # (2, 3); from the outline's frame (radius 1) to image pixels
    outline: FloatArray  # (P, 2); corners in image pixels
    hole: FloatArray | None  # (P, 2), likewise; None where there is none


def _placed(
    look: Look, extent: float, owners: Int16Array, areas: IntArray, generator: Generator, *, is_group: bool
) -> list[_Part]:
    """Parts of an object, made at a free enough place; none where no such place was found."""
    height, width = owners.shape
    visible = np.bincount(owners.ravel() + 1, minlength=len(areas) + 1)[1:]
    for _ in range(_ATTEMPTS):
        margin = 0.55 * extent
        centre = margin + generator.random(2) * np.maximum([width - 2 * margin, height - 2 * margin], 1)
        parts = (_group if is_group else _single)(look, centre, extent, generator)
        covered, own = np.zeros_like(visible), 0
        for part in parts:
            x, y, alpha = _silhouette(part, width, height)
            inside = owners[y : y + alpha.shape[0], x : x + alpha.shape[1]][alpha > 127]
            covered += np.bincount(inside + 1, minlength=len(covered) + 1)[1:]
            own += inside.size
        if own >= 16 and (visible - covered >= MIN_VISIBLE * areas).all():
            return parts
        extent *= 0.93
    return []


def _single(look: Look, centre: FloatArray, extent: float, generator: Generator) -> list[_Part]:
    """One body, turned, stretched and dented a little, each time differently."""
    turn, flip = generator.normal(0, 0.2), generator.choice([-1.0, 1.0])
    stretch = np.exp(generator.normal(0, 0.1))
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    linear = extent * rotation @ np.diag([flip * np.sqrt(stretch), 1 / np.sqrt(stretch)])
    dents = sum(
        generator.normal(0, 0.025) * np.cos(waves * ANGLES + generator.uniform(0, 2 * np.pi)) for waves in (2, 3, 4)
    )
    outline = (look.traits.outline * (1 + dents))[:, None] * DIRECTIONS
    hole = None
    if look.traits.hole > 0.1:
        hole = look.traits.hole * look.traits.outline[:, None] * DIRECTIONS @ linear.T + centre
    return [_Part(look, np.column_stack([linear, centre]), outline @ linear.T + centre, hole)]


def _group(look: Look, centre: FloatArray, extent: float, generator: Generator) -> list[_Part]:
    """Six to nine small bodies close together, laid out like the seeds of a sunflower."""
    count = int(generator.integers(6, 10))
    index = np.arange(count)
    angles = index * 2.39996 + generator.uniform(0, 2 * np.pi)
    reach = 0.72 * extent * np.sqrt((index + 0.3) / count)
    places = centre + reach[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    places += generator.normal(0, 0.06 * extent, places.shape)
    sizes = extent * generator.uniform(0.28, 0.38, count)
    return [_single(look, place, float(size), generator)[0] for place, size in zip(places, sizes, strict=True)]


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


class BackgroundPainter:
    """Paints backgrounds and finishes images. The pool of noise is always the same one."""

    def __init__(self) -> None:
        generator = np.random.default_rng(2019)
        self._tiles = [_fractal_tile(generator) for _ in range(NUM_TILES)]
        self._tiles += [np.ascontiguousarray(tile.T) for tile in self._tiles]
        grain = generator.normal(128, 3.5, (2 * TILE_PIXELS, 2 * TILE_PIXELS, 3))
        self._sensor_noise = np.clip(grain, 0, 255).astype(np.uint8)

    def noise(self, width: int, height: int, generator: Generator) -> UInt8Array:
        """(H, W) uint8 of smooth noise around 128."""
        tile = self._tiles[int(generator.integers(len(self._tiles)))]
        side = int(generator.integers(TILE_PIXELS // 3, TILE_PIXELS))
        rows = side if width < height else max(2, side * height // width)
        columns = max(2, side * width // height) if width < height else side
        top = int(generator.integers(TILE_PIXELS - rows + 1))
        left = int(generator.integers(TILE_PIXELS - columns + 1))
        return cv2.resize(tile[top : top + rows, left : left + columns], (width, height)).astype(np.uint8, copy=False)

    def _surface(self, width: int, height: int, generator: Generator) -> UInt8Array:
        """(H, W, 3) uint8 of one material: noise between two muted colours."""
        hue, saturation, value = generator.random(), generator.uniform(0.03, 0.38), generator.uniform(0.25, 0.9)
        spread = generator.uniform(0.08, 0.3)
        ends = [
            colorsys.hsv_to_rgb((hue + shift) % 1, saturation, float(np.clip(value + sign * spread, 0.05, 1)))[::-1]
            for sign, shift in ((-1, 0.0), (1, float(generator.uniform(-0.08, 0.08))))
        ]
        colour_map = (np.linspace(ends[0], ends[1], 256) * 255).astype(np.uint8)[:, None, :]
        return cv2.applyColorMap(self.noise(width, height, generator), colour_map).astype(np.uint8, copy=False)

    def paint(self, width: int, height: int, generator: Generator) -> UInt8Array:
        """(H, W, 3) uint8, BGR: a wall, mostly with a floor, and up to three flat things in between."""
        image = self._surface(width, height, generator)
        if generator.random() < 0.75:
            horizon = height * generator.uniform(0.3, 0.8)
            tilt = height * generator.normal(0, 0.05)
            corners = [(0, horizon + tilt), (width, horizon - tilt), (width, height), (0, height)]
            self._lay(image, np.array(corners), generator)
        for _ in range(int(generator.integers(0, 4))):
            centre = generator.random(2) * (width, height)
            angles = np.sort(generator.random(4)) * 2 * np.pi
            reach = generator.uniform(0.1, 0.35) * max(width, height)
            self._lay(image, centre + reach * np.stack([np.cos(angles), np.sin(angles)], axis=1), generator)
        return image

    def _lay(self, image: UInt8Array, corners: npt.NDArray[np.float64], generator: Generator) -> None:
        height, width = image.shape[:2]
        region = np.zeros((height, width), dtype=np.uint8)
        cv2.fillPoly(region, [np.round(corners * 16).astype(np.int32)], 255, lineType=cv2.LINE_AA, shift=4)
        weight = region.astype(np.float32) / 255
        image[:] = cv2.blendLinear(self._surface(width, height, generator), image, weight, 1 - weight)

    def finish(self, image: UInt8Array, generator: Generator) -> UInt8Array:
        """(H, W, 3) uint8 under uneven light of some tint, slightly blurred at times, with sensor noise."""
        height, width = image.shape[:2]
        slope_x, slope_y = generator.normal(0, 0.13, 2)
        light = 1 + slope_x * np.linspace(-1, 1, width)[None, :] + slope_y * np.linspace(-1, 1, height)[:, None]
        tint = generator.uniform(0.82, 1.12) * generator.normal(1, 0.04, 3)
        image = lit(image, (np.clip(light, 0.5, 1.5)[..., None] * tint).astype(np.float32))
        if generator.random() < 0.25:
            image = cv2.GaussianBlur(image, (3, 3), generator.uniform(0.4, 0.9)).astype(np.uint8, copy=False)
        noise = self._sensor_noise
        rows, columns = min(height, noise.shape[0]), min(width, noise.shape[1])
        top = int(generator.integers(noise.shape[0] - rows + 1))
        left = int(generator.integers(noise.shape[1] - columns + 1))
        grain = noise[top : top + rows, left : left + columns]
        grain = np.pad(grain, ((0, height - rows), (0, width - columns), (0, 0)), mode='wrap')
        return cv2.addWeighted(image, 1.0, grain, 1.0, -128.0).astype(np.uint8, copy=False)


def _fractal_tile(generator: Generator) -> UInt8Array:
    """One tile (256, 256) uint8 of noise over several octaves, some of it drawn out like grain of wood."""
    grain = 1 if generator.random() < 0.6 else int(generator.integers(3, 9))
    persistence = generator.uniform(0.4, 0.75)
    tile = np.zeros((TILE_PIXELS, TILE_PIXELS), dtype=np.float32)
    for octave in range(2, 8):
        cells = 2**octave
        noise = generator.standard_normal((max(2, cells // grain), cells)).astype(np.float32)
        tile += persistence**octave * cv2.resize(noise, (TILE_PIXELS, TILE_PIXELS), interpolation=cv2.INTER_CUBIC)
    low, high = np.quantile(tile, [0.01, 0.99])
    scaled: UInt8Array = np.clip((tile - low) / (high - low) * 255, 0, 255).astype(np.uint8)
    return scaled


def lit(colours: UInt8Array, gain: Float32Array) -> UInt8Array:
    """Colours (H, W, 3) times a gain (H, W, 3) in [0, 2], in steps of 1/127: OpenCV is 100 times faster in bytes."""
    steps = np.clip(gain * 127, 0, 255).astype(np.uint8)
    return cv2.multiply(colours, steps, scale=1 / 127).astype(np.uint8, copy=False)


def _convex(points: Sequence[tuple[float, float]]) -> FloatArray:
    """Radii of a convex polygon around the origin; points (P, 2) clockwise on the screen."""
    corners = np.array(points)
    edges = np.roll(corners, -1, axis=0) - corners
    normals = np.stack([edges[:, 1], -edges[:, 0]], axis=1)
    offsets = (normals * corners).sum(axis=1)
    towards = DIRECTIONS @ normals.T
    distances = np.where(towards > 1e-9, offsets / np.maximum(towards, 1e-9), np.inf)
    radii: FloatArray = distances.min(axis=1)
    return radii


def _box(left: float, top: float, right: float, bottom: float) -> FloatArray:
    """Radii of an upright box around the origin; the four numbers are distances from it."""
    return _convex([(-left, -top), (right, -top), (right, bottom), (-left, bottom)])


def _circle(x: float, y: float, radius: float) -> FloatArray:
    """Radii of a circle that contains the origin."""
    along = DIRECTIONS @ np.array([x, y])
    radii: FloatArray = along + np.sqrt(along**2 - x**2 - y**2 + radius**2)
    return radii


def _waves(count: int, depth: float, *, sharpness: float = 1.0) -> FloatArray:
    """Radii with ``count`` lobes, one of them up; sharpness below 1 squares them off."""
    wave = np.cos(count * (ANGLES + np.pi / 2))
    radii: FloatArray = 1 + depth * np.sign(wave) * np.abs(wave) ** sharpness
    return radii


def _star(points: int, depth: float) -> FloatArray:
    """Radii of a star with straight edges, one point up."""
    phase = np.abs(((ANGLES + np.pi / 2) * points / (2 * np.pi) + 0.5) % 1 - 0.5) * 2
    inner = 1 - depth
    tip, turn = np.pi / points, phase * np.pi / points
    # Straight edge from the point (1, 0) to the notch inner·(cos tip, sin tip), in polar form.
    radii: FloatArray = (
        inner * np.sin(tip) / (inner * np.sin(tip) * np.cos(turn) + (1 - inner * np.cos(tip)) * np.sin(turn))
    )
    return radii


def normalised(radii: FloatArray) -> FloatArray:
    """Radii (A,) scaled to a longest one of 1."""
    return radii / float(radii.max())


_TRIANGLE = _convex([(float(np.cos(a)), float(np.sin(a))) for a in -np.pi / 2 + 2 * np.pi * np.arange(3) / 3])
_LOBES = np.maximum(_circle(-0.38, -0.3, 0.55), _circle(0.38, -0.3, 0.55))
_BODY, _TAIL = _convex([(0.2, -0.55), (1, 0), (0.2, 0.55), (-0.1, 0)]), _convex([(-1, -0.5), (0.5, 0), (-1, 0.5)])
_CAP = _convex([(-1, 0.1), (-0.6, -0.75), (0.6, -0.75), (1, 0.1)])
# Outlines and radii of their holes, 0 for none; root classes take them in turn, so neighbours differ much.
FAMILIES: tuple[tuple[FloatArray, float], ...] = (
    (_circle(0, 0, 1), 0.0),
    (_star(5, 0.5), 0.0),
    (np.maximum(_box(0.62, 0.25, 0.62, 1), _box(0.22, 1, 0.22, 1)), 0.0),  # bottle
    (_box(1, 0.62, 1, 0.62), 0.0),
    (_waves(5, 0.2), 0.0),  # flower
    (_TRIANGLE, 0.0),
    (_circle(0, 0, 1), 0.5),  # ring
    (np.maximum(_box(1, 0.3, 1, 0.3), _box(0.3, 1, 0.3, 1)), 0.0),  # cross
    (np.maximum(_circle(0, 0.3, 0.7), _convex([(0, -1), (0.64, 0.1), (0, 0.6), (-0.64, 0.1)])), 0.0),  # drop
    (_waves(9, 0.13, sharpness=0.3), 0.25),  # gear
    (np.maximum(_box(1, 0.85, 1, 0.25), _box(0.28, 0.3, 0.28, 1)), 0.0),  # table
    (1 + 0.45 * np.cos(2 * ANGLES), 0.0),  # peanut
    (_convex([(-0.75, -0.25), (0, -1), (0.75, -0.25), (0.75, 0.9), (-0.75, 0.9)]), 0.0),  # house
    (np.maximum(_LOBES, _convex([(-0.9, -0.1), (0.9, -0.1), (0, 1)])), 0.0),  # heart
    (np.maximum(_BODY, _TAIL), 0.0),  # fish
    (_box(0.9, 0.9, 0.9, 0.9), 0.45),  # frame
    (np.maximum(_CAP, _box(0.3, 0.3, 0.3, 1)), 0.0),  # mushroom
)
# Spreads the hues of neighbours, and also those of the root classes that share a silhouette: these are
# len(FAMILIES) ranks apart, and that many steps come to the golden ratio.
_HUE_STEP = (10 + 0.61803) / len(FAMILIES)


def rippled(radii: FloatArray, *, waves: int, amplitude: float) -> FloatArray:
    """Radii (A,) with that many bumps around the outline; amplitude as a share of the radius."""
    return normalised(radii * (1 + amplitude * np.cos(waves * (ANGLES + np.pi / 2))))


def stretched(radii: FloatArray, factor: float) -> FloatArray:
    """Radii (A,) of the outline made wider by ``factor`` and lower by the same."""
    points = radii[:, None] * DIRECTIONS * np.array([np.sqrt(factor), 1 / np.sqrt(factor)])
    angles = np.arctan2(points[:, 1], points[:, 0])
    return normalised(np.interp(ANGLES, angles % (2 * np.pi), np.hypot(points[:, 0], points[:, 1]), period=2 * np.pi))


@dataclass(frozen=True, eq=False)
class Traits:
    """Looks before they are painted; colours are hue, saturation and value, each in [0, 1]."""

    outline: FloatArray  # (A,); radii, the longest 1
    hole: float  # radius of the hole in the middle; 0 for none
    body: Hsv
    accent: Hsv  # of the pattern
    pattern: int  # 0 to NUM_PATTERNS − 1
    frequency: float  # periods of the pattern across the object
    angle: float  # direction of the pattern, radians
    marking: int  # −1 for none, 0 to NUM_MARKINGS − 1
    marking_colour: Hsv


def class_traits(taxonomy: Taxonomy) -> tuple[Traits, ...]:
    """Traits of every class, in label order."""
    traits: dict[int, Traits] = {}
    roots = sorted(taxonomy.root_classes, key=taxonomy.ids.__getitem__)
    rank_of = {label: rank for rank, label in enumerate(roots)}
    for label in np.argsort(taxonomy.arrays.depths, kind='stable').tolist():
        parents = taxonomy.parents[label]
        if not parents:
            traits[label] = root_traits(rank_of[label])
            continue
        siblings = sorted(taxonomy.children[parents[0]], key=taxonomy.ids.__getitem__)
        origin = traits[parents[0]]
        for parent in parents[1:]:
            origin = blended_traits(origin, traits[parent])
        traits[label] = child_traits(origin, siblings.index(label), depth=len(taxonomy.preferred_path(label)) - 1)
    return tuple(traits[label] for label in range(taxonomy.num_classes))


def root_traits(rank: int) -> Traits:
    """Traits of the root class of that rank."""
    outline, hole = FAMILIES[rank % len(FAMILIES)]
    hue = _sequence(rank, _HUE_STEP, start=0.02)
    body = (hue, 0.5 + 0.45 * _sequence(rank, 0.75488), 0.55 + 0.4 * _sequence(rank, 0.56984))
    accent_value = 0.25 if body[2] > 0.75 else 0.98
    return Traits(
        outline=stretched(normalised(outline), 0.8 + 0.45 * _sequence(rank, 0.81917)),
        hole=hole,
        body=body,
        accent=((hue + 0.3 + 0.4 * _sequence(rank, 0.67104)) % 1.0, 0.65, accent_value),
        pattern=(rank + rank // len(FAMILIES)) % NUM_PATTERNS,
        frequency=2.0 + 2.0 * _sequence(rank, 0.54970),
        angle=np.pi * _sequence(rank, 0.45026),
        marking=-1,
        marking_colour=((hue + 0.5) % 1.0, 0.25, 0.95 if body[2] < 0.8 else 0.3),
    )


def child_traits(parent: Traits, rank: int, *, depth: int) -> Traits:
    """Traits of the child of that rank, ``depth`` edges below a root class: the parent's with more detail."""
    scale = 0.75 ** (depth - 1)
    outline = stretched(parent.outline, float(np.exp(scale * 0.7 * (_sequence(rank, 0.61803) - 0.5))))
    outline = rippled(outline, waves=2 + (rank * 2 + depth) % 5, amplitude=scale * 0.12 * _sequence(rank, 0.75488))
    marking = parent.marking
    if depth > 1 or rank >= NUM_PATTERNS:
        marking = (parent.marking + 1 + rank + rank // NUM_PATTERNS) % NUM_MARKINGS
    hue, saturation, value = parent.body
    hue = (hue + scale * 0.12 * (_sequence(rank, 0.61803, start=0.0) - 0.5)) % 1.0
    value = float(np.clip(value + scale * 0.3 * (_sequence(rank, 0.56984, start=0.2) - 0.5), 0.25, 1.0))
    return replace(
        parent,
        outline=outline,
        body=(hue, saturation, value),
        pattern=(parent.pattern + 1 + rank) % NUM_PATTERNS if depth == 1 else parent.pattern,
        frequency=parent.frequency * float(np.exp(0.5 * (_sequence(rank, 0.67104) - 0.5))),
        angle=parent.angle + np.pi * _sequence(rank, 0.38197, start=0.0),
        marking=marking,
    )


def blended_traits(first: Traits, second: Traits) -> Traits:
    """Traits between those of two parents: mean silhouette, colours and pattern of both."""
    return replace(
        first,
        outline=normalised((first.outline + second.outline) / 2),
        hole=(first.hole + second.hole) / 2,
        accent=second.body,
        pattern=second.pattern,
        frequency=second.frequency,
        marking_colour=second.accent,
    )


def _sequence(rank: int, step: float, *, start: float = 0.5) -> float:
    """Term ``rank`` of the additive recurrence start + rank·step modulo 1, evenly spread in [0, 1)."""
    return (start + rank * step) % 1.0


@dataclass(frozen=True, eq=False)
class Look:
    """Traits painted as a square of T × T texture pixels in the object's own frame, upright."""

    traits: Traits
    pixels: int

    @cached_property
    def _grid(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        line = ((np.arange(self.pixels) + 0.5) / self.pixels * 2 - 1) * EXTENT
        x, y = np.meshgrid(line, line)
        radii = np.interp(np.arctan2(y, x), ANGLES, self.traits.outline, period=2 * np.pi)
        return x, y, np.hypot(x, y) / radii

    @cached_property
    def texture(self) -> UInt8Array:
        """(T, T, 3) uint8, BGR: body, pattern and marking without light."""
        traits = self.traits
        x, y, rho = self._grid
        cosine, sine = np.cos(traits.angle), np.sin(traits.angle)
        strength = 0.85 * _pattern(traits.pattern, cosine * x + sine * y, cosine * y - sine * x, traits.frequency)
        colours = _bgr(traits.body) + strength[..., None] * (_bgr(traits.accent) - _bgr(traits.body))
        if traits.marking >= 0:
            mark = _marking(traits.marking, x, y, rho)[..., None]
            colours += mark * (_bgr(traits.marking_colour) - colours)
        return np.clip(colours, 0, 255).astype(np.uint8)

    @cached_property
    def relief(self) -> Float32Array:
        """(T, T, 2) float32: slope of a cushion-like surface to the right and down, about [−1, 1]."""
        rho = self._grid[2]
        inner = self.traits.hole
        across = np.abs(rho - (1 + inner) / 2) / ((1 - inner) / 2) if inner else rho
        height = np.sqrt(np.clip(1.08 - np.clip(across, 0, 1) ** 3, 0.02, None))
        slope_y, slope_x = np.gradient(height * self.pixels / (2 * EXTENT))
        return np.clip(-np.stack([slope_x, slope_y], axis=-1) * 0.55, -1, 1).astype(np.float32)


def _bgr(colour: Hsv) -> FloatArray:
    return np.array(colorsys.hsv_to_rgb(*colour)[::-1]) * 255


def _pattern(kind: int, x: FloatArray, y: FloatArray, frequency: float) -> FloatArray:
    """Strength of a pattern in [0, 1] at points (T, T) of the object's own frame."""
    turn = 2 * np.pi * frequency / 2
    radius, polar = np.hypot(x, y), np.arctan2(y, x)
    waves = (
        lambda: np.cos(turn * x),  # stripes
        lambda: 1.6 * np.cos(turn * x) * np.cos(turn * y),  # checks
        lambda: np.sin(turn * x) + np.sin(turn * y) - 0.6,  # dots
        lambda: np.cos(1.6 * turn * radius),  # rings
        lambda: np.full_like(x, -1.0),  # plain
        lambda: np.cos(2 * round(frequency) * polar),  # rays
        lambda: np.cos(turn * (x + 0.25 * np.abs((y * frequency) % 2 - 1))),  # zigzag
    )[kind]()
    strength: FloatArray = np.clip(0.5 + 2.0 * waves, 0, 1)
    return strength


def _marking(kind: int, x: FloatArray, y: FloatArray, rho: FloatArray) -> FloatArray:
    """Strength of a marking in [0, 1]; rho (T, T) is the distance from the centre in outline radii."""
    inside = (
        lambda: -0.3 - y,  # cap
        lambda: 0.17 - np.abs(y),  # belt
        lambda: rho - 0.78,  # rim
        lambda: 0.36 - rho,  # core
        lambda: y - 0.3,  # foot
        lambda: 0.15 - np.abs(x),  # ridge
    )[kind]()
    strength: FloatArray = np.clip(0.5 + 20 * inside, 0, 1)
    return strength
