"""COCO JSON to a store."""

from __future__ import annotations

import os
from collections.abc import Iterable
from os import PathLike
from pathlib import Path

import numpy as np
from tqdm import tqdm

from hierseg.annotations import rle
from hierseg.annotations.coco_document import CocoDocument, CocoImage, corners, read_coco
from hierseg.annotations.coco_masks import encode_segmentation
from hierseg.annotations.coco_verified import ExhaustiveLabels
from hierseg.annotations.output_folder import check_target
from hierseg.annotations.records import Instances, IntArray
from hierseg.annotations.store_writer import StoreWriter
from hierseg.annotations.summary import ConversionSummary
from hierseg.errors import AnnotationError
from hierseg.taxonomy import Taxonomy

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

    Images keep the order of the file, annotations theirs within each image. ``iscrowd`` becomes group-of.
    Boxes and areas keep their exact numbers; masks are those of pycocotools. The verified labels are those
    of exhaustive annotation, see :mod:`hierseg.annotations.coco_verified`. Image files must exist, but
    their size is taken from the JSON.

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
        self._document = document
        self._skip_broken = skip_broken
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
        masks = [self._mask(index, image) for index in range(len(entries))]
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

    def _mask(self, index: int, image: CocoImage) -> tuple[bytes, int]:
        entry = image.annotations[index]
        if not entry.get('segmentation'):
            return b'', 0
        where = f'{self._document.path}, annotation {entry["id"]} of image {image.number}'
        self.summary.mask_rows += 1
        self.summary.masks_joined += 1
        try:
            counts, area = encode_segmentation(entry['segmentation'], image.row.height, image.row.width)
        except rle.MalformedMaskError as error:
            self.broken(MASK_BROKEN, f'the segmentation is malformed: {error}', where)
            return b'', 0
        if not counts:
            self.summary.skip(MASK_EMPTY, [f'annotation {entry["id"]}'])
        return counts, area

    def verified(self, image: CocoImage, labels: IntArray) -> tuple[IntArray, IntArray]:
        """Labels present and absent on an image whose instances have the given labels."""
        if image.positive is None and image.negative is None:
            return self._exhaustive(labels)
        positive = np.unique(labels) if image.positive is None else self._labels(image.positive)
        return positive, self._labels(image.negative or [])

    def _labels(self, categories: Iterable[int]) -> IntArray:
        return np.unique(np.array([self._document.labels[number] for number in categories], dtype=np.int64))
