"""The check of class counts, and the validation loss."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmengine.visualization import LocalVisBackend
from stub_training import alone_settings, layerwise_settings, make_runner, numbers
from tiny_models import tiny_model
from torch import Tensor, nn

from hierseg.engine.hooks import mean_loss, unchanged
from hierseg.errors import ConfigError
from hierseg.registry import MODELS


@MODELS.register_module()
class StubProduct(BaseModel):
    """The loss is the number of the image times a weight that training does not change (its gradient is zero)."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(2.0))
        self.batches: list[list[int]] = []

    def forward(self, inputs: list[Tensor], data_samples: list[int], mode: str = 'tensor') -> dict[str, Tensor]:
        if not self.training:
            self.batches.append([int(index) for index in data_samples])
        loss = torch.stack(inputs)[:, 0].mean() * self.weight.detach()
        # The log has the first alone as a loss of training; the mean is of the sum, as training minimises it.
        return {'loss_a': loss, 'loss_b': loss + 0 * self.weight, 'acc': loss}


def product_settings(size: int) -> dict[str, Any]:
    settings = alone_settings('layer0')
    settings['model'] = dict(type='hierseg.StubProduct')
    settings['validation']['dataset'] = numbers(size, 'val')
    return settings


def logged(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for file in folder.glob('*/vis_data/scalars.json') for line in file.open()]
    return [line for line in lines if any(key.startswith('val/') for key in line)]


def test_is_the_mean_loss_of_the_images(tmp_path: Path) -> None:
    # 2 batches of 2 are one pass over 4 images: the mean number is 1.5, times the weight 2, in two losses: 6.
    runner = make_runner(product_settings(4), tmp_path)
    runner.train()
    assert logged(tmp_path) == [
        {'val/loss': 6.0, 'epoch': 1, 'iter': 3, 'step': 3},
        {'val/loss': 6.0, 'epoch': 2, 'iter': 6, 'step': 6},
    ]
    # LoggerHook's own file has it, too.
    (file,) = (path for path in tmp_path.glob('*/vis_data/*.json') if path.name != 'scalars.json')
    assert file.read_text().count('"val/loss"') == 2


def test_takes_other_images_each_epoch(tmp_path: Path) -> None:
    # 9 images in batches of 2: the two epochs' 8 images are all different.
    runner = make_runner(product_settings(9), tmp_path)
    model = runner.train()
    assert [len(batch) for batch in model.batches] == [2] * 4
    assert len({index for batch in model.batches for index in batch}) == 8
    means = [np.mean(model.batches[:2]), np.mean(model.batches[2:])]
    assert [line['val/loss'] for line in logged(tmp_path)] == [4 * mean for mean in means]


def test_is_logged_by_layer(finished: Runner) -> None:
    lines = logged(Path(finished.work_dir))
    assert [[key for key in line if key.startswith('val/')] for line in lines] == [
        *[['val/layer0/loss']] * 2,
        *[['val/layer1/loss']] * 3,
    ]
    assert [(line['epoch'], line['iter']) for line in lines] == [(1, 3), (2, 6), (3, 8), (4, 10), (5, 12)]


def test_a_layer_alone_has_the_same(finished: Runner, tmp_path: Path) -> None:
    make_runner(alone_settings('layer1'), tmp_path).train()
    together = [line['val/layer1/loss'] for line in logged(Path(finished.work_dir)) if 'val/layer1/loss' in line]
    assert [line['val/loss'] for line in logged(tmp_path)] == together


def test_changes_nothing_in_training(finished: Runner, tmp_path: Path) -> None:
    settings = layerwise_settings()
    runner = make_runner(settings, tmp_path)
    runner._hooks = [hook for hook in runner.hooks if type(hook).__name__ != 'ValidationLossHook']
    without = runner.train()
    assert logged(tmp_path) == []
    for name, tensor in without.state_dict().items():
        assert torch.equal(tensor, finished.model.state_dict()[name]), name


def test_leaves_modes_buffers_and_generators(tmp_path: Path) -> None:
    runner = make_runner(alone_settings('layer0'), tmp_path)
    runner.train()
    model = runner.model.train()
    model.norm.eval()  # as with norm_eval=True
    (hook,) = (hook for hook in runner.hooks if type(hook).__name__ == 'ValidationLossHook')
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    states = random.getstate(), str(np.random.get_state()), torch.get_rng_state()  # noqa: NPY002
    calls = len(model.seen)
    hook.after_train_epoch(runner)
    assert len(model.seen) == calls + 2
    assert model.training
    assert model.linear.training
    assert not model.norm.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert random.getstate() == states[0]
    assert str(np.random.get_state()) == states[1]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), states[2])
    assert all(parameter.grad is None or not parameter.grad.requires_grad for parameter in model.parameters())


def test_is_of_the_model_in_evaluation_mode() -> None:
    model = nn.Sequential(nn.Dropout(), nn.BatchNorm1d(1)).train()
    with unchanged(model):
        assert not any(module.training for module in model.modules())
        model[1].running_mean += 1
    assert all(module.training for module in model.modules())
    assert model[1].running_mean.item() == 0


def test_needs_no_gradient() -> None:
    model = StubProduct()
    model.weight.grad = None
    batch = {'inputs': [torch.tensor([3.0, 0.0])], 'data_samples': [3]}
    # 3 · 2, twice.
    assert mean_loss(model, [batch]) == 12.0  # type: ignore[arg-type]
    assert model.weight.grad is None


def test_reaches_every_backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = []
    monkeypatch.setattr(
        LocalVisBackend, 'add_scalars', lambda self, scalars, step, file_path=None, **_: told.append((scalars, step))
    )
    make_runner(product_settings(4), tmp_path).train()
    assert [(scalars['val/loss'], step) for scalars, step in told if 'val/loss' in scalars] == [(6.0, 3), (6.0, 6)]


def test_a_data_set_in_test_mode_is_refused(tmp_path: Path) -> None:
    settings = alone_settings('layer0')
    settings['validation']['dataset']['test_mode'] = True
    with pytest.raises(ConfigError, match='Set test_mode=False'):
        make_runner(settings, tmp_path).train()


def runner_of(settings: dict[str, Any], folder: Path) -> Runner:
    return make_runner(settings, folder, custom_hooks=[dict(type='hierseg.ClassCountHook')])


def test_each_layer_is_compared_with_its_own_data(tmp_path: Path) -> None:
    # The stub's data sets have one class.
    runner = runner_of(layerwise_settings(), tmp_path)
    runner.model.layer0.linear.num_classes = 1
    runner.model.layer1.linear.num_classes = 2
    with pytest.raises(ConfigError, match=r'model\.layer1\.linear is for 2 classes, and its data set has 1'):
        runner.train()
    # Before anything was trained.
    assert runner.model.layer0.seen == []


def test_a_model_as_a_whole(tmp_path: Path) -> None:
    runner = runner_of(alone_settings('layer0'), tmp_path)
    runner.model.norm.num_classes = 3
    with pytest.raises(ConfigError, match=r'model\.norm is for 3 classes'):
        runner.train()
    runner.model.norm.num_classes = 1
    runner.model.rpn_head = runner.model.linear
    runner.model.rpn_head.num_classes = 5
    del runner.model.linear
    runner.model.forward = lambda inputs, data_samples, mode: {'loss': runner.model.rpn_head.weight.sum()}
    runner.train()


def test_a_mask_head_may_have_a_mask_for_each_root_class(tmp_path: Path) -> None:
    runner = runner_of(alone_settings('layer0'), tmp_path)
    config = tiny_model()
    config.roi_head.mask_channels = 'root'
    config.roi_head.mask_head.update(class_agnostic=False, num_classes=3)
    runner.model.roi_head = MODELS.build(config).roi_head
    # The box head of the same RoI head is looked at: it has five classes, and the stub's data one.
    with pytest.raises(ConfigError, match=r'roi_head\.bbox_head is for 5 classes'):
        runner.train()
    runner.train_loop.dataloader.dataset.metainfo = {'classes': tuple('abcde')}
    runner.train()
    # Of a mask head that stands elsewhere, nobody knows better.
    runner.model.roi_head = runner.model.roi_head.mask_head
    with pytest.raises(ConfigError, match=r'model\.roi_head is for 3 classes'):
        runner.call_hook('before_train')
