from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from open_images_files import rectangle, write_case, write_hierarchy
from taxonomies import teddy_taxonomy

TOOL = Path(__file__).parents[2] / 'tools' / 'eval_openimages.py'


@pytest.fixture
def arguments(tmp_path):
    """Bear found, Toy with a masked group-of object, nothing else."""
    row = {'image': 'a', 'box': (0.0, 0.0, 0.5, 0.5), 'mask': rectangle(0, 0, 4, 4), 'group': False, 'score': 0.9}
    rows = [{**row, 'cls': 'bear'}, {**row, 'cls': 'toy', 'group': True}]
    files = write_case(tmp_path, rows, rows, [], rows, iou_type='segm')
    hierarchy = write_hierarchy(tmp_path / 'hierarchy.json', teddy_taxonomy())
    return [f'--{name}={path}' for name, path in {**files, 'hierarchy': hierarchy}.items()]


def run(*arguments):
    return subprocess.run([sys.executable, str(TOOL), *arguments], capture_output=True, text=True, check=False)


def test_prints_the_result(arguments):
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    # Bear expands to Animal, which nobody claimed.
    assert json.loads(done.stdout) == {
        'mAP': 0.5,
        'num_classes_evaluated': 2,
        'AP': {'toy': None, 'teddy': None, 'animal': 0.0, 'bear': 1.0, 'car': None},
    }


def test_options_and_output_file(arguments, tmp_path):
    out = tmp_path / 'result.json'
    done = run(*arguments, '--no-expand', '--group-of-weight=1', '--out', str(out))
    assert done.returncode == 0, done.stderr
    assert json.loads(out.read_text())['AP'] == {'toy': 1.0, 'teddy': None, 'animal': None, 'bear': 1.0, 'car': None}
    assert 'mAP 1.0000 over 2 classes' in done.stdout


def test_user_errors_are_one_line(arguments, tmp_path):
    predictions = tmp_path / 'predictions.csv'
    predictions.write_text(predictions.read_text().replace('toy', 'boat'))
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stderr.count('\n') == 1
    assert f"{predictions}, line 3: class 'boat' is not in the taxonomy of" in done.stderr


def test_help():
    done = run('--help')
    assert done.returncode == 0
    assert '--group-of-weight' in done.stdout
