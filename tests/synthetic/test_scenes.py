"""Outlines, looks of classes, and scenes."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from taxonomies import lowest_common_ancestors

from hierseg.synthetic.options import default_taxonomy
from hierseg.synthetic.scenes import (
    ANGLES,
    FAMILIES,
    Look,
    ScenePainter,
    class_traits,
    normalised,
    rippled,
    stretched,
)
from hierseg.taxonomy import Taxonomy, read_taxonomy

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


PAINTER = ScenePainter(TAXONOMY, size=96)


def crops(label: int, count: int, *, seed: int) -> npt.NDArray[np.float64]:
    """Features (count, F) of objects of a class cut out of painted scenes.

    12 × 12 pixels with grey around the object, and 8 × 8 bins of its hue and saturation, as much again.
    """
    generator = np.random.default_rng(seed)
    features = []
    for _ in range(count):
        scene = PAINTER.paint([label], [False], generator)
        rows, columns = np.nonzero(scene.owners == 0)
        picture = np.where((scene.owners == 0)[..., None], scene.image, 128)
        crop = picture[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].astype(np.uint8)
        pixels = cv2.resize(crop, (12, 12), interpolation=cv2.INTER_AREA).astype(np.float64).ravel()
        visible = (scene.owners == 0).astype(np.uint8)
        colours = cv2.cvtColor(scene.image, cv2.COLOR_BGR2HSV)
        histogram = cv2.calcHist([colours], [0, 1], visible, [8, 8], [0, 180, 0, 256]).ravel() / visible.sum()
        features.append(np.concatenate([pixels / pixels.size, histogram * 16]))
    return np.array(features)


@pytest.fixture(scope='module')
def class_means() -> dict[int, npt.NDArray[np.float64]]:
    return {label: crops(label, 10, seed=label).mean(axis=0) for label in range(TAXONOMY.num_classes)}


def distance(means: dict[int, npt.NDArray[np.float64]], first: int, second: int) -> float:
    return float(np.abs(means[first] - means[second]).sum())


def relation(first: int, second: int) -> str:
    if set(TAXONOMY.parents[first]) & set(TAXONOMY.parents[second]):
        return 'siblings'
    if first in TAXONOMY.parents[second] or second in TAXONOMY.parents[first]:
        return 'parent and child'
    return 'relatives' if lowest_common_ancestors(TAXONOMY, first, second) else 'strangers'


def test_relatives_look_more_alike_than_strangers(class_means: dict[int, npt.NDArray[np.float64]]) -> None:
    distances: dict[str, list[float]] = {'siblings': [], 'parent and child': [], 'relatives': [], 'strangers': []}
    for first, second in combinations(range(TAXONOMY.num_classes), 2):
        distances[relation(first, second)].append(distance(class_means, first, second))
    mean = {name: np.mean(values) for name, values in distances.items()}
    assert mean['siblings'] < 0.8 * mean['strangers']
    assert mean['parent and child'] < 0.8 * mean['strangers']


def test_a_class_with_two_parents_resembles_both(class_means: dict[int, npt.NDArray[np.float64]]) -> None:
    teddy = TAXONOMY.names.index('Teddy bear')
    strangers = [
        label for label in range(TAXONOMY.num_classes) if label != teddy and relation(teddy, label) == 'strangers'
    ]
    usual = np.mean([distance(class_means, teddy, label) for label in strangers])
    for parent in TAXONOMY.parents[teddy]:
        assert distance(class_means, teddy, parent) < usual


def test_objects_can_be_told_apart_by_their_looks(class_means: dict[int, npt.NDArray[np.float64]]) -> None:
    """A nearest-mean classifier on tiny crops: what it can do, a network can learn."""
    leaves = list(TAXONOMY.leaves)
    means = np.array([class_means[leaf] for leaf in leaves])
    hits = [
        leaves[int(np.abs(means - crop).mean(axis=1).argmin())] == leaf
        for leaf in leaves
        for crop in crops(leaf, 4, seed=1000 + leaf)
    ]
    assert np.mean(hits) > 0.75


def textures(taxonomy: Taxonomy) -> dict[str, npt.NDArray[np.float64]]:
    """Texture inside the outline, white outside, by class id."""
    result = {}
    for class_id, traits in zip(taxonomy.ids, class_traits(taxonomy), strict=True):
        look = Look(traits, 24)
        inside = (look._grid[2] < 1) & (look._grid[2] > traits.hole)
        result[class_id] = np.where(inside[..., None], look.texture, 255).astype(np.float64)
    return result


def test_looks_do_not_depend_on_the_label_order() -> None:
    reversed_ids = TAXONOMY.ids[::-1]
    edges = [
        (TAXONOMY.ids[child], TAXONOMY.ids[parent])
        for child, parents in enumerate(TAXONOMY.parents)
        for parent in parents
    ]
    original, renumbered = textures(TAXONOMY), textures(Taxonomy.from_edges(reversed_ids, edges))
    for class_id in TAXONOMY.ids:
        np.testing.assert_array_equal(original[class_id], renumbered[class_id])


def assert_leaves_distinct(taxonomy: Taxonomy, *, least: float) -> None:
    """The objects in a picture are leaves, so it is these that must differ: in grey levels per pixel."""
    by_class = textures(taxonomy)
    pictures = np.array([by_class[taxonomy.ids[leaf]].ravel() for leaf in taxonomy.leaves])
    for index in range(1, len(pictures)):
        nearest = np.abs(pictures[:index] - pictures[index]).mean(axis=1).min()
        assert nearest > least, taxonomy.names[taxonomy.leaves[index]]


def test_all_leaves_look_different() -> None:
    assert_leaves_distinct(TAXONOMY, least=10)


def test_the_real_leaves_look_different(test_data: Path) -> None:
    folder = test_data / 'openimages'
    taxonomy = read_taxonomy(
        folder / 'challenge-2019-label300-segmentable-hierarchy.json',
        classes=folder / 'challenge-2019-classes-description-segmentable.csv',
    )
    assert_leaves_distinct(taxonomy, least=5)


def test_thirty_children_and_five_levels_look_different() -> None:
    children = [f'c{index:02d}' for index in range(30)]
    chain = ['c00/a', 'c00/a/b', 'c00/a/b/c']
    edges = [(child, 'root') for child in children] + list(zip(chain, ['c00', *chain], strict=False))
    assert_leaves_distinct(Taxonomy.from_edges(['root', *children, *chain], edges), least=2)


@pytest.mark.parametrize('index', range(len(FAMILIES)))
def test_every_family_is_a_positive_outline_of_radius_one(index: int) -> None:
    radii, hole = FAMILIES[index]
    outline = normalised(radii)
    assert outline.shape == ANGLES.shape
    assert outline.max() == pytest.approx(1)
    assert outline.min() > 0.1
    assert 0 <= hole < 1


def test_families_differ_from_each_other() -> None:
    outlines = [(*normalised(radii), hole) for radii, hole in FAMILIES]
    for first in range(len(outlines)):
        for second in range(first):
            assert np.abs(np.subtract(outlines[first], outlines[second])).max() > 0.1


def test_a_square_outline_has_its_corners_at_45_degrees() -> None:
    # The frame, family 15, is a square of half side s: radius s to the right and s·√2 to the corner,
    # which is scaled to 1. So the radius to the right is 1/√2.
    outline = normalised(FAMILIES[15][0])
    assert outline[0] == pytest.approx(np.sqrt(0.5))
    assert outline[len(ANGLES) // 8] == pytest.approx(1)


def test_stretching_a_circle_by_four_makes_it_four_times_as_wide_as_high() -> None:
    circle, _ = FAMILIES[0]
    wide = stretched(circle, 4.0)
    quarter = len(ANGLES) // 4
    assert wide[0] / wide[quarter] == pytest.approx(4, rel=0.02)


def test_ripples_put_bumps_around_the_outline() -> None:
    circle, _ = FAMILIES[0]
    bumpy = rippled(circle, waves=3, amplitude=0.2)
    # The largest to the smallest radius is (1 + 0.2) : (1 − 0.2).
    assert bumpy.max() / bumpy.min() == pytest.approx(1.5, rel=0.01)
    assert rippled(circle, waves=3, amplitude=0.0) == pytest.approx(circle)
