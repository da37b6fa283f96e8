"""Photographs and the shapes on them."""

from __future__ import annotations

import io
import re

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from hierseg.drawing import class_colors
from hierseg.report.comparison import PanelInstance, draw_panel, photograph, photograph_side
from hierseg.report.comparison.panels import (
    ALL_PHOTOGRAPHS,
    BYTES_PER_PIXEL,
    LONG_SIDE,
    MOST_INSTANCES,
    SMALLEST_SIDE,
    instance_color,
)
from hierseg.synthetic import default_taxonomy

SAMPLE = default_taxonomy()


def painted(outline: str, size: tuple[int, int]) -> np.ndarray:
    """The pixels (height, width) that a path of an SVG covers, holes left out."""
    polygons = []
    for part in re.findall(r'M([^z]*)z', outline):
        numbers = np.array([int(number) for number in re.findall(r'-?\d+', part)]).reshape(-1, 2)
        polygons.append(numbers.cumsum(axis=0).astype(np.int32))
    canvas = np.zeros(size, dtype=np.uint8)
    cv2.fillPoly(canvas, polygons, 1)
    return canvas > 0


@pytest.mark.parametrize('as_run_lengths', [False, True])
def test_an_outline_covers_its_mask(as_run_lengths):
    rows, columns = np.mgrid[:300, :400]
    distance = np.hypot(rows - 150, columns - 200)
    mask = (distance < 120) & (distance > 50)  # a ring
    given = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))['counts'] if as_run_lengths else mask
    panel = draw_panel((300, 400), [PanelInstance(0, np.array([80, 30, 320, 270]), given)], taxonomy=SAMPLE)
    (shown,) = panel.instances
    assert shown.box == (120, 45, 360, 360)  # 1.5 times
    expected = cv2.resize(mask.astype(np.uint8), (600, 450)) > 0
    found = painted(shown.outline, (450, 600))
    assert (found & expected).sum() / (found | expected).sum() > 0.97
    assert not found[225, 300]
    assert len(shown.outline) < 600


def test_words_and_scores_of_a_panel():
    label = 1
    scores = np.zeros(SAMPLE.num_classes)
    scores[list(SAMPLE.preferred_path(label))] = 0.98
    scores[label] = 0.71
    best = scores.max()
    panel = draw_panel(
        (300, 400),
        [
            PanelInstance(label, np.array([100, 150, 300, 250]), class_scores=scores, identity=4),
            PanelInstance(0, np.array([10, 10, 60, 60]), group_of=True),
        ],
        taxonomy=SAMPLE,
        errors=['missed'],
        score=0.5,
    )
    large, small = panel.instances
    assert large.text.endswith(f'{SAMPLE.names[label]} 0.71')
    assert (large.score, small.score) == (int(best * 100), None)
    assert (large.dashed, small.dashed) == (False, True)
    assert small.text.endswith('(group)')
    assert large.class_color == '#{:02x}{:02x}{:02x}'.format(*class_colors(SAMPLE)[label])
    assert (large.own_color, small.own_color) == (instance_color(4), instance_color(0))
    assert large.outline == ''
    assert (panel.errors, panel.score) == (('missed',), 0.5)
    for shown in panel.instances:
        x, y, width, height = shown.label.rectangle
        assert 0 <= x <= x + width <= 600
        assert 0 <= y <= y + height <= 450


def test_scores_are_rounded_down():
    # A slider at 0.3 must not show 0.2999, nor hide 0.3.
    found = [PanelInstance(0, np.array([0, 0, 9, 9]), class_scores=np.array([score])) for score in (0.2999, 0.3, 1.0)]
    panel = draw_panel((10, 10), found, taxonomy=SAMPLE)
    assert sorted(entry.score for entry in panel.instances) == [29, 30, 100]


def test_of_very_many_instances_the_surest_are_drawn():
    found = [
        PanelInstance(0, np.array([0, 0, 9, 9]), class_scores=np.array([at / 1000]))
        for at in range(MOST_INSTANCES + 50)
    ]
    panel = draw_panel((10, 10), found, taxonomy=SAMPLE)
    assert len(panel.instances) == MOST_INSTANCES
    assert min(entry.score for entry in panel.instances) == 5  # 0.05 on


def test_neighbours_have_colours_far_apart():
    colors = np.array([[int(instance_color(at)[1 + 2 * c : 3 + 2 * c], 16) for c in range(3)] for at in range(40)])
    for apart in (1, 2, 3):
        assert np.abs(colors[apart:] - colors[:-apart]).max(axis=1).min() > 60


def test_photographs_are_shrunk_and_never_enlarged():
    large = photograph(np.zeros((900, 1200, 3), dtype=np.uint8))
    assert Image.open(io.BytesIO(large.content)).size == (600, 450)
    small = photograph(np.zeros((160, 120, 3), dtype=np.uint8))
    assert Image.open(io.BytesIO(small.content)).size == (120, 160)
    assert (large.size, small.size) == ((600, 450), (450, 600))  # of the drawings
    tiny = photograph(np.zeros((900, 1200, 3), dtype=np.uint8), side=200)
    assert Image.open(io.BytesIO(tiny.content)).size == (200, 150)


def test_more_photographs_are_smaller_ones():
    assert [photograph_side(count) for count in (0, 1, 1000)] == [LONG_SIDE] * 3
    assert photograph_side(10**6) == SMALLEST_SIDE
    # As many as fit: side² · 3/4 pixels each.
    side = photograph_side(5000)
    assert 5000 * side**2 * 0.75 * BYTES_PER_PIXEL == pytest.approx(ALL_PHOTOGRAPHS, rel=0.02)
