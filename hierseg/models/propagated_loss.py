"""A classification loss without a hierarchy, whose parents get their scores after inference: an opponent to measure by.

Shape letters: N RoIs, C classes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, pad

from hierseg.functional.relations import max_at_or_below
from hierseg.functional.softmax_losses import own_logits
from hierseg.models.hierarchical_loss import HierarchicalLoss
from hierseg.registry import MODELS
from hierseg.taxonomy import Taxonomy


@MODELS.register_module()
class PropagatedCrossEntropy(HierarchicalLoss):
    """Cross-entropy of C classes and background, none of which knows of another; parents are propagated at test time.

    In training, Person and Man are two classes like any others, and an object is of the one that it is annotated as. At
    test time, a class scores what the best class at or below it scores, and duplicates are suppressed afterwards. Teams
    of the Open Images Challenge 2019 extended flat detectors like this. It is no scheme of :class:`HierarchicalLoss`:
    all of those leave open what an object with a coarse label is, and this one says that it is nothing finer.

    Args:
        taxonomy: As of :class:`HierarchicalLoss`.
        **options: ``reduction`` and ``loss_weight``, as there.

    Raises:
        TaxonomyError: As there, and its ConfigErrors.
    """

    def __init__(self, taxonomy: Taxonomy | str | Path, **options: Any) -> None:
        # Its outcomes, C classes and background, are those of the flat softmax.
        super().__init__(taxonomy, scheme='flat', **options)

    def get_activation(self, cls_score: Tensor) -> Tensor:
        """(N, C + 1) score of every class, of those at or below it the best, and, last, of background."""
        relations = self.relations_on(cls_score.device)
        with torch.autocast(cls_score.device.type, enabled=False):
            scores = own_logits(cls_score, relations).softmax(dim=1)
            return torch.cat([max_at_or_below(scores[:, :-1], relations), scores[:, -1:]], dim=1)

    def _losses(self, logits: Tensor, *, labels: Tensor, known: Tensor | None) -> Tensor:
        if known is not None:
            counted = pad(known, (0, 1), value=True).scatter(1, labels[:, None], True)
            logits = logits.masked_fill(~counted, float('-inf'))
        return cross_entropy(logits, labels, reduction='none')
