"""Entries of data: taxonomies, official tables, pictures, archives, COCO, stores, work of a killed run, scores."""

from __future__ import annotations

import csv
import json
import os
import shutil
import zipfile
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import cv2
import numpy as np
import yaml
from PIL import Image

from chaos.entries import Case, Entry
from hierseg.converters import open_images
from hierseg.converters.coco import convert_coco, write_coco
from hierseg.converters.open_images import convert_open_images
from hierseg.converters.options import ConversionOptions, OpenImagesFiles
from hierseg.errors import StoreError
from hierseg.evaluation.result_keys import keys_of_file
from hierseg.metrics import evaluate_files
from hierseg.prediction.inputs import expand, read_shot
from hierseg.store import Store
from hierseg.store.__main__ import check_store
from hierseg.synthetic import AnnotationRates, SplitOptions, SynthesisOptions, synthesize
from hierseg.synthetic.options import read_counts
from hierseg.taxonomy import Taxonomy, read_taxonomy

TAXONOMY = Taxonomy.from_edges(
    ['/m/toy', '/m/animal', '/m/bear', '/m/teddy', '/m/car'],
    [('/m/bear', '/m/animal'), ('/m/teddy', '/m/toy'), ('/m/teddy', '/m/bear')],
    names=['Toy', 'Animal', 'Bear', 'Teddy', 'Car'],
)
HIERARCHY, CLASSES = 'hierarchy.json', 'classes.csv'
TABLES = {'boxes': 'bbox', 'labels': 'labels', 'masks': 'masks'}


@cache
def official() -> Path:
    """The official files of a few small images, in a temporary folder; made once a process."""
    folder = Path(mkdtemp(prefix='hierseg-chaos-')) / 'data'
    rates = AnnotationRates(negatives=2)
    splits = tuple(SplitOptions(name, 6, 3.0, rates) for name in ('train', 'validation'))
    synthesize(folder, SynthesisOptions(splits, size=64), taxonomy=TAXONOMY)
    for path in folder.glob('challenge-2019-*'):
        name = path.name.removeprefix('challenge-2019-').replace('-segmentation-', '-')
        path.rename(folder / name)
    (folder / 'label-hierarchy.json').rename(folder / HIERARCHY)
    (folder / 'classes-description.csv').rename(folder / CLASSES)
    return folder


def _copy_split(folder: Path, *, split: str = 'train', masks: str = 'masks') -> None:
    data = official()
    for name, table in (TABLES | {'masks': masks}).items():
        shutil.copy(data / f'{split}-{table}.csv', folder / f'{name}.csv')
    for name in (HIERARCHY, CLASSES):
        shutil.copy(data / name, folder / name)
    shutil.copytree(data / split, folder / 'images')
    if masks == 'masks':
        shutil.copytree(data / f'{split}-masks', folder / 'pngs')


def make_zips(folder: Path) -> None:
    """The split with its mask PNGs in an archive."""
    _copy_split(folder)
    with zipfile.ZipFile(folder / 'pngs.zip', 'w') as archive:
        for path in sorted((folder / 'pngs').iterdir()):
            archive.writestr(zipfile.ZipInfo(path.name), path.read_bytes(), zipfile.ZIP_DEFLATED)
    shutil.rmtree(folder / 'pngs')


def split_files(folder: Path) -> OpenImagesFiles:
    """The input of a conversion."""
    tables = [folder / f'{name}.csv' for name in TABLES]
    pngs, zips = folder / 'pngs', folder / 'pngs.zip'
    return OpenImagesFiles(
        *tables, folder / 'images', pngs if pngs.exists() else None, (zips,) if os.path.lexists(zips) else ()
    )


def contents(store: Store, *, masks: bool = True) -> Any:
    """All that a training or an evaluation takes from a store."""
    rows = range(len(store))
    instances = [store.instances(row) for row in rows]
    if not masks:
        instances = [replace(some, masks=[]) for some in instances]
    return [
        store.taxonomy.to_json(),
        store.orientation,
        [(store.image(row), instances[row], store.verified(row), store.not_exhaustive(row)) for row in rows],
        [store.row_of(store.image(row).id) for row in rows],
        store.labels,
        store.all_boxes(),
        store.num_instances_per_image,
    ]


def convert_split(case: Case) -> Any:
    """Converts official files to a store, of a taxonomy that is not damaged."""
    lenient = case.lenient
    options = ConversionOptions(skip_unknown_classes=lenient, skip_bad_rows=lenient, skip_broken=lenient)
    out = case.folder / 'store'
    convert_open_images(split_files(case.folder), TAXONOMY, out=out, options=options)
    return contents(Store.open(out))


def make_taxonomies(folder: Path) -> None:
    """A taxonomy in every form that is read, and class lists."""
    for name in (HIERARCHY, CLASSES):
        shutil.copy(official() / name, folder / name)
    ids, names = TAXONOMY.ids, TAXONOMY.names
    parents = {ids[label]: [ids[parent] for parent in TAXONOMY.parents[label]] for label in range(len(ids))}
    rows = [(child, parent, names[ids.index(child)]) for child in ids for parent in parents[child] or ['']]
    with (folder / 'edges.csv').open('w', newline='') as file:
        csv.writer(file, lineterminator='\n').writerows([('child', 'parent', 'name'), *rows])
    (folder / 'edges.yaml').write_text(yaml.safe_dump({child: above or None for child, above in parents.items()}))
    (folder / 'hierseg.json').write_text(json.dumps(TAXONOMY.to_json()))
    categories = [{'id': 7, 'name': 'bear', 'supercategory': 'animal'}, {'id': 9, 'name': 'car', 'supercategory': ''}]
    (folder / 'coco.json').write_text(json.dumps({'categories': categories, 'images': [], 'annotations': []}))
    (folder / 'counts.csv').write_text('class,count\n' + ''.join(f'{name},{at + 1}\n' for at, name in enumerate(ids)))


def read_taxonomies(case: Case) -> Any:
    """Reads all forms; the honest ones cost microseconds."""
    folder, found = case.folder, []
    for name in ('hierarchy.json', 'edges.yaml', 'edges.csv', 'hierseg.json', 'coco.json'):
        classes = folder / CLASSES if name in ('hierarchy.json', 'edges.yaml') else None
        taxonomy = read_taxonomy(folder / name, classes=classes)
        arrays = taxonomy.arrays
        found.append((taxonomy.to_json(), arrays.ancestor_mask, str(taxonomy)[:10_000]))
    return [*found, read_counts(folder / 'counts.csv', TAXONOMY)]


def make_coco(folder: Path) -> None:
    """A COCO file of a store with polygons, run lengths, crowds, and one as LVIS has it."""
    store = store_of('train', folder)
    write_coco(store, folder / 'coco.json')
    shutil.rmtree(store.path)
    document = json.loads((folder / 'coco.json').read_text())
    for entry in document['annotations'][::2]:
        x, y, width, height = entry['bbox']
        entry['segmentation'] = [[x, y, x + width, y, x + width, y + height, x, y + height]]
        entry.pop('bbox_xyxy', None)
    document['annotations'][0]['iscrowd'] = 1
    plain = {key: value for key, value in document.items() if key != 'taxonomy'}
    (folder / 'coco.json').write_text(json.dumps(plain))
    numbers = [category['id'] for category in document['categories']]
    for image in document['images']:
        image['neg_category_ids'], image['not_exhaustive_category_ids'] = [numbers[-1]], [numbers[0]]
        image['coco_url'] = 'http://images/' + image['file_name']
    for category in document['categories']:
        category['frequency'], category['synset'] = 'c', f'{category["name"].lower()}.n.01'
    (folder / 'lvis.json').write_text(json.dumps(document))


def read_coco(case: Case) -> Any:
    """Converts both files to stores."""
    found = []
    for name in ('coco', 'lvis'):
        out = case.folder / name
        mode = 'lenient' if case.lenient else 'default'
        convert_coco(case.folder / f'{name}.json', images=case.folder / 'images', out=out, mode=mode)
        found.append(contents(Store.open(out)))
    return found


def store_of(split: str, folder: Path) -> Store:
    """Converts an official split, with its images in ``folder``."""
    _copy_split(folder, split=split)
    out = folder / 'store'
    convert_open_images(split_files(folder), TAXONOMY, out=out)
    for name in (*(f'{name}.csv' for name in TABLES), HIERARCHY, CLASSES):
        (folder / name).unlink()
    shutil.rmtree(folder / 'pngs')
    return Store.open(out)


def make_store(folder: Path) -> None:
    """A store with all tables, of the file that LVIS would give."""
    make_coco(folder)
    convert_coco(folder / 'lvis.json', images=folder / 'images', out=folder / 'store')
    shutil.rmtree(folder / 'images')
    for name in ('coco', 'lvis'):
        (folder / f'{name}.json').unlink()


def read_store(case: Case) -> Any:
    """Reads all images, as a training does. What masks are is the check's to find: only it compares their checksums."""
    store = Store.open(case.folder / 'store')
    return contents(store, masks=False), store.document('coco.json')


def check(case: Case) -> Any:
    """Checks it, as ``python -m hierseg.store --all`` does."""
    store = Store.open(case.folder / 'store')
    report = check_store(store, masks=None)
    if report.damage:
        raise StoreError(str(report))
    return contents(store)


class _Stopped(Exception):
    """Ends a conversion after some images."""


def make_work(folder: Path) -> None:
    """A split of which a conversion was stopped when some of its batches were done."""
    make_zips(folder)
    # Where the entry will lie: the conversion remembers its folders.
    place = folder.with_suffix('')
    folder.rename(place)
    convert, seen = open_images.ImageConverter.__call__, []

    def counted(self: Any, task: Any) -> Any:
        seen.append(task)
        if len(seen) > 4:
            raise _Stopped
        return convert(self, task)

    open_images.ImageConverter.__call__ = counted  # type: ignore[method-assign]
    try:
        _go_on(place, place / 'store')
    except _Stopped:
        pass
    finally:
        open_images.ImageConverter.__call__ = convert  # type: ignore[method-assign]
        place.rename(folder)


def _go_on(inputs: Path, out: Path) -> Store:
    before = open_images.IMAGES_PER_BATCH, open_images.IMAGES_PER_TASK
    open_images.IMAGES_PER_BATCH, open_images.IMAGES_PER_TASK = 2, 1
    try:
        convert_open_images(split_files(inputs), TAXONOMY, out=out)
    finally:
        open_images.IMAGES_PER_BATCH, open_images.IMAGES_PER_TASK = before
    return Store.open(out)


def read_work(case: Case) -> Any:
    """Goes on with the conversion; its input is not damaged."""
    return contents(_go_on(case.corpus, case.folder / 'store'))


def read_images(case: Case) -> Any:
    """Opens pictures as a prediction does, and converts a split with them."""
    shots = [read_shot(name, way) for name in expand([case.folder / 'images']) for way in ('stored', 'turned')]
    return [shot.image for shot in shots], convert_split(case)


def make_pictures(folder: Path) -> None:
    """A picture in every format."""
    (folder / 'images').mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (64, 80, 3), dtype=np.uint8)
    for ending in ('jpg', 'png', 'webp', 'bmp', 'tif', 'ppm', 'jp2'):
        cv2.imwrite(str(folder / f'images/0.{ending}'), pixels)
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(pixels).save(folder / 'images/turned.jpg', exif=turned)
    Image.fromarray(pixels).convert('P').save(folder / 'images/palette.png')


def read_pictures(case: Case) -> Any:
    """Opens pictures as a prediction does."""
    names = expand([case.folder / 'images'])
    return [read_shot(name, way).image for name in names for way in ('stored', 'turned')]


MASK_COLUMNS = ('ImageID', 'ImageWidth', 'ImageHeight', 'LabelName', 'Score', 'Mask')
BOX_COLUMNS = ('ImageID', 'LabelName', 'Score', 'XMin', 'XMax', 'YMin', 'YMax')


def make_submissions(folder: Path) -> None:
    """Ground truth, and submissions of masks and boxes in each form."""
    _copy_split(folder, split='validation', masks='masks-rle')
    with (folder / 'masks.csv').open(newline='') as file:
        rows = list(csv.DictReader(file))
    for name, columns in (('segm', MASK_COLUMNS), ('bbox', BOX_COLUMNS)):
        with (folder / f'{name}.csv').open('w', newline='') as file:
            writer = csv.DictWriter(file, columns, extrasaction='ignore', lineterminator='\n')
            writer.writeheader()
            writer.writerows([row | {'Score': round(0.9 - at / 100, 2)} for at, row in enumerate(rows)])
    texts: dict[tuple[str, ...], list[str]] = {}
    for at, row in enumerate(rows):
        key = row['ImageID'], row['ImageWidth'], row['ImageHeight']
        texts.setdefault(key, []).append(f'{row["LabelName"]} {0.9 - at / 100:.2f} {row["Mask"]}')
    with (folder / 'strings.csv').open('w', newline='') as file:
        writer = csv.writer(file, lineterminator='\n')
        writer.writerow(('ImageID', 'ImageWidth', 'ImageHeight', 'PredictionString'))
        writer.writerows([*key, ' '.join(text)] for key, text in texts.items())
    scratch = folder / 'scratch'
    scratch.mkdir()
    write_coco(store_of('validation', scratch), folder / 'coco.json')
    shutil.rmtree(scratch)
    document = json.loads((folder / 'coco.json').read_text())
    keys = ('image_id', 'category_id', 'bbox', 'segmentation')
    entries = [{key: entry[key] for key in keys if key in entry} for entry in document['annotations']]
    found = [entry | {'score': 0.5} for entry in entries if entry.get('segmentation')]
    found[0]['class_scores'] = {str(found[0]['category_id']): 0.5}
    (folder / 'results.json').write_text(json.dumps(found))
    shutil.rmtree(folder / 'images')


def read_submissions(case: Case) -> Any:
    """Scores each by the protocol."""
    folder = case.folder
    truth = {'boxes': folder / 'boxes.csv', 'labels': folder / 'labels.csv', 'masks': folder / 'masks.csv'}
    keys = keys_of_file(folder / 'coco.json', TAXONOMY)
    found = []
    for name, kind in (
        ('segm.csv', 'segm'), ('bbox.csv', 'bbox'), ('strings.csv', 'segm'), ('results.json', 'segm'),
        ('results.json', 'bbox'),
    ):  # fmt: skip
        result = evaluate_files(**truth, predictions=folder / name, taxonomy=TAXONOMY, iou_type=kind, keys=keys)
        found.append(result.to_json(TAXONOMY.ids))
    return found


SPLIT_TABLES = ('boxes.csv', 'labels.csv', 'masks.csv')
STORE_FILES = ('store/**/*', 'store')
ENTRIES = (
    Entry('taxonomies', make_taxonomies, read_taxonomies, ('*.json', '*.yaml', 'edges.csv')),
    Entry('class-lists', make_taxonomies, read_taxonomies, (CLASSES, 'counts.csv')),
    Entry('tables', _copy_split, convert_split, SPLIT_TABLES),
    Entry('encoded-tables', lambda folder: _copy_split(folder, split='validation', masks='masks-rle'), convert_split,
          SPLIT_TABLES),
    Entry('masks', _copy_split, convert_split, ('pngs/*',)),
    Entry('zips', make_zips, convert_split, ('pngs.zip',)),
    Entry('images', _copy_split, read_images, ('images/*',)),
    Entry('pictures', make_pictures, read_pictures, ('images/*',)),
    Entry('coco', make_coco, read_coco, ('coco.json',)),
    Entry('lvis', make_coco, read_coco, ('lvis.json',)),
    Entry('stores', make_store, read_store, STORE_FILES, sealed=True),
    Entry('store-check', make_store, check, STORE_FILES, sealed=True),
    Entry('work', make_work, read_work, ('.store*/**/*',), sealed=True),
    Entry('submissions', make_submissions, read_submissions, ('segm.csv', 'bbox.csv', 'strings.csv')),
    Entry('results', make_submissions, read_submissions, ('results.json', 'coco.json')),
    Entry('ground-truth', make_submissions, read_submissions, SPLIT_TABLES),
)  # fmt: skip
