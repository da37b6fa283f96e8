"""At most so many images for each class: which images stay.

Shape letters: N images, I instances, K classes.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hierseg.annotations.records import IntArray


def random_order(image_ids: npt.NDArray[np.object_], seed: int) -> IntArray:
    """Shuffles images by a keyed hash of their ids.

    The order of two images depends on the seed and on their ids, and on nothing else: neither on where they
    stand nor on which other images there are.

    Args:
        image_ids: (N,) unique texts.
        seed: At least 0, below 2**64.

    Returns:
        (N,) int64; positions of the images in random order.
    """
    import pandas as pd  # where it is needed: no other reader of stores does, and it takes 20 MB of each process

    keys = pd.util.hash_array(image_ids, hash_key=f'{seed:016x}', categorize=False)
    return np.argsort(keys, kind='stable')


def capped_images(images: IntArray, labels: IntArray, order: IntArray, *, images_per_class: int) -> IntArray:
    """Chooses images so that every class keeps ``images_per_class`` of its own, or all if it has fewer.

    Of the images that hold a class, its first ``images_per_class`` in ``order`` are kept, and the union over
    classes is the result. The same images are kept by going through ``order`` once and taking each
    image that holds a class of which fewer than ``images_per_class`` images were taken so far. A frequent class
    therefore has more images than that in the end: those that a rarer class brought along.

    A larger number keeps all images that a smaller one keeps.

    Args:
        images: (I,) int64; the image of each instance, below N.
        labels: (I,) int64; its class.
        order: (N,) int64; all images, from :func:`random_order`.
        images_per_class: At least 1.

    Returns:
        int64; the images kept, ascending.
    """
    count = len(order)
    rank = np.empty(count, dtype=np.int64)
    rank[order] = np.arange(count)
    pairs = np.unique(labels * count + rank[images])  # by class, then in random order
    classes = pairs // max(count, 1)
    place_in_class = np.arange(len(pairs)) - np.searchsorted(classes, classes)
    kept: IntArray = np.unique(order[pairs[place_in_class < images_per_class] % max(count, 1)])
    return kept
