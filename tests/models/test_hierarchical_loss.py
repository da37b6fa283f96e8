"""One battery over all schemes, through mmdet's protocol; what each computes is tested in tests/functional."""

from __future__ import annotations

import copy
import inspect
import json
import pickle
import re
from pathlib import Path

import pytest
import torch
from mmdet.models.roi_heads import Shared2FCBBoxHead
from taxonomies import ANIMAL, BEAR, CAR, TEDDY, teddy_taxonomy, tree_taxonomy

from hierseg.errors import ConfigError, TaxonomyError
from hierseg.functional import SCHEMES
from hierseg.models import HierarchicalLoss
from hierseg.registry import MODELS

PAGE = Path(__file__).parents[2] / 'docs' / 'losses.md'


def build(scheme: str, **options) -> HierarchicalLoss:
    taxonomy = tree_taxonomy() if SCHEMES[scheme].trees_only else teddy_taxonomy()
    return HierarchicalLoss(taxonomy, scheme=scheme, **options)


def logits_and_labels(loss: HierarchicalLoss, count: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, loss.get_cls_channels(5), generator=generator), torch.arange(count) % 6


@pytest.fixture(params=SCHEMES)
def loss(request) -> HierarchicalLoss:
    return build(request.param)


def test_answers_the_protocol_of_mmdet_box_heads(loss: HierarchicalLoss) -> None:
    assert loss.custom_cls_channels
    assert loss.custom_activation
    assert loss.custom_accuracy
    assert loss.get_cls_channels(5) == (5 if loss.scheme in ('sigmoid', 'mcm', 'tree_min', 'tree_min_focal') else 6)
    probabilities = loss.get_activation(logits_and_labels(loss)[0])
    assert probabilities.shape == (12, 6)
    assert (probabilities[:, ANIMAL] >= probabilities[:, BEAR]).all()
    assert (probabilities[:, ANIMAL] >= probabilities[:, TEDDY]).all()


def test_trains_and_tests_in_a_box_head(loss: HierarchicalLoss) -> None:
    torch.manual_seed(0)
    head = Shared2FCBBoxHead(
        in_channels=2, fc_out_channels=8, roi_feat_size=2, num_classes=5, reg_class_agnostic=True,
        loss_cls=dict(type='hierseg.HierarchicalLoss', taxonomy=loss.taxonomy, scheme=loss.scheme),
    )  # fmt: skip
    cls_score, bbox_pred = head(torch.randn(6, 2, 2, 2))
    rois = torch.tensor([[0.0, 0, 0, 10, 10]]).repeat(6, 1)
    targets = torch.zeros(6, 4)
    losses = head.loss(cls_score, bbox_pred, rois, torch.arange(6), torch.ones(6), targets, targets)
    assert losses.keys() == {'loss_cls', 'loss_bbox', 'acc', 'acc_classes'}
    torch.testing.assert_close(losses['loss_cls'], loss(cls_score, torch.arange(6)))
    losses['loss_cls'].backward()
    assert head.fc_cls.weight.grad.abs().sum() > 0
    meta = dict(img_shape=(10, 10), scale_factor=(1, 1))
    (found,) = head.predict_by_feat((rois,), (cls_score.detach(),), (bbox_pred.detach(),), [meta])
    torch.testing.assert_close(found.scores, loss.get_activation(cls_score.detach()))


def test_refuses_a_head_of_another_size(loss: HierarchicalLoss) -> None:
    with pytest.raises(ConfigError, match='num_classes=80 but the taxonomy 5'):
        loss.get_cls_channels(80)


def test_reductions_weights_and_avg_factor(loss: HierarchicalLoss) -> None:
    logits, labels = logits_and_labels(loss)
    each = loss(logits, labels, reduction_override='none')
    assert each.shape == (12,)
    torch.testing.assert_close(loss(logits, labels), each.mean())
    torch.testing.assert_close(loss(logits, labels, reduction_override='sum'), each.sum())
    weights = torch.arange(12).float()
    torch.testing.assert_close(loss(logits, labels, weights, avg_factor=7.0), (each * weights).sum() / 7)
    torch.testing.assert_close(build(loss.scheme, loss_weight=3.0)(logits, labels), 3 * each.mean())
    torch.testing.assert_close(build(loss.scheme, reduction='sum')(logits, labels), each.sum())


def test_takes_the_verified_classes(loss: HierarchicalLoss) -> None:
    logits, labels = logits_and_labels(loss)
    logits[:, CAR] += 6
    known = torch.ones(12, 5, dtype=torch.bool)
    torch.testing.assert_close(loss(logits, labels, known=known), loss(logits, labels))
    known[:, CAR] = False
    fewer = loss(logits, labels, reduction_override='none', known=known)
    # Car costs nothing where it is not the label; where it is, everything else is as it was.
    every = loss(logits, labels, reduction_override='none')
    assert (fewer[labels != CAR] < every[labels != CAR]).all()
    torch.testing.assert_close(fewer[labels == CAR], every[labels == CAR])


def test_path_sum_and_flat_differ_where_there_are_ancestors() -> None:
    # θ all zero but animal 1: path-sum lifts bear and teddy as well, flat lifts animal alone.
    logits = torch.zeros(1, 6)
    logits[0, ANIMAL] = 1
    e = torch.e
    path_sum = HierarchicalLoss(teddy_taxonomy()).get_activation(logits)[0]
    flat = HierarchicalLoss(teddy_taxonomy(), scheme='flat').get_activation(logits)[0]
    # path-sum outcome masses: toy 1, animal e, bear e, teddy e, car 1, background 1.
    assert path_sum[BEAR].item() == pytest.approx(2 * e / (3 + 3 * e), rel=1e-5)
    assert flat[BEAR].item() == pytest.approx(2 / (5 + e), rel=1e-5)


def test_an_empty_batch_back_propagates(loss: HierarchicalLoss) -> None:
    logits = torch.zeros(0, loss.get_cls_channels(5), requires_grad=True)
    labels = torch.zeros(0, dtype=torch.long)
    known = torch.zeros(0, 5, dtype=torch.bool)
    for mask in (None, known):
        loss(logits, labels, torch.zeros(0), avg_factor=1.0, known=mask).backward()
    assert logits.grad.shape == logits.shape
    assert loss.get_accuracy(logits.detach(), labels)['acc'].item() == 0
    assert loss.get_activation(logits.detach()).shape == (0, 6)


def test_accuracy_counts_an_outcome_below_the_label() -> None:
    loss = HierarchicalLoss(teddy_taxonomy(), scheme='flat')
    # Chosen outcomes: bear for a label animal (agrees), animal for a label bear (does not), background
    # for background (agrees), car for background (does not).
    logits = torch.nn.functional.one_hot(torch.tensor([BEAR, ANIMAL, 5, CAR]), 6).float() * 9
    accuracy = loss.get_accuracy(logits, torch.tensor([ANIMAL, BEAR, 5, 5]))
    assert accuracy['acc'].item() == pytest.approx(50)
    assert accuracy['acc_classes'].item() == pytest.approx(50)


def test_accuracy_without_outcomes_looks_at_leaves() -> None:
    loss = HierarchicalLoss(teddy_taxonomy(), scheme='sigmoid')
    # Animal and all above teddy: teddy, which is below animal and bear but no car. Nothing: background.
    teddy = [9.0, 9.0, 9.0, 9.0, -9.0]
    logits = torch.tensor([teddy, teddy, teddy, [0.0] * 5, [0.0] * 5])
    accuracy = loss.get_accuracy(logits, torch.tensor([ANIMAL, BEAR, CAR, 5, CAR]))
    assert accuracy['acc'].item() == pytest.approx(60)
    assert accuracy['acc_classes'].item() == pytest.approx(50)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_mixed_precision_matches_full(loss: HierarchicalLoss, dtype: torch.dtype) -> None:
    logits, labels = logits_and_labels(loss)
    logits = logits.to(dtype).requires_grad_()
    full = logits.detach().float().requires_grad_()
    with torch.autocast('cpu', dtype=dtype):
        found = loss(logits, labels)
        probabilities = loss.get_activation(logits.detach())
        accuracy = loss.get_accuracy(logits.detach(), labels)
    assert found.dtype == probabilities.dtype == torch.float32
    expected = loss(full, labels)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(probabilities, loss.get_activation(full.detach()))
    assert accuracy == loss.get_accuracy(full.detach(), labels)
    found.backward()
    expected.backward()
    torch.testing.assert_close(logits.grad, full.grad.to(dtype))


def test_state_dict_is_empty_so_that_checkpoints_load_with_another_taxonomy_file(loss: HierarchicalLoss) -> None:
    assert loss.state_dict() == {}
    build(loss.scheme).load_state_dict(loss.state_dict())
    logits, labels = logits_and_labels(loss)
    for again in (pickle.loads(pickle.dumps(loss)), copy.deepcopy(loss)):
        torch.testing.assert_close(again(logits, labels), loss(logits, labels))


def test_does_not_change_what_it_is_given(loss: HierarchicalLoss) -> None:
    logits, labels = logits_and_labels(loss)
    known = torch.rand(12, 5) < 0.5
    given = [tensor.clone() for tensor in (logits, labels, known)]
    loss(logits, labels, known=known)
    loss.get_activation(logits)
    loss.get_accuracy(logits, labels)
    assert all(before.equal(after) for before, after in zip(given, (logits, labels, known), strict=True))


def test_takes_the_options_of_its_scheme() -> None:
    logits, labels = logits_and_labels(build('margin'))
    torch.testing.assert_close(build('margin', options=dict(tau=0))(logits, labels), build('flat')(logits, labels))
    assert build('margin')(logits, labels) > build('margin', options=dict(tau=1))(logits, labels)


@pytest.mark.parametrize('line', re.findall(r'^(?:model = .*)?loss_cls=(dict\(.*)$', PAGE.read_text(), re.MULTILINE))
def test_config_lines_of_the_page_build(line: str) -> None:
    # One line is that of a whole model, whose dicts close behind it.
    options = eval(line.removesuffix(')))') if line.endswith(')))))') else line)
    loss = MODELS.build(dict(type='hierseg.HierarchicalLoss', taxonomy=teddy_taxonomy(), **options))
    assert loss.scheme == options.get('scheme', 'path_sum')
    assert bool(loss.balance) == ('balance' in options)


def test_all_schemes_are_documented() -> None:
    page = PAGE.read_text()
    for name, scheme in SCHEMES.items():
        assert f'`{name}`' in page
        assert inspect.getdoc(scheme.losses)
        for option, value in scheme.options.items():
            assert f'`{option}`, {value:g} by default' in page


def test_builds_from_a_config_with_a_taxonomy_file(tmp_path) -> None:
    file = tmp_path / 'taxonomy.json'
    file.write_text(json.dumps(teddy_taxonomy().to_json()))
    loss = MODELS.build(dict(type='hierseg.HierarchicalLoss', taxonomy=str(file)))
    assert loss.taxonomy == teddy_taxonomy()


def test_clear_errors(tmp_path) -> None:
    with pytest.raises(ConfigError, match='unknown scheme'):
        HierarchicalLoss(teddy_taxonomy(), scheme='tree')
    with pytest.raises(ConfigError, match='unknown reduction'):
        HierarchicalLoss(teddy_taxonomy(), reduction='max')  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="no option 'tau'"):
        HierarchicalLoss(teddy_taxonomy(), options=dict(tau=1))
    with pytest.raises(TaxonomyError, match='several parents: Teddy'):
        HierarchicalLoss(teddy_taxonomy(), scheme='conditional')
    with pytest.raises(TaxonomyError, match=r'missing\.json'):
        HierarchicalLoss(tmp_path / 'missing.json')


def test_learns_the_hierarchy_from_coarse_labels() -> None:
    """Labels at Animal alone must raise Animal's probability without preferring a child."""
    loss = HierarchicalLoss(teddy_taxonomy())
    logits = torch.zeros(1, 6, requires_grad=True)
    optimiser = torch.optim.SGD([logits], lr=0.5)
    for _ in range(200):
        optimiser.zero_grad()
        loss(logits, torch.tensor([ANIMAL])).backward()
        optimiser.step()
    probabilities = loss.get_activation(logits.detach())[0]
    assert probabilities[ANIMAL].item() > 0.95
