"""Store to COCO JSON and back: nothing changes, in either direction."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pycocotools.coco import COCO

from hierseg.converters.coco import convert_coco, extent, write_coco
from hierseg.errors import AnnotationError
from hierseg.formats import run_lengths
from hierseg.store import (
    ImageRow,
    Instances,
    Store,
    StoreWriter,
)
from hierseg.taxonomy import Taxonomy

TABLES = ('images.arrow', 'instances.arrow', 'verified.arrow', 'taxonomy.json')


def random_store(
    path: Path, *, seed: int, ids: str = 'hex', class_ids: tuple[str, ...] = ('/m/a', '/m/b', '/m/c')
) -> Store:
    """Twelve images: boxes of random bits, missing ids, a class with two parents, names that occur twice."""
    generator = np.random.default_rng(seed)
    edges = [(class_ids[2], class_ids[1]), (class_ids[2], class_ids[0])]
    taxonomy = Taxonomy.from_edges(class_ids, edges, names=['Ä', 'same', 'same'])
    with StoreWriter(path, taxonomy=taxonomy) as writer:
        for row in range(12):
            width, height = generator.integers(1, 900, 2).tolist()
            count = int(generator.integers(0, 6))
            corners = np.sort(generator.random((count, 2, 2)), axis=1) * [width, height]
            masks = [b''] * count
            for i in range(0, count, 2):
                masks[i] = run_lengths.counts_of_mask((generator.random((height, width)) < 0.02).astype(np.uint8))
            instances = Instances(
                generator.integers(0, 3, count),
                corners.reshape(count, 4),
                masks,
                np.array([bool(mask) for mask in masks], dtype=bool),
                generator.random(count) < 0.3,
                generator.random(count) * 100,
                ['' if i % 3 == 0 else f'{row}0{i}' for i in range(count)],
            )
            name = f'{row:08x}' if ids == 'hex' else str(1000 - row)
            negative = np.flatnonzero(generator.random(3) < 0.5)
            writer.add(ImageRow(name, f'ü/{name}.jpg', width, height), instances, np.unique(instances.labels), negative)
    (path.parent / 'images/ü').mkdir(parents=True, exist_ok=True)
    for row in range(12):
        image = Store.open(path).image(row)
        Image.new('L', (image.width, image.height)).save(path.parent / 'images' / image.file_name)
    return Store.open(path)


def assert_same_tables(first: Path, second: Path) -> None:
    for name in TABLES:
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


@pytest.mark.parametrize(
    ('seed', 'ids', 'class_ids'),
    [
        (0, 'hex', ('/m/a', '/m/b', '/m/c')),
        (1, 'decimal', ('7', '1', '3')),
        (2, 'decimal', ('2', '1', 'x')),
        (3, 'hex', ('01', '1', '3')),
        (4, 'hex', ('02', '1', 'Ä')),
    ],
)
def test_store_to_coco_to_store(tmp_path, seed, ids, class_ids):
    store = random_store(tmp_path / 'store', seed=seed, ids=ids, class_ids=class_ids)
    counts = write_coco(store, tmp_path / 'coco.json')
    assert counts == {'categories': 3, 'images': 12, 'annotations': len(store.labels)}
    convert_coco(tmp_path / 'coco.json', images=tmp_path / 'images', out=tmp_path / 'again')
    assert_same_tables(tmp_path / 'store', tmp_path / 'again')
    # Once more, now from a store that remembers its categories.
    write_coco(Store.open(tmp_path / 'again'), tmp_path / 'coco2.json')
    assert (tmp_path / 'coco.json').read_bytes() == (tmp_path / 'coco2.json').read_bytes()


def test_ids_are_kept_where_coco_can_hold_them(tmp_path):
    write_coco(
        random_store(tmp_path / 'store', seed=1, ids='decimal', class_ids=('7', '1', '3')), tmp_path / 'coco.json'
    )
    document = json.loads((tmp_path / 'coco.json').read_text())
    assert [category['id'] for category in document['categories']] == [7, 1, 3]
    assert [category['supercategory'] for category in document['categories']] == ['Ä', 'same', 'same']
    assert [image['id'] for image in document['images']] == list(range(1000, 988, -1))
    assert not any('source_id' in image for image in document['images'])


def test_other_ids_become_numbers(tmp_path):
    write_coco(random_store(tmp_path / 'store', seed=0), tmp_path / 'coco.json')
    document = json.loads((tmp_path / 'coco.json').read_text())
    assert [(category['id'], category['class_id']) for category in document['categories']] == [
        (1, '/m/a'),
        (2, '/m/b'),
        (3, '/m/c'),
    ]
    assert [image['id'] for image in document['images']] == list(range(1, 13))
    assert document['images'][11]['source_id'] == '0000000b'
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(tmp_path / 'coco.json'))  # pycocotools reads it
        masks = [coco.annToMask(annotation) for annotation in coco.anns.values() if annotation['segmentation']]
    assert sum(mask.sum() > 0 for mask in masks) == len(masks) > 5


@pytest.mark.parametrize('split', ['train', 'val'])
def test_real_coco_to_store_to_coco(test_data, tmp_path, split):
    source = test_data / f'coco-by/instances_{split}.json'
    convert_coco(source, images=test_data / 'coco-by/images', out=tmp_path / 'store')
    write_coco(Store.open(tmp_path / 'store'), tmp_path / 'coco.json')
    with contextlib.redirect_stdout(io.StringIO()):
        before, after = COCO(str(source)), COCO(str(tmp_path / 'coco.json'))
    assert after.dataset['categories'] == before.dataset['categories']
    assert after.dataset['images'] == before.dataset['images']
    assert after.anns.keys() == before.anns.keys()
    keys = ('id', 'image_id', 'category_id', 'iscrowd', 'bbox', 'area')
    for number, annotation in before.anns.items():
        assert [after.anns[number][key] for key in keys] == [annotation[key] for key in keys]
        np.testing.assert_array_equal(after.annToMask(after.anns[number]), before.annToMask(annotation))
    assert all(after.anns[number].keys() == {*keys, 'segmentation'} for number in after.anns)
    convert_coco(tmp_path / 'coco.json', images=test_data / 'coco-by/images', out=tmp_path / 'again')
    assert_same_tables(tmp_path / 'store', tmp_path / 'again')


@given(start=st.integers(0, 200_000), size=st.integers(0, 200_000), digits=st.integers(0, 4))
def test_rounded_extents_come_back_exactly(start, size, digits):
    x, width = start / 10**digits, size / 10**digits
    assert extent(x, x + width) == width


@given(start=st.floats(0, 5000), end=st.floats(0, 5000))
def test_extents_are_right_to_the_last_bit(start, end):
    start, end = sorted([start, end])
    assert abs(start + extent(start, end) - end) <= np.spacing(end)
    assert extent(start, end) >= 0


def test_corners_that_no_extent_gives():
    # Floats are 2^-47 apart between 32 and 64, and half of that below: an end of 60 and one step, seen from
    # a start of half a step, lies half-way whatever the extent (a multiple of a step), and rounds to the
    # even neighbour, which it is not.
    step = 2.0**-47
    start, end = step / 2, 60.0 + step
    assert start + extent(start, end) != end
    assert start + extent(start, end) == pytest.approx(end, abs=step)


def test_an_existing_file_is_kept_unless_told(tmp_path):
    store = random_store(tmp_path / 'store', seed=0)
    (tmp_path / 'coco.json').write_text('mine')
    with pytest.raises(AnnotationError, match='exists already'):
        write_coco(store, tmp_path / 'coco.json')
    assert (tmp_path / 'coco.json').read_text() == 'mine'
    write_coco(store, tmp_path / 'coco.json', overwrite=True)
    assert json.loads((tmp_path / 'coco.json').read_text())


def test_an_error_leaves_nothing_behind(tmp_path, monkeypatch):
    store = random_store(tmp_path / 'store', seed=0)
    monkeypatch.setattr(Store, 'verified', lambda store, row: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        write_coco(store, tmp_path / 'coco.json')
    assert not list(tmp_path.glob('*coco*'))
    assert not list(tmp_path.glob('.*'))


def test_what_else_is_said_of_images_comes_back(tmp_path):
    Image.new('L', (12, 8)).save(tmp_path / '7.png')
    said = {'license': 3, 'date_captured': '2013-11-14', 'flickr_url': 'http://example.org/7', 'photographer': 'B. Ä.'}
    document = {
        'info': {'year': 2019, 'description': 'farm'},
        'licenses': [{'id': 3, 'name': 'CC BY 4.0', 'url': 'https://creativecommons.org/licenses/by/4.0/'}],
        'images': [{'id': 7, 'file_name': '7.png', 'width': 12, 'height': 8, **said}],
        'categories': [{'id': 1, 'name': 'cow', 'supercategory': 'animal'}],
        'annotations': [],
    }
    (tmp_path / 'coco.json').write_text(json.dumps(document))
    convert_coco(tmp_path / 'coco.json', images=tmp_path, out=tmp_path / 'store')
    write_coco(Store.open(tmp_path / 'store'), tmp_path / 'back.json')
    back = json.loads((tmp_path / 'back.json').read_text())
    del back['taxonomy']
    assert back == document
