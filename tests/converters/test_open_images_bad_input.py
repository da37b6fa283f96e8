"""Bad input: each a clear error with file and line, or image; or a line in the summary where that is allowed."""

from __future__ import annotations

import base64
import re
import zlib

import numpy as np
import pytest
from PIL import Image

from hierseg.errors import AnnotationError, StoreError

BOX = (0.0, 0.5, 0.0, 1.0)


@pytest.fixture
def good(split, rectangle):
    """Two images with a box and a mask each, and a label."""
    for image_id in ('a', 'b'):
        split.add_image(image_id)
        split.add_box(image_id, '/m/car', BOX)
        split.add_png(image_id, '/m/car', BOX, rectangle(0, 5, 0, 5))
    split.labels = [('a', '/m/car', 1)]
    return split


def assert_refused(split, *messages: str, write: bool = True, **options) -> None:
    with pytest.raises(AnnotationError) as refusal:
        split.convert(write=write, **options)
    for message in messages:
        assert message in str(refusal.value)
    assert not list(split.root.glob('*store*'))
    assert not list(split.root.glob('.*'))


@pytest.mark.parametrize('name', ['box', 'label', 'mask'])
def test_unknown_class(good, name):
    rows = {'box': good.boxes, 'label': good.labels, 'mask': good.masks}[name]
    rows.append([value if value != '/m/car' else '/m/tree' for value in rows[0]])
    line = len(rows) + 1
    assert_refused(good, f"{name}.csv, line {line}: class '/m/tree' is not in the taxonomy of 3 classes")


@pytest.mark.parametrize(
    ('box', 'message'),
    [
        ((0.0, 1.2, 0.0, 1.0), 'the box (XMin 0, YMin 0, XMax 1.2, YMax 1) is outside the image'),
        ((-0.1, 0.5, 0.0, 1.0), 'is outside the image'),
        ((10, 50, 20, 80), 'is outside the image'),  # pixels
        ((0.6, 0.5, 0.0, 1.0), 'has a min above its max'),
        ((0.0, 0.5, 1.0, 0.9), 'has a min above its max'),
        (('left', 0.5, 0.0, 1.0), "XMin is 'left'. It must be a finite number"),
        (('', 0.5, 0.0, 1.0), "XMin is ''"),
        (('nan', 0.5, 0.0, 1.0), "XMin is 'nan'"),
        ((0.0, 'inf', 0.0, 1.0), "XMax is 'inf'"),
    ],
)
def test_bad_box(good, box, message):
    good.add_box('a', '/m/car', box)
    assert_refused(good, 'box.csv, line 4: ', message)


def test_bad_box_of_a_mask(good, rectangle):
    good.add_png('b', '/m/car', (0.0, 1.5, 0.0, 1.0), rectangle(0, 1, 0, 1))
    assert_refused(good, 'mask.csv, line 4: ', 'BoxXMax 1.5')


@pytest.mark.parametrize(
    ('value', 'message'), [(2, "IsGroupOf is '2'"), ('yes', "IsGroupOf is 'yes'"), ('0.5', "'0.5'")]
)
def test_bad_group_of(good, value, message):
    good.add_box('a', '/m/car', BOX, group_of=value)
    assert_refused(good, 'box.csv, line 4: ', message)


@pytest.mark.parametrize(
    ('value', 'message'), [(0.7, "Confidence is '0.7'"), (-1, "is '-1'"), ('x', "Confidence is 'x'")]
)
def test_bad_confidence(good, value, message):
    good.labels.append(('a', '/m/man', value))
    assert_refused(good, 'label.csv, line 3: ', message)


@pytest.mark.parametrize(
    ('name', 'column'), [('box', 'IsGroupOf'), ('label', 'Confidence'), ('mask', 'BoxXMin'), ('mask', 'ImageID')]
)
def test_missing_column(good, name, column):
    columns = [text if text != column else 'Other' for text in getattr(good, f'{name}_columns')]
    setattr(good, f'{name}_columns', columns)
    assert_refused(good, f'{name}.csv, line 1: column {column} is missing', f'it has {", ".join(columns)}.')


def test_masks_in_neither_form(good):
    good.mask_columns = ['Path', *good.mask_columns[1:]]
    assert_refused(good, 'mask.csv: neither a column MaskPath nor a column Mask; the columns are Path, ImageID')


def test_missing_file(good):
    good.write()
    good.path('label').unlink()
    assert_refused(good, 'label.csv: cannot be read (No such file', write=False)


def test_empty_split(split):
    split.add_image('a')
    split.labels = [('a', '/m/car', 1)]
    assert_refused(split, 'the split is empty: there are no boxes and no masks')
    split.labels = []
    assert_refused(split, 'the split is empty')


@pytest.mark.parametrize('name', ['box', 'mask'])
def test_empty_image_id(good, name):
    rows = good.boxes if name == 'box' else good.masks
    rows[1] = [value if value != 'b' else '' for value in rows[1]]
    assert_refused(good, f'{name}.csv, line 3: ImageID is empty')


def test_missing_image(good):
    path = good.root / 'images/b.jpg'
    path.unlink()
    assert_refused(good, f'{path}: there is no such image (image b). ', '--skip-broken')
    store, summary = good.convert(skip_broken=True)
    assert [store.image(row).id for row in range(len(store))] == ['a']
    assert summary.skipped['images without a file, left out'].examples == [str(path)]


def test_image_that_is_none(good):
    path = good.root / 'images/b.jpg'
    path.write_bytes(b'<html>404</html>')
    assert_refused(good, f'{path}: the image cannot be read', '(image b)')
    store, summary = good.convert(skip_broken=True)
    assert len(store) == 1
    assert summary.skipped['images that cannot be read, left out'].count == 1


def test_no_image_at_all(good):
    for path in (good.root / 'images').iterdir():
        path.unlink()
    assert_refused(good, 'images: none of the images can be read', skip_broken=True)


@pytest.mark.parametrize('damage', ['cut', 'cut early', 'zeros', 'garbage', 'empty'])
def test_broken_png(good, damage):
    noise = np.random.default_rng(0).integers(0, 2, (10, 20))
    path = good.add_png('b', '/m/man', BOX, noise)
    good.add_box('b', '/m/man', BOX)
    whole = path.read_bytes()
    middle = len(whole) // 2
    path.write_bytes(
        {
            'cut': whole[: len(whole) - 25],
            'cut early': whole[:middle],
            'zeros': whole[:middle] + bytes(len(whole) - middle),
            'garbage': b'not a picture',
            'empty': b'',
        }[damage]
    )
    assert_refused(good, f'{path} (', 'mask.csv, line 4): the mask cannot be read', '(image b)')
    store, summary = good.convert(skip_broken=True)
    assert store.instances(1).has_mask.tolist() == [True, False]
    assert summary.skipped['masks that cannot be read, kept as box'].examples == [str(path)]


def test_missing_png_when_strict(good):
    path = good.add_png('b', '/m/man', BOX, None)
    assert_refused(good, f'{path} (', 'line 4): there is no such mask (image b). ', '--strict', strict=True)
    assert len(good.convert()[0].instances(1)) == 2


def test_a_link_in_a_circle_counts_as_no_file(good):
    for folder in ('images', 'masks'):
        (good.root / folder / 'circle').symlink_to('circle')
    path = good.add_png('b', '/m/man', BOX, None)
    path.symlink_to(path.name)
    assert_refused(good, f'{path} (', 'line 4): there is no such mask (image b). ', strict=True)
    assert len(good.convert()[0].instances(1)) == 2


def test_no_mask_folder(good):
    for path in (good.root / 'masks').iterdir():
        path.unlink()
    (good.root / 'masks').rmdir()
    assert_refused(good, 'masks: is no folder')


@pytest.fixture
def encoded(split, rectangle):
    split.add_image('a')
    split.add_box('a', '/m/car', BOX)
    split.add_text('a', '/m/car', BOX, rectangle(0, 5, 0, 5))
    return split


def pack(counts: bytes) -> str:
    return base64.b64encode(zlib.compress(counts)).decode()


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('@@@@', 'it is not base64'),
        (base64.b64encode(b'plain').decode(), 'it is not zlib data'),
        (base64.b64encode(zlib.compress(b'0' * 300)[:-5]).decode(), 'its zlib data is cut off'),
        (pack(b'0Z2'), 'the runs cover'),
        (pack(b'\xff\xff'), 'none of the run-length alphabet'),
        (pack(b'PPPP'), 'the run lengths are cut off'),
        (pack(b''), 'there are no run lengths'),
    ],
)
def test_malformed_encoding(encoded, text, message):
    encoded.add_text('a', '/m/man', BOX, None, text=text)
    assert_refused(encoded, 'mask.csv, line 3: the mask is malformed: ', message, '(image a)')
    store, summary = encoded.convert(skip_broken=True)
    assert store.instances(0).has_mask.tolist() == [True, False]
    assert summary.skipped['masks that cannot be read, kept as box'].examples == ['image a']


def test_encoding_of_another_size_than_it_says(encoded):
    row = list(encoded.masks[0])
    row[2] = 21
    encoded.masks.append(row)
    assert_refused(encoded, 'mask.csv, line 3: ', 'the runs cover 200 pixels, 21 x 10 (width x height) has 210')


@pytest.mark.parametrize('width', [0, -5, 10_000_000])
def test_encoding_of_an_impossible_size(encoded, width):
    row = list(encoded.masks[0])
    row[2] = width
    encoded.masks.append(row)
    assert_refused(encoded, f'mask.csv, line 3: ImageWidth is {width:g}. It must be a whole number')


def test_the_first_problem_is_reported_whatever_the_number_of_workers(good, rectangle):
    for number in range(40):
        good.add_image(f'c{number:02}')
        good.add_box(f'c{number:02}', '/m/car', BOX)
    for number in (3, 35):
        (good.root / f'images/c{number:02}.jpg').unlink()
    for workers in (1, 2):
        assert_refused(good, 'c03.jpg', workers=workers)


def test_an_existing_folder_is_refused_before_any_work(good):
    (good.root / 'store').mkdir()
    (good.root / 'store/mine.txt').touch()
    with pytest.raises(StoreError, match=re.escape('exists and is no store')):
        good.convert(write=False)


def test_a_truncated_photograph_goes_unseen(good):
    # Sizes come from the header; decoding 850,000 photographs to find damage would take a day.
    path = good.root / 'images/b.jpg'
    Image.effect_noise((20, 10), 50).convert('RGB').save(path)
    path.write_bytes(path.read_bytes()[:-100])
    store, _ = good.convert()
    assert (store.image(1).width, store.image(1).height) == (20, 10)
