"""The benchmark of the evaluator does its job once, on little data."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / 'tools' / 'benchmarks' / 'evaluator.py'


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, 'argv', [str(TOOL), *map(str, arguments)])
    runpy.run_path(str(TOOL), run_name='__main__')


def test_times_evaluator_and_floor(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / 'new' / 'evaluator.json'
    run(monkeypatch, '--images', 6, 12, '--detections', 8, '--repeats', 1, '--out', out)
    small, large = json.loads(out.read_text())['sizes']
    assert (small['images'], large['detections']) == (6, 96)
    assert small['floor']['parts'].keys() == {'reading', 'decoding', 'intersecting'}
    assert 'floor' not in large
    for size in (small, large):
        assert size['workers'].keys() == {'1', '2'}
        for found in size['workers'].values():
            assert 0 < found['seconds'] < 60
            assert 0 < found['processor_seconds'] < 60
            assert 10 < found['peak_mb'] < 5000
            assert 0 < found['mAP'] < 1
    *lines, blank, floor = capsys.readouterr().out.splitlines()
    assert [line.count('|') for line in lines] == [10] * 7
    assert (blank, floor[:6]) == ('', 'floor:')


def test_no_repeats(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(monkeypatch, '--repeats', 0)
    assert 'must be at least 1' in capsys.readouterr().err
