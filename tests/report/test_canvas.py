"""Shapes and labels on a picture, and pictures side by side."""

from __future__ import annotations

import numpy as np
import pytest

from hierseg.report.drawing import (
    BACKGROUND,
    GAP,
    DrawnInstance,
    TitledPicture,
    draw_instances,
    enlargement,
    font,
    font_size,
    line_height,
    shortened,
    side_by_side,
)

RED = np.array([255, 0, 0], dtype=np.uint8)


def grey(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), 128, dtype=np.uint8)


def instance(box, *, mask=None, texts=('Animal › Dog', 'Dog'), dashed=False) -> DrawnInstance:
    return DrawnInstance(np.array(box, dtype=np.float64), RED, texts, mask, dashed)


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
    # 0.6 × 128 + 0.4 × (255, 0, 0) = (178.8, 76.8, 76.8), cut off.
    assert picture[250, 200].tolist() == [178, 76, 76]
    assert picture[400, 200].tolist() == [128, 128, 128]
    assert is_red(picture[250, 99:103]).any()


def test_masks_grow_with_the_picture():
    mask = np.zeros((120, 160), dtype=bool)
    mask[50:75, 25:75] = True
    picture, _ = draw_instances(grey(120, 160), [instance([25, 50, 75, 75], mask=mask)])
    tinted = (picture == [178, 76, 76]).all(axis=-1)
    rows, columns = np.nonzero(tinted)
    # Inside 4 × the mask, up to the width of its outline.
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == pytest.approx((200, 300, 100, 300), abs=4)


def test_a_mask_at_the_border_is_drawn_whole():
    mask = np.ones((480, 640), dtype=bool)
    picture, _ = draw_instances(grey(480, 640), [instance([0, 0, 640, 480], mask=mask, texts=('A',))])
    assert picture[300, 300].tolist() == [178, 76, 76]


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
