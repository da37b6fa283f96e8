"""Measures what each part of the end-to-end model is worth.

Trains variants of the quickstart's model with the same data, steps and seeds, and compares their scores. Runs that are
done already are not repeated.

Example:
    python tools/benchmarks/ablation.py masks verified --seeds 0 1 2
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.runner.checkpoint import get_torch_safe_globals
from terminaltables import GithubFlavoredMarkdownTable
from tqdm import tqdm

from hierseg.apis import read_config
from hierseg.errors import ConfigError, exits_cleanly
from hierseg.files import write_json
from hierseg.functional import SCHEMES
from hierseg.machine import describe_machine
from hierseg.metrics.average_precision import FREQUENCY_BANDS, frequency_bands
from hierseg.metrics.records import mean_over_classes
from hierseg.report.class_reports import plot_score_dots
from hierseg.store import Store
from hierseg.store.frequency import count_classes

ROOT = Path(__file__).parents[2]
DATA = {
    'quickstart': ['--tail-ratio=30'],
    'unannotated': ['--tail-ratio=30', '--unannotated-rate=0.3'],
    'tail': ['--tail-ratio=300'],
    'hard': ['--tail-ratio=300', '--unannotated-rate=0.3'],
    'coarse': ['--tail-ratio=30', '--coarse-rate=0.6'],
    'wide': ['--tail-ratio=30', '--taxonomy=wide.yaml'],
}
"""Arguments of tools/synthesize.py beside those of all."""
EPOCHS = 4
STORE = 'data/quickstart/store/'

MASKS = 'model.roi_head.mask_head.class_agnostic=False'
LOSS = 'model.roi_head.bbox_head.loss_cls.'
SAMPLER = 'train_dataloader.sampler.'
ONE_MASK = [
    'model.roi_head.mask_channels=shared',
    'model.roi_head.mask_head.class_agnostic=True',
    'model.roi_head.mask_head.num_classes=22',
]
ALL_KNOWN = ['model.roi_head.verified=None']
AS_THEY_COME = [f'{SAMPLER}_delete_=True', f'{SAMPLER}type=hierseg.StreamSampler']
PLAIN = [*ONE_MASK, *ALL_KNOWN, *AS_THEY_COME]
"""The end-to-end model with nothing but its loss."""
WIDE_LAYERS = (80, 40)
WIDE = [
    f'model.roi_head.bbox_head.num_classes={sum(WIDE_LAYERS)}',
    f'model.roi_head.mask_head.num_classes={WIDE_LAYERS[0]}',
    'model.roi_head.verified.num_negatives=20',
]
WIDE_ENSEMBLE = [
    f'model.layer{layer}.roi_head.{head}.num_classes={count}'
    for layer, count in enumerate(WIDE_LAYERS)
    for head in ('bbox_head', 'mask_head')
]
"""The systems for the taxonomy of `write_wide_taxonomy`."""


RATES = (0.001, 0.002, 0.004)


def learning_rate(config: str, rate: float) -> list[str]:
    """Options for a learning rate, of both layers where there are two."""
    layers = ('layer0.', 'layer1.') if config == 'two_layer_ensemble' else ('',)
    return [f'optim_wrapper.{layer}optimizer.lr={rate}' for layer in layers]


@dataclass(frozen=True)
class Experiment:
    """A question, and the models that answer it.

    Attributes:
        question: What is asked.
        variants: Options of the config by name; all are compared to the first.
        data: Key of ``DATA``.
        configs: The config of a variant, where it is not the end-to-end model's.
        steps: Part of the steps that a variant is trained for, where it is not all of them.
    """

    question: str
    variants: dict[str, list[str]]
    data: str = 'quickstart'
    configs: dict[str, str] = field(default_factory=dict)
    steps: dict[str, float] = field(default_factory=dict)


def repeat_factors(**options: object) -> list[str]:
    """Options of the sampler by repeat factors.

    Of 22 classes even the rarest is on more than a thousandth of the images, the usual threshold.
    """
    given = {'_delete_': True, 'type': 'hierseg.RepeatFactorSampler', 'threshold': 0.1, **options}
    return [f'{SAMPLER}{key}={value}' for key, value in given.items()]


SLOW = learning_rate('hier_e2e', 0.001)
SHORT = {
    'hier_e2e, half the rate': SLOW,
    'every image once': [*AS_THEY_COME, *SLOW],
    'class-aware, power 0.5': [f'{SAMPLER}power=0.5', *SLOW],
    'one mask for all classes': [*ONE_MASK, *SLOW],
    'warm-up of 25 steps': ['param_scheduler.0.end=25', *SLOW],
    'hier_e2e': [],
}
EQL = [f'{LOSS}balance.type=eql']
COMBINATIONS = {
    'hier_e2e': [],
    'eql': EQL,
    'tree_min': [f'{LOSS}scheme=tree_min'],
    'class-aware, power 0.5': [f'{SAMPLER}power=0.5'],
    'IRFS': repeat_factors(instance_aware=True),
}

EXPERIMENTS = {
    'systems': Experiment(
        'What does one model give for two, and what of that is its loss alone?',
        {'two_layer_ensemble': [], 'hier_e2e': [], 'hier_e2e, half the steps': [], 'hier_e2e, plain': PLAIN},
        configs={'two_layer_ensemble': 'two_layer_ensemble'},
        steps={'hier_e2e, half the steps': 0.5},
    ),
    'wide': Experiment(
        'And on 120 classes, with half as many steps again?',
        {'two_layer_ensemble': WIDE_ENSEMBLE, 'hier_e2e': WIDE, 'hier_e2e, half the steps': WIDE},
        data='wide',
        configs={'two_layer_ensemble': 'two_layer_ensemble'},
        steps={'two_layer_ensemble': 1.5, 'hier_e2e': 1.5, 'hier_e2e, half the steps': 0.75},
    ),
    'short': Experiment(
        'What holds the end-to-end model back in half the steps?',
        SHORT,
        steps=dict.fromkeys(SHORT, 0.5),
    ),
    'rates': Experiment(
        'Which learning rate serves each system, the end-to-end model in half the steps?',
        {
            **{f'two_layer_ensemble, {rate}': learning_rate('two_layer_ensemble', rate) for rate in RATES},
            **{f'hier_e2e, {rate}': learning_rate('hier_e2e', rate) for rate in RATES},
        },
        configs={f'two_layer_ensemble, {rate}': 'two_layer_ensemble' for rate in RATES},
        steps={f'hier_e2e, {rate}': 0.5 for rate in RATES},
    ),
    'combinations': Experiment(
        'What does the end-to-end model gain from another part yet?',
        COMBINATIONS,
        data='hard',
    ),
    'verified': Experiment(
        'What is it worth to leave unverified classes out of the loss?',
        {
            'all classes': PLAIN,
            **{
                f'verified, {count} drawn': [*ONE_MASK, *AS_THEY_COME, f'model.roi_head.verified.num_negatives={count}']
                for count in (0, 2, 4)
            },
        },
        data='unannotated',
    ),
    'masks': Experiment(
        'Does a mask for each root class, or each class, help?',
        {
            'shared': PLAIN,
            'root': [*ALL_KNOWN, *AS_THEY_COME],
            'class': [
                *ALL_KNOWN,
                *AS_THEY_COME,
                'model.roi_head.mask_channels=class',
                'model.roi_head.mask_head.num_classes=22',
            ],
        },
    ),
    'sampling': Experiment(
        'Which sampler serves the tail?',
        {
            'every image once': PLAIN,
            'RFS': [*ONE_MASK, *ALL_KNOWN, *repeat_factors()],
            'IRFS': [*ONE_MASK, *ALL_KNOWN, *repeat_factors(instance_aware=True)],
            'class-aware, power 0.5': [*ONE_MASK, *ALL_KNOWN, f'{SAMPLER}power=0.5'],
            'class-aware': [*ONE_MASK, *ALL_KNOWN],
        },
        data='tail',
    ),
    'schemes': Experiment(
        'Which loss?',
        # The built-in taxonomy has a class with two parents, for which `conditional` does not hold.
        {
            'path_sum': PLAIN,
            **{name: [*PLAIN, f'{LOSS}scheme={name}'] for name in SCHEMES if name not in ('path_sum', 'conditional')},
        },
    ),
    'balance': Experiment(
        'Which balance option serves the tail?',
        {
            'none': PLAIN,
            'seesaw': [*PLAIN, f'{LOSS}balance.type=seesaw'],
            'eql': [*PLAIN, f'{LOSS}balance.type=eql'],
            'logit_adjustment': [
                *PLAIN,
                f'{LOSS}balance.type=logit_adjustment',
                f'{LOSS}balance.class_counts={STORE}train',
            ],
        },
        data='tail',
    ),
}


@dataclass(frozen=True)
class Run:
    """One training and test; of several that ask for the same, the first serves all.

    Attributes:
        experiment: Key of ``EXPERIMENTS``.
        variant: Name of the variant.
        seed: Of the training.
        iterations: Of a whole training.
        data: Folder of the data set; its name tells how many images it has.
        out: Folder of all runs.
        learning_rate: Instead of the config's.
    """

    experiment: str
    variant: str
    seed: int
    iterations: int
    data: Path
    out: Path
    learning_rate: float | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """All that the result depends on, beside the code."""
        experiment = EXPERIMENTS[self.experiment]
        config = experiment.configs.get(self.variant, 'hier_e2e')
        rate = [] if self.learning_rate is None else learning_rate(config, self.learning_rate)
        return {
            'config': config,
            'values': config_digest(config),
            'options': [*experiment.variants[self.variant], *rate],
            'data': self.data.name,
            'iterations': round(self.iterations * experiment.steps.get(self.variant, 1)),
            'seed': self.seed,
        }

    @property
    def folder(self) -> Path:
        """Where it writes."""
        digest = hashlib.sha256(json.dumps(self.settings).encode()).hexdigest()[:12]
        return self.out / 'runs' / digest

    def __call__(self, *, threads: int) -> dict[str, Any]:
        """Trains and tests, unless that was done; gives back the results."""
        trained, tested = self.folder / 'trained.json', self.folder / 'tested.json'
        if not trained.exists():
            start = time.perf_counter()
            options = [*_lengths(self.config, self.settings['iterations']), f'randomness.seed={self.seed}']
            self._python('train.py', self.config, options=options, threads=threads)
            seconds = round(time.perf_counter() - start, 1)
            write_json({'settings': self.settings, 'seconds': seconds}, trained)
        if not tested.exists():
            write_json(self._test(threads), tested)
        return {**json.loads(trained.read_text()), **json.loads(tested.read_text())}

    @property
    def config(self) -> Path:
        """The config that is trained."""
        return ROOT / f'configs/quickstart/{self.settings["config"]}.py'

    def _test(self, threads: int) -> dict[str, Any]:
        checkpoint, classes = (self.folder / 'last_checkpoint').read_text(), self.folder / 'classes.json'
        both = self.folder / 'both_metrics.py'
        both.write_text(BOTH_METRICS.format(base=self.config, store=f'{STORE}validation', classes=classes))
        self._python('test.py', both, checkpoint, threads=threads)
        return {
            'scores': json.loads((self.folder / 'results.json').read_text()),
            'bands': _bands(json.loads(classes.read_text())['AP'], self.data / STORE / 'train'),
            'parameters': count_parameters(checkpoint),
        }

    def _python(self, tool: str, *arguments: str | Path, options: Sequence[str] = (), threads: int) -> None:
        """Runs a tool with the variant's options and some more."""
        options = [*self.settings['options'], *options]
        given = ['--cfg-options', *options] if options else []
        run_tool(tool, *arguments, '--work-dir', self.folder, *given, cwd=self.data, threads=threads)


@cache
def config_digest(name: str) -> str:
    """Tells the values of a quickstart config from those that it had before."""
    text = read_config(ROOT / f'configs/quickstart/{name}.py').pretty_text
    return hashlib.sha256(text.encode()).hexdigest()[:12]


BOTH_METRICS = """
_base_ = '{base}'
test_evaluator = [
    dict(type='hierseg.OpenImagesInstanceMetric', store='{store}', results_file='{classes}'),
    dict(type='hierseg.LocalisedPairsMetric', store='{store}')]
"""


def _lengths(config: Path, iterations: int) -> list[str]:
    """Options for a training of so many iterations, without a score in between."""
    options = [f'default_hooks.logger.interval={iterations}']
    if config.stem == 'two_layer_ensemble':
        # 7 to 3, as in the report.
        lengths = {'layer0': round(0.7 * iterations / EPOCHS), 'layer1': round(0.3 * iterations / EPOCHS)}
        return options + [f'train_dataloader.{layer}.batch_sampler.iterations={n}' for layer, n in lengths.items()]
    return [
        *options,
        f'train_dataloader.batch_sampler.iterations={round(iterations / EPOCHS)}',
        'train_cfg.val_begin=1000',
    ]


def run_tool(tool: str, *arguments: str | Path, cwd: Path, threads: int, keep_open: Sequence[int] = ()) -> float:
    """Runs one of tools/ to its end, with open files that it keeps, and tells what it took, in processor seconds."""
    environment = {**os.environ, 'OMP_NUM_THREADS': str(threads), 'PYTHONPATH': str(ROOT)}
    with tempfile.TemporaryFile() as printed:
        process = subprocess.Popen(
            [sys.executable, ROOT / 'tools' / tool, *arguments],
            cwd=cwd, env=environment, stdout=printed, stderr=subprocess.STDOUT, pass_fds=keep_open,
        )  # fmt: skip
        # Of this process alone: others may be running beside it.
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            printed.seek(0)
            text = printed.read().decode(errors='replace')[-3000:]
            raise ConfigError(f'{tool} failed: {text}', where=' '.join(map(str, arguments)))
    return usage.ru_utime + usage.ru_stime


def _bands(precisions: dict[str, float | None], store: Path) -> dict[str, float]:
    """Mean AP of the rarest, middle and most frequent third of the evaluated classes, by training images."""
    opened = Store.open(store)
    values = np.array([precisions.get(name) for name in opened.taxonomy.ids], dtype=np.float64)  # None becomes nan
    bands = frequency_bands(count_classes(opened).images, np.flatnonzero(~np.isnan(values)).tolist())
    return {band: float(mean_over_classes(values, labels)) for band, labels in bands.items()}


def count_parameters(checkpoint: str) -> int:
    """Trained numbers of a checkpoint; running statistics are not trained."""
    with torch.serialization.safe_globals(get_torch_safe_globals()):
        weights = torch.load(checkpoint, map_location='cpu', weights_only=True)['state_dict']
    statistics = ('running_mean', 'running_var', 'num_batches_tracked')
    return sum(tensor.numel() for name, tensor in weights.items() if not name.endswith(statistics))


def write_wide_taxonomy(path: Path) -> None:
    """120 classes, in about Open Images' proportions: 80 root classes, 28 below 12 of them, 12 below 4 of those."""
    parents: dict[str, str | None] = {f'root {index}': None for index in range(80)}
    parents |= {f'child {index}': f'root {index % 12}' for index in range(28)}
    parents |= {f'grandchild {index}': f'child {index % 4}' for index in range(12)}
    path.write_text(json.dumps(parents), encoding='utf-8')


def make_data(name: str, folder: Path, *, images: int, val_images: int) -> None:
    """A synthetic data set and its stores, where they are not there yet."""
    data = folder / 'data/quickstart'
    if (data / 'store/validation').exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    if name == 'wide':
        write_wide_taxonomy(folder / 'wide.yaml')
    counts = [f'--images={images}', f'--val-images={val_images}']
    if not data.exists():
        run_tool('synthesize.py', str(data), *counts, *DATA[name], cwd=folder, threads=1)
    tables = {'boxes': 'bbox', 'labels': 'labels', 'masks': 'masks'}
    for split in ('train', 'validation'):
        official = f'{data}/challenge-2019'
        run_tool(
            'dataset_converters/openimages.py', f'--out={data}/store/{split}', '--overwrite', '--workers=1',
            f'--hierarchy={official}-label-hierarchy.json', f'--classes={official}-classes-description.csv',
            *(f'--{table}={official}-{split}-segmentation-{file}.csv' for table, file in tables.items()),
            f'--mask-dir={data}/{split}-masks', f'--images={data}/{split}', cwd=folder, threads=1,
        )  # fmt: skip


COLUMNS = {
    'mAP': 'segm/mAP', 'layer 0': 'segm/mAP_layer0', 'layer 1': 'segm/mAP_layer1',
    'found': 'pairs/match_rate', 'top-1': 'pairs/exact', 'distance': 'pairs/distance',
}  # fmt: skip


def table(name: str, results: dict[str, dict[int, dict[str, Any]]]) -> str:
    """A row for each variant: means over seeds, and differences to the first variant with their standard error."""
    rows = [['', *COLUMNS, 'mAP against the first', *FREQUENCY_BANDS, 'parameters', 'training s']]
    first = next(iter(results.values()))
    for variant, runs in results.items():
        means = [np.mean([_number(run['scores'][key]) for run in runs.values()]) for key in COLUMNS.values()]
        bands = [np.mean([run['bands'][band] for run in runs.values()]) for band in FREQUENCY_BANDS]
        gains = [run['scores']['segm/mAP'] - first[seed]['scores']['segm/mAP'] for seed, run in runs.items()]
        error = f' ± {np.std(gains, ddof=1) / np.sqrt(len(gains)):.3f}' if len(gains) > 1 else ''
        difference = '' if runs is first else f'{np.mean(gains):+.3f}{error}'
        seconds = np.mean([run['seconds'] for run in runs.values()])
        numbers = [f'{value:.3f}' for value in means], [f'{value:.3f}' for value in bands]
        parameters = next(iter(runs.values()))['parameters']
        rows.append([variant, *numbers[0], difference, *numbers[1], f'{parameters:,}', f'{seconds:.0f}'])
    return f'{name}: {EXPERIMENTS[name].question}\n' + GithubFlavoredMarkdownTable(rows).table


def draw(name: str, results: dict[str, dict[int, dict[str, Any]]], path: Path) -> None:
    """The same as a picture."""
    layers = {name: COLUMNS[name] for name in ('mAP', 'layer 0', 'layer 1')}
    scores = {
        variant: {
            **{column: [_number(run['scores'][key]) for run in runs.values()] for column, key in layers.items()},
            **{band: [run['bands'][band] for run in runs.values()] for band in FREQUENCY_BANDS},
        }
        for variant, runs in results.items()
    }
    plot_score_dots(scores, [['mAP'], ['layer 0', 'layer 1'], FREQUENCY_BANDS], path, title=EXPERIMENTS[name].question)


def _number(value: float | None) -> float:
    """JSON has null for what has no value."""
    return float('nan') if value is None else value


def measure(runs: Sequence[Run], *, jobs: int, threads: int) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Folders and results as they come, several runs at a time."""
    with ThreadPoolExecutor(jobs) as pool:
        distinct = {run.folder: run for run in runs}
        pending = {pool.submit(run, threads=threads): folder for folder, run in distinct.items()}
        try:
            for done in tqdm(as_completed(pending), total=len(pending), unit='run'):
                yield pending[done], done.result()
        finally:
            pool.shutdown(cancel_futures=True)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('experiments', nargs='+', choices=[*EXPERIMENTS], metavar='EXPERIMENT', help='%(choices)s')
    parser.add_argument('--seeds', nargs='+', type=int, default=[0], help='of the trainings; default: 0')
    parser.add_argument('--iterations', type=int, default=280, help='of each training, 8 images each; default: 280')
    parser.add_argument('--images', type=int, default=1600, help='training images; default: 1600')
    parser.add_argument('--val-images', type=int, default=200, help='images of the test; default: 200')
    parser.add_argument('--learning-rate', type=float, metavar='RATE', help="of all trainings; default: each config's")
    parser.add_argument('--jobs', type=int, default=os.cpu_count(), help='runs at a time; default: one a core')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/ablation'), help='default: %(default)s')
    return parser.parse_args()


@exits_cleanly()
def main() -> None:
    args = parse_arguments()
    out = args.out.resolve()
    kinds = {EXPERIMENTS[name].data for name in args.experiments}
    # The name keeps results on other numbers of images apart.
    folders = {kind: out / 'data' / f'{kind}-{args.images}-{args.val_images}' for kind in kinds}
    for kind, folder in folders.items():
        make_data(kind, folder, images=args.images, val_images=args.val_images)
    runs = [
        Run(name, variant, seed, args.iterations, folders[EXPERIMENTS[name].data], out, args.learning_rate)
        for seed in args.seeds
        for name in args.experiments
        for variant in EXPERIMENTS[name].variants
    ]
    threads = max(1, (os.cpu_count() or 1) // args.jobs)
    found = dict(measure(runs, jobs=args.jobs, threads=threads))
    for name in args.experiments:
        results = {
            variant: {run.seed: found[run.folder] for run in runs if (run.experiment, run.variant) == (name, variant)}
            for variant in EXPERIMENTS[name].variants
        }
        write_json({'machine': describe_machine(), 'results': results}, out / f'{name}.json')
        (out / f'{name}.md').write_text(table(name, results) + '\n', encoding='utf-8')
        draw(name, results, out / f'{name}.png')
        print(table(name, results), end='\n\n')


if __name__ == '__main__':
    main()
