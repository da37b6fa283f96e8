from __future__ import annotations

import networkx as nx
import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from taxonomies import ANIMAL, BEAR, CAR, TEDDY, TOY, random_taxonomies, teddy_taxonomy

from hierseg.functional import Relations
from hierseg.functional.decisions import (
    deepest_confident_class,
    least_expected_distance,
    most_probable_leaf,
    outcome_masses,
)
from hierseg.taxonomy import Taxonomy

PEOPLE = Taxonomy.from_edges(['person', 'man', 'woman'], [('man', 'person'), ('woman', 'person')])
PERSON, MAN, WOMAN = range(3)


def back_off(
    probabilities: torch.Tensor, taxonomy: Taxonomy, *, threshold: float, relative: bool = True
) -> torch.Tensor:
    return deepest_confident_class(probabilities, Relations.of(taxonomy.arrays), threshold=threshold, relative=relative)


def leaf(probabilities: torch.Tensor, taxonomy: Taxonomy) -> torch.Tensor:
    return most_probable_leaf(probabilities, Relations.of(taxonomy.arrays))


def closest(probabilities: torch.Tensor, taxonomy: Taxonomy) -> torch.Tensor:
    return least_expected_distance(probabilities, Relations.of(taxonomy.arrays))


def masses_of(probabilities: torch.Tensor, taxonomy: Taxonomy) -> torch.Tensor:
    return outcome_masses(probabilities, Relations.of(taxonomy.arrays))


def decide(probabilities: list[float], threshold: float = 0.5, *, relative: bool = True) -> int:
    return back_off(torch.tensor([probabilities]), teddy_taxonomy(), threshold=threshold, relative=relative).item()


def probabilities_of(taxonomy: Taxonomy, masses: np.ndarray) -> torch.Tensor:
    """Class probabilities by definition: the sum of the masses at or below each class."""
    labels = range(taxonomy.num_classes)
    below = [[u for u in labels if u == v or v in taxonomy.ancestors(u)] for v in labels]
    rows = [[row[members].sum() for members in below] for row in masses]
    return torch.tensor(rows, dtype=torch.float64).reshape(masses.shape)


def random_masses(seed: int, count: int, *, rows: int = 4) -> np.ndarray:
    """(rows, count); most of them zero in some rows, as where a model is sure."""
    generator = np.random.default_rng(seed)
    masses = generator.gamma(0.3, size=(rows, count))
    return masses / (masses.sum(axis=1, keepdims=True) + generator.random((rows, 1)))


class TestBackOff:
    def test_takes_the_deepest_class_that_holds_enough_of_its_root(self) -> None:
        #              toy  animal bear teddy car; animal is the best root and bear holds 0.5 of 0.8.
        assert decide([0.15, 0.8, 0.5, 0.1, 0.05]) == BEAR
        # bear holds 0.39 of 0.8, less than half.
        assert decide([0.15, 0.8, 0.39, 0.1, 0.05]) == ANIMAL
        # The same bear with a lower threshold.
        assert decide([0.15, 0.8, 0.39, 0.1, 0.05], threshold=0.4) == BEAR

    def test_the_probability_itself_can_be_asked_for(self) -> None:
        # bear holds more than half of animal, and less than a half.
        assert decide([0.0, 0.6, 0.4, 0.1, 0.05]) == BEAR
        assert decide([0.0, 0.6, 0.4, 0.1, 0.05], relative=False) == ANIMAL
        assert decide([0.0, 0.6, 0.4, 0.1, 0.05], 0.4, relative=False) == BEAR
        # Not even the root reaches it.
        assert decide([0.0, 0.6, 0.4, 0.1, 0.05], 0.7, relative=False) == ANIMAL

    def test_a_class_with_two_parents_is_reached_from_the_better_root(self) -> None:
        assert decide([0.7, 0.6, 0.6, 0.5, 0.0]) == TEDDY
        assert decide([0.7, 0.2, 0.1, 0.1, 0.0]) == TOY

    def test_a_root_class_without_children_names_itself_however_improbable(self) -> None:
        assert decide([0.0, 0.01, 0.01, 0.0, 0.02]) == CAR
        assert decide([0.0, 0.01, 0.01, 0.0, 0.02], relative=False) == CAR

    def test_among_equally_deep_classes_the_more_probable_wins(self) -> None:
        rows = torch.tensor([[0.8, 0.36, 0.4], [0.8, 0.4, 0.36], [0.8, 0.35, 0.33]])
        # 0.44 × 0.8 = 0.352: woman; man; neither reaches it, so person.
        assert back_off(rows, PEOPLE, threshold=0.44).tolist() == [WOMAN, MAN, PERSON]

    @given(random_taxonomies(), st.integers(0, 999), st.booleans())
    def test_a_higher_threshold_never_names_a_deeper_class(self, taxonomy: Taxonomy, seed: int, relative: bool) -> None:
        rows = probabilities_of(taxonomy, random_masses(seed, taxonomy.num_classes))
        depths = torch.from_numpy(taxonomy.arrays.depths.copy())
        before = None
        for threshold in (0.05, 0.3, 0.51, 0.8, 1.0):
            named = depths[back_off(rows, taxonomy, threshold=threshold, relative=relative)]
            assert before is None or (named <= before).all()
            before = named

    @given(random_taxonomies(), st.integers(0, 999))
    def test_at_threshold_one_whatever_splits_a_root_stops_there(self, taxonomy: Taxonomy, seed: int) -> None:
        masses = random_masses(seed, taxonomy.num_classes)
        masses[:, list(taxonomy.root_classes)] += 0.01  # something stops at every root class
        rows = probabilities_of(taxonomy, masses)
        named = back_off(rows, taxonomy, threshold=1.0)
        assert {*named.tolist()} <= {*taxonomy.root_classes}

    @given(random_taxonomies(), st.integers(0, 999), st.floats(0.05, 1), st.booleans())
    def test_what_is_named_is_enough_and_all_deeper_ones_are_not(
        self, taxonomy: Taxonomy, seed: int, threshold: float, relative: bool
    ) -> None:
        rows = probabilities_of(taxonomy, random_masses(seed, taxonomy.num_classes))
        for row, label in zip(
            rows.tolist(), back_off(rows, taxonomy, threshold=threshold, relative=relative).tolist(), strict=True
        ):
            root = max(taxonomy.root_classes, key=lambda label: row[label])
            needed = threshold * (row[root] if relative else 1)
            enough = [v for v in {root, *taxonomy.descendants(root)} if row[v] >= needed] or [root]
            deepest = max(taxonomy.arrays.depths[enough])
            assert row[label] == max(row[v] for v in enough if taxonomy.arrays.depths[v] == deepest)
            assert label in enough


class TestLeaf:
    def test_takes_the_most_probable_leaf_of_any_branch(self) -> None:
        #                     toy  animal bear teddy car
        rows = torch.tensor([[0.6, 0.3, 0.2, 0.1, 0.0], [0.6, 0.3, 0.2, 0.1, 0.15]])
        assert leaf(rows, teddy_taxonomy()).tolist() == [TEDDY, CAR]

    def test_without_a_claimed_leaf_as_deep_as_claims_go(self) -> None:
        rows = torch.tensor([[0.6, 0.3, 0.2, 0.0, 0.0], [0.1, 0.3, 0.2, 0.0, 0.0]])
        # Nothing is claimed below toy and below bear; there is below animal.
        assert leaf(rows, teddy_taxonomy()).tolist() == [TOY, BEAR]


class TestDistance:
    def test_stops_above_two_equal_halves(self) -> None:
        # Halves of man and woman: person is 1 away from both, man 0 or 2. Equal on average: the one that says less.
        rows = torch.tensor([[1.0, 0.5, 0.5], [1.0, 0.6, 0.4], [1.0, 0.45, 0.4]])
        # 0.6 man: man costs 0.4 × 2 = 0.8, person 1. With 0.15 left at person: man costs 0.15 + 0.8, person 0.85.
        assert closest(rows, PEOPLE).tolist() == [PERSON, MAN, PERSON]

    def test_by_hand_on_a_class_with_two_parents(self) -> None:
        # Masses: toy 0.1, animal 0, bear 0.35, teddy 0.4, car 0.
        rows = torch.tensor([[0.5, 0.75, 0.75, 0.4, 0.0]])
        torch.testing.assert_close(masses_of(rows, teddy_taxonomy()), torch.tensor([[0.1, 0.0, 0.35, 0.4, 0.0]]))
        # Bear to teddy 1, toy to teddy 1, toy to bear 3 (toy, virtual root, animal, bear), animal to bear 1.
        # teddy costs 0.1 + 0.35 = 0.45; bear 0.1 × 3 + 0.4 = 0.7; the others more.
        assert closest(rows, teddy_taxonomy()).tolist() == [TEDDY]

    def test_a_shared_descendant_is_taken_off_once(self) -> None:
        diamond = Taxonomy.from_edges(
            ['top', 'left', 'right', 'bottom'],
            [('left', 'top'), ('right', 'top'), ('bottom', 'left'), ('bottom', 'right')],
        )
        sources, targets, factors = Relations.of(diamond.arrays).inclusion
        # The factors of top: itself, less left and right, plus bottom, which both took off.
        of_top = dict(zip(sources[targets == 0].tolist(), factors[targets == 0].tolist(), strict=True))
        assert of_top == {0: 1, 1: -1, 2: -1, 3: 1}
        # All of it is at bottom.
        rows = torch.tensor([[0.8, 0.8, 0.8, 0.8]])
        torch.testing.assert_close(masses_of(rows, diamond), torch.tensor([[0.0, 0, 0, 0.8]]))

    def test_a_suppressed_branch_takes_nothing(self) -> None:
        # Animal was suppressed on this box, and bear with it; teddy stays by toy.
        rows = torch.tensor([[0.9, 0.0, 0.0, 0.3, 0.0]])
        torch.testing.assert_close(masses_of(rows, teddy_taxonomy()), torch.tensor([[0.6, 0, 0, 0.3, 0]]))
        assert closest(rows, teddy_taxonomy()).tolist() == [TOY]

    def test_probabilities_without_outcomes_leave_nothing_negative(self) -> None:
        # A sigmoid may be sure of both. 0.9 against 0.8: man costs 1.6, woman 1.8, person 1.7.
        rows = torch.tensor([[0.95, 0.9, 0.8]])
        masses = masses_of(rows, PEOPLE)
        torch.testing.assert_close(masses, torch.tensor([[0.0, 0.9, 0.8]]))
        assert closest(rows, PEOPLE).tolist() == [MAN]

    @given(random_taxonomies(), st.integers(0, 999))
    def test_masses_are_those_that_the_probabilities_were_made_of(self, taxonomy: Taxonomy, seed: int) -> None:
        masses = random_masses(seed, taxonomy.num_classes)
        found = masses_of(probabilities_of(taxonomy, masses), taxonomy)
        torch.testing.assert_close(found, torch.from_numpy(masses))

    @given(random_taxonomies(), st.integers(0, 999))
    def test_nothing_is_closer_by_brute_force(self, taxonomy: Taxonomy, seed: int) -> None:
        masses = random_masses(seed, taxonomy.num_classes)
        probabilities = probabilities_of(taxonomy, masses)
        lengths = dict(nx.all_pairs_shortest_path_length(upward(taxonomy)))

        def distance(first: int, second: int) -> int:
            """Up to a common ancestor and down again, over the virtual root (-1) if there is no nearer one."""
            common = lengths[first].keys() & lengths[second].keys()
            return min(lengths[first][above] + lengths[second][above] for above in common)

        for row, label in zip(masses, closest(probabilities, taxonomy).tolist(), strict=True):
            risks = [
                sum(mass * distance(answer, truth) for truth, mass in enumerate(row))
                for answer in range(taxonomy.num_classes)
            ]
            assert risks[label] <= min(risks) + 1e-4


def upward(taxonomy: Taxonomy) -> nx.DiGraph:
    """Edges from every class to its parents; from root classes to the virtual root, -1."""
    edges = [(label, parent) for label, parents in enumerate(taxonomy.parents) for parent in (parents or (-1,))]
    return nx.DiGraph(edges)


@given(random_taxonomies(), st.integers(0, 999), st.data())
def test_renumbering_classes_renumbers_names(taxonomy: Taxonomy, seed: int, data: st.DataObject) -> None:
    count = taxonomy.num_classes
    order = data.draw(st.permutations(range(count)))  # new label → old label
    edges = [(taxonomy.ids[v], taxonomy.ids[a]) for v, parents in enumerate(taxonomy.parents) for a in parents]
    renumbered = Taxonomy.from_edges([taxonomy.ids[label] for label in order], edges)
    rows = probabilities_of(taxonomy, random_masses(seed, count))
    for rule in (
        leaf,
        closest,
        lambda rows, taxonomy: back_off(rows, taxonomy, threshold=0.4),
        lambda rows, taxonomy: back_off(rows, taxonomy, threshold=0.4, relative=False),
    ):
        named, again = rule(rows, taxonomy).tolist(), rule(rows[:, list(order)], renumbered).tolist()
        # Where a class and its only child are equally probable and equally good, either may stand.
        same = [rows[row, order[label]] for row, label in enumerate(again)]
        assert same == [rows[row, label] for row, label in enumerate(named)]


def test_no_detections() -> None:
    rows = torch.zeros(0, 5)
    for named in (back_off(rows, teddy_taxonomy(), threshold=0.5), leaf(rows, teddy_taxonomy())):
        assert named.shape == (0,)
    assert closest(rows, teddy_taxonomy()).shape == (0,)


@given(random_taxonomies(), st.integers(0, 999))
def test_only_claimed_classes_are_named(taxonomy: Taxonomy, seed: int) -> None:
    rows = probabilities_of(taxonomy, random_masses(seed, taxonomy.num_classes))
    # As the RoI head does: a root class or two suppressed, and what does not reach a threshold.
    generator = torch.Generator().manual_seed(seed)
    mask = torch.from_numpy(taxonomy.arrays.ancestor_mask.copy())
    roots = torch.from_numpy(taxonomy.arrays.depths.copy()) == 0
    survives = (torch.rand(rows.shape, generator=generator) < 0.7) & roots & (rows > 0.05)
    claimed = (survives.double() @ mask.T.double() > 0) & (rows > 0.05)
    rows = (rows * claimed)[claimed.any(dim=1)]
    for rule in (leaf, closest, lambda rows, taxonomy: back_off(rows, taxonomy, threshold=0.3)):
        named = rule(rows, taxonomy)
        assert (rows.gather(1, named[:, None]) > 0).all()
