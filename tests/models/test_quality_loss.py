"""The quality form of every scheme: the scheme itself at one end, mmdet's quality focal loss at another."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.models.losses import QualityFocalLoss
from plain_schemes import plain_quality_loss
from taxonomies import ANIMAL, BEAR, CAR, TEDDY, TOY, random_taxonomies, teddy_taxonomy, tree_taxonomy

from hierseg.errors import ConfigError
from hierseg.functional import SCHEMES
from hierseg.models import HierarchicalLoss, HierarchicalQualityLoss
from hierseg.models.hierarchical_loss import require_box_heads
from hierseg.registry import MODELS
from hierseg.taxonomy import Taxonomy

BACKGROUND = 5
BALANCES: dict[str, Any] = {
    'none': None,
    'seesaw': dict(type='seesaw'),
    'eql': dict(type='eql'),
    'logit_adjustment': dict(type='logit_adjustment', class_counts=[5, 1, 8, 2, 30]),
    'two': [dict(type='seesaw'), dict(type='eql')],
}

every_scheme = pytest.mark.parametrize('scheme', SCHEMES)


def build(scheme: str, **options: Any) -> HierarchicalQualityLoss:
    taxonomy = tree_taxonomy() if SCHEMES[scheme].trees_only else teddy_taxonomy()
    return HierarchicalQualityLoss(taxonomy, scheme=scheme, **options)


def candidates(scheme: str, count: int = 18, *, classes: int = 5, seed: int = 0) -> tuple[torch.Tensor, ...]:
    """Logits, labels of every kind, and qualities, 0 and 1 among them."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(count, SCHEMES[scheme].channels(classes), generator=generator, dtype=torch.float64)
    quality = torch.rand(count, generator=generator, dtype=torch.float64)
    quality[:2] = torch.tensor([0.0, 1.0])[:count]
    return logits, torch.arange(count) % (classes + 1), quality


@every_scheme
@pytest.mark.parametrize('balance', BALANCES)
def test_of_whole_quality_and_without_focus_it_is_the_scheme_itself(scheme: str, balance: str) -> None:
    form = build(scheme, beta=0, balance=BALANCES[balance])
    plain = HierarchicalLoss(form.taxonomy, scheme=scheme, balance=BALANCES[balance])
    known = torch.rand(18, 5, generator=torch.Generator().manual_seed(1)) < 0.5
    logits, labels, _ = candidates(scheme)
    # From the second step on, balances have seen something; with a quality of one, by default or said.
    for step, quality in enumerate((None, torch.ones(18), torch.ones(18))):
        found, expected = (logits.clone().requires_grad_() for _ in range(2))
        mask = known if step else None
        ours = form(found, labels, known=mask, quality=quality, reduction_override='none')
        theirs = plain(expected, labels, known=mask, reduction_override='none')
        torch.testing.assert_close(ours, theirs)
        ours.sum().backward()
        theirs.sum().backward()
        torch.testing.assert_close(found.grad, expected.grad)
    assert form.state_dict().keys() == plain.state_dict().keys()
    for name, value in form.state_dict().items():
        torch.testing.assert_close(value, plain.state_dict()[name])


@pytest.mark.parametrize(
    ('label', 'quality', 'expected'),
    [
        # Masses 1 to 5 of the classes and 5 of background, 20 in all; D(bear) = {bear, teddy}.
        (BEAR, 0.6, (0.6 - 7 / 20) ** 2 * (0.6 * math.log(20 / 7) + 0.4 * math.log(20 / 5))),
        # Coarse: D(animal) = {animal, bear, teddy}. As good as it is probable: nothing left to learn.
        (ANIMAL, 9 / 20, 0.0),
        (ANIMAL, 0.2, (0.2 - 9 / 20) ** 2 * (0.2 * math.log(20 / 9) + 0.8 * math.log(20 / 5))),
        # Of two parents: D(toy) = {toy, teddy}.
        (TOY, 1.0, (1 - 5 / 20) ** 2 * math.log(20 / 5)),
        # Background, whatever is said of its quality.
        (BACKGROUND, 0.3, (1 - 5 / 20) ** 2 * math.log(20 / 5)),
    ],
)
def test_values_by_hand(label: int, quality: float, expected: float) -> None:
    logits = torch.tensor([[1.0, 2, 3, 4, 5, 5]], dtype=torch.float64).log()
    found = build('flat')(logits, (torch.tensor([label]), torch.tensor([quality], dtype=torch.float64)))
    assert found.item() == pytest.approx(expected)


def test_values_of_sigmoids_by_hand() -> None:
    # Sigmoids 1/2, 2/3, 3/4, 4/5, 5/6. Bear of quality 0.6: itself and animal have that target, car none, and
    # teddy, with it toy, is undecided.
    logits = torch.tensor([[1.0, 2, 3, 4, 5]], dtype=torch.float64).log() + math.log(99)

    def term(target: float, probability: float) -> float:
        cost = -target * math.log(probability) - (1 - target) * math.log(1 - probability)
        return abs(target - probability) ** 2 * cost

    found = build('sigmoid')(logits, (torch.tensor([BEAR]), torch.tensor([0.6])))
    assert found.item() == pytest.approx(term(0.6, 2 / 3) + term(0.6, 3 / 4) + term(0, 5 / 6), rel=1e-6)


@every_scheme
@settings(max_examples=10)
@given(data=st.data(), seed=st.integers(0, 2**31), beta=st.sampled_from([0.0, 1.0, 2.0, 2.5]))
def test_equals_enumeration_by_walking_the_graph(scheme: str, data: st.DataObject, seed: int, beta: float) -> None:
    taxonomy = data.draw(random_taxonomies(max_parents=1 if SCHEMES[scheme].trees_only else 3))
    count = taxonomy.num_classes
    loss = HierarchicalQualityLoss(taxonomy, scheme=scheme, beta=beta)
    logits, labels, quality = candidates(scheme, count + 1, classes=count, seed=seed)
    known = torch.rand(count + 1, count, generator=torch.Generator().manual_seed(seed)) < 0.5
    for mask in (None, known):
        found = loss(logits, labels, known=mask, quality=quality, reduction_override='none')
        for label, row in enumerate(logits.tolist()):
            some = set(range(count)) if mask is None else set(mask[label].nonzero().flatten().tolist())
            expected = plain_quality_loss(
                scheme, row, label, taxonomy,
                known=some, options=loss.options, quality=quality[label].item(), beta=beta,
            )  # fmt: skip
            assert found[label].item() == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize('scheme', ['sigmoid', 'mcm', 'tree_min'])
@pytest.mark.parametrize('beta', [1.0, 2.0])
def test_is_the_quality_focal_loss_on_a_flat_taxonomy(scheme: str, beta: float) -> None:
    flat = Taxonomy.from_edges(['a', 'b', 'c', 'd'], [])
    logits, labels, quality = candidates(scheme, 25, classes=4)
    weights = torch.arange(25, dtype=torch.float64)
    ours = HierarchicalQualityLoss(flat, scheme=scheme, beta=beta, loss_weight=1.5)
    # A logit of zero is a probability of 0.01.
    theirs = QualityFocalLoss(use_sigmoid=True, beta=beta, loss_weight=1.5)
    shifted = logits - math.log(99)
    for reduction in ('none', 'mean', 'sum'):
        found = ours(logits, (labels, quality), weights, reduction_override=reduction)
        torch.testing.assert_close(found, theirs(shifted, (labels, quality), weights, reduction_override=reduction))
    found = ours(logits, (labels, quality), weights, avg_factor=3.0)
    torch.testing.assert_close(found, theirs(shifted, (labels, quality), weights, avg_factor=3.0))


@every_scheme
def test_gradient(scheme: str) -> None:
    logits, labels, quality = candidates(scheme, 6)
    loss = build(scheme, beta=1.5)
    known = torch.rand(6, 5, generator=torch.Generator().manual_seed(0)) < 0.5
    assert torch.autograd.gradcheck(
        lambda x: loss(x, labels, known=known, quality=quality, reduction_override='sum'), logits.requires_grad_()
    )


@every_scheme
@pytest.mark.parametrize('beta', [0.0, 1.0, 1.5, 2.0])
@pytest.mark.parametrize('size', [60.0, 3e4])
def test_gradients_are_finite_where_the_probability_is_the_quality(scheme: str, beta: float, size: float) -> None:
    """Saturated scores say exactly 0 or 1."""
    loss = build(scheme, beta=beta)
    signs = torch.randint(0, 2, (60, SCHEMES[scheme].channels(5)), generator=torch.Generator().manual_seed(0)) * 2 - 1
    logits = (signs * size).requires_grad_()
    for quality in (torch.zeros(60), torch.ones(60), torch.full((60,), 0.5)):
        found = loss(logits, (torch.arange(60) % 6, quality), reduction_override='none')
        (gradient,) = torch.autograd.grad(found.sum() / 60, logits)
        assert found.isfinite().all()
        assert gradient.isfinite().all()


@pytest.mark.parametrize(
    'scheme', ['path_sum', 'flat', 'hxe', 'conditional', 'sigmoid', 'mcm', 'tree_min', 'tree_min_focal']
)
@pytest.mark.parametrize('beta', [0.0, 2.0])
def test_is_least_where_the_probability_is_the_quality(scheme: str, beta: float) -> None:
    loss = build(scheme, beta=beta)
    quality = torch.tensor([0.7], dtype=torch.float64)
    logits = torch.full((1, SCHEMES[scheme].channels(5)), -40.0, dtype=torch.float64)
    if SCHEMES[scheme].has_background:
        logits[:, CAR], logits[:, BACKGROUND] = math.log(0.7), math.log(0.3)
    else:
        logits[:, CAR] = math.log(0.7 / 0.3) + math.log(99)
    assert loss.get_activation(logits)[0, CAR].item() == pytest.approx(0.7)
    logits.requires_grad_()
    least = loss(logits, (torch.tensor([CAR]), quality))
    least.backward()
    assert logits.grad.abs().max() < 1e-9
    for change in (-1.0, 1.0):
        moved = logits.detach().clone()
        moved[:, CAR] += change
        assert loss(moved, (torch.tensor([CAR]), quality)) > least + 1e-4


@every_scheme
@pytest.mark.parametrize('label', [BEAR, BACKGROUND])
def test_says_nothing_about_classes_that_nobody_verified(scheme: str, label: int) -> None:
    """Neither the loss nor the probability that weighs it."""
    logits = candidates(scheme, 1)[0].requires_grad_()
    known = torch.ones(1, 5, dtype=torch.bool)
    known[:, CAR] = False
    pair = (torch.tensor([label]), torch.tensor([0.6]))
    build(scheme)(logits, pair, known=known).backward()
    assert logits.grad[0, CAR].item() == 0
    assert logits.grad.abs().sum() > 0


def test_what_is_not_known_below_a_label_is_no_way_around_its_quality() -> None:
    """Of an animal of quality 0.6 whose kind nobody verified: no kind is the better, and nothing must be moved."""
    loss = build('flat', beta=0.0)
    masses = torch.tensor([[1e-12, 0.2, 0.2, 0.2, 1e-12, 0.4]], dtype=torch.float64)
    logits = masses.log().requires_grad_()
    known = torch.tensor([[True, True, False, False, True]])
    pair = (torch.tensor([ANIMAL]), torch.tensor([0.6], dtype=torch.float64))
    loss(logits, pair, known=known).backward()
    assert logits.grad.abs().max() < 1e-9


def test_undecided_classes_have_no_weight() -> None:
    logits = candidates('sigmoid', 1)[0].requires_grad_()
    for scheme in ('sigmoid', 'mcm', 'tree_min', 'tree_min_focal'):
        (gradient,) = torch.autograd.grad(build(scheme)(logits, (torch.tensor([ANIMAL]), torch.tensor([0.3]))), logits)
        # What an animal may be: a bear, a teddy and, as that, a toy.
        assert gradient[0, [BEAR, TEDDY, TOY]].tolist() == [0, 0, 0]
        assert gradient[0, CAR] > 0


@every_scheme
def test_a_pair_is_the_quality_beside_the_labels(scheme: str) -> None:
    logits, labels, quality = candidates(scheme)
    loss = build(scheme)
    weights = torch.rand(18)
    expected = loss(logits, labels, weights, avg_factor=4.0, quality=quality)
    torch.testing.assert_close(loss(logits, (labels, quality), weights, avg_factor=4.0), expected)
    each = loss(logits, (labels, quality), reduction_override='none')
    torch.testing.assert_close(expected, (each * weights).sum() / 4)


@every_scheme
def test_pairwise_is_the_loss_of_each_pair(scheme: str) -> None:
    loss = build(scheme, balance=BALANCES['seesaw'])
    plain = build(scheme)
    logits, _, _ = candidates(scheme, 7)
    wanted = torch.tensor([BEAR, CAR, BEAR, TEDDY, ANIMAL])
    quality = torch.rand(7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    found = loss.pairwise(logits, wanted, quality)
    for place, label in enumerate(wanted):
        each = plain(logits, (label.expand(7), quality[:, place]), reduction_override='none')
        torch.testing.assert_close(found[:, place], each)
    assert loss.state_dict()['balance.seesaw.class_counts'].sum() == 0


@every_scheme
def test_pairwise_of_half_precision_and_of_nothing(scheme: str) -> None:
    loss = build(scheme)
    logits, _, _ = candidates(scheme, 7)
    wanted, quality = torch.tensor([BEAR, CAR]), torch.rand(7, 2)
    half = logits.to(torch.bfloat16)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        found = loss.pairwise(half, wanted, quality)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, loss.pairwise(half.float(), wanted, quality))
    assert loss.pairwise(logits[:0], wanted, quality[:0]).shape == (0, 2)
    assert loss.pairwise(logits, wanted[:0], quality[:, :0]).shape == (7, 0)


@every_scheme
def test_mixed_precision_matches_full(scheme: str) -> None:
    logits, labels, quality = candidates(scheme)
    loss = build(scheme)
    half = logits.half().requires_grad_()
    full = half.detach().float().requires_grad_()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        found = loss(half, (labels, quality))
    assert found.dtype == torch.float32
    expected = loss(full, (labels, quality.float()))
    torch.testing.assert_close(found, expected)
    found.backward()
    expected.backward()
    torch.testing.assert_close(half.grad, full.grad.half())


@pytest.mark.parametrize('scheme', ['path_sum', 'conditional', 'sigmoid'])
@pytest.mark.parametrize('balance', ['seesaw', 'eql', 'logit_adjustment'])
def test_balances_compose(scheme: str, balance: str) -> None:
    """Trained to a quality, a class has that probability, with what balances add in training."""
    loss = build(scheme, balance=BALANCES[balance])
    logits = torch.zeros(2, SCHEMES[scheme].channels(5), requires_grad=True)
    labels, quality = torch.tensor([BEAR, BACKGROUND]), torch.tensor([0.7, 1.0])
    optimiser = torch.optim.Adam([logits], lr=0.15)
    for _ in range(80):
        optimiser.zero_grad()
        loss(logits, (labels, quality)).backward()
        optimiser.step()
    scores = loss._shifted(logits.detach(), labels)
    found = SCHEMES[scheme].probabilities(scores, loss.relations_on(scores.device))
    assert found[0, BEAR].item() == pytest.approx(0.7, abs=0.1)
    assert found[1, :5].max() < 0.35


@every_scheme
def test_an_empty_batch_back_propagates(scheme: str) -> None:
    loss = build(scheme)
    logits = torch.zeros(0, loss.get_cls_channels(5), requires_grad=True)
    labels = torch.zeros(0, dtype=torch.long)
    for known in (None, torch.zeros(0, 5, dtype=torch.bool)):
        loss(logits, (labels, torch.zeros(0)), torch.zeros(0), avg_factor=1.0, known=known).backward()
    assert logits.grad.shape == logits.shape


def test_focal_schemes_add_their_exponent() -> None:
    assert build('tree_min_focal', beta=1).beta == 3
    logits, labels, quality = candidates('tree_min')
    both = build('tree_min_focal', beta=1, options=dict(gamma=0.5))(logits, (labels, quality))
    torch.testing.assert_close(both, build('tree_min', beta=1.5)(logits, (labels, quality)))


def test_the_config_line_of_the_page_builds() -> None:
    page = (Path(__file__).parents[2] / 'docs/losses.md').read_text()
    (line,) = re.findall(r'^loss_cls = (dict\(type=.*)$', page, re.MULTILINE)
    loss = MODELS.build(dict(eval(line), taxonomy=teddy_taxonomy()))
    assert (type(loss), loss.scheme, loss.beta) == (HierarchicalQualityLoss, 'path_sum', 2.0)


def test_clear_errors() -> None:
    # Between 0 and 1 the slope is infinite where the probability is the quality.
    for beta in (-1, float('nan'), float('inf'), '2', True, 0.5):
        with pytest.raises(ConfigError, match=f'beta={beta!r}.*0 or a finite number of at least 1'):
            build('path_sum', beta=beta)
    with pytest.raises(ConfigError, match=r'beta=0 with gamma=0\.5'):
        build('tree_min_focal', beta=0, options=dict(gamma=0.5))
    head = dict(type='hierseg.HierarchicalRTMDetInsHead')
    right = dict(type='hierseg.HierarchicalQualityLoss', taxonomy='t.json', scheme='flat', beta=1)
    require_box_heads(dict(bbox_head=dict(head, loss_cls=right)))
    with pytest.raises(ConfigError, match='unknown option bete'):
        require_box_heads(dict(bbox_head=dict(head, loss_cls=dict(right, bete=2))))
