"""Trains one model, two models and flat detectors ever longer, and draws what each has learnt by then.

A model is trained at a constant rate, and from that training short ones branch off whose rate falls to almost zero: at
each length a whole training, for about 1.2 times the price of the longest. Everything goes on where it was killed, and
a second process that is started with the same command takes a share of the work.

Example:
    python tools/benchmarks/curves.py train end_to_end report_ensemble --seeds 0 1 2
    python tools/benchmarks/curves.py draw
"""

from __future__ import annotations

import argparse
import copy
import fcntl
import hashlib
import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator
from mmengine.config import Config, DictAction
from terminaltables import GithubFlavoredMarkdownTable

from hierseg.apis.configs import load_config, read_config
from hierseg.apis.runner import build_runner
from hierseg.engine.checkpoint_files import read_checkpoint_file, safe_loading
from hierseg.errors import ConfigError, exits_cleanly
from hierseg.evaluation import SystemEvaluation, SystemMetric
from hierseg.files import finite, whole_path, write_atomically, write_json
from hierseg.machine import describe_machine
from hierseg.metrics.records import OPEN_IMAGES, Verdict

sys.path.insert(0, str(Path(__file__).parent))  # where the tool is not run as a script
from ablation import ALL_KNOWN, DATA, ONE_MASK, ROOT, STORE, count_parameters, make_data, repeat_factors, run_tool

LENGTHS = (280, 560, 1120, 2240, 4480, 8960)
"""Steps of 8 images."""
SHORTEST = LENGTHS[0]
CONSTANT, DECAY = 4, 1
"""Epochs of the shortest training before its rate falls, and while it does; those of a longer one are multiples."""
WARM_UP = dict(type='LinearLR', start_factor=0.05, by_epoch=False, begin=0, end=50)
LAST_RATE = 0.005
"""Part of the rate that a training ends with, as the quickstart's."""
KINDS = tuple(name for name in DATA if name != 'wide')
"""Kinds of data that the quickstart's configs fit."""


@dataclass(frozen=True)
class System:
    """A system that is compared, and how its steps are shared.

    Attributes:
        title: Its name in table and figure.
        config: Its config's name among the quickstart's.
        options: Values that override the config's, as on the command line.
        parts: Steps of each part of the model for each of a length; the whole model is the part ''.
    """

    title: str
    config: str
    options: Sequence[str] = ()
    parts: Mapping[str, float] = field(default_factory=lambda: {'': 1.0})


SYSTEMS = {
    'end_to_end': System('end-to-end model', 'hier_e2e'),
    # 7 to 3, as in the report: as many steps as the end-to-end model in all.
    'report_ensemble': System("the report's ensemble", 'two_layer_ensemble', parts={'layer0': 0.7, 'layer1': 0.3}),
    'strong_ensemble': System('strong ensemble', 'strong_ensemble', parts={'layer0': 1.0, 'layer1': 1.0}),
    'flat_propagated': System('flat, parents propagated', 'flat_propagated'),
    'flat_multilabel': System('flat, expanded labels', 'flat_multilabel'),
    'loss_alone': System('end-to-end, its loss alone', 'hier_e2e', (*ONE_MASK, *ALL_KNOWN)),
    'repeat_factors': System('end-to-end, repeat factors, p = 0.5', 'hier_e2e', repeat_factors(threshold='max')),
    'balanced_factors': System(
        'end-to-end, repeat factors, p = 1', 'hier_e2e', repeat_factors(threshold='max', power=1, max_repeats=20)
    ),
}


@dataclass(frozen=True)
class Run:
    """One system from one seed, trained ever longer.

    Attributes:
        name: Key of ``SYSTEMS``.
        seed: Of the training.
        data: The folder that the data set of ``make_data`` lies in.
        out: Folder of all runs and results.
    """

    name: str
    seed: int
    data: Path
    out: Path

    @property
    def system(self) -> System:
        """What is trained."""
        return SYSTEMS[self.name]

    @property
    def folder(self) -> Path:
        """Where it trains."""
        return self.out / 'runs' / f'{self.name}-{self.seed}'

    @property
    def result_file(self) -> Path:
        """What it found, at all lengths that are done."""
        return self.out / 'results' / f'{self.name}-{self.seed}.json'

    def __call__(self, lengths: Sequence[int]) -> None:
        """Trains and measures at each length that is not done, unless another process is at this run."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self.folder / 'lock', wait=False) as lock:
            if lock is None:
                print(f'{self.folder.name}: another process trains it', flush=True)
                return
            for length in sorted(lengths):
                found = self._found()
                if str(length) not in found['points']:
                    found['points'][str(length)] = self._point(length, lock)
                    write_json(found, self.result_file)
                    score = found['points'][str(length)]['scores']['mAP']
                    print(f'{self.folder.name}: mAP {score:.3f} after {length} steps', flush=True)

    def _found(self) -> dict[str, Any]:
        """The results so far; a ConfigError if they are of other settings."""
        texts = [text_of(self.configured(part, CONSTANT)) for part in self.system.parts]
        digest = hashlib.sha256('\n'.join([*texts, self.data.name]).encode()).hexdigest()[:12]
        origin = {'system': self.name, 'title': self.system.title, 'seed': self.seed, 'settings': digest}
        if not self.result_file.exists():
            self.result_file.parent.mkdir(parents=True, exist_ok=True)
            return {**origin, 'machine': describe_machine(), 'points': {}}
        found: dict[str, Any] = json.loads(self.result_file.read_text(encoding='utf-8'))
        if found['settings'] != digest:
            fix = 'Give another --out, or the code and data that it was begun with.'
            raise ConfigError('the results are of other settings', where=str(self.result_file), fix=fix)
        return found

    def _point(self, length: int, lock: TextIO) -> dict[str, Any]:
        """Trains to a length and measures."""
        branches = {part: self._train(part, length, lock) for part in self.system.parts}
        folder = self.folder / f'{length}'
        folder.mkdir(exist_ok=True)
        checkpoint = next(iter(branches.values()))
        if len(branches) > 1:
            checkpoint = folder / 'joined.pth'
            self._tool('misc/merge_layers.py', *branches.values(), f'--out={checkpoint}', lock=lock)
        config = folder / 'config.py'
        dump(self.whole(), config)
        found = folder / 'found.json'
        self._tool('benchmarks/curves.py', 'measure', config, checkpoint, f'--out={found}', lock=lock)
        return {
            **json.loads(found.read_text(encoding='utf-8')),
            'steps': sum(self.epoch_of(part) for part in branches) * (CONSTANT + DECAY) * (length // SHORTEST),
            'seconds_per_step': self._seconds_per_step(),
            'parameters': count_parameters(str(checkpoint)),
        }

    def _train(self, part: str, length: int, lock: TextIO) -> Path:
        """The checkpoint of a part after a training of a length."""
        times = length // SHORTEST
        trunk, branch = (self.folder / f'{part or "model"}-{kind}' for kind in ('constant', str(length)))
        constant, whole = CONSTANT * times, (CONSTANT + DECAY) * times
        if epochs_of(branch) == whole:
            return last_checkpoint(branch)
        if epochs_of(branch) == 0:
            if epochs_of(trunk) > constant:
                what = f'it is {epochs_of(trunk)} epochs long, and {length} steps branch off after {constant}'
                raise ConfigError(what, where=str(trunk), fix='Give shorter lengths first, or another --out.')
            self._epochs(trunk, part, constant, lock=lock)
        self._epochs(branch, part, whole, lock=lock, decay=DECAY * times, begin=last_checkpoint(trunk))
        return last_checkpoint(branch)

    def _epochs(
        self, folder: Path, part: str, epochs: int, *, lock: TextIO, decay: int = 0, begin: Path | None = None
    ) -> None:
        """Trains until so many epochs are done, from another folder's checkpoint where this one has none."""
        before = epochs_of(folder)
        if before == epochs:
            return
        folder.mkdir(exist_ok=True)
        dump(self.configured(part, epochs, decay=decay), folder / 'config.py')
        source: Path | str = 'auto'
        if begin is not None and before == 0:
            source = branched(begin, folder, decay * self.epoch_of(part))
        given = (folder / 'config.py', f'--work-dir={folder}', f'--resume={source}')
        seconds = self._tool('train.py', *given, lock=lock)
        first = before if source == 'auto' else epochs - decay
        steps = (epochs - first) * self.epoch_of(part)
        # A training that was killed is not among them, so that steps and seconds belong together.
        line = json.dumps({'part': part, 'steps': steps, 'seconds': round(seconds, 1)})
        with (self.folder / 'costs.jsonl').open('a', encoding='utf-8') as file:
            file.write(line + '\n')

    def _seconds_per_step(self) -> float:
        """Processor seconds of a step, over all trainings that were not killed."""
        lines = (self.folder / 'costs.jsonl').read_text(encoding='utf-8').splitlines()
        costs = [json.loads(line) for line in lines]
        return sum(cost['seconds'] for cost in costs) / sum(cost['steps'] for cost in costs)

    def _tool(self, tool: str, *arguments: str | Path, lock: TextIO) -> float:
        return run_tool(tool, *arguments, cwd=self.data, threads=1, keep_open=(lock.fileno(),))

    def epoch_of(self, part: str) -> int:
        """Steps of an epoch of a part."""
        return round(self.system.parts[part] * SHORTEST / (CONSTANT + DECAY))

    def whole(self) -> Config:
        """The config of the system, with its options and seed."""
        config = copy.deepcopy(_read(ROOT / f'configs/quickstart/{self.system.config}.py'))
        parser = argparse.ArgumentParser()
        parser.add_argument('options', nargs='*', action=DictAction)
        config.merge_from_dict(parser.parse_args(self.system.options).options or {})
        config.randomness.seed = self.seed
        return config

    def configured(self, part: str, epochs: int, *, decay: int = 0) -> Config:
        """The config that trains a part: at a constant rate, but for the last epochs, in which the rate falls."""
        config = self.whole()
        if part:
            loader = config.train_dataloader
            shared = {key: value for key, value in loader.items() if not key.startswith('layer')}
            config.train_dataloader = {**shared, **loader[part]}
            config.model, config.optim_wrapper = config.model[part], config.optim_wrapper[part]
            config.default_hooks.param_scheduler = dict(type='ParamSchedulerHook')
            config.model_wrapper_cfg = None
        config.train_dataloader.batch_sampler.iterations = self.epoch_of(part)
        config.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=epochs)
        config.param_scheduler = schedulers(decay * self.epoch_of(part))
        # No score before the end; what is killed loses an epoch at most.
        for unused in ('val_dataloader', 'val_evaluator', 'val_cfg', 'test_dataloader', 'test_evaluator', 'test_cfg'):
            config[unused] = None
        hooks = dict(checkpoint=dict(interval=1, max_keep_ckpts=1), validation_loss=None, loss_curves=None)
        config.merge_from_dict({'default_hooks': hooks})
        return config


def schedulers(decay: int) -> list[dict[str, Any]]:
    """A constant rate after the warm-up or, where ``decay`` is not 0, one that falls for so many steps from now on.

    A branch begins with :func:`branched`.
    """
    if not decay:
        return [WARM_UP]
    return [WARM_UP, dict(type='LinearLR', start_factor=1.0, end_factor=LAST_RATE, by_epoch=False, begin=0, end=decay)]


def branched(checkpoint: Path, folder: Path, decay: int) -> Path:
    """Writes the checkpoint that a branch begins with: one at a constant rate, and the state of a fall that begins."""
    found = read_checkpoint_file(str(checkpoint), 'cpu')
    (warm_up,) = found['param_schedulers']
    numbers = dict(begin=0, end=decay, total_iters=decay - 1, start_factor=1.0, end_factor=LAST_RATE)
    found['param_schedulers'] = [warm_up, {**warm_up, **numbers, 'last_step': 0, '_global_step': 0}]
    with whole_path(folder / checkpoint.name) as partial:
        torch.save(found, partial)
    return folder / checkpoint.name


def last_checkpoint(folder: Path) -> Path:
    """The newest checkpoint of a training."""
    return Path((folder / 'last_checkpoint').read_text(encoding='utf-8'))


def epochs_of(folder: Path) -> int:
    """Epochs that a training has a checkpoint of."""
    if not (folder / 'last_checkpoint').exists():
        return 0
    return int(last_checkpoint(folder).stem.removeprefix('epoch_'))


_read = cache(read_config)


def text_of(config: Config) -> str:
    """A config with all that it inherits as a file; MMEngine's own text takes a second of formatting."""
    return ''.join(f'{name} = {value!r}\n' for name, value in config.to_dict().items())


def dump(config: Config, path: Path) -> None:
    """Writes a config, whole or not at all."""
    write_atomically(text_of(config).encode(), path)


@contextmanager
def locked(path: Path, *, wait: bool) -> Iterator[TextIO | None]:
    """A lock that ends with the last process that has the file open; None where another has it and we do not wait."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open('w', encoding='utf-8') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
        else:
            yield file


def measure(config: Path, checkpoint: Path, out: Path) -> None:
    """Tests a model and writes its scores, the AP of each class, and its detections beside them."""
    settled = load_config(config, work_dir=out.parent)
    settled.load_from = str(checkpoint)
    settled.test_evaluator = [
        dict(type='hierseg.SystemMetric', store=f'{STORE}validation', train_store=f'{STORE}train'),
        dict(type='hierseg.CocoResults', store=f'{STORE}validation', out_file=str(out.with_name('detections.json'))),
    ]
    with safe_loading():
        runner = build_runner(settled)
        runner.test()
    metric: SystemMetric = runner.test_evaluator.metrics[0]
    scores = {**metric.evaluation.scores, 'calibration_error': calibration_error(*claims_of(metric.evaluation))}
    classes = metric.evaluation.open_images.to_json(metric.taxonomy.ids)['AP']
    write_json({'scores': finite(scores), 'classes': classes}, out)


def claims_of(evaluation: SystemEvaluation) -> tuple[np.ndarray, np.ndarray]:
    """(N,) scores of all claims of a class that are right or wrong, and (N,) bool whether they are right."""
    tables = [image.matches for image in evaluation.images]
    verdicts = np.concatenate([table.verdicts[table.criteria.index(OPEN_IMAGES)] for table in tables])
    judged = np.isin(verdicts, [Verdict.FALSE_POSITIVE, Verdict.TRUE_POSITIVE])
    scores = np.concatenate([table.scores for table in tables])
    return scores[judged], verdicts[judged] == Verdict.TRUE_POSITIVE


def calibration_error(scores: np.ndarray, right: np.ndarray, *, bins: int = 10) -> float:
    """How far scores are from the share of claims that are right, over bins of scores, weighted by their claims.

    Source: the detection expected calibration error of Küppers et al., "Multivariate confidence calibration for object
    detection", CVPR workshops 2020, by the score alone. Nan without claims.

    Args:
        scores: (N,) from 0 to 1.
        right: (N,) bool.
        bins: Of equal width.
    """
    if not len(scores):
        return float('nan')
    places = np.minimum((scores * bins).astype(np.int64), bins - 1)
    return float(np.abs(np.bincount(places, weights=right - scores, minlength=bins)).sum() / len(scores))


PANELS = {
    'mAP': ('mAP@0.5, all classes', 'higher is better'),
    'mAP_layer0': ('root classes', 'higher is better'),
    'mAP_layer1': ('deeper classes', 'higher is better'),
    'exact': ('exact names of found objects', 'higher is better'),
    'calibration_error': ('calibration error', 'lower is better'),
}
COLORS = ('#2563eb', '#ea580c', '#b91c1c', '#059669', '#7c3aed', '#0891b2', '#a16207', '#71717a')
Points = dict[int, list[dict[str, Any]]]


def read_results(folder: Path) -> dict[str, Points]:
    """Points of each system by length, one for each seed that is done; a ConfigError where there is none."""
    found: dict[str, Points] = {name: defaultdict(list) for name in SYSTEMS}
    for file in sorted(folder.glob('*.json')):
        run = json.loads(file.read_text(encoding='utf-8'))
        for length, point in run['points'].items():
            found[run['system']][int(length)].append(point)
    results = {name: dict(sorted(points.items())) for name, points in found.items() if points}
    if not results:
        raise ConfigError('there are no results', where=str(folder), fix='Run `curves.py train` first.')
    return results


def hours(point: Mapping[str, Any]) -> float:
    """Processor hours of one training to a point, not of the branches before it."""
    return float(point['steps'] * point['seconds_per_step'] / 3600)


def table(results: Mapping[str, Points]) -> str:
    """A row for each system and length: means over seeds, and their standard deviation for mAP."""
    rows = [['', 'seeds', 'steps', 'mAP', '±', *('root', 'deeper', 'exact names', 'calibration error'), 'hours']]
    for name, points in results.items():
        for of_seeds in points.values():
            means = [np.mean([score(point, key) for point in of_seeds]) for key in PANELS]
            several = len(of_seeds) > 1
            spread = f'{np.std([score(point, "mAP") for point in of_seeds], ddof=1):.3f}' if several else ''
            numbers = [f'{means[0]:.3f}', spread, *(f'{mean:.3f}' for mean in means[1:])]
            cost = f'{np.mean([hours(point) for point in of_seeds]):.2f}'
            rows.append([SYSTEMS[name].title, f'{len(of_seeds)}', f'{of_seeds[0]["steps"]:,}', *numbers, cost])
    return str(GithubFlavoredMarkdownTable(rows).table)


def score(point: Mapping[str, Any], key: str) -> float:
    """A score of a point; JSON has null for what has no value."""
    value = point['scores'][key]
    return float('nan') if value is None else float(value)


def figure(results: Mapping[str, Points]) -> Figure:
    """A panel for each score against the steps, and mAP against the cost: the mean of the seeds, and each seed."""
    drawn = Figure(figsize=(13.2, 7.6), layout='constrained')
    panels = drawn.subplots(2, 3).flatten()
    for axes, (key, (title, direction)) in zip(panels, PANELS.items(), strict=False):
        axes.set_title(f'{title} ({direction})', loc='left', fontsize=10)
        axes.set_xlabel('steps of 8 images, of all parts')
        lengths = _lines(axes, results, key, lambda point: float(point['steps']))
        axes.xaxis.set_major_locator(FixedLocator(lengths))
    panels[-1].set_title('mAP@0.5 by the cost of the training', loc='left', fontsize=10)
    panels[-1].set_xlabel('hours of one processor core')
    _lines(panels[-1], results, 'mAP', hours)
    panels[-1].xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    for axes in panels:
        axes.xaxis.set_major_formatter('{x:,g}')
        axes.xaxis.set_minor_formatter('')
    drawn.legend(*panels[0].get_legend_handles_labels(), loc='outside lower center', ncols=4, frameon=False)
    return drawn


def _lines(axes: Any, results: Mapping[str, Points], key: str, place: Any) -> list[float]:
    """Draws a score of all systems, and gives back where on the horizontal axis there is any."""
    colors = dict(zip(SYSTEMS, COLORS, strict=True))
    for name, points in results.items():
        x = [np.mean([place(point) for point in of_seeds]) for of_seeds in points.values()]
        values = [[score(point, key) for point in of_seeds] for of_seeds in points.values()]
        means = [np.mean(of_seeds) for of_seeds in values]
        axes.plot(x, means, color=colors[name], label=SYSTEMS[name].title, linewidth=1.6, marker='o', markersize=4)
        for at, of_seeds in zip(x, values, strict=True):
            axes.scatter([at] * len(of_seeds), of_seeds, color=colors[name], s=7, alpha=0.5)
    axes.set_xscale('log')
    everywhere = {place(point) for points in results.values() for of_seeds in points.values() for point in of_seeds}
    axes.set_xlim(min(everywhere) / 1.3, max(everywhere) * 1.3)  # a score without values would have no limits
    axes.set_ylim(bottom=0)
    axes.grid(axis='y', color='#e4e4e7', linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[['top', 'right']].set_visible(False)
    return sorted(everywhere)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest='command', required=True)
    train = commands.add_parser('train', help='train and measure what is not done yet')
    train.add_argument('systems', nargs='*', metavar='SYSTEM', help=f'default: all of {", ".join(SYSTEMS)}')
    train.add_argument('--seeds', nargs='+', type=int, default=[0], help='default: 0')
    train.add_argument('--lengths', nargs='+', type=int, default=[*LENGTHS], help=f'multiples of {SHORTEST} steps')
    train.add_argument('--data', choices=KINDS, default='quickstart', help='kind of data; default: quickstart')
    train.add_argument('--images', type=int, default=1600, help='training images; default: 1600')
    train.add_argument('--val-images', type=int, default=200, help='images of the test; default: 200')
    draw = commands.add_parser('draw', help='draw figure and table of what is there')
    for command in (train, draw):
        command.add_argument('--out', type=Path, default=Path('work_dirs/curves'), help='default: %(default)s')
    one = commands.add_parser('measure', help='measure one checkpoint, as training does')
    one.add_argument('config', type=Path)
    one.add_argument('checkpoint', type=Path)
    one.add_argument('--out', type=Path, required=True, help='JSON to write')
    return parser.parse_args()


@exits_cleanly()
def main() -> None:
    args = parse_arguments()
    out = args.out.resolve()
    if args.command == 'measure':
        measure(args.config, args.checkpoint, out)
    elif args.command == 'train':
        train(args, out)
    else:
        results = read_results(out / 'results')
        drawn = figure(results)
        for suffix in ('svg', 'png'):
            drawn.savefig(out / f'curves.{suffix}', dpi=110)
        (out / 'curves.md').write_text(table(results) + '\n', encoding='utf-8')
        print(table(results))


def train(args: argparse.Namespace, out: Path) -> None:
    """Trains what the command line asks for, seed by seed."""
    unknown = sorted({*args.systems} - {*SYSTEMS})
    if unknown:
        raise ConfigError(f'unknown system {", ".join(unknown)}', fix=f'Use {", ".join(SYSTEMS)}.')
    if any(length < 1 or length % SHORTEST for length in args.lengths):
        raise ConfigError(f'lengths {args.lengths}', fix=f'Give multiples of {SHORTEST} steps.')
    data = out / 'data' / f'{args.data}-{args.images}-{args.val_images}'
    with locked(out / 'data.lock', wait=True):
        make_data(args.data, data, images=args.images, val_images=args.val_images)
    for seed in args.seeds:
        for name in args.systems or SYSTEMS:
            Run(name, seed, data, out)(args.lengths)


if __name__ == '__main__':
    main()
