"""A training that meets a loss or weights that are NaN or infinite: what it says, and what it leaves."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from stub_training import StubModel, alone_settings, layerwise_settings, make_runner, optimizer

from hierseg.engine import FiniteLossHook
from hierseg.engine.finite import _images
from hierseg.errors import TrainingError
from hierseg.registry import MODELS

FINITE = dict(type='hierseg.FiniteLossHook')


@MODELS.register_module()
class StubPoisoned(StubModel):
    """Has a loss that is not finite, from its fifth step on, in one of its two forms."""

    def __init__(self, value: float = math.nan) -> None:
        super().__init__()
        self.value, self.steps = value, 0

    def forward(self, inputs: Any, data_samples: Any, mode: str = 'tensor') -> dict[str, Any]:
        losses: dict[str, Any] = super().forward(inputs, data_samples, mode)
        self.steps += self.training
        bad = self.linear.weight.sum() * (self.value if self.steps >= 5 and self.training else 0.0)
        return {**losses, 'loss_b': [losses['loss_a'] * 0, bad]}


class Noting(Hook):
    """Keeps the weights before every step."""

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        self.images = [str(index) for index in data_batch['data_samples']]
        self.weights = {name: value.detach().clone() for name, value in runner.model.named_parameters()}


@pytest.mark.parametrize('value', [math.nan, math.inf])
@pytest.mark.parametrize('accumulated', [1, 3])
def test_stops_before_weights_take_the_loss(value: float, accumulated: int, tmp_path: Path) -> None:
    settings = alone_settings('layer0') | dict(
        model=dict(type='hierseg.StubPoisoned', value=value),
        optim_wrapper=dict(**optimizer(0.01), accumulative_counts=accumulated),
    )
    noting = Noting()
    runner = make_runner(settings, tmp_path, custom_hooks=[FINITE])
    runner.register_hook(noting, priority='LOWEST')
    with pytest.raises(TrainingError) as caught:
        runner.train()
    message = str(caught.value)
    assert message.startswith('iteration 5: the loss is not finite (loss_a ')
    assert re.search(r'loss_b nan\)' if math.isnan(value) else r'loss_b -?inf\)', message)
    assert f'on the images {", ".join(noting.images)}. ' in message
    assert all(torch.equal(value, noting.weights[name]) for name, value in runner.model.named_parameters())
    # Epochs have three steps.
    assert [path.name for path in tmp_path.glob('*.pth')] == ['epoch_1.pth']


def test_layers_are_watched_alike(tmp_path: Path) -> None:
    settings = layerwise_settings()
    runner = make_runner(settings, tmp_path, custom_hooks=[FINITE])

    class Breaking(Hook):
        def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
            if runner.iter == 7:  # the second step of layer 1
                data_batch['inputs'][0][0] = math.inf

    runner.register_hook(Breaking())
    with pytest.raises(TrainingError, match=r'iteration 8: the loss is not finite \(loss_a nan\)'):
        runner.train()


def test_weights_that_are_not_finite_are_never_written(tmp_path: Path) -> None:
    class Breaking(Hook):
        """As a step from another process's loss would."""

        def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
            if runner.iter == 5:  # the last step of the second epoch
                runner.model.linear.weight.data.fill_(math.nan)

    runner = make_runner(alone_settings('layer0'), tmp_path, custom_hooks=[FINITE])
    runner.register_hook(Breaking())
    with pytest.raises(TrainingError, match=r'no checkpoint is written: 1 of 4 tensors .*linear\.weight'):
        runner.train()
    assert (tmp_path / 'last_checkpoint').read_text().endswith('epoch_1.pth')
    assert [path.name for path in tmp_path.glob('*.pth')] == ['epoch_1.pth']


def test_a_sound_training_is_left_alone(tmp_path: Path) -> None:
    weights = []
    for hooks in ([], [FINITE]):
        runner = make_runner(alone_settings('layer0'), tmp_path / str(len(hooks)), custom_hooks=hooks)
        runner.train()
        weights.append(runner.model.state_dict())
    assert any(isinstance(hook, FiniteLossHook) for hook in runner.hooks)
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_many_images_are_cut_short() -> None:
    names = [*_images({'data_samples': list(range(40))})]
    assert len(names) == 17
    assert names[-1] == '…'
    assert [*_images(None)] == []
