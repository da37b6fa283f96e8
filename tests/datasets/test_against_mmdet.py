"""The same photographs through hierseg's data set and mmdet's own COCO reader."""

from __future__ import annotations

import json

import numpy as np
import pytest
from mmdet.datasets import CocoDataset
from mmengine.registry import init_default_scope

from hierseg.converters.coco import convert_coco
from hierseg.datasets import StoreDataset
from hierseg.report import HierLocalVisualizer
from hierseg.report.visualizer import browse_dataset

PIPELINE = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='Resize', scale=(320, 320), keep_ratio=True),
    dict(type='PackDetInputs'),
]


@pytest.fixture(scope='module')
def both(test_data, tmp_path_factory) -> tuple[CocoDataset, StoreDataset]:
    init_default_scope('mmdet')
    folder = test_data / 'coco-by'
    annotations, images = folder / 'instances_val.json', folder / 'images'
    store = tmp_path_factory.mktemp('coco') / 'store'
    convert_coco(annotations, images=images, out=store)
    options = dict(data_prefix=dict(img=str(images)), pipeline=PIPELINE, filter_cfg=dict(filter_empty_gt=True))
    names = [category['name'] for category in json.loads(annotations.read_text())['categories']]
    return (
        CocoDataset(ann_file=str(annotations), metainfo=dict(classes=names), **options),
        StoreDataset(store, **options),
    )


def test_samples_are_equal(both):
    coco, ours = both
    assert len(coco) == len(ours)
    for index in range(len(coco)):
        one, other = coco[index], ours[index]
        assert (one['inputs'] == other['inputs']).all()
        for kind in ('gt_instances', 'ignored_instances'):
            expected, found = one['data_samples'].get(kind), other['data_samples'].get(kind)
            names = [coco.metainfo['classes'][label] for label in expected.labels]
            assert [ours.metainfo['classes'][label] for label in found.labels] == names
            np.testing.assert_allclose(found.bboxes.tensor, expected.bboxes.tensor, atol=1e-4)
            np.testing.assert_array_equal(found.masks.masks, expected.masks.masks)


def test_pictures_of_photographs(both, tmp_path):
    written = browse_dataset(both[1], HierLocalVisualizer(), output_dir=tmp_path, max_images=3, progress=False)
    assert len(written) == 3
    assert all(path.stat().st_size > 10_000 for path in written)
