"""Official files to a store: one test per rule, expected values by hand.

Images are 20 x 10 pixels unless said otherwise; labels are Person 0, Man 1, Car 2; boxes are given in
the order of the files (x1, x2, y1, y2, fractions) and found as xyxy in pixels.
"""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from hierseg.errors import AnnotationError, EvaluationError
from hierseg.metrics.open_images import read_ground_truth
from hierseg.store import Store

WHOLE = (0, 1, 0, 1)
LEFT = (0.0, 0.5, 0.0, 1.0)


def decode(store: Store, row: int, index: int) -> np.ndarray:
    image = store.image(row)
    return coco_mask.decode({'size': [image.height, image.width], 'counts': store.instances(row).masks[index]})


def test_boxes_masks_and_labels_of_an_image(split, rectangle):
    split.add_image('00ff')
    split.add_box('00ff', '/m/man', (0.1, 0.5, 0.2, 1.0))
    split.add_box('00ff', '/m/car', (0.5, 0.75, 0.5, 0.6), group_of=1)
    split.add_png('00ff', '/m/man', (0.1, 0.5, 0.2, 1.0), rectangle(2, 10, 2, 10), box_id='5e')
    split.labels = [('00ff', '/m/man', 1), ('00ff', '/m/person', 0), ('00ff', '/m/car', 1)]
    store, summary = split.convert()
    assert [store.image(0).id, store.image(0).file_name, store.image(0).width, store.image(0).height] == [
        '00ff',
        '00ff.jpg',
        20,
        10,
    ]
    found = store.instances(0)
    assert found.labels.tolist() == [1, 2]
    np.testing.assert_allclose(found.boxes, [[2, 2, 10, 10], [10, 5, 15, 6]], rtol=1e-15)
    assert found.has_mask.tolist() == [True, False]
    assert found.group_of.tolist() == [False, True]
    np.testing.assert_allclose(found.areas, [64, 5], rtol=1e-12)  # 8 x 8 pixels; a box of 5 x 1
    assert found.annotation_ids == ['5e', '']
    np.testing.assert_array_equal(decode(store, 0, 0), rectangle(2, 10, 2, 10))
    positive, negative = store.verified(0)
    assert (positive.tolist(), negative.tolist()) == ([1, 2], [0])
    assert store.taxonomy == split.taxonomy
    expected = {'images': 1, 'box_rows': 2, 'mask_rows': 1, 'masks_joined': 1, 'masks_without_box': 0, 'instances': 2}
    expected |= {'instances_with_mask': 1, 'instances_group_of': 1, 'masks_resized': 0, 'skipped': {}}
    expected |= {'verified_positive': 2, 'verified_negative': 1}
    assert summary.to_json() == expected == store.summary


def test_images_of_all_three_tables_in_order_of_their_ids(split, rectangle):
    # Ids that a number parser would mangle: all digits, with leading zeros, an exponent, infinity.
    ids = ['0000000000000012', '0000000000000120', '12e4', '9', 'inf', '1200000000000000000', '00a']
    for image_id in ids:
        split.add_image(image_id)
    split.add_box('9', '/m/car', WHOLE)
    split.add_box('12e4', '/m/car', WHOLE)
    split.add_png('inf', '/m/car', WHOLE, rectangle(0, 5, 0, 5))
    split.labels = [(image_id, '/m/man', 0) for image_id in ids if image_id != 'inf']
    store, _ = split.convert()
    assert [store.image(row).id for row in range(len(store))] == sorted(ids)
    assert store.num_instances_per_image.sum() == 3
    assert store.instances(store.row_of('inf')).has_mask.tolist() == [True]
    assert store.verified(store.row_of('inf'))[1].tolist() == []
    assert store.verified(store.row_of('00a'))[1].tolist() == [1]


def test_decimals_may_differ_between_the_tables(split, rectangle):
    split.add_image('a')
    split.add_box('a', '/m/car', (0.1234567, 0.6543211, 0.1, 0.9))
    split.add_png('a', '/m/car', (0.1235, 0.6543, 0.1, 0.9), rectangle(2, 13, 1, 9))
    store, summary = split.convert()
    assert summary.masks_joined == len(store.instances(0)) == 1
    # The coordinates are those of the box table: 20 x 0.1234567.
    assert store.instances(0).boxes[0, 0] == pytest.approx(2.469134, abs=1e-12)


def test_the_nearest_mask_joins_and_each_only_once(split, rectangle):
    split.add_image('a')
    split.add_box('a', '/m/car', (0.1, 0.5, 0.1, 0.9))
    split.add_box('a', '/m/car', (0.1004, 0.5, 0.1, 0.9))
    split.add_box('a', '/m/man', (0.1, 0.5, 0.1, 0.9))
    # Differences in ten-thousandths to the two cars: 3 and 1; 6 and 2; 2 and 2. The first mask takes the
    # second car, the third one the first car, and the second one, though near to a car, is left.
    split.add_png('a', '/m/car', (0.1003, 0.5, 0.1, 0.9), rectangle(0, 1, 0, 1))
    split.add_png('a', '/m/car', (0.1006, 0.5, 0.1, 0.9), rectangle(0, 2, 0, 1))
    split.add_png('a', '/m/car', (0.1002, 0.5, 0.1, 0.9), rectangle(0, 3, 0, 1))
    store, summary = split.convert()
    found = store.instances(0)
    assert (summary.masks_joined, summary.masks_without_box) == (2, 1)
    assert found.labels.tolist() == [2, 2, 1, 2]
    assert found.has_mask.tolist() == [True, True, False, True]
    assert found.areas[[0, 1, 3]].tolist() == [3, 1, 2]


def test_masks_further_away_keep_their_own_box(split, rectangle):
    split.add_image('a')
    split.add_box('a', '/m/car', (0.1, 0.5, 0.1, 0.9))
    split.add_png('a', '/m/car', (0.15, 0.5, 0.1, 0.9), rectangle(0, 1, 0, 1), box_id='b')
    split.add_png('a', '/m/man', (0.1, 0.5, 0.1, 0.9), rectangle(0, 2, 0, 1), box_id='c')
    store, summary = split.convert()
    found = store.instances(0)
    assert (summary.masks_joined, summary.masks_without_box) == (0, 2)
    assert found.labels.tolist() == [2, 2, 1]
    assert found.has_mask.tolist() == [False, True, True]
    assert found.annotation_ids == ['', 'b', 'c']
    np.testing.assert_allclose(found.boxes[1], [3, 1, 10, 9])
    _, summary = split.convert(box_tolerance=0.06)
    assert summary.masks_joined == 1


def test_box_ids_join_where_both_tables_have_them(split, rectangle):
    split.add_image('a')
    split.box_columns = (*split.box_columns, 'BoxID')
    split.boxes = [('a', '/m/car', 0.1, 0.5, 0.1, 0.9, 0, 'one'), ('a', '/m/car', 0.1, 0.5, 0.1, 0.9, 0, 'two')]
    split.add_png('a', '/m/car', (0.2, 0.6, 0.1, 0.9), rectangle(0, 2, 0, 1), box_id='two')
    split.add_png('a', '/m/car', (0.1, 0.5, 0.1, 0.9), rectangle(0, 1, 0, 1), box_id='one')
    store, _ = split.convert()
    assert store.instances(0).annotation_ids == ['one', 'two']
    assert store.instances(0).areas.tolist() == [1, 2]


def test_columns_are_found_by_name_in_any_order_beside_others(split, rectangle):
    # The box table of V5 to V7 has these columns; -1 says that nobody looked.
    split.add_image('a')
    split.box_columns = ['Source', 'IsInside', 'YMax', 'LabelName', 'XMin', 'XMax', 'YMin', 'IsGroupOf', 'ImageID']
    split.boxes = [('xclick', 0, 1, '/m/car', 0, 0.5, 0, 1, 'a'), ('activemil', -1, 1, '/m/man', 0, 1, 0, -1, 'a')]
    split.label_columns = ['Confidence', 'Source', 'LabelName', 'ImageID']
    split.labels = [('1', 'verification', '/m/car', 'a')]
    store, _ = split.convert()
    assert store.instances(0).labels.tolist() == [2, 1]
    assert store.instances(0).group_of.tolist() == [True, False]
    np.testing.assert_array_equal(store.instances(0).boxes, [[0, 0, 10, 10], [0, 0, 20, 10]])


def test_masks_of_another_size_than_their_image(split, rectangle):
    split.add_image('a')
    split.add_box('a', '/m/car', LEFT)
    split.add_box('a', '/m/man', LEFT)
    split.add_png('a', '/m/car', LEFT, rectangle(0, 4, 0, 5, size=(5, 10)))  # half the size
    split.add_png('a', '/m/man', LEFT, rectangle(0, 30, 0, 30, size=(30, 60)))  # three times the size
    store, summary = split.convert()
    np.testing.assert_array_equal(decode(store, 0, 0), rectangle(0, 8, 0, 10))
    np.testing.assert_array_equal(decode(store, 0, 1), rectangle(0, 10, 0, 10))
    assert summary.masks_resized == 2


def test_missing_and_empty_masks_leave_the_box(split, rectangle):
    split.add_image('a')
    for class_id in ('/m/car', '/m/man', '/m/person'):
        split.add_box('a', class_id, LEFT)
    missing = split.add_png('a', '/m/car', LEFT, None)
    empty = split.add_png('a', '/m/man', LEFT, rectangle(0, 0, 0, 0))
    split.add_png('a', '/m/person', LEFT, rectangle(0, 1, 0, 1))
    store, summary = split.convert()
    found = store.instances(0)
    assert found.has_mask.tolist() == [False, False, True]
    assert found.areas.tolist() == [100, 100, 1]
    assert {reason: (s.count, s.examples) for reason, s in summary.skipped.items()} == {
        'masks without a file, kept as box': (1, [str(missing)]),
        'masks without a pixel, kept as box': (1, [str(empty)]),
    }
    assert 'skipped: masks without a file, kept as box: 1' in str(summary)


def test_every_value_but_black_is_inside(split, rectangle):
    split.add_image('a')
    split.add_box('a', '/m/car', LEFT)
    path = split.add_png('a', '/m/car', LEFT, None)
    grey = rectangle(0, 4, 0, 4).astype(np.uint8)
    for mode in ('L', 'P', 'RGB', 'I;16'):
        Image.fromarray(grey * 40).convert(mode).save(path)
        store, _ = split.convert()
        np.testing.assert_array_equal(decode(store, 0, 0), grey, err_msg=mode)


def test_encoded_masks_give_the_same_store_as_png_files(split, rectangle, tmp_path):
    split.add_image('a')
    split.add_image('b')
    shapes = [
        rectangle(0, 5, 0, 5),
        rectangle(3, 9, 2, 4) | rectangle(12, 13, 0, 10),
        rectangle(0, 4, 0, 5, size=(5, 10)),
    ]
    rows = [('a', '/m/car', LEFT), ('a', '/m/man', WHOLE), ('b', '/m/car', LEFT)]
    for row, shape in zip(rows, shapes, strict=True):
        split.add_box(*row)
        split.add_png(*row, shape)
    store, _ = split.convert()
    of_files = [store.instances(0), store.instances(1)]
    split.masks = []
    for row, shape in zip(rows, shapes, strict=True):
        split.add_text(*row, shape)
    store, summary = split.convert()
    assert summary.masks_joined == 3
    assert summary.masks_resized == 1
    for row in range(2):
        assert store.instances(row).masks == of_files[row].masks
        assert store.instances(row).areas.tolist() == of_files[row].areas.tolist()


def test_encoded_masks_know_groups(split, rectangle):
    split.add_image('a')
    split.add_box('a', '/m/car', LEFT, group_of=0)
    split.add_box('a', '/m/car', LEFT, group_of=1)
    split.add_text('a', '/m/car', LEFT, rectangle(0, 3, 0, 1), group_of=1)
    split.add_text('a', '/m/man', LEFT, rectangle(0, 2, 0, 1), group_of=1)
    split.add_text('a', '/m/person', LEFT, None)
    store, summary = split.convert()
    found = store.instances(0)
    assert found.labels.tolist() == [2, 2, 1, 0]
    assert found.group_of.tolist() == [False, True, True, False]
    assert found.has_mask.tolist() == [False, True, True, False]
    assert summary.skipped['masks without a pixel, kept as box'].examples == ['image a']


def test_rounding_beyond_the_border_is_clipped(split):
    split.add_image('a')
    split.add_box('a', '/m/car', (-0.000001, 1.000001, 0, 1))
    store, _ = split.convert()
    assert store.instances(0).boxes.tolist() == [[0, 0, 20, 10]]


def test_files_in_folders_by_first_digit(split, rectangle):
    split.add_image('a1', folder='train_a')
    split.add_image('b1', folder='train_b')
    for image_id in ('a1', 'b1'):
        split.add_box(image_id, '/m/car', LEFT)
    split.add_png('a1', '/m/car', LEFT, rectangle(0, 1, 0, 1), folder='train-masks-a')
    split.add_png('b1', '/m/car', LEFT, rectangle(0, 2, 0, 1), folder='B')
    store, _ = split.convert()
    assert [store.image(row).file_name for row in range(2)] == ['train_a/a1.jpg', 'train_b/b1.jpg']
    assert [store.instances(row).areas.tolist() for row in range(2)] == [[1], [2]]


def test_unknown_classes_are_skipped_on_request(split, rectangle):
    split.add_image('a')
    split.add_image('b')
    split.add_box('a', '/m/tree', LEFT)
    split.add_box('a', '/m/car', LEFT)
    split.add_box('c', '/m/bush', LEFT)
    split.add_png('a', '/m/tree', LEFT, rectangle(0, 1, 0, 1))
    split.add_png('a', '/m/car', LEFT, rectangle(0, 2, 0, 1))
    split.labels = [('b', '/m/tree', 1), ('b', '/m/car', 0)]
    store, summary = split.convert(skip_unknown_classes=True)
    assert [store.image(row).id for row in range(len(store))] == ['a', 'b']
    assert store.instances(0).areas.tolist() == [2]
    assert store.verified(1)[1].tolist() == [2]
    assert {reason: (s.count, s.examples) for reason, s in summary.skipped.items()} == {
        'box rows of classes not in the taxonomy': (2, ['/m/tree', '/m/bush']),
        'image-label rows of classes not in the taxonomy': (1, ['/m/tree']),
        'mask rows of classes not in the taxonomy': (1, ['/m/tree']),
    }


def test_repeated_image_labels_are_kept_once(split):
    split.add_image('a')
    split.add_box('a', '/m/car', LEFT)
    split.labels = [('a', '/m/car', 1), ('a', '/m/man', 0), ('a', '/m/car', 1)]
    store, summary = split.convert()
    assert [labels.tolist() for labels in store.verified(0)] == [[2], [1]]
    assert (summary.verified_positive, summary.verified_negative) == (1, 1)


# Released tables and those that other tools write; -1 is of V4 to V7: nobody said that it is a group.
GROUPS = {'0': False, '1': True, '0.0': False, '1.0': True, 'False': False, 'True': True, 'true': True, ' 1': True}
GROUPS |= {'-1': False, '-1.0': False}


@pytest.mark.parametrize(('text', 'is_group'), GROUPS.items())
def test_converter_and_evaluator_accept_the_same_groups(split, text, is_group):
    split.add_image('a')
    split.add_box('a', '/m/car', LEFT, group_of=text)
    split.labels = [('a', '/m/car', 'True')]
    store, _ = split.convert()
    truths = read_ground_truth(split.path('box'), split.path('label'), None, taxonomy=split.taxonomy)
    [truth] = truths.values()
    assert store.instances(0).group_of.tolist() == truth.group_of.tolist() == [is_group]
    assert store.verified(0)[0].tolist() == truth.verified.tolist() == [2]


@pytest.mark.parametrize('text', ['2', '-2', '0.5', 'yes', '', '1_0'])
def test_converter_and_evaluator_refuse_the_same_groups(split, text):
    split.add_image('a')
    split.add_box('a', '/m/car', LEFT, group_of=text)
    with pytest.raises(AnnotationError, match=r'box\.csv, line 2: IsGroupOf is'):
        split.convert()
    with pytest.raises(EvaluationError, match=r'box\.csv, line 2: IsGroupOf is'):
        read_ground_truth(split.path('box'), split.path('label'), None, taxonomy=split.taxonomy)
