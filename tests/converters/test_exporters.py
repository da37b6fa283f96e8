"""COCO files in the forms in which annotation tools and data sets write them.

One image of 12 x 8 pixels with a cat (a square as polygon, or as run lengths) in each tool's own keys, ids and habits.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from hierseg.converters.coco import convert_coco, write_coco
from hierseg.errors import AnnotationError
from hierseg.store import Store
from hierseg.taxonomy import read_taxonomy

SQUARE = [2.0, 1.0, 6.0, 1.0, 6.0, 5.0, 2.0, 5.0]
BOX = [2.0, 1.0, 4.0, 4.0]
COUNTS = coco_mask.merge(coco_mask.frPyObjects([SQUARE], 8, 12))['counts']
RUNS = [17, 4, 4, 4, 4, 4, 4, 4, 51]  # of the square, column by column

CVAT = {
    'licenses': [{'name': '', 'id': 0, 'url': ''}],
    'info': {'contributor': '', 'date_created': '', 'description': '', 'url': '', 'version': '', 'year': ''},
    'categories': [
        {'id': 1, 'name': 'cat', 'supercategory': ''},
        {'id': 2, 'name': 'dog', 'supercategory': ''},
    ],
    'images': [
        {
            'id': 1,
            'width': 12,
            'height': 8,
            'file_name': '4.jpg',
            'license': 0,
            'flickr_url': '',
            'coco_url': '',
            'date_captured': 0,
        }
    ],
    'annotations': [
        {
            'id': 1,
            'image_id': 1,
            'category_id': 1,
            'segmentation': [SQUARE],
            'area': 16.0,
            'bbox': BOX,
            'iscrowd': 0,
            'attributes': {'occluded': False},
        }
    ],
}
LABEL_STUDIO = {
    'images': [{'width': 12, 'height': 8, 'id': 0, 'file_name': 'images/4.jpg'}],
    'categories': [{'id': 0, 'name': 'cat'}, {'id': 1, 'name': 'dog'}],
    'annotations': [
        {
            'id': 0,
            'image_id': 0,
            'category_id': 0,
            'segmentation': [SQUARE],
            'bbox': BOX,
            'ignore': 0,
            'iscrowd': 0,
            'area': 16.0,
        }
    ],
    'info': {'year': 2024, 'version': '1.0', 'contributor': 'Label Studio', 'url': '', 'date_created': ''},
}
LABELME = {
    'info': {'description': None, 'url': None, 'version': None, 'year': 2024, 'contributor': None},
    'licenses': [{'url': None, 'id': 0, 'name': None}],
    'images': [
        {
            'license': 0,
            'url': None,
            'file_name': 'JPEGImages/4.jpg',
            'height': 8,
            'width': 12,
            'date_captured': None,
            'id': 0,
        }
    ],
    'type': 'instances',
    'annotations': [
        {
            'id': 0,
            'image_id': 0,
            'category_id': 1,
            'segmentation': [SQUARE],
            'area': 16.0,
            'bbox': BOX,
            'iscrowd': 0,
        }
    ],
    'categories': [
        {'supercategory': None, 'id': 0, 'name': '_background_'},
        {'supercategory': None, 'id': 1, 'name': 'cat'},
    ],
}
ROBOFLOW = {
    'info': {'year': '2024', 'version': '1', 'description': 'Exported from roboflow.com', 'date_created': ''},
    'licenses': [{'id': 1, 'url': 'https://creativecommons.org/licenses/by/4.0/', 'name': 'CC BY 4.0'}],
    'categories': [
        {'id': 0, 'name': 'animals', 'supercategory': 'none'},
        {'id': 1, 'name': 'cat', 'supercategory': 'animals'},
        {'id': 2, 'name': 'dog', 'supercategory': 'animals'},
    ],
    'images': [{'id': 0, 'license': 1, 'file_name': '4.jpg', 'height': 8, 'width': 12, 'date_captured': ''}],
    'annotations': [
        {
            'id': 0,
            'image_id': 0,
            'category_id': 1,
            'bbox': [2, 1, 4, 4],
            'area': 16,
            'segmentation': [SQUARE],
            'iscrowd': 0,
        }
    ],
}
SUPERVISELY = {
    'info': {'description': '', 'url': 'None', 'version': '1.0', 'year': 2024, 'contributor': 'Supervisely'},
    'licenses': [{'url': 'None', 'id': 0, 'name': 'None'}],
    'images': [
        {
            'license': 'None',
            'file_name': '4.jpg',
            'url': 'None',
            'height': 8,
            'width': 12,
            'date_captured': '',
            'id': 1,
        }
    ],
    'annotations': [
        {
            'segmentation': [SQUARE],
            'area': 16.0,
            'iscrowd': 0,
            'image_id': 1,
            'bbox': BOX,
            'category_id': 1,
            'id': 1,
        }
    ],
    'categories': [
        {'supercategory': 'cat', 'id': 1, 'name': 'cat'},
        {'supercategory': 'dog', 'id': 2, 'name': 'dog'},
    ],
}
V7 = {
    'info': {'description': 'Exported from Darwin', 'url': 'n/a', 'version': 'n/a', 'year': 2024},
    'licenses': [{'url': 'n/a', 'id': 0, 'name': 'placeholder license'}],
    'images': [
        {
            'license': 0,
            'file_name': '4.jpg',
            'coco_url': 'n/a',
            'height': 8,
            'width': 12,
            'date_captured': '',
            'flickr_url': 'n/a',
            'darwin_url': None,
            'id': 3421846044,
            'tag_ids': [],
        }
    ],
    'annotations': [
        {
            'id': 1,
            'image_id': 3421846044,
            'category_id': 2656903254,
            'segmentation': [SQUARE],
            'area': 16.0,
            'bbox': BOX,
            'iscrowd': 0,
            'extra': {},
        }
    ],
    'categories': [
        {'id': 2656903254, 'name': 'cat', 'supercategory': 'root'},
        {'id': 1814391226, 'name': 'dog', 'supercategory': 'root'},
    ],
    'tag_categories': [],
}
FIFTYONE = {
    'info': {'year': '', 'version': '', 'description': 'Exported from FiftyOne', 'contributor': '', 'url': ''},
    'licenses': [],
    'categories': [
        {'id': 0, 'name': 'cat', 'supercategory': None},
        {'id': 1, 'name': 'dog', 'supercategory': None},
    ],
    'images': [{'id': 1, 'file_name': '4.jpg', 'height': 8, 'width': 12, 'license': None, 'coco_url': None}],
    'annotations': [
        {
            'id': 1,
            'image_id': 1,
            'category_id': 0,
            'bbox': BOX,
            'segmentation': {'counts': RUNS, 'size': [8, 12]},
            'area': 16.0,
            'iscrowd': 0,
        }
    ],
}
LVIS = {
    'info': {'description': 'LVIS v1.0', 'url': '', 'version': 'v1.0', 'year': '2020'},
    'licenses': [{'id': 1, 'name': '', 'url': ''}],
    'images': [
        {
            'date_captured': '2013-11-14 16:28:13',
            'neg_category_ids': [2],
            'id': 4,
            'license': 1,
            'height': 8,
            'width': 12,
            'flickr_url': '',
            'coco_url': 'http://images.cocodataset.org/train2017/4.jpg',
            'not_exhaustive_category_ids': [],
        }
    ],
    'annotations': [{'area': 16.0, 'id': 1, 'segmentation': [SQUARE], 'image_id': 4, 'bbox': BOX, 'category_id': 1}],
    'categories': [
        {'name': name, 'id': number, 'synset': f'{name}.n.01', 'synonyms': [name], 'def': '', 'frequency': 'c'}
        for number, name in ((1, 'cat'), (2, 'dog'))
    ],
}
TACO = {
    'info': {'year': 2019, 'version': None, 'description': 'TACO', 'contributor': None, 'url': None},
    'images': [
        {
            'id': 0,
            'width': 12,
            'height': 8,
            'file_name': 'batch_1/4.jpg',
            'license': None,
            'flickr_url': '',
            'coco_url': None,
            'date_captured': None,
        }
    ],
    'annotations': [
        {
            'id': 1,
            'image_id': 0,
            'category_id': 0,
            'segmentation': [SQUARE],
            'area': 16.0,
            'bbox': BOX,
            'iscrowd': 0,
        },
        {
            'id': 1,
            'image_id': 0,
            'category_id': 1,
            'segmentation': [SQUARE],
            'area': 16.0,
            'bbox': [2.0, -1.3, 4.0, 6.3],
            'iscrowd': 0,
        },
    ],
    'scene_annotations': [{'image_id': 0, 'background_ids': [1]}],
    'licenses': [],
    'categories': [
        {'supercategory': 'cat', 'id': 0, 'name': 'cat'},
        {'supercategory': 'cat', 'id': 1, 'name': 'kitten'},
    ],
    'scene_categories': [{'id': 0, 'name': 'Clean'}],
}
TOOLS: dict[str, dict[str, Any]] = {
    'CVAT': CVAT,
    'Label Studio': LABEL_STUDIO,
    'labelme': LABELME,
    'Roboflow': ROBOFLOW,
    'Supervisely': SUPERVISELY,
    'V7': V7,
    'FiftyOne': FIFTYONE,
    'LVIS': LVIS,
    'TACO': TACO,
}
FLAT = 'categories without a supercategory: no hierarchy'
# Names of the classes, whether any class has a parent, and the kinds that the summary counts.
EXPECTED = {
    'CVAT': (('cat', 'dog'), False, [FLAT]),
    'Label Studio': (('cat', 'dog'), False, [FLAT]),
    'labelme': (('_background_', 'cat'), False, [FLAT]),
    'Roboflow': (('cat', 'dog'), False, ['categories above all others and never annotated, left out', FLAT]),
    'Supervisely': (('cat', 'dog'), False, [FLAT]),
    'V7': (('cat', 'dog'), False, ['categories above all others and never annotated, left out', FLAT]),
    'FiftyOne': (('cat', 'dog'), False, [FLAT]),
    'LVIS': (('cat', 'dog'), False, [FLAT, 'file names taken from coco_url']),
    'TACO': (
        ('cat', 'kitten'),
        True,
        [
            'annotations whose id is missing or taken, numbered anew',
            'boxes that stick out of their image, clipped',
        ],
    ),
}


def convert(document: Any, folder: Path, **options: Any) -> tuple[Store, Any]:
    """Converts a document; its image lies where the file says."""
    entry = document['images'][0]
    name = entry.get('file_name') or '/'.join(entry['coco_url'].split('/')[-2:])
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', (12, 8)).save(folder / name)
    (folder / 'coco.json').write_text(json.dumps(document))
    summary = convert_coco(folder / 'coco.json', images=folder, out=folder / 'store', **options)
    return Store.open(folder / 'store'), summary


@pytest.mark.parametrize('tool', TOOLS)
def test_files_of_tools_are_read(tmp_path, tool):
    names, has_parents, kinds = EXPECTED[tool]
    store, summary = convert(TOOLS[tool], tmp_path)
    assert store.taxonomy.names == names
    assert any(store.taxonomy.parents) == has_parents
    for found, kind in zip(sorted(summary.mended), kinds, strict=True):
        assert found.startswith(kind)
    instances = store.instances(0)
    assert store.taxonomy.names[instances.labels[0]] == 'cat'
    assert instances.boxes[0].tolist() == [2, 1, 6, 5]
    assert instances.masks[0] == COUNTS
    assert not instances.group_of.any()


def test_the_negative_labels_of_lvis_are_taken(tmp_path):
    store, _ = convert(LVIS, tmp_path)
    assert [labels.tolist() for labels in store.verified(0)] == [[0], [1]]


def test_classes_that_lvis_does_not_annotate_exhaustively_come_back(tmp_path):
    document = json.loads(json.dumps(LVIS))
    document['images'][0]['not_exhaustive_category_ids'] = [1]
    store, _ = convert(document, tmp_path)
    assert store.not_exhaustive(0).tolist() == [0]
    write_coco(store, tmp_path / 'again.json')
    again = json.loads((tmp_path / 'again.json').read_text())
    assert again['images'][0]['neg_category_ids'] == [2]
    assert again['images'][0]['not_exhaustive_category_ids'] == [1]
    convert_coco(tmp_path / 'again.json', images=tmp_path, out=tmp_path / 'second')
    table = 'not_exhaustive.arrow'
    assert (tmp_path / 'second' / table).read_bytes() == (tmp_path / 'store' / table).read_bytes()
    # An id that is no category is refused, as in the other lists.
    document['images'][0]['not_exhaustive_category_ids'] = [9]
    with pytest.raises(AnnotationError, match=r'not_exhaustive_category_ids is \[9\]'):
        convert(document, tmp_path, overwrite=True)


BRUSHED = 'masks that are all marked as crowds'


def test_masks_that_cvat_marks_as_crowds_are_counted_and_can_be_taken_as_objects(tmp_path):
    document = json.loads(json.dumps(CVAT))
    document['annotations'][0] |= {'segmentation': {'counts': RUNS, 'size': [8, 12]}, 'iscrowd': 1}
    store, summary = convert(document, tmp_path)
    assert store.instances(0).group_of.tolist() == [True]
    assert [kind.startswith((BRUSHED, FLAT)) for kind in summary.mended] == [True, True]
    store, summary = convert(document, tmp_path, crowds=False, overwrite=True)
    assert store.instances(0).group_of.tolist() == [False]
    assert [kind.startswith(FLAT) for kind in summary.mended] == [True]


def test_ranks_of_inaturalist_become_the_levels_of_a_store(tmp_path):
    ranks = ('kingdom', 'phylum', 'class', 'order', 'family', 'genus')
    above = [('Animalia', 'Chordata', 'Mammalia', 'Carnivora', family, genus)
             for family, genus in (('Felidae', 'Felis'), ('Canidae', 'Canis'), ('Canidae', 'Canis'))]  # fmt: skip
    document = json.loads(json.dumps(LVIS))
    document['categories'] = [
        {'id': number, 'name': name, 'supercategory': 'Mammals', **dict(zip(ranks, found, strict=True))}
        for number, name, found in zip((1, 2, 3), ('Felis catus', 'Canis lupus', 'Canis latrans'), above, strict=True)
    ]
    (tmp_path / 'train.json').write_text(json.dumps(document))
    taxonomy = read_taxonomy(tmp_path / 'train.json', levels='ranks')
    # Both dogs are of one genus; family and above that all three share.
    store, _ = convert(document, tmp_path, taxonomy=taxonomy)
    assert store.taxonomy.names == ('Felis catus', 'Canis lupus', 'Canis latrans', 'Canis')
    assert store.taxonomy.parents == ((), (3,), (3,), ())
    assert store.instances(0).labels.tolist() == [0]
    write_coco(store, tmp_path / 'again.json')
    assert json.loads((tmp_path / 'again.json').read_text())['categories'] == document['categories']


RELEASES = {
    'V4, V5': (
        'ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside',
        'a,xclick,/m/car,1,0.1,0.6,0.2,0.8,-1,-1,-1,-1,-1',
        'ImageID,Source,LabelName,Confidence',
        'a,verification,/m/car,1',
    ),
    'V6, V7': (
        'ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside,'
        'XClick1X,XClick2X,XClick3X,XClick4X,XClick1Y,XClick2Y,XClick3Y,XClick4Y',
        'a,xclick,/m/car,1,0.1,0.6,0.2,0.8,0,0,0,0,0,0.3,0.1,0.6,0.4,0.2,0.5,0.5,0.8',
        'ImageID,Source,LabelName,Confidence',
        'a,crowdsource-verification,/m/car,1',
    ),
    'Challenge 2019': (
        'ImageID,LabelName,XMin,XMax,YMin,YMax,IsGroupOf',
        'a,/m/car,0.1,0.6,0.2,0.8,0',
        'ImageID,LabelName,Confidence',
        'a,/m/car,1',
    ),
}


@pytest.mark.parametrize('release', RELEASES)
def test_tables_of_each_release_of_open_images_are_read(split, rectangle, release):
    split.add_image('a')
    box = (0.1, 0.6, 0.2, 0.8)
    split.add_png('a', '/m/car', box, rectangle(2, 12, 2, 8))
    for name, header, row in zip(('box', 'label'), RELEASES[release][::2], RELEASES[release][1::2], strict=True):
        setattr(split, f'{name}_columns', header.split(','))
        setattr(split, 'boxes' if name == 'box' else 'labels', [row.split(',')])
    store, summary = split.convert()
    instances = store.instances(0)
    assert instances.boxes[0].tolist() == pytest.approx([2, 2, 12, 8])
    assert coco_mask.area({'size': [10, 20], 'counts': instances.masks[0]}) == 60
    assert instances.group_of.tolist() == [False]
    assert (summary.masks_joined, summary.skipped) == (1, {})
    assert [labels.tolist() for labels in store.verified(0)] == [[2], []]
