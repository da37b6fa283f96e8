"""Large CSV files as Arrow columns, a block of rows at a time, with the line of whatever is wrong in them.

``read_chunks`` finds columns by name and yields :class:`Chunk` after chunk, all of it text. A chunk makes numbers,
flags and labels of its columns and notes what is wrong with a row; the caller asks for all faults, to leave rows out,
or lets ``check`` raise the first one, with file and line. pyarrow parses; when something is wrong, the file is read
again row by row to find the line. Shape letter: R rows of a chunk.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from hierseg.errors import AnnotationError, HiersegError
from hierseg.formats import BoolArray, FloatArray, IntArray
from hierseg.formats.reading import DAMAGE, leaves_folder, printable, reading, reason_of, shown
from hierseg.limits import MOST_PIXELS, excess

# A line must fit into a block: a base64 mask takes a few kilobytes, a million bytes at the very most.
BLOCK_BYTES = 1 << 24
LARGEST_SIDE = 1 << 16
"""Of a mask, pixels."""
# Texts that pandas, and so the reference evaluator, reads as no value.
BLANKS = (
    '', ' ', '#N/A', '#N/A N/A', '#NA', '-1.#IND', '-1.#QNAN', '-NaN', '-nan', '1.#IND', '1.#QNAN', '<NA>',
    'N/A', 'NA', 'NULL', 'NaN', 'None', 'n/a', 'nan', 'null',
)  # fmt: skip
FLAGS = {'0': 0, '1': 1, '0.0': 0, '1.0': 1, 'false': 0, 'true': 1, '-1': -1, '-1.0': -1}
NEITHER = 2

Fault = tuple[BoolArray, Callable[[int], str], str]


@dataclass(eq=False)
class Chunk:
    """Some consecutive rows of a CSV file, and what is wrong with them.

    Attributes:
        path: The file.
        rows: (R,) int64; their places in the file, 0 below the header.
        texts: Column name → (R,) text.
        error: Raised for what is wrong.
        faults: What is wrong: (R,) bool, row of the chunk → words, what would be right.
    """

    path: Path
    rows: IntArray
    texts: dict[str, Any]
    error: type[HiersegError]
    faults: list[Fault] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.rows)

    def refuse(self, wrong: BoolArray, what: Callable[[int], str], *, fix: str = '') -> None:
        """Notes that some of the rows are wrong."""
        if wrong.any():
            self.faults.append((wrong, what, fix))

    def refuse_empty(self, name: str) -> None:
        """Notes the rows without a text in the column."""
        empty = np.asarray(pc.equal(pc.utf8_trim_whitespace(self.texts[name]), ''))
        self.refuse(empty, lambda row: f'{name} is empty', fix='Every row needs it.')

    def wrong(self) -> BoolArray:
        """(R,) bool; the rows with something wrong."""
        wrong = np.zeros(len(self), dtype=bool)
        for some, _, _ in self.faults:
            wrong |= some
        return wrong

    def fault_of(self, row: int) -> str:
        """Fault of a row, in words."""
        return next(what(row) for wrong, what, _ in self.faults if wrong[row])

    def check(self) -> None:
        """Raises what is wrong with the first row that has something wrong: with file, line and, if known, image."""
        if self.faults:
            row = int(self.wrong().argmax())
            fix = next(fix for wrong, _, fix in self.faults if wrong[row])
            image_id = self.texts['ImageID'][row].as_py() if 'ImageID' in self.texts else ''
            fix = ' '.join(text for text in (fix, f'The row is of image {image_id}.' if image_id else '') if text)
            raise self.error(self.fault_of(row), where=self.where(row), fix=fix)

    def where(self, row: int) -> str:
        """File and line of a row of the chunk."""
        return place_of(self.path, int(self.rows[row]))

    def blank(self, name: str) -> BoolArray:
        """(R,) bool; rows without a value in the column."""
        return np.asarray(pc.is_in(self.texts[name], value_set=pa.array(BLANKS, pa.string())))

    def labels(self, name: str, ids: Sequence[str], *, refuse: bool = True) -> IntArray:
        """(R,) int64; positions of the column's texts among the class ids; −1, and a fault if so asked, for others."""
        column = self.texts[name]
        labels = index_in(column, pa.array(ids, pa.string()))
        if refuse:
            self.refuse(
                labels < 0,
                lambda row: f'class {shown(column[row].as_py())} is not in the taxonomy of {len(ids)} classes',
                fix='Give the matching hierarchy and class list, or leave the rows of other classes out.',
            )
        return labels

    def numbers(self, name: str, *, where_not: BoolArray | None = None) -> FloatArray:
        """(R,) float64, correctly rounded; 0 in the rows of ``where_not``, and a fault for what is no finite number."""
        column = self.texts[name]
        if where_not is not None:
            column = pc.if_else(pa.array(where_not), '0', column)
        try:
            values: FloatArray = pc.cast(pc.utf8_trim_whitespace(column), pa.float64()).to_numpy()
        except pa.ArrowInvalid:
            values = np.array([_number(text) for text in column.to_pylist()], dtype=np.float64)
        finite = np.isfinite(values)
        self.refuse(~finite, lambda row: f'{name} is {shown(column[row].as_py())}', fix='It must be a finite number.')
        return values if finite.all() else np.where(finite, values, 0)

    def sizes(self, name: str, *, where_not: BoolArray | None = None) -> IntArray:
        """(R,) int64 positive whole numbers of pixels; 0 in the rows of ``where_not``, and a fault for others."""
        before = len(self.faults)
        values = self.numbers(name, where_not=where_not)
        bad = (values < 1) | (values != np.rint(values)) | (values > LARGEST_SIDE)
        if where_not is not None:
            bad &= ~where_not
        if len(self.faults) > before:
            bad &= ~self.faults[-1][0]
        fix = f'It must be a whole number of pixels, from 1 to {LARGEST_SIDE}.'
        self.refuse(bad, lambda row: f'{name} is {values[row]:g}', fix=fix)
        return np.where(bad, 0, values).astype(np.int64)

    def refuse_large(self, heights: IntArray, widths: IntArray, max_pixels: int) -> None:
        """Notes the rows whose sizes, (R,) int64 pixels, are those of too large an image; 0 × 0 is none."""
        self.refuse(
            heights * widths > min(max_pixels, MOST_PIXELS),
            lambda row: f'the mask {excess(int(heights[row]), int(widths[row]), max_pixels)}',
            fix='Put the size right, or raise the limit.',
        )

    def refuse_outside(self, name: str) -> None:
        """Notes the rows whose text, taken for a path, leaves the folder that it is relative to."""
        column = self.texts[name]
        if pc.any(pc.match_substring_regex(column, r'[/\\\x00]')).as_py():
            outside = np.array([leaves_folder(text) for text in column.to_pylist()], dtype=bool)
            fix = 'It is a name in the folder that is given.'
            self.refuse(outside, lambda row: f'{name} {shown(column[row].as_py())} leaves its folder', fix=fix)

    def flags(self, name: str, *, unknown: bool = False, fix: str = '') -> BoolArray:
        """(R,) bool of a column of 0 and 1, and −1 where that may say "unknown": no; a fault for others."""
        column = self.texts[name]
        texts = pc.unique(column)
        codes = [FLAGS.get(text.strip().lower(), NEITHER) for text in texts.to_pylist()]
        values = np.array(codes, dtype=np.int64)[index_in(column, texts)]
        wrong = (values == NEITHER) | (values < -int(unknown))
        right = fix or ('It is 1, 0 or -1 (unknown).' if unknown else 'It must be 0 or 1.')
        self.refuse(wrong, lambda row: f'{name} is {shown(column[row].as_py())}', fix=right)
        positive: BoolArray = values == 1
        return positive


def read_chunks(
    path: str | PathLike[str],
    columns: Sequence[str],
    *,
    optional: Sequence[str] = (),
    skip_lines: Callable[[int, str], None] | None = None,
    error: type[HiersegError] = AnnotationError,
) -> Iterator[Chunk]:
    """Reads columns of a CSV file by name, a block at a time; other columns are ignored.

    Args:
        path: The file; its first line names the columns.
        columns: Their names. Text stays text: no value is taken for missing.
        optional: Those of the columns that may be absent.
        skip_lines: Told the row and the words of a line with too many or too few values; None makes it an error.
        error: Raised for what is wrong.

    Yields:
        Rows in the order of the file, empty lines left out.

    Raises:
        HiersegError: As ``error`` says, with the file and the line.
    """
    path = Path(path)
    header = read_header(path, error=error)
    missing = [name for name in columns if name not in header and name not in optional]
    if missing:
        raise error(
            f'column {", ".join(missing)} is missing',
            where=f'{path}, line 1',
            fix=f'The file needs the columns {", ".join(columns)}; it has {printable(", ".join(header))}.',
        )
    wanted = [name for name in columns if name in header]
    twice = [name for name in wanted if header.count(name) > 1]
    if twice:
        fix = 'Keep the one that is meant.'
        raise error(f'column {", ".join(twice)} is there twice', where=f'{path}, line 1', fix=fix)
    unequal = _UnequalLines(skip_lines)
    done = 0
    try:
        with pa.csv.open_csv(
            str(path),
            # One thread: only so does pyarrow tell the number of a line that it skips.
            read_options=pa.csv.ReadOptions(block_size=BLOCK_BYTES, use_threads=False),
            parse_options=pa.csv.ParseOptions(invalid_row_handler=unequal),
            convert_options=pa.csv.ConvertOptions(
                include_columns=wanted,
                column_types=dict.fromkeys(wanted, pa.string()),
                null_values=[],
                strings_can_be_null=False,
            ),
        ) as reader:
            for batch in reader:
                rows = np.arange(done, done + batch.num_rows)
                done += batch.num_rows
                yield Chunk(path, unequal.places(rows), {name: batch.column(name) for name in wanted}, error)
    except (pa.ArrowException, *DAMAGE, OSError) as fault:
        if isinstance(fault, HiersegError):
            raise
        if skip_lines is None and unequal.rows:
            raise error(
                unequal.words,
                where=place_of(path, unequal.rows[0]),
                fix='Every line has one value for each column; is the file cut off?',
            ) from None
        raise error(
            f'cannot be read as CSV ({reason_of(fault)})', where=str(path), fix='Is it the official file?'
        ) from None


def read_table(
    path: str | PathLike[str], columns: Sequence[str], *, error: type[HiersegError] = AnnotationError
) -> Chunk:
    """All rows in one chunk; arguments as of :func:`read_chunks`."""
    chunks = list(read_chunks(path, columns, error=error))
    rows = sum(map(len, chunks))
    empty = pa.chunked_array([], pa.string())
    texts = {name: pa.chunked_array([chunk.texts[name] for chunk in chunks]) if chunks else empty for name in columns}
    return Chunk(Path(path), np.arange(rows), texts, error)


def read_header(path: Path, *, error: type[HiersegError] = AnnotationError) -> list[str]:
    """The column names of a CSV file; raises ``error`` if it is missing, empty or not text."""
    with _lines(path, error) as lines:
        header = next(lines, (1, []))[1]
    if not header:
        raise error('is empty', where=str(path), fix='Its first line names the columns.')
    return header


def place_of(path: str | PathLike[str], row: int) -> str:
    """File and line, from 1 as an editor counts, of a row of :func:`read_chunks`; row 0 is below the header."""
    with _lines(Path(path), AnnotationError) as lines:
        line, _ = next(islice(lines, row + 1, None), (0, []))
    # Where quotes are damaged, csv and pyarrow may see other rows.
    return f'{path}, line {line}' if line else f'{path}, row {row + 1}'


def index_in(values: pa.Array | pa.ChunkedArray, among: pa.Array) -> IntArray:
    """(R,) int64; the position of each value in ``among``, −1 where it is not there."""
    found: IntArray = pc.fill_null(pc.index_in(values, value_set=among), -1).to_numpy().astype(np.int64)
    return found


class _UnequalLines:
    """Lines with too many or too few values: tells of each, and where the others stand in the file."""

    def __init__(self, tell: Callable[[int, str], None] | None) -> None:
        self.tell = tell
        self.rows: list[int] = []
        self.words = ''

    def __call__(self, line: Any) -> str:
        # pyarrow counts from 1, the header included and empty lines left out.
        self.rows.append(line.number - 2)
        self.words = f'{line.actual_columns} values for {line.expected_columns} columns'
        if self.tell is None:
            return 'error'
        self.tell(self.rows[-1], self.words)
        return 'skip'

    def places(self, rows: IntArray) -> IntArray:
        """Places in the file of rows that are counted without the skipped ones."""
        before = np.array(self.rows, dtype=np.int64) - np.arange(len(self.rows))
        return rows + np.searchsorted(before, rows, side='right')


def _number(text: str) -> float:
    """The number that a text is, nan for any other text."""
    try:
        return float(text) if '_' not in text else np.nan
    except ValueError:
        return np.nan


@contextmanager
def _lines(path: Path, error: type[HiersegError]) -> Iterator[Iterator[tuple[int, list[str]]]]:
    """First lines and values of the rows that are not empty, the header first."""

    def rows() -> Iterator[tuple[int, list[str]]]:
        reader, line = csv.reader(file), 1
        for values in reader:
            if values:
                yield line, values
            line = reader.line_num + 1  # a value may have line breaks

    limit = csv.field_size_limit(sys.maxsize)
    try:
        with (
            reading(path, error, what='is not a CSV text file', fix='Check the path.'),
            path.open(encoding='utf-8-sig', newline='') as file,
        ):
            yield rows()
    finally:
        csv.field_size_limit(limit)
