"""The conversion commands: what they print, several processes, Ctrl-C."""

from __future__ import annotations

import json
import os
import runpy
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hierseg.store import Store


def many_images(split, rectangle, count: int) -> None:
    generator = np.random.default_rng(0)
    for number in range(count):
        image_id = f'{number:04x}'
        split.add_image(image_id)
        split.labels.append((image_id, '/m/man', number % 2))
        for _ in range(generator.integers(0, 4)):
            x1, x2 = np.sort(generator.integers(0, 21, 2)) / 20
            split.add_box(image_id, '/m/car', (x1, x2, 0, 1))
            if generator.random() < 0.7:
                split.add_png(image_id, '/m/car', (x1, x2, 0, 1), rectangle(int(x1 * 20), int(x2 * 20), 0, 10))


def test_the_number_of_workers_changes_nothing(split, rectangle):
    many_images(split, rectangle, 40)
    contents = []
    for workers in (1, 2):
        store, summary = split.convert(workers=workers)
        contents.append({path.name: path.read_bytes() for path in store.path.iterdir()})
        assert summary.images == 40
    assert contents[0] == contents[1]


TOOL = Path(__file__).parents[2] / 'tools/dataset_converters/openimages.py'


def command(split, *arguments: str) -> list[str]:
    hierarchy = {'LabelName': '/m/0bl9f', 'Subcategory': []}
    hierarchy['Subcategory'] = [
        {'LabelName': '/m/person', 'Subcategory': [{'LabelName': '/m/man'}]},
        {'LabelName': '/m/car'},
    ]
    (split.root / 'hierarchy.json').write_text(json.dumps(hierarchy))
    (split.root / 'classes.csv').write_text('/m/person,Person\n/m/man,Man\n/m/car,Car\n')
    files = split.write()
    official = {'boxes': files.boxes, 'labels': files.labels, 'masks': files.masks, 'images': files.images}
    official |= {'mask-dir': files.mask_dir, 'out': split.root / 'out/store'}
    official |= {'hierarchy': split.root / 'hierarchy.json', 'classes': split.root / 'classes.csv'}
    options = [text for name, value in official.items() for text in (f'--{name}', str(value))]
    return [sys.executable, str(TOOL), *options, *arguments]


ENVIRONMENT = {**os.environ, 'PYTHONPATH': str(TOOL.parents[2])}


def test_the_tool(split, rectangle):
    many_images(split, rectangle, 5)
    done = subprocess.run(command(split), env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert 'images                      5' in done.stdout
    assert 'image/s' in done.stderr
    assert len(Store.open(split.root / 'out/store')) == 5
    assert Store.open(split.root / 'out/store').taxonomy == split.taxonomy
    again = subprocess.run(command(split), env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert again.returncode == 2
    assert 'exists already' in again.stderr
    assert 'Traceback' not in again.stderr


def test_the_tool_interrupted_leaves_nothing_behind(split, rectangle):
    many_images(split, rectangle, 200)
    process = subprocess.Popen(
        command(split, '--workers', '2'),
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        start_new_session=True,
        # A shell lets what it runs in the background ignore the signal, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    out = split.root / 'out'
    deadline = time.monotonic() + 30
    while not (out.exists() and list(out.iterdir())) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does on Ctrl-C: to the parent and its workers
    assert process.wait(30) != 0
    assert list(out.iterdir()) == []


def test_the_coco_tool_there_and_back(tmp_path):
    coco = {
        'images': [{'id': 7, 'file_name': '7.png', 'width': 6, 'height': 4}],
        'annotations': [{'id': 3, 'image_id': 7, 'category_id': 2, 'bbox': [1, 1, 2, 2], 'area': 4, 'iscrowd': 0}],
        'categories': [{'id': 2, 'name': 'car', 'supercategory': 'vehicle'}],
    }
    (tmp_path / 'coco.json').write_text(json.dumps(coco))
    Image.new('L', (6, 4)).save(tmp_path / '7.png')
    (tmp_path / 'edges.csv').write_text('child,parent\ncar,machine\nmachine,thing\n')
    tool = [sys.executable, str(TOOL.with_name('coco.py'))]
    to_store = [*tool, 'to-store', 'coco.json', '--images', '.', '--out', 'store', '--taxonomy', 'edges.csv']
    for arguments in (to_store, [*tool, 'from-store', 'store', '--out', 'back.json']):
        done = subprocess.run(arguments, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert done.stdout == '1 categories, 1 images, 1 annotations\nwritten to back.json\n'
    assert Store.open(tmp_path / 'store').taxonomy.names == ('car', 'machine', 'thing')
    back = json.loads((tmp_path / 'back.json').read_text())
    assert {key: back[key] for key in ('images', 'categories')} == {key: coco[key] for key in ('images', 'categories')}
    assert back['annotations'] == [{**coco['annotations'][0], 'segmentation': []}]
    again = subprocess.run(
        [*tool, 'from-store', 'store', '--out', 'back.json'],
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert again.returncode == 2
    assert (
        again.stderr
        == 'error: back.json: exists already. Name another file, or replace it with --overwrite (overwrite=True).\n'
    )


def run_here(monkeypatch, capsys, tool: str, *arguments: object) -> str:
    """Runs a tool in this process, which has the slow imports behind it; what it printed."""
    path = TOOL.with_name(tool)
    monkeypatch.setattr(sys, 'argv', [str(path), *map(str, arguments)])
    runpy.run_path(str(path), run_name='__main__')
    return capsys.readouterr().out


def test_the_tool_for_archives(split, rectangle, monkeypatch, capsys):
    many_images(split, rectangle, 9)
    split.add_box('0003', '/m/car', (0, 2, 0, 1))
    arguments = command(split, '--lenient', '--workers', '1')[2:]
    whole, archived = split.root / 'out/store', split.root / 'archived'
    printed = run_here(monkeypatch, capsys, 'openimages.py', *arguments, '--summary', split.root / 'summary.json')
    assert 'skipped: box rows that cannot be used: 1 (' in printed
    assert json.loads((split.root / 'summary.json').read_text()) == Store.open(whole).summary

    with zipfile.ZipFile(split.root / 'masks.zip', 'w') as archive:
        for png in (split.root / 'masks').iterdir():
            archive.write(png, png.name)
    at = arguments.index('--mask-dir')
    arguments[at : at + 2] = ['--mask-zips', str(split.root / 'masks.zip')]
    arguments[arguments.index('--out') + 1] = str(archived)
    assert run_here(monkeypatch, capsys, 'openimages.py', *arguments).startswith('images')
    for path in whole.iterdir():
        assert path.read_bytes() == (archived / path.name).read_bytes()


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--lenient', '--strict'], 'not allowed with argument --lenient'),
        (['--mask-zips', 'a.zip'], 'not allowed with argument --mask-dir'),
        (['--workers', '1000', '--scheduler', 'tcp://127.0.0.1:1'], 'not allowed with argument --workers'),
    ],
)
def test_arguments_that_contradict_each_other(split, monkeypatch, capsys, arguments, message):
    with pytest.raises(SystemExit):
        run_here(monkeypatch, capsys, 'openimages.py', *command(split)[2:], *arguments)
    assert message in capsys.readouterr().err
