"""Times the loading of training images, step by step: hierseg's store and pipeline beside mmdet's CocoDataset.

A synthetic data set is made, converted to a store and exported to COCO JSON, so that both read the same images and
masks. The pipeline is that of configs/_base_/datasets/openimages_instance.py; mmdet's has its own transforms. Time is
that of the processor, in one process, as in one worker of a data loader; of each image and step the fastest repeat
counts, and both take turns.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from time import process_time
from typing import Any

import cv2
import numpy as np
import torch
from mmdet.datasets import CocoDataset
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope
from tqdm import tqdm

from hierseg.datasets import StoreDataset
from hierseg.errors import ConfigError, exits_cleanly
from hierseg.files import write_json
from hierseg.machine import describe_machine
from hierseg.synthetic import default_taxonomy

sys.path.insert(0, str(Path(__file__).parent))  # where the tool is not run as a script
from drawn_data import FILTER, make_data

CONFIG = Path(__file__).parents[2] / 'configs' / '_base_' / 'datasets' / 'openimages_instance.py'


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--images', type=int, default=300, help='default: %(default)s')
    parser.add_argument('--size', type=int, default=640, help='longest side, pixels (default: %(default)s)')
    parser.add_argument('--objects', type=float, default=3.5, help='of an image, on average (default: %(default)s)')
    parser.add_argument('--batch-size', type=int, default=4, help='default: %(default)s')
    parser.add_argument('--repeats', type=int, default=5, help='default: %(default)s')
    parser.add_argument('--seed', type=int, default=0, help='default: %(default)s')
    parser.add_argument('--out', type=Path, help='write the figures as JSON, too')
    return parser.parse_args()


def datasets_of(folder: Path) -> dict[str, Any]:
    """Both, with the same images in the same order."""
    pipeline = Config.fromfile(CONFIG).train_pipeline
    mmdet_pipeline = [{**step, 'type': step['type'].removeprefix('hierseg.')} for step in pipeline]
    del mmdet_pipeline[-1]['meta_keys']  # names what mmdet's reader does not give
    options = dict(data_prefix=dict(img=str(folder / 'official' / 'train')), filter_cfg=FILTER)
    names = [category['name'] for category in json.loads((folder / 'coco.json').read_text())['categories']]
    return {
        'hierseg': StoreDataset(folder / 'store', pipeline=pipeline, **options),
        'mmdet': CocoDataset(
            ann_file=str(folder / 'coco.json'), metainfo=dict(classes=names), pipeline=mmdet_pipeline, **options
        ),
    }


def load(dataset: Any, index: int, seed: int) -> tuple[dict[str, float], Any]:
    """Milliseconds by step, and what comes out."""
    # mmcv draws its flips from there.
    np.random.seed(seed)  # noqa: NPY002
    milliseconds = {}
    start = process_time()
    sample = dataset.get_data_info(index)
    milliseconds['annotations of the image'] = (process_time() - start) * 1000
    for transform in dataset.pipeline.transforms:
        start = process_time()
        sample = transform(sample)
        milliseconds[type(transform).__name__] = (process_time() - start) * 1000
    return milliseconds, sample


def measure(datasets: dict[str, Any], args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Mean milliseconds of an image by step, of each data set.

    Raises:
        ConfigError: If the two do not give the same.
    """
    count = min(map(len, datasets.values()))
    fastest: dict[str, list[dict[str, float]]] = {name: [{} for _ in range(count)] for name in datasets}
    collating = dict.fromkeys(datasets, float('inf'))
    for repeat in range(args.repeats):
        batch: dict[str, list[Any]] = {name: [] for name in datasets}
        for index in tqdm(range(count), f'repeat {repeat + 1} of {args.repeats}', unit='image', disable=None):
            for name, dataset in datasets.items():
                found, sample = load(dataset, index, repeat * count + index)
                best = fastest[name][index]
                best.update({step: min(best.get(step, float('inf')), spent) for step, spent in found.items()})
                batch[name].append(sample)
            one, other = (samples[-1] for samples in batch.values())
            masks = [sample['data_samples'].gt_instances.masks.masks for sample in (one, other)]
            if not (torch.equal(one['inputs'], other['inputs']) and np.array_equal(*masks)):
                raise ConfigError(f'image {index} is not the same from both', fix='This is a bug.')
            if len(batch['hierseg']) == args.batch_size:
                for name, samples in batch.items():
                    start = process_time()
                    pseudo_collate(samples)
                    collating[name] = min(collating[name], (process_time() - start) * 1000 / args.batch_size)
                    samples.clear()
    return {
        name: {
            **{step: float(np.mean([image[step] for image in images])) for step in images[0]},
            'collating': collating[name],
        }
        for name, images in fastest.items()
    }


def table(milliseconds: dict[str, dict[str, float]]) -> Iterator[str]:
    """Lines of Markdown."""
    yield '| step, ms an image | hierseg | mmdet |'
    yield '|---|---:|---:|'
    ours, theirs = milliseconds['hierseg'], milliseconds['mmdet']
    yield from (f'| {step} | {ours[step]:.2f} | {theirs[step]:.2f} |' for step in ours)
    totals = [sum(steps.values()) for steps in (ours, theirs)]
    yield f'| all | {totals[0]:.2f} | {totals[1]:.2f} |'
    yield f'| images/s per worker | {1000 / totals[0]:.0f} | {1000 / totals[1]:.0f} |'


@exits_cleanly()
def main() -> None:
    args = parse_arguments()
    if args.repeats < 1 or not 1 <= args.batch_size <= args.images:
        raise ConfigError('--repeats and --batch-size must be at least 1, and --images fill a batch')
    init_default_scope('mmdet')
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        make_data(Path(folder), default_taxonomy(), args)
        milliseconds = measure(datasets_of(Path(folder)), args)
    print('\n'.join(table(milliseconds)))
    if args.out:
        settings = {name: value for name, value in vars(args).items() if name != 'out'}
        args.out.parent.mkdir(parents=True, exist_ok=True)
        write_json({**settings, 'machine': describe_machine(), 'milliseconds': milliseconds}, args.out)


if __name__ == '__main__':
    main()
