"""Layer views, a test for every rule; the 25 % rule and the cap on images per class by themselves."""

from __future__ import annotations

import multiprocessing
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layer_stores import BEAR, CAR, CARNIVORE, MAN, PERSON, TEDDY, TOY, Picture, Row, layered_taxonomy, write_store
from small_store import rectangle_mask

from hierseg.errors import ConfigError, StoreError
from hierseg.store import LayerView, layers
from hierseg.store.layers import LayerClasses, capped_images, random_order
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

    @pytest.mark.parametrize(
        ('layer', 'labels', 'expected'),
        # More teddies are more toys, bears and carnivores. In layer 1: bear 1, teddy 2; in layer 0: toy 1, carnivore 3.
        [(0, [TEDDY], [1, 3]), (1, [TEDDY], [1, 2]), (0, [CAR], [0]), (1, [CAR], []), (1, [MAN, BEAR], [0, 1])],
    )
    def test_more_of_a_class_is_more_of_all_above_it(self, tmp_path, layer, labels, expected):
        store = write_store(tmp_path / 'store', [Picture('b'), Picture('a', not_exhaustive=labels)])
        view = LayerView(store, layer)
        assert view.has_not_exhaustive
        assert [view.not_exhaustive(row).tolist() for row in (0, 1)] == [[], expected]


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


@pytest.mark.parametrize(
    ('box', 'target', 'expected'),
    [
        ((0, 0, 10, 10), (0, 0, 20, 20), False),  # 100 of 400 is 25 %, not more
        ((0, 0, 10.01, 10), (0, 0, 20, 20), True),
        ((5, 5, 6, 6), (0, 0, 1.9, 1.9), False),
        ((0, 0, 10, 10), (-50, 2, 50, 3), False),  # 10 of 100
        ((0, 0, 10, 10), (4, 4, 4, 8), False),  # a target without area
        ((3, 3, 3, 9), (0, 0, 10, 10), False),  # a box without area
    ],
)
def test_covers(box, target, expected):
    assert bool(layers.covers(np.array(box, dtype=float), np.array(target, dtype=float))) is expected


def test_without_targets_nothing_is_spared():
    boxes = np.array([[0.0, 0, 5, 5], [1, 1, 2, 2]])
    everything, nothing = np.ones(2, dtype=bool), np.zeros(2, dtype=bool)
    image = np.zeros(2, dtype=int)
    assert layers.spared(boxes, image, everything, nothing).tolist() == [False, False]
    assert layers.spared(boxes, image, nothing, everything).tolist() == [False, False]
    assert layers.spared(boxes[:0], image[:0], nothing[:0], nothing[:0]).tolist() == []


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    counts=st.lists(st.integers(0, 7), min_size=1, max_size=6),
    pairs_at_once=st.sampled_from([1, 5, 1 << 21]),
)
def test_all_images_at_once_equals_every_pair_alone(seed, counts, pairs_at_once):
    generator = np.random.default_rng(seed)
    total = sum(counts)
    boxes = np.sort(generator.uniform(0, 10, (total, 2, 2)), axis=1).reshape(total, 4)
    kinds = generator.integers(0, 3, total)  # 0 may be painted, 1 is a target, 2 is neither
    images = np.repeat(np.arange(len(counts)), counts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layers, 'PAIRS_AT_ONCE', pairs_at_once)
        found = layers.spared(boxes, images, kinds == 0, kinds == 1)
    expected = [
        kinds[one] == 0
        and any(
            layers.covers(boxes[one], boxes[other])
            for other in range(total)
            if images[other] == images[one] and kinds[other] == 1
        )
        for one in range(total)
    ]
    assert found.tolist() == expected


instance_lists = st.lists(st.tuples(st.integers(0, 11), st.integers(0, 4)), min_size=1, max_size=60)
orders = st.permutations(range(12))


def keep(pairs, order, images_per_class):
    images, labels = np.array(pairs).T
    return capped_images(images, labels, np.array(order), images_per_class=images_per_class).tolist()


def test_by_hand():
    # Class 0 is in images 0 to 3, class 1 in 2 and 4, class 2 in 5 (twice). In the order 3 1 4 0 2 5, at most 2
    # images each: class 0 takes 3 and 1, class 1 takes 4 and 2, class 2 takes 5. Image 2 brings class 0 a third one.
    pairs = [(0, 0), (1, 0), (2, 0), (2, 1), (3, 0), (4, 1), (5, 2), (5, 2)]
    assert keep(pairs, [3, 1, 4, 0, 2, 5], 2) == [1, 2, 3, 4, 5]
    assert keep(pairs, [3, 1, 4, 0, 2, 5], 1) == [3, 4, 5]


@settings(max_examples=100, deadline=None)
@given(pairs=instance_lists, order=orders, cap=st.integers(1, 5))
def test_it_is_the_greedy_rule(pairs, order, cap):
    """An image is taken if it holds a class of which fewer than ``cap`` images were taken."""
    classes_of = {image: {label for other, label in pairs if other == image} for image in range(12)}
    taken, count = [], dict.fromkeys(range(5), 0)
    for image in order:
        if any(count[label] < cap for label in classes_of[image]):
            taken.append(image)
            for label in classes_of[image]:
                count[label] += 1
    assert keep(pairs, order, cap) == sorted(taken)


@settings(max_examples=50, deadline=None)
@given(pairs=instance_lists, order=orders, cap=st.integers(1, 5))
def test_every_class_keeps_its_share_and_a_larger_cap_keeps_more(pairs, order, cap):
    kept = set(keep(pairs, order, cap))
    for wanted in range(5):
        images = {image for image, label in pairs if label == wanted}
        assert len(images & kept) >= min(cap, len(images))
    assert kept <= set(keep(pairs, order, cap + 1))
    assert set(keep(pairs, order, 12)) == {image for image, _ in pairs}


def test_the_order_depends_on_ids_and_seed_alone():
    ids = np.array([f'{number:016x}' for number in range(500)], dtype=object)
    order = ids[random_order(ids, 7)].tolist()
    assert sorted(order) == ids.tolist()
    assert order != ids.tolist()
    shuffled = np.random.default_rng(0).permutation(ids)
    assert shuffled[random_order(shuffled, 7)].tolist() == order
    assert ids[random_order(ids, 8)].tolist() != order
    # Fewer images stand in the same order.
    half = ids[::2]
    assert half[random_order(half, 7)].tolist() == [one for one in order if one in set(half)]


def test_the_order_is_the_same_on_every_machine_and_version():
    # Written down once: another order would silently change everybody's training images.
    ids = np.array(['0a', '1b', '2c', '3d', '4e', 'é', ''], dtype=object)
    assert random_order(ids, 0).tolist() == [2, 3, 5, 1, 0, 6, 4]
    assert random_order(ids, 2**64 - 1).tolist() == [3, 2, 1, 0, 6, 4, 5]


def test_the_order_is_even():
    ids = np.array([str(number) for number in range(1000)], dtype=object)
    times = sum(np.bincount(random_order(ids, seed)[:100], minlength=1000) for seed in range(100))
    # How often an id is among the first tenth is binomial (100, 0.1): mean 10, standard deviation 3.
    assert 2.7 < times.std() < 3.3
    assert 9.5 < times[:500].mean() < 10.5
