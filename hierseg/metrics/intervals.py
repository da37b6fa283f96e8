"""Uncertainty of results: intervals from what each image changes, for objects of one image are not independent.

A result comes with the change that each image makes to it: the difference to the result without that image, to first
order (the infinitesimal jackknife). Differences between systems on the same images subtract image by image, so that
what is hard for both cancels.

Shape letters: N images, S scored entries of one class.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter

import numpy as np
from scipy.special import stdtrit

from hierseg.errors import EvaluationError
from hierseg.formats import FloatArray, IntArray
from hierseg.metrics.matching import descending
from hierseg.metrics.records import ImageMatches, check_once

FEW_IMAGES = 4
"""A class in one image alone takes its excess from the classes that are in two to so many images."""


@dataclass(frozen=True, eq=False)
class ImageEffects:
    """A result on N images, and what each of them changes.

    Attributes:
        image_ids: N ids, ascending.
        value: The result; nan if nothing counts.
        excess: Estimate of how much higher the value of so few objects is than that of very many, on average.
        changes: (N,) float64; the value minus the value without the image. All nan where one image alone is no measure
            of how images differ.
        num_counted: Images with something that counts, such as objects.
    """

    image_ids: tuple[str, ...]
    value: float
    excess: float
    changes: FloatArray
    num_counted: int

    def __sub__(self, other: ImageEffects) -> ImageEffects:
        """The difference of two systems; an EvaluationError if they were not tested on the same images."""
        if self.image_ids != other.image_ids:
            first = min(set(self.image_ids) ^ set(other.image_ids))
            raise EvaluationError(
                'one of two systems has no result', where=f'image {first}', fix='Compare systems on the same images.'
            )
        return ImageEffects(
            self.image_ids,
            self.value - other.value,
            self.excess - other.excess,
            self.changes - other.changes,
            min(self.num_counted, other.num_counted),
        )

    def interval(
        self, *, confidence: float = 0.95, bounds: tuple[float, float] = (-np.inf, np.inf)
    ) -> tuple[float, float]:
        """Ends of the interval that holds the result of very many such images with this confidence.

        Its middle is the value less its excess. Its half width is the jackknife's standard error times a quantile of
        Student's t. Few images that change much leave few degrees of freedom (Satterthwaite's formula).

        Args:
            confidence: An EvaluationError if it is not within (0, 1).
            bounds: The least and the greatest result that there can be; the interval is cut there.

        Returns:
            Both ends; nan where there is no value, or fewer than two images.
        """
        if not 0 < confidence < 1:
            raise EvaluationError(f'confidence={confidence}', fix='It is a part of 1, such as 0.95.')
        count, squares = len(self.changes), self.changes**2
        total = float(squares.sum())
        if count < 2 or not np.isfinite(self.value - self.excess + total):
            return float('nan'), float('nan')
        spread = float((squares**2).sum()) - total**2 / count
        freedom = min(max(2 * total**2 / spread, 1.0), count - 1) if spread > 0 else count - 1
        half = float(stdtrit(freedom, (1 + confidence) / 2)) * np.sqrt(total * (count - 1) / count)
        middle = self.value - self.excess
        low, high = np.clip([middle - half, middle + half], *bounds)
        return float(low), float(high)


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

    @property
    def effects(self) -> ImageEffects:
        """The ratio with what each image changes; its excess is nearly none."""
        order = np.argsort(np.array(self.image_ids, dtype=object), kind='stable')
        ids = tuple(self.image_ids[at] for at in order)
        check_once(ids)
        above, below = self.numerators[order], self.denominators[order]
        rest = below.sum() - below
        # Where one image has all that counts, nothing is left without it.
        changes = np.full(len(ids), np.nan)
        if (rest > 0).all():
            changes = self.ratio - (above.sum() - above) / rest
        return ImageEffects(ids, self.ratio, 0.0, changes, int((below > 0).sum()))


@dataclass(frozen=True, eq=False)
class _ClassEffects:
    """The average precision of one class; columns and changes are those of its entries and objects.

    ``with_objects`` are the columns of the images with objects of the class.
    """

    value: float
    excess: float
    columns: IntArray
    changes: FloatArray
    with_objects: IntArray


def mean_average_precision_effects(
    matches: Iterable[ImageMatches], *, groups: Mapping[str, Sequence[int]]
) -> dict[str, ImageEffects]:
    """Mean average precision of groups of classes with what each image changes.

    Classes without ground truth are left out of the mean. A class whose objects are all in one image would be left out
    without that image, so it changes the mean as much as it differs from the mean of the others.

    Args:
        matches: One record for every image, in any order.
        groups: Labels by the name of their group.

    Raises:
        EvaluationError: If an image occurs twice.
    """
    images = sorted(matches, key=attrgetter('image_id'))
    ids = tuple(image.image_id for image in images)
    check_once(ids)
    labels, scores, weights, counted, counts = (
        np.concatenate([np.zeros(0, dtype=dtype), *(getattr(image, name) for image in images)])
        for name, dtype in (
            ('labels', np.int64), ('scores', np.float64), ('weights', np.float64),
            ('counted_labels', np.int64), ('counts', np.float64),
        )
    )  # fmt: skip
    columns = np.repeat(np.arange(len(ids)), [len(image.labels) for image in images])
    counted_columns = np.repeat(np.arange(len(ids)), [len(image.counts) for image in images])
    by_class, by_counted = (np.argsort(of, kind='stable') for of in (labels, counted))
    classes: dict[int, _ClassEffects] = {}
    for label in sorted({int(label) for group in groups.values() for label in group}):
        begin, end = np.searchsorted(labels[by_class], [label, label + 1])
        members = by_class[begin:end]
        begin, end = np.searchsorted(counted[by_counted], [label, label + 1])
        objects = by_counted[begin:end]
        num_objects: FloatArray = np.bincount(counted_columns[objects], counts[objects], len(ids)).astype(np.float64)
        if num_objects.sum() > 0:
            members = members[descending(scores[members])]
            classes[label] = _class_effects(weights[members], columns[members], num_objects)
    return {
        name: _mean([classes[int(label)] for label in group if int(label) in classes], ids)
        for name, group in groups.items()
    }


def _class_effects(weights: FloatArray, columns: IntArray, num_objects: FloatArray) -> _ClassEffects:
    """Average precision of one class.

    Args:
        weights: (S,) float64 in descending order of the scores; 0 for false positives.
        columns: (S,) int64; the image of each entry.
        num_objects: (N,) float64; counted ground truth of each image.
    """
    total, with_objects = float(num_objects.sum()), np.flatnonzero(num_objects)
    scored = np.where(weights > 0, weights, 1.0)
    true, all_scored = np.cumsum(weights), np.cumsum(scored)
    precision = true / all_scored
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    value = float((weights * envelope).sum()) / total

    # The envelope at an entry is the precision at its peak, the first one from there on that reaches it. An image
    # moves it by all its entries up to that peak: d(T / S) = (dT − precision · dS) / S.
    peaks = np.flatnonzero(precision >= envelope)
    peak_of = np.searchsorted(peaks, np.arange(len(weights)))
    per_entry = np.bincount(peak_of, weights=weights, minlength=len(peaks)) / (total * all_scored[peaks])
    by_true, by_scored = (np.cumsum(part[::-1])[::-1][peak_of] for part in (per_entry, per_entry * precision[peaks]))
    changes = weights * (envelope / total + by_true) - scored * by_scored
    # Without an image there are fewer objects, too.
    places = np.concatenate([columns, with_objects])
    changes = np.concatenate([changes, -value * num_objects[with_objects] / total])
    left = total - num_objects[places]
    changes *= np.divide(total, left, out=np.ones_like(left), where=left > 0)

    # An object helps its own precision. What the other images say of the precision at its score does not know it.
    own = np.argsort(columns, kind='stable')
    start = np.searchsorted(columns[own], columns[own])
    others_true, others_scored = true.copy(), all_scored.copy()
    for of_others, each in ((others_true, weights), (others_scored, scored)):
        so_far = np.concatenate([[0.0], np.cumsum(each[own])])
        of_others[own] -= so_far[1:] - so_far[start]
    by_others = np.divide(others_true, others_scored, out=precision.copy(), where=others_scored > 1e-9)
    excess = value - float((weights * by_others).sum()) / total
    return _ClassEffects(value, excess, places, changes, with_objects)


def _mean(classes: Sequence[_ClassEffects], ids: tuple[str, ...]) -> ImageEffects:
    """The mean over the classes that have a value."""
    count, nothing = len(classes), np.full(len(ids), np.nan)
    if not count:
        return ImageEffects(ids, float('nan'), float('nan'), nothing, 0)
    value = float(np.mean([of.value for of in classes]))
    num_counted = len(np.unique(np.concatenate([of.with_objects for of in classes])))
    several = [of for of in classes if len(of.with_objects) > 1]
    sole = [of for of in classes if len(of.with_objects) == 1]
    if count == 1 and sole:
        return ImageEffects(ids, value, 0.0, nothing, num_counted)
    places = np.concatenate([of.columns for of in several] + [of.with_objects for of in sole])
    changes = np.concatenate(
        [of.changes / count for of in several] + [np.array([(of.value - value) / (count - 1)]) for of in sole]
    )
    few = [of.excess for of in several if len(of.with_objects) <= FEW_IMAGES]
    of_sole = float(np.mean(few or [of.excess for of in several] or [0.0]))
    excess = (sum(of.excess for of in several) + len(sole) * of_sole) / count
    by_image: FloatArray = np.bincount(places, changes, len(ids)).astype(np.float64)
    return ImageEffects(ids, value, excess, by_image, num_counted)
