"""``python -m hierseg.store STORE``: tells what is in a store and checks that it is whole.

All bytes are compared with their checksums, where the store has them. If they fit, tables are checked in whole columns
without reading a mask; of masks, some or all are decoded.

Shape letters: N images, M rows of the table that images point into, K masks.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pycocotools import mask as coco_mask
from tqdm import tqdm

from hierseg.errors import ConfigError, exits_cleanly
from hierseg.formats import BoolArray, FloatArray, IntArray
from hierseg.formats.run_lengths import MalformedMaskError, check_counts
from hierseg.store.checksums import FilePart
from hierseg.store.store import Store
from hierseg.store.tables import NOT_EXHAUSTIVE, SIDES

ALLOWED_PIXELS = 2.0
"""A tight box may always be so far from the annotated one, since both were rounded."""
NAMED_ROWS = 5
"""Rows that are named of each kind of damage."""
DEFAULT_MASKS = 1000
DEFAULT_TOLERANCE = 0.1
MALFORMED, BLANK, ELSEWHERE = (
    'masks that cannot be decoded', 'masks without a pixel', 'masks that are not where their box is',
)  # fmt: skip


@exits_cleanly()
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    parser = argparse.ArgumentParser(
        prog='python -m hierseg.store',
        description='Tells what is in a store, and checks that it is whole.',
        epilog='Exit status: 0 whole, 1 damaged (all damage is told), 2 no store, or of another format version.',
    )
    parser.add_argument('store', metavar='STORE', help='folder of the store')
    masks = parser.add_mutually_exclusive_group()
    masks.add_argument(
        '--masks', type=int, default=DEFAULT_MASKS, metavar='N', help='decode so many masks (default: %(default)s)'
    )
    masks.add_argument('--all', action='store_true', help='decode all masks')
    parser.add_argument('--seed', type=int, default=0, help='chooses the masks (default: %(default)s)')
    parser.add_argument(
        '--tolerance',
        type=float,
        default=DEFAULT_TOLERANCE,
        metavar='SHARE',
        help='how far the tight box of a mask may be from the annotated box, as a share of its sides; 2 pixels are '
        'always allowed (default: %(default)s)',
    )
    parser.add_argument('--json', action='store_true', help='print the report as JSON')
    options = parser.parse_args(arguments)
    report = check_store(
        Store.open(options.store),
        masks=None if options.all else options.masks,
        tolerance=options.tolerance,
        seed=options.seed,
        progress=True,
    )
    document = {**asdict(report), 'whole': not report.damage}
    print(json.dumps(document, ensure_ascii=False, indent=1) if options.json else report)
    return 1 if report.damage else 0


@dataclass(frozen=True)
class Damage:
    """One kind of damage, of ``count`` rows in a file of the store, the first few of which are named."""

    file: str
    what: str
    count: int
    examples: tuple[str, ...]

    def __str__(self) -> str:
        more = ', …' if self.count > len(self.examples) else ''
        return f'{self.file}: {self.what}: {self.count:,} ({", ".join(self.examples)}{more})'


@dataclass(frozen=True)
class IntegrityReport:
    """Counts of what the tables of a store have, by name, and the damage to it, if there is any."""

    store: str
    counts: dict[str, int]
    masks_checked: int
    damage: tuple[Damage, ...]

    def __str__(self) -> str:
        lines = [self.store]
        lines += [f'  {name:<18}{count:>14,}' for name, count in self.counts.items()]
        lines.append(f'  {"masks decoded":<18}{self.masks_checked:>14,}')
        if not self.damage:
            return '\n'.join([*lines, 'whole'])
        return '\n'.join([*lines, 'damaged', *(f'  {damage}' for damage in self.damage)])


def check_store(
    store: Store,
    *,
    masks: int | None = DEFAULT_MASKS,
    tolerance: float = DEFAULT_TOLERANCE,
    seed: int = 0,
    progress: bool = False,
) -> IntegrityReport:
    """Checks a store that can be opened.

    Args:
        store: The store.
        masks: How many masks to decode, chosen at random; None for all. None is decoded where a table is damaged.
        tolerance: How far a side of a mask's tight box may be from that side of the annotated box, as a share of
            the annotated width or height; 2 pixels are always allowed.
        seed: Chooses the masks.
        progress: Show a progress bar.

    Raises:
        ConfigError: If ``masks`` or ``tolerance`` is below 0.
    """
    if tolerance < 0 or (masks is not None and masks < 0):
        raise ConfigError(f'masks={masks}, tolerance={tolerance}', where='check_store', fix='Give at least 0.')
    damage = [
        Damage(file, 'stretches that are not as they were written', len(parts), tuple(map(_place, parts[:NAMED_ROWS])))
        for file, parts in store.damaged_parts().items()
    ]
    tables = {} if damage else store.tables()
    damage += _broken_columns(tables)
    counts: dict[str, int] = {'images': len(store)}
    checked = 0
    if not damage:
        has_mask = np.asarray(tables['instances']['has_mask'])
        positive = np.asarray(tables['verified']['positive'])
        counts |= {
            'instances': len(has_mask),
            'with mask': int(has_mask.sum()),
            'group-of': int(np.asarray(tables['instances']['group_of']).sum()),
            'verified present': int(positive.sum()),
            'verified absent': int((~positive).sum()),
        }
        if store.has_not_exhaustive:
            counts['not exhaustive'] = len(tables[NOT_EXHAUSTIVE])
        damage = [*_damaged_images(tables), *_damaged_rows(store, tables, has_mask)]
        if not damage:
            chosen = np.flatnonzero(has_mask)
            if masks is not None and masks < len(chosen):
                chosen = np.sort(np.random.default_rng(seed).choice(chosen, masks, replace=False))
            checked = len(chosen)
            damage = _damaged_masks(store, chosen, tolerance=tolerance, progress=progress)
    return IntegrityReport(str(store.path), counts, checked, tuple(damage))


def _place(part: FilePart) -> str:
    return f'{part.kind} at bytes {part.first} to {part.last}'


def _found(file: str, what: str, bad: BoolArray, name: Callable[[int], str] = 'row {}'.format) -> Iterator[Damage]:
    """The damage of the rows that are bad, if there are any."""
    rows = np.flatnonzero(bad)
    if len(rows):
        yield Damage(f'{file}.arrow', what, len(rows), tuple(name(row) for row in rows[:NAMED_ROWS].tolist()))


def _broken_columns(tables: dict[str, pa.Table]) -> Iterator[Damage]:
    """Columns that Arrow refuses, since offsets run backwards or text is not UTF-8, or that lack values."""
    for file, table in tables.items():
        for name, column in zip(table.column_names, table.columns, strict=True):
            try:
                column.validate(full=True)
            except pa.ArrowInvalid as error:
                yield Damage(f'{file}.arrow', f'columns that cannot be read ({error})', 1, (name,))
                continue
            if column.null_count:
                yield from _found(file, f'rows without {name}', np.asarray(pc.is_null(column)))


def _damaged_images(tables: dict[str, pa.Table]) -> Iterator[Damage]:
    """Images without size, name or an id of their own, and images that point where they should not."""
    images = tables['images']

    def name(row: int) -> str:
        return f'row {row}, image {images["id"][row].as_py()}'

    no_size = (np.asarray(images['width']) < 1) | (np.asarray(images['height']) < 1)
    yield from _found('images', 'images without a size', no_size, name)
    yield from _found('images', 'images without a file name', np.asarray(pc.equal(images['file_name'], '')), name)
    codes = np.asarray(pc.dictionary_encode(images['id']).combine_chunks().indices)
    repeated = np.ones(len(codes), dtype=bool)
    repeated[np.unique(codes, return_index=True)[1]] = False
    yield from _found('images', 'images whose id came before', repeated, name)
    for file, kind in (('instances', 'instance'), ('verified', 'verified')):
        first, last = (np.asarray(images[f'{end}_{kind}']) for end in ('first', 'last'))
        yield from _damaged_ranges(file, first, last, tables[file], name)


def _damaged_ranges(
    file: str, first: IntArray, last: IntArray, table: pa.Table, name: Callable[[int], str]
) -> Iterator[Damage]:
    """Ranges [first, last) (N,) of the M rows of a table that are no row after another, image after image."""
    num_rows = len(table)
    outside = (first < 0) | (last < first) | (last > num_rows)
    yield from _found('images', f'images whose rows of {file}.arrow do not exist', outside, name)
    sound = np.flatnonzero(~outside & (last > first))
    changes = np.bincount(first[sound], minlength=num_rows + 1) - np.bincount(last[sound], minlength=num_rows + 1)
    owners = np.cumsum(changes)[:num_rows]
    yield from _found(file, 'rows of no image', owners == 0)
    yield from _found(file, 'rows of several images', owners > 1)
    backwards = np.diff(first, prepend=0) < 0
    what = f'images whose rows of {file}.arrow begin before those of the image above'
    yield from _found('images', what, backwards, name)
    ends = np.cumsum([0, *(batch.num_rows for batch in table.to_batches())])
    spans = np.zeros(len(first), dtype=bool)
    batches = np.searchsorted(ends, first[sound], side='right')
    spans[sound] = last[sound] > ends[np.minimum(batches, len(ends) - 1)]
    yield from _found('images', f'images whose rows of {file}.arrow lie in several record batches', spans, name)


def _damaged_rows(store: Store, tables: dict[str, pa.Table], has_mask: BoolArray) -> Iterator[Damage]:
    """Labels of no class, boxes that are none, and masks that are there and should not be, or the reverse."""
    num_classes = store.taxonomy.num_classes
    beyond = f'rows whose label is none of the {num_classes} classes'
    for file, table in tables.items():
        if 'label' in table.column_names:
            labels = np.asarray(table['label'])
            yield from _found(file, beyond, (labels < 0) | (labels >= num_classes))
    if store.has_not_exhaustive:
        images = np.asarray(tables[NOT_EXHAUSTIVE]['image'])
        wrong = (images < 0) | (images >= len(store)) | (np.diff(images, prepend=images[0]) < 0)
        yield from _found(NOT_EXHAUSTIVE, 'rows of no image, or not in the order of images', wrong)
    x1, y1, x2, y2 = (np.asarray(tables['instances'][side]) for side in SIDES)
    # Written so that NaN is bad, too.
    bad_box = ~((x1 <= x2) & (y1 <= y2) & (np.abs([x1, y1, x2, y2]) < np.inf).all(axis=0))
    yield from _found('instances', 'boxes that end before they begin or are not finite', bad_box)
    area = np.asarray(tables['instances']['area'])
    yield from _found('instances', 'areas that are negative or not finite', ~((area >= 0) & (area < np.inf)))
    lengths = np.asarray(pc.binary_length(tables['instances']['mask']))
    yield from _found('instances', 'rows where has_mask contradicts the mask', has_mask != (lengths > 0))
    if store.num_masks != has_mask.sum():
        yield Damage('store.json', 'wrong counts of masks', 1, (f'{store.num_masks}, not {has_mask.sum()}',))


def _damaged_masks(store: Store, chosen: IntArray, *, tolerance: float, progress: bool) -> list[Damage]:
    """Faults of the chosen masks (K,), which ascend."""
    counts: Counter[str] = Counter()
    examples: dict[str, list[str]] = {MALFORMED: [], BLANK: [], ELSEWHERE: []}
    # Images without instances begin where the next one does: the last that begins there has the row.
    images = np.searchsorted(store.first_instances, chosen, side='right') - 1
    rows = zip(chosen.tolist(), images.tolist(), strict=True)
    image, instances, read = store.image(0), store.instances(0), 0
    for row, owner in tqdm(rows, 'decoding', len(chosen), unit='mask', disable=None if progress else True):
        if owner != read:
            image, instances, read = store.image(owner), store.instances(owner), owner
        at = row - int(store.first_instances[owner])
        size = (image.height, image.width)
        found = mask_fault(instances.masks[at], instances.boxes[at], size, tolerance=tolerance)
        if found is not None:
            fault, detail = found
            counts[fault] += 1
            if len(examples[fault]) < NAMED_ROWS:
                examples[fault].append(f'row {row}, image {image.id}: {detail}')
    return [Damage('instances.arrow', fault, counts[fault], tuple(rows)) for fault, rows in examples.items() if rows]


def mask_fault(counts: bytes, box: FloatArray, size: tuple[int, int], *, tolerance: float) -> tuple[str, str] | None:
    """Kind of damage to a mask and its details, for an annotated box, xyxy, and a size (height, width); None if whole.

    Example:
        >>> square = coco_mask.encode(np.ones((8, 8), dtype=np.uint8, order='F'))['counts']
        >>> mask_fault(square, np.array([0.0, 0, 8, 8]), (8, 8), tolerance=0) is None
        True
        >>> mask_fault(square, np.array([0.0, 3, 8, 8]), (8, 8), tolerance=0)[1]
        'mask from (0, 0) to (8, 8), box from (0, 3) to (8, 8)'
    """
    height, width = size
    try:
        pixels = check_counts(counts, height, width)
    except MalformedMaskError as error:
        return MALFORMED, str(error)
    if not pixels:
        return BLANK, f'{width} x {height} pixels of background'
    left, top, wide, high = coco_mask.toBbox({'size': [height, width], 'counts': counts}).tolist()
    tight = np.array([left, top, left + wide, top + high])
    sides = np.tile(box[2:] - box[:2], 2)
    if (np.abs(tight - box) <= np.maximum(ALLOWED_PIXELS, tolerance * sides)).all():
        return None
    told = ['({:g}, {:g}) to ({:g}, {:g})'.format(*corners.round(1)) for corners in (tight, box)]
    return ELSEWHERE, f'mask from {told[0]}, box from {told[1]}'


if __name__ == '__main__':
    sys.exit(main())
