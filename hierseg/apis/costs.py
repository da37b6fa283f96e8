"""Costs of a trained system: parameters, arithmetic, time and memory of one image, and the time of its training."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import replace
from itertools import islice, pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from hierseg.apis.runner import load_detector
from hierseg.engine.checkpoint_files import safe_loading
from hierseg.metrics.system import Costs
from hierseg.report.curves import logged_starts

WARM_UP = 2
"""Images before the first that is timed: the first ones pay for allocations and for choosing algorithms."""


def measure_costs(config: Config, checkpoint: str, *, images: int) -> Costs:
    """Measures what a system costs, in a process of its own: memory that others used before would not be seen again.

    Arguments and errors are those of :func:`costs_here`; torch has as many threads as here.
    """
    with ProcessPoolExecutor(1, mp_context=get_context('spawn')) as pool:
        return pool.submit(costs_here, config, checkpoint, images=images, threads=torch.get_num_threads()).result()


def costs_here(config: Config, checkpoint: str, *, images: int, threads: int) -> Costs:
    """Loads a model, times it on some images of its config's test data, and reads the log beside its checkpoint.

    Peak memory is, on a GPU, what torch allocated there; on a CPU, what the process held more than before the model was
    loaded; 10⁶ bytes.

    Raises:
        ConfigError: The checkpoint does not exist, cannot be read, or is of another model.
    """
    torch.set_num_threads(threads)
    with safe_loading(), PeakMemory() as memory:
        model = load_detector(config, checkpoint)
        loader = Runner.build_dataloader({**config.test_dataloader, 'batch_size': 1})
        costs = measure_steps(model, loader, images=images)
    work_dir = Path(checkpoint).parent
    return replace(
        costs,
        peak_memory_mb=memory.megabytes,
        training_seconds=training_seconds(work_dir),
        unevenness=training_unevenness(work_dir),
    )


def measure_steps(model: nn.Module, batches: Iterable[dict[str, Any]], *, images: int) -> Costs:
    """Parameters of a model, and arithmetic and latency of its test step on single images.

    Parameters are all, frozen ones included; running statistics are none. Arithmetic is the mean of all matrix products
    and convolutions, a multiplication and an addition being two; see ``torch.utils.flop_counter``. Latency is the
    median, from the loaded picture to instances with masks.

    Args:
        model: With ``test_step``, in evaluation mode.
        batches: Batches of one image.
        images: How many are timed; two more come before.

    Raises:
        ValueError: There is no batch.
    """
    found = list(islice(batches, WARM_UP + images))
    if not found:
        raise ValueError('no image to measure')
    wait = torch.cuda.synchronize if next(model.parameters()).is_cuda else lambda: None
    seconds, flops = [], []
    with torch.no_grad():
        with SharedCores() as cores:
            for batch in found:
                wait()
                start = time.perf_counter()
                model.test_step(batch)
                wait()
                seconds.append(time.perf_counter() - start)
        for batch in found[-images:]:
            with FlopCounterMode(display=False) as counter:
                model.test_step(batch)
            flops.append(counter.get_total_flops())
    return Costs(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        flops=statistics.fmean(flops),
        # Fewer images than asked for, or a single one: what there is.
        latency_ms=1000 * statistics.median(seconds[WARM_UP:] or seconds),
        timed_images=len(seconds[WARM_UP:] or seconds),
        load=cores.load,
    )


class SharedCores:
    """Watches whether other programs keep the machine's cores busy during a piece of work, in a with statement.

    Attributes:
        load: After the work: torch's threads and the cores that others used, as a part of all cores; None where the
            system does not tell.
    """

    def __init__(self) -> None:
        self.load: float | None = None

    def __enter__(self) -> SharedCores:
        self._start, self._before = time.perf_counter(), _seconds_of_others()
        return self

    def __exit__(self, *_: object) -> None:
        after, elapsed = _seconds_of_others(), time.perf_counter() - self._start
        if self._before is not None and after is not None:
            others = max(after - self._before, 0.0) / elapsed
            self.load = (others + torch.get_num_threads()) / (os.cpu_count() or 1)


def _seconds_of_others() -> float | None:
    """Processor time of all other processes since the machine started, on Linux."""
    try:
        fields = Path('/proc/stat').read_text(encoding='utf-8').split('\n', 1)[0].split()
    except OSError:
        return None
    # user, nice, system, idle, waiting for disks, interrupts (2), stolen by other guests of the host.
    user, nice, system, _, _, *rest = (int(field) for field in fields[1:9])
    return (user + nice + system + sum(rest)) / os.sysconf('SC_CLK_TCK') - time.process_time()


class PeakMemory:
    """Watches how much memory a piece of work takes, in a with statement.

    Attributes:
        megabytes: After the work: its peak, or None where the system does not tell.
    """

    def __init__(self) -> None:
        self.megabytes: float | None = None
        self._before: int | None = None

    def __enter__(self) -> PeakMemory:
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        else:
            with suppress(OSError):  # where that is not allowed, or there is no Linux
                Path('/proc/self/clear_refs').write_text('5')  # the process's peak so far is forgotten
                self._before = _status_bytes('VmRSS')
        return self

    def __exit__(self, *_: object) -> None:
        if torch.cuda.is_available():
            self.megabytes = torch.cuda.max_memory_allocated() / 1e6
        elif self._before is not None:
            self.megabytes = (_status_bytes('VmHWM') - self._before) / 1e6


def _status_bytes(name: str) -> int:
    for line in Path('/proc/self/status').read_text(encoding='utf-8').splitlines():
        if line.startswith(f'{name}:'):
            return 1024 * int(line.split()[1])
    raise OSError(f'/proc/self/status has no {name}')


def training_seconds(work_dir: Path) -> float | None:
    """Time of the training steps that a run logged into a work directory; None without a log.

    Each logged line has the mean time of the last steps, which stands for all since the line before. The first line of
    a start stands for as many as the second. Steps that a resumed run did again count twice: they were paid for.
    """
    starts = _logged_steps(work_dir)
    if not any(starts):
        return None
    total = 0.0
    for steps in starts:
        places = [iteration for iteration, _ in steps]
        gaps = [later - earlier for earlier, later in pairwise(places)]
        first = min(gaps[0], places[0]) if gaps else places[0] if places else 0
        total += sum(gap * seconds for gap, (_, seconds) in zip([first, *gaps], steps, strict=False))
    return total


def training_unevenness(work_dir: Path) -> float | None:
    """Mean time of the logged steps of a run, as a multiple of that of its fastest tenth; None with fewer than ten.

    A machine that the training shares with other programs for a part of its time makes it large. The first line of each
    start is left out: its steps pay for allocations.
    """
    seconds = [each for start in _logged_steps(work_dir) for _, each in start[1:]]
    return float(np.mean(seconds) / np.quantile(seconds, 0.1)) if len(seconds) >= 10 else None


def _logged_steps(work_dir: Path) -> list[list[tuple[int, float]]]:
    """Iteration and mean seconds of a step, of each logged line of each start."""
    return [
        [(entry['iter'], entry['time']) for entry in start if 'loss' in entry and 'time' in entry]
        for start in logged_starts(work_dir)
    ]
