"""Counts of the instances that train: of classes, of a layer, and how often an image is to be repeated for them.

Repeat factor sampling (RFS): Gupta, Dollár and Girshick, "LVIS: A Dataset for Large Vocabulary Instance
Segmentation", CVPR 2019, appendix. Instance-aware (IRFS): Yaman, Mahmud and Liu, "Instance-Aware Repeat Factor
Sampling for Long-Tailed Object Detection", 2023, arXiv 2305.08069.

Shape letters: C classes of a store or layer, N images, M instances that train, P pairs of an image and a class on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from hierseg.errors import ConfigError
from hierseg.formats import FloatArray, IntArray
from hierseg.store.layers import LayerView, ranges, spared, trainable
from hierseg.store.store import Store
from hierseg.taxonomy.graph import Taxonomy


@dataclass(frozen=True, eq=False)
class ClassCounts:
    """Counts of the instances that train; group-of boxes and boxes shorter than a pixel train nothing.

    Attributes:
        images: (C,) int64; images with an instance of the class.
        instances: (C,) int64.
    """

    images: IntArray
    instances: IntArray


@dataclass(frozen=True, eq=False)
class TrainingLabels:
    """The instances that train, as two columns.

    ``expanded`` says throughout that an instance is one of its class and of all ancestors, by every path: then a
    class is as frequent as it is in evaluation, and Carnivore is not rare because most of its instances have
    been annotated as Bear. Without it, an instance is one of its class alone.

    Attributes:
        images: (M,) int64; the image of each instance, 0 to N - 1, ascending.
        labels: (M,) int64.
        num_images: N; images without an instance count.
        taxonomy: The classes that labels index.
    """

    images: IntArray
    labels: IntArray
    num_images: int
    taxonomy: Taxonomy

    @classmethod
    def of(cls, store: Store | LayerView, rows: IntArray | None = None) -> TrainingLabels:
        """Reads whole columns, and no mask, of a store or a view of it: of the images in ``rows``, (N,), or all."""
        first, count = store.first_instances, store.num_instances_per_image
        trains = trainable(store.all_boxes(), store.instance_column('group_of'))
        labels = store.instance_column('label').astype(np.int64)  # not store.labels, which would stay in memory
        if rows is not None:
            first, count = first[rows], count[rows]
            chosen = ranges(first, count)
            trains, labels = trains[chosen], labels[chosen]
        images = np.repeat(np.arange(len(count)), count)
        return cls(images[trains], labels[trains], len(count), store.taxonomy)

    def distinct(self, *, expanded: bool = True) -> tuple[IntArray, IntArray]:
        """Images and labels, (P,) int64 each: every class of every image once, by image, then by label."""
        classes = self.taxonomy.num_classes
        images, labels = np.divmod(np.unique(self.images * classes + self.labels), classes)
        if not expanded:
            return images, labels
        # Each pair becomes one for each ancestor of its class: pairs are fewer than entries of a matrix.
        arrays = self.taxonomy.arrays
        counts = np.diff(arrays.starts)[labels]
        ancestors = arrays.at_or_above[ranges(arrays.starts[labels], counts)]
        images, labels = np.divmod(np.unique(np.repeat(images, counts) * classes + ancestors), classes)
        return images, labels

    def counts(self, *, expanded: bool = True) -> ClassCounts:
        """Images and instances of each class."""
        _, labels = self.distinct(expanded=expanded)
        classes = self.taxonomy.num_classes
        instances = np.bincount(self.labels, minlength=classes)
        if expanded:
            instances = self.taxonomy.arrays.sums_below(instances)
        return ClassCounts(np.bincount(labels, minlength=classes), instances)

    def counts_of_draws(self, draws: FloatArray, *, expanded: bool = True) -> tuple[FloatArray, FloatArray]:
        """Images and instances of each class, (C,) float64, that a sampler shows on average.

        Args:
            draws: (N,) float64; how often each image is drawn, on average.
            expanded: As for the class.
        """
        images, labels = self.distinct(expanded=expanded)
        classes = self.taxonomy.num_classes
        drawn = np.bincount(labels, weights=draws[images], minlength=classes).astype(np.float64)
        instances = np.bincount(self.labels, weights=draws[self.images], minlength=classes).astype(np.float64)
        return drawn, self.taxonomy.arrays.sums_below(instances) if expanded else instances

    def frequencies(self, *, instance_aware: bool = False, expanded: bool = True) -> FloatArray:
        """(C,) float64; frequencies of classes, from 0 to 1: f of the published formulas.

        Args:
            instance_aware: False for the share of images with the class (RFS); True for the geometric mean of
                that share and the share of instances that are of the class (IRFS).
            expanded: As for the class.
        """
        counts = self.counts(expanded=expanded)
        of_images = counts.images / max(self.num_images, 1)
        if not instance_aware:
            return of_images
        frequencies: FloatArray = np.sqrt(of_images * (counts.instances / max(len(self.labels), 1)))
        return frequencies

    def image_factors(self, class_factors: FloatArray) -> FloatArray:
        """(N,) float64; the greatest of the factors, (C,) float64 from 1, of the classes of each image; 1 for none.

        Ancestors need not be looked at: no class is rarer than one below it, so no ancestor has a greater factor.
        """
        factors = np.ones(self.num_images)
        np.maximum.at(factors, self.images, class_factors[self.labels])
        return factors


def count_classes(store: Store | LayerView, *, expanded: bool = True) -> ClassCounts:
    """Counts a store or a view of it, see :class:`TrainingLabels`."""
    return TrainingLabels.of(store).counts(expanded=expanded)


def repeat_factors(
    frequencies: FloatArray, threshold: float | Literal['max'], *, power: float = 0.5, max_repeats: float | None = None
) -> FloatArray:
    """Repeat factors of classes: images of a class are seen r(c) = max(1, (t / f(c))^p) times in a pass.

    p = ½ is LVIS's. With t = max f, images of class c make up a part of the pass in proportion to f(c)^(1 − p), where
    no image has two classes: p = 1 balances classes as class-aware sampling does.

    Args:
        frequencies: (C,) float64; f. A class that does not occur has the factor 1.
        threshold: t, above 0 and at most 1; ``max`` for the frequency of the most frequent class. Classes more frequent
            than that are not repeated.
        power: p, from 0 (nothing is repeated) to 1.
        max_repeats: Greater factors are lowered to this one, at least 1. None: they stay.

    Raises:
        ConfigError: If a number is out of range.

    Example:
        >>> repeat_factors(np.array([0.5, 0.01, 0.0025, 0]), 0.01).tolist()
        [1.0, 1.0, 2.0, 1.0]
        >>> repeat_factors(np.array([0.5, 0.25, 0.01, 0]), 'max', power=1, max_repeats=20).tolist()
        [1.0, 2.0, 20.0, 1.0]
    """
    where = 'repeat factors'
    highest = float(frequencies.max(initial=0))
    top: Any = (highest or 1.0) if threshold == 'max' else threshold
    if isinstance(top, str) or not 0 < top <= 1:
        raise ConfigError(
            f'threshold={threshold!r} is no frequency',
            where=where,
            fix="Give a share of images, above 0 and at most 1, such as 0.001, or 'max'.",
        )
    if not 0 <= power <= 1:
        raise ConfigError(f'power={power}', where=where, fix='Give a number from 0 to 1.')
    if max_repeats is not None and not max_repeats >= 1:
        raise ConfigError(f'max_repeats={max_repeats}', where=where, fix='Give a number of at least 1, or None.')
    ratios = np.divide(top, frequencies, out=np.ones(len(frequencies)), where=frequencies > 0)
    factors: FloatArray = np.clip(ratios**power, 1.0, max_repeats)
    return factors


@dataclass(frozen=True, eq=False)
class LayerCounts:
    """Counts over the *training images* of a layer view: those with an instance of the layer that trains.

    Attributes:
        images: Training images.
        images_per_class: (C,) int64; training images with an instance of the class that trains.
        instances_per_class: (C,) int64; instances that train.
        painted: Boxes painted grey.
        spared: Boxes that are not painted, for the sake of a target.
        images_painted: Training images with a painted box.
    """

    images: int
    images_per_class: IntArray
    instances_per_class: IntArray
    painted: int
    spared: int
    images_painted: int

    @property
    def instances(self) -> int:
        """Instances that train, of all classes."""
        return int(self.instances_per_class.sum())


def count_layer(view: LayerView) -> LayerCounts:
    """Counts a view in whole columns of its store, without reading a mask."""
    labels, store, classes = TrainingLabels.of(view), view.store, view.classes
    counts = labels.counts()
    training_images = np.zeros(len(store), dtype=bool)
    training_images[view.rows[labels.images]] = True
    images = np.repeat(np.arange(len(store)), store.num_instances_per_image)
    of_class, trained_on = store.instance_column('label'), training_images[images]
    candidates = classes.painted[of_class] & trained_on
    is_spared = spared(store.all_boxes(), images, candidates, (classes.layer_labels[of_class] >= 0) & trained_on)
    return LayerCounts(
        images=int(training_images.sum()),
        images_per_class=counts.images,
        instances_per_class=counts.instances,
        painted=int((candidates & ~is_spared).sum()),
        spared=int(is_spared.sum()),
        images_painted=len(np.unique(images[candidates & ~is_spared])),
    )
