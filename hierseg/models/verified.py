"""The classes known on an image: where nobody looked for a class, a box without it says nothing about it.

Shape letters: B images, C classes, K labels of one image, N RoIs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet.structures import DetDataSample
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from hierseg.errors import ConfigError
from hierseg.formats import BoolArray, IntArray
from hierseg.store import Store
from hierseg.store.frequency import count_classes
from hierseg.taxonomy import Taxonomy, TaxonomyArrays
from hierseg.taxonomy.graph import require_same_taxonomy

WHERE = 'verified'


class KnownClasses:
    """The classes that count on each image of a batch; all others leave the normaliser of the loss there.

    Known are those of :func:`known_classes`, where annotated instances count as verified present, and
    ``num_negatives`` of the others, drawn anew for each image and kept as negatives: they may be there, but
    rarely are, and without them a class would hardly ever be told from background. A class is drawn with a weight
    of (images that have it)^``power``, ancestors included; one that no image has is drawn as if one had. Source: the
    federated loss of Zhou, Koltun & Krähenbühl, "Probabilistic two-stage detection", 2021, which draws with the
    square root until 50 classes count, once for the whole batch.

    Classes of which not every instance is annotated, and those above them, are neither known nor drawn.

    It draws from torch's generator on the CPU, whatever the device, so that a resumed run draws the same.

    Args:
        taxonomy: The classes.
        class_counts: Store of the training data, or (C,) counts of images. A store is opened when it is first
            needed, which in testing is never.
        num_negatives: Classes to draw for each image; all that are left where there are fewer.
        power: 0 draws uniformly, 1 in proportion to the counts.

    Raises:
        ConfigError: On an option out of range, counts for other classes, or, when called, images without verified
            labels.
    """

    def __init__(
        self,
        taxonomy: Taxonomy,
        *,
        class_counts: str | Path | Sequence[int],
        num_negatives: int = 50,
        power: float = 0.5,
    ) -> None:
        if num_negatives < 0:
            raise ConfigError(f'num_negatives={num_negatives}', where=WHERE, fix='Draw 0 or more classes.')
        if not 0 <= power < math.inf:
            raise ConfigError(f'power={power}', where=WHERE, fix='Use 0 or more.')
        if not isinstance(class_counts, str | Path) and (
            len(class_counts) != taxonomy.num_classes or min(class_counts) < 0
        ):
            raise ConfigError(
                f'class_counts are {len(class_counts)} numbers, {taxonomy.num_classes} of 0 or more expected',
                where=WHERE,
                fix='Name the store of the training data.',
            )
        self.taxonomy, self.class_counts = taxonomy, class_counts
        self.num_negatives, self.power = num_negatives, power

    @cached_property
    def weights(self) -> Tensor:
        """(C,) float64, above zero; how likely a class is drawn compared to others."""
        counts: Any = self.class_counts
        if isinstance(counts, str | Path):
            store = Store.open(counts)
            require_same_taxonomy(store.taxonomy, self.taxonomy, where=f'{WHERE}, the loss against {store.path}')
            counts = count_classes(store).images
        return torch.as_tensor(np.maximum(counts, 1), dtype=torch.float64) ** self.power

    def __call__(self, samples: Sequence[DetDataSample]) -> Tensor:
        """(B, C) bool on the CPU; which classes count on the images of a batch.

        Samples have ``verified_positive`` and ``verified_negative``, (K,) int64 labels as released, and perhaps
        ``not_exhaustive``.
        """
        open_on = np.stack([self._open_on(sample) for sample in samples])
        known = torch.from_numpy(np.stack([self._known_on(sample) for sample in samples]) & ~open_on)
        return known | weighted_draw(self.weights, ~known & torch.from_numpy(~open_on), self.num_negatives)

    def _open_on(self, sample: DetDataSample) -> BoolArray:
        """(C,) bool; classes of which not every instance is annotated, and those above them."""
        found: BoolArray = np.zeros(self.taxonomy.num_classes, dtype=bool)
        labels = np.asarray(sample.get('not_exhaustive', ()), dtype=np.int64)
        found[self.taxonomy.arrays.all_above(labels)] = True
        return found

    def _known_on(self, sample: DetDataSample) -> BoolArray:
        positive, negative = sample.get('verified_positive'), sample.get('verified_negative')
        if positive is None or negative is None:
            raise ConfigError(
                f'image {sample.get("img_id")} comes without verified labels',
                where=WHERE,
                fix="Put 'img_id', 'verified_positive' and 'verified_negative' into the meta_keys of PackDetInputs; "
                'where everything is annotated on every image, leave the option verified out.',
            )
        # Group-of boxes are among the ignored instances: what they hold is there.
        annotated = [getattr(sample, name).labels for name in ('gt_instances', 'ignored_instances') if name in sample]
        present = np.concatenate([positive, *(labels.cpu().numpy() for labels in annotated)])
        return known_classes(present, negative, self.taxonomy.arrays)


def known_classes(positive: IntArray, negative: IntArray, arrays: TaxonomyArrays) -> BoolArray:
    """(C,) bool; classes whose presence on one image follows from what was verified there.

    An ancestor of a present class is present, a descendant of an absent one is absent; by any path where there are
    several parents. What is said to be absent and follows to be present is present: whoever verified Bear saw
    more than whoever denied Animal. Of the other animals nothing is known then.

    ``positive`` and ``negative`` are (K,) labels present and absent, in any order, repeated or not.
    """
    known: BoolArray = np.zeros(len(arrays.depths), dtype=bool)
    for label in np.unique(positive):
        known[arrays.above(label)] = True
    for label in negative[~known[negative]]:
        known[arrays.below(label)] = True
    return known


def weighted_draw(weights: Tensor, candidates: Tensor, count: int) -> Tensor:
    """Draws classes for each image without putting them back, one after the other in proportion to their weights.

    Source: Efraimidis & Spirakis, "Weighted random sampling with a reservoir", 2006: those with the smallest
    exponential variables of rate w are such a draw. ``weights`` are (C,) above zero, ``candidates`` (B, C) bool and so
    is what is drawn: ``count`` classes, or all candidates where there are fewer.
    """
    arrivals = torch.empty(candidates.shape, dtype=weights.dtype).exponential_() / weights
    arrivals = arrivals.masked_fill(~candidates, math.inf)
    first = arrivals.topk(min(count, candidates.shape[1]), dim=1, largest=False).indices
    return torch.zeros_like(candidates).scatter(1, first, True) & candidates


def pass_known_classes(loss: nn.Module, known: Tensor) -> RemovableHandle:
    """Gives a loss the classes that count, for as long as the result is open as a context.

    mmdet's heads call their loss without a place for it, and every one of them does. ``known`` are (N, C) bool for N
    logits, or (B, C) where each of B images has as many logits as the others, which follow each other.
    """

    def insert(_: nn.Module, arguments: Any, named: Any) -> tuple[Any, dict[str, Any]]:
        rows = len(arguments[0]) // max(len(known), 1)
        return arguments, {**named, 'known': known if rows == 1 else known.repeat_interleave(rows, dim=0)}

    return loss.register_forward_pre_hook(insert, with_kwargs=True)
