"""The class of a detection to name, by a rule that a config chooses, apart from training.

Shape letters: M detections, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from hierseg.errors import ConfigError
from hierseg.functional.decisions import RULES
from hierseg.functional.relations import Relations


class Decision(nn.Module):
    """Names a class of each detection by one of the rules in ``hierseg.functional.decisions.RULES``.

    - ``back_off``: the deepest class with enough of its root class's probability, or enough probability;
    - ``leaf``: the most probable leaf;
    - ``distance``: the class with the least expected distance to the truth, in edges.

    Args:
        relations: Of the taxonomy.
        rule: One of them.
        threshold: How much is enough, in (0, 1]. Of the three, only ``back_off`` reads it and the next.
        relative: Whether ``threshold`` is a part of the root class's probability.

    Raises:
        ConfigError: On an unknown rule, or a threshold out of range.
    """

    def __init__(
        self, relations: Relations, *, rule: str = 'back_off', threshold: float = 0.5, relative: bool = True
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
        # No buffers: they follow from the taxonomy, so a checkpoint fits whatever the rule.
        self._relations = relations

    @classmethod
    def of(cls, test_cfg: Mapping[str, Any] | None, relations: Relations) -> Decision:
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
        return cls(relations, **options)

    def forward(self, class_scores: Tensor) -> Tensor:
        """The class to name.

        Args:
            class_scores: (M, C) probabilities, zero for classes that a detection does not claim.

        Returns:
            (M,) int64 labels.
        """
        self._relations = self._relations.to(class_scores.device)
        rule = RULES[self.rule]
        return rule.choose(class_scores, self._relations, **{name: getattr(self, name) for name in rule.options})
