"""Samplers over an endless shuffled stream in which every place is a function of the seed alone.

Shape letters: n images, W processes, B images in a batch of one process.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
from mmengine.dist import get_dist_info, sync_random_seed
from torch.utils.data import BatchSampler, DataLoader, Sampler

from hierseg.errors import ConfigError
from hierseg.registry import DATA_SAMPLERS
from hierseg.seeding import Purpose, StreamIndex

FOLLOWING = 20
"""Images that a place of the stream looks ahead to, for mixing: as many as mmdet's mix-up keeps."""


@DATA_SAMPLERS.register_module()
class StreamSampler(Sampler[StreamIndex]):
    """The share of one process in an endless stream: the data set, shuffled anew in every pass.

    Iterated as it is, an epoch is one pass, as with MMEngine's ``DefaultSampler``; with :class:`StreamBatchSampler` it
    is a stretch of the stream. Where n is no multiple of W, a pass is filled up from its own beginning. Indices are
    :class:`StreamIndex`, so that a sample's augmentation, and the images that it is mixed with, depend on nothing but
    its place.

    Args:
        dataset: The data set.
        seed: The run's seed, the same in all processes; drawn by MMEngine where it is None.
    """

    def __init__(self, dataset: Any, seed: int | None = None) -> None:
        self.dataset = dataset
        self.seed = sync_random_seed() if seed is None else seed
        self.rank, self.world_size = get_dist_info()
        self.epoch = self.start = 0

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch that the next iteration goes through, from its place ``start`` on."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Images of one pass in this process: n / W, rounded up."""
        return -(-len(self.dataset) // self.world_size)

    def __iter__(self) -> Iterator[StreamIndex]:
        return self.draw(self.epoch * len(self) + self.start, len(self) - self.start)

    def draw(self, first: int, count: int) -> Iterator[StreamIndex]:
        """This process's images at its places ``first`` to ``first + count - 1`` of the stream."""
        stream = self._indices_from(first)
        following = deque(islice(stream, FOLLOWING))
        for place in range(first, first + count):
            following.append(next(stream))
            entropy = (self.seed, Purpose.AUGMENTATION, place * self.world_size + self.rank)
            yield StreamIndex(following.popleft(), entropy, following)

    def _indices_from(self, place: int) -> Iterator[int]:
        """This process's indices from a place on, without end."""
        while True:
            indices = self._rest_of_pass(place)
            yield from indices
            place += len(indices)

    def expected_draws(self) -> npt.NDArray[np.float64]:
        """(n,) float64; how often each image comes in an epoch of all processes, but for what fills it up."""
        return np.ones(len(self.dataset))

    def _rest_of_pass(self, place: int) -> list[int]:
        """This process's indices from a place to the end of the pass that it is in; at least one."""
        number, offset = divmod(place, len(self))
        generator = np.random.default_rng((self.seed, Purpose.ORDER, number))
        order = np.resize(generator.permutation(len(self.dataset)), len(self) * self.world_size)
        indices: list[int] = order[self.rank :: self.world_size].tolist()
        return indices[offset:]


@DATA_SAMPLERS.register_module()
class StreamBatchSampler(BatchSampler):
    """An epoch of a fixed number of batches, however large the data set is.

    Epoch e holds the places e · iterations · B to (e + 1) · iterations · B - 1 of each process's stream.
    Within it, images in portrait and in landscape format go into different batches, as far as that comes out
    even, because a batch of both is padded to twice the pixels. All batches have B images.

    Args:
        sampler: A :class:`StreamSampler`, such as a balanced one; another is a ConfigError.
        batch_size: B, at least 1.
        iterations: Batches of an epoch, at least 1.
    """

    def __init__(self, sampler: StreamSampler, batch_size: int, iterations: int) -> None:
        if not isinstance(sampler, StreamSampler):
            what = f'batches of a stream cannot be drawn from {type(sampler).__name__}'
            fix = "Use sampler=dict(type='hierseg.StreamSampler'), or one of the balanced ones."
            raise ConfigError(what, where='StreamBatchSampler', fix=fix)
        if batch_size < 1 or iterations < 1:
            what = f'batch_size={batch_size} and iterations={iterations} must be positive'
            raise ConfigError(what, where='StreamBatchSampler')
        super().__init__(sampler, batch_size, drop_last=True)
        self.sampler: StreamSampler
        self.iterations, self.start = iterations, 0

    def __len__(self) -> int:
        return self.iterations

    def __iter__(self) -> Iterator[list[int]]:
        return islice(self._batches(), self.start, None)

    def _batches(self) -> Iterator[list[int]]:
        images = self.iterations * self.batch_size
        buckets: dict[bool, list[int]] = {True: [], False: []}
        for index in self.sampler.draw(self.sampler.epoch * images, images):
            image = self.sampler.dataset.get_data_info(int(index))
            bucket = buckets[image['width'] < image['height']]
            bucket.append(index)
            if len(bucket) == self.batch_size:
                yield bucket.copy()
                bucket.clear()
        # What is left over is nothing, or one batch: the images of an epoch are a multiple of B.
        if mixed := buckets[True] + buckets[False]:
            yield mixed


def can_seek(loader: DataLoader[Any]) -> bool:
    """Tells if :func:`seek` finds any batch: it can in batches of a fixed size, drawn from a stream."""
    return hasattr(loader.batch_sampler, 'start') or _is_plain(loader.batch_sampler)


def seek(loader: DataLoader[Any], *, epoch: int, batch: int, where: str) -> None:
    """Sets a loader to a batch of an epoch, from which its next iteration goes on to the end of the epoch.

    A batch other than the first, 0, is a ConfigError where the loader's sampler has no other beginning.
    """
    batches = loader.batch_sampler
    if hasattr(batches, 'start'):
        batches.start = batch
    elif _is_plain(batches):
        batches.sampler.start = batch * batches.batch_size
    elif batch:
        fix = "Use batch_sampler=dict(type='hierseg.StreamBatchSampler', iterations=...)."
        raise ConfigError(f'cannot resume at batch {batch} of an epoch', where=where, fix=fix)
    batches.sampler.set_epoch(epoch)


def _is_plain(batches: Any) -> bool:
    # Other batch samplers take other images than the next B, such as those of one orientation.
    return type(batches) is BatchSampler and isinstance(batches.sampler, StreamSampler)
