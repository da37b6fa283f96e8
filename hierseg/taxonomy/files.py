"""Text and JSON files, with errors that name the file and the line."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import Any

from hierseg.errors import TaxonomyError

AnyPath = str | PathLike[str]


def read_text(path: AnyPath) -> str:
    """Reads UTF-8 text, with or without a byte order mark.

    Raises:
        TaxonomyError: If the file cannot be read or is in another encoding.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise TaxonomyError(f'cannot read the file ({error.strerror})', where=str(path)) from None
    try:
        return content.decode('utf-8-sig')
    except UnicodeDecodeError as error:
        line = content.count(b'\n', 0, error.start) + 1
        raise TaxonomyError('not UTF-8 text', where=f'{path}, line {line}', fix='Save the file as UTF-8.') from None


def parse_json_text(text: str, *, where: str) -> Any:
    """Parses JSON and refuses an object with the same key twice, of which the first would be lost.

    Raises:
        TaxonomyError: If the text is no valid JSON.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        fields = dict(pairs)
        if len(fields) < len(pairs):
            keys = [key for key, _ in pairs]
            repeated = next(key for key in keys if keys.count(key) > 1)
            raise TaxonomyError(
                f'an object has the key {repeated!r} twice: {dict(pairs)!r:.80}', where=where, fix='Join the two.'
            )
        return fields

    try:
        return json.loads(text, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        raise TaxonomyError(f'not valid JSON: {error.msg}', where=f'{where}, line {error.lineno}') from None
    except RecursionError:
        raise TaxonomyError('the JSON is nested too deeply to be a hierarchy', where=where) from None


def csv_rows(text: str, *, where: str) -> Iterator[tuple[int, list[str]]]:
    """Line number and stripped cells of every row that is not blank.

    Raises:
        TaxonomyError: On broken quoting and the like.
    """
    reader = csv.reader(io.StringIO(text, newline=''), strict=True)
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if any(cells):
                yield reader.line_num, cells
    except csv.Error as error:
        raise TaxonomyError(f'not valid CSV: {error}', where=f'{where}, line {reader.line_num}') from None


def line_of(text: str, value: str, *, mention: int = 1) -> int:
    """The line, from 1, on which a JSON text has this string for the ``mention``-th time; 1 if it has not."""
    position = -1
    for _ in range(mention):
        position = text.find(json.dumps(value), position + 1)
    return text.count('\n', 0, max(position, 0)) + 1
