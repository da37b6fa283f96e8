from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).resolve().parents[2] / 'tools' / 'synthesize.py'


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(TOOL), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_writes_both_splits_with_a_fifth_for_validation(tmp_path: Path) -> None:
    taxonomy = tmp_path / 'edges.csv'
    taxonomy.write_text('child,parent\ncat,animal\ndog,animal\n')
    counts = tmp_path / 'counts.csv'
    counts.write_text('class,count\nanimal,5\ncat,20\n')
    out = tmp_path / 'data'
    result = run(out, '--images', 11, '--seed', 3, '--size', 64, '--taxonomy', taxonomy, '--counts', counts)
    assert result.returncode == 0, result.stderr
    assert len(list((out / 'train').glob('*.jpg'))) == 11
    assert len(list((out / 'validation').glob('*.jpg'))) == 3  # 11 / 5, rounded up
    assert 'train: 11 images' in result.stdout
    boxes = (out / 'challenge-2019-train-segmentation-bbox.csv').read_text()
    assert ',cat,' in boxes
    assert ',animal,' in boxes
    assert ',dog,' not in boxes


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--images', 0], 'error: train split: 0 images. Ask for at least 1.'),
        (['--images', 5, '--size', 10], 'error: images of 10 pixels'),
        (['--images', 5, '--classes', 'classes.csv'], 'error: --classes without --taxonomy'),
        (['--images', 5, '--counts', 'nowhere.csv'], 'error: nowhere.csv: cannot be read'),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(tmp_path: Path, arguments: list[object], message: str) -> None:
    result = run(tmp_path / 'data', *arguments)
    assert result.returncode == 2
    assert result.stderr.startswith(message)
    assert result.stderr.count('\n') == 1
    assert list(tmp_path.iterdir()) == []
