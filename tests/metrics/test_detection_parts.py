"""Parts, blocks and processes change nothing: not a bit of the result, nor what is said about bad rows."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import pytest
from open_images_files import GOLDENS, rectangle, write_case
from taxonomies import teddy_taxonomy

from hierseg.errors import EvaluationError
from hierseg.formats import csv_tables
from hierseg.metrics import evaluate_files, open_images
from hierseg.metrics.matching import match_images
from hierseg.metrics.open_images import detection_rows, read_ground_truth
from hierseg.taxonomy import Taxonomy

FIELDS = ('average_precision', 'num_ground_truth', 'num_scored', 'num_true_positives')
GOLDEN = {'segm': GOLDENS / 'case_03' / 'submission.csv', 'bbox': GOLDENS / 'case_03' / 'submission_bbox.csv'}


def evaluate_golden(predictions: Path, iou_type: str, **options: int):
    folder = GOLDENS / 'case_03' / 'gt_expanded'
    columns = {
        folder / 'segmentation-bbox.csv': 1,
        folder / 'image-labels.csv': 1,
        GOLDEN['segm']: 3,
        GOLDEN['bbox']: 1,
    }
    names = {line.split(',')[at] for path, at in columns.items() for line in path.read_text().splitlines()[1:]}
    return evaluate_files(
        folder / 'segmentation-bbox.csv',
        folder / 'image-labels.csv',
        masks=folder / 'segmentation-masks.csv',
        predictions=predictions,
        taxonomy=Taxonomy.from_edges(sorted(names), []),
        iou_type=iou_type,
        group_of_weight=1.0,
        expand=False,
        **options,
    )


def assert_same(found, expected) -> None:
    assert found.num_images == expected.num_images
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


@pytest.fixture
def tiny_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of a few images, and blocks of some ten rows, of which each touches several parts."""
    monkeypatch.setattr(open_images, 'IMAGES_PER_PART', 3)
    monkeypatch.setattr(csv_tables, 'BLOCK_BYTES', 2000)


@pytest.mark.parametrize('iou_type', ['segm', 'bbox'])
def test_parts_blocks_and_workers_change_nothing(tiny_parts, monkeypatch, iou_type):
    found = [evaluate_golden(GOLDEN[iou_type], iou_type, workers=workers) for workers in (1, 2, 3)]
    monkeypatch.undo()
    expected = evaluate_golden(GOLDEN[iou_type], iou_type)
    assert expected.num_true_positives.sum() > 20
    for result in found:
        assert_same(result, expected)


def test_rows_may_come_in_any_order(tiny_parts, tmp_path):
    # Sorted by image, by class, and shuffled, keeping the order of the rows of one image, which breaks ties.
    header, *rows = GOLDEN['segm'].read_text().splitlines()
    expected = evaluate_golden(GOLDEN['segm'], 'segm')
    images = [row.split(',')[0] for row in rows]
    shuffled = random.Random(0).sample(images, len(images))
    for order in (sorted(images), sorted(images, reverse=True), shuffled):
        remaining = {image: iter([row for row in rows if row.startswith(image)]) for image in images}
        path = tmp_path / 'submission.csv'
        path.write_text('\n'.join([header, *(next(remaining[image]) for image in order)]))
        assert_same(evaluate_golden(path, 'segm'), expected)


def row(image: str, **values):
    return {'image': image, 'cls': 'car', 'box': (0.0, 0.0, 0.5, 0.5), 'group': False, 'mask': rectangle(0, 0, 4, 4),
            'score': 0.5, **values}  # fmt: skip


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """Forty images with a car each, found."""
    rows = [row(f'{number:03}') for number in range(40)]
    return write_case(tmp_path, rows, rows, [], rows, iou_type='segm')


def test_every_image_is_in_one_part(files, tiny_parts, tmp_path):
    taxonomy = teddy_taxonomy()
    truth = read_ground_truth(files['boxes'], files['labels'], files['masks'], taxonomy=taxonomy)
    rows = detection_rows(files['predictions'], list(truth), taxonomy=taxonomy, iou_type='segm')
    parts = open_images.split_by_image(rows, truth, predictions=files['predictions'], iou_type='segm', folder=tmp_path)
    assert len(parts) == 40 // 3
    assert [image for part in parts for image in part.ground_truth] == list(truth)
    for part in parts:
        matches = part.match(match_images)
        assert [found.image_id for found in matches] == list(part.ground_truth)
        assert all(found.weights.tolist() == [1] for found in matches)
        image_id, first = next(iter(part.ground_truth.items()))
        whole = list(truth.values())[part.first_image]
        assert list(truth)[part.first_image] == image_id
        assert (first.masks, first.size, first.boxes.tolist()) == (whole.masks, whole.size, whole.boxes.tolist())


@pytest.mark.parametrize('workers', [1, 2])
@pytest.mark.parametrize(
    ('column', 'value', 'message'),
    [
        (3, 'boat', "line 37: class 'boat' is not in the taxonomy"),
        (4, 'high', "line 37: Score is 'high'"),
        (1, '0', 'line 37: ImageWidth is 0'),
        (1, '9', r'line 37: the mask is 9×8 pixels, .* are 8×8'),
        (5, 'eNo=', 'line 37: the mask cannot be decoded'),
        (5, 'a,b', 'line 37: 7 values for 6 columns'),
    ],
)
def test_a_bad_row_of_a_late_block_is_named_by_its_line(files, tiny_parts, workers, column, value, message):
    lines = files['predictions'].read_text().splitlines()
    fields = lines[36].split(',')
    fields[column] = value
    lines[36] = ','.join(fields)
    files['predictions'].write_text('\n'.join(lines))
    with pytest.raises(EvaluationError, match=message):
        evaluate_files(**files, taxonomy=teddy_taxonomy(), workers=workers)


def die(*args, **options):
    os._exit(9)


def test_a_worker_that_dies_is_told(files, monkeypatch):
    monkeypatch.setattr(open_images, 'match_images', die)
    with pytest.raises(EvaluationError, match='a worker process died'):
        evaluate_files(**files, taxonomy=teddy_taxonomy(), workers=2)


def test_no_workers(files):
    with pytest.raises(EvaluationError, match=r'workers=0\. Give at least 1'):
        evaluate_files(**files, taxonomy=teddy_taxonomy(), workers=0)


def test_nothing_stays_behind(files, tmp_path, monkeypatch):
    scratch = tmp_path / 'scratch'
    scratch.mkdir()
    monkeypatch.setattr('tempfile.tempdir', str(scratch))
    evaluate_files(**files, taxonomy=teddy_taxonomy(), workers=2)
    files['predictions'].write_text(files['predictions'].read_text().replace('0.5', 'high'))
    with pytest.raises(EvaluationError, match='line 2: Score'):
        evaluate_files(**files, taxonomy=teddy_taxonomy())
    assert list(scratch.iterdir()) == []


def test_masks_that_cannot_count_are_not_decoded(tmp_path):
    # Car has an object, toy is verified as absent, bear is neither: its mask is not looked at.
    labels = [row('a', cls='toy', present=False)]
    claims = [row('a'), row('a', cls='toy'), row('a', cls='bear')]
    files = write_case(tmp_path, [row('a')], [row('a')], labels, claims, iou_type='segm')
    lines = files['predictions'].read_text().splitlines()
    for line, cls in enumerate(('car', 'toy', 'bear'), start=1):
        damaged = [*lines]
        damaged[line] = ','.join([*lines[line].split(',')[:-1], 'none'])
        files['predictions'].write_text('\n'.join(damaged))
        if cls == 'bear':
            assert evaluate_files(**files, taxonomy=teddy_taxonomy()).num_scored.sum() == 2
        else:
            with pytest.raises(EvaluationError, match=f'line {line + 1}: the mask cannot be decoded'):
                evaluate_files(**files, taxonomy=teddy_taxonomy())
