"""Submissions in the forms that programs write, as rows of one kind: what a detection claims, and where.

The official CSV has a row for each claim; Kaggle's has one for each image, whose ``PredictionString`` holds all its
claims; COCO results, a JSON list, have an entry for each detection. All are read into the batches of ``SCHEMAS``, and
keep the row or entry that they come from, so that errors can name it.

COCO results may say more than the class that they name: ``class_scores``, a score by category id, then claims them all.

Shape letter: D rows.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from hierseg.errors import EvaluationError
from hierseg.formats import run_lengths
from hierseg.formats.csv_tables import LARGEST_SIDE, Chunk, index_in, place_of, read_chunks, read_header
from hierseg.formats.json_files import is_number, is_quadruple, is_whole, key_of, numbers_of, read_json
from hierseg.formats.reading import shown
from hierseg.limits import MAX_PIXELS, excess
from hierseg.metrics.records import IouType
from hierseg.taxonomy import Taxonomy

MASK_SUBMISSION_COLUMNS = ('ImageID', 'ImageWidth', 'ImageHeight', 'LabelName', 'Score', 'Mask')
BOX_SUBMISSION_COLUMNS = ('ImageID', 'LabelName', 'Score', 'XMin', 'XMax', 'YMin', 'YMax')
SIDES = ('XMin', 'YMin', 'XMax', 'YMax')
OF_IMAGES: dict[IouType, tuple[str, ...]] = {'segm': ('ImageID', 'ImageWidth', 'ImageHeight'), 'bbox': ('ImageID',)}
IN_STRINGS: dict[IouType, tuple[str, ...]] = {
    'segm': ('LabelName', 'Score', 'Mask'),
    'bbox': ('LabelName', 'Score', *SIDES),
}
"""Kaggle's form: columns, and the values of a claim in ``PredictionString``, in their order."""

_CLAIM = [('row', pa.int64()), ('image', pa.int64()), ('label', pa.int64()), ('score', pa.float64())]
SCHEMAS: dict[IouType, pa.Schema] = {
    'segm': pa.schema([*_CLAIM, ('height', pa.int64()), ('width', pa.int64()), ('mask', pa.string())]),
    'bbox': pa.schema([*_CLAIM, *((side, pa.float64()) for side in SIDES)]),
}
"""Columns of the rows: the row of the file, counted from 0 below the header, the image and what the file says."""
ENTRIES_AT_ONCE = 1 << 14
FARTHEST = 2.0
"""Coordinate of a box, as a part of the image, that no detector means: most likely it is in pixels."""

Entry = Mapping[str, Any]
Rows = tuple[pa.RecordBatch, Sequence[str]]


@dataclass(frozen=True)
class ResultKeys:
    """The meaning of the ids in COCO results.

    Attributes:
        categories: Category id, as text → label.
        images: Image id, as text → image, in several ways; for a file that way counts which fits most of its entries.
        sizes: Image → height and width in pixels, for boxes; what is not there is taken from the entry's segmentation.
    """

    categories: Mapping[str, int]
    images: Sequence[Mapping[str, str]]
    sizes: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    @classmethod
    def of(cls, taxonomy: Taxonomy, image_ids: Iterable[str]) -> ResultKeys:
        """Those of a taxonomy: class ids, or 1, 2, 3 … where they are no whole numbers; and the images' own ids."""
        return cls(
            category_keys(taxonomy, dict(enumerate(numbers_of(taxonomy.ids)))), [image_keys(image_ids, image_ids)]
        )


def category_keys(taxonomy: Taxonomy, numbers: Mapping[int, int | str]) -> dict[str, int]:
    """Category id, as text → label: the numbers of labels, and class ids where they are none of those."""
    return {**taxonomy.label_of, **{str(key_of(number)): label for label, number in numbers.items()}}


def image_keys(names: Iterable[str], image_ids: Iterable[str]) -> dict[str, str]:
    """A name, and the number that it is for programs which take off zeros → image; a whole name counts first."""
    named = dict(zip(names, image_ids, strict=True))
    whole = {str(int(name)): image for name, image in named.items() if is_whole(name.lstrip('0') or '0')}
    return {**whole, **named}


def is_results(path: str | PathLike[str]) -> bool:
    """True for COCO results, by the file's suffix."""
    return Path(path).suffix.lower() == '.json'


def place_in(path: str | PathLike[str], row: int) -> str:
    """File and line of a CSV's row, or file and entry, from 1, of COCO results."""
    return f'{path}, entry {row + 1}' if is_results(path) else place_of(path, row)


def detection_rows(
    predictions: str | PathLike[str],
    image_ids: Sequence[str],
    *,
    taxonomy: Taxonomy,
    iou_type: IouType,
    keys: ResultKeys | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Iterator[pa.RecordBatch]:
    """The rows of a submission on images with ground truth, in file order; how many there are on others is logged.

    Args:
        predictions: COCO results (``.json``, which is read whole), or a CSV: of ``MASK_SUBMISSION_COLUMNS`` or
            ``BOX_SUBMISSION_COLUMNS``, or of ``OF_IMAGES`` and ``PredictionString``.
        image_ids: F ids, each once.
        taxonomy: The classes.
        iou_type: ``segm`` or ``bbox``.
        keys: The meaning of ids in COCO results; :meth:`ResultKeys.of` when omitted.
        max_pixels: Of a mask; larger ones are refused.

    Yields:
        Batches with the columns of ``SCHEMAS``; ``image`` indexes ``image_ids``. Masks are not decoded yet; height
        and width are 0 where there is none.

    Raises:
        EvaluationError: If the file cannot be used; it names the line or entry. Also if it has detections, but none on
            these images.
    """
    if is_results(predictions):
        meaning = keys or ResultKeys.of(taxonomy, image_ids)
        found = _result_rows(Path(predictions), image_ids, keys=meaning, iou_type=iou_type, most=max_pixels)
    else:
        found = _table_rows(Path(predictions), image_ids, taxonomy=taxonomy, iou_type=iou_type, most=max_pixels)
    count, strangers, others = 0, 0, dict[str, None]()
    for batch, names in found:
        known = batch['image'].to_numpy() >= 0
        count += len(known)
        if known.all():
            yield batch
            continue
        strangers += int((~known).sum())
        others |= dict.fromkeys(names[row] for row in np.flatnonzero(~known).tolist())
        yield batch.filter(pa.array(known))
    if not strangers:
        return
    example = next(iter(others))
    if strangers == count:
        raise EvaluationError(
            f'none of its {len(others):,} images has ground truth; the first is {example!r}, '
            f'the ground truth has {len(image_ids):,} such as {image_ids[0]!r}'
            if image_ids
            else 'there is no ground truth',
            where=str(predictions),
            fix='Is it of another split, or are ids written in another way?',
        )
    logging.getLogger('hierseg').warning(
        '%s: %s of %s detections are on %s images without ground truth, such as %s, and do not count',
        predictions, f'{strangers:,}', f'{count:,}', f'{len(others):,}', example,
    )  # fmt: skip


def _table_rows(
    path: Path, image_ids: Sequence[str], *, taxonomy: Taxonomy, iou_type: IouType, most: int
) -> Iterator[Rows]:
    """Rows of a CSV."""
    known = pa.array(image_ids, pa.string())
    for table in _chunks(path, iou_type):
        ids = table.texts['ImageID']
        table.refuse_empty('ImageID')
        labels, scores = table.labels('LabelName', taxonomy.ids), table.numbers('Score')
        regions: list[Any]
        if iou_type == 'segm':
            blank = table.blank('Mask')
            heights, widths = (table.sizes(name, where_not=blank) for name in ('ImageHeight', 'ImageWidth'))
            table.refuse_large(heights, widths, most)
            regions = [heights, widths, table.texts['Mask']]
        else:
            regions = [table.numbers(side) for side in SIDES]
            boxes = np.stack(regions, axis=1)
            table.refuse(
                np.asarray((boxes[:, :2] > boxes[:, 2:]).any(axis=1)),
                lambda row: 'the box ends before it begins',
                fix='XMin must not exceed XMax, nor YMin exceed YMax.',
            )
            table.refuse(
                np.abs(boxes).max(axis=1, initial=0) >= FARTHEST,
                lambda row: 'the box is far outside its image',
                fix='Boxes are parts of the image.',
            )
        table.check()
        columns = [table.rows, index_in(ids, known), labels, scores, *regions]
        yield pa.record_batch(columns, schema=SCHEMAS[iou_type]), _Texts(ids)


class _Texts(Sequence[str]):
    """Texts of an Arrow column, made one at a time."""

    def __init__(self, column: Any) -> None:
        self._column = column

    def __len__(self) -> int:
        return len(self._column)

    def __getitem__(self, row: Any) -> Any:
        return self._column[row].as_py()


def _chunks(path: Path, iou_type: IouType) -> Iterator[Chunk]:
    """Blocks of a CSV with the columns of the official form, whichever of the two it has."""
    header = read_header(path, error=EvaluationError)
    if 'PredictionString' not in header or 'LabelName' in header:
        official = MASK_SUBMISSION_COLUMNS if iou_type == 'segm' else BOX_SUBMISSION_COLUMNS
        yield from read_chunks(path, official, error=EvaluationError)
        return
    image_id = 'ImageId' if 'ImageId' in header and 'ImageID' not in header else 'ImageID'
    columns = (image_id, *OF_IMAGES[iou_type][1:], 'PredictionString')
    parts = IN_STRINGS[iou_type]
    for table in read_chunks(path, columns, error=EvaluationError):
        table.texts['ImageID'] = table.texts[image_id]
        values = [text.split() for text in table.texts['PredictionString'].to_pylist()]
        counts = np.array([len(of_image) for of_image in values], dtype=np.int64)
        table.refuse(
            counts % len(parts) != 0,
            lambda row: f'PredictionString has {counts[row]} values',  # noqa: B023  called by check, below
            fix=f'They are {" ".join(parts)} of each detection, so that {len(parts)} divides their number.',
        )
        table.refuse_empty('ImageID')
        table.check()
        rows = np.repeat(np.arange(len(table)), counts // len(parts))
        flat = [value for of_image in values for value in of_image]
        texts = {name: table.texts[name].take(pa.array(rows)) for name in OF_IMAGES[iou_type]}
        texts |= {name: pa.array(flat[at :: len(parts)], pa.string()) for at, name in enumerate(parts)}
        yield Chunk(path, table.rows[rows], texts, EvaluationError)


def _result_rows(
    path: Path, image_ids: Sequence[str], *, keys: ResultKeys, iou_type: IouType, most: int
) -> Iterator[Rows]:
    """Rows of COCO results."""
    fix = 'Give COCO results: a list of detections with image_id, category_id, score, and segmentation or bbox.'
    document = read_json(path, error=EvaluationError, fix=fix)
    if not isinstance(document, list):
        kind = 'annotations of a data set' if isinstance(document, dict) and 'annotations' in document else 'no list'
        raise EvaluationError(f'holds {kind}', where=str(path), fix=fix)
    index_of = {image: index for index, image in enumerate(image_ids)}
    given = [key_of(entry.get('image_id')) if isinstance(entry, dict) else None for entry in document]
    ways = [{key: index_of[image] for key, image in way.items() if image in index_of} for way in keys.images]
    images = max(ways, key=lambda way: sum(key in way for key in given))
    for first in range(0, len(document), ENTRIES_AT_ONCE):
        rows: list[tuple[Any, ...]] = []
        names: list[str] = []
        for number in range(first, min(first + ENTRIES_AT_ONCE, len(document))):
            try:
                claims = _claims(document[number], keys)
                index = images.get(given[number] or '', -1)
                image = image_ids[index] if index >= 0 else ''
                region: tuple[Any, ...] = (0, 0, '') if iou_type == 'segm' else (0.0, 0.0, 0.0, 0.0)
                if index >= 0:
                    region = (
                        _mask(document[number], most)
                        if iou_type == 'segm'
                        else _box(document[number], keys.sizes.get(image), most)
                    )
            except _WrongEntryError as fault:
                raise EvaluationError(fault.what, where=place_in(path, number), fix=fault.fix) from None
            rows += [(number, index, label, score, *region) for label, score in claims.items()]
            names += [given[number] or ''] * len(claims)
        columns = list(zip(*rows, strict=True)) or [()] * len(SCHEMAS[iou_type])
        yield (
            pa.record_batch(
                [pa.array(column, kind) for column, kind in zip(columns, SCHEMAS[iou_type].types, strict=True)],
                schema=SCHEMAS[iou_type],
            ),
            names,
        )


class _WrongEntryError(Exception):
    """An entry that cannot be used: what is wrong, and what would be right."""

    def __init__(self, what: str, fix: str) -> None:
        super().__init__(what)
        self.what, self.fix = what, fix


def _claims(entry: Any, keys: ResultKeys) -> dict[int, float]:
    """Label → score of what an entry claims; the class that it names comes first."""
    if not isinstance(entry, dict):
        raise _WrongEntryError(f'is {shown(entry)}', 'It is an object with image_id, category_id and score.')
    if key_of(entry.get('image_id')) is None:
        raise _WrongEntryError(f'image_id is {shown(entry.get("image_id"))}', 'It is a number or a text.')
    given = entry.get('class_scores', {})
    if not isinstance(given, dict):
        raise _WrongEntryError(f'class_scores is {shown(given)}', 'It is an object: category id, then score.')
    claims = {}
    for what, category, score in [
        ('score', entry.get('category_id'), entry.get('score')),
        *(('class_scores', *item) for item in given.items()),
    ]:
        label = keys.categories.get(key_of(category) or '')
        if label is None:
            raise _WrongEntryError(
                f'{"category_id" if what == "score" else what} {shown(category)} is no category',
                'It is that of the COCO file of the data set, the class id, or 1, 2, 3 … in the order of the classes.',
            )
        if not is_number(score):
            raise _WrongEntryError(f'{what} is {shown(score)}', 'It must be a finite number.')
        claims[label] = float(score)
    return claims


def _mask(entry: Entry, most: int) -> tuple[int, int, str]:
    """Height, width and text of the mask."""
    found = entry.get('segmentation')
    if not found:
        raise _WrongEntryError(
            'the detection has no segmentation, and its box is no mask',
            'Masks are compared here: give a model that finds them, or compare boxes alone (--iou-type bbox).',
        )
    if not isinstance(found, dict):
        raise _WrongEntryError(
            'the segmentation is not run lengths', 'COCO results hold {"size": [height, width], "counts": …}.'
        )
    size, counts = found.get('size'), found.get('counts')
    if not (
        isinstance(size, list)
        and len(size) == 2
        and all(type(side) is int and 1 <= side <= LARGEST_SIDE for side in size)
    ):
        raise _WrongEntryError(f'the size of the segmentation is {shown(size)}', 'It is [height, width] in pixels.')
    if what := excess(size[0], size[1], most):
        raise _WrongEntryError(f'the mask {what}', 'Put the size right, or raise the limit.')
    if isinstance(counts, list):
        try:
            encoded = run_lengths.encode_runs(counts, *size)
        except run_lengths.MalformedMaskError as error:
            raise _WrongEntryError(
                f'the mask is malformed: {error}', 'Counts are run lengths, column by column.'
            ) from None
    elif isinstance(counts, str) and counts.isascii():
        encoded = counts.encode()  # checked with all others, which takes a fraction of the time
    else:
        raise _WrongEntryError(
            f'the counts are {shown(counts)}', 'They are a list, or the text that pycocotools makes.'
        )
    return size[0], size[1], run_lengths.text_of_counts(encoded)


def _box(entry: Entry, size: tuple[int, int] | None, most: int) -> tuple[float, ...]:
    """Xyxy, parts of the image."""
    box, segmentation = entry.get('bbox'), entry.get('segmentation')
    if not is_quadruple(box) or min(box[2:]) < 0:
        raise _WrongEntryError(f'bbox is {shown(box)}', 'It is [x, y, width, height] in pixels.')
    if size is None:
        size = _mask(entry, most)[:2] if isinstance(segmentation, dict) else None
    if size is None:
        raise _WrongEntryError('the size of its image is not known', 'Name the COCO file of the images with --coco.')
    height, width = size
    x, y, across, down = box
    found = x / width, y / height, (x + across) / width, (y + down) / height
    if max(map(abs, found)) >= FARTHEST:
        raise _WrongEntryError(f'bbox {box} is far outside its image of {width} x {height} pixels', 'Give pixels.')
    return found
