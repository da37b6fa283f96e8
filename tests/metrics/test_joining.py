from __future__ import annotations

import numpy as np

from hierseg.metrics.records import InstanceRows, join_boxes_and_masks

A, B = (0.0, 0.0, 0.5, 0.5), (0.25, 0.0, 0.75, 0.5)


def rows(*entries):
    """Entries of (image, label, box, group_of)."""
    images, labels, boxes, group_of = zip(*entries, strict=True) if entries else ([], [], [], [])
    return InstanceRows(
        np.array(images, dtype=np.int64),
        np.array(labels, dtype=np.int64),
        np.array(boxes, dtype=np.float64).reshape(-1, 4),
        np.array(group_of, dtype=bool),
        np.arange(len(entries)),
    )


def joined(boxes, masks):
    """(image, label, x1, group_of, mask row) of every object."""
    objects, mask_of = join_boxes_and_masks(rows(*boxes), rows(*masks))
    columns = (objects.images, objects.labels, objects.boxes[:, 0], objects.group_of, mask_of)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def test_rule_2_a_box_and_a_mask_row_with_one_key_are_one_object():
    assert joined([(0, 1, A, False)], [(0, 1, A, False)]) == [(0, 1, 0.0, False, 0)]


def test_rule_2_a_box_row_alone_is_box_only_and_a_mask_row_alone_an_object():
    assert joined([(0, 1, A, False)], []) == [(0, 1, 0.0, False, -1)]
    assert joined([], [(0, 1, A, False)]) == [(0, 1, 0.0, False, 0)]


def test_rule_2_k_equal_rows_on_both_sides_are_k_squared_objects():
    equal = [(0, 1, A, False)] * 3
    assert [entry[-1] for entry in joined(equal, equal)] == [0, 1, 2] * 3
    assert [entry[-1] for entry in joined(equal, equal[:2])] == [0, 1] * 3  # 3 box rows, 2 mask rows: 6
    assert len(joined(equal, [])) == 3
    assert len(joined([], equal)) == 3


def test_rule_2_one_digit_of_difference_gives_two_objects():
    other = (A[0], A[1], A[2], np.nextafter(A[3], 1))
    assert joined([(0, 1, A, False)], [(0, 1, other, False)]) == [(0, 1, 0.0, False, -1), (0, 1, 0.0, False, 0)]


def test_rule_2_every_part_of_the_key_counts():
    for mask in ((1, 1, A, False), (0, 2, A, False), (0, 1, B, False), (0, 1, A, True)):
        assert sorted(entry[-1] for entry in joined([(0, 1, A, False)], [mask])) == [-1, 0]


def test_negative_zero_is_zero():
    assert len(joined([(0, 1, (0.0, 0.0, 1.0, 1.0), False)], [(0, 1, (-0.0, 0.0, 1.0, 1.0), False)])) == 1


def test_objects_are_sorted_as_the_reference_sorts_them():
    # By image, class, x1, x2, y1, y2, group-of: the order in which tied overlaps are tried.
    boxes = [
        (0, 0, (0.1, 0.1, 0.9, 0.9), False),
        (0, 0, (0.1, 0.3, 0.8, 0.9), False),
        (0, 0, (0.1, 0.2, 0.8, 0.9), True),
        (0, 0, (0.1, 0.2, 0.8, 0.9), False),
    ]
    objects, _ = join_boxes_and_masks(rows(*boxes), rows())
    assert objects.sources.tolist() == [3, 2, 1, 0]


def test_nothing_joins_to_nothing():
    objects, mask_of = join_boxes_and_masks(rows(), rows())
    assert len(objects) == len(mask_of) == 0
