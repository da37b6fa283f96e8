"""Counts of classes and repeat factors, by hand and by law."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from layer_stores import BEAR, CAR, CARNIVORE, MAN, PERSON, TEDDY, TOY, Picture, Row, write_store
from taxonomies import random_taxonomies

from hierseg.errors import ConfigError
from hierseg.store import LayerView
from hierseg.store.frequency import TrainingLabels, count_classes, repeat_factors
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


@pytest.mark.parametrize('threshold', [0, -0.1, 1.5, float('nan')])
def test_a_threshold_is_a_frequency(threshold):
    with pytest.raises(ConfigError, match='is no frequency'):
        repeat_factors(np.array([0.5]), threshold)


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
