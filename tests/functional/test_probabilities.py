from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from taxonomies import ANIMAL, BEAR, CAR, TEDDY, TOY, random_taxonomies, teddy_taxonomy

from hierseg.functional import class_probabilities, path_sum_logits
from hierseg.taxonomy import Taxonomy


def pairs_of(taxonomy: Taxonomy) -> torch.Tensor:
    return torch.from_numpy(taxonomy.arrays.ancestor_pairs.copy())


def test_path_sum_adds_every_ancestor_once() -> None:
    # θ: toy 1, animal 2, bear 3, teddy 4, car 5, background 6.
    # bear = 3 + animal 2; teddy = 4 + toy 1 + bear 3 + animal 2, animal once although two steps away.
    logits = torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]])
    assert path_sum_logits(logits, pairs_of(teddy_taxonomy())).tolist() == [[1.0, 2.0, 5.0, 10.0, 5.0, 6.0]]


def test_class_probability_is_the_mass_at_or_below() -> None:
    # Outcome masses 1 : 2 : 3 : 4 : 5 : 6 of 21. animal holds animal + bear + teddy, toy holds toy + teddy.
    outcomes = torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]], dtype=torch.float64).log()
    probabilities = class_probabilities(outcomes, pairs_of(teddy_taxonomy()))[0]
    assert probabilities[TOY].item() == pytest.approx(5 / 21)
    assert probabilities[ANIMAL].item() == pytest.approx(9 / 21)
    assert probabilities[BEAR].item() == pytest.approx(7 / 21)
    assert probabilities[TEDDY].item() == pytest.approx(4 / 21)
    assert probabilities[CAR].item() == pytest.approx(5 / 21)
    assert probabilities[-1].item() == pytest.approx(6 / 21)


@given(random_taxonomies(), st.integers(0, 2**31))
def test_laws(taxonomy: Taxonomy, seed: int) -> None:
    logits = torch.randn(
        4, taxonomy.num_classes + 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    pairs = pairs_of(taxonomy)
    outcomes = path_sum_logits(logits, pairs)
    probabilities = class_probabilities(outcomes, pairs)

    # Brute force by walking the graph.
    for label in range(taxonomy.num_classes):
        expected = logits[:, [label, *taxonomy.ancestors(label)]].sum(dim=1)
        torch.testing.assert_close(outcomes[:, label], expected)
        mass = outcomes.softmax(dim=1)[:, [label, *taxonomy.descendants(label)]].sum(dim=1)
        torch.testing.assert_close(probabilities[:, label], mass)

    # p(parent) ≥ p(child), and the root classes of a tree share what background leaves.
    child, parent = pairs
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

    before = class_probabilities(path_sum_logits(logits, pairs_of(taxonomy)), pairs_of(taxonomy))
    after = class_probabilities(path_sum_logits(logits[:, columns], pairs_of(renumbered)), pairs_of(renumbered))
    torch.testing.assert_close(after, before[:, columns])


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_is_raised_before_summing(dtype: torch.dtype) -> None:
    # 60,000 + 60,000 overflows float16; the sum along the path must not.
    chain = Taxonomy.from_edges(['a', 'b'], [('b', 'a')])
    outcomes = path_sum_logits(torch.tensor([[60000.0, 60000.0, 0.0]]).to(dtype), pairs_of(chain))
    assert outcomes.dtype == torch.float32
    assert math.isfinite(outcomes[0, 1].item())
