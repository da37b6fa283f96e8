"""Layer 0 of the stub has 2 epochs of 3 iterations, layer 1 has 3 epochs of 2: 5 epochs, 12 iterations."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.runner.checkpoint import get_torch_safe_globals
from stub_training import alone_settings, layerwise_settings, make_runner

from hierseg.apis import train
from hierseg.engine import LayerwiseHook, trained_parts
from hierseg.errors import ConfigError
from hierseg.registry import METRICS

ROOT = Path(__file__).parents[2]


class Noting(Hook):
    """Notes where the runner stands, and the weights, at every step."""

    def __init__(self) -> None:
        self.steps: list[tuple[str, int, int, int, int]] = []
        self.rates: list[tuple[float, float]] = []
        self.weights: list[dict[str, torch.Tensor]] = []

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        loop = runner.train_loop
        self.steps.append((loop.layer.name, runner.epoch, runner.iter, loop.layer_iter, batch_idx))
        rates = runner.optim_wrapper.get_lr()
        self.rates.append((rates['layer0.lr'][0], rates['layer1.lr'][0]))
        self.weights.append(copy.deepcopy(runner.model.state_dict()))

    def after_train(self, runner: Runner) -> None:
        self.weights.append(copy.deepcopy(runner.model.state_dict()))


def scalars(folder: Path) -> list[dict[str, Any]]:
    (file,) = folder.glob('*/vis_data/scalars.json')
    return [json.loads(line) for line in file.read_text().splitlines()]


def settings_with(**changes: Any) -> dict[str, Any]:
    settings = layerwise_settings()
    settings.update(changes)
    return settings


@pytest.fixture(scope='module')
def noted(tmp_path_factory: pytest.TempPathFactory) -> Noting:
    noting = Noting()
    make_runner(layerwise_settings(), tmp_path_factory.mktemp('noted'), custom_hooks=[noting]).train()
    return noting


def test_each_layer_takes_its_own_iterations_one_after_the_other(noted: Noting) -> None:
    assert noted.steps == [
        ('layer0', 0, 0, 0, 0), ('layer0', 0, 1, 1, 1), ('layer0', 0, 2, 2, 2),
        ('layer0', 1, 3, 3, 0), ('layer0', 1, 4, 4, 1), ('layer0', 1, 5, 5, 2),
        ('layer1', 2, 6, 0, 0), ('layer1', 2, 7, 1, 1),
        ('layer1', 3, 8, 2, 0), ('layer1', 3, 9, 3, 1),
        ('layer1', 4, 10, 4, 0), ('layer1', 4, 11, 5, 1),
    ]  # fmt: skip


def test_every_loop_tells_what_it_trains(finished: Runner, tmp_path: Path) -> None:
    assert [(part.name, part.epoch, part.iteration, part.in_training) for part in trained_parts(finished)] == [
        ('layer0', 2, 6, False), ('layer1', 3, 6, True),
    ]  # fmt: skip
    assert [part.model for part in trained_parts(finished)] == [finished.model.layer0, finished.model.layer1]
    runner = make_runner(alone_settings('layer0'), tmp_path)
    assert trained_parts(runner) == []
    runner.train()
    (whole,) = trained_parts(runner)
    assert whole == ('', runner.model, runner.train_dataloader, 2, 6, True)


def test_only_the_layer_in_training_changes(noted: Noting) -> None:
    for step, before, after in zip(noted.steps, noted.weights[:-1], noted.weights[1:], strict=True):
        changed = {name.split('.')[0] for name in before if not torch.equal(before[name], after[name])}
        assert changed == {step[0]}


def test_schedules_begin_with_their_layer(noted: Noting) -> None:
    # From 0.01 and 0.02: half at the first iteration (LinearLR), a tenth after the first epoch (MultiStepLR).
    layer0 = [(0.005, 0.01), (0.01, 0.01), (0.01, 0.01), *[(0.001, 0.01)] * 3]
    layer1 = [(0.001, 0.01), (0.001, 0.02), *[(0.001, 0.002)] * 4]
    assert noted.rates == [pytest.approx(rates) for rates in layer0 + layer1]


def test_a_schedule_without_an_end_has_the_length_of_its_layer(tmp_path: Path) -> None:
    cosine = dict(type='CosineAnnealingLR', by_epoch=True, begin=0, convert_to_iter_based=True)
    noting = Noting()
    schedules = {'layer0': [cosine], 'layer1': [cosine]}
    make_runner(settings_with(param_scheduler=schedules), tmp_path, custom_hooks=[noting]).train()
    # Both layers have 6 iterations, half of all.
    expected = [0.5 * (1 + torch.cos(torch.tensor(torch.pi * step / 6)).item()) for step in range(6)]
    assert [rates[0] / 0.01 for rates in noted_layer(noting, 'layer0')] == pytest.approx(expected)
    assert [rates[1] / 0.02 for rates in noted_layer(noting, 'layer1')] == pytest.approx(expected)


def noted_layer(noting: Noting, name: str) -> list[tuple[float, float]]:
    return [rates for step, rates in zip(noting.steps, noting.rates, strict=True) if step[0] == name]


@pytest.mark.parametrize('name', ['layer0', 'layer1'])
def test_a_layer_ends_as_if_it_were_trained_alone(finished: Runner, name: str, tmp_path: Path) -> None:
    alone = make_runner(alone_settings(name), tmp_path).train()
    layer = getattr(finished.model, name)
    assert alone.seen == layer.seen
    assert [*map(tuple, alone.state_dict())] == [*map(tuple, layer.state_dict())]
    for name, tensor in alone.state_dict().items():
        assert torch.equal(tensor, layer.state_dict()[name]), name


def test_another_seed_gives_other_weights(finished: Runner, tmp_path: Path) -> None:
    other = make_runner(layerwise_settings(), tmp_path, seed=4).train()
    assert other.layer0.seen != finished.model.layer0.seen
    assert not torch.equal(other.layer1.linear.weight, finished.model.layer1.linear.weight)


def test_losses_are_logged_by_layer(finished: Runner) -> None:
    entries = [entry for entry in scalars(Path(finished.work_dir)) if 'loss' in entry]
    assert len(entries) == 12
    for entry in entries:
        here, other = ('layer0', 'layer1') if entry['iter'] <= 6 else ('layer1', 'layer0')
        assert entry['loss'] == entry[f'{here}/loss'] == entry[f'{here}/loss_a']
        assert f'{here}/acc' in entry
        # A layer that is done does not go on in the log.
        assert not any(key.startswith(f'{other}/') for key in entry)


def test_one_checkpoint_of_the_whole(finished: Runner) -> None:
    path = Path(finished.work_dir) / 'epoch_5.pth'
    with torch.serialization.safe_globals(get_torch_safe_globals()):
        checkpoint = torch.load(path, weights_only=True)
    assert checkpoint['state_dict'].keys() == finished.model.state_dict().keys()
    assert checkpoint['optimizer'].keys() == checkpoint['param_schedulers'].keys() == {'layer0', 'layer1'}
    # The runner alone would have written the last layer's classes.
    assert [*checkpoint['meta']['dataset_meta']['classes']] == ['Whole', 'Part']
    assert (checkpoint['meta']['epoch'], checkpoint['meta']['iter']) == (5, 12)


def test_weights_have_the_names_of_unwrapped_layers(finished: Runner) -> None:
    # As MMSeparateDistributedDataParallel would have it.
    weights = {'layer0.module.linear.weight': 1, 'layer1.module.norm.bias': 2, 'other.module.x': 3}
    checkpoint = {'state_dict': weights, 'meta': {'epoch': 1}}
    LayerwiseHook().before_save_checkpoint(finished, checkpoint)
    assert weights == {'layer0.linear.weight': 1, 'layer1.norm.bias': 2, 'other.module.x': 3}


def test_learning_rates_scale_with_the_batch(tmp_path: Path) -> None:
    noting = Noting()
    runner = make_runner(
        layerwise_settings(),
        tmp_path,
        custom_hooks=[noting],
        param_scheduler=None,
        auto_scale_lr=dict(enable=True, base_batch_size=1),
    )
    runner.train()
    assert noting.rates[0] == pytest.approx((0.02, 0.04))


@METRICS.register_module()
class StubMetric(BaseMetric):
    """Counts the images."""

    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.results += [*data_samples]

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        return {'images': len(results)}


def test_the_whole_is_evaluated_once_when_all_layers_are_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluated_at = []
    runner = make_runner(
        layerwise_settings(),
        tmp_path,
        val_cfg={},
        val_dataloader=dict(
            dataset=dict(type='hierseg.StubNumbers', size=4, name='val'),
            sampler=dict(type='DefaultSampler', shuffle=False),
        ),
        val_evaluator=dict(type='hierseg.StubMetric'),
    )

    def step(data: dict[str, Any]) -> list[Any]:
        evaluated_at.append(runner.iter)
        return data['data_samples']

    monkeypatch.setattr(runner.model, 'val_step', step, raising=False)
    runner.train()
    assert evaluated_at == [12] * 4
    assert runner.message_hub.get_scalar('val/images').current() == 4


def broken(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    """Settings with something wrong at a place; ``None`` takes it away."""
    settings = copy.deepcopy(layerwise_settings())
    at = settings
    for key in path[:-1]:
        at = at[key]
    if value is None:
        del at[path[-1]]
    else:
        at[path[-1]] = value
    return settings


@pytest.mark.parametrize(
    ('path', 'value', 'message'),
    [
        (('hooks', 'param_scheduler'), None, "default_hooks=dict\\(param_scheduler=dict\\(type='hierseg.LayerwiseHook"),
        (('train_dataloader', 'layer1'), None, 'train_dataloader has no dataset for layer1'),
        (('train_dataloader', 'layer1', 'batch_size'), 3, 'Set batch_size once'),
        (('train_cfg', 'max_epochs', 'layer1'), 0, 'layer1 must be trained for an epoch at least'),
        (('optim_wrapper', 'layer1'), None, 'optim_wrapper has no layer1'),
        (('optim_wrapper', 'layer2'), {'optimizer': {}}, 'the model has no part layer2'),
        (('optim_wrapper', 'paramwise_cfg'), {'bias_lr_mult': 2.0}, 'paramwise_cfg belongs into the config of a layer'),
        (('param_scheduler', 'layer1'), None, r"with the keys \['layer0', 'layer1'\]"),
        (('validation', 'layer1'), None, 'dataloader has no dataset for layer1'),
    ],
)
def test_clear_errors(path: tuple[str, ...], value: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        make_runner(broken(path, value), tmp_path).train()


def test_the_hook_needs_the_loop(tmp_path: Path) -> None:
    settings = alone_settings('layer0') | {'hooks': {'param_scheduler': dict(type='hierseg.LayerwiseHook')}}
    with pytest.raises(ConfigError, match='LayerwiseHook needs a LayerwiseTrainLoop'):
        make_runner(settings, tmp_path).train()


@pytest.mark.parametrize(('name', 'wrappers'), [('hier_e2e', [()]), ('two_layer_ensemble', [('layer0',), ('layer1',)])])
def test_mixed_precision_is_each_optimisers_own(
    name: str, wrappers: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[Config] = []
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr('hierseg.apis.runner.build_runner', lambda config: built.append(config) or StubRunner())
    train(ROOT / f'configs/{name}.py', amp=True)
    for path in wrappers:
        settings = built[0].optim_wrapper
        for key in path:
            settings = settings[key]
        assert (settings.type, settings.loss_scale) == ('AmpOptimWrapper', 'dynamic')
        assert settings.optimizer.type == 'SGD'


class StubRunner:
    def train(self) -> None:
        """Nothing."""
