"""The report on the layers of a store: text, CSV, plots and the tool."""

from __future__ import annotations

import csv
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from layer_stores import BEAR, CAR, MAN, PERSON, TEDDY, Picture, Row, write_store
from PIL import Image

from hierseg.report.class_plots import plot_layer_report
from hierseg.report.class_reports import layer_reports
from hierseg.taxonomy import Taxonomy

TOOL = Path(__file__).parents[2] / 'tools' / 'analysis_tools' / 'layer_report.py'
# Three images of men, each with a person to paint; the last has one to spare as well, and a teddy bear.
MEN = [Row(PERSON, (0, 0, 10, 10)), Row(MAN, (50, 50, 70, 70))]
PICTURES = [
    Picture('a', MEN),
    Picture('b', MEN),
    Picture('c', [*MEN, Row(PERSON, (50, 50, 60, 90)), Row(TEDDY, (20, 20, 30, 30))]),
    Picture('d', [Row(CAR, (0, 0, 10, 10)), Row(BEAR, (0, 0, 0.5, 10))]),
]


@pytest.fixture
def store(tmp_path):
    return write_store(tmp_path / 'store', PICTURES)


def test_says_what_is_there_before_and_after_the_cap(store):
    _, report = layer_reports(store, images_per_class=1, seed=0)
    # c stays for the teddy bear. Man's one image is drawn among a, b and c.
    kept = report.after.images
    assert kept in (1, 2)
    lines = [line.split() for line in str(report).splitlines()]
    assert ' '.join(lines[0]) == 'Layer 1: 3 deeper classes'
    for expected in (
        ['training', 'images', '3', str(kept)],
        ['instances', '4', str(kept + 1)],
        ['boxes', 'painted', '3', str(kept)],
        ['on', 'as', 'many', 'images', '3', str(kept)],
        ['boxes', 'spared', 'by', 'the', '25', '%', 'rule', '1', '1'],
        ['classes', 'without', 'a', 'training', 'image', '1', '1'],
        ['Person', '›', 'Man', '3', str(kept), '3', str(kept)],
        ['Toy', '›', 'Teddy', 'bear', '1', '1', '1', '1'],
        ['Carnivore', '›', 'Bear', '0', '0', '0', '0'],
    ):
        assert expected in lines


def test_a_long_list_shows_both_ends(tmp_path):
    ids = [f'class{number:02}' for number in range(30)]
    pictures = [Picture(str(n), [Row(label, (0, 0, 9, 9)) for label in range(1, n + 1)]) for n in range(1, 30)]
    edges = [(child, 'class00') for child in ids[1:]]
    store = write_store(tmp_path / 'store', pictures, taxonomy=Taxonomy.from_edges(ids, edges))
    _, report = layer_reports(store, images_per_class=4)
    listed = [line.split()[2] for line in str(report).splitlines() if '›' in line]
    assert listed == [*ids[1:6], *ids[25:]]
    assert '  … 19 more' in str(report)


def test_the_csv_has_every_class(store, tmp_path):
    report, _ = layer_reports(store, images_per_class=1)
    report.write_csv(tmp_path / 'layer0.csv')
    with (tmp_path / 'layer0.csv').open(encoding='utf-8') as file:
        rows = list(csv.DictReader(file))
    # Most images first, then by label: person 3, car 1, toy 1, carnivore 0 (a sliver trains nothing).
    assert [row['id'] for row in rows] == ['person', 'car', 'toy', 'carnivore']
    assert [row['label'] for row in rows] == ['2', '0', '1', '3']
    assert [row['images_before'] for row in rows] == ['3', '1', '1', '0']
    assert [row['instances_before'] for row in rows] == ['7', '1', '1', '0']
    assert [row['images_after'] for row in rows[1:]] == ['1', '1', '0']
    assert rows[0]['path'] == 'Person'


@pytest.mark.parametrize('num_classes', [3, 90])
def test_the_plot_shows_what_the_cap_takes(tmp_path, num_classes):
    """Of 50 images with half of the classes one stays: grey must be seen, and none with the cap above everything."""
    ids = [f'class {number}' for number in range(num_classes)]
    frequent = [Row(label, (0, 0, 9, 9)) for label in range(1, 1 + num_classes // 2)]
    pictures = [Picture(f'x{n}', frequent) for n in range(50)]
    pictures += [Picture(str(label), [Row(label, (0, 0, 9, 9))]) for label in range(2, num_classes)]
    taxonomy = Taxonomy.from_edges(ids, [(child, ids[0]) for child in ids[1:]])
    store = write_store(tmp_path / 'store', pictures, taxonomy=taxonomy)
    grey = []
    for cap in (1, 1000):
        _, report = layer_reports(store, images_per_class=cap)
        plot_layer_report(report, tmp_path / 'plot.png')
        pixels = np.asarray(Image.open(tmp_path / 'plot.png').convert('RGB'))
        assert min(pixels.shape[:2]) > 800
        for half in (pixels[: len(pixels) // 2], pixels[len(pixels) // 2 :]):  # images above, instances below
            assert (half == (0x25, 0x63, 0xEB)).all(axis=2).sum() > 5000
            grey.append(int((half == (0xA1, 0xA1, 0xAA)).all(axis=2).sum()))
    # The legend above has a little of it.
    assert grey[0] > 10 * grey[2] > 0
    assert grey[1] > 5000
    assert grey[3] == 0


@pytest.fixture
def run_tool(monkeypatch):
    """Runs the tool's main function in this process."""
    spec = importlib.util.spec_from_file_location('layer_report_tool', TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def run(*arguments: object) -> None:
        monkeypatch.setattr(sys, 'argv', ['layer_report.py', *map(str, arguments)])
        module.main()

    return run


def test_the_tool(store, tmp_path, run_tool, capsys):
    run_tool(store.path, '--images-per-class', 1, '--seed', 3, '--out', tmp_path / 'new' / 'report')
    printed = capsys.readouterr().out
    assert 'Layer 0: 4 root classes' in printed
    assert 'Layer 1: 3 deeper classes\n  cap: 1 images per class, and those that rarer classes bring; seed 3' in printed
    written = {path.name for path in (tmp_path / 'new' / 'report').iterdir()}
    assert written == {'layer0.csv', 'layer0.png', 'layer1.csv', 'layer1.png'}


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['nowhere'], 'nowhere: no store.json here'),
        (['STORE', '--images-per-class', '0'], 'images_per_class=0'),
        (['STORE', '--seed', '-1'], 'seed=-1'),
    ],
)
def test_bad_arguments_end_in_one_line(store, run_tool, capsys, tmp_path, arguments, message):
    with pytest.raises(SystemExit) as stopped:
        run_tool(*[store.path if one == 'STORE' else one for one in arguments], '--out', tmp_path / 'report')
    assert stopped.value.code == 2
    captured = capsys.readouterr().err
    assert message in captured
    assert captured.count('\n') == 1
    assert not (tmp_path / 'report').exists()
