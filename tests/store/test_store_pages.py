"""Opening a store, sampling tables and class statistics read no mask: seen in the pages that the process maps."""

from __future__ import annotations

import ctypes
import mmap
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hierseg.store import (
    ImageRow,
    Instances,
    LayerView,
    Store,
    StoreWriter,
)
from hierseg.store import writer as store_writer
from hierseg.store.frequency import TrainingLabels, count_classes, count_layer
from hierseg.taxonomy import Taxonomy

pytestmark = pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')

BATCHES, ROWS, MASK_BYTES = 6, 40, 100_000


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six record batches of 4 MB, of which all but some kilobytes are masks."""
    monkeypatch.setattr(store_writer, 'ROWS_PER_BATCH', ROWS)
    generator = np.random.default_rng(0)
    instances = Instances(
        labels=np.arange(ROWS) % 2,
        boxes=np.tile([0.0, 0.0, 9.0, 9.0], (ROWS, 1)),
        masks=[generator.bytes(MASK_BYTES) for _ in range(ROWS)],
        has_mask=np.ones(ROWS, dtype=bool),
        group_of=np.zeros(ROWS, dtype=bool),
        areas=np.full(ROWS, 81.0),
        annotation_ids=[''] * ROWS,
    )
    with StoreWriter(tmp_path / 'store', taxonomy=Taxonomy.from_edges(['a', 'b'], [('b', 'a')])) as writer:
        for row in range(BATCHES):
            writer.add(ImageRow(str(row), f'{row}.jpg', 9, 9), instances, [0], [])
    return tmp_path / 'store'


def resident_share(path: Path) -> float:
    """The share of a file's mapping that this process has touched."""
    mapping, kilobytes = False, 0
    for line in Path('/proc/self/smaps').read_text().splitlines():
        if '-' in line.split()[0]:
            mapping = line.endswith(str(path))
        elif mapping and line.startswith('Rss:'):
            kilobytes += int(line.split()[1])
    return kilobytes * 1024 / path.stat().st_size


def test_tables_and_counts_touch_no_mask(store):
    opened = Store.open(store)
    assert count_classes(opened).instances.tolist() == [240, 120]
    labels = TrainingLabels.of(opened)
    labels.image_factors(np.ones(2))
    view = LayerView(opened, 1, images_per_class=3)
    assert count_layer(view).images == 3
    assert len(view.labels) == 60
    opened.row_of('3')
    assert resident_share(store / 'instances.arrow') < 0.3
    for row in range(BATCHES):
        opened.instances(row)
    assert resident_share(store / 'instances.arrow') > 0.9, 'the measure sees masks that are read'


READ = """
import sys
from hierseg.store import LayerView, Store
from hierseg.store.frequency import count_classes
store = Store.open(sys.argv[1])
count_classes(LayerView(store, 1))
store.instances(store.row_of('3'))
print(sorted({'pandas', 'cv2', 'torch'} & {*sys.modules}))
"""


def test_readers_import_nothing_large(store):
    done = subprocess.run([sys.executable, '-c', READ, str(store)], stdout=subprocess.PIPE, text=True, check=True)
    assert done.stdout == '[]\n'


def cached_share(path: Path) -> float:
    """The share of a file that the system holds in memory."""
    with path.open('rb') as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        pages = -(-len(mapped) // mmap.PAGESIZE)
        found = (ctypes.c_ubyte * pages)()
        content = np.frombuffer(mapped, dtype=np.uint8)
        address = content.ctypes.data
        assert ctypes.CDLL(None).mincore(ctypes.c_void_p(address), ctypes.c_size_t(len(content)), found) == 0
        del content
        return sum(page & 1 for page in found) / pages


def test_opening_asks_the_system_for_no_mask(store):
    path = store / 'instances.arrow'
    with path.open('rb') as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if cached_share(path) > 0.01:
        pytest.skip('this file system keeps files in memory')
    opened = Store.open(store)
    assert len(opened) == BATCHES
    assert cached_share(path) < 0.1
