"""Balanced samplers, and the passes of their streams."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layer_stores import BEAR, CAR, CARNIVORE, MAN, PERSON, TEDDY, TOY, Picture, Row, write_store
from mmengine.dataset import ConcatDataset, DefaultSampler
from mmengine.registry import DATA_SAMPLERS, init_default_scope

from hierseg.datasets import ClassAwareStreamSampler, RepeatFactorSampler, StoreDataset, StreamBatchSampler
from hierseg.datasets.balanced_samplers import BalancedSampler, Passes
from hierseg.errors import ConfigError

BOX = (20, 20, 60, 60)
# A tail: 40 images of people, 12 of them men; 5 of bears, one of them a teddy; one with 3 toys. The last two have
# nothing to train on; what is left are 46.
PICTURES = [
    *(Picture(f'man{n}', [Row(PERSON, BOX), Row(MAN, BOX)]) for n in range(12)),
    *(Picture(f'person{n}', [Row(PERSON, BOX)] * 3) for n in range(28)),
    *(Picture(f'bear{n}', [Row(BEAR, BOX)]) for n in range(4)),
    Picture('teddy', [Row(TEDDY, BOX), Row(PERSON, BOX)]),
    Picture('toys', [Row(TOY, BOX), Row(TOY, BOX), Row(TOY, BOX)]),
    Picture('group', [Row(CAR, BOX, group_of=True)]),
    Picture('sliver', [Row(CAR, (0, 0, 0.5, 9))]),
]
IMAGES = 46
TEDDY_IMAGE, TOY_IMAGE = 44, 45
Build = Callable[..., StoreDataset]
Make = Callable[[int], list[BalancedSampler]]


def build_dataset(folder: Path, pictures: list[Picture] = PICTURES, **options: Any) -> StoreDataset:
    if not (folder / 'store').exists():
        write_store(folder / 'store', pictures)
        for picture in pictures:
            (folder / f'{picture.id}.png').touch()
    options = {'filter_cfg': dict(filter_empty_gt=True), **options}
    return StoreDataset(folder / 'store', data_prefix=dict(img=str(folder)), pipeline=[], **options)


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp('tail')


@pytest.fixture(scope='module')
def dataset(folder: Path) -> StoreDataset:
    return build_dataset(folder)


@pytest.fixture(scope='module', params=['rfs', 'irfs', 'balanced', 'class-aware', 'class-aware by power'])
def make(request: pytest.FixtureRequest, dataset: StoreDataset) -> Make:
    """Makes the sampler of each process."""
    made: dict[str, Callable[[], BalancedSampler]] = {
        'rfs': lambda: RepeatFactorSampler(dataset, 0.7, seed=4),
        'irfs': lambda: RepeatFactorSampler(dataset, 0.7, instance_aware=True, seed=4),
        'balanced': lambda: RepeatFactorSampler(dataset, 'max', power=1, max_repeats=20, seed=4),
        'class-aware': lambda: ClassAwareStreamSampler(dataset, seed=4),
        'class-aware by power': lambda: ClassAwareStreamSampler(dataset, power=0.6, seed=4),
    }

    def samplers(world_size: int) -> list[BalancedSampler]:
        found = [made[request.param]() for _ in range(world_size)]
        for rank, sampler in enumerate(found):
            sampler.rank, sampler.world_size = rank, world_size
        return found

    return samplers


class TestRepeatFactors:
    def test_by_hand(self, dataset):
        sampler = RepeatFactorSampler(dataset, threshold=0.2, seed=0)
        # Person on 41 of 46 images, man on 12, bear (with teddy) on 5, toy (with teddy) on 2. No car trains.
        frequencies = np.array([41, 12, 5, 5, 2, 1, 0]) / 46
        order = [PERSON, MAN, BEAR, CARNIVORE, TOY, TEDDY, CAR]
        np.testing.assert_allclose(sampler.class_frequencies[order], frequencies)
        r_bear, r_toy, r_teddy = np.sqrt(0.2 * 46 / np.array([5, 2, 1]))
        np.testing.assert_allclose(sampler.class_factors[order], [1, 1, r_bear, r_bear, r_toy, r_teddy, 1])
        assert sampler.image_factors[:40].tolist() == [1] * 40
        np.testing.assert_allclose(sampler.image_factors[40:], [*[r_bear] * 4, r_teddy, r_toy])
        assert len(sampler) == np.ceil(40 + 4 * r_bear + r_teddy + r_toy)

    def test_instance_aware_by_hand(self, dataset):
        sampler = RepeatFactorSampler(dataset, threshold=0.2, instance_aware=True, seed=0)
        # Instances: 12 · 2 + 28 · 3 + 4 + 2 + 3 = 117; of them toy 3 + 1, bear 4 + 1, man 12.
        assert sampler.class_factors[TOY] == pytest.approx(np.sqrt(0.2 / np.sqrt(2 / 46 * 4 / 117)))
        assert sampler.class_factors[BEAR] == pytest.approx(np.sqrt(0.2 / np.sqrt(5 / 46 * 5 / 117)))
        assert sampler.class_factors[MAN] == pytest.approx(np.sqrt(0.2 / np.sqrt(12 / 46 * 12 / 117)))

    def test_of_the_own_class_alone(self, dataset):
        # 0.95: with its men, Person is on 41 / 46; alone on as many. Toy alone is on one image.
        own = RepeatFactorSampler(dataset, threshold=0.2, expanded=False, seed=0)
        assert own.class_factors[TOY] == pytest.approx(np.sqrt(0.2 * 46))
        assert own.class_factors[BEAR] == pytest.approx(np.sqrt(0.2 * 46 / 4))

    @pytest.mark.parametrize('layer', [0, 1])
    def test_of_a_layer(self, folder, layer):
        dataset = build_dataset(folder, layer=layer)
        sampler = RepeatFactorSampler(dataset, threshold=1.0, seed=0)
        counts = {0: {0: 0, 1: 2, 2: 41, 3: 4}, 1: {0: 12, 1: 4, 2: 1}}[layer]
        images = {0: 46, 1: 17}[layer]
        assert len(dataset) == images
        for label, count in counts.items():
            assert sampler.class_frequencies[label] == pytest.approx(count / images)
        assert {*islice(sampler.draw(0, len(sampler)), 3 * images)} == {*range(images)}

    def test_up_to_balance_by_hand(self, dataset):
        sampler = RepeatFactorSampler(dataset, 'max', power=1, max_repeats=15, seed=0)
        # Person, on 41 of 46 images, is the most frequent; bear is on 5, toy on 2, teddy on one.
        order = [PERSON, MAN, BEAR, TOY, TEDDY]
        assert sampler.class_factors[order] == pytest.approx([1, 41 / 12, 41 / 5, 15, 15])
        assert sampler.image_factors == pytest.approx([41 / 12] * 12 + [1] * 28 + [41 / 5] * 4 + [15, 15])

    def test_every_pass_has_each_image_rounded_down_or_up(self, dataset):
        sampler = RepeatFactorSampler(dataset, threshold=0.7, seed=1)
        lengths = set()
        for number in range(50):
            counts = np.bincount(sampler._images(number), minlength=IMAGES)
            assert (np.floor(sampler.image_factors) <= counts).all()
            assert (counts <= np.ceil(sampler.image_factors)).all()
            lengths.add(int(counts.sum()))
        assert len(lengths) > 1, 'so that no test here rests on equal lengths'


def test_a_million_draws_are_as_expected(make: Make) -> None:
    """Of each image and class: as many as expected, within what the roundings of a single pass can be."""
    (sampler,) = make(1)
    draws = 1_000_000
    drawn = np.bincount(np.fromiter(sampler._indices_from(0), dtype=np.int64, count=draws), minlength=IMAGES)
    expected = sampler.expected_draws()
    assert expected.sum() == pytest.approx(sampler._epoch_length)
    np.testing.assert_allclose(drawn / draws, expected / expected.sum(), rtol=1e-3)
    # Independent of the sampler's own figures: how often rare is seen against frequent.
    images = {'man': range(12), 'person': range(12, 40), 'bear': range(40, 44)}
    seen = {name: drawn[[*rows]].sum() / draws for name, rows in images.items()}
    if isinstance(sampler, RepeatFactorSampler):
        f_man, f_bear = (12 / 46, 5 / 46)
        if sampler.instance_aware:
            f_man, f_bear = np.sqrt(f_man * 12 / 117), np.sqrt(f_bear * 5 / 117)
        ratio = seen['bear'] / 4 / (seen['man'] / 12)
        assert ratio == pytest.approx((f_man / f_bear) ** sampler.power, rel=2e-3)
    elif sampler.power == 0:
        # Six classes have images. Carnivore and Bear each show a fifth teddy; Toy half toys, half teddy.
        assert seen['bear'] == pytest.approx(2 / 6 * 4 / 5, rel=1e-3)
        assert drawn[TOY_IMAGE] / draws == pytest.approx(1 / 6 / 2, rel=1e-3)
        assert drawn[TEDDY_IMAGE] / draws == pytest.approx((1 + 2 / 5 + 1 / 2 + 1 / 41) / 6, rel=1e-3)
    else:
        weights = np.array([41, 12, 5, 5, 2, 1]) ** 0.6
        p_person, p_man = weights[:2] / weights.sum()
        assert seen['person'] == pytest.approx(p_person * 28 / 41, rel=2e-3)
        assert seen['man'] == pytest.approx(p_person * 12 / 41 + p_man, rel=2e-3)


@settings(max_examples=30)
@given(world=st.integers(1, 9), count=st.integers(0, 60), first=st.integers(0, 200))
def test_processes_share_one_stream_without_padding(make: Make, world: int, count: int, first: int) -> None:
    (alone,) = make(1)
    shares = [[*sampler.draw(first, count)] for sampler in make(world)]
    together = [*chain.from_iterable(zip(*shares, strict=True))]
    whole = [*alone.draw(first * world, count * world)]
    assert together == whole
    assert [index.entropy for index in together] == [index.entropy for index in whole]


@settings(max_examples=30)
@given(first=st.integers(0, 500), count=st.integers(0, 100), world=st.integers(1, 3))
def test_the_stream_can_be_entered_anywhere(make: Make, first: int, count: int, world: int) -> None:
    for through, entering in zip(make(world), make(world), strict=True):
        whole = [*through.draw(0, first + count)]
        assert [*entering.draw(first, count)] == whole[first:]


def test_entering_far_away_equals_coming_from_a_little_before(make: Make) -> None:
    through, entering = make(2)[1], make(2)[1]
    first = 10**9
    assert [*through.draw(first - 300, 400)][300:] == [*entering.draw(first, 100)]


def test_epochs_follow_each_other(make: Make) -> None:
    sampler, other = make(2)[1], make(2)[1]
    epochs = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        epochs.append([*sampler])
        assert len(epochs[-1]) == len(sampler)
    assert [*chain(*epochs)] == [*other.draw(0, 3 * len(sampler))]
    sampler.start = 5
    assert [*sampler] == epochs[-1][5:]


def test_batches_of_a_fixed_number(make: Make) -> None:
    (sampler,) = make(1)
    sampler.set_epoch(3)
    batches = [*StreamBatchSampler(sampler, batch_size=4, iterations=7)]
    assert sorted(chain(*batches)) == sorted(sampler.draw(3 * 28, 28))


def test_the_seed_may_come_late(make: Make) -> None:
    early, late = make(2)
    late.rank = 0
    for sampler in (early, late):
        [*sampler.draw(0, 10)]
    early.seed = late.seed = 11
    drawn = [*early.draw(0, 100)]
    assert drawn == [*late.draw(0, 100)]
    early.seed = 4
    assert drawn != [*early.draw(0, 100)]


class TestClassAware:
    def test_a_round_has_every_class_once(self, dataset):
        sampler = ClassAwareStreamSampler(dataset, expanded=False, seed=0)
        # By own label, five classes have images; each image of one class alone tells which was drawn.
        assert np.flatnonzero(sampler.class_probabilities).tolist() == sorted([MAN, TOY, BEAR, PERSON, TEDDY])
        draws = [*sampler.draw(0, 5 * 40)]
        for start in range(0, len(draws), 5):
            kinds = Counter('bear' if 40 <= i < 44 else 'toy' if i == TOY_IMAGE else 'other' for i in draws[start:][:5])
            assert kinds == {'bear': 1, 'toy': 1, 'other': 3}

    def test_a_class_shows_all_its_images_before_one_comes_again(self, dataset):
        sampler = ClassAwareStreamSampler(dataset, expanded=False, seed=0)
        bears = [index for index in sampler.draw(0, 5 * 40) if 40 <= index < 44]
        laps = [tuple(bears[start : start + 4]) for start in range(0, 40, 4)]
        assert all(sorted(lap) == [40, 41, 42, 43] for lap in laps)
        assert len({*laps}) > 1, 'each lap in an order of its own'

    def test_power_one_is_the_data(self, dataset):
        sampler = ClassAwareStreamSampler(dataset, power=1.0, seed=0)
        counts = np.array([41, 12, 5, 5, 2, 1])
        order = [PERSON, MAN, BEAR, CARNIVORE, TOY, TEDDY]
        np.testing.assert_allclose(sampler.class_probabilities[order], counts / counts.sum())
        assert sampler.class_probabilities[CAR] == 0


class TestClassAwareIsTheLimitOfRepeatFactors:
    """r(c) = (max f / f(c))^p shows as many images of a class as class-aware sampling by the power 1 - p."""

    @pytest.mark.parametrize('power', [0, 0.3, 0.5, 1])
    def test_exactly_where_an_image_has_one_class(self, tmp_path, power):
        counts = {MAN: 30, BEAR: 12, CAR: 5, TOY: 1}
        pictures = [Picture(f'{label}-{n}', [Row(label, BOX)]) for label, count in counts.items() for n in range(count)]
        dataset = build_dataset(tmp_path, pictures)
        repeated = RepeatFactorSampler(dataset, 'max', power=power, expanded=False, seed=0).expected_draws()
        aware = ClassAwareStreamSampler(dataset, power=1 - power, expanded=False, seed=0).expected_draws()
        np.testing.assert_allclose(repeated / repeated.sum(), aware / aware.sum())
        if power == 1:
            # Each class as often as the most frequent one, whose images come once.
            np.testing.assert_allclose(repeated, [1] * 30 + [30 / 12] * 12 + [30 / 5] * 5 + [30])

    def test_else_up_to_the_number_of_classes_of_an_image(self, dataset):
        repeated = RepeatFactorSampler(dataset, 'max', power=1, seed=0).expected_draws()
        aware = ClassAwareStreamSampler(dataset, seed=0).expected_draws()
        # The greatest of max f / f(c) against their sum: in units in which both are shares of one class.
        ratios = aware * 6 / aware.sum() / (repeated / 41)
        assert (ratios >= 1 - 1e-9).all()
        assert ratios[0] == pytest.approx((1 / 12 + 1 / 41) / (1 / 12)), 'a man is a person, too'
        assert ratios[12] == pytest.approx(1), 'a person is nothing else'
        assert ratios.max() <= 5, 'the teddy is a bear, a carnivore, a toy, and lies with a person'

    def test_a_bound_takes_it_away_from_the_limit_and_gives_it_back(self, dataset):
        unbounded = RepeatFactorSampler(dataset, 'max', power=1, seed=0).expected_draws()
        for most in (1, 3, 10, 41):
            bounded = RepeatFactorSampler(dataset, 'max', power=1, max_repeats=most, seed=0).expected_draws()
            np.testing.assert_allclose(bounded, np.minimum(unbounded, most))


def test_configs_name_them(dataset):
    init_default_scope('mmdet')
    for config in (
        dict(type='hierseg.RepeatFactorSampler', threshold=0.01, instance_aware=True),
        dict(type='hierseg.RepeatFactorSampler', threshold='max', power=1, max_repeats=20),
        dict(type='hierseg.ClassAwareStreamSampler', power=0.5),
    ):
        # As the runner builds them.
        sampler = DATA_SAMPLERS.build(config, default_args=dict(dataset=dataset, seed=3))
        assert sampler.seed == 3


@pytest.mark.parametrize(
    ('build', 'message'),
    [
        (lambda data: RepeatFactorSampler(data, threshold=0), 'threshold=0 is no frequency'),
        (lambda data: RepeatFactorSampler(data, threshold=1.1), 'threshold=1.1 is no frequency'),
        (lambda data: ClassAwareStreamSampler(data, power=-0.1), 'power=-0.1. Give a number from 0 to 1'),
        (lambda data: RepeatFactorSampler(ConcatDataset([data])), 'cannot be counted in a ConcatDataset'),
        (lambda data: ClassAwareStreamSampler(ConcatDataset([data])), 'cannot be counted in a ConcatDataset'),
        (lambda data: RepeatFactorSampler(data.get_subset([])), 'is empty'),
        (lambda data: ClassAwareStreamSampler(data.get_subset([])), 'is empty'),
        (lambda data: StreamBatchSampler(DefaultSampler(data), 1, 1), 'or one of the balanced ones'),
    ],
)
def test_clear_errors(dataset, build, message):
    with pytest.raises(ConfigError, match=message):
        build(dataset)


def test_nothing_to_draw(tmp_path):
    dataset = build_dataset(tmp_path, [Picture('group', [Row(CAR, BOX, group_of=True)])], filter_cfg=None)
    with pytest.raises(ConfigError, match='no image has an instance that trains'):
        ClassAwareStreamSampler(dataset)
    # Repeat factors are well defined: no image is repeated.
    assert [*RepeatFactorSampler(dataset, seed=0)] == [0]


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
