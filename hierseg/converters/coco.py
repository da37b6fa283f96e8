"""COCO JSON to a store, and a store to COCO JSON, such that reading it back gives the same store.

A file is read by :mod:`hierseg.converters.coco_reading` and ``coco_annotations``. Beside the keys of COCO it may have
those that ``write_coco`` adds where COCO has no room: ``taxonomy`` (all of it); ``class_id`` of a category and
``source_id`` of an image or annotation, where the store's own id is no whole number; and ``bbox_xyxy`` of an
annotation, where ``bbox`` misses the box's corners by the last bit.

Verified labels: COCO is annotated exhaustively, so the classes of an image's annotations are verified as present, and
every other category as absent, with two exceptions that a hierarchy brings: a class above a present one is not absent
(a dog is an animal), and a class below a present one is unknown (an animal may be a dog). Classes above categories,
such as supercategories, follow from their categories and are treated alike; other classes of the taxonomy were not
looked for, and stay unverified. An image that lists ``neg_category_ids`` (as in LVIS), and perhaps
``pos_category_ids``, is not exhaustive: its lists are taken instead. Of the classes in its
``not_exhaustive_category_ids`` there may be instances beyond those annotated, see :meth:`Store.not_exhaustive`.
Shape letter: C classes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from hierseg.converters.coco_annotations import AnnotationReader, corners
from hierseg.converters.coco_reading import Faults, Mode, Orientation, read_coco
from hierseg.converters.options import ConversionSummary
from hierseg.errors import AnnotationError, StoreError
from hierseg.files import whole_file
from hierseg.formats import IntArray
from hierseg.formats.json_files import numbers_of
from hierseg.limits import MAX_PIXELS
from hierseg.locks import locked_file
from hierseg.store.folders import check_target, real_path
from hierseg.store.store import ImageRow, Store
from hierseg.store.writer import StoreWriter
from hierseg.taxonomy import Taxonomy

DOCUMENT = 'coco.json'
"""Name of the store's document with what a COCO file says beside the store's tables, for the way back."""


class ExhaustiveLabels:
    """The verified labels that follow from exhaustive annotation of the classes ``category_labels``."""

    def __init__(self, taxonomy: Taxonomy, category_labels: Sequence[int]) -> None:
        self._arrays = taxonomy.arrays
        self._looked_for = np.zeros(taxonomy.num_classes, dtype=bool)
        self._looked_for[self._arrays.all_above(np.asarray(category_labels, np.int64))] = True

    def __call__(self, labels: IntArray) -> tuple[IntArray, IntArray]:
        """Labels present and absent, ascending, on an image with instances of the given labels."""
        present = np.unique(labels)
        absent = self._looked_for.copy()
        for label in present:
            absent[self._arrays.above(label)] = False
            absent[self._arrays.below(label)] = False
        return present, np.flatnonzero(absent)


def convert_coco(
    path: str | PathLike[str],
    taxonomy: Taxonomy | None = None,
    *,
    images: str | PathLike[str],
    out: str | PathLike[str],
    mode: Mode = 'default',
    orientation: Orientation | None = None,
    keep_root: bool = False,
    crowds: bool = True,
    max_pixels: int = MAX_PIXELS,
    absolute_paths: bool = False,
    overwrite: bool = False,
    progress: bool = False,
) -> ConversionSummary:
    """Writes a store of one COCO file.

    Images keep the order of the file, annotations theirs within each image. ``iscrowd`` becomes group-of.
    Boxes and areas keep their exact numbers; masks are those of pycocotools. The verified labels are those
    of exhaustive annotation, see :mod:`hierseg.converters.coco`. Sizes are those of the image files.

    Args:
        path: The JSON.
        taxonomy: Its classes match the categories by id, or else by name. If omitted: the taxonomy that
            ``write_coco`` put into the file, or else the one of ``supercategory``.
        images: The folder that ``file_name`` is relative to.
        out: The store's folder; it appears when it is whole.
        mode: ``strict`` refuses what would be put right, ``lenient`` leaves out what would be refused.
        orientation: How the annotations lie on images that EXIF data turns: on the pixels as ``stored`` in the
            file, or as a viewer shows them ``turned``. Found out if omitted.
        keep_root: Keep a category above all others that is never annotated, as Roboflow writes one.
        crowds: False to take ``iscrowd`` as 0, since CVAT marks every brushed mask so.
        max_pixels: Of an image; larger ones are refused.
        absolute_paths: Allow a ``file_name`` that is no path within ``images``; a file of strangers then names any
            image of this machine.
        overwrite: Replace a store that is there.
        progress: Show a bar on stderr.

    Raises:
        AnnotationError: On bad input: how many faults of which kinds, and the first of each.
        TaxonomyError: If the categories make no taxonomy.
        StoreError: If ``out`` cannot be written.
    """
    out = real_path(out)
    check_target(out, overwrite=overwrite)
    if not Path(images).is_dir():
        raise AnnotationError('is no folder', where=str(images), fix='Give the folder that holds the images.')
    summary = ConversionSummary()
    faults = Faults(Path(path), mode, summary)
    document = read_coco(
        Path(path),
        taxonomy,
        images=Path(images),
        faults=faults,
        orientation=orientation,
        keep_root=keep_root,
        crowds=crowds,
        max_pixels=max_pixels,
        absolute_paths=absolute_paths,
        progress=progress,
    )
    reader = AnnotationReader(document, faults, summary, crowds=crowds)
    exhaustive = ExhaustiveLabels(document.taxonomy, list(document.labels.values()))
    with StoreWriter(out, taxonomy=document.taxonomy, overwrite=overwrite) as writer:
        for image in tqdm(document.images, unit='image', disable=not progress):
            instances = reader.instances(image)
            verified = exhaustive(instances.labels)
            if not (image.positive is None and image.negative is None):
                positive = instances.labels if image.positive is None else image.positive
                verified = (
                    np.unique(np.asarray(positive, np.int64)),
                    np.unique(np.asarray(image.negative or [], np.int64)),
                )
            writer.add(image.row, instances, *verified, not_exhaustive=image.not_exhaustive or ())
            summary.count_image(instances, *verified)
        faults.check()
        if summary.images == 0:
            raise AnnotationError('none of the images is there', where=str(images), fix='Check the folder.')
        # Kept for the way back, which gives the categories their own ids and order again.
        categories = {'coco_categories': document.categories, 'coco_labels': list(document.labels.values())}
        writer.summary = {**summary.to_json(), **categories}
        writer.orientation = document.orientation
        others = {image.row.id: image.others for image in document.images if image.others}
        if others or document.others:
            writer.documents[DOCUMENT] = {**document.others, 'images': others}
    return summary


def write_coco(
    store: Store, path: str | PathLike[str], *, overwrite: bool = False, progress: bool = False
) -> dict[str, int]:
    """Writes a store as COCO JSON, one annotation to a line; the file appears when it is whole.

    Masks are compressed run lengths, boxes without a mask have an empty segmentation, group-of is ``iscrowd``.
    Categories are those of the COCO file that the store came from, or all classes. Ids that are no whole numbers (Open
    Images) get numbers in order. Verified labels other than those of exhaustive annotation stand as
    ``pos_category_ids`` and ``neg_category_ids`` of their image. Where a store knows classes that are not annotated
    exhaustively, every image has these lists and ``not_exhaustive_category_ids``. Other keys:
    :mod:`hierseg.converters.coco`.

    Returns:
        How many ``images``, ``annotations`` and ``categories`` were written.

    Raises:
        AnnotationError: If the file exists and is not to be replaced.
        StoreError: If the store has labels that are no categories.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise AnnotationError(
            'exists already', where=str(path), fix='Name another file, or replace it with --overwrite (overwrite=True).'
        )
    exporter = _Exporter(store, progress=progress)
    counts = {}
    with locked_file(path), whole_file(path) as file:
        file.write(b'{"taxonomy": ' + _dump(store.taxonomy.to_json()))
        for name, value in exporter.others.items():
            file.write(f',\n"{name}": '.encode() + _dump(value))
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
        self._categories, labels = categories_of(store)
        self._number_of = {label: category['id'] for category, label in zip(self._categories, labels, strict=True)}
        self._exhaustive = ExhaustiveLabels(store.taxonomy, labels)
        self._images = numbers_of(store.image(row).id for row in range(len(store)))
        self.others = store.document(DOCUMENT)
        self._of_images: dict[str, Any] = self.others.pop('images', {})
        self._annotations = numbers_of(
            name for row in range(len(store)) for name in store.instances(row).annotation_ids
        )

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
            others = self._of_images.get(image.id, {})
            entry: dict[str, Any] = {'id': number, 'file_name': image.file_name, **size, **others}
            if str(number) != image.id:
                entry['source_id'] = image.id
            verified = self._store.verified(row)
            expected = self._exhaustive(self._store.instances(row).labels)
            federated = self._store.has_not_exhaustive
            if federated or any(not np.array_equal(*pair) for pair in zip(verified, expected, strict=True)):
                for key, found in zip(('pos_category_ids', 'neg_category_ids'), verified, strict=True):
                    entry[key] = [self._number(label, image) for label in found.tolist()]
            if federated:
                beyond = self._store.not_exhaustive(row).tolist()
                entry['not_exhaustive_category_ids'] = [self._number(label, image) for label in beyond]
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


def categories_of(store: Store) -> tuple[list[dict[str, Any]], list[int]]:
    """The categories of the COCO file that the store came from, or all classes as a COCO file has them; and labels."""
    if 'coco_categories' in store.summary:
        return store.summary['coco_categories'], store.summary['coco_labels']
    taxonomy = store.taxonomy
    categories = []
    for label, number in enumerate(numbers_of(taxonomy.ids)):
        above = taxonomy.parents[label][0] if taxonomy.parents[label] else label
        category = {'id': number, 'name': taxonomy.names[label], 'supercategory': taxonomy.names[above]}
        if str(number) != taxonomy.ids[label]:
            category['class_id'] = taxonomy.ids[label]
        categories.append(category)
    return categories, list(range(taxonomy.num_classes))


def _dump(document: Any) -> bytes:
    return json.dumps(document, ensure_ascii=False, allow_nan=False).encode()
