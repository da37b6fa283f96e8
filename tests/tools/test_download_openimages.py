"""The download command: its words and exit status, killed and interrupted, and a store from what it fetched."""

from __future__ import annotations

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
from mirror import Fault, serving
from open_images_mirror import CLASSES, HIERARCHY, IMAGE_IDS, IMAGES, TABLE, TABLES, archive, open_images_mirror

from hierseg.store import Store

TOOLS = Path(__file__).parents[2] / 'tools' / 'dataset_converters'
TOOL = TOOLS / 'download_openimages.py'
ENVIRONMENT = {**os.environ, 'PYTHONPATH': str(TOOL.parents[2]), 'no_proxy': '*'}


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv('no_proxy', '*')


@pytest.fixture
def mirror():
    with serving(open_images_mirror()) as mirror:
        yield mirror


@pytest.fixture
def arguments(mirror, tmp_path):
    return [
        *(str(tmp_path / 'out'), '--split', 'validation', '--base-url', mirror.url, '--images-url', mirror.url),
        *('--backoff', '0.01', '--timeout', '5', '--attempts', '3'),
    ]


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs a tool in this process; its exit status, and what it wrote."""

    def call(tool, arguments):
        monkeypatch.setattr(sys, 'argv', [str(tool), *arguments])
        status = 0
        try:
            runpy.run_path(str(tool), run_name='__main__')
        except SystemExit as exit_:
            status = exit_.code
        return status, *capsys.readouterr()

    return call


def start(arguments):
    return subprocess.Popen(
        [sys.executable, str(TOOL), *arguments],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell lets what it runs in the background ignore the signal, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def wait_for(condition, seconds=30.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, 'it never came to that'
        time.sleep(0.01)


class TestWords:
    def test_all_is_well(self, mirror, run, arguments):
        status, out, _ = run(TOOL, [*arguments, '--classes', 'Animal'])
        assert status == 0
        assert '4 of 4 images, 1 archives of masks: about 1.18 MB to fetch' in out  # 4 × 294 kB, and a small zip
        assert '10 files fetched' in out

    def test_a_dry_run_fetches_nothing(self, mirror, run, arguments, tmp_path):
        del mirror.files[archive('7')]
        mirror.files[archive('f')] = bytes(12_345_678)
        status, out, _ = run(TOOL, [*arguments, '--dry-run'])
        assert status == 0
        assert all(name in out for name in (*TABLES, archive('0'), archive('f')))
        assert f'{len(mirror.files[CLASSES])} B | to fetch' in out
        assert '12.3 MB | to fetch' in out
        assert '? | 404 Not Found' in out
        assert 'at most 41,620' in out
        assert 'about 12.2 GB' in out  # 41,620 × 294 kB = 12.236 GB
        assert not (tmp_path / 'out').exists()
        assert {request.method for request in mirror.requests} == {'HEAD'}

    def test_a_dry_run_over_tables_counts_images(self, mirror, run, arguments):
        assert run(TOOL, [*arguments, '--classes', 'Cat'])[0] == 0
        status, out, _ = run(TOOL, [*arguments, '--classes', 'Dog', '--dry-run'])
        assert (status, out.splitlines()[-1].partition(':')[0]) == (0, '1 of 1 images, 1 archives of masks')
        assert mirror.gets(IMAGES[0]) == []

    def test_missing_images(self, mirror, run, arguments, tmp_path):
        del mirror.files[IMAGES[1]]
        status, _, error = run(TOOL, arguments)
        assert status == 1
        assert f'1 could not be fetched: {tmp_path}/out/not_fetched.csv' in error
        assert IMAGES[1] in (tmp_path / 'out/not_fetched.csv').read_text()

    def test_without_a_network(self, run, arguments, tmp_path):
        status, out, error = run(TOOL, [*arguments, '--base-url', 'http://mirror.invalid/openimages/'])
        assert (status, out) == (2, '')
        assert error.startswith('error: http://mirror.invalid: the server cannot be reached (')
        assert error.count('\n') == 1
        assert not (tmp_path / 'out').exists()


class TestKilled:
    def test_only_what_was_on_its_way_is_fetched_again(self, mirror, arguments, tmp_path):
        """kill -9 with two archives half there: all else is whole, and the rest of both is all that comes."""
        large = {archive('0'): 5_000_000, archive('f'): 3_000_000}
        halves = {name: size // 2 for name, size in large.items()}
        for number, (name, size) in enumerate(large.items()):
            mirror.files[name] = np.random.default_rng(number).bytes(size)
            mirror.faults[name] = [Fault(wait_after=halves[name])]
        partial = {name: (tmp_path / 'out' / name).with_name(f'.{Path(name).name}.partial') for name in large}

        process = start(arguments)
        others = [tmp_path / 'out' / name for name in (*TABLES, *IMAGES)]
        arrived = lambda name: partial[name].exists() and partial[name].stat().st_size == halves[name]  # noqa: E731
        wait_for(lambda: all(path.exists() for path in others) and all(map(arrived, large)))
        wait_for(lambda: (tmp_path / 'out/.verified.csv').read_text().count('\n') == len(others) + len(large))
        process.kill()
        assert process.wait() == -signal.SIGKILL
        process.communicate()
        assert not any((tmp_path / 'out' / name).exists() for name in large)

        process = start(arguments)
        out, error = process.communicate(timeout=60)
        assert process.returncode == 0, error
        for name, size in large.items():
            assert (tmp_path / 'out' / name).read_bytes() == mirror.files[name]
            assert [request.range for request in mirror.gets(name)] == ['', f'bytes={halves[name]}-']
            assert mirror.sent(name) == size
        assert all(len(mirror.gets(name)) == 1 for name in (*TABLES, *IMAGES))
        assert '2 files fetched (4 MB), 6 were there' in out

    def test_at_any_moment(self, mirror, arguments, tmp_path):
        """Killed again and again, each run goes on exactly where the disk says, and the whole is right in the end."""
        name = archive('0')
        partial = (tmp_path / 'out' / name).with_name(f'.{Path(name).name}.partial')
        mirror.files[name] = np.random.default_rng(0).bytes(3_000_000)
        mirror.always[name] = Fault(pause_piece=0.01)  # 184 pieces of 16 kB: about 2 s in all
        kept = [0]
        for pause in np.random.default_rng(1).uniform(0.2, 0.6, 3):
            before = len(mirror.gets(name))
            process = start(arguments)
            wait_for(lambda before=before: len(mirror.gets(name)) > before)
            time.sleep(pause)
            process.kill()
            process.communicate()
            kept.append(partial.stat().st_size if partial.exists() else 0)
        process = start(arguments)
        process.communicate(timeout=60)
        assert process.returncode == 0
        assert (tmp_path / 'out' / name).read_bytes() == mirror.files[name]
        assert [request.range for request in mirror.gets(name)] == [f'bytes={size}-' if size else '' for size in kept]
        assert kept == sorted(kept)
        assert kept[-1] > 0


def test_ctrl_c_leaves_parts_and_no_traceback(mirror, arguments, tmp_path):
    name = archive('0')
    mirror.files[name] = np.random.default_rng(0).bytes(3_000_000)
    mirror.faults[name] = [Fault(wait_after=2_000_000)]
    process = start([*arguments, '--timeout', '600'])
    partial = (tmp_path / 'out' / name).with_name(f'.{Path(name).name}.partial')
    wait_for(lambda: partial.exists() and partial.stat().st_size == 2_000_000)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)  # the server waits for longer
    assert process.returncode == 130
    assert 'Traceback' not in error
    assert error.splitlines()[-1] == 'stopped; what has arrived is kept, and the same command goes on from it'
    assert partial.stat().st_size == 2_000_000


def test_what_it_fetches_becomes_a_store(run, arguments, tmp_path):
    assert run(TOOL, arguments)[0] == 0
    out = tmp_path / 'out'
    for path in sorted(out.glob('challenge_2019/validation-masks/*.zip')):
        with zipfile.ZipFile(path) as masks:
            masks.extractall(out / 'masks/validation')
    files = {'hierarchy': HIERARCHY, 'classes': CLASSES, 'mask-dir': 'masks/validation', 'images': 'validation'}
    files |= {
        kind: f'{TABLE}-{table}.csv' for kind, table in [('boxes', 'bbox'), ('labels', 'labels'), ('masks', 'masks')]
    }
    options = [text for name, path in files.items() for text in (f'--{name}', str(out / path))]
    status, _, error = run(
        TOOLS / 'openimages.py', [*options, '--out', str(tmp_path / 'store'), '--workers', '1', '--strict']
    )
    assert status == 0, error
    store = Store.open(tmp_path / 'store')
    assert len(store) == len(IMAGE_IDS)
    assert sum(int(store.instances(row).has_mask.sum()) for row in range(len(store))) == 3
