"""The quickstart, and the tools that it uses, on a few synthetic images: on one process and on two."""

from __future__ import annotations

import json
import math
import os
import pickle
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.runner.checkpoint import get_torch_safe_globals
from pycocotools.mask import area
from warm_python import launched_warm

from hierseg.apis import evaluate
from hierseg.apis.configs import load_config
from hierseg.apis.runner import prepare_distributed
from hierseg.engine.checkpoint_files import safe_loading
from hierseg.errors import ConfigError

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / 'tools'
CONFIG = ROOT / 'configs' / 'quickstart' / 'hier_e2e.py'
VAL_IMAGES = 8


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """Runs a script as a user would and gives back what it printed; Python, too, where the command names it."""
    variables = {**os.environ, 'OMP_NUM_THREADS': '1', 'HIERSEG_SKIP_SETUP': '1', **launched_warm()}
    variables |= {'CUDA_VISIBLE_DEVICES': '-1', **environment}
    variables.pop('LOCAL_RANK', None)
    answer = subprocess.run(
        command, cwd=cwd, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    assert answer.returncode == 0, answer.stdout[-4000:]
    return answer.stdout


def free_port() -> str:
    with socket.socket() as held:
        held.bind(('127.0.0.1', 0))
        return str(held.getsockname()[1])


@pytest.fixture(scope='module')
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the quickstart's smallest form has run."""
    folder = tmp_path_factory.mktemp('quickstart')
    (folder / 'printed.txt').write_text(run('bash', TOOLS / 'quickstart.sh', '--smoke', cwd=folder))
    return folder


SYSTEMS = ('two_layer_ensemble', 'hier_e2e', 'hier_rtmdet')


@pytest.fixture(scope='module')
def checkpoint(quickstart: Path) -> str:
    """The end-to-end model's."""
    return (quickstart / 'work_dirs' / 'quickstart' / 'hier_e2e' / 'last_checkpoint').read_text()


@pytest.mark.slow
class TestQuickstart:
    def test_ends_with_a_comparison_of_all_systems(self, quickstart: Path) -> None:
        work, printed = quickstart / 'work_dirs' / 'quickstart', (quickstart / 'printed.txt').read_text()
        systems = json.loads((work / 'comparison/results.json').read_text())['systems']
        assert [system['name'] for system in systems] == ['ensemble', 'end-to-end', 'real-time']
        for name, system in zip(SYSTEMS, systems, strict=True):
            scores = json.loads((work / name / 'results.json').read_text())
            assert {'segm/mAP', 'segm/mAP_layer0', 'segm/mAP_layer1'} < scores.keys()
            for key in ('mAP', 'mAP_layer0', 'mAP_layer1'):
                assert system['scores'][key]['value'] == pytest.approx(scores[f'segm/{key}'])
        assert (work / 'comparison/table.md').read_text() in printed
        assert printed.endswith(f'the comparison: {work / "comparison/index.html"}\n')

    @pytest.mark.parametrize('system', SYSTEMS)
    def test_leaves_pictures_and_curves(self, quickstart: Path, system: str) -> None:
        work = quickstart / 'work_dirs' / 'quickstart' / system
        printed = (quickstart / 'printed.txt').read_text()
        assert len([*(work / 'overlays').rglob('*.png'), *(work / 'overlays').rglob('*.jpg')]) == VAL_IMAGES
        assert f'pictures: {work / "overlays"}' in printed
        (curves,) = work.glob('*/loss_curves.png')
        assert f'curves:   {curves}' in printed

    def test_explains_the_ensemble(self, quickstart: Path) -> None:
        assert (quickstart / 'work_dirs/quickstart/two_layer_ensemble/flow.png').stat().st_size > 1000

    def test_skips_what_is_done(self, quickstart: Path) -> None:
        printed = run('bash', TOOLS / 'quickstart.sh', '--smoke', cwd=quickstart)
        assert printed.count(': done before') == printed.count('/11 ') == 11

    def test_redoes_what_depends_on_a_lost_result(self, quickstart: Path) -> None:
        (quickstart / 'work_dirs' / 'quickstart' / 'hier_e2e' / 'results.json').unlink()
        printed = run('bash', TOOLS / 'quickstart.sh', '--smoke', cwd=quickstart)
        assert printed.count(': done before') == 10
        assert re.search('test hier_e2e: took [0-9]+ s', printed)

    def test_its_checkpoint_loads_without_unpickling_objects(self, checkpoint: str) -> None:
        with torch.serialization.safe_globals(get_torch_safe_globals()):
            assert torch.load(checkpoint, map_location='cpu', weights_only=True)['state_dict']

    def test_the_predictions_can_be_dumped(self, quickstart: Path, checkpoint: str) -> None:
        dump, results = quickstart / 'predictions.pkl', quickstart / 'results.json'
        arguments = ['--out', dump, '--coco-results', results, '--work-dir', 'dump']
        run(sys.executable, TOOLS / 'test.py', CONFIG, checkpoint, *arguments, cwd=quickstart)
        predictions = pickle.loads(dump.read_bytes())
        found = sum(area(mask) > 0 for image in predictions for mask in image['pred_instances']['masks'])
        assert len(json.loads(results.read_text())) == found
        assert len(predictions) == VAL_IMAGES
        first = predictions[0]['pred_instances']
        assert {'bboxes', 'labels', 'scores', 'class_scores', 'masks'} <= first.keys()

    def test_training_resumes(self, quickstart: Path, checkpoint: str) -> None:
        more = ['--cfg-options', 'train_cfg.max_epochs=2', 'train_cfg.val_interval=9', 'param_scheduler=None']
        more += ['train_dataloader.batch_sampler.iterations=3']
        arguments = ['--work-dir', 'resumed', '--resume', checkpoint, *more]
        printed = run(sys.executable, TOOLS / 'train.py', CONFIG, *arguments, cwd=quickstart)
        assert 'resumed epoch: 1' in printed
        assert 'Epoch(train) [1]' not in printed
        assert (quickstart / 'resumed' / 'epoch_2.pth').exists()


# Imported by both processes through the config, this notes each process's weights and images.
NOTING_HOOK = """
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

@HOOKS.register_module()
class NotingHook(Hook):
    def before_run(self, runner):
        self.images = []
    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.images += [sample.img_id for sample in data_batch['data_samples']]
    def after_train(self, runner):
        weights = {name: value.detach().clone() for name, value in runner.model.module.named_parameters()}
        torch.save({'weights': weights, 'images': self.images}, f'rank{get_rank()}.pt')
"""


@pytest.fixture(scope='module')
def notes(quickstart: Path) -> list[dict[str, object]]:
    """What each of two training processes saw and ended with."""
    (quickstart / 'noting.py').write_text(NOTING_HOOK)
    (quickstart / 'two.py').write_text(
        f'_base_ = {str(CONFIG)!r}\n'
        "custom_imports = dict(imports=['hierseg.registry', 'noting'])\n"
        "custom_hooks = [dict(type='NotingHook')]\n"
        # Within a pass of a stream no image comes twice.
        "train_dataloader = dict(batch_size=4, sampler=dict(_delete_=True, type='hierseg.StreamSampler'),\n"
        '    batch_sampler=dict(iterations=3))\n'
        'train_cfg = dict(max_epochs=1, val_interval=9)\n'
    )
    environment = {'PORT': free_port(), 'PYTHONPATH': str(quickstart)}
    run('bash', TOOLS / 'dist_train.sh', 'two.py', '2', cwd=quickstart, **environment)
    return [torch.load(quickstart / f'rank{rank}.pt', weights_only=True) for rank in (0, 1)]


@pytest.mark.slow
@pytest.mark.distributed
class TestTwoProcessesOnTheCpu:
    def test_see_different_images(self, notes: list[dict[str, list[str]]]) -> None:
        first, second = ({*note['images']} for note in notes)
        assert first
        assert second
        assert not first & second

    def test_end_with_the_same_weights(self, notes: list[dict[str, dict[str, torch.Tensor]]]) -> None:
        # Different images and no exchange of gradients would give different weights.
        first, second = (note['weights'] for note in notes)
        assert first.keys() == second.keys()
        assert [name for name in first if not torch.equal(first[name], second[name])] == []

    def test_score_as_one_process_does(self, quickstart: Path, checkpoint: str) -> None:
        command = ['bash', TOOLS / 'dist_test.sh', CONFIG, checkpoint, '2', '--work-dir', 'two-test']
        run(*command, cwd=quickstart, PORT=free_port())
        alone, together = (
            json.loads((quickstart / folder / 'results.json').read_text())
            for folder in ('work_dirs/quickstart/hier_e2e', 'two-test')
        )
        assert together == pytest.approx(alone, rel=1e-6)


class TestPreparation:
    def test_on_a_cpu_the_wrapper_names_no_device(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
        monkeypatch.setattr(torch.distributed, 'is_initialized', lambda: True)
        config = load_config(CONFIG, launcher='pytorch', options={'find_unused_parameters': True})
        prepare_distributed(config)
        assert config.model_wrapper_cfg.to_dict() == {
            'type': 'MMDistributedDataParallel',
            'broadcast_buffers': False,
            'find_unused_parameters': True,
            'device_ids': None,
        }
        # A config may name its own wrapper.
        config = load_config(CONFIG, launcher='pytorch', options={'model_wrapper_cfg': {'type': 'Own', 'x': 1}})
        prepare_distributed(config)
        assert config.model_wrapper_cfg.type == 'Own'
        assert config.model_wrapper_cfg.x == 1
        assert config.model_wrapper_cfg.device_ids is None

    def test_on_gpus_nothing_changes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
        config = load_config(CONFIG, launcher='pytorch')
        prepare_distributed(config)
        assert 'model_wrapper_cfg' not in config
        assert not torch.distributed.is_initialized()

    def test_other_launchers_need_gpus(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
        with pytest.raises(ConfigError, match="launcher 'slurm' needs GPUs"):
            prepare_distributed(load_config(CONFIG, launcher='slurm'))

    def test_the_work_dir_is_named_after_the_config(self, tmp_path: Path) -> None:
        assert load_config(CONFIG).work_dir == './work_dirs/hier_e2e'
        assert load_config(CONFIG, work_dir=tmp_path).work_dir == str(tmp_path)
        assert load_config(CONFIG, options={'work_dir': 'of the config'}).work_dir == 'of the config'

    def test_a_config_that_builds_on_a_missing_one_is_named(self, tmp_path: Path) -> None:
        (tmp_path / 'child.py').write_text("_base_ = 'nowhere.py'\n")
        with pytest.raises(
            ConfigError, match=r'child\.py, line 1: the config builds on .*nowhere\.py, which does not exist'
        ):
            load_config(tmp_path / 'child.py')


def test_coco_results_are_of_the_tested_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configs: list[Config] = []
    monkeypatch.setattr('hierseg.apis.runner.build_runner', lambda config: configs.append(config) or _Done())
    evaluate(CONFIG, str(CONFIG), work_dir=tmp_path, coco_results='results.json')
    *_, writer = configs[0].test_evaluator
    store = configs[0].test_dataloader.dataset.store
    assert dict(writer) == {'type': 'hierseg.CocoResults', 'store': store, 'out_file': 'results.json'}
    twice = {'datasets': [{'store': 'a'}, {'store': 'b'}]}
    with pytest.raises(ConfigError, match='of one store, the test data have 3'):
        evaluate(CONFIG, str(CONFIG), work_dir=tmp_path, coco_results='r.json', options={'test_dataloader.more': twice})


def test_scores_that_are_no_number_are_null(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('hierseg.apis.runner.build_runner', lambda config: _Done())
    evaluate(CONFIG, str(CONFIG), work_dir=tmp_path)
    assert json.loads((tmp_path / 'results.json').read_text()) == {'mAP': 0.25, 'mAP_layer1': None}


class _Done:
    """A runner that has nothing left to do."""

    def test(self) -> dict[str, float]:
        return {'mAP': 0.25, 'mAP_layer1': math.nan}


class TestCheckpointsOfStrangers:
    @pytest.fixture
    def hostile(self, tmp_path: Path) -> Path:
        """A checkpoint that makes a folder when it is unpickled without care."""
        torch.save({'state_dict': {}, 'meta': _Hostile(tmp_path / 'made')}, tmp_path / 'hostile.pth')
        return tmp_path / 'hostile.pth'

    def test_cannot_run_code(self, hostile: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr('hierseg.apis.runner.build_runner', lambda config: _Loading(config.load_from))
        monkeypatch.setenv('TORCH_FORCE_WEIGHTS_ONLY_LOAD', '0')
        # Only what says yes switches the safe mode off.
        for value in ('', '0', 'no', 'off', '2'):
            monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', value)
            with pytest.raises(ConfigError) as caught:
                evaluate(CONFIG, str(hostile))
            message = str(caught.value)
            assert message.startswith(f'{hostile}: the checkpoint cannot be loaded safely: it holds posix.mkdir, ')
            assert 'weights_only=False' in message
            assert '\x1b' not in message
            assert os.environ['TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD'] == value
        assert not (hostile.parent / 'made').exists()

    @pytest.mark.parametrize('value', ['1', 'YES', 'true', ' on '])
    def test_load_when_they_are_trusted(self, hostile: Path, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
        said: list[str] = []
        monkeypatch.setattr('hierseg.engine.checkpoint_files.print_log', lambda text, *_: said.append(text))
        monkeypatch.setattr('hierseg.engine.checkpoint_files._said', set())
        monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', value)
        monkeypatch.setenv('TORCH_FORCE_WEIGHTS_ONLY_LOAD', '1')
        with safe_loading():
            _Loading(str(hostile)).test()
        assert (hostile.parent / 'made').exists()
        (hostile.parent / 'made').rmdir()
        with safe_loading():
            _Loading(str(hostile)).test()
        assert len(said) == 1
        assert 'can run code' in said[0]


class _Hostile:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.folder),)


class _Loading:
    """A runner whose test is only to load its checkpoint, as MMEngine's does."""

    def __init__(self, checkpoint: str) -> None:
        self.checkpoint = checkpoint

    def test(self) -> None:
        from mmengine.runner.checkpoint import _load_checkpoint

        _load_checkpoint(self.checkpoint, map_location='cpu')
