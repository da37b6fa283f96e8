"""Which class of a detection to name: a rule that a config chooses, apart from training.

Shape letters: M detections, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hierseg.errors import ConfigError
from hierseg.functional import (
    deepest_confident_class,
    inclusion_matrix,
    least_expected_distance,
    most_probable_leaf,
)
from hierseg.taxonomy import TaxonomyArrays

RULES = ('back_off', 'leaf', 'distance')


class Decision(nn.Module):
    """Names a class of each detection by one of three rules, see ``hierseg.functional.decisions``.

    - ``back_off``: the deepest class with enough of its root class's probability, or enough probability;
    - ``leaf``: the most probable leaf;
    - ``distance``: the class with the least expected distance to the truth, in edges.

    Args:
        arrays: The taxonomy.
        rule: One of them.
        threshold: How much is enough, in (0, 1]. Only ``back_off`` reads it and the next.
        relative: Whether ``threshold`` is a part of the root class's probability.

    Raises:
        ConfigError: On an unknown rule, or a threshold out of range.
    """

    def __init__(
        self, arrays: TaxonomyArrays, *, rule: str = 'back_off', threshold: float = 0.5, relative: bool = True
    ) -> None:
        super().__init__()
        is_number = isinstance(threshold, (int, float)) and not isinstance(threshold, bool)
        if rule not in RULES or not is_number or not 0 < threshold <= 1 or not isinstance(relative, bool):
            raise ConfigError(
                f'rule={rule!r}, threshold={threshold!r}, relative={relative!r}',
                where='test_cfg.rcnn.decision',
                fix=f'Use one of the rules {", ".join(RULES)}, a threshold in (0, 1], and relative=True or False.',
            )
        self.rule, self.threshold, self.relative = rule, threshold, relative
        # Not persistent: they follow from the taxonomy, so a checkpoint fits whatever the rule.
        self.register_buffer('ancestor_mask', torch.from_numpy(arrays.ancestor_mask.copy()), persistent=False)
        self.register_buffer('depths', torch.from_numpy(arrays.depths.copy()), persistent=False)
        if rule == 'distance':
            self.register_buffer('distances', torch.from_numpy(arrays.distances.copy()).float(), persistent=False)
            self.register_buffer('inclusion', inclusion_matrix(arrays), persistent=False)

    @classmethod
    def of(cls, test_cfg: Mapping[str, Any] | None, arrays: TaxonomyArrays) -> Decision:
        """The rule that ``test_cfg`` of the R-CNN stage has under ``decision``; the default without.

        Raises:
            ConfigError: On an option that is unknown or out of range.
        """
        settings = test_cfg or {}
        options = settings.get('decision', {})
        unknown = set(options) - {'rule', 'threshold', 'relative'} if isinstance(options, Mapping) else {str(options)}
        if unknown or 'decision_thr' in settings:
            raise ConfigError(
                f'unknown option {", ".join(sorted(unknown)) or "decision_thr"}',
                where='test_cfg.rcnn.decision' if unknown else 'test_cfg.rcnn',
                fix="Write decision=dict(rule='back_off', threshold=0.5, relative=True).",
            )
        return cls(arrays, **options)

    def forward(self, class_scores: Tensor) -> Tensor:
        """The class to name.

        Args:
            class_scores: (M, C) probabilities, zero for classes that a detection does not claim.

        Returns:
            (M,) int64 labels.
        """
        if self.rule == 'leaf':
            return most_probable_leaf(class_scores, self.ancestor_mask)
        if self.rule == 'distance':
            return least_expected_distance(class_scores, self.distances, self.inclusion)
        return deepest_confident_class(
            class_scores, self.ancestor_mask, self.depths, threshold=self.threshold, relative=self.relative
        )
