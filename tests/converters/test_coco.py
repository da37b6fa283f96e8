"""COCO JSON to a store: masks equal to pycocotools', labels of exhaustive annotation, bad input."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import re

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from hierseg.converters.coco import ExhaustiveLabels, convert_coco
from hierseg.errors import AnnotationError, StoreError
from hierseg.store import Store
from hierseg.taxonomy import Taxonomy

SQUARE = [2.0, 1.0, 6.0, 1.0, 6.0, 5.0, 2.0, 5.0]


@pytest.fixture
def document():
    """Two images of 12 x 8; cat and dog are animals, car is a vehicle; ids with gaps as in COCO."""
    return {
        'images': [
            {'id': 30, 'file_name': 'b/30.jpg', 'width': 12, 'height': 8},
            {'id': 4, 'file_name': '4.jpg', 'width': 12, 'height': 8},
        ],
        'categories': [
            {'id': 17, 'name': 'cat', 'supercategory': 'animal'},
            {'id': 18, 'name': 'dog', 'supercategory': 'animal'},
            {'id': 3, 'name': 'car', 'supercategory': 'vehicle'},
        ],
        'annotations': [
            {'id': 9, 'image_id': 4, 'category_id': 3, 'bbox': [2, 1, 4, 4], 'segmentation': [SQUARE], 'area': 16.5},
            {'id': 2, 'image_id': 30, 'category_id': 18, 'bbox': [2.13, 1.1, 4.07, 4.3], 'area': 15.0, 'iscrowd': 0},
            {
                'id': 5,
                'image_id': 4,
                'category_id': 17,
                'bbox': [0, 0, 2, 8],
                'iscrowd': 1,
                'segmentation': {'size': [8, 12], 'counts': [0, 16, 80]},
            },
        ],
    }


@pytest.fixture
def convert(tmp_path):
    for name in ('b/30.jpg', '4.jpg'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    def run(document, taxonomy=None, **options):
        (tmp_path / 'coco.json').write_text(json.dumps(document))
        summary = convert_coco(
            tmp_path / 'coco.json', taxonomy, images=tmp_path, out=tmp_path / 'store', overwrite=True, **options
        )
        return Store.open(tmp_path / 'store'), summary

    return run


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
    with pytest.raises(AnnotationError, match=r'4\.jpg \(image 4\): there is no such image'):
        convert(document)
    store, summary = convert(document, skip_broken=True)
    assert len(store) == 1
    assert summary.skipped['images without a file, left out'].count == 1
    (tmp_path / 'b/30.jpg').unlink()
    with pytest.raises(AnnotationError, match='none of the images is there'):
        convert(document, skip_broken=True)


@pytest.mark.parametrize(
    ('segmentation', 'message'),
    [
        ([[1, 1, 2, 2]], 'fewer than three points'),
        ([[1, 1, 2, 2, 3, 3, 4]], 'half a point'),
        ([[1, 1, 2, 2, 3, float('nan')]], 'not a number'),
        ([[1, 1, 2, 2, 3, '3']], 'not a number'),
        ([[1, 1, 2, 2, 3, 1e9]], 'further outside than the image is large'),
        ([{'x': 1}], 'fewer than three points'),
        ('polygon', 'neither polygons nor run lengths'),
        ({'size': [12, 8], 'counts': [96]}, r'the size [12, 8], its image [8, 12] (height, width)'),
        ({'size': [8, 12], 'counts': [90]}, 'the runs cover 90 pixels'),
        ({'size': [8, 12], 'counts': [-4, 100]}, 'no whole number'),
        ({'size': [8, 12], 'counts': 'PPPP'}, 'the run lengths are cut off'),
        ({'size': [8, 12], 'counts': 'é'}, 'neither a list nor run-length text'),
        ({'size': [8, 12]}, 'neither a list nor run-length text'),
    ],
)
def test_malformed_segmentations(document, convert, segmentation, message):
    document['annotations'][0]['segmentation'] = segmentation
    with pytest.raises(AnnotationError, match=r'coco\.json, annotation 9 of image 4: ') as refusal:
        convert(document)
    assert message in str(refusal.value)
    store, summary = convert(document, skip_broken=True)
    assert store.instances(1).has_mask.tolist() == [False, True]
    assert summary.skipped['segmentations that are malformed, kept as box'].count == 1


def test_segmentations_without_a_pixel(document, convert):
    document['annotations'][0]['segmentation'] = {'size': [8, 12], 'counts': [96]}
    store, summary = convert(document)
    assert store.instances(1).has_mask.tolist() == [False, True]
    assert summary.skipped['segmentations without a pixel, kept as box'].examples == ['annotation 9']


def test_boxes_may_stick_out_by_a_rounding(document, convert):
    document['annotations'][0]['bbox'] = [-0.004, 0, 12.01, 8]
    store, _ = convert(document)
    assert store.instances(1).boxes[0].tolist() == [-0.004, 0, -0.004 + 12.01, 8]


BAD = {
    'image of annotation': ('annotations', 0, {'image_id': 5}, 'annotation 9: image_id 5 is the id of no image'),
    'no image': ('annotations', 0, {'image_id': None}, 'annotation 9: image_id None'),
    'category': ('annotations', 0, {'category_id': 5}, 'annotation 9 of image 4: category_id 5 is no category'),
    'list': ('annotations', 0, {'category_id': [3]}, 'category_id [3] is no category'),
    'negative': (
        'annotations',
        0,
        {'bbox': [1, 1, -1, 4]},
        'annotation 9 of image 4: bbox [1, 1, -1, 4] has a negative',
    ),
    'outside': ('annotations', 0, {'bbox': [1, 1, 14, 4]}, 'bbox [1, 1, 14, 4] is outside the image of 12 x 8 pixels'),
    'short': ('annotations', 0, {'bbox': [1, 1, 14]}, 'bbox is [1, 1, 14]'),
    'text': ('annotations', 0, {'bbox': [1, 1, '4', 4]}, "bbox is [1, 1, '4', 4]"),
    'nan': ('annotations', 0, {'bbox': [1, 1, float('nan'), 4]}, 'bbox is [1, 1, nan, 4]'),
    'crowd': ('annotations', 0, {'iscrowd': 2}, 'iscrowd is 2'),
    'area': ('annotations', 0, {'area': -3}, 'area is -3'),
    'corners': ('annotations', 0, {'bbox_xyxy': [2, 1, 6, 6]}, 'bbox_xyxy [2, 1, 6, 6] contradicts bbox [2, 1, 4, 4]'),
    'annotation twice': ('annotations', 0, {'id': 2}, 'the annotation id 2 occurs twice'),
    'annotation id': ('annotations', 0, {'id': 'x'}, 'annotation number 1 has no id'),
    'image twice': ('images', 0, {'id': 4}, 'the image id 4 occurs twice'),
    'size': ('images', 0, {'width': 0}, 'image 30: width x height is 0 x 8'),
    'no size': ('images', 0, {'height': None}, 'image 30: width x height is 12 x None'),
    'file name': ('images', 0, {'file_name': ''}, "image 30: file_name is ''"),
    'category twice': ('categories', 0, {'id': 3}, 'the category id 3 occurs twice'),
    'category name': ('categories', 0, {'name': 5}, 'category 17: has no name'),
    'label list': ('images', 0, {'neg_category_ids': [99]}, 'image 30: neg_category_ids is [99]'),
}


@pytest.mark.parametrize('case', BAD)
def test_bad_entries(document, convert, case):
    key, index, changes, message = BAD[case]
    document[key][index] |= changes
    with pytest.raises(AnnotationError, match=r'coco\.json') as refusal:
        convert(document)
    assert message in str(refusal.value)


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
    with pytest.raises(AnnotationError, match=r'cut\.json: is not JSON'):
        convert_coco(tmp_path / 'cut.json', images=tmp_path, out=tmp_path / 'new')
    with pytest.raises(AnnotationError, match='none: is no folder'):
        convert_coco(tmp_path / 'coco.json', images=tmp_path / 'none', out=tmp_path / 'new')
    with pytest.raises(StoreError, match='exists and is no store'):
        convert_coco(tmp_path / 'coco.json', images=tmp_path, out=tmp_path)
