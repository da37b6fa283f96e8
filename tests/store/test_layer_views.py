"""Layer views, a test for every rule."""

from __future__ import annotations

import multiprocessing
import pickle

import numpy as np
import pytest
from layer_stores import BEAR, CAR, CARNIVORE, MAN, PERSON, TEDDY, TOY, Picture, Row, layered_taxonomy, write_store
from small_store import rectangle_mask

from hierseg.errors import ConfigError, StoreError
from hierseg.store import LayerView
from hierseg.store.layers import LayerClasses
from hierseg.taxonomy import Taxonomy, read_taxonomy

# Far apart, so that no rule about overlap comes in.
PLACES = [(x, y, x + 10.0, y + 10.0) for y in (0, 20, 40) for x in (0, 20, 40, 60)]


def view_of(tmp_path, rows, layer, **options):
    return LayerView(write_store(tmp_path / 'store', [Picture('a', rows)]), layer, **options)


def all_classes(**options):
    """An instance of every class, in label order."""
    return [Row(label, PLACES[label], **options) for label in range(7)]


class TestLayer0:
    def test_has_the_root_classes_in_label_order_without_edges(self, tmp_path):
        view = view_of(tmp_path, [], 0)
        assert view.taxonomy == Taxonomy.from_edges(
            ['car', 'toy', 'person', 'carnivore'], [], names=['Car', 'Toy', 'Person', 'Carnivore']
        )
        assert view.labels_of_layer.tolist() == [CAR, TOY, PERSON, CARNIVORE]

    def test_deeper_instances_become_their_root_class_and_a_teddy_bear_is_a_toy(self, tmp_path):
        found = view_of(tmp_path, all_classes(mask=True), 0).instances(0)
        # car → car 0, man → person 2, toy → toy 1, bear → carnivore 3, person → person 2,
        # teddy bear → toy 1 by its preferred parent (not carnivore 3), carnivore → carnivore 3.
        assert found.labels.tolist() == [0, 2, 1, 3, 2, 1, 3]

    def test_nothing_is_dropped_or_painted(self, tmp_path):
        rows = [*all_classes(mask=True), Row(MAN, (3, 50, 9, 60.5), group_of=True), Row(CAR, (0, 70, 9, 80))]
        view = view_of(tmp_path, rows, 0)
        found, stored = view.instances(0), view.store.instances(0)
        for name in ('boxes', 'has_mask', 'group_of', 'areas'):
            np.testing.assert_array_equal(getattr(found, name), getattr(stored, name))
        assert (list(found.masks), list(found.annotation_ids)) == (list(stored.masks), list(stored.annotation_ids))
        assert view.painted(0).shape == (0, 4)


class TestLayer1:
    def test_has_the_deeper_classes_in_label_order_without_edges(self, tmp_path):
        view = view_of(tmp_path, [], 1)
        assert view.taxonomy == Taxonomy.from_edges(['man', 'bear', 'teddy'], [], names=['Man', 'Bear', 'Teddy bear'])
        assert view.labels_of_layer.tolist() == [MAN, BEAR, TEDDY]

    def test_keeps_deeper_instances_with_all_that_they_have(self, tmp_path):
        rows = [
            Row(CAR, PLACES[0], mask=True),
            Row(TEDDY, PLACES[1], mask=True),
            Row(PERSON, PLACES[2]),
            Row(MAN, PLACES[3], group_of=True),
            Row(BEAR, PLACES[4]),
        ]
        found = view_of(tmp_path, rows, 1).instances(0)
        assert found.labels.tolist() == [2, 0, 1]
        assert found.boxes.tolist() == [list(PLACES[index]) for index in (1, 3, 4)]
        assert found.masks == [rectangle_mask(100, 100, (20, 0, 30, 10)), b'', b'']
        assert found.has_mask.tolist() == [True, False, False]
        assert found.group_of.tolist() == [False, True, False]
        assert found.areas.tolist() == [100, 100, 100]
        assert found.annotation_ids == ['1', '3', '4']

    def test_a_root_class_without_children_is_dropped_and_not_painted(self, tmp_path):
        view = view_of(tmp_path, [Row(CAR, PLACES[0]), Row(MAN, PLACES[1])], 1)
        assert view.instances(0).labels.tolist() == [0]
        assert view.painted(0).tolist() == []

    def test_root_classes_with_children_are_painted_and_internal_deeper_classes_are_not(self, tmp_path):
        painted = view_of(tmp_path, all_classes(), 1).painted(0)
        # Toy, person and carnivore; bear has a child too, but is a class of the layer.
        assert painted.tolist() == [list(PLACES[label]) for label in (TOY, PERSON, CARNIVORE)]

    def test_a_group_of_box_of_a_root_class_is_painted_too(self, tmp_path):
        view = view_of(tmp_path, [Row(PERSON, PLACES[0], group_of=True), Row(MAN, PLACES[1])], 1)
        assert view.painted(0).tolist() == [list(PLACES[0])]

    @pytest.mark.parametrize(
        ('person', 'is_painted'),
        [
            # The man's box is 20 x 20 = 400 pixels, so 100 of it is the limit.
            ((50.0, 50.0, 60.0, 60.0), True),  # 10 x 10 = 100: not more than 25 %
            ((50.0, 50.0, 60.0, 60.1), False),  # 101
            ((0.0, 0.0, 60.0, 60.0), True),  # 100 again: the size of the person's own box does not matter
            ((0.0, 0.0, 61.0, 60.0), False),  # 110
            ((0.0, 0.0, 50.0, 99.0), True),  # touching is no overlap
            ((50.0, 50.0, 70.0, 70.0), False),  # the very same box
        ],
    )
    def test_a_box_over_more_than_a_quarter_of_a_target_is_spared(self, tmp_path, person, is_painted):
        view = view_of(tmp_path, [Row(MAN, (50, 50, 70, 70)), Row(PERSON, person)], 1)
        assert view.painted(0).tolist() == ([list(person)] if is_painted else [])
        assert view.instances(0).labels.tolist() == [0]  # dropped, whether painted or not

    def test_one_target_of_several_is_enough_to_spare_a_box_and_others_are_painted(self, tmp_path):
        big, inside, away = (0, 0, 60, 60), (10, 10, 20, 20), (80, 80, 90, 90)
        rows = [Row(PERSON, big), Row(MAN, (50, 50, 100, 100)), Row(TEDDY, inside), Row(PERSON, away)]
        # Of the man 10 x 10 of 2500 pixels are covered, of the teddy bear all. The second person covers 4 % of the man.
        assert view_of(tmp_path, rows, 1).painted(0).tolist() == [list(away)]

    def test_a_group_of_target_spares_too_and_a_car_does_not(self, tmp_path):
        box = (10, 10, 30, 30)
        for target, spared in ((Row(MAN, box, group_of=True), True), (Row(CAR, box), False)):
            view = view_of(tmp_path / str(spared), [Row(PERSON, box), target], 1)
            assert len(view.painted(0)) == (0 if spared else 1)


class TestVerifiedLabels:
    def verified(self, tmp_path, layer, positive, negative):
        store = write_store(tmp_path / 'store', [Picture('a', [Row(MAN, PLACES[0])], positive, negative)])
        return tuple(labels.tolist() for labels in LayerView(store, layer).verified(0))

    def test_in_layer_0_positive_ones_become_root_classes_each_once(self, tmp_path):
        # man and person → person 2; teddy bear → toy 1.
        assert self.verified(tmp_path, 0, [MAN, PERSON, TEDDY], []) == ([1, 2], [])

    def test_in_layer_0_an_absent_child_says_nothing_about_its_parent(self, tmp_path):
        assert self.verified(tmp_path, 0, [], [MAN, CARNIVORE, CAR]) == ([], [0, 3])

    def test_in_layer_1_positive_root_classes_say_nothing(self, tmp_path):
        assert self.verified(tmp_path, 1, [PERSON, CAR, TEDDY], []) == ([2], [])

    def test_in_layer_1_an_absent_class_makes_all_below_it_absent_by_every_path(self, tmp_path):
        # person → man 0; carnivore → bear 1 and, below bear, teddy bear 2. Car has nothing below it.
        assert self.verified(tmp_path, 1, [], [PERSON, CAR]) == ([], [0])
        assert self.verified(tmp_path / 'b', 1, [], [CARNIVORE]) == ([], [1, 2])
        assert self.verified(tmp_path / 'c', 1, [], [BEAR]) == ([], [1, 2])

    def test_what_is_present_is_not_absent(self, tmp_path):
        # No living carnivore, and yet a teddy bear.
        assert self.verified(tmp_path, 1, [TEDDY], [CARNIVORE]) == ([2], [1])
        assert self.verified(tmp_path / 'b', 0, [MAN], [PERSON]) == ([2], [])


PICTURES = [
    Picture('e', [Row(MAN, PLACES[0], mask=True), Row(CAR, PLACES[1])], [MAN], [CAR]),
    Picture('d', [Row(CAR, PLACES[0])]),
    Picture('c'),
    Picture('b', [Row(PERSON, PLACES[0]), Row(MAN, PLACES[1]), Row(TEDDY, PLACES[2]), Row(MAN, PLACES[3])]),
    Picture('a', [Row(MAN, PLACES[0], group_of=True), Row(BEAR, (5, 5, 5.9, 20)), Row(CAR, PLACES[1])]),
]


@pytest.fixture
def store(tmp_path):
    return write_store(tmp_path / 'store', PICTURES)


class TestReadingInterface:
    def test_an_uncapped_view_has_every_image_of_the_store(self, store):
        view = LayerView(store, 1)
        assert len(view) == 5
        assert [view.image(row).id for row in range(5)] == list('edcba')
        assert [view.row_of(image_id) for image_id in 'abcde'] == [4, 3, 2, 1, 0]
        assert view.rows.tolist() == [0, 1, 2, 3, 4]
        assert (view.path, view.summary) == (store.path, store.summary)

    @pytest.mark.parametrize('layer', [0, 1])
    @pytest.mark.parametrize('images_per_class', [None, 1, 2])
    def test_columns_say_what_the_images_say(self, store, layer, images_per_class):
        view = LayerView(store, layer, images_per_class=images_per_class)
        found = [view.instances(row) for row in range(len(view))]
        assert view.num_instances_per_image.tolist() == [len(one) for one in found]
        assert view.first_instances.tolist() == np.cumsum([0, *map(len, found)])[:-1].tolist()
        assert view.labels.tolist() == [label for one in found for label in one.labels]
        assert view.instance_column('label').tolist() == view.labels.tolist()
        assert view.instance_column('x1').tolist() == [x for one in found for x in one.boxes[:, 0]]
        assert view.instance_column('group_of').tolist() == [flag for one in found for flag in one.group_of]
        assert view.image_column('width').tolist() == [100] * len(view)

    def test_a_cap_leaves_images_that_train(self, store):
        # In layer 1, d has no target, c nothing, a a group and a sliver only.
        view = LayerView(store, 1, images_per_class=10)
        assert [view.image(row).id for row in range(len(view))] == ['e', 'b']
        assert view.row_of('b') == 1
        assert view.verified(0)[0].tolist() == [0]
        with pytest.raises(StoreError, match="image 'a' is not among the 2 of 5 images that the cap keeps"):
            view.row_of('a')
        with pytest.raises(StoreError, match="no image 'z'"):
            view.row_of('z')
        for row in (-1, 2):
            with pytest.raises(StoreError, match=f'image row {row} of 2'):
                view.instances(row)

    def test_a_kept_image_keeps_all_its_instances(self, store):
        # For man one image of e and b is drawn; teddy bear is in b alone, so b stays whatever is drawn.
        view = LayerView(store, 1, images_per_class=1)
        assert view.instances(view.row_of('b')).labels.tolist() == [0, 2, 0]
        assert len(view.painted(view.row_of('b'))) == 1

    def test_the_cap_keeps_the_same_images_wherever_they_stand(self, tmp_path):
        pictures = [Picture(f'{number:04x}', [Row(label, PLACES[0]) for label in (MAN, CAR)]) for number in range(40)]
        kept = []
        for name, order in (('one', pictures), ('other', pictures[::-1])):
            store = write_store(tmp_path / name, order)
            for seed in (0, 1):
                view = LayerView(store, 0, images_per_class=5, seed=seed)
                kept.append({view.image(row).id for row in range(len(view))})
        assert [len(ids) for ids in kept] == [5] * 4
        assert kept[:2] == kept[2:]
        assert kept[0] != kept[1]

    def test_a_view_has_no_spans_of_its_own(self, store):
        with pytest.raises(StoreError, match='first_instance'):
            LayerView(store, 1).image_column('first_instance')

    @pytest.mark.parametrize('images_per_class', [None, 1])
    def test_pickles_small_and_reads_the_same_afterwards(self, store, images_per_class):
        view = LayerView(store, 1, images_per_class=images_per_class, seed=3)
        labels = view.labels.tolist()
        text = pickle.dumps(view)
        assert b'_shown' not in text
        again = pickle.loads(text)
        assert again.labels.tolist() == labels
        assert repr(again) == repr(view)
        with multiprocessing.get_context('spawn').Pool(1) as pool:
            assert pool.apply(view.painted, (len(view) - 1,)).tolist() == again.painted(len(view) - 1).tolist()


class TestBadArguments:
    @pytest.mark.parametrize(
        ('layer', 'options', 'message'),
        [
            (2, {}, r'layer view of .*store: layer=2\. Layers are 0, the root classes, and 1'),
            (None, {}, 'layer=None'),
            (0, {'images_per_class': 0}, 'images_per_class=0'),
            (0, {'seed': -1}, 'seed=-1'),
            (0, {'seed': 1 << 64}, 'seed=18446744073709551616'),
        ],
    )
    def test_is_refused(self, store, layer, options, message):
        with pytest.raises(ConfigError, match=message):
            LayerView(store, layer, **options)

    def test_a_flat_taxonomy_has_no_layer_1(self, tmp_path):
        flat = write_store(tmp_path / 'flat', [Picture('a')], taxonomy=Taxonomy.from_edges(['car', 'toy'], []))
        with pytest.raises(ConfigError, match='none of the 2 classes has a parent'):
            LayerView(flat, 1)
        assert LayerView(flat, 0).taxonomy == flat.taxonomy

    def test_a_cap_that_leaves_nothing(self, tmp_path):
        groups = write_store(tmp_path / 'groups', [Picture('a', [Row(MAN, PLACES[0], group_of=True)])])
        with pytest.raises(ConfigError, match='no image has an instance that trains layer 1'):
            LayerView(groups, 1, images_per_class=5)


@pytest.fixture(scope='module')
def open_images(test_data):
    folder = test_data / 'openimages'
    return read_taxonomy(
        folder / 'challenge-2019-label300-segmentable-hierarchy.json',
        classes=folder / 'challenge-2019-classes-description-segmentable.csv',
    )


class TestRealClasses:
    def test_layers_of_open_images(self, open_images):
        layers = [LayerClasses.of(open_images, layer) for layer in (0, 1)]
        assert [len(layer.labels) for layer in layers] == [213, 87]
        assert sorted([*layers[0].labels, *layers[1].labels]) == list(range(300))
        # 23 of the 213 root classes have children.
        assert [int(layer.painted.sum()) for layer in layers] == [0, 23]
        assert [int((layer.layer_labels >= 0).sum()) for layer in layers] == [300, 87]

    def test_a_teddy_bear_is_a_toy_and_no_carnivore(self, open_images):
        layer = LayerClasses.of(open_images, 0)
        teddy = layer.layer_labels[open_images.label('/m/0kmg4')]
        assert layer.taxonomy.names[teddy] == 'Toy'
        assert layer.taxonomy.names[layer.layer_labels[open_images.label('/m/01dws')]] == 'Carnivore'  # bear


class TestCoco:
    def test_supercategories_and_their_classes(self, test_data, tmp_path):
        taxonomy = read_taxonomy(test_data / 'coco-by' / 'instances_train.json')
        roots, deeper = (LayerClasses.of(taxonomy, layer) for layer in (0, 1))
        # Person is a category and its own supercategory: a root class without children.
        assert (len(roots.labels), len(deeper.labels)) == (12, 79)
        person = taxonomy.label('1')
        assert roots.taxonomy.names[roots.layer_labels[person]] == 'person'
        assert (deeper.layer_labels[person], bool(deeper.painted[person])) == (-1, False)
        assert roots.taxonomy.names[roots.layer_labels[taxonomy.label('18')]] == 'animal'  # dog


def test_the_taxonomy_of_these_tests_is_what_it_says():
    assert layered_taxonomy().preferred_path(TEDDY) == (TOY, TEDDY)
    assert layered_taxonomy().ancestors(TEDDY) == {TOY, BEAR, CARNIVORE}
