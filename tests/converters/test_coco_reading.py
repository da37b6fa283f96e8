"""COCO files as people have them: each fault put right and counted, or refused with its place."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from hierseg.converters.coco import convert_coco, write_coco
from hierseg.converters.coco_reading import checked_categories
from hierseg.errors import AnnotationError
from hierseg.taxonomy import Taxonomy

SQUARE = [2.0, 1.0, 6.0, 1.0, 6.0, 5.0, 2.0, 5.0]  # the polygon of annotation 9
SQUARE_MASK = coco_mask.merge(coco_mask.frPyObjects([SQUARE], 8, 12))['counts']


def change(document: dict, key: str, index: int, changes: dict) -> None:
    """Sets values of an entry; ``...`` takes the key away."""
    document[key][index] |= changes
    for name, value in changes.items():
        if value is ...:
            del document[key][index][name]


@pytest.mark.parametrize(
    ('segmentation', 'message'),
    [
        ([[1, 1, 2, 2, 3, 3, 4]], 'half a point'),
        ([[1, 1, 2, 2, 3, float('nan')]], 'not a number'),
        ([[1, 1, 2, 2, 3, '3']], 'not a number'),
        ([[1, 1, 2, 2, 3, 1e9]], 'further outside than the image is large'),
        ([{'x': 1}], 'the mask has the size None'),
        ([[[1, 1, 2, 2, 3, 3]]], 'polygon 1 is nested wrongly'),
        ([SQUARE, [[1, 2, 3], [4, 5, 6]]], 'polygon 2 is nested wrongly'),
        ([SQUARE, {'size': [8, 12], 'counts': [96]}], 'polygon 2 is nested wrongly'),
        ([[1, 1, 2, 2, 3, 10**400]], 'not a number'),
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
    store, summary = convert(document, mode='lenient')
    assert store.instances(1).has_mask.tolist() == [False, True]
    assert summary.skipped['segmentations that are malformed, kept as box'].count == 1


def test_segmentations_without_a_pixel(document, convert):
    document['annotations'][0]['segmentation'] = {'size': [8, 12], 'counts': [96]}
    store, summary = convert(document)
    assert store.instances(1).has_mask.tolist() == [False, True]
    assert summary.skipped['segmentations without a pixel, kept as box'].examples == ['annotation 9 of image 4']


BAD = {
    'image of annotation': ('annotations', 0, {'image_id': 5}, 'annotation 9: image_id 5 is the id of no image'),
    'no image': ('annotations', 0, {'image_id': None}, 'annotation 9: image_id None'),
    'category': ('annotations', 0, {'category_id': 5}, 'annotation 9 of image 4: category_id 5 is no category'),
    'list': ('annotations', 0, {'category_id': [3]}, 'category_id [3] is no category'),
    'outside': ('annotations', 0, {'bbox': [12, 1, 4, 4]}, 'bbox [12, 1, 4, 4] is outside the image of 12 x 8 pixels'),
    'absurd': ('annotations', 0, {'bbox': [1, 1, 24, 4]}, 'bbox [1, 1, 24, 4] is outside the image of 12 x 8 pixels'),
    'negative': (
        'annotations',
        1,
        {'bbox': [1, 1, -1, 4]},
        'annotation 2 of image 30: bbox [1, 1, -1, 4] has a negative',
    ),
    'short': ('annotations', 1, {'bbox': [1, 1, 14]}, 'bbox is [1, 1, 14]'),
    'text': ('annotations', 1, {'bbox': [1, 1, '4', 4]}, "bbox is [1, 1, '4', 4]"),
    'nan': ('annotations', 1, {'bbox': [1, 1, float('nan'), 4]}, 'bbox is [1, 1, nan, 4]'),
    'no object': ('annotations', 0, None, "annotation number 1: is 'nothing'"),
    'crowd': ('annotations', 0, {'iscrowd': 2}, 'iscrowd is 2'),
    'area': ('annotations', 0, {'area': -3}, 'area is -3'),
    'corners': ('annotations', 0, {'bbox_xyxy': [2, 1, 6, 6]}, 'bbox_xyxy [2, 1, 6, 6] contradicts bbox [2, 1, 4, 4]'),
    'image list': ('annotations', 0, {'image_id': [4]}, 'annotation 9: image_id [4] is the id of no image'),
    'image twice': ('images', 0, {'id': 4}, 'the image id 4 occurs twice, for different files'),
    'image id': ('images', 0, {'id': None}, 'image number 1: has the id None'),
    'file name': ('images', 0, {'file_name': ''}, "image 30: file_name is ''"),
    'category twice': ('categories', 0, {'id': 3}, 'the category id 3 occurs twice'),
    'category name': ('categories', 0, {'name': 5}, 'category 17: has the name 5'),
    'category id': ('categories', 0, {'id': 1.5}, 'category number 1 has the id 1.5'),
    'label list': ('images', 0, {'neg_category_ids': [99]}, 'image 30: neg_category_ids is [99]'),
}


@pytest.mark.parametrize('case', BAD)
def test_bad_entries(document, convert, case):
    key, index, changes, message = BAD[case]
    document[key][index] = 'nothing' if changes is None else document[key][index] | changes
    with pytest.raises(AnnotationError, match=r'coco\.json') as refusal:
        convert(document)
    assert message in str(refusal.value)


CLIPPED = 'boxes that stick out of their image, clipped'
FROM_MASK = 'boxes that are none, taken from the mask'
RENUMBERED = 'annotations whose id is missing or taken, numbered anew'
SIZES = "images whose size is not the file's, replaced by it"
CRUMBS = 'polygons of one or two points, left out'
NOT_NESTED = 'polygons that are not nested, read as one'
PAIRS = 'polygons of pairs of coordinates, read'
RUNS = 'lists of run lengths, merged'
TWICE = 'images that are listed twice, taken once'
# What is changed, the kind that is counted (None: no fault), and what the annotation or image 4 becomes.
MENDED = {
    'box above': ('annotations', {'bbox': [0, -1.3, 12, 9.3]}, CLIPPED, {'box': [0, 0, 12, 8]}),
    'box on all sides': ('annotations', {'bbox': [-1, -1, 14, 10]}, CLIPPED, {'box': [0, 0, 12, 8]}),
    'box by a rounding': ('annotations', {'bbox': [-0.004, 0, 12.01, 8]}, None, {'box': [-0.004, 0, 12.006, 8]}),
    'box infinite': ('annotations', {'bbox': [2, 1, float('inf'), 4]}, FROM_MASK, {'box': [2, 1, 6, 5]}),
    'box NaN': ('annotations', {'bbox': [float('nan')] * 4}, FROM_MASK, {'box': [2, 1, 6, 5]}),
    'box empty': ('annotations', {'bbox': []}, FROM_MASK, {'box': [2, 1, 6, 5]}),
    'box null': ('annotations', {'bbox': None}, FROM_MASK, {'box': [2, 1, 6, 5]}),
    'box absent': ('annotations', {'bbox': ...}, FROM_MASK, {'box': [2, 1, 6, 5]}),
    'box negative': ('annotations', {'bbox': [6, 5, -4, -4]}, FROM_MASK, {'box': [2, 1, 6, 5]}),
    'box too large a number': ('annotations', {'bbox': [2, 1, 10**400, 4]}, FROM_MASK, {'box': [2, 1, 6, 5]}),
    'area null': ('annotations', {'area': None}, None, {'area': 16}),
    'area text': ('annotations', {'area': 'None'}, None, {'area': 16}),
    'area infinite': ('annotations', {'area': float('inf')}, None, {'area': 16}),
    'iscrowd null': ('annotations', {'iscrowd': None}, None, {'group_of': False}),
    'iscrowd text': ('annotations', {'iscrowd': 'None'}, None, {'group_of': False}),
    'iscrowd true': ('annotations', {'iscrowd': True}, None, {'group_of': True}),
    'segmentation null': ('annotations', {'segmentation': None}, None, {'mask': b''}),
    'segmentation text': ('annotations', {'segmentation': 'None'}, None, {'mask': b''}),
    'segmentation absent': ('annotations', {'segmentation': ...}, None, {'mask': b''}),
    'crumb of a point': ('annotations', {'segmentation': [SQUARE, [3, 3]]}, CRUMBS, {'mask': SQUARE_MASK}),
    'crumb of two points': ('annotations', {'segmentation': [[1, 1, 2, 2], SQUARE]}, CRUMBS, {'mask': SQUARE_MASK}),
    'crumb of none': ('annotations', {'segmentation': [SQUARE, []]}, CRUMBS, {'mask': SQUARE_MASK}),
    'only a crumb': ('annotations', {'segmentation': [[]]}, CRUMBS, {'mask': b''}),
    'not nested': ('annotations', {'segmentation': SQUARE}, NOT_NESTED, {'mask': SQUARE_MASK}),
    'pairs': (
        'annotations',
        {'segmentation': [[[2, 1], [6, 1], [6, 5], [2, 5]]]},
        PAIRS,
        {'mask': SQUARE_MASK},
    ),
    'pairs, not nested': (
        'annotations',
        {'segmentation': [[2, 1], [6, 1], [6, 5], [2, 5]]},
        PAIRS,
        {'mask': SQUARE_MASK},
    ),
    'run lengths in a list': (
        'annotations',
        {'segmentation': [{'size': [8, 12], 'counts': [0, 8, 88]}, {'size': [8, 12], 'counts': [8, 88]}]},
        RUNS,
        {'mask': coco_mask.encode(np.ones((8, 12), np.uint8, order='F'))['counts']},
    ),
    'id twice': ('annotations', {'id': 2}, RENUMBERED, {'id': '2'}),
    'id absent': ('annotations', {'id': ...}, RENUMBERED, {'id': '6'}),
    'id null': ('annotations', {'id': None}, RENUMBERED, {'id': '6'}),
    'id text': ('annotations', {'id': 'x y'}, None, {'id': 'x y'}),
    'id with a point': ('annotations', {'id': 9.0}, None, {'id': '9'}),
    'category as text': ('annotations', {'category_id': '3'}, None, {'label': 2}),
    'image as text': ('annotations', {'image_id': '4'}, None, {}),
    'image with a point': ('annotations', {'image_id': 4.0}, None, {}),
    'width with a point': ('images', {'width': 12.0}, None, {'size': (12, 8)}),
    'width absent': ('images', {'width': ...}, SIZES, {'size': (12, 8)}),
    'height null': ('images', {'height': None}, SIZES, {'size': (12, 8)}),
    'width of nothing': ('images', {'width': 0}, SIZES, {'size': (12, 8)}),
    'sizes exchanged': ('images', {'width': 8, 'height': 12}, SIZES, {'size': (12, 8)}),
    'another size': ('images', {'width': 640, 'height': 480}, SIZES, {'size': (12, 8)}),
    'backslashes': ('images', {'file_name': 'train\\4.jpg'}, 'file names with another folder than the image is in', {}),
    'address': (
        'images',
        {'file_name': ..., 'coco_url': 'http://images.example.org/b/30.jpg'},
        'file names taken from coco_url',
        {'file_name': 'b/30.jpg'},
    ),
}


@pytest.mark.parametrize('case', MENDED)
def test_what_is_unambiguous_is_put_right_and_counted(document, convert, case):
    key, changes, kind, expected = MENDED[case]
    change(document, key, 0 if key == 'annotations' else 1, changes)
    store, summary = convert(document)
    assert {name: found.count for name, found in summary.mended.items()} == ({} if kind is None else {kind: 1})
    assert (kind is None) or f'put right: {kind}: 1 (' in str(summary)
    image, instances = store.image(1), store.instances(1)
    found = {
        'box': pytest.approx(instances.boxes[0].tolist(), abs=1e-12),
        'area': instances.areas[0],
        'group_of': instances.group_of[0],
        'mask': instances.masks[0],
        'label': instances.labels[0],
        'id': instances.annotation_ids[0],
        'size': (image.width, image.height),
        'file_name': image.file_name,
    }
    assert {name: found[name] for name in expected} == expected
    assert len(store.labels) == 3
    if kind is not None and not kind.startswith('file names taken'):
        with pytest.raises(AnnotationError, match='leave out --strict'):
            convert(document, mode='strict')
    else:
        convert(document, mode='strict')


def test_ids_of_images_may_be_texts_and_come_back(document, convert, tmp_path):
    document['images'][0]['id'] = 'b/thirty'
    document['annotations'][1]['image_id'] = 'b/thirty'
    document['annotations'][0]['id'] = 'x y'
    store, _ = convert(document)
    assert [store.image(row).id for row in range(2)] == ['b/thirty', '4']
    write_coco(store, tmp_path / 'back.json')
    again, summary = convert(json.loads((tmp_path / 'back.json').read_text()), mode='strict')
    assert [again.image(row).id for row in range(2)] == ['b/thirty', '4']
    assert again.instances(1).annotation_ids == ['x y', '5']
    assert summary.mended == {}


def test_an_image_listed_twice_is_taken_once(document, convert):
    document['images'].append({**document['images'][0]})
    store, summary = convert(document)
    assert len(store) == 2
    assert summary.mended[TWICE].count == 1


def test_lenient_leaves_out_what_it_cannot_take_and_counts_it(document, convert):
    document['annotations'][0]['category_id'] = 99
    document['annotations'][1]['bbox'] = None
    store, summary = convert(document, mode='lenient')
    assert [len(store.instances(row)) for row in range(2)] == [0, 1]
    assert {kind: found.count for kind, found in summary.skipped.items()} == {
        'annotations of no category': 1,
        'boxes that are none': 1,
    }


def test_all_faults_are_counted_and_the_first_of_each_kind_is_shown(document, convert):
    document['annotations'][0]['category_id'] = 99
    document['annotations'][2]['category_id'] = None
    document['annotations'][1]['bbox'] = None
    with pytest.raises(AnnotationError) as refusal:
        convert(document)
    message = str(refusal.value)
    assert 'has 3 faults of 2 kinds' in message
    assert '2 annotations of no category; the first: annotation 9 of image 4: category_id 99 is no category' in message
    assert '1 boxes that are none; the first: annotation 2 of image 30: bbox is None' in message
    assert '--lenient' in message


def test_faults_of_one_kind_say_what_mends_them(document, convert):
    for image in document['images']:
        image['file_name'] = f'elsewhere-{image["file_name"]}'
    with pytest.raises(AnnotationError, match=r'has 2 faults of one kind:\n  2 images without a file') as refusal:
        convert(document)
    assert refusal.value.fix.startswith('Is --images the folder that file names are relative to?')


def test_the_first_annotation_of_no_image_is_the_first_of_the_file(document, convert):
    document['annotations'] += [{**document['annotations'][0], 'id': 100 + n, 'image_id': 900 + n} for n in range(9)]
    with pytest.raises(AnnotationError, match='9 annotations of no image; the first: annotation 100: image_id 900 is'):
        convert(document)


ROOT = 'categories above all others and never annotated, left out (kept by --keep-root)'


@pytest.mark.parametrize('name', ['objects', 'cat'])
def test_the_root_that_roboflow_adds_is_left_out(document, convert, name):
    for category in document['categories']:
        category['supercategory'] = name
    document['categories'].insert(0, {'id': 0, 'name': name, 'supercategory': 'none'})
    store, summary = convert(document)
    assert store.taxonomy.names == ('cat', 'dog', 'car')
    assert not any(store.taxonomy.parents)
    assert summary.mended[ROOT].examples == [name]


def test_the_root_is_kept_on_request_and_where_it_is_annotated(document, convert):
    for category in document['categories']:
        category['supercategory'] = 'objects'
    document['categories'].insert(0, {'id': 0, 'name': 'objects', 'supercategory': 'none'})
    store, _ = convert(document, keep_root=True)
    assert store.taxonomy.names == ('objects', 'cat', 'dog', 'car')
    assert store.taxonomy.parents == ((), (0,), (0,), (0,))
    document['annotations'][0]['category_id'] = 0
    store, summary = convert(document)
    assert store.taxonomy.parents == ((), (0,), (0,), (0,))
    assert summary.mended == {}


@pytest.mark.parametrize('nothing', [None, 'None', '', 'none'])
def test_a_supercategory_of_nothing_is_none(document, convert, nothing):
    document['categories'][2]['supercategory'] = nothing
    store, _ = convert(document)
    assert store.taxonomy.names == ('cat', 'dog', 'car', 'animal')


@pytest.mark.parametrize('numbers', [['17', '18', '3'], [17.0, 18.0, 3.0], ['c', 'd', 'v']])
def test_category_ids_may_be_texts(document, convert, numbers):
    given = dict(zip([17, 18, 3], numbers, strict=True))
    for category in document['categories']:
        category['id'] = given[category['id']]
    for annotation in document['annotations']:
        annotation['category_id'] = given[annotation['category_id']]
    store, summary = convert(document)
    assert store.taxonomy.ids[:3] == (('17', '18', '3') if numbers[2] != 'v' else ('c', 'd', 'v'))
    assert store.instances(1).labels.tolist() == [2, 0]
    assert summary.mended == {}


TEXTS = {
    'duplicate key': ('{"images": [], "images": []}', "the key 'images' stands twice in one object"),
    'surrogate': ('{"images": [{"file_name": "a\\ud800"}]}', 'holds half of a character'),
    'digits': ('{"images": ' + '1' * 5000 + '}', 'is not JSON'),
    'nesting': ('[' * 100_000 + ']' * 100_000, 'is nested too deeply'),
    'detections': (
        '[{"image_id": 1, "category_id": 2, "bbox": [], "score": 0.5}]',
        'not the annotations of instances. tools/compare.py --predictions takes them.',
    ),
    'captions': ('{"annotations": [{"image_id": 1, "caption": "a dog"}]}', 'holds captions'),
    'panoptic': ('{"annotations": [{"image_id": 1, "segments_info": []}]}', 'holds panoptic segments'),
}


@pytest.mark.parametrize('case', TEXTS)
def test_other_documents_say_what_they_are(convert, tmp_path, case):
    text, message = TEXTS[case]
    (tmp_path / 'coco.json').write_text(text)
    with pytest.raises(AnnotationError, match=re.escape(message)):
        convert_coco(tmp_path / 'coco.json', images=tmp_path, out=tmp_path / 'store')


@pytest.mark.parametrize('content', [b'', b'\xff\xd8\xff', b'<html>'])
def test_images_that_cannot_be_read(document, convert, tmp_path, content):
    (tmp_path / '4.jpg').write_bytes(content)
    with pytest.raises(AnnotationError, match=r'image 4: .*4\.jpg is no readable image'):
        convert(document)
    store, _ = convert(document, mode='lenient')
    assert len(store) == 1


def turn(path, tag: int) -> None:
    """Writes 12 x 8 pixels with an orientation; a viewer shows 8 x 12 for 5 to 8."""
    exif = Image.Exif()
    exif[0x0112] = tag
    Image.new('RGB', (12, 8)).save(path, exif=exif)


TURNED = 'images annotated as EXIF turns them, read so'
UNDECIDED = 'images that EXIF turns, with annotations that fit both ways, read as stored (or --orientation turned)'


def test_annotations_that_fit_only_the_turned_image_decide(document, convert, tmp_path):
    turn(tmp_path / '4.jpg', 6)
    document['annotations'][0] |= {'bbox': [1, 7, 4, 4], 'segmentation': [[1, 7, 5, 7, 5, 11, 1, 11]]}
    document['annotations'].pop()
    store, summary = convert(document)
    assert store.orientation == 'turned'
    assert (store.image(1).width, store.image(1).height) == (8, 12)
    assert (store.image(0).width, store.image(0).height) == (12, 8)
    assert store.instances(1).areas[0] == 16.5
    assert coco_mask.area({'size': [12, 8], 'counts': store.instances(1).masks[0]}) == 16
    assert summary.mended[TURNED].examples == ['image 4']


def test_annotations_that_fit_only_the_stored_image_decide(document, convert, tmp_path):
    turn(tmp_path / '4.jpg', 6)
    document['annotations'][0]['bbox'] = [2, 1, 9.5, 4]
    store, summary = convert(document)
    assert store.orientation == 'stored'
    assert (store.image(1).width, store.image(1).height) == (12, 8)
    assert summary.mended == {}


def test_the_size_decides_where_annotations_fit_both_ways(document, convert, tmp_path):
    turn(tmp_path / '4.jpg', 8)
    document['annotations'].pop()
    document['images'][1] |= {'width': 8, 'height': 12}
    store, _ = convert(document)
    assert store.orientation == 'turned'
    assert (store.image(1).width, store.image(1).height) == (8, 12)


@pytest.mark.parametrize('tag', [2, 3, 4])
def test_what_cannot_be_decided_is_counted_and_can_be_said(document, convert, tmp_path, tag):
    turn(tmp_path / '4.jpg', tag)
    store, summary = convert(document)
    assert store.orientation == 'stored'
    assert summary.mended[UNDECIDED].count == 1
    store, summary = convert(document, orientation='turned')
    assert store.orientation == 'turned'
    assert (store.image(1).width, store.image(1).height) == (12, 8)
    assert summary.mended == {}


def test_a_file_that_is_annotated_both_ways_is_refused(document, convert, tmp_path):
    for name in ('4.jpg', 'b/30.jpg'):
        turn(tmp_path / name, 6)
    document['annotations'].pop()
    document['annotations'][0] |= {'bbox': [1, 7, 4, 4], 'segmentation': []}
    document['annotations'][1] |= {'bbox': [7, 1, 4, 4]}
    message = 'image 30 is annotated as stored, image 4 as EXIF turns it'
    with pytest.raises(AnnotationError, match=message):
        convert(document)


def test_an_image_that_was_turned_after_it_was_annotated_is_refused(document, convert):
    document['images'][1] |= {'width': 8, 'height': 12}
    document['annotations'].pop()
    document['annotations'][0] |= {'bbox': [1, 7, 4, 4], 'segmentation': []}
    with pytest.raises(AnnotationError, match='lie on an image of 8 x 12, the file has 12 x 8'):
        convert(document)


def test_supercategories_that_are_paths_are_told(document, convert):
    document['categories'][0]['supercategory'] = 'animal/feline'
    store, summary = convert(document)
    assert (
        "supercategory 'animal/feline' is one class; python -m hierseg.taxonomy --levels paths makes levels of it"
        in summary.mended
    )
    assert 'animal/feline' in store.taxonomy.names


def test_a_file_without_a_hierarchy_says_so(document, convert):
    kind = 'categories without a supercategory: no hierarchy (--taxonomy names one)'
    assert kind not in convert(document)[1].mended
    for category in document['categories']:
        del category['supercategory']
    _, summary = convert(document, mode='strict')  # a file may be flat
    assert (summary.mended[kind].count, summary.mended[kind].examples) == (3, ['cat', 'dog', 'car'])
    assert f'put right: {kind}: 3 (cat, dog, car)' in str(summary)
    # Who names a taxonomy, even a flat one, knows.
    assert convert(document, Taxonomy.from_edges(['17', '18', '3'], []))[1].mended == {}


@pytest.mark.parametrize('above', [5, [1], {'a': 1}])
def test_a_supercategory_that_is_no_text_is_refused(document, convert, above):
    document['categories'][1]['supercategory'] = above
    with pytest.raises(AnnotationError, match='category 18: has the supercategory'):
        convert(document)


@pytest.mark.parametrize('entry', [5, {}, {'id': 3}, {'id': None, 'name': 'car'}, {'id': 3, 'name': 7}])
def test_categories_are_checked_one_by_one(entry):
    with pytest.raises(AnnotationError, match=r'coco\.json.*(has no id|has the id|has no name|has the name)'):
        checked_categories([{'id': 1, 'name': 'a', 'supercategory': None}, entry], where='coco.json')
