"""An endless stream in passes of varying length, in which every place can be found without walking there.

Shape letters: I items, L places of one pass.
"""

from __future__ import annotations

from bisect import bisect_right

import numpy as np
import numpy.typing as npt

from hierseg.seeding import Purpose

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

UNIT = 1 << 24
"""Rates are whole multiples of 1 / UNIT, so that sums are exact wherever they are taken."""


class Passes:
    """Lists item i ⌊r_i⌋ or ⌈r_i⌉ times in each pass, shuffled, and r_i times on average.

    Before pass n, item i has come ⌊n · r_i + u_i⌋ times, where u_i is drawn from the seed, uniformly from 0 to 1
    and apart from those of all other items. So in each pass

    - an item is rounded up with a probability of exactly the fraction of its rate, apart from all other items:
      stochastic rounding as in published repeat factor sampling;
    - how often all items have come before is a sum, not the result of all passes before. The pass of a place is
      found by bisection between a few numbers, wherever in the run it is.

    From pass to pass, an item's roundings balance each other: after n passes it has come n · r_i times, give or
    take less than one.

    Args:
        rates: (I,) float64, positive, one of them at least 1; how often each item comes in a pass, on average.
        seed: The run's seed.
    """

    def __init__(self, rates: FloatArray, seed: int) -> None:
        self.seed = seed
        self._rates: IntArray = np.maximum(np.rint(rates * UNIT), 1).astype(np.int64)
        self._total = int(self._rates.sum())
        self._phases: IntArray = np.random.default_rng((seed, Purpose.ROUNDING)).integers(0, UNIT, size=len(rates))

    def counts_before(self, number: int) -> IntArray:
        """(I,) int64; how often each item has come before a pass."""
        return (number * self._rates + self._phases) // UNIT

    def first_place(self, number: int) -> int:
        """Where in the stream a pass begins."""
        return int(self.counts_before(number).sum())

    def pass_at(self, place: int) -> int:
        """The number of the pass that a place of the stream is in."""
        # A pass begins less than I places from where it would without rounding.
        items = len(self._rates)
        low = max((place - items) * UNIT // self._total, 0)
        high = (place + items) * UNIT // self._total + 1
        return low + bisect_right(range(low, high + 1), place, key=self.first_place) - 1

    def listed(self, number: int) -> tuple[IntArray, IntArray]:
        """A pass, in order.

        Returns:
            (L,) int64 each; the items, and how often each had come before, from the beginning of the stream.
        """
        before = self.counts_before(number)
        counts = self.counts_before(number + 1) - before
        items = np.repeat(np.arange(len(counts)), counts)
        within = np.arange(len(items)) - np.repeat(np.cumsum(counts) - counts, counts)
        order = np.random.default_rng((self.seed, Purpose.ORDER, number)).permutation(len(items))
        return items[order], (before[items] + within)[order]
