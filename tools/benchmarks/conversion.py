"""Times the conversion of Open Images: mask PNGs to run lengths, the tables alone, and the converter with its workers.

Masks are made up: one bit or eight bits a pixel, of the size of the released photographs, with an object of irregular
outline each.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterable, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image
from tqdm import tqdm

from hierseg.converters.open_images import IMAGES_PER_BATCH, IMAGES_PER_TASK, convert_open_images
from hierseg.converters.open_images_masks import read_mask
from hierseg.converters.open_images_tables import TableReader, batches_of, read_piece
from hierseg.converters.open_images_tables import write_tables as sort_tables
from hierseg.converters.options import ConversionOptions, ConversionSummary, OpenImagesFiles
from hierseg.errors import exits_cleanly
from hierseg.files import write_json
from hierseg.formats import run_lengths
from hierseg.machine import describe_machine
from hierseg.taxonomy import Taxonomy

DEPTHS = {'1-bit': '1', '8-bit': 'L'}
CORNERS = ('XMin', 'XMax', 'YMin', 'YMax')
TAXONOMY = Taxonomy.from_edges(['/m/0'], [])


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--size', type=int, nargs=2, default=(1024, 768), metavar=('W', 'H'), help='of the masks')
    parser.add_argument('--masks', type=int, default=40, help='different ones; default: %(default)s')
    parser.add_argument('--images', type=int, default=5000, help='for the converter; default: %(default)s')
    parser.add_argument('--table-images', type=int, default=100_000, help='for the tables alone; default: %(default)s')
    parser.add_argument('--masks-per-image', type=int, default=3, help='default: %(default)s')
    parser.add_argument('--workers', type=int, nargs='+', default=[1, 2], metavar='W', help='default: 1 2')
    parser.add_argument(
        '--repeats', type=int, default=20, help='of each mask, the fastest counts; default: %(default)s'
    )
    parser.add_argument('--seed', type=int, default=0, help='default: %(default)s')
    parser.add_argument('--out', type=Path, help='write the figures as JSON, too')
    args = parser.parse_args()
    if (
        min(*args.size, args.masks, args.images, args.table_images, args.masks_per_image, *args.workers, args.repeats)
        < 1
    ):
        parser.error('all numbers but the seed must be at least 1')
    return args


def draw_masks(count: int, width: int, height: int, seed: int) -> list[np.ndarray]:
    """(height, width) uint8 of 0 and 255; one object in each, a tenth to six tenths of the image wide and high."""
    generator = np.random.default_rng(seed)
    angles = np.linspace(0, 2 * np.pi, 180, endpoint=False)
    masks = []
    for _ in range(count):
        waves = generator.normal(scale=0.12, size=8) / np.sqrt(np.arange(1, 9))
        radii = 1 + waves @ np.cos(np.arange(1, 9)[:, None] * angles + generator.uniform(0, 6, (8, 1)))
        half = generator.uniform(0.05, 0.3, 2) * (width, height)
        centre = generator.uniform(half, np.array([width, height]) - half)
        outline = centre + half * (radii * np.array([np.cos(angles), np.sin(angles)])).T
        mask = np.zeros((height, width), dtype=np.uint8)
        cv2.fillPoly(mask, [np.round(outline).astype(np.int32)], 255)
        masks.append(mask)
    return masks


def encode(mask: np.ndarray, mode: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(mask).convert(mode, dither=Image.Dither.NONE).save(buffer, 'PNG')
    return buffer.getvalue()


def to_run_lengths(content: bytes) -> bytes:
    """What the converter does with a PNG of the size of its image."""
    return run_lengths.compress_runs(read_mask(content).runs())


def time_masks(masks: Sequence[np.ndarray], repeats: int) -> dict[str, dict[str, float]]:
    """Depth → microseconds of processor time a mask, the mean of each one's fastest.

    All steps take turns, so that all see the same machine.
    """
    found = {}
    for depth, mode in DEPTHS.items():
        contents = [encode(mask, mode) for mask in masks]
        decoded = [read_mask(content) for content in contents]
        runs = [mask.runs() for mask in decoded]
        steps: dict[str, tuple[Callable[[Any], Any], Sequence[Any]]] = {
            'cv2.imdecode alone': (
                lambda data: cv2.imdecode(data, cv2.IMREAD_UNCHANGED),
                [np.frombuffer(content, dtype=np.uint8) for content in contents],
            ),
            'PNG to run lengths': (to_run_lengths, contents),
            'of that: decoding': (read_mask, contents),
            'of that: finding runs': (lambda mask: mask.runs(), decoded),
            'of that: compressing runs': (run_lengths.compress_runs, runs),
        }
        fastest = {name: np.full(len(masks), np.inf) for name in steps}
        for _ in range(repeats):
            for name, (act, inputs) in steps.items():
                for at, value in enumerate(inputs):
                    start = time.process_time()
                    act(value)
                    fastest[name][at] = min(fastest[name][at], time.process_time() - start)
        found[depth] = {name: float(seconds.mean()) * 1e6 for name, seconds in fastest.items()}
    return found


def write_tables(folder: Path, ids: Sequence[str], masks_per_image: int) -> OpenImagesFiles:
    """The official tables; the images are to lie beside them."""
    corners = [[number / 100, 0.9, 0.1, 0.9] for number in range(masks_per_image)]
    rows = [(image_id, number) for image_id in ids for number in range(masks_per_image)]
    tables: dict[str, tuple[list[str], Iterable[list[Any]]]] = {
        'boxes': (
            ['ImageID', 'LabelName', *CORNERS, 'IsGroupOf'],
            ([image_id, '/m/0', *corners[number], 0] for image_id, number in rows),
        ),
        'labels': (['ImageID', 'LabelName', 'Confidence'], ([image_id, '/m/0', 1] for image_id in ids)),
        'mask_rows': (
            ['MaskPath', 'ImageID', 'LabelName', 'BoxID', *(f'Box{name}' for name in CORNERS)],
            (
                [mask_name(image_id, number), image_id, '/m/0', f'{number:08x}', *corners[number]]
                for image_id, number in rows
            ),
        ),
    }
    for name, (header, values) in tables.items():
        with (folder / f'{name}.csv').open('w', newline='') as file:
            csv.writer(file).writerows([header, *values])
    return OpenImagesFiles(*(folder / f'{name}.csv' for name in tables), folder / 'images')


def mask_name(image_id: str, number: int) -> str:
    return f'{image_id}_m0_{number:08x}.png'


def image_ids(count: int, seed: int) -> list[str]:
    return [f'{number:016x}' for number in np.random.default_rng(seed).integers(0, 1 << 63, count)]


def write_files(folder: Path, masks: Sequence[np.ndarray], args: argparse.Namespace) -> OpenImagesFiles:
    """The official files; the masks lie in a folder and, packed, beside it."""
    for name in ('images', 'masks'):
        (folder / name).mkdir()
    photo = io.BytesIO()
    Image.new('RGB', tuple(args.size)).save(photo, 'JPEG')
    contents = cycle([encode(mask, '1') for mask in masks])
    ids = image_ids(args.images, args.seed)
    with zipfile.ZipFile(folder / 'masks.zip', 'w', zipfile.ZIP_DEFLATED) as archive:
        for image_id in tqdm(ids, desc='writing files', unit='image'):
            (folder / 'images' / f'{image_id}.jpg').write_bytes(photo.getvalue())
            for number in range(args.masks_per_image):
                name, content = mask_name(image_id, number), next(contents)
                (folder / 'masks' / name).write_bytes(content)
                archive.writestr(name, content)
    return write_tables(folder, ids, args.masks_per_image)


def time_tables(args: argparse.Namespace) -> dict[str, float]:
    """Processor seconds of the tables alone: to sort them by image, and to read them back piece by piece."""
    sizes = {'images_per_batch': IMAGES_PER_BATCH, 'images_per_piece': IMAGES_PER_TASK}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = write_tables(folder, image_ids(args.table_images, args.seed), args.masks_per_image)
        reader = TableReader(TAXONOMY, ConversionOptions(), ConversionSummary())
        start = time.process_time()
        sort_tables(folder / 'sorted', reader, files.tables, **sizes)
        done = time.process_time()
        for first, last in batches_of(args.table_images, IMAGES_PER_BATCH):
            for piece in range(len(batches_of(last - first, IMAGES_PER_TASK))):
                read_piece(folder / 'sorted', first, piece)
        return {'sorting': done - start, 'reading back': time.process_time() - done}


def time_converter(masks: Sequence[np.ndarray], args: argparse.Namespace) -> list[dict[str, Any]]:
    """Seconds of each run from the official files to the store, by the clock and of all processors together."""
    found = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tables = write_files(folder, masks, args)
        sources = {'folder': {'mask_dir': folder / 'masks'}, 'zip': {'mask_zips': [folder / 'masks.zip']}}
        for source, where in sources.items():
            files = OpenImagesFiles(tables.boxes, tables.labels, tables.masks, tables.images, **where)
            for workers in args.workers:
                start, used = time.perf_counter(), processor_seconds()
                convert_open_images(
                    files, TAXONOMY, out=folder / 'store', overwrite=True, workers=workers, progress=True
                )
                seconds = {'seconds': time.perf_counter() - start, 'processor seconds': processor_seconds() - used}
                found.append({'masks from': source, 'workers': workers, **seconds})
    return found


def processor_seconds() -> float:
    """Of this process and its children that have ended."""
    return sum(os.times()[:4])


def print_markdown(document: dict[str, Any]) -> None:
    times = document['microseconds']
    print(f'\n| µs a mask | {" | ".join(times)} |\n|---|{"---|" * len(times)}')
    for step in next(iter(times.values())):
        print(f'| {step} | ' + ' | '.join(f'{found[step]:,.0f}' for found in times.values()) + ' |')
    ratios = [found['PNG to run lengths'] / found['cv2.imdecode alone'] for found in times.values()]
    print('| × cv2.imdecode alone | ' + ' | '.join(f'{ratio:.2f}' for ratio in ratios) + ' |')
    seconds = ', '.join(f'{step} {seconds:.1f} s' for step, seconds in document['tables'].items())
    print(f'\nTables of {document["table_images"]:,} images, processor time: {seconds}')
    print('\n| masks from | workers | s | processor s | images/s | masks/s |\n|---|---|---|---|---|---|')
    for run in document['converter']:
        rate = document['images'] / run['seconds']
        print(
            f'| {run["masks from"]} | {run["workers"]} | {run["seconds"]:.1f} | '
            f'{run["processor seconds"]:.1f} | {rate:,.0f} | '
            f'{rate * document["masks_per_image"]:,.0f} |'
        )
    machine = document['machine']
    print(f'\n{machine["processor"]}, {machine["cores"]} cores, load {machine["load"]}')


@exits_cleanly()
def main() -> None:
    args = parse_arguments()
    cv2.setNumThreads(0)
    masks = draw_masks(args.masks, *args.size, args.seed)
    machine = describe_machine()  # before the benchmark is its load
    document = {
        **{name: value for name, value in vars(args).items() if name != 'out'},
        'machine': machine,
        'microseconds': time_masks(masks, args.repeats),
        'tables': time_tables(args),
        'converter': time_converter(masks, args),
    }
    print_markdown(document)
    if args.out is None:
        print(json.dumps(document))
    else:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(document, args.out)


if __name__ == '__main__':
    main()
