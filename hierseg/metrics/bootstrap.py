"""Uncertainty of results: intervals by bootstrap over images, whose objects are not independent.

One :class:`Resampling` serves all systems that were run on the same images. What they score is then subtracted resample
by resample, and the :func:`interval` of the difference is far surer than those of the two.

Shape letters: B resamples, N images, S scored entries of one class, G rows of counted ground truth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hierseg.errors import EvaluationError
from hierseg.formats import FloatArray, IntArray
from hierseg.metrics.records import ImageMatches, check_once, repeated

_CHUNK = 1 << 18  # numbers that are worked on at once: they stay in the cache


@dataclass(frozen=True, eq=False)
class ImageSums:
    """A result that is a ratio: what each image adds above and below the line.

    Attributes:
        image_ids: N ids.
        numerators: (N,) float64.
        denominators: (N,) float64.
    """

    image_ids: tuple[str, ...]
    numerators: FloatArray
    denominators: FloatArray

    @property
    def ratio(self) -> float:
        """The result on all images; nan if nothing counts."""
        total = float(self.denominators.sum())
        return float(self.numerators.sum()) / total if total else float('nan')


@dataclass(frozen=True, eq=False)
class Resampling:
    """Draws of as many images as there are, with replacement.

    Attributes:
        image_ids: N ids, ascending.
        multiplicities: (B, N) uint16; how often each resample has each image.
    """

    image_ids: tuple[str, ...]
    multiplicities: npt.NDArray[np.uint16]

    @classmethod
    def draw(cls, image_ids: Sequence[str], *, resamples: int = 1000, seed: int = 0) -> Resampling:
        """Draws B resamples, the same ones for the same images in any order.

        Raises:
            EvaluationError: Without images or resamples, or if an image occurs twice.
        """
        ids = tuple(sorted(image_ids))
        if not ids or resamples < 1:
            raise EvaluationError(f'{resamples} resamples of {len(ids)} images', fix='Give at least one of each.')
        check_once(ids)
        generator, count = np.random.default_rng(seed), len(ids)
        multiplicities = np.empty((resamples, count), dtype=np.uint16)
        for row in multiplicities:
            row[:] = np.bincount(generator.integers(count, size=count), minlength=count)
        return cls(ids, multiplicities)

    def columns(self, image_ids: Sequence[str]) -> IntArray:
        """(N,) columns of images; an EvaluationError if they are not those that were drawn from, each once."""
        order = sorted(range(len(image_ids)), key=image_ids.__getitem__)
        given = tuple(image_ids[at] for at in order)
        if given != self.image_ids:
            check_once(given)
            first = min(set(given) ^ set(self.image_ids))
            whose = 'is none of the resampled images' if first in given else 'has no result'
            raise EvaluationError(
                f'the image {whose}', where=f'image {first}', fix='Compare systems on the same images, all of them.'
            )
        columns = np.empty(len(order), dtype=np.int64)
        columns[order] = np.arange(len(order))
        return columns

    def ratios(self, sums: ImageSums) -> FloatArray:
        """(B,) float64; a result on each resample, nan where nothing counts; errors as of :meth:`columns`."""
        columns = self.columns(sums.image_ids)
        terms = np.empty((len(columns), 2))
        terms[columns, 0], terms[columns, 1] = sums.numerators, sums.denominators
        totals = np.concatenate([self.multiplicities[chunk] @ terms for chunk in self.chunks(len(columns))])
        return _divided(*totals.T)

    def chunks(self, width: int) -> list[slice]:
        """Runs of resamples, to work on ``width`` numbers of each at once."""
        step = max(1, _CHUNK // max(width, 1))
        return [slice(begin, begin + step) for begin in range(0, len(self.multiplicities), step)]


def interval(values: FloatArray, *, confidence: float = 0.95) -> tuple[float, float]:
    """Ends of the percentile interval of a result; nan if no resample has a value.

    Args:
        values: (B,) float64; the result on each resample. Those that are nan are left out.
        confidence: Part of the resamples within; an EvaluationError if that is not within (0, 1).
    """
    if not 0 < confidence < 1:
        raise EvaluationError(f'confidence={confidence}', fix='It is a part of 1, such as 0.95.')
    known = values[~np.isnan(values)]
    if not len(known):
        return float('nan'), float('nan')
    low, high = np.quantile(known, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def resampled_mean_average_precision(
    matches: Sequence[ImageMatches], resampling: Resampling, *, groups: Mapping[str, Sequence[int]]
) -> dict[str, FloatArray]:
    """Mean average precision of groups of classes on every resample whose images are repeated as often as it has them.

    Objects that are drawn twice are found twice, so that the average precision of classes with few objects is a little
    higher on resamples than on the images themselves. In a difference between systems most of that cancels.

    Args:
        matches: One record for every image, in any order.
        resampling: Over the same images, or it is an EvaluationError.
        groups: Labels by the name of their group.

    Returns:
        (B,) float64 by the name of the group; nan on resamples where none of its classes has ground truth.
    """
    columns = resampling.columns([image.image_id for image in matches])
    by_column = [matches[at] for at in np.argsort(columns)]
    image_of = np.repeat(np.arange(len(by_column)), [len(image.labels) for image in by_column])
    labels, scores, weights, counted, counts = (
        np.concatenate([getattr(image, name) for image in by_column])
        for name in ('labels', 'scores', 'weights', 'counted_labels', 'counts')
    )
    # Of equal scores the last comes first, as in summarise.
    order = np.lexsort((-np.arange(len(labels)), -scores, labels))
    wanted = sorted({int(label) for group in groups.values() for label in group})
    begins, ends = np.searchsorted(labels[order], wanted), np.searchsorted(labels[order], wanted, side='right')
    counted_of = np.repeat(np.arange(len(by_column)), [len(image.counts) for image in by_column])
    values: dict[int, FloatArray] = {}
    for label, begin, end in zip(wanted, begins, ends, strict=True):
        chosen, of_class = order[begin:end], counted == label
        total = np.asarray(resampling.multiplicities[:, counted_of[of_class]] @ counts[of_class], dtype=np.float64)
        values[label] = _average_precision(scores[chosen], weights[chosen], image_of[chosen], resampling, total)
    return {name: _mean_of_known([values[int(label)] for label in group], resampling) for name, group in groups.items()}


def _average_precision(
    scores: FloatArray, weights: FloatArray, columns: IntArray, resampling: Resampling, num_ground_truth: FloatArray
) -> FloatArray:
    """(B,) what :func:`~hierseg.metrics.average_precision.average_precision` says of each resample.

    Args:
        scores: (S,) float64, descending.
        weights: (S,) float64; 0 for false positives.
        columns: (S,) int64; the image of each entry among the resampled ones.
        resampling: The resamples.
        num_ground_truth: (B,) float64; counted ground truth.
    """
    entry, copies = _repetitions(scores, weights, columns, resampling)
    weights, columns = weights[entry], columns[entry]
    steps, once = weights > 0, copies >= 0
    areas = np.empty(len(num_ground_truth))
    for chunk in resampling.chunks(len(columns)):
        drawn = resampling.multiplicities[chunk][:, columns].astype(np.float64)
        drawn[:, once] = drawn[:, once] > copies[once]
        found = drawn[:, steps] * weights[steps]
        true = np.cumsum(found, axis=1)
        drawn[:, steps] = 0
        scored = true + np.cumsum(drawn, axis=1)[:, steps]
        # A true positive that is not drawn has the precision of what is before it and no step of recall.
        precision = np.divide(true, scored, out=np.zeros_like(true), where=scored > 0)
        envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        areas[chunk] = (found * envelope).sum(axis=1)
    return _divided(areas, num_ground_truth)


def _repetitions(
    scores: FloatArray, weights: FloatArray, columns: IntArray, resampling: Resampling
) -> tuple[IntArray, IntArray]:
    """Entries of a class in the order in which they count, those of an image together where scores are equal.

    Where true and false positives of one image have one score, a repeated image has all of them and then all of
    them again, not first all true ones: each repetition is an entry of its own.

    Returns:
        Indices of the entries, and the number of each repetition: it counts once if its image is drawn more often; -1
        for an entry that counts as often as the image is drawn.
    """
    run = np.cumsum((np.diff(scores, prepend=np.inf) != 0) | (np.diff(columns, prepend=-1) != 0)) - 1
    true, false = (np.bincount(run, kind).astype(bool) for kind in (weights > 0, weights <= 0))
    mixed = (true & false)[run]
    repeats = np.where(mixed, resampling.multiplicities.max(axis=0)[columns], 1).astype(np.int64)
    entry, copy = repeated(repeats)
    order = np.lexsort((entry, copy, run[entry]))
    entry, copy = entry[order], copy[order]
    return entry, np.where(mixed[entry], copy, -1)


def _mean_of_known(values: Sequence[FloatArray], resampling: Resampling) -> FloatArray:
    """(B,) mean over those classes that have a value."""
    total, known = np.zeros((2, len(resampling.multiplicities)))
    for of_class in values:
        known += ~np.isnan(of_class)
        total += np.nan_to_num(of_class)
    return _divided(total, known)


def _divided(numerators: FloatArray, denominators: FloatArray) -> FloatArray:
    ratios: FloatArray = np.full(len(denominators), np.nan)
    np.divide(numerators, denominators, out=ratios, where=denominators > 0)
    return ratios
