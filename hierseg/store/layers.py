"""Layers: a store as one layer of the two-layer ensemble sees it, computed and not copied.

Shape letters: I instances of one image, P painted boxes of one image, N images and M instances of the view,
C classes of the store, K classes of the layer, B boxes, T instances that train.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from hierseg.errors import ConfigError, StoreError
from hierseg.formats import BoolArray, FloatArray, IntArray
from hierseg.store.store import ImageRow, Instances, Store
from hierseg.taxonomy import Taxonomy

SHORTEST_SIDE = 1.0
"""Pixels; a box with a shorter side trains nothing."""
LARGEST_COVERED_SHARE = 0.25
"""A box that covers more of a target box than this is spared."""
PAIRS_AT_ONCE = 1 << 21
"""Pairs of boxes that are compared in one go: about 300 MB."""


class LayerView:
    """A store with the classes of one layer, and the reading interface of a :class:`Store`.

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

    **Cap.** With ``images_per_class``, the view has only images with an instance that trains (:func:`trainable`),
    chosen by :func:`capped_images`. They are the same images for a seed wherever they stand in the store. A kept image
    keeps all its instances.

    Without a cap nothing is read when a view is made; with one, a few columns are.

    Args:
        store: The store.
        layer: 0 or 1.
        images_per_class: The cap; None for none.
        seed: Of the cap; at least 0, below 2**64.

    Attributes:
        classes: The classes of the layer, and what becomes of the others.
        taxonomy: The K classes of the layer, in the label order of the store's, without edges.
        labels_of_layer: (K,) int64; their labels in the taxonomy of the store.

    Raises:
        ConfigError: If an argument is out of range, the layer has no classes, or the cap would leave no image.

    Example:
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
        self.classes = LayerClasses.of(store.taxonomy, layer, where=where)
        self.path, self.taxonomy, self.labels_of_layer = store.path, self.classes.taxonomy, self.classes.labels
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
    def summary(self) -> dict[str, Any]:
        """Of the store: what the converter read and skipped, and why."""
        return self.store.summary

    @property
    def rows(self) -> IntArray:
        """(N,) int64; the row of each image in the store, ascending."""
        return np.arange(len(self.store)) if self._rows is None else self._rows

    def store_row(self, row: int) -> int:
        """The row in the store of a row of the view; StoreError if there is none."""
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
        candidates, targets = self.classes.painted[found.labels], self.classes.layer_labels[found.labels] >= 0
        image = np.zeros(len(found), dtype=np.int64)
        return found.boxes[candidates & ~spared(found.boxes, image, candidates, targets)]

    def verified(self, row: int) -> tuple[IntArray, IntArray]:
        """As of the store, with labels of the layer."""
        present, absent = self.store.verified(self.store_row(row))
        positive = np.unique(self.classes.layer_labels[present])
        positive = positive[positive >= 0]
        below = [self.store.taxonomy.arrays.below(label) for label in absent]
        negative = np.flatnonzero(np.isin(self.labels_of_layer, np.concatenate([absent[:0], *below])))
        return positive, np.setdiff1d(negative, positive, assume_unique=True)

    @property
    def has_not_exhaustive(self) -> bool:
        """As of the store."""
        return self.store.has_not_exhaustive

    def not_exhaustive(self, row: int) -> IntArray:
        """As of the store, with labels of the layer: more instances of a class are more of each class above it."""
        labels = self.store.taxonomy.arrays.all_above(self.store.not_exhaustive(self.store_row(row)))
        found = np.unique(self.classes.layer_labels[labels])
        return found[found >= 0]

    def row_of(self, image_id: str) -> int:
        """The row of an image; StoreError if the store has no such image, or the cap left it out."""
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
        """(N,) int64."""
        before = np.concatenate([[0], np.cumsum(self._shown)])
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
        return self.instance_column('label').astype(np.int64)

    def all_boxes(self) -> FloatArray:
        """(M, 4) float64; boxes of all instances of the view, xyxy, pixels; a copy."""
        return self.store.all_boxes()[self._shown]

    def image_column(self, name: str) -> npt.NDArray[Any]:
        """As of the store; not the columns that count rows of the store, for which StoreError is raised."""
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

    @cached_property
    def _shown(self) -> BoolArray:
        """For all instances of the store: whether they are in the view."""
        kept = np.zeros(len(self.store), dtype=bool)
        kept[self.rows] = True
        in_layer = self.classes.layer_labels[self.store.instance_column('label')] >= 0
        shown: BoolArray = in_layer & np.repeat(kept, self.store.num_instances_per_image)
        return shown

    def _capped(self, images_per_class: int) -> IntArray:
        labels = self.classes.layer_labels[self.store.instance_column('label')]
        trains = (labels >= 0) & trainable(self.store.all_boxes(), self.store.instance_column('group_of'))
        images = np.repeat(np.arange(len(self.store)), self.store.num_instances_per_image)
        if not trains.any():
            raise ConfigError(
                f'no image has an instance that trains layer {self.layer}',
                where=str(self.path),
                fix='Does the split have instances that are not group-of?',
            )
        order = random_order(self.store.image_ids, self.seed)
        return capped_images(images[trains], labels[trains], order, images_per_class=images_per_class)


@dataclass(frozen=True, eq=False)
class LayerClasses:
    """The classes of a layer.

    Attributes:
        taxonomy: The K classes without edges, in the label order of the full taxonomy.
        labels: (K,) int64; their labels in the full taxonomy.
        layer_labels: (C,) int64; labels in the layer of all classes, -1 for those that are dropped.
        painted: (C,) bool; classes of which boxes are painted grey.
    """

    taxonomy: Taxonomy
    labels: IntArray
    layer_labels: IntArray
    painted: BoolArray

    @classmethod
    def of(cls, taxonomy: Taxonomy, layer: int, *, where: str = '') -> LayerClasses:
        """The classes of layer 0 (root classes) or 1 (all deeper ones); ConfigError if there is no such layer."""
        if layer not in (0, 1):
            fix = 'Layers are 0, the root classes, and 1, all deeper classes.'
            raise ConfigError(f'layer={layer!r}', where=where, fix=fix)
        labels = np.array(taxonomy.deeper_classes if layer else taxonomy.root_classes, dtype=np.int64)
        if len(labels) == 0:
            raise ConfigError(
                f'none of the {taxonomy.num_classes} classes has a parent, so there is no layer 1',
                where=where,
                fix='Name the hierarchy where the data set is converted.',
            )
        ids, names = (tuple(texts[label] for label in labels) for texts in (taxonomy.ids, taxonomy.names))
        positions = np.full(taxonomy.num_classes, -1)
        positions[labels] = np.arange(len(labels))
        arrays = taxonomy.arrays
        return cls(
            taxonomy=Taxonomy(ids, names, ((),) * len(labels)),
            labels=labels,
            layer_labels=positions if layer else positions[arrays.preferred_roots],
            painted=~arrays.is_leaf & (positions < 0) if layer else np.zeros(len(positions), dtype=bool),
        )


def trainable(boxes: FloatArray, group_of: BoolArray) -> BoolArray:
    """(B,) bool; instances that are neither group-of nor shorter than a pixel. Others stay as regions to ignore.

    Args:
        boxes: (B, 4) float64; xyxy, pixels.
        group_of: (B,) bool.
    """
    trains: BoolArray = ~group_of
    for start, end in ((0, 2), (1, 3)):  # one side after the other: of millions of boxes, each array counts
        trains &= boxes[:, end] - boxes[:, start] >= SHORTEST_SIDE
    return trains


def covers(boxes: FloatArray, targets: FloatArray) -> BoolArray:
    """(...) bool; true where a box hides more than a quarter of a target: intersection / target area > 0.25.

    Args:
        boxes: (..., 4) float64; xyxy, pixels.
        targets: (..., 4) float64; likewise, broadcast against ``boxes``. One without area is never hidden.

    Example:
        >>> covers(np.array([0.0, 0.0, 5.0, 10.0]), np.array([[0.0, 0, 20, 10], [0.0, 0, 19, 10]])).tolist()
        [False, True]
    """
    sides = np.minimum(boxes[..., 2:], targets[..., 2:]) - np.maximum(boxes[..., :2], targets[..., :2])
    intersections = np.prod(np.maximum(sides, 0.0), axis=-1)
    areas = np.prod(targets[..., 2:] - targets[..., :2], axis=-1)
    covered: BoolArray = intersections > LARGEST_COVERED_SHARE * areas
    return covered


def spared(boxes: FloatArray, images: IntArray, candidates: BoolArray, targets: BoolArray) -> BoolArray:
    """(B,) bool; boxes that are not painted, since they would hide an instance of the layer, see :class:`LayerView`.

    Args:
        boxes: (B, 4) float64; xyxy, pixels, of any number of images.
        images: (B,) int64; the image of each, ascending.
        candidates: (B,) bool; boxes that may be painted.
        targets: (B,) bool; instances of the layer.
    """
    candidate_rows, target_rows = np.flatnonzero(candidates), np.flatnonzero(targets)
    targets_of_image = np.bincount(images[target_rows], minlength=int(images.max(initial=-1)) + 1)
    first_target = np.cumsum(targets_of_image) - targets_of_image
    num_pairs = targets_of_image[images[candidate_rows]]
    result = np.zeros(len(boxes), dtype=bool)
    # Steps end between candidates, at every PAIRS_AT_ONCE pairs or so.
    steps = np.cumsum(num_pairs) // PAIRS_AT_ONCE
    for part in np.split(np.arange(len(candidate_rows)), np.flatnonzero(np.diff(steps)) + 1):
        rows, counts = candidate_rows[part], num_pairs[part]
        against = target_rows[ranges(first_target[images[rows]], counts)]
        rows = np.repeat(rows, counts)
        result[rows[covers(boxes[rows], boxes[against])]] = True
    return result


def random_order(image_ids: npt.NDArray[np.object_], seed: int) -> IntArray:
    """(N,) int64; positions of images in random order: by a hash of their ids, (N,) unique texts, keyed with the seed.

    The order of two images depends on nothing else: neither on where they stand nor on which others there are.
    """
    import pandas as pd  # where it is needed: no other reader of stores does, and it takes 20 MB of each process

    keys = pd.util.hash_array(image_ids, hash_key=f'{seed:016x}', categorize=False)
    return np.argsort(keys, kind='stable')


def capped_images(images: IntArray, labels: IntArray, order: IntArray, *, images_per_class: int) -> IntArray:
    """Images, ascending, so that every class keeps ``images_per_class`` of its own, or all if it has fewer.

    Of the images that hold a class, its first ``images_per_class`` in ``order`` are kept, and the union over classes
    is the result. A frequent class therefore has more images than that in the end: those that a rarer class brought
    along. A larger number keeps all images that a smaller one keeps.

    Args:
        images: (T,) int64; the image of each instance, below N.
        labels: (T,) int64; its class.
        order: (N,) int64; all images, from :func:`random_order`.
        images_per_class: At least 1.
    """
    count = len(order)
    rank = np.empty(count, dtype=np.int64)
    rank[order] = np.arange(count)
    pairs = np.unique(labels * count + rank[images])  # by class, then in random order
    classes = pairs // max(count, 1)
    place_in_class = np.arange(len(pairs)) - np.searchsorted(classes, classes)
    kept: IntArray = np.unique(order[pairs[place_in_class < images_per_class] % max(count, 1)])
    return kept


def ranges(first: IntArray, count: IntArray) -> IntArray:
    """first[0], …, first[0] + count[0] - 1, first[1], … in one array."""
    before = np.cumsum(count) - count
    ranges: IntArray = np.repeat(first - before, count) + np.arange(int(count.sum()))
    return ranges
