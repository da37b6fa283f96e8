"""Replacing a store: in one step, only what is a store, and whoever reads meanwhile reads one of both whole."""

from __future__ import annotations

import json
import os
import pickle
import re
import resource
import subprocess
import sys
import uuid
from pathlib import Path

import numpy as np
import pytest
from small_store import reseal

from hierseg.errors import StoreError
from hierseg.store import ImageRow, Instances, Store, StoreWriter, folders
from hierseg.taxonomy import Taxonomy

HEX = uuid.uuid4().hex


def write(path: Path, kind: int, **options: bool) -> Path:
    """Writes a store whose every member tells its kind: the number of classes, images, instances and labels."""
    with StoreWriter(path, taxonomy=Taxonomy.from_edges([f'c{i}' for i in range(kind + 1)], []), **options) as writer:
        for row in range(kind + 2):
            count = kind + 1
            instances = Instances(
                labels=np.full(count, kind),
                boxes=np.tile([0.0, 0, 9, 9], (count, 1)),
                masks=[b'x'] * count,
                has_mask=np.ones(count, dtype=bool),
                group_of=np.zeros(count, dtype=bool),
                areas=np.ones(count),
                annotation_ids=[str(kind)] * count,
            )
            writer.add(ImageRow(f'{row:02}', f'{kind}.jpg', 9, 9), instances, [kind], [])
        writer.summary = {'kind': kind}
        writer.documents['coco.json'] = {'kind': kind}
    return path


def check(store: Store) -> int:
    """The kind of a store, all of whose members must be of it."""
    kind = int(store.summary['kind'])
    assert store.taxonomy.num_classes == kind + 1
    assert len(store) == kind + 2
    assert store.document('coco.json') == {'kind': kind}
    assert store.labels.tolist() == [kind] * (kind + 1) * (kind + 2)
    assert store.image(1).file_name == f'{kind}.jpg'
    assert store.instances(kind + 1).annotation_ids == [str(kind)] * (kind + 1)
    assert store.verified(0)[0].tolist() == [kind]
    return kind


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


WRITER = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[3:]
from test_replacing import write
for number in range(int(sys.argv[2])):
    write(Path(sys.argv[1]), number % 5, overwrite=True)
"""


def read_beside_a_writer(path: Path, replacements: int) -> list[int]:
    """Opens a store again and again while another process replaces it; the kinds that were seen."""
    write(path, 0)
    tests = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    command = [sys.executable, '-c', WRITER, str(path), str(replacements), *tests]
    environment = {**os.environ, 'PYTHONPATH': str(Path(__file__).parents[2])}
    kinds, kept = [], Store.open(path)
    with subprocess.Popen(command, env=environment) as process:
        while process.poll() is None:
            kinds.append(check(Store.open(path)))
    assert process.returncode == 0
    assert check(kept) == 0, 'a store that was opened before stays what it was'
    return kinds


def test_readers_beside_a_writer_see_one_store_whole(tmp_path):
    kinds = read_beside_a_writer(tmp_path / 'store', 60)
    assert len(set(kinds)) > 1
    assert names(tmp_path) == ['store']


@pytest.mark.parametrize('can_exchange', [True, False])
def test_replacing(tmp_path, monkeypatch, can_exchange):
    if not can_exchange:
        monkeypatch.setattr(folders, '_exchange', lambda new, path, *, aside: False)
    old = Store.open(write(tmp_path / 'store', 1))
    travelled = pickle.dumps(old)
    assert check(pickle.loads(travelled)) == 1
    write(tmp_path / 'store', 2, overwrite=True)
    assert check(Store.open(tmp_path / 'store')) == 2
    assert check(old) == 1
    with pytest.raises(StoreError, match='is another store than the one that was opened before'):
        pickle.loads(travelled)
    assert names(tmp_path) == ['store']


def test_equal_stores_are_one_generation(tmp_path):
    travelled = pickle.dumps(Store.open(write(tmp_path / 'store', 1)))
    write(tmp_path / 'store', 1, overwrite=True)
    assert check(pickle.loads(travelled)) == 1


@pytest.mark.parametrize('moment', ['old aside', 'both named'])
def test_a_kill_where_names_cannot_be_exchanged(tmp_path, monkeypatch, moment):
    store = write(tmp_path / 'store', 1)
    aside = tmp_path / f'.store.replaced-{HEX}'
    store.rename(aside)
    if moment == 'both named':
        write(tmp_path / 'new', 2).rename(store)
    monkeypatch.setattr('hierseg.store.store.SECONDS_TO_WAIT', 0.05)
    if moment == 'old aside':
        with pytest.raises(StoreError, match=r'no store\.json here'):
            Store.open(store)
    with pytest.raises(StoreError, match='exists already'):
        write(store, 3)
    assert check(Store.open(store)) == (1 if moment == 'old aside' else 2)
    assert names(tmp_path) == ['store']


def test_a_reader_waits_for_a_store_that_steps_aside(tmp_path, monkeypatch):
    store = write(tmp_path / 'store', 1)
    aside = tmp_path / f'.store.replaced-{HEX}'
    store.rename(aside)
    monkeypatch.setattr('hierseg.store.store.time.sleep', lambda seconds: aside.rename(store))
    assert check(Store.open(store)) == 1


STRANGERS = {
    'a file': lambda store: (store / 'notes.txt').write_text('mine'),
    'a folder': lambda store: (store / 'photos').mkdir(),
    'a document': lambda store: (store / 'notes.json').write_text('{}'),
    'a hidden file': lambda store: (store / '.notes').touch(),
    'a link': lambda store: (store / 'link').symlink_to('/'),
    'a member that is a link': lambda store: (
        (store / 'images.arrow').rename(store.parent / 'images.arrow'),
        (store / 'images.arrow').symlink_to(store.parent / 'images.arrow'),
    ),
    'another version': lambda store: reseal(store, version=9),
    'another format': lambda store: reseal(store, format='recipes'),
    'no JSON, and no table': lambda store: (
        (store / 'store.json').write_text('[shopping]'),
        (store / 'images.arrow').write_text('apples'),
    ),
    'no store.json, and no table': lambda store: (
        (store / 'store.json').unlink(),
        (store / 'verified.arrow').unlink(),
    ),
    'no store.json, and a file': lambda store: ((store / 'store.json').unlink(), (store / 'notes.txt').touch()),
    'a damaged store.json that is a link': lambda store: (
        (store / 'store.json').rename(store.parent / 'shopping.json'),
        (store.parent / 'shopping.json').write_text('[apples'),
        (store / 'store.json').symlink_to(store.parent / 'shopping.json'),
    ),
}


@pytest.mark.parametrize('case', STRANGERS)
def test_what_is_not_all_a_store_is_not_replaced(tmp_path, case):
    store = write(tmp_path / 'store', 1)
    STRANGERS[case](store)
    before = {path: path.lstat().st_mtime_ns for path in tmp_path.rglob('*')}
    with pytest.raises(StoreError, match='not be replaced') as caught:
        write(store, 2, overwrite=True)
    named = {'a file': 'notes.txt', 'a folder': 'photos', 'a link': 'link'}
    assert named.get(case, 'store') in str(caught.value)
    assert {path: path.lstat().st_mtime_ns for path in tmp_path.rglob('*')} == before


def test_what_comes_into_a_store_while_it_is_replaced_is_kept(tmp_path, monkeypatch):
    store = write(tmp_path / 'store', 1)
    flush = folders._flush

    def put_in(new: Path) -> None:
        flush(new)
        (store / 'notes.txt').write_text('mine')

    monkeypatch.setattr(folders, '_flush', put_in)
    with pytest.raises(StoreError, match='holds what was put into it meanwhile') as caught:
        write(store, 2, overwrite=True)
    [left] = tmp_path.glob('.store.replaced-*')
    assert str(left) in str(caught.value)
    assert (left / 'notes.txt').read_text() == 'mine'
    assert check(Store.open(store)) == 2


def test_leftovers_are_removed_and_nothing_else(tmp_path):
    mine = tmp_path / 'mine'
    mine.mkdir()
    (mine / 'images.arrow').write_text('mine')
    kept = [
        tmp_path / '.store.replaced-1',  # no name that we give
        tmp_path / f'.stores.replaced-{HEX}',  # of another store
        tmp_path / f'.store.replaced-{uuid.uuid4().hex}',  # holds something else
    ]
    for folder in kept:
        folder.mkdir()
        (folder / ('photo.jpg' if folder.name.startswith('.store.') else 'images.arrow')).touch()
    links = [tmp_path / f'.store.replaced-{uuid.uuid4().hex}', tmp_path / f'.hierseg-{1:016x}.partial']
    for link in links:
        link.symlink_to(mine)
    left = [tmp_path / f'.store.replaced-{HEX}', tmp_path / f'.hierseg-{2:016x}.partial']
    for folder in left:
        folder.mkdir()
        (folder / 'instances.arrow').touch()
    expected = {*names(tmp_path), 'store'} - {folder.name for folder in left}
    write(tmp_path / 'store', 1)
    assert {*names(tmp_path)} == expected
    assert all(link.is_symlink() for link in links)
    assert (mine / 'images.arrow').read_text() == 'mine'
    assert all(len(list(folder.iterdir())) == 1 for folder in kept)


def test_links(tmp_path):
    (tmp_path / 'disk').mkdir()
    (tmp_path / 'store').symlink_to('disk/store')
    with pytest.raises(StoreError, match='is a link to disk/store, which is not there'):
        write(tmp_path / 'store', 1)
    assert names(tmp_path / 'disk') == []
    (tmp_path / 'disk/store').mkdir()
    write(tmp_path / 'store', 1)
    write(tmp_path / 'store', 2, overwrite=True)
    assert (tmp_path / 'store').is_symlink()
    assert check(Store.open(tmp_path / 'store')) == check(Store.open(tmp_path / 'disk/store')) == 2
    assert names(tmp_path / 'disk') == ['store']
    (tmp_path / 'loop').symlink_to('loop')
    with pytest.raises(StoreError, match='is a link to loop'):
        write(tmp_path / 'loop', 1)


@pytest.mark.parametrize('limit', [0, 1000, 2000, 4000])
def test_a_full_disk(tmp_path, limit):
    write(tmp_path / 'store', 1)
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(StoreError) as caught:
            write(tmp_path / 'store', 20, overwrite=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert str(caught.value).startswith(f'{tmp_path}/store/')
    assert 'B needed' in str(caught.value)
    assert 'B free' in str(caught.value)
    assert names(tmp_path) == ['store']
    assert check(Store.open(tmp_path / 'store')) == 1


def test_a_store_that_is_damaged_can_be_replaced(tmp_path):
    store = write(tmp_path / 'store', 1)
    (store / 'images.arrow').unlink()
    (store / 'taxonomy.json').write_text('')
    write(store, 2, overwrite=True)
    assert check(Store.open(store)) == 2


def first_digit_changed(content: bytes) -> bytes:
    return re.sub(rb'\d', lambda digit: b'%d' % (9 - int(digit[0])), content, count=1)


DAMAGES = {
    'empty': (lambda content: b'', 'is not JSON'),
    'zeroed': (lambda content: bytes(len(content)), 'is not JSON'),
    'cut off': (lambda content: content[:200], 'is not JSON'),
    'another version by a bit': (first_digit_changed, 'its checksum does not fit'),
    'no text': (lambda content: b'\xff' + content[1:], 'is not JSON'),
}


@pytest.mark.parametrize('case', [*DAMAGES, 'missing'])
@pytest.mark.parametrize('can_exchange', [True, False])
def test_a_store_whose_header_is_damaged_is_known_by_its_tables(tmp_path, monkeypatch, case, can_exchange):
    if not can_exchange:
        monkeypatch.setattr(folders, '_exchange', lambda new, path, *, aside: False)
    store = write(tmp_path / 'store', 1)
    header = store / 'store.json'
    if case == 'missing':
        header.unlink()
    else:
        header.write_bytes(DAMAGES[case][0](header.read_bytes()))
    with pytest.raises(StoreError, match='exists already'):
        write(store, 2)
    said = 'is missing' if case == 'missing' else DAMAGES[case][1]
    with pytest.warns(UserWarning, match=rf'store\.json .*{said}.* else in the folder was of a store, it was replaced'):
        write(store, 2, overwrite=True)
    assert check(Store.open(store)) == 2
    assert names(tmp_path) == ['store']


def test_stores_of_version_1(tmp_path):
    store = write(tmp_path / 'store', 3)
    header = json.loads((store / 'store.json').read_text())
    old = {key: value for key, value in header.items() if key not in ('members', 'crc32c')}
    (store / 'store.json').write_text(json.dumps({**old, 'version': 1}))
    assert check(pickle.loads(pickle.dumps(Store.open(store)))) == 3
    write(store, 2, overwrite=True)
    assert check(Store.open(store)) == 2
    # One that lost its checksums is none of version 1.
    (store / 'store.json').write_text(json.dumps({**header, 'version': 1}))
    with pytest.raises(StoreError, match='its checksum does not fit'):
        Store.open(store)
