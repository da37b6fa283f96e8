"""The whole evaluation: equal to the reference evaluator on its data sets, and to plain loops on random ones."""

from __future__ import annotations

import json
import math
import tempfile
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from open_images_files import GOLDENS, rectangle, write_case
from plain_open_images import evaluate as plain_evaluate
from taxonomies import teddy_taxonomy

from hierseg.metrics import evaluate_files
from hierseg.metrics.records import Criterion
from hierseg.taxonomy import Taxonomy, read_taxonomy

CASES = [('case_02', 'segm'), ('case_03', 'segm'), ('case_03', 'bbox')]
AP_KEY = '_PerformanceByCategory/AP@0.5IOU/'


def expected_of(case, iou_type, weight):
    """AP by class id, mAP and counts of the reference evaluator."""
    name = 'expected.json' if iou_type == 'segm' else 'expected_bbox.json'
    expected = json.loads((GOLDENS / case / name).read_text())[f'group_of_weight_{weight}']
    values = {key.split(AP_KEY)[1]: value for key, value in expected['metrics'].items() if AP_KEY in key}
    return values, expected


def check_golden(case, iou_type, weight, taxonomy, *, expand):
    values, expected = expected_of(case, iou_type, weight)
    folder = GOLDENS / case / ('gt' if expand else 'gt_expanded')
    result = evaluate_files(
        folder / 'segmentation-bbox.csv',
        folder / 'image-labels.csv',
        masks=folder / 'segmentation-masks.csv',
        predictions=GOLDENS / case / ('submission.csv' if iou_type == 'segm' else 'submission_bbox.csv'),
        taxonomy=taxonomy,
        iou_type=iou_type,
        group_of_weight=weight,
        expand=expand,
    )
    document = result.to_json(taxonomy.ids)
    assert document['AP'].keys() == values.keys()
    for class_id, value in values.items():
        assert document['AP'][class_id] == (None if value is None else pytest.approx(value, abs=1e-12)), class_id
    assert document['mAP'] == pytest.approx(expected['mAP'], abs=1e-12)
    assert document['num_classes_evaluated'] == expected['num_classes_evaluated']
    for class_id, counts in expected['per_class_gt_scored_tp'].items():
        label = taxonomy.label(class_id)
        found = (result.num_ground_truth[label], result.num_scored[label], result.num_true_positives[label])
        assert list(found) == counts, class_id
    assert result.num_images == expected['num_images_with_ground_truth']


@pytest.mark.parametrize('weight', [0.0, 1.0])
@pytest.mark.parametrize(('case', 'iou_type'), CASES)
def test_equals_the_reference_on_expanded_files(case, iou_type, weight):
    flat = Taxonomy.from_edges(list(expected_of(case, iou_type, weight)[0]), [])
    check_golden(case, iou_type, weight, flat, expand=False)


@pytest.mark.parametrize('weight', [0.0, 1.0])
@pytest.mark.parametrize(('case', 'iou_type'), CASES)
def test_equals_the_reference_with_our_expansion(test_data, case, iou_type, weight):
    taxonomy = read_taxonomy(test_data / 'openimages' / 'challenge-2019-label300-segmentable-hierarchy.json')
    check_golden(case, iou_type, weight, taxonomy, expand=True)


TAXONOMY = teddy_taxonomy()
PARENTS = {
    class_id: [TAXONOMY.ids[parent] for parent in parents]
    for class_id, parents in zip(TAXONOMY.ids, TAXONOMY.parents, strict=True)
}
# Few places and classes, on a grid where every overlap is exact: ties, duplicates and halves are common.
PLACES = [
    (0, 0, 4, 4),
    (0, 0, 4, 2),
    (0, 0, 3, 4),
    (0, 0, 8, 4),
    (4, 0, 8, 4),
    (2, 2, 6, 6),
    (0, 0, 1, 1),
    (0, 0, 0, 0),
]
places = st.sampled_from(PLACES)
objects = st.fixed_dictionaries(
    {
        'image': st.sampled_from(['a', 'b']),
        'cls': st.sampled_from(TAXONOMY.ids),
        'place': st.sampled_from(PLACES[:-1]),
        'group': st.booleans(),
        'masked': st.sampled_from(['no', 'yes', 'yes', 'only', 'empty', 'other']),
    }
)
labels = st.fixed_dictionaries(
    {'image': st.sampled_from(['a', 'b', 'c']), 'cls': st.sampled_from(TAXONOMY.ids), 'present': st.booleans()}
)
claims = st.fixed_dictionaries(
    {'image': st.sampled_from(['a', 'b', 'c', 'd']), 'cls': st.sampled_from(TAXONOMY.ids), 'place': places}
)


def box_of(place):
    return tuple(extent / 8 for extent in place)


def ground_truth_rows(drawn):
    """Box rows and mask rows; an object may have either, both, or a mask that is empty or lies elsewhere."""
    boxes, masks = [], []
    for entry in drawn:
        entry = {**entry, 'box': box_of(entry['place'])}
        if entry['masked'] != 'only':
            boxes.append(entry)
        if entry['masked'] != 'no':
            place = {'empty': (0, 0, 0, 0), 'other': (0, 0, 4, 3)}.get(entry['masked'], entry['place'])
            masks.append({**entry, 'mask': rectangle(*place)})
    return boxes, masks


@settings(max_examples=250, deadline=None)
@given(
    st.lists(objects, max_size=6),
    st.lists(labels, max_size=3),
    st.lists(claims, max_size=8),
    st.randoms(use_true_random=False),
    st.sampled_from(['segm', 'bbox']),
    st.sampled_from([0, 1]),
    # Overlaps of the places are 1/4, 1/3, 1/2, 3/4, 1, …; their areas 1, 4, 8, 12, 16 and 32 pixels.
    st.sampled_from(['1/2', '1/3', '3/4', '7/10', '1']),
    st.sampled_from([(0, math.inf), (0, math.inf), (0, 12), (8, 16), (16, math.inf)]),
)
def test_equals_plain_loops(drawn, verified, claimed, random, iou_type, weight, threshold, areas):
    scores = [(rank + 1) / 10 for rank in range(len(claimed))]
    random.shuffle(scores)
    boxes, masks = ground_truth_rows(drawn)
    detections = [
        {**claim, 'score': score, 'box': box_of(claim['place']), 'mask': rectangle(*claim['place'])}
        for claim, score in zip(claimed, scores, strict=True)
        if iou_type == 'segm' or claim['place'] != PLACES[-1]
    ]
    known = {entry['image'] for entry in [*boxes, *verified, *(masks if iou_type == 'segm' else [])]}
    assume(not detections or any(detection['image'] in known for detection in detections))  # else it is refused
    threshold, areas = Fraction(threshold), areas if iou_type == 'segm' else (0, math.inf)
    expected = plain_evaluate(
        boxes, masks, verified, detections, parents=PARENTS, iou_type=iou_type, weight=weight, threshold=threshold,
        areas=areas,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        files = write_case(Path(folder), boxes, masks, verified, detections, iou_type=iou_type)
        result = evaluate_files(
            **files,
            taxonomy=TAXONOMY,
            iou_type=iou_type,
            group_of_weight=weight,
            criterion=Criterion(float(threshold), areas),
        )
    found = result.to_json(TAXONOMY.ids)['AP']
    assert found == {cls: None if value is None else pytest.approx(value, abs=1e-12) for cls, value in expected.items()}


def test_renumbering_classes_permutes_the_result(tmp_path):
    rows = [
        {'image': 'a', 'cls': cls, 'box': box_of(place), 'group': False, 'mask': rectangle(*place), 'score': score}
        for cls, place, score in [('teddy', PLACES[0], 0.3), ('bear', PLACES[4], 0.8), ('car', PLACES[5], 0.5)]
    ]
    found = [*rows[:2], {**rows[1], 'cls': 'animal', 'score': 0.9}]
    files = write_case(tmp_path, rows, rows, [], found, iou_type='segm')
    order = ['car', 'teddy', 'animal', 'toy', 'bear']
    edges = [('bear', 'animal'), ('teddy', 'toy'), ('teddy', 'bear')]
    result = evaluate_files(**files, taxonomy=TAXONOMY)
    renumbered = evaluate_files(**files, taxonomy=Taxonomy.from_edges(order, edges))
    assert result.to_json(TAXONOMY.ids) == renumbered.to_json(order)
    # Bear: one of two found. Animal: one of two. Toy and Car: none of one.
    assert result.average_precision.tolist() == [0, 0.5, 0.5, 1, 0]


def test_the_progress_bar_changes_nothing(tmp_path, capsys):
    folder = GOLDENS / 'case_02' / 'gt_expanded'
    taxonomy = Taxonomy.from_edges(list(expected_of('case_02', 'segm', 0.0)[0]), [])
    one, other = (
        evaluate_files(
            folder / 'segmentation-bbox.csv',
            folder / 'image-labels.csv',
            masks=folder / 'segmentation-masks.csv',
            predictions=GOLDENS / 'case_02' / 'submission.csv',
            taxonomy=taxonomy,
            expand=False,
            progress=progress,
        )
        for progress in (False, True)
    )
    np.testing.assert_array_equal(one.average_precision, other.average_precision)
