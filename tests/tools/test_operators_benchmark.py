"""The benchmark of mmcv's operators does its job once, on little data; each backend in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOL = ROOT / 'tools' / 'benchmarks' / 'operators.py'


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': '-1'}
    command = [sys.executable, TOOL, *map(str, arguments)]
    return subprocess.run(command, env=variables, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_times_each_backend_or_says_that_it_is_absent(tmp_path: Path) -> None:
    out = tmp_path / 'new' / 'operators.json'
    little = ('--rois', 4, '--features', 4, 20, 30, '--boxes', 50, 200, '--batch-size', 1, '--repeats', 1)
    answer = run(*little, '--out', out)
    assert answer.returncode == 0, answer.stderr
    document = json.loads(out.read_text())
    assert {'default', 'torch'} <= document['figures'].keys()
    assert document['figures'].keys() | document['absent'].keys() == {'compiled', 'default', 'torchvision', 'torch'}
    assert not document['figures'].keys() & document['absent'].keys()
    for backend, figures in document['figures'].items():
        assert list(figures) == [
            'RoI align, forward', 'RoI align, forward and backward', 'nms of 50 boxes', 'nms of 200 boxes',
            'training step', 'RoI align, forward and backward, peak MB',
        ], backend  # fmt: skip
        assert all(0 < value < 60_000 for name, value in figures.items() if 'peak' not in name)
    assert all(f'{backend} is absent: HIERSEG_OPERATORS' in answer.stdout for backend in document['absent'])
    assert answer.stdout.startswith(f'| ms | {next(iter(document["figures"]))} |')


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [(('--rois', 0), 'all numbers must be at least 1'), (('--device', 'cuda'), 'torch sees no GPU')],
)
def test_refuses_what_it_cannot_do(arguments: tuple[object, ...], message: str) -> None:
    answer = run(*arguments)
    assert answer.returncode == 2
    assert message in answer.stderr
