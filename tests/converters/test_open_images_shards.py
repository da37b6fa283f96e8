"""Shares of a conversion: together the store of one run, and nothing else is taken for that."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from hierseg.converters import open_images
from hierseg.converters.open_images import ConversionOptions, ShardNumber, convert_shard
from hierseg.converters.open_images_progress import merge_shards
from hierseg.errors import AnnotationError, StoreError


@pytest.fixture
def many(split, rectangle, monkeypatch):
    """25 images in ids of all digits and others; one has no file, one mask is missing, one row has no sense."""
    monkeypatch.setattr(open_images, 'IMAGES_PER_BATCH', 4)
    generator = np.random.default_rng(0)
    for number in range(25):
        image_id = f'{number * 7 % 25:04d}' if number % 3 else f'e{number:02}'
        if number != 11:
            split.add_image(image_id)
        split.labels.append((image_id, '/m/man', number % 2))
        for at in range(generator.integers(0, 3)):
            split.add_box(image_id, '/m/car', (at / 10, 1, 0, 1))
            mask = rectangle(at, 20 - number % 5, 0, 10)
            split.add_png(image_id, '/m/car', (at / 10, 1, 0, 1), mask if len(split.masks) != 5 else None)
    split.add_box('0003', '/m/car', (0, 2, 0, 1))
    split.write()
    return split


OPTIONS = {'skip_broken': True, 'skip_bad_rows': True}


def make(many, index: int, count: int, *, name: str = '', workers: int = 1, **options) -> Path:
    out = many.root / 'shards' / (name or f'{index}-{count}')
    convert_shard(
        many.files,
        many.taxonomy,
        out=out,
        shard=ShardNumber(index, count),
        options=ConversionOptions(**{**OPTIONS, **options}),
        workers=workers,
    )
    return out


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(('count', 'workers'), [(1, 1), (2, 2), (3, 1), (7, 1), (40, 1)])
def test_shards_make_the_store_of_one_run(many, count, workers):
    store, summary = many.convert(**OPTIONS)
    shards = [make(many, index, count, workers=workers) for index in range(count)]
    merged = merge_shards(np.random.default_rng(0).permutation(shards).tolist(), out=many.root / 'merged')
    assert contents(many.root / 'merged') == contents(store.path)
    assert merged == summary
    assert {reason: found.count for reason, found in merged.skipped.items()} == {
        'box rows that cannot be used': 1,
        'masks without a file, kept as box': 1,
        'images without a file, left out': 1,
    }
    assert sorted(path.name for path in (many.root / 'shards').iterdir()) == sorted(path.name for path in shards)


def refused(many, shards: list[Path], message: str, kind: type[Exception] = StoreError) -> None:
    with pytest.raises(kind, match=message):
        merge_shards(shards, out=many.root / 'merged')
    assert not (many.root / 'merged').exists()


def test_what_does_not_belong_together_is_refused(many):
    first, second, third = (make(many, index, 3) for index in range(3))
    refused(many, [], 'no shards to merge')
    refused(many, [first, third], 'of 3 shards, these are not there: 1. Name all')
    refused(many, [first, second, first, third], '0-3: is shard 0 of 3, as is .*0-3')
    refused(many, [first, second, make(many, 1, 2)], '1-2: is of another conversion than .*0-3: other number of shards')
    other = make(many, 2, 3, name='strict', skip_unknown_classes=True)
    refused(many, [first, second, other], 'strict: is of another conversion than .*: other skip_unknown_classes')
    many.labels[0] = (*many.labels[0][:2], 1)
    many.write()
    refused(many, [first, second, make(many, 2, 3, name='labels')], 'labels: is of another conversion .*: other labels')
    refused(many, [first, second, many.root], 'no shard.json here')
    shutil.copytree(third, many.root / 'copy')
    (many.root / 'copy/shard.json').write_text('{"format": "hierseg-sh')
    refused(many, [first, second, many.root / 'copy'], 'shard.json: is not JSON')
    (many.root / 'copy/shard.json').write_text('{"format": "hierseg-shard", "version": 0}')
    refused(many, [first, second, many.root / 'copy'], "is not 'hierseg-shard' version 1")


@pytest.mark.parametrize('damage', ['cut off', 'missing', 'of another shard'])
def test_a_shard_that_was_not_copied_whole_is_refused(many, damage):
    shards = [make(many, index, 2) for index in range(2)]
    file, other = sorted(shards[1].glob('*.part'))[:2]
    if damage == 'cut off':
        file.write_bytes(file.read_bytes()[:-1])
    elif damage == 'missing':
        file.unlink()
    else:
        file.write_bytes(other.read_bytes())
    message = 'do not ascend' if damage == 'of another shard' else f'{file.name}: (is damaged|cannot be read)'
    refused(many, shards, message)


def test_shards_are_not_replaced_unless_told(many):
    shard = make(many, 0, 2)
    with pytest.raises(StoreError, match='0-2: exists already'):
        make(many, 0, 2)
    (many.root / 'shards/mine').mkdir()
    (many.root / 'shards/mine/x.txt').touch()
    with pytest.raises(StoreError, match='mine: exists and is no shard'):
        make(many, 0, 2, name='mine')
    options = ConversionOptions(**OPTIONS, box_tolerance=0.1)
    convert_shard(many.files, many.taxonomy, out=shard, shard=ShardNumber(1, 2), options=options, overwrite=True)
    document = json.loads((shard / 'shard.json').read_text())
    assert document['shard'] == [1, 2]
    assert sorted(path.name for path in shard.iterdir())[0] == '00000012-00000016.part'
    assert [path.name for path in (many.root / 'shards').iterdir() if path.name.startswith('.')] == []


@pytest.mark.parametrize(('index', 'count'), [(3, 3), (-1, 2), (0, 0)])
def test_shards_that_do_not_exist(index, count):
    with pytest.raises(AnnotationError, match=f'there is no shard {index} of {count}'):
        ShardNumber(index, count)


def test_no_image_at_all(many):
    shutil.rmtree(many.root / 'images')
    (many.root / 'images').mkdir()
    refused(many, [make(many, index, 2) for index in range(2)], 'none of the images', AnnotationError)
