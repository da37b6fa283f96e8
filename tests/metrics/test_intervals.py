"""Intervals from what each image changes: goldens by hand, laws, and coverage where the truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from match_records import image_matches as matches

from hierseg.errors import EvaluationError
from hierseg.metrics.average_precision import summarise
from hierseg.metrics.declarations import FEWEST_IMAGES, Estimate
from hierseg.metrics.intervals import ImageEffects, ImageSums, mean_average_precision_effects


def sums_of(values):
    """The mean of one number for each image."""
    ids = tuple(f'{at:04}' for at in range(len(values)))
    return ImageSums(ids, np.array(values, dtype=np.float64), np.ones(len(values)))


class TestRatios:
    def test_by_hand(self):
        # 4 of 10; without a, 3 of 5, without b, 3 of 8, without c, 2 of 7. Given in another order.
        effects = ImageSums(('c', 'a', 'b'), np.array([2.0, 1.0, 1.0]), np.array([3.0, 5.0, 2.0])).effects
        assert effects.image_ids == ('a', 'b', 'c')
        assert effects.value == pytest.approx(0.4)
        assert effects.changes == pytest.approx([0.4 - 3 / 5, 0.4 - 3 / 8, 0.4 - 2 / 7])
        assert effects.excess == 0
        assert effects.num_counted == 3

    def test_interval_of_a_mean_is_that_of_students_t(self):
        # Mean 0, squares of the changes 4 × (1/3)²; variance 3/4 × 4/9 = 1/3. All changes are equal, so that
        # there are n − 1 = 3 degrees of freedom, with the quantile 3.1824.
        low, high = sums_of([-1, 1, -1, 1]).effects.interval()
        assert (low, high) == pytest.approx((-3.1824 / np.sqrt(3), 3.1824 / np.sqrt(3)), abs=1e-4)

    def test_few_images_that_matter_leave_few_degrees_of_freedom(self):
        # Of 1,000 images one differs: two degrees of freedom (2 (Σu²)² / Σu⁴), with the quantile 4.303 instead of 1.96.
        few = sums_of([1.0] + [0.0] * 999).effects
        low, high = few.interval()
        assert (high - low) / 2 == pytest.approx(4.303e-3, rel=0.01)

    def test_coverage_of_a_bernoulli_mean(self):
        # Of 95 % intervals from 150 images of p = 0.3, about 95 % contain it: 400 of them give ± 2.1 % (two sigma).
        generator, inside = np.random.default_rng(0), 0
        for _ in range(400):
            low, high = sums_of(generator.random(150) < 0.3).effects.interval()
            inside += low <= 0.3 <= high
        assert 0.92 < inside / 400 < 0.975

    @given(st.integers(2, 9), st.floats(-5, 5))
    def test_constant_data_have_no_width(self, count, value):
        assert sums_of([value] * count).effects.interval() == pytest.approx((value, value), abs=1e-6)

    def test_what_cannot_be_known_has_no_interval(self):
        assert np.isnan(sums_of([0.5]).effects.interval()).all()
        assert np.isnan(sums_of([]).effects.interval()).all()
        # Without the only image that counts there is no ratio.
        assert np.isnan(ImageSums(('a', 'b'), np.array([3.0, 0.0]), np.array([6.0, 0.0])).effects.interval()).all()
        with pytest.raises(EvaluationError, match='confidence=95'):
            sums_of([0, 1]).effects.interval(confidence=95)
        with pytest.raises(EvaluationError, match='image a: the image occurs twice'):
            ImageSums(('a', 'a'), np.ones(2), np.ones(2)).effects  # noqa: B018

    def test_bounds_cut(self):
        assert sums_of([1, 1, 1, 0]).effects.interval(bounds=(0, 1))[1] == 1


class TestDifferences:
    def test_paired_systems_differ_clearly_where_unpaired_ones_do_not(self):
        # On each of 200 images the first system is better by 0.01, which drowns in the difference between images.
        hardness = np.random.default_rng(0).random(200)
        first, second = sums_of(hardness + 0.01).effects, sums_of(hardness).effects
        assert first.interval()[0] < second.interval()[1]
        assert (first - second).interval() == pytest.approx((0.01, 0.01))

    @given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=12))
    def test_swapping_systems_negates(self, both):
        first, second = (sums_of(values).effects for values in zip(*both, strict=True))
        low, high = (first - second).interval()
        assert (second - first).interval() == pytest.approx((-high, -low))

    def test_images_must_be_the_same(self):
        ids, nothing = ('a', 'b'), np.zeros(2)
        with pytest.raises(EvaluationError, match='image b: one of two systems has no result'):
            ImageEffects(ids, 0.0, 0.0, nothing, 2) - ImageEffects(('a', 'c'), 0.0, 0.0, nothing, 2)


@pytest.mark.parametrize(('low', 'high', 'sign'), [(0.1, 0.2, 1), (-0.2, -0.1, -1), (-0.1, 0.1, 0), (0, 0.1, 0)])
def test_a_difference_is_clear_where_its_interval_leaves_out_0(low, high, sign):
    assert Estimate(0.05, low, high).sign == sign
    assert Estimate(0.05, float('nan'), float('nan')).sign == 0
    assert Estimate(0.05, low, high, images=FEWEST_IMAGES).sign == sign
    assert Estimate(0.05, low, high, images=FEWEST_IMAGES - 1).sign == 0


entries = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from([0.1, 0.5, 0.9]), st.sampled_from([0.0, 0.5, 1.0])), max_size=8
)
counts = st.dictionaries(st.integers(0, 3), st.sampled_from([0.0, 1.0, 2.5]))
GROUPS = {'all': [0, 1, 2, 3], 'first': [0], 'none': [], 'without': [3]}


def drawn(count, *, seed, classes=1):
    """Images with one object of each class and five detections, of which the surer ones are the righter."""
    generator, images = np.random.default_rng(seed), []
    for at in range(count):
        found = []
        for label in range(classes):
            scores = np.sort(generator.random(3))[::-1]
            right = generator.random(3) < scores
            first = np.flatnonzero(right)[:1]
            found += [(label, score, float(place in first)) for place, score in enumerate(scores)]
        images.append(matches(f'{at:04}', found, dict.fromkeys(range(classes), 1.0)))
    return images


class TestMeanAveragePrecision:
    @given(st.lists(st.tuples(entries, counts), min_size=1, max_size=5))
    def test_value_is_that_of_the_evaluation(self, images):
        # Few scores, so that many are equal within an image and between images.
        images = [matches(f'{at}', *image) for at, image in enumerate(images)]
        result, found = summarise(images, 4), mean_average_precision_effects(images[::-1], groups=GROUPS)
        for name, group in GROUPS.items():
            assert found[name].value == pytest.approx(result.mean_over(group), abs=1e-12, nan_ok=True)

    def test_changes_are_those_of_leaving_images_out(self):
        # To first order: 120 images, of which each changes little.
        images = drawn(120, seed=0, classes=2)
        effects = mean_average_precision_effects(images, groups={'': [0, 1]})['']
        exact = [
            effects.value - summarise(images[:at] + images[at + 1 :], 2).mean_over([0, 1]) for at in range(len(images))
        ]
        assert np.corrcoef(exact, effects.changes)[0, 1] > 0.99
        assert np.square(effects.changes).sum() == pytest.approx(np.square(exact).sum(), rel=0.08)

    def test_a_detection_that_is_surely_right_has_no_excess(self):
        images = [matches(f'{at}', [(0, 0.9 - at / 100, 1.0)], {0: 1.0}) for at in range(6)]
        effects = mean_average_precision_effects(images, groups={'': [0]})['']
        assert (effects.value, effects.excess) == pytest.approx((1, 0))
        assert effects.interval() == pytest.approx((1, 1))

    def test_excess_by_hand(self):
        # Scores descend: a right, b wrong, c right; three objects. AP = (1 + 2/3) / 3. By the other images, nothing is
        # known at a's place, which keeps its 1; at c's, one right and one wrong: 1/2. Excess (2/3 − 1/2) / 3.
        images = [
            matches('a', [(0, 0.9, 1.0)], {0: 1.0}),
            matches('b', [(0, 0.8, 0.0)], {0: 1.0}),
            matches('c', [(0, 0.7, 1.0)], {0: 1.0}),
        ]
        effects = mean_average_precision_effects(images, groups={'': [0]})['']
        assert effects.value == pytest.approx(5 / 9)
        assert effects.excess == pytest.approx(1 / 18)

    def test_excess_is_that_of_few_images(self):
        # The mean over many samples of 12 images lies above the AP of 4,000 by about the mean excess.
        population = drawn(4000, seed=1)
        truth, generator = summarise(population, 1).mean_over([0]), np.random.default_rng(0)
        found = [
            mean_average_precision_effects(
                [population[at] for at in generator.choice(4000, 12, False)], groups={'': [0]}
            )
            for _ in range(400)
        ]
        too_high = float(np.mean([sample[''].value for sample in found])) - truth
        assert too_high > 0.02
        assert float(np.mean([sample[''].excess for sample in found])) == pytest.approx(too_high, rel=0.35)

    def test_a_class_in_one_image_changes_the_mean_by_leaving_it(self):
        # AP 1 of class 0 in two images; AP 0 of class 1 in image c. Mean 1/2; without c it is 1.
        images = [
            matches('a', [(0, 0.9, 1.0)], {0: 1.0}),
            matches('b', [(0, 0.8, 1.0)], {0: 1.0}),
            matches('c', [], {1: 1.0}),
        ]
        effects = mean_average_precision_effects(images, groups={'': [0, 1], 'sole': [1]})
        assert effects[''].changes == pytest.approx([0, 0, -0.5])
        assert (effects[''].num_counted, effects['sole'].num_counted) == (3, 1)
        # Alone, it says nothing of how images differ.
        assert np.isnan(effects['sole'].interval()).all()

    def test_an_image_counts_once(self):
        with pytest.raises(EvaluationError, match='image a: the image occurs twice'):
            mean_average_precision_effects([matches('a', [], {})] * 2, groups={})
