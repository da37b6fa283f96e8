"""Threads of OpenMP on the processor: how many there are and how they wait, by what the machine has free.

PyTorch starts a thread for every core, and threads that wait for one another spin. On a free machine nothing is faster;
beside a busy process each spins away the time that the other needs, and in a container with less processor time than
cores they stop one another. Both are settled by variables that OpenMP reads once, when torch is imported.
"""

from __future__ import annotations

import math
import os
import sys
import time
from pathlib import Path

__all__ = ['choose_threads', 'free_cores', 'usable_cores']

CGROUPS = Path('/sys/fs/cgroup')
STATISTICS = Path('/proc/stat')


def choose_threads() -> str:
    """Sets ``OMP_NUM_THREADS`` and ``OMP_WAIT_POLICY`` where they are not set and something speaks for it, and says so.

    Threads wait passively where others use half a core or more, and there are no more than the container may use.
    Nothing is changed where torch is imported already or a CUDA device is at hand.

    Returns:
        The sentence that the first process of a machine wrote to stderr: what was chosen, why, and how to overrule
        it. Empty where nothing was.
    """
    hidden = os.environ.get('CUDA_VISIBLE_DEVICES', 'all') in ('', '-1')
    if 'torch' in sys.modules or (Path('/dev/nvidiactl').exists() and not hidden):
        return ''
    cores, allowed = len(_cores()), _quota()
    chosen, reasons = {}, []
    if allowed < cores and 'OMP_NUM_THREADS' not in os.environ:
        chosen['OMP_NUM_THREADS'] = str(math.ceil(allowed))
        reasons.append(f'this container may use {allowed:g} of {cores} cores')
    if not {'OMP_WAIT_POLICY', 'GOMP_SPINCOUNT'} & os.environ.keys() and cores > 1:
        free = free_cores()
        if free <= cores - 0.5:
            chosen['OMP_WAIT_POLICY'] = 'PASSIVE'
            reasons.append(f'{free:.1f} of {cores} cores are free')
    os.environ.update(chosen)
    settings = ' '.join(f'{name}={value}' for name, value in chosen.items())
    if not chosen:
        return ''
    said = f'{" and ".join(reasons)}: {settings} (set it yourself to overrule it)'
    if os.environ.get('LOCAL_RANK', '0') == '0':
        print(said, file=sys.stderr)
    return said


def free_cores(seconds: float = 0.2) -> float:
    """Cores that this process may use and that others leave idle, watched for some seconds.

    Where the system does not tell how busy its cores are (Linux does), all of them count as free.
    """
    cores = _cores()
    before = _ticks(cores)
    time.sleep(seconds)
    idle, total = (after - earlier for after, earlier in zip(_ticks(cores), before, strict=True))
    return len(cores) * idle / total if total > 0 else float(len(cores))


def usable_cores() -> int:
    """Cores that this process may use: no more than its control group grants processor time for, rounded up."""
    return math.ceil(min(len(_cores()), _quota()))


def _cores() -> set[int]:
    return os.sched_getaffinity(0) if hasattr(os, 'sched_getaffinity') else set(range(os.cpu_count() or 1))


def _ticks(cores: set[int]) -> tuple[int, int]:
    """Idle time and all time of the cores since the start of the machine, in clock ticks."""
    try:
        lines = [line.split() for line in STATISTICS.read_text().splitlines()]
    except OSError:
        return 0, 0
    names = {f'cpu{core}' for core in cores}
    ticks = [[int(number) for number in line[1:9]] for line in lines if line[0] in names]
    # user, nice, system, idle, iowait, irq, softirq, steal: a core that waits for a disk is free.
    return sum(core[3] + core[4] for core in ticks), sum(map(sum, ticks))


def _quota() -> float:
    """Cores' worth of time that the control group (version 2, then 1) grants; infinite where it sets no limit."""
    for names in (('cpu.max',), ('cpu/cpu.cfs_quota_us', 'cpu/cpu.cfs_period_us')):
        try:
            quota, period = ' '.join((CGROUPS / name).read_text() for name in names).split()
        except (OSError, ValueError):
            continue
        return math.inf if quota in ('max', '-1') else int(quota) / int(period)
    return math.inf
