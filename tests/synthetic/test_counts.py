from __future__ import annotations

from pathlib import Path

import pytest

from hierseg.errors import AnnotationError, TaxonomyError
from hierseg.synthetic import default_taxonomy, read_counts
from hierseg.taxonomy import read_taxonomy

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
        ('class,count\n/m/0syn01,many\n', r"counts\.csv, line 2: the count is 'many'"),
        ('class,count\n/m/0syn01,-1\n', r"line 2: the count is '-1'"),
        ('class,count\n/m/0syn01,nan\n', r"line 2: the count is 'nan'"),
        ('class,count\n/m/0syn01\n', r'line 2: the count is None'),
        ('class,number\n/m/0syn01,3\n', r"counts\.csv: no column 'count'"),
        ('', r"counts\.csv: no column 'class'"),
    ],
)
def test_bad_counts_are_named_with_file_and_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises((AnnotationError, TaxonomyError), match=message):
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
