from __future__ import annotations

import pytest
import torch
from mmengine.config import Config, ConfigDict, DictAction
from taxonomies import ANIMAL, BEAR, TEDDY, TOY, teddy_taxonomy

from hierseg.errors import ConfigError
from hierseg.functional import Relations
from hierseg.models.detections import Decision

RELATIONS = Relations.of(teddy_taxonomy().arrays)
#                       toy  animal bear teddy car
SCORES = torch.tensor([[0.3, 0.6, 0.45, 0.2, 0.0]])


@pytest.mark.parametrize(
    ('options', 'named'),
    [
        ({}, BEAR),  # 0.45 is more than half of 0.6
        ({'threshold': 0.8}, ANIMAL),
        ({'relative': False}, ANIMAL),
        ({'threshold': 0.2}, TEDDY),
        ({'rule': 'leaf'}, TEDDY),
        # Masses: toy 0.1, animal 0.15, bear 0.25, teddy 0.2. Bear costs 0.1 × 3 + 0.15 + 0.2 = 0.65,
        # teddy 0.1 + 0.15 × 2 + 0.25 = 0.65: equally far, and bear is more probable.
        ({'rule': 'distance'}, BEAR),
    ],
)
def test_rules(options: dict[str, object], named: int) -> None:
    assert Decision.of(ConfigDict(decision=options), RELATIONS)(SCORES).item() == named


def test_the_default_is_the_rule_of_the_config_file() -> None:
    config = Config.fromfile('configs/_base_/models/hier_mask_rcnn_r50_fpn.py')
    for test_cfg in (config.model.test_cfg.rcnn, None, {}):
        decision = Decision.of(test_cfg, RELATIONS)
        assert (decision.rule, decision.threshold, decision.relative) == ('back_off', 0.5, True)


def test_the_command_line_chooses() -> None:
    config = Config.fromfile('configs/_base_/models/hier_mask_rcnn_r50_fpn.py')
    key = 'model.test_cfg.rcnn.decision'
    values = {'rule': 'distance', 'threshold': '0.62', 'relative': 'False'}
    config.merge_from_dict({f'{key}.{name}': DictAction._parse_iterable(value) for name, value in values.items()})
    decision = Decision.of(config.model.test_cfg.rcnn, RELATIONS)
    assert (decision.rule, decision.threshold, decision.relative) == ('distance', 0.62, False)


@pytest.mark.parametrize('rule', ['back_off', 'leaf', 'distance'])
def test_a_checkpoint_fits_whatever_the_rule(rule: str) -> None:
    assert not Decision(RELATIONS, rule=rule).state_dict()


@pytest.mark.parametrize(
    ('test_cfg', 'message'),
    [
        ({'decision': {'rule': 'best'}}, r"rule='best'.*back_off, leaf, distance"),
        ({'decision': {'threshold': 0}}, r'threshold=0,.*threshold in \(0, 1\]'),
        ({'decision': {'threshold': 1.5}}, 'threshold=1.5'),
        ({'decision': {'threshold': '0.5'}}, "threshold='0.5'"),
        ({'decision': {'relative': 'no'}}, "relative='no'"),
        ({'decision': {'treshold': 0.5}}, 'unknown option treshold'),
        ({'decision': 'leaf'}, 'unknown option leaf.*decision=dict'),
        ({'decision_thr': 0.5}, 'unknown option decision_thr.*decision=dict'),
    ],
)
def test_clear_errors(test_cfg: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Decision.of(ConfigDict(test_cfg), RELATIONS)


def test_equally_far_from_both_parents() -> None:
    # Only toy and teddy are claimed: the branch of animal was suppressed on this box.
    assert Decision(RELATIONS, rule='distance')(torch.tensor([[0.9, 0.0, 0.0, 0.3, 0.0]])).item() == TOY
