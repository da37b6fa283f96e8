"""Passes of a stream: how often an item comes, and where a pass begins."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hierseg.datasets.balanced_samplers import Passes

rates = st.lists(st.floats(0.01, 6), max_size=8).map(lambda values: np.array([*values, 1.0]))
seeds = st.integers(0, 1000)


@given(rates, seeds, st.integers(0, 10**6))
def test_an_item_comes_its_rate_rounded_down_or_up(rates: np.ndarray, seed: int, number: int) -> None:
    items, _ = Passes(rates, seed).listed(number)
    counts = np.bincount(items, minlength=len(rates))
    # A rate that is whole but for the 24 binary digits behind the point counts as whole.
    assert (np.floor(rates + 1e-7) <= counts).all()
    assert (counts <= np.ceil(rates - 1e-7)).all()


@given(rates, seeds)
def test_passes_join_without_gaps(rates: np.ndarray, seed: int) -> None:
    passes = Passes(rates, seed)
    assert passes.first_place(0) == 0
    counts = np.zeros(len(rates), dtype=int)
    place = 0
    for number in range(12):
        items, times_before = passes.listed(number)
        assert passes.first_place(number) == place
        assert {passes.pass_at(place + offset) for offset in range(len(items))} == {number}
        # Every item is told how often it has come before, in whatever order it stands.
        for item, before in zip(items.tolist(), times_before.tolist(), strict=True):
            assert before in range(counts[item], counts[item] + (items == item).sum())
        assert len({*zip(items.tolist(), times_before.tolist(), strict=True)}) == len(items)
        counts += np.bincount(items, minlength=len(rates))
        place += len(items)
        # The roundings of an item balance each other: rate times passes, give or take less than one.
        assert (np.abs(counts - (number + 1) * rates) < 1 + 1e-5).all()


@given(rates, seeds, st.integers(0, 10**12))
def test_a_place_far_away_is_in_its_pass(rates: np.ndarray, seed: int, place: int) -> None:
    passes = Passes(rates, seed)
    number = passes.pass_at(place)
    assert passes.first_place(number) <= place < passes.first_place(number + 1)


def test_roundings_are_independent_and_have_the_right_probability() -> None:
    """Over a million items of a pass: up with the probability of the fraction, neighbours apart."""
    counts = np.bincount(Passes(np.full(1_000_000, 1.3), seed=5).listed(17)[0])
    up = counts == 2
    # Four standard deviations of a mean over a million, √(0.3 · 0.7 / 10⁶) each.
    assert abs(up.mean() - 0.3) < 4 * np.sqrt(0.21e-6)
    assert abs((up[1:] & up[:-1]).mean() - 0.09) < 4 * np.sqrt(0.09e-6)


def test_seed_and_pass_choose_roundings_and_order() -> None:
    def listed(seed: int, number: int) -> list[int]:
        return Passes(np.full(100, 1.5), seed).listed(number)[0].tolist()

    def twice(seed: int, number: int) -> set[int]:
        counts = np.bincount(listed(seed, number))
        return {*np.flatnonzero(counts == 2).tolist()}

    assert listed(0, 3) == listed(0, 3)
    assert listed(0, 3) != listed(0, 5)
    assert twice(0, 3) != twice(1, 3)
    # 1.5 times a pass is once and twice in turn.
    assert twice(0, 3) == {*range(100)} - twice(0, 4)
