"""Reports on layers and samplers: text, CSV, JSON, plots and the tools."""

from __future__ import annotations

import csv
import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from layer_stores import BEAR, CAR, MAN, PERSON, TEDDY, Picture, Row, write_store
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
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
from hierseg.locks import locked
from hierseg.report.class_reports import (
    AFTER,
    CLASS_AWARE,
    DATA,
    IRFS,
    RFS,
    SAMPLER_COLORS,
    layer_reports,
    plot_layer_report,
    plot_sampling_report,
    plot_score_dots,
    sampling_report,
)
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


def pixels_of(picture: Image.Image, color: str) -> int:
    """Pixels of a colour of the plots."""
    return int((np.asarray(picture.convert('RGB')) == np.round(255 * np.array(to_rgb(color)))).all(axis=2).sum())


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
        picture = Image.open(tmp_path / 'plot.png')
        assert min(picture.size) > 800
        middle = picture.height // 2
        for top, bottom in ((0, middle), (middle, picture.height)):  # images above, instances below
            half = picture.crop((0, top, picture.width, bottom))
            assert pixels_of(half, AFTER) > 5000
            grey.append(pixels_of(half, DATA))
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


def test_a_second_report_at_once_is_told_so(store, tmp_path, run_tool, capsys):
    with locked(tmp_path), pytest.raises(SystemExit):
        run_tool(store.path, '--out', tmp_path)
    assert 'another run writes here (process' in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir() if path != store.path] == []


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


SAMPLING_TOOL = Path(__file__).parents[2] / 'tools' / 'analysis_tools' / 'sampling_report.py'
BOX = (20, 20, 60, 60)
SAMPLED = [
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
    write_store(tmp_path / 'store', SAMPLED)
    for picture in SAMPLED:
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
    description = 'threshold 1 of the image frequency, power 0.5'
    assert ['RFS:', 'RepeatFactorSampler,', *description.split()] in lines
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


def test_the_plot_has_the_data_and_each_sampler(dataset, tmp_path):
    plot_sampling_report(sampling_report(StreamSampler(dataset, seed=0), compare=True, threshold=1), tmp_path / 'a.png')
    compared = Image.open(tmp_path / 'a.png')
    assert pixels_of(compared, DATA) > 50_000
    # Lines across the plot, two pixels high at least; the last one drawn covers the others where they meet.
    assert min(pixels_of(compared, color) for color in map(SAMPLER_COLORS.get, (RFS, IRFS, CLASS_AWARE))) > 500
    plot_sampling_report(sampling_report(RepeatFactorSampler(dataset, 1, seed=0)), tmp_path / 'b.png')
    one = Image.open(tmp_path / 'b.png')
    assert pixels_of(one, SAMPLER_COLORS[RFS]) > 2000
    assert pixels_of(one, SAMPLER_COLORS[CLASS_AWARE]) == 0


@pytest.fixture
def run_sampling_tool(monkeypatch, folder):
    """Runs the tool's main function in this process, on a config with the lines given."""
    spec = importlib.util.spec_from_file_location('sampling_report_tool', SAMPLING_TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def run(config: str, *arguments: object) -> None:
        data = f'dict(type="hierseg.StoreDataset", store="{folder}/store", data_prefix=dict(img="{folder}"), pipeline=['
        (folder / 'config.py').write_text(config.replace('DATA', data))
        monkeypatch.setattr(sys, 'argv', [SAMPLING_TOOL.name, *map(str, [folder / 'config.py', *arguments])])
        module.main()

    return run


STREAM = "train_dataloader = dict(sampler=dict(type='hierseg.StreamSampler'), dataset=DATA]))"


def test_the_sampling_tool(run_sampling_tool, folder, capsys):
    options = 'train_dataloader.sampler.type=hierseg.RepeatFactorSampler', 'train_dataloader.sampler.threshold=1.0'
    run_sampling_tool(STREAM, '--out', folder / 'new' / 'report', '--cfg-options', *options)
    assert 'RFS: RepeatFactorSampler, threshold 1' in capsys.readouterr().out
    assert {path.name for path in (folder / 'new' / 'report').iterdir()} == {
        'sampling.csv', 'sampling.json', 'sampling.png'
    }  # fmt: skip
    assert json.loads((folder / 'new' / 'report' / 'sampling.json').read_text())['images'] == 4


def test_a_second_sampling_report_at_once_is_told_so(run_sampling_tool, folder, capsys):
    (folder / 'report').mkdir()
    with locked(folder / 'report'), pytest.raises(SystemExit):
        run_sampling_tool(STREAM, '--out', folder / 'report')
    assert 'another run writes here (process' in capsys.readouterr().err
    assert not list((folder / 'report').iterdir())


def test_the_sampling_tool_on_layers(run_sampling_tool, folder, capsys):
    config = """train_dataloader = dict(
        sampler=dict(type='hierseg.StreamSampler'),
        layer0=dict(dataset=DATA], layer=0)),
        layer1=dict(sampler=dict(type='hierseg.ClassAwareStreamSampler'),
                    dataset=DATA dict(type='hierseg.PaintBoxes')], layer=1, filter_cfg=dict(filter_empty_gt=True))))"""
    run_sampling_tool(config, '--out', folder / 'report', '--compare')
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
def test_bad_sampling_arguments_end_in_one_line(run_sampling_tool, folder, capsys, config, arguments, message):
    with pytest.raises(SystemExit) as stopped:
        run_sampling_tool(config, *arguments, '--out', folder / 'report')
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count('\n') == 1
    assert not (folder / 'report').exists()


SCORES = {
    'without': {'mAP': [0.4, 0.6], 'rare': [0.1, 0.2], 'common': [0.5, 0.5]},
    'with it': {'mAP': [0.7], 'rare': [0.4], 'common': [0.6]},
}


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are written."""
    found: list[Figure] = []
    save = Figure.savefig

    def noting(figure: Figure, *arguments, **options):
        found.append(figure)
        return save(figure, *arguments, **options)

    monkeypatch.setattr(Figure, 'savefig', noting)
    return found


def test_a_dot_for_each_training_in_the_row_of_its_variant(tmp_path, figures):
    plot_score_dots(SCORES, [['mAP'], ['rare', 'common']], tmp_path / 'scores.png', title='Is it worth it?')
    (figure,) = figures
    first = figure.axes[0]
    rows = dict(zip(first.get_yticks(), (label.get_text() for label in first.get_yticklabels()), strict=True))
    dots = {}
    for axes in figure.axes:
        for line in axes.lines:
            row = float(np.mean(line.get_ydata()))
            dots.setdefault(rows[round(row)], []).append((list(line.get_xdata()), round(row % 1, 2)))
    # Alone in the middle of its row; two scores of a row above and below that.
    assert dots == {
        'without': [([0.4, 0.6], 0), ([0.1, 0.2], 0.89), ([0.5, 0.5], 0.11)],
        'with it': [([0.7], 0), ([0.4], 0.89), ([0.6], 0.11)],
    }
    with Image.open(tmp_path / 'scores.png') as picture:
        assert picture.format == 'PNG'
        assert picture.width > picture.height


def test_more_variants_need_more_room(tmp_path):
    many = {str(number): SCORES['with it'] for number in range(9)}
    for name, scores in (('few', SCORES), ('many', many)):
        plot_score_dots(scores, [['mAP']], tmp_path / f'{name}.png', title='')
    heights = [Image.open(tmp_path / f'{name}.png').height for name in ('few', 'many')]
    assert heights[1] - heights[0] == pytest.approx(7 * 0.36 * 110, abs=2)
