"""Rows grouped by image on disk, against sorting them in memory."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hierseg.converters import open_images_rows
from hierseg.converters.open_images_rows import SortedRows, SortedRowsWriter, UniqueIds

SCHEMA = pa.schema([('image_id', pa.string()), ('value', pa.int64())])
IDS = [*'acegikmo', 'inf', '12e4', '0000', 'ü']
BLOCKS = st.lists(st.lists(st.sampled_from(IDS), max_size=12), max_size=6)


@given(blocks=BLOCKS, wanted=st.sets(st.sampled_from(IDS), min_size=1), piece=st.integers(1, 5))
def test_all_rows_of_some_images_in_the_order_of_the_file(tmp_path_factory, blocks, wanted, piece):
    path = tmp_path_factory.mktemp('rows') / 'rows.arrow'
    rows: list[tuple[str, int]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(open_images_rows, 'ROWS_PER_PIECE', piece)
        writer = SortedRowsWriter(path, SCHEMA)
        for block in blocks:
            added = [(image_id, len(rows) + at) for at, image_id in enumerate(block)]
            rows += added
            columns = [[row[0] for row in added], [row[1] for row in added]]
            writer.add(pa.record_batch([pa.array(c, f.type) for c, f in zip(columns, SCHEMA, strict=True)], SCHEMA))
        ranges = writer.close()
    assert writer.rows == len(rows)
    found = SortedRows(path, ranges).of(pa.array(sorted(wanted), pa.string()))
    pairs = list(zip(found['image_id'].to_pylist(), found['value'].to_pylist(), strict=True))
    for image_id in wanted:
        assert [row for row in pairs if row[0] == image_id] == [row for row in rows if row[0] == image_id]
    assert {image_id for image_id, _ in pairs} <= wanted


@given(blocks=BLOCKS, at_once=st.integers(1, 20))
def test_unique_ids(blocks, at_once):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(open_images_rows, 'IDS_AT_ONCE', at_once)
        ids = UniqueIds()
        for block in blocks:
            ids.add(pa.array(block, pa.string()))
    assert ids.ascending().to_pylist() == sorted({image_id for block in blocks for image_id in block})
