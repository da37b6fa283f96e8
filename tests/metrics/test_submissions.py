"""Submissions in Kaggle's form and as COCO results: the official form's numbers, and what is said about bad ones."""

from __future__ import annotations

import csv
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from open_images_files import GOLDENS, counts_of, rectangle, write_case
from taxonomies import ANIMAL, BEAR, CAR, TEDDY, TOY, teddy_taxonomy

from hierseg.errors import EvaluationError
from hierseg.formats.run_lengths import counts_of_text
from hierseg.metrics import evaluate_files
from hierseg.metrics.submissions import ResultKeys, detection_rows
from hierseg.taxonomy import Taxonomy

SQUARE = rectangle(0, 0, 4, 4)
OTHER = rectangle(4, 4, 8, 8)
BOX = (0.0, 0.0, 0.5, 0.5)
FIELDS = ('average_precision', 'num_ground_truth', 'num_scored', 'num_true_positives')


def row(image: str, cls: str = 'car', **values: Any) -> dict[str, Any]:
    plain = {'image': image, 'cls': cls, 'box': BOX, 'group': False, 'mask': SQUARE, 'score': 0.5, 'present': True}
    return {**plain, **values}


# Image a: a car, found, and found again where nothing is. Image 17: a bear, found and named bear, animal and teddy.
TRUTH = [row('a'), row('0017', 'bear')]
FOUND = [
    row('a', score=0.75),
    row('a', score=0.875, mask=OTHER, box=(0.5, 0.5, 1.0, 1.0)),
    *(row('0017', cls, score=score) for cls, score in (('bear', 0.5), ('animal', 0.625), ('teddy', 0.25))),
]
# Car: the false positive is surer, precision 1/2. Bear and Animal (of the bear): found. Teddy and Toy: no ground truth.
EXPECTED = {CAR: 0.5, BEAR: 1.0, ANIMAL: 1.0, TEDDY: np.nan, TOY: np.nan}


@pytest.fixture(params=['segm', 'bbox'])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def files(tmp_path: Path, kind: str) -> dict[str, Path]:
    return write_case(tmp_path, TRUTH, TRUTH, [row('0017', 'teddy')], FOUND, iou_type=kind)


def evaluate(files: dict[str, Path], **options: Any) -> Any:
    return evaluate_files(**files, taxonomy=teddy_taxonomy(), **options)


def assert_expected(files: dict[str, Path], predictions: Path, kind: str, **options: Any) -> None:
    official = evaluate(files, iou_type=kind)
    found = evaluate({**files, 'predictions': predictions}, iou_type=kind, **options)
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(found, name), getattr(official, name))
    for label, value in EXPECTED.items():
        np.testing.assert_equal(found.average_precision[label], value)


def as_kaggle(path: Path, submission: Path, kind: str, *, image_id: str = 'ImageID') -> Path:
    """The official CSV as a line for each image, and one for an image without detections."""
    values = (
        ('LabelName', 'Score', 'Mask') if kind == 'segm' else ('LabelName', 'Score', 'XMin', 'YMin', 'XMax', 'YMax')
    )
    strings: dict[str, list[str]] = {'b': []}
    sizes = {'b': ['8', '8'] if kind == 'segm' else []}
    with submission.open(newline='') as file:
        for line in csv.DictReader(file):
            sizes[line['ImageID']] = [line[side] for side in ('ImageWidth', 'ImageHeight') if kind == 'segm']
            strings.setdefault(line['ImageID'], []).append(' '.join(line[name] for name in values))
    header = [image_id, *(['ImageWidth', 'ImageHeight'] if kind == 'segm' else []), 'PredictionString']
    with path.open('w', newline='') as file:
        csv.writer(file).writerows(
            [header, *([image, *sizes[image], ' '.join(found)] for image, found in strings.items())]
        )
    return path


def entry(image: Any, category: Any, score: float, mask: np.ndarray = SQUARE, **others: Any) -> dict[str, Any]:
    rows, columns = np.nonzero(mask)
    x, y = int(columns.min()), int(rows.min())
    return {
        'image_id': image,
        'category_id': category,
        'score': score,
        'bbox': [x, y, int(columns.max()) + 1 - x, int(rows.max()) + 1 - y],
        'segmentation': {'size': [8, 8], 'counts': counts_of(mask).decode()},
        **others,
    }


# Numbers of the classes in their order: toy 1, animal 2, bear 3, teddy 4, car 5.
RESULTS = [
    entry('a', 5, 0.75),
    entry('a', 5, 0.875, OTHER),
    entry('0017', 3, 0.5, class_scores={'3': 0.5, '2': 0.625, '4': 0.25}),
]


def as_results(path: Path, entries: Any = RESULTS) -> Path:
    path.write_text(json.dumps(entries))
    return path


@pytest.mark.parametrize('image_id', ['ImageID', 'ImageId'])
def test_kaggles_form_gives_the_same(files, tmp_path, kind, image_id):
    assert_expected(files, as_kaggle(tmp_path / 'kaggle.csv', files['predictions'], kind, image_id=image_id), kind)


@pytest.mark.parametrize('workers', [1, 2])
def test_coco_results_give_the_same(files, tmp_path, kind, workers):
    assert_expected(files, as_results(tmp_path / 'results.json'), kind, workers=workers)


@pytest.mark.parametrize('name', ['class ids', 'numbers as text', 'numbers without zeros', 'a list of counts'])
def test_ids_and_counts_in_other_forms(files, tmp_path, kind, name):
    entries = json.loads(json.dumps(RESULTS))
    if name == 'class ids':
        for found, category in zip(entries, ['car', 'car', 'bear'], strict=True):
            found['category_id'] = category
        entries[2]['class_scores'] = {'bear': 0.5, 'animal': 0.625, 'teddy': 0.25}
    elif name == 'numbers as text':
        entries = [{**found, 'category_id': f'{found["category_id"]}'} for found in entries]
    elif name == 'numbers without zeros':
        entries[2]['image_id'] = 17  # as YOLO makes it of a file 0017.jpg
    else:
        # Columns 0 to 3 of rows 0 to 3: four of 4 inside and 4 outside, then four columns outside.
        entries[0]['segmentation']['counts'] = [0, 4, 4, 4, 4, 4, 4, 4, 36]
    assert_expected(files, as_results(tmp_path / 'results.json', entries), kind)


def test_the_way_of_naming_images_that_fits_most_counts(tmp_path):
    # By number, image 1 is a; by name of file, 1 is b. Two of three entries have no number, so that names count.
    path = as_results(tmp_path / 'results.json', [entry(name, 5, 0.5) for name in (1, 'x', 'y')])
    ways = [{'1': 'a'}, {'1': 'b', 'x': 'c', 'y': 'a'}]
    keys = ResultKeys({'5': CAR}, ways)
    batches = detection_rows(path, ['a', 'b', 'c'], taxonomy=teddy_taxonomy(), iou_type='segm', keys=keys)
    assert [image for batch in batches for image in batch['image'].to_pylist()] == [1, 2, 0]


def test_a_detector_without_class_scores_claims_the_class_that_it_names(files, tmp_path, kind):
    # Not expanded: a Bear alone earns nothing as Animal, as in an official submission.
    plain = [{name: value for name, value in found.items() if name != 'class_scores'} for found in RESULTS]
    found = evaluate({**files, 'predictions': as_results(tmp_path / 'results.json', plain)}, iou_type=kind)
    assert found.average_precision[[CAR, BEAR, ANIMAL]].tolist() == [0.5, 1.0, 0.0]


@pytest.mark.parametrize('form', ['official', 'kaggle', 'results'])
def test_detections_on_other_images_are_counted_and_an_error_if_there_are_no_others(
    files, tmp_path, kind, caplog, form
):
    def written(found):
        folder = tmp_path / str(len(found))
        folder.mkdir()
        path = write_case(folder, TRUTH, TRUTH, [], found, iou_type=kind)['predictions']
        if form == 'kaggle':
            return as_kaggle(folder / 'kaggle.csv', path, kind)
        return path if form == 'official' else as_results(
            folder / 'results.json', [entry(one['image'], one['cls'], one['score'], one['mask']) for one in found]
        )  # fmt: skip

    with caplog.at_level(logging.WARNING):
        result = evaluate({**files, 'predictions': written([row('a'), row('x'), row('x'), row('y')])}, iou_type=kind)
    assert result.average_precision[CAR] == 1
    assert '3 of 4 detections are on 2 images without ground truth, such as x' in caplog.text
    with pytest.raises(
        EvaluationError, match=r"none of its 2 images has ground truth; the first is 'x'.*such as '0017'"
    ):
        evaluate({**files, 'predictions': written([row('x'), row('y')])}, iou_type=kind)


def test_a_submission_without_detections_is_none(files, tmp_path, kind):
    found = evaluate({**files, 'predictions': as_results(tmp_path / 'results.json', [])}, iou_type=kind)
    assert found.mean_average_precision == 0


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'image_id': None}, 'image_id is None'),
        ({'image_id': [1]}, r'image_id is \[1\]'),
        ({'category_id': 6}, 'category_id 6 is no category'),
        ({'category_id': 'boat'}, "category_id 'boat' is no category"),
        ({'score': '0.5'}, "score is '0.5'"),
        ({'score': float('nan')}, 'score is nan'),
        ({'class_scores': [0.5]}, r'class_scores is \[0.5\]'),
        ({'class_scores': {'9': 0.5}}, "class_scores '9' is no category"),
        ({'class_scores': {'4': None}}, 'class_scores is None'),
    ],
)
def test_a_bad_entry_is_named(files, tmp_path, kind, change, message):
    path = as_results(tmp_path / 'results.json', [RESULTS[0], {**RESULTS[1], **change}])
    with pytest.raises(EvaluationError, match=rf'results\.json, entry 2: {message}'):
        evaluate({**files, 'predictions': path}, iou_type=kind)


@pytest.mark.parametrize('kind', ['segm'])
@pytest.mark.parametrize(
    ('segmentation', 'message'),
    [
        (None, r'no segmentation, and its box is no mask.*--iou-type bbox'),
        ([[0, 0, 4, 0, 4, 4]], 'the segmentation is not run lengths'),
        ({'size': [8], 'counts': 'x'}, 'the size of the segmentation is'),
        ({'size': [8, 8.0], 'counts': 'x'}, 'the size of the segmentation is'),
        ({'size': [8, 8], 'counts': None}, 'the counts are None'),
        ({'size': [8, 8], 'counts': [0, 3]}, 'malformed: the runs cover 3 pixels'),
        ({'size': [8, 8], 'counts': 'oops'}, 'malformed'),
        ({'size': [8, 9], 'counts': counts_of(rectangle(0, 0, 4, 4, size=(8, 9))).decode()}, 'the mask is 9×8 pixels'),
    ],
)
def test_a_bad_mask_is_named(files, tmp_path, kind, segmentation, message):
    path = as_results(tmp_path / 'results.json', [RESULTS[0], {**RESULTS[1], 'segmentation': segmentation}])
    with pytest.raises(EvaluationError, match=rf'results\.json, entry 2: .*{message}'):
        evaluate({**files, 'predictions': path}, iou_type=kind)


@pytest.mark.parametrize('kind', ['bbox'])
def test_boxes_need_the_size_of_their_image(files, tmp_path, kind):
    boxes = [{name: value for name, value in found.items() if name != 'segmentation'} for found in RESULTS]
    path = as_results(tmp_path / 'results.json', boxes)
    with pytest.raises(EvaluationError, match=r'entry 1: the size of its image is not known.*--coco'):
        evaluate({**files, 'predictions': path}, iou_type=kind)
    taxonomy = teddy_taxonomy()
    plain = ResultKeys.of(taxonomy, ['a', '0017'])
    keys = ResultKeys(plain.categories, plain.images, {'a': (8, 8), '0017': (8, 8)})
    assert_expected(files, path, kind, keys=keys)
    for box, message in (
        ([0, 0, -1, 2], 'bbox is'),
        ([0, 0, 2], 'bbox is'),
        ([0, 0, 640, 480], 'far outside its image'),
    ):
        as_results(path, [{**boxes[0], 'bbox': box}])
        with pytest.raises(EvaluationError, match=f'entry 1: .*{message}'):
            evaluate({**files, 'predictions': path}, iou_type=kind, keys=keys)


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ('{"images": [], "annotations": []}', 'holds annotations of a data set. Give COCO results'),
        ('{}', 'holds no list'),
        ('[1]', 'entry 1: is 1'),
        ('[{"image_id": 1, "image_id": 2}]', "the key 'image_id' stands twice"),
        ('[{"image_id": 1', 'is not JSON'),
        ('[' * 100_000, 'nested too deeply'),
    ],
)
def test_other_documents(files, tmp_path, kind, content, message):
    path = tmp_path / 'results.json'
    path.write_text(content)
    with pytest.raises(EvaluationError, match=message):
        evaluate({**files, 'predictions': path}, iou_type=kind)


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_kaggle_strings_of_the_wrong_length(files, tmp_path, kind):
    path = as_kaggle(tmp_path / 'kaggle.csv', files['predictions'], kind)
    edit(path, 'car 0.75', 'car')
    count = 5 if kind == 'segm' else 11
    with pytest.raises(EvaluationError, match=rf'kaggle\.csv, line 3: PredictionString has {count} values'):
        evaluate({**files, 'predictions': path}, iou_type=kind)


def test_kaggle_errors_name_the_line_of_the_image(files, tmp_path, kind):
    path = as_kaggle(tmp_path / 'kaggle.csv', files['predictions'], kind)
    edit(path, 'bear 0.5', 'boat 0.5')
    with pytest.raises(EvaluationError, match=r"kaggle\.csv, line 4: class 'boat' is not in the taxonomy"):
        evaluate({**files, 'predictions': path}, iou_type=kind)


def test_a_score_with_a_low_line_is_no_number(files, kind):
    edit(files['predictions'], '0.75', '1_0')
    with pytest.raises(EvaluationError, match=r"predictions\.csv, line 2: Score is '1_0'"):
        evaluate(files, iou_type=kind)


def test_a_column_that_is_there_twice(files, kind):
    lines = files['predictions'].read_text().splitlines()
    files['predictions'].write_text('\n'.join([lines[0] + ',Score', *(line + ',0.1' for line in lines[1:])]))
    with pytest.raises(EvaluationError, match=r'predictions\.csv, line 1: column Score is there twice'):
        evaluate(files, iou_type=kind)


@pytest.mark.parametrize('name', ['boxes', 'labels', 'predictions'])
def test_an_empty_image_id(files, kind, name):
    edit(files[name], '\n0017', '\n')
    with pytest.raises(EvaluationError, match=rf'{name}\.csv, line \d: ImageID is empty'):
        evaluate(files, iou_type=kind)


@pytest.mark.parametrize(
    ('box', 'message'),
    [((0, 0, 4, 4), r'the box \[0.0, 0.0, 4.0, 4.0\] is outside its image.*not pixels'),
     ((0.5, 0.0, 0.25, 1.0), 'the box ends before it begins')],
)  # fmt: skip
def test_ground_truth_boxes_without_sense(tmp_path, kind, box, message):
    truth = [row('a'), row('a', box=box)]
    files = write_case(tmp_path, truth, [row('a')], [], [row('a')], iou_type=kind)
    with pytest.raises(EvaluationError, match=rf'boxes\.csv, line 3: {message}'):
        evaluate(files, iou_type=kind)


@pytest.mark.parametrize('kind', ['bbox'])
@pytest.mark.parametrize(
    ('box', 'message'),
    [((0, 0, 4, 4), 'the box is far outside its image'), ((0.5, 0.0, 0.25, 1.0), 'the box ends before it begins')],
)
def test_boxes_of_a_submission_without_sense(tmp_path, kind, box, message):
    files = write_case(tmp_path, TRUTH, TRUTH, [], [row('a', box=box)], iou_type=kind)
    with pytest.raises(EvaluationError, match=rf'predictions\.csv, line 2: {message}'):
        evaluate(files, iou_type=kind)


@pytest.mark.parametrize('form', ['kaggle', 'results'])
def test_the_reference_data_in_other_forms(tmp_path, kind, form):
    folder = GOLDENS / 'case_03'
    submission = folder / ('submission.csv' if kind == 'segm' else 'submission_bbox.csv')
    with submission.open(newline='') as file:
        rows = list(csv.DictReader(file))
    with (folder / 'gt_expanded' / 'image-labels.csv').open(newline='') as file:
        names = sorted({line['LabelName'] for line in (*csv.DictReader(file), *rows)})
    with (folder / 'gt_expanded' / 'segmentation-bbox.csv').open(newline='') as file:
        names = sorted({*names, *(line['LabelName'] for line in csv.DictReader(file))})
    taxonomy = Taxonomy.from_edges(names, [])
    keys = ResultKeys.of(taxonomy, {line['ImageID'] for line in rows})
    if form == 'kaggle':
        path = as_kaggle(tmp_path / 'kaggle.csv', submission, kind)
    elif kind == 'segm':
        path = as_results(tmp_path / 'results.json', [
            {'image_id': line['ImageID'], 'category_id': line['LabelName'], 'score': float(line['Score']),
             'segmentation': {'size': [int(line['ImageHeight']), int(line['ImageWidth'])],
                              'counts': counts_of_text(line['Mask']).decode()}}
            for line in rows
        ])  # fmt: skip
    else:
        # In an image of one pixel, parts of the image are pixels; the ends are sums, so the last digit may change.
        keys = ResultKeys(keys.categories, keys.images, dict.fromkeys((line['ImageID'] for line in rows), (1, 1)))
        boxes = [[float(line[side]) for side in ('XMin', 'YMin', 'XMax', 'YMax')] for line in rows]
        path = as_results(tmp_path / 'results.json', [
            {'image_id': line['ImageID'], 'category_id': line['LabelName'], 'score': float(line['Score']),
             'bbox': [x1, y1, x2 - x1, y2 - y1]}
            for line, (x1, y1, x2, y2) in zip(rows, boxes, strict=True)
        ])  # fmt: skip

    def result(predictions: Path) -> Any:
        truth = folder / 'gt_expanded'
        return evaluate_files(
            truth / 'segmentation-bbox.csv', truth / 'image-labels.csv', masks=truth / 'segmentation-masks.csv',
            predictions=predictions, taxonomy=taxonomy, keys=keys, iou_type=kind, expand=False,
        )  # fmt: skip

    found, expected = result(path), result(submission)
    assert expected.num_true_positives.sum() > 20
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
