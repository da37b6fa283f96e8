from __future__ import annotations

import pickle

import pytest
import torch
from taxonomies import ANIMAL, BEAR, CAR, TEDDY, teddy_taxonomy

from hierseg.errors import ConfigError, TaxonomyError
from hierseg.models import HierarchicalLoss
from hierseg.registry import MODELS

SCHEMES = ['path_sum', 'flat']


def logits_and_labels(count: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    logits = torch.randn(count, 6, generator=torch.Generator().manual_seed(0))
    return logits, torch.arange(count) % 6


@pytest.fixture(params=SCHEMES)
def loss(request) -> HierarchicalLoss:
    return HierarchicalLoss(teddy_taxonomy(), scheme=request.param)


def test_answers_the_protocol_of_mmdet_box_heads(loss: HierarchicalLoss) -> None:
    assert loss.custom_cls_channels
    assert loss.custom_activation
    assert loss.custom_accuracy
    assert loss.get_cls_channels(5) == 6
    probabilities = loss.get_activation(logits_and_labels()[0])
    assert probabilities.shape == (12, 6)
    assert (probabilities[:, ANIMAL] >= probabilities[:, BEAR]).all()
    assert (probabilities[:, BEAR] >= probabilities[:, TEDDY]).all()


def test_refuses_a_head_of_another_size(loss: HierarchicalLoss) -> None:
    with pytest.raises(ConfigError, match='num_classes=80 but the taxonomy 5'):
        loss.get_cls_channels(80)


def test_reductions_weights_and_avg_factor(loss: HierarchicalLoss) -> None:
    logits, labels = logits_and_labels()
    each = loss(logits, labels, reduction_override='none')
    assert each.shape == (12,)
    torch.testing.assert_close(loss(logits, labels), each.mean())
    torch.testing.assert_close(loss(logits, labels, reduction_override='sum'), each.sum())
    weights = torch.arange(12).float()
    torch.testing.assert_close(loss(logits, labels, weights, avg_factor=7.0), (each * weights).sum() / 7)
    heavier = HierarchicalLoss(teddy_taxonomy(), scheme=loss.scheme, loss_weight=3.0)
    torch.testing.assert_close(heavier(logits, labels), 3 * each.mean())


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
    logits = torch.zeros(0, 6, requires_grad=True)
    loss(logits, torch.zeros(0, dtype=torch.long), torch.zeros(0), avg_factor=1.0).backward()
    assert logits.grad.shape == (0, 6)
    assert loss.get_accuracy(logits.detach(), torch.zeros(0, dtype=torch.long))['acc'].item() == 0


def test_accuracy_counts_an_outcome_below_the_label() -> None:
    loss = HierarchicalLoss(teddy_taxonomy(), scheme='flat')
    # Chosen outcomes: bear for a label animal (agrees), animal for a label bear (does not), background
    # for background (agrees), car for background (does not).
    logits = torch.nn.functional.one_hot(torch.tensor([BEAR, ANIMAL, 5, CAR]), 6).float() * 9
    accuracy = loss.get_accuracy(logits, torch.tensor([ANIMAL, BEAR, 5, 5]))
    assert accuracy['acc'].item() == pytest.approx(50)
    assert accuracy['acc_classes'].item() == pytest.approx(50)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_mixed_precision_matches_full(loss: HierarchicalLoss, dtype: torch.dtype) -> None:
    logits, labels = logits_and_labels()
    logits = logits.to(dtype)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        found = loss(logits, labels)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, loss(logits.float(), labels))


def test_state_dict_is_empty_so_that_checkpoints_load_with_another_taxonomy_file(loss: HierarchicalLoss) -> None:
    assert loss.state_dict() == {}
    logits, labels = logits_and_labels()
    again = pickle.loads(pickle.dumps(loss))
    torch.testing.assert_close(again(logits, labels), loss(logits, labels))


def test_builds_from_a_config_with_a_taxonomy_file(tmp_path) -> None:
    import json

    file = tmp_path / 'taxonomy.json'
    file.write_text(json.dumps(teddy_taxonomy().to_json()))
    loss = MODELS.build(dict(type='hierseg.HierarchicalLoss', taxonomy=str(file)))
    assert loss.taxonomy == teddy_taxonomy()


def test_clear_errors(tmp_path) -> None:
    with pytest.raises(ConfigError, match='unknown scheme'):
        HierarchicalLoss(teddy_taxonomy(), scheme='tree')  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match='unknown reduction'):
        HierarchicalLoss(teddy_taxonomy(), reduction='max')  # type: ignore[arg-type]
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
