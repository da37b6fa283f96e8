"""Comparing systems: which pictures, which differences, and the command on small models."""

from __future__ import annotations

import json
import runpy
import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
from mmengine.registry import DefaultScope
from open_images_samples import instances, sample, write_store
from taxonomies import BEAR, CAR, TEDDY, TOY
from tiny_runs import ROOT, tiny, train_here
from warm_python import copies_for_fresh

from hierseg.apis import evaluate
from hierseg.apis.compare import comparison_of
from hierseg.apis.compared_images import choose_images, compared_images, image_score
from hierseg.apis.evaluated_systems import EvaluatedSystem, loss_curves
from hierseg.errors import AnnotationError, ConfigError, EvaluationError
from hierseg.evaluation import SystemEvaluation, SystemMetric
from hierseg.metrics.error_kinds import ErrorKind, ImageErrors
from hierseg.pictures import write_picture
from hierseg.report import HierLocalVisualizer
from hierseg.report.comparison import Head
from hierseg.store import Store

__all__ = ['tiny']
TOOL = ROOT / 'tools/compare.py'
LEFT, RIGHT = (0, 0, 4, 4), (4, 0, 8, 4)
HEAD = Head(
    title='t', date='2026-01-01', store='s', images=8, objects=16, command='c', machine='m', seed=0, versions={}
)


class TestImageScore:
    def of(self, kinds, *, missed=0):
        count = len(kinds)
        return image_score(
            ImageErrors('a', np.arange(count), np.array(kinds, dtype=np.int64), np.arange(count), np.arange(missed))
        )

    def test_by_hand(self):
        assert self.of([ErrorKind.CORRECT]) == 1.0
        # One right of two detections and two objects.
        assert self.of([ErrorKind.CORRECT, ErrorKind.BACKGROUND], missed=1) == pytest.approx(2 * 1 / (2 + 2))
        # A coarser name is half right; a finer one may be right.
        assert self.of([ErrorKind.COARSER]) == pytest.approx(0.5)
        assert self.of([ErrorKind.FINER]) == 1.0

    def test_what_counts_against_nobody(self):
        assert self.of([ErrorKind.CORRECT, ErrorKind.IGNORED, ErrorKind.UNVERIFIED]) == 1.0
        assert self.of([]) == 1.0
        assert self.of([], missed=2) == 0.0


class TestChoice:
    def test_half_differ_most_and_half_are_drawn(self):
        scores = np.array([[0.5] * 100, [0.5] * 100])
        scores[1, [7, 40]] = [0.9, 0.0]
        chosen = choose_images(scores, 4, seed=0)
        assert {7, 40} < set(chosen.tolist())
        assert len(set(chosen.tolist())) == 4
        assert chosen.tolist() == choose_images(scores, 4, seed=0).tolist()
        assert chosen.tolist() != choose_images(scores, 4, seed=1).tolist()

    def test_a_single_system_shows_where_it_is_worst(self):
        assert choose_images(np.array([[0.9, 0.1, 0.5]]), 1, seed=0).tolist() == [1]

    def test_fewer_images_than_asked_for(self):
        assert choose_images(np.array([[0.9, 0.1, 0.5]]), 10, seed=0).tolist() == [0, 1, 2]


@pytest.fixture(scope='module')
def store(tmp_path_factory):
    objects = instances((BEAR, LEFT, 'mask'), (CAR, RIGHT, 'mask'))
    images = [(f'{at}', objects, (BEAR, CAR, TOY), (TEDDY,)) for at in range(8)]
    return write_store(tmp_path_factory.mktemp('comparison') / 'store', images)


def system(name, store, *, right_on):
    """Finds the bear and the car of some images and calls both toys on the others."""
    metric = SystemMetric(store)
    for at in range(8):
        labels = (BEAR, CAR) if at in right_on else (TOY, TOY)
        metric.process(
            None,
            [sample(f'{at}', *((place, {label: 0.9}) for place, label in zip((LEFT, RIGHT), labels, strict=True)))],
        )
    metric.evaluate(8)
    return EvaluatedSystem(name, '', f'{name}.csv', metric.predictions, metric.evaluation)


class TestDocument:
    def of(self, store, *systems):
        return comparison_of(systems, Store.open(store), head=HEAD, train_images=None)

    def test_differences_are_paired(self, store):
        first, second = system('first', store, right_on=range(4)), system('second', store, right_on=range(4, 8))
        document = self.of(store, first, second, system('same', store, right_on=range(4)))
        same = document.differences['same']
        assert all(
            (entry.value, entry.low, entry.high) == (0, 0, 0) for entry in same.values() if entry.low is not None
        )
        # Each is right on half of the images: the interval decides nothing.
        exact = document.differences['second']['exact']
        assert exact.value == 0
        assert exact.low < 0 < exact.high
        better = self.of(store, first, system('all', store, right_on=range(8))).differences['all']['exact']
        assert better.value == pytest.approx(0.5)
        assert 0 < better.low <= better.value <= better.high

    def test_everything_is_there(self, store):
        document = self.of(store, system('first', store, right_on=range(4)))
        shown = document.systems[0]
        assert document.metrics[0].key == 'mAP'
        assert shown.scores['exact'].value == pytest.approx(0.5)
        # Half of the names are wrong at every threshold.
        assert shown.scores['recall_at_90'].value == 0.0
        # Masks are small: no score of large objects is shown.
        assert 'mAP_large' not in {metric.key for metric in document.metrics}
        assert shown.errors == {**dict.fromkeys(shown.errors, 0), 'correct': 8, 'far': 8}
        expected = [(true, name, 4) for true in (BEAR, CAR) for name in (TOY, true)]
        assert sorted(map(tuple, shown.to_json()['confusion'])) == sorted(expected)
        assert set(shown.precision_curves) == {'all classes', 'root classes', 'deeper classes'}
        json.dumps(document.to_json(), allow_nan=False)

    def test_no_score_vanishes(self, store):
        found = system('first', store, right_on=range(4))
        document = self.of(store, found)
        computed = {key for key, value in found.evaluation.scores.items() if np.isfinite(value)}
        scores = document.to_json()['systems'][0]['scores']
        assert computed <= scores.keys()
        assert scores.keys() == {metric.key for metric in document.metrics}
        hidden = {metric.key for metric in document.metrics if not metric.on_page}
        assert {'information', 'unknown', 'distance_at_1', 'distance_at_20', 'coco_AR1', 'coco_ARs'} <= hidden
        # All that have an interval say so, hidden or not.
        assert all((scores[metric.key]['low'] is not None) == metric.has_interval for metric in document.metrics)

    def test_an_undeclared_score_is_refused(self, store, monkeypatch):
        found = system('first', store, right_on=range(4))
        scores = {**found.evaluation.scores, 'luck': 1.0}
        monkeypatch.setattr(SystemEvaluation, 'scores', property(lambda _: scores))
        with pytest.raises(EvaluationError, match='the scores luck are not declared'):
            self.of(store, found)

    def test_no_object_at_all(self, tmp_path):
        empty = write_store(tmp_path / 'store', [(f'{at}', instances(), (), ()) for at in range(8)])
        with pytest.raises(EvaluationError, match='no score has a value'):
            self.of(empty, system('first', empty, right_on=range(4)))


def test_an_image_that_is_not_there(store, tmp_path):
    found = system('first', store, right_on=range(4))
    with pytest.raises(ConfigError, match=r'\.jpg: the image cannot be read'):
        compared_images([found], Store.open(store), count=1, score_threshold=0.3, seed=0, folder=tmp_path)
    size = max(Store.open(store).image_column(side).max() for side in ('width', 'height'))
    for row in range(len(Store.open(store))):
        write_picture(np.zeros((size, size, 3), np.uint8), tmp_path / Store.open(store).image(row).file_name)
    with pytest.raises(AnnotationError, match=rf'has {size} x {size} pixels .*--max-pixels'):
        compared_images(
            [found], Store.open(store), count=1, score_threshold=0.3, seed=0, folder=tmp_path, max_pixels=size**2 - 1
        )
    # Nobody knows where the images lie: no pictures.
    assert compared_images([found], Store.open(store), count=1, score_threshold=0.3, seed=0) == []


def test_curves_of_each_layer(tmp_path):
    log = tmp_path / '20260101_000000/vis_data/scalars.json'
    log.parent.mkdir(parents=True)
    lines = [
        {'layer0/loss': 2.0, 'loss': 2.0, 'epoch': 1, 'iter': 3},
        {'val/layer0/loss': 2.5, 'epoch': 1, 'iter': 3},
        {'layer1/loss': 1.0, 'loss': 1.0, 'epoch': 2, 'iter': 6},
    ]
    log.write_text(''.join(json.dumps(line) + '\n' for line in lines))
    assert loss_curves(tmp_path) == {
        'layer 0 training': [(1.0, 2.0)],
        'layer 0 validation': [(1.0, 2.5)],
        'layer 1 training': [(2.0, 1.0)],
    }
    assert loss_curves(tmp_path / 'nowhere') == {}


@pytest.mark.slow
class TestTool:
    def compare(self, monkeypatch, *arguments):
        monkeypatch.setattr(HierLocalVisualizer, '_instance_dict', OrderedDict())
        monkeypatch.setattr(sys, 'argv', [str(TOOL), *map(str, arguments)])
        copies_for_fresh(monkeypatch)
        runpy.run_path(str(TOOL), run_name='__main__')

    def test_a_run_and_its_submission_are_no_different(
        self, tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        checkpoint = (train_here('end_to_end.py', 'compared', cwd=tiny) / 'last_checkpoint').read_text()
        monkeypatch.chdir(tiny)
        monkeypatch.syspath_prepend(tiny)
        easy = {'model.test_cfg.rcnn.score_thr': 0.02, 'model.test_cfg.rcnn.max_per_img': 20}
        monkeypatch.setattr(HierLocalVisualizer, '_instance_dict', OrderedDict())
        scores = evaluate(
            'end_to_end.py', checkpoint, work_dir='out', coco_results='detections.json',
            options={**easy, 'test_evaluator.submission_file': 'submission.csv'},
        )  # fmt: skip
        self.compare(
            monkeypatch, '--run', f'model=end_to_end.py,{checkpoint}', '--predictions', 'file=submission.csv',
            '--run', f'tested=end_to_end.py,{checkpoint},detections.json',
            '--out', 'page', '--pictures', 2, '--timed-images', 1, '--score-thr', 0.02,
            '--cfg-options', *(f'{key}={value}' for key, value in easy.items()),
        )  # fmt: skip
        printed = capsys.readouterr().out
        assert 'MB): page/index.html' in printed
        document = json.loads((tiny / 'page/results.json').read_text())
        model, file, tested = document['systems']
        assert model['scores']['mAP']['value'] == pytest.approx(scores['segm/mAP'])
        for key, difference in document['differences']['file'].items():
            assert difference['value'] in (None, pytest.approx(0, abs=1e-6)), key
        assert {difference['value'] for difference in document['differences']['tested'].values()} == {0}
        assert tested['weights'] == f'{checkpoint}, its detections read from detections.json'
        assert tested['training_curves'] == model['training_curves']
        assert model['costs']['parameters'] == tested['costs']['parameters'] > 10_000
        assert model['costs']['training_seconds'] > 0
        assert file['costs']['parameters'] is None
        assert model['training_curves']
        assert document['head']['training_images'] == 16
        assert len(document['images']) == 2
        page = (tiny / 'page/index.html').read_text()
        assert page.count('data:image/webp;base64,') == 2
        assert (tiny / 'page/table.md').read_text() in printed
        # Detections that are read are those of the config's test data, and shown on its images; no runner is built.
        monkeypatch.setattr(DefaultScope, '_instance_dict', OrderedDict())
        self.compare(
            monkeypatch, '--run', f'tested=end_to_end.py,{checkpoint},detections.json', '--out', 'few',
            '--timed-images', 1, '--cfg-options', 'test_dataloader.dataset.indices=3',
        )  # fmt: skip
        assert json.loads((tiny / 'few/results.json').read_text())['head']['images'] == 3
        assert (tiny / 'few/index.html').read_text().count('data:image/webp;base64,') == 3

    @pytest.mark.parametrize(
        ('arguments', 'message'),
        [
            (['--predictions', f'a={__file__}'], 'no store of the ground truth is named'),
            (['--predictions', 'a=x.csv'], 'x.csv: the predictions do not exist'),
            (['--predictions', 'a=x.csv', '--predictions', 'a=y.csv'], 'the systems are called a, a'),
            (['--run', 'a=nowhere.py,nowhere.pth'], 'the config file does not exist'),
            (['--run', 'a=no,where.py,nowhere.pth'], 'no,where.py: the config file does not exist'),
            (['--run', 'a=no,where.py,nowhere.pth,a.json'], 'no,where.py: the config file does not exist'),
            (['--run', 'a=nowhere.py,a.json'], 'is not NAME=CONFIG,CHECKPOINT'),
            ([], 'name at least one system'),
            (['--run', 'a=nowhere.py'], 'is not NAME=CONFIG,CHECKPOINT'),
            (['--run', 'a=nowhere.py,nowhere.pth,a.json,b.json'], 'is not NAME=CONFIG,CHECKPOINT[,RESULTS.json]'),
            (['--predictions', 'x.csv'], 'is not NAME=PREDICTIONS.csv'),
        ],
    )
    def test_bad_arguments(self, arguments, message, tmp_path, monkeypatch, capsys):
        with pytest.raises(SystemExit) as stop:
            self.compare(monkeypatch, *arguments, '--out', tmp_path)
        assert stop.value.code == 2
        assert message in capsys.readouterr().err
