"""Times the balanced samplers on a store of the size of Open Images, which is made up and written first."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
from tqdm import trange

from hierseg.datasets import ClassAwareStreamSampler, RepeatFactorSampler, StoreDataset
from hierseg.errors import ConfigError, exits_cleanly
from hierseg.files import write_json
from hierseg.machine import describe_machine
from hierseg.store import ImageRow, Instances, StoreWriter
from hierseg.taxonomy import Taxonomy

ROOT_CLASSES, DEEPER_CLASSES = 213, 87
"""As many as the segmentable classes of Open Images."""
MOST, FEWEST = 173_787, 14
"""Masks of its most and least frequent class; the frequencies between are taken evenly on a logarithmic scale."""
FAR_AWAY = 500
"""A run is resumed after so many passes."""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--images', type=int, default=850_000, help='default: %(default)s')
    parser.add_argument('--instances', type=int, default=2_125_530, help='default: %(default)s')
    parser.add_argument('--seed', type=int, default=0, help='default: %(default)s')
    parser.add_argument('--out', type=Path, help='write the figures as JSON, too')
    return parser.parse_args()


def write_store(folder: Path, *, num_images: int, num_instances: int, seed: int) -> Path:
    """Writes a store with the class frequencies of Open Images, and one file that stands for all its images."""
    generator = np.random.default_rng(seed)
    ids = [f'class{number:03}' for number in range(ROOT_CLASSES + DEEPER_CLASSES)]
    parents = generator.integers(0, ROOT_CLASSES, DEEPER_CLASSES)
    edges = [(ids[ROOT_CLASSES + child], ids[parent]) for child, parent in enumerate(parents.tolist())]
    frequencies = generator.permutation(np.geomspace(MOST, FEWEST, len(ids)))
    labels = generator.choice(len(ids), size=num_instances, p=frequencies / frequencies.sum())
    # Each image has one instance, and the rest fall anywhere.
    counts = 1 + np.bincount(generator.integers(0, num_images, num_instances - num_images), minlength=num_images)
    ends = np.cumsum(counts).tolist()
    nothing = np.zeros(0, dtype=np.int64)
    with StoreWriter(folder / 'store', taxonomy=Taxonomy.from_edges(ids, edges)) as writer:
        for image in trange(num_images, desc='writing a store', unit='image'):
            found = labels[ends[image] - counts[image] : ends[image]]
            count = len(found)
            writer.add(
                ImageRow(f'{image:016x}', 'image.jpg', 100, 100),
                Instances(
                    labels=found,
                    boxes=np.tile([0.0, 0.0, 50.0, 50.0], (count, 1)),
                    masks=[b''] * count,
                    has_mask=np.zeros(count, dtype=bool),
                    group_of=np.zeros(count, dtype=bool),
                    areas=np.full(count, 2500.0),
                    annotation_ids=[''] * count,
                ),
                nothing,
                nothing,
            )
    (folder / 'image.jpg').touch()
    return folder / 'store'


def measure(store: Path, seed: int) -> dict[str, float]:
    """Processor seconds by what was done, for other work lengthens them least; samplers start as in a new process."""
    seconds: dict[str, float] = {}

    def timed(what: str, act: Callable[[], Any]) -> Any:
        start = process_time()
        result = act()
        seconds[what] = round(process_time() - start, 3)
        print(f'{what:<52}{seconds[what]:>9.3f} s')
        return result

    filtered = dict(filter_empty_gt=True)
    images = dict(img=str(store.parent))
    dataset = StoreDataset(store, data_prefix=images, pipeline=[], lazy_init=True, filter_cfg=filtered)
    timed('filter the data set', dataset.full_init)
    for name, make in {
        'RFS': lambda: RepeatFactorSampler(dataset, seed=seed),
        'IRFS': lambda: RepeatFactorSampler(dataset, instance_aware=True, seed=seed),
        'class-aware': lambda: ClassAwareStreamSampler(dataset, seed=seed),
    }.items():
        sampler = timed(f'{name}: count classes, compute factors', make)
        timed(f'{name}: first image', lambda s=sampler: next(s.draw(0, 1)))
        sampler.set_epoch(1)
        epoch = len(sampler)
        timed(f'{name}: an epoch of {epoch:,} images', lambda s=sampler: sum(1 for _ in s))
        resumed = make()
        first = FAR_AWAY * epoch + epoch // 2
        timed(
            f'{name}: 10,000 images from the middle of epoch {FAR_AWAY} on',
            lambda s=resumed, first=first: sum(1 for _ in islice(s.draw(first, 10_000), 10_000)),
        )
    return seconds


@exits_cleanly()
def main() -> None:
    args = parse_arguments()
    if not 0 < args.images <= args.instances:
        raise ConfigError(f'{args.images} images cannot have {args.instances} instances', fix='Give one for each.')
    with tempfile.TemporaryDirectory() as folder:
        store = write_store(Path(folder), num_images=args.images, num_instances=args.instances, seed=args.seed)
        seconds = measure(store, args.seed)
    settings = {name: value for name, value in vars(args).items() if name != 'out'}
    document = {**settings, 'machine': describe_machine(), 'seconds': seconds}
    if args.out is None:
        print(json.dumps(document))
    else:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(document, args.out)


if __name__ == '__main__':
    main()
