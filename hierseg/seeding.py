"""Randomness as a function of where a run stands, not of what ran before it.

A run that draws its random numbers one after the other can be continued only by restoring every generator of
every process. Here each sample, each training step and each validation seeds the generators itself, from the
run's seed and its own position, so that a resumed run, or one with another number of workers, draws the same.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import IntEnum
from typing import Any

import numpy as np
import torch


class Purpose(IntEnum):
    """Second number of an entropy: parts the uses of one run's seed from each other."""

    ORDER = 0
    AUGMENTATION = 1
    WEIGHTS = 2
    STEP = 3
    VALIDATION = 4
    ROUNDING = 5
    LAP = 6


class StreamIndex(int):
    """The index of an image that knows where in a run it is asked for.

    Args:
        index: Index in the data set.
        entropy: Non-negative integers that tell this place in this run from all others.
        following: Indices of the images at the next places, for transforms that mix several images.
    """

    entropy: tuple[int, ...]
    following: tuple[int, ...]

    def __new__(cls, index: int, entropy: Sequence[int], following: Sequence[int] = ()) -> StreamIndex:  # noqa: D102
        made = super().__new__(cls, index)
        made.entropy, made.following = tuple(entropy), tuple(following)
        return made

    def __reduce__(self) -> tuple[object, ...]:
        # Workers get their indices pickled.
        return StreamIndex, (int(self), self.entropy, self.following)


def seed_all(*entropy: int, devices: bool = True) -> None:
    """Seeds the global generators of Python, NumPy and torch: the ones that MMDetection draws from.

    Args:
        *entropy: Non-negative integers: the run's seed, a :class:`Purpose`, and what tells its uses apart.
        devices: Seeds torch's generators on GPUs, too.
    """
    seed = int(np.random.SeedSequence(entropy).generate_state(1)[0])
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    if devices:
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)


@contextmanager
def seeded(*entropy: int, devices: bool = True) -> Iterator[None]:
    """Seeds all generators for a block of code, and leaves them as they were before it.

    Args:
        *entropy: As for :func:`seed_all`.
        devices: Seeds and restores the generator of the current GPU, too.
    """
    gpus = [torch.cuda.current_device()] if devices and torch.cuda.is_available() else []
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(devices=gpus):
        seed_all(*entropy, devices=devices)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002


@contextmanager
def from_the_start() -> Iterator[None]:
    """Lets a block of code draw from torch as if nothing had been drawn since the run's seed was set.

    A part of a model that is built within it has the weights that it would have as a model of its own.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(torch.initial_seed())
        yield


class SeededSamples:
    """Mixin for a data set: a sample asked for by a :class:`StreamIndex` is augmented by that place's randomness.

    In any worker, or none, and after a resumption, the same place gives the same sample.
    """

    def __getitem__(self, idx: int) -> Any:
        if not isinstance(idx, StreamIndex):
            return super().__getitem__(idx)
        # Augmentation runs on the CPU, and a forked worker must not touch a GPU.
        with seeded(*idx.entropy, devices=False):
            return super().__getitem__(int(idx))
