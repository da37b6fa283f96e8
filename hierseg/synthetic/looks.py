"""What a class looks like: traits that follow from its path in the taxonomy.

A root class sets silhouette, colours and pattern. Every step down keeps what the parent has and adds
detail: it bends the silhouette a little, shifts the colours a little, changes the pattern and, further
down, adds a marking. Siblings therefore look more alike than strangers. A class with several parents
blends their silhouettes, wears the first one's colour and the second one's pattern and colour on top.

Which variant a class takes follows from its rank among its siblings by id, through additive recurrences
(golden ratio and kin) that spread any number of siblings evenly; it depends neither on the label order
nor on a seed, so a class looks the same in every split and every run. Shape letters: A angles, T texture pixels.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from hierseg.synthetic.outlines import ANGLES, FAMILIES, FloatArray, family_outline, normalised, rippled, stretched
from hierseg.taxonomy import Taxonomy

UInt8Array = npt.NDArray[np.uint8]
Float32Array = npt.NDArray[np.float32]
Hsv = tuple[float, float, float]

EXTENT = 1.2
"""A texture covers the square [−EXTENT, EXTENT]² around an outline of radius 1."""

# Spreads the hues of neighbours, and also those of the root classes that share a silhouette: these are
# len(FAMILIES) ranks apart, and that many steps come to the golden ratio.
_HUE_STEP = (10 + 0.61803) / len(FAMILIES)

NUM_PATTERNS = 7
NUM_MARKINGS = 6


@dataclass(frozen=True, eq=False)
class Traits:
    """Looks before they are painted.

    Attributes:
        outline: (A,) float64; radii, the longest 1.
        hole: Radius of the hole in the middle; 0 for none.
        body: Hue, saturation and value of the body, each in [0, 1].
        accent: The same of the pattern.
        pattern: Which pattern, 0 to NUM_PATTERNS − 1.
        frequency: Periods of the pattern across the object.
        angle: Direction of the pattern, radians.
        marking: Which marking, −1 for none, 0 to NUM_MARKINGS − 1.
        marking_colour: Hue, saturation and value of the marking.
    """

    outline: FloatArray
    hole: float
    body: Hsv
    accent: Hsv
    pattern: int
    frequency: float
    angle: float
    marking: int
    marking_colour: Hsv


def _sequence(rank: int, step: float, *, start: float = 0.5) -> float:
    """Term ``rank`` of the additive recurrence start + rank·step modulo 1, evenly spread in [0, 1)."""
    return (start + rank * step) % 1.0


def _shifted(colour: Hsv, *, hue: float = 0.0, value: float = 0.0) -> Hsv:
    return (colour[0] + hue) % 1.0, colour[1], float(np.clip(colour[2] + value, 0.25, 1.0))


def root_traits(rank: int) -> Traits:
    """Traits of the root class of that rank."""
    outline, hole = family_outline(rank)
    hue = _sequence(rank, _HUE_STEP, start=0.02)
    body = (hue, 0.5 + 0.45 * _sequence(rank, 0.75488), 0.55 + 0.4 * _sequence(rank, 0.56984))
    accent_value = 0.25 if body[2] > 0.75 else 0.98
    return Traits(
        outline=stretched(outline, 0.8 + 0.45 * _sequence(rank, 0.81917)),
        hole=hole,
        body=body,
        accent=((hue + 0.3 + 0.4 * _sequence(rank, 0.67104)) % 1.0, 0.65, accent_value),
        pattern=(rank + rank // len(FAMILIES)) % NUM_PATTERNS,
        frequency=2.0 + 2.0 * _sequence(rank, 0.54970),
        angle=np.pi * _sequence(rank, 0.45026),
        marking=-1,
        marking_colour=((hue + 0.5) % 1.0, 0.25, 0.95 if body[2] < 0.8 else 0.3),
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


def child_traits(parent: Traits, rank: int, *, depth: int) -> Traits:
    """Traits of the child of that rank, ``depth`` edges below a root class: the parent's with more detail."""
    scale = 0.75 ** (depth - 1)
    outline = stretched(parent.outline, float(np.exp(scale * 0.7 * (_sequence(rank, 0.61803) - 0.5))))
    outline = rippled(outline, waves=2 + (rank * 2 + depth) % 5, amplitude=scale * 0.12 * _sequence(rank, 0.75488))
    marking = parent.marking
    if depth > 1 or rank >= NUM_PATTERNS:
        marking = (parent.marking + 1 + rank + rank // NUM_PATTERNS) % NUM_MARKINGS
    return replace(
        parent,
        outline=outline,
        body=_shifted(
            parent.body,
            hue=scale * 0.12 * (_sequence(rank, 0.61803, start=0.0) - 0.5),
            value=scale * 0.3 * (_sequence(rank, 0.56984, start=0.2) - 0.5),
        ),
        pattern=(parent.pattern + 1 + rank) % NUM_PATTERNS if depth == 1 else parent.pattern,
        frequency=parent.frequency * float(np.exp(0.5 * (_sequence(rank, 0.67104) - 0.5))),
        angle=parent.angle + np.pi * _sequence(rank, 0.38197, start=0.0),
        marking=marking,
    )


def class_traits(taxonomy: Taxonomy) -> tuple[Traits, ...]:
    """Traits of every class, in label order."""
    arrays = taxonomy.arrays
    traits: dict[int, Traits] = {}
    roots = sorted(taxonomy.root_classes, key=taxonomy.ids.__getitem__)
    rank_of = {label: rank for rank, label in enumerate(roots)}
    for label in np.argsort(arrays.depths, kind='stable').tolist():
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


@dataclass(frozen=True, eq=False)
class Look:
    """Traits painted as a square of T × T texture pixels in the object's own frame, upright.

    Attributes:
        traits: What it was painted from.
        pixels: T, the side of the textures.
    """

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
