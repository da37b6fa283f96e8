"""Official evaluation files of tiny cases, for the tests of metrics, evaluation and tools."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from hierseg.formats.run_lengths import encode_mask
from hierseg.taxonomy import Taxonomy

GOLDENS = Path(__file__).parent / 'goldens'
BOX_HEADER = ['ImageID', 'LabelName', 'XMin', 'XMax', 'YMin', 'YMax', 'IsGroupOf']


def counts_of(mask: np.ndarray) -> bytes:
    """COCO compressed run lengths of an (H, W) mask."""
    return coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))['counts']


def rectangle(x1: int, y1: int, x2: int, y2: int, *, size: tuple[int, int] = (8, 8)) -> np.ndarray:
    """A mask of height × width ``size`` that is True on columns x1 to x2 - 1 of rows y1 to y2 - 1."""
    mask = np.zeros(size, dtype=bool)
    mask[y1:y2, x1:x2] = True
    return mask


def write_csv(path: Path, header: list[str], rows: list[list[Any]]) -> Path:
    with path.open('w', newline='') as file:
        csv.writer(file).writerows([header, *rows])
    return path


def write_case(folder: Path, boxes: Any, masks: Any, labels: Any, detections: Any, *, iou_type: str) -> dict[str, Path]:
    """Writes rows of ``plain_open_images`` as official files; the result are arguments of ``evaluate_files``."""

    def place(row: Any) -> list[Any]:
        x1, y1, x2, y2 = map(float, row['box'])
        return [x1, x2, y1, y2]

    def shape(row: Any) -> list[int]:
        return [row['mask'].shape[1], row['mask'].shape[0]]

    def text(row: Any) -> str:
        return encode_mask(counts_of(row['mask']))

    written = {
        'boxes': write_csv(
            folder / 'boxes.csv', BOX_HEADER, [[r['image'], r['cls'], *place(r), int(r['group'])] for r in boxes]
        ),
        'masks': write_csv(
            folder / 'masks.csv',
            [*BOX_HEADER, 'ImageWidth', 'ImageHeight', 'Mask'],
            [[r['image'], r['cls'], *place(r), int(r['group']), *shape(r), text(r)] for r in masks],
        ),
        'labels': write_csv(
            folder / 'labels.csv',
            ['ImageID', 'LabelName', 'Confidence'],
            [[r['image'], r['cls'], int(r['present'])] for r in labels],
        ),
    }
    if iou_type == 'segm':
        header = ['ImageID', 'ImageWidth', 'ImageHeight', 'LabelName', 'Score', 'Mask']
        rows = [[r['image'], *shape(r), r['cls'], r['score'], text(r)] for r in detections]
    else:
        header = ['ImageID', 'LabelName', 'Score', 'XMin', 'XMax', 'YMin', 'YMax']
        rows = [[r['image'], r['cls'], r['score'], *place(r)] for r in detections]
    return {**written, 'predictions': write_csv(folder / 'predictions.csv', header, rows)}


def write_hierarchy(path: Path, taxonomy: Taxonomy) -> Path:
    """The Open Images hierarchy JSON of a taxonomy: a class with two parents occurs twice."""

    def node(label: int) -> dict[str, Any]:
        below = [node(child) for child in taxonomy.children[label]]
        return {'LabelName': taxonomy.ids[label], **({'Subcategory': below} if below else {})}

    path.write_text(json.dumps({'LabelName': '/m/0bl9f', 'Subcategory': [node(r) for r in taxonomy.root_classes]}))
    return path
