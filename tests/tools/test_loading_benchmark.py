"""The benchmark of data loading does its job once, on little data."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / 'tools' / 'benchmarks' / 'loading.py'


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, 'argv', [str(TOOL), *map(str, arguments)])
    runpy.run_path(str(TOOL), run_name='__main__')


def test_times_both_step_by_step(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / 'new' / 'loading.json'
    run(monkeypatch, '--images', 8, '--size', 64, '--batch-size', 2, '--repeats', 2, '--out', out)
    milliseconds = json.loads(out.read_text())['milliseconds']
    assert milliseconds.keys() == {'hierseg', 'mmdet'}
    steps = ['LoadImageFromFile', 'LoadAnnotations', 'Resize', 'RandomFlip', 'PackDetInputs', 'collating']
    for spent in milliseconds.values():
        assert list(spent) == ['annotations of the image', *steps]
        assert all(0 <= value < 10_000 for value in spent.values())
    printed = capsys.readouterr().out
    assert all(f'| {step} |' in printed for step in (*steps, 'images/s per worker'))


def test_a_batch_that_is_never_full(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(monkeypatch, '--images', 3, '--batch-size', 4)
    assert 'fill a batch' in capsys.readouterr().err
