"""Layer views: a store as one layer of the two-layer ensemble sees it, computed and not copied.

Shape letters: I instances of one image, P painted boxes of one image, N images and M instances of the view,
C classes of the store, K classes of the layer.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hierseg.annotations.image_cap import capped_images, random_order
from hierseg.annotations.layer_classes import LayerClasses
from hierseg.annotations.painting import spared
from hierseg.annotations.records import BoolArray, FloatArray, ImageRow, Instances, IntArray
from hierseg.annotations.store import Store
from hierseg.annotations.trainable import trainable
from hierseg.errors import ConfigError, StoreError
from hierseg.taxonomy.graph import Taxonomy

SIDES = ('x1', 'y1', 'x2', 'y2')


class LayerView:
    """A store with the classes of one layer, and the reading interface of a store.

    **Layer 0** has the root classes. Each deeper instance becomes its root class by preferred parents: a
    Teddy bear is a Toy, not a Carnivore. Nothing is dropped or painted.

    **Layer 1** has all deeper classes, side by side. Instances of root classes are dropped; the box of one
    whose class has children is painted grey, since a Man may have been labelled as a Person only. It is spared
    where it covers more than 25 % of the box of an instance of the layer (intersection / area of the latter).
    What a painted box covers of such an instance, 25 % at most, turns grey with it. Images without any
    instance of the layer stay in the view; ``filter_empty_gt`` leaves them out.

    Group-of boxes and boxes without a mask are treated like all others, as targets and as what is painted.

    **Verified labels.** Positive ones change as instances do. A negative one says the same of every class below
    it (no Person, so no Man), and nothing about the classes above it. Where both meet, the
    positive one stays.

    **Cap.** With ``images_per_class``, the view has only images with an instance that trains
    (:func:`~hierseg.annotations.trainable.trainable`), chosen by
    :func:`~hierseg.annotations.image_cap.capped_images`: of each class that many images, or all if it has fewer.
    They are the same images for a seed wherever they stand in the store. A kept image keeps all its instances.

    Without a cap nothing is read when a view is made; with one, a few columns are. A view can be pickled and
    used after fork as well as spawn, like its store.

    Args:
        store: The store.
        layer: 0 or 1.
        images_per_class: The cap; None for none.
        seed: Of the cap; at least 0, below 2**64.

    Attributes:
        classes: Which classes the layer has, and what becomes of the others.
        taxonomy: The K classes of the layer, in the label order of the store's, without edges.
        labels_of_layer: (K,) int64; their labels in the taxonomy of the store.

    Raises:
        ConfigError: If an argument is out of range, the layer has no classes, or the cap would leave no image.

    Example:
        >>> from hierseg.annotations.layer_classes import LayerClasses
        >>> pets = Taxonomy.from_edges(['toy', 'animal', 'teddy'], [('teddy', 'toy'), ('teddy', 'animal')])
        >>> [LayerClasses.of(pets, layer).layer_labels.tolist() for layer in (0, 1)]
        [[0, 1, 0], [-1, -1, 0]]
    """

    def __init__(self, store: Store, layer: int, *, images_per_class: int | None = None, seed: int = 0) -> None:
        where = f'layer view of {store.path}'
        if images_per_class is not None and images_per_class < 1:
            raise ConfigError(
                f'images_per_class={images_per_class}', where=where, fix='Give at least 1, or None for all images.'
            )
        if not 0 <= seed < 1 << 64:
            raise ConfigError(f'seed={seed}', where=where, fix='Give a whole number from 0 to 2**64 - 1.')
        self.store, self.layer, self.images_per_class, self.seed = store, layer, images_per_class, seed
        try:
            self.classes = LayerClasses.of(store.taxonomy, layer)
        except ConfigError as error:
            raise ConfigError(error.what, where=where, fix=error.fix) from None
        self._rows: IntArray | None = None if images_per_class is None else self._capped(images_per_class)

    def __getstate__(self) -> dict[str, Any]:
        # The rows of the cap travel; columns are read again from the memory-mapped store.
        properties = [name for name in vars(self) if isinstance(getattr(type(self), name, None), cached_property)]
        return {name: value for name, value in vars(self).items() if name not in properties}

    def __len__(self) -> int:
        return len(self.store) if self._rows is None else len(self._rows)

    def __repr__(self) -> str:
        cap = '' if self.images_per_class is None else f', {self.images_per_class} images per class, seed {self.seed}'
        return f'LayerView({str(self.path)!r}, layer {self.layer}{cap}: {len(self)} of {len(self.store)} images)'

    @property
    def path(self) -> Path:
        """The folder of the store."""
        return self.store.path

    @property
    def taxonomy(self) -> Taxonomy:
        """The classes of the layer; labels of the view index them."""
        return self.classes.taxonomy

    @property
    def labels_of_layer(self) -> IntArray:
        """(K,) int64; labels of the layer's classes in the taxonomy of the store."""
        return self.classes.labels

    @property
    def summary(self) -> dict[str, Any]:
        """Of the store: what the converter read and skipped, and why."""
        return self.store.summary

    @property
    def rows(self) -> IntArray:
        """(N,) int64; the row of each image in the store, ascending."""
        return np.arange(len(self.store)) if self._rows is None else self._rows

    def store_row(self, row: int) -> int:
        """The row in the store of a row of the view.

        Raises:
            StoreError: If the view has no such row.
        """
        if not 0 <= row < len(self):
            raise StoreError(f'image row {row} of {len(self)} images does not exist', where=repr(self))
        return row if self._rows is None else int(self._rows[row])

    def image(self, row: int) -> ImageRow:
        """The image in a row, 0 <= row < len(view)."""
        return self.store.image(self.store_row(row))

    def instances(self, row: int) -> Instances:
        """The layer's instances on the image in a row, with labels of the layer."""
        found = self.store.instances(self.store_row(row))
        labels = self.classes.layer_labels[found.labels]
        keep = np.flatnonzero(labels >= 0)
        return Instances(
            labels=labels[keep],
            boxes=found.boxes[keep],
            masks=[found.masks[index] for index in keep],
            has_mask=found.has_mask[keep],
            group_of=found.group_of[keep],
            areas=found.areas[keep],
            annotation_ids=[found.annotation_ids[index] for index in keep],
        )

    def painted(self, row: int) -> FloatArray:
        """(P, 4) float64; the boxes to paint grey on the image in a row, xyxy, pixels."""
        if not self.classes.painted.any():
            return np.zeros((0, 4))
        found = self.store.instances(self.store_row(row))
        boxes = found.boxes[self.classes.painted[found.labels]]
        return boxes[~spared(boxes, found.boxes[self.classes.layer_labels[found.labels] >= 0])]

    def verified(self, row: int) -> tuple[IntArray, IntArray]:
        """Labels of the layer verified as present and as absent on the image in a row, ascending, int64 each."""
        present, absent = self.store.verified(self.store_row(row))
        positive = np.unique(self.classes.layer_labels[present])
        positive = positive[positive >= 0]
        negative = self.classes.implied_absent(absent)
        return positive, np.setdiff1d(negative, positive, assume_unique=True)

    def row_of(self, image_id: str) -> int:
        """The row of an image.

        Raises:
            StoreError: If the store has no such image, or the cap left it out.
        """
        store_row = self.store.row_of(image_id)
        if self._rows is None:
            return store_row
        row = int(np.searchsorted(self._rows, store_row))
        if row == len(self._rows) or self._rows[row] != store_row:
            raise StoreError(
                f'image {image_id!r} is not among the {len(self)} of {len(self.store)} images that the cap keeps',
                where=repr(self),
                fix='Ask the store, or a view without images_per_class.',
            )
        return row

    @cached_property
    def num_instances_per_image(self) -> IntArray:
        """(N,) int64, found without touching a mask."""
        before = np.concatenate([[0], np.cumsum(self._in_layer)])
        first = self.store.first_instances
        counts: IntArray = before[first + self.store.num_instances_per_image] - before[first]
        return counts[self.rows]

    @cached_property
    def first_instances(self) -> IntArray:
        """(N,) int64; where each image's instances begin in :attr:`labels`."""
        return np.cumsum(self.num_instances_per_image) - self.num_instances_per_image

    @cached_property
    def labels(self) -> IntArray:
        """(M,) int64; labels of all instances of the view, image after image."""
        labels: IntArray = self.instance_column('label').astype(np.int64)
        return labels

    def image_column(self, name: str) -> npt.NDArray[Any]:
        """(N,) one fixed-width column of all images of the view, such as ``width``; a copy.

        Raises:
            StoreError: If it says where in the store an image's rows are.
        """
        if name.startswith(('first_', 'last_')):
            raise StoreError(
                f'{name} counts rows of the store', where=repr(self), fix='Use first_instances of the view.'
            )
        return self.store.image_column(name)[self.rows]

    def instance_column(self, name: str) -> npt.NDArray[Any]:
        """(M,) one fixed-width column of all instances of the view, ``label`` as label of the layer; a copy."""
        column = self.store.instance_column(name)
        if name == 'label':
            column = self.classes.layer_labels[column].astype(column.dtype)
        return column[self._shown]

    @property
    def _in_layer(self) -> BoolArray:
        """For all instances of the store: whether their class belongs to the layer."""
        in_layer: BoolArray = self.classes.layer_labels[self.store.instance_column('label')] >= 0
        return in_layer

    @cached_property
    def _shown(self) -> BoolArray:
        """For all instances of the store: whether they are in the view."""
        kept = np.zeros(len(self.store), dtype=bool)
        kept[self.rows] = True
        shown: BoolArray = self._in_layer & np.repeat(kept, self.store.num_instances_per_image)
        return shown

    def _capped(self, images_per_class: int) -> IntArray:
        labels = self.classes.layer_labels[self.store.instance_column('label')]
        boxes = np.stack([self.store.instance_column(side) for side in SIDES], axis=1)
        trains = (labels >= 0) & trainable(boxes, self.store.instance_column('group_of'))
        images = np.repeat(np.arange(len(self.store)), self.store.num_instances_per_image)
        if not trains.any():
            raise ConfigError(
                f'no image has an instance that trains layer {self.layer}',
                where=str(self.path),
                fix='Does the split have instances that are not group-of?',
            )
        order = random_order(self.store.image_ids, self.seed)
        return capped_images(images[trains], labels[trains], order, images_per_class=images_per_class)
