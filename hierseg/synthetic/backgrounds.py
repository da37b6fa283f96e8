"""Textured backgrounds, light and sensor noise, cheap enough for hundreds of images a second.

Expensive noise is drawn once into a pool of tiles; an image takes random crops of them. Shape letters:
H and W image size in pixels.
"""

from __future__ import annotations

import colorsys

import cv2
import numpy as np
import numpy.typing as npt

from hierseg.synthetic.looks import Float32Array, UInt8Array

TILE_PIXELS = 256
NUM_TILES = 24


def _fractal_tile(generator: np.random.Generator) -> UInt8Array:
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


class BackgroundPainter:
    """Paints backgrounds and finishes images. The pool of noise is always the same one."""

    def __init__(self) -> None:
        generator = np.random.default_rng(2019)
        self._tiles = [_fractal_tile(generator) for _ in range(NUM_TILES)]
        self._tiles += [np.ascontiguousarray(tile.T) for tile in self._tiles]
        grain = generator.normal(128, 3.5, (2 * TILE_PIXELS, 2 * TILE_PIXELS, 3))
        self._sensor_noise = np.clip(grain, 0, 255).astype(np.uint8)

    def noise(self, width: int, height: int, generator: np.random.Generator) -> UInt8Array:
        """(H, W) uint8 of smooth noise around 128."""
        tile = self._tiles[int(generator.integers(len(self._tiles)))]
        side = int(generator.integers(TILE_PIXELS // 3, TILE_PIXELS))
        rows, columns = (
            (side, max(2, side * width // height)) if width < height else (max(2, side * height // width), side)
        )
        top = int(generator.integers(TILE_PIXELS - rows + 1))
        left = int(generator.integers(TILE_PIXELS - columns + 1))
        return cv2.resize(tile[top : top + rows, left : left + columns], (width, height)).astype(np.uint8, copy=False)

    def _surface(self, width: int, height: int, generator: np.random.Generator) -> UInt8Array:
        """(H, W, 3) uint8 of one material: noise between two muted colours."""
        hue, saturation, value = generator.random(), generator.uniform(0.03, 0.38), generator.uniform(0.25, 0.9)
        spread = generator.uniform(0.08, 0.3)
        ends = [
            colorsys.hsv_to_rgb((hue + shift) % 1, saturation, float(np.clip(value + sign * spread, 0.05, 1)))[::-1]
            for sign, shift in ((-1, 0.0), (1, float(generator.uniform(-0.08, 0.08))))
        ]
        ramp = np.linspace(ends[0], ends[1], 256) * 255
        colour_map = ramp.astype(np.uint8)[:, None, :]
        return cv2.applyColorMap(self.noise(width, height, generator), colour_map).astype(np.uint8, copy=False)

    def paint(self, width: int, height: int, generator: np.random.Generator) -> UInt8Array:
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

    def _lay(self, image: UInt8Array, corners: npt.NDArray[np.float64], generator: np.random.Generator) -> None:
        height, width = image.shape[:2]
        region = np.zeros((height, width), dtype=np.uint8)
        cv2.fillPoly(region, [np.round(corners * 16).astype(np.int32)], 255, lineType=cv2.LINE_AA, shift=4)
        weight = region.astype(np.float32) / 255
        image[:] = cv2.blendLinear(self._surface(width, height, generator), image, weight, 1 - weight)

    def finish(self, image: UInt8Array, generator: np.random.Generator) -> UInt8Array:
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
        if (rows, columns) != (height, width):
            grain = np.tile(grain, (-(-height // rows), -(-width // columns), 1))[:height, :width]
        return cv2.addWeighted(image, 1.0, np.ascontiguousarray(grain), 1.0, -128.0).astype(np.uint8, copy=False)
