"""The simulation of coverage does its job once, on little data."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / 'tools' / 'benchmarks' / 'interval_coverage.py'


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, 'argv', [str(TOOL), *map(str, arguments)])
    runpy.run_path(str(TOOL), run_name='__main__')


def test_writes_coverage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ('--images', 20, 60, '--samples', 12, '--population', 600, '--pairs', 'far apart')
    run(monkeypatch, *small, '--out', tmp_path / 'new' / 'coverage.json')
    document = json.loads((tmp_path / 'new' / 'coverage.json').read_text())
    rows = {(row['images'], row['score'], row['of']): row for row in document['rows']}
    scores = ('all', 'layer0', 'layer1', 'rare', 'exact names')
    assert set(rows) == {
        (size, score, of) for size in (20, 60) for score in scores for of in ('first', 'second', 'difference')
    }
    for (_, score, of), row in rows.items():
        assert 0.6 <= row['coverage'] <= 1, (score, of)
        # A score lies within its interval, whose middle is lower.
        assert row['value_outside'] == 0, (score, of)
    # The second system is far better, and average precision of few objects is too high.
    difference = rows[60, 'all', 'difference']
    assert difference['truth'] > 0.15
    assert difference['decided'] > 0.9
    first = rows[20, 'all', 'first']
    assert first['too_high_by'] > 0
    assert first['excess'] > 0
    assert rows[60, 'all', 'first']['width'] < first['width']
    table = capsys.readouterr().out.splitlines()
    assert table[0] == '| systems | score | of | 20 images | 60 images |'
    assert len(table) == 2 + len(scores) * 3


def test_more_images_than_there_are(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(monkeypatch, '--images', 50, '--population', 40)
    assert 'samples of [50] from 40 images' in capsys.readouterr().err
