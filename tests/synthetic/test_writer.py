"""Data sets as the official files: the function and the tool."""

from __future__ import annotations

import base64
import csv
import json
import re
import subprocess
import sys
import zlib
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pycocotools.mask
import pytest
from PIL import Image
from small_disk import small_files

from hierseg.errors import ConfigError, OutputError
from hierseg.synthetic import (
    VALIDATION_RATES,
    AnnotationRates,
    SplitOptions,
    SynthesisOptions,
    default_taxonomy,
    read_counts,
    synthesize,
)
from hierseg.synthetic.writer import image_id, split_shares
from hierseg.taxonomy import Taxonomy, read_taxonomy

TAXONOMY = default_taxonomy()
SPLITS = ('train', 'validation')


def options(*, train: int = 60, validation: int = 15, seed: int = 0) -> SynthesisOptions:
    rates = AnnotationRates(group_of=0.1, resized_mask=0.3)
    return SynthesisOptions(
        splits=(
            SplitOptions('train', train, 20.0, rates),
            SplitOptions('validation', validation, 10.0, replace(VALIDATION_RATES, group_of=0.1)),
        ),
        seed=seed,
        size=96,
    )


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp('synthetic') / 'data'
    synthesize(out, options(), taxonomy=TAXONOMY)
    return out


def table(folder: Path, split: str, name: str) -> list[dict[str, str]]:
    with (folder / f'challenge-2019-{split}-segmentation-{name}.csv').open(newline='') as file:
        return list(csv.DictReader(file))


def box_of(row: dict[str, str], prefix: str = '') -> tuple[float, ...]:
    return tuple(float(row[f'{prefix}{side}']) for side in ('XMin', 'XMax', 'YMin', 'YMax'))


def read_mask(folder: Path, split: str, path: str) -> npt.NDArray[np.bool_]:
    with Image.open(folder / f'{split}-masks' / path) as picture:
        return np.array(picture)


def image_size(folder: Path, split: str, image: str) -> tuple[int, int]:
    with Image.open(folder / split / f'{image}.jpg') as picture:
        return picture.size


def test_columns_are_the_official_ones_in_order(folder: Path) -> None:
    expected = {
        'masks': 'MaskPath,ImageID,LabelName,BoxID,BoxXMin,BoxXMax,BoxYMin,BoxYMax,PredictedIoU,Clicks',
        'bbox': 'ImageID,LabelName,XMin,XMax,YMin,YMax,IsGroupOf',
        'labels': 'ImageID,LabelName,Confidence',
        'masks-rle': 'ImageID,LabelName,ImageWidth,ImageHeight,XMin,YMin,XMax,YMax,IsGroupOf,Mask',
    }
    for split in SPLITS:
        for name, header in expected.items():
            path = folder / f'challenge-2019-{split}-segmentation-{name}.csv'
            if (split, name) == ('train', 'masks-rle'):
                assert not path.exists()
            else:
                assert path.read_text().splitlines()[0] == header


def test_the_taxonomy_is_written_and_read_back(folder: Path) -> None:
    read = read_taxonomy(
        folder / 'challenge-2019-label-hierarchy.json', classes=folder / 'challenge-2019-classes-description.csv'
    )
    assert (read.ids, read.names) == (TAXONOMY.ids, TAXONOMY.names)
    assert [set(parents) for parents in read.parents] == [set(parents) for parents in TAXONOMY.parents]
    hierarchy = (folder / 'challenge-2019-label-hierarchy.json').read_text()
    assert json.loads(hierarchy)['LabelName'] == '/m/0bl9f'
    teddy = TAXONOMY.ids[TAXONOMY.names.index('Teddy bear')]
    assert hierarchy.count(f'"{teddy}"') == 2


def test_the_built_in_taxonomy_has_three_levels_a_dag_class_and_childless_roots() -> None:
    assert set(TAXONOMY.arrays.depths.tolist()) == {0, 1, 2}
    assert [TAXONOMY.names[c] for c, parents in enumerate(TAXONOMY.parents) if len(parents) == 2] == ['Teddy bear']
    assert set(TAXONOMY.root_classes) & set(TAXONOMY.leaves)
    assert 20 <= TAXONOMY.num_classes <= 25


@pytest.mark.parametrize('split', SPLITS)
def test_images_and_mask_files_are_those_of_the_tables(folder: Path, split: str) -> None:
    images = {path.stem for path in (folder / split).iterdir()}
    assert len(images) == {'train': 60, 'validation': 15}[split]
    assert all(re.fullmatch('[0-9a-f]{16}', image) for image in images)
    for name in ('bbox', 'masks', 'labels'):
        assert {row['ImageID'] for row in table(folder, split, name)} <= images
    rows = table(folder, split, 'masks')
    assert sorted(row['MaskPath'] for row in rows) == sorted(p.name for p in (folder / f'{split}-masks').iterdir())
    for row in rows:
        assert row['MaskPath'] == f'{row["ImageID"]}_{row["LabelName"].replace("/", "")}_{row["BoxID"]}.png'
        assert re.fullmatch('[0-9a-f]{8}', row['BoxID'])


@pytest.mark.parametrize('split', SPLITS)
def test_masks_are_one_bit_pictures_and_boxes_are_tight(folder: Path, split: str) -> None:
    resized = 0
    for row in table(folder, split, 'masks'):
        header = (folder / f'{split}-masks' / row['MaskPath']).read_bytes()[:26]
        assert header[24:26] == b'\x01\x00'  # IHDR: one bit per sample, greyscale
        mask = read_mask(folder, split, row['MaskPath'])
        width, height = image_size(folder, split, row['ImageID'])
        resized += mask.shape != (height, width)
        # At image size to the printed digits; otherwise within a pixel of the smaller picture.
        tolerance = 1e-6 if mask.shape == (height, width) else 1.5 / min(mask.shape)
        columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
        tight = (columns[0] / mask.shape[1], (columns[-1] + 1) / mask.shape[1])
        tight += (rows[0] / mask.shape[0], (rows[-1] + 1) / mask.shape[0])
        assert box_of(row, 'Box') == pytest.approx(tight, abs=tolerance)
        assert 0 <= min(tight) <= max(tight) <= 1
    count = len(table(folder, split, 'masks'))
    assert resized == 0 if split == 'validation' else 0.15 < resized / count < 0.45


@pytest.mark.parametrize('split', SPLITS)
def test_masks_are_visible_parts_and_do_not_overlap(folder: Path, split: str) -> None:
    covered: dict[str, npt.NDArray[np.int64]] = {}
    for row in table(folder, split, 'masks'):
        width, height = image_size(folder, split, row['ImageID'])
        mask = read_mask(folder, split, row['MaskPath'])
        if mask.shape == (height, width):
            covered.setdefault(row['ImageID'], np.zeros((height, width), dtype=np.int64))
            covered[row['ImageID']] += mask
    assert covered
    assert all(count.max() == 1 for count in covered.values())


@pytest.mark.parametrize('split', SPLITS)
def test_mask_rows_belong_to_box_rows_whose_decimals_differ(folder: Path, split: str) -> None:
    boxes = defaultdict(list)
    for row in table(folder, split, 'bbox'):
        boxes[row['ImageID'], row['LabelName']].append((box_of(row), row['IsGroupOf']))
    differing = 0
    for row in table(folder, split, 'masks'):
        found = [
            group for box, group in boxes[row['ImageID'], row['LabelName']]
            if np.allclose(box, box_of(row, 'Box'), atol=1e-6)
        ]  # fmt: skip
        assert found == ['0']
        differing += all(box != box_of(row, 'Box') for box, _ in boxes[row['ImageID'], row['LabelName']])
    assert differing > 0


@pytest.mark.parametrize('split', SPLITS)
def test_there_are_group_of_boxes_and_boxes_without_a_mask(folder: Path, split: str) -> None:
    boxes, masks = table(folder, split, 'bbox'), table(folder, split, 'masks')
    groups = sum(row['IsGroupOf'] == '1' for row in boxes)
    assert groups > 0
    assert len(masks) < len(boxes) - groups


def test_evaluation_form_joins_exactly_and_equals_the_pictures(folder: Path) -> None:
    boxes = {
        tuple(row[key] for key in ('ImageID', 'LabelName', 'XMin', 'XMax', 'YMin', 'YMax', 'IsGroupOf'))
        for row in table(folder, 'validation', 'bbox')
    }
    pictures = table(folder, 'validation', 'masks')
    rows = table(folder, 'validation', 'masks-rle')
    assert len(rows) == len(pictures)
    for row, picture in zip(rows, pictures, strict=True):
        key = tuple(row[key] for key in ('ImageID', 'LabelName', 'XMin', 'XMax', 'YMin', 'YMax', 'IsGroupOf'))
        assert key in boxes  # as text: the coordinates are the same to the byte
        size = [int(row['ImageHeight']), int(row['ImageWidth'])]
        counts = zlib.decompress(base64.b64decode(row['Mask']))
        mask = pycocotools.mask.decode({'size': size, 'counts': counts})
        np.testing.assert_array_equal(mask.astype(bool), read_mask(folder, 'validation', picture['MaskPath']))


def test_validation_is_verified_exhaustively_and_train_is_not(folder: Path) -> None:
    for split in SPLITS:
        verified = defaultdict(list)
        for row in table(folder, split, 'labels'):
            verified[row['ImageID']].append(row['LabelName'])
        assert len(verified) == {'train': 60, 'validation': 15}[split]
        for labels in verified.values():
            assert len(set(labels)) == len(labels)
            assert (set(labels) == set(TAXONOMY.ids)) == (split == 'validation')


@pytest.mark.parametrize('split', SPLITS)
def test_verified_labels_agree_with_the_boxes(folder: Path, split: str) -> None:
    mask = TAXONOMY.arrays.ancestor_mask
    boxed = defaultdict(set)
    for row in table(folder, split, 'bbox'):
        boxed[row['ImageID']].add(TAXONOMY.label(row['LabelName']))
    signs: dict[str, dict[int, int]] = defaultdict(dict)
    for row in table(folder, split, 'labels'):
        signs[row['ImageID']][TAXONOMY.label(row['LabelName'])] = int(row['Confidence'])
    for image, sign in signs.items():
        positive = {label for label, confidence in sign.items() if confidence == 1}
        negative = {label for label, confidence in sign.items() if confidence == 0}
        expanded = set(np.flatnonzero(mask[sorted(boxed[image])].any(axis=0)).tolist())
        assert not expanded & negative
        assert positive == (expanded if split == 'validation' else boxed[image])


def test_summary_counts_what_was_written(folder: Path) -> None:
    summary = json.loads((folder / 'synthesis.json').read_text())
    assert summary['options']['seed'] == 0
    for split in SPLITS:
        counted = summary['splits'][split]
        assert counted['boxes'] == len(table(folder, split, 'bbox'))
        assert counted['masks'] == len(table(folder, split, 'masks'))
        assert counted['groups'] == sum(row['IsGroupOf'] == '1' for row in table(folder, split, 'bbox'))
        assert counted['positives'] == sum(row['Confidence'] == '1' for row in table(folder, split, 'labels'))
        assert counted['positives'] + counted['negatives'] == len(table(folder, split, 'labels'))
    assert summary['splits']['train']['coarse'] > 0
    assert summary['splits']['train']['boxes'] < summary['splits']['train']['objects']
    assert summary['splits']['validation']['boxes'] == summary['splits']['validation']['objects']


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob('*') if path.is_file()}


def test_same_seed_same_bytes_for_any_number_of_workers(folder: Path, tmp_path: Path) -> None:
    synthesize(tmp_path / 'two', options(), taxonomy=TAXONOMY, workers=2)
    assert contents(tmp_path / 'two') == contents(folder)


def test_another_seed_gives_other_images_of_the_same_kind(folder: Path, tmp_path: Path) -> None:
    synthesize(tmp_path / 'other', options(train=3, validation=1, seed=1), taxonomy=TAXONOMY)
    other = {path.name for path in (tmp_path / 'other' / 'train').iterdir()}
    assert len(other) == 3
    assert not other & {path.name for path in (folder / 'train').iterdir()}


def test_ids_are_unique_and_some_look_like_numbers() -> None:
    ids = [image_id(0, split, index) for split in range(2) for index in range(3000)]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch('[0-9a-f]{16}', i) for i in ids)
    assert sum(i.isdigit() for i in ids) >= 40
    assert sum(re.fullmatch(r'\d+e\d+', i) is not None for i in ids) >= 40


def test_existing_folder_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / 'file').write_text('mine')
    with pytest.raises(ConfigError, match='exists already'):
        synthesize(tmp_path, options(), taxonomy=TAXONOMY)
    assert [path.name for path in tmp_path.iterdir()] == ['file']


@pytest.mark.parametrize('workers', [1, 2])
def test_of_a_full_disk_nothing_is_left_behind(tmp_path: Path, workers: int) -> None:
    with small_files(1500), pytest.raises(OutputError, match=r'data: cannot be written .* free'):
        synthesize(tmp_path / 'data', options(), taxonomy=TAXONOMY, workers=workers)
    assert list(tmp_path.iterdir()) == []


def test_no_workers_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match='0 workers'):
        synthesize(tmp_path / 'data', options(), taxonomy=TAXONOMY, workers=0)


@pytest.mark.parametrize(
    'taxonomy',
    [
        Taxonomy.from_edges(['only'], []),
        Taxonomy.from_edges(
            ['traffic light', 'a/b', 'red', 'dark red', 'blood red', 'both'],
            [
                ('red', 'a/b'),
                ('dark red', 'red'),
                ('blood red', 'dark red'),
                ('both', 'red'),
                ('both', 'traffic light'),
            ],
        ),
    ],
)
def test_any_taxonomy_will_do(tmp_path: Path, taxonomy: Taxonomy) -> None:
    synthesize(tmp_path / 'data', options(train=8, validation=2), taxonomy=taxonomy)
    read = read_taxonomy(
        tmp_path / 'data/challenge-2019-label-hierarchy.json',
        classes=tmp_path / 'data/challenge-2019-classes-description.csv',
    )
    assert read.ids == taxonomy.ids
    assert {row['LabelName'] for row in table(tmp_path / 'data', 'train', 'bbox')} <= set(taxonomy.ids)


def test_the_real_taxonomy_with_the_real_counts(tmp_path: Path, test_data: Path) -> None:
    real = test_data / 'openimages'
    taxonomy = read_taxonomy(
        real / 'challenge-2019-label300-segmentable-hierarchy.json',
        classes=real / 'challenge-2019-classes-description-segmentable.csv',
    )
    counts = read_counts(real / 'train-mask-counts.csv', taxonomy)
    train = SplitOptions('train', 40, None, AnnotationRates(coarse=0.0, unannotated=0.0))
    summaries = synthesize(tmp_path / 'data', SynthesisOptions((train,), size=64), taxonomy=taxonomy, counts=counts)
    assert summaries['train'].coarse > 0
    assert not (tmp_path / 'data' / 'validation').exists()
    boxed = [row['LabelName'] for row in table(tmp_path / 'data', 'train', 'bbox')]
    # Clothing, the most frequent class of the real file, is the most frequent here.
    assert max(set(boxed), key=boxed.count) == taxonomy.ids[int(counts.argmax())]


def test_validation_hands_counts_of_internal_classes_to_their_leaves_and_flattens_them() -> None:
    taxonomy = Taxonomy.from_edges(['animal', 'cat', 'dog', 'car'], [('cat', 'animal'), ('dog', 'animal')])
    counts = np.array([100.0, 90.0, 10.0, 2.0])
    train = SplitOptions('train', 1, None, AnnotationRates())
    assert split_shares(train, taxonomy, counts) * 202 == pytest.approx(counts)
    # Leaves: cat 90 + 90, dog 10 + 10, car 2. Ratio 90 to at most √90: exponent 1/2, so √180 : √20 : √2.
    validation = SplitOptions('validation', 1, float(np.sqrt(90)), VALIDATION_RATES)
    shares = split_shares(validation, taxonomy, counts)
    assert shares[0] == 0
    assert shares[1:] / shares[3] == pytest.approx(np.sqrt([90, 10, 1]))


@pytest.mark.parametrize('name', ['train', 'validation'])
def test_counts_of_nothing_are_an_error(name: str) -> None:
    with pytest.raises(ConfigError, match='no class has any object'):
        split_shares(SplitOptions(name, 1, None, VALIDATION_RATES), TAXONOMY, np.zeros(TAXONOMY.num_classes))


TOOL = Path(__file__).resolve().parents[2] / 'tools' / 'synthesize.py'


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(TOOL), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_writes_both_splits_with_a_fifth_for_validation(tmp_path: Path) -> None:
    taxonomy = tmp_path / 'edges.csv'
    taxonomy.write_text('child,parent\ncat,animal\ndog,animal\n')
    counts = tmp_path / 'counts.csv'
    counts.write_text('class,count\nanimal,5\ncat,20\n')
    out = tmp_path / 'data'
    result = run(out, '--images', 11, '--seed', 3, '--size', 64, '--taxonomy', taxonomy, '--counts', counts)
    assert result.returncode == 0, result.stderr
    assert len(list((out / 'train').glob('*.jpg'))) == 11
    assert len(list((out / 'validation').glob('*.jpg'))) == 3  # 11 / 5, rounded up
    assert 'train: 11 images' in result.stdout
    boxes = (out / 'challenge-2019-train-segmentation-bbox.csv').read_text()
    assert ',cat,' in boxes
    assert ',animal,' in boxes
    assert ',dog,' not in boxes


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--images', 0], 'error: train split: 0 images. Ask for at least 1.'),
        (['--images', 5, '--size', 10], 'error: images of 10 pixels'),
        (['--images', 5, '--classes', 'classes.csv'], 'error: --classes without --taxonomy'),
        (['--images', 5, '--counts', 'nowhere.csv'], 'error: nowhere.csv: cannot be read'),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(tmp_path: Path, arguments: list[object], message: str) -> None:
    result = run(tmp_path / 'data', *arguments)
    assert result.returncode == 2
    assert result.stderr.startswith(message)
    assert result.stderr.count('\n') == 1
    assert list(tmp_path.iterdir()) == []
