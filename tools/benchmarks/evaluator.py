"""Times the Open Images evaluator on made-up files, beside the work that no evaluator can do without.

The floor is measured in the same run, at the smallest size: reading the files with pyarrow, base64 and zlib, and
pycocotools' intersections of masks of one image and class. The reference evaluator took 561 s on one core for as many
images, boxes and detections as are the default here.

With ``--system`` it times ``SystemMetric`` instead, which takes predictions as a model gives them: processing images
one by one, then everything that is computed of all. ``--against`` times other checkouts on the same predictions.
"""

from __future__ import annotations

import argparse
import binascii
import csv
import json
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import cv2
import numpy as np
import pyarrow.compute as pc
from pyarrow import csv as pa_csv
from pycocotools import mask as coco_mask
from tqdm import trange

from hierseg.errors import ConfigError, exits_cleanly
from hierseg.files import write_json
from hierseg.formats.run_lengths import text_of_counts
from hierseg.machine import describe_machine
from hierseg.metrics import evaluate_files
from hierseg.store import ImageRow, Instances, StoreWriter
from hierseg.taxonomy import Taxonomy

REFERENCE_SECONDS, REFERENCE_IMAGES = 561, 1500
ROOT_CLASSES, DEEPER_CLASSES = 213, 87
"""As many as the segmentable classes of Open Images."""
SIDES = (300, 225)
DISTINCT_IMAGES = REFERENCE_IMAGES
"""Later images repeat the contents of these under ids of their own."""
OBJECTS, ABSENT = 5, 4
"""Objects and classes verified as absent, of each image."""
BOX_HEADER = ['ImageID', 'LabelName', 'XMin', 'XMax', 'YMin', 'YMax', 'IsGroupOf']
HEADERS = {
    'boxes': BOX_HEADER,
    'labels': ['ImageID', 'LabelName', 'Confidence'],
    'masks': [*BOX_HEADER, 'ImageWidth', 'ImageHeight', 'Mask'],
    'predictions': ['ImageID', 'ImageWidth', 'ImageHeight', 'LabelName', 'Score', 'Mask'],
}
MASKED = ('predictions', 'masks')
SYSTEM_IMAGES = 200
SYSTEM_RUN = """
import sys
from json import dumps
from pathlib import Path
from time import process_time

import numpy as np
import torch

from hierseg.evaluation import SystemMetric

metric, seconds = SystemMetric(sys.argv[1] + '/store'), {'processing': 0.0}
paths = sorted(Path(sys.argv[1]).glob('*.npz'))
for path in paths:
    found = dict(np.load(path))
    count, height, width = found.pop('shape')
    found['masks'] = np.unpackbits(found['masks'], count=count * height * width).reshape(count, height, width)
    instances = {name: torch.from_numpy(values) for name, values in found.items()}
    instances['masks'] = instances['masks'].bool()
    start = process_time()
    metric.process(None, [{'img_id': path.stem, 'pred_instances': instances}])
    seconds['processing'] += process_time() - start
start = process_time()
scores = metric.evaluate(len(paths))
seconds['all images'] = process_time() - start
print('FOUND' + dumps({'seconds': seconds, 'scores': scores}))
"""
"""Stands alone, so that it runs in any checkout; its argument is the folder of :func:`write_system`."""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--images', type=int, nargs='+', help=f'sizes (default: 1500; with --system {SYSTEM_IMAGES})')
    parser.add_argument('--detections', type=int, default=100, help='of each image (default: %(default)s)')
    parser.add_argument('--workers', type=int, nargs='+', default=[1, 2], help='processes (default: 1 2)')
    parser.add_argument('--repeats', type=int, default=3, help='the fastest counts (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0, help='default: %(default)s')
    parser.add_argument('--system', action='store_true', help='time SystemMetric instead of the evaluator of files')
    parser.add_argument(
        '--against', type=Path, nargs='+', default=[], metavar='DIR', help='with --system: other checkouts to time, too'
    )
    parser.add_argument('--out', type=Path, help='write the figures as JSON, too')
    args = parser.parse_args()
    args.images = args.images or [SYSTEM_IMAGES if args.system else REFERENCE_IMAGES]
    return args


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
    return text_of_counts(coco_mask.encode(cv2.transpose(mask).T)['counts'])


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
            extent = [columns[0] / width, (columns[-1] + 1) / width, rows[0] / height, (rows[-1] + 1) / height]
            # Every tenth object has a box alone, and of those some are groups.
            number_of_object = number * OBJECTS + len(self.objects)
            text = '' if number_of_object % 10 == 0 else text_of(mask)
            self.objects.append([class_id, *extent, int(number_of_object % 40 == 0), width, height, text])
        # Half of the detections name the class of their object, a quarter one that is absent, the rest any.
        chosen = generator.integers(0, OBJECTS, detections)
        kinds = generator.choice(3, size=detections, p=[0.5, 0.25, 0.25])
        self.detections: list[list[Any]] = []
        for at, kind in zip(chosen.tolist(), kinds.tolist(), strict=True):
            centre = centres[at] + generator.normal(0, 0.25, 2) * radii[at]
            mask = mask_of(generator, centre, radii[at] * generator.uniform(0.7, 1.3, 2), (height, width))
            class_id = [classes[at], generator.choice(self.absent), generator.choice(ids)][kind]
            self.detections.append([width, height, class_id, round(float(generator.random()), 6), text_of(mask)])


def write_files(folder: Path, images: int, *, detections: int, seed: int) -> None:
    """Official files of so many images; ground truth as released."""
    distinct = min(images, DISTINCT_IMAGES)
    contents = [
        Content(number, detections=detections, seed=seed) for number in trange(distinct, desc='drawing', disable=None)
    ]

    def rows_of(name: str, image_id: str, content: Content) -> Iterator[list[Any]]:
        if name == 'labels':
            yield from ([image_id, row[0], 1] for row in content.objects)
            yield from ([image_id, class_id, 0] for class_id in content.absent)
        elif name == 'predictions':
            yield from ([image_id, *row] for row in content.detections)
        else:
            columns = slice(None, 6) if name == 'boxes' else slice(None)
            yield from ([image_id, *row[columns]] for row in content.objects if name == 'boxes' or row[-1])

    for name, header in HEADERS.items():
        with (folder / f'{name}.csv').open('w', newline='') as file:
            writer = csv.writer(file)
            writer.writerow(header)
            for number in trange(images, desc=f'writing {name}', disable=None):
                writer.writerows(rows_of(name, f'{number:016x}', contents[number % distinct]))


def evaluate(folder: Path, *, workers: int, seed: int) -> dict[str, Any]:
    """Seconds, by the clock and of processors, and memory of one evaluation, and its result."""
    start, before = perf_counter(), process_time()
    result = evaluate_files(
        folder / 'boxes.csv',
        folder / 'labels.csv',
        masks=folder / 'masks.csv',
        predictions=folder / 'predictions.csv',
        taxonomy=made_up_taxonomy(seed),
        workers=workers,
    )
    seconds = perf_counter() - start
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    # A bound, for pages that processes share count in each.
    peak = own.ru_maxrss + (workers * children.ru_maxrss if workers > 1 else 0)
    processor = sum(usage.ru_utime + usage.ru_stime for usage in (own, children)) - before
    mean = result.mean_average_precision
    return {'seconds': seconds, 'processor_seconds': processor, 'peak_mb': peak / 1024, 'mAP': mean}


def floor(folder: Path) -> dict[str, Any]:
    """Seconds of reading, decoding and intersecting alone; what lies between them is not counted."""
    seconds: dict[str, float] = {}
    processor = 0.0

    def timed(what: str, act: Callable[[], Any]) -> Any:
        nonlocal processor
        start, before = perf_counter(), process_time()
        result = act()
        seconds[what] = seconds.get(what, 0.0) + perf_counter() - start
        processor += process_time() - before
        return result

    read = pa_csv.ReadOptions(use_threads=False)
    groups: dict[Any, tuple[list[Any], list[Any]]] = defaultdict(lambda: ([], []))
    for name in HEADERS:
        content = timed('reading', lambda name=name: pa_csv.read_csv(folder / f'{name}.csv', read_options=read))
        if name not in MASKED:
            continue
        content = content.filter(pc.not_equal(content['Mask'], ''))
        texts = content['Mask'].to_pylist()
        masks = timed('decoding', lambda texts=texts: [zlib.decompress(binascii.a2b_base64(text)) for text in texts])
        columns = (content[column].to_pylist() for column in ('ImageID', 'LabelName', 'ImageHeight', 'ImageWidth'))
        for image, label, height, width, mask in zip(*columns, masks, strict=True):
            groups[image, label][MASKED.index(name)].append({'size': (height, width), 'counts': mask})
    pairs = [(found, wanted) for found, wanted in groups.values() if found and wanted]
    timed('intersecting', lambda: [coco_mask.iou(found, wanted, [1] * len(wanted)) for found, wanted in pairs])
    return {'seconds': sum(seconds.values()), 'processor_seconds': processor, 'parts': seconds}


def in_process(act: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """The result of a call in a process of its own, so that memory is that of the call."""
    context = multiprocessing.get_context('fork')
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=lambda: sender.send(act(*arguments, **options)))
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        raise ConfigError(f'{act.__name__} failed in its process', fix='See its message above.') from None
    finally:
        process.join()


def measure(folder: Path, images: int, args: argparse.Namespace) -> dict[str, Any]:
    """The fastest of the repeats at one size; evaluations and floor take turns, so that all see the same machine."""
    in_process(write_files, folder, images, detections=args.detections, seed=args.seed)
    figures: dict[str, Any] = {'images': images, 'detections': images * args.detections, 'workers': {}}
    for _ in range(args.repeats):
        if images == min(args.images):
            found = in_process(floor, folder)
            figures['floor'] = min(found, figures.get('floor', found), key=lambda one: one['seconds'])
        for workers in args.workers:
            found = in_process(evaluate, folder, workers=workers, seed=args.seed)
            best = figures['workers'].setdefault(workers, found)
            if found['mAP'] != best['mAP']:
                raise ConfigError(f'mAP {found["mAP"]} and {best["mAP"]} of the same files', fix='This is a bug.')
            for name in ('seconds', 'processor_seconds'):
                best[name] = min(best[name], found[name])
            best['peak_mb'] = max(best['peak_mb'], found['peak_mb'])
    return figures


def write_system(folder: Path, images: int, *, detections: int, seed: int) -> None:
    """A store, and the predictions of a model on each of its images, in files of numpy."""
    taxonomy = made_up_taxonomy(seed)
    ancestors = taxonomy.arrays.ancestor_mask
    with StoreWriter(folder / 'store', taxonomy=taxonomy) as writer:
        for number in trange(images, desc='drawing', disable=None):
            content, image_id = Content(number, detections=detections, seed=seed), f'{number:016x}'
            width, height = content.objects[0][6:8]
            objects, found = (
                [[taxonomy.label_of[row[at]], counts_of(row[-1])] for row in rows]
                for rows, at in ((content.objects, 0), (content.detections, 2))
            )
            masks = [mask for _, mask in objects]
            labels = np.array([label for label, _ in objects], dtype=np.int64)
            boxes = np.array([row[1:5] for row in content.objects])[:, [0, 2, 1, 3]] * [width, height, width, height]
            writer.add(
                ImageRow(image_id, f'{image_id}.jpg', width, height),
                Instances(
                    labels=labels,
                    boxes=boxes,
                    masks=masks,
                    has_mask=np.array([mask != b'' for mask in masks]),
                    group_of=np.array([bool(row[5]) for row in content.objects]),
                    areas=(boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]),
                    annotation_ids=[''] * len(masks),
                ),
                labels,
                np.array([taxonomy.label_of[class_id] for class_id in content.absent], dtype=np.int64),
            )
            # A class, and all above it a little surer; the detection names the class.
            names = np.array([label for label, _ in found], dtype=np.int64)
            scores = np.array([row[3] for row in content.detections], dtype=np.float32)
            class_scores = ancestors[names] * (scores[:, None] ** 0.8)
            class_scores[np.arange(len(names)), names] = scores
            planes = coco_mask.decode([{'size': [height, width], 'counts': mask} for _, mask in found])
            np.savez(
                folder / image_id,
                bboxes=np.zeros((len(names), 4), dtype=np.float32),
                labels=names,
                scores=scores,
                class_scores=class_scores.astype(np.float32),
                masks=np.packbits(planes.transpose(2, 0, 1)),
                shape=[len(names), height, width],
            )


def counts_of(text: str) -> bytes:
    return zlib.decompress(binascii.a2b_base64(text)) if text else b''


def measure_systems(folder: Path, images: int, args: argparse.Namespace) -> dict[str, Any]:
    """Seconds of one processor: the fastest of the repeats of each checkout, which take turns."""
    write_system(folder, images, detections=args.detections, seed=args.seed)
    checkouts = [Path(__file__).resolve().parents[2], *(path.resolve() for path in args.against)]
    figures: dict[str, Any] = {'images': images, 'detections': images * args.detections, 'checkouts': {}}
    for _ in range(args.repeats):
        for checkout in checkouts:
            run = subprocess.run(
                [sys.executable, '-c', SYSTEM_RUN, str(folder)],
                cwd=checkout,  # Python looks there first
                env={**os.environ, 'PYTHONPATH': str(checkout), 'OMP_NUM_THREADS': '1'},
                capture_output=True,
                text=True,
            )
            if run.returncode:
                raise ConfigError(f'the metric of {checkout} failed: {run.stderr[-2000:]}')
            found = json.loads(run.stdout.partition('FOUND')[2].splitlines()[0])
            best = figures['checkouts'].setdefault(str(checkout), found)
            for name, value in found['seconds'].items():
                best['seconds'][name] = min(best['seconds'][name], value)
    own, *others = figures['checkouts'].values()
    for other, checkout in zip(others, checkouts[1:], strict=True):
        differing = {name for name in own['scores'] if not same(own['scores'][name], other['scores'].get(name))}
        figures['checkouts'][str(checkout)]['differing'] = sorted(differing)
    return figures


def same(first: float, second: float | None) -> bool:
    return second is not None and bool(np.isclose(first, second, rtol=0, atol=1e-12, equal_nan=True))


def system_table(sizes: list[dict[str, Any]]) -> Iterator[str]:
    """Lines of Markdown; the first checkout of each size is this one."""
    yield '| checkout | images | detections | processing, s | all images, s | together, s | × this | other scores |'
    yield '|---|' + '---:|' * 6 + '---|'
    for figures in sizes:
        totals = {name: sum(found['seconds'].values()) for name, found in figures['checkouts'].items()}
        own = next(iter(totals.values()))
        for name, found in figures['checkouts'].items():
            processing, gathering = found['seconds'].values()
            yield (
                f'| {Path(name).name} | {figures["images"]:,} | {figures["detections"]:,} | {processing:.2f} '
                f'| {gathering:.2f} | {totals[name]:.2f} | {totals[name] / own:.2f} '
                f'| {", ".join(found.get("differing", []))} |'
            )


def table(sizes: list[dict[str, Any]]) -> Iterator[str]:
    """Lines of Markdown."""
    columns = 'images,detections,workers,seconds,of processors,× floor,× floor of processors,ms an image,peak in MB'
    yield f'| {columns.replace(",", " | ")} |'
    yield '|---:' * 9 + '|'
    for figures in sizes:
        images, bottom = figures['images'], figures.get('floor')
        for name, found in [*figures['workers'].items(), *([('floor', bottom)] if bottom else [])]:
            seconds, spent = found['seconds'], found['processor_seconds']
            ratios = (
                f'{seconds / bottom["seconds"]:.2f} | {spent / bottom["processor_seconds"]:.2f}' if bottom else ' | '
            )
            peak = f'{found["peak_mb"]:.0f}' if 'peak_mb' in found else ''
            yield (
                f'| {images:,} | {figures["detections"]:,} | {name} | {seconds:.2f} | {spent:.2f} | {ratios} '
                f'| {seconds / images * 1000:.2f} | {peak} |'
            )


@exits_cleanly()
def main() -> None:
    args = parse_arguments()
    if min(*args.images, *args.workers, args.detections, args.repeats) < 1:
        raise ConfigError('--images, --detections, --workers and --repeats must be at least 1')
    sizes = []
    for images in args.images:
        with tempfile.TemporaryDirectory() as folder:
            sizes.append((measure_systems if args.system else measure)(Path(folder), images, args))
    print('\n'.join((system_table if args.system else table)(sizes)))
    for figures in sizes:
        if 'floor' in figures:
            parts = ', '.join(f'{name} {seconds:.2f} s' for name, seconds in figures['floor']['parts'].items())
            print(f'\nfloor: {parts}; the reference evaluator took {REFERENCE_SECONDS} s for 150,000 detections')
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(
            {'seed': args.seed, 'repeats': args.repeats, 'machine': describe_machine(), 'sizes': sizes}, args.out
        )


if __name__ == '__main__':
    main()
