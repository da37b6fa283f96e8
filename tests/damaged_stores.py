"""Damages stores at random, reads them, and prints what happened as JSON.

Run as ``damaged_stores.py FOLDER SEED COUNT``. Each damaged store is read in a forked process, and must end in a
StoreError or in the content of one of the two stores that it was made of. Damage to masks alone, and to stores without
checksums, may show in what is read; the check of the whole store must find the former.
"""

from __future__ import annotations

import json
import os
import pickle
import random
import shutil
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from hierseg.errors import HiersegError
from hierseg.store import ImageRow, Instances, LayerView, Store, StoreWriter
from hierseg.store import writer as store_writer
from hierseg.store.__main__ import check_store
from hierseg.store.checksums import read_object
from hierseg.store.frequency import TrainingLabels, count_classes
from hierseg.taxonomy import Taxonomy

Damage = Callable[[random.Random, Path, Path], object]


def make_store(path: Path, *, images: int, seed: int) -> None:
    """Writes a store with masks that are none, texts, lists of classes not annotated exhaustively and a document."""
    generator = np.random.default_rng(seed)
    ids = [f'class{number}' for number in range(5 + seed)]
    with StoreWriter(path, taxonomy=Taxonomy.from_edges(ids, [(ids[1], ids[0])])) as writer:
        for row in range(images):
            count = int(generator.integers(0, 5))
            boxes = np.sort(generator.uniform(0, 50, (count, 2, 2)), axis=1).reshape(count, 4)
            has_mask = generator.random(count) < 0.7
            instances = Instances(
                labels=generator.integers(0, len(ids), count),
                boxes=boxes,
                masks=[generator.bytes(20) if has else b'' for has in has_mask],
                has_mask=has_mask,
                group_of=generator.random(count) < 0.2,
                areas=generator.uniform(1, 9, count),
                annotation_ids=[f'ü{row}-{i}' for i in range(count)],
            )
            image = ImageRow(f'{row:05}', f'{seed}/{row}.jpg', 60, 50)
            writer.add(image, instances, [seed], [2 + seed], not_exhaustive=[3 + seed] * (row % 7 == 0))
        writer.summary = {'images': images, 'seed': seed}
        writer.documents['coco.json'] = {'images': {'00001': {'license': seed}}}


def without_checksums(path: Path) -> None:
    """Makes a store one of version 1."""
    header = read_object((path / 'store.json').read_bytes(), where=path, sealed=True, fix='')
    del header['members']
    (path / 'store.json').write_text(json.dumps({**header, 'version': 1}))


def content(path: Path) -> bytes:
    """All that can be read of a store, by every way to read it."""
    store = Store.open(path)
    found = [store.summary, store.num_masks, store.orientation, store.taxonomy.to_json(), store.document('coco.json')]
    for row in range(len(store)):
        instances = store.instances(row)
        found += [vars(store.image(row)), *(np.asarray(value).tolist() for value in vars(instances).values())]
        found += [labels.tolist() for labels in (*store.verified(row), store.not_exhaustive(row))]
    found += [store.row_of('00001'), store.image_ids.tolist(), count_classes(store).instances.tolist()]
    view = LayerView(store, 1, images_per_class=3)
    found += [len(view), TrainingLabels.of(store).counts().images.tolist()]
    return pickle.dumps(found)


def some_file(generator: random.Random, store: Path) -> Path:
    return generator.choice(sorted(path for path in store.iterdir() if path.is_file() and path.stat().st_size))


def flip(generator: random.Random, store: Path, other: Path) -> None:
    path = some_file(generator, store)
    changed = bytearray(path.read_bytes())
    # The frame of an Arrow file is at its ends; most wild lengths and offsets are there.
    near = generator.choice([len(changed), 900, 400])
    for _ in range(generator.choice([1, 1, 1, 2, 30])):
        at = generator.randrange(min(near, len(changed)))
        changed[generator.choice([at, len(changed) - 1 - at])] = generator.randrange(256)
    path.write_bytes(changed)


def overwrite_number(generator: random.Random, store: Path, other: Path) -> None:
    path = some_file(generator, store)
    changed = bytearray(path.read_bytes())
    width = generator.choice([4, 8])
    wild = generator.choice([0, 1, 2**31 - 1, 2**31, 2**40, 2**62, 2**63 - 1, 2**64 - 1, len(changed)])
    at = generator.randrange(len(changed)) // width * width
    changed[at : at + width] = (wild % 256**width).to_bytes(width, 'little')
    path.write_bytes(changed)


def cut(generator: random.Random, store: Path, other: Path) -> None:
    path = some_file(generator, store)
    os.truncate(path, generator.randrange(path.stat().st_size))


def lengthen(generator: random.Random, store: Path, other: Path) -> None:
    with some_file(generator, store).open('ab') as file:
        file.write(generator.randbytes(generator.randrange(1, 100)))


def move_bytes(generator: random.Random, store: Path, other: Path) -> None:
    path = some_file(generator, store)
    whole = path.read_bytes()
    first, last = sorted(generator.randrange(len(whole)) for _ in range(2))
    path.write_bytes(whole[:first] + whole[last:] + whole[first:last])


def zero(generator: random.Random, store: Path, other: Path) -> None:
    path = some_file(generator, store)
    first, last = sorted(generator.randrange(path.stat().st_size) for _ in range(2))
    with path.open('r+b') as file:
        file.seek(first)
        file.write(bytes(last - first))


def remove(generator: random.Random, store: Path, other: Path) -> None:
    some_file(generator, store).unlink()


def take_of_other(generator: random.Random, store: Path, other: Path) -> None:
    path = some_file(generator, store)
    path.write_bytes((other / path.name).read_bytes())


def exchange(generator: random.Random, store: Path, other: Path) -> None:
    one, two = some_file(generator, store), some_file(generator, store)
    contents = one.read_bytes(), two.read_bytes()
    one.write_bytes(contents[1])
    two.write_bytes(contents[0])


def link(generator: random.Random, store: Path, other: Path) -> None:
    path = some_file(generator, store)
    path.unlink()
    path.symlink_to(generator.choice([Path('/dev/zero'), Path('nowhere'), store, other / path.name]))


def make_pipe(generator: random.Random, store: Path, other: Path) -> None:
    path = some_file(generator, store)
    path.unlink()
    os.mkfifo(path)


DAMAGES: list[Damage] = [
    flip, flip, flip, overwrite_number, overwrite_number, cut, lengthen, move_bytes, zero, remove, take_of_other,
    exchange, link, make_pipe,
]  # fmt: skip


def outcome(store: Path, expected: list[bytes], *, checked: bool) -> str:
    """What reading a damaged store in a forked process came to: ``error``, ``same`` or something that must not be."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            same = content(store) in expected
            if not same and checked and check_store(Store.open(store)).damage:
                told = 'error'
            else:
                told = 'same' if same else 'different'
        except HiersegError:
            told = 'error'
        except BaseException as error:
            told = f'foreign {error!r:.200} {traceback.format_exc()[-600:]}'
        os.write(writer, told.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, 'rb') as pipe:
        told = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    return told if os.WIFEXITED(status) else f'died {os.WTERMSIG(status)}'


def main(folder: Path, seed: int, count: int) -> None:
    store_writer.ROWS_PER_BATCH = 40
    generator = random.Random(seed)
    found: Counter[str] = Counter()
    stores = [folder / 'one', folder / 'two']
    for number, path in enumerate(stores):
        make_store(path, images=70, seed=number)
    expected = [content(path) for path in stores]
    old = [folder / 'old one', folder / 'old two']
    for path, kept in zip(stores, old, strict=True):
        shutil.copytree(path, kept)
        without_checksums(kept)
    for number in range(count):
        checked = number % 3 > 0
        one, two = stores if checked else old
        damaged = folder / 'damaged'
        shutil.rmtree(damaged, ignore_errors=True)
        shutil.copytree(one, damaged)
        damage = generator.choice(DAMAGES)
        damage(generator, damaged, two)
        told = outcome(damaged, expected, checked=checked)
        found[f'{"checked" if checked else "unchecked"}: {told}'] += 1
        if told not in ('same', 'error') and (checked or told != 'different'):
            shutil.copytree(damaged, folder / f'bad-{number}-{damage.__name__}', symlinks=True)
    print(json.dumps(found))


if __name__ == '__main__':
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
