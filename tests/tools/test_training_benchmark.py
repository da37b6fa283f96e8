"""The benchmark of training does its job once, on little data."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

TOOL = Path(__file__).parents[2] / 'tools' / 'benchmarks' / 'training.py'
PARTS = ['loading', 'forward', 'loss', 'backward', 'optimiser']


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What the tool sets for its process ends with the test."""
    threads = torch.get_num_threads()
    monkeypatch.setattr('logging.disable', lambda level: None)
    monkeypatch.setattr('cv2.setNumThreads', lambda count: None)
    monkeypatch.setattr(sys, 'path', [*sys.path])
    yield
    torch.set_num_threads(threads)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, 'argv', [str(TOOL), *map(str, arguments)])
    runpy.run_path(str(TOOL), run_name='__main__')


@pytest.mark.slow
def test_times_systems_of_both_part_by_part(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / 'new' / 'training.json'
    little = ('--images', 12, '--size', 64, '--batch-size', 1, '--batches', 1, '--repeats', 1)
    run(monkeypatch, *little, '--systems', 'RTMDet-Ins tiny', 'tiny', '--out', out)
    milliseconds = json.loads(out.read_text())['milliseconds']
    assert list(milliseconds) == ['RTMDet-Ins tiny', 'tiny']
    for parts in milliseconds.values():
        assert list(parts) == PARTS
        assert all(0 < value < 60_000 for value in parts.values())
    ours, theirs = (sum(milliseconds[name].values()) for name in ('tiny', 'RTMDet-Ins tiny'))
    printed = capsys.readouterr().out
    assert f'| tiny | RTMDet-Ins tiny | {1000 / ours:.2f} | {ours:,.0f} | {ours / theirs:.2f} |' in printed
    assert f'| RTMDet-Ins tiny |  | {1000 / theirs:.2f} | {theirs:,.0f} |  |' in printed


def test_refuses_what_it_cannot_do(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(monkeypatch, '--repeats', 0)
    assert 'all numbers must be at least 1' in capsys.readouterr().err
