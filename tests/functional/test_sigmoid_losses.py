"""Values derived by hand, on the teddy taxonomy: Toy; Animal > Bear; Teddy under Toy (preferred) and Bear; Car."""

from __future__ import annotations

import math

import pytest
import torch
from taxonomies import BEAR, CAR, TEDDY, TOY, teddy_taxonomy

from hierseg.functional import Relations
from hierseg.functional.sigmoid_losses import (
    ancestor_positive_bce,
    max_below_probabilities,
    max_constraint_bce,
    min_above_probabilities,
    prior_shifted_logits,
    tree_min_bce,
)

BACKGROUND = 5
RELATIONS = Relations.of(teddy_taxonomy().arrays)
LABELS = torch.tensor([TEDDY, BEAR, TOY, CAR, BACKGROUND])
# Odds 1 … 5: sigmoids 1/2, 2/3, 3/4, 4/5, 5/6, and one minus them 1/2, 1/3, 1/4, 1/5, 1/6.
SCORES = torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0]], dtype=torch.float64).log()


def test_ancestor_positive_bce() -> None:
    losses = ancestor_positive_bce(SCORES.expand(5, 5), LABELS, RELATIONS)
    wanted = [
        2 * 3 / 2 * 4 / 3 * 5 / 4 * 6,  # teddy: toy, animal, bear, teddy positive; car negative
        3 / 2 * 4 / 3 * 6,  # bear: animal, bear; car negative; teddy, and with it toy, undecided
        2 * 6,  # toy: toy; car negative; teddy, and with it bear and animal, undecided
        2 * 3 * 4 * 5 * 6 / 5,  # car: positive; all others negative
        2 * 3 * 4 * 5 * 6,  # background: all negative
    ]
    assert losses.exp().tolist() == pytest.approx(wanted)


def test_max_constraint() -> None:
    losses = max_constraint_bce(SCORES.expand(5, 5), LABELS, RELATIONS)
    wanted = [
        (5 / 4) ** 4 * 6,  # teddy's 4/5 lifts toy, animal and bear
        (4 / 3) ** 2 * 6,  # bear's 3/4 lifts animal; teddy, undecided, does not
        2 * 6,  # toy is not lifted by the undecided teddy
        5**4 * 6 / 5,  # teddy's 4/5 is what toy, animal and bear are as bad as
        5**4 * 6,
    ]
    assert losses.exp().tolist() == pytest.approx(wanted)


def test_tree_min() -> None:
    losses = tree_min_bce(SCORES.expand(5, 5), LABELS, RELATIONS)
    wanted = [
        2 * 3 / 2 * 3 / 2 * 2 * 6,  # toy 1/2, animal 2/3, bear as animal 2/3, teddy as toy 1/2
        (3 / 2) ** 2 * 6,  # bear as animal 2/3
        2 * 6,
        5**4 * 6 / 5,
        5**4 * 6,
    ]
    assert losses.exp().tolist() == pytest.approx(wanted)


def test_focal_tree_min() -> None:
    losses = tree_min_bce(SCORES.expand(5, 5), LABELS, RELATIONS, gamma=2)
    # bear: twice 2/3, short of one by 1/3; car by 5/6 wrong. background: four times 4/5, once 5/6.
    bear = 2 * (1 / 3) ** 2 * math.log(3 / 2) + (5 / 6) ** 2 * math.log(6)
    background = 4 * (4 / 5) ** 2 * math.log(5) + (5 / 6) ** 2 * math.log(6)
    assert losses[1].item() == pytest.approx(bear)
    assert losses[4].item() == pytest.approx(background)


@pytest.mark.parametrize('loss', [ancestor_positive_bce, max_constraint_bce, tree_min_bce])
def test_unknown_classes_have_no_weight(loss) -> None:
    # Known: animal alone. The label's own path counts nevertheless.
    known = torch.tensor([[False, True, False, False, False]]).expand(3, 5)
    found = loss(SCORES.expand(3, 5), torch.tensor([BEAR, CAR, BACKGROUND]), RELATIONS, known=known)
    # bear: car is not known, so only animal and bear count. car: itself (6/5) and animal (3), whose unknown
    # descendants do not count for it. background: animal.
    bear = {ancestor_positive_bce: 3 / 2 * 4 / 3, max_constraint_bce: (4 / 3) ** 2, tree_min_bce: (3 / 2) ** 2}[loss]
    assert found.exp().tolist() == pytest.approx([bear, 6 / 5 * 3, 3])


def test_a_head_that_has_learnt_nothing_finds_nothing_likely() -> None:
    assert prior_shifted_logits(torch.zeros(1, 5), RELATIONS).sigmoid().tolist() == [pytest.approx([0.01] * 5)]
    # -65,504 is the least of float16.
    least = torch.full((1, 1), -65504.0, dtype=torch.float16)
    assert prior_shifted_logits(least, RELATIONS).item() == pytest.approx(-65504 - math.log(99), abs=0.01)


def test_probabilities() -> None:
    # Root classes toy 1/2, animal 2/3, car 5/6; background is what the best leaves.
    lowest = min_above_probabilities(SCORES, RELATIONS)[0]
    assert lowest.tolist() == pytest.approx([1 / 2, 2 / 3, 2 / 3, 1 / 2, 5 / 6, 1 / 6])
    highest = max_below_probabilities(SCORES, RELATIONS)[0]
    assert highest.tolist() == pytest.approx([4 / 5, 4 / 5, 4 / 5, 4 / 5, 5 / 6, 1 / 6])
