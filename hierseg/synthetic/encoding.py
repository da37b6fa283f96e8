"""One image of a synthetic split: painted, its files written, its table rows worked out.

Shape letters: H and W image size in pixels, I objects of the image.
"""

from __future__ import annotations

import base64
import hashlib
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pycocotools.mask

from hierseg.errors import AnnotationError
from hierseg.synthetic.options import AnnotationRates
from hierseg.synthetic.population import NOT_ANNOTATED, BoolArray, Population, verified_labels
from hierseg.synthetic.scenes import ScenePainter
from hierseg.taxonomy import Taxonomy

Row = tuple[str | int, ...]

CSV_COLUMNS: dict[str, tuple[str, ...]] = {
    'masks': (
        'MaskPath',
        'ImageID',
        'LabelName',
        'BoxID',
        'BoxXMin',
        'BoxXMax',
        'BoxYMin',
        'BoxYMax',
        'PredictedIoU',
        'Clicks',
    ),
    'bbox': ('ImageID', 'LabelName', 'XMin', 'XMax', 'YMin', 'YMax', 'IsGroupOf'),
    'labels': ('ImageID', 'LabelName', 'Confidence'),
    'masks-rle': (
        'ImageID',
        'LabelName',
        'ImageWidth',
        'ImageHeight',
        'XMin',
        'YMin',
        'XMax',
        'YMax',
        'IsGroupOf',
        'Mask',
    ),
}
"""Columns of the tables of a split, by the last part of their names; the last one in validation only."""

RESIZED_MASK_SCALE = 0.64
JPEG_QUALITY = 92

_PNG_FLAGS = (cv2.IMWRITE_PNG_BILEVEL, 1, cv2.IMWRITE_PNG_COMPRESSION, 1)


@dataclass(frozen=True)
class ImageRows:
    """What one image adds to the tables.

    Attributes:
        tables: Rows by the keys of CSV_COLUMNS, in column order.
        objects: Objects in the picture, annotated or not.
        groups: Annotated ones that are group-of.
        coarse: Annotated ones whose label is an ancestor of what they are.
        positives: Verified-present labels.
    """

    tables: dict[str, list[Row]] = field(default_factory=lambda: {table: [] for table in CSV_COLUMNS})
    objects: int = 0
    groups: int = 0
    coarse: int = 0
    positives: int = 0


def image_id(seed: int, split: int, index: int) -> str:
    """16 hex digits. A few ids look like a whole number or like 1.5e12, as some real ones do."""
    digits = hashlib.blake2b(f'{seed}/{split}/{index}'.encode(), digest_size=8).hexdigest()
    if index % 101 in (3, 7):
        digits = f'{int(digits, 16) % 10**16:016d}'
        if index % 101 == 7:
            digits = f'{digits[:13]}e{digits[14:]}'
    return digits


@dataclass(frozen=True, eq=False)
class ImageEncoder:
    """Makes any image of a split, files and rows, from its index alone.

    Attributes:
        taxonomy: The classes.
        population: The objects of all images of the split.
        rates: How the split is annotated.
        name: 'train' or 'validation'; part of the folder names.
        seed: Seed of the data set.
        split: Index of the split in the data set, for seeding.
        size: Longest side of the images in pixels.
        out: Folder of the data set; ``<name>`` and ``<name>-masks`` exist in it.
    """

    taxonomy: Taxonomy
    population: Population
    rates: AnnotationRates
    name: str
    seed: int
    split: int
    size: int
    out: Path

    def encode(self, index: int, painter: ScenePainter) -> ImageRows:
        """Writes the image and its masks.

        Raises:
            AnnotationError: If a file cannot be written.
        """
        generator = np.random.default_rng(np.random.SeedSequence((self.seed, self.split, index + 1)))
        population = self.population
        own = slice(int(population.first_objects[index]), int(population.first_objects[index + 1]))
        labels, annotated = population.labels[own], population.annotated_labels[own]
        group_of, has_mask = population.group_of[own], population.has_mask[own]
        scene = painter.paint(labels.tolist(), group_of.tolist(), generator)
        name = image_id(self.seed, self.split, index)
        _write(self.out / self.name / f'{name}.jpg', scene.image, (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY))
        positive, negative = verified_labels(
            self.taxonomy,
            labels[scene.is_painted],
            annotated[scene.is_painted],
            negatives=self.rates.negatives,
            generator=generator,
        )
        is_annotated = scene.is_painted & (annotated != NOT_ANNOTATED)
        rows = ImageRows(
            objects=int(scene.is_painted.sum()),
            groups=int((group_of & is_annotated).sum()),
            coarse=int(((labels != annotated) & is_annotated).sum()),
            positives=len(positive),
        )
        ids = self.taxonomy.ids
        rows.tables['labels'] += [(name, ids[label], 1) for label in positive.tolist()]
        rows.tables['labels'] += [(name, ids[label], 0) for label in negative.tolist()]
        for item in np.flatnonzero(is_annotated).tolist():
            mask = scene.owners == item
            class_id = ids[int(annotated[item])]
            self._encode_object(rows, name, class_id, mask, bool(group_of[item]), bool(has_mask[item]), generator)
        return rows

    def _encode_object(
        self,
        rows: ImageRows,
        image: str,
        class_id: str,
        mask: BoolArray,
        is_group: bool,
        has_mask: bool,
        generator: np.random.Generator,
    ) -> None:
        """Adds the rows of one object, mask (H, W) being what is visible of it, and writes its PNG."""
        height, width = mask.shape
        left, right, top, bottom = tight_box(mask)
        sides = (left / width, right / width, top / height, bottom / height)
        x_min, x_max, y_min, y_max = (f'{side:.6f}' for side in sides)
        rows.tables['bbox'].append((image, class_id, x_min, x_max, y_min, y_max, int(is_group)))
        if not has_mask:
            return
        box_id = generator.bytes(4).hex()
        path = f'{image}_{class_id.strip("/").replace("/", "")}_{box_id}.png'
        # Like the real mask table, with other decimals than the box table.
        decimals = tuple(str(np.float32(side)) for side in sides)
        quality = ('', '') if self.name == 'validation' else _annotator_trace(sides, generator)
        rows.tables['masks'].append((path, image, class_id, box_id, *decimals, *quality))
        picture = mask.astype(np.uint8) * 255
        if generator.random() < self.rates.resized_mask:
            smaller = (max(1, round(RESIZED_MASK_SCALE * width)), max(1, round(RESIZED_MASK_SCALE * height)))
            picture = cv2.resize(picture, smaller, interpolation=cv2.INTER_NEAREST).astype(np.uint8, copy=False)
        _write(self.out / f'{self.name}-masks' / path, picture, _PNG_FLAGS)
        if self.name == 'validation':
            box = (x_min, y_min, x_max, y_max)
            rows.tables['masks-rle'].append(
                (image, class_id, width, height, *box, int(is_group), _evaluation_form(mask))
            )


def tight_box(mask: BoolArray) -> tuple[int, int, int, int]:
    """Left, right, top and bottom in pixels of a mask (H, W); right and bottom are one behind its last pixel."""
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    return int(columns[0]), int(columns[-1]) + 1, int(rows[0]), int(rows[-1]) + 1


def _annotator_trace(sides: tuple[float, ...], generator: np.random.Generator) -> tuple[str, str]:
    """PredictedIoU and Clicks ("x y inside;…", normalised) as an annotator would leave them."""
    left, right, top, bottom = sides
    clicks = [
        f'{left + (right - left) * x:.5f} {top + (bottom - top) * y:.5f} {int(generator.random() < 0.5)}'
        for x, y in generator.random((int(generator.integers(1, 4)), 2)).tolist()
    ]
    return f'{generator.uniform(0.75, 0.97):.5f}', ';'.join(clicks)


def _evaluation_form(mask: BoolArray) -> str:
    """A mask (H, W) as base64 of zlib of COCO's compressed run lengths."""
    encoded = pycocotools.mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return base64.b64encode(zlib.compress(encoded['counts'])).decode('ascii')


def _write(path: Path, picture: npt.NDArray[np.uint8], flags: tuple[int, ...]) -> None:
    if not cv2.imwrite(str(path), picture, flags):
        raise AnnotationError('the image could not be written', where=str(path), fix='Is the disk full?')
