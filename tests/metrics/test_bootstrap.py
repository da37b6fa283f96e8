from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from match_records import image_matches as matches

from hierseg.errors import EvaluationError
from hierseg.metrics.average_precision import summarise
from hierseg.metrics.bootstrap import (
    ImageSums,
    Resampling,
    interval,
    resampled_mean_average_precision,
)
from hierseg.metrics.declarations import Estimate
from hierseg.metrics.records import ImageMatches


def sums_of(values):
    """The mean of one number for each image."""
    ids = tuple(f'{at:04}' for at in range(len(values)))
    return ImageSums(ids, np.array(values, dtype=np.float64), np.ones(len(values)))


class TestResampling:
    def test_draws_as_many_images_as_there_are(self):
        resampling = Resampling.draw(['b', 'a', 'c'], resamples=50)
        assert resampling.image_ids == ('a', 'b', 'c')
        assert resampling.multiplicities.shape == (50, 3)
        assert (resampling.multiplicities.sum(axis=1) == 3).all()
        assert len(np.unique(resampling.multiplicities, axis=0)) == 10  # all that three of three can be

    def test_depends_on_seed_and_images_alone(self):
        draws = [
            Resampling.draw(ids, resamples=20, seed=seed).multiplicities.tolist()
            for ids, seed in (('abcd', 0), ('dbca', 0), ('abcd', 1))
        ]
        assert draws[0] == draws[1] != draws[2]

    def test_images_may_come_in_any_order(self):
        resampling = Resampling.draw('abc', resamples=30)
        values = {'a': 1.0, 'b': 10.0, 'c': 100.0}
        ratios = [
            resampling.ratios(ImageSums(ids, np.array([values[i] for i in ids]), np.ones(3)))
            for ids in (('a', 'b', 'c'), ('c', 'a', 'b'))
        ]
        np.testing.assert_array_equal(*ratios)
        assert ratios[0] == pytest.approx(resampling.multiplicities @ [1, 10, 100] / 3)

    def test_images_must_be_the_same(self):
        resampling = Resampling.draw('abc', resamples=2)
        with pytest.raises(EvaluationError, match='image b: the image has no result'):
            resampling.columns('ac')
        with pytest.raises(EvaluationError, match='image d: the image is none of the resampled images'):
            resampling.columns('abcd')
        with pytest.raises(EvaluationError, match='image a: the image occurs twice'):
            resampling.columns('aabc')
        with pytest.raises(EvaluationError, match='image a: the image occurs twice'):
            Resampling.draw('aba')
        with pytest.raises(EvaluationError, match='1000 resamples of 0 images'):
            Resampling.draw([])

    def test_a_resample_without_anything_to_count_has_no_value(self):
        resampling = Resampling.draw('ab', resamples=30)
        ratios = resampling.ratios(ImageSums(('a', 'b'), np.array([3.0, 0.0]), np.array([6.0, 0.0])))
        assert (np.isnan(ratios) == (resampling.multiplicities[:, 0] == 0)).all()
        assert set(ratios[~np.isnan(ratios)]) == {0.5}
        assert interval(ratios) == (0.5, 0.5)


class TestIntervals:
    def test_coverage_of_a_bernoulli_mean(self):
        # Of 95 % intervals from 150 images of p = 0.3, about 95 % contain it: 400 of them give ± 2.1 % (two sigma).
        generator, inside = np.random.default_rng(0), 0
        resampling = Resampling.draw([f'{at:04}' for at in range(150)], resamples=400)
        for _ in range(400):
            low, high = interval(resampling.ratios(sums_of(generator.random(150) < 0.3)))
            inside += low <= 0.3 <= high
        assert 0.92 < inside / 400 < 0.975

    def test_width_is_that_of_the_normal_distribution(self):
        # 2 × 1.96 × √(p (1 − p) / n) for p = 1/2, n = 400: 0.098; the standard error of a quantile adds some percent.
        low, high = interval(Resampling.draw([f'{at:04}' for at in range(400)]).ratios(sums_of([0, 1] * 200)))
        assert high - low == pytest.approx(0.098, rel=0.12)

    def test_percentiles(self):
        values = np.append(np.arange(101.0), np.nan)
        assert interval(values, confidence=0.9) == pytest.approx((5, 95))
        assert np.isnan(interval(np.array([np.nan]))).all()
        with pytest.raises(EvaluationError, match='confidence=95'):
            interval(values, confidence=95)

    @given(st.integers(1, 9), st.floats(-5, 5))
    def test_constant_data_have_no_width(self, count, value):
        ids = [f'{at:04}' for at in range(count)]
        low, high = interval(Resampling.draw(ids, resamples=20).ratios(sums_of([value] * count)))
        assert (low, high) == pytest.approx((value, value))

    def test_paired_systems_differ_clearly_where_unpaired_ones_do_not(self):
        # On each of 200 images the first system is better by 0.01, which drowns in the difference between images.
        generator = np.random.default_rng(0)
        hardness = generator.random(200)
        resampling = Resampling.draw([f'{at:04}' for at in range(200)])
        first, second = (resampling.ratios(sums_of(hardness + gain)) for gain in (0.01, 0.0))
        assert interval(first)[0] < interval(second)[1]
        assert interval(first - second) == pytest.approx((0.01, 0.01))

    @given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=12))
    def test_swapping_systems_negates(self, both):
        first, second = (np.array(values) for values in zip(*both, strict=True))
        (low, high), back = interval(first - second), interval(second - first)
        assert back == pytest.approx((-high, -low))


@pytest.mark.parametrize(('low', 'high', 'sign'), [(0.1, 0.2, 1), (-0.2, -0.1, -1), (-0.1, 0.1, 0), (0, 0.1, 0)])
def test_a_difference_is_clear_where_its_interval_leaves_out_0(low, high, sign):
    assert Estimate(0.05, low, high).sign == sign
    assert Estimate(0.05, float('nan'), float('nan')).sign == 0


entries = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from([0.1, 0.5, 0.9]), st.sampled_from([0.0, 0.5, 1.0])), max_size=8
)
counts = st.dictionaries(st.integers(0, 3), st.sampled_from([0.0, 1.0, 2.5]))
GROUPS = {'all': [0, 1, 2, 3], 'first': [0], 'none': [], 'without': [3]}


class TestMeanAveragePrecision:
    @given(st.lists(st.tuples(entries, counts), min_size=1, max_size=5), st.integers(0, 99))
    def test_is_that_of_the_repeated_images(self, images, seed):
        # Few scores, so that many are equal within an image and between images.
        images = [matches(f'{at}', *image) for at, image in enumerate(images)]
        resampling = Resampling.draw([image.image_id for image in images], resamples=4, seed=seed)
        found = resampled_mean_average_precision(images[::-1], resampling, groups=GROUPS)
        for at, multiplicities in enumerate(resampling.multiplicities.tolist()):
            repeated = [
                ImageMatches(
                    f'{image.image_id}-{copy}',
                    image.labels,
                    image.scores,
                    image.weights,
                    image.counted_labels,
                    image.counts,
                )
                for image, count in zip(images, multiplicities, strict=True)
                for copy in range(count)
            ]
            result = summarise(repeated, 4)
            for name, group in GROUPS.items():
                assert found[name][at] == pytest.approx(result.mean_over(group), abs=1e-12, nan_ok=True)

    def test_true_and_false_positives_of_one_score_repeat_in_turn(self):
        # The later of equal scores comes first: TP FP. Twice: TP FP TP FP of 2, precisions 1 and 2/3 (not TP TP FP FP,
        # which has 1 and 1): (1 + 2/3) / 2. Once each: 1.
        images = [matches('a', [(0, 0.5, 0.0), (0, 0.5, 1.0)], {0: 1.0}), matches('b', [], {})]
        resampling = Resampling(('a', 'b'), np.array([[1, 1], [2, 0], [0, 2]], dtype=np.uint16))
        found = resampled_mean_average_precision(images, resampling, groups={'': [0]})['']
        assert found == pytest.approx([1, 5 / 6, np.nan], nan_ok=True)

    def test_chunks_make_no_difference(self, monkeypatch):
        generator = np.random.default_rng(0)
        images = [
            matches(f'{at:02}', [(0, score, float(score > 0.6)) for score in generator.random(9)], {0: 9.0})
            for at in range(20)
        ]
        resampling = Resampling.draw([image.image_id for image in images], resamples=30)
        whole = resampled_mean_average_precision(images, resampling, groups={'': [0]})['']
        monkeypatch.setattr('hierseg.metrics.bootstrap._CHUNK', 1000)
        assert len(resampling.chunks(180)) == 6
        np.testing.assert_array_equal(resampled_mean_average_precision(images, resampling, groups={'': [0]})[''], whole)

    def test_images_must_be_the_same(self):
        with pytest.raises(EvaluationError, match='image b: the image has no result'):
            resampled_mean_average_precision([matches('a', [], {})], Resampling.draw('ab'), groups={})
