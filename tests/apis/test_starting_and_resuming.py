"""What a training starts from: `load_from` of the config, a checkpoint to resume, or nothing."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer

from hierseg.apis import train
from hierseg.apis.runner import safe_loading


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


def test_a_run_with_a_checkpoint_goes_on_from_it(config: Path, settled: dict[str, Any], tmp_path: Path) -> None:
    checkpoint = tmp_path / 'epoch_1.pth'
    checkpoint.touch()
    (tmp_path / 'last_checkpoint').write_text(str(checkpoint))
    train(config, work_dir=tmp_path, resume='auto')
    assert settled == {'resume': True, 'load_from': None}
    train(config, work_dir=tmp_path, resume=str(checkpoint))
    assert settled == {'resume': True, 'load_from': str(checkpoint)}


def test_the_safe_mode_knows_what_mmengine_puts_into_checkpoints(tmp_path: Path) -> None:
    # Wherever they come from: MMEngine itself allows it for files only, not for addresses.
    path = tmp_path / 'epoch_1.pth'
    torch.save({'log': HistoryBuffer([1.0], [1]), 'number': np.float64(1)}, path)
    with safe_loading():
        assert torch.load(path)['number'] == 1
