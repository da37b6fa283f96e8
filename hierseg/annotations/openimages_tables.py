"""The official Open Images tables as columns: boxes, image labels, masks in both forms.

Source: the download page of Open Images (V4 to V7, Challenge 2018 and 2019). Columns are read by name,
image ids as text (they can be all digits, or look like the number 1e12). Shape letter: R rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hierseg.annotations.csv_tables import index_in, read_header, read_table, refuse_rows
from hierseg.annotations.records import BoolArray, FloatArray, IntArray
from hierseg.annotations.summary import EXAMPLES, ConversionSummary
from hierseg.errors import AnnotationError
from hierseg.taxonomy import Taxonomy

# Coordinates are published with six decimals; a little more than their rounding may stick out.
OUTSIDE_TOLERANCE = 1e-5


@dataclass(frozen=True, eq=False)
class Rows:
    """What all three tables have: an image, a class, and the place in the file.

    Attributes:
        path: The CSV file.
        rows: (R,) int64; row of the file, 0 below the header.
        image_ids: (R,) text.
        labels: (R,) int64.
    """

    path: Path
    rows: IntArray
    image_ids: pa.ChunkedArray
    labels: IntArray

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class LabelRows(Rows):
    """Image-level labels verified by people.

    Attributes:
        positive: (R,) bool; present (Confidence 1) or absent (0).
    """

    positive: BoolArray


@dataclass(frozen=True, eq=False)
class BoxRows(Rows):
    """Boxes.

    Attributes:
        boxes: (R, 4) float64; xyxy as fractions of the image, within [0, 1].
        group_of: (R,) bool.
        box_ids: (R,) text, or None if the file has no BoxID.
    """

    boxes: FloatArray
    group_of: BoolArray
    box_ids: pa.ChunkedArray | None


@dataclass(frozen=True, eq=False)
class MaskRows(BoxRows):
    """Masks and the boxes that they were drawn in.

    Attributes:
        references: (R,) text; the path of a PNG file, or base64 of zlib of COCO compressed RLE counts.
        sizes: (R, 2) int64; height and width of the encoded mask, or None where the references are paths.
        has_group_of: Whether the file says what is a group (the form with paths does not).
    """

    references: pa.ChunkedArray
    sizes: IntArray | None
    has_group_of: bool


@dataclass(frozen=True)
class TableReader:
    """Reads tables against one taxonomy.

    Attributes:
        taxonomy: Gives the labels.
        summary: Counts what is left out.
        skip_unknown_classes: Leave out rows of classes that are not in the taxonomy, instead of refusing them.
    """

    taxonomy: Taxonomy
    summary: ConversionSummary
    skip_unknown_classes: bool = False

    def labels(self, path: Path) -> LabelRows:
        """Reads ``ImageID, LabelName, Confidence``."""
        table = read_table(path, {'ImageID': pa.string(), 'LabelName': pa.string(), 'Confidence': pa.float64()})
        confidence = table['Confidence'].to_numpy()
        refuse_rows(
            path,
            (confidence != 0) & (confidence != 1),
            lambda row: f'Confidence is {confidence[row]:g}',
            fix='Labels verified by people have 1 (present) or 0 (absent); machine-made labels cannot be used.',
        )
        rows, keep = self._rows(path, table, 'image-label rows')
        return LabelRows(**vars(rows), positive=confidence[keep] == 1)

    def boxes(self, path: Path) -> BoxRows:
        """Reads ``ImageID, LabelName, XMin, XMax, YMin, YMax, IsGroupOf`` and, if it is there, ``BoxID``."""
        columns = {'ImageID': pa.string(), 'LabelName': pa.string(), 'BoxID': pa.string(), 'IsGroupOf': pa.int64()}
        coordinates = ('XMin', 'YMin', 'XMax', 'YMax')
        columns |= dict.fromkeys(coordinates, pa.float64())
        table = read_table(path, columns, optional=['BoxID'])
        return self._boxes(path, table, coordinates, 'box rows')

    def masks(self, path: Path) -> MaskRows:
        """Reads masks in the form with PNG paths or the evaluation form, told apart by their columns."""
        header = read_header(path)
        if 'MaskPath' in header:
            return self._mask_paths(path)
        if 'Mask' in header:
            return self._mask_texts(path)
        raise AnnotationError(
            f'neither a column MaskPath nor a column Mask; the columns are {", ".join(header)}',
            where=str(path),
            fix='Give a segmentation CSV with PNG paths, or one with encoded masks.',
        )

    def _mask_paths(self, path: Path) -> MaskRows:
        coordinates = ('BoxXMin', 'BoxYMin', 'BoxXMax', 'BoxYMax')
        names = ['MaskPath', 'ImageID', 'LabelName', 'BoxID']
        columns = dict.fromkeys(names, pa.string()) | dict.fromkeys(coordinates, pa.float64())
        table = read_table(path, columns, optional=['BoxID'])
        refuse_rows(path, pc.equal(table['MaskPath'], '').to_numpy(), lambda row: 'MaskPath is empty')
        boxes = self._boxes(path, table, coordinates, 'mask rows')
        return MaskRows(**vars(boxes), references=table['MaskPath'].take(boxes.rows), sizes=None, has_group_of=False)

    def _mask_texts(self, path: Path) -> MaskRows:
        coordinates = ('XMin', 'YMin', 'XMax', 'YMax')
        columns = {'Mask': pa.large_string(), 'ImageID': pa.string(), 'LabelName': pa.string()}
        columns |= {'ImageWidth': pa.int64(), 'ImageHeight': pa.int64(), 'IsGroupOf': pa.int64(), 'BoxID': pa.string()}
        columns |= dict.fromkeys(coordinates, pa.float64())
        table = read_table(path, columns, optional=['BoxID'])
        sizes = np.stack([table[name].to_numpy() for name in ('ImageHeight', 'ImageWidth')], axis=1)
        refuse_rows(
            path,
            np.any((sizes < 1) | (sizes > 1 << 16), axis=1),
            lambda row: f'ImageWidth x ImageHeight is {sizes[row, 1]} x {sizes[row, 0]}',
            fix='The size of the mask in pixels.',
        )
        boxes = self._boxes(path, table, coordinates, 'mask rows')
        keep = boxes.rows
        return MaskRows(**vars(boxes), references=table['Mask'].take(keep), sizes=sizes[keep], has_group_of=True)

    def _boxes(self, path: Path, table: pa.Table, coordinates: tuple[str, ...], kind: str) -> BoxRows:
        boxes = np.stack([table[name].to_numpy() for name in coordinates], axis=1).reshape(-1, 4)

        def said(row: int) -> str:
            return ', '.join(f'{name} {value:g}' for name, value in zip(coordinates, boxes[row], strict=True))

        outside = np.any((boxes < -OUTSIDE_TOLERANCE) | (boxes > 1 + OUTSIDE_TOLERANCE), axis=1)
        fix = 'Coordinates are fractions of the image: 0 <= min <= max <= 1.'
        refuse_rows(path, outside, lambda row: f'the box ({said(row)}) is outside the image', fix=fix)
        inverted = np.any(boxes[:, :2] > boxes[:, 2:], axis=1)
        refuse_rows(path, inverted, lambda row: f'the box ({said(row)}) has a min above its max', fix=fix)
        group_of = np.zeros(len(boxes), dtype=np.int64)
        if 'IsGroupOf' in table.column_names:
            group_of = table['IsGroupOf'].to_numpy()
            # V4 to V7 mark boxes that were not drawn by hand with -1: nobody said that they are groups.
            wrong = (group_of < -1) | (group_of > 1)
            refuse_rows(path, wrong, lambda row: f'IsGroupOf is {group_of[row]}', fix='It is 1, 0 or -1 (unknown).')
        rows, keep = self._rows(path, table, kind)
        box_ids = table['BoxID'].take(keep) if 'BoxID' in table.column_names else None
        return BoxRows(**vars(rows), boxes=boxes[keep].clip(0, 1), group_of=group_of[keep] == 1, box_ids=box_ids)

    def _rows(self, path: Path, table: pa.Table, kind: str) -> tuple[Rows, IntArray]:
        """Labels for class ids, and the rows that are kept."""
        ids = table['LabelName']
        refuse_rows(path, pc.equal(table['ImageID'], '').to_numpy(), lambda row: 'ImageID is empty')
        labels = index_in(ids, pa.array(self.taxonomy.ids, pa.string()))
        unknown = labels < 0
        if not self.skip_unknown_classes:
            refuse_rows(
                path,
                unknown,
                lambda row: f'class {ids[row].as_py()!r} is not in the taxonomy of {self.taxonomy.num_classes} classes',
                fix='Give the matching hierarchy and class list, or skip unknown classes.',
            )
        elif unknown.any():
            examples = pc.unique(ids.filter(unknown)).to_pylist()[:EXAMPLES]
            self.summary.skip(f'{kind} of classes not in the taxonomy', examples, count=int(unknown.sum()))
        keep = np.flatnonzero(~unknown)
        if not unknown.any():
            return Rows(path, keep, table['ImageID'], labels), keep
        return Rows(path, keep, table['ImageID'].take(keep), labels[keep]), keep


def image_rows(tables: list[Rows]) -> tuple[pa.Array, list[IntArray]]:
    """All image ids of the tables, ascending, and the position of each row's image among them."""
    chunks = [chunk for table in tables for chunk in table.image_ids.chunks]
    ids = pc.unique(pa.chunked_array(chunks, type=pa.string()))
    ids = ids.take(pc.sort_indices(ids))
    return ids, [index_in(table.image_ids, ids) for table in tables]
