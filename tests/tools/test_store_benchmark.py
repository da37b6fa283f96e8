"""The benchmark of the store does its job once, on little data."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest
from PIL import Image

TOOL = Path(__file__).parents[2] / 'tools' / 'benchmarks' / 'store.py'

pytestmark = pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, 'argv', [str(TOOL), *map(str, arguments)])
    runpy.run_path(str(TOOL), run_name='__main__')


def test_measures_both(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, figure = tmp_path / 'new' / 'store.json', tmp_path / 'new' / 'store.png'
    run(monkeypatch, '--images', 300, '--coco-images', 200, '--repeats', 1, '--out', out, '--figure', figure)
    rows = json.loads(out.read_text())['rows']
    assert [(row['kind'], row['images'], row['instances']) for row in rows] == [
        ('store', 200, 500), ('COCO', 200, 500), ('store', 300, 750),
    ]  # fmt: skip
    for row in rows:
        assert 0 < row['opening'] < 60
        assert 0 < row['before'] < row['spawned'] < 2000
        assert 0 < row['forked'] < 2000
    printed = capsys.readouterr().out
    assert '| 300 | 750 | store |' in printed
    assert '| 200 | 500 | COCO |' in printed
    assert Image.open(figure).size[0] > 1000


def test_no_images(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(monkeypatch, '--images', 0)
    assert 'must be at least 1' in capsys.readouterr().err
