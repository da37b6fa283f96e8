"""Options, their checks, and counts from a CSV."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hierseg.errors import AnnotationError, ConfigError
from hierseg.synthetic import (
    AnnotationRates,
    SplitOptions,
    SynthesisOptions,
    default_taxonomy,
    large_taxonomy,
    read_counts,
)
from hierseg.taxonomy import read_taxonomy

TRAIN = SplitOptions('train', 1, 10.0, AnnotationRates())


@pytest.mark.parametrize('rate', ['coarse', 'unannotated', 'group_of', 'box_only', 'resized_mask'])
@pytest.mark.parametrize('value', [-0.1, 1.1, float('nan')])
def test_rates_are_shares(rate: str, value: float) -> None:
    with pytest.raises(ConfigError, match='rate is'):
        AnnotationRates(**{rate: value})


def test_negatives_are_not_negative() -> None:
    with pytest.raises(ConfigError, match='-1 negative labels'):
        AnnotationRates(negatives=-1)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (('train', 0, 10.0), 'train split: 0 images'),
        (('train', 5, 0.5), r'train split: head to tail 0\.5 : 1'),
        (('train', 5, float('nan')), 'head to tail nan'),
        (('holdout', 5, 2.0), "split 'holdout'"),
    ],
)
def test_bad_splits(arguments: tuple[str, int, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SplitOptions(*arguments, AnnotationRates())


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'size': 63}, 'images of 63 pixels'),
        ({'size': 5000}, 'images of 5000 pixels'),
        ({'seed': -1}, 'seed -1'),
        ({'seed': 2**32}, 'seed 4294967296'),
        ({'objects_per_image': 0.5}, r'0\.5 objects'),
        ({'objects_per_image': float('nan')}, 'nan objects'),
    ],
)
def test_bad_data_sets(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SynthesisOptions((TRAIN,), **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize('splits', [(), (TRAIN, TRAIN)])
def test_splits_are_there_once(splits: tuple[SplitOptions, ...]) -> None:
    with pytest.raises(ConfigError, match='each once'):
        SynthesisOptions(splits)


TAXONOMY = default_taxonomy()


def write(folder: Path, text: str) -> Path:
    path = folder / 'counts.csv'
    path.write_text(text, encoding='utf-8')
    return path


def test_reads_counts_by_column_name(tmp_path: Path) -> None:
    path = write(tmp_path, 'count,name,class\n7,Woman,/m/0syn02\n0,Man,/m/0syn01\n')
    counts = read_counts(path, TAXONOMY)
    assert counts[2] == 7
    assert counts.sum() == 7


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('class,count\n/m/0syn01,3\n/m/0nope,3\n', r"counts\.csv, line 3: class '/m/0nope' is not in the taxonomy"),
        ('class,count\n/m/0syn01,3\n/m/0syn01,4\n', r'counts\.csv, line 3: class /m/0syn01 occurs twice'),
        ('class,count\n/m/0syn01,many\n', r"counts\.csv, line 2: count is 'many'"),
        ('class,count\n/m/0syn01,-1\n', r'counts\.csv, line 2: count is -1'),
        ('class,count\n/m/0syn01,nan\n', r"counts\.csv, line 2: count is 'nan'"),
        ('class,count\n/m/0syn01\n', r'counts\.csv, line 2: 1 values for 2 columns'),
        ('class,number\n/m/0syn01,3\n', r'counts\.csv, line 1: column count is missing'),
        ('', r'counts\.csv: is empty'),
    ],
)
def test_bad_counts_are_named_with_file_and_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(AnnotationError, match=message):
        read_counts(write(tmp_path, text), TAXONOMY)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match=r'none\.csv: cannot be read'):
        read_counts(tmp_path / 'none.csv', TAXONOMY)


def test_real_counts(test_data: Path) -> None:
    folder = test_data / 'openimages'
    taxonomy = read_taxonomy(
        folder / 'challenge-2019-label300-segmentable-hierarchy.json',
        classes=folder / 'challenge-2019-classes-description-segmentable.csv',
    )
    counts = read_counts(folder / 'train-mask-counts.csv', taxonomy)
    assert counts.sum() == 2_125_530
    assert (counts.min(), counts.max()) == (14, 173_787)


def test_the_large_taxonomy_has_the_shape_of_open_images() -> None:
    taxonomy = large_taxonomy()
    parents = taxonomy.arrays.preferred_parents
    # As tests/taxonomy/test_main.py counts the real one: 213, 82 and 5 by depth, 23 root classes with children.
    assert np.bincount(taxonomy.arrays.depths).tolist() == [213, 82, 5]
    roots = taxonomy.arrays.depths[parents[parents >= 0]] == 0
    assert len(np.unique(parents[parents >= 0][roots])) == 23
