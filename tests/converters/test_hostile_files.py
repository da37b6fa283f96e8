"""Files that claim gigabytes or name files elsewhere: refused before memory is taken, and counted where allowed."""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hierseg.converters.coco import convert_coco
from hierseg.converters.coco_annotations import encode_segmentation
from hierseg.converters.open_images_masks import MaskZips, ZipIndex, most_bytes, read_mask
from hierseg.errors import AnnotationError
from hierseg.formats.run_lengths import MalformedMaskError
from hierseg.pictures import read_picture
from hierseg.store import Store

BOX = (0.1, 0.9, 0.2, 0.8)


@pytest.fixture
def good(split, rectangle):
    """Two images with a box and a mask each."""
    for image_id in ('a', 'b'):
        split.add_image(image_id)
        split.add_box(image_id, '/m/man', BOX)
        split.add_png(image_id, '/m/man', BOX, rectangle(0, 5, 0, 5))
    return split


def png_of_size(width: int, height: int, depth: int = 1, *, pixels: bytes | None = None) -> bytes:
    """A PNG whose header says so, with compressed pixels, by default its first rows alone."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack('>I', len(content)) + kind + content + struct.pack('>I', zlib.crc32(kind + content))

    header = struct.pack('>IIBBBBB', width, height, depth, 0, 0, 0, 0)
    parts = [(b'IHDR', header), (b'IDAT', zlib.compress(bytes(1000)) if pixels is None else pixels), (b'IEND', b'')]
    return b'\x89PNG\r\n\x1a\n' + b''.join(chunk(*part) for part in parts)


@pytest.mark.parametrize(('width', 'depth'), [(46_400, 1), (46_400, 8), (2**31 - 1, 1), (30_000_000, 16)])
def test_a_mask_that_claims_too_much_is_not_decoded(width: int, depth: int) -> None:
    with pytest.raises(AnnotationError, match=r'a\.png: has .* pixels .*--max-pixels'):
        read_mask(png_of_size(width, width, depth), path='a.png')


def test_the_limit_is_an_option(tmp_path: Path) -> None:
    content, picture = png_of_size(40, 30), tmp_path / 'a.png'
    with pytest.raises(AnnotationError, match='has 40 x 30 pixels'):
        read_mask(content, max_pixels=1199)
    buffer = io.BytesIO()
    Image.fromarray(np.eye(30, 40, dtype=bool)).save(buffer, 'PNG')
    assert read_mask(buffer.getvalue(), max_pixels=1200).shape == (30, 40)
    picture.write_bytes(buffer.getvalue())
    assert read_picture(picture, max_pixels=1200).shape == (30, 40, 3)
    with pytest.raises(AnnotationError, match=r'a\.png: has 40 x 30 pixels'):
        read_picture(picture, max_pixels=1199)


def test_pixels_without_end_are_not_inflated(tmp_path: Path) -> None:
    bomb, path = zlib.compress(bytes(1 << 28)), tmp_path / 'a.png'
    path.write_bytes(png_of_size(80, 64, 8, pixels=bomb))
    with pytest.raises(AnnotationError, match=r'a\.png: has more compressed pixels than its size can need'):
        read_picture(path)
    # Noise, which compression makes longer, is no bomb.
    noise = np.random.default_rng(0).integers(0, 256, (1200, 1300, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, compress_level=0)
    assert np.array_equal(read_picture(path), noise)


@pytest.mark.parametrize('claim', [46_400, 30_000_000])
@pytest.mark.parametrize('lenient', [False, True])
def test_pictures_and_masks_that_claim_too_much(good: Any, claim: int, lenient: bool) -> None:
    (good.root / 'masks' / good.masks[1][0]).write_bytes(png_of_size(claim, claim))
    (good.root / 'images/a.jpg').write_bytes(png_of_size(claim, claim))
    if not lenient:
        with pytest.raises(AnnotationError, match='--max-pixels'):
            good.convert()
        return
    store, summary = good.convert(skip_broken=True)
    assert [store.image(row).id for row in range(len(store))] == ['b']
    assert summary.skipped['images that cannot be read, left out'].count == 1
    assert summary.skipped['masks that cannot be read, kept as box'].count == 1


def test_encoded_masks_that_claim_too_much(good: Any) -> None:
    good.masks.clear()
    good.add_text('a', '/m/man', BOX, np.ones((10, 20), dtype=bool))
    with pytest.raises(AnnotationError, match='line 2: the mask has 20 x 10 pixels'):
        good.convert(max_pixels=199)
    assert good.convert(max_pixels=200)[1].masks_joined == 1


@pytest.fixture
def members(tmp_path: Path):
    """Reads a member of an archive, whose directory may be changed before."""

    def read(content: bytes, *, method: int = zipfile.ZIP_DEFLATED, claimed: int | None = None) -> bytes:
        path = tmp_path / 'a.zip'
        with zipfile.ZipFile(path, 'w', method) as archive:
            archive.writestr('a.png', content)
        if claimed is not None:
            whole = bytearray(path.read_bytes())
            at = whole.index(b'PK\x01\x02') + 24
            whole[at : at + 4] = struct.pack('<I', claimed)
            path.write_bytes(bytes(whole))
        index = tmp_path / 'index.npy'
        np.save(index, ZipIndex.build([path]).members)
        _, member = MaskZips([path], index).locate('a.png', 'a')
        assert member is not None
        return member(most_bytes(1 << 20))

    return read


def test_members_are_read_up_to_what_they_claim(members: Any) -> None:
    assert members(b'abc') == b'abc'
    with pytest.raises(AnnotationError, match=r'a\.zip/a\.png: it cannot be unpacked'):
        members(b'abc', claimed=2)
    for claimed in (None, 2**32 - 2):
        with pytest.raises(AnnotationError, match=r'it has .* bytes, and a mask at most 1,310,720'):
            members(bytes(2_000_000), claimed=claimed)
    # A small claim, and megabytes behind it: they are not unpacked.
    with pytest.raises(AnnotationError, match='it cannot be unpacked'):
        members(bytes(50_000_000), claimed=1000)


def test_a_member_without_a_name_is_none(tmp_path: Path) -> None:
    path = tmp_path / 'a.zip'
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('a.png', b'abc')
    whole = bytearray(path.read_bytes())
    at = whole.index(b'PK\x01\x02') + 28
    whole[at : at + 6] = struct.pack('<HHH', 0, 0, 5)  # lengths of name, extra fields and comment: the name is one
    path.write_bytes(bytes(whole))
    assert len(ZipIndex.build([path]).members) == 0


def test_methods_without_a_bound_are_refused(members: Any) -> None:
    with pytest.raises(AnnotationError, match='compression method 14'):
        members(b'abc', method=zipfile.ZIP_LZMA)


def test_a_zigzag_of_kilometres_is_refused() -> None:
    zigzag = [value for at in range(3000) for value in (0 if at % 2 else 4000, at)]
    with pytest.raises(MalformedMaskError, match='pixels long in all'):
        encode_segmentation([zigzag], 4000, 4000)
    assert encode_segmentation([zigzag[:200]], 4000, 4000)[0]


@pytest.fixture
def outside(tmp_path: Path) -> tuple[Path, Path]:
    """A COCO file of one image, and an image beside its folder."""
    (tmp_path / 'images').mkdir()
    Image.new('RGB', (20, 10)).save(tmp_path / 'secret.jpg')
    return tmp_path / 'coco.json', tmp_path / 'secret.jpg'


@pytest.mark.parametrize('way', ['absolute', 'up', 'around', 'windows'])
def test_file_names_that_leave_the_folder(outside: tuple[Path, Path], way: str) -> None:
    path, secret = outside
    names = {
        'absolute': str(secret),
        'up': '../secret.jpg',
        'around': 'a/../../secret.jpg',
        'windows': '..\\secret.jpg',
    }
    image = {'id': 1, 'file_name': names[way], 'width': 20, 'height': 10}
    path.write_text(json.dumps({'images': [image], 'annotations': [], 'categories': [{'id': 1, 'name': 'a'}]}))
    out, folder = path.parent / 'store', path.parent / 'images'
    with pytest.raises(AnnotationError, match=r'image 1: file_name .* leaves the folder'):
        convert_coco(path, images=folder, out=out)
    with pytest.raises(AnnotationError, match='none of the images is there'):
        convert_coco(path, images=folder, out=out, mode='lenient')
    if way == 'absolute':
        convert_coco(path, images=folder, out=out, absolute_paths=True)
        assert Store.open(out).image(0).file_name == str(secret)


@pytest.mark.parametrize('name', ['a/' * 3000 + 'a.jpg', 'a\0.jpg', 'a' * 300, '.'])
def test_file_names_that_no_system_knows(outside: tuple[Path, Path], name: str) -> None:
    path, _ = outside
    image = {'id': 1, 'file_name': name, 'width': 20, 'height': 10}
    path.write_text(json.dumps({'images': [image], 'annotations': [], 'categories': [{'id': 1, 'name': 'a'}]}))
    with pytest.raises(AnnotationError, match='image 1: '):
        convert_coco(path, images=path.parent / 'images', out=path.parent / 'store')


@pytest.mark.parametrize(
    ('column', 'value'), [('ImageID', '../a'), ('ImageID', '/etc/a'), ('MaskPath', '../a.png'), ('MaskPath', '/a.png')]
)
def test_rows_that_leave_their_folder(good: Any, column: str, value: str) -> None:
    row = list(good.masks[-1])
    row[good.mask_columns.index(column)] = value
    good.masks[-1] = row
    with pytest.raises(AnnotationError, match=rf'mask\.csv, line \d+: {column} .* leaves its folder'):
        good.convert()
    _, summary = good.convert(skip_bad_rows=True)
    assert summary.skipped['mask rows that cannot be used'].count == 1
