"""Colours, labels and shapes on a picture, and pictures side by side."""

from __future__ import annotations

import colorsys
from itertools import combinations

import numpy as np
import pytest

from hierseg.drawing import (
    BACKGROUND,
    GAP,
    DrawnInstance,
    TitledPicture,
    class_colors,
    draw_instances,
    enlargement,
    font,
    font_size,
    label_variants,
    line_height,
    path_steps,
    shortened,
    side_by_side,
    text_color,
)
from hierseg.taxonomy import Taxonomy

RED = np.array([255, 0, 0], dtype=np.uint8)


def grey(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), 128, dtype=np.uint8)


def instance(box, *, mask=None, texts=('Animal › Dog', 'Dog'), dashed=False) -> DrawnInstance:
    return DrawnInstance(np.array(box, dtype=np.float64), RED, texts, mask, dashed)


def is_tinted(pixels: np.ndarray) -> np.ndarray:
    """Redder than the grey of the picture, which still shows."""
    return (pixels[..., 0] > 140) & (pixels[..., 0] < 220) & (pixels[..., 1] > 50) & (pixels[..., 1] < 110)


def is_red(pixels: np.ndarray) -> np.ndarray:
    return (pixels[..., 0] > 240) & (pixels[..., 1] < 60)


@pytest.mark.parametrize(
    ('size', 'factor'),
    [((120, 160), 4), ((160, 160), 4), ((213, 320), 2), ((480, 640), 1), ((2000, 3000), 1), ((8, 8), 6)],
)
def test_small_pictures_are_enlarged(size, factor):
    assert enlargement(*size) == factor
    assert draw_instances(grey(*size), [])[0].shape == (size[0] * factor, size[1] * factor, 3)


def test_a_mask_is_tinted_where_it_is_and_nowhere_else():
    mask = np.zeros((480, 640), dtype=bool)
    mask[200:300, 100:300] = True
    picture, _ = draw_instances(grey(480, 640), [instance([100, 200, 300, 300], mask=mask)])
    assert is_tinted(picture[210:290, 110:290]).all()
    assert (picture[310:] == 128).all()
    assert is_red(picture[250, 99:103]).any()


def test_masks_grow_with_the_picture():
    mask = np.zeros((120, 160), dtype=bool)
    mask[50:75, 25:75] = True
    picture, _ = draw_instances(grey(120, 160), [instance([25, 50, 75, 75], mask=mask)])
    rows, columns = np.nonzero(is_tinted(picture))
    # Inside 4 × the mask, up to the width of its outline.
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == pytest.approx((200, 300, 100, 300), abs=4)


def test_a_mask_at_the_border_is_drawn_whole():
    mask = np.ones((480, 640), dtype=bool)
    picture, _ = draw_instances(grey(480, 640), [instance([0, 0, 640, 480], mask=mask, texts=('A',))])
    assert is_tinted(picture[20:460, 20:620]).all()


def test_a_dashed_box_has_gaps():
    whole, _ = draw_instances(grey(480, 640), [instance([100, 200, 300, 300])])
    dashed, _ = draw_instances(grey(480, 640), [instance([100, 200, 300, 300], dashed=True)])
    # The lower side: eight of fourteen pixels, and what the line's ends add.
    assert is_red(whole[300, 110:290]).mean() == 1
    assert 0.5 < is_red(dashed[300, 110:290]).mean() < 0.8


def test_labels_stand_apart():
    same_place = [instance([300, 200, 360, 260], texts=('Dog',)) for _ in range(4)]
    picture, left_out = draw_instances(grey(480, 640), same_place)
    assert left_out == 0
    one, _ = draw_instances(grey(480, 640), same_place[:1])
    # Label backgrounds are nearly opaque red; four of them cover about four times as much.
    assert is_red(picture).sum() > 3 * is_red(one).sum() - 3 * 4 * 120


def test_labels_that_would_cover_others_are_left_out_and_counted():
    crowd = [instance([2, 2, 30, 10], texts=('A long name of a class',)) for _ in range(40)]
    _, left_out = draw_instances(grey(64, 64), crowd)
    assert 30 < left_out < 40


@pytest.mark.parametrize(('size', 'height'), [(12, 17), (24, 33)])
def test_text_has_the_size_that_was_asked_for(size, height):
    drawn, _ = draw_instances(grey(480, 640), [instance([300, 200, 360, 260], texts=('Dog',))], text_size=size)
    # A label stands on its box, is 1.35 × the text and a pixel high, and 4 pixels of its left end hold no letter.
    assert (drawn[:199, 302] != 128).any(axis=-1).sum() == pytest.approx(height, abs=1)


def test_panels_stand_side_by_side():
    left, right = (
        TitledPicture(grey(100, 200), 'Left', 'few', ('one remark', 'another')),
        TitledPicture(grey(80, 150), 'Right'),
    )
    line = line_height(left.picture)
    sheet = side_by_side([left, right])
    assert sheet.shape == (line + 100 + 2 * line, 200 + GAP + 150, 3)
    assert (sheet[line : line + 100, :200] == 128).all()
    assert (sheet[line : line + 80, 200 + GAP :] == 128).all()
    assert (sheet[line + 80 :, 200 + GAP :] == BACKGROUND).all()
    assert (sheet[:line, :200] != BACKGROUND).any()
    assert (sheet[line + 100 :, :200] != BACKGROUND).any()


def test_text_is_shortened_to_its_width():
    size = font_size(grey(480, 640))
    text = 'Verified present: person, bicycle, handbag, scissors'
    assert shortened(text, 10_000, size) == text
    short = shortened(text, 200, size)
    assert short.endswith(' …')
    assert text.startswith(short[:-2])
    assert font(size).getlength(short) <= 200
    assert shortened(text, 3, size) == ''


@pytest.fixture
def taxonomy() -> Taxonomy:
    return Taxonomy.from_edges(
        ['toy', 'animal', 'dog', 'puppy', 'teddy'],
        [('dog', 'animal'), ('puppy', 'dog'), ('teddy', 'toy'), ('teddy', 'animal')],
        names=['Toy', 'Animal', 'Dog', 'Puppy', 'Teddy bear'],
    )


def test_ground_truth_is_the_preferred_path(taxonomy):
    assert path_steps(taxonomy, 3) == ('Animal', 'Dog', 'Puppy')
    assert path_steps(taxonomy, 4) == ('Toy', 'Teddy bear')


def test_each_claimed_step_carries_its_probability(taxonomy):
    scores = np.array([0.0, 0.984, 0.0, 0.706, 0.2])
    assert path_steps(taxonomy, 3, class_scores=scores) == ('Animal 0.98', 'Dog', 'Puppy 0.71')


def test_a_score_alone_belongs_to_the_decided_class(taxonomy):
    assert path_steps(taxonomy, 2, score=0.5) == ('Animal', 'Dog 0.50')


def test_forms_get_shorter_and_keep_the_remark():
    assert label_variants(('A', 'B', 'C', 'D')) == ('A › B › C › D', '… › B › C › D', '… › C › D', 'D')
    assert label_variants(('A', 'B'), mark='(group)') == ('A › B (group)', 'B (group)')
    assert label_variants(('A',)) == ('A',)


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
