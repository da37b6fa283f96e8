from __future__ import annotations

import csv

import numpy as np
import pytest
from open_images_files import counts_of, rectangle

from hierseg.errors import EvaluationError
from hierseg.evaluation.predictions import Span, SubmissionWriter, submission_rows
from hierseg.formats.run_lengths import counts_of_text
from hierseg.metrics import ImageDetections
from hierseg.store import ImageRow

IMAGE = ImageRow('a,1', 'a.jpg', 8, 6)
MASKS = [counts_of(rectangle(*place, size=(6, 8))) for place in ((0, 0, 4, 4), (0, 0, 0, 0), (2, 2, 3, 5))]
MASK_DETECTIONS = ImageDetections(
    labels=np.array([1, 0, 1, 0]),
    scores=np.array([np.float32(0.1), 1 / 3, 0.5, 1e-9], dtype=np.float64),
    regions=np.array([0, 0, 1, 2]),
    boxes=np.zeros((3, 4)),
    masks=MASKS,
    mask_areas=np.array([16, 0, 3]),
    size=(6, 8),
)


def test_masks():
    rows = list(csv.reader(submission_rows(IMAGE, MASK_DETECTIONS, ['p', 'q']).splitlines()))
    assert [row[:4] for row in rows] == [['a,1', '8', '6', 'q'], ['a,1', '8', '6', 'p'], ['a,1', '8', '6', 'p']]
    assert [float(row[4]) for row in rows] == MASK_DETECTIONS.scores[[0, 1, 3]].tolist()  # to the last bit
    assert [counts_of_text(row[5]) for row in rows] == [MASKS[0], MASKS[0], MASKS[2]]


def test_boxes():
    boxes = ImageDetections(np.array([0]), np.array([0.25]), np.array([0]), np.array([[0.1, 0.2, 0.3, 1 / 3]]))
    assert submission_rows(IMAGE, boxes, ['p']) == '"a,1",p,0.25,0.1,0.3,0.2,0.3333333333333333\n'


def test_parts_of_several_ranks_become_one_file(tmp_path):
    target = tmp_path / 'out' / 'submission.csv'
    writers = [SubmissionWriter(target, class_ids=['p', 'q']) for rank in range(2)]
    spans = {}
    for rank, name in ((0, 'first'), (1, 'second'), (0, 'third'), (1, 'first')):  # the last one pads
        spans.setdefault(name, writers[rank].add(ImageRow(name, '', 8, 6), MASK_DETECTIONS))
    for writer in writers:
        writer.close()
    writers[0].merge(spans.values(), by_mask=True)
    for writer in writers:
        writer.remove_part()
    with target.open(newline='') as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ['ImageID', 'ImageWidth', 'ImageHeight', 'LabelName', 'Score', 'Mask']
    assert [row['ImageID'] for row in rows] == ['first'] * 3 + ['second'] * 3 + ['third'] * 3
    assert [path.name for path in target.parent.iterdir()] == ['submission.csv']


def test_a_part_that_is_not_there_is_said_and_nothing_is_written(tmp_path):
    target = tmp_path / 'submission.csv'
    target.write_text('old')
    with pytest.raises(
        EvaluationError, match=r'other\.partial, the part of another rank, is missing.*folder that all ranks share'
    ):
        SubmissionWriter(target, class_ids=['p']).merge([Span('other.partial', 0, 1)], by_mask=True)
    assert target.read_text() == 'old'
    assert [path.name for path in tmp_path.iterdir()] == ['submission.csv']


def test_no_images_give_a_header(tmp_path):
    SubmissionWriter(tmp_path / 's.csv', class_ids=['p']).merge([], by_mask=False)
    assert (tmp_path / 's.csv').read_text() == 'ImageID,LabelName,Score,XMin,XMax,YMin,YMax\n'
