"""What all detectors share: suppression per root class, and the class to name."""

from __future__ import annotations

import copy

import pytest
import torch
from mmengine.config import Config, ConfigDict, DictAction
from taxonomies import ANIMAL, BEAR, CAR, TEDDY, TOY, teddy_taxonomy

from hierseg.errors import ConfigError
from hierseg.functional import Relations
from hierseg.models import HierarchicalLoss
from hierseg.models.detections import Decision, Detections, suppress_per_root

RELATIONS = Relations.of(teddy_taxonomy().arrays)
NMS = dict(type='nms', iou_threshold=0.5)


def suppress(boxes: list[list[float]], probabilities: list[list[float]], threshold: float = 0.05) -> torch.Tensor:
    return suppress_per_root(
        torch.tensor(boxes),
        torch.tensor(probabilities),
        RELATIONS,
        score_threshold=threshold,
        nms=NMS,
    )


def test_one_body_gives_one_detection_with_its_path() -> None:
    # Two boxes of IoU 0.9: animal 0.9 > bear 0.7, and animal 0.8 > bear 0.75. One survives, whole.
    found = suppress(
        [[0.0, 0, 100, 100], [0, 0, 100, 90]],
        [[0.0, 0.9, 0.7, 0.0, 0.0], [0.0, 0.8, 0.75, 0.0, 0.0]],
    )
    torch.testing.assert_close(found, torch.tensor([[0.0, 0.9, 0.7, 0.0, 0.0], [0.0] * 5]))


def test_branches_do_not_suppress_each_other() -> None:
    found = suppress([[0.0, 0, 100, 100], [0, 0, 100, 90]], [[0.0, 0.9, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 0.8]])
    assert found[0, ANIMAL] > 0
    assert found[1, CAR] > 0


def test_a_class_with_two_parents_survives_by_either() -> None:
    # Box 0 is the best toy, box 1 the best animal; teddy is below both and stays on both.
    found = suppress(
        [[0.0, 0, 100, 100], [0, 0, 100, 90]],
        [[0.9, 0.3, 0.3, 0.3, 0.0], [0.5, 0.6, 0.6, 0.5, 0.0]],
    )
    expected = torch.tensor([[0.9, 0.0, 0.0, 0.3, 0.0], [0.0, 0.6, 0.6, 0.5, 0.0]])
    torch.testing.assert_close(found, expected)


def test_scores_at_or_below_the_threshold_claim_nothing() -> None:
    found = suppress([[0.0, 0, 10, 10]], [[0.2, 0.1, 0.04, 0.05, 0.01]])
    torch.testing.assert_close(found, torch.tensor([[0.2, 0.1, 0.0, 0.0, 0.0]]))
    assert suppress([[0.0, 0, 10, 10]], [[0.01] * 5]).sum() == 0


def test_without_candidates_nothing_is_found() -> None:
    found = suppress_per_root(torch.zeros(0, 4), torch.zeros(0, 5), RELATIONS, score_threshold=0.05, nms=NMS)
    assert found.shape == (0, 5)


BOXES = torch.tensor([[0.0, 0, 10, 10], [50, 50, 60, 60], [0, 0, 10, 9], [80, 0, 90, 10]])
PROBABILITIES = torch.tensor(
    [[0.0, 0.6, 0.45, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 0.9], [0.0, 0.5, 0.1, 0.0, 0.0], [0.02, 0.0, 0.0, 0.0, 0.0]]
)


def detections(**options: object) -> tuple[Detections, ConfigDict]:
    test_cfg = ConfigDict({'score_thr': 0.05, 'nms': NMS, 'max_per_img': 10, **options})
    return Detections(HierarchicalLoss(teddy_taxonomy()), test_cfg, where='test_cfg'), test_cfg


def test_detections_are_the_best_first_each_with_its_candidate() -> None:
    find, test_cfg = detections()
    # The third lies on the first, and of the last no class is probable enough.
    found, rows = find(BOXES, PROBABILITIES, test_cfg)
    assert rows.tolist() == [1, 0]
    assert torch.equal(found.bboxes, BOXES[[1, 0]])
    assert found.labels.tolist() == [CAR, BEAR]
    torch.testing.assert_close(found.scores, torch.tensor([0.9, 0.45]))
    torch.testing.assert_close(found.class_scores, PROBABILITIES[[1, 0]])
    assert found.paths == [('Car',), ('Animal', 'Bear')]


@pytest.mark.parametrize(('most', 'expected'), [(0, []), (1, [1]), (2, [1, 0]), (-1, [1, 0])])
def test_at_most_max_per_img(most: int, expected: list[int]) -> None:
    find, test_cfg = detections(max_per_img=most)
    assert find(BOXES, PROBABILITIES, test_cfg)[1].tolist() == expected


@pytest.mark.parametrize('count', [0, 4])
def test_nothing_found_has_the_form_of_something(count: int) -> None:
    find, test_cfg = detections(score_thr=1.0)
    found, rows = find(BOXES[:count], PROBABILITIES[:count], test_cfg)
    assert rows.shape == (0,)
    assert found.bboxes.shape == (0, 4)
    assert found.class_scores.shape == (0, 5)
    assert found.labels.dtype == rows.dtype == torch.long
    assert found.scores.shape == (0,)
    assert found.paths == []


def test_a_head_keeps_its_loss_once() -> None:
    """Neither a checkpoint nor a copy has a second one."""
    loss = HierarchicalLoss(teddy_taxonomy(), balance=dict(type='seesaw'))
    head = torch.nn.ModuleDict({'loss': loss, 'detections': Detections(loss, {}, where='test_cfg')})
    assert list(head.state_dict()) == ['loss.balance.seesaw.class_counts']
    copied = copy.deepcopy(head)
    assert copied['detections']._loss[0] is copied['loss']
    assert copied['loss'] is not loss


def test_a_loss_without_a_taxonomy_is_refused() -> None:
    with pytest.raises(ConfigError, match=r'loss_cls is a CrossEntropyLoss.*hierseg\.HierarchicalLoss'):
        Detections(torch.nn.CrossEntropyLoss(), {}, where='test_cfg')


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
