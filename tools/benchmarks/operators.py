"""Times mmcv's operators by each backend: compiled, the default, torchvision's and those in plain torch.

Each backend works in a process of its own, where HIERSEG_OPERATORS insists on it; they take turns, so that all see the
same machine, and the fastest repeat counts. Time is that of the processor, of all threads, and with a GPU from the call
until the GPU is done. A backend that is absent is said to be. Measured are a training step of the quickstart's
end-to-end model on random images, RoI align with its gradient and the memory that it takes at its peak, and
suppression.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from time import perf_counter, process_time
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from hierseg import operators
from hierseg.errors import ConfigError, exits_cleanly
from hierseg.files import write_json
from hierseg.machine import describe_machine

BACKENDS = {'compiled': 'compiled', 'default': '', 'torchvision': 'torchvision', 'torch': 'torch'}
"""What HIERSEG_OPERATORS says; by default RoI align of many channels is in plain torch, and all else compiled."""
CONFIG = Path(__file__).parents[2] / 'configs' / 'quickstart' / 'hier_e2e.py'
MEMORY = 'RoI align, forward and backward, peak MB'


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--rois', type=int, default=256, help='default: %(default)s')
    parser.add_argument(
        '--features', type=int, nargs=3, default=[256, 200, 272], metavar=('CHANNELS', 'HEIGHT', 'WIDTH'),
        help='feature map that the RoIs lie on (default: 256 200 272)',
    )  # fmt: skip
    parser.add_argument('--boxes', type=int, nargs='+', default=[1000, 10_000], help='default: 1000 10000')
    parser.add_argument('--batch-size', type=int, default=4, help='of the training step (default: %(default)s)')
    parser.add_argument('--repeats', type=int, default=7, help='default: %(default)s')
    parser.add_argument('--threads', type=int, default=1, help='default: %(default)s')
    parser.add_argument('--device', default='cpu', help='default: %(default)s')
    parser.add_argument('--seed', type=int, default=0, help='default: %(default)s')
    parser.add_argument('--out', type=Path, help='write the figures as JSON, too')
    return parser.parse_args()


class Subjects:
    """What is timed, in the process of one backend: name → function of no arguments."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.device = torch.device(args.device)
        self.args = args
        torch.set_num_threads(args.threads)
        self.generator = torch.Generator().manual_seed(args.seed)
        self.runs: dict[str, Callable[[], Any]] = dict(self._roi_align())
        for count in args.boxes:
            self.runs[f'nms of {count:,} boxes'] = self._suppression(count)
        self.runs['training step'] = self._training_step()

    def boxes(self, count: int, *, width: float, height: float) -> Tensor:
        """(N, 4) xyxy, pixels: corners anywhere, sides up to a third of the image."""
        size = torch.tensor([width, height])
        corners, sides = (torch.rand(count, 2, generator=self.generator) * size for _ in range(2))
        return torch.cat([corners, (corners + sides / 3).minimum(size)], dim=1)

    def _roi_align(self) -> Iterator[tuple[str, Callable[[], Any]]]:
        from mmcv.ops import roi_align

        channels, height, width = self.args.features
        features = torch.randn(1, channels, height, width, generator=self.generator).to(self.device)
        rois = self.boxes(self.args.rois, width=4 * width, height=4 * height)
        rois = torch.cat([torch.zeros(len(rois), 1), rois], dim=1).to(self.device)
        gradient = torch.randn(len(rois), channels, 7, 7, generator=self.generator).to(self.device)

        def forward() -> Tensor:
            return roi_align(features, rois, (7, 7), 0.25, 0, 'avg', True)

        def both() -> None:
            features.requires_grad_()
            forward().backward(gradient)
            features.grad = None
            features.requires_grad_(False)

        yield 'RoI align, forward', forward
        yield 'RoI align, forward and backward', both

    def _suppression(self, count: int) -> Callable[[], Any]:
        from mmcv.ops import nms

        boxes = self.boxes(count, width=1333, height=800).to(self.device)
        scores = torch.rand(count, generator=self.generator).to(self.device)
        return lambda: nms(boxes, scores, 0.7)

    def _training_step(self) -> Callable[[], Any]:
        from mmdet.registry import MODELS
        from mmengine.config import Config
        from mmengine.optim import OptimWrapper
        from mmengine.registry import init_default_scope

        from hierseg.synthetic import default_taxonomy

        logging.disable(logging.INFO)  # how each parameter was initialised
        init_default_scope('mmdet')
        config = Config.fromfile(CONFIG).model
        del config.roi_head['verified']  # asks for class counts of a store
        config.roi_head.bbox_head.loss_cls.taxonomy = default_taxonomy()
        torch.manual_seed(self.args.seed)
        model = MODELS.build(config)
        model.init_weights()
        model.to(self.device).train()
        batch = self._batch(160, objects=4, num_classes=config.roi_head.bbox_head.num_classes)
        # A rate of 0: each repeat takes the same step.
        optimizer = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.0))

        def step() -> None:
            torch.manual_seed(self.args.seed)
            model.train_step(batch, optimizer)

        return step

    def _batch(self, size: int, *, objects: int, num_classes: int) -> dict[str, list[Any]]:
        from mmdet.structures import DetDataSample
        from mmdet.structures.mask import BitmapMasks
        from mmengine.structures import InstanceData

        samples, images = [], []
        for _ in range(self.args.batch_size):
            boxes = self.boxes(objects, width=size, height=size)
            masks = np.zeros((objects, size, size), dtype=np.uint8)
            for mask, (left, top, right, bottom) in zip(masks, boxes.int().tolist(), strict=True):
                mask[top : bottom + 1, left : right + 1] = 1
            sample = DetDataSample(metainfo=dict(img_shape=(size, size), ori_shape=(size, size), scale_factor=(1, 1)))
            sample.gt_instances = InstanceData(
                bboxes=boxes,
                labels=torch.randint(0, num_classes, (objects,), generator=self.generator),
                masks=BitmapMasks(masks, size, size),
            )
            sample.ignored_instances = InstanceData(
                bboxes=boxes[:0], labels=torch.zeros(0, dtype=torch.int64), masks=BitmapMasks(masks[:0], size, size)
            )
            samples.append(sample)
            images.append(torch.randint(0, 256, (3, size, size), generator=self.generator, dtype=torch.uint8))
        return {'inputs': images, 'data_samples': samples}

    def milliseconds(self, name: str) -> float:
        """Milliseconds of one run."""
        clock = perf_counter if self.device.type == 'cuda' else process_time
        self.synchronise()
        start = clock()
        self.runs[name]()
        self.synchronise()
        return (clock() - start) * 1000

    def peak(self, name: str) -> float:
        """MB that a run takes at its peak, beside what was there before."""
        if self.device.type == 'cuda':
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            self.runs[name]()
            return (torch.cuda.max_memory_allocated() - before) / 2**20
        Path('/proc/self/clear_refs').write_text('5')  # the peak begins anew
        before = _resident('VmRSS')
        self.runs[name]()
        return _resident('VmHWM') - before

    def synchronise(self) -> None:
        """Waits for the GPU, which computes while Python goes on."""
        if self.device.type == 'cuda':
            torch.cuda.synchronize()


def _resident(name: str) -> float:
    (line,) = (line for line in Path('/proc/self/status').read_text().splitlines() if line.startswith(f'{name}:'))
    return int(line.split()[1]) / 1024


_subjects: Subjects  # of a backend's process


def prepare(args: argparse.Namespace) -> tuple[list[str], float]:
    """Makes everything ready in the process of a backend; names of the subjects, and RoI align's memory.

    Raises:
        RuntimeError: If the backend is absent.
    """
    global _subjects
    operators.backend()
    _subjects = Subjects(args)
    return list(_subjects.runs), _subjects.peak('RoI align, forward and backward')


def measure_one(name: str) -> float:
    return _subjects.milliseconds(name)


def start(wanted: str, args: argparse.Namespace) -> tuple[ProcessPoolExecutor, list[str], float]:
    """The process of a backend, the names of its subjects, and RoI align's memory."""
    pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context('spawn'))
    # The process inherits the variable and looks at it when it imports hierseg, before mmcv.
    with mock.patch.dict(os.environ, {operators.VARIABLE: wanted}):
        return pool, *pool.submit(prepare, args).result()


def measure(args: argparse.Namespace) -> tuple[dict[str, dict[str, float]], dict[str, str]]:
    """Figures by backend and subject, and why the other backends are absent."""
    pools, figures, absent, names = {}, {}, {}, []
    for backend, wanted in BACKENDS.items():
        try:
            pools[backend], names, memory = start(wanted, args)
        except RuntimeError as error:
            absent[backend] = str(error)
        else:
            figures[backend] = {**dict.fromkeys(names, float('inf')), MEMORY: memory}
    for _ in range(args.repeats + 1):  # the first warms up
        for name in names:
            for backend, pool in pools.items():
                spent = pool.submit(measure_one, name).result()
                figures[backend][name] = min(figures[backend][name], spent)
    for pool in pools.values():
        pool.shutdown()
    return figures, absent


def table(figures: dict[str, dict[str, float]]) -> Iterator[str]:
    """Lines of Markdown; the ratio is to the first backend."""
    first, *others = figures
    yield '| ms | ' + ' | '.join([first, *(f'{other} | × {first}' for other in others)]) + ' |'
    yield '|---' + '|---:' * (1 + 2 * len(others)) + '|'
    for name, value in figures[first].items():
        cells = [f'{value:,.1f}']
        for other in others:
            found = figures[other][name]
            cells += [f'{found:,.1f}', f'{found / value:.2f}' if name != MEMORY else f'{found - value:+,.0f} MB']
        yield f'| {name} | ' + ' | '.join(cells) + ' |'


@exits_cleanly()
def main() -> None:
    args = parse_arguments()
    if min(args.rois, *args.features, *args.boxes, args.batch_size, args.repeats, args.threads) < 1:
        raise ConfigError('all numbers must be at least 1')
    if args.device.startswith('cuda') and not torch.cuda.is_available():
        raise ConfigError(f'--device {args.device}: torch sees no GPU')
    figures, absent = measure(args)
    device = torch.cuda.get_device_name() if args.device.startswith('cuda') else 'cpu'
    print('\n'.join(table(figures)))
    for backend, reason in absent.items():
        print(f'{backend} is absent: {reason}')
    if args.out:
        settings = {name: value for name, value in vars(args).items() if name != 'out'}
        args.out.parent.mkdir(parents=True, exist_ok=True)
        document = {**settings, 'name_of_device': device, 'machine': describe_machine()}
        write_json({**document, 'figures': figures, 'absent': absent}, args.out)


if __name__ == '__main__':
    main()
