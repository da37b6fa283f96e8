"""Waiting: how long between attempts, and when a connection is too slow."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hierseg.downloads.patience import Patience, RateWatch


@given(failures=st.integers(1, 2000), asked_for=st.floats(0, 1000), seed=st.integers(0, 100))
def test_pauses_double_within_their_bounds(failures, asked_for, seed):
    patience = Patience(backoff=0.5, max_backoff=60)
    pause = patience.pause(failures, asked_for=asked_for, jitter=random.Random(seed))
    longest = min(60, 0.5 * 2 ** min(failures - 1, 100))
    assert longest / 2 <= pause <= 60
    assert pause <= longest or pause == min(asked_for, 60)
    assert pause >= min(asked_for, 60)


def test_workers_that_fail_together_come_back_apart():
    jitter = random.Random(0)
    assert len({Patience().pause(3, asked_for=0, jitter=jitter) for _ in range(20)}) == 20


class TestRateWatch:
    # 100 bytes a second over 10 s: a full window needs 1,000 bytes.
    PATIENCE = Patience(min_rate=100, rate_window=10)

    def watch(self, arrivals: list[tuple[float, int]]) -> list[bool]:
        now = [0.0]
        watch = RateWatch(self.PATIENCE, clock=lambda: now[0])
        verdicts = []
        for now[0], num_bytes in arrivals:
            verdicts.append(watch.is_too_slow(num_bytes))
        return verdicts

    def test_a_slow_start_is_allowed_until_a_window_is_full(self):
        assert self.watch([(1, 1), (9.9, 1), (10, 1)]) == [False, False, True]

    def test_the_rate_is_that_of_the_last_window(self):
        # A burst at 1 s counts until 11 s; then 999 bytes are left, one too few.
        assert self.watch([(1, 10_000), (10.5, 499), (10.9, 499), (11, 1)]) == [False, False, False, True]

    @pytest.mark.parametrize(('num_bytes', 'is_slow'), [(100, False), (99, True)])
    def test_the_rate_itself_is_enough(self, num_bytes, is_slow):
        verdicts = self.watch([(second, num_bytes) for second in range(1, 31)])
        assert any(verdicts) is is_slow
