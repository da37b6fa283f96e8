"""Conversions by the workers of a Dask cluster on this machine: the store of one process, whatever dies."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from hierseg.converters import open_images
from hierseg.converters.open_images import convert_open_images
from hierseg.errors import AnnotationError

REPOSITORY = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, 'PYTHONPATH': str(REPOSITORY)}
pytestmark = [pytest.mark.slow, pytest.mark.distributed]


@pytest.fixture
def many(split, rectangle, monkeypatch):
    """40 images in 3 batches, an image to a task."""
    monkeypatch.setattr(open_images, 'IMAGES_PER_BATCH', 16)
    monkeypatch.setattr(open_images, 'IMAGES_PER_TASK', 1)
    generator = np.random.default_rng(0)
    for image_id in [f'{number:02x}' for number in generator.permutation(40)]:
        split.add_image(image_id)
        split.labels.append((image_id, '/m/man', int(generator.integers(2))))
        for _ in range(generator.integers(0, 4)):
            x1, x2 = np.sort(generator.choice(21, 2, replace=False)) / 20
            split.add_box(image_id, '/m/car', (x1, x2, 0, 1))
            split.add_png(image_id, '/m/car', (x1, x2, 0, 1), rectangle(int(x1 * 20), int(x2 * 20), 0, 10))
    split.write()
    return split


@dataclasses.dataclass
class Cluster:
    """A scheduler and its workers."""

    folder: Path
    processes: list[subprocess.Popen[bytes]] = dataclasses.field(default_factory=list)

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        own = ['--scheduler-file', str(self.folder / 'scheduler.json'), '--no-dashboard']
        with (self.folder / f'{len(self.processes)}.log').open('wb') as log:
            command = [sys.executable, '-m', 'dask', *arguments, *own]
            process = subprocess.Popen(command, env=ENVIRONMENT, cwd=self.folder, stdout=log, stderr=log)
        self.processes.append(process)
        return process

    def start_worker(self) -> subprocess.Popen[bytes]:
        return self.start('worker', '--nworkers', '1', '--nthreads', '1', '--no-nanny', '--host', '127.0.0.1')

    @property
    def address(self) -> str:
        return json.loads((self.folder / 'scheduler.json').read_text())['address']


@pytest.fixture
def cluster(tmp_path_factory) -> Iterator[Cluster]:
    found = Cluster(tmp_path_factory.mktemp('cluster'))
    try:
        found.start('scheduler', '--host', '127.0.0.1', '--port', '0')
        deadline = time.monotonic() + 60
        while not (found.folder / 'scheduler.json').exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        yield found
    finally:
        for process in reversed(found.processes):
            process.kill()
            process.wait()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def convert(many, cluster: Cluster, **files) -> dict[str, bytes]:
    out = many.root / 'out'
    files = dataclasses.replace(many.files, **files)
    convert_open_images(files, many.taxonomy, out=out, overwrite=True, scheduler=cluster.address)
    return contents(out)


def test_the_store_of_one_process(many, cluster):
    expected = contents(many.convert()[0].path)
    for _ in range(2):
        cluster.start_worker()
    assert convert(many, cluster) == expected
    with zipfile.ZipFile(many.root / 'masks.zip', 'w') as archive:
        for png in (many.root / 'masks').iterdir():
            archive.write(png, png.name)
    assert convert(many, cluster, mask_dir=None, mask_zips=[many.root / 'masks.zip']) == expected
    image = many.root / 'images/13.jpg'
    image.unlink()
    with pytest.raises(AnnotationError, match=r'13\.jpg: there is no such image \(image 13\)\. .*--skip-broken'):
        convert(many, cluster)


def test_a_killed_worker_is_stood_in_for(many, cluster, monkeypatch):
    expected = contents(many.convert()[0].path)
    workers = [cluster.start_worker() for _ in range(2)]
    convert_batch, images = open_images.convert_batch, []

    def killing(convert, pool, first, last, *, tell):
        def told(number: int) -> None:
            images.append(number)
            if len(images) == 20:  # within the second of three batches
                workers[0].kill()
            tell(number)

        return convert_batch(convert, pool, first, last, tell=told)

    monkeypatch.setattr(open_images, 'convert_batch', killing)
    wait_for(cluster, len(workers))
    assert convert(many, cluster) == expected
    assert sum(images) == 40
    assert workers[0].poll() is not None
    assert workers[1].poll() is None


def wait_for(cluster: Cluster, workers: int) -> None:
    from distributed import Client

    with Client(cluster.address, set_as_default=False) as client:
        client.wait_for_workers(workers, timeout=60)


def test_no_cluster(many, cluster, monkeypatch):
    monkeypatch.setattr(open_images, 'SECONDS_TO_CONNECT', 1)
    with pytest.raises(AnnotationError, match=r'tcp://.*: the Dask scheduler has no workers\. .*dask worker tcp://'):
        convert(many, cluster)
    cluster.processes[0].kill()
    cluster.processes[0].wait()
    with pytest.raises(AnnotationError, match=r'tcp://.*: no Dask scheduler answers'):
        convert(many, cluster)
    monkeypatch.chdir(many.root)
    with pytest.raises(AnnotationError, match=r'images: is a relative path\. .*absolute'):
        convert(many, cluster, images='images')
