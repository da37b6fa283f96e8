"""Counts of classes and layers, and repeat factors: by hand, by law, image by image and against a COCO file."""

from __future__ import annotations

import csv
import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from layer_stores import BEAR, CAR, CARNIVORE, MAN, PERSON, TEDDY, TOY, Picture, Row, write_store
from taxonomies import random_taxonomies

from hierseg.converters.coco import convert_coco
from hierseg.errors import ConfigError
from hierseg.store import LayerView, Store
from hierseg.store.frequency import TrainingLabels, count_classes, count_layer, repeat_factors
from hierseg.store.layers import trainable
from hierseg.taxonomy import read_taxonomy

BOX = (50, 50, 70, 70)
PICTURES = [
    Picture('a', [Row(PERSON, BOX), Row(MAN, BOX), Row(MAN, BOX), Row(BEAR, (0, 80, 0.5, 90))]),
    Picture('b', [Row(TEDDY, BOX), Row(TOY, BOX), Row(CAR, BOX), Row(MAN, BOX, group_of=True)]),
    Picture('c', [Row(BEAR, BOX)]),
    Picture('d'),
]


@pytest.fixture
def store(tmp_path):
    return write_store(tmp_path / 'store', PICTURES)


def test_by_hand(store):
    own = count_classes(store, expanded=False)
    expanded = count_classes(store)
    # Each: images and instances of the class alone, and with what lies below it. A teddy bear is a toy and a bear.
    expected = {
        PERSON: (1, 1, 1, 3),
        MAN: (1, 2, 1, 2),
        TEDDY: (1, 1, 1, 1),
        TOY: (1, 1, 1, 2),
        BEAR: (1, 1, 2, 2),
        CARNIVORE: (0, 0, 2, 2),
        CAR: (1, 1, 1, 1),
    }
    for label, counts in expected.items():
        found = (own.images, own.instances, expanded.images, expanded.instances)
        assert tuple(int(values[label]) for values in found) == counts


def test_frequencies_and_factors_by_hand(store):
    labels = TrainingLabels.of(store)
    # 4 images, 7 instances that train. Bear: on b (as teddy) and c.
    by_image = labels.frequencies()
    assert by_image[[PERSON, BEAR, CARNIVORE]].tolist() == [1 / 4, 2 / 4, 2 / 4]
    by_both = labels.frequencies(instance_aware=True)
    np.testing.assert_allclose(by_both[PERSON], np.sqrt(1 / 4 * 3 / 7))
    np.testing.assert_allclose(by_both[BEAR], np.sqrt(2 / 4 * 2 / 7))
    own = labels.frequencies(expanded=False)
    assert own[[BEAR, CARNIVORE]].tolist() == [1 / 4, 0]
    # t = 1/2: r = √2 for what is on one image, 1 for bear and carnivore.
    factors = repeat_factors(by_image, 0.5)
    np.testing.assert_allclose(factors[[PERSON, MAN, TEDDY, TOY, CAR]], np.sqrt(2))
    assert factors[[BEAR, CARNIVORE]].tolist() == [1, 1]
    # Image d has no class, c a bear alone.
    np.testing.assert_allclose(labels.image_factors(factors), [np.sqrt(2), np.sqrt(2), 1, 1])
    # r = max(1, √(t / √(f_i · f_b))): bear √(0.5 / √(1/7)).
    factors = repeat_factors(by_both, 0.5)
    np.testing.assert_allclose(factors[BEAR], np.sqrt(0.5 / np.sqrt(1 / 7)))
    # What does not occur is not repeated.
    assert repeat_factors(own, 0.5)[CARNIVORE] == 1


def test_only_the_images_of_a_data_set_count(store):
    # In any order, and twice if the data set has one twice.
    labels = TrainingLabels.of(store, np.array([2, 0, 2], dtype=np.int32))
    assert labels.images.tolist() == [0, 1, 1, 1, 2]
    assert labels.labels.tolist() == [BEAR, PERSON, MAN, MAN, BEAR]
    assert labels.frequencies()[[BEAR, CARNIVORE, MAN, TOY]].tolist() == [2 / 3, 2 / 3, 1 / 3, 0]
    assert TrainingLabels.of(store, np.zeros(0, dtype=np.int32)).num_images == 0


def test_a_layer_is_counted_like_a_store(store):
    # Layer 0: car 0, toy 1, person 2, carnivore 3. The teddy bear is a toy there, and no bear.
    counts = count_classes(LayerView(store, 0))
    assert counts.images.tolist() == [1, 1, 1, 1]
    assert counts.instances.tolist() == [1, 2, 3, 1]
    # Layer 1: man 0, bear 1, teddy 2.
    counts = count_classes(LayerView(store, 1, images_per_class=1))
    assert counts.images.tolist() == [1, 1, 1]
    assert counts.instances.tolist() == [2, 1, 1]


def test_draws_weigh_images(store):
    images, instances = TrainingLabels.of(store).counts_of_draws(np.array([0.5, 2, 3, 9]))
    assert images[[PERSON, BEAR, TOY]].tolist() == [0.5, 5, 2]
    assert instances[[PERSON, BEAR, TOY]].tolist() == [1.5, 5, 4]


@st.composite
def random_labels(draw: st.DrawFn) -> TrainingLabels:
    taxonomy = draw(random_taxonomies())
    images = draw(st.lists(st.lists(st.integers(0, taxonomy.num_classes - 1), max_size=5), min_size=1, max_size=8))
    where = [number for number, labels in enumerate(images) for _ in labels]
    flat = [label for labels in images for label in labels]
    return TrainingLabels(np.array(where, dtype=int), np.array(flat, dtype=int), len(images), taxonomy)


@given(random_labels(), st.booleans(), st.floats(0.01, 1))
def test_equals_counting_sets_of_ancestors(labels: TrainingLabels, instance_aware: bool, threshold: float) -> None:
    """The published formula over plain sets: an image's factor is the greatest over its classes and their ancestors."""
    taxonomy, classes = labels.taxonomy, range(labels.taxonomy.num_classes)
    with_ancestors = [{label, *taxonomy.ancestors(label)} for label in labels.labels.tolist()]
    on_image: list[set[int]] = [set() for _ in range(labels.num_images)]
    for image, found in zip(labels.images.tolist(), with_ancestors, strict=True):
        on_image[image] |= found
    factors = []
    for label in classes:
        frequency = sum(label in found for found in on_image) / labels.num_images
        if instance_aware and with_ancestors:
            share = sum(label in found for found in with_ancestors) / len(with_ancestors)
            frequency = (frequency * share) ** 0.5
        factors.append(max(1, (threshold / frequency) ** 0.5) if frequency else 1)
    found_factors = repeat_factors(labels.frequencies(instance_aware=instance_aware), threshold)
    np.testing.assert_allclose(found_factors, factors)
    expected = [max([1, *(factors[label] for label in found)]) for found in on_image]
    np.testing.assert_allclose(labels.image_factors(found_factors), expected)


@pytest.mark.parametrize('threshold', [0, -0.1, 1.5, float('nan'), 'most'])
def test_a_threshold_is_a_frequency(threshold):
    with pytest.raises(ConfigError, match='is no frequency'):
        repeat_factors(np.array([0.5]), threshold)


def test_the_family_of_factors_by_hand():
    frequencies = np.array([0.4, 0.1, 0.001, 0])
    # (0.4 / f)^p: 1, 4^p and 400^p; a class that does not occur stays at 1.
    assert repeat_factors(frequencies, 'max', power=1) == pytest.approx([1, 4, 400, 1])
    assert repeat_factors(frequencies, 'max') == pytest.approx([1, 2, 20, 1])
    assert repeat_factors(frequencies, 'max', power=0) == pytest.approx([1, 1, 1, 1])
    assert repeat_factors(frequencies, 'max', power=1, max_repeats=50) == pytest.approx([1, 4, 50, 1])
    assert repeat_factors(frequencies, 0.1, power=1, max_repeats=1) == pytest.approx([1, 1, 1, 1])
    assert repeat_factors(np.zeros(2), 'max').tolist() == [1, 1]


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'power': -0.1}, 'power=-0.1'),
        ({'power': 1.5}, 'power=1.5'),
        ({'power': float('nan')}, 'power=nan'),
        ({'max_repeats': 0.5}, 'max_repeats=0.5'),
        ({'max_repeats': float('nan')}, 'max_repeats=nan'),
    ],
)
def test_numbers_out_of_range(options, message):
    with pytest.raises(ConfigError, match=message):
        repeat_factors(np.array([0.5]), 0.1, **options)


def test_coarse_labels_of_open_images_are_not_rare(test_data):
    """Real counts of masks, each taken as an image of its own among 850,000; docs/sampling.md quotes them."""
    folder = test_data / 'openimages'
    taxonomy = read_taxonomy(
        folder / 'challenge-2019-label300-segmentable-hierarchy.json',
        classes=folder / 'challenge-2019-classes-description-segmentable.csv',
    )
    with (folder / 'train-mask-counts.csv').open(encoding='utf-8') as file:
        rows = list(csv.DictReader(file))
    own = np.zeros(taxonomy.num_classes)
    own[[taxonomy.label(row['class']) for row in rows]] = [int(row['count']) for row in rows]
    expanded = own @ taxonomy.arrays.ancestor_mask
    turtle = taxonomy.names.index('Turtle')
    assert (own[turtle], expanded[turtle]) == (164, 2629)
    factors = [repeat_factors(counts / 850_000, 1e-3) for counts in (own, expanded)]
    assert [int((found > 1).sum()) for found in factors] == [132, 127]
    assert factors[0][turtle] == pytest.approx(np.sqrt(850 / 164))
    assert factors[1][turtle] == 1
    assert factors[1].max() == pytest.approx(np.sqrt(850 / 14))


FAR, NEAR, INSIDE = (0, 0, 10, 10), (50, 50, 70, 70), (55, 55, 65, 66)
LAYERED = [
    # One person painted, one spared for the man's sake; two men; the sliver of a bear trains nothing.
    Picture('a', [Row(PERSON, FAR), Row(PERSON, INSIDE), Row(MAN, NEAR), Row(MAN, NEAR), Row(BEAR, (0, 80, 0.5, 90))]),
    Picture('b', [Row(TEDDY, NEAR), Row(CAR, FAR), Row(MAN, FAR, group_of=True)]),
    # No target of layer 1 that trains, so it is no training image and its person and toy are not counted.
    Picture('c', [Row(PERSON, FAR), Row(TOY, NEAR), Row(MAN, NEAR, group_of=True)]),
    Picture('d'),
]


def test_layers_by_hand(tmp_path):
    store = write_store(tmp_path / 'store', LAYERED)
    deeper = count_layer(LayerView(store, 1))
    # man, bear, teddy bear
    assert deeper.images == 2
    assert deeper.images_per_class.tolist() == [1, 0, 1]
    assert deeper.instances_per_class.tolist() == [2, 0, 1]
    assert (deeper.instances, deeper.painted, deeper.spared, deeper.images_painted) == (3, 1, 1, 1)
    roots = count_layer(LayerView(store, 0))
    # car, toy (a toy and a teddy bear), person (a: 2 + 2, c: 1), carnivore
    assert roots.images == 3
    assert roots.images_per_class.tolist() == [1, 2, 2, 0]
    assert roots.instances_per_class.tolist() == [1, 2, 5, 0]
    assert (roots.painted, roots.spared, roots.images_painted) == (0, 0, 0)


@pytest.mark.parametrize('layer', [0, 1])
@pytest.mark.parametrize('images_per_class', [None, 3])
def test_it_is_the_sum_over_images(tmp_path, layer, images_per_class):
    generator = np.random.default_rng(0)
    pictures = []
    for number in range(40):
        count = generator.integers(0, 8)
        corners = np.sort(generator.uniform(0, 100, (count, 2, 2)), axis=1).reshape(count, 4)
        labels, groups = generator.choice([*range(7), MAN, PERSON, PERSON], count), generator.random(count) < 0.2
        rows = [Row(int(a), tuple(b), group_of=bool(c)) for a, b, c in zip(labels, corners, groups, strict=True)]
        pictures.append(Picture(str(number), rows))
    view = LayerView(write_store(tmp_path / 'store', pictures), layer, images_per_class=images_per_class)
    images, instances, painted, images_painted, training = Counter(), Counter(), 0, 0, 0
    for row in range(len(view)):
        found = view.instances(row)
        labels = found.labels[trainable(found.boxes, found.group_of)].tolist()
        images.update(set(labels))
        instances.update(labels)
        if labels:
            training += 1
            painted += len(view.painted(row))
            images_painted += len(view.painted(row)) > 0
    counts = count_layer(view)
    num_classes = view.taxonomy.num_classes
    assert counts.images == training
    assert counts.images_per_class.tolist() == [images[label] for label in range(num_classes)]
    assert counts.instances_per_class.tolist() == [instances[label] for label in range(num_classes)]
    assert (counts.painted, counts.images_painted) == (painted, images_painted)
    assert (counts.painted > 0) == (counts.spared > 0) == (layer == 1)


def test_photographs_of_coco(test_data, tmp_path):
    folder = test_data / 'coco-by'
    convert_coco(folder / 'instances_train.json', images=folder / 'images', out=tmp_path / 'store')
    document = json.loads((folder / 'instances_train.json').read_text())
    categories = {category['id']: category for category in document['categories']}
    groups, names = Counter(), Counter()
    for annotation in document['annotations']:
        if not annotation['iscrowd'] and min(annotation['bbox'][2:]) >= 1:
            category = categories[annotation['category_id']]
            groups[category['supercategory']] += 1
            names[category['name']] += 1
    store = Store.open(tmp_path / 'store')
    roots, deeper = (LayerView(store, layer) for layer in (0, 1))
    found = dict(zip(roots.taxonomy.names, count_layer(roots).instances_per_class.tolist(), strict=True))
    assert found == {name: groups[name] for name in found}
    assert len(found) == 12
    # Person has no class above it, so it is in layer 0 alone.
    found = dict(zip(deeper.taxonomy.names, count_layer(deeper).instances_per_class.tolist(), strict=True))
    assert found == {name: names[name] for name in categories_of(document) if name != 'person'}


def categories_of(document):
    return [category['name'] for category in document['categories']]
