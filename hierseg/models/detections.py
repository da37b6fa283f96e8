"""From boxes and the probabilities of all classes to detections: what all hierarchical detectors share.

One physical instance is one detection, whatever found it: duplicates are suppressed per root class, and one rule names
a class.

Shape letters: N candidates of an image (RoIs, points or anchors), C classes, R root classes, M detections.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from mmcv.ops import batched_nms
from mmengine.structures import InstanceData
from torch import Tensor, nn

from hierseg.errors import ConfigError
from hierseg.functional.decisions import RULES
from hierseg.functional.relations import Relations
from hierseg.models.hierarchical_loss import HierarchicalLoss


class Detections(nn.Module):
    """Makes detections of the candidates of an image.

    Args:
        loss: The head's ``loss_cls``.
        test_cfg: The head's; its ``decision`` has the arguments of :class:`Decision`.
        where: Place of ``test_cfg`` in a config, for errors.

    Raises:
        ConfigError: If the loss has no taxonomy, or there is no such rule.
    """

    def __init__(self, loss: nn.Module, test_cfg: Mapping[str, Any] | None, *, where: str) -> None:
        super().__init__()
        if not isinstance(loss, HierarchicalLoss):
            raise ConfigError(
                f'loss_cls is a {type(loss).__name__}', where='bbox_head', fix="Use type='hierseg.HierarchicalLoss'."
            )
        # In a list, or its state would be a checkpoint's twice.
        self._loss = [loss]
        self.decision = Decision.of(test_cfg, loss.relations_on(torch.device('cpu')), where=where)

    def forward(self, boxes: Tensor, probabilities: Tensor, test_cfg: Any) -> tuple[InstanceData, Tensor]:
        """Suppresses per root class, keeps the best and names a class of each.

        Args:
            boxes: (N, 4) xyxy, pixels.
            probabilities: (N, C), background left out.
            test_cfg: mmdet's ``score_thr``, ``nms`` and ``max_per_img``; below zero: all.

        Returns:
            ``bboxes`` (M, 4), ``labels`` (M,), the classes to name, ``scores`` (M,), their probabilities, and
            ``class_scores`` (M, C), the probability of every class that a detection claims and zero for the others,
            and ``paths``, M tuples of the names from the root class to the class named; and the (M,) rows of the
            candidates, the best first.
        """
        relations = self._loss[0].relations_on(boxes.device)
        class_scores = suppress_per_root(
            boxes, probabilities, relations, score_threshold=test_cfg.score_thr, nms=test_cfg.nms
        )
        best = class_scores.amax(dim=1)
        most = test_cfg.max_per_img if test_cfg.max_per_img >= 0 else None
        order = best.argsort(descending=True, stable=True)[:most]
        order = order[best[order] > 0]
        class_scores = class_scores[order]
        labels = self.decision(class_scores)
        found = InstanceData(
            bboxes=boxes[order],
            labels=labels,
            scores=class_scores.gather(1, labels[:, None]).squeeze(1),
            class_scores=class_scores,
            paths=[self._loss[0].taxonomy.named_paths[label] for label in labels.tolist()],
        )
        return found, order


class Decision(nn.Module):
    """Names a class of each detection by one of the rules in ``hierseg.functional.decisions.RULES``.

    Args:
        relations: Of the taxonomy.
        rule: ``back_off`` to the deepest class that is probable enough, the most probable ``leaf``, or the class with
            the least expected ``distance`` to the truth.
        threshold: How much is enough, in (0, 1]. Of the three, only ``back_off`` reads it and the next.
        relative: Whether ``threshold`` is a part of the root class's probability.
        where: Place of the test configuration that has it in a config of a model.

    Raises:
        ConfigError: On an unknown rule, or a threshold out of range.
    """

    def __init__(
        self,
        relations: Relations,
        *,
        rule: str = 'back_off',
        threshold: float = 0.5,
        relative: bool = True,
        where: str = 'test_cfg',
    ) -> None:
        super().__init__()
        is_number = isinstance(threshold, (int, float)) and not isinstance(threshold, bool)
        if rule not in RULES or not is_number or not 0 < threshold <= 1 or not isinstance(relative, bool):
            raise ConfigError(
                f'rule={rule!r}, threshold={threshold!r}, relative={relative!r}',
                where=f'{where}.decision',
                fix=f'Use one of the rules {", ".join(RULES)}, a threshold in (0, 1], and relative=True or False.',
            )
        self.rule, self.threshold, self.relative, self.where = rule, threshold, relative, where
        # No buffers: they follow from the taxonomy, so a checkpoint fits whatever the rule.
        self._relations = relations

    @classmethod
    def of(cls, test_cfg: Mapping[str, Any] | None, relations: Relations, *, where: str = 'test_cfg') -> Decision:
        """The rule that a head's ``test_cfg`` has under ``decision``; the default without.

        Raises:
            ConfigError: On an option that is unknown or out of range.
        """
        settings = test_cfg or {}
        options = settings.get('decision', {})
        unknown = set(options) - {'rule', 'threshold', 'relative'} if isinstance(options, Mapping) else {str(options)}
        if unknown or 'decision_thr' in settings:
            raise ConfigError(
                f'unknown option {", ".join(sorted(unknown)) or "decision_thr"}',
                where=f'{where}.decision' if unknown else where,
                fix="Write decision=dict(rule='back_off', threshold=0.5, relative=True).",
            )
        return cls(relations, **options, where=where)

    def forward(self, class_scores: Tensor) -> Tensor:
        """(M,) int64 classes to name of (M, C) probabilities, zero for classes that a detection does not claim."""
        self._relations = self._relations.to(class_scores.device)
        rule = RULES[self.rule]
        return rule.choose(class_scores, self._relations, **{name: getattr(self, name) for name in rule.options})


def suppress_per_root(
    boxes: Tensor, probabilities: Tensor, relations: Relations, *, score_threshold: float, nms: dict[str, Any]
) -> Tensor:
    """Non-maximum suppression among the boxes of each root class.

    Suppressing per class would let Person and Man on one body survive as two instances, and would keep
    Man on one box and Woman on its neighbour; per root class, one box speaks for the whole branch.

    Args:
        boxes: (N, 4) xyxy, pixels.
        probabilities: (N, C), background left out.
        relations: Of the taxonomy.
        score_threshold: Probabilities at or below it claim nothing.
        nms: Arguments of ``mmcv.ops.batched_nms``.

    Returns:
        (N, C) probabilities, zero where the class claims nothing or the box was suppressed in all of its branches.
    """
    root_probabilities = probabilities.index_select(1, relations.root_classes)
    rows, roots = torch.nonzero(root_probabilities > score_threshold, as_tuple=True)
    survives = torch.zeros_like(root_probabilities, dtype=torch.bool)
    if len(rows):
        _, keep = batched_nms(boxes[rows], root_probabilities[rows, roots].contiguous(), roots, nms)
        survives[rows[keep], roots[keep]] = True
    classes, places = relations.root_pairs
    claimed = torch.zeros_like(probabilities).index_add_(1, classes, survives.to(probabilities).index_select(1, places))
    return probabilities * ((claimed > 0) & (probabilities > score_threshold))
