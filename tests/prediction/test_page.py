"""The examples of docs/prediction.md run as they stand, with a tiny model under the names of the page."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mmdet.apis
import pytest
from documented import ROOT, blocks

import hierseg.prediction
from hierseg.prediction import Predictor


def test_the_examples(
    model: Predictor,
    trained: Mapping[str, Any],
    images: list[str],
    video: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip('supervision')
    pytest.importorskip('trackers')
    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr(hierseg.prediction, 'load_model', lambda *files: asked.append(files) or model)
    config, checkpoint, folder = trained['end_to_end']
    monkeypatch.syspath_prepend(folder)
    inferencer = mmdet.apis.DetInferencer
    monkeypatch.setattr(
        mmdet.apis,
        'DetInferencer',
        lambda **files: asked.append(tuple(files.values())) or inferencer(str(config), str(checkpoint), 'cpu'),
    )
    (tmp_path / 'data').symlink_to(folder / 'data')
    shutil.copy(images[0], tmp_path / 'street.jpg')
    shutil.copy(video, tmp_path / 'clip.mp4')
    monkeypatch.chdir(tmp_path)

    examples = [block.text for block in blocks(ROOT / 'docs/prediction.md') if block.language == 'python']
    known: dict[str, Any] = {}
    for example in examples:
        exec(compile(example, 'docs/prediction.md', 'exec'), known)
    assert asked == [('configs/hier_e2e.py', 'work_dirs/hier_e2e/epoch_12.pth')] * 2
    assert (tmp_path / 'drawn.jpg').stat().st_size > 1000
    assert known['sample'].pred_instances.paths[0] == known['best'].path
    assert len(known['wary']) >= len(known['sure'])
    said = capsys.readouterr().out
    assert str(known['best']) in said
    assert '\n4 [' in said, 'the last frame'
