"""Official Open Images files and a COCO file, made by hand."""

from __future__ import annotations

import base64
import csv
import json
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from hierseg.converters.coco import convert_coco
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


SQUARE = [2.0, 1.0, 6.0, 1.0, 6.0, 5.0, 2.0, 5.0]


@pytest.fixture
def document() -> dict[str, Any]:
    """Two images of 12 x 8; cat and dog are animals, car is a vehicle; ids with gaps as in COCO."""
    return {
        'images': [
            {'id': 30, 'file_name': 'b/30.jpg', 'width': 12, 'height': 8},
            {'id': 4, 'file_name': '4.jpg', 'width': 12, 'height': 8},
        ],
        'categories': [
            {'id': 17, 'name': 'cat', 'supercategory': 'animal'},
            {'id': 18, 'name': 'dog', 'supercategory': 'animal'},
            {'id': 3, 'name': 'car', 'supercategory': 'vehicle'},
        ],
        'annotations': [
            {'id': 9, 'image_id': 4, 'category_id': 3, 'bbox': [2, 1, 4, 4], 'segmentation': [SQUARE], 'area': 16.5},
            {'id': 2, 'image_id': 30, 'category_id': 18, 'bbox': [2.13, 1.1, 4.07, 4.3], 'area': 15.0, 'iscrowd': 0},
            {
                'id': 5,
                'image_id': 4,
                'category_id': 17,
                'bbox': [0, 0, 2, 8],
                'iscrowd': 1,
                'segmentation': {'size': [8, 12], 'counts': [0, 16, 80]},
            },
        ],
    }


@pytest.fixture
def convert(tmp_path: Path) -> Callable[..., tuple[Store, ConversionSummary]]:
    for name in ('b/30.jpg', '4.jpg'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new('RGB', (12, 8)).save(tmp_path / name)

    def run(document: Any, taxonomy: Taxonomy | None = None, **options: Any) -> tuple[Store, ConversionSummary]:
        (tmp_path / 'coco.json').write_text(json.dumps(document))
        summary = convert_coco(
            tmp_path / 'coco.json', taxonomy, images=tmp_path, out=tmp_path / 'store', overwrite=True, **options
        )
        return Store.open(tmp_path / 'store'), summary

    return run
