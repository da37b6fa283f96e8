"""Colours of classes."""

from __future__ import annotations

import colorsys
from itertools import combinations

import numpy as np

from hierseg.report.drawing import class_colors, text_color
from hierseg.taxonomy import Taxonomy


def hue(color: np.ndarray) -> float:
    return colorsys.rgb_to_hsv(*(color / 255))[0]


def hue_distance(one: np.ndarray, other: np.ndarray) -> float:
    difference = abs(hue(one) - hue(other))
    return min(difference, 1 - difference)


def test_families_share_a_hue_and_members_differ():
    # Six root classes with eight children each.
    ids = [f'root{root}' for root in range(6)] + [f'child{root}.{child}' for root in range(6) for child in range(8)]
    edges = [(f'child{root}.{child}', f'root{root}') for root in range(6) for child in range(8)]
    taxonomy = Taxonomy.from_edges(ids, edges)
    colors = class_colors(taxonomy)
    assert colors.shape == (54, 3)
    assert len({tuple(color) for color in colors.tolist()}) == 54
    for root in range(6):
        for child in range(8):
            assert hue_distance(colors[root], colors[6 + root * 8 + child]) <= 0.035
    # Six steps of the golden ratio lie at least 0.09 of the circle apart.
    assert min(hue_distance(colors[a], colors[b]) for a, b in combinations(range(6), 2)) > 0.085


def test_a_class_with_two_parents_takes_the_preferred_ones_hue():
    edges = [('teddy', 'toy'), ('teddy', 'animal')]
    colors = class_colors(Taxonomy.from_edges(['animal', 'toy', 'teddy'], edges))
    assert hue_distance(colors[2], colors[1]) < 0.035 < hue_distance(colors[2], colors[0])


def test_text_is_dark_on_light_and_light_on_dark():
    assert text_color(np.array([250, 240, 120], dtype=np.uint8)) == (0, 0, 0)
    assert text_color(np.array([60, 40, 160], dtype=np.uint8)) == (255, 255, 255)
