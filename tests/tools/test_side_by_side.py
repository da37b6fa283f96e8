"""The command that puts the scores of several systems side by side."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / 'tools/analysis_tools/side_by_side.py'


def run_tool(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, 'argv', [str(TOOL), *arguments])
    runpy.run_path(str(TOOL), run_name='__main__')


def test_prints_and_writes_the_scores_of_all(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    scores = {'ours': {'segm/mAP': 0.75}, 'theirs': {'segm/mAP': None}}
    for name, values in scores.items():
        Path(f'{name}.json').write_text(json.dumps(values))
    run_tool(monkeypatch, 'ours=ours.json', 'theirs=theirs.json', '--out', 'both.json')
    assert json.loads(Path('both.json').read_text()) == scores
    assert '0.750' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('argument', 'message'), [('ours.json', 'is not NAME=results.json'), ('ours=nowhere.json', 'nowhere.json: cannot')]
)
def test_bad_arguments_are_refused(tmp_path, monkeypatch, capsys, argument, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        run_tool(monkeypatch, argument)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err
