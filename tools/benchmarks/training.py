"""Times steps of training: hierseg's systems beside MMDetection's own models, on the same images at the same size.

A synthetic data set of 300 classes is drawn, converted to a store and exported to COCO JSON, so that MMDetection's
CocoDataset reads the same images and masks. All models have random weights and as many classes; the optimisers are
their configs', at a rate of 0, so that each repeat takes the same step. Systems take turns on each batch; of each batch
and part the fastest repeat counts. Loading happens in the same process. With one thread on a CPU, time is that of the
processor, which other work disturbs least; else it is that of the clock.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmdet.datasets import CocoDataset
from mmdet.models.dense_heads import RPNHead, RTMDetInsHead
from mmdet.models.roi_heads.bbox_heads import BBoxHead
from mmdet.models.roi_heads.mask_heads import FCNMaskHead
from mmdet.models.task_modules.assigners import MaxIoUAssigner
from mmdet.models.task_modules.samplers import RandomSampler
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.hub import get_config
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from tqdm import tqdm

from hierseg.datasets import StoreDataset
from hierseg.errors import ConfigError, exits_cleanly
from hierseg.files import write_json
from hierseg.machine import describe_machine
from hierseg.models.rtmdet_head import HierarchicalRTMDetInsHead
from hierseg.models.verified import KnownClasses
from hierseg.registry import MODELS
from hierseg.seeding import Purpose, StreamIndex, seeded
from hierseg.synthetic import large_taxonomy

sys.path.insert(0, str(Path(__file__).parent))  # where the tool is not run as a script
from drawn_data import FILTER, make_data
from stopwatch import Stopwatch

CONFIGS = Path(__file__).parents[2] / 'configs'
PARTS = ('loading', 'forward', 'loss', 'backward', 'optimiser')


@dataclass(frozen=True)
class Recipe:
    """What is trained.

    Attributes:
        config: In configs/, or in MMDetection where it begins so.
        beside: The system of MMDetection that it is compared with; None if it is one.
        layer: Of the ensemble.
    """

    config: str
    beside: str | None = None
    layer: int | None = None


RECIPES = {
    'Mask R-CNN': Recipe('mmdet::mask_rcnn/mask-rcnn_r101_fpn_1x_coco.py'),
    'end-to-end': Recipe('hier_e2e.py', beside='Mask R-CNN'),
    'ensemble, layer 0': Recipe('two_layer_ensemble.py', beside='Mask R-CNN', layer=0),
    'ensemble, layer 1': Recipe('two_layer_ensemble.py', beside='Mask R-CNN', layer=1),
    'RTMDet-Ins tiny': Recipe('mmdet::rtmdet/rtmdet-ins_tiny_8xb32-300e_coco.py'),
    'tiny': Recipe('hier_rtmdet_tiny.py', beside='RTMDet-Ins tiny'),
    'RTMDet-Ins s': Recipe('mmdet::rtmdet/rtmdet-ins_s_8xb32-300e_coco.py'),
    's': Recipe('hier_rtmdet_s.py', beside='RTMDet-Ins s'),
}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--systems', nargs='+', choices=RECIPES, default=list(RECIPES), metavar='NAME',
        help=f'default: {", ".join(RECIPES)}',
    )  # fmt: skip
    parser.add_argument('--images', type=int, default=60, help='of the data set (default: %(default)s)')
    parser.add_argument('--size', type=int, default=640, help='longest side, pixels (default: %(default)s)')
    parser.add_argument('--objects', type=float, default=3.5, help='of an image, on average (default: %(default)s)')
    parser.add_argument('--batch-size', type=int, default=2, help='default: %(default)s')
    parser.add_argument('--batches', type=int, default=2, help='default: %(default)s')
    parser.add_argument('--repeats', type=int, default=3, help='of each batch (default: %(default)s)')
    parser.add_argument('--threads', type=int, default=1, help='default: %(default)s')
    parser.add_argument('--device', default='cpu', help='default: %(default)s')
    parser.add_argument('--seed', type=int, default=0, help='default: %(default)s')
    parser.add_argument('--out', type=Path, help='write the figures as JSON, too')
    return parser.parse_args()


class System:
    """A model, its data and its optimiser, ready to be trained."""

    def __init__(self, recipe: Recipe, folder: Path, args: argparse.Namespace, watch: Stopwatch) -> None:
        stock = recipe.beside is None
        config = get_config(recipe.config) if stock else Config.fromfile(CONFIGS / recipe.config)
        model, wrapper, pipeline = config.model, config.optim_wrapper, config.train_pipeline
        if recipe.layer is not None:
            model, wrapper = (settings[f'layer{recipe.layer}'] for settings in (model, wrapper))
        pipeline = [_sized(step, args.size) for step in pipeline]
        options = dict(data_prefix=dict(img=str(folder / 'official' / 'train')), filter_cfg=FILTER)
        if stock:
            names = [category['name'] for category in json.loads((folder / 'coco.json').read_text())['categories']]
            ann_file, metainfo = str(folder / 'coco.json'), dict(classes=names)
            self.dataset = CocoDataset(ann_file=ann_file, metainfo=metainfo, pipeline=pipeline, **options)
        else:
            self.dataset = StoreDataset(folder / 'store', layer=recipe.layer, pipeline=pipeline, **options)
        _untie(model, folder / 'store', num_classes=len(self.dataset.metainfo['classes']) if stock else None)
        torch.manual_seed(args.seed)
        self.model = revert_sync_batchnorm(MODELS.build(model))
        self.model.init_weights()
        self.model.to(watch.device).train()
        wrapper.optimizer.lr = 0.0
        self.optimiser = build_optim_wrapper(self.model, wrapper)
        self.watch, self.seed = watch, args.seed

    def step(self, images: list[str], number: int) -> None:
        """Takes a step on images of these identifiers; the number seeds what is drawn."""
        self.watch.restart()
        with self.watch.part('loading'):
            batch = []
            for place, name in enumerate(images):
                entropy = (self.seed, Purpose.AUGMENTATION, number * len(images) + place)
                with seeded(*entropy, devices=False):
                    batch.append(self.dataset[StreamIndex(self.places[name], entropy)])
            batch = pseudo_collate(batch)
        torch.manual_seed(self.seed)
        with self.watch.part('forward'):
            self.model.train_step(batch, self.optimiser)

    def find(self) -> set[str]:
        """Names of the images that it is trained on."""
        infos = (self.dataset.get_data_info(index) for index in range(len(self.dataset)))
        self.places = {Path(info['img_path']).name: index for index, info in enumerate(infos)}
        return set(self.places)


def _sized(step: Any, size: int) -> Any:
    """A step of a pipeline for images of another size; the configs' are 1333 × 800, 640 and twice that."""
    if isinstance(step, dict):
        found = {name: _sized(value, size) for name, value in step.items()}
        if found.get('type') == 'LoadAnnotations':
            found['poly2mask'] = True  # masks of Open Images are pixels
        return found
    if isinstance(step, list):
        return [_sized(value, size) for value in step]
    sizes = {(1333, 800): (size, size), (640, 640): (size, size), (1280, 1280): (2 * size, 2 * size)}
    return sizes.get(step, step) if isinstance(step, tuple) else step


def _untie(settings: Any, store: Path, *, num_classes: int | None) -> None:
    """Puts the data's classes into the config of a model, and takes weights by address out."""
    if isinstance(settings, dict):
        if (settings.get('init_cfg') or {}).get('type') == 'Pretrained':
            settings['init_cfg'] = None
        if 'taxonomy' in settings:
            settings['taxonomy'] = str(store / 'taxonomy.json')
        if num_classes and 'num_classes' in settings:
            settings['num_classes'] = num_classes
        if settings.get('verified'):
            settings['verified']['class_counts'] = str(store)
        settings = list(settings.values())
    if isinstance(settings, list):
        for value in settings:
            _untie(value, store, num_classes=num_classes)


def watched(systems: dict[str, System]) -> list[tuple[Any, str, str]]:
    """The functions that make up the parts; what remains of a step is the forward pass."""
    optimisers = {type(system.optimiser) for system in systems.values()}
    return [
        # Targets belong to the loss: assignment, sampling, classes that are known.
        (MaxIoUAssigner, 'assign', 'loss'),
        (RandomSampler, 'sample', 'loss'),
        (KnownClasses, '__call__', 'loss'),
        (RPNHead, 'loss_by_feat', 'loss'),
        (BBoxHead, 'loss_and_target', 'loss'),
        (FCNMaskHead, 'loss_and_target', 'loss'),
        (RTMDetInsHead, 'loss_by_feat', 'loss'),
        (HierarchicalRTMDetInsHead, 'loss_by_feat', 'loss'),
        *((optimiser, name, part) for optimiser in optimisers
          for name, part in (('backward', 'backward'), ('step', 'optimiser'), ('zero_grad', 'optimiser'))),
    ]  # fmt: skip


def measure(systems: dict[str, System], watch: Stopwatch, args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Mean milliseconds of an image by part, of each system.

    Raises:
        ConfigError: If too few images train all systems.
    """
    common = sorted(set.intersection(*(system.find() for system in systems.values())))
    if len(common) < args.batches * args.batch_size:
        raise ConfigError(f'{len(common)} images train all systems', fix='Raise --images, or lower --batches.')
    batches = [common[start : start + args.batch_size] for start in range(0, len(common), args.batch_size)]
    fastest: dict[str, list[dict[str, float]]] = {
        name: [dict.fromkeys(PARTS, float('inf')) for _ in range(args.batches)] for name in systems
    }
    with watch.watching(watched(systems)):
        for system in systems.values():  # warms up
            system.step(batches[0], 0)
        for _ in range(args.repeats):
            for number in tqdm(range(args.batches), 'batches', disable=None):
                for name, system in systems.items():
                    system.step(batches[number], number)
                    best = fastest[name][number]
                    best.update({part: min(best[part], spent) for part, spent in watch.milliseconds.items()})
    return {
        name: {part: float(np.mean([batch[part] for batch in found])) / args.batch_size for part in PARTS}
        for name, found in fastest.items()
    }


def table(milliseconds: dict[str, dict[str, float]]) -> Iterator[str]:
    """Lines of Markdown; the ratio is to MMDetection's system, of all and of each part."""
    yield f'| ms an image | beside | images/s | all | × | {" | ".join(PARTS)} |'
    yield '|---|---' + '|---:' * (3 + len(PARTS)) + '|'
    for name, parts in milliseconds.items():
        beside = RECIPES[name].beside
        theirs = milliseconds.get(beside) if beside else None
        total = sum(parts.values())
        ratio = f'{total / sum(theirs.values()):.2f}' if theirs else ''
        cells = [f'{parts[part]:,.0f}' + (f' ({parts[part] / theirs[part]:.2f} ×)' if theirs else '') for part in PARTS]
        yield f'| {name} | {beside or ""} | {1000 / total:.2f} | {total:,.0f} | {ratio} | {" | ".join(cells)} |'


@exits_cleanly()
def main() -> None:
    args = parse_arguments()
    if min(args.images, args.batch_size, args.batches, args.repeats, args.threads) < 1:
        raise ConfigError('all numbers must be at least 1')
    if args.device.startswith('cuda') and not torch.cuda.is_available():
        raise ConfigError(f'--device {args.device}: torch sees no GPU')
    logging.disable(logging.WARNING)  # how each parameter was initialised, and which are shared
    init_default_scope('mmdet')
    watch = Stopwatch(PARTS, torch.device(args.device))
    watch.use_threads(args.threads)
    cv2.setNumThreads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        make_data(Path(folder), large_taxonomy(), args)
        systems = {name: System(RECIPES[name], Path(folder), args, watch) for name in args.systems}
        milliseconds = measure(systems, watch, args)
    print('\n'.join(table(milliseconds)))
    if args.out:
        settings = {name: value for name, value in vars(args).items() if name != 'out'}
        args.out.parent.mkdir(parents=True, exist_ok=True)
        write_json({**settings, 'machine': describe_machine(), 'milliseconds': milliseconds}, args.out)


if __name__ == '__main__':
    main()
