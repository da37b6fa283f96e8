"""Large CSV files into Arrow columns, a block at a time, with the line number of whatever is wrong in them.

Columns are found by name, and only those asked for are read. pyarrow parses; when something is wrong, the file is
read again row by row to find the line. Shape letter: R rows of a block.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from hierseg.errors import AnnotationError
from hierseg.formats import BoolArray, IntArray

# A line must fit into a block: a base64 mask takes a few kilobytes, a million bytes at the very most.
BLOCK_BYTES = 1 << 24
NUMBER = 'It must be a number.'


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


@dataclass(eq=False)
class Chunk:
    """Some consecutive rows of a CSV file, and what is wrong with them.

    Attributes:
        path: The file.
        rows: (R,) int64; their places in the file, 0 below the header.
        texts: Column name → (R,) text.
        numbers: Column name → (R,) float64 or int64; 0 where it is no number.
        faults: What is wrong: (R,) bool, row of the chunk → words, what would be right.
    """

    path: Path
    rows: IntArray
    texts: dict[str, pa.StringArray]
    numbers: dict[str, npt.NDArray[Any]]
    faults: list[tuple[BoolArray, Callable[[int], str], str]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.rows)

    def refuse(self, wrong: BoolArray, what: Callable[[int], str], *, fix: str = '') -> None:
        """Notes that some of the rows are wrong."""
        if wrong.any():
            self.faults.append((wrong, what, fix))

    def wrong(self) -> BoolArray:
        """(R,) bool; the rows with something wrong."""
        wrong = np.zeros(len(self), dtype=bool)
        for some, _, _ in self.faults:
            wrong |= some
        return wrong

    def fault_of(self, row: int) -> str:
        """What is wrong with a row, in words."""
        return next(what(row) for wrong, what, _ in self.faults if wrong[row])

    def fault(self, row: int) -> AnnotationError:
        """What is wrong with a row: with the file, the line and, if it has one, the image."""
        fix = next(fix for wrong, _, fix in self.faults if wrong[row])
        image_id = self.texts['ImageID'][row].as_py() if 'ImageID' in self.texts else ''
        fix = ' '.join(text for text in (fix, f'The row is of image {image_id}.' if image_id else '') if text)
        line = line_of(self.path, int(self.rows[row]))
        return AnnotationError(self.fault_of(row), where=f'{self.path}, line {line}', fix=fix)


def read_chunks(
    path: Path,
    columns: Mapping[str, pa.DataType],
    *,
    optional: Sequence[str] = (),
    skip_lines: Callable[[int, str], None] | None = None,
) -> Iterator[Chunk]:
    """Reads columns of a CSV file by name, a block at a time; other columns are ignored.

    Args:
        path: The file; its first line names the columns.
        columns: Column name → ``string``, ``float64`` or ``int64``. Text stays text: no value is taken for missing.
        optional: Those of the columns that may be absent.
        skip_lines: Told the row and the words of a line with too many or too few values; None makes it an error.

    Yields:
        Rows in the order of the file, empty lines left out. Values that are no finite numbers are noted as faults.

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
    skipped = _SkippedLines(skip_lines) if skip_lines else None
    done = 0
    try:
        for batch in _open(path, list(wanted), skipped):
            rows = np.arange(done, done + batch.num_rows)
            done += batch.num_rows
            yield _chunk(path, skipped.places(rows) if skipped else rows, batch, wanted)
    except pa.ArrowInvalid as error:
        raise _locate(path, header, str(error)) from None


def _open(path: Path, columns: Sequence[str], skipped: _SkippedLines | None) -> pa.csv.CSVStreamingReader:
    return pa.csv.open_csv(
        str(path),
        # One thread: only so does pyarrow tell the number of a line that it skips.
        read_options=pa.csv.ReadOptions(block_size=BLOCK_BYTES, use_threads=False),
        parse_options=pa.csv.ParseOptions(invalid_row_handler=skipped),
        # Numbers are read as text and cast here, which costs a fifth more and leaves a wrong one in its row.
        convert_options=pa.csv.ConvertOptions(
            include_columns=columns,
            column_types=dict.fromkeys(columns, pa.string()),
            null_values=[],
            strings_can_be_null=False,
        ),
    )


class _SkippedLines:
    """Lines with too many or too few values: tells of each, and where the others stand in the file."""

    def __init__(self, tell: Callable[[int, str], None]) -> None:
        self.tell = tell
        self.rows: list[int] = []

    def __call__(self, line: Any) -> str:
        # pyarrow counts from 1, the header included and empty lines left out.
        self.rows.append(line.number - 2)
        self.tell(self.rows[-1], f'{line.actual_columns} values for {line.expected_columns} columns')
        return 'skip'

    def places(self, rows: IntArray) -> IntArray:
        """Places in the file of rows that are counted without the skipped ones."""
        before = np.array(self.rows, dtype=np.int64) - np.arange(len(self.rows))
        return rows + np.searchsorted(before, rows, side='right')


def _chunk(path: Path, rows: IntArray, batch: pa.RecordBatch, columns: Mapping[str, pa.DataType]) -> Chunk:
    texts = {name: batch.column(name) for name, kind in columns.items() if pa.types.is_string(kind)}
    chunk = Chunk(path, rows, texts, {})
    for name, kind in columns.items():
        if name not in texts:
            chunk.numbers[name] = _numbers(chunk, name, batch.column(name), kind)
    return chunk


def _numbers(chunk: Chunk, name: str, column: pa.StringArray, kind: pa.DataType) -> npt.NDArray[Any]:
    """The values of a column, 0 for what is no finite number; that is noted as a fault."""
    try:
        values = pc.cast(column, kind).to_numpy()
    except pa.ArrowInvalid:
        values, good = _some_numbers(column.to_pylist(), kind)
        chunk.refuse(~good, lambda row: f'{name} is {column[row].as_py()!r}', fix=NUMBER)
    finite = np.isfinite(values)
    chunk.refuse(~finite, lambda row: f'{name} is {values[row]}', fix=NUMBER)
    return np.where(finite, values, 0) if not finite.all() else values


def _some_numbers(texts: Sequence[str], kind: pa.DataType) -> tuple[npt.NDArray[Any], BoolArray]:
    """The values, 0 for what is no number, and which are numbers."""
    integer = pa.types.is_integer(kind)
    good = np.array([_is_number(text, integer=integer) for text in texts], dtype=bool)
    convert: type[int] | type[float] = int if integer else float
    values = [convert(text) if is_good else 0 for text, is_good in zip(texts, good, strict=True)]
    return np.array(values, dtype=kind.to_pandas_dtype()), good


def line_of(path: Path, row: int) -> int:
    """The line, from 1 as an editor counts, of a row of :func:`read_chunks` (row 0 is below the header)."""
    with _rows(path) as rows:
        return next(islice((line for line, _ in rows), row + 1, None))


def _locate(path: Path, header: Sequence[str], message: str) -> AnnotationError:
    """Finds the line at which pyarrow stumbled."""
    with _rows(path) as rows:
        for line, values in rows:
            if len(values) != len(header):
                return AnnotationError(
                    f'{len(values)} values for {len(header)} columns',
                    where=f'{path}, line {line}',
                    fix='Every line has one value for each column; is the file cut off?',
                )
    return AnnotationError(f'cannot be read as CSV ({message})', where=str(path), fix='Is it the official file?')


def _is_number(text: str, *, integer: bool) -> bool:
    try:
        number = float(text)
    except ValueError:
        return False
    # What is not finite is a number all the same; the words about it are others.
    return '_' not in text and (not integer or (text.strip().lstrip('-').isdigit() and abs(number) < 1e18))


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


def index_in(values: pa.Array | pa.ChunkedArray, among: pa.Array) -> IntArray:
    """(R,) int64; the position of each value in ``among``, -1 where it is not there."""
    found: IntArray = pc.fill_null(pc.index_in(values, value_set=among), -1).to_numpy().astype(np.int64)
    return found
