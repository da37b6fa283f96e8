"""Samplers that show rare classes more often, as endless streams in which every place follows from the seed.

Shape letters: I items, L places of one pass, n images, C classes, K of them with images, W processes.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Any, Literal

import numpy as np

from hierseg.datasets.samplers import StreamSampler
from hierseg.datasets.store_dataset import StoreDataset
from hierseg.errors import ConfigError
from hierseg.formats import FloatArray, IntArray
from hierseg.registry import DATA_SAMPLERS
from hierseg.seeding import Purpose
from hierseg.store.frequency import TrainingLabels, repeat_factors

UNIT = 1 << 24
"""Rates are whole multiples of 1 / UNIT, so that sums are exact wherever they are taken."""


class Passes:
    """Lists item i ⌊r_i⌋ or ⌈r_i⌉ times in each pass, shuffled, and r_i times on average.

    Before pass n, item i has come ⌊n · r_i + u_i⌋ times, where u_i is drawn from the seed, uniformly from 0 to 1
    and apart from those of all other items. So an item is rounded up with a probability of exactly the fraction of its
    rate, as in published repeat factor sampling, and from pass to pass its roundings balance each other. How often all
    items have come before is a sum, not the result of all passes before, so that the pass of any place is found by
    bisection between a few numbers.

    Args:
        rates: (I,) float64, positive, one of them at least 1; how often each item comes in a pass, on average.
        seed: The run's seed.
    """

    def __init__(self, rates: FloatArray, seed: int) -> None:
        self.seed = seed
        self._rates: IntArray = np.maximum(np.rint(rates * UNIT), 1).astype(np.int64)
        self._total = int(self._rates.sum())
        self._phases: IntArray = np.random.default_rng((seed, Purpose.ROUNDING)).integers(0, UNIT, size=len(rates))

    def _counts_before(self, number: int) -> IntArray:
        """(I,) int64; how often each item has come before a pass."""
        return (number * self._rates + self._phases) // UNIT

    def first_place(self, number: int) -> int:
        """Where in the stream a pass begins."""
        return int(self._counts_before(number).sum())

    def pass_at(self, place: int) -> int:
        """The number of the pass that a place of the stream is in."""
        # A pass begins less than I places from where it would without rounding.
        items = len(self._rates)
        low = max((place - items) * UNIT // self._total, 0)
        high = (place + items) * UNIT // self._total + 1
        return low + bisect_right(range(low, high + 1), place, key=self.first_place) - 1

    def listed(self, number: int) -> tuple[IntArray, IntArray]:
        """(L,) int64 each; the items of a pass in order, and how often each had come before in the whole stream."""
        before = self._counts_before(number)
        counts = self._counts_before(number + 1) - before
        items = np.repeat(np.arange(len(counts)), counts)
        within = np.arange(len(items)) - np.repeat(np.cumsum(counts) - counts, counts)
        order = np.random.default_rng((self.seed, Purpose.ORDER, number)).permutation(len(items))
        return items[order], (before[items] + within)[order]


class BalancedSampler(StreamSampler):
    """Base of the balanced samplers: one stream of :class:`Passes` for all processes, whose items are the images.

    Process k of W has the places k, k + W, k + 2W, … of the stream, across the ends of passes: nothing is
    repeated or dropped to make a pass a multiple of W. Iterated as it is, an epoch is a stretch of the stream
    that is as long as a pass on average; with :class:`StreamBatchSampler` it has the length that one gives it.

    Args:
        dataset: The data set.
        seed: As of :class:`StreamSampler`.
        rates: (I,) float64; how often each item comes in a pass, on average.
        epoch_length: Images of an epoch of all processes together, on average.
    """

    def __init__(self, dataset: StoreDataset, seed: int | None, *, rates: FloatArray, epoch_length: float) -> None:
        super().__init__(dataset, seed)
        self._rates, self._epoch_length = rates, epoch_length
        self._passes = Passes(rates, self.seed)
        self._current: tuple[int, int, IntArray] = (self.seed, 0, np.zeros(0, dtype=np.int64))

    def __len__(self) -> int:
        """Images of one epoch in this process."""
        return int(np.ceil(self._epoch_length / self.world_size))

    def _rest_of_pass(self, place: int) -> list[int]:
        if self._passes.seed != self.seed:
            # A resumed run learns its seed from the checkpoint, after its samplers have been built.
            self._passes = Passes(self._rates, self.seed)
        whole = place * self.world_size + self.rank
        seed, first, images = self._current
        if seed != self.seed or not first <= whole < first + len(images):
            number = self._passes.pass_at(whole)
            first, images = self._passes.first_place(number), self._images(number)
            self._current = self.seed, first, images
        rest: list[int] = images[whole - first :: self.world_size].tolist()
        return rest

    def expected_draws(self) -> FloatArray:
        """(n,) float64; how often each image comes in an epoch of all processes, on average."""
        return self._rates.copy()

    def _images(self, number: int) -> IntArray:
        """Indices of the images of one pass, of all processes."""
        return self._passes.listed(number)[0].astype(np.int32)


@DATA_SAMPLERS.register_module()
class RepeatFactorSampler(BalancedSampler):
    """Repeats images of rare classes: RFS (Gupta et al., LVIS, 2019), or IRFS (Yaman et al., 2023), up to balance.

    An image comes r times in a pass on average, ⌊r⌋ or ⌈r⌉ times in each, where r is the greatest of its
    classes' factors max(1, (threshold / frequency)^power). Frequencies are those of the images that the data set's
    filter leaves, over instances that train.

    With ``threshold='max'``, a class is shown in proportion to its frequency^(1 − power), where no image has two. So
    ``power=1`` shows classes equally often. :class:`ClassAwareStreamSampler` is the limit of this family: it does the
    same, but takes the sum over the classes of an image where this one takes the greatest, and has no ``max_repeats``.

    Args:
        dataset: A ``hierseg.StoreDataset``.
        threshold: Classes on a smaller share of images are repeated; above 0 and at most 1, or ``max`` for the
            frequency of the most frequent class.
        power: From 0, nothing is repeated, over 0.5, as published, to 1.
        max_repeats: How often an image comes in a pass at most, on average; at least 1. None: as often as it is.
        instance_aware: False for the frequency by images (RFS); True for the geometric mean of the frequencies by
            images and by instances (IRFS).
        expanded: An instance counts for its class and all ancestors. If False, for its class alone: then images
            with a coarse label are repeated where few objects have been left that coarse.
        seed: As of :class:`StreamSampler`.

    Raises:
        ConfigError: A number is out of range, or the data set is empty or not hierseg's.
    """

    def __init__(
        self,
        dataset: StoreDataset,
        threshold: float | Literal['max'] = 1e-3,
        *,
        power: float = 0.5,
        max_repeats: float | None = None,
        instance_aware: bool = False,
        expanded: bool = True,
        seed: int | None = None,
    ) -> None:
        labels = training_labels(dataset, where='RepeatFactorSampler')
        self.threshold, self.power, self.max_repeats = threshold, power, max_repeats
        self.instance_aware, self.expanded = instance_aware, expanded
        # (C,), (C,) and (n,) float64; factors are at least 1.
        self.class_frequencies = labels.frequencies(instance_aware=instance_aware, expanded=expanded)
        self.class_factors = repeat_factors(self.class_frequencies, threshold, power=power, max_repeats=max_repeats)
        self.image_factors = labels.image_factors(self.class_factors)
        super().__init__(dataset, seed, rates=self.image_factors, epoch_length=float(self.image_factors.sum()))


@DATA_SAMPLERS.register_module()
class ClassAwareStreamSampler(BalancedSampler):
    """Draws a class for each place, then an image of it (Shen et al., "Relay Backpropagation", ECCV 2016).

    The stream goes in rounds of K places on average; with ``power=0`` each class that has images comes once in a
    round. Through the whole run, a class goes through its images in an order of its own, all of them before one comes
    again, shuffled anew each time. An epoch has as many places as the data set has images.

    Args:
        dataset: A ``hierseg.StoreDataset``.
        power: A class is drawn in proportion to (its images) ** power, from 0 (all alike) to 1 (as in the data).
        expanded: A class also has the images of the classes below it. If False, it has those of its own label
            alone: then a class that few objects have been left at, because most have a more precise label, is
            drawn as often as any, from few images.
        seed: As of :class:`StreamSampler`.

    Raises:
        ConfigError: The power is out of range, the data set is not hierseg's, or it has nothing to train on.
    """

    def __init__(
        self, dataset: StoreDataset, *, power: float = 0.0, expanded: bool = True, seed: int | None = None
    ) -> None:
        where = 'ClassAwareStreamSampler'
        if not 0 <= power <= 1:
            raise ConfigError(f'power={power}', where=where, fix='Give a number from 0 to 1.')
        labels = training_labels(dataset, where=where)
        self.power, self.expanded = power, expanded
        images, of_class = labels.distinct(expanded=expanded)
        counts = np.bincount(of_class, minlength=labels.taxonomy.num_classes)
        self._drawn = np.flatnonzero(counts)
        if not len(self._drawn):
            raise ConfigError('no image has an instance that trains', where=where, fix='Is the split annotated?')
        weights = counts[self._drawn].astype(np.float64) ** power
        self.class_probabilities = np.zeros(len(counts))  # (C,); 0 for classes without images
        self.class_probabilities[self._drawn] = weights / weights.sum()
        ordered = images[np.argsort(of_class, kind='stable')].astype(np.int32)
        self._members = np.split(ordered, np.cumsum(counts[self._drawn])[:-1])
        self._laps: dict[int, tuple[tuple[int, int], IntArray]] = {}
        rates = self.class_probabilities[self._drawn] * len(self._drawn)
        super().__init__(dataset, seed, rates=rates, epoch_length=labels.num_images)

    def expected_draws(self) -> FloatArray:  # noqa: D102
        draws = np.zeros(len(self.dataset))
        for label, members in zip(self._drawn.tolist(), self._members, strict=True):
            draws[members] += self.class_probabilities[label] / len(members)
        return draws * self._epoch_length

    def _images(self, number: int) -> IntArray:
        items, times_before = self._passes.listed(number)
        images = []
        for item, before in zip(items.tolist(), times_before.tolist(), strict=True):
            members = self._members[item]
            lap, at = divmod(before, len(members))
            if item not in self._laps or self._laps[item][0] != (self.seed, lap):
                generator = np.random.default_rng((self.seed, Purpose.LAP, int(self._drawn[item]), lap))
                self._laps[item] = (self.seed, lap), generator.permutation(members)
            images.append(int(self._laps[item][1][at]))
        return np.array(images, dtype=np.int32)


def training_labels(dataset: Any, *, where: str) -> TrainingLabels:
    """The labels of the images that a data set's filter leaves, without reading one.

    A data set that is no ``hierseg.StoreDataset``, of a store or of a layer, or is empty, is a ConfigError.
    """
    if not isinstance(dataset, StoreDataset):
        fix = "Use dataset=dict(type='hierseg.StoreDataset', ...) without a wrapper around it."
        raise ConfigError(f'classes cannot be counted in a {type(dataset).__name__}', where=where, fix=fix)
    dataset.full_init()
    if not len(dataset):
        raise ConfigError(f'the data set of {dataset.store.path} is empty', where=where, fix='Is indices=... meant?')
    return TrainingLabels.of(dataset.store, dataset.data_list)
