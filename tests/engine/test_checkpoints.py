"""Checkpoints that survive a kill, and the tensors that a model takes from one."""

from __future__ import annotations

import logging
import os
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mmengine.runner import Runner, find_latest_checkpoint
from mmengine.runner.checkpoint import get_torch_safe_globals
from small_disk import small_files
from stub_training import alone_settings, layerwise_settings, make_runner
from tiny_models import tiny_ensemble
from torch import Tensor, nn

from hierseg.engine import LoadFromHook
from hierseg.engine.checkpoints import TensorStatus, as_csv, fit_summary, fit_tensors, fitted
from hierseg.errors import ConfigError, OutputError
from hierseg.files import write_atomically
from hierseg.registry import MODELS

PARTS = ('layer0', 'layer1')


def zeros(**shapes: tuple[int, ...]) -> dict[str, Tensor]:
    return {name.replace('__', '.'): torch.zeros(shape) for name, shape in shapes.items()}


def test_every_tensor_has_a_status_and_a_reason() -> None:
    model = zeros(backbone__conv__weight=(4, 3), head__weight=(9, 4), head__bias=(9,), extra=())
    checkpoint = zeros(backbone__conv__weight=(4, 3), head__weight=(81, 4), head__bias=(81,), old__weight=(2,))
    fits = fit_tensors(model, checkpoint)
    assert [(fit.name, fit.source, fit.status) for fit in fits] == [
        ('backbone.conv.weight', 'backbone.conv.weight', TensorStatus.TAKEN),
        ('head.weight', 'head.weight', TensorStatus.OTHER_SHAPE),
        ('head.bias', 'head.bias', TensorStatus.OTHER_SHAPE),
        ('extra', '', TensorStatus.MISSING),
        ('', 'old.weight', TensorStatus.UNUSED),
    ]
    assert str(fits[1]) == 'head.weight: (81, 4) in the checkpoint, (9, 4) in the model'
    assert as_csv(fits).splitlines()[1:3] == [
        'backbone.conv.weight,backbone.conv.weight,4×3,4×3,taken',
        'head.weight,head.weight,9×4,81×4,skipped: other shape',
    ]


def test_every_part_takes_from_a_checkpoint_of_one_model() -> None:
    model = zeros(layer0__conv=(3,), layer0__head=(5,), layer1__conv=(3,), layer1__head=(2,))
    fits = fit_tensors(model, zeros(conv=(3,), head=(2,)), parts=PARTS)
    assert [(fit.name, fit.source, fit.status) for fit in fits] == [
        ('layer0.conv', 'conv', TensorStatus.TAKEN),
        ('layer0.head', 'head', TensorStatus.OTHER_SHAPE),
        ('layer1.conv', 'conv', TensorStatus.TAKEN),
        ('layer1.head', 'head', TensorStatus.TAKEN),
    ]


def test_a_checkpoint_that_has_parts_gives_each_its_own() -> None:
    model = zeros(layer0__conv=(3,), layer1__conv=(3,))
    fits = fit_tensors(model, zeros(layer1__conv=(3,), conv=(3,)), parts=PARTS)
    assert [(fit.name, fit.source, fit.status) for fit in fits] == [
        ('layer0.conv', '', TensorStatus.MISSING),
        ('layer1.conv', 'layer1.conv', TensorStatus.TAKEN),
        ('', 'conv', TensorStatus.UNUSED),
    ]


def test_the_backbone_s_own_layer1_is_no_part() -> None:
    # ResNet calls its stages layer1 to layer4.
    fits = fit_tensors(zeros(layer0__backbone__layer1__w=(1,)), zeros(backbone__layer1__w=(1,)), parts=PARTS)
    assert [fit.status for fit in fits] == [TensorStatus.TAKEN]


def test_the_summary_counts_by_module_and_names_what_was_not_taken() -> None:
    model = zeros(layer0__backbone__layer1__w=(1,), layer0__roi_head__bbox_head__fc_cls__weight=(9,))
    checkpoint = zeros(backbone__layer1__w=(1,), roi_head__bbox_head__fc_cls__weight=(81,), mask__w=(1,))
    assert fit_summary(fit_tensors(model, checkpoint, parts=PARTS), parts=PARTS).splitlines() == [
        '1 of 2 tensors of the model taken',
        '  layer0.backbone            1 of 1',
        '  layer0.roi_head.bbox_head  0 of 1',
        '1 keep their initial values',
        '  layer0.roi_head.bbox_head.fc_cls.weight: (81,) in the checkpoint, (9,) in the model',
        '1 of the checkpoint are not in the model',
        '  mask.w',
    ]


def test_module_versions_move_with_the_tensors() -> None:
    model = nn.ModuleDict({'layer0': nn.BatchNorm1d(2), 'layer1': nn.BatchNorm1d(2)}).state_dict()
    checkpoint = OrderedDict((name.removeprefix('layer0.'), value) for name, value in model.items() if 'layer0' in name)
    checkpoint._metadata = OrderedDict({'': {'version': 7}})
    state = fitted(model, checkpoint, fit_tensors(model, checkpoint, parts=PARTS))
    assert state._metadata['layer0'] == state._metadata['layer1'] == {'version': 7}


shapes = st.dictionaries(st.sampled_from('abcdefgh'), st.lists(st.integers(1, 3), max_size=2).map(tuple), max_size=8)


@given(shapes, shapes)
def test_what_is_fitted_loads_strictly_and_nothing_is_lost(own: dict, other: dict) -> None:
    model = {name: torch.zeros(shape) for name, shape in own.items()}
    checkpoint = {name: torch.ones(shape) for name, shape in other.items()}
    fits = fit_tensors(model, checkpoint)
    state = fitted(model, checkpoint, fits)
    assert {name: tuple(value.shape) for name, value in state.items()} == own
    # A tensor is the checkpoint's exactly where name and shape are the same.
    assert {name for name, value in state.items() if value is checkpoint.get(name)} == {
        name for name in own if own[name] == other.get(name)
    }
    assert {fit.source for fit in fits} - {''} == set(other)


class Killed(BaseException):
    """Not an Exception: nothing on the way may clean up after it."""


class KilledAt:
    """Counts what changes the disk while checkpoints are written, and kills before one of these moments."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, moment: int) -> None:
        self.count, self.moment = 0, moment
        for owner, name in ((os, 'fsync'), (Path, 'replace'), (os, 'remove')):
            monkeypatch.setattr(owner, name, self.counted(getattr(owner, name)))

    def counted(self, function: Any) -> Any:
        def count(*arguments: Any) -> Any:
            if self.count == self.moment:
                raise Killed
            self.count += 1
            return function(*arguments)

        return count


def epoch_of(path: str) -> int:
    with torch.serialization.safe_globals(get_torch_safe_globals()):
        epoch: int = torch.load(path, weights_only=True)['meta']['epoch']
    return epoch


# Each of the five checkpoints: sync it, rename it, sync the folder, the same for its name; from the third on, remove
# the oldest.
@pytest.mark.parametrize('moment', range(33))
def test_a_kill_at_any_moment_leaves_a_checkpoint(
    finished: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    with monkeypatch.context() as patch:
        KilledAt(patch, moment)
        with pytest.raises(Killed):
            make_runner(layerwise_settings(), tmp_path).train()
    if moment >= 5:  # the first is there, with its name
        named = find_latest_checkpoint(str(tmp_path))
        assert epoch_of(named) == int(Path(named).stem.removeprefix('epoch_'))
    model = make_runner(layerwise_settings(), tmp_path, resume=moment >= 5).train()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, finished.model.state_dict()[name]), name
    assert {path.name for path in tmp_path.glob('*.pth*')} == {'epoch_4.pth', 'epoch_5.pth'}


def test_there_are_no_more_moments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counter = KilledAt(monkeypatch, 1000)
    make_runner(layerwise_settings(), tmp_path).train()
    assert counter.count == 33


def test_a_full_disk_is_one_error_and_keeps_the_checkpoint_before(
    finished: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        KilledAt(patch, 6)
        with pytest.raises(Killed):
            make_runner(layerwise_settings(), tmp_path).train()
    first = tmp_path / 'epoch_1.pth'
    runner = make_runner(layerwise_settings(), tmp_path, resume=True)
    message = r'epoch_2\.pth: cannot be written \(.*: [\d.]+ k?B needed, [\d.]+ [kMGT]B free\)'
    with small_files(first.stat().st_size // 2), pytest.raises(OutputError, match=message):
        runner.train()
    assert {path.name for path in tmp_path.glob('*.pth*')} == {'epoch_1.pth'}
    assert not [*tmp_path.glob('.*')]
    assert find_latest_checkpoint(str(tmp_path)) == str(first)
    assert epoch_of(str(first)) == 1
    model = make_runner(layerwise_settings(), tmp_path, resume=True).train()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, finished.model.state_dict()[name]), name


def test_the_newest_are_kept(finished: Runner) -> None:
    folder = Path(finished.work_dir)
    assert {path.name for path in folder.glob('*.pth')} == {'epoch_4.pth', 'epoch_5.pth'}
    assert find_latest_checkpoint(str(folder)) == str(folder / 'epoch_5.pth')
    assert not [*folder.glob('.*')]


def test_all_are_kept_without_a_limit(tmp_path: Path) -> None:
    checkpoint = dict(type='hierseg.AtomicCheckpointHook', interval=2)
    make_runner(layerwise_settings(), tmp_path, checkpoint=checkpoint).train()
    # Every second, and the last.
    assert {path.name for path in tmp_path.glob('*.pth')} == {'epoch_2.pth', 'epoch_4.pth', 'epoch_5.pth'}


def test_another_folder_for_checkpoints(tmp_path: Path) -> None:
    checkpoint = dict(type='hierseg.AtomicCheckpointHook', interval=5, out_dir=str(tmp_path / 'elsewhere'))
    make_runner(layerwise_settings(), tmp_path / 'work', checkpoint=checkpoint).train()
    named = find_latest_checkpoint(str(tmp_path / 'work'))
    assert named == str(tmp_path / 'elsewhere' / 'work' / 'epoch_5.pth')
    assert epoch_of(named) == 5


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / 'new folder' / 'file'
    write_atomically(b'old', path)
    with monkeypatch.context() as patch:
        KilledAt(patch, 0)
        with pytest.raises(Killed):
            write_atomically(b'new', path)
    assert path.read_bytes() == b'old'
    write_atomically(b'newer', path)
    assert [file.name for file in path.parent.iterdir()] == ['file']


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
