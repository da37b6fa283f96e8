"""The one reader of CSV tables: columns by name, values checked, and the editor's line of whatever is wrong."""

from __future__ import annotations

import numpy as np
import pytest

from hierseg.errors import AnnotationError, EvaluationError
from hierseg.formats import csv_tables
from hierseg.formats.csv_tables import read_chunks, read_table

COLUMNS = ('ImageID', 'LabelName', 'Score', 'IsGroupOf', 'ImageWidth')
HEADER = ','.join(COLUMNS)
ROW = 'a,car,0.5,0,8'


@pytest.fixture
def table(tmp_path):
    """Writes lines below the header and reads them."""

    def read(*lines, header=HEADER, error=AnnotationError):
        path = tmp_path / 'x.csv'
        path.write_text('\n'.join([header, *lines, '']))
        return read_table(path, COLUMNS, error=error)

    return read


def values_of(table):
    """All values as the columns' kinds, after checking them."""
    values = [
        table.labels('LabelName', ['toy', 'car']),
        table.numbers('Score'),
        table.flags('IsGroupOf', unknown=True),
        table.sizes('ImageWidth'),
    ]
    table.check()
    return table.texts['ImageID'].to_pylist(), *(found.tolist() for found in values)


def test_columns_are_read_by_name_and_others_skipped(table):
    header, *rows = (','.join(['x', *reversed(line.split(','))]) for line in (HEADER, ROW, 'b,toy,1,1,9'))
    assert values_of(table(*rows, header=header)) == (['a', 'b'], [1, 0], [0.5, 1.0], [False, True], [8, 9])


def test_a_byte_order_mark_quotes_blank_lines_and_spaces_are_fine(table):
    found = values_of(table('', '\r', '"a","car", 0.5,"-1", 8', header=f'\ufeff{HEADER}'))
    assert found == (['a'], [1], [0.5], [False], [8])


def test_headers_without_rows_are_fine(table):
    assert values_of(table()) == ([], [], [], [], [])


@pytest.mark.parametrize('error', [AnnotationError, EvaluationError])
@pytest.mark.parametrize(
    ('column', 'value', 'message'),
    [
        ('LabelName', 'boat', "class 'boat' is not in the taxonomy of 2 classes"),
        ('Score', 'left', "Score is 'left'. It must be a finite number"),
        ('Score', '', "Score is ''"),
        ('Score', 'nan', "Score is 'nan'"),
        ('Score', 'inf', "Score is 'inf'"),
        ('IsGroupOf', '2', "IsGroupOf is '2'. It is 1, 0 or -1"),
        ('IsGroupOf', 'yes', "IsGroupOf is 'yes'"),
        ('ImageWidth', '0', 'ImageWidth is 0. It must be a whole number'),
        ('ImageWidth', '8.5', 'ImageWidth is 8.5'),
    ],
)
def test_a_bad_value_is_refused_with_its_line_and_image(table, error, column, value, message):
    row = ','.join(value if name == column else text for name, text in zip(COLUMNS, ROW.split(','), strict=True))
    with pytest.raises(error, match=rf'x\.csv, line 3: {message}.*The row is of image a\.'):
        values_of(table(ROW, row, error=error))


def test_lines_are_counted_as_an_editor_shows_them(table):
    # Blank lines and quoted line ends count; the bad score is in line 7.
    with pytest.raises(AnnotationError, match=r'x\.csv, line 7: Score'):
        values_of(table('', ROW, '"a\nb"' + ROW[1:], '', ROW.replace('0.5', 'high')))


@pytest.mark.parametrize('values', [4, 6])
def test_a_line_with_another_number_of_values(table, values):
    with pytest.raises(AnnotationError, match=rf'x\.csv, line 4: {values} values for 5 columns.*cut off\?'):
        table(ROW, '', ','.join('a' * values))


def test_a_missing_column(table):
    with pytest.raises(AnnotationError, match=r'x\.csv, line 1: column Score, IsGroupOf is missing.*it has A, '):
        table(header='A,ImageID,LabelName,ImageWidth')


@pytest.mark.parametrize('error', [AnnotationError, EvaluationError])
def test_files_that_are_none(tmp_path, error):
    contents = {'empty': b'', 'binary': b'\xff\xfe\x00', 'binary_row': HEADER.encode() + b'\n\xff\xfe\x00,car,1,1,8\n'}
    for name, content in contents.items():
        (tmp_path / f'{name}.csv').write_bytes(content)
    messages = {
        'nowhere': 'cannot be read \\(No such file',
        'empty': 'is empty',
        'binary': 'is not a CSV text file',
        'binary_row': 'is not a CSV text file',
    }
    for name, message in messages.items():
        with pytest.raises(error, match=rf'{name}\.csv: {message}'):
            read_table(tmp_path / f'{name}.csv', COLUMNS, error=error)


def test_rows_keep_their_places_beside_bad_lines_in_any_block(tmp_path, monkeypatch):
    # 300 lines of about 12 bytes in blocks of 256: bad lines in many blocks, empty lines among them.
    monkeypatch.setattr(csv_tables, 'BLOCK_BYTES', 256)
    generator = np.random.default_rng(0)
    lines, expected, bad = ['A,B'], [], []
    for row in range(300):
        if generator.random() < 0.1:
            lines.append('')
        if generator.random() < 0.2:
            bad.append(row)
            lines.append('x' if row % 2 else 'x,1,2')
        else:
            expected.append((row, f'text{row}', float(row)))
            lines.append(f'text{row},{row}')
    path = tmp_path / 'x.csv'
    path.write_text('\n'.join(lines) + '\n')
    told: list[int] = []
    chunks = list(read_chunks(path, ['A', 'B'], skip_lines=lambda row, what: told.append(row)))
    assert len(chunks) > 5
    assert told == bad
    found = [
        (int(row), text, float(value))
        for chunk in chunks
        for row, text, value in zip(chunk.rows, chunk.texts['A'].to_pylist(), chunk.numbers('B'), strict=True)
    ]
    assert found == expected
    line = lines.index(f'text{expected[-1][0]},{expected[-1][0]}') + 1
    assert csv_tables.place_of(path, expected[-1][0]) == f'{path}, line {line}'


@pytest.mark.parametrize(
    ('text', 'value'), [(' 5', 5.0), ('1e-3', 0.001), ('-0', 0.0), ('1_0', None), ('0x1', None), ('1,5', None)]
)
def test_numbers_with_a_wrong_one_among_them(tmp_path, text, value):
    path = tmp_path / 'x.csv'
    path.write_text(f'A\n"{text}"\nwrong\n7\n')
    [chunk] = read_chunks(path, ['A'])
    assert chunk.numbers('A').tolist() == [value or 0.0, 0.0, 7.0]
    assert chunk.wrong().tolist() == [value is None, True, False]
    assert chunk.fault_of(1) == "A is 'wrong'"
