"""COCO JSON to a store, and a store to COCO JSON, such that reading it back gives the same store.

``read_coco`` reads and checks a file. Beside the keys of COCO it may have those that ``write_coco`` adds where COCO has
no room: ``taxonomy`` (all of it); ``class_id`` of a category and ``source_id`` of an image or annotation, where the
store's own id is no whole number; and ``bbox_xyxy`` of an annotation, where ``bbox`` misses the box's corners by the
last bit.

Segmentations (polygons, uncompressed and compressed run lengths) become compressed counts exactly as in pycocotools'
``COCO.annToRLE``, but are checked first, since its C code trusts its input.

Verified labels: COCO is annotated exhaustively, so the classes of an image's annotations are verified as present, and
every other category as absent, with two exceptions that a hierarchy brings: a class above a present one is not absent
(a dog is an animal), and a class below a present one is unknown (an animal may be a dog). Classes above categories,
such as supercategories, follow from their categories and are treated alike; other classes of the taxonomy were not
looked for, and stay unverified. An image that lists ``neg_category_ids`` (as in LVIS), and perhaps
``pos_category_ids``, is not exhaustive: its lists are taken instead. Shape letter: C classes.
"""

from __future__ import annotations

import json
import math
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from pycocotools import mask as coco_mask
from tqdm import tqdm

from hierseg.converters.options import ConversionSummary
from hierseg.errors import AnnotationError, StoreError
from hierseg.files import whole_file
from hierseg.formats import IntArray, run_lengths
from hierseg.store.store import ImageRow, Instances, Store
from hierseg.store.writer import StoreWriter, check_target
from hierseg.taxonomy import Taxonomy
from hierseg.taxonomy.formats import coco_draft

# Boxes of COCO are rounded to hundredths and may stick out a little; they are kept as they are.
OUTSIDE_TOLERANCE = 1.0

Entry = Mapping[str, Any]


@dataclass(frozen=True)
class CocoImage:
    """An image, its number in the file, the labels that it lists as present and absent, and its annotations.

    Annotations are checked, but for their segmentation.
    """

    row: ImageRow
    number: int
    positive: IntArray | None
    negative: IntArray | None
    annotations: Sequence[Entry]


@dataclass(frozen=True)
class CocoDocument:
    """A COCO file; ``labels`` are category id → label in the taxonomy."""

    path: Path
    taxonomy: Taxonomy
    categories: Sequence[Entry]
    labels: Mapping[int, int]
    images: Sequence[CocoImage]


def read_coco(path: Path, taxonomy: Taxonomy | None = None) -> CocoDocument:
    """Reads and checks a COCO file; arguments and errors as of :func:`convert_coco`."""
    document = _parse(path)
    where = str(path)
    if taxonomy is None and 'taxonomy' in document:
        taxonomy = Taxonomy.from_json(document['taxonomy'], where=where)
    for category in _unique(document['categories'], 'category', where):
        if not isinstance(category.get('name'), str):
            raise AnnotationError('has no name', where=f'{where}, category {category["id"]}')
    taxonomy = taxonomy or coco_draft(document, where=where).build()
    labels = match_categories(document['categories'], taxonomy, where=where)
    annotations = defaultdict(list)
    for annotation in _unique(document['annotations'], 'annotation', where):
        annotations[annotation.get('image_id')].append(annotation)
    images = []
    for entry in _unique(document['images'], 'image', where):
        row = _image_row(entry, f'{where}, image {entry["id"]}')
        mine = annotations.pop(entry['id'], [])
        for annotation in mine:
            _check_annotation(annotation, row, labels, f'{where}, annotation {annotation["id"]} of image {entry["id"]}')
        positive, negative = (_listed(entry, f'{kind}_category_ids', labels, where) for kind in ('pos', 'neg'))
        images.append(CocoImage(row, entry['id'], positive, negative, mine))
    if annotations:
        number, first = next(iter(annotations.items()))
        where = f'{where}, annotation {first[0]["id"]}'
        fix = 'Each annotation belongs to an image of the same file.'
        raise AnnotationError(f'image_id {number!r} is the id of no image', where=where, fix=fix)
    if not images:
        raise AnnotationError('the split is empty: there are no images', where=where)
    return CocoDocument(path, taxonomy, document['categories'], labels, images)


def match_categories(categories: Sequence[Entry], taxonomy: Taxonomy, *, where: str) -> dict[int, int]:
    """Category id → label; AnnotationError if there is no match, or if ids and names match differently.

    All categories match by id (their ``class_id`` if they have it), or all by name; a name matches a class of that name
    or, failing that, of that id.
    """
    by_name: dict[str, int] = {}
    repeated = set()
    for label, name in enumerate(taxonomy.names):
        repeated |= {name} & by_name.keys()
        by_name[name] = label
    by_name = dict(taxonomy.label_of) | {name: label for name, label in by_name.items() if name not in repeated}
    by_ids = {c['id']: taxonomy.label_of.get(str(c.get('class_id', c['id']))) for c in categories}
    by_names = {c['id']: by_name.get(c['name']) for c in categories}
    whole = [m for m in (by_ids, by_names) if None not in m.values() and len({*m.values()}) == len(m)]
    if not whole:
        best = max(by_ids, by_names, key=lambda m: sum(label is not None for label in m.values()))
        missing = [f'{c["id"]} ({c["name"]})' for c in categories if best[c['id']] is None]
        what = f'{len(missing)} of {len(categories)} categories are not in the taxonomy, such as '
        raise AnnotationError(
            what + ', '.join(missing[:5]) if missing else 'several categories match one class of the taxonomy',
            where=where,
            fix='Each category needs a class of its own, of that id or that name.',
        )
    if len(whole) == 2 and by_ids != by_names and not any('class_id' in c for c in categories):
        number = next(number for number, label in by_ids.items() if by_names[number] != label)
        what = f'category {number} matches one class of the taxonomy by id and another one by name'
        fix = 'Give classes either the ids or the names of the categories, not those of others.'
        raise AnnotationError(what, where=where, fix=fix)
    return {number: label for number, label in whole[0].items() if label is not None}


def _parse(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise AnnotationError(f'cannot be read ({error.strerror})', where=str(path), fix='Check the path.') from None
    except ValueError as error:
        raise AnnotationError(f'is not JSON ({error})', where=str(path), fix='Is the file cut off?') from None
    for key in ('images', 'annotations', 'categories'):
        if not isinstance(document, dict) or not isinstance(document.get(key), list):
            fix = 'Give the annotations of a COCO data set (instances).'
            raise AnnotationError(f'has no list {key!r}', where=str(path), fix=fix)
    return dict(document)


def _unique(entries: list[Any], kind: str, where: str) -> list[dict[str, Any]]:
    """The entries, if each is an object with an id of its own."""
    seen = set()
    for position, entry in enumerate(entries):
        if not isinstance(entry, dict) or not _is_whole(entry.get('id')):
            what = f'{kind} number {position + 1} has no id'
            raise AnnotationError(what, where=where, fix='Ids are whole numbers, each used once.')
        if entry['id'] in seen:
            raise AnnotationError(f'the {kind} id {entry["id"]} occurs twice', where=where, fix='Ids are used once.')
        seen.add(entry['id'])
    return entries


def corners(box: Sequence[float]) -> list[float]:
    """Xyxy of a COCO box ``[x, y, width, height]``."""
    return [box[0], box[1], box[0] + box[2], box[1] + box[3]]


def _image_row(entry: Entry, where: str) -> ImageRow:
    name, width, height = entry.get('file_name'), entry.get('width'), entry.get('height')
    if not isinstance(name, str) or not name:
        raise AnnotationError(f'file_name is {name!r}', where=where, fix='It is a path in the image folder.')
    if not (_is_whole(width) and _is_whole(height) and min(width, height) > 0):
        raise AnnotationError(f'width x height is {width!r} x {height!r}', where=where, fix='They are pixels.')
    return ImageRow(str(entry.get('source_id', entry['id'])), name, width, height)


def _check_annotation(entry: Entry, image: ImageRow, labels: Mapping[int, int], where: str) -> None:
    if not _is_whole(entry.get('category_id')) or entry['category_id'] not in labels:
        what = f'category_id {entry.get("category_id")!r} is no category'
        raise AnnotationError(what, where=where, fix='Add it to the categories.')
    box = entry.get('bbox')
    if not _is_box(box):
        raise AnnotationError(f'bbox is {box!r}', where=where, fix='It is [x, y, width, height] in pixels.')
    if box[2] < 0 or box[3] < 0:
        raise AnnotationError(f'bbox {box} has a negative size', where=where, fix='It is [x, y, width, height].')
    inside = all(
        start >= -OUTSIDE_TOLERANCE and start + extent <= size + OUTSIDE_TOLERANCE
        for start, extent, size in zip(box[:2], box[2:], (image.width, image.height), strict=True)
    )
    if not inside:
        what = f'bbox {box} is outside the image of {image.width} x {image.height} pixels'
        raise AnnotationError(what, where=where, fix='It is [x, y, width, height] in pixels.')
    exact = entry.get('bbox_xyxy', corners(box))
    if not _is_box(exact) or max(abs(a - b) for a, b in zip(exact, corners(box), strict=True)) > 1e-9:
        raise AnnotationError(f'bbox_xyxy {exact} contradicts bbox {box}', where=where, fix='Leave out bbox_xyxy.')
    if entry.get('iscrowd', 0) not in (0, 1):
        raise AnnotationError(f'iscrowd is {entry["iscrowd"]!r}', where=where, fix='It is 0 or 1.')
    if not (_is_number(entry.get('area', 0)) and entry.get('area', 0) >= 0):
        raise AnnotationError(f'area is {entry["area"]!r}', where=where, fix='It is a number of pixels.')


def _listed(entry: Entry, key: str, labels: Mapping[int, int], where: str) -> IntArray | None:
    """Labels of the categories that an image lists, ascending, each once; None if it has no such list."""
    if key not in entry:
        return None
    listed = entry[key]
    if not isinstance(listed, list) or not all(_is_whole(number) and number in labels for number in listed):
        where = f'{where}, image {entry["id"]}'
        raise AnnotationError(f'{key} is {listed!r:.80}', where=where, fix='It is a list of category ids.')
    return np.unique(np.array([labels[number] for number in listed], dtype=np.int64))


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_box(value: object) -> TypeGuard[list[float]]:
    return isinstance(value, list) and len(value) == 4 and all(map(_is_number, value))


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def encode_segmentation(segmentation: Any, height: int, width: int) -> tuple[bytes, int]:
    """Compressed counts and number of pixels of a segmentation; ``b''`` and 0 if it covers no pixel.

    Args:
        segmentation: List of polygons ``[x1, y1, x2, y2, ...]`` in pixels, or a dict of ``size`` and ``counts``.
        height: Pixels, of the image.
        width: Pixels, of the image.

    Raises:
        MalformedMaskError: If it is malformed or of another size.
    """
    if isinstance(segmentation, list):
        counts = _encode_polygons(segmentation, height, width)
    elif isinstance(segmentation, dict):
        counts = _encode_runs(segmentation, height, width)
    else:
        raise run_lengths.MalformedMaskError('the segmentation is neither polygons nor run lengths')
    area = run_lengths.check_counts(counts, height, width)
    return (counts, area) if area else (b'', 0)


def _encode_polygons(polygons: list[Any], height: int, width: int) -> bytes:
    for polygon in polygons:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            raise run_lengths.MalformedMaskError('a polygon has fewer than three points, or half a point')
        if not all(isinstance(value, (int, float)) and math.isfinite(value) for value in polygon):
            raise run_lengths.MalformedMaskError('a polygon holds something that is not a number')
        # pycocotools clips, but walks along every edge: a wild coordinate would take gigabytes.
        for values, size in ((polygon[0::2], width), (polygon[1::2], height)):
            if min(values) < -size or max(values) > 2 * size:
                raise run_lengths.MalformedMaskError('a polygon reaches further outside than the image is large')
    counts: bytes = coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))['counts']
    return counts


def _encode_runs(segmentation: dict[str, Any], height: int, width: int) -> bytes:
    if segmentation.get('size') != [height, width]:
        raise run_lengths.MalformedMaskError(
            f'the mask has the size {segmentation.get("size")}, its image [{height}, {width}] (height, width)'
        )
    counts = segmentation.get('counts')
    if isinstance(counts, list):
        return run_lengths.encode_runs(counts, height, width)
    if isinstance(counts, str) and counts.isascii():
        return counts.encode()
    raise run_lengths.MalformedMaskError('the counts are neither a list nor run-length text')


class ExhaustiveLabels:
    """The verified labels that follow from exhaustive annotation of the classes ``category_labels``."""

    def __init__(self, taxonomy: Taxonomy, category_labels: Sequence[int]) -> None:
        self._ancestor_mask = taxonomy.arrays.ancestor_mask
        self._looked_for = self._ancestor_mask[list(category_labels)].any(axis=0)

    def __call__(self, labels: IntArray) -> tuple[IntArray, IntArray]:
        """Labels present and absent, ascending, on an image with instances of the given labels."""
        present = np.unique(labels)
        if len(present) == 0:
            return present, np.flatnonzero(self._looked_for)
        related = self._ancestor_mask[present].any(axis=0) | self._ancestor_mask[:, present].any(axis=1)
        return present, np.flatnonzero(self._looked_for & ~related)


IMAGE_MISSING = 'images without a file, left out'
MASK_BROKEN = 'segmentations that are malformed, kept as box'
MASK_EMPTY = 'segmentations without a pixel, kept as box'


def convert_coco(
    path: str | PathLike[str],
    taxonomy: Taxonomy | None = None,
    *,
    images: str | PathLike[str],
    out: str | PathLike[str],
    skip_broken: bool = False,
    overwrite: bool = False,
    progress: bool = False,
) -> ConversionSummary:
    """Writes a store of one COCO file.

    Images keep the order of the file, annotations theirs within each image. ``iscrowd`` becomes group-of. Boxes and
    areas keep their exact numbers; masks are those of pycocotools. For verified labels see
    :mod:`hierseg.converters.coco`. Image files must exist, but their size is taken from the JSON.

    Args:
        path: The JSON.
        taxonomy: Its classes match the categories by id, or else by name. If omitted: the taxonomy that
            ``write_coco`` put into the file, or else the one of ``supercategory``.
        images: The folder that ``file_name`` is relative to.
        out: The store's folder; it appears when it is whole.
        skip_broken: Leave out images without a file, and malformed segmentations (their boxes stay).
        overwrite: Replace a store that is there.
        progress: Show a bar on stderr.

    Raises:
        AnnotationError: On bad input, with the image or annotation.
        TaxonomyError: If the categories make no taxonomy.
        StoreError: If ``out`` cannot be written.
    """
    check_target(Path(out), overwrite=overwrite)
    if not Path(images).is_dir():
        raise AnnotationError('is no folder', where=str(images), fix='Give the folder that holds the images.')
    document = read_coco(Path(path), taxonomy)
    reader = _Reader(document, skip_broken=skip_broken)
    with StoreWriter(out, taxonomy=document.taxonomy, overwrite=overwrite) as writer:
        for image in tqdm(document.images, unit='image', disable=not progress):
            file = os.path.join(images, image.row.file_name)
            if not os.path.isfile(file):
                reader.broken(IMAGE_MISSING, 'there is no such image', f'{file} (image {image.number})')
                continue
            instances = reader.instances(image)
            verified = reader.verified(image, instances.labels)
            writer.add(image.row, instances, *verified)
            reader.summary.count_image(instances, *verified)
        if reader.summary.images == 0:
            raise AnnotationError('none of the images is there', where=str(images), fix='Check the folder.')
        # Kept for the way back, which gives the categories their own ids and order again.
        categories = {'coco_categories': document.categories, 'coco_labels': list(document.labels.values())}
        writer.summary = {**reader.summary.to_json(), **categories}
    return reader.summary


class _Reader:
    """Turns the annotations of images into instances and verified labels."""

    def __init__(self, document: CocoDocument, *, skip_broken: bool) -> None:
        self.summary = ConversionSummary()
        self._document, self._skip_broken = document, skip_broken
        self._exhaustive = ExhaustiveLabels(document.taxonomy, list(document.labels.values()))

    def broken(self, reason: str, what: str, where: str) -> None:
        """Counts something broken if that is allowed; raises otherwise."""
        if not self._skip_broken:
            fix = 'Put it right, or leave such things out with --skip-broken.'
            raise AnnotationError(what, where=where, fix=fix)
        self.summary.skip(reason, [where])

    def instances(self, image: CocoImage) -> Instances:
        """The instances of an image."""
        entries = image.annotations
        masks = [self._mask(entry, image) for entry in entries]
        boxes = [entry.get('bbox_xyxy') or corners(entry['bbox']) for entry in entries]
        areas = [
            entry.get('area', area if counts else entry['bbox'][2] * entry['bbox'][3])
            for entry, (counts, area) in zip(entries, masks, strict=True)
        ]
        self.summary.box_rows += len(entries)
        return Instances(
            labels=np.array([self._document.labels[entry['category_id']] for entry in entries], dtype=np.int64),
            boxes=np.array(boxes, dtype=np.float64).reshape(-1, 4),
            masks=[counts for counts, _ in masks],
            has_mask=np.array([bool(counts) for counts, _ in masks], dtype=bool),
            group_of=np.array([entry.get('iscrowd', 0) for entry in entries], dtype=bool),
            areas=np.array(areas, dtype=np.float64),
            annotation_ids=[str(entry.get('source_id', entry['id'])) for entry in entries],
        )

    def _mask(self, entry: Entry, image: CocoImage) -> tuple[bytes, int]:
        if not entry.get('segmentation'):
            return b'', 0
        where = f'{self._document.path}, annotation {entry["id"]} of image {image.number}'
        self.summary.mask_rows += 1
        self.summary.masks_joined += 1
        try:
            counts, area = encode_segmentation(entry['segmentation'], image.row.height, image.row.width)
        except run_lengths.MalformedMaskError as error:
            self.broken(MASK_BROKEN, f'the segmentation is malformed: {error}', where)
            return b'', 0
        if not counts:
            self.summary.skip(MASK_EMPTY, [f'annotation {entry["id"]}'])
        return counts, area

    def verified(self, image: CocoImage, labels: IntArray) -> tuple[IntArray, IntArray]:
        """Labels present and absent on an image whose instances have the given labels."""
        if image.positive is None and image.negative is None:
            return self._exhaustive(labels)
        positive = np.unique(labels) if image.positive is None else image.positive
        return positive, labels[:0] if image.negative is None else image.negative


def write_coco(
    store: Store, path: str | PathLike[str], *, overwrite: bool = False, progress: bool = False
) -> dict[str, int]:
    """Writes a store as COCO JSON, one annotation to a line; the file appears when it is whole.

    Masks are compressed run lengths, boxes without a mask have an empty segmentation, group-of is ``iscrowd``.
    Categories are those of the COCO file that the store came from, or all classes. Ids that are no whole numbers (Open
    Images) get numbers in order. Verified labels other than those of exhaustive annotation stand as
    ``pos_category_ids`` and ``neg_category_ids`` of their image. Other keys: :mod:`hierseg.converters.coco`.

    Returns:
        How many ``images``, ``annotations`` and ``categories`` were written.

    Raises:
        AnnotationError: If the file exists and is not to be replaced.
        StoreError: If the store has labels that are no categories.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise AnnotationError('exists already', where=str(path), fix='Name another file, or allow to overwrite it.')
    path.parent.mkdir(parents=True, exist_ok=True)
    exporter = _Exporter(store, progress=progress)
    counts = {}
    with whole_file(path) as file:
        file.write(b'{"taxonomy": ' + _dump(store.taxonomy.to_json()))
        for name, entries in exporter.lists().items():
            file.write(f',\n"{name}": ['.encode())
            counts[name] = 0
            for entry in entries:
                file.write((b',\n' if counts[name] else b'\n') + _dump(entry))
                counts[name] += 1
            file.write(b'\n]')
        file.write(b'}\n')
    return counts


def extent(start: float, end: float) -> float:
    """The width or height that gives exactly ``end`` when added to ``start``, as the shortest decimal.

    Where there is none, since all sums round to another number, it is the difference, off by the last bit.

    Example:
        >>> 0.1 + 0.2, (0.1 + 0.2) - 0.1, extent(0.1, 0.1 + 0.2)
        (0.30000000000000004, 0.20000000000000004, 0.2)
    """
    difference = end - start
    for digits in range(13):
        if start + round(difference, digits) == end:
            return round(difference, digits)
    near = [difference, np.nextafter(difference, np.inf), np.nextafter(difference, 0.0)]
    return next((float(value) for value in near if start + float(value) == end), difference)


class _Exporter:
    """Makes the entries of one store."""

    def __init__(self, store: Store, *, progress: bool) -> None:
        self._store, self._progress = store, progress
        self._categories, labels = _categories(store)
        self._number_of = {label: category['id'] for category, label in zip(self._categories, labels, strict=True)}
        self._exhaustive = ExhaustiveLabels(store.taxonomy, labels)
        self._images = _numbers(store.image(row).id for row in range(len(store)))
        self._annotations = _numbers(name for row in range(len(store)) for name in store.instances(row).annotation_ids)

    def lists(self) -> dict[str, Iterable[dict[str, Any]]]:
        """The lists of the file by their name."""
        return {
            'categories': self._categories,
            'images': self._image_entries(),
            'annotations': self._annotation_entries(),
        }

    def _image_entries(self) -> Iterator[dict[str, Any]]:
        for row, number in enumerate(self._images):
            image = self._store.image(row)
            size = {'width': image.width, 'height': image.height}
            entry: dict[str, Any] = {'id': number, 'file_name': image.file_name, **size}
            if str(number) != image.id:
                entry['source_id'] = image.id
            verified = self._store.verified(row)
            expected = self._exhaustive(self._store.instances(row).labels)
            if any(not np.array_equal(*pair) for pair in zip(verified, expected, strict=True)):
                for key, found in zip(('pos_category_ids', 'neg_category_ids'), verified, strict=True):
                    entry[key] = [self._number(label, image) for label in found.tolist()]
            yield entry

    def _annotation_entries(self) -> Iterator[dict[str, Any]]:
        numbers = iter(self._annotations)
        for row, image_number in enumerate(tqdm(self._images, unit='image', disable=not self._progress)):
            image, instances = self._store.image(row), self._store.instances(row)
            for i, (box, counts) in enumerate(zip(instances.boxes.tolist(), instances.masks, strict=True)):
                x1, y1, x2, y2 = box
                entry: dict[str, Any] = {
                    'id': next(numbers),
                    'image_id': image_number,
                    'category_id': self._number(int(instances.labels[i]), image),
                    'bbox': [x1, y1, extent(x1, x2), extent(y1, y2)],
                    'area': float(instances.areas[i]),
                    'iscrowd': int(instances.group_of[i]),
                    'segmentation': {'size': [image.height, image.width], 'counts': counts.decode()} if counts else [],
                }
                if str(entry['id']) != instances.annotation_ids[i]:
                    entry['source_id'] = instances.annotation_ids[i]
                if corners(entry['bbox']) != box:
                    entry['bbox_xyxy'] = box
                yield entry

    def _number(self, label: int, image: ImageRow) -> int:
        if label not in self._number_of:
            raise StoreError(
                f"class {self._store.taxonomy.ids[label]} of image {image.id} is none of the store's COCO categories",
                where=str(self._store.path),
                fix='Convert the data set again.',
            )
        return int(self._number_of[label])


def _categories(store: Store) -> tuple[list[dict[str, Any]], list[int]]:
    """The categories of the COCO file that the store came from, or all classes, and their labels."""
    if 'coco_categories' in store.summary:
        return store.summary['coco_categories'], store.summary['coco_labels']
    taxonomy = store.taxonomy
    categories = []
    for label, number in enumerate(_numbers(taxonomy.ids)):
        above = taxonomy.parents[label][0] if taxonomy.parents[label] else label
        category = {'id': number, 'name': taxonomy.names[label], 'supercategory': taxonomy.names[above]}
        if str(number) != taxonomy.ids[label]:
            category['class_id'] = taxonomy.ids[label]
        categories.append(category)
    return categories, list(range(taxonomy.num_classes))


def _numbers(names: Iterable[str]) -> Sequence[int]:
    """The ids as whole numbers if they are such, each once; 1, 2, 3 … otherwise."""
    texts = list(names)
    whole = [int(text) for text in texts if text.isascii() and text.isdecimal() and str(int(text)) == text]
    return whole if len(set(whole)) == len(texts) else range(1, len(texts) + 1)


def _dump(document: Any) -> bytes:
    return json.dumps(document, ensure_ascii=False, allow_nan=False).encode()
