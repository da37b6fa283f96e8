from __future__ import annotations

import pickle
import random

import numpy as np
import pytest
import torch

from hierseg.seeding import (
    SeededSamples,
    StreamIndex,
    from_the_start,
    seed_all,
    seeded,
)


def draws() -> tuple[float, float, float]:
    return random.random(), np.random.uniform(), torch.rand(1).item()  # noqa: NPY002


def test_an_entropy_gives_the_same_numbers_whatever_was_drawn_before() -> None:
    seed_all(1, 2, 3)
    first = draws()
    draws()
    seed_all(1, 2, 3)
    assert draws() == first


@pytest.mark.parametrize('entropy', [(1, 2, 4), (1, 3, 3), (2, 2, 3), (3, 2, 1)])
def test_another_entropy_gives_others(entropy: tuple[int, ...]) -> None:
    seed_all(1, 2, 3)
    first = draws()
    seed_all(*entropy)
    assert not set(draws()) & set(first)


def test_a_seeded_block_leaves_no_trace() -> None:
    seed_all(7)
    expected = [draws(), draws()]
    seed_all(7)
    found = [draws()]
    with seeded(1, 2):
        inside = draws()
    with pytest.raises(KeyError), seeded(5):
        raise KeyError(draws())
    assert [*found, draws()] == expected
    seed_all(1, 2)
    assert inside == draws()


def test_from_the_start_is_as_if_nothing_had_been_drawn() -> None:
    torch.manual_seed(11)
    first = torch.rand(2)
    second = torch.rand(2)
    torch.manual_seed(11)
    torch.rand(2)
    with from_the_start():
        assert torch.equal(torch.rand(2), first)
    assert torch.equal(torch.rand(2), second)


def test_an_index_travels_to_workers_whole() -> None:
    index = pickle.loads(pickle.dumps(StreamIndex(5, (3, 1, 9), [7, 2])))
    assert index == 5
    assert index.entropy == (3, 1, 9)
    assert index.following == (7, 2)


class Noisy(list[int]):
    def __getitem__(self, index: int) -> tuple[int, type, tuple[float, ...]]:
        return super().__getitem__(index), type(index), draws()


class Samples(SeededSamples, Noisy):
    pass


def test_a_sample_depends_on_its_place_alone() -> None:
    samples = Samples([10, 20])
    seed_all(0)
    before = draws()
    seed_all(0)
    image, kind, first = samples[StreamIndex(1, (3, 1, 9))]
    # The data set below sees a plain integer, and the global generators go on as before.
    assert (image, kind) == (20, int)
    assert draws() == before
    assert samples[StreamIndex(1, (3, 1, 9))][2] == first
    assert samples[StreamIndex(1, (3, 1, 8))][2] != first
    assert samples[1][2] != samples[1][2]
