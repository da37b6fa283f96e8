"""Rows of tables of any size, grouped by image on disk in bounded memory.

The rows of an official table do not come image by image. Each block of a table is sorted by image id and written in
small pieces; the rows of a range of images are then found in the few pieces of every block that overlap the range.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hierseg.annotations.csv_tables import index_in

KEY = 'image_id'
ROWS_PER_PIECE = 2048
IDS_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class PieceRanges:
    """The first and the last image id in each piece of a file."""

    first: Sequence[str]
    last: Sequence[str]


class SortedRowsWriter:
    """Writes blocks of one table.

    Args:
        path: The Arrow file to write.
        schema: Of the rows; one column is ``image_id``.

    Attributes:
        rows: How many have been added.
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.rows = 0
        self._file = pa.ipc.new_file(str(path), schema)
        self._first: list[str] = []
        self._last: list[str] = []

    def add(self, block: pa.RecordBatch) -> None:
        """Adds rows with an image id each, in any order; those of one image keep theirs."""
        block = block.take(pc.sort_indices(block.column(KEY)))
        for start in range(0, block.num_rows, ROWS_PER_PIECE):
            piece = block.slice(start, ROWS_PER_PIECE)
            self._first.append(piece.column(KEY)[0].as_py())
            self._last.append(piece.column(KEY)[-1].as_py())
            self._file.write_batch(piece)
        self.rows += block.num_rows

    def close(self) -> PieceRanges:
        """Ends the file."""
        self._file.close()
        return PieceRanges(self._first, self._last)


class SortedRows:
    """Reads what :class:`SortedRowsWriter` wrote."""

    def __init__(self, path: Path, ranges: PieceRanges) -> None:
        # No memory map: its pages would count as this process's memory until something else needs them.
        self._file = pa.ipc.open_file(pa.OSFile(str(path)))
        self._first, self._last = (np.array(ids, dtype=object) for ids in (ranges.first, ranges.last))

    def of(self, image_ids: pa.Array) -> pa.Table:
        """All rows of consecutive images, given ascending; those of one image in the order of the file."""
        tables = []
        overlapping = (self._last >= image_ids[0].as_py()) & (self._first <= image_ids[-1].as_py())
        for number in np.flatnonzero(overlapping).tolist():
            piece = self._file.get_batch(number)
            tables.append(piece.filter(pa.array(index_in(piece.column(KEY), image_ids) >= 0)))
        return pa.Table.from_batches(tables, self._file.schema)


class UniqueIds:
    """Collects image ids from blocks in which most come several times, in memory of a few times the distinct ones."""

    def __init__(self) -> None:
        self._known = pa.array([], pa.string())
        self._new: list[pa.Array] = []
        self._count = 0

    def add(self, ids: pa.Array) -> None:
        """Adds ids, repeated or not."""
        self._new.append(pc.unique(ids))
        self._count += len(self._new[-1])
        if self._count >= max(IDS_AT_ONCE, len(self._known)):
            self._gather()

    def _gather(self) -> None:
        self._known = pc.unique(pa.chunked_array([self._known, *self._new], pa.string()))
        self._new, self._count = [], 0

    def ascending(self) -> pa.Array:
        """All of them, each once."""
        self._gather()
        return self._known.take(pc.sort_indices(self._known))
