"""How much there is to train a layer on: images, instances and painted boxes.

Shape letters: K classes of the layer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hierseg.annotations.layers import SIDES, LayerView
from hierseg.annotations.painting import spared_everywhere
from hierseg.annotations.records import IntArray
from hierseg.annotations.trainable import trainable


@dataclass(frozen=True, eq=False)
class LayerCounts:
    """Counts over the *training images* of a layer view: those with an instance of the layer that trains.

    Group-of boxes and boxes shorter than a pixel train nothing.

    Attributes:
        images: Training images.
        images_per_class: (K,) int64; training images with an instance of the class that trains.
        instances_per_class: (K,) int64; instances that train.
        painted: Boxes painted grey.
        spared: Boxes that are not painted, since they cover more than 25 % of the box of a target.
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
    store, classes = view.store, view.classes
    num_images, num_classes = len(store), len(classes.labels)
    labels = store.instance_column('label')
    boxes = np.stack([store.instance_column(side) for side in SIDES], axis=1)
    images = np.repeat(np.arange(num_images), store.num_instances_per_image)
    layer_labels = classes.layer_labels[labels]
    in_view = np.zeros(num_images, dtype=bool)
    in_view[view.rows] = True
    trains = (layer_labels >= 0) & trainable(boxes, store.instance_column('group_of')) & in_view[images]
    is_training_image = np.bincount(images[trains], minlength=num_images) > 0
    on_training_image = is_training_image[images]
    candidates = classes.painted[labels] & on_training_image
    targets = (layer_labels >= 0) & on_training_image
    is_spared = spared_everywhere(boxes, images, candidates, targets, num_images=num_images)
    pairs = np.unique(layer_labels[trains] * num_images + images[trains])
    return LayerCounts(
        images=int(is_training_image.sum()),
        images_per_class=np.bincount(pairs // num_images, minlength=num_classes),
        instances_per_class=np.bincount(layer_labels[trains], minlength=num_classes),
        painted=int((candidates & ~is_spared).sum()),
        spared=int(is_spared.sum()),
        images_painted=len(np.unique(images[candidates & ~is_spared])),
    )
