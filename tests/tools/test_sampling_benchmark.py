"""The benchmark of the samplers does its job once, on little data."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / 'tools' / 'benchmarks' / 'sampling.py'


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, 'argv', [str(TOOL), *map(str, arguments)])
    runpy.run_path(str(TOOL), run_name='__main__')


def test_writes_seconds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run(monkeypatch, '--images', 400, '--instances', 1000, '--out', tmp_path / 'new' / 'sampling.json')
    document = json.loads((tmp_path / 'new' / 'sampling.json').read_text())
    assert (document['images'], document['instances']) == (400, 1000)
    assert len(document['seconds']) == 1 + 3 * 4
    assert all(0 <= seconds < 60 for seconds in document['seconds'].values())


def test_more_images_than_instances(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(monkeypatch, '--images', 5, '--instances', 4)
    assert '5 images cannot have 4 instances' in capsys.readouterr().err
