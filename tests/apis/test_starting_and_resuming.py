"""What a training starts from: `load_from` of the config, a checkpoint to resume, weights of a server, or nothing."""

from __future__ import annotations

import json
import os
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.hooks import IterTimerHook
from mmengine.logging import HistoryBuffer

from hierseg.apis import train
from hierseg.apis.configs import load_config
from hierseg.apis.runner import build_runner
from hierseg.engine.checkpoint_files import read_checkpoint_file
from hierseg.engine.hooks import ClassCountHook, ValidationLossHook
from hierseg.errors import ConfigError, OutputError
from hierseg.files import make_folder
from hierseg.locks import locked
from hierseg.report.visualizer import HierLocalVisualizer
from hierseg.synthetic import default_taxonomy

QUICKSTART = Path(__file__).parents[2] / 'configs/quickstart/hier_e2e.py'


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / 'config.py'
    path.write_text("load_from = 'coco.pth'\n")
    return path


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the runner would be built from."""
    found: dict[str, Any] = {}

    def build(config: Any) -> Any:
        found.update(resume=config.get('resume', False), load_from=config.load_from)
        return SimpleNamespace(train=lambda: None)

    monkeypatch.setattr('hierseg.apis.runner.build_runner', build)
    return found


def test_a_run_without_checkpoint_begins_from_load_from(config: Path, settled: dict[str, Any], tmp_path: Path) -> None:
    for resume in (None, 'auto'):
        train(config, work_dir=tmp_path / 'work', resume=resume)
        assert settled == {'resume': False, 'load_from': 'coco.pth'}


def test_a_run_removes_what_a_killed_one_left(config: Path, settled: dict[str, Any], tmp_path: Path) -> None:
    logs = tmp_path / 'work/20260101_000000'
    logs.mkdir(parents=True)
    for folder in (logs, logs.parent):
        (folder / '.hierseg-0123456789abcdef.partial').touch()
        (folder / 'notes.partial').touch()
    train(config, work_dir=logs.parent)
    assert [sorted(path.name for path in folder.iterdir()) for folder in (logs, logs.parent)] == [
        ['notes.partial'],
        ['20260101_000000', 'notes.partial'],
    ]


def test_a_run_with_a_checkpoint_goes_on_from_it(config: Path, settled: dict[str, Any], tmp_path: Path) -> None:
    checkpoint = tmp_path / 'epoch_1.pth'
    checkpoint.touch()
    (tmp_path / 'last_checkpoint').write_text(str(checkpoint))
    train(config, work_dir=tmp_path, resume='auto')
    assert settled == {'resume': True, 'load_from': str(checkpoint)}
    train(config, work_dir=tmp_path, resume=str(checkpoint))
    assert settled == {'resume': True, 'load_from': str(checkpoint)}


def test_a_second_training_in_a_work_directory_is_told_so(
    config: Path, settled: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with locked(make_folder(tmp_path / 'work')):
        before = {path.name for path in (tmp_path / 'work').iterdir()}
        with pytest.raises(OutputError, match=rf'work: another run writes here \(process {os.getpid()} on .* since 20'):
            train(config, work_dir=tmp_path / 'work')
        assert settled == {}
        assert {path.name for path in (tmp_path / 'work').iterdir()} == before
        # Of several processes the first one has the lock.
        monkeypatch.setenv('RANK', '1')
        train(config, work_dir=tmp_path / 'work', launcher='pytorch')
    train(config, work_dir=tmp_path / 'work')
    assert list((tmp_path / 'work').iterdir()) == []


def test_the_safe_mode_knows_what_mmengine_puts_into_checkpoints(tmp_path: Path) -> None:
    path = tmp_path / 'epoch_1.pth'
    torch.save({'log': HistoryBuffer([1.0], [1]), 'number': np.float64(1)}, path)
    assert read_checkpoint_file(path)['number'] == 1


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What of the quickstart's config depends on its data."""
    # MMEngine would give a later run the visualizer of this one.
    monkeypatch.setattr(HierLocalVisualizer, '_instance_dict', OrderedDict())
    (tmp_path / 'taxonomy.json').write_text(json.dumps(default_taxonomy().to_json()))
    return {'model.roi_head.bbox_head.loss_cls.taxonomy': str(tmp_path / 'taxonomy.json')}


def test_hooks_that_are_none_are_left_out(options: dict[str, Any], tmp_path: Path) -> None:
    # The second is MMEngine's own, which leaves it out itself.
    left_out = {'default_hooks.validation_loss': None, 'default_hooks.timer': None}
    for changes, expected in (({}, True), (left_out, False)):
        runner = build_runner(load_config(QUICKSTART, options=options | changes, work_dir=tmp_path))
        for hook in (ValidationLossHook, IterTimerHook):
            assert any(isinstance(each, hook) for each in runner.hooks) == expected
        assert any(isinstance(each, ClassCountHook) for each in runner.hooks)


@pytest.mark.parametrize(
    ('head', 'message'),
    [('rpn_head', 'RPNHead does not ask its loss'), ('roi_head.bbox_head', 'unknown option use_sigmoid. Add _delete_')],
)
def test_a_loss_that_does_not_fit_its_head_is_refused(
    options: dict[str, Any], head: str, message: str, tmp_path: Path
) -> None:
    loss = dict(type='hierseg.HierarchicalLoss', use_sigmoid=False)
    with pytest.raises(ConfigError, match=message):
        build_runner(load_config(QUICKSTART, options=options | {f'model.{head}.loss_cls': loss}, work_dir=tmp_path))


def test_weights_that_cannot_be_fetched_are_named(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'hub'))
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    (tmp_path / 'hub/hub/checkpoints').mkdir(parents=True)
    (tmp_path / 'hub/hub/checkpoints/here.pth').touch()
    options |= {
        'model.backbone.init_cfg': dict(_delete_=True, type='Pretrained', checkpoint='http://127.0.0.1:9/resnet18.pth'),
        'load_from': 'http://127.0.0.1:9/here.pth',
    }

    def without_data(config: Any) -> Any:
        # MMEngine initialises the weights after it has opened the data.
        return SimpleNamespace(train=build_runner(config).model.init_weights)

    monkeypatch.setattr('hierseg.apis.runner.build_runner', without_data)
    with pytest.raises(ConfigError) as caught:
        train(QUICKSTART, options=options, work_dir=tmp_path / 'work')
    message = str(caught.value)
    assert message.startswith('http://127.0.0.1:9/resnet18.pth: the weights cannot be fetched: ')
    assert f'Copy the file into {tmp_path}/hub/hub/checkpoints, ' in message
    assert 'train without: init_cfg=None' in message
    assert 'here.pth' not in message
    assert '\n' not in message
