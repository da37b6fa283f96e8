"""A converted store scores a model as the command scores its submission on the official files."""

from __future__ import annotations

import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from hierseg.converters.open_images import OpenImagesFiles, convert_open_images
from hierseg.evaluation import OpenImagesInstanceMetric
from hierseg.metrics import evaluate_files
from hierseg.store import ImageRow, Instances
from hierseg.synthetic import (
    VALIDATION_RATES,
    SplitOptions,
    SynthesisOptions,
    default_taxonomy,
    synthesize,
)
from hierseg.taxonomy import read_taxonomy


@pytest.fixture(scope='module')
def converted(tmp_path_factory):
    """Folder of synthetic official files with their store in ``store``."""
    folder = tmp_path_factory.mktemp('files') / 'data'
    splits = (SplitOptions('validation', 15, 20.0, VALIDATION_RATES),)
    synthesize(folder, SynthesisOptions(splits=splits, seed=3, size=96), taxonomy=default_taxonomy())
    names = folder / 'challenge-2019-validation-segmentation'
    files = OpenImagesFiles(
        f'{names}-bbox.csv',
        f'{names}-labels.csv',
        f'{names}-masks.csv',
        folder / 'validation',
        folder / 'validation-masks',
    )
    convert_open_images(files, taxonomy_of(folder), out=folder / 'store')
    return folder


def taxonomy_of(folder):
    names = folder / 'challenge-2019'
    return read_taxonomy(f'{names}-label-hierarchy.json', classes=f'{names}-classes-description.csv')


def predictions(
    image: ImageRow, truth: Instances, ancestor_mask: np.ndarray, generator: np.random.Generator
) -> dict[str, np.ndarray]:
    """Every instance twice, shifted, with random scores for its path and now and then for another class."""
    masks, boxes = [], []
    scores = np.zeros((2 * len(truth), len(ancestor_mask)), dtype=np.float32)
    for row, index in enumerate([*range(len(truth))] * 2):
        shift = int(generator.integers(-4, 5))
        x1, y1, x2, y2 = truth.boxes[index]
        boxes.append((x1 + shift, y1, x2 + shift, y2))
        mask = np.zeros((image.height, image.width), dtype=bool)
        mask[int(y1) : int(y2) + 1, int(x1) : int(x2) + 1] = True
        if truth.has_mask[index]:
            mask = coco_mask.decode({'size': [image.height, image.width], 'counts': truth.masks[index]}).astype(bool)
        masks.append(np.roll(mask, shift, axis=1))
        path = ancestor_mask[truth.labels[index]]
        scores[row, path] = generator.random(path.sum())
        scores[row, generator.integers(len(ancestor_mask))] = generator.random()
    none = np.zeros((1, image.height, image.width), dtype=bool)
    return {
        'bboxes': np.array(boxes, dtype=np.float64).reshape(-1, 4),
        'class_scores': scores,
        'masks': np.concatenate([none, np.array(masks, dtype=bool).reshape(-1, image.height, image.width)])[1:],
    }


@pytest.mark.parametrize('weight', [0.0, 1.0])
@pytest.mark.parametrize('iou_type', ['segm', 'bbox'])
def test_metric_and_command_agree(converted, tmp_path, iou_type, weight):
    metric = OpenImagesInstanceMetric(
        str(converted / 'store'),
        iou_type=iou_type,
        group_of_weight=weight,
        submission_file=str(tmp_path / 'submission.csv'),
        results_file=str(tmp_path / 'results.json'),
    )
    generator = np.random.default_rng(0)
    for row in range(len(metric.store)):
        image, truth = metric.store.image(row), metric.store.instances(row)
        predicted = predictions(image, truth, metric.taxonomy.arrays.ancestor_mask, generator)
        metric.process(None, [{'img_id': image.id, 'pred_instances': predicted}])
    found = metric.evaluate(len(metric.store))[f'{iou_type}/mAP']
    assert 0.2 < found < 0.95

    names = converted / 'challenge-2019-validation-segmentation'
    taxonomy = taxonomy_of(converted)
    result = evaluate_files(
        f'{names}-bbox.csv',
        f'{names}-labels.csv',
        masks=f'{names}-masks-rle.csv',
        predictions=tmp_path / 'submission.csv',
        taxonomy=taxonomy,
        iou_type=iou_type,
        group_of_weight=weight,
    )
    results = json.loads((tmp_path / 'results.json').read_text())
    assert result.to_json(taxonomy.ids) == {
        'mAP': pytest.approx(found, abs=1e-12),
        'num_classes_evaluated': results['num_classes_evaluated'],
        'AP': {c: None if value is None else pytest.approx(value, abs=1e-12) for c, value in results['AP'].items()},
    }
