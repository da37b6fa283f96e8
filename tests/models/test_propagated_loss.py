"""The loss of a flat detector whose parents are propagated after inference."""

from __future__ import annotations

import pytest
import torch
from taxonomies import ANIMAL, BEAR, CAR, TEDDY, teddy_taxonomy
from torch.nn.functional import cross_entropy

from hierseg.errors import ConfigError
from hierseg.models import PropagatedCrossEntropy
from hierseg.models.verified import pass_known_classes
from hierseg.registry import MODELS

BACKGROUND = 5


@pytest.fixture
def loss() -> PropagatedCrossEntropy:
    return PropagatedCrossEntropy(teddy_taxonomy())


def logits_of(probabilities: dict[int, float]) -> torch.Tensor:
    """(1, 6) logits of a softmax with these masses."""
    assert sum(probabilities.values()) == pytest.approx(1)
    logits = torch.full((1, 6), -1e4, dtype=torch.float64)
    logits[0, [*probabilities]] = torch.tensor([*probabilities.values()], dtype=torch.float64).log()
    return logits


def test_knows_no_hierarchy_in_training(loss):
    logits = torch.randn(12, 6, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(12) % 6
    torch.testing.assert_close(loss(logits, labels), cross_entropy(logits, labels))
    # A coarse label says that the object is nothing finer: the gradient presses what is below down.
    logits = torch.zeros(1, 6, requires_grad=True)
    loss(logits, torch.tensor([ANIMAL])).backward()
    assert logits.grad[0, BEAR] == pytest.approx(1 / 6)


def test_a_class_scores_what_the_best_below_it_does(loss):
    found = loss.get_activation(logits_of({ANIMAL: 0.2, BEAR: 0.3, TEDDY: 0.1, CAR: 0.15, BACKGROUND: 0.25}))[0]
    # A marginal softmax would give the animal 0.6.
    assert found[[ANIMAL, BEAR, TEDDY, CAR, BACKGROUND]].tolist() == pytest.approx([0.3, 0.3, 0.1, 0.15, 0.25])


def test_what_is_not_known_leaves_the_normaliser_but_for_the_label(loss):
    logits = torch.zeros(2, 6)
    known = torch.zeros(2, 5, dtype=torch.bool)
    known[:, CAR] = True
    # Bear, car and background are left, or car and background.
    with pass_known_classes(loss, known):
        found = loss(logits, torch.tensor([BEAR, BACKGROUND]), reduction_override='none')
    torch.testing.assert_close(found, torch.tensor([3.0, 2.0]).log())


def test_half_precision_and_no_boxes(loss):
    found = loss.get_activation(torch.full((2, 6), 200.0, dtype=torch.float16))
    assert found.dtype == torch.float32
    assert found.isfinite().all()
    empty = torch.zeros(0, 6, requires_grad=True)
    loss(empty, torch.zeros(0, dtype=torch.long), avg_factor=1).backward()


def test_configs_name_it_and_it_has_one_form():
    made = MODELS.build(dict(type='hierseg.PropagatedCrossEntropy', taxonomy=teddy_taxonomy(), loss_weight=2.0))
    labels = torch.tensor([CAR])
    assert made(torch.zeros(1, 6), labels).item() == pytest.approx(2 * torch.tensor(6.0).log().item())
    with pytest.raises(ConfigError, match='unknown reduction'):
        PropagatedCrossEntropy(teddy_taxonomy(), reduction='max')
    with pytest.raises(TypeError, match='scheme'):
        PropagatedCrossEntropy(teddy_taxonomy(), scheme='path_sum')
