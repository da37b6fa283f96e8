"""Damaged stores: an error of ours or what was written, and never the end of the process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from damaged_stores import content, make_store
from small_store import reseal

from hierseg.errors import StoreError
from hierseg.store import Store
from hierseg.store.__main__ import main


def test_random_damage(tmp_path):
    script, repository = Path(__file__).parents[1] / 'damaged_stores.py', Path(__file__).parents[2]
    command = [sys.executable, str(script), str(tmp_path), '0', '90']
    environment = {**os.environ, 'PYTHONPATH': str(repository)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    # A store without checksums may show other content; all others, and all processes, end well.
    assert {*found} <= {
        'checked: same',
        'checked: error',
        'unchecked: same',
        'unchecked: error',
        'unchecked: different',
    }
    assert found['checked: error'] > 40
    assert found['unchecked: error'] > 10


@pytest.fixture(scope='module')
def two_stores(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('stores')
    for number, name in enumerate(('one', 'two')):
        make_store(folder / name, images=20, seed=number)
    return folder


@pytest.fixture
def store(two_stores, tmp_path) -> Path:
    """A store to damage."""
    (tmp_path / 'store').mkdir()
    for path in (two_stores / 'one').iterdir():
        (tmp_path / 'store' / path.name).write_bytes(path.read_bytes())
    return tmp_path / 'store'


NAMES = ['images', 'instances', 'verified', 'not_exhaustive']


@pytest.mark.parametrize('name', [*(f'{name}.arrow' for name in NAMES), 'taxonomy.json', 'coco.json'])
def test_a_member_of_another_store_is_refused(store, two_stores, name):
    (store / name).write_bytes((two_stores / 'two' / name).read_bytes())
    with pytest.raises(StoreError, match=name.replace('.', r'\.')):
        content(store)


def test_masks_are_checked_by_the_command_alone(store, capsys):
    path = store / 'instances.arrow'
    whole = path.read_bytes()
    mask = next(mask for mask in Store.open(store).instances(3).masks if mask)
    path.write_bytes(whole.replace(mask, mask[::-1]))
    content(store)
    assert main([str(store)]) == 1
    assert 'instances.arrow: stretches that are not as they were written: 1 (masks at bytes' in capsys.readouterr().out


def test_rows_are_checked_when_they_are_first_read(store):
    path = store / 'instances.arrow'
    whole = path.read_bytes()
    path.write_bytes(whole.replace('ü3-0'.encode(), 'ü3-9'.encode()))
    opened = Store.open(store)
    assert opened.image(3).id == '00003'
    with pytest.raises(StoreError, match=r'instances\.arrow: is damaged in its bytes .*checksum does not fit'):
        opened.instances(0)


def test_a_file_that_is_cut_off_after_opening(store):
    opened = Store.open(store)
    opened.instances(1)
    os.truncate(store / 'instances.arrow', 100)
    for read in (lambda: opened.instances(2), lambda: opened.labels, opened.tables, opened.damaged_parts):
        with pytest.raises(StoreError, match=r'instances\.arrow: has 100 bytes, [0-9,]+ when it was opened'):
            read()


WILD = {
    'offsets beyond all': ('id', 4, 2**30),
    'offsets that run backwards': ('id', 4, -5),
    'a range of rows beyond all': ('last_instance', 0, 2**40),
    'a range of rows before all': ('first_verified', 8, -(2**62)),
    'a range of rows of the image before': ('first_instance', 16, 0),
    'an image without a size': ('width', 4, 0),
}


@pytest.mark.parametrize('case', WILD)
def test_sense_is_asked_for_where_checksums_fit(store, case):
    """What is damaged on purpose can have any checksum."""
    column, at, value = WILD[case]
    table = Store.open(store).tables()['images']
    buffers = table.column(column).chunk(0).buffers()
    old = np.frombuffer(buffers[1], dtype=np.uint8).tobytes()
    width = 8 if 'instance' in column or 'verified' in column else 4
    path = store / 'images.arrow'
    whole = path.read_bytes()
    place = whole.index(old) + at
    path.write_bytes(whole[:place] + value.to_bytes(width, 'little', signed=True) + whole[place + width :])
    del table, buffers
    reseal(store)
    opened = Store.open(store)
    for read in (
        lambda: opened.image(0),
        lambda: opened.instances(0),
        lambda: opened.image_ids,
        lambda: opened.row_of('x'),
    ):
        with pytest.raises(StoreError, match=r'images\.arrow: holds'):
            read()


HEADERS = {
    'parts': ({'members': {'images.arrow': ['head x']}}, 'says no parts'),
    'no parts': ({'members': {'images.arrow': []}}, 'says no parts'),
    'no members': ({'members': 7}, 'says nothing of'),
    'members': ({'members': {}}, 'says nothing of'),
    'summary': ({'summary': []}, 'has a summary'),
    'orientation': ({'orientation': ['turned']}, 'has a summary'),
    'rows': ({'images': '20'}, "store.json says '20'"),
}


@pytest.mark.parametrize('case', HEADERS)
def test_headers_that_make_no_sense(store, case):
    changes, message = HEADERS[case]
    reseal(store, **changes)
    with pytest.raises(StoreError, match=message):
        Store.open(store)
