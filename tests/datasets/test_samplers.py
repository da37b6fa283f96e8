from __future__ import annotations

from collections import Counter
from itertools import chain
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mmengine.dataset import DefaultSampler

from hierseg.datasets import StreamBatchSampler, StreamSampler
from hierseg.datasets.samplers import FOLLOWING
from hierseg.errors import ConfigError


class Images:
    """Every third image is a portrait."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def get_data_info(self, index: int) -> dict[str, Any]:
        assert type(index) is int
        return {'width': 2, 'height': 3 if index % 3 == 0 else 1}


def samplers(size: int, world_size: int, *, seed: int = 0) -> list[StreamSampler]:
    """The sampler of each process."""
    made = [StreamSampler(Images(size), seed=seed) for _ in range(world_size)]
    for rank, sampler in enumerate(made):
        sampler.rank, sampler.world_size = rank, world_size
    return made


sizes = st.integers(1, 12)
worlds = st.integers(1, 4)


@given(sizes, worlds, st.integers(0, 3))
def test_a_pass_has_every_image_once_and_fills_up_to_the_number_of_processes(size: int, world: int, epoch: int) -> None:
    together = []
    for sampler in samplers(size, world):
        sampler.set_epoch(epoch)
        share = [*sampler]
        assert len(share) == len(sampler)
        together += share
    counts = Counter(together)
    assert set(counts) == set(range(size))
    assert counts.total() == -(-size // world) * world
    if size >= world:
        assert max(counts.values()) <= 2


@given(sizes, worlds, st.integers(0, 40), st.integers(0, 30))
def test_the_stream_can_be_entered_anywhere(size: int, world: int, first: int, count: int) -> None:
    for sampler in samplers(size, world):
        whole = [*sampler.draw(0, first + count)]
        stretch = [*sampler.draw(first, count)]
        assert stretch == whole[first:]
        assert [index.entropy for index in stretch] == [index.entropy for index in whole[first:]]


@given(sizes, worlds, st.integers(0, 40))
def test_a_place_knows_those_that_follow(size: int, world: int, first: int) -> None:
    for sampler in samplers(size, world):
        stream = [int(index) for index in sampler.draw(0, first + 2 + FOLLOWING)]
        for place, index in enumerate(sampler.draw(first, 2), first):
            assert index.following == tuple(stream[place + 1 : place + 1 + FOLLOWING])


@given(sizes, worlds)
def test_no_two_places_share_their_randomness(size: int, world: int) -> None:
    entropies = [index.entropy for sampler in samplers(size, world) for index in sampler.draw(0, 20)]
    assert len(set(entropies)) == len(entropies)


def test_order_depends_on_seed_and_pass() -> None:
    (sampler,), (other,) = samplers(50, 1), samplers(50, 1, seed=1)
    first, again = [*sampler], [*sampler]
    sampler.set_epoch(1)
    assert first == again
    assert first != [*sampler]
    assert first != [*other]


@given(sizes, worlds, st.integers(1, 4), st.integers(1, 7), st.integers(0, 3))
def test_an_epoch_is_a_stretch_of_full_batches(
    size: int, world: int, batch_size: int, iterations: int, epoch: int
) -> None:
    for sampler in samplers(size, world):
        batches = StreamBatchSampler(sampler, batch_size, iterations)
        sampler.set_epoch(epoch)
        drawn = [*batches]
        assert [len(batch) for batch in drawn] == [batch_size] * iterations == [batch_size] * len(batches)
        images = batch_size * iterations
        assert sorted(chain(*drawn)) == sorted(sampler.draw(epoch * images, images))
        # At most one batch mixes portraits and landscapes.
        assert sum(len({index % 3 == 0 for index in batch}) == 2 for batch in drawn) <= 1
        for start in range(iterations + 1):
            batches.start = start
            assert [*batches] == drawn[start:]


def test_clear_errors() -> None:
    with pytest.raises(ConfigError, match='batches of a stream cannot be drawn from DefaultSampler'):
        StreamBatchSampler(DefaultSampler(Images(3)), 1, 1)  # type: ignore[arg-type]
    (sampler,) = samplers(3, 1)
    with pytest.raises(ConfigError, match='iterations=0 must be positive'):
        StreamBatchSampler(sampler, 1, 0)
