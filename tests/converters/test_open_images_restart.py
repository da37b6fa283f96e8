"""Conversions that are killed, and what goes on after them."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hierseg.converters import open_images
from hierseg.converters.open_images import ConversionOptions, convert_open_images
from hierseg.converters.open_images_progress import WorkFolder
from hierseg.errors import AnnotationError, StoreError
from hierseg.files import PARTIAL
from hierseg.store import Store

REPOSITORY = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, 'PYTHONPATH': str(REPOSITORY)}
IMAGES_PER_BATCH = 8


@pytest.fixture
def many(split, rectangle, monkeypatch):
    """40 images, 5 batches; rows of one image are spread over the tables."""
    monkeypatch.setattr(open_images, 'IMAGES_PER_BATCH', IMAGES_PER_BATCH)
    generator = np.random.default_rng(0)
    for image_id in [f'{number:02x}' for number in generator.permutation(40)]:
        split.add_image(image_id)
        split.labels.append((image_id, '/m/man', int(generator.integers(2))))
        for _ in range(generator.integers(0, 4)):
            x1, x2 = np.sort(generator.choice(21, 2, replace=False)) / 20
            split.add_box(image_id, '/m/car', (x1, x2, 0, 1))
            if generator.random() < 0.7:
                split.add_png(image_id, '/m/car', (x1, x2, 0, 1), rectangle(int(x1 * 20), int(x2 * 20), 0, 10))
    for rows in (split.boxes, split.labels, split.masks):
        generator.shuffle(rows)
    split.write()
    return split


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def kill_and_go_on(many, what: str, *, seed: int, count: int) -> dict[str, Any]:
    script = Path(__file__).with_name('killed_conversion.py')
    command = [sys.executable, str(script), str(many.root), what, str(seed), str(count)]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize('what', ['convert', 'overwrite'])
def test_killed_at_any_moment_and_gone_on_with(many, what):
    if what == 'overwrite':
        many.convert()
        (many.root / 'store').rename(many.root / 'old')
        # One label less, so that the old store and the new one differ.
        many.labels.pop()
        many.write()
    found = kill_and_go_on(many, what, seed=0, count=10)
    assert found['images'] == 40
    assert len(found['runs']) == min(10, found['moments'])
    for run in found['runs']:
        assert run['killed']
        assert run['whole or not there']
        assert run['equal']
        assert run['opened twice'] <= IMAGES_PER_BATCH
        # A run that had given the store its name may leave its folder of work; a later one removes it.
        assert all(name == '.out.work' or PARTIAL.fullmatch(name) or '.replaced-' in name for name in run['left over'])
    assert sum(not run['left over'] for run in found['runs']) > len(found['runs']) // 2
    if what == 'convert':
        # Some were killed when batches were done, and did not do them again.
        assert any(run['opened twice'] == 0 for run in found['runs'])


class Stop(Exception):
    """Ends a conversion in the middle of a batch."""


def stop_after(monkeypatch, images: int) -> None:
    convert, seen = open_images.ImageConverter.__call__, []

    def counted(self, task):
        if len(seen) == images:
            raise Stop
        seen.append(task.image_id)
        return convert(self, task)

    monkeypatch.setattr(open_images.ImageConverter, '__call__', counted)


def unfinished(many, monkeypatch, *, images: int = 20, **options) -> Path:
    """Stops a conversion within the third batch."""
    with monkeypatch.context() as patch:
        stop_after(patch, images)
        with pytest.raises(Stop):
            convert(many, **options)
    [work] = many.root.glob('.*.work')
    return work


def convert(many, *, files=None, overwrite: bool = False, **options) -> dict[str, bytes]:
    out = many.root / 'out'
    convert_open_images(
        files or many.files, many.taxonomy, out=out, options=ConversionOptions(**options), overwrite=overwrite
    )
    return contents(out)


def test_finished_batches_are_kept_and_the_rest_is_done(many, monkeypatch):
    expected = contents(many.convert()[0].path)
    work = unfinished(many, monkeypatch)
    assert sorted(path.name for path in work.glob('*.part')) == ['00000000-00000008.part', '00000008-00000016.part']
    assert not (many.root / 'out').exists()
    unfinished(many, monkeypatch, images=9)  # one batch more, from the third on
    assert len(list(work.glob('*.part'))) == 3
    assert convert(many) == expected
    assert not work.exists()


def test_a_run_without_a_finished_batch_leaves_nothing(many, monkeypatch):
    with monkeypatch.context() as patch:
        stop_after(patch, 7)
        with pytest.raises(Stop):
            convert(many)
    assert list(many.root.glob('.*')) == []


def test_bad_input_keeps_what_was_done_before_it(many):
    expected = contents(many.convert()[0].path)
    image = many.root / 'images/27.jpg'  # the last
    content = image.read_bytes()
    image.unlink()
    with pytest.raises(AnnotationError, match=r'27\.jpg'):
        convert(many)
    assert len(list(many.root.glob('.out.work/*.part'))) == 4
    image.write_bytes(content)
    assert convert(many) == expected


@pytest.mark.parametrize('name', ['box', 'label', 'mask'])
def test_other_files_are_refused_or_begun_anew(many, monkeypatch, name):
    unfinished(many, monkeypatch)
    path = many.path(name)
    path.write_text(path.read_text().rsplit('\n', 2)[0] + '\n')  # without its last row
    table = {'box': 'boxes', 'label': 'labels', 'mask': 'masks'}[name]
    with pytest.raises(
        StoreError, match=rf'\.out\.work: holds an unfinished .* begun with other {table}\. .*--overwrite'
    ):
        convert(many)
    assert convert(many, overwrite=True) == contents(many.convert(write=False)[0].path)


def test_other_options_folders_and_classes_are_refused(many, monkeypatch):
    work = unfinished(many, monkeypatch)
    with pytest.raises(StoreError, match=r'other strict, box_tolerance\.'):
        convert(many, strict=True, box_tolerance=0.5)
    (many.root / 'images').rename(many.root / 'photos')
    with pytest.raises(StoreError, match=r'other images\.'):
        convert(many, files=dataclasses.replace(many.files, images=many.root / 'photos'))
    (many.root / 'photos').rename(many.root / 'images')
    many.taxonomy = type(many.taxonomy).from_edges(['/m/person', '/m/man', '/m/car'], [])
    with pytest.raises(StoreError, match=r'other taxonomy\.'):
        convert(many)
    assert len(list(work.glob('*.part'))) == 2


def test_overwrite_goes_on_with_its_own_work(many, monkeypatch):
    expected = contents(many.convert()[0].path)
    work = unfinished(many, monkeypatch)
    before = {path: path.stat().st_mtime_ns for path in work.glob('*.part')}
    with monkeypatch.context() as patch:
        stop_after(patch, 1)
        with pytest.raises(Stop):
            convert(many, overwrite=True)
    assert {path: path.stat().st_mtime_ns for path in work.glob('*.part')} == before
    assert convert(many, overwrite=True) == expected


def test_a_damaged_batch_is_refused(many, monkeypatch):
    work = unfinished(many, monkeypatch)
    [path, _] = sorted(work.glob('*.part'))
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(StoreError, match=r'00000008\.part: is damaged or cut off\. .*delete it'):
        convert(many)
    path.unlink()
    assert convert(many) == contents(many.convert()[0].path)


def whole_work(many, monkeypatch) -> Path:
    """The folder of work of a conversion that ended when all batches were done."""
    with monkeypatch.context() as patch:
        patch.setattr(open_images, 'StoreWriter', stop)
        with pytest.raises(Stop):
            convert(many)
    return many.root / '.out.work'


def stop(*args, **kwargs):
    raise Stop


def flipped(content: bytes, generator: random.Random) -> bytes:
    at = generator.randrange(len(content))
    return content[:at] + bytes([content[at] ^ (1 << generator.randrange(8))]) + content[at + 1 :]


def cut(content: bytes, generator: random.Random) -> bytes:
    return content[: generator.randrange(len(content))]


def numbered(content: bytes, generator: random.Random) -> bytes:
    """Another digit in place of one, where JSON has one."""
    digits = [at for at, byte in enumerate(content) if chr(byte).isdigit()]
    at = generator.choice(digits)
    return content[:at] + bytes([ord('0') + (content[at] - ord('0') + 1) % 10]) + content[at + 1 :]


def test_damage_to_the_folder_of_work_is_refused_or_changes_nothing(many, monkeypatch):
    expected = contents(many.convert()[0].path)
    work = whole_work(many, monkeypatch)
    kept = many.root / 'kept'
    shutil.copytree(work, kept)
    generator, outcomes = random.Random(0), Counter()
    files = [path.relative_to(kept) for path in sorted(kept.rglob('*')) if path.is_file()]
    for name in files:
        for damage in (flipped, cut, numbered if name.suffix == '.json' else flipped):
            shutil.rmtree(work, ignore_errors=True)
            shutil.rmtree(many.root / 'out', ignore_errors=True)
            shutil.copytree(kept, work)
            (work / name).write_bytes(damage((work / name).read_bytes(), generator))
            try:
                found = convert(many)
            except StoreError:
                outcomes['refused'] += 1
            else:
                assert found == expected, (name, damage)
                outcomes['equal'] += 1
    assert outcomes['refused'] > outcomes['equal']


def test_batches_in_each_others_places_or_of_another_conversion(many, monkeypatch):
    work = whole_work(many, monkeypatch)
    one, two, *_ = sorted(work.glob('*.part'))
    first = one.read_bytes()
    one.write_bytes(two.read_bytes())
    with pytest.raises(StoreError, match='is of other images, or of another conversion'):
        convert(many)
    one.write_bytes(first)
    (many.root / 'begun.json').write_bytes((work / 'begun.json').read_bytes())
    shutil.rmtree(work)
    with monkeypatch.context() as patch:
        patch.setattr(open_images, 'StoreWriter', stop)
        with pytest.raises(Stop):
            convert(many, box_tolerance=0.5)
    (work / 'begun.json').write_bytes((many.root / 'begun.json').read_bytes())
    with pytest.raises(StoreError, match='tables: is damaged, or of another conversion'):
        convert(many)


OTHERS = {
    'an empty folder': lambda work: work.mkdir(),
    'a folder': lambda work: (work.mkdir(), (work / 'thesis.tex').touch()),
    'a file': lambda work: work.write_text('thesis'),
    'a link to nothing': lambda work: work.symlink_to('nowhere'),
    'a link to a folder': lambda work: (work.with_name('mine').mkdir(), work.symlink_to('mine')),
    'other words': lambda work: (work.mkdir(), (work / 'begun.json').write_text('{"format": "thesis"}')),
}


@pytest.mark.parametrize('case', OTHERS)
@pytest.mark.parametrize('overwrite', [False, True])
def test_what_only_has_the_name_of_a_folder_of_work_stays(many, case, overwrite):
    OTHERS[case](many.root / '.out.work')
    before = sorted(many.root.rglob('*'))
    with pytest.raises(StoreError, match='Move it away'):
        convert(many, overwrite=overwrite)
    assert sorted(many.root.rglob('*')) == before


def test_interrupted_when_its_folder_of_work_has_just_its_name(many, monkeypatch):
    def interrupt(path: Path) -> int:
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr('hierseg.converters.open_images_progress.lock', interrupt)
    with pytest.raises(KeyboardInterrupt):
        convert(many)
    assert list(many.root.glob('*out*')) == []
    assert len(convert(many)) > 0


def test_what_was_put_into_a_folder_of_work_stays(many, monkeypatch):
    work = whole_work(many, monkeypatch)
    for stranger in (work / 'thesis.tex', work / 'tables' / 'thesis.tex'):
        stranger.touch()
        with pytest.raises(StoreError, match=r'thesis\.tex: is in the folder .* but no part of it'):
            convert(many, overwrite=True, strict=True)
        stranger.unlink()
    (work / 'tables').rename(many.root / 'tables')
    (work / 'tables').symlink_to(many.root / 'tables')
    with pytest.raises(StoreError, match='no part of it'):
        convert(many, overwrite=True, strict=True)
    assert (many.root / 'tables/whole.json').exists()


def test_a_kill_after_the_store_has_its_name_is_no_failure(many, monkeypatch):
    expected = contents(many.convert()[0].path)
    with monkeypatch.context() as patch:
        patch.setattr(WorkFolder, 'discard', stop)
        with pytest.raises(Stop):
            convert(many)
    assert contents(many.root / 'out') == expected
    with pytest.raises(StoreError, match='exists already'):
        convert(many, strict=True)  # another conversion
    assert convert(many) == expected
    assert list(many.root.glob('.out*')) == []


def test_a_kill_while_the_folder_of_work_is_removed_leaves_nothing_to_the_next_run(many, monkeypatch):
    expected = contents(many.convert()[0].path)

    def lose_its_name(work: Path) -> None:
        work.rename(work.with_name(f'.hierseg-{1:016x}.partial'))
        raise Stop

    with monkeypatch.context() as patch:
        patch.setattr('hierseg.converters.open_images_progress.remove_folder', lose_its_name)
        with pytest.raises(Stop):
            convert(many)
    assert contents(many.root / 'out') == expected
    with pytest.raises(StoreError, match='exists already'):
        convert(many)
    assert list(many.root.glob('.*')) == []


@pytest.mark.parametrize('limit', [0, 1500, 3000])
def test_a_full_disk(many, limit):
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(StoreError, match=r'\.out\.work'):
            convert(many)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert list(many.root.glob('.out*')) == []
    assert not (many.root / 'out').exists()


def test_two_conversions_at_once_are_refused(many):
    with (
        WorkFolder(many.root / 'out', {'format': 'x'}, overwrite=False),
        pytest.raises(StoreError, match='a conversion is at work here'),
    ):
        convert(many)


SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from killed_conversion import TAXONOMY, OpenImagesFiles, convert_open_images, open_images
if __name__ == '__main__':
    open_images.IMAGES_PER_BATCH = 8
    open_images.IMAGES_PER_TASK = 4
    root = Path({root!r})
    files = OpenImagesFiles(*[root / f'{{n}}.csv' for n in ('box', 'label', 'mask')], root / 'images', root / 'masks')
    convert_open_images(files, TAXONOMY, out=root / 'out', workers=2)
"""


def test_workers_end_with_a_killed_parent(many):
    expected = contents(many.convert()[0].path)
    script = many.root / 'run.py'
    script.write_text(SCRIPT.format(tests=str(Path(__file__).parent), root=str(many.root)))
    process = subprocess.Popen([sys.executable, str(script)], env=ENVIRONMENT, start_new_session=True)
    deadline = time.monotonic() + 60
    while not list(many.root.glob('.out.work/*.part')) and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    while members(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert members(process.pid) == []
    if not (many.root / 'out').exists():
        subprocess.run([sys.executable, str(script)], env=ENVIRONMENT, check=True)
    assert contents(many.root / 'out') == expected
    assert len(Store.open(many.root / 'out')) == 40


def members(session: int) -> list[str]:
    """Live processes of a session."""
    found = []
    for stat in Path('/proc').glob('[0-9]*/stat'):
        try:
            name, fields = stat.read_text().rsplit(')', 1)
        except OSError:
            continue
        state, _, _, own = fields.split()[:4]
        if int(own) == session and state != 'Z':
            found.append(name)
    return found
