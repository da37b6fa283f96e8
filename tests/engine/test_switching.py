"""A run of two stages, with mosaics and without, killed in either and at the switch: it ends as if nothing happened."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import EMAHook
from mmengine.model import ExponentialMovingAverage
from tiny_runs import killed_here, last_checkpoint, tiny, train_here
from torch import Tensor, nn

from hierseg.engine import ExactResumeHook, resuming

__all__ = ['tiny']


@pytest.fixture(scope='module', autouse=True)
def _quick() -> Iterator[None]:
    """MMEngine formats the config anew for every checkpoint, which takes longer than an epoch here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Config, 'pretty_text', property(lambda config: repr(config.to_dict())))
        yield


@pytest.fixture(scope='module')
def uninterrupted(tiny: Path) -> dict[str, Any]:
    """The last checkpoint of a run without workers."""
    return last_checkpoint(train_here('mixing.py', 'mixing', cwd=tiny))


@pytest.mark.slow
@pytest.mark.parametrize('config', ['mixing.py', 'mixing_with_workers.py'])
def test_killed_before_at_and_after_the_switch(tiny: Path, uninterrupted: dict[str, Any], config: str) -> None:
    folder = f'killed-{config}'
    # Killed before the checkpoint of that iteration is written. The run goes on from 3 of 8 iterations, within an epoch
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
