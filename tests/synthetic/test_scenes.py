from __future__ import annotations

import numpy as np
import pytest

from hierseg.synthetic.options import default_taxonomy
from hierseg.synthetic.scenes import ScenePainter

TAXONOMY = default_taxonomy()
LEAVES = TAXONOMY.leaves


@pytest.fixture(scope='module')
def painter() -> ScenePainter:
    return ScenePainter(TAXONOMY, size=96)


def test_every_object_finds_a_place_and_stays_visible_in_a_crowd(painter: ScenePainter) -> None:
    generator = np.random.default_rng(5)
    painted = []
    for _ in range(20):
        labels = generator.choice(LEAVES, 10).tolist()
        scene = painter.paint(labels, [False] * 10, generator)
        painted.extend(scene.is_painted.tolist())
        for index in np.flatnonzero(scene.is_painted):
            assert (scene.owners == index).sum() >= 5
        assert set(np.unique(scene.owners)) - {-1} == set(np.flatnonzero(scene.is_painted))
    assert np.mean(painted) > 0.98


def test_objects_overlap(painter: ScenePainter) -> None:
    """Somewhere in a few crowded scenes a boundary between two objects is seen."""
    generator = np.random.default_rng(0)
    touching = 0
    for _ in range(10):
        owners = painter.paint(generator.choice(LEAVES, 8).tolist(), [False] * 8, generator).owners
        left, right = owners[:, :-1], owners[:, 1:]
        touching += int(((left != right) & (left >= 0) & (right >= 0)).any())
    assert touching >= 5


def test_group_is_a_cluster_of_several_bodies(painter: ScenePainter) -> None:
    """The bodies of a group leave gaps: less of its box is filled than of a disc's, which is π/4."""
    fills = []
    for seed in range(8):
        owners = painter.paint([LEAVES[0]], [True], np.random.default_rng(seed)).owners
        rows, columns = np.nonzero(owners == 0)
        box = (rows.max() - rows.min() + 1) * (columns.max() - columns.min() + 1)
        fills.append(len(rows) / box)
    assert np.mean(fills) < 0.7


def test_size_scales_images_and_objects() -> None:
    areas = {}
    for size in (64, 256):
        painter = ScenePainter(TAXONOMY, size=size)
        scenes = [painter.paint([LEAVES[seed]], [False], np.random.default_rng(seed)) for seed in range(6)]
        assert all(max(scene.image.shape[:2]) == size for scene in scenes)
        areas[size] = np.mean([(scene.owners >= 0).sum() for scene in scenes])
    # Four times the side is sixteen times the area.
    assert areas[256] / areas[64] == pytest.approx(16, rel=0.35)


def test_images_differ_in_aspect_ratio(painter: ScenePainter) -> None:
    shapes = {painter.paint([], [], np.random.default_rng(seed)).image.shape[:2] for seed in range(30)}
    assert {(96, 96), (72, 96), (96, 72), (64, 96)} <= shapes


def test_large_images_get_noise_everywhere() -> None:
    """Larger than the pool's noise tile of 512 pixels: it repeats rather than ends."""
    scene = ScenePainter(TAXONOMY, size=700).paint([], [], np.random.default_rng(1))
    corner = scene.image[-40:, -40:].astype(int)
    assert np.abs(np.diff(corner, axis=1)).mean() > 0.5
