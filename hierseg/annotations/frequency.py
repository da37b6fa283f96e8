"""How often each class occurs in a store.

Shape letters: C classes, N images, M instances.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hierseg.annotations.layers import SIDES
from hierseg.annotations.records import IntArray
from hierseg.annotations.store import Store
from hierseg.annotations.trainable import trainable


@dataclass(frozen=True, eq=False)
class ClassCounts:
    """Counts of the instances that train; group-of boxes and boxes shorter than a pixel train nothing.

    Attributes:
        images: (C,) int64; images with an instance of the class.
        instances: (C,) int64.
    """

    images: IntArray
    instances: IntArray


def count_classes(store: Store, *, expanded: bool = True) -> ClassCounts:
    """Counts a store in whole columns, without reading a mask.

    Args:
        store: The store.
        expanded: An instance counts for its class and all ancestors; else for its class alone.
    """
    taxonomy = store.taxonomy
    boxes = np.stack([store.instance_column(side) for side in SIDES], axis=1)
    trains = trainable(boxes, store.instance_column('group_of'))
    labels = store.labels[trains]
    images = np.repeat(np.arange(len(store)), store.num_instances_per_image)[trains]
    instances = np.bincount(labels, minlength=taxonomy.num_classes)
    pairs = np.unique(images * taxonomy.num_classes + labels)
    images, labels = np.divmod(pairs, taxonomy.num_classes)
    if not expanded:
        return ClassCounts(np.bincount(labels, minlength=taxonomy.num_classes), instances)
    ancestors = taxonomy.arrays.ancestor_mask
    on_image = np.zeros(taxonomy.num_classes, dtype=np.int64)
    for ancestor in range(taxonomy.num_classes):
        on_image[ancestor] = len(np.unique(images[ancestors[labels, ancestor]]))
    return ClassCounts(on_image, instances @ ancestors)
