"""Values derived by hand, on the teddy taxonomy: Toy; Animal > Bear; Teddy under Toy (preferred) and Bear; Car."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from taxonomies import ANIMAL, BEAR, CAR, TEDDY, TOY, teddy_taxonomy

from hierseg.functional import Relations
from hierseg.functional.balance import (
    equalization_offsets,
    expanded_counts,
    gradient_ratio_factors,
    log_prior_offsets,
    seesaw_offsets,
)

BACKGROUND = 5
RELATIONS = Relations.of(teddy_taxonomy().arrays)


def test_one_of_a_class_is_one_of_each_ancestor() -> None:
    labels = torch.tensor([TEDDY, TEDDY, BEAR, TOY, BACKGROUND, CAR])
    weights = torch.tensor([1.0, 1, 1, 1, 1, 0])
    # toy 2 teddies + 1; animal 2 teddies + 1 bear; bear the same; the car and background do not count.
    assert expanded_counts(labels, weights, RELATIONS).tolist() == [3, 3, 3, 2, 0]


def test_mitigation_spares_rarer_classes() -> None:
    counts = torch.tensor([100.0, 50, 10, 5, 0])
    labels = torch.tensor([ANIMAL, CAR, TOY, BACKGROUND])
    offsets = seesaw_offsets(torch.full((4, 6), 0.3), labels, counts, RELATIONS, p=0.5, q=2)
    # animal (50) may be a teddy and so bear or toy; against car, whose count of 0 counts as 1: (1 / 50)^0.5.
    assert offsets[0].tolist() == pytest.approx([0, 0, 0, 0, 0.5 * math.log(1 / 50), 0])
    # car is the rarest: nobody is spared. toy (100): only car is no possible class of it.
    assert offsets[1].tolist() == [0] * 6
    assert offsets[2].tolist() == pytest.approx([0, 0, 0, 0, 0.5 * math.log(1 / 100), 0])
    assert offsets[3].tolist() == [0] * 6


def test_compensation_presses_on_what_the_model_prefers() -> None:
    probabilities = torch.tensor([[0.6, 0.4, 0.3, 0.2, 0.1, 0.05]]).expand(2, 6)
    counts = torch.ones(5)
    offsets = seesaw_offsets(probabilities, torch.tensor([CAR, BEAR]), counts, RELATIONS, p=0.8, q=2)
    # car at 0.1: toy is six times as probable, animal four times, and so on; background is left alone.
    assert offsets[0].tolist() == pytest.approx([2 * math.log(r) for r in (6, 4, 3, 2, 1)] + [0], abs=1e-6)
    # bear: car, the one negative, is less probable.
    assert offsets[1].tolist() == [0] * 6


def test_compensation_of_an_unlikely_label_is_bounded() -> None:
    probabilities = torch.tensor([[0.5, 0, 0, 0, 1e-6, 0.5]])
    offsets = seesaw_offsets(probabilities, torch.tensor([CAR]), torch.ones(5), RELATIONS, p=0, q=1)
    # 0.5 against 0.01, not against a millionth; what is impossible is not pressed on.
    assert offsets[0].tolist() == pytest.approx([math.log(50), 0, 0, 0, 0, 0])


def test_log_priors() -> None:
    one_group = torch.zeros(3, dtype=torch.long)
    # Shares 1/2, 1/4, 1/4; tau 1: log of 3 times the share.
    found = log_prior_offsets(torch.tensor([20.0, 10, 10]), one_group, tau=1)
    assert found.tolist() == pytest.approx([math.log(1.5), math.log(0.75), math.log(0.75)])
    # tau 2: squares 1/4, 1/16, 1/16, times the sum of the inverses 2 + 4 + 4.
    found = log_prior_offsets(torch.tensor([20.0, 10, 10]), one_group, tau=2)
    assert found.exp().tolist() == pytest.approx([10 / 4, 10 / 16, 10 / 16])
    # Two groups; a class alone in its group has no rival. A count of zero counts as one: shares 1/4 and 3/4.
    found = log_prior_offsets(torch.tensor([0.0, 7, 3]), torch.tensor([0, 1, 0]), tau=1)
    assert found.exp().tolist() == pytest.approx([2 / 4, 1, 6 / 4])


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=20), st.floats(0, 2))
def test_the_prior_without_offsets_keeps_its_mass(counts: list[int], tau: float) -> None:
    # What the offsets take from the score of each class at test time leaves objects as probable as they were.
    groups = torch.zeros(len(counts), dtype=torch.long)
    offsets = log_prior_offsets(torch.tensor(counts), groups, tau=tau).double()
    shares = torch.tensor(counts, dtype=torch.float64) / sum(counts)
    assert (shares * (-offsets).exp()).sum().item() == pytest.approx(1, rel=1e-4)
    if len(set(counts)) == 1 or tau == 0:
        torch.testing.assert_close(offsets, torch.zeros_like(offsets), atol=1e-5, rtol=0)


def test_gradient_factors() -> None:
    # Nothing yet; ratio 0.8 (the middle); 0; and a class that nothing has lowered.
    positive, negative = torch.tensor([0.0, 8, 0, 5]), torch.tensor([0.0, 10, 10, 0])
    raising, lowering = gradient_ratio_factors(positive, negative, gamma=12, mu=0.8, alpha=4)
    low = 1 / (1 + math.exp(12 * 0.8))
    assert lowering.tolist() == pytest.approx([1, 0.5, low, 1])
    assert raising.tolist() == pytest.approx([1, 3, 1 + 4 * (1 - low), 1])


def test_equalization_spares_wrong_classes_alone() -> None:
    lowering = torch.tensor([0.5, 0.25, 1, 0.001, 0])
    labels = torch.tensor([CAR, BEAR, TOY, BACKGROUND])
    offsets = equalization_offsets(lowering, labels, RELATIONS)
    # a car is nothing else; teddy, at a thousandth, counts for a hundredth.
    assert offsets[0].tolist() == pytest.approx([math.log(1 / 2), math.log(1 / 4), 0, math.log(1 / 100), 0, 0])
    # a bear is an animal and may be a teddy and so a toy; car, at 0, counts for a hundredth, and so with toy.
    assert offsets[1].tolist() == pytest.approx([0, 0, 0, 0, math.log(1 / 100), 0])
    assert offsets[2].tolist() == pytest.approx([0, 0, 0, 0, math.log(1 / 100), 0])
    assert offsets[3].tolist() == [0] * 6
