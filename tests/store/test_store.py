"""The store: what is written is what is read, nothing half-written is ever seen."""

from __future__ import annotations

import ctypes
import json
import mmap
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_store import reseal

from hierseg.errors import StoreError
from hierseg.store import (
    ImageRow,
    Instances,
    LayerView,
    Store,
    StoreWriter,
)
from hierseg.store import writer as store_writer
from hierseg.store.frequency import TrainingLabels, count_classes, count_layer
from hierseg.taxonomy.graph import Taxonomy

TAXONOMY = Taxonomy.from_edges(['/m/a', '/m/b', '/m/c'], [('/m/b', '/m/a')], names=['Ä', 'B', 'C'])


def make_instances(count: int, *, seed: int = 0) -> Instances:
    """Random instances; every third has no mask."""
    generator = np.random.default_rng(seed)
    corners = np.sort(generator.uniform(0, 50, size=(count, 2, 2)), axis=1)
    has_mask = np.arange(count) % 3 != 2
    return Instances(
        labels=generator.integers(0, 3, count),
        boxes=corners.reshape(count, 4),
        masks=[generator.bytes(1 + i % 7) if has else b'' for i, has in enumerate(has_mask)],
        has_mask=has_mask,
        group_of=generator.random(count) < 0.3,
        areas=generator.uniform(1, 9, count),
        annotation_ids=[f'box-{seed}-{i}ü' if i % 4 else '' for i in range(count)],
    )


def assert_same(found: Instances, expected: Instances) -> None:
    assert found.labels.dtype == np.int64
    assert found.boxes.shape == (len(expected), 4)
    for name in ('labels', 'boxes', 'has_mask', 'group_of', 'areas'):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    assert list(found.masks) == list(expected.masks)
    assert list(found.annotation_ids) == list(expected.annotation_ids)


def write(path: Path, counts: list[int], **options: bool) -> list[Instances]:
    written = [make_instances(count, seed=seed) for seed, count in enumerate(counts)]
    with StoreWriter(path, taxonomy=TAXONOMY, **options) as writer:
        for row, instances in enumerate(written):
            writer.add(
                ImageRow(f'{(row * 7) % 11:04d}', f'a/{row}.jpg', 100 + row, 50), instances, [2, 0, 2], [1][: row % 2]
            )
        writer.summary = {'images': len(counts)}
    return written


@pytest.mark.parametrize('rows_per_batch', [1, 5, 1 << 16])
def test_reads_what_was_written_across_batches(tmp_path, monkeypatch, rows_per_batch):
    monkeypatch.setattr(store_writer, 'ROWS_PER_BATCH', rows_per_batch)
    counts = [3, 0, 1, 12, 0, 7, 4, 0]
    written = write(tmp_path / 'store', counts)
    store = Store.open(tmp_path / 'store')
    assert len(store) == 8
    assert store.taxonomy == TAXONOMY
    assert store.summary == {'images': 8}
    for row, instances in enumerate(written):
        assert store.image(row) == ImageRow(f'{(row * 7) % 11:04d}', f'a/{row}.jpg', 100 + row, 50)
        assert store.row_of(store.image(row).id) == row
        assert_same(store.instances(row), instances)
        positive, negative = store.verified(row)
        assert positive.tolist() == [0, 2]
        assert negative.tolist() == [1][: row % 2]
    assert store.num_instances_per_image.tolist() == counts
    assert store.first_instances.tolist() == [0, 3, 3, 4, 16, 16, 23, 27]
    np.testing.assert_array_equal(store.labels, np.concatenate([i.labels for i in written]))


@settings(max_examples=20, deadline=None)
@given(counts=st.lists(st.integers(0, 9), min_size=1, max_size=11))
def test_any_counts_round_trip(tmp_path_factory, counts):
    path = tmp_path_factory.mktemp('law') / 'store'
    written = write(path, counts)
    store = Store.open(path)
    for row, instances in enumerate(written):
        assert_same(store.instances(row), instances)


def test_returned_arrays_are_the_callers_own(tmp_path):
    write(tmp_path / 'store', [3])
    store = Store.open(tmp_path / 'store')
    before = store.instances(0)
    changed = store.instances(0)
    changed.boxes[:] = changed.areas[:] = changed.labels[:] = -1
    changed.has_mask[:] = changed.group_of[:] = True
    assert_same(store.instances(0), before)


@pytest.mark.parametrize('method', ['fork', 'spawn'])
def test_works_in_worker_processes(tmp_path, method):
    written = write(tmp_path / 'store', [3, 2])
    store = Store.open(tmp_path / 'store')
    with multiprocessing.get_context(method).Pool(1) as pool:
        assert_same(pool.apply(store.instances, (1,)), written[1])


def test_pickles_as_its_path(tmp_path):
    write(tmp_path / 'store', [300])
    store = Store.open(tmp_path / 'store')
    assert store.labels.shape == (300,)
    text = pickle.dumps(store)
    assert len(text) < 1000
    assert_same(pickle.loads(text).instances(0), store.instances(0))


def test_unknown_rows_and_ids(tmp_path):
    write(tmp_path / 'store', [1])
    store = Store.open(tmp_path / 'store')
    with pytest.raises(StoreError, match="no image '9999' among 1"):
        store.row_of('9999')
    for row in (-1, 1):
        with pytest.raises(StoreError, match=f'image row {row} of 1'):
            store.instances(row)


def test_opening_what_is_no_store(tmp_path):
    with pytest.raises(StoreError, match=r'nowhere: no store\.json here'):
        Store.open(tmp_path / 'nowhere')
    (tmp_path / 'store.json').write_text('[]')
    with pytest.raises(StoreError, match='is no JSON object'):
        Store.open(tmp_path)
    (tmp_path / 'store.json').write_text('{"format": "hierseg-sto')
    with pytest.raises(StoreError, match='is not JSON'):
        Store.open(tmp_path)


def test_opening_another_version(tmp_path):
    write(tmp_path / 'store', [1])
    header = json.loads((tmp_path / 'store/store.json').read_text())
    assert {k: header[k] for k in ('format', 'version', 'images', 'instances', 'masks', 'verified')} == {
        'format': 'hierseg-store',
        'version': 2,
        'images': 1,
        'instances': 1,
        'masks': 1,
        'verified': 2,
    }
    reseal(tmp_path / 'store', version=3)
    with pytest.raises(StoreError, match="found 'hierseg-store' version 3"):
        Store.open(tmp_path / 'store')


@pytest.mark.parametrize('name', ['images.arrow', 'instances.arrow', 'verified.arrow', 'taxonomy.json'])
def test_opening_an_incomplete_store(tmp_path, name):
    write(tmp_path / 'store', [4])
    whole = (tmp_path / 'store' / name).read_bytes()
    (tmp_path / 'store' / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StoreError, match=name):
        Store.open(tmp_path / 'store')
    (tmp_path / 'store' / name).unlink()
    with pytest.raises(StoreError, match=name):
        Store.open(tmp_path / 'store')


def test_opening_a_store_with_a_file_of_another(tmp_path):
    write(tmp_path / 'a', [4])
    write(tmp_path / 'b', [5])
    (tmp_path / 'a/instances.arrow').write_bytes((tmp_path / 'b/instances.arrow').read_bytes())
    with pytest.raises(StoreError, match=r'instances\.arrow: has [0-9,]+ bytes, store\.json says'):
        Store.open(tmp_path / 'a')


def test_an_error_leaves_nothing_behind(tmp_path):
    def interrupted() -> None:
        with StoreWriter(tmp_path / 'store', taxonomy=TAXONOMY) as writer:
            writer.add(ImageRow('1', '1.jpg', 5, 5), make_instances(2), [], [])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('step', ['files.fcntl.flock', 'store.writer._TableWriter'])
def test_an_interruption_before_the_block_leaves_nothing_behind(tmp_path, monkeypatch, step):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(f'hierseg.{step}', interrupt)
    with pytest.raises(KeyboardInterrupt), StoreWriter(tmp_path / 'store', taxonomy=TAXONOMY):
        pass
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []


def test_no_images_is_an_error(tmp_path):
    with pytest.raises(StoreError, match='the split is empty'), StoreWriter(tmp_path / 'store', taxonomy=TAXONOMY):
        pass
    assert list(tmp_path.iterdir()) == []


KILLED = """
import sys, time
from hierseg.store import StoreWriter
from hierseg.taxonomy.graph import Taxonomy
with StoreWriter(sys.argv[1], taxonomy=Taxonomy.from_edges(['a'], [])):
    print('writing', flush=True)
    time.sleep(60)
"""


def test_a_killed_run_is_invisible_and_swept_by_the_next(tmp_path):
    process = subprocess.Popen([sys.executable, '-c', KILLED, str(tmp_path / 'store')], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    [partial] = tmp_path.iterdir()
    write(tmp_path / 'store', [1])
    assert partial.exists(), 'a run that is still alive keeps its folder'
    process.send_signal(signal.SIGKILL)
    process.wait()
    write(tmp_path / 'store', [2], overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ['store']
    assert len(Store.open(tmp_path / 'store').instances(0)) == 2


def test_what_exists_is_kept_unless_told(tmp_path):
    write(tmp_path / 'store', [1])
    with pytest.raises(StoreError, match='exists already'):
        write(tmp_path / 'store', [2])
    assert len(Store.open(tmp_path / 'store').instances(0)) == 1
    (tmp_path / 'photos').mkdir()
    (tmp_path / 'photos/mine.jpg').touch()
    with pytest.raises(StoreError, match='exists and is no store'):
        write(tmp_path / 'photos', [2], overwrite=True)
    assert (tmp_path / 'photos/mine.jpg').exists()


def test_an_error_while_overwriting_keeps_the_old_store(tmp_path):
    def add_twice() -> None:
        with StoreWriter(tmp_path / 'store', taxonomy=TAXONOMY, overwrite=True) as writer:
            writer.add(ImageRow('1', '1.jpg', 5, 5), Instances.empty(), [], [])
            writer.add(ImageRow('1', '1.jpg', 5, 5), Instances.empty(), [], [])

    write(tmp_path / 'store', [1])
    with pytest.raises(StoreError, match='image 1: is added twice'):
        add_twice()
    assert len(Store.open(tmp_path / 'store').instances(0)) == 1
    assert [path.name for path in tmp_path.iterdir()] == ['store']


BAD = {
    'width': (ImageRow('7', '7.jpg', 0, 5), {}, 'image 7: has the size 0 x 5'),
    'label': (None, {'labels': np.array([3])}, 'image 7: has the label 3'),
    'order': (None, {'boxes': np.array([[2.0, 0, 1, 1]])}, 'x1 > x2'),
    'nan': (None, {'boxes': np.array([[0, 0, np.nan, 1]])}, 'not finite'),
    'shape': (None, {'boxes': np.zeros((1, 5))}, r'boxes of shape \(1, 5\)'),
    'length': (None, {'areas': np.zeros(2)}, 'columns of different lengths'),
    'mask': (None, {'masks': [b'']}, 'has_mask contradicts'),
}


@pytest.mark.parametrize('case', BAD)
def test_bad_rows_are_refused(tmp_path, case):
    image, changes, message = BAD[case]
    good = {name: getattr(make_instances(1), name) for name in Instances.__dataclass_fields__}
    with pytest.raises(StoreError, match=message), StoreWriter(tmp_path / 'store', taxonomy=TAXONOMY) as writer:
        writer.add(image or ImageRow('7', '7.jpg', 9, 9), Instances(**{**good, **changes}), [], [])


def test_random_access_does_not_grow_with_the_store(tmp_path, monkeypatch):
    # 400 batches, so that anything linear in them (such as slicing a ChunkedArray) shows.
    monkeypatch.setattr(store_writer, 'ROWS_PER_BATCH', 50)
    write_many = [make_instances(5, seed=seed) for seed in range(4)]
    with StoreWriter(tmp_path / 'store', taxonomy=TAXONOMY) as writer:
        for row in range(4000):
            writer.add(ImageRow(str(row), f'{row}.jpg', 9, 9), write_many[row % 4], [0], [1])
    store = Store.open(tmp_path / 'store')
    store.instances(3999)
    start = time.perf_counter()
    for _ in range(200):
        store.instances(3999)
    assert (time.perf_counter() - start) / 200 < 1e-3


# Opening a store, sampling tables and class statistics read no mask: seen in the pages that the process maps.

reads_proc = pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')
BATCHES, ROWS, MASK_BYTES = 6, 40, 100_000


@pytest.fixture
def masks_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
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


@reads_proc
def test_tables_and_counts_touch_no_mask(masks_store):
    opened = Store.open(masks_store)
    assert count_classes(opened).instances.tolist() == [240, 120]
    labels = TrainingLabels.of(opened)
    labels.image_factors(np.ones(2))
    view = LayerView(opened, 1, images_per_class=3)
    assert count_layer(view).images == 3
    assert len(view.labels) == 60
    opened.row_of('3')
    assert resident_share(masks_store / 'instances.arrow') < 0.3
    for row in range(BATCHES):
        opened.instances(row)
    assert resident_share(masks_store / 'instances.arrow') > 0.9, 'the measure sees masks that are read'


READ = """
import sys
from hierseg.store import LayerView, Store
from hierseg.store.frequency import count_classes
store = Store.open(sys.argv[1])
count_classes(LayerView(store, 1))
store.instances(store.row_of('3'))
print(sorted({'pandas', 'cv2', 'torch'} & {*sys.modules}))
"""


@reads_proc
def test_readers_import_nothing_large(masks_store):
    done = subprocess.run([sys.executable, '-c', READ, str(masks_store)], stdout=subprocess.PIPE, text=True, check=True)
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


@reads_proc
def test_opening_asks_the_system_for_no_mask(masks_store):
    path = masks_store / 'instances.arrow'
    with path.open('rb') as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if cached_share(path) > 0.01:
        pytest.skip('this file system keeps files in memory')
    opened = Store.open(masks_store)
    assert len(opened) == BATCHES
    assert cached_share(path) < 0.1
