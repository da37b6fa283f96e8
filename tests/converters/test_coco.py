"""COCO JSON to a store: masks equal to pycocotools', labels of exhaustive annotation, bad input."""

from __future__ import annotations

import contextlib
import copy
import io
import re

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from hierseg.converters.coco import ExhaustiveLabels, convert_coco
from hierseg.errors import AnnotationError, StoreError
from hierseg.store import Store
from hierseg.taxonomy import Taxonomy


def test_everything_of_a_small_file(document, convert):
    store, summary = convert(document)
    # Labels: cat 0, dog 1, car 2, animal 3, vehicle 4.
    assert store.taxonomy.names == ('cat', 'dog', 'car', 'animal', 'vehicle')
    assert [store.image(row).id for row in range(2)] == ['30', '4']
    assert store.image(0).file_name == 'b/30.jpg'
    first, second = store.instances(0), store.instances(1)
    assert first.labels.tolist() == [1]
    assert first.boxes.tolist() == [[2.13, 1.1, 2.13 + 4.07, 1.1 + 4.3]]
    assert (first.has_mask.tolist(), first.masks, first.areas.tolist()) == ([False], [b''], [15.0])
    assert second.labels.tolist() == [2, 0]
    assert second.group_of.tolist() == [False, True]
    assert second.annotation_ids == ['9', '5']
    assert second.areas.tolist() == [16.5, 16]  # as given; counted where it is not
    np.testing.assert_array_equal(decode(second.masks[1])[:, :3], [[1, 1, 0]] * 8)
    assert [labels.tolist() for labels in store.verified(0)] == [[1], [0, 2, 4]]
    assert [labels.tolist() for labels in store.verified(1)] == [[0, 2], [1]]
    assert (summary.images, summary.instances, summary.instances_with_mask, summary.instances_group_of) == (2, 3, 2, 1)
    assert (summary.verified_positive, summary.verified_negative) == (3, 4)


def decode(counts: bytes) -> np.ndarray:
    return coco_mask.decode({'size': [8, 12], 'counts': counts})


@pytest.mark.parametrize('split', ['train', 'val'])
def test_real_masks_boxes_and_areas_are_those_of_pycocotools(test_data, tmp_path, split):
    path = test_data / f'coco-by/instances_{split}.json'
    convert_coco(path, images=test_data / 'coco-by/images', out=tmp_path / 'store')
    store = Store.open(tmp_path / 'store')
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(path))
    assert len(store) == len(coco.imgs) > 0
    seen = 0
    for row in range(len(store)):
        image, instances = store.image(row), store.instances(row)
        annotations = coco.imgToAnns[int(image.id)]
        assert [int(text) for text in instances.annotation_ids] == [a['id'] for a in annotations]
        for i, annotation in enumerate(annotations):
            assert instances.masks[i] == coco.annToRLE(annotation)['counts']
            assert instances.areas[i] == annotation['area']
            assert store.taxonomy.ids[instances.labels[i]] == str(annotation['category_id'])
            x, y, width, height = annotation['bbox']
            assert instances.boxes[i].tolist() == [x, y, x + width, y + height]
            assert instances.group_of[i] == annotation['iscrowd']
            seen += 1
    assert seen == len(coco.anns) > 400


def test_exhaustive_labels_in_a_hierarchy():
    # machine > vehicle > car, van; animal; stone. All but machine and stone are categories.
    ids = ['vehicle', 'car', 'van', 'animal', 'machine', 'stone']
    taxonomy = Taxonomy.from_edges(ids, [('car', 'vehicle'), ('van', 'vehicle'), ('vehicle', 'machine')])
    exhaustive = ExhaustiveLabels(taxonomy, [0, 1, 2, 3])

    def absent(*labels: int) -> list[str]:
        present, negative = exhaustive(np.array(labels, dtype=np.int64))
        assert present.tolist() == sorted(set(labels))
        return [ids[label] for label in negative]

    assert absent() == ['vehicle', 'car', 'van', 'animal', 'machine']  # nobody looked for stones
    assert absent(1, 1) == ['van', 'animal']  # a car is a vehicle and a machine
    assert absent(0) == ['animal']  # the vehicle may be a car or a van
    assert absent(3) == ['vehicle', 'car', 'van', 'machine']


def test_label_lists_of_images_come_first(document, convert):
    document['images'][0] |= {'neg_category_ids': [3]}
    document['images'][1] |= {'neg_category_ids': [], 'pos_category_ids': [18, 3]}
    store, _ = convert(document)
    assert [labels.tolist() for labels in store.verified(0)] == [[1], [2]]
    assert [labels.tolist() for labels in store.verified(1)] == [[1, 2], []]


@pytest.mark.parametrize(
    ('ids', 'names'),
    [
        (['beast', '18', '3', '17', 'more'], ['Beast', 'Dog', 'Car', 'Cat', 'More']),  # by id
        (['0', '1', '2', '3x', '4'], ['beast', 'dog', 'car', 'cat', 'more']),  # by name
        (['beast', 'dog', 'car', 'cat', 'more'], ['Beast', 'Dog', 'Car', 'Cat', 'More']),  # names are the ids
    ],
)
def test_a_given_taxonomy_matches_by_id_or_name(document, convert, ids, names):
    taxonomy = Taxonomy.from_edges(ids, [(ids[1], ids[0]), (ids[3], ids[0])], names=names)
    store, _ = convert(document, taxonomy)
    assert store.taxonomy == taxonomy
    assert store.instances(0).labels.tolist() == [1]
    assert store.instances(1).labels.tolist() == [2, 3]
    assert [labels.tolist() for labels in store.verified(1)] == [[2, 3], [1]]  # no word about "more"


@pytest.mark.parametrize(
    ('ids', 'names', 'message'),
    [
        (['cat', 'dog'], None, '1 of 3 categories are not in the taxonomy, such as 3 (car)'),
        (['17', '18', '3'], ['car', 'dog', 'cat'], 'category 17 matches one class of the taxonomy by id and another'),
    ],
)
def test_taxonomies_that_do_not_fit(document, convert, ids, names, message):
    with pytest.raises(AnnotationError, match=re.escape(message)):
        convert(document, Taxonomy.from_edges(ids, [], names=names))


def test_missing_images(document, convert, tmp_path):
    (tmp_path / '4.jpg').unlink()
    with pytest.raises(AnnotationError, match=r'image 4: there is no such image: .*4\.jpg'):
        convert(document)
    store, summary = convert(document, mode='lenient')
    assert len(store) == 1
    assert summary.skipped['images without a file, left out'].count == 1
    (tmp_path / 'b/30.jpg').unlink()
    with pytest.raises(AnnotationError, match='none of the images is there'):
        convert(document, mode='lenient')


@pytest.mark.parametrize('key', ['images', 'annotations', 'categories'])
def test_lists_that_are_not_there(document, convert, key):
    incomplete = copy.deepcopy(document)
    del incomplete[key]
    with pytest.raises(AnnotationError, match=f"has no list '{key}'"):
        convert(incomplete)


def test_files_that_are_none(document, convert, tmp_path):
    with pytest.raises(AnnotationError, match='the split is empty'):
        convert({**document, 'images': [], 'annotations': []})
    with pytest.raises(AnnotationError, match="has no list 'images'"):
        convert([])
    with pytest.raises(AnnotationError, match=r'gone\.json: cannot be read'):
        convert_coco(tmp_path / 'gone.json', images=tmp_path, out=tmp_path / 'new')
    (tmp_path / 'cut.json').write_text('{"images": [')
    with pytest.raises(AnnotationError, match=r'cut\.json, line 1: is not JSON'):
        convert_coco(tmp_path / 'cut.json', images=tmp_path, out=tmp_path / 'new')
    with pytest.raises(AnnotationError, match='none: is no folder'):
        convert_coco(tmp_path / 'coco.json', images=tmp_path / 'none', out=tmp_path / 'new')
    with pytest.raises(StoreError, match='exists and is no store'):
        convert_coco(tmp_path / 'coco.json', images=tmp_path, out=tmp_path)
