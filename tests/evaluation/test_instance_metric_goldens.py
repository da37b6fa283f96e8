"""The reference's data sets, through a store and as predictions of a model."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from open_images_files import GOLDENS
from pycocotools import mask as coco_mask

from hierseg.evaluation import OpenImagesInstanceMetric
from hierseg.formats.run_lengths import decode_masks
from hierseg.metrics import evaluate_files
from hierseg.store import ImageRow, Instances, StoreWriter
from hierseg.taxonomy import Taxonomy, read_taxonomy

AP_KEY = '_PerformanceByCategory/AP@0.5IOU/'


def read(path):
    with Path(path).open(newline='') as file:
        return list(csv.DictReader(file))


def place_of(row):
    return [float(row[name]) for name in ('XMin', 'YMin', 'XMax', 'YMax')]


def golden_store(path, folder, submission, taxonomy):
    """The ground truth of a golden as a store: each box row is an instance, with the next unused equal mask row."""
    boxes, masks, labels = (
        read(folder / f'{name}.csv') for name in ('segmentation-bbox', 'segmentation-masks', 'image-labels')
    )
    sizes = {row['ImageID']: (int(row['ImageHeight']), int(row['ImageWidth'])) for row in [*submission, *masks]}
    by_key = {}
    for row in masks:
        by_key.setdefault((row['ImageID'], row['LabelName'], *place_of(row), row['IsGroupOf']), []).append(row)
    with StoreWriter(path, taxonomy=taxonomy) as writer:
        for image_id in sorted({row['ImageID'] for row in [*boxes, *labels]}):
            height, width = sizes.get(image_id, (8, 8))
            mine = [row for row in boxes if row['ImageID'] == image_id]
            texts = [
                (by_key.get((image_id, row['LabelName'], *place_of(row), row['IsGroupOf'])) or [{}]).pop(0).get('Mask')
                for row in mine
            ]
            has_mask = np.array([text is not None for text in texts], dtype=bool)
            found = Instances(
                labels=np.array([taxonomy.label(row['LabelName']) for row in mine], dtype=np.int64),
                boxes=np.array([place_of(row) for row in mine]).reshape(-1, 4) * [width, height, width, height],
                masks=[b'' if text is None else decode_masks([text], where=str)[0] for text in texts],
                has_mask=has_mask,
                group_of=np.array([row['IsGroupOf'] == '1' for row in mine], dtype=bool),
                areas=np.zeros(len(mine)),
                annotation_ids=[''] * len(mine),
            )
            present, absent = (
                np.unique(
                    [
                        taxonomy.label(r['LabelName'])
                        for r in labels
                        if r['ImageID'] == image_id and r['Confidence'] == sign
                    ]
                ).astype(np.int64)
                for sign in '10'
            )
            writer.add(ImageRow(image_id, f'{image_id}.jpg', width, height), found, present, absent)
    assert not any(by_key.values())
    return sizes


def golden_samples(submission, sizes, image_ids, taxonomy, iou_type):
    """The submission as a plain detector would predict it."""
    for image_id in image_ids:
        height, width = sizes.get(image_id, (8, 8))
        mine = [row for row in submission if row['ImageID'] == image_id]
        predicted = {
            'labels': np.array([taxonomy.label(row['LabelName']) for row in mine], dtype=np.int64),
            'scores': np.array([float(row['Score']) for row in mine]),
        }
        if iou_type == 'bbox':
            predicted['bboxes'] = np.array([place_of(r) for r in mine]).reshape(-1, 4) * [width, height, width, height]
        else:
            masks = [
                coco_mask.decode({'size': [height, width], 'counts': decode_masks([row['Mask']], where=str)[0]})
                for row in mine
            ]
            predicted['masks'] = np.stack([np.zeros((height, width), np.uint8), *masks])[1:].astype(bool)
        yield {'img_id': image_id, 'pred_instances': predicted}


@pytest.mark.parametrize('weight', [0.0, 1.0])
@pytest.mark.parametrize(('case', 'iou_type'), [('case_02', 'segm'), ('case_03', 'segm'), ('case_03', 'bbox')])
@pytest.mark.parametrize('expand', [False, True])
def test_equals_the_reference_and_its_own_submission(request, tmp_path, case, iou_type, weight, expand):
    suffix = '' if iou_type == 'segm' else '_bbox'
    expected = json.loads((GOLDENS / case / f'expected{suffix}.json').read_text())[f'group_of_weight_{weight}']
    values = {key.split(AP_KEY)[1]: value for key, value in expected['metrics'].items() if AP_KEY in key}
    taxonomy = Taxonomy.from_edges(list(values), [])
    if expand:
        data = request.getfixturevalue('test_data') / 'openimages'
        taxonomy = read_taxonomy(data / 'challenge-2019-label300-segmentable-hierarchy.json')
    folder = GOLDENS / case / ('gt' if expand else 'gt_expanded')
    submission = read(GOLDENS / case / f'submission{suffix}.csv')
    sizes = golden_store(tmp_path / 'store', folder, submission if iou_type == 'segm' else [], taxonomy)

    written, results = tmp_path / 'new' / 'submission.csv', tmp_path / 'results.json'
    metric = OpenImagesInstanceMetric(
        str(tmp_path / 'store'),
        iou_type=iou_type,
        group_of_weight=weight,
        submission_file=str(written),
        results_file=str(results),
    )
    image_ids = [metric.store.image(row).id for row in range(len(metric.store))]
    metric.process(None, list(golden_samples(submission, sizes, image_ids, taxonomy, iou_type)))
    found = metric.evaluate(len(image_ids))
    of_classes = json.loads(results.read_text())
    assert of_classes['AP'] == {c: None if v is None else pytest.approx(v, abs=1e-12) for c, v in values.items()}
    assert found[f'{iou_type}/mAP'] == pytest.approx(expected['mAP'], abs=1e-12)
    assert found[f'{iou_type}/num_classes_evaluated'] == expected['num_classes_evaluated']

    again = evaluate_files(
        folder / 'segmentation-bbox.csv',
        folder / 'image-labels.csv',
        masks=folder / 'segmentation-masks.csv',
        predictions=written,
        taxonomy=taxonomy,
        iou_type=iou_type,
        group_of_weight=weight,
        expand=expand,
    )
    assert again.to_json(taxonomy.ids) == of_classes
    assert [path.name for path in written.parent.iterdir()] == ['submission.csv']
