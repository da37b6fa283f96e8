"""Waiting between attempts."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from hierseg.downloads import RetryPolicy


@given(failures=st.integers(1, 2000), asked_for=st.floats(0, 1000), seed=st.integers(0, 100))
def test_pauses_double_within_their_bounds(failures, asked_for, seed):
    policy = RetryPolicy(backoff=0.5, max_backoff=60)
    pause = policy.pause(failures, asked_for=asked_for, jitter=random.Random(seed))
    longest = min(60, 0.5 * 2 ** min(failures - 1, 100))
    assert longest / 2 <= pause <= 60
    assert pause <= longest or pause == min(asked_for, 60)
    assert pause >= min(asked_for, 60)


def test_workers_that_fail_together_come_back_apart():
    jitter = random.Random(0)
    assert len({RetryPolicy().pause(3, asked_for=0, jitter=jitter) for _ in range(20)}) == 20
