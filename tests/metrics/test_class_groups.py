from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from taxonomies import ANIMAL, BEAR, CAR, TEDDY, TOY, random_taxonomies, teddy_taxonomy

from hierseg.errors import EvaluationError
from hierseg.metrics.average_precision import class_groups, frequency_bands
from hierseg.taxonomy import read_taxonomy


def test_layers_and_depths():
    # Teddy is under Toy and under Animal > Bear: depth 2 by its longest path.
    assert class_groups(teddy_taxonomy()) == {
        'all': (TOY, ANIMAL, BEAR, TEDDY, CAR),
        'layer0': (TOY, ANIMAL, CAR),
        'layer1': (BEAR, TEDDY),
        'depth0': (TOY, ANIMAL, CAR),
        'depth1': (BEAR,),
        'depth2': (TEDDY,),
    }


def test_bands():
    # Five classes: two, two and one. Images by label: toy 7, animal 9, bear 7, teddy 0, car 2.
    groups = class_groups(teddy_taxonomy(), train_images=np.array([7, 9, 7, 0, 2]))
    assert groups['rare'] == (TEDDY, CAR)
    assert groups['common'] == (TOY, BEAR)
    assert groups['frequent'] == (ANIMAL,)
    assert groups.items() >= class_groups(teddy_taxonomy()).items()


def test_of_equally_frequent_classes_the_smaller_label_is_rarer():
    assert frequency_bands(np.full(6, 3), [5, 4, 2, 0]) == {'rare': (0, 2), 'common': (4,), 'frequent': (5,)}


def test_fewer_classes_than_bands():
    assert frequency_bands(np.array([3, 1]), range(2)) == {'rare': (1,), 'common': (0,), 'frequent': ()}


def test_one_count_for_each_class():
    with pytest.raises(EvaluationError, match='4 counts of training images for 5 classes'):
        class_groups(teddy_taxonomy(), train_images=np.zeros(4, dtype=np.int64))


@given(random_taxonomies(), st.integers(0, 2**32 - 1))
def test_each_kind_of_group_has_every_class_once(taxonomy, seed):
    counts = np.random.default_rng(seed).integers(0, 5, taxonomy.num_classes)
    groups = class_groups(taxonomy, train_images=counts)
    for names in (
        ['layer0', 'layer1'],
        [name for name in groups if name.startswith('depth')],
        ['rare', 'common', 'frequent'],
    ):
        assert sorted(label for name in names for label in groups[name]) == list(groups['all'])
    assert groups['depth0'] == groups['layer0']
    rare, common, frequent = ([counts[label] for label in groups[band]] for band in ('rare', 'common', 'frequent'))
    assert len(rare) >= len(common) >= len(frequent) >= len(rare) - 1
    assert not common or max(rare) <= min(common)
    assert not frequent or max(common) <= min(frequent)


def test_open_images(test_data):
    groups = class_groups(
        read_taxonomy(test_data / 'openimages' / 'challenge-2019-label300-segmentable-hierarchy.json')
    )
    # As counted when the file was published: 213 root classes, 87 deeper ones, 5 of them at depth two.
    assert {name: len(labels) for name, labels in groups.items()} == {
        'all': 300, 'layer0': 213, 'layer1': 87, 'depth0': 213, 'depth1': 82, 'depth2': 5
    }  # fmt: skip
