"""What holds for all schemes alike."""

from __future__ import annotations

import math
import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from plain_schemes import at_or_above, plain_loss, plain_probabilities, possible
from taxonomies import ANIMAL, BEAR, TEDDY, random_taxonomies, teddy_taxonomy, tree_taxonomy
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from hierseg.errors import ConfigError, TaxonomyError
from hierseg.functional import SCHEMES, Relations
from hierseg.functional.schemes import complete_options, find_scheme
from hierseg.taxonomy import Taxonomy

every_scheme = pytest.mark.parametrize('name', SCHEMES)
OUTCOMES = [name for name, scheme in SCHEMES.items() if scheme.has_outcomes]
SIGMOIDS = [name for name, scheme in SCHEMES.items() if not scheme.has_background]


def loss_of(name: str, logits: torch.Tensor, labels: torch.Tensor, taxonomy: Taxonomy, **options) -> torch.Tensor:
    """In one step where the scheme can, having made sure that two give the same."""
    scheme, relations = SCHEMES[name], Relations.of(taxonomy.arrays)
    options = {'known': options.pop('known', None), **complete_options(name, options)}
    losses = scheme.losses(scheme.scores(logits, relations), labels, relations, **options)
    if scheme.losses_of_logits is None:
        return losses
    in_one_step = scheme.losses_of_logits(logits, labels, relations, **options)
    torch.testing.assert_close(in_one_step, losses)
    return in_one_step


def probabilities_of(name: str, logits: torch.Tensor, taxonomy: Taxonomy) -> torch.Tensor:
    scheme, relations = SCHEMES[name], Relations.of(taxonomy.arrays)
    return scheme.probabilities(scheme.scores(logits, relations), relations)


def fitting(name: str) -> Taxonomy:
    return tree_taxonomy() if SCHEMES[name].trees_only else teddy_taxonomy()


def drawn_taxonomy(data: st.DataObject, name: str) -> Taxonomy:
    return data.draw(random_taxonomies(max_parents=1 if SCHEMES[name].trees_only else 3))


def random_logits(name: str, rows: int, classes: int, *, seed: int, scale: float = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, SCHEMES[name].channels(classes), generator=generator, dtype=torch.float64) * scale


@every_scheme
@given(data=st.data(), seed=st.integers(0, 2**31))
def test_equals_enumeration_by_walking_the_graph(name: str, data: st.DataObject, seed: int) -> None:
    taxonomy = drawn_taxonomy(data, name)
    count = taxonomy.num_classes
    logits = random_logits(name, count + 1, count, seed=seed)
    known = torch.rand(count + 1, count, generator=torch.Generator().manual_seed(seed)) < 0.5
    found = loss_of(name, logits, torch.arange(count + 1), taxonomy)
    among_known = loss_of(name, logits, torch.arange(count + 1), taxonomy, known=known)
    options = complete_options(name, {})
    for label in range(count + 1):
        row = logits[label].tolist()
        some = set(known[label].nonzero().flatten().tolist())
        everything = set(range(count))
        expected = plain_loss(name, row, label, taxonomy, known=everything, options=options)
        assert found[label].item() == pytest.approx(expected, abs=1e-7)
        expected = plain_loss(name, row, label, taxonomy, known=some, options=options)
        assert among_known[label].item() == pytest.approx(expected, abs=1e-7)
    probabilities = probabilities_of(name, logits, taxonomy)
    for row, expected_row in zip(logits.tolist(), probabilities.tolist(), strict=True):
        assert expected_row == pytest.approx(plain_probabilities(name, row, taxonomy), abs=1e-9)


@every_scheme
@given(data=st.data(), seed=st.integers(0, 2**31))
def test_a_parent_is_at_least_as_probable_as_its_child(name: str, data: st.DataObject, seed: int) -> None:
    taxonomy = drawn_taxonomy(data, name)
    probabilities = probabilities_of(name, random_logits(name, 4, taxonomy.num_classes, seed=seed), taxonomy)
    assert probabilities.shape == (4, taxonomy.num_classes + 1)
    assert ((probabilities >= 0) & (probabilities <= 1)).all()
    child, parent = torch.from_numpy(taxonomy.arrays.ancestor_pairs.copy())
    assert (probabilities[:, parent] >= probabilities[:, child] - 1e-12).all()


@every_scheme
@given(data=st.data(), seed=st.integers(0, 2**31))
def test_outcomes_and_background_sum_to_one(name: str, data: st.DataObject, seed: int) -> None:
    taxonomy = data.draw(random_taxonomies(max_parents=1))
    probabilities = probabilities_of(name, random_logits(name, 4, taxonomy.num_classes, seed=seed), taxonomy)
    roots = probabilities[:, list(taxonomy.root_classes)]
    if name in SIGMOIDS:
        torch.testing.assert_close(probabilities[:, -1], 1 - roots.amax(dim=1))
        return
    # In a tree the root classes divide what background leaves.
    torch.testing.assert_close(roots.sum(dim=1) + probabilities[:, -1], torch.ones(4, dtype=torch.float64))
    # What the children leave is the outcome of the class itself; the softmax among siblings leaves it nothing.
    own = probabilities[:, :-1].clone()
    for label, parents in enumerate(taxonomy.parents):
        if parents:
            own[:, parents[0]] -= probabilities[:, label]
    assert (own >= -1e-12).all()
    torch.testing.assert_close(own.sum(dim=1) + probabilities[:, -1], torch.ones(4, dtype=torch.float64))


@every_scheme
@given(data=st.data(), seed=st.integers(0, 2**31))
def test_renumbering_classes_permutes_the_result(name: str, data: st.DataObject, seed: int) -> None:
    taxonomy = drawn_taxonomy(data, name)
    count = taxonomy.num_classes
    order = list(range(count))
    random.Random(seed).shuffle(order)
    edges = [(taxonomy.ids[c], taxonomy.ids[p]) for c, parents in enumerate(taxonomy.parents) for p in parents]
    renumbered = Taxonomy.from_edges([taxonomy.ids[label] for label in order], edges)
    columns = [*order, count]
    logits = random_logits(name, count + 1, count, seed=seed)
    known = torch.rand(count + 1, count, generator=torch.Generator().manual_seed(seed)) < 0.7
    moved = logits[:, columns[: logits.shape[1]]]

    before = loss_of(name, logits, torch.tensor(columns), taxonomy, known=known)
    after = loss_of(name, moved, torch.arange(count + 1), renumbered, known=known[:, order])
    torch.testing.assert_close(after, before)
    before = probabilities_of(name, logits, taxonomy)
    torch.testing.assert_close(probabilities_of(name, moved, renumbered), before[:, columns])


@every_scheme
def test_gradient(name: str) -> None:
    taxonomy = fitting(name)
    logits = random_logits(name, 12, 5, seed=1).requires_grad_()
    labels = torch.arange(12) % 6
    known = torch.rand(12, 5, generator=torch.Generator().manual_seed(0)) < 0.5
    assert torch.autograd.gradcheck(lambda x: loss_of(name, x, labels, taxonomy), (logits,))
    assert torch.autograd.gradcheck(lambda x: loss_of(name, x, labels, taxonomy, known=known), (logits,))


@every_scheme
@pytest.mark.parametrize('size', [60.0, 1e4, 3e4])
@pytest.mark.parametrize('dtype', [torch.float16, torch.float32])
def test_extreme_logits_stay_finite(name: str, size: float, dtype: torch.dtype) -> None:
    taxonomy = fitting(name)
    signs = torch.randint(0, 2, (60, SCHEMES[name].channels(5)), generator=torch.Generator().manual_seed(0)) * 2 - 1
    logits = (signs * size).to(dtype).requires_grad_()
    known = torch.rand(60, 5, generator=torch.Generator().manual_seed(0)) < 0.5
    for mask in (None, known):
        losses = loss_of(name, logits, torch.arange(60) % 6, taxonomy, known=mask)
        assert losses.isfinite().all()
        assert (losses >= 0).all()
        (gradient,) = torch.autograd.grad(losses.sum() / 60, logits)
        assert gradient.isfinite().all()
    assert probabilities_of(name, logits.detach(), taxonomy).isfinite().all()


@every_scheme
def test_wrong_by_far_still_has_a_gradient(name: str) -> None:
    # What log(1 - p) or log(p) of a rounded probability would lose.
    logits = torch.full((2, SCHEMES[name].channels(5)), -60.0)
    logits[:, 4] = 60.0
    logits.requires_grad_()
    loss_of(name, logits, torch.tensor([ANIMAL, TEDDY]), fitting(name)).sum().backward()
    assert (logits.grad[:, 4] > 0.1).all()
    assert logits.grad[0, ANIMAL] < -0.1


@every_scheme
def test_knowing_everything_is_the_plain_loss(name: str) -> None:
    logits, labels = random_logits(name, 12, 5, seed=2), torch.arange(12) % 6
    known = torch.ones(12, 5, dtype=torch.bool)
    found = loss_of(name, logits, labels, fitting(name), known=known)
    torch.testing.assert_close(found, loss_of(name, logits, labels, fitting(name)))


@every_scheme
@given(data=st.data(), seed=st.integers(0, 2**31))
def test_what_nobody_verified_counts_neither_way(name: str, data: st.DataObject, seed: int) -> None:
    taxonomy = drawn_taxonomy(data, name)
    count = taxonomy.num_classes
    label = data.draw(st.integers(0, count))
    logits = random_logits(name, 1, count, seed=seed)
    nothing = torch.zeros(1, count, dtype=torch.bool)
    unrelated = [v for v in range(count) if v not in possible(taxonomy, label)]
    # None of them is above an outcome of the label, whose path would add its logit.
    changed = logits.clone()
    changed[:, unrelated] += 5
    before, after = (loss_of(name, x, torch.tensor([label]), taxonomy, known=nothing) for x in (logits, changed))
    torch.testing.assert_close(after, before)


@every_scheme
@given(data=st.data(), seed=st.integers(0, 2**31))
def test_descendants_of_a_coarse_label_are_no_negatives(name: str, data: st.DataObject, seed: int) -> None:
    taxonomy = drawn_taxonomy(data, name)
    count = taxonomy.num_classes
    logits = random_logits(name, count, count, seed=seed).requires_grad_()
    loss_of(
        name, logits, torch.arange(count), taxonomy, **({'beta': 1e6} if name == 'soft_labels' else {})
    ).sum().backward()
    for label in range(count):
        for descendant in taxonomy.descendants(label):
            assert logits.grad[label, descendant] <= 1e-9


@every_scheme
def test_the_way_to_the_label_is_lifted_whatever_is_known(name: str) -> None:
    taxonomy = fitting(name)
    logits = torch.zeros(1, SCHEMES[name].channels(5), dtype=torch.float64, requires_grad=True)
    others = torch.tensor([[v not in at_or_above(taxonomy, BEAR) for v in range(5)]])
    loss_of(name, logits, torch.tensor([BEAR]), taxonomy, known=others).sum().backward()
    assert logits.grad[0, BEAR] < 0
    assert all(logits.grad[0, above] <= 0 for above in at_or_above(taxonomy, BEAR))


@pytest.mark.parametrize('name', ['path_sum', 'flat', 'conditional', 'hxe'])
def test_is_cross_entropy_on_a_flat_taxonomy(name: str) -> None:
    flat = Taxonomy.from_edges(['a', 'b', 'c'], [])
    logits, labels = random_logits(name, 20, 3, seed=0), torch.arange(20) % 4
    expected = cross_entropy(logits, labels, reduction='none')
    torch.testing.assert_close(loss_of(name, logits, labels, flat), expected)
    torch.testing.assert_close(probabilities_of(name, logits, flat), logits.softmax(dim=1))


@pytest.mark.parametrize('name', ['sigmoid', 'mcm', 'tree_min'])
def test_is_binary_cross_entropy_on_a_flat_taxonomy(name: str) -> None:
    flat = Taxonomy.from_edges(['a', 'b', 'c'], [])
    logits, labels = random_logits(name, 20, 3, seed=0), torch.arange(20) % 4
    target = torch.nn.functional.one_hot(labels, 4)[:, :3].double()
    # A logit of zero is a probability of 0.01.
    scores = logits - math.log(99)
    expected = binary_cross_entropy_with_logits(scores, target, reduction='none').sum(dim=1)
    torch.testing.assert_close(loss_of(name, logits, labels, flat), expected)
    torch.testing.assert_close(probabilities_of(name, logits, flat)[:, :-1], scores.sigmoid())


@pytest.mark.parametrize(
    ('name', 'options', 'plain'),
    [
        ('hxe', {'alpha': 0}, 'flat'),
        ('soft_labels', {'beta': 1e6}, 'flat'),
        ('margin', {'tau': 0}, 'flat'),
        ('tree_min_focal', {'gamma': 0}, 'tree_min'),
    ],
)
@given(taxonomy=random_taxonomies(), seed=st.integers(0, 2**31))
def test_an_option_at_its_end_gives_the_simpler_scheme(
    name: str, options: dict[str, float], plain: str, taxonomy: Taxonomy, seed: int
) -> None:
    count = taxonomy.num_classes
    logits, labels = random_logits(name, count + 1, count, seed=seed), torch.arange(count + 1)
    known = torch.rand(count + 1, count, generator=torch.Generator().manual_seed(seed)) < 0.5
    for mask in (None, known):
        found = loss_of(name, logits, labels, taxonomy, known=mask, **options)
        torch.testing.assert_close(found, loss_of(plain, logits, labels, taxonomy, known=mask))


@every_scheme
def test_training_on_a_label_makes_it_the_choice(name: str) -> None:
    """Gradient descent on the logits of five labels and background ends where the labels are, coarse ones too."""
    taxonomy, labels = fitting(name), torch.arange(6)
    relations = Relations.of(taxonomy.arrays)
    logits = torch.zeros(6, SCHEMES[name].channels(5), requires_grad=True)
    optimiser = torch.optim.SGD([logits], lr=0.5)
    for _ in range(300):
        optimiser.zero_grad()
        loss_of(name, logits, labels, taxonomy).sum().backward()
        optimiser.step()
    probabilities = probabilities_of(name, logits.detach(), taxonomy)
    # Soft labels keep some probability on neighbours: e^(-10 / 3) on the nearest ones, 0.04.
    assert (probabilities[labels, labels] > 0.8).all()
    scheme = SCHEMES[name]
    chosen = scheme.chosen(scheme.scores(logits.detach(), relations), relations)
    assert relations.is_below(chosen, labels).all()


def test_clear_errors() -> None:
    with pytest.raises(ConfigError, match=r'unknown scheme .*path_sum, flat, margin'):
        find_scheme('tree', teddy_taxonomy())
    with pytest.raises(TaxonomyError, match=r"'conditional' is for trees, .* several parents: Teddy"):
        find_scheme('conditional', teddy_taxonomy())
    assert find_scheme('conditional', tree_taxonomy()) is SCHEMES['conditional']
    with pytest.raises(ConfigError, match=r"'margin' has no option 'beta'. It has tau"):
        complete_options('margin', {'beta': 1})
    with pytest.raises(ConfigError, match=r"'flat' has no option 'tau'. It has none"):
        complete_options('flat', {'tau': 1})
    for value in (-1, float('inf'), float('nan'), True, '5'):
        with pytest.raises(ConfigError, match='finite number'):
            complete_options('margin', {'tau': value})
    assert complete_options('hxe', {'alpha': 0.5}) == {'alpha': 0.5}
    assert complete_options('hxe', {}) == {'alpha': 0.1}
