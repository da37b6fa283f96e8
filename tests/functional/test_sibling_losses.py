"""Values derived by hand, on the tree Toy; Animal > Bear, Teddy; Car."""

from __future__ import annotations

import math

import pytest
import torch
from taxonomies import ANIMAL, BEAR, TEDDY, tree_taxonomy

from hierseg.functional import (
    Relations,
    conditional_cross_entropy,
    path_product_probabilities,
    sibling_log_softmax,
)

BACKGROUND = 5
RELATIONS = Relations.of(tree_taxonomy())
# e^score: toy 1, animal 2, car 5, background 6 are siblings (14); bear 3, teddy 4 are siblings (7).
SCORES = torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]], dtype=torch.float64).log()


def test_conditional_cross_entropy() -> None:
    labels = torch.tensor([BEAR, TEDDY, ANIMAL, BACKGROUND])
    losses = conditional_cross_entropy(SCORES.expand(4, 6), labels, RELATIONS)
    # bear: animal 2 of 14, then bear 3 of 7; the coarse animal stops after the first step.
    assert losses.exp().tolist() == pytest.approx([14 / 2 * 7 / 3, 14 / 2 * 7 / 4, 14 / 2, 14 / 6])


def test_unknown_classes_leave_their_group() -> None:
    known = torch.tensor([[True, False, False, False, False]]).expand(3, 5)
    losses = conditional_cross_entropy(SCORES.expand(3, 6), torch.tensor([BEAR, 4, BACKGROUND]), RELATIONS, known=known)
    # bear: of 1 + 2 + 6 without car; teddy leaves it alone in its group. car: of 1 + 5 + 6. background: of 1 + 6.
    assert losses.exp().tolist() == pytest.approx([9 / 2, 12 / 5, 7 / 6])


def test_path_product_probabilities() -> None:
    found = path_product_probabilities(SCORES, RELATIONS)[0]
    wanted = [1 / 14, 2 / 14, 2 / 14 * 3 / 7, 2 / 14 * 4 / 7, 5 / 14, 6 / 14]
    assert found.tolist() == pytest.approx(wanted)


def test_groups_of_very_different_scores_lose_nothing() -> None:
    scores = torch.tensor([[1e4, 1e4, -1e4, -1e4, 1e4, 1e4]])
    found = sibling_log_softmax(scores, RELATIONS)[0].exp()
    assert found.tolist() == pytest.approx([0.25, 0.25, 0.5, 0.5, 0.25, 0.25])
    assert math.isfinite(sibling_log_softmax(scores * torch.tensor([1, -1, 1, -1, 1, 1]), RELATIONS).sum())
