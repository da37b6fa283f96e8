"""Thresholds on fabricated pairs with a known answer, and the tool on a small trained model."""

from __future__ import annotations

import json
import math
import runpy
import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config, DictAction
from mmengine.registry import init_default_scope
from PIL import Image
from tiny_runs import ROOT, tiny, train_here

from hierseg.apis import calibrate, evaluate
from hierseg.apis.calibrate import Calibration, calibrate_pairs, draw_calibration
from hierseg.errors import ConfigError, EvaluationError, OutputError
from hierseg.locks import locked
from hierseg.metrics.localised_pairs import ImagePairs, LocalisedPairs
from hierseg.registry import MODELS
from hierseg.report import HierLocalVisualizer
from hierseg.store import Store
from hierseg.taxonomy import Taxonomy

__all__ = ['tiny']
TOOL = ROOT / 'tools' / 'analysis_tools' / 'calibrate.py'
PEOPLE = Taxonomy.from_edges(['person', 'man', 'woman', 'car'], [('man', 'person'), ('woman', 'person')])
PERSON, MAN, WOMAN, CAR = range(4)
# Hardly trained, a model finds objects only where masks fill their boxes and many boxes stay.
EASY = {
    f'model.test_cfg.rcnn.{name}': value
    for name, value in {'score_thr': 0.001, 'max_per_img': 300, 'mask_thr_binary': 0.001}.items()
}


def pairs(*, cars: int = 0) -> LocalisedPairs:
    """Fifty images with a person each, of whom man holds 0.505, 0.515, …, 0.995.

    The first ten are women. Some of the last are called a person, too, but are cars.
    """
    parts = (np.arange(50, 100) + 0.5) / 100
    true = np.where(np.arange(50) < 10, WOMAN, MAN)
    true[50 - cars :] = CAR
    images = [
        ImagePairs(
            image_id=f'{at:02}',
            true_labels=np.array([label]),
            named_labels=np.array([PERSON]),
            class_scores=np.array([[0.8, 0.8 * part, 0, 0]], dtype=np.float32),
            missed_labels=np.array([CAR]),
            absent=np.zeros(0, dtype=np.int64),
        )
        for at, (label, part) in enumerate(zip(true, parts, strict=True))
    ]
    return LocalisedPairs.gather(images, PEOPLE.arrays)


def calibrated(*, correctness: float, relative: bool = True, cars: int = 0) -> Calibration:
    return calibrate_pairs(
        pairs(cars=cars), PEOPLE.arrays, store='some/store', correctness=correctness, relative=relative
    )


class TestThreshold:
    def test_is_the_smallest_that_is_right_enough(self) -> None:
        # Up to 0.5 all ten women are called men: 0.8. Each 0.01 more makes a person of one of them, so that five of
        # fifty are left at 0.55, and none at 0.6.
        found = calibrated(correctness=0.9)
        assert found.threshold == 0.55
        assert found.curve.points[found.shown].correctness == pytest.approx(0.9)
        assert calibrated(correctness=1.0).threshold == 0.6
        assert calibrated(correctness=0.8).threshold == 0.01
        # 5 of 50 are persons, with 3 leaves of which person has 2.
        said = 1 - math.log(2) / math.log(3)
        assert found.curve.points[found.shown].information == pytest.approx((45 + 5 * said) / 50)

    def test_of_the_probability_itself(self) -> None:
        # 0.8 times as much: 0.436 on the fifth woman's box, 0.444 on the sixth's.
        found = calibrated(correctness=0.9, relative=False)
        assert found.threshold == 0.44
        assert found.options.endswith('decision.threshold=0.44 model.test_cfg.rcnn.decision.relative=False')

    def test_that_does_not_exist(self) -> None:
        found = calibrated(correctness=0.99, cars=1)
        assert found.threshold is None
        assert found.options is None
        assert found.curve.thresholds[found.shown] == 0.6
        assert 'No threshold reaches a correctness of 0.99: the best is 0.980 (' in str(found)
        assert found.to_json()['best_threshold'] == 0.6

    def test_beside_the_other_rules(self) -> None:
        # Both always say man, which is more than half of the person.
        rules = calibrated(correctness=0.9).other_rules
        assert {rule: point.correctness for rule, point in rules.items()} == {'leaf': 0.8, 'distance': 0.8}

    def test_needs_a_name_to_judge(self) -> None:
        nothing = LocalisedPairs.gather([], PEOPLE.arrays)
        with pytest.raises(EvaluationError, match='some/store: of 0 objects, 0 were found'):
            calibrate_pairs(nothing, PEOPLE.arrays, store='some/store', correctness=0.9)


class TestReport:
    def test_table(self) -> None:
        lines = str(calibrated(correctness=0.9)).splitlines()
        assert lines[0] == 'some/store: 50 images; 50 of 100 objects found (50.0%), whose names are judged'
        names = [line.split('|')[1].strip() for line in lines if line.startswith('|')]
        tenths = [f'back_off {tenth / 10:g}' for tenth in range(1, 11)]
        assert names == ['rule', *tenths[:5], 'back_off 0.55 ←', *tenths[5:], 'leaf', 'distance']
        assert lines[-1] == (
            '--cfg-options model.test_cfg.rcnn.decision.rule=back_off model.test_cfg.rcnn.decision.threshold=0.55 '
            'model.test_cfg.rcnn.decision.relative=True'
        )

    def test_training_data_are_never_silent(self) -> None:
        found = calibrate_pairs(pairs(), PEOPLE.arrays, store='some/store', correctness=0.9, is_training_data=True)
        assert 'WARNING: the config trains on these images' in str(found)
        assert found.to_json()['is_training_data'] is True
        assert 'WARNING' not in str(calibrated(correctness=0.9))

    def test_json_has_all_thresholds(self) -> None:
        document = json.loads(json.dumps(calibrated(correctness=0.9).to_json(), allow_nan=False))
        assert len(document['back_off']) == 100
        assert document['back_off'][54]['threshold'] == document['threshold'] == 0.55
        low, high = document['correctness_interval_95']
        # 45 of 50: the binomial interval is about 0.9 ± 0.083.
        assert low == pytest.approx(0.82, abs=0.03)
        assert high == pytest.approx(0.98, abs=0.03)

    def test_picture(self, tmp_path: Path) -> None:
        (tmp_path / 'picture.png').write_bytes(draw_calibration(calibrated(correctness=0.99, cars=1)))
        with Image.open(tmp_path / 'picture.png') as picture:
            assert picture.size == (1265, 506)


@pytest.fixture(scope='module')
def checkpoint(tiny: Path) -> str:
    return (train_here('end_to_end.py', 'calibrated', cwd=tiny) / 'last_checkpoint').read_text()


@pytest.mark.slow
class TestTool:
    @pytest.fixture
    def here(self, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.chdir(tiny)
        monkeypatch.syspath_prepend(tiny)
        monkeypatch.setattr(HierLocalVisualizer, '_instance_dict', OrderedDict())
        return tiny

    def test_says_what_a_test_of_every_rule_gives(
        self, here: Path, checkpoint: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        arguments = ['end_to_end.py', checkpoint, '--work-dir', 'out', '--correctness', '0.05']
        options = [f'{name}={value}' for name, value in EASY.items()]
        monkeypatch.setattr(sys, 'argv', [str(TOOL), *arguments, '--cfg-options', *options])
        runpy.run_path(str(TOOL), run_name='__main__')
        printed = capsys.readouterr().out
        document = json.loads((here / 'out/calibration.json').read_text())
        assert document['store'] == 'data/quickstart/store/validation'
        assert document['images'] == 6
        assert document['pairs'] > 0
        assert document['is_training_data'] is False
        assert document['store'] in printed
        assert (document['options'] or 'No threshold reaches') in printed
        assert (here / 'out/calibration.png').read_bytes().startswith(b'\x89PNG')

        key = 'model.test_cfg.rcnn.decision'
        evaluator = {'test_evaluator.type': 'hierseg.LocalisedPairsMetric'}
        for rule, expected in (
            ({f'{key}.threshold': 0.9}, document['back_off'][89]),
            ({f'{key}.rule': 'leaf'}, document['leaf']),
            ({f'{key}.rule': 'distance'}, document['distance']),
        ):
            # MMEngine would give the visualizer of the run before.
            monkeypatch.setattr(HierLocalVisualizer, '_instance_dict', OrderedDict())
            found = evaluate('end_to_end.py', checkpoint, work_dir='out', options={**EASY, **evaluator, **rule})
            assert found.pop('pairs/match_rate') == pytest.approx(document['match_rate'])
            assert {name.removeprefix('pairs/'): value for name, value in found.items()} == pytest.approx(
                {name: expected[name] for name in expected if name != 'threshold'}
            )

    def test_warns_of_training_data(self, here: Path, checkpoint: str) -> None:
        dataset = Config.fromfile('end_to_end.py').train_dataloader.dataset
        place = 'test_dataloader.dataset'
        options = {**EASY, f'{place}.store': dataset.store, f'{place}.data_prefix.img': 'train/'}
        found, _ = calibrate('end_to_end.py', checkpoint, work_dir='out', options=options)
        assert found.is_training_data
        assert found.pairs.num_images == 16

    def test_of_a_model_in_one_stage(self, here: Path) -> None:
        settings = Config.fromfile('end_to_end.py')
        settings.model = Config.fromfile('real_time.py').model
        settings.dump('one_stage.py')
        init_default_scope('mmdet')
        torch.manual_seed(0)
        model = MODELS.build(settings.model)
        for layer in model.bbox_head.rtm_reg:
            layer.bias.data.fill_(2.0)  # boxes of four strides
        taxonomy = Store.open('data/quickstart/store/validation').taxonomy
        torch.save(
            {'state_dict': model.state_dict(), 'meta': {'dataset_meta': taxonomy.dataset_meta()}}, 'one_stage.pth'
        )
        easy = {key.replace('.rcnn', ''): value for key, value in EASY.items()}
        found, _ = calibrate('one_stage.py', 'one_stage.pth', correctness=0.01, work_dir='out', options=easy)
        assert len(found.pairs) > 0
        assert found.options.startswith('--cfg-options model.test_cfg.decision.rule=back_off')
        # What it says to type is what a test of the model reads.
        options = dict(option.split('=') for option in found.options.split()[1:])
        options = {name: DictAction._parse_iterable(value) for name, value in options.items()}
        options['test_evaluator.type'] = 'hierseg.LocalisedPairsMetric'
        tested = evaluate('one_stage.py', 'one_stage.pth', work_dir='out', options=easy | options)
        assert tested['pairs/correctness'] == pytest.approx(found.curve.points[found.shown].correctness)

    def test_the_ensemble_has_no_such_threshold(self, here: Path, checkpoint: str) -> None:
        with pytest.raises(ConfigError, match='TwoLayerEnsemble has no threshold on class probabilities'):
            calibrate('ensemble.py', checkpoint, work_dir='out')


@pytest.mark.parametrize(('correctness', 'score_threshold'), [(0, 0.0), (1.5, 0.0), (90, 0.0), (0.9, 30)])
def test_parts_are_no_percentages(correctness: float, score_threshold: float) -> None:
    with pytest.raises(ConfigError, match='It is a part of 1'):
        calibrate('nowhere.py', 'nowhere.pth', correctness=correctness, score_threshold=score_threshold)


def test_a_second_calibration_at_once_is_told_so(tmp_path: Path) -> None:
    config = str(ROOT / 'configs/quickstart/hier_e2e.py')
    with (
        locked(tmp_path / 'calibration.json'),
        pytest.raises(OutputError, match=r'calibration\.json: another run writes'),
    ):
        calibrate(config, config, work_dir=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_config_without_validation_data() -> None:
    config = str(ROOT / 'configs/quickstart/hier_e2e.py')
    options = {'val_dataloader': None, 'test_dataloader': None}
    with pytest.raises(ConfigError, match='the validation data are of 0 stores'):
        calibrate(config, config, options=options)
