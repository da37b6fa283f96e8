"""Values derived by hand, on the teddy taxonomy: Toy; Animal > Bear; Teddy under Toy (preferred) and Bear; Car."""

from __future__ import annotations

import math

import pytest
import torch
from taxonomies import ANIMAL, BEAR, CAR, TEDDY, TOY, teddy_taxonomy

from hierseg.functional import (
    Relations,
    hierarchical_cross_entropy,
    marginal_negative_log_likelihood,
    soft_label_cross_entropy,
    soft_max_margin,
)

BACKGROUND = 5
RELATIONS = Relations.of(teddy_taxonomy())


def scores(rows: int) -> torch.Tensor:
    """Outcome masses toy 1, animal 2, bear 3, teddy 4, car 5, background 6 of 21."""
    return torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]], dtype=torch.float64).log().expand(rows, 6)


def knowing(rows: int, *labels: int) -> torch.Tensor:
    known = torch.zeros(rows, 5, dtype=torch.bool)
    known[:, list(labels)] = True
    return known


def test_marginal_likelihood() -> None:
    losses = marginal_negative_log_likelihood(scores(3), torch.tensor([ANIMAL, TEDDY, BACKGROUND]), RELATIONS)
    # animal: 2 + 3 + 4 = 9 of 21; teddy: 4 of 21; background: 6 of 21.
    assert losses.tolist() == pytest.approx([math.log(21 / 9), math.log(21 / 4), math.log(21 / 6)])


def test_unknown_classes_leave_the_normaliser() -> None:
    labels = torch.tensor([ANIMAL, TEDDY, BACKGROUND])
    # Toy and teddy (masses 1 and 4) are not known.
    losses = marginal_negative_log_likelihood(scores(3), labels, RELATIONS, known=knowing(3, ANIMAL, BEAR, CAR))
    # animal: 9 of 21 - 1, for teddy is below it; teddy: 4 of 21 - 1; background: 6 of 21 - 1 - 4.
    assert losses.tolist() == pytest.approx([math.log(20 / 9), math.log(20 / 4), math.log(16 / 6)])


def test_margin() -> None:
    labels = torch.tensor([BEAR, TEDDY, TOY, CAR, BACKGROUND])
    losses = soft_max_margin(scores(5), labels, RELATIONS, tau=math.log(10))
    # bear, teddy and toy spare toy, animal, bear and teddy (10); car and background (11) weigh ten times: 120 in
    # all, of which the label and its descendants hold 7, 4 and 5. car: 5 + 10 * 16 = 165, of which 5. background:
    # 6 + 10 * 15 = 156, of which 6.
    wanted = [120 / 7, 120 / 4, 120 / 5, 165 / 5, 156 / 6]
    assert losses.exp().tolist() == pytest.approx(wanted)


def test_soft_labels() -> None:
    labels = torch.tensor([TEDDY, ANIMAL, BACKGROUND])
    # The largest distance is 3 (bear to car, by the virtual root), and e^(-beta / 3) is a half.
    losses = soft_label_cross_entropy(scores(3), labels, RELATIONS, beta=3 * math.log(2))
    # teddy: 1 itself, 1/2 toy and bear, 1/4 animal (two up), 1/8 car (by toy: up, up, down); 2.375 in all.
    teddy = math.log(4) + (math.log(1) + math.log(3)) / 2 + math.log(2) / 4 + math.log(5) / 8
    # animal: 1 for animal, bear and teddy together (9), 1/4 toy and car (up to the virtual root and down).
    animal = math.log(9) + (math.log(1) + math.log(5)) / 4
    wanted = [math.log(21) - teddy / 2.375, math.log(21) - animal / 1.5, math.log(21 / 6)]
    assert losses.tolist() == pytest.approx(wanted)


def test_soft_labels_share_with_known_classes_alone() -> None:
    losses = soft_label_cross_entropy(
        scores(1), torch.tensor([ANIMAL]), RELATIONS, known=knowing(1, CAR), beta=3 * math.log(2)
    )
    # Toy leaves the normaliser (21 - 1) and the target.
    assert losses.item() == pytest.approx(math.log(20) - (math.log(9) + math.log(5) / 4) / 1.25)


def test_hierarchical_cross_entropy() -> None:
    labels = torch.tensor([TEDDY, BEAR, ANIMAL, BACKGROUND])
    losses = hierarchical_cross_entropy(scores(4), labels, RELATIONS, alpha=math.log(2))
    wanted = [
        # toy (1 + 4 of 21), then teddy (4 of 5) at half the weight: the preferred path.
        math.log(21 / 5) + math.log(5 / 4) / 2,
        # animal (9 of 21), then bear (3 + 4 of 9) at half the weight.
        math.log(21 / 9) + math.log(9 / 7) / 2,
        math.log(21 / 9),
        math.log(21 / 6),
    ]
    assert losses.tolist() == pytest.approx(wanted)
