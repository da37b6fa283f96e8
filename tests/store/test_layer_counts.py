"""Counts of a layer view, against counting image by image and against a COCO file."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from layer_stores import BEAR, CAR, MAN, PERSON, TEDDY, TOY, Picture, Row, write_store

from hierseg.converters.coco import convert_coco
from hierseg.store import LayerView, Store
from hierseg.store.frequency import count_layer
from hierseg.store.layers import trainable

FAR, NEAR, INSIDE = (0, 0, 10, 10), (50, 50, 70, 70), (55, 55, 65, 66)
PICTURES = [
    # One person painted, one spared for the man's sake; two men; the sliver of a bear trains nothing.
    Picture('a', [Row(PERSON, FAR), Row(PERSON, INSIDE), Row(MAN, NEAR), Row(MAN, NEAR), Row(BEAR, (0, 80, 0.5, 90))]),
    Picture('b', [Row(TEDDY, NEAR), Row(CAR, FAR), Row(MAN, FAR, group_of=True)]),
    # No target of layer 1 that trains, so it is no training image and its person and toy are not counted.
    Picture('c', [Row(PERSON, FAR), Row(TOY, NEAR), Row(MAN, NEAR, group_of=True)]),
    Picture('d'),
]


def test_by_hand(tmp_path):
    store = write_store(tmp_path / 'store', PICTURES)
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
