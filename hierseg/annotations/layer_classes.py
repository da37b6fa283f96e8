"""Which classes a layer of the two-layer ensemble has, and what becomes of the others.

Shape letters: C classes of the taxonomy, K classes of the layer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hierseg.annotations.records import BoolArray, IntArray
from hierseg.errors import ConfigError
from hierseg.taxonomy import Taxonomy, TaxonomyArrays


@dataclass(frozen=True, eq=False)
class LayerClasses:
    """The classes of a layer.

    Attributes:
        taxonomy: The K classes without edges, in the label order of the full taxonomy.
        labels: (K,) int64; their labels in the full taxonomy.
        layer_labels: (C,) int64; full label → label in the layer, -1 for classes that are dropped.
        painted: (C,) bool; classes of which boxes are painted grey.
        arrays: The full taxonomy.
    """

    taxonomy: Taxonomy
    labels: IntArray
    layer_labels: IntArray
    painted: BoolArray
    arrays: TaxonomyArrays

    @classmethod
    def of(cls, taxonomy: Taxonomy, layer: int) -> LayerClasses:
        """The classes of layer 0 (root classes) or 1 (all deeper ones).

        Raises:
            ConfigError: If ``layer`` is neither, or if the taxonomy has no class in that layer.
        """
        if layer not in (0, 1):
            raise ConfigError(f'layer={layer!r}', fix='Layers are 0, the root classes, and 1, all deeper classes.')
        labels = np.array(taxonomy.deeper_classes if layer else taxonomy.root_classes, dtype=np.int64)
        if len(labels) == 0:
            raise ConfigError(
                f'none of the {taxonomy.num_classes} classes has a parent, so there is no layer 1',
                fix='Name the hierarchy where the data set is converted.',
            )
        positions = np.full(taxonomy.num_classes, -1, dtype=np.int64)
        positions[labels] = np.arange(len(labels))
        arrays = taxonomy.arrays
        return cls(
            taxonomy=Taxonomy(
                tuple(taxonomy.ids[label] for label in labels),
                tuple(taxonomy.names[label] for label in labels),
                ((),) * len(labels),
            ),
            labels=labels,
            layer_labels=positions if layer else positions[arrays.preferred_roots],
            painted=~arrays.is_leaf & (positions < 0) if layer else np.zeros(len(positions), dtype=bool),
            arrays=arrays,
        )

    def implied_absent(self, absent: IntArray) -> IntArray:
        """Labels of the layer that classes verified as absent tell to be absent, themselves and all below, ascending.

        Args:
            absent: (N,) int64; labels of the full taxonomy.
        """
        below = np.concatenate([self.labels[:0], *map(self.arrays.below, absent)])
        return np.flatnonzero(np.isin(self.labels, below))
