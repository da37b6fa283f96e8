"""Times the Open Images evaluator on made-up files, beside the work that no evaluator can do without.

The floor is measured in the same run: reading the submission with pyarrow, base64 and zlib, and pycocotools'
intersections of the masks that share image and class. Reference evaluator, one core, as many images, boxes and
detections: 561 s.
"""

from __future__ import annotations

import argparse
import binascii
import csv
import io
import json
import multiprocessing
import os
import platform
import resource
import tempfile
import zlib
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from time import perf_counter
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pycocotools
from pyarrow import csv as pa_csv
from pycocotools import mask as coco_mask
from tqdm import tqdm, trange

from hierseg.errors import ConfigError, exits_cleanly
from hierseg.files import write_json
from hierseg.metrics import encode_mask, evaluate_files, read_detections, read_ground_truth
from hierseg.taxonomy import Taxonomy, read_taxonomy

REFERENCE_SECONDS = 561
ROOT_CLASSES, DEEPER_CLASSES = 213, 87
"""As many as the segmentable classes of Open Images."""
SIDES = (300, 225)
DISTINCT_IMAGES = 1500
"""Later images repeat the contents of these under ids of their own."""
OBJECTS, ABSENT = 5, 4
"""Objects and classes verified as absent, of each image."""
FILES = {'boxes': 'boxes.csv', 'labels': 'labels.csv', 'masks': 'masks.csv', 'predictions': 'submission.csv'}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--images', type=int, nargs='+', default=[DISTINCT_IMAGES], help='sizes (default: 1500)')
    parser.add_argument('--detections', type=int, default=100, help='of each image (default: %(default)s)')
    parser.add_argument('--workers', type=int, nargs='+', default=[1, 2], help='processes (default: 1 2)')
    parser.add_argument('--repeats', type=int, default=3, help='the fastest counts (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0, help='default: %(default)s')
    parser.add_argument('--out', type=Path, help='write the figures as JSON, too')
    return parser.parse_args()


def made_up_taxonomy(seed: int) -> Taxonomy:
    ids = [f'/m/{number:03}' for number in range(ROOT_CLASSES + DEEPER_CLASSES)]
    parents = np.random.default_rng(seed).integers(0, ROOT_CLASSES, DEEPER_CLASSES).tolist()
    return Taxonomy.from_edges(ids, [(ids[ROOT_CLASSES + child], ids[parent]) for child, parent in enumerate(parents)])


def mask_of(generator: np.random.Generator, centre: np.ndarray, radii: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """An ellipse with a wavy outline; (H, W) uint8, at least one pixel."""
    height, width = size
    angles = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    waves = 1 + 0.08 * np.sin(angles * generator.integers(3, 9) + generator.uniform(0, 6))
    waves += 0.03 * generator.standard_normal(len(angles))
    outline = centre + radii * np.stack([np.cos(angles), np.sin(angles)], axis=1) * waves[:, None]
    mask = np.zeros((height, width), dtype=np.uint8)
    cv2.fillPoly(mask, [outline.round().astype(np.int32)], 1)
    mask[np.clip(int(centre[1]), 0, height - 1), np.clip(int(centre[0]), 0, width - 1)] = 1
    return mask


def text_of(mask: np.ndarray) -> str:
    return encode_mask(coco_mask.encode(cv2.transpose(mask).T)['counts'])


class Content:
    """The rows of one image, without its id."""

    def __init__(self, number: int, *, detections: int, seed: int) -> None:
        generator = np.random.default_rng((seed, number))
        width, height = SIDES if number % 2 else SIDES[::-1]
        frequencies = 1 / np.arange(1, ROOT_CLASSES + DEEPER_CLASSES + 1)
        ids = [f'/m/{label:03}' for label in range(len(frequencies))]
        draws = generator.choice(ids, size=OBJECTS + ABSENT, p=frequencies / frequencies.sum(), replace=False).tolist()
        classes, self.absent = draws[:OBJECTS], draws[OBJECTS:]
        centres = generator.uniform(0.15, 0.85, (OBJECTS, 2)) * [width, height]
        radii = generator.uniform(12, 80, (OBJECTS, 2))
        self.objects: list[list[Any]] = []
        for class_id, centre, radius in zip(classes, centres, radii, strict=True):
            mask = mask_of(generator, centre, radius, (height, width))
            columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
            box = [columns[0] / width, (columns[-1] + 1) / width, rows[0] / height, (rows[-1] + 1) / height]
            # Every tenth object has a box alone, and of those some are groups.
            number_of_object = number * OBJECTS + len(self.objects)
            text = '' if number_of_object % 10 == 0 else text_of(mask)
            self.objects.append([class_id, *box, int(number_of_object % 40 == 0), width, height, text])
        # Half of the detections name the class of their object, a quarter one that is absent, the rest any.
        chosen = generator.integers(0, OBJECTS, detections)
        kinds = generator.choice(3, size=detections, p=[0.5, 0.25, 0.25])
        self.detections: list[list[Any]] = []
        for at, kind in zip(chosen.tolist(), kinds.tolist(), strict=True):
            centre = centres[at] + generator.normal(0, 0.25, 2) * radii[at]
            mask = mask_of(generator, centre, radii[at] * generator.uniform(0.7, 1.3, 2), (height, width))
            class_id = [classes[at], generator.choice(self.absent), generator.choice(ids)][kind]
            self.detections.append([width, height, class_id, round(float(generator.random()), 6), text_of(mask)])


def write_files(folder: Path, images: int, args: argparse.Namespace) -> dict[str, Path]:
    """Official files of so many images; ground truth as released."""
    distinct = min(images, DISTINCT_IMAGES)
    contents = [Content(i, detections=args.detections, seed=args.seed) for i in trange(distinct, desc='drawing')]
    paths = {name: folder / file for name, file in FILES.items()}
    box_header = ['ImageID', 'LabelName', 'XMin', 'XMax', 'YMin', 'YMax', 'IsGroupOf']
    headers = {
        'boxes': box_header,
        'labels': ['ImageID', 'LabelName', 'Confidence'],
        'masks': [*box_header, 'ImageWidth', 'ImageHeight', 'Mask'],
        'predictions': ['ImageID', 'ImageWidth', 'ImageHeight', 'LabelName', 'Score', 'Mask'],
    }

    def rows_of(name: str, image_id: str, content: Content) -> Iterator[list[Any]]:
        if name == 'labels':
            yield from ([image_id, row[0], 1] for row in content.objects)
            yield from ([image_id, class_id, 0] for class_id in content.absent)
        elif name == 'predictions':
            yield from ([image_id, *row] for row in content.detections)
        else:
            columns = slice(None, 6) if name == 'boxes' else slice(None)
            yield from ([image_id, *row[columns]] for row in content.objects if name == 'boxes' or row[-1])

    for name, path in paths.items():
        with path.open('w', newline='') as file:
            writer = csv.writer(file)
            writer.writerow(headers[name])
            for number in trange(images, desc=f'writing {path.name}'):
                writer.writerows(rows_of(name, f'{number:016x}', contents[number % distinct]))
    return paths
