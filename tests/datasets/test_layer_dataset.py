"""The data set of one layer, and the transform that paints."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from layer_stores import BEAR, CAR, MAN, PERSON, TEDDY, TOY, Picture, Row, layered_taxonomy, write_store
from mmengine.registry import DATASETS, TRANSFORMS, init_default_scope
from PIL import Image

from hierseg.datasets import PaintBoxes, StoreDataset
from hierseg.errors import ConfigError

PICTURES = [
    Picture('a', [Row(PERSON, (10.5, 20, 30.2, 40)), Row(MAN, (50, 50, 80, 80), mask=True)], [MAN], [TOY]),
    Picture('b', [Row(CAR, (0, 0, 50, 50), mask=True)]),
    Picture('c', [Row(TEDDY, (0, 0, 50, 50)), Row(BEAR, (50, 0, 99, 50), group_of=True), Row(TOY, (0, 0, 40, 40))]),
]
PIPELINE = [
    dict(type='LoadImageFromFile', color_type='color_ignore_orientation'),
    dict(type='hierseg.PaintBoxes'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='RandomFlip', prob=1.0),
    dict(type='PackDetInputs', meta_keys=('img_id', 'flip')),
]


@pytest.fixture(autouse=True)
def _scope():
    init_default_scope('mmdet')


@pytest.fixture
def build(tmp_path):
    store = write_store(tmp_path / 'store', PICTURES)
    for number, picture in enumerate(PICTURES):
        pixels = np.random.default_rng(number).integers(0, 100, (100, 100, 3), dtype=np.uint8)  # no grey 128
        Image.fromarray(pixels).save(tmp_path / f'{picture.id}.png')

    def build(**options) -> StoreDataset:
        options = {'store': str(store.path), 'data_prefix': dict(img=str(tmp_path)), **options}
        return DATASETS.build(dict(type='hierseg.StoreDataset', **options))

    return build


def sample_ids(dataset):
    return [dataset.get_data_info(index)['img_id'] for index in range(len(dataset))]


class TestLayerOfStoreDataset:
    def test_samples_and_metainfo_are_the_layers(self, build):
        dataset = build(layer=1)
        assert dataset.metainfo['classes'] == ('Man', 'Bear', 'Teddy bear')
        assert dataset.metainfo['class_ids'] == ('man', 'bear', 'teddy')
        assert [entry['parents'] for entry in dataset.metainfo['taxonomy']['classes']] == [[], [], []]
        sample = dataset.get_data_info(0)
        assert [(one['bbox'], one['bbox_label']) for one in sample['instances']] == [([50, 50, 80, 80], 0)]
        assert sample['painted_boxes'].tolist() == [[10.5, 20, 30.2, 40]]
        assert (sample['verified_positive'].tolist(), sample['verified_negative'].tolist()) == ([0], [2])
        assert dataset.get_cat_ids(0) == [0]
        # The toy's box lies on the teddy bear.
        assert dataset.get_data_info(2)['painted_boxes'].tolist() == []

    def test_layer_0_relabels_and_paints_nothing(self, build):
        dataset = build(layer=0)
        assert dataset.metainfo['classes'] == ('Car', 'Toy', 'Person', 'Carnivore')
        assert [dataset.get_cat_ids(index) for index in range(3)] == [[2, 2], [0], [1, 3, 1]]
        assert dataset.get_data_info(0)['painted_boxes'].shape == (0, 4)

    def test_without_a_layer_nothing_is_said_of_painting(self, build):
        assert 'painted_boxes' not in build().get_data_info(0)

    def test_images_without_an_instance_of_the_layer_are_filtered(self, build):
        filtered = dict(filter_cfg=dict(filter_empty_gt=True))
        assert sample_ids(build(layer=1, **filtered)) == ['a', 'c']
        assert sample_ids(build(layer=1, **filtered, test_mode=True)) == ['a', 'b', 'c']
        assert sample_ids(build(layer=0, **filtered)) == ['a', 'b', 'c']

    def test_the_cap(self, build):
        # Man is in a alone, teddy bear in c alone; b has neither.
        assert sample_ids(build(layer=1, images_per_class=1, seed=5)) == ['a', 'c']
        with pytest.raises(ConfigError, match='images_per_class=1 without a layer'):
            build(images_per_class=1)

    def test_a_taxonomy_is_compared_with_all_classes_of_the_store(self, build, tmp_path):
        assert len(build(layer=1, taxonomy=str(tmp_path / 'store' / 'taxonomy.json'))) == 3
        (tmp_path / 'other.csv').write_text('child,parent\nman,person\n')
        with pytest.raises(ConfigError, match='the taxonomies differ'):
            build(layer=1, taxonomy=str(tmp_path / 'other.csv'))

    def test_metainfo_classes_are_compared_with_the_layers(self, build):
        with pytest.raises(ConfigError, match='the class names differ: 3 classes expected, 7 found'):
            build(layer=1, metainfo=dict(classes=layered_taxonomy().names))

    def test_training_layer_1_without_painting_is_refused(self, build):
        unpainted = [step for step in PIPELINE if step['type'] != 'hierseg.PaintBoxes']
        with pytest.raises(ConfigError, match=r"Put dict\(type='hierseg.PaintBoxes'\) directly behind"):
            build(layer=1, pipeline=unpainted)
        build(layer=0, pipeline=unpainted)
        build(layer=1, pipeline=unpainted, test_mode=True)

    def test_pickles(self, build):
        dataset = build(layer=1, images_per_class=1, pipeline=PIPELINE)
        again = pickle.loads(pickle.dumps(dataset))
        assert sample_ids(again) == ['a', 'c']


class TestPaintBoxes:
    def test_paints_before_the_flip_and_moves_with_it(self, build):
        packed = build(layer=1, pipeline=PIPELINE)[0]
        painted = (packed['inputs'] == 128).all(dim=0).numpy()
        # x 10.5 to 30.2 touches the columns 10 to 30, mirrored 69 to 89; y 20 to 40 the rows 20 to 39.
        expected = np.zeros((100, 100), dtype=bool)
        expected[20:40, 69:90] = True
        np.testing.assert_array_equal(painted, expected)
        assert packed['data_samples'].gt_instances.bboxes.tensor.tolist() == [[20, 50, 50, 80]]

    @pytest.mark.parametrize(
        ('box', 'rows', 'columns'),
        [
            ((2.0, 3.0, 5.0, 7.0), slice(3, 7), slice(2, 5)),  # whole pixels
            ((2.9, 3.1, 5.1, 6.9), slice(3, 7), slice(2, 6)),  # every pixel that is touched
            ((-4.0, -2.5, 2.0, 1.0), slice(0, 1), slice(0, 2)),  # beyond the image
            ((8.0, 4.0, 30.0, 31.0), slice(4, 8), slice(8, 12)),
            ((-9.0, -9.0, -1.0, -1.0), slice(0, 0), slice(0, 0)),
        ],
    )
    def test_which_pixels(self, box, rows, columns):
        image = np.zeros((8, 12, 3), dtype=np.uint8)
        image.flags.writeable = False
        results = dict(img=image, height=8, width=12, painted_boxes=np.array([box]))
        found = PaintBoxes(value=7).transform(results)['img']
        expected = np.zeros((8, 12, 3), dtype=np.uint8)
        expected[rows, columns] = 7
        np.testing.assert_array_equal(found, expected)

    def test_paints_several_boxes_and_floats(self):
        results = dict(img=np.zeros((4, 4, 3), dtype=np.float32))
        results['painted_boxes'] = np.array([[0.0, 0, 1, 1], [3, 3, 4, 4]])
        found = PaintBoxes()(results)['img']
        assert found.dtype == np.float32
        assert np.argwhere(found[..., 0] == 128).tolist() == [[0, 0], [3, 3]]

    def test_an_image_without_boxes_stays_the_same_object(self):
        image = np.zeros((4, 4, 3), dtype=np.uint8)
        assert PaintBoxes()(dict(img=image, painted_boxes=np.zeros((0, 4))))['img'] is image

    def test_is_built_from_a_config(self):
        transform = TRANSFORMS.build(dict(type='hierseg.PaintBoxes', value=100))
        assert repr(transform) == 'PaintBoxes(value=100)'

    def test_a_data_set_without_a_layer_is_refused(self, build):
        with pytest.raises(ConfigError, match=r'the sample has no painted_boxes.*layer=0 or layer=1'):
            build(pipeline=PIPELINE)[0]

    @pytest.mark.parametrize(
        'step', [dict(type='Resize', scale=(50, 50), keep_ratio=True), dict(type='RandomFlip', prob=1.0)]
    )
    def test_a_transformed_image_is_refused(self, build, step):
        load, paint, annotations, _, pack = PIPELINE
        with pytest.raises(ConfigError, match='Put PaintBoxes directly behind LoadImageFromFile'):
            build(layer=1, pipeline=[load, annotations, step, paint, pack])[0]
