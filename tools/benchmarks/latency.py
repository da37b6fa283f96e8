"""Times the way from a decoded picture to instances with masks and paths, system by system and part by part.

Weights are random: no time depends on what a model has learnt, once its scores are spread like those of a trained one.
So running statistics are taken from a picture, class scores get a spread, and the threshold is such that suppression
gets the same number of candidates in every system. 300 classes in the shape of Open Images; masks as large as the
picture.

Systems take turns, so that what else the machine does meets all alike, and the fastest picture counts; the median
stands beside it. With one thread on a CPU, time is that of the processor, which other work disturbs least; else it is
that of the clock, on a GPU from one synchronisation to the next.
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any
from unittest import mock

import cv2
import mmdet
import numpy as np
import torch
import yaml
from mmdet.models.data_preprocessors import DetDataPreprocessor
from mmdet.models.dense_heads import rpn_head
from mmdet.models.roi_heads.bbox_heads import bbox_head
from mmdet.models.roi_heads.mask_heads import FCNMaskHead
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import init_default_scope
from torch import Tensor, nn
from tqdm import trange

from hierseg.errors import ConfigError, exits_cleanly
from hierseg.files import write_json
from hierseg.machine import describe_machine
from hierseg.models import HierarchicalLoss, detections, rtmdet_head
from hierseg.models.two_layer_ensemble import TwoLayerEnsemble
from hierseg.registry import MODELS
from hierseg.synthetic import large_taxonomy

sys.path.insert(0, str(Path(__file__).parent))  # where the tool is not run as a script
from stopwatch import Stopwatch

CONFIGS = Path(__file__).parents[2] / 'configs'
PARTS = ('preprocessing', 'network', 'suppression', 'masks', 'paths')
SPREAD = 4.0
"""Standard deviation of class scores before their softmax or sigmoid: few classes are probable on each box."""


@dataclass(frozen=True)
class Recipe:
    """What a system is made of.

    Attributes:
        config: In configs/.
        equal: Whether pictures are fitted into a square of ``--equal-size``, as the real-time models have it.
        exported: How ONNX Runtime computes, FP32 or INT8; None: torch does.
        coco: Metafile and name of the same architecture in MMDetection, whose mask AP on COCO it lists.
    """

    config: str
    equal: bool = False
    exported: str | None = None
    coco: tuple[str, str] | None = ('mask_rcnn', 'mask-rcnn_r101_fpn_ms-poly-3x_coco')


def _real_time(size: str, exported: str | None = None) -> Recipe:
    # What INT8 costs on COCO, nobody has listed; nor what two stages lose with smaller pictures.
    coco = None if exported == 'INT8' else ('rtmdet', f'rtmdet-ins_{size}_8xb32-300e_coco')
    return Recipe(f'hier_rtmdet_{size}.py', equal=True, exported=exported, coco=coco)


RECIPES = {
    'ensemble': Recipe('two_layer_ensemble.py'),
    'end-to-end': Recipe('hier_e2e.py'),
    'ensemble, equal size': Recipe('two_layer_ensemble.py', equal=True, coco=None),
    'end-to-end, equal size': Recipe('hier_e2e.py', equal=True, coco=None),
    'm': _real_time('m'),
    's': _real_time('s'),
    'tiny': _real_time('tiny'),
    'tiny, ONNX': _real_time('tiny', 'FP32'),
    'tiny, ONNX INT8': _real_time('tiny', 'INT8'),
}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--systems', nargs='+', choices=RECIPES, default=list(RECIPES), metavar='NAME',
        help=f'ratios are to the first (default: {", ".join(RECIPES)})',
    )  # fmt: skip
    parser.add_argument(
        '--size', type=int, nargs=2, default=[768, 1024], metavar=('HEIGHT', 'WIDTH'),
        help='of the picture and its masks (default: 768 1024)',
    )  # fmt: skip
    parser.add_argument(
        '--equal-size', type=int, default=640, help='longest side of the input where sizes are equal (default: 640)'
    )
    parser.add_argument('--square', action='store_true', help='pad inputs of equal size to squares')
    parser.add_argument('--instances', type=int, default=100, help='of a picture, at most (default: %(default)s)')
    parser.add_argument(
        '--candidates', type=int, default=1000, help='pairs of box and class to suppress (default: %(default)s)'
    )
    parser.add_argument('--repeats', type=int, default=5, help='turns of each system (default: %(default)s)')
    parser.add_argument(
        '--seconds', type=float, default=1.0, help='a turn takes at least this, and a picture (default: %(default)s)'
    )
    parser.add_argument(
        '--threads', type=int, nargs='+', default=[1, len(os.sched_getaffinity(0))], help='default: 1 and all cores'
    )
    parser.add_argument('--device', default='cpu', help='default: %(default)s')
    parser.add_argument('--seed', type=int, default=0, help='default: %(default)s')
    parser.add_argument('--out', type=Path, help='write the figures as JSON, too')
    parser.add_argument('--figure', type=Path, help='draw accuracy against latency')
    parser.add_argument(
        '--accuracy', nargs='+', default=[], metavar='NAME=VALUE',
        help="of systems that the figure is to show (default: mask AP on COCO, which MMDetection's files list)",
    )  # fmt: skip
    return parser.parse_args()


WATCHED = [
    (DetDataPreprocessor, 'forward', 'preprocessing'),
    (rpn_head, 'batched_nms', 'suppression'),
    (bbox_head, 'multiclass_nms', 'suppression'),
    (detections, 'suppress_per_root', 'suppression'),
    (FCNMaskHead, 'predict_by_feat', 'masks'),
    (rtmdet_head, 'masks_in_boxes', 'masks'),
    # The probability of every class from the scores, the class to name, and how two layers become one.
    (HierarchicalLoss, 'get_activation', 'paths'),
    (detections.Decision, 'forward', 'paths'),
    (TwoLayerEnsemble, 'merged', 'paths'),
]
"""The functions of systems in torch that make up the parts; what remains is the network."""


class TorchSystem:
    """A model of a config with random weights, ready to be timed."""

    def __init__(self, recipe: Recipe, args: argparse.Namespace, watch: Stopwatch) -> None:
        config = Config.fromfile(CONFIGS / recipe.config)
        _untie(config.model, pad_to=args.equal_size if recipe.equal and args.square else None)
        steps = _steps(config.test_pipeline, (args.equal_size, args.equal_size) if recipe.equal else None)
        config.test_dataloader.dataset.pipeline = [dict(type='LoadImageFromFile'), *steps]  # of which an export asks
        self.pipeline = Compose([dict(type='LoadImageFromNDArray'), *steps])
        self.config, self.watch = config, watch
        torch.manual_seed(args.seed)
        self.model = MODELS.build(config.model)
        self.model.init_weights()
        self.model.to(watch.device).eval()
        self.parameters = sum(parameter.numel() for parameter in self.model.parameters())
        ensemble = isinstance(self.model, TwoLayerEnsemble)
        self.detectors = [self.model.layer0, self.model.layer1] if ensemble else [self.model]

    def __call__(self, picture: np.ndarray) -> Any:
        """Instances on a picture, (H, W, 3) uint8 BGR."""
        with self.watch.part('preprocessing'):
            batch = pseudo_collate([self.pipeline(dict(img=picture, img_id=0))])
        with self.watch.part('network'), torch.no_grad():
            (sample,) = self.model.test_step(batch)
        self.input = sample.metainfo['batch_input_shape']
        return sample.pred_instances

    @torch.no_grad()
    def prepare(self, picture: np.ndarray, *, instances: int, candidates: int) -> None:
        """Takes running statistics from a picture, spreads class scores, and lets so many candidates through."""
        for module in self.model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.reset_running_stats()
                module.momentum = 1.0  # the statistics are those of this picture
                module.train()
        layers = [layer for detector in self.detectors for layer in _class_layers(detector)]
        for detector in self.detectors:
            _test_cfg(detector).update(max_per_img=instances, score_thr=1.0)
            for layer in [] if _is_two_stage(detector) else detector.bbox_head.rtm_reg:
                nn.init.constant_(layer.bias, 4)  # boxes of 8 strides, as those that two-stage models begin with
        outputs: dict[nn.Module, list[Tensor]] = {layer: [] for layer in layers}
        hooks = [
            layer.register_forward_hook(lambda module, given, found: outputs[module].append(found.flatten()))
            for layer in layers
        ]
        self(picture)
        self.model.eval()
        for layer, hook in zip(layers, hooks, strict=True):
            hook.remove()
            layer.weight *= SPREAD / torch.cat(outputs[layer]).std()
        for detector, scores in zip(self.detectors, self._class_scores(picture), strict=True):
            kept = min(candidates, scores.numel() - 1)
            _test_cfg(detector).score_thr = scores.flatten().topk(kept + 1).values[-1].item()

    def _class_scores(self, picture: np.ndarray) -> list[Tensor]:
        """What suppression may choose from in each detector: (N, C) probabilities, of root classes or of all."""
        seen: list[Tensor] = []
        get_activation, multiclass_nms = HierarchicalLoss.get_activation, bbox_head.multiclass_nms

        def per_root(loss: HierarchicalLoss, logits: Tensor) -> Tensor:
            probabilities = get_activation(loss, logits)
            seen.append(probabilities.index_select(1, loss.relations_on(logits.device).root_classes))
            return probabilities

        def per_class(boxes: Tensor, scores: Tensor, *options: Any, **more: Any) -> Any:
            seen.append(scores[:, :-1])
            return multiclass_nms(boxes, scores, *options, **more)

        with (
            mock.patch.object(HierarchicalLoss, 'get_activation', per_root),
            mock.patch.object(bbox_head, 'multiclass_nms', per_class),
        ):
            self(picture)
        return seen


class ExportedSystem:
    """The ONNX file of a model, opened for each number of threads."""

    def __init__(self, system: TorchSystem, exported: str, picture: np.ndarray, args: argparse.Namespace) -> None:
        from hierseg.apis.export import quantise, write_graph
        from hierseg.deploy import load_model

        self.watch = system.watch
        with tempfile.TemporaryDirectory() as folder:
            sample, path = f'{folder}/picture.png', Path(folder) / 'FP32.onnx'
            cv2.imwrite(sample, picture)
            write_graph(system.model, system.config, path, sample=sample)
            if exported == 'INT8':
                path = path.with_name('INT8.onnx')
                quantise(path.with_name('FP32.onnx'), path, [sample], system.config)
            self.megabytes = path.stat().st_size / 1e6
            self.models = {threads: load_model(path, threads=threads) for threads in args.threads}
        self.parameters, self.input = system.parameters, system.input

    def __call__(self, picture: np.ndarray) -> Any:
        """Instances on a picture, (H, W, 3) uint8 BGR; masks are run lengths."""
        picture = np.ascontiguousarray(picture[:, :, ::-1])  # RGB, as other programs have it
        with self.watch.part('network'):
            return self.models[torch.get_num_threads()](picture)

    def watched(self) -> list[tuple[Any, str, str]]:
        """The functions that make up the parts; suppression is a part of the network."""
        from hierseg.deploy import model

        return [
            (model, 'run_lengths_in_boxes', 'masks'),
            *((one, name, part) for one in self.models.values()
              for name, part in (('inputs', 'preprocessing'), ('_choose', 'paths'))),
        ]  # fmt: skip


def _untie(settings: Any, *, pad_to: int | None) -> None:
    """Takes files out of the config of a model: weights by address, a taxonomy, class counts; and sets its padding."""
    if isinstance(settings, dict):
        if (settings.get('init_cfg') or {}).get('type') == 'Pretrained':
            settings['init_cfg'] = None
        if 'taxonomy' in settings:
            settings['taxonomy'] = large_taxonomy()
        if pad_to and 'data_preprocessor' in settings:
            settings['data_preprocessor']['pad_size_divisor'] = pad_to
        settings.pop('verified', None)
        settings = [value for name, value in settings.items() if name != 'taxonomy']
    if isinstance(settings, list):
        for value in settings:
            _untie(value, pad_to=pad_to)


def _steps(pipeline: list[Any], scale: tuple[int, int] | None) -> list[Any]:
    """The steps of a test pipeline after reading, without annotations."""
    steps = [dict(step) for step in pipeline if step['type'] not in ('LoadImageFromFile', 'LoadAnnotations')]
    return [step | dict(scale=scale) if scale and step['type'] == 'Resize' else step for step in steps]


def _is_two_stage(detector: nn.Module) -> bool:
    return hasattr(detector, 'roi_head')


def _class_layers(detector: nn.Module) -> list[nn.Module]:
    return [detector.roi_head.bbox_head.fc_cls] if _is_two_stage(detector) else list(detector.bbox_head.rtm_cls)


def _test_cfg(detector: nn.Module) -> Any:
    return (detector.roi_head if _is_two_stage(detector) else detector.bbox_head).test_cfg


def make_picture(height: int, width: int, generator: np.random.Generator) -> np.ndarray:
    """(H, W, 3) uint8 with structure of every size."""
    picture = np.zeros((height, width, 3), dtype=np.float32)
    for cells in (2, 8, 32, 128):
        noise = generator.normal(size=(cells, cells, 3)).astype(np.float32)
        picture += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(128 + 32 * picture, 0, 255).astype(np.uint8)


def make_systems(picture: np.ndarray, watch: Stopwatch, args: argparse.Namespace) -> dict[str, Any]:
    """All systems, ready and warm; exported ones come before those that take long to prepare."""
    systems: dict[str, Any] = {}
    made: dict[str, TorchSystem] = {}
    for name in sorted(args.systems, key=lambda name: not RECIPES[name].exported):
        recipe = RECIPES[name]
        key = f'{recipe.config}, {recipe.equal}'
        if key not in made:
            made[key] = TorchSystem(recipe, args, watch)
            made[key].prepare(picture, instances=args.instances, candidates=args.candidates)
        systems[name] = made[key]
        if recipe.exported:
            systems[name] = ExportedSystem(made[key], recipe.exported, picture, args)
            systems[name](picture)
    return {name: systems[name] for name in args.systems}


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds of every picture by part, of each system and number of threads, and the load at each turn.

    Raises:
        ConfigError: If a system finds nothing, so that neither masks nor paths are timed.
    """
    watch = Stopwatch(PARTS, torch.device(args.device))
    watch.use_threads(max(args.threads))
    picture = make_picture(*args.size, np.random.default_rng(args.seed))
    systems = make_systems(picture, watch, args)
    figures = {name: {'turns': {str(threads): [] for threads in args.threads}, 'load': []} for name in systems}
    exported = [pair for system in systems.values() if isinstance(system, ExportedSystem) for pair in system.watched()]
    with watch.watching([*WATCHED, *dict.fromkeys(exported)]):
        for _ in trange(args.repeats, desc='turns', disable=None):
            for threads in args.threads:
                watch.use_threads(threads)
                cv2.setNumThreads(threads)
                for name, system in systems.items():
                    found, instances = _turn(system, picture, watch, seconds=args.seconds)
                    figures[name]['turns'][str(threads)] += found
                    figures[name]['load'].append(round(os.getloadavg()[0], 1))
                    figures[name] |= describe(system, instances, args)
                    if not figures[name]['instances']:
                        raise ConfigError(f'{name} finds nothing', fix='Give it a larger picture or more candidates.')
    return figures


def describe(system: Any, instances: Any, args: argparse.Namespace) -> dict[str, Any]:
    """What its times depend on: its size, and how many instances there were, of which part of the picture."""
    boxes = np.asarray(instances.boxes if isinstance(system, ExportedSystem) else instances.bboxes.cpu())
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return {
        'parameters': system.parameters,
        'megabytes': getattr(system, 'megabytes', None),
        'input': list(system.input),
        'instances': len(boxes),
        'box_share': float(areas.mean()) / (args.size[0] * args.size[1]) if len(boxes) else 0.0,
    }


def _turn(system: Any, picture: np.ndarray, watch: Stopwatch, *, seconds: float) -> tuple[list[Any], Any]:
    """Times pictures for some seconds, one at least; milliseconds by part, and the instances of the last."""
    found, start = [], perf_counter()
    while not found or perf_counter() - start < seconds:
        watch.restart()
        instances = system(picture)
        found.append(watch.milliseconds)
    return found, instances


def summary(turns: list[dict[str, float]]) -> dict[str, float]:
    """The least of each part, and the least and the median of all."""
    totals = [sum(parts.values()) for parts in turns]
    least = {part: min(parts[part] for parts in turns) for part in PARTS}
    return {**least, 'all': min(totals), 'median': statistics.median(totals)}


def table(figures: dict[str, Any], threads: int) -> Iterator[str]:
    """Lines of Markdown."""
    base = summary(next(iter(figures.values()))['turns'][str(threads)])
    columns = ('input', 'M parameters', 'instances', 'all', 'median', '×', *PARTS, '× without masks')
    yield f'| {_threads(threads)}, ms | {" | ".join(columns)} |'
    yield '|---' * 2 + '|---:' * (6 + len(PARTS)) + '|'
    for name, found in figures.items():
        row = summary(found['turns'][str(threads)])
        height, width = found['input']
        yield ' | '.join([
            f'| {name} | {height} × {width} | {found["parameters"] / 1e6:.1f} | {found["instances"]}',
            f'{row["all"]:,.0f} | {row["median"]:,.0f} | {base["all"] / row["all"]:.1f}',
            *(f'{row[part]:,.1f}' if row[part] else '' for part in PARTS),  # ONNX Runtime suppresses within
            f'{(base["all"] - base["masks"]) / (row["all"] - row["masks"]):.1f} |',
        ])  # fmt: skip


def _threads(count: int) -> str:
    return '1 thread' if count == 1 else f'{count} threads'


def listed_accuracy(folder: str, name: str) -> float:
    """Mask AP on COCO in per cent, as MMDetection's own files list it."""
    path = Path(mmdet.__file__).parent / '.mim' / 'configs' / folder / 'metafile.yml'
    (model,) = (model for model in yaml.safe_load(path.read_text())['Models'] if model['Name'] == name)
    (result,) = (result for result in model['Results'] if result['Task'] == 'Instance Segmentation')
    return float(result['Metrics']['mask AP'])


def draw(figures: dict[str, Any], accuracy: dict[str, float], threads: int, label: str, path: Path) -> None:
    """Accuracy against latency, which has a logarithmic axis."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout='constrained')
    axes = figure.subplots()
    for number, (name, value) in enumerate(accuracy.items()):
        milliseconds = summary(figures[name]['turns'][str(threads)])['all']
        axes.scatter([milliseconds], [value], s=8 + figures[name]['parameters'] / 5e5, alpha=0.8)
        # Above and below in turns, since systems of one architecture lie side by side.
        axes.annotate(f'{name}\n{milliseconds:,.0f} ms', (milliseconds, value), xytext=(0, -34 if number % 2 else 12),
                      textcoords='offset points', ha='center', fontsize=8)  # fmt: skip
    axes.set_xscale('log')
    axes.margins(0.2)
    axes.set(xlabel=f'milliseconds a picture, masks included, {_threads(threads)}', ylabel=label)
    axes.xaxis.set_major_formatter('{x:,.0f}')
    axes.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def read_accuracy(args: argparse.Namespace) -> dict[str, float]:
    """Accuracy of the systems to draw.

    Raises:
        ConfigError: If one is not measured, or what is given is no number.
    """
    if not args.accuracy:
        return {name: listed_accuracy(*RECIPES[name].coco) for name in args.systems if RECIPES[name].coco}
    found = {}
    for word in args.accuracy:
        name, _, value = word.partition('=')
        try:
            found[name] = float(value)
        except ValueError:
            raise ConfigError(f'--accuracy {word}: no number', fix='Write NAME=VALUE.') from None
        if name not in args.systems:
            raise ConfigError(f'--accuracy {word}: not among --systems', fix=f'Measured are {", ".join(args.systems)}.')
    return found


@exits_cleanly()
def main() -> None:
    args = parse_arguments()
    if min(*args.size, args.equal_size, args.instances, args.candidates, args.repeats, *args.threads) < 1:
        raise ConfigError('all numbers must be at least 1')
    if args.device.startswith('cuda') and not torch.cuda.is_available():
        raise ConfigError(f'--device {args.device}: torch sees no GPU')
    exported = [name for name in args.systems if RECIPES[name].exported]
    if exported and args.device != 'cpu':
        raise ConfigError(f'{", ".join(exported)}: measured on the processor only', fix='Name the other --systems.')
    accuracy = read_accuracy(args)
    logging.disable(logging.WARNING)  # how each parameter was initialised, and which are shared
    init_default_scope('mmdet')
    figures = measure(args)
    for threads in args.threads:
        print('\n'.join(table(figures, threads)), end='\n\n')
    if args.figure:
        label = 'given accuracy' if args.accuracy else 'mask AP of the architecture on COCO, %'
        draw(figures, accuracy, args.threads[0], label, args.figure)
    if args.out:
        settings = {name: value for name, value in vars(args).items() if name not in ('out', 'figure')}
        args.out.parent.mkdir(parents=True, exist_ok=True)
        device = torch.cuda.get_device_name() if args.device.startswith('cuda') else 'cpu'
        summaries = {
            name: {threads: summary(turns) for threads, turns in found['turns'].items()}
            for name, found in figures.items()
        }
        document = {**settings, 'name_of_device': device, 'machine': describe_machine(), 'accuracy': accuracy}
        write_json({**document, 'summaries': summaries, 'figures': figures}, args.out)


if __name__ == '__main__':
    main()
