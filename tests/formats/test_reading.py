"""The border where files are read: every foreign exception is one error, with the file and without control codes."""

from __future__ import annotations

import argparse
import struct
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path

import pytest

from hierseg.errors import AnnotationError, EvaluationError, TaxonomyError
from hierseg.formats.csv_tables import place_of, read_table
from hierseg.formats.json_files import parse_json, read_json
from hierseg.formats.reading import leaves_folder, reading, shown
from hierseg.limits import MAX_PIXELS, add_max_pixels, excess


@pytest.mark.parametrize(
    ('fault', 'said'),
    [
        (FileNotFoundError(2, 'No such file'), 'a.bin: cannot be read (No such file). Get it.'),
        (UnicodeDecodeError('utf-8', b'\xff', 0, 1, 'invalid start byte'), 'a.bin: is broken (.utf-8. codec'),
        (RecursionError('maximum'), 'a.bin: is broken (it is nested too deeply). Get it.'),
        (MemoryError(), 'a.bin: is broken (it does not fit into memory)'),
        (ValueError('set_int_max_str_digits'), 'more than 4,300 digits'),
        (zipfile.BadZipFile('no \x1b[31mzip'), r'is broken (no \x1b[31mzip)'),
        (EOFError(), 'is broken (EOFError)'),
        *((kind('why'), 'is broken (why)') for kind in (OverflowError, struct.error, zlib.error, SyntaxError)),
    ],
)
def test_what_a_library_raises_becomes_one_error(fault: Exception, said: str) -> None:
    with pytest.raises(AnnotationError) as refusal, reading('a.bin', AnnotationError, what='is broken', fix='Get it.'):
        raise fault
    assert said.replace('.utf-8.', "'utf-8'") in str(refusal.value)


def test_our_errors_and_our_faults_pass() -> None:
    with pytest.raises(EvaluationError, match=r'^mine$'), reading('a.bin', AnnotationError):
        raise EvaluationError('mine')
    with pytest.raises(KeyError), reading('a.bin', AnnotationError):
        raise KeyError('a fault of the program')


@pytest.mark.parametrize('opening', ['[', '{"a":'])
@pytest.mark.parametrize('depth', [1000, 100_000])
def test_deep_json_is_refused(opening: str, depth: int) -> None:
    with pytest.raises(TaxonomyError, match=r'a\.json: is nested too deeply'):
        parse_json(opening * depth, where='a.json', error=TaxonomyError)


def test_a_value_too_deep_for_repr_is_named_by_its_kind() -> None:
    value: list[object] = []
    for _ in range(5000):
        value = [value]
    assert shown(value) == 'a deeply nested list'
    assert shown('x' * 100, 5) == "'xxxx"


@pytest.mark.parametrize(
    ('content', 'said'),
    [
        (b'\xff\xfe\x00', 'is not JSON'),
        (b'{"a": ' + b'7' * 5000 + b'}', 'a number has more than 4,300 digits'),
        (b'{"a": 1, "b": 2, "a": 3}', "the key 'a' stands twice"),
        (b'["\\ud800"]', 'holds half of a character'),
        (b'\0', 'line 1: is not JSON'),
        (b'', 'line 1: is not JSON'),
    ],
)
def test_json_that_is_none(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / 'a.json'
    path.write_bytes(content)
    with pytest.raises(AnnotationError) as refusal:
        read_json(path, error=AnnotationError, fix='')
    assert said in str(refusal.value)


@pytest.mark.parametrize(
    'content',
    [
        b'a,b\n1,\xff\n',
        b'a,b\n"1,2\n',
        b'a,b\n\0,"\0\n1\n',
        b'a,' + b'c' * 200_000 + b'\n1,2\n',
        b'\xff\xfea\0',
        b'',
        b'a,a\n1,2\n',
        b'a,b\n1,2,3\n',
        b'a,b\r"x\r"y,1\n',
    ],
)
def test_tables_that_are_none_or_sound(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / 'a.csv'
    path.write_bytes(content)
    with suppress(AnnotationError):
        assert len(read_table(path, ['a', 'b'])) <= 2


def test_a_row_that_csv_does_not_see_is_named_by_its_number(tmp_path: Path) -> None:
    path = tmp_path / 'a.csv'
    path.write_text('a\n1\n')
    assert place_of(path, 0) == f'{path}, line 2'
    assert place_of(path, 7) == f'{path}, row 8'


@pytest.mark.parametrize('name', ['/a', '../a', 'a/../../b', 'a\\..\\b', 'C:\\a', 'a\0b', '//a', '..'])
def test_paths_that_leave_their_folder(name: str) -> None:
    assert leaves_folder(name)


@pytest.mark.parametrize('name', ['a', 'a/b.png', './a', 'a..b', '...jpg', 'train2017/0001.jpg', 'a:b'])
def test_paths_that_stay(name: str) -> None:
    assert not leaves_folder(name)


def test_sizes_up_to_the_limit(capsys: pytest.CaptureFixture[str]) -> None:
    assert excess(1 << 14, 1 << 14) == ''
    assert '3 x 2 pixels' in excess(2, 3, 5)
    assert excess(0, 5)
    assert excess(1 << 15, 1 << 16, 1 << 40), 'OpenCV reads no more, whatever is allowed'
    parser = argparse.ArgumentParser()
    add_max_pixels(parser)
    assert parser.parse_args([]).max_pixels == MAX_PIXELS
    assert parser.parse_args(['--max-pixels', '77']).max_pixels == 77
    for text in ('0', '-1', '1e9', '9' * 5000, '\u00b2'):
        with pytest.raises(SystemExit):
            parser.parse_args([f'--max-pixels={text}'])
    assert 'is no number from 1 to' in capsys.readouterr().err
