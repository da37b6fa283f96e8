"""Runs of two stages, with mosaics and without: by the commands; killed in either stage and at the switch."""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import EMAHook
from mmengine.model import ExponentialMovingAverage
from tiny_runs import killed_here, last_checkpoint, train_here
from torch import Tensor, nn

from hierseg.__main__ import main
from hierseg.engine import ExactResumeHook, resuming
from hierseg.report import HierLocalVisualizer


@pytest.fixture(scope='module', autouse=True)
def _quick() -> Iterator[None]:
    """MMEngine formats the config anew for every checkpoint, which takes longer than an epoch here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Config, 'pretty_text', property(lambda config: repr(config.to_dict())))
        yield


@pytest.fixture(scope='module')
def uninterrupted(tiny: Path) -> dict[str, Any]:
    """The last checkpoint of a run without workers."""
    return last_checkpoint(train_here('real_time.py', 'real_time', cwd=tiny))


@pytest.mark.slow
@pytest.mark.parametrize('config', ['real_time.py', 'real_time_with_workers.py'])
def test_killed_before_at_and_after_the_switch(tiny: Path, uninterrupted: dict[str, Any], config: str) -> None:
    folder = f'killed-{config}'
    # Killed before the checkpoint of that iteration is written. The run goes on from 3 of 6 iterations, within an epoch
    # of mosaics; from 4, the switch; and from 5, within the first epoch behind it.
    for iteration in (4, 5, 6):
        killed_here(config, folder, cwd=tiny, kill_after=iteration)
    resumed = last_checkpoint(train_here(config, folder, cwd=tiny))
    logs = [file.read_text() for file in sorted((tiny / folder).glob('*/*.log'))]
    assert [log.count('Switch pipeline now!') for log in logs] == [0, 1, 1, 1]
    assert [re.findall('resumed epoch: ., iter: (.)', log) for log in logs] == [[], ['3'], ['4'], ['5']]
    for key in ('state_dict', 'ema_state_dict', 'optimizer'):
        torch.testing.assert_close(resumed[key], uninterrupted[key], rtol=0, atol=0)
    assert resumed['param_schedulers'] == uninterrupted['param_schedulers']
    # They would be equal, too, if nothing were averaged.
    (name,) = [name for name in resumed['state_dict'] if name.endswith('stem.0.conv.weight')]
    assert not torch.equal(resumed['state_dict'][name], resumed['ema_state_dict'][f'module.{name}'])


def test_processes_share_the_buffers_of_an_averaged_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def halve(buffer: Tensor, op: str) -> None:
        assert op == 'mean'
        buffer /= 2  # as if the other process had zeros

    monkeypatch.setattr(resuming, 'is_distributed', lambda: True)
    monkeypatch.setattr(resuming, 'all_reduce', halve)
    model = nn.BatchNorm1d(1)
    ema = EMAHook()
    ema.ema_model = ExponentialMovingAverage(model, update_buffers=True)
    model.running_mean.fill_(4.0)
    ema.ema_model.module.running_mean.fill_(6.0)
    monkeypatch.setattr(resuming, 'part_in_training', lambda runner: SimpleNamespace(model=model))
    ExactResumeHook().after_train_epoch(SimpleNamespace(hooks=[ema], train_loop=None))
    assert (model.running_mean.item(), ema.ema_model.module.running_mean.item()) == (2.0, 3.0)


SHRUNK = [
    'model.backbone.init_cfg=None', 'model.bbox_head.num_classes=22',
    'train_dataloader.batch_size=2', 'train_dataloader.dataset.indices=4',
    'train_dataloader.num_workers=0', 'train_dataloader.persistent_workers=False',
    'train_dataloader.dataset.pipeline.2.img_scale=(160,160)',
    'train_dataloader.dataset.pipeline.3.scale=(320,320)', 'train_dataloader.dataset.pipeline.3.crop_size=(160,160)',
    'train_dataloader.dataset.pipeline.6.size=(160,160)', 'train_dataloader.dataset.pipeline.7.img_scale=(160,160)',
    'custom_hooks.1.switch_epoch=1',
    'custom_hooks.1.switch_pipeline.2.scale=(160,160)', 'custom_hooks.1.switch_pipeline.2.crop_size=(160,160)',
    'custom_hooks.1.switch_pipeline.6.size=(160,160)',
    'train_cfg.max_epochs=2', 'train_cfg.dynamic_intervals=None',
    'param_scheduler.1.begin=1', 'param_scheduler.1.end=2', 'param_scheduler.1.T_max=1',
    'default_hooks.validation_loss.num_batches=1', 'default_hooks.validation_loss.dataloader.batch_size=2',
    'default_hooks.validation_loss.dataloader.num_workers=0',
    'default_hooks.validation_loss.dataloader.persistent_workers=False',
    'default_hooks.validation_loss.dataloader.dataset.pipeline.2.scale=(160,160)',
    'default_hooks.validation_loss.dataloader.dataset.pipeline.3.size=(160,160)',
    'val_dataloader=None', 'val_cfg=None', 'val_evaluator=None',
    'test_dataloader.num_workers=0', 'test_dataloader.persistent_workers=False',
    'test_dataloader.dataset.pipeline.1.scale=(160,160)',
]  # fmt: skip


@pytest.mark.slow
def test_the_smallest_model_trains_in_two_stages_and_is_tested(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tiny)
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '-1')
    monkeypatch.setenv('LOCAL_RANK', '0')
    monkeypatch.setattr('sys.argv', ['hierseg'])
    monkeypatch.setattr(HierLocalVisualizer, '_instance_dict', OrderedDict())
    threads = torch.get_num_threads()
    try:
        main(['train', 'hierseg::hier_rtmdet_tiny.py', '--work-dir=real', '--cfg-options', *SHRUNK])
        checkpoint = last_checkpoint(tiny / 'real')
        assert 'ema_state_dict' in checkpoint
        (log,) = (tiny / 'real').glob('*/*.log')
        assert 'Switch pipeline now!' in log.read_text()
        (scalars,) = (tiny / 'real').glob('*/vis_data/scalars.json')
        losses = [json.loads(line) for line in scalars.read_text().splitlines()]
        assert [entry['iter'] for entry in losses if 'val/loss' in entry] == [2, 4]
        path = (tiny / 'real/last_checkpoint').read_text()
        main(['test', 'hierseg::hier_rtmdet_tiny.py', path, '--work-dir=tested', '--cfg-options', *SHRUNK])
    finally:
        torch.set_num_threads(threads)
    scores = json.loads((tiny / 'tested/results.json').read_text())
    assert scores['segm/num_classes_evaluated'] > 10
