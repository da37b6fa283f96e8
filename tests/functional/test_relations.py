from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from plain_schemes import at_or_above, at_or_below, possible
from taxonomies import ANIMAL, BEAR, CAR, TEDDY, TOY, random_taxonomies, teddy_taxonomy, tree_taxonomy

from hierseg.functional import Relations
from hierseg.functional.relations import max_at_or_below, min_at_or_above
from hierseg.taxonomy import Taxonomy


def members(row: torch.Tensor) -> set[int]:
    return {label for label in row.tolist() if label >= 0}


def test_tables_of_the_teddy() -> None:
    relations = Relations.of(teddy_taxonomy().arrays)
    # An object labelled bear may be a teddy and so a toy.
    compatible = relations.compatible.mask(torch.tensor([BEAR, CAR]))
    assert compatible.tolist() == [[True, True, True, True, False, False], [False, False, False, False, True, False]]
    assert relations.preferred_paths.tolist() == [[0, 0], [1, 1], [1, 2], [0, 3], [4, 4], [5, 5]]
    assert relations.distances_from(torch.tensor([TEDDY])).tolist() == [[1, 2, 1, 0, 3]]
    assert relations.longest_distance == 3
    assert relations.internal.tolist() == [True, True, True, False, False, False]
    assert relations.root_classes.tolist() == [TOY, ANIMAL, CAR]
    assert relations.leaves.tolist() == [TEDDY, CAR]


def test_sibling_groups_of_a_tree() -> None:
    relations = Relations.of(tree_taxonomy().arrays)
    assert relations.sibling_groups.tolist() == [0, 0, 1, 1, 0, 0]
    assert relations.num_sibling_groups == 2


@given(random_taxonomies(), st.integers(0, 2**31))
def test_equals_walking_the_graph(taxonomy: Taxonomy, seed: int) -> None:
    relations = Relations.of(taxonomy.arrays)
    count = taxonomy.num_classes
    assert relations.num_classes == count
    # Labels in any order, and some of them twice.
    labels = torch.randint(count + 1, (2 * count + 2,), generator=torch.Generator().manual_seed(seed))
    below, above = relations.below.mask(labels), relations.above_mask(labels)
    compatible = relations.compatible.mask(labels)
    for row, label in enumerate(labels.tolist()):
        assert members(relations.ancestors[label]) == at_or_above(taxonomy, label) - {count}
        assert set(below[row].nonzero().flatten().tolist()) == at_or_below(taxonomy, label)
        assert set(above[row].nonzero().flatten().tolist()) == at_or_above(taxonomy, label)
        assert set(compatible[row].nonzero().flatten().tolist()) == possible(taxonomy, label)
        everything = torch.arange(count + 1)
        assert relations.is_below(everything, torch.full_like(everything, label)).equal(below[row])
    distances = torch.from_numpy(taxonomy.arrays.distances.copy())
    assert relations.distances_from(torch.arange(count)).equal(distances.long())

    values = torch.randn(3, count, generator=torch.Generator().manual_seed(seed))
    highest, lowest = max_at_or_below(values, relations), min_at_or_above(values, relations)
    for label in range(count):
        assert highest[:, label].equal(values[:, sorted(at_or_below(taxonomy, label))].amax(dim=1))
        assert lowest[:, label].equal(values[:, sorted(at_or_above(taxonomy, label))].amin(dim=1))


def test_the_gradient_of_a_maximum_goes_to_the_class_that_has_it() -> None:
    values = torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0]], requires_grad=True)
    max_at_or_below(values, Relations.of(teddy_taxonomy().arrays)).sum().backward()
    # Teddy has the maximum of itself, toy, bear and animal.
    assert values.grad.tolist() == [[0, 0, 0, 4, 1]]


def test_moves_to_a_device_and_stays() -> None:
    relations = Relations.of(teddy_taxonomy().arrays)
    assert relations.to(torch.device('cpu')) is relations
    moved = relations.to(torch.device('meta'))
    assert moved.device.type == moved.below.members.device.type == moved.families[0].device.type == 'meta'
    assert moved.num_sibling_groups == relations.num_sibling_groups
