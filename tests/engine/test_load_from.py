from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mmengine.runner import Runner
from stub_training import alone_settings, make_runner
from tiny_models import tiny_ensemble

from hierseg.engine import LoadFromHook
from hierseg.errors import ConfigError
from hierseg.registry import MODELS

HOOK = dict(type='hierseg.LoadFromHook')


def start(folder: Path, checkpoint: Any, **options: Any) -> Runner:
    """A stub run with ``load_from``, until it has loaded."""
    path = folder / 'given.pth'
    torch.save(checkpoint, path)
    runner = make_runner(alone_settings('layer0'), folder / 'work', custom_hooks=[HOOK], load_from=str(path), **options)
    if not options.get('resume'):
        runner._train_loop = runner.build_train_loop(runner._train_loop)
    runner.load_or_resume()
    return runner


def test_takes_what_fits_and_tells_the_rest(tmp_path: Path) -> None:
    # The stub has calls, norm (of 2 channels) and linear (weight 1 × 2, bias 1).
    given = {'linear.weight': torch.tensor([[5.0, 6.0]]), 'linear.bias': torch.zeros(3), 'head.weight': torch.zeros(1)}
    runner = start(tmp_path, {'state_dict': given, 'meta': {}})
    assert runner.model.linear.weight.tolist() == [[5, 6]]
    assert runner.model.linear.bias.shape == (1,)
    table = (Path(runner.log_dir) / 'load_from.csv').read_text().splitlines()
    assert 'linear.weight,linear.weight,1×2,1×2,taken' in table
    assert 'linear.bias,linear.bias,1,3,skipped: other shape' in table
    assert 'norm.weight,,2,,not in the checkpoint' in table
    assert ',head.weight,,1,skipped: not in the model' in table


def test_takes_from_bare_weights_saved_in_a_wrapper(tmp_path: Path) -> None:
    runner = start(tmp_path, {'module.linear.bias': torch.tensor([4.0])})
    assert runner.model.linear.bias.tolist() == [4]


@pytest.mark.parametrize(
    ('checkpoint', 'message'),
    [
        ({'state_dict': {'other.weight': torch.zeros(1)}}, r'no tensor of the checkpoint fits .* has other\.weight'),
        ({'state_dict': {}}, 'has no weights'),
        ([1, 2], 'has no weights'),
    ],
)
def test_refuses_what_is_of_no_use(tmp_path: Path, checkpoint: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=rf'given\.pth: .*{message}'):
        start(tmp_path, checkpoint)


def test_a_run_resumes_from_its_own_kind_of_checkpoint_only(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match='no state of a training to resume'):
        start(tmp_path, {'state_dict': {'linear.bias': torch.zeros(1)}}, resume=True)
    # calls; weight, bias, mean and variance of norm; weight and bias of linear.
    with pytest.raises(ConfigError, match=r'of another model: 7 tensors do not fit \(calls: not in the checkpoint'):
        start(tmp_path, {'state_dict': {'linear.bias': torch.zeros(3)}, 'meta': {'epoch': 1, 'iter': 3}}, resume=True)


def runner_of(model: Any, folder: Path, *, training: bool) -> Any:
    """What the hook asks of a runner."""
    loop = alone_loop(folder) if training else dict(type='EpochBasedTrainLoop')
    return SimpleNamespace(
        model=model,
        log_dir=str(folder),
        work_dir=str(folder),
        logger=logging.getLogger('test'),
        _load_from='given.pth',
        _resume=False,
        _train_loop=loop,
    )


def alone_loop(folder: Path) -> Any:
    runner = make_runner(alone_settings('layer0'), folder / 'loop')
    return runner.build_train_loop(runner._train_loop)


def test_both_layers_start_from_a_checkpoint_of_one_detector(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = MODELS.build(tiny_ensemble())
    one = {name: torch.full_like(value, 3) for name, value in model.layer1.state_dict().items()}
    checkpoint: dict[str, Any] = {'state_dict': one}
    with caplog.at_level(logging.INFO, 'test'):
        LoadFromHook().after_load_checkpoint(runner_of(model, tmp_path, training=True), checkpoint)
    before = model.layer0.roi_head.bbox_head.fc_cls.weight.detach().clone()
    model.load_state_dict(checkpoint['state_dict'], strict=True)
    for layer in (model.layer0, model.layer1):
        assert (layer.backbone.conv1.weight == 3).all()
    assert (model.layer1.roi_head.bbox_head.fc_cls.weight == 3).all()
    # Layer 0 has three classes, layer 1 two.
    assert torch.equal(model.layer0.roi_head.bbox_head.fc_cls.weight, before)
    assert 'layer0.roi_head.bbox_head  4 of 8' in caplog.text
    assert 'layer1.roi_head.bbox_head  8 of 8' in caplog.text
    assert 'layer0.roi_head.bbox_head.fc_cls.bias: (3,) in the checkpoint, (4,) in the model' in caplog.text


def test_a_test_wants_every_tensor(tmp_path: Path) -> None:
    model = MODELS.build(tiny_ensemble())
    runner = runner_of(model, tmp_path, training=False)
    whole = model.state_dict()
    LoadFromHook().after_load_checkpoint(runner, {'state_dict': whole})
    # Early PyTorch did not count batches.
    early = {name: value for name, value in whole.items() if 'num_batches_tracked' not in name}
    LoadFromHook().after_load_checkpoint(runner, {'state_dict': early})
    with pytest.raises(ConfigError, match=r'given\.pth: .* of another model: 6 tensors do not fit \(layer0\.roi_head'):
        LoadFromHook().after_load_checkpoint(runner, {'state_dict': model.layer1.state_dict()})
