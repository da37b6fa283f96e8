"""Reading the official files: what they mean, and what is said about bad ones."""

from __future__ import annotations

import base64
import zlib

import numpy as np
import pytest
from open_images_files import counts_of, rectangle, write_case
from taxonomies import ANIMAL, BEAR, CAR, teddy_taxonomy

from hierseg.errors import EvaluationError
from hierseg.metrics import evaluate_files
from hierseg.metrics.open_images import read_detections, read_ground_truth

SQUARE = rectangle(0, 0, 4, 4)
BOX = (0.0, 0.0, 0.5, 0.5)


def row(image, cls='car', **values):
    return {
        'image': image,
        'cls': cls,
        'box': BOX,
        'group': False,
        'mask': SQUARE,
        'score': 0.5,
        'present': True,
        **values,
    }


@pytest.fixture
def files(tmp_path):
    """One image, one car with its mask, found."""
    return write_case(tmp_path, [row('a')], [row('a')], [row('a')], [row('a')], iou_type='segm')


def evaluate(files, **options):
    return evaluate_files(**files, taxonomy=teddy_taxonomy(), **options)


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_the_plain_case(files):
    result = evaluate(files)
    assert result.average_precision[CAR] == 1
    assert result.num_classes_evaluated == 1


@pytest.mark.parametrize(
    'image_id', ['0000000000000012', '00001234e5678901', '1e10', '12345678901234567890', 'nan', 'NA']
)
def test_rule_7_image_ids_are_text(tmp_path, image_id):
    # Read as a number, '1e10' and '10000000000' would be one image.
    others = [row('10000000000', cls='bear')]
    one = [row(image_id), *others]
    files = write_case(tmp_path, one, one, one, [row(image_id)], iou_type='segm')
    ground_truth = read_ground_truth(files['boxes'], files['labels'], files['masks'], taxonomy=teddy_taxonomy())
    assert list(ground_truth) == sorted([image_id, '10000000000'])
    assert evaluate(files).average_precision[[CAR, BEAR]].tolist() == [1, 0]


def test_coordinates_are_rounded_correctly(tmp_path):
    # Written with different digits, 0.1 and 0.5 are the same numbers, so box and mask join.
    files = write_case(
        tmp_path, [row('a', box=(0.1, 0.1, 0.5, 0.5))], [row('a', box=(0.1, 0.1, 0.5, 0.5))], [], [], iou_type='segm'
    )
    edit(files['boxes'], '0.1,0.5', '0.1000000000000000055511151231257827,5e-1')
    ground_truth = read_ground_truth(files['boxes'], files['labels'], files['masks'], taxonomy=teddy_taxonomy())
    assert len(ground_truth['a'].labels) == 1
    edit(files['boxes'], '5e-1', '0.5000000000000001')
    ground_truth = read_ground_truth(files['boxes'], files['labels'], files['masks'], taxonomy=teddy_taxonomy())
    assert ground_truth['a'].mask_areas.tolist() == [16, 0]


@pytest.mark.parametrize('blank', ['', 'NaN', 'None'])
def test_blank_masks_have_no_size(files, blank):
    # In ground truth the object is box-only, in predictions the detection is dropped.
    text = base64.b64encode(zlib.compress(counts_of(SQUARE))).decode()
    for name in ('masks', 'predictions'):
        edit(files[name], f'8,8,{text}' if name == 'masks' else text, f',,{blank}' if name == 'masks' else blank)
    result = evaluate(files)
    assert result.num_ground_truth[CAR] == result.num_scored[CAR] == 0


def test_empty_masks_make_box_only_objects_and_drop_detections(tmp_path):
    nothing = np.zeros((8, 8), dtype=bool)
    files = write_case(
        tmp_path, [row('a')], [row('a', mask=nothing)], [], [row('a', mask=nothing), row('a')], iou_type='segm'
    )
    result = evaluate(files)
    assert result.num_ground_truth[CAR] == 0
    assert result.num_scored[CAR] == 0  # the whole one takes the box-only object


def test_rule_3_images_without_ground_truth_are_dropped(tmp_path):
    files = write_case(tmp_path, [row('a')], [row('a')], [], [row('a'), row('b', score=0.9)], iou_type='segm')
    result = evaluate(files)
    assert result.num_images == 1
    assert result.num_scored[CAR] == 1


def test_rule_3_an_image_of_labels_only_gives_false_positives(tmp_path):
    labels = [row('b', present=False), row('c', cls='animal', present=False)]
    detections = [row('a'), row('b', score=0.9), row('c', cls='bear'), row('c', cls='toy')]
    result = evaluate(write_case(tmp_path, [row('a')], [row('a')], labels, detections, iou_type='segm'))
    assert result.average_precision[CAR] == 0.5
    assert result.num_scored[BEAR] == 1  # no animal, so no bear
    assert result.num_scored[0] == 0  # nobody looked for toys
    assert np.isnan(result.average_precision[BEAR])


def test_expansion_before_joining(tmp_path):
    # The same box as Bear and as Animal makes two Animal rows in each file: four Animal objects.
    both = [row('a', cls='bear'), row('a', cls='animal')]
    files = write_case(tmp_path, both, both, [], [row('a', cls='animal')], iou_type='segm')
    result = evaluate(files)
    assert result.num_ground_truth[[ANIMAL, BEAR]].tolist() == [4, 1]
    assert result.average_precision[ANIMAL] == 0.25
    assert evaluate(files, expand=False).num_ground_truth[[ANIMAL, BEAR]].tolist() == [1, 1]


def test_the_boxes_variant_needs_no_masks(tmp_path):
    files = write_case(tmp_path, [row('a', group=True)], [], [], [row('a')], iou_type='bbox')
    del files['masks']
    assert evaluate(files, iou_type='bbox').average_precision[CAR] == 1  # the default weight is 1
    assert np.isnan(evaluate(files, iou_type='bbox', group_of_weight=0.0).average_precision[CAR])


def test_detections_are_in_file_order_within_an_image(tmp_path):
    detections = [row('b', score=0.1), row('a', score=0.2), row('b', score=0.3), row('x', score=0.4)]
    files = write_case(tmp_path, [row('a'), row('b')], [], [], detections, iou_type='bbox')
    found = read_detections(
        files['predictions'], ['a', 'b'], np.zeros((2, 2), np.int64), taxonomy=teddy_taxonomy(), iou_type='bbox'
    )
    assert [image.scores.tolist() for image in found] == [[0.2], [0.1, 0.3]]


MASK = base64.b64encode(zlib.compress(counts_of(SQUARE))).decode()
CUT = base64.b64encode(zlib.compress(counts_of(SQUARE)[:-1])).decode()
WIDE = base64.b64encode(zlib.compress(counts_of(rectangle(0, 0, 4, 4, size=(8, 9))))).decode()


@pytest.mark.parametrize(
    ('name', 'old', 'new', 'message'),
    [
        ('boxes', 'XMin', 'Xmin', r'boxes\.csv, line 1: column XMin is missing'),
        ('masks', ',Mask', ',Masks', r'masks\.csv, line 1: column Mask is missing'),
        ('labels', 'Confidence', 'Sure', r'labels\.csv, line 1: column Confidence is missing'),
        ('predictions', 'Score', 'score', r'predictions\.csv, line 1: column Score is missing'),
        ('boxes', 'a,car', 'a,boat', r"boxes\.csv, line 2: class 'boat' is not in the taxonomy"),
        ('labels', 'a,car', 'a,boat', r"labels\.csv, line 2: class 'boat' is not in the taxonomy"),
        ('predictions', 'car', '/m/0', r"predictions\.csv, line 2: class '/m/0' is not in the taxonomy"),
        ('boxes', '0.0,0.5', '0.9,0.5', r'boxes\.csv, line 2: the box ends before it begins'),
        ('boxes', '0.0,0.5', 'left,0.5', r"boxes\.csv, line 2: XMin is 'left'. It must be a finite number"),
        ('boxes', ',0\n', ',2\n', r"boxes\.csv, line 2: IsGroupOf is '2'. It is 1, 0 or -1"),
        ('labels', ',1\n', ',0.7\n', r"labels\.csv, line 2: Confidence is '0.7'"),
        ('predictions', ',0.5,', ',high,', r"predictions\.csv, line 2: Score is 'high'"),
        ('predictions', 'a,8,8', 'a,0,8', r'predictions\.csv, line 2: ImageWidth is 0. It must be a whole number'),
        ('predictions', 'a,8,8', 'a,8,8.5', r'predictions\.csv, line 2: ImageHeight is 8.5'),
        ('predictions', 'a,8,8', 'a,9,8', r'predictions\.csv, line 2: the mask is 9×8 pixels, .* are 8×8'),
        ('predictions', MASK, CUT, r'predictions\.csv, line 2: the mask is not made of valid COCO run lengths'),
        ('predictions', MASK, MASK[:-5], r'predictions\.csv, line 2: the mask cannot be decoded'),
        ('predictions', MASK, '!!!', r'predictions\.csv, line 2: the mask cannot be decoded'),
        ('predictions', MASK, 'héhé', r'predictions\.csv, line 2: the mask cannot be decoded'),
        ('masks', MASK, CUT, r'masks\.csv, line 2: the mask is not made of valid COCO run lengths'),
        ('predictions', f'8,8,car,0.5,{MASK}', f'9,8,car,0.5,{WIDE}', r'predictions\.csv, line 2: .* 9×8 .* 8×8'),
        ('predictions', ',0.5,', ',', r'predictions\.csv, line 2: 5 values for 6 columns'),
    ],
)  # fmt: skip
def test_bad_files_are_refused_with_their_line(files, name, old, new, message):
    edit(files[name], old, new)
    with pytest.raises(EvaluationError, match=message):
        evaluate(files)


def test_masks_of_one_file_need_one_size_in_each_image(tmp_path):
    wide = rectangle(0, 0, 4, 4, size=(8, 9))
    rows = [row('a'), row('b', mask=wide), row('b', mask=wide), row('a', mask=wide)]
    files = write_case(tmp_path, rows, rows, [], [], iou_type='segm')
    with pytest.raises(EvaluationError, match=r'masks\.csv, line 5: the mask is 9×8 pixels, .* 8×8'):
        evaluate(files)
    files = write_case(tmp_path, rows, [], [], rows, iou_type='segm')
    with pytest.raises(EvaluationError, match=r'predictions\.csv, line 5: the mask is 9×8 pixels, .* 8×8'):
        evaluate(files)


def test_headers_without_rows_are_fine(tmp_path):
    files = write_case(tmp_path, [], [], [], [], iou_type='segm')
    assert evaluate(files).num_images == 0
    files = write_case(tmp_path, [row('a')], [row('a')], [], [], iou_type='segm')
    assert evaluate(files).average_precision[CAR] == 0
    assert (
        evaluate(write_case(tmp_path, [row('a')], [], [], [], iou_type='bbox'), iou_type='bbox').average_precision[CAR]
        == 0
    )


def test_missing_files(files, tmp_path):
    with pytest.raises(EvaluationError, match=r'nowhere\.csv: cannot be read'):
        evaluate({**files, 'labels': tmp_path / 'nowhere.csv'})


def test_options_are_checked(files):
    with pytest.raises(EvaluationError, match='ground-truth masks are missing'):
        evaluate({**files, 'masks': None})
    with pytest.raises(EvaluationError, match="unknown iou_type 'mask'"):
        evaluate(files, iou_type='mask')
