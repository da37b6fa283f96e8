"""Image-level labels of COCO data sets, which do not come with any.

COCO is annotated exhaustively: what is not annotated on an image is not there. So the classes of an
image's annotations are verified as present, and every other category as absent, with two exceptions
that a hierarchy brings: a class above a present one is not absent (a dog is an animal), and a class below a
present one is unknown (an animal may be a dog). Classes above categories, such as supercategories, follow
from their categories and are treated alike; other classes of the taxonomy were not looked for, and stay
unverified. An image that lists ``neg_category_ids`` (as in LVIS), and perhaps ``pos_category_ids``,
is not exhaustive: its lists are taken instead.

Shape letter: C classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hierseg.annotations.records import IntArray
from hierseg.taxonomy import Taxonomy


class ExhaustiveLabels:
    """The verified labels that follow from exhaustive annotation.

    Args:
        taxonomy: The classes.
        category_labels: Labels of the classes that were annotated.
    """

    def __init__(self, taxonomy: Taxonomy, category_labels: Sequence[int]) -> None:
        self._ancestor_mask = taxonomy.arrays.ancestor_mask
        self._looked_for = self._ancestor_mask[list(category_labels)].any(axis=0)

    def __call__(self, labels: IntArray) -> tuple[IntArray, IntArray]:
        """Labels present and absent, ascending, on an image with instances of the given labels."""
        present = np.unique(labels)
        if len(present) == 0:
            return present, np.flatnonzero(self._looked_for)
        related = self._ancestor_mask[present].any(axis=0) | self._ancestor_mask[:, present].any(axis=1)
        return present, np.flatnonzero(self._looked_for & ~related)
