"""Times a training step on the processor by number of threads and by how they wait, alone and beside busy processes.

The threads of OpenMP spin while they wait for one another. On a free machine that is the fastest; where another process
wants the same cores, each spins away the time that the other needs. Every setting is a process of its own, because
OpenMP reads its environment when torch is imported; the busy neighbours are loops that never pause. The step is one of
SGD on a stack of convolutions with batch normalisation, as in a detector's backbone.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

from hierseg.errors import exits_cleanly
from hierseg.files import write_json
from hierseg.machine import describe_machine
from hierseg.threads import free_cores

VARIABLES = ('OMP_NUM_THREADS', 'OMP_WAIT_POLICY', 'GOMP_SPINCOUNT')
CORES = len(os.sched_getaffinity(0))
SETTINGS: dict[str, dict[str, str]] = {
    'as torch comes': {},
    'passive': {'OMP_WAIT_POLICY': 'PASSIVE'},
    **{f'spins {count:,}': {'GOMP_SPINCOUNT': str(count)} for count in (1_000, 10_000, 100_000)},
    'one thread': {'OMP_NUM_THREADS': '1'},
}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--neighbours', type=int, nargs='+', default=[0, 1, 4], help='busy processes beside it')
    parser.add_argument('--seconds', type=float, default=6, help='of steps for each setting (default: %(default)s)')
    parser.add_argument('--repeats', type=int, default=3, help='of all settings in turn (default: %(default)s)')
    parser.add_argument('--out', type=Path, help='write the figures as JSON, too')
    parser.add_argument('--step', action='store_true', help=argparse.SUPPRESS)  # the child that takes the steps
    return parser.parse_args()


def seconds_of_steps(seconds: float) -> list[float]:
    """Wall-clock time of each step within the given time, after two to warm up."""
    import torch
    from torch import nn

    torch.manual_seed(0)

    def block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
        convolution = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))

    widths = (64, 64, 128, 128, 256, 256)
    blocks = [block(one, two, 1 if one == two else 2) for one, two in zip((3, *widths[:-1]), widths, strict=True)]
    model = nn.Sequential(*blocks)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    images = torch.rand(2, 3, 128, 128)
    spent = []
    start = time.perf_counter()
    while len(spent) < 3 or time.perf_counter() - start < seconds:
        begun = time.perf_counter()
        optimizer.zero_grad()
        model(images).square().mean().backward()
        optimizer.step()
        spent.append(time.perf_counter() - begun)
    return spent[2:]


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """Loops that never pause, so many as given, for the length of the block."""
    with ExitStack() as stack:
        for _ in range(processes):
            neighbour = stack.enter_context(subprocess.Popen([sys.executable, '-c', 'while True: pass']))
            stack.callback(neighbour.kill)
        yield


def time_setting(setting: dict[str, str], seconds: float) -> list[float]:
    environment = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    command = [sys.executable, __file__, '--step', '--seconds', str(seconds)]
    answer = subprocess.run(command, env=environment | setting, check=True, capture_output=True, text=True)
    return json.loads(answer.stdout)


def table(milliseconds: dict[str, dict[int, float]], neighbours: Sequence[int]) -> Iterator[str]:
    """Lines of Markdown."""
    yield '| ms a step | ' + ' | '.join(f'{count} busy' if count else 'alone' for count in neighbours) + ' |'
    yield '|---|' + '---:|' * len(neighbours)
    for name, found in milliseconds.items():
        yield f'| {name} | ' + ' | '.join(f'{found[count]:.0f}' for count in neighbours) + ' |'


def main() -> None:
    arguments = parse_arguments()
    if arguments.step:
        print(json.dumps(seconds_of_steps(arguments.seconds)))
        return
    print(f'{CORES} cores, {free_cores():.1f} of them free')
    spent: dict[str, dict[int, list[float]]] = {name: {n: [] for n in arguments.neighbours} for name in SETTINGS}
    for _ in range(arguments.repeats):
        for count in arguments.neighbours:
            with busy(count):
                for name, setting in SETTINGS.items():
                    spent[name][count] += time_setting(setting, arguments.seconds)
    milliseconds = {
        name: {count: median(steps) * 1000 for count, steps in found.items()} for name, found in spent.items()
    }
    print(*table(milliseconds, arguments.neighbours), sep='\n')
    if arguments.out:
        write_json({'milliseconds': milliseconds, 'machine': describe_machine()}, arguments.out)


if __name__ == '__main__':
    with exits_cleanly():
        main()
