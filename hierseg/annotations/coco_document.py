"""A COCO JSON, read and checked.

Beside the keys of COCO it may have those that ``write_coco`` adds where COCO has no room: ``taxonomy`` (all of
it); ``class_id`` of a category and ``source_id`` of an image or annotation, where the store's own id is no
whole number; and ``bbox_xyxy`` of an annotation, where ``bbox`` misses the box's corners by the last bit.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from hierseg.annotations.records import ImageRow
from hierseg.errors import AnnotationError
from hierseg.taxonomy import Taxonomy
from hierseg.taxonomy.formats import coco_draft

# Boxes of COCO are rounded to hundredths and may stick out a little; they are kept as they are.
OUTSIDE_TOLERANCE = 1.0

Entry = Mapping[str, Any]


@dataclass(frozen=True)
class CocoImage:
    """An image and what is annotated on it.

    Attributes:
        row: Id, file name, size.
        number: The whole number that COCO calls it by.
        positive: Category ids listed as present; None if the image has no such list.
        negative: Category ids listed as absent; likewise.
        annotations: Entries of the file, checked but for their segmentation.
    """

    row: ImageRow
    number: int
    positive: Sequence[int] | None
    negative: Sequence[int] | None
    annotations: Sequence[Entry]


@dataclass(frozen=True)
class CocoDocument:
    """A COCO file.

    Attributes:
        path: Of the file.
        taxonomy: The one that the file holds, or that of ``supercategory``, or the one given.
        categories: As in the file.
        labels: Category id → label in ``taxonomy``.
        images: In the order of the file.
    """

    path: Path
    taxonomy: Taxonomy
    categories: Sequence[Entry]
    labels: Mapping[int, int]
    images: Sequence[CocoImage]


def read_coco(path: Path, taxonomy: Taxonomy | None = None) -> CocoDocument:
    """Reads and checks a COCO file.

    Args:
        path: The JSON.
        taxonomy: Its classes match the categories by id, or else by name.

    Raises:
        AnnotationError: On malformed input, with the image or annotation.
        TaxonomyError: If the categories make no taxonomy.
    """
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
        positive = _category_list(entry, 'pos_category_ids', labels, where)
        negative = _category_list(entry, 'neg_category_ids', labels, where)
        images.append(CocoImage(row, entry['id'], positive, negative, mine))
    if annotations:
        number, first = next(iter(annotations.items()))
        raise AnnotationError(
            f'image_id {number!r} is the id of no image',
            where=f'{where}, annotation {first[0]["id"]}',
            fix='Each annotation belongs to an image of the same file.',
        )
    if not images:
        raise AnnotationError('the split is empty: there are no images', where=where)
    return CocoDocument(path, taxonomy, document['categories'], labels, images)


def match_categories(categories: Sequence[Entry], taxonomy: Taxonomy, *, where: str) -> dict[int, int]:
    """Category id → label.

    All categories match by id (their ``class_id`` if they have it), or all by name; a name matches a class
    of that name or, failing that, of that id.

    Raises:
        AnnotationError: If that fails, or if ids and names match differently.
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
        raise AnnotationError(
            f'category {number} matches one class of the taxonomy by id and another one by name',
            where=where,
            fix='Give classes either the ids or the names of the categories, not those of others.',
        )
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
            raise AnnotationError(
                f'has no list {key!r}', where=str(path), fix='Give the annotations of a COCO data set (instances).'
            )
    return dict(document)


def _unique(entries: list[Any], kind: str, where: str) -> list[dict[str, Any]]:
    """The entries, if each is an object with an id of its own."""
    seen = set()
    for position, entry in enumerate(entries):
        if not isinstance(entry, dict) or not _is_whole(entry.get('id')):
            raise AnnotationError(
                f'{kind} number {position + 1} has no id', where=where, fix='Ids are whole numbers, each used once.'
            )
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
        raise AnnotationError(
            f'category_id {entry.get("category_id")!r} is no category', where=where, fix='Add it to the categories.'
        )
    box = entry.get('bbox')
    if not (isinstance(box, list) and len(box) == 4 and all(_is_number(value) for value in box)):
        raise AnnotationError(f'bbox is {box!r}', where=where, fix='It is [x, y, width, height] in pixels.')
    if box[2] < 0 or box[3] < 0:
        raise AnnotationError(f'bbox {box} has a negative size', where=where, fix='It is [x, y, width, height].')
    inside = all(
        start >= -OUTSIDE_TOLERANCE and start + extent <= size + OUTSIDE_TOLERANCE
        for start, extent, size in zip(box[:2], box[2:], (image.width, image.height), strict=True)
    )
    if not inside:
        raise AnnotationError(
            f'bbox {box} is outside the image of {image.width} x {image.height} pixels',
            where=where,
            fix='It is [x, y, width, height] in pixels.',
        )
    exact = entry.get('bbox_xyxy', corners(box))
    is_box = isinstance(exact, list) and len(exact) == 4 and all(_is_number(value) for value in exact)
    if not is_box or max(abs(a - b) for a, b in zip(exact, corners(box), strict=True)) > 1e-9:
        raise AnnotationError(f'bbox_xyxy {exact} contradicts bbox {box}', where=where, fix='Leave out bbox_xyxy.')
    if entry.get('iscrowd', 0) not in (0, 1):
        raise AnnotationError(f'iscrowd is {entry["iscrowd"]!r}', where=where, fix='It is 0 or 1.')
    if not (_is_number(entry.get('area', 0)) and entry.get('area', 0) >= 0):
        raise AnnotationError(f'area is {entry["area"]!r}', where=where, fix='It is a number of pixels.')


def _category_list(entry: Entry, key: str, labels: Mapping[int, int], where: str) -> list[int] | None:
    if key not in entry:
        return None
    listed = entry[key]
    if not isinstance(listed, list) or not all(_is_whole(number) and number in labels for number in listed):
        raise AnnotationError(
            f'{key} is {listed!r:.80}', where=f'{where}, image {entry["id"]}', fix='It is a list of category ids.'
        )
    return listed


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
