"""Official Open Images files, made by hand."""

from __future__ import annotations

import base64
import csv
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from hierseg.converters.open_images import ConversionOptions, OpenImagesFiles, convert_open_images
from hierseg.converters.options import ConversionSummary
from hierseg.store import Store
from hierseg.taxonomy import Taxonomy

BOX_COLUMNS = ('ImageID', 'LabelName', 'XMin', 'XMax', 'YMin', 'YMax', 'IsGroupOf')
LABEL_COLUMNS = ('ImageID', 'LabelName', 'Confidence')
PNG_COLUMNS = ('MaskPath', 'ImageID', 'LabelName', 'BoxID', 'BoxXMin', 'BoxXMax', 'BoxYMin', 'BoxYMax')
PNG_COLUMNS = (*PNG_COLUMNS, 'PredictedIoU', 'Clicks')
RLE_COLUMNS = ('ImageID', 'LabelName', 'ImageWidth', 'ImageHeight', 'XMin', 'YMin', 'XMax', 'YMax', 'IsGroupOf', 'Mask')


@dataclass
class Split:
    """A split in the making. Images are 20 x 10 pixels; classes are /m/person > /m/man, /m/car."""

    root: Path
    taxonomy: Taxonomy
    boxes: list[Sequence[Any]] = field(default_factory=list)
    labels: list[Sequence[Any]] = field(default_factory=list)
    masks: list[Sequence[Any]] = field(default_factory=list)
    box_columns: Sequence[str] = BOX_COLUMNS
    label_columns: Sequence[str] = LABEL_COLUMNS
    mask_columns: Sequence[str] = PNG_COLUMNS

    def __post_init__(self) -> None:
        for name in ('images', 'masks'):
            (self.root / name).mkdir()

    def add_image(self, image_id: str, *, size: tuple[int, int] = (20, 10), folder: str = '') -> None:
        path = self.root / 'images' / folder / f'{image_id}.jpg'
        path.parent.mkdir(exist_ok=True)
        Image.new('RGB', size).save(path)

    def add_box(self, image_id: str, class_id: str, box: Sequence[Any], *, group_of: Any = 0) -> None:
        """``box`` is x1, x2, y1, y2, the order of the file."""
        self.boxes.append((image_id, class_id, *box, group_of))

    def add_png(
        self,
        image_id: str,
        class_id: str,
        box: Sequence[Any],
        mask: np.ndarray | None,
        *,
        box_id: str = '',
        folder: str = '',
    ) -> Path:
        """A row of the form with paths, and the file if there is a mask."""
        name = f'{image_id}_{class_id[1:].replace("/", "")}_{box_id or len(self.masks)}.png'
        self.masks.append((name, image_id, class_id, box_id, *box, 0.9, '0.1 0.2 1;0.3 0.4 0'))
        path = self.root / 'masks' / folder / name
        if mask is not None:
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(mask.astype(np.uint8) * 255).convert('1').save(path)
        return path

    def add_text(
        self,
        image_id: str,
        class_id: str,
        box: Sequence[Any],
        mask: np.ndarray | None,
        *,
        group_of: Any = 0,
        text: str | None = None,
    ) -> None:
        """A row of the form with encoded masks; ``text`` overrides the mask's."""
        self.mask_columns = RLE_COLUMNS
        height, width = mask.shape if mask is not None else (10, 20)
        if text is None:
            counts = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))['counts'] if mask is not None else b''
            text = base64.b64encode(zlib.compress(counts)).decode() if counts else ''
        x1, x2, y1, y2 = box
        self.masks.append((image_id, class_id, width, height, x1, y1, x2, y2, group_of, text))

    def write(self) -> OpenImagesFiles:
        for name in ('box', 'label', 'mask'):
            with self.path(name).open('w', newline='') as file:
                writer = csv.writer(file, lineterminator='\n')
                writer.writerow(getattr(self, f'{name}_columns'))
                writer.writerows(getattr(self, f'{name}es' if name == 'box' else f'{name}s'))
        return self.files

    def path(self, name: str) -> Path:
        return self.root / f'{name}.csv'

    @property
    def files(self) -> OpenImagesFiles:
        paths = [self.path(name) for name in ('box', 'label', 'mask')]
        return OpenImagesFiles(*paths, self.root / 'images', self.root / 'masks')

    def convert(self, *, workers: int = 1, write: bool = True, **options: Any) -> tuple[Store, ConversionSummary]:
        files = self.write() if write else self.files
        out = self.root / 'store'
        summary = convert_open_images(
            files, self.taxonomy, out=out, options=ConversionOptions(**options), overwrite=True, workers=workers
        )
        return Store.open(out), summary


@pytest.fixture
def split(tmp_path: Path) -> Split:
    ids, names = ['/m/person', '/m/man', '/m/car'], ['Person', 'Man', 'Car']
    return Split(tmp_path, Taxonomy.from_edges(ids, [('/m/man', '/m/person')], names=names))


@pytest.fixture
def rectangle() -> Callable[..., np.ndarray]:
    """A (height, width) mask of a rectangle: x1, x2, y1, y2 in pixels, ends exclusive."""

    def make(x1: int, x2: int, y1: int, y2: int, *, size: tuple[int, int] = (10, 20)) -> np.ndarray:
        mask = np.zeros(size, dtype=bool)
        mask[y1:y2, x1:x2] = True
        return mask

    return make
