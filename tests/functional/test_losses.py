from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from taxonomies import ANIMAL, TEDDY, random_taxonomies, teddy_taxonomy

from hierseg.functional import marginal_negative_log_likelihood, padded_descendants
from hierseg.taxonomy import Taxonomy


def test_hand_derived_values() -> None:
    # Outcome masses toy 1, animal 2, bear 3, teddy 4, car 5, background 6 of 21.
    outcomes = torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]], dtype=torch.float64).log().expand(3, 6)
    descendants = padded_descendants(teddy_taxonomy().arrays)
    losses = marginal_negative_log_likelihood(outcomes, torch.tensor([ANIMAL, TEDDY, 5]), descendants)
    # animal: 2 + 3 + 4 = 9 of 21; teddy: 4 of 21; background: 6 of 21.
    assert losses.tolist() == pytest.approx([math.log(21 / 9), math.log(21 / 4), math.log(21 / 6)])


def test_unknown_classes_leave_the_normaliser() -> None:
    outcomes = torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]], dtype=torch.float64).log().expand(3, 6)
    descendants = padded_descendants(teddy_taxonomy().arrays)
    # Toy and teddy (masses 1 and 4) are not known.
    known = torch.tensor([[False, True, True, False, True]]).expand(3, 5)
    losses = marginal_negative_log_likelihood(outcomes, torch.tensor([ANIMAL, TEDDY, 5]), descendants, known=known)
    # animal: 9 of 21 - 1, for teddy is below it; teddy: 4 of 21 - 1; background: 6 of 21 - 1 - 4.
    assert losses.tolist() == pytest.approx([math.log(20 / 9), math.log(20 / 4), math.log(16 / 6)])


@given(random_taxonomies(), st.integers(0, 2**31))
def test_equals_enumeration_of_the_outcomes(taxonomy: Taxonomy, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    count = taxonomy.num_classes
    logits = torch.randn(count + 1, count + 1, generator=generator, dtype=torch.float64) * 5
    losses = marginal_negative_log_likelihood(logits, torch.arange(count + 1), padded_descendants(taxonomy.arrays))
    mass = logits.softmax(dim=1)
    for label in range(count):
        below = [label, *taxonomy.descendants(label)]
        assert losses[label].item() == pytest.approx(-mass[label, below].sum().log().item(), abs=1e-9)
    assert losses[count].item() == pytest.approx(-mass[count, count].log().item(), abs=1e-9)


def test_is_cross_entropy_on_a_flat_taxonomy() -> None:
    flat = Taxonomy.from_edges(['a', 'b', 'c'], [])
    logits = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(20) % 4
    expected = torch.nn.functional.cross_entropy(logits, labels, reduction='none')
    found = marginal_negative_log_likelihood(logits, labels, padded_descendants(flat.arrays))
    torch.testing.assert_close(found, expected)


def test_gradient() -> None:
    logits = torch.randn(6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64, requires_grad=True)
    descendants = padded_descendants(teddy_taxonomy().arrays)
    assert torch.autograd.gradcheck(
        lambda x: marginal_negative_log_likelihood(x, torch.arange(6), descendants), (logits,)
    )


def test_extreme_logits_stay_finite() -> None:
    logits = torch.tensor([[1e4, -1e4, -1e4, -1e4, -1e4, 0.0]], requires_grad=True)
    descendants = padded_descendants(teddy_taxonomy().arrays)
    loss = marginal_negative_log_likelihood(logits, torch.tensor([ANIMAL]), descendants)
    loss.sum().backward()
    assert loss.item() == pytest.approx(2e4, rel=1e-3)
    assert torch.isfinite(logits.grad).all()
