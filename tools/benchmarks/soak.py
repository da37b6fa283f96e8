"""Trains for some minutes, with an evaluation after every epoch, and tells whether memory and open files grow.

Epochs are short, so that what is opened for each of them is opened often: loaders, workers, evaluators, checkpoints.
Memory and files are those of this process and the ones that it began. The slope is a line's through the second half of
the epochs, by least squares: in the first half caches fill. oneDNN keeps the kernels that it compiled for 1,024 shapes.
With the quickstart's model they took 1 GB, and were not all there after 30 minutes. So it keeps few of them here.

Example:
    python tools/benchmarks/soak.py configs/quickstart/hier_e2e.py --minutes 30 --out soak.json
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from hierseg.arguments import add_config_options
from hierseg.errors import ConfigError, exits_cleanly
from hierseg.files import write_json
from hierseg.machine import describe_machine
from hierseg.threads import choose_threads

MEGABYTES = 1.0
"""Growth of memory, in megabytes a minute, that counts as none: an allocator's noise."""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file of a model that is trained by epochs, such as the quickstart')
    parser.add_argument('--minutes', type=float, default=10, help='default: %(default)s')
    parser.add_argument('--iterations', type=int, default=4, help='of an epoch (default: %(default)s)')
    parser.add_argument('--out', type=Path, help='write the figures as JSON, too')
    add_config_options(parser)
    return parser.parse_args()


@HOOKS.register_module(force=True)  # as a program and as a module are two
class SoakHook(Hook):
    """Notes the state of the process before every epoch, and makes one the last after some minutes."""

    priority = 'LOWEST'

    def __init__(self, minutes: float) -> None:
        self.minutes, self.start = minutes, time.monotonic()
        self.rows: list[tuple[float, float, int]] = []

    def before_train_epoch(self, runner: Runner) -> None:
        """Notes, and decides whether another epoch follows; what the last evaluation left is seen here."""
        minutes = (time.monotonic() - self.start) / 60
        self.rows.append((minutes, *resources(os.getpid())))
        runner.train_loop.stop_training = minutes >= self.minutes


def resources(process: int) -> tuple[float, int]:
    """Memory in 10⁶ bytes and the number of open files, of a process and of those that it began."""
    folder = Path(f'/proc/{process}')
    pages = int((folder / 'statm').read_text().split()[1])
    memory, files = pages * os.sysconf('SC_PAGE_SIZE') / 1e6, len(os.listdir(folder / 'fd'))
    for child in (folder / f'task/{process}/children').read_text().split():
        try:
            more = resources(int(child))
        except (FileNotFoundError, ProcessLookupError):  # ended meanwhile
            continue
        memory, files = memory + more[0], files + more[1]
    return memory, files


def summarise(rows: list[tuple[float, float, int]]) -> dict[str, Any]:
    """Slopes a minute of rows of minutes, megabytes and files, the values at both ends of their half, and all rows.

    Raises:
        ConfigError: There are too few for a line.
    """
    if len(rows) < 6:
        raise ConfigError(f'{len(rows)} epochs are too few for a slope', fix='Give more --minutes.')
    minutes, memory, files = np.array(rows).T
    half = len(rows) // 2
    slopes = [float(np.polyfit(minutes[half:], values[half:], 1)[0]) for values in (memory, files)]
    return {
        'minutes': float(minutes[-1]),
        'epochs': len(rows),
        'memory_mb': [float(memory[half]), float(memory[-1])],
        'memory_mb_per_minute': slopes[0],
        'files': [int(files[half]), int(files[-1])],
        'files_per_minute': slopes[1],
        'rows': [[round(float(value), 3) for value in row] for row in rows],
        'is_flat': bool(slopes[0] < MEGABYTES and slopes[1] < 1 / max(1.0, minutes[-1] - minutes[half])),
    }


@exits_cleanly()
def main() -> None:
    arguments = parse_arguments()
    os.environ.setdefault('ONEDNN_PRIMITIVE_CACHE_CAPACITY', '32')  # read at the first convolution
    choose_threads()
    from hierseg.apis import train

    with TemporaryDirectory() as folder:
        options = {
            'train_cfg.max_epochs': 10**6,
            'train_cfg.val_begin': 1,
            'train_cfg.val_interval': 1,
            'train_dataloader.batch_sampler.iterations': arguments.iterations,
            'param_scheduler': None,
            'default_hooks.checkpoint.interval': 1,
            'default_hooks.checkpoint.max_keep_ckpts': 1,
            'custom_hooks': [dict(type='SoakHook', minutes=arguments.minutes)],
            **(arguments.cfg_options or {}),
        }
        runner = train(arguments.config, work_dir=folder, options=options)
    hook = next(hook for hook in runner.hooks if isinstance(hook, SoakHook))
    found = {'config': arguments.config, **summarise(hook.rows), **describe_machine()}
    print(
        f'{found["epochs"]} epochs with evaluation in {found["minutes"]:.1f} min; in the second half memory '
        f'{found["memory_mb"][0]:.0f} to {found["memory_mb"][1]:.0f} MB ({found["memory_mb_per_minute"]:+.2f} MB/min), '
        f'open files {found["files"][0]} to {found["files"][1]} ({found["files_per_minute"]:+.3f}/min): '
        + ('flat' if found['is_flat'] else 'GROWING')
    )
    if arguments.out:
        write_json(found, arguments.out, error=ConfigError)
    raise SystemExit(0 if found['is_flat'] else 1)


if __name__ == '__main__':
    main()
