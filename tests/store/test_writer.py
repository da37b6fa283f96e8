"""Parts of a store: the files that adding image by image makes, and files of parts that are whole or refused."""

from __future__ import annotations

import pickle
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hierseg.errors import StoreError
from hierseg.store import (
    ImageRow,
    Instances,
    Store,
    StoreWriter,
)
from hierseg.store import writer as store_writer
from hierseg.store.writer import StorePart, read_part, write_part
from hierseg.taxonomy import Taxonomy

TAXONOMY = Taxonomy.from_edges(['a', 'b', 'c'], [('b', 'a')])


def image(number: int, count: int) -> tuple[ImageRow, Instances, tuple[np.ndarray, np.ndarray]]:
    generator = np.random.default_rng(number)
    corners = np.sort(generator.uniform(0, 50, size=(count, 2, 2)), axis=1)
    has_mask = generator.random(count) < 0.7
    instances = Instances(
        labels=generator.integers(0, 3, count),
        boxes=corners.reshape(count, 4),
        masks=[generator.bytes(1 + generator.integers(9)) if has else b'' for has in has_mask],
        has_mask=has_mask,
        group_of=generator.random(count) < 0.3,
        areas=generator.uniform(1, 9, count),
        annotation_ids=[f'ü{i}' if i % 3 else '' for i in range(count)],
    )
    verified = (np.arange(number % 3), np.arange(2, 2 + number % 2))
    return ImageRow(f'{number:04}', f'a/{number}.jpg', 60 + number, 50), instances, verified


def part(images) -> StorePart:
    return StorePart.of(*([*column] for column in zip(*images, strict=True))) if images else StorePart.of([], [], [])


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@settings(max_examples=40)
@given(
    counts=st.lists(st.integers(0, 7), min_size=1, max_size=20),
    cuts=st.sets(st.integers(0, 20)),
    rows=st.sampled_from([1, 4, 9, 1000]),
    num_bytes=st.sampled_from([5, 40, 1000]),
)
def test_parts_make_the_files_that_single_images_make(tmp_path_factory, counts, cuts, rows, num_bytes):
    folder = tmp_path_factory.mktemp('law')
    images = [image(number, count) for number, count in enumerate(counts)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store_writer, 'ROWS_PER_BATCH', rows)
        patch.setattr(store_writer, 'BYTES_PER_BATCH', num_bytes)
        with StoreWriter(folder / 'single', taxonomy=TAXONOMY) as writer:
            for row, instances, verified in images:
                writer.add(row, instances, *verified)
        with StoreWriter(folder / 'parts', taxonomy=TAXONOMY) as writer:
            bounds = sorted({0, len(images), *(cut for cut in cuts if cut < len(images))})
            for first, last in pairwise(bounds):
                writer.extend(part(images[first:last]))
    assert contents(folder / 'parts') == contents(folder / 'single')


def test_parts_after_single_images(tmp_path):
    images = [image(number, 3) for number in range(6)]
    for name, first in (('single', 6), ('mixed', 2)):
        with StoreWriter(tmp_path / name, taxonomy=TAXONOMY) as writer:
            for row, instances, verified in images[:first]:
                writer.add(row, instances, *verified)
            writer.extend(part(images[first:]))
    assert contents(tmp_path / 'mixed') == contents(tmp_path / 'single')


@pytest.mark.parametrize('numbers', [[3, 2], [2, 2], [5, 1]])
def test_ids_that_do_not_ascend_are_refused(tmp_path, numbers):
    first, second = (image(number, 1) for number in numbers)
    with StoreWriter(tmp_path / 'store', taxonomy=TAXONOMY) as writer:
        with pytest.raises(StoreError, match='do not ascend'):
            writer.extend(part([first, second]))
        writer.extend(part([first]))
        with pytest.raises(StoreError, match='do not ascend'):
            writer.extend(part([second]))
        with pytest.raises(StoreError, match='is added twice'):
            writer.add(second[0], second[1], *second[2])


def test_tables_that_contradict_each_other_are_refused(tmp_path):
    whole = part([image(1, 3)])
    with pytest.raises(StoreError, match='other rows'), StoreWriter(tmp_path / 's', taxonomy=TAXONOMY) as writer:
        writer.extend(StorePart(whole.images, whole.instances.slice(1), whole.verified))


@pytest.mark.parametrize('count', [0, 1, 5])
def test_files_of_parts_there_and_back(tmp_path, count):
    written = part([image(number, number) for number in range(count)])
    write_part(written, {'images': count, 'why': 'ü'}, tmp_path / 'x.part')
    found, notes = read_part(tmp_path / 'x.part')
    assert notes == {'images': count, 'why': 'ü'}
    for name in ('images', 'instances', 'verified'):
        assert getattr(found, name).equals(getattr(written, name))
    assert [path.name for path in tmp_path.iterdir()] == ['x.part']


def test_every_cut_and_every_damaged_byte_is_noticed(tmp_path):
    write_part(part([image(1, 2)]), {}, tmp_path / 'x.part')
    content = (tmp_path / 'x.part').read_bytes()
    for at in range(0, len(content), 97):
        flipped = bytearray(content)
        flipped[at] ^= 1
        for damaged in (content[:at], bytes(flipped)):
            (tmp_path / 'x.part').write_bytes(damaged)
            with pytest.raises(StoreError, match=r'x\.part: is damaged or cut off'):
                read_part(tmp_path / 'x.part')
    with pytest.raises(StoreError, match=r'y\.part: cannot be read'):
        read_part(tmp_path / 'y.part')


def with_lists(folder: Path, lists: dict[int, list[int]]) -> Path:
    with StoreWriter(folder, taxonomy=TAXONOMY) as writer:
        for number in range(6):
            row, instances, verified = image(number, 2)
            writer.add(row, instances, *verified, not_exhaustive=lists.get(number, []))
    return folder


def test_classes_that_are_not_annotated_exhaustively(tmp_path, monkeypatch):
    monkeypatch.setattr(store_writer, 'ROWS_PER_BATCH', 2)  # several batches
    lists = {1: [2, 0, 2], 4: [1], 5: [2, 1]}
    store = pickle.loads(pickle.dumps(Store.open(with_lists(tmp_path / 'some', lists))))
    assert store.has_not_exhaustive
    assert [store.not_exhaustive(row).tolist() for row in range(6)] == [[], [0, 2], [], [], [1], [1, 2]]
    assert store.not_exhaustive(1).dtype == np.int64
    # Nothing else changes, and a store without such a class has no byte of it.
    some, none = contents(tmp_path / 'some'), contents(with_lists(tmp_path / 'none', {}))
    assert none.keys() == some.keys() - {'not_exhaustive.arrow'}
    assert {name for name in none if none[name] != some[name]} == {'store.json'}
    assert b'exhaustive' not in none['store.json']
    plain = Store.open(tmp_path / 'none')
    assert not plain.has_not_exhaustive
    assert plain.not_exhaustive(1).tolist() == []


def test_labels_that_are_none_and_tables_that_are_gone(tmp_path):
    with pytest.raises(StoreError, match='has the label 3'):
        with_lists(tmp_path / 'wrong', {2: [3]})
    with_lists(tmp_path / 'some', {2: [1]})
    (tmp_path / 'some/not_exhaustive.arrow').unlink()
    with pytest.raises(StoreError, match=r'not_exhaustive\.arrow: cannot be read'):
        Store.open(tmp_path / 'some')
