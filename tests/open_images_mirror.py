"""A mirror of Open Images with six validation images, in the layout of the Challenge 2019.

Classes: Animal › Dog, Cat, Teddy bear; Toy › Teddy bear; Car. What the tables say, by image:

| image | boxes | masks | labels |
|---|---|---|---|
| 0 | Dog | Dog | Dog present |
| 1 | Cat | | |
| 2 | Animal | | |
| 3 | Teddy bear | Teddy bear | |
| 4 | Car | Car | |
| 5 | | | Dog absent |
"""

from __future__ import annotations

import io
import json
import zipfile

import numpy as np
from mirror import Mirror, google_hash
from PIL import Image

FOLDER = 'challenge_2019'
TABLE = f'{FOLDER}/challenge-2019-validation-segmentation'
HIERARCHY = f'{FOLDER}/challenge-2019-label300-segmentable-hierarchy.json'
CLASSES = f'{FOLDER}/challenge-2019-classes-description-segmentable.csv'
TABLES = (HIERARCHY, CLASSES, f'{TABLE}-bbox.csv', f'{TABLE}-labels.csv', f'{TABLE}-masks.csv')
# The first digit says in which archive masks are; images 0 and 3 share one.
IMAGE_IDS = tuple(f'{digit}{number:015x}' for number, digit in enumerate('0120fe'))
IMAGES = tuple(f'validation/{image_id}.jpg' for image_id in IMAGE_IDS)


def archive(digit: str) -> str:
    return f'{FOLDER}/validation-masks/challenge-2019-validation-masks-{digit}.zip'


ARCHIVES = tuple(map(archive, '0123456789abcdef'))


def open_images_mirror() -> Mirror:
    """Checksums are published as Google does."""
    mirror = Mirror()
    mirror.headers = google_hash
    node = {name: {'LabelName': f'/m/{name}'} for name in ('dog', 'cat', 'teddy', 'car')}
    animal = {'LabelName': '/m/animal', 'Subcategory': [node['dog'], node['cat'], node['teddy']]}
    toy = {'LabelName': '/m/toy', 'Subcategory': [node['teddy']]}
    mirror.files[HIERARCHY] = json.dumps({'LabelName': '/m/0bl9f', 'Subcategory': [animal, toy, node['car']]}).encode()
    mirror.files[CLASSES] = b'/m/animal,Animal\n/m/dog,Dog\n/m/cat,Cat\n/m/teddy,Teddy bear\n/m/toy,Toy\n/m/car,Car\n'
    boxes = [
        f'{IMAGE_IDS[i]},/m/{name},0,0.5,0,0.5,0' for i, name in enumerate(['dog', 'cat', 'animal', 'teddy', 'car'])
    ]
    masks = {i: f'{IMAGE_IDS[i]}_m{name}_b{i}.png' for i, name in [(0, 'dog'), (3, 'teddy'), (4, 'car')]}
    mask_rows = [
        f'{name},{IMAGE_IDS[i]},/m/{name.split("_")[1][1:]},b{i},0,0.5,0,0.5,0.9,' for i, name in masks.items()
    ]
    labels = [f'{IMAGE_IDS[0]},/m/dog,1', f'{IMAGE_IDS[5]},/m/dog,0']
    headers = {
        'bbox': ('ImageID,LabelName,XMin,XMax,YMin,YMax,IsGroupOf', boxes),
        'labels': ('ImageID,LabelName,Confidence', labels),
        'masks': ('MaskPath,ImageID,LabelName,BoxID,BoxXMin,BoxXMax,BoxYMin,BoxYMax,PredictedIoU,Clicks', mask_rows),
    }
    for kind, (header, rows) in headers.items():
        mirror.files[f'{TABLE}-{kind}.csv'] = ('\n'.join([header, *rows]) + '\n').encode()
    for digit in '0123456789abcdef':
        mirror.files[archive(digit)] = _zip([name for name in masks.values() if name[0] == digit])
    generator = np.random.default_rng(0)
    for path in IMAGES:
        mirror.files[path] = _encoded(generator.integers(0, 256, (32, 32, 3), dtype=np.uint8), 'JPEG')
    return mirror


def _encoded(pixels: np.ndarray, kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def _zip(names: list[str]) -> bytes:
    mask = np.zeros((32, 32), dtype=bool)
    mask[:16, :16] = True
    file = io.BytesIO()
    with zipfile.ZipFile(file, 'w') as archive_file:
        for name in names:
            archive_file.writestr(name, _encoded(mask, 'PNG'))
    return file.getvalue()
