from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / 'tools' / 'benchmarks' / 'conversion.py'


def test_times_masks_and_the_converter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / 'figures' / 'conversion.json'
    sizes = {'masks': 2, 'images': 3, 'table-images': 40, 'masks-per-image': 2, 'workers': 1, 'repeats': 1, 'out': out}
    options = [text for name, value in sizes.items() for text in (f'--{name}', str(value))]
    monkeypatch.setattr(sys, 'argv', [str(TOOL), '--size', '30', '20', *options])
    runpy.run_path(str(TOOL), run_name='__main__')
    printed = capsys.readouterr().out
    document = json.loads(out.read_text())
    assert document['microseconds'].keys() == {'1-bit', '8-bit'}
    for found in document['microseconds'].values():
        assert all(0 < value < 1e6 and name in printed for name, value in found.items())
    assert 'Tables of 40 images' in printed
    assert all(0 < seconds < 60 for seconds in document['tables'].values())
    runs = [(run['masks from'], run['workers']) for run in document['converter']]
    assert runs == [('folder', 1), ('zip', 1)]
    assert '| folder | 1 |' in printed
    ratio = document['microseconds']['1-bit']
    assert f'| × cv2.imdecode alone | {ratio["PNG to run lengths"] / ratio["cv2.imdecode alone"]:.2f} |' in printed
