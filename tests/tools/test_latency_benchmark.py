"""The benchmark of latency does its job once, on a small picture; the stopwatch counts no time twice."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

TOOL = Path(__file__).parents[2] / 'tools' / 'benchmarks' / 'latency.py'
PARTS = ['preprocessing', 'network', 'suppression', 'masks', 'paths']


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What the tool sets for its process ends with the test."""
    threads = torch.get_num_threads()
    monkeypatch.setattr('logging.disable', lambda level: None)
    monkeypatch.setattr('cv2.setNumThreads', lambda count: None)
    monkeypatch.setattr(sys, 'path', [*sys.path])
    yield
    torch.set_num_threads(threads)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> dict[str, Any]:
    monkeypatch.setattr(sys, 'argv', [str(TOOL), *map(str, arguments)])
    return runpy.run_path(str(TOOL), run_name='__main__')


@pytest.mark.slow
def test_times_a_system_part_by_part(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, figure = tmp_path / 'new' / 'latency.json', tmp_path / 'new' / 'latency.png'
    picture = ('--size', 48, 64, '--equal-size', 64, '--square', '--instances', 3, '--candidates', 50)
    little = (*picture, '--repeats', 1, '--seconds', 0)
    run(
        monkeypatch, *little, '--systems', 'tiny', 'tiny, ONNX', '--threads', 1, '--out', out, '--figure', figure,
        '--accuracy', 'tiny=0.9',
    )  # fmt: skip
    document = json.loads(out.read_text())
    found, exported = document['figures']['tiny'], document['figures']['tiny, ONNX']
    assert (found['input'], found['instances']) == ([64, 64], 3)
    # RTMDet-Ins tiny of MMDetection has 5.6 M for 80 classes; each class more takes 97 on each of three levels.
    assert 5.6e6 < found['parameters'] < 5.75e6
    assert document['accuracy'] == {'tiny': 0.9}
    ((turn,), summary) = found['turns']['1'], document['summaries']['tiny']['1']
    assert list(turn) == PARTS
    assert all(value > 0 for value in turn.values())
    assert (exported['input'], exported['instances']) == ([64, 64], 3)
    assert exported['box_share'] == pytest.approx(found['box_share'])  # it finds the same
    assert 20 < exported['megabytes'] < 30
    assert summary['all'] == summary['median'] == pytest.approx(sum(turn.values()))
    assert figure.read_bytes().startswith(b'\x89PNG')
    assert '| tiny | 64 × 64 | 5.7 | 3 |' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (('--repeats', 0), 'all numbers must be at least 1'),
        (('--systems', 'ensemble', '--accuracy', 'ensemble=good'), 'no number'),
        (('--systems', 'ensemble', '--accuracy', 'end-to-end=0.9'), 'not among --systems'),
    ],
)
def test_refuses_what_it_cannot_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: tuple[object, ...], message: str
) -> None:
    with pytest.raises(SystemExit):
        run(monkeypatch, *arguments)
    assert message in capsys.readouterr().err


def test_accuracy_is_that_of_mmdetections_files(monkeypatch: pytest.MonkeyPatch) -> None:
    tool = runpy.run_path(str(TOOL))
    # Its page: Mask R-CNN R-101-FPN, trained three times as long at several sizes.
    assert tool['listed_accuracy'](*tool['RECIPES']['ensemble'].coco) == 38.5


def test_an_inner_part_interrupts_the_outer_one(monkeypatch: pytest.MonkeyPatch) -> None:
    stopwatch = runpy.run_path(str(TOOL.with_name('stopwatch.py')))['Stopwatch']
    watch = stopwatch(['outer', 'inner'], torch.device('cpu'))
    now = iter([1.0, 3.0, 7.0, 15.0, 31.0, 63.0])
    watch._clock = lambda: next(now)
    owner = SimpleNamespace(function=lambda: 'found')
    with watch.watching([(owner, 'function', 'inner')]):
        with watch.part('outer'):
            assert owner.function() == 'found'
        with watch.part('inner'):
            pass
    # The outer part from 1 to 3 and from 7 to 15, the inner one between and from 31 to 63.
    assert watch.milliseconds == {'outer': 10_000.0, 'inner': 36_000.0}
    owner.function()  # is watched no more
    watch.restart()
    assert watch.milliseconds == {'outer': 0.0, 'inner': 0.0}
