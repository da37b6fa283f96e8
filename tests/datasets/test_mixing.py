"""Mosaic, mix-up and crops: hand-derived places of boxes and masks, and what is known on an image of several parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mmcv.transforms import Compose as McvCompose
from mmdet.datasets import transforms as theirs
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks
from mmengine.registry import DATASETS, init_default_scope
from small_store import PETS, Prepared
from torch.utils.data import DataLoader

from hierseg.datasets import MixUp, Mosaic, RandomResizeCrop, StoreDataset, StreamSampler
from hierseg.datasets.mixing import verified_on_all
from hierseg.errors import AnnotationError, ConfigError
from hierseg.models.verified import known_classes
from hierseg.seeding import StreamIndex, seed_all

Box = tuple[float, float, float, float]
Row = tuple[int, Box, Box | None, bool]
TOY, ANIMAL, TEDDY, DOG = range(4)


def sample(
    value: int,
    size: tuple[int, int],
    rows: list[tuple[int, Box, Box | None, bool]] | None = None,
    **verified: list[int],
) -> dict[str, Any]:
    """An image of one color, (width, height), with (label, box, rectangle of the mask, ignored) rows."""
    width, height = size
    masks = np.zeros((len(rows or []), height, width), dtype=np.uint8)
    for mask, (_, _, rectangle, _) in zip(masks, rows or [], strict=True):
        if rectangle:
            left, top, right, bottom = map(int, rectangle)
            mask[top:bottom, left:right] = 1
    keys = ('verified_positive', 'verified_negative', 'not_exhaustive')
    return {
        'img': np.full((height, width, 3), value, dtype=np.uint8),
        'img_shape': (height, width),
        'gt_bboxes': HorizontalBoxes(torch.tensor([row[1] for row in rows or []], dtype=torch.float32).reshape(-1, 4)),
        'gt_bboxes_labels': np.array([row[0] for row in rows or []], dtype=np.int64),
        'gt_ignore_flags': np.array([row[3] for row in rows or []], dtype=bool),
        'gt_masks': BitmapMasks(masks, height, width),
        **{key: np.array(verified.get(key, []), dtype=np.int64) for key in keys},
    }


def with_partners(transform: Any, *partners: dict[str, Any]) -> Any:
    rest = iter(partners)
    transform.draw_partner = lambda: next(rest)
    transform.arrays = PETS.arrays
    return transform


def rectangles(found: dict[str, Any]) -> list[list[int] | None]:
    """The bounds of the masks, None for those that are unknown; all are filled rectangles."""
    bounds: list[list[int] | None] = []
    for mask in found['gt_masks'].masks:
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if not len(rows):
            bounds.append(None)
            continue
        box = [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]
        assert mask.sum() == (box[2] - box[0]) * (box[3] - box[1])
        bounds.append(box)
    return bounds


def boxes(found: dict[str, Any]) -> list[list[float]]:
    return found['gt_bboxes'].tensor.tolist()


class TestMosaic:
    def test_four_images_meet_at_the_centre(self) -> None:
        # Quarters of 20 x 20 meet at (20, 20). The second is 10 x 5 and becomes 20 x 10, above the centre; the third is
        # 10 x 20, left of it; the fourth is 40 x 40 and is halved.
        first = sample(1, (20, 20), [(DOG, (2, 3, 8, 9), (2, 3, 8, 9), False)])
        second = sample(2, (10, 5), [(TEDDY, (1, 1, 4, 3), None, False)])
        third = sample(3, (10, 20), [(TOY, (0, 0, 10, 20), (0, 0, 10, 20), True)])
        fourth = sample(4, (40, 40), [(DOG, (10, 20, 30, 40), (10, 20, 30, 40), False)])
        mosaic = with_partners(Mosaic((20, 20), center_ratio_range=(1, 1), pad_val=9), second, third, fourth)
        found = mosaic(first)
        expected = np.full((40, 40), 9)
        expected[:20, :20], expected[10:20, 20:40], expected[20:40, 10:20], expected[20:40, 20:40] = 1, 2, 3, 4
        assert found['img_shape'] == (40, 40)
        assert (found['img'] == expected[..., None]).all()
        # Twice the box and 20 to the right, 10 down; 10 to the right, 20 down; half the box and 20 to both.
        assert boxes(found) == [[2, 3, 8, 9], [22, 12, 28, 16], [10, 20, 20, 40], [25, 30, 35, 40]]
        assert rectangles(found) == [[2, 3, 8, 9], None, [10, 20, 20, 40], [25, 30, 35, 40]]
        assert found['gt_bboxes_labels'].tolist() == [DOG, TEDDY, TOY, DOG]
        assert found['gt_ignore_flags'].tolist() == [False, False, True, False]
        assert (found['gt_masks'].height, found['gt_masks'].width) == (40, 40)

    def test_what_lies_outside_is_cut(self) -> None:
        # The centre is at (10, 10), so ten pixels of the first image are cut off at its left and upper border.
        first = sample(1, (20, 20), [
            (DOG, (2, 2, 9, 9), (2, 2, 9, 9), False),  # outside
            (DOG, (8, 8, 16, 16), (8, 8, 15, 14), False),  # cut: what is seen of the mask is (0, 0) to (5, 4)
            (TEDDY, (8, 8, 16, 16), None, False),  # cut, without a mask
            (TOY, (6, 6, 12, 12), (6, 6, 9, 9), False),  # no pixel of its mask is seen
            (DOG, (11, 11, 16, 16), (12, 12, 15, 15), False),  # not cut: the box stays as annotated
        ])  # fmt: skip
        empty = sample(0, (20, 20))
        found = with_partners(Mosaic((20, 20), center_ratio_range=(0.5, 0.5)), empty, empty, empty)(first)
        assert boxes(found) == [[0, 0, 5, 4], [0, 0, 6, 6], [1, 1, 6, 6]]
        assert rectangles(found) == [[0, 0, 5, 4], None, [2, 2, 5, 5]]
        assert found['gt_bboxes_labels'].tolist() == [DOG, TEDDY, DOG]

    def test_partners_are_not_changed_and_boxes_alone_will_do(self) -> None:
        parts = [sample(n, (20, 20), [(DOG, (12, 12, 18, 18), None, False)]) for n in range(4)]
        for part in parts:
            del part['gt_masks'], part['verified_positive'], part['verified_negative'], part['not_exhaustive']
        found = with_partners(Mosaic((20, 20), center_ratio_range=(0.5, 0.5)), *parts[1:])(parts[0])
        assert len(boxes(found)) == 4
        assert 'gt_masks' not in found
        assert boxes(parts[1]) == [[12, 12, 18, 18]]

    def test_a_probability_of_zero_asks_for_nobody(self) -> None:
        given_sample = sample(1, (20, 20))
        assert Mosaic(prob=0.0)(given_sample) is given_sample
        assert MixUp(prob=0.0)(given_sample) is given_sample


class TestMixUp:
    def test_the_mean_of_both_with_the_objects_of_both(self) -> None:
        # The partner, 10 x 5, becomes 20 x 10 and is flipped: x of its box goes from 2 … 8 to 12 … 18.
        image = sample(100, (20, 20), [(DOG, (2, 3, 8, 9), (2, 3, 8, 9), False)])
        partner = sample(50, (10, 5), [(TEDDY, (1, 1, 4, 3), (1, 1, 4, 3), True), (TOY, (0, 0, 2, 5), None, False)])
        found = with_partners(MixUp((20, 20), ratio_range=(1, 1), flip_ratio=1.0, pad_val=10), partner)(image)
        expected = np.full((20, 20), 55)  # the mean of 100 and the filling, 10
        expected[:10] = 75
        assert (found['img'] == expected[..., None]).all()
        assert boxes(found) == [[2, 3, 8, 9], [12, 2, 18, 6], [16, 0, 20, 10]]
        assert rectangles(found) == [[2, 3, 8, 9], [12, 2, 18, 6], None]
        assert found['gt_ignore_flags'].tolist() == [False, True, False]

    def test_a_larger_partner_shows_a_part(self) -> None:
        image = sample(0, (10, 10))
        partner = sample(0, (10, 10), [(DOG, (0, 0, 10, 10), (0, 0, 10, 10), False)])
        partner['img'][:, :, 0] = 200
        found = with_partners(MixUp((10, 10), ratio_range=(3, 3)), partner)(image)
        assert (found['img'][:, :, 0] == 100).all()
        assert boxes(found) == [[0, 0, 10, 10]]

    def test_a_partner_without_objects_changes_nothing(self) -> None:
        found = with_partners(MixUp((20, 20)), sample(50, (20, 20)))(sample(100, (20, 20)))
        assert (found['img'] == 100).all()


class TestCrop:
    def test_a_whole_image_is_resized_as_mmdet_does(self) -> None:
        rows = [(DOG, (3.0, 4.0, 30.0, 25.0), (3, 4, 30, 25), False), (TEDDY, (1.0, 1.0, 9.0, 9.0), None, True)]
        given_sample = sample(0, (41, 30), rows)
        image = np.random.default_rng(0).integers(0, 256, (30, 41, 3), dtype=np.uint8)
        given_sample['img'] = image
        found = RandomResizeCrop((80, 80), ratio_range=(0.5, 0.5), crop_size=(64, 64))(given_sample)
        expected = theirs.Resize(scale=(40, 40), keep_ratio=True)(sample(0, (41, 30), rows) | {'img': image})
        np.testing.assert_array_equal(found['img'], expected['img'])
        assert found['img_shape'] == expected['img_shape']
        assert found['scale_factor'] == pytest.approx(expected['scale_factor'])
        np.testing.assert_allclose(boxes(found), expected['gt_bboxes'].tensor.numpy(), rtol=1e-6)
        np.testing.assert_array_equal(found['gt_masks'].masks, expected['gt_masks'].masks)

    @given(st.integers(0, 1000))
    def test_a_part_is_what_was_there(self, seed: int) -> None:
        # Each pixel has its own color, so the image itself says which part was taken: 8 x 6 of 20 x 16, not scaled.
        rows = [(DOG, (5, 4, 15, 12), (6, 5, 14, 11), False), (TEDDY, (2, 2, 9, 9), None, False)]
        given_sample = sample(0, (20, 16), rows)
        image = np.arange(20 * 16, dtype=np.uint8).reshape(16, 20, 1).repeat(3, axis=2)
        image[..., 1] = np.arange(16)[:, None]
        image[..., 2] = np.arange(20)
        given_sample['img'] = image
        seed_all(seed)
        found = RandomResizeCrop((20, 16), ratio_range=(1, 1), crop_size=(8, 6))(given_sample)
        top, left = int(found['img'][0, 0, 1]), int(found['img'][0, 0, 2])
        np.testing.assert_array_equal(found['img'], image[top : top + 6, left : left + 8])
        assert found['scale_factor'] == (1, 1)
        expected = []
        seen = [max(6 - left, 0), max(5 - top, 0), min(14 - left, 8), min(11 - top, 6)]
        if seen[2] > seen[0] and seen[3] > seen[1]:
            inside = left <= 5 and top <= 4 and left + 8 >= 15 and top + 6 >= 12
            assert not inside  # the box is larger than the part
            expected.append((DOG, seen))
        box = [max(2 - left, 0), max(2 - top, 0), min(9 - left, 8), min(9 - top, 6)]
        if box[2] > box[0] and box[3] > box[1]:
            expected.append((TEDDY, box))
        assert [*zip(found['gt_bboxes_labels'].tolist(), boxes(found), strict=True)] == expected
        assert rectangles(found) == [box if label == DOG else None for label, box in expected]


labels = st.lists(st.integers(0, 3), max_size=3)


class TestVerifiedLabels:
    @pytest.mark.parametrize(
        ('parts', 'shown', 'positive', 'negative'),
        [
            # Absent from both: dogs, as no animal is on the first.
            ([dict(verified_negative=[ANIMAL]), dict(verified_negative=[DOG])], [], [], [DOG]),
            # Nobody looked for toys on the second; a teddy is absent as an animal there, as a toy on the first.
            ([dict(verified_negative=[TOY]), dict(verified_negative=[ANIMAL])], [], [], [TEDDY]),
            # On the first is a dog, perhaps cut off: neither present nor absent.
            ([dict(verified_positive=[DOG]), dict(verified_negative=[DOG])], [], [], []),
            ([dict(verified_positive=[DOG]), dict(verified_negative=[DOG])], [DOG], [DOG], []),
            # What is shown of an animal, a dog, is an animal.
            ([dict(verified_positive=[ANIMAL, TOY]), dict(verified_negative=[TOY])], [DOG], [ANIMAL], []),
            # Who verified the dog saw more than who denied animals; so with those that are annotated.
            ([dict(verified_positive=[DOG], verified_negative=[ANIMAL, TOY])] * 2, [DOG], [DOG], [TOY, TEDDY]),
            ([dict(rows=[(DOG, (0, 0, 2, 2), None, True)], verified_negative=[ANIMAL])] * 2, [], [], []),
        ],
    )
    def test_hand_derived(
        self, parts: list[dict[str, Any]], shown: list[int], positive: list[int], negative: list[int]
    ) -> None:
        samples = [sample(0, (4, 4), **part) for part in parts]
        found = verified_on_all(samples, shown=np.array(shown, dtype=np.int64), arrays=PETS.arrays)
        assert found['verified_positive'].tolist() == positive
        assert found['verified_negative'].tolist() == negative

    def test_what_is_not_exhaustive_anywhere_is_not_on_the_whole(self) -> None:
        parts = [
            sample(0, (4, 4), not_exhaustive=[DOG]),
            sample(0, (4, 4)),
            sample(0, (4, 4), not_exhaustive=[TOY, DOG]),
        ]
        found = verified_on_all(parts, shown=np.array([DOG]), arrays=PETS.arrays)
        assert found['not_exhaustive'].tolist() == [TOY, DOG]

    @given(st.lists(st.tuples(labels, labels), min_size=1, max_size=4), labels)
    def test_nothing_is_known_that_is_not_known_on_every_part(
        self, verified: list[tuple[list[int], list[int]]], shown: list[int]
    ) -> None:
        parts = [sample(0, (4, 4), verified_positive=p, verified_negative=n) for p, n in verified]
        seen = np.array(shown, dtype=np.int64)
        found, backwards = (verified_on_all(order, shown=seen, arrays=PETS.arrays) for order in (parts, parts[::-1]))
        known = known_classes(
            np.concatenate([found['verified_positive'], seen]), found['verified_negative'], PETS.arrays
        )
        above_shown = np.isin(np.arange(4), PETS.arrays.all_above(seen))
        for part in parts:
            on_part = known_classes(part['verified_positive'], part['verified_negative'], PETS.arrays)
            assert (on_part | above_shown | ~known).all()
        assert all(np.array_equal(found[key], backwards[key]) for key in found)

    def test_a_mosaic_has_them(self) -> None:
        parts = [sample(n, (20, 20), verified_negative=[DOG, n]) for n in (0, 1, 1, 1)]
        found = with_partners(Mosaic((20, 20)), *parts[1:])(parts[0])
        assert found['verified_negative'].tolist() == [TEDDY, DOG]


LOADING = [dict(type='LoadImageFromFile'), dict(type='hierseg.LoadAnnotations', with_bbox=True, with_mask=True)]
META_KEYS = ('img_id', 'verified_positive', 'verified_negative', 'not_exhaustive')
PIPELINE = [
    *LOADING,
    dict(type='hierseg.Mosaic', img_scale=(32, 32)),
    dict(type='hierseg.RandomResizeCrop', scale=(64, 64), ratio_range=(0.5, 2.0), crop_size=(32, 32)),
    dict(type='RandomFlip', prob=0.5),
    dict(type='Pad', size=(32, 32), pad_val=dict(img=(114, 114, 114))),
    dict(type='hierseg.MixUp', img_scale=(32, 32), ratio_range=(1.0, 1.0), prob=0.5),
    dict(type='hierseg.PackDetInputs', meta_keys=META_KEYS),
]


@pytest.fixture
def build(pets: Prepared) -> Callable[..., StoreDataset]:
    init_default_scope('mmdet')

    def build(**options: Any) -> StoreDataset:
        options = {'pipeline': PIPELINE, 'data_prefix': dict(img=str(pets.images)), **options}
        return DATASETS.build(dict(type='hierseg.StoreDataset', store=str(pets.store), **options))

    return build


def contents(packed: dict[str, Any]) -> list[Any]:
    found = packed['data_samples']
    masks = found.gt_instances.masks.masks.tolist()
    verified = [found.metainfo[key].tolist() for key in META_KEYS[1:]]
    return [packed['inputs'].tolist(), found.gt_instances.bboxes.tensor.tolist(), masks, verified]


class TestPartners:
    def test_follow_in_the_stream(self, build: Callable[..., StoreDataset]) -> None:
        dataset = build()
        asked: list[int] = []
        read = dataset.get_data_info
        dataset.get_data_info = lambda index: asked.append(int(index)) or read(index)
        dataset[StreamIndex(0, (1, 2, 3), [3])]
        # Three for the mosaic; the partner of the mix-up, if there is one, is a mosaic too.
        assert asked in ([0, 3, 3, 3], [0, 3, 3, 3, 3, 3, 3, 3])
        asked.clear()
        for place in range(10):
            dataset[StreamIndex(0, (1, 2, place))]
        assert set(asked) == {0, 1, 2, 3}  # without a stream, any image

    def test_samples_are_the_same_with_workers_and_from_any_place(self, build: Callable[..., StoreDataset]) -> None:
        dataset = build()
        sampler = StreamSampler(dataset, seed=5)
        whole = [contents(packed) for packed in DataLoader(dataset, None, sampler=[*sampler.draw(0, 8)])]
        workers = DataLoader(
            dataset, None, sampler=[*sampler.draw(0, 8)], num_workers=2, collate_fn=lambda packed: packed
        )
        assert [contents(packed) for packed in workers] == whole
        assert [contents(dataset[index]) for index in sampler.draw(5, 3)] == whole[5:]
        assert len({str(content) for content in whole}) == 8

    def test_another_pipeline_gets_its_partners_too(self, build: Callable[..., StoreDataset]) -> None:
        # As PipelineSwitchHook sets one, of mmcv's class.
        dataset = build(pipeline=LOADING)
        dataset.pipeline = McvCompose([dict(type='LoadImageFromFile', color_type='color'), *PIPELINE[1:]])
        assert dataset.pipeline.transforms[0].color_type == 'color_ignore_orientation'
        assert dataset[0]['inputs'].shape == (3, 32, 32)

    def test_one_that_cannot_be_read_is_named(self, build: Callable[..., StoreDataset], pets: Prepared) -> None:
        dataset = build()
        (pets.images / '0000000000000003.jpg').write_bytes(b'nothing')
        with pytest.raises(AnnotationError, match=r'0000000000000003\.jpg is no readable image'):
            dataset[StreamIndex(0, (1, 2, 3), [3])]

    def test_refused_ones_are_drawn_again(self, build: Callable[..., StoreDataset]) -> None:
        dataset = build(pipeline=[*LOADING, dict(type='hierseg.IgnoreMaskless'), *PIPELINE[2:]])
        # Image 1 and 2 have nothing with a mask to train on.
        assert dataset[StreamIndex(0, (1, 2, 3), [1, 2, 3])] is not None
        with pytest.raises(ConfigError, match='refuse every image, 1001 times'):
            dataset[StreamIndex(0, (1, 2, 3), [1, 2])]

    def test_without_a_data_set_there_are_none(self) -> None:
        with pytest.raises(ConfigError, match='no data set to draw other images from'):
            Mosaic()(sample(0, (20, 20)))
