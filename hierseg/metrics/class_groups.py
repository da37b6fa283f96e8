"""Groups of classes whose mean average precision is told apart: layers, depths, and how often training shows them.

Shape letter: C classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hierseg.errors import EvaluationError
from hierseg.metrics.records import IntArray
from hierseg.taxonomy import Taxonomy

FREQUENCY_BANDS = ('rare', 'common', 'frequent')


def class_groups(taxonomy: Taxonomy, *, train_images: IntArray | None = None) -> dict[str, tuple[int, ...]]:
    """Labels of each group of classes, ascending.

    ``all``; ``layer0`` and ``layer1``, the root classes and all deeper ones; ``depth0``, ``depth1``, … by the longest
    path from a root class; and with counts ``rare``, ``common`` and ``frequent``, see :func:`frequency_bands`. Bands
    are taken of all classes of the taxonomy, evaluated or not: a class stays in its band whatever it is tested on.

    Args:
        taxonomy: The classes.
        train_images: (C,) int64; training images with an instance of each class or of one below it.

    Raises:
        EvaluationError: If there is not one count for each class.
    """
    labels, depths = range(taxonomy.num_classes), taxonomy.arrays.depths
    groups = {'all': tuple(labels), 'layer0': taxonomy.root_classes, 'layer1': taxonomy.deeper_classes}
    for depth in range(int(depths.max()) + 1):
        groups[f'depth{depth}'] = tuple(np.flatnonzero(depths == depth).tolist())
    if train_images is None:
        return groups
    if len(train_images) != taxonomy.num_classes:
        raise EvaluationError(
            f'{len(train_images)} counts of training images for {taxonomy.num_classes} classes',
            fix='Count the training store of the same taxonomy.',
        )
    return groups | frequency_bands(train_images, labels)


def frequency_bands(train_images: IntArray, labels: Sequence[int]) -> dict[str, tuple[int, ...]]:
    """The rarest, middle and most frequent third of classes, each in ascending order of labels.

    Where the classes do not divide by three, the rarer bands have one more; of equally frequent classes those of
    smaller label come first. A class without a training image is rare.

    Args:
        train_images: (C,) int64; training images of each class.
        labels: The classes to divide.

    Example:
        >>> frequency_bands(np.array([9, 2, 5, 5]), range(4))
        {'rare': (1, 2), 'common': (3,), 'frequent': (0,)}
    """
    ascending = np.sort(np.asarray(labels, dtype=np.int64))
    by_frequency = ascending[np.argsort(train_images[ascending], kind='stable')]
    thirds = np.array_split(by_frequency, len(FREQUENCY_BANDS))
    return {band: tuple(np.sort(third).tolist()) for band, third in zip(FREQUENCY_BANDS, thirds, strict=True)}
