"""The sdist and the wheel: built, installed into a folder of their own, and used outside of the repository."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from PIL import Image

import hierseg

ROOT = Path(__file__).parents[1]
PARTS = ('pyproject.toml', 'README.md', 'LICENSE', 'MANIFEST.in', 'hierseg', 'tools', 'configs')

pytestmark = pytest.mark.slow


def run(*command: str | Path, cwd: Path, path: Path | None = None) -> str:
    environment = {**os.environ, 'PYTHONPATH': str(path or ''), 'PIP_DISABLE_PIP_VERSION_CHECK': '1'}
    answer = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout


@pytest.fixture(scope='module')
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built by the project's own backend, in a copy of the repository."""
    copy = tmp_path_factory.mktemp('repository')
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, copy / part, symlinks=True, ignore=shutil.ignore_patterns('__pycache__'))
        else:
            shutil.copy(ROOT / part, copy)
    run(sys.executable, '-c', 'from setuptools import build_meta; build_meta.build_sdist("dist")', cwd=copy)
    (built,) = (copy / 'dist').iterdir()
    return built


@pytest.fixture(scope='module')
def wheel(sdist: Path) -> Path:
    """Built from the sdist, as pip does where there is no wheel."""
    run(sys.executable, '-m', 'pip', 'wheel', '--no-deps', '--no-build-isolation', '--no-index', '-w', sdist.parent,
        sdist, cwd=sdist.parent)  # fmt: skip
    (built,) = sdist.parent.glob('*.whl')
    return built


@pytest.fixture(scope='module')
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel alone; everything else is in the environment of the tests."""
    folder = tmp_path_factory.mktemp('installed')
    run(sys.executable, '-m', 'pip', 'install', '--no-deps', '--no-index', '--target', folder, wheel, cwd=folder)
    return folder


def test_the_wheel_holds_what_is_needed(wheel: Path, sdist: Path) -> None:
    assert wheel.name == f'hierseg-{hierseg.__version__}-py3-none-any.whl'
    names = {*zipfile.ZipFile(wheel).namelist()}
    package = [path for path in (ROOT / 'hierseg').rglob('*') if path.is_file() and path.suffix != '.pyc']
    expected = {str(path.relative_to(ROOT)) for path in package}
    expected |= {f'hierseg/.mim/{path.relative_to(ROOT)}' for path in (ROOT / 'configs').rglob('*.py')}
    tools = [path for path in (ROOT / 'tools').rglob('*') if path.suffix in ('.py', '.sh')]
    left_out = {'setup_environment.py', 'run_tests.sh', 'chaos.py'}
    expected |= {
        f'hierseg/.mim/{path.relative_to(ROOT)}'
        for path in tools
        if path.parent.name not in ('benchmarks', 'chaos') and path.name not in left_out
    }
    assert {name for name in names if name.startswith('hierseg/')} == expected
    # Files, not links: an archive of links would be empty anywhere else.
    with tarfile.open(sdist) as archive:
        assert not any(member.issym() or member.islnk() for member in archive)


def test_commands_run_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    said = run(installed / 'bin' / 'hierseg', '--version', cwd=tmp_path, path=installed)
    assert said == f'hierseg {hierseg.__version__}\n'
    assert '--smoke' in run(installed / 'bin' / 'hierseg', 'quickstart', '--help', cwd=tmp_path, path=installed)
    data = tmp_path / 'coco.json'
    data.write_text(
        json.dumps(
            {
                'images': [{'id': 1, 'file_name': '1.jpg', 'width': 8, 'height': 8}],
                'categories': [{'id': 1, 'name': 'cow', 'supercategory': 'animal'}],
                'annotations': [
                    {'id': 1, 'image_id': 1, 'category_id': 1, 'bbox': [0, 0, 4, 4], 'area': 16, 'iscrowd': 0,
                     'segmentation': [[0, 0, 4, 0, 4, 4, 0, 4]]}
                ],
            }
        )
    )  # fmt: skip
    Image.new('RGB', (8, 8)).save(tmp_path / '1.jpg')
    said = run(installed / 'bin' / 'hierseg', 'convert', 'coco', 'to-store', 'coco.json', '--images', '.', '--out',
               'store', cwd=tmp_path, path=installed)  # fmt: skip
    assert said.endswith('written to store\n')
    assert (tmp_path / 'store' / 'store.json').exists()


def test_configs_and_templates_are_found_in_the_wheel(installed: Path, tmp_path: Path) -> None:
    configs = installed / 'hierseg' / '.mim' / 'configs'
    (tmp_path / 'own.py').write_text(
        f'_base_ = {str(configs / "quickstart/hier_e2e.py")!r}\nmodel = dict(backbone=dict(depth=34))'
    )
    script = """
from mmengine.config import Config
import hierseg
from hierseg.report.comparison.page import ENVIRONMENT
config = Config.fromfile('own.py')
print(hierseg.__file__, config.model.backbone.depth, config.model.roi_head.bbox_head.num_classes)
print('page.css' in ENVIRONMENT.list_templates(), ENVIRONMENT.get_template('page.html.jinja').name)
"""
    said = run(sys.executable, '-c', script, cwd=tmp_path, path=installed)
    assert said.splitlines()[-2:] == [f'{installed}/hierseg/__init__.py 34 22', 'True page.html.jinja']
