from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.runner import Runner, find_latest_checkpoint
from mmengine.runner.checkpoint import get_torch_safe_globals
from stub_training import layerwise_settings, make_runner

from hierseg.files import write_atomically


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


# Each of the five checkpoints: write and rename it, write and rename its name; from the third on, remove the oldest.
@pytest.mark.parametrize('moment', range(23))
def test_a_kill_at_any_moment_leaves_a_checkpoint(
    finished: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    with monkeypatch.context() as patch:
        KilledAt(patch, moment)
        with pytest.raises(Killed):
            make_runner(layerwise_settings(), tmp_path).train()
    if moment >= 4:  # the first is there, with its name
        named = find_latest_checkpoint(str(tmp_path))
        assert epoch_of(named) == int(Path(named).stem.removeprefix('epoch_'))
    model = make_runner(layerwise_settings(), tmp_path, resume=moment >= 4).train()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, finished.model.state_dict()[name]), name
    assert {path.name for path in tmp_path.glob('*.pth*')} == {'epoch_4.pth', 'epoch_5.pth'}


def test_there_are_no_more_moments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counter = KilledAt(monkeypatch, 1000)
    make_runner(layerwise_settings(), tmp_path).train()
    assert counter.count == 23


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
