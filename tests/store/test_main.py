"""The integrity check: a whole store passes, and every kind of damage is found and named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from small_store import rectangle_mask, reseal

from hierseg.errors import ConfigError
from hierseg.store import (
    ImageRow,
    Instances,
    Store,
    StoreWriter,
)
from hierseg.store import writer as store_writer
from hierseg.store.__main__ import check_store, main
from hierseg.taxonomy import Taxonomy

TAXONOMY = Taxonomy.from_edges(['animal', 'dog'], [('dog', 'animal')])
BOX = (4, 5, 24, 25)
MASK = rectangle_mask(30, 40, BOX)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Images a to d of 40 x 30 pixels with 2, 0, 1 and 2 instances, verified 1, 1, 0, 2 times.

    The last instance of each is box-only, except for c, whose only one has a mask: masks in rows 0, 2 and 3.
    A batch ends with the image that fills three rows: instances 0 to 2, then 3 and 4.
    """
    monkeypatch.setattr(store_writer, 'ROWS_PER_BATCH', 3)
    with StoreWriter(tmp_path / 'store', taxonomy=TAXONOMY) as writer:
        for name, masks, positive, negative in (
            ('a', [MASK, b''], [1], []),
            ('b', [], [], [0]),
            ('c', [MASK], [], []),
            ('d', [MASK, b''], [0], [1]),
        ):
            count = len(masks)
            instances = Instances(
                labels=np.arange(count) % 2,
                boxes=np.tile(np.array(BOX, dtype=np.float64), (count, 1)),
                masks=masks,
                has_mask=np.array([bool(mask) for mask in masks], dtype=bool),
                group_of=np.arange(count) % 2 == 1,
                areas=np.full(count, 400.0),
                annotation_ids=[''] * count,
            )
            writer.add(ImageRow(name, f'{name}.jpg', 40, 30), instances, positive, negative)
    return tmp_path / 'store'


def change(store: Path, table: str, column: str, row: int, value: Any) -> None:
    """Writes a value into a table, whose record batches stay what they are."""
    path = store / f'{table}.arrow'
    with pa.OSFile(str(path)) as file:
        reader = pa.ipc.open_file(file)
        batches = [reader.get_batch(index) for index in range(reader.num_record_batches)]
        schema = reader.schema
    start = 0
    with pa.ipc.new_file(str(path), schema) as writer:
        for batch in batches:
            columns = batch.to_pydict()
            if start <= row < start + batch.num_rows:
                columns[column][row - start] = value
            start += batch.num_rows
            arrays = [pa.array(columns[field.name], field.type) for field in schema]
            writer.write_batch(pa.record_batch(arrays, schema=schema))
    reseal(store)


def test_a_whole_store(store, capsys):
    assert main([str(store), '--all']) == 0
    printed = capsys.readouterr().out
    assert printed.endswith('whole\n')
    report = check_store(Store.open(store))
    assert report.damage == ()
    assert report.masks_checked == 3
    assert report.counts == {
        'images': 4, 'instances': 5, 'with mask': 3, 'group-of': 2, 'verified present': 2, 'verified absent': 2,
    }  # fmt: skip
    assert all(f'{count}\n' in printed for count in report.counts.values())


LEFT = rectangle_mask(30, 40, (0, 5, 20, 25))
DAMAGE = {
    'size': ('images', 'width', 2, 0, 'images.arrow: images without a size: 1 (row 2, image c)'),
    'file name': ('images', 'file_name', 1, '', 'images.arrow: images without a file name: 1 (row 1, image b)'),
    'id': ('images', 'id', 3, 'a', 'images.arrow: images whose id came before: 1 (row 3, image a)'),
    'no value': ('images', 'id', 3, None, 'images.arrow: rows without id: 1 (row 3)'),
    'past the end': (
        'images', 'last_instance', 3, 6, 'images.arrow: images whose rows of instances.arrow do not exist: 1 (row 3,'
    ),
    'before the start': (
        'images', 'first_instance', 0, -1, 'images.arrow: images whose rows of instances.arrow do not exist: 1 (row 0,'
    ),
    'inverted': (
        'images', 'last_instance', 2, 1, 'images.arrow: images whose rows of instances.arrow do not exist: 1 (row 2,'
    ),
    'instances of none': ('images', 'last_instance', 0, 0, 'instances.arrow: rows of no image: 2 (row 0, row 1)'),
    'instances of two': ('images', 'first_instance', 2, 1, 'instances.arrow: rows of several images: 1 (row 1)'),
    'two batches': (
        'images', 'first_instance', 3, 2,
        'images.arrow: images whose rows of instances.arrow lie in several record batches: 1 (row 3, image d)',
    ),
    'order': (
        'images', 'first_instance', 1, 5,
        'images.arrow: images whose rows of instances.arrow begin before those of the image above: 1 (row 2, image c)',
    ),
    'verified of none': ('images', 'first_verified', 3, 3, 'verified.arrow: rows of no image: 1 (row 2)'),
    'verified past the end': (
        'images', 'last_verified', 3, 9, 'images.arrow: images whose rows of verified.arrow do not exist: 1 (row 3,'
    ),
    'label': (
        'instances', 'label', 4, 2, 'instances.arrow: rows whose label is none of the 2 classes: 1 (row 4)'
    ),
    'negative label': (
        'instances', 'label', 0, -1, 'instances.arrow: rows whose label is none of the 2 classes: 1 (row 0)'
    ),
    'verified label': ('verified', 'label', 3, 7, 'verified.arrow: rows whose label is none of the 2 classes: 1'),
    'box': (
        'instances', 'x1', 1, 25.0, 'instances.arrow: boxes that end before they begin or are not finite: 1 (row 1)'
    ),
    'no box': ('instances', 'y2', 1, float('nan'), 'instances.arrow: boxes that end before they begin or are not'),
    'area': ('instances', 'area', 1, -1.0, 'instances.arrow: areas that are negative or not finite: 1 (row 1)'),
    'flag': ('instances', 'has_mask', 1, True, 'instances.arrow: rows where has_mask contradicts the mask: 1 (row 1)'),
    'cut mask': ('instances', 'mask', 2, MASK[:-1], 'instances.arrow: masks that cannot be decoded: 1 (row 2'),
    'other size': (
        'instances', 'mask', 3, rectangle_mask(30, 41, BOX),
        'instances.arrow: masks that cannot be decoded: 1 (row 3, image d: the runs cover 1230 pixels',
    ),
    'blank mask': (
        'instances', 'mask', 3, rectangle_mask(30, 40, (0, 0, 0, 0)),
        'instances.arrow: masks without a pixel: 1 (row 3, image d: 40 x 30 pixels of background)',
    ),
    # The left side is 4 pixels from the box's, of which a tenth of its 20 pixels, and at least 2, are allowed.
    'mask elsewhere': (
        'instances', 'mask', 0, LEFT,
        'instances.arrow: masks that are not where their box is: '
        '1 (row 0, image a: mask from (0, 5) to (20, 25), box from (4, 5) to (24, 25))',
    ),
}  # fmt: skip


@pytest.mark.parametrize('case', DAMAGE)
def test_damage_is_found(store, capsys, case):
    table, column, row, value, expected = DAMAGE[case]
    change(store, table, column, row, value)
    assert main([str(store), '--all']) == 1
    printed = capsys.readouterr().out
    assert '\ndamaged\n' in printed
    assert f'\n  {expected}' in printed


def test_masks_missing_from_the_count(store, capsys):
    reseal(store, masks=4)
    assert main([str(store)]) == 1
    assert 'store.json: wrong counts of masks: 1 (4, not 3)' in capsys.readouterr().out


def test_bytes_that_are_no_text(store, capsys):
    path = store / 'images.arrow'
    content = path.read_bytes()
    assert content.count(b'c.jpg') == 1
    path.write_bytes(content.replace(b'c.jpg', b'\xff.jpg'))
    reseal(store)
    assert main([str(store)]) == 1
    assert 'images.arrow: columns that cannot be read (' in capsys.readouterr().out


def test_every_kind_of_damage_is_told_at_once_with_a_few_examples(store, monkeypatch):
    monkeypatch.setattr('hierseg.store.__main__.NAMED_ROWS', 2)
    for row in range(5):
        change(store, 'instances', 'label', row, 9)
    change(store, 'images', 'height', 0, -3)
    report = check_store(Store.open(store))
    assert [(damage.file, damage.count) for damage in report.damage] == [('images.arrow', 1), ('instances.arrow', 5)]
    assert str(report.damage[1]).endswith('(row 0, row 1, …)')
    assert report.masks_checked == 0, 'masks of a store with damaged tables are left alone'


def test_json(store, capsys):
    assert main([str(store), '--json']) == 0
    assert json.loads(capsys.readouterr().out)['whole'] is True
    change(store, 'instances', 'mask', 0, LEFT)
    assert main([str(store), '--json']) == 1
    document = json.loads(capsys.readouterr().out)
    assert document['whole'] is False
    assert [(damage['file'], damage['count']) for damage in document['damage']] == [('instances.arrow', 1)]


def test_tolerance(store):
    change(store, 'instances', 'mask', 0, LEFT)
    assert check_store(Store.open(store), tolerance=0.2).damage == ()
    assert len(check_store(Store.open(store), tolerance=0.19).damage) == 1
    change(store, 'instances', 'mask', 0, rectangle_mask(30, 40, (2, 5, 22, 25)))
    assert check_store(Store.open(store), tolerance=0).damage == (), 'two pixels'


def test_some_masks_are_chosen_by_the_seed(store):
    change(store, 'instances', 'mask', 2, LEFT)
    reports = [check_store(Store.open(store), masks=1, seed=seed) for seed in range(20)]
    assert {report.masks_checked for report in reports} == {1}
    assert {len(report.damage) for report in reports} == {0, 1}, 'one of three masks is damaged'
    assert [check_store(Store.open(store), masks=1, seed=seed) for seed in range(20)] == reports
    assert check_store(Store.open(store), masks=0).masks_checked == 0


def test_bad_options(store):
    for options in (dict(masks=-1), dict(tolerance=-0.1)):
        with pytest.raises(ConfigError, match='Give at least 0'):
            check_store(Store.open(store), **options)


def test_what_cannot_be_opened_ends_with_one_line(store, capsys):
    reseal(store, version=3)
    for path, message in ((store, "found 'hierseg-store' version 3"), (store / 'nowhere', 'no store.json here')):
        with pytest.raises(SystemExit) as caught:
            main([str(path)])
        assert caught.value.code == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count('\n') == 1


@pytest.mark.parametrize(
    ('column', 'row', 'value', 'told'),
    [
        ('label', 1, 2, 'rows whose label is none of the 2 classes: 1 (row 1)'),
        ('image', 1, 4, 'rows of no image, or not in the order of images: 1 (row 1)'),
        ('image', 1, 0, 'rows of no image, or not in the order of images: 1 (row 1)'),
    ],
)
def test_classes_that_are_not_annotated_exhaustively(tmp_path, capsys, column, row, value, told):
    with StoreWriter(tmp_path / 'store', taxonomy=TAXONOMY) as writer:
        for name in 'abcd':
            writer.add(
                ImageRow(name, f'{name}.jpg', 40, 30), Instances.empty(), [0], [], not_exhaustive=[1] * (name > 'b')
            )
    assert main([str(tmp_path / 'store')]) == 0
    assert '  not exhaustive                 2\n' in capsys.readouterr().out
    change(tmp_path / 'store', 'not_exhaustive', column, row, value)
    assert main([str(tmp_path / 'store')]) == 1
    assert f'not_exhaustive.arrow: {told}' in capsys.readouterr().out
