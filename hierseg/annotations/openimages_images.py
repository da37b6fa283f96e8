"""The part of the conversion that opens files, image by image; it runs in worker processes.

Nothing is raised here for bad input: problems are given back in the order of masks, and the caller's verdict is an
error or a line in the summary. Shape letter: I instances.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from hierseg.annotations import rle
from hierseg.annotations.png_masks import PackedMask, PlainMask, read_mask
from hierseg.annotations.records import BoolArray, FloatArray, ImageRow, Instances, IntArray

IMAGE_SUFFIX = '.jpg'
# What Pillow raises for damaged files.
UNREADABLE = (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError)


class Trouble(Enum):
    """What can be wrong with an image or a mask; the value is the reason in the summary."""

    IMAGE_MISSING = 'images without a file, left out'
    IMAGE_BROKEN = 'images that cannot be read, left out'
    MASK_MISSING = 'masks without a file, kept as box'
    MASK_BROKEN = 'masks that cannot be read, kept as box'
    MASK_EMPTY = 'masks without a pixel, kept as box'


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        trouble: Of what kind.
        image_id: On which image.
        what: In words.
        path: The file at fault; empty if it is the row of the mask table.
        mask_row: Row of the mask table, -1 if it is the image.
    """

    trouble: Trouble
    image_id: str
    what: str
    path: str = ''
    mask_row: int = -1


@dataclass(frozen=True)
class Folder:
    """Files in one folder, or spread over sub-folders by the first hex digit of the image id.

    The official archives unpack to such sub-folders (``0`` … ``f``, ``train_0`` …, ``train-masks-0`` …).

    Attributes:
        root: The folder.
        parts: Names of its sub-folders, ascending.
    """

    root: str
    parts: tuple[str, ...]

    @classmethod
    def scan(cls, root: Path) -> Folder:
        """Lists the sub-folders, once for all workers."""
        with os.scandir(root) as entries:
            return cls(str(root), tuple(sorted(entry.name for entry in entries if entry.is_dir())))

    def find(self, name: str, image_id: str) -> str | None:
        """The path of a file relative to ``root``, or None."""
        parts = (part for part in self.parts if part[-1:].lower() == image_id[:1].lower())
        for candidate in (name, *(os.path.join(part, name) for part in parts)):
            if os.path.isfile(os.path.join(self.root, candidate)):
                return candidate
        return None

    def place(self, name: str) -> str:
        """Where a file would be."""
        return os.path.join(self.root, name)

    def locate(self, name: str, image_id: str) -> tuple[str, Callable[[], bytes]] | None:
        """The path of a file and how to read it, or None."""
        found = self.find(name, image_id)
        if found is None:
            return None
        path = Path(self.root, found)
        return str(path), path.read_bytes


class MaskSource(Protocol):
    """Where mask PNGs are: a :class:`Folder` or ``MaskZips``."""

    def place(self, name: str) -> str:
        """Where a mask would be, in words."""

    def locate(self, name: str, image_id: str) -> tuple[str, Callable[[], bytes]] | None:
        """Where it is in words, and how to read it; None if it is not there."""


@dataclass(frozen=True, eq=False)
class ImageTask:
    """The table rows of one image.

    Attributes:
        image_id: Its id.
        labels: (I,) int64.
        boxes: (I, 4) float64; xyxy as fractions of the image.
        group_of: (I,) bool.
        annotation_ids: I BoxIDs, '' for none.
        references: I times the mask's PNG path or its encoded text; None without a mask.
        mask_sizes: (I, 2) int64; height and width of an encoded mask, 0 for a path or none.
        mask_rows: (I,) int64; row of the mask table, -1 for none.
    """

    image_id: str
    labels: IntArray
    boxes: FloatArray
    group_of: BoolArray
    annotation_ids: Sequence[str]
    references: Sequence[str | None]
    mask_sizes: IntArray
    mask_rows: IntArray


@dataclass(frozen=True, eq=False)
class ImageResult:
    """What becomes of an :class:`ImageTask`; ``image`` is None if there is no readable image."""

    image_id: str
    image: ImageRow | None
    instances: Instances
    problems: tuple[Problem, ...]
    num_resized: int


@dataclass(frozen=True)
class ImageConverter:
    """Opens images and masks; it travels to the workers.

    Attributes:
        images: Where the images lie.
        masks: Where the mask PNGs lie; None if masks are text.
    """

    images: Folder
    masks: MaskSource | None

    def __call__(self, task: ImageTask) -> ImageResult:
        """Converts one image."""
        image = self._image(task.image_id)
        if isinstance(image, Problem):
            return ImageResult(task.image_id, None, Instances.empty(), (image,), 0)
        boxes = task.boxes * np.array([image.width, image.height, image.width, image.height], dtype=np.float64)
        areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        counts = [b''] * len(task.labels)
        problems, num_resized = [], 0
        for i in np.flatnonzero(task.mask_rows >= 0):
            found = self._mask(task, int(i), image)
            if isinstance(found, Problem):
                problems.append(found)
            else:
                counts[i], areas[i], resized = found
                num_resized += resized
        has_mask = np.array([bool(mask) for mask in counts], dtype=bool)
        instances = Instances(task.labels, boxes, counts, has_mask, task.group_of, areas, task.annotation_ids)
        return ImageResult(task.image_id, image, instances, tuple(problems), num_resized)

    def _image(self, image_id: str) -> ImageRow | Problem:
        """Reads the size from the header, which costs microseconds; the pixels are not looked at."""
        name = self.images.find(image_id + IMAGE_SUFFIX, image_id)
        path = os.path.join(self.images.root, name or image_id + IMAGE_SUFFIX)
        if name is None:
            return Problem(Trouble.IMAGE_MISSING, image_id, 'there is no such image', path)
        try:
            with Image.open(path) as file:
                width, height = file.size
        except UNREADABLE as error:
            return Problem(Trouble.IMAGE_BROKEN, image_id, f'the image cannot be read ({error})', path)
        return ImageRow(image_id, name, width, height)

    def _mask(self, task: ImageTask, i: int, image: ImageRow) -> tuple[bytes, float, bool] | Problem:
        """Counts at image size, number of pixels, and whether it took resizing; or what is wrong."""
        reference, row = task.references[i] or '', int(task.mask_rows[i])
        if self.masks is None:
            return _mask_of_text(reference, task.mask_sizes[i], image, row)
        located = self.masks.locate(reference, task.image_id)
        if located is None:
            place = self.masks.place(reference)
            return Problem(Trouble.MASK_MISSING, image.id, 'there is no such mask', place, row)
        path, read = located
        try:
            mask = read_mask(read())
        except UNREADABLE as error:
            return Problem(Trouble.MASK_BROKEN, image.id, f'the mask cannot be read ({error})', path, row)
        return _at_image_size(mask, image, Problem(Trouble.MASK_EMPTY, image.id, 'the mask is empty', path, row))


def _mask_of_text(text: str, size: IntArray, image: ImageRow, row: int) -> tuple[bytes, float, bool] | Problem:
    empty = Problem(Trouble.MASK_EMPTY, image.id, 'the mask is empty', mask_row=row)
    if not text:
        return empty
    height, width = size.tolist()
    try:
        counts = rle.decode_text(text)
        area = rle.check_counts(counts, height, width)
    except rle.MalformedMaskError as error:
        return Problem(Trouble.MASK_BROKEN, image.id, f'the mask is malformed: {error}', mask_row=row)
    if (height, width) == (image.height, image.width):
        return (counts, float(area), False) if area else empty
    return _at_image_size(PlainMask(rle.decode_mask(counts, height, width)), image, empty)


def _at_image_size(
    mask: PackedMask | PlainMask, image: ImageRow, empty: Problem
) -> tuple[bytes, float, bool] | Problem:
    resize = mask.shape != (image.height, image.width)
    if resize:
        mask = PlainMask(rle.resize_nearest(mask.pixels(), image.height, image.width))
    runs = mask.runs()
    area = int(runs[1::2].sum())
    return (rle.compress_runs(runs), float(area), resize) if area else empty
