"""Sets the data to any batch of a run without loading the ones before.

Shape letters: B images in a batch of one process.
"""

from __future__ import annotations

from typing import Any

from torch.utils.data import BatchSampler, DataLoader

from hierseg.datasets import StreamSampler
from hierseg.errors import ConfigError


def can_seek(loader: DataLoader[Any]) -> bool:
    """Whether :func:`seek` finds any batch: it can in batches of a fixed size, drawn from a stream."""
    return hasattr(loader.batch_sampler, 'start') or _is_plain(loader.batch_sampler)


def seek(loader: DataLoader[Any], *, epoch: int, batch: int, where: str) -> None:
    """Sets a loader to a batch of an epoch, from which its next iteration goes on to the end of the epoch.

    Args:
        loader: The loader.
        epoch: Number of the epoch, as its sampler counts them.
        batch: Batches of the epoch to leave out.
        where: Who asks, for errors.

    Raises:
        ConfigError: It is not the first batch, and the loader's sampler has no other beginning.
    """
    batches = loader.batch_sampler
    if hasattr(batches, 'start'):
        batches.start = batch
    elif _is_plain(batches):
        batches.sampler.start = batch * batches.batch_size
    elif batch:
        raise ConfigError(
            f'cannot resume at batch {batch} of an epoch',
            where=where,
            fix="Use batch_sampler=dict(type='hierseg.StreamBatchSampler', iterations=...).",
        )
    batches.sampler.set_epoch(epoch)


class EndlessBatches:
    """What MMEngine's ``IterBasedTrainLoop`` takes its batches from, epoch after epoch, for loaders that can seek.

    MMEngine's own loads, and throws away, all earlier batches when a run is resumed with workers, and pauses for
    two seconds after every epoch. The batches are the same.

    Args:
        loader: A loader for which :func:`can_seek` is true.
    """

    def __init__(self, loader: DataLoader[Any]) -> None:
        self._loader = loader
        self._iterator: Any = None
        self._epoch = self._batch = 0

    def skip_iter(self, num_iters: int) -> None:
        """Goes to where that many batches have been taken from the beginning."""
        self._epoch, self._batch = divmod(num_iters, len(self._loader))
        self._iterator = None

    def __iter__(self) -> EndlessBatches:
        return self

    def __next__(self) -> Any:
        if self._iterator is None:
            self._begin()
        try:
            return next(self._iterator)
        except StopIteration:
            self._epoch, self._batch = self._epoch + 1, 0
            self._begin()
            return next(self._iterator)

    def _begin(self) -> None:
        seek(self._loader, epoch=self._epoch, batch=self._batch, where='EndlessBatches')
        self._iterator = iter(self._loader)


def _is_plain(batches: Any) -> bool:
    # Other batch samplers take other images than the next B, such as those of one orientation.
    return type(batches) is BatchSampler and isinstance(batches.sampler, StreamSampler)
