"""The released mask table with its PNG files is, in the evaluation, the table of encoded masks."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from open_images_files import counts_of, rectangle, write_csv, write_hierarchy
from PIL import Image
from taxonomies import teddy_taxonomy

from hierseg.converters.open_images_encoded import encode_masks
from hierseg.converters.options import OpenImagesFiles
from hierseg.errors import AnnotationError
from hierseg.formats.run_lengths import counts_of_text, text_of_counts
from hierseg.metrics.open_images import read_ground_truth
from hierseg.synthetic import VALIDATION_RATES, SplitOptions, SynthesisOptions, default_taxonomy, synthesize
from hierseg.taxonomy import read_taxonomy

TOOL = Path(__file__).parents[2] / 'tools' / 'eval_openimages.py'
FIELDS = ('labels', 'boxes', 'group_of', 'mask_areas', 'verified')


@pytest.fixture(scope='module')
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Official files whose box and mask tables differ in the decimals, and the table of encoded masks."""
    folder = tmp_path_factory.mktemp('files') / 'data'
    splits = (SplitOptions('validation', 15, 20.0, VALIDATION_RATES),)
    synthesize(folder, SynthesisOptions(splits=splits, seed=5, size=96), taxonomy=default_taxonomy())
    with zipfile.ZipFile(folder / 'masks.zip', 'w') as archive:
        for path in (folder / 'validation-masks').iterdir():
            archive.write(path, path.name)
    return folder


def tables(folder: Path) -> dict[str, Path]:
    return {
        name: folder / f'challenge-2019-validation-segmentation-{table}.csv'
        for name, table in (('boxes', 'bbox'), ('labels', 'labels'), ('masks', 'masks'))
    }


def hierarchy(folder: Path) -> Path:
    return folder / 'challenge-2019-label-hierarchy.json'


@pytest.mark.parametrize('source', [{'mask_dir': 'validation-masks'}, {'mask_zips': 'masks.zip'}])
@pytest.mark.parametrize('resize', [False, True])
def test_ground_truth_is_that_of_encoded_masks_to_the_digit(synthetic, tmp_path, source, resize):
    own = {name: synthetic / path if name == 'mask_dir' else [synthetic / path] for name, path in source.items()}
    files = tables(synthetic)
    taxonomy = read_taxonomy(hierarchy(synthetic), classes=synthetic / 'challenge-2019-classes-description.csv')
    count = encode_masks(
        OpenImagesFiles(**files, images=synthetic / 'validation', **own), taxonomy, tmp_path / 'm.csv', resize=resize
    )
    found, expected = (
        read_ground_truth(files['boxes'], files['labels'], masks, taxonomy=taxonomy)
        for masks in (tmp_path / 'm.csv', str(files['masks']).replace('masks.csv', 'masks-rle.csv'))
    )
    assert count > 20
    assert found.keys() == expected.keys()
    for image, truth in expected.items():
        assert (found[image].masks, found[image].size) == (truth.masks, truth.size)
        for name in FIELDS:
            np.testing.assert_array_equal(getattr(found[image], name), getattr(truth, name))


@pytest.fixture
def drawn(tmp_path: Path) -> Path:
    """A bear of 4 x 4 pixels in an image of 8 x 8, whose PNG has half that size, and an empty mask of a car."""
    rows = [['a', 'bear', 0, 0.5, 0, 0.5, 0], ['a', 'car', 0.5, 1, 0.5, 1, 0]]
    header = ['ImageID', 'LabelName', 'XMin', 'XMax', 'YMin', 'YMax', 'IsGroupOf']
    write_csv(tmp_path / 'boxes.csv', header, rows)
    write_csv(tmp_path / 'labels.csv', ['ImageID', 'LabelName', 'Confidence'], [['a', 'bear', 1]])
    named = ['MaskPath', 'ImageID', 'LabelName', 'BoxID', 'BoxXMin', 'BoxXMax', 'BoxYMin', 'BoxYMax']
    # 0.4996 is the same box within the tolerance, 0.001.
    write_csv(
        tmp_path / 'masks.csv', named,
        [['bear.png', 'a', 'bear', '1', 0, 0.4996, 0, 0.5], ['car.png', 'a', 'car', '2', 0.5, 1, 0.5, 1]],
    )  # fmt: skip
    (tmp_path / 'masks').mkdir()
    Image.fromarray(rectangle(0, 0, 2, 2, size=(4, 4))).save(tmp_path / 'masks' / 'bear.png')
    Image.fromarray(rectangle(0, 0, 0, 0)).save(tmp_path / 'masks' / 'car.png')
    (tmp_path / 'images').mkdir()
    Image.new('RGB', (8, 8)).save(tmp_path / 'images' / 'a.jpg')
    return tmp_path


def files_of(folder: Path) -> OpenImagesFiles:
    named = {name: folder / f'{name}.csv' for name in ('boxes', 'labels', 'masks')}
    return OpenImagesFiles(**named, images=folder / 'images', mask_dir=folder / 'masks')


@pytest.mark.parametrize('resize', [False, True])
def test_rows(drawn, resize):
    assert encode_masks(files_of(drawn), teddy_taxonomy(), drawn / 'out.csv', resize=resize) == 2
    with (drawn / 'out.csv').open(newline='') as file:
        bear, car = csv.DictReader(file)
    side = '8' if resize else '4'
    assert {**bear, 'Mask': ''} == {
        'ImageID': 'a', 'LabelName': 'bear', 'ImageWidth': side, 'ImageHeight': side,
        'XMin': '0.0', 'YMin': '0.0', 'XMax': '0.5', 'YMax': '0.5', 'IsGroupOf': '0', 'Mask': '',
    }  # fmt: skip
    whole = rectangle(0, 0, 4, 4) if resize else rectangle(0, 0, 2, 2, size=(4, 4))
    assert counts_of_text(bear['Mask']) == counts_of(whole)
    assert counts_of_text(car['Mask']) == counts_of(rectangle(0, 0, 0, 0))


@pytest.mark.parametrize(
    ('spoil', 'message'),
    [
        (lambda folder: (folder / 'masks' / 'bear.png').unlink(), 'there is no such file'),
        (lambda folder: (folder / 'masks' / 'bear.png').write_bytes(b'no picture'), 'the mask cannot be read'),
    ],
)
def test_a_mask_that_cannot_be_read_is_named(drawn, spoil, message):
    spoil(drawn)
    with pytest.raises(AnnotationError, match=rf'bear\.png \(.*masks\.csv, line 2\): .*{message}'):
        encode_masks(files_of(drawn), teddy_taxonomy(), drawn / 'out.csv')


def run(folder: Path, *arguments: Any) -> subprocess.CompletedProcess[str]:
    named = [f'--{name}={folder / name}.csv' for name in ('boxes', 'labels', 'masks', 'predictions')]
    own = [f'--hierarchy={write_hierarchy(folder / "hierarchy.json", teddy_taxonomy())}', *map(str, arguments)]
    return subprocess.run([sys.executable, str(TOOL), *named, *own], capture_output=True, text=True, check=False)


def test_the_command(drawn):
    mask = text_of_counts(counts_of(rectangle(0, 0, 4, 4)))
    header = ['ImageID', 'ImageWidth', 'ImageHeight', 'LabelName', 'Score', 'Mask']
    write_csv(drawn / 'predictions.csv', header, [['a', 8, 8, 'bear', 0.5, mask]])
    done = run(drawn, '--mask-dir', drawn / 'masks', '--images', drawn / 'images')
    assert done.returncode == 0, done.stderr
    # The bear is found; as Animal nobody claimed it; the car has no mask that counts.
    assert json.loads(done.stdout)['AP'] == {'toy': None, 'teddy': None, 'animal': 0.0, 'bear': 1.0, 'car': None}
    # Without the images, the mask of the ground truth has the size of its PNG.
    done = run(drawn, '--mask-dir', drawn / 'masks')
    assert (done.returncode, 'the mask is 8×8 pixels, the other masks of its image are 4×4' in done.stderr) == (2, True)
    done = run(drawn)
    assert (done.returncode, done.stderr.count('\n')) == (2, 1)
    assert 'Give either --mask-dir or --mask-zips' in done.stderr


def test_the_command_reads_coco_results(drawn):
    size = {'size': [8, 8], 'counts': counts_of(rectangle(0, 0, 4, 4)).decode()}
    results = [{'image_id': 3, 'category_id': 7, 'score': 0.5, 'segmentation': size, 'bbox': [0, 0, 4, 4]}]
    (drawn / 'results.json').write_text(json.dumps(results))
    coco = {
        'images': [{'id': 3, 'file_name': 'a.jpg', 'width': 8, 'height': 8}],
        'categories': [{'id': 7, 'name': 'bear'}],
        'annotations': [],
    }
    (drawn / 'coco.json').write_text(json.dumps(coco))
    where = ['--mask-dir', drawn / 'masks', '--images', drawn / 'images', '--predictions', drawn / 'results.json']
    done = run(drawn, *where, '--coco', drawn / 'coco.json')
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)['AP']['bear'] == 1.0
    done = run(drawn, *where, '--coco', drawn / 'coco.json', '--iou-type', 'bbox')
    assert json.loads(done.stdout)['AP'] == {'toy': None, 'teddy': None, 'animal': 0.0, 'bear': 1.0, 'car': 0.0}
    done = run(drawn, *where)
    assert (done.returncode, 'results.json, entry 1: category_id 7 is no category' in done.stderr) == (2, True)
