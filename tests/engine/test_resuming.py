"""A run that is interrupted anywhere and resumed ends with the weights of one that is not, bit by bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from stub_training import alone_settings, layerwise_settings, make_runner, numbers

from hierseg.errors import ConfigError


class Interrupted(Exception):
    """Stands for a kill; tests/engine/test_killed_runs.py has real ones."""


class Interrupt(Hook):
    """Ends the run when an iteration is done, before its checkpoint if it has one."""

    def __init__(self, iteration: int) -> None:
        self.iteration = iteration

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict[str, Any] | None = None
    ) -> None:
        if runner.iter + 1 == self.iteration:
            raise Interrupted


def interrupted_and_resumed(settings: dict[str, Any], folder: Path, iteration: int, **options: Any) -> Runner:
    with pytest.raises(Interrupted):
        make_runner(settings, folder, custom_hooks=[Interrupt(iteration)], **options).train()
    # Whatever the process had drawn is gone.
    torch.manual_seed(iteration)
    runner = make_runner(settings, folder, resume=True, **options)
    runner.train()
    return runner


def assert_equal_runs(found: Runner, expected: Runner) -> None:
    weights = expected.model.state_dict()
    assert found.model.state_dict().keys() == weights.keys()
    for name, tensor in found.model.state_dict().items():
        assert torch.equal(tensor, weights[name]), name
    assert str(found.optim_wrapper.state_dict()) == str(expected.optim_wrapper.state_dict())
    for key in ('train/loss', 'train/layer1/loss'):
        if key in expected.message_hub.log_scalars:
            histories = [runner.message_hub.get_scalar(key).data[0].tolist() for runner in (found, expected)]
            assert histories[0] == histories[1]


@pytest.mark.parametrize('iteration', range(1, 13))
def test_layers(finished: Runner, tmp_path: Path, iteration: int) -> None:
    resumed = interrupted_and_resumed(layerwise_settings(), tmp_path, iteration)
    assert_equal_runs(resumed, finished)


@pytest.mark.parametrize('iteration', [4, 8])
def test_layers_within_an_epoch(finished: Runner, tmp_path: Path, iteration: int) -> None:
    # Checkpoints by iteration: after 1 of 3 and after 2 of 2 batches of an epoch.
    checkpoint = dict(type='hierseg.AtomicCheckpointHook', by_epoch=False, interval=1)
    interrupt = dict(checkpoint=checkpoint)
    resumed = interrupted_and_resumed(layerwise_settings(), tmp_path, iteration + 1, **interrupt)
    assert_equal_runs(resumed, finished)
    # Nothing was drawn twice or thrown away: what the resumed process saw ends the whole.
    seen = resumed.model.layer0.seen + resumed.model.layer1.seen
    assert len(training_batches(seen)) == 12 - iteration


def training_batches(seen: list[list[int]]) -> list[list[int]]:
    """Without the two batches of validation after each epoch that has ended."""
    # Epochs of 3, 3, 2, 2, 2 batches; the stub notes the batches of both.
    batches, lengths = [*seen], [3, 3, 2, 2, 2]
    kept: list[list[int]] = []
    for length in reversed(lengths):
        batches, validation = batches[:-2], batches[-2:]
        if len(validation) < 2:
            break
        batches, training = batches[:-length], batches[-length:]
        kept += training
    return kept


@pytest.mark.parametrize('iteration', [2, 4, 6])
def test_a_plain_config(tmp_path: Path, iteration: int) -> None:
    expected = make_runner(alone_settings('layer1'), tmp_path / 'whole')
    expected.train()
    resumed = interrupted_and_resumed(alone_settings('layer1'), tmp_path / 'resumed', iteration)
    assert_equal_runs(resumed, expected)


def test_a_run_that_chose_its_seed_itself(tmp_path: Path) -> None:
    settings = layerwise_settings()
    with pytest.raises(Interrupted):
        make_runner(settings, tmp_path / 'resumed', seed=None, custom_hooks=[Interrupt(8)]).train()
    resumed = make_runner(settings, tmp_path / 'resumed', seed=None, resume=True)
    resumed.train()
    expected = make_runner(settings, tmp_path / 'whole', seed=resumed.seed)
    expected.train()
    assert_equal_runs(resumed, expected)


def test_workers_change_nothing(finished: Runner, tmp_path: Path) -> None:
    settings = layerwise_settings()
    settings['train_dataloader'] |= dict(num_workers=2, persistent_workers=True)
    settings['validation'] |= dict(num_workers=1, persistent_workers=True)
    runner = make_runner(settings, tmp_path)
    runner.train()
    assert_equal_runs(runner, finished)
    # Workers of layers that are done do not stay.
    assert all(loader._iterator is None for loader in runner.train_loop.dataloaders.values())


def test_without_the_hook_a_resumed_run_differs(tmp_path: Path) -> None:
    """So that the tests above can fail: the stub's randomness is not all the data's."""

    def run(folder: Path, **options: Any) -> Runner:
        runner = make_runner(layerwise_settings(), folder, **options)
        runner._hooks = [hook for hook in runner.hooks if type(hook).__name__ != 'ExactResumeHook']
        return runner

    expected = run(tmp_path / 'whole')
    expected.train()
    with pytest.raises(Interrupted):
        run(tmp_path / 'resumed', custom_hooks=[Interrupt(8)]).train()
    resumed = run(tmp_path / 'resumed', resume=True)
    resumed.train()
    histories = [runner.message_hub.get_scalar('train/layer1/loss').data[0] for runner in (resumed, expected)]
    assert histories[0].tolist() != histories[1].tolist()


def test_resuming_with_other_lengths_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        make_runner(layerwise_settings(), tmp_path, custom_hooks=[Interrupt(10)]).train()
    settings = layerwise_settings()
    # The checkpoint is of 3 epochs, two of 3 iterations and one of 2: 8 iterations, not 9.
    settings['train_cfg']['max_epochs']['layer0'] = 3
    with pytest.raises(ConfigError, match='of 3 epochs and 8 iterations'):
        make_runner(settings, tmp_path, resume=True).train()
    # It is beyond the end of one epoch each.
    settings['train_cfg']['max_epochs'] = {'layer0': 1, 'layer1': 1}
    with pytest.raises(ConfigError, match='layer0: 1 × 3, layer1: 1 × 2'):
        make_runner(settings, tmp_path, resume=True).train()


def test_resuming_what_is_complete_changes_nothing(finished: Runner, tmp_path: Path) -> None:
    make_runner(layerwise_settings(), tmp_path).train()
    again = make_runner(layerwise_settings(), tmp_path, resume=True)
    again.train()
    assert_equal_runs(again, finished)
    assert again.model.layer1.seen == []


def test_resuming_compares_the_data_of_the_layer(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    # 7 iterations are within the first epoch of layer 1; the checkpoint at its beginning was written by layer 0.
    interrupted_and_resumed(layerwise_settings(), tmp_path / 'same', 7)
    assert 'dataset metainfo' not in capfd.readouterr().out
    with pytest.raises(Interrupted):
        make_runner(layerwise_settings(), tmp_path / 'other', custom_hooks=[Interrupt(7)]).train()
    settings = layerwise_settings()
    settings['train_dataloader']['layer1']['dataset']['name'] = 'renamed'
    make_runner(settings, tmp_path / 'other', resume=True).train()
    assert 'dataset metainfo' in capfd.readouterr().out


def test_steps_and_processes_draw_numbers_of_their_own(
    finished: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The stub logs what it drew as `acc`; a layer that is done is no longer in the log, layer 1's 6 steps are.
    drawn = finished.message_hub.get_scalar('train/layer1/acc').data[0].tolist()
    assert len(set(drawn)) == len(drawn) == 6
    monkeypatch.setattr('hierseg.engine.resuming.get_rank', lambda: 1)
    other = make_runner(layerwise_settings(), tmp_path)
    other.train()
    assert not set(drawn) & set(other.message_hub.get_scalar('train/layer1/acc').data[0].tolist())


BY_ITERATION = dict(type='hierseg.AtomicCheckpointHook', by_epoch=False, interval=1)
# Without a batch sampler of its own: 8 images in batches of 3, 3 and 2.
PLAIN_BATCHES = dict(batch_sampler=None, batch_size=3, dataset=numbers(8, 'layer1'))
LOADING = pytest.mark.parametrize('loading', [{}, PLAIN_BATCHES, dict(num_workers=1)], ids=['own', 'plain', 'worker'])


def mmengine_settings(loop: dict[str, Any], **loading: Any) -> dict[str, Any]:
    settings = alone_settings('layer1')
    settings['train_dataloader'] |= loading
    return {**settings, 'train_cfg': loop}


@LOADING
@pytest.mark.parametrize('iteration', [1, 2, 3, 4, 5])
def test_a_plain_config_within_an_epoch(tmp_path: Path, loading: dict[str, Any], iteration: int) -> None:
    settings = mmengine_settings(dict(type='EpochBasedTrainLoop', max_epochs=3), **loading)
    expected = make_runner(settings, tmp_path / 'whole', checkpoint=BY_ITERATION)
    expected.train()
    resumed = interrupted_and_resumed(settings, tmp_path / 'resumed', iteration + 1, checkpoint=BY_ITERATION)
    assert_equal_runs(resumed, expected)
    # The batches after the checkpoint and no other, validation included.
    assert resumed.iter == expected.iter
    before = iteration + 2 * ((iteration - 1) // len(expected.train_dataloader))
    assert resumed.model.seen == expected.model.seen[before:]


@LOADING
@pytest.mark.parametrize('iteration', [1, 4, 6])
def test_an_iteration_based_loop(tmp_path: Path, loading: dict[str, Any], iteration: int) -> None:
    settings = mmengine_settings(dict(type='IterBasedTrainLoop', max_iters=9), **loading)
    settings['param_scheduler'] = dict(type='LinearLR', start_factor=0.5, by_epoch=False, begin=0, end=8)
    expected = make_runner(settings, tmp_path / 'whole', checkpoint=BY_ITERATION)
    expected.train()
    resumed = interrupted_and_resumed(settings, tmp_path / 'resumed', iteration + 1, checkpoint=BY_ITERATION)
    assert_equal_runs(resumed, expected)
    assert resumed.model.seen == expected.model.seen[iteration:]
    # The images of the epoch-based loop.
    epochs = mmengine_settings(dict(type='EpochBasedTrainLoop', max_epochs=5), **loading)
    by_epoch = make_runner(epochs, tmp_path / 'epochs')
    by_epoch._hooks = [hook for hook in by_epoch.hooks if type(hook).__name__ != 'ValidationLossHook']
    by_epoch.train()
    assert by_epoch.model.seen[:9] == expected.model.seen[:9]


def test_batches_by_orientation(tmp_path: Path) -> None:
    """MMDetection's batch sampler cannot be entered: the one loop draws everything again, the other says so."""
    loading = dict(batch_sampler=dict(type='AspectRatioBatchSampler'))
    endless = mmengine_settings(dict(type='IterBasedTrainLoop', max_iters=3), **loading)
    endless['param_scheduler'] = None
    expected = make_runner(endless, tmp_path / 'whole', checkpoint=BY_ITERATION)
    expected.train()
    resumed = interrupted_and_resumed(endless, tmp_path / 'endless', 3, checkpoint=BY_ITERATION)
    assert_equal_runs(resumed, expected)
    epochs = mmengine_settings(dict(type='EpochBasedTrainLoop', max_epochs=3), **loading)
    with pytest.raises(ConfigError, match='cannot resume at batch 2 of an epoch'):
        interrupted_and_resumed(epochs, tmp_path / 'epochs', 3, checkpoint=BY_ITERATION)


def test_epochs_of_another_length_begin_at_their_first_batch(tmp_path: Path) -> None:
    """After whole epochs: as a run does that goes on with another number of processes."""
    settings = alone_settings('layer1')
    with pytest.raises(Interrupted):
        make_runner(settings, tmp_path, custom_hooks=[Interrupt(3)]).train()
    settings['train_dataloader']['batch_sampler']['iterations'] = 3
    resumed = make_runner(settings, tmp_path, resume=True)
    resumed.train()
    # The checkpoint is of one epoch of 2 batches; two of 3 follow.
    assert resumed.iter == 2 + 2 * 3
