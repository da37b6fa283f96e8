"""Opens a made-up store of the size of Open Images, and pycocotools' COCO on the same annotations as JSON.

Each is opened in a new process, which counts classes and makes the tables of repeat factor sampling, as every rank
does, while another process holds the store; then that process forks, as for the workers of a data loader, and the fork
makes the tables once more. Memory is the private pages of a process, as the system counts them, with Python and its
libraries in it.
"""

from __future__ import annotations

import argparse
import json
import mmap
import multiprocessing
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from tqdm import trange

from hierseg.errors import ConfigError, exits_cleanly
from hierseg.files import write_json
from hierseg.machine import describe_machine

# OpenCV, matplotlib and pycocotools are imported where they are needed: memory is to be that of a store alone.
from hierseg.store import (
    ImageRow,
    Instances,
    Store,
    StoreWriter,
)
from hierseg.store.frequency import TrainingLabels, repeat_factors
from hierseg.taxonomy import Taxonomy

ROOT_CLASSES, DEEPER_CLASSES = 213, 87
MOST, FEWEST = 173_787, 14
"""Masks of the most and least frequent class of Open Images; the frequencies between are taken evenly in logarithm."""
INSTANCES_PER_IMAGE = 2_125_530 / 850_000
HEIGHT, WIDTH = 768, 1024
DISTINCT_MASKS = 500
SAMPLES = 200
"""Images whose annotations are read at random, as training does."""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--images', type=int, default=850_000, help='of the largest store (default: %(default)s)')
    parser.add_argument(
        '--coco-images',
        type=int,
        nargs='*',
        default=[5_000, 20_000, 80_000],
        help='sizes of both (default: %(default)s)',
    )
    parser.add_argument('--repeats', type=int, default=3, help='the fastest counts (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0, help='default: %(default)s')
    parser.add_argument('--out', type=Path, help='write the figures as JSON, too')
    parser.add_argument('--figure', type=Path, help='draw seconds and memory by size')
    # How the benchmark starts its own processes.
    parser.add_argument('--probe', nargs=2, metavar=('KIND', 'PATH'), help=argparse.SUPPRESS)
    return parser.parse_args()


def draw_masks(seed: int) -> tuple[list[bytes], np.ndarray, np.ndarray]:
    """Masks with wavy outlines, their boxes (xyxy) and their areas."""
    import cv2

    from hierseg.formats.run_lengths import counts_of_mask

    generator = np.random.default_rng(seed)
    masks, boxes, areas = [], [], []
    angles = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    for _ in range(DISTINCT_MASKS):
        radii = np.exp(generator.uniform(np.log(15), np.log(350), 2))
        waves = 1 + 0.1 * np.sin(angles * generator.integers(3, 9)) + 0.03 * generator.standard_normal(len(angles))
        outline = np.stack([np.cos(angles), np.sin(angles)], axis=1) * radii * waves[:, None]
        mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
        centre = generator.uniform(0.2, 0.8, 2) * [WIDTH, HEIGHT]
        cv2.fillPoly(mask, [(outline + centre).round().astype(np.int32)], 1)
        columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
        masks.append(counts_of_mask(mask))
        boxes.append([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
        areas.append(mask.sum())
    return masks, np.array(boxes, dtype=np.float64), np.array(areas, dtype=np.float64)


def write_store(path: Path, *, images: int, seed: int) -> None:
    """Writes a store with the class frequencies of Open Images; each image has at least one instance."""
    generator = np.random.default_rng(seed)
    ids = [f'class{number:03}' for number in range(ROOT_CLASSES + DEEPER_CLASSES)]
    parents = generator.integers(0, ROOT_CLASSES, DEEPER_CLASSES)
    edges = [(ids[ROOT_CLASSES + child], ids[parent]) for child, parent in enumerate(parents.tolist())]
    frequencies = generator.permutation(np.geomspace(MOST, FEWEST, len(ids)))
    masks, boxes, areas = draw_masks(seed)
    count = round(images * INSTANCES_PER_IMAGE)
    labels = generator.choice(len(ids), size=count, p=frequencies / frequencies.sum())
    shapes = generator.integers(0, len(masks), count)
    counts = 1 + np.bincount(generator.integers(0, images, count - images), minlength=images)
    ends = np.cumsum(counts).tolist()
    absent = generator.integers(0, len(ids), (images, 4))
    with StoreWriter(path, taxonomy=Taxonomy.from_edges(ids, edges)) as writer:
        for row in trange(images, desc='writing a store', unit='image', disable=None):
            rows = slice(ends[row] - counts[row], ends[row])
            chosen = shapes[rows]
            instances = Instances(
                labels=labels[rows],
                boxes=boxes[chosen],
                masks=[masks[shape] for shape in chosen.tolist()],
                has_mask=np.ones(len(chosen), dtype=bool),
                group_of=np.zeros(len(chosen), dtype=bool),
                areas=areas[chosen],
                annotation_ids=[f'{number:08x}' for number in range(rows.start, rows.stop)],
            )
            negative = np.setdiff1d(absent[row], labels[rows])
            writer.add(ImageRow(f'{row:016x}', f'{row:016x}.jpg', WIDTH, HEIGHT), instances, labels[rows], negative)


def private_megabytes() -> float:
    """What this process has in memory that no other process shares."""
    lines = Path('/proc/self/smaps_rollup').read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(('Private_Clean', 'Private_Dirty'))) / 1024


def tables_of_store(store: Store) -> Any:
    """Counts and factors, as the sampler keeps them, and some images; they stay in memory while that is measured."""
    labels = TrainingLabels.of(store)
    counts, factors = labels.counts(), labels.image_factors(repeat_factors(labels.frequencies(), 0.001))
    rows = np.random.default_rng(0).integers(0, len(store), SAMPLES).tolist()
    return counts, factors, [store.instances(row) for row in rows]


def open_coco(path: str) -> Any:
    from pycocotools.coco import COCO

    return COCO(path)


def tables_of_coco(coco: Any) -> Any:
    """The same from dictionaries, labels not expanded to ancestors."""
    instances, images = dict.fromkeys(coco.cats, 0), {category: set() for category in coco.cats}
    for annotation in coco.anns.values():
        instances[annotation['category_id']] += 1
        images[annotation['category_id']].add(annotation['image_id'])
    names = sorted(coco.cats)
    factors = repeat_factors(np.array([len(images[name]) for name in names]) / len(coco.imgs), 0.001)
    of_class = dict(zip(names, factors.tolist(), strict=True))
    of_image = {
        name: max((of_class[a['category_id']] for a in found), default=1.0) for name, found in coco.imgToAnns.items()
    }
    chosen = np.random.default_rng(0).choice(list(coco.imgs), SAMPLES).tolist()
    return instances, of_image, [coco.loadAnns(coco.getAnnIds(imgIds=image)) for image in chosen]


KINDS: dict[str, tuple[Callable[[str], Any], Callable[[Any], Any]]] = {
    'store': (Store.open, tables_of_store),
    'COCO': (open_coco, tables_of_coco),
}


def probe(kind: str, path: str) -> dict[str, float]:
    """Opens in this process, which another one started anew; then forks one that does the same once more."""
    open_it, make_tables = KINDS[kind]
    before = private_megabytes()
    start = perf_counter()
    opened = open_it(path)
    opening = perf_counter() - start
    start = perf_counter()
    tables = make_tables(opened)
    making = perf_counter() - start
    spawned = private_megabytes()
    del tables
    context = multiprocessing.get_context('fork')
    receiver, sender = context.Pipe(duplex=False)

    def child() -> None:
        kept = make_tables(opened)
        sender.send(private_megabytes())
        del kept

    process = context.Process(target=child)
    process.start()
    forked = receiver.recv()
    process.join()
    return {'opening': opening, 'tables': making, 'spawned': spawned, 'forked': forked, 'before': before}


def measure(kind: str, path: Path, repeats: int) -> dict[str, float]:
    """The fastest opening and tables, and the largest memory, of new processes."""
    found = []
    for _ in range(repeats):
        command = [sys.executable, __file__, '--probe', kind, str(path)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            raise ConfigError(f'{kind} could not be measured', where=str(path), fix='See the message above.')
        found.append(json.loads(done.stdout.splitlines()[-1]))
    least = {name: min(one[name] for one in found) for name in ('opening', 'tables')}
    return {**least, **{name: max(one[name] for one in found) for name in ('spawned', 'forked', 'before')}}


def touched(store: Store) -> Store:
    """The store, of which this process has every page, as the first process of a training has after a while."""
    for content in store.tables().values():
        for column in content.columns:
            for chunk in column.chunks:
                for buffer in filter(None, chunk.buffers()):
                    np.frombuffer(buffer, dtype=np.uint8)[:: mmap.PAGESIZE].max(initial=0)
    return store


def size_of(path: Path) -> float:
    """Megabytes of a file or folder."""
    files = path.iterdir() if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files) / 1e6


def measure_size(folder: Path, images: int, args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Figures of the store of so many images, and of COCO where that is asked for."""
    from hierseg.converters.coco import write_coco

    paths = {'store': folder / 'store'}
    write_store(paths['store'], images=images, seed=args.seed)
    if images in args.coco_images:
        paths['COCO'] = folder / 'coco.json'
        write_coco(Store.open(paths['store']), paths['COCO'], progress=True)
    first = touched(Store.open(paths['store']))
    for kind, path in paths.items():
        instances = round(images * INSTANCES_PER_IMAGE)
        figures = measure(kind, path, args.repeats)
        yield {'kind': kind, 'images': images, 'instances': instances, 'disk': size_of(path), **figures}
    del first


def table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Lines of Markdown."""
    yield '| images | masks | | disk, MB | opening, s | tables, s | private MB, spawned | private MB, forked |'
    yield '|---:|---:|---|---:|---:|---:|---:|---:|'
    for row in sorted(rows, key=lambda row: (row['kind'] == 'store', row['images'])):
        yield (
            f'| {row["images"]:,} | {row["instances"]:,} | {row["kind"]} | {row["disk"]:,.0f} | {row["opening"]:.3f} '
            f'| {row["tables"]:.2f} | {row["spawned"]:,.0f} | {row["forked"]:,.0f} |'
        )


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Seconds and memory by size, both axes logarithmic."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout='constrained')
    panels = figure.subplots(1, 2)
    labels = {'opening': 'seconds to open', 'spawned': 'private memory of a process, MB'}
    for axes, (name, label) in zip(panels, labels.items(), strict=True):
        for kind, marker in (('store', 'o'), ('COCO', 's')):
            curve = sorted((row['images'], row[name]) for row in rows if row['kind'] == kind)
            axes.loglog(*zip(*curve, strict=True), marker=marker, label=kind) if curve else None
        sizes = sorted({row['images'] for row in rows})
        axes.set_xticks(sizes, labels=[f'{size:,}' for size in sizes])
        axes.minorticks_off()
        axes.yaxis.set_major_formatter('{x:g}')
        axes.set(xlabel='images', ylabel=label)
        axes.grid(alpha=0.3)
        axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


@exits_cleanly()
def main() -> None:
    args = parse_arguments()
    if args.probe:
        print(json.dumps(probe(*args.probe)))
        return
    if min(args.images, *args.coco_images, args.repeats) < 1:
        raise ConfigError('--images, --coco-images and --repeats must be at least 1')
    rows = []
    for images in sorted({*args.coco_images, args.images}):
        with tempfile.TemporaryDirectory() as folder:
            rows += measure_size(Path(folder), images, args)
    print('\n'.join(table(rows)))
    if args.figure:
        draw(rows, args.figure)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        write_json({'seed': args.seed, 'repeats': args.repeats, 'machine': describe_machine(), 'rows': rows}, args.out)


if __name__ == '__main__':
    main()
