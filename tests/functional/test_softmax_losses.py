"""Values derived by hand, on the teddy taxonomy: Toy; Animal > Bear; Teddy under Toy (preferred) and Bear; Car.

Those of the softmax among siblings are on the tree Toy; Animal > Bear, Teddy; Car.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from plain_schemes import at_or_above, at_or_below
from taxonomies import ANIMAL, BEAR, CAR, TEDDY, TOY, random_taxonomies, teddy_taxonomy, tree_taxonomy

from hierseg.functional import Relations
from hierseg.functional.softmax_losses import (
    class_probabilities,
    conditional_cross_entropy,
    hierarchical_cross_entropy,
    marginal_negative_log_likelihood,
    path_product_probabilities,
    path_sum_logits,
    path_sum_negative_log_likelihood,
    sibling_log_softmax,
    soft_label_cross_entropy,
    soft_max_margin,
)
from hierseg.taxonomy import Taxonomy

BACKGROUND = 5
RELATIONS = Relations.of(teddy_taxonomy().arrays)


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


def plain_path_sum_losses(
    logits: torch.Tensor, labels: torch.Tensor, taxonomy: Taxonomy, known: torch.Tensor | None
) -> torch.Tensor:
    """The formula in operations that autograd knows."""
    classes = range(taxonomy.num_classes + 1)
    sums = torch.stack([logits[:, sorted(at_or_above(taxonomy, v))].sum(dim=1) for v in classes], dim=1)
    losses = []
    for row, label in zip(range(len(labels)), labels.tolist(), strict=True):
        below = sorted(at_or_below(taxonomy, label))
        counted = [v for v in classes if known is None or v == classes[-1] or v in below or known[row, v]]
        losses.append(sums[row, counted].logsumexp(dim=0) - sums[row, below].logsumexp(dim=0))
    return torch.stack(losses)


@given(random_taxonomies(), st.integers(0, 2**31), st.booleans())
def test_path_sum_in_one_step_has_the_gradient_of_its_formula(taxonomy: Taxonomy, seed: int, verified: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    count = taxonomy.num_classes
    labels = torch.randint(0, count + 1, (8,), generator=generator)
    logits = (3 * torch.randn(8, count + 1, generator=generator, dtype=torch.float64)).requires_grad_()
    factors = torch.rand(8, generator=generator, dtype=torch.float64)
    known = torch.rand(8, count, generator=generator) < 0.5 if verified else None
    relations = Relations.of(taxonomy.arrays)

    def gradient(losses: torch.Tensor) -> torch.Tensor:
        return torch.autograd.grad((losses * factors).sum(), logits)[0]

    expected = plain_path_sum_losses(logits, labels, taxonomy, known)
    found = path_sum_negative_log_likelihood(logits, labels, relations, known=known)
    sums = path_sum_logits(logits, relations)
    in_two_steps = marginal_negative_log_likelihood(sums, labels, relations, known=known)
    torch.testing.assert_close(found, expected)
    wanted = gradient(expected)
    torch.testing.assert_close(gradient(found), wanted)
    torch.testing.assert_close(gradient(in_two_steps), wanted)


@pytest.mark.parametrize('loss', [marginal_negative_log_likelihood, path_sum_negative_log_likelihood])
def test_a_kept_graph_gives_its_gradient_again(loss) -> None:
    logits = torch.randn(6, 6, generator=torch.Generator().manual_seed(0), requires_grad=True)
    before = logits.detach().clone()
    losses = loss(logits, torch.arange(6), RELATIONS, known=knowing(6, ANIMAL, CAR))
    # The loss overwrites what it made itself: neither the logits nor a gradient that it has given away.
    first = torch.autograd.grad(losses.sum(), logits, retain_graph=True)[0]
    kept = first.clone()
    assert torch.autograd.grad(losses.sum(), logits, retain_graph=True)[0].equal(kept)
    assert torch.autograd.grad(3 * losses.sum(), logits)[0].allclose(3 * kept)
    assert first.equal(kept)
    assert logits.detach().equal(before)


def test_a_small_loss_is_not_lost_in_large_scores() -> None:
    # Float32 has steps of 0.002 at 30,000.
    scores = torch.full((2, 6), -1e4)
    scores[:, BACKGROUND] = 29990.0
    scores[0, CAR] = scores[1, ANIMAL] = 30000.0
    losses = marginal_negative_log_likelihood(scores, torch.tensor([CAR, ANIMAL]), RELATIONS)
    assert losses.tolist() == pytest.approx([math.log1p(math.exp(-10))] * 2, rel=1e-2)


def test_path_sum_in_one_step_raises_half_precision() -> None:
    # 60,000 + 60,000 overflows float16; the sum along the path must not.
    logits = torch.full((1, 6), 60000.0, dtype=torch.float16, requires_grad=True)
    losses = path_sum_negative_log_likelihood(logits, torch.tensor([BACKGROUND]), RELATIONS)
    # The teddy has four logits, background one.
    assert losses.dtype == torch.float32
    assert losses.item() == pytest.approx(3 * logits[0, 0].item())
    losses.sum().backward()
    assert logits.grad.tolist() == [[1, 1, 1, 1, 0, -1]]


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


def test_path_sum_adds_every_ancestor_once() -> None:
    # θ: toy 1, animal 2, bear 3, teddy 4, car 5, background 6.
    # bear = 3 + animal 2; teddy = 4 + toy 1 + bear 3 + animal 2, animal once although two steps away.
    logits = torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]])
    assert path_sum_logits(logits, Relations.of(teddy_taxonomy().arrays)).tolist() == [[1.0, 2.0, 5.0, 10.0, 5.0, 6.0]]


def test_class_probability_is_the_mass_at_or_below() -> None:
    # Outcome masses 1 : 2 : 3 : 4 : 5 : 6 of 21. animal holds animal + bear + teddy, toy holds toy + teddy.
    outcomes = torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]], dtype=torch.float64).log()
    probabilities = class_probabilities(outcomes, Relations.of(teddy_taxonomy().arrays))[0]
    assert probabilities[TOY].item() == pytest.approx(5 / 21)
    assert probabilities[ANIMAL].item() == pytest.approx(9 / 21)
    assert probabilities[BEAR].item() == pytest.approx(7 / 21)
    assert probabilities[TEDDY].item() == pytest.approx(4 / 21)
    assert probabilities[CAR].item() == pytest.approx(5 / 21)
    assert probabilities[-1].item() == pytest.approx(6 / 21)


@given(random_taxonomies(), st.integers(0, 2**31))
def test_laws_of_probabilities(taxonomy: Taxonomy, seed: int) -> None:
    logits = torch.randn(
        4, taxonomy.num_classes + 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    relations = Relations.of(taxonomy.arrays)
    outcomes = path_sum_logits(logits, relations)
    probabilities = class_probabilities(outcomes, relations)

    # Brute force by walking the graph.
    for label in range(taxonomy.num_classes):
        expected = logits[:, [label, *taxonomy.ancestors(label)]].sum(dim=1)
        torch.testing.assert_close(outcomes[:, label], expected)
        mass = outcomes.softmax(dim=1)[:, [label, *taxonomy.descendants(label)]].sum(dim=1)
        torch.testing.assert_close(probabilities[:, label], mass)

    # p(parent) ≥ p(child), and the root classes of a tree share what background leaves.
    child, parent = relations.ancestor_pairs
    assert (probabilities[:, parent] >= probabilities[:, child] - 1e-12).all()
    if all(len(parents) < 2 for parents in taxonomy.parents):
        roots = probabilities[:, list(taxonomy.root_classes)].sum(dim=1)
        torch.testing.assert_close(roots + probabilities[:, -1], torch.ones(4, dtype=torch.float64))


@given(random_taxonomies(), st.randoms(use_true_random=False))
def test_renumbering_classes_permutes_the_result(taxonomy: Taxonomy, random) -> None:
    order = list(range(taxonomy.num_classes))
    random.shuffle(order)
    edges = [(taxonomy.ids[c], taxonomy.ids[p]) for c, parents in enumerate(taxonomy.parents) for p in parents]
    renumbered = Taxonomy.from_edges([taxonomy.ids[label] for label in order], edges)
    columns = [*order, taxonomy.num_classes]
    logits = torch.from_numpy(np.random.default_rng(0).normal(size=(3, taxonomy.num_classes + 1)))

    before, after = (
        class_probabilities(path_sum_logits(values, relations), relations)
        for values, relations in (
            (logits, Relations.of(taxonomy.arrays)),
            (logits[:, columns], Relations.of(renumbered.arrays)),
        )
    )
    torch.testing.assert_close(after, before[:, columns])


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_is_raised_before_summing(dtype: torch.dtype) -> None:
    # 60,000 + 60,000 overflows float16; the sum along the path must not.
    chain = Taxonomy.from_edges(['a', 'b'], [('b', 'a')])
    outcomes = path_sum_logits(torch.tensor([[60000.0, 60000.0, 0.0]]).to(dtype), Relations.of(chain.arrays))
    assert outcomes.dtype == torch.float32
    assert math.isfinite(outcomes[0, 1].item())


TREE = Relations.of(tree_taxonomy().arrays)
# e^score: toy 1, animal 2, car 5, background 6 are siblings (14); bear 3, teddy 4 are siblings (7).
TREE_SCORES = torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]], dtype=torch.float64).log()


def test_conditional_cross_entropy() -> None:
    labels = torch.tensor([BEAR, TEDDY, ANIMAL, BACKGROUND])
    losses = conditional_cross_entropy(TREE_SCORES.expand(4, 6), labels, TREE)
    # bear: animal 2 of 14, then bear 3 of 7; the coarse animal stops after the first step.
    assert losses.exp().tolist() == pytest.approx([14 / 2 * 7 / 3, 14 / 2 * 7 / 4, 14 / 2, 14 / 6])


def test_unknown_classes_leave_their_group() -> None:
    known = torch.tensor([[True, False, False, False, False]]).expand(3, 5)
    losses = conditional_cross_entropy(TREE_SCORES.expand(3, 6), torch.tensor([BEAR, 4, BACKGROUND]), TREE, known=known)
    # bear: of 1 + 2 + 6 without car; teddy leaves it alone in its group. car: of 1 + 5 + 6. background: of 1 + 6.
    assert losses.exp().tolist() == pytest.approx([9 / 2, 12 / 5, 7 / 6])


def test_path_product_probabilities() -> None:
    found = path_product_probabilities(TREE_SCORES, TREE)[0]
    wanted = [1 / 14, 2 / 14, 2 / 14 * 3 / 7, 2 / 14 * 4 / 7, 5 / 14, 6 / 14]
    assert found.tolist() == pytest.approx(wanted)


def test_groups_of_very_different_scores_lose_nothing() -> None:
    scores = torch.tensor([[1e4, 1e4, -1e4, -1e4, 1e4, 1e4]])
    found = sibling_log_softmax(scores, TREE)[0].exp()
    assert found.tolist() == pytest.approx([0.25, 0.25, 0.5, 0.5, 0.25, 0.25])
    assert math.isfinite(sibling_log_softmax(scores * torch.tensor([1, -1, 1, -1, 1, 1]), TREE).sum())
