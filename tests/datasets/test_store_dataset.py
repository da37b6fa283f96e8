"""The data set over a store, alone and inside MMDetection's pipelines, samplers and wrappers."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import torch
from layer_stores import CAR, MAN, Picture, Row, write_store
from mmdet.datasets.samplers import AspectRatioBatchSampler, ClassAwareSampler
from mmengine.dataset import ClassBalancedDataset, DefaultSampler, RepeatDataset, pseudo_collate
from mmengine.registry import DATASETS, init_default_scope
from PIL import ExifTags, Image
from small_store import reseal
from torch.utils.data import DataLoader

from hierseg.datasets import StoreDataset
from hierseg.errors import AnnotationError, ConfigError, StoreError, exits_cleanly
from hierseg.pictures import read_picture
from hierseg.store import ImageRow, Instances, Store, StoreWriter
from hierseg.taxonomy import Taxonomy

META_KEYS = (
    'img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'flip', 'flip_direction',
    'verified_positive', 'verified_negative',
)  # fmt: skip
TRAIN_PIPELINE = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='Resize', scale=(80, 60), keep_ratio=True),
    dict(type='RandomFlip', prob=1.0),
    dict(type='PackDetInputs', meta_keys=META_KEYS),
]


@pytest.fixture(autouse=True)
def _scope():
    init_default_scope('mmdet')


@pytest.fixture
def build(pets):
    def build(**options):
        options = {'store': str(pets.store), 'data_prefix': dict(img=str(pets.images)), **options}
        return DATASETS.build(dict(type='hierseg.StoreDataset', **options))

    return build


def ids(dataset):
    return [int(dataset.get_data_info(index)['img_id'], 16) for index in range(len(dataset))]


def test_meta_keys_hand_on_what_is_not_annotated_exhaustively(tmp_path):
    Image.new('RGB', (100, 100)).save(tmp_path / 'a.png')
    row = Row(MAN, (10.0, 10.0, 50.0, 50.0), mask=True)
    write_store(tmp_path / 'store', [Picture('a', [row], [MAN], [CAR], [MAN])])
    options = dict(type='hierseg.StoreDataset', store=str(tmp_path / 'store'), data_prefix=dict(img=str(tmp_path)))
    with pytest.raises(ConfigError, match="beside 'verified_negative' into the meta_keys"):
        DATASETS.build(dict(options, pipeline=TRAIN_PIPELINE))
    DATASETS.build(dict(options, pipeline=TRAIN_PIPELINE, test_mode=True))
    keys = (*META_KEYS, 'not_exhaustive')
    dataset = DATASETS.build(dict(options, pipeline=[*TRAIN_PIPELINE[:-1], dict(TRAIN_PIPELINE[-1], meta_keys=keys)]))
    assert dataset[0]['data_samples'].not_exhaustive.tolist() == [MAN]


class TestSamples:
    def test_a_sample_has_mmdets_keys_and_the_verified_labels(self, build, pets):
        sample = build().get_data_info(0)
        assert sample['img_id'] == '0000000000000000'
        assert sample['img_path'] == str(pets.images / '0000000000000000.jpg')
        assert (sample['height'], sample['width'], sample['sample_idx']) == (30, 40, 0)
        assert [instance['bbox'] for instance in sample['instances']] == [
            [4, 5, 14, 15], [20, 10, 30, 22], [0, 0, 40, 30]
        ]  # fmt: skip
        assert [instance['bbox_label'] for instance in sample['instances']] == [3, 2, 1]
        assert [instance['ignore_flag'] for instance in sample['instances']] == [0, 0, 1]
        assert sample['verified_positive'].tolist() == [2, 3]
        assert sample['verified_negative'].tolist() == [0]

    def test_a_box_thinner_than_a_pixel_is_ignored(self, build):
        # Its logarithm in the box target would be -inf for width 0.
        assert [instance['ignore_flag'] for instance in build().get_data_info(3)['instances']] == [0, 1]

    def test_negative_index(self, build):
        assert build().get_data_info(-1)['sample_idx'] == 3

    def test_paths_join_root_prefix_and_file_name(self, pets):
        dataset = StoreDataset(pets.store, data_root=str(pets.images.parent), data_prefix=dict(img='images/'))
        assert dataset.get_data_info(1)['img_path'] == str(pets.images / '0000000000000001.jpg')

    def test_category_ids_agree_with_the_instances(self, build):
        dataset = build()
        for index in range(len(dataset)):
            labels = [instance['bbox_label'] for instance in dataset.get_data_info(index)['instances']]
            assert dataset.get_cat_ids(index) == labels

    def test_metainfo_describes_the_classes(self, build):
        metainfo = build(lazy_init=True, metainfo=dict(version='1')).metainfo
        assert metainfo['classes'] == ('Toy', 'Animal', 'Teddy bear', 'Dog')
        assert metainfo['class_ids'] == ('/m/toy', '/m/animal', '/m/teddy', '/m/dog')
        assert Taxonomy.from_json(metainfo['taxonomy']).path_name(2) == 'Toy › Teddy bear'
        assert metainfo['version'] == '1'


class TestSelection:
    def test_without_a_filter_all_images_stay(self, build):
        assert ids(build()) == [0, 1, 2, 3]

    def test_images_without_a_usable_instance_are_left_out(self, build):
        # Image 1 has none, image 2 a group alone.
        assert ids(build(filter_cfg=dict(filter_empty_gt=True))) == [0, 3]

    def test_small_images_are_left_out(self, build):
        # The shorter sides are 30, 30, 30 and 16.
        assert ids(build(filter_cfg=dict(min_size=17))) == [0, 1, 2]
        assert ids(build(filter_cfg=dict(min_size=16))) == [0, 1, 2, 3]

    def test_nothing_is_filtered_in_test_mode(self, build):
        assert ids(build(filter_cfg=dict(filter_empty_gt=True, min_size=32), test_mode=True)) == [0, 1, 2, 3]

    @pytest.mark.parametrize(('indices', 'left'), [(2, [0, 1]), (-1, [3]), ([3, 0], [3, 0])])
    def test_indices_choose_after_the_filter(self, build, indices, left):
        assert ids(build(indices=indices)) == left
        if isinstance(indices, int):
            assert ids(build(filter_cfg=dict(min_size=17), indices=indices)) == ([0, 1] if indices > 0 else [2])

    def test_a_subset_leaves_the_original_alone(self, build):
        dataset = build()
        subset = dataset.get_subset([2, 1])
        assert (ids(subset), ids(dataset)) == ([2, 1], [0, 1, 2, 3])
        dataset.get_subset_(np.array([3]))
        assert ids(dataset) == [3]

    def test_lazy_initialisation_waits(self, build):
        dataset = build(lazy_init=True, filter_cfg=dict(filter_empty_gt=True))
        assert not dataset._fully_initialized
        assert len(dataset) == 2

    def test_nothing_left_is_an_error(self, build):
        with pytest.raises(ConfigError, match='leaves none of 4 images'):
            build(filter_cfg=dict(min_size=1000))


class TestPipeline:
    def test_train_pipeline(self, build):
        dataset = build(pipeline=TRAIN_PIPELINE)
        packed = dataset[0]
        assert packed['inputs'].shape == (3, 60, 80)
        sample = packed['data_samples']
        # Doubled in size and mirrored: x becomes 80 - 2x.
        expected = torch.tensor([[52.0, 10, 72, 30], [20, 20, 40, 44]])
        assert torch.equal(sample.gt_instances.bboxes.tensor, expected)
        assert sample.gt_instances.labels.tolist() == [3, 2]
        assert sample.ignored_instances.labels.tolist() == [1]
        assert sample.img_id == '0000000000000000'
        assert sample.verified_positive.tolist() == [2, 3]
        assert sample.verified_negative.tolist() == [0]

    def test_masks_are_decoded_and_a_box_without_one_has_an_empty_plane(self, build):
        masks = build(pipeline=TRAIN_PIPELINE)[0]['data_samples'].gt_instances.masks.masks
        assert masks.shape == (2, 60, 80)
        assert masks[0].sum() == 20 * 20
        assert masks[0, 10:30, 52:72].all()
        assert masks.any(axis=(1, 2)).tolist() == [True, False]

    def test_an_image_without_instances_passes(self, build):
        sample = build(pipeline=TRAIN_PIPELINE)[1]['data_samples']
        assert sample.gt_instances.bboxes.tensor.shape == (0, 4)
        assert sample.gt_instances.masks.masks.shape == (0, 60, 80)

    def test_cropping_keeps_masks_with_their_boxes(self, build):
        crop = dict(type='RandomCrop', crop_size=(16, 20), crop_type='absolute', allow_negative_crop=True)
        pipeline = [*TRAIN_PIPELINE[:2], crop, TRAIN_PIPELINE[-1]]
        dataset = build(pipeline=pipeline)
        seen = set()
        for seed in range(30):
            np.random.seed(seed)  # noqa: NPY002 mmcv's transforms draw from it
            instances = dataset[0]['data_samples'].gt_instances
            known = instances.masks.masks.any(axis=(1, 2)).tolist()
            assert known == [label == 3 for label in instances.labels.tolist()]
            seen |= set(instances.labels.tolist())
        assert seen == {2, 3}

    def test_ground_truth_after_the_resize_stays_in_original_pixels(self, build):
        test_pipeline = [TRAIN_PIPELINE[0], TRAIN_PIPELINE[2], TRAIN_PIPELINE[1], TRAIN_PIPELINE[-1]]
        sample = build(pipeline=test_pipeline, test_mode=True)[0]['data_samples']
        assert sample.gt_instances.masks.masks.shape == (2, 30, 40)
        assert sample.gt_instances.bboxes.tensor[0].tolist() == [4, 5, 14, 15]


class TestMMDetection:
    def test_batches_of_equal_aspect(self, build):
        dataset = build()
        batches = list(AspectRatioBatchSampler(DefaultSampler(dataset, shuffle=False), batch_size=2))
        # Image 2 alone is upright, and waits for the end.
        assert batches == [[0, 1], [2, 3]]

    def test_wrappers(self, build):
        dataset = build(filter_cfg=dict(filter_empty_gt=True), pipeline=TRAIN_PIPELINE)
        assert len(RepeatDataset(dataset, times=3)) == 6
        # Of two images the dog is on both, teddy and animal on one: factor sqrt(1 / 0.5) = 1.41, rounded up.
        assert ClassBalancedDataset(dataset, oversample_thr=1.0).repeat_indices == [0, 0, 1]

    def test_class_aware_sampler(self, build):
        sampler = ClassAwareSampler(build(), seed=0)
        assert sampler.cat_dict == {0: [2], 1: [0], 2: [0], 3: [0, 3]}

    def test_workers_that_persist(self, build):
        loader = DataLoader(
            build(pipeline=TRAIN_PIPELINE),
            batch_size=2,
            num_workers=2,
            persistent_workers=True,
            collate_fn=pseudo_collate,
        )
        for _ in range(2):
            samples = [sample for batch in loader for sample in batch['data_samples']]
            assert [int(sample.img_id, 16) for sample in samples] == [0, 1, 2, 3]

    def test_a_copy_that_travelled_to_a_spawned_worker(self, build):
        dataset = pickle.loads(pickle.dumps(build(pipeline=TRAIN_PIPELINE, indices=1)))
        assert len(dataset) == 1
        assert dataset[0]['data_samples'].gt_instances.labels.tolist() == [3, 2]

    def test_it_travels_light(self, tmp_path, monkeypatch):
        with StoreWriter(tmp_path / 'large', taxonomy=Taxonomy.from_edges(['a'], [])) as writer:
            none = np.zeros(0, dtype=np.int64)
            for row in range(10_000):
                writer.add(ImageRow(f'{row:016x}', f'{row}.jpg', 640, 480), Instances.empty(), none, none)
        monkeypatch.setattr('hierseg.datasets.store_dataset.CHECKED_IMAGES', 0)  # there are no images
        dataset = StoreDataset(tmp_path / 'large')
        pickled = pickle.dumps(dataset)
        assert len(pickled) < 100_000
        assert pickle.loads(pickled).get_data_info(9_999)['img_id'] == f'{9_999:016x}'


class TestErrors:
    def test_a_missing_store(self, tmp_path):
        with pytest.raises(StoreError, match='nowhere'):
            StoreDataset(tmp_path / 'nowhere')

    def test_missing_images_show_at_the_start(self, build, pets):
        (pets.images / '0000000000000003.jpg').unlink()
        with pytest.raises(AnnotationError, match=r'image 0000000000000003: .*0000000000000003\.jpg does not exist'):
            build()

    @pytest.mark.parametrize('workers', [0, 1])
    def test_an_image_that_goes_missing_later(self, build, pets, workers):
        dataset = build(pipeline=TRAIN_PIPELINE)
        (pets.images / '0000000000000000.jpg').unlink()
        loader = DataLoader(dataset, num_workers=workers, collate_fn=pseudo_collate)
        with pytest.raises(AnnotationError, match=r'image 0000000000000000: .*does not exist'):
            next(iter(loader))

    @pytest.mark.parametrize('content', [b'', b'no image'])
    def test_an_unreadable_image(self, build, pets, content):
        (pets.images / '0000000000000000.jpg').write_bytes(content)
        with pytest.raises(AnnotationError, match=r'image 0000000000000000: .* is no readable image'):
            build(pipeline=TRAIN_PIPELINE)[0]

    def test_an_empty_image_that_a_worker_meets_ends_a_tool_with_one_line(self, build, pets, capsys):
        path = pets.images / '0000000000000000.jpg'
        path.write_bytes(b'')
        loader = DataLoader(build(pipeline=TRAIN_PIPELINE), num_workers=1, collate_fn=pseudo_collate)
        with pytest.raises(SystemExit), exits_cleanly():
            next(iter(loader))
        assert capsys.readouterr().err == (
            f'error: image 0000000000000000: {path} is no readable image. Fetch it again.\n'
        )

    @pytest.mark.parametrize('pipeline', [TRAIN_PIPELINE, [TRAIN_PIPELINE[0], TRAIN_PIPELINE[-1]]])
    def test_an_image_of_another_size(self, build, pets, pipeline):
        (pets.images / '0000000000000000.jpg').write_bytes((pets.images / '0000000000000002.jpg').read_bytes())
        with pytest.raises(AnnotationError, match='read with 30 x 40 pixels, the store says 40 x 30'):
            build(pipeline=pipeline)[0]

    @pytest.mark.parametrize('color_type', ['color', 'color_ignore_orientation'])
    def test_images_that_exif_turns_are_read_as_the_store_says(self, build, pets, color_type):
        path = pets.images / '0000000000000000.jpg'
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = 6  # to be turned by a quarter
        Image.open(path).save(path, exif=exif)
        pipeline = [dict(type='LoadImageFromFile', color_type=color_type), *TRAIN_PIPELINE[1:]]
        assert build(pipeline=pipeline)[0]['inputs'].shape == (3, 60, 80)
        reseal(pets.store, orientation='turned')
        # The store's size is still that of the stored pixels, which tells that now the turned ones were read.
        with pytest.raises(AnnotationError, match='read with 30 x 40 pixels, the store says 40 x 30'):
            build(pipeline=pipeline)[0]

    def test_a_damaged_mask_is_told_before_it_is_decoded(self, build, pets):
        path = pets.store / 'instances.arrow'
        mask = next(filter(None, Store.open(pets.store).instances(0).masks))
        path.write_bytes(path.read_bytes().replace(mask, b'~' * len(mask)))
        with pytest.raises(StoreError, match=r'a mask of image 0+ is damaged \(a character is none'):
            build()[0]

    def test_a_faulty_transform_keeps_its_own_error(self, build):
        def divide(results):
            return results['width'] / 0

        with pytest.raises(ZeroDivisionError):
            build(pipeline=[dict(type='LoadImageFromFile'), divide])[0]

    def test_class_names_that_differ_from_the_stores(self, build):
        with pytest.raises(ConfigError, match=r"class 2 is 'Teddy bear' expected, 'Cat' found"):
            build(metainfo=dict(classes=('Toy', 'Animal', 'Cat', 'Dog')))

    def test_a_taxonomy_that_differs_from_the_stores(self, build, pets, tmp_path):
        build(taxonomy=str(pets.store / 'taxonomy.json'))
        other = tmp_path / 'other.json'
        document = json.loads((pets.store / 'taxonomy.json').read_text())
        document['classes'].reverse()
        other.write_text(json.dumps(document))
        with pytest.raises(ConfigError, match=r"other\.json against store .*class 0 is '/m/toy' expected, '/m/dog'"):
            build(taxonomy=str(other))

    @pytest.mark.parametrize('argument', ['ann_file', 'proposal_file'])
    def test_an_inherited_annotation_file(self, build, argument):
        with pytest.raises(ConfigError, match=f'{argument}=.* _delete_=True'):
            build(**{argument: 'annotations/instances.json'})

    def test_a_prefix_of_another_name(self, build):
        with pytest.raises(ConfigError, match='names no image folder'):
            build(data_prefix=dict(img_path='images'))


class TestPictures:
    @pytest.mark.parametrize(('orientation', 'shape'), [('stored', (30, 40, 3)), ('turned', (40, 30, 3))])
    def test_a_red_picture_is_red_and_lies_as_annotated(self, tmp_path, orientation, shape):
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = 6
        Image.new('RGB', (40, 30), (200, 0, 0)).save(tmp_path / 'red.jpg', exif=exif)
        picture = read_picture(tmp_path / 'red.jpg', orientation)
        assert picture.shape == shape
        assert np.abs(picture.reshape(-1, 3).mean(0) - [200, 0, 0]).max() < 5

    @pytest.mark.parametrize('content', [b'', b'no image'])
    def test_a_file_without_an_image(self, tmp_path, content):
        (tmp_path / 'x.jpg').write_bytes(content)
        with pytest.raises(AnnotationError, match='is no readable image'):
            read_picture(tmp_path / 'x.jpg')
