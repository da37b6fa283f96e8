"""Reads a CSV by column names and says of every bad value in which line it stands.

Shape letter: N rows.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as pa_csv

from hierseg.errors import EvaluationError
from hierseg.formats import BoolArray, FloatArray, IntArray

# What pandas, and so the reference evaluator, reads as no value.
BLANKS = (
    '', ' ', '#N/A', '#N/A N/A', '#NA', '-1.#IND', '-1.#QNAN', '-NaN', '-nan', '1.#IND', '1.#QNAN', '<NA>',
    'N/A', 'NA', 'NULL', 'NaN', 'None', 'n/a', 'nan', 'null',
)  # fmt: skip
BLOCK_BYTES = 16 << 20
"""Of text, read at a time."""
_FLAGS = {'0': False, '1': True, '0.0': False, '1.0': True, 'False': False, 'True': True}


class CsvTable:
    """Rows of the wanted columns of a CSV with a header, as text until asked for otherwise.

    Read one by :meth:`read` or :meth:`blocks`; both take the path and the names of the columns, skip others, in any
    order, and raise an EvaluationError if the file is missing, is no CSV or lacks a column.

    Args:
        path: The file.
        table: The rows.
        first_row: Which row of the file is the first, counted from 0 below the header.
    """

    def __init__(self, path: Path, table: Any, *, first_row: int = 0) -> None:
        self.path, self._table, self.first_row = path, table, first_row

    @classmethod
    def read(cls, path: str | PathLike[str], columns: Sequence[str]) -> CsvTable:
        """All rows."""
        schema = pa.schema([(name, pa.string()) for name in columns])
        return cls(Path(path), pa.Table.from_batches(_read_batches(Path(path), columns), schema=schema))

    @classmethod
    def blocks(cls, path: str | PathLike[str], columns: Sequence[str]) -> Iterator[CsvTable]:
        """The rows one after another, some megabytes of text at a time."""
        first_row = 0
        for batch in _read_batches(Path(path), columns):
            yield cls(Path(path), pa.Table.from_batches([batch]), first_row=first_row)
            first_row += batch.num_rows

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def where(self, row: int) -> str:
        """File and line of a row, counted from 0."""
        return line_of(self.path, self.first_row + row)

    def column(self, name: str) -> Any:
        """The column as one Arrow array of strings."""
        return self._table[name].combine_chunks()

    def text(self, name: str) -> list[str]:
        """The column as strings."""
        return [str(value) for value in self._table[name].to_pylist()]

    def blank(self, name: str) -> BoolArray:
        """(N,) bool; rows without a value."""
        return np.asarray(pc.is_in(self._table[name], value_set=pa.array(BLANKS, pa.string())))

    def categories(self, name: str) -> tuple[IntArray, list[str]]:
        """(N,) int64 codes and the distinct strings that they index, in order of first appearance."""
        encoded = self._table[name].combine_chunks().dictionary_encode()
        if isinstance(encoded, pa.ChunkedArray):
            encoded = pa.concat_arrays(encoded.chunks) if encoded.num_chunks else pa.array([]).dictionary_encode()
        return np.asarray(encoded.indices).astype(np.int64), [str(value) for value in encoded.dictionary.to_pylist()]

    def labels(self, name: str, label_of: Mapping[str, int]) -> IntArray:
        """(N,) int64 labels of a column of class ids.

        Raises:
            EvaluationError: At the first class that is not in ``label_of``.
        """
        codes, ids = self.categories(name)
        labels = np.array([label_of.get(class_id, -1) for class_id in ids] or [-1], dtype=np.int64)[codes]
        if (labels < 0).any():
            row = int((labels < 0).argmax())
            raise EvaluationError(
                f'class {ids[codes[row]]!r} is not in the hierarchy of {len(label_of)} classes',
                where=self.where(row),
                fix='Leave the rows of other classes out, or give the hierarchy that has them.',
            )
        return labels

    def numbers(self, name: str, *, where_not: BoolArray | None = None) -> FloatArray:
        """(N,) float64, correctly rounded and finite.

        Args:
            name: The column.
            where_not: (N,) bool; rows whose value does not matter: they get 0.

        Raises:
            EvaluationError: At the first value that is no finite number.
        """
        column = self._table[name]
        if where_not is not None:
            column = pc.if_else(pa.array(where_not), '0', column)
        try:
            values: FloatArray = np.asarray(pc.cast(pc.utf8_trim_whitespace(column), pa.float64()), dtype=np.float64)
            bad = ~np.isfinite(values)
        except pa.ArrowInvalid:
            values = np.array([_number(value.as_py()) for value in column], dtype=np.float64)
            bad = ~np.isfinite(values)
        if bad.any():
            row = int(bad.argmax())
            raise EvaluationError(
                f'{name} is {column[row].as_py()!r}', where=self.where(row), fix='It must be a finite number.'
            )
        return values

    def sizes(self, name: str, *, where_not: BoolArray) -> IntArray:
        """(N,) int64 positive whole numbers; 0 in the rows of ``where_not``.

        Raises:
            EvaluationError: At the first value that is none.
        """
        values = self.numbers(name, where_not=where_not)
        bad = ~where_not & ((values < 1) | (values != np.rint(values)) | (values > np.iinfo(np.int32).max))
        if bad.any():
            row = int(bad.argmax())
            raise EvaluationError(
                f'{name} is {values[row]:g}', where=self.where(row), fix='It must be a positive whole number of pixels.'
            )
        return values.astype(np.int64)

    def flags(self, name: str) -> BoolArray:
        """(N,) bool of a column of 0 and 1.

        Raises:
            EvaluationError: At the first value that is neither.
        """
        codes, texts = self.categories(name)
        values = np.array([_FLAGS.get(text.strip(), -1) for text in texts] or [-1], dtype=np.int64)[codes]
        if (values < 0).any():
            row = int((values < 0).argmax())
            raise EvaluationError(f'{name} is {texts[codes[row]]!r}', where=self.where(row), fix='It must be 0 or 1.')
        return values.astype(bool)


def line_of(path: str | PathLike[str], row: int) -> str:
    """File and line of a row, counted from 0 below the header."""
    limit = csv.field_size_limit(1 << 30)  # a mask may be longer than csv expects
    try:
        with Path(path).open(encoding='utf-8-sig', newline='') as file:
            reader = csv.reader(file)
            line, rows = 0, -1  # the header is row -1
            for fields in reader:
                if fields and rows == row:
                    break
                rows += bool(fields)
                line = reader.line_num
    finally:
        csv.field_size_limit(limit)
    return f'{path}, line {line + 1}'


def _header(path: Path) -> list[str]:
    try:
        with path.open(encoding='utf-8-sig', newline='') as file:
            header = next(csv.reader(file), None)
    except OSError as error:
        raise EvaluationError(f'cannot read the file ({error.strerror})', where=str(path)) from None
    except UnicodeDecodeError:
        raise EvaluationError('the file is not UTF-8 text', where=str(path)) from None
    if header is None:
        raise EvaluationError('the file is empty', where=str(path), fix='It needs at least its header.')
    return header


def _read_batches(path: Path, columns: Sequence[str]) -> Iterator[Any]:
    """Record batches of the wanted columns, all of them strings."""
    header = _header(path)
    missing = [name for name in columns if name not in header]
    if missing:
        raise EvaluationError(
            f'column {", ".join(missing)} is missing',
            where=f'{path}, line 1',
            fix=f'The file needs the columns {", ".join(columns)}; it has {", ".join(header)}.',
        )
    failed: list[tuple[int, str]] = []

    def note(row: Any) -> str:
        failed.append((row.number, f'{row.actual_columns} values where the header has {row.expected_columns}'))
        return 'error'

    try:
        with pa_csv.open_csv(
            path,
            read_options=pa_csv.ReadOptions(use_threads=False, block_size=BLOCK_BYTES),
            parse_options=pa_csv.ParseOptions(newlines_in_values=False, invalid_row_handler=note),
            convert_options=pa_csv.ConvertOptions(
                include_columns=list(columns),
                column_types=dict.fromkeys(columns, pa.string()),
                strings_can_be_null=False,
            ),
        ) as reader:
            yield from reader
    except (pa.ArrowInvalid, OSError) as error:
        if failed:
            raise EvaluationError(f'the row has {failed[0][1]}', where=line_of(path, failed[0][0] - 2)) from None
        raise EvaluationError(f'the file is no valid CSV ({error})', where=str(path)) from None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float('nan')


def positions(ids: Sequence[str], index_of: Mapping[str, int]) -> npt.NDArray[np.int64]:
    """Positions of ids, -1 for unknown ones; one stand-in when there are no ids at all."""
    return np.array([index_of.get(value, -1) for value in ids] or [-1], dtype=np.int64)
