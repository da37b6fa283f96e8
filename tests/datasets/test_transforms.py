"""Transforms: mmdet's results on every path through the faster ones, and boxes without a mask."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from mmdet.datasets import transforms as theirs
from mmdet.structures.mask import BitmapMasks
from pycocotools import mask as coco_mask
from small_store import rectangle_mask

from hierseg.datasets import IgnoreMaskless
from hierseg.datasets import transforms as ours

HEIGHT, WIDTH = 30, 41


def compressed(box: tuple[int, int, int, int]) -> dict[str, Any]:
    return {'size': [HEIGHT, WIDTH], 'counts': rectangle_mask(HEIGHT, WIDTH, box).decode()}


def uncompressed(box: tuple[int, int, int, int]) -> dict[str, Any]:
    mask = coco_mask.decode({'size': [HEIGHT, WIDTH], 'counts': rectangle_mask(HEIGHT, WIDTH, box)})
    edges = np.flatnonzero(np.diff(mask.ravel('F'), prepend=0))
    return {'size': [HEIGHT, WIDTH], 'counts': np.diff(edges, prepend=0, append=mask.size).tolist()}


BOX = (3, 4, 30, 25)
POLYGON = [[3.0, 4.0, 30.0, 4.0, 12.0, 25.0]]
BYTES = {'size': [HEIGHT, WIDTH], 'counts': rectangle_mask(HEIGHT, WIDTH, BOX)}
MASKS = {
    'compressed': [compressed(BOX), compressed((0, 0, 0, 0)), compressed((0, 0, WIDTH, HEIGHT))],
    'one': [compressed(BOX)],
    'none': [],
    'with a polygon': [compressed(BOX), POLYGON],
    'with numbers': [uncompressed(BOX), compressed(BOX)],
    'with bytes, which mmdet ignores': [compressed(BOX), BYTES],
}


def sample(masks: list[Any]) -> dict[str, Any]:
    instances = [{'bbox': list(BOX), 'bbox_label': 1, 'ignore_flag': 0, 'mask': mask} for mask in masks]
    return copy.deepcopy({'instances': instances, 'ori_shape': (HEIGHT, WIDTH), 'img_shape': (HEIGHT, WIDTH)})


@pytest.mark.parametrize('case', MASKS)
@pytest.mark.parametrize('poly2mask', [True, False])
def test_annotations(case, poly2mask):
    expected, found = (
        module.LoadAnnotations(with_bbox=True, with_mask=True, poly2mask=poly2mask)(sample(MASKS[case]))
        for module in (theirs, ours)
    )
    assert type(found['gt_masks']) is type(expected['gt_masks'])
    assert (found['gt_masks'].height, found['gt_masks'].width) == (HEIGHT, WIDTH)
    if poly2mask:
        assert found['gt_masks'].masks.dtype == expected['gt_masks'].masks.dtype
        np.testing.assert_array_equal(found['gt_masks'].masks, expected['gt_masks'].masks)
    np.testing.assert_array_equal(found['gt_ignore_flags'], expected['gt_ignore_flags'])


IMAGE = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
IMAGES = {
    'as loaded': IMAGE,
    'flipped': IMAGE[:, ::-1],
    'upside down': IMAGE[::-1],
    'both': IMAGE[::-1, ::-1],
    'cropped': IMAGE[3:20, 5:31],
    'cropped and flipped': IMAGE[3:20, 5:31][:, ::-1],
    'channels turned': IMAGE[..., ::-1],
    'float': IMAGE.astype(np.float32) / 3,
    'double': IMAGE.astype(np.float64) / 3,
    'grey': IMAGE[..., 0],
    'one channel': IMAGE[..., :1],
}


@pytest.mark.parametrize('case', IMAGES)
def test_packing(case):
    expected, found = (
        module.PackDetInputs(meta_keys=('ori_shape',))(
            {**theirs.LoadAnnotations(with_mask=True)(sample(MASKS['compressed'])), 'img': IMAGES[case].copy('K')}
        )
        for module in (theirs, ours)
    )
    assert found['inputs'].dtype == expected['inputs'].dtype
    assert found['inputs'].is_contiguous()
    np.testing.assert_array_equal(found['inputs'], expected['inputs'])
    assert found['data_samples'].metainfo == expected['data_samples'].metainfo
    np.testing.assert_array_equal(
        found['data_samples'].gt_instances.masks.masks, expected['data_samples'].gt_instances.masks.masks
    )


def test_packing_leaves_the_image_as_it_is():
    flipped = IMAGE.copy()[:, ::-1]
    before = flipped.copy()
    results = {**theirs.LoadAnnotations(with_mask=True)(sample([])), 'img': flipped}
    packed = ours.PackDetInputs(meta_keys=())(results)
    packed['inputs'] += 1
    np.testing.assert_array_equal(flipped, before)
    assert results['img'] is flipped


def partly_masked(masked: list[bool], ignored: list[bool]) -> dict[str, object]:
    masks = np.zeros((len(masked), 4, 5), dtype=np.uint8)
    masks[np.array(masked, dtype=bool), 1, 2] = 1
    return {'gt_masks': BitmapMasks(masks, 4, 5), 'gt_ignore_flags': np.array(ignored, dtype=bool)}


def test_boxes_without_a_mask_are_ignored() -> None:
    results = IgnoreMaskless().transform(partly_masked([True, False, True], [False, False, True]))
    assert results is not None
    assert results['gt_ignore_flags'].tolist() == [False, True, True]


def test_an_image_without_anything_to_train_on_is_refused() -> None:
    assert IgnoreMaskless().transform(partly_masked([False, True], [False, True])) is None
    assert IgnoreMaskless().transform(partly_masked([], [])) is None
