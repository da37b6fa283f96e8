"""Silhouettes as polar outlines: one radius for each of A fixed angles.

A polar outline is star-shaped about its centre, so that blending two of them (a class with two
parents), rippling or stretching one always gives a sensible silhouette again. The y axis points down,
as in images; "up" is the angle −π/2. Shape letters: A angles, P corner points.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

NUM_ANGLES = 128
ANGLES: FloatArray = np.arange(NUM_ANGLES, dtype=np.float64) * (2 * np.pi / NUM_ANGLES)
DIRECTIONS: FloatArray = np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1)


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


def _regular(corners: int) -> FloatArray:
    """Radii of a regular polygon that stands on an edge or a corner, pointing up."""
    angles = -np.pi / 2 + 2 * np.pi * np.arange(corners) / corners
    return _convex([(float(np.cos(a)), float(np.sin(a))) for a in angles])


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


def _union(*parts: FloatArray) -> FloatArray:
    radii: FloatArray = np.max(parts, axis=0)
    return radii


def _heart() -> FloatArray:
    return _union(_circle(-0.38, -0.3, 0.55), _circle(0.38, -0.3, 0.55), _convex([(-0.9, -0.1), (0.9, -0.1), (0, 1)]))


def _fish() -> FloatArray:
    body, tail = [(0.2, -0.55), (1, 0), (0.2, 0.55), (-0.1, 0)], [(-1, -0.5), (0.5, 0), (-1, 0.5)]
    return _union(_convex(body), _convex(tail))


def _mushroom() -> FloatArray:
    return _union(_convex([(-1, 0.1), (-0.6, -0.75), (0.6, -0.75), (1, 0.1)]), _box(0.3, 0.3, 0.3, 1))


# Ordered so that neighbours differ much: root classes take them in turn. (outline, radius of the hole)
FAMILIES: tuple[tuple[Callable[[], FloatArray], float], ...] = (
    (lambda: _circle(0, 0, 1), 0.0),
    (lambda: _star(5, 0.5), 0.0),
    (lambda: _union(_box(0.62, 0.25, 0.62, 1), _box(0.22, 1, 0.22, 1)), 0.0),  # bottle
    (lambda: _box(1, 0.62, 1, 0.62), 0.0),
    (lambda: _waves(5, 0.2), 0.0),  # flower
    (lambda: _regular(3), 0.0),
    (lambda: _circle(0, 0, 1), 0.5),  # ring
    (lambda: _union(_box(1, 0.3, 1, 0.3), _box(0.3, 1, 0.3, 1)), 0.0),  # cross
    (lambda: _union(_circle(0, 0.3, 0.7), _convex([(0, -1), (0.64, 0.1), (0, 0.6), (-0.64, 0.1)])), 0.0),  # drop
    (lambda: _waves(9, 0.13, sharpness=0.3), 0.25),  # gear
    (lambda: _union(_box(1, 0.85, 1, 0.25), _box(0.28, 0.3, 0.28, 1)), 0.0),  # table
    (lambda: 1 + 0.45 * np.cos(2 * ANGLES), 0.0),  # peanut
    (lambda: _convex([(-0.75, -0.25), (0, -1), (0.75, -0.25), (0.75, 0.9), (-0.75, 0.9)]), 0.0),  # house
    (_heart, 0.0),
    (_fish, 0.0),
    (lambda: _box(0.9, 0.9, 0.9, 0.9), 0.45),  # frame
    (_mushroom, 0.0),
)


def normalised(radii: FloatArray) -> FloatArray:
    """Radii (A,) scaled to a longest one of 1."""
    scaled: FloatArray = radii / radii.max()
    return scaled


def family_outline(index: int) -> tuple[FloatArray, float]:
    """Outline (A,) and radius of the hole (0 for none) of a silhouette family, taken in turn."""
    outline, hole = FAMILIES[index % len(FAMILIES)]
    return normalised(outline()), hole


def rippled(radii: FloatArray, *, waves: int, amplitude: float) -> FloatArray:
    """Radii (A,) with that many bumps around the outline; amplitude as a share of the radius."""
    return normalised(radii * (1 + amplitude * np.cos(waves * (ANGLES + np.pi / 2))))


def stretched(radii: FloatArray, factor: float) -> FloatArray:
    """Radii (A,) of the outline made wider by ``factor`` and lower by the same."""
    points = radii[:, None] * DIRECTIONS * np.array([np.sqrt(factor), 1 / np.sqrt(factor)])
    angles = np.arctan2(points[:, 1], points[:, 0])
    return normalised(np.interp(ANGLES, angles % (2 * np.pi), np.hypot(points[:, 0], points[:, 1]), period=2 * np.pi))
