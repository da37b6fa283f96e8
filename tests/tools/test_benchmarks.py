from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
from taxonomies import teddy_taxonomy
from warm_python import copies_for_fresh

from hierseg.functional import SCHEMES

TOOL = Path(__file__).parents[2] / 'tools' / 'benchmarks' / 'losses.py'


def figures_of(arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    out = tmp_path / 'figures.json'
    monkeypatch.setattr(sys, 'argv', [str(TOOL), *arguments, '--rois', '8', '--repeats', '1', '--out', str(out)])
    runpy.run_path(str(TOOL), run_name='__main__')
    return json.loads(out.read_text())['figures']


@pytest.mark.parametrize('dag', [False, True])
def test_times_every_scheme_that_holds(
    dag: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copies_for_fresh(monkeypatch)
    (tmp_path / 'teddy.json').write_text(json.dumps(teddy_taxonomy().to_json()))
    taxonomy = ['--taxonomy', str(tmp_path / 'teddy.json')] if dag else ['--num-classes', '12']
    (figures,) = figures_of(taxonomy, tmp_path, monkeypatch)
    printed = capsys.readouterr().out
    held = set(SCHEMES) - ({'conditional'} if dag else set())
    assert held <= figures['milliseconds'].keys()
    assert ('conditional' in figures['milliseconds']) is not dag
    assert all(0 < took < 1e5 and name in printed for name, took in figures['milliseconds'].items())


def test_thousands_of_classes_are_set_up_in_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ['--deep', '--num-classes', '40', '13204', '--losses', 'path_sum']
    few, many = figures_of(arguments, tmp_path, monkeypatch)
    assert (few['num_classes'], many['num_classes']) == (40, 13204)
    assert many['milliseconds'].keys() == {'cross_entropy', 'path_sum'}
    # A single matrix of all pairs of classes would be 166 MiB of bytes.
    assert 0 < many['megabytes'] < 120
