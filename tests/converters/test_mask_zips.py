"""Masks in archives: the store that a folder of them gives, and what is missing or damaged in them."""

from __future__ import annotations

import dataclasses
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from hierseg.converters.open_images import ConversionOptions, OpenImagesFiles, convert_open_images
from hierseg.converters.open_images_masks import MaskZips, ZipIndex, find_zips
from hierseg.errors import AnnotationError
from hierseg.store import Store

WHOLE = (0, 1, 0, 1)


@pytest.fixture
def good(split, rectangle):
    """Images a0 to f1 with a car and its mask, which covers as many pixels of the first row as their number says."""
    for number, image_id in enumerate(f'{first}{second}' for first in 'abcdef' for second in '01'):
        split.add_image(image_id)
        split.add_box(image_id, '/m/car', WHOLE)
        split.add_png(image_id, '/m/car', WHOLE, rectangle(0, number + 1, 0, 1))
    split.write()
    return split


def pack(split, *, method: int = zipfile.ZIP_DEFLATED, folder: str = '') -> list[Path]:
    """Archives by first digit, as published."""
    for png in sorted((split.root / 'masks').iterdir()):
        with zipfile.ZipFile(split.root / f'train-masks-{png.name[0]}.zip', 'a', method) as archive:
            archive.write(png, folder + png.name)
    return sorted(split.root.glob('*.zip'))


def convert(split, archives: list[Path], *, workers: int = 1, **options) -> tuple[Store, object]:
    files = dataclasses.replace(split.files, mask_dir=None, mask_zips=archives)
    out = split.root / 'zipped'
    summary = convert_open_images(
        files, split.taxonomy, out=out, options=ConversionOptions(**options), overwrite=True, workers=workers
    )
    return Store.open(out), summary


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(('method', 'folder'), [(zipfile.ZIP_DEFLATED, ''), (zipfile.ZIP_STORED, 'train-masks/')])
def test_archives_give_the_store_of_a_folder(good, method, folder):
    store, _ = good.convert()
    zipped, _ = convert(good, pack(good, method=method, folder=folder))
    assert contents(zipped.path) == contents(store.path)
    assert [zipped.instances(row).areas.tolist() for row in range(12)] == [[number + 1] for number in range(12)]


def test_workers_open_archives_of_their_own(good):
    store, _ = good.convert()
    archives = pack(good)
    assert len(archives) == 6
    zipped, _ = convert(good, [good.root], workers=2)
    assert contents(zipped.path) == contents(store.path)


def remove_member(archives: list[Path]) -> None:
    with zipfile.ZipFile(archives[1]) as archive:
        kept = {name: archive.read(name) for name in archive.namelist()[1:]}
    with zipfile.ZipFile(archives[1], 'w') as archive:
        for name, content in kept.items():
            archive.writestr(name, content)


def test_a_mask_in_no_archive_is_a_missing_file(good):
    archives = pack(good)
    remove_member(archives)
    store, summary = convert(good, archives)
    assert not store.instances(store.row_of('b0')).has_mask[0]
    assert store.instances(store.row_of('b1')).has_mask[0]
    missing = summary.skipped['masks without a file, kept as box']
    assert (missing.count, missing.examples) == (1, ['b0_mcar_2.png'])
    with pytest.raises(AnnotationError, match=r'line 4\): there is no such mask \(image b0\)'):
        convert(good, archives, strict=True)


def damage(path: Path, kind: str) -> None:
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        first = archive.infolist()[0]
    # The member's own header: 30 bytes, flags at byte 6, then the name and the content.
    start = first.header_offset + 30 + len(first.filename)
    if kind == 'content':
        content[start + first.compress_size // 2] ^= 0xFF
    elif kind == 'header':
        content[first.header_offset] ^= 0xFF
    elif kind == 'name':
        content[first.header_offset + 30] ^= 0xFF
    elif kind == 'encrypted':
        # Flags are in the directory, too: eight bytes behind PK\1\2.
        content[first.header_offset + 6] |= 1
        content[content.index(b'PK\x01\x02') + 8] |= 1
    elif kind == 'method':
        # In the directory, whose entry begins with PK\1\2: ten bytes on.
        at = content.index(b'PK\x01\x02') + 10
        content[at : at + 2] = struct.pack('<H', zipfile.ZIP_BZIP2)
    path.write_bytes(bytes(content))


@pytest.mark.parametrize('method', [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize('kind', ['content', 'header', 'name', 'encrypted', 'method'])
def test_a_damaged_member_is_an_unreadable_mask(good, kind, method):
    archives = pack(good, method=method)
    damage(archives[1], kind)
    with pytest.raises(AnnotationError, match=r'train-masks-b.zip/b0_mcar_2.png \(.*line 4\): the mask cannot be read'):
        convert(good, archives)
    store, summary = convert(good, archives, skip_broken=True)
    assert store.instances(store.row_of('b0')).has_mask.tolist() == [False]
    assert store.instances(store.row_of('b1')).areas.tolist() == [4]
    assert summary.skipped['masks that cannot be read, kept as box'].count == 1


def test_what_is_no_archive_is_refused(good):
    archives = pack(good)
    archives[2].write_bytes(archives[2].read_bytes()[:-30])
    with pytest.raises(AnnotationError, match=r'train-masks-c\.zip: is no whole zip archive'):
        convert(good, archives)
    with pytest.raises(AnnotationError, match='masks: is neither a zip archive nor a folder'):
        convert(good, [good.root / 'masks'])
    with pytest.raises(AnnotationError, match='given twice'):
        find_zips([good.root, archives[0]])


def test_a_folder_and_archives_are_refused(good):
    files = dataclasses.replace(good.files, mask_zips=pack(good))
    with pytest.raises(AnnotationError, match='both a folder and archives'):
        convert_open_images(files, good.taxonomy, out=good.root / 'store')


def test_neither_is_refused(good):
    files = OpenImagesFiles(*[good.path(name) for name in ('box', 'label', 'mask')], good.root / 'images')
    with pytest.raises(AnnotationError, match=r'no folder of masks is given\. Give either --mask-dir or --mask-zips'):
        convert_open_images(files, good.taxonomy, out=good.root / 'store')


def test_of_equal_names_the_first_archive_counts(tmp_path):
    for number in range(3):
        with zipfile.ZipFile(tmp_path / f'{number}.zip', 'w') as archive:
            archive.writestr('mask.png', f'content {number}')
            archive.writestr(f'other{number}.png', 'x' * number)
    archives = [tmp_path / '1.zip', tmp_path / '0.zip', tmp_path / '2.zip']
    index = ZipIndex.build(archives)
    np.save(tmp_path / 'index.npy', index.members)
    masks = pickle.loads(pickle.dumps(MaskZips(archives, tmp_path / 'index.npy')))
    place, read = masks.locate('mask.png', '')
    assert (place, read(99)) == (f'{tmp_path}/1.zip/mask.png', b'content 1')
    assert [masks.locate(f'other{number}.png', '')[1](99) for number in range(3)] == [b'', b'x', b'xx']
    assert masks.locate('another.png', '') == ('another.png', None)


def test_the_digest_follows_names_and_contents(tmp_path):
    def digest(**members: str) -> str:
        with zipfile.ZipFile(tmp_path / 'x.zip', 'w') as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        return ZipIndex.build([tmp_path / 'x.zip']).digests[0][1]

    assert len({digest(a='1', b='2'), digest(a='1', b='3'), digest(a='1', c='2'), digest(a='1')}) == 4
    assert digest(a='1', b='2') == digest(a='1', b='2')
