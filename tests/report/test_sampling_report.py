"""The report on what a sampler shows: text, CSV, JSON, plot and the tool."""

from __future__ import annotations

import csv
import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from layer_stores import BEAR, CAR, MAN, PERSON, Picture, Row, write_store
from mmdet.datasets.samplers import ClassAwareSampler
from mmengine.dataset import DefaultSampler
from PIL import Image

from hierseg.datasets import (
    ClassAwareStreamSampler,
    RepeatFactorSampler,
    StoreDataset,
    StreamSampler,
)
from hierseg.errors import ConfigError
from hierseg.report.class_plots import plot_sampling_report
from hierseg.report.class_reports import sampling_report

TOOL = Path(__file__).parents[2] / 'tools' / 'analysis_tools' / 'sampling_report.py'
BOX = (20, 20, 60, 60)
PICTURES = [
    Picture('a', [Row(PERSON, BOX), Row(MAN, BOX)]),
    Picture('b', [Row(PERSON, BOX), Row(PERSON, BOX)]),
    Picture('c', [Row(PERSON, BOX)]),
    Picture('d', [Row(CAR, BOX), Row(BEAR, BOX)]),
]
# With threshold 1, r = 1/√f: person (with men) is on 3 of 4 images, man, car, bear and carnivore on one each.
R_PERSON, R_RARE = 2 / 3**0.5, 2.0
DRAWS = np.array([R_RARE, R_PERSON, R_PERSON, R_RARE])


@pytest.fixture
def folder(tmp_path):
    write_store(tmp_path / 'store', PICTURES)
    for picture in PICTURES:
        (tmp_path / f'{picture.id}.png').touch()
    return tmp_path


@pytest.fixture
def dataset(folder):
    return StoreDataset(folder / 'store', data_prefix=dict(img=str(folder)), pipeline=[])


def cells(report) -> list[list[str]]:
    return [line.split() for line in str(report).splitlines()]


def test_expected_images_and_instances_by_hand(dataset):
    report = sampling_report(RepeatFactorSampler(dataset, threshold=1, seed=0))
    (sampling,) = report.samplings
    np.testing.assert_allclose(sampling.draws, DRAWS)
    np.testing.assert_allclose(sampling.images[[PERSON, MAN, CAR]], [R_RARE + 2 * R_PERSON, R_RARE, R_RARE])
    np.testing.assert_allclose(sampling.instances[[PERSON, MAN]], [2 * R_RARE + 3 * R_PERSON, R_RARE])
    # Person on 3 images and the rarest on 1; shown 4.309 and 2.
    assert report.extremes(report.counts.images) == 3
    assert report.extremes(sampling.images) == pytest.approx((R_RARE + 2 * R_PERSON) / R_RARE)
    # One of five classes is the head; the last by label of those with one image is the tail.
    assert report.tenth == 1
    assert report.head_to_tail(sampling.images) == pytest.approx((R_RARE + 2 * R_PERSON) / R_RARE)


def test_the_text_goes_along_the_tree(dataset):
    lines = cells(sampling_report(RepeatFactorSampler(dataset, threshold=1, seed=0)))
    assert ['RFS:', 'RepeatFactorSampler,', 'threshold', '1', 'of', 'the', 'image', 'frequency'] in lines
    assert ['images', '4', '6'] in lines
    assert ['most', 'shown', 'image,', 'times', '1.00', '2.00'] in lines
    assert ['least', 'shown', 'image,', 'times', '1.00', '1.15'] in lines
    # Roots by number of images, then by label; what is below a class follows it.
    first = lines.index(['class', 'images', 'shown', 'instances', 'shown', 'frequency', 'factor'])
    assert lines[first + 1 :] == [
        ['Person', '3', '4', '5', '7', '0.75', '1.155'],
        ['Man', '1', '2', '1', '2', '0.25', '2'],
        ['Car', '1', '2', '1', '2', '0.25', '2'],
        ['Carnivore', '1', '2', '1', '2', '0.25', '2'],
        ['Bear', '1', '2', '1', '2', '0.25', '2'],
        ['Toy', '0', '0', '0', '0', '0', '1'],
        ['Teddy', 'bear', '0', '0', '0', '0', '0', '1'],
    ]


def test_alternatives_are_compared_over_as_many_draws(dataset):
    report = sampling_report(StreamSampler(dataset, seed=0), compare=True, threshold=1)
    plain, rfs, irfs, class_aware = report.samplings
    assert [sampling.name for sampling in report.samplings] == ['plain', 'RFS', 'IRFS', 'class-aware']
    assert plain.draws.tolist() == [1] * 4
    np.testing.assert_allclose(rfs.draws, DRAWS * 4 / DRAWS.sum())
    # Instances: 7, of which person 5.
    r_person, r_rare = 1 / (3 / 4 * 5 / 7) ** 0.25, 1 / (1 / 4 * 1 / 7) ** 0.25
    expected = np.array([r_rare, r_person, r_person, r_rare])
    np.testing.assert_allclose(irfs.draws, expected * 4 / expected.sum())
    # Five classes have images: person shows a, b, c; man a; car, carnivore and bear d.
    np.testing.assert_allclose(class_aware.draws, np.array([1 + 1 / 3, 1 / 3, 1 / 3, 3]) / 5 * 4)
    lines = cells(report)
    assert ['class', 'in', 'the', 'data', 'plain', 'RFS', 'IRFS', 'class-aware'] in lines
    assert ['Person', '3', '3', '3', '3', '2'] in lines


def test_the_samplers_own_settings_are_compared(dataset):
    report = sampling_report(ClassAwareStreamSampler(dataset, power=0.5, expanded=False, seed=0), compare=True)
    described = 'ClassAwareStreamSampler, power 0.5 of the images of a class, labels not expanded to ancestors'
    assert report.samplings[-1].description == described
    report = sampling_report(RepeatFactorSampler(dataset, 0.5, instance_aware=True, seed=0), compare=True)
    assert 'threshold 0.5' in report.samplings[1].description


def test_other_samplers(dataset):
    plain = sampling_report(DefaultSampler(dataset, seed=0)).samplings[0]
    assert (plain.description, plain.draws.tolist()) == ('DefaultSampler, all images alike', [1] * 4)
    with pytest.raises(ConfigError, match='not known how often ClassAwareSampler draws an image'):
        sampling_report(ClassAwareSampler(dataset, seed=0))


def test_csv_and_json(dataset, tmp_path):
    report = sampling_report(RepeatFactorSampler(dataset, threshold=1, seed=0))
    report.write_csv(tmp_path / 'sampling.csv')
    with (tmp_path / 'sampling.csv').open(encoding='utf-8') as file:
        rows = list(csv.DictReader(file))
    assert [row['id'] for row in rows] == ['person', 'car', 'man', 'bear', 'carnivore', 'toy', 'teddy']
    assert rows[2]['path'] == 'Person › Man'
    assert (rows[0]['images'], rows[0]['instances']) == ('3', '5')
    assert (rows[0]['RFS images'], rows[0]['RFS factor']) == ('4.3094', '1.1547')
    document = report.to_json()
    assert (document['images'], document['classes_without_images'], document['most_to_least_shown_class']) == (4, 2, 3)
    assert document['samplers'][0]['images'] == pytest.approx(DRAWS.sum())


def pixels_of(path: Path, color: tuple[int, int, int]) -> int:
    return int((np.asarray(Image.open(path).convert('RGB')) == color).all(axis=2).sum())


def test_the_plot_has_the_data_and_each_sampler(dataset, tmp_path):
    blue, teal, orange, grey = (0x25, 0x63, 0xEB), (0x0D, 0x94, 0x88), (0xEA, 0x58, 0x0C), (0xA1, 0xA1, 0xAA)
    plot_sampling_report(sampling_report(StreamSampler(dataset, seed=0), compare=True, threshold=1), tmp_path / 'a.png')
    assert pixels_of(tmp_path / 'a.png', grey) > 50_000
    # Lines across the plot, two pixels high at least; the last one drawn covers the others where they meet.
    assert min(pixels_of(tmp_path / 'a.png', color) for color in (blue, teal, orange)) > 500
    plot_sampling_report(sampling_report(RepeatFactorSampler(dataset, 1, seed=0)), tmp_path / 'b.png')
    assert pixels_of(tmp_path / 'b.png', blue) > 2000
    assert pixels_of(tmp_path / 'b.png', orange) == 0


@pytest.fixture
def run_tool(monkeypatch, folder):
    """Runs the tool's main function in this process, on a config with the lines given."""
    spec = importlib.util.spec_from_file_location('sampling_report_tool', TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def run(config: str, *arguments: object) -> None:
        data = f'dict(type="hierseg.StoreDataset", store="{folder}/store", data_prefix=dict(img="{folder}"), pipeline=['
        (folder / 'config.py').write_text(config.replace('DATA', data))
        monkeypatch.setattr(sys, 'argv', [TOOL.name, *map(str, [folder / 'config.py', *arguments])])
        module.main()

    return run


STREAM = "train_dataloader = dict(sampler=dict(type='hierseg.StreamSampler'), dataset=DATA]))"


def test_the_tool(run_tool, folder, capsys):
    options = 'train_dataloader.sampler.type=hierseg.RepeatFactorSampler', 'train_dataloader.sampler.threshold=1.0'
    run_tool(STREAM, '--out', folder / 'new' / 'report', '--cfg-options', *options)
    assert 'RFS: RepeatFactorSampler, threshold 1' in capsys.readouterr().out
    assert {path.name for path in (folder / 'new' / 'report').iterdir()} == {
        'sampling.csv', 'sampling.json', 'sampling.png'
    }  # fmt: skip
    assert json.loads((folder / 'new' / 'report' / 'sampling.json').read_text())['images'] == 4


def test_the_tool_on_layers(run_tool, folder, capsys):
    config = """train_dataloader = dict(
        sampler=dict(type='hierseg.StreamSampler'),
        layer0=dict(dataset=DATA], layer=0)),
        layer1=dict(sampler=dict(type='hierseg.ClassAwareStreamSampler'),
                    dataset=DATA dict(type='hierseg.PaintBoxes')], layer=1, filter_cfg=dict(filter_empty_gt=True))))"""
    run_tool(config, '--out', folder / 'report', '--compare')
    printed = capsys.readouterr().out
    assert '== layer0\n4 images to train on, 4 classes' in printed
    # Man on a, bear on d.
    assert '== layer1\n2 images to train on, 3 classes' in printed
    assert (folder / 'report' / 'layer1_sampling.png').exists()


@pytest.mark.parametrize(
    ('config', 'arguments', 'message'),
    [
        ('a = 1', [], 'the config has no train_dataloader'),
        ('train_dataloader = dict(dataset=DATA]))', [], 'train_dataloader has no sampler'),
        (STREAM, ['--compare', '--threshold', '2'], 'threshold=2.0 is no frequency'),
    ],
)
def test_bad_arguments_end_in_one_line(run_tool, folder, capsys, config, arguments, message):
    with pytest.raises(SystemExit) as stopped:
        run_tool(config, *arguments, '--out', folder / 'report')
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count('\n') == 1
    assert not (folder / 'report').exists()
