from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest
from taxonomies import teddy_taxonomy

from hierseg.functional import SCHEMES

TOOL = Path(__file__).parents[2] / 'tools' / 'benchmarks' / 'losses.py'


@pytest.mark.parametrize('dag', [False, True])
def test_times_every_scheme_that_holds(
    dag: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / 'teddy.json').write_text(str(teddy_taxonomy()))
    taxonomy = ['--taxonomy', str(tmp_path / 'teddy.json')] if dag else ['--num-classes', '12']
    out = tmp_path / 'figures.json'
    sizes = ['--rois', '8', '--repeats', '1', '--out', str(out)]
    monkeypatch.setattr(sys, 'argv', [str(TOOL), *taxonomy, *sizes])
    runpy.run_path(str(TOOL), run_name='__main__')
    printed = capsys.readouterr().out
    figures = json.loads(out.read_text())['milliseconds']
    held = set(SCHEMES) - ({'conditional'} if dag else set())
    assert held <= figures.keys()
    assert ('conditional' in figures) is not dag
    assert all(0 < milliseconds < 1e5 and name in printed for name, milliseconds in figures.items())
