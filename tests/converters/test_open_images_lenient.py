"""Lenient conversion: rows without sense are left out and counted, whichever block of the file they are in."""

from __future__ import annotations

import pytest

from hierseg.errors import AnnotationError

BOX = (0.0, 0.5, 0.0, 1.0)


@pytest.fixture
def good(split, rectangle):
    """Images a, b and c with a box and a mask each, and a label."""
    for image_id in 'abc':
        split.add_image(image_id)
        split.add_box(image_id, '/m/car', BOX)
        split.add_png(image_id, '/m/car', BOX, rectangle(0, 5, 0, 5))
        split.labels.append((image_id, '/m/car', 1))
    return split


def skipped(summary) -> dict[str, tuple[int, list[str]]]:
    return {reason: (found.count, found.examples) for reason, found in summary.skipped.items()}


def test_bad_rows_are_left_out_and_listed(good):
    before = good.convert()[0]
    # Lines 5 to 10 of the boxes; the first two images of each bad kind stay without an instance more.
    good.add_box('a', '/m/car', (0.0, 1.5, 0.0, 1.0))
    good.add_box('a', '/m/car', ('left', 0.5, 0.0, 1.0))
    good.boxes.append(('a', '/m/car', 0.1))
    good.add_box('a', '/m/car', ('nan', 0.5, 0.0, 1.0))
    good.add_box('', '/m/car', BOX)
    good.add_box('b', '/m/car', BOX, group_of=7)
    good.labels.insert(0, ('a', '/m/man', 0.4))
    good.masks.append(('', 'a', '/m/car', '', *BOX, 1, ''))
    store, summary = good.convert(skip_bad_rows=True)
    assert (summary.box_rows, summary.mask_rows) == (3, 3)
    boxes = good.path('box')
    assert skipped(summary) == {
        'mask rows that cannot be used': (1, [f'{good.path("mask")}, line 5: MaskPath is empty']),
        'box rows that cannot be used': (
            6,
            # Lines that are too short are noticed first, when their block is parsed.
            [
                f'{boxes}, line 7: 3 values for 7 columns',
                f'{boxes}, line 5: the box (XMin 0, YMin 0, XMax 1.5, YMax 1) is outside the image',
                f"{boxes}, line 6: XMin is 'left'",
                f"{boxes}, line 8: XMin is 'nan'",
                f'{boxes}, line 9: ImageID is empty',
            ],
        ),
        'image-label rows that cannot be used': (1, [f"{good.path('label')}, line 2: Confidence is '0.4'"]),
    }
    for name in ('images', 'instances', 'verified'):
        assert (store.path / f'{name}.arrow').read_bytes() == (before.path / f'{name}.arrow').read_bytes()


def test_strict_stops_at_the_first_with_file_line_and_image(good):
    good.add_box('b', '/m/car', (0.6, 0.5, 0.0, 1.0))
    good.add_box('a', '/m/car', ('left', 0.5, 0.0, 1.0))
    with pytest.raises(AnnotationError, match=r'box\.csv, line 5: .* min above its max\..* The row is of image b\.'):
        good.convert()


def test_unknown_classes_of_bad_rows_are_counted_once(good):
    good.add_box('a', '/m/tree', (0.6, 0.5, 0.0, 1.0))
    good.add_box('a', '/m/tree', BOX)
    _, summary = good.convert(skip_bad_rows=True, skip_unknown_classes=True)
    assert {reason: count for reason, (count, _) in skipped(summary).items()} == {
        'box rows that cannot be used': 1,
        'box rows of classes not in the taxonomy': 1,
    }
