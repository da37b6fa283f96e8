"""Large CSV files into Arrow columns, with the line number of whatever is wrong in them.

Columns are found by name, and only those asked for are read. The fast path parses in pyarrow; when it
fails, the file is read again row by row to find the line.
"""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from hierseg.errors import AnnotationError

# A line must fit into a block: a base64 mask takes a few kilobytes, a million bytes at the very most.
BLOCK_BYTES = 1 << 24


def read_header(path: Path) -> list[str]:
    """The column names of a CSV file.

    Raises:
        AnnotationError: If the file is missing, empty or not text.
    """
    with _rows(path) as rows:
        header = next(rows, (1, []))[1]
    if not header:
        raise AnnotationError('is empty', where=str(path), fix='Its first line names the columns.')
    return header


def read_table(path: Path, columns: Mapping[str, pa.DataType], *, optional: Sequence[str] = ()) -> pa.Table:
    """Reads columns of a CSV file by name; other columns are ignored.

    Args:
        path: The file; its first line names the columns.
        columns: Column name → type. Text stays text: no value is taken for a number or for missing.
        optional: Those of the columns that may be absent.

    Returns:
        One row per line, empty lines left out. Numbers are finite.

    Raises:
        AnnotationError: With the file and the line.
    """
    header = read_header(path)
    missing = [name for name in columns if name not in header and name not in optional]
    if missing:
        raise AnnotationError(
            f'no column {", ".join(missing)}; the columns are {", ".join(header)}',
            where=str(path),
            fix='Give the official file of this kind.',
        )
    wanted = {name: kind for name, kind in columns.items() if name in header}
    options = pa.csv.ConvertOptions(
        include_columns=list(wanted), column_types=wanted, null_values=[], strings_can_be_null=False
    )
    try:
        table = pa.csv.read_csv(
            str(path), read_options=pa.csv.ReadOptions(block_size=BLOCK_BYTES), convert_options=options
        )
    except pa.ArrowInvalid as error:
        raise _locate(path, header, wanted, str(error)) from None
    for name, kind in wanted.items():
        if pa.types.is_floating(kind):
            _refuse_infinite(path, name, table[name].to_numpy())
    return table


def refuse_rows(path: Path, wrong: npt.NDArray[np.bool_], what: Callable[[int], str], *, fix: str = '') -> None:
    """Raises for the first wrong row, if there is one.

    Args:
        path: The file.
        wrong: (R,) bool, one for each row of :func:`read_table`.
        what: Row index → what is wrong with it.
        fix: What would be right.

    Raises:
        AnnotationError: With the file and the line.
    """
    if wrong.any():
        row = int(np.argmax(wrong))
        raise AnnotationError(what(row), where=f'{path}, line {line_of(path, row)}', fix=fix)


def _refuse_infinite(path: Path, name: str, values: npt.NDArray[np.float64]) -> None:
    refuse_rows(path, ~np.isfinite(values), lambda row: f'{name} is {values[row]}', fix='It must be a number.')


def line_of(path: Path, row: int) -> int:
    """The line, from 1 as an editor counts, of a row of :func:`read_table` (row 0 is below the header)."""
    with _rows(path) as rows:
        return next(islice((line for line, _ in rows), row + 1, None))


def _locate(path: Path, header: Sequence[str], columns: Mapping[str, pa.DataType], message: str) -> AnnotationError:
    """Finds the line at which pyarrow stumbled."""
    numeric = [(header.index(name), name) for name, kind in columns.items() if not pa.types.is_large_string(kind)]
    numeric = [(at, name) for at, name in numeric if not pa.types.is_string(columns[name])]
    with _rows(path) as rows:
        for line, values in islice(rows, 1, None):
            where = f'{path}, line {line}'
            if len(values) != len(header):
                fix = 'Every line has one value for each column; is the file cut off?'
                return AnnotationError(f'{len(values)} values for {len(header)} columns', where=where, fix=fix)
            for at, name in numeric:
                if not _is_number(values[at], integer=pa.types.is_integer(columns[name])):
                    return AnnotationError(f'{name} is {values[at]!r}', where=where, fix='It must be a number.')
    return AnnotationError(f'cannot be read as CSV ({message})', where=str(path), fix='Is it the official file?')


def _is_number(text: str, *, integer: bool) -> bool:
    try:
        number = float(text)
    except ValueError:
        return False
    return math.isfinite(number) and (not integer or text.strip().lstrip('-').isdigit())


@contextmanager
def _rows(path: Path) -> Iterator[Iterator[tuple[int, list[str]]]]:
    """Line numbers and values of the lines that are not empty, the header first."""
    limit = csv.field_size_limit(sys.maxsize)
    try:
        with path.open(encoding='utf-8-sig', newline='') as file:
            reader = csv.reader(file)
            yield ((reader.line_num, values) for values in reader if values)
    except OSError as error:
        raise AnnotationError(f'cannot be read ({error.strerror})', where=str(path), fix='Check the path.') from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise AnnotationError(f'is not a CSV text file ({error})', where=str(path)) from None
    finally:
        csv.field_size_limit(limit)


def index_in(values: pa.ChunkedArray, among: pa.Array) -> npt.NDArray[np.int64]:
    """(R,) int64; the position of each value in ``among``, -1 where it is not there."""
    found: npt.NDArray[np.int64] = pc.fill_null(pc.index_in(values, value_set=among), -1).to_numpy().astype(np.int64)
    return found
