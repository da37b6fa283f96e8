from __future__ import annotations

import copy
import math
import os
import pickle
import subprocess
from pathlib import Path

import pytest
import torch
from mmdet.models.losses import EQLV2Loss, SeesawLoss
from plain_schemes import possible
from small_store import PETS, Prepared, pets  # noqa: F401
from taxonomies import BEAR, CAR, TEDDY, TOY, teddy_taxonomy, tree_taxonomy
from torch import nn
from warm_python import warm_python

from hierseg.errors import ConfigError, StoreError
from hierseg.functional import SCHEMES, Relations
from hierseg.models import HierarchicalLoss
from hierseg.taxonomy import Taxonomy

COUNTS = [40.0, 10, 20, 5, 25]
BALANCES = {
    'seesaw': dict(type='seesaw'),
    'eql': dict(type='eql'),
    'logit_adjustment': dict(type='logit_adjustment', class_counts=COUNTS),
}
SOFTMAX = [name for name, scheme in SCHEMES.items() if scheme.has_background]
SIGMOID = [name for name in SCHEMES if name not in SOFTMAX]
FLAT = Taxonomy.from_edges(['a', 'b', 'c'], [])


def build(scheme: str, balance: object) -> HierarchicalLoss:
    taxonomy = tree_taxonomy() if SCHEMES[scheme].trees_only else teddy_taxonomy()
    return HierarchicalLoss(taxonomy, scheme=scheme, balance=balance)


def random_batch(loss: HierarchicalLoss, *, seed: int, count: int = 24) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    classes = loss.taxonomy.num_classes
    logits = torch.randn(count, loss.get_cls_channels(classes), generator=generator)
    return logits, torch.randint(0, classes + 1, (count,), generator=generator)


@pytest.mark.parametrize('scheme', SCHEMES)
@pytest.mark.parametrize('balance', [*([entry] for entry in BALANCES.values()), list(BALANCES.values())])
def test_composes_with_every_scheme(scheme: str, balance: list[dict]) -> None:
    loss = build(scheme, balance)
    logits, labels = random_batch(loss, seed=0)
    known = torch.rand(24, 5, generator=torch.Generator().manual_seed(0)) < 0.5
    logits = torch.nn.Parameter(logits)
    optimiser = torch.optim.SGD([logits], lr=0.5)
    costs = []
    for _ in range(30):
        optimiser.zero_grad()
        cost = loss(logits, labels, torch.ones(24), avg_factor=2.0, known=known)
        cost.backward()
        assert logits.grad.isfinite().all()
        optimiser.step()
        costs.append(cost.item())
    assert all(map(math.isfinite, costs))
    assert costs[-1] < costs[0]
    extreme = torch.full_like(logits.detach(), 1e4)
    extreme[:, ::2] *= -1
    extreme.requires_grad_()
    cost = loss(extreme, labels)
    cost.backward()
    assert cost.isfinite()
    assert extreme.grad.isfinite().all()
    empty = torch.zeros(0, logits.shape[1], requires_grad=True)
    loss(empty, labels[:0], torch.zeros(0), avg_factor=1.0).backward()
    assert empty.grad.shape == empty.shape


@pytest.mark.parametrize('scheme', SCHEMES)
@pytest.mark.parametrize('balance', BALANCES.values(), ids=BALANCES)
def test_a_restored_run_goes_on_as_if_it_had_not_stopped(scheme: str, balance: dict) -> None:
    whole, first = build(scheme, balance), build(scheme, balance)
    for seed in range(3):
        whole(*_with_gradient(random_batch(whole, seed=seed)))
        first(*_with_gradient(random_batch(first, seed=seed)))
    resumed = build(scheme, balance)
    resumed.load_state_dict(pickle.loads(pickle.dumps(first.state_dict())))
    again = [resumed, pickle.loads(pickle.dumps(first)), copy.deepcopy(first)]
    for seed in range(3, 6):
        expected = _with_gradient(random_batch(whole, seed=seed))
        whole(*expected).backward()
        for loss in again:
            found = _with_gradient(random_batch(loss, seed=seed))
            loss(*found).backward()
            assert found[0].grad.equal(expected[0].grad)
    state = {'seesaw': ['balance.seesaw.class_counts'], 'eql': ['balance.eql.positive', 'balance.eql.negative']}
    assert list(first.state_dict()) == state.get(balance['type'], [])


def _with_gradient(batch: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    return batch[0].requires_grad_(), batch[1]


@pytest.mark.parametrize('balance', ['seesaw', 'eql'])
def test_evaluation_leaves_the_state_alone(balance: str) -> None:
    loss = build('path_sum', BALANCES[balance])
    logits, labels = _with_gradient(random_batch(loss, seed=0))
    loss(logits, labels)
    before = {name: value.clone() for name, value in loss.state_dict().items()}
    assert sum(value.abs().sum() for value in before.values()) > 0
    loss.eval()
    loss(logits, labels).backward()
    with torch.no_grad():
        loss.train()(logits, labels) if balance == 'eql' else loss(logits, labels)
    assert all(value.equal(before[name]) for name, value in loss.state_dict().items())


def test_seesaw_counts_before_it_weighs() -> None:
    loss = HierarchicalLoss(teddy_taxonomy(), scheme='flat', balance=dict(type='seesaw', p=0.8, q=0))
    logits = torch.zeros(5, 6)
    labels = torch.tensor([TEDDY, TEDDY, CAR, 5, TOY])
    found = loss(logits, labels, torch.tensor([1.0, 1, 1, 1, 0]), reduction_override='none')
    # toy 2, animal 2, bear 2, teddy 2, car 1; the last RoI has no weight.
    assert loss.balance['seesaw'].class_counts.tolist() == [2, 2, 2, 2, 1]
    # Of equal scores: a teddy presses on car (1 against 2) as on 2^-0.8 cars; a car on all others fully.
    assert found[0].item() == pytest.approx(math.log(5 + 2**-0.8))
    assert found[2].item() == pytest.approx(math.log(6))
    assert found[3].item() == pytest.approx(math.log(6))
    loss(logits, labels)
    assert loss.balance['seesaw'].class_counts.tolist() == [5, 4, 4, 4, 2]


def test_seesaw_of_objects_is_mmdets_on_a_flat_taxonomy() -> None:
    # mmdet tells background apart in two channels of its own; far below all, ours does not count.
    ours = HierarchicalLoss(FLAT, balance=dict(type='seesaw'))
    theirs = SeesawLoss(num_classes=3, return_dict=True)
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        logits, labels = torch.randn(30, 3, generator=generator) * 2, torch.randint(0, 3, (30,), generator=generator)
        found = ours(torch.cat([logits, torch.full((30, 1), -1e3)], dim=1), labels)
        expected = theirs(torch.cat([logits, torch.zeros(30, 2)], dim=1), labels)['loss_cls_classes']
        torch.testing.assert_close(found, expected)


def test_eql_is_mmdets_on_a_flat_taxonomy() -> None:
    ours = HierarchicalLoss(FLAT, scheme='sigmoid', balance=dict(type='eql'))
    theirs = EQLV2Loss(num_classes=3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        logits, labels = torch.randn(30, 4, generator=generator), torch.randint(0, 4, (30,), generator=generator)
        # Ours takes a logit of zero for odds of 1 to 99.
        mine, other = (logits[:, :3] + math.log(99)).requires_grad_(), logits.clone().requires_grad_()
        ours(mine, labels).backward()
        theirs(other, labels).backward()
        # Theirs has a channel for background besides.
        torch.testing.assert_close(mine.grad, other.grad[:, :3], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(ours.balance['eql'].positive.float(), theirs.pos_grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('scheme', SIGMOID)
def test_eql_of_sigmoids_equals_a_plain_loop(scheme: str) -> None:
    loss, plain = build(scheme, BALANCES['eql']), build(scheme, None)
    raised, lowered = [0.0] * 5, [0.0] * 5
    for seed in range(4):
        logits, labels = random_batch(loss, seed=seed)
        weights = torch.rand(24, generator=torch.Generator().manual_seed(seed))
        mine, other = logits.clone().requires_grad_(), logits.clone().requires_grad_()
        found = loss(mine, labels, weights)
        expected = plain(other, labels, weights)
        assert found.item() == pytest.approx(expected.item())
        found.backward()
        expected.backward()
        before = list(raised), list(lowered)
        for row in range(24):
            for channel in range(logits.shape[1]):
                gradient, factor = other.grad[row, channel].item(), 1.0
                if channel < 5:
                    ups, downs = before[0][channel], before[1][channel]
                    low = 1 / (1 + math.exp(-12 * (ups / downs - 0.8))) if downs else 1.0
                    factor = 1 + 4 * (1 - low) if gradient < 0 else low
                    # The mean over 24 RoIs is taken back.
                    side = raised if gradient < 0 else lowered
                    side[channel] += abs(gradient * factor) * 24
                assert mine.grad[row, channel].item() == pytest.approx(gradient * factor, rel=1e-4, abs=1e-7)
        assert loss.balance['eql'].positive.tolist() == pytest.approx(raised, rel=1e-4)
        assert loss.balance['eql'].negative.tolist() == pytest.approx(lowered, rel=1e-4)


def test_eql_of_a_softmax_by_hand() -> None:
    loss = build('flat', BALANCES['eql'])
    state = loss.balance['eql']
    # toy 0.8, f = 1/2; animal nothing has lowered, 1; bear next to never raised, 0.01; teddy and car as often as not.
    state.positive.copy_(torch.tensor([4.0, 1, 0, 9, 9]))
    state.negative.copy_(torch.tensor([5.0, 0, 7, 0.1, 0.1]))
    labels = torch.tensor([CAR, TOY, TEDDY, 5, BEAR])
    with torch.no_grad():
        found = loss(torch.zeros(5, 6), labels, reduction_override='none')
    # Equal scores. A car among half a toy, an animal, a hundredth of a bear, a teddy, itself and background.
    assert found[0].item() == pytest.approx(math.log(0.5 + 1 + 0.01 + 1 + 1 + 1))
    # A toy or teddy, times 1 + 4 / 2, against an animal and a bear that a teddy would be, a car and background.
    assert found[1].item() == pytest.approx(3 * math.log(6 / 2))
    # A teddy is a toy, an animal and a bear.
    assert found[2].item() == pytest.approx(math.log(6))
    # Background counts all classes fully.
    assert found[3].item() == pytest.approx(math.log(6))
    # Bear or teddy, times all but 5: f(0) is no 0.
    assert found[4].item() == pytest.approx((5 - 4 / (1 + math.exp(9.6))) * math.log(6 / 2))
    # What it learns from is what it says.
    logits = torch.zeros(5, 6, requires_grad=True)
    assert loss.eval()(logits, labels, reduction_override='none').tolist() == found.tolist()


@pytest.mark.parametrize('others', [[], [BALANCES['seesaw']]], ids=['alone', 'with seesaw'])
@pytest.mark.parametrize('scheme', SOFTMAX)
def test_eql_of_a_softmax_learns_from_a_written_objective(scheme: str, others: list[dict]) -> None:
    loss, plain = build(scheme, [*others, BALANCES['eql']]), build(scheme, others)
    taxonomy, relations = loss.taxonomy, Relations.of(loss.taxonomy.arrays)
    raised, lowered = torch.zeros(5), torch.zeros(5)
    for seed in range(4):
        logits, labels = random_batch(loss, seed=seed)
        weights = torch.rand(24, generator=torch.Generator().manual_seed(seed))
        mine, other = logits.clone().requires_grad_(), logits.clone().requires_grad_()
        found = loss(mine, labels, weights)
        # Its own counts, brought up to date.
        plain(logits, labels, weights)
        ratios = [up / down if down else 2 for up, down in zip(raised.tolist(), lowered.tolist(), strict=True)]
        low = [1 / (1 + math.exp(-12 * (ratio - 0.8))) for ratio in ratios]
        offsets, factors = torch.zeros(24, 6), torch.ones(24)
        for row, label in enumerate(labels.tolist()):
            if label < 5:
                factors[row] = 1 + 4 * (1 - low[label])
                for wrong in set(range(5)) - possible(taxonomy, label):
                    offsets[row, wrong] = math.log(max(low[wrong], 0.01))
        scores = SCHEMES[scheme].scores(other, relations)
        for balance in plain.balance.values():
            offsets = offsets + balance.offsets(scores, labels, relations)
        losses = SCHEMES[scheme].losses(scores + offsets, labels, relations, known=None, **loss.options)
        expected = (losses * factors * weights).mean()
        assert found.item() == pytest.approx(expected.item(), rel=1e-5)
        found.backward()
        expected.backward()
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-4, atol=1e-7)
        # The mean over 24 RoIs is taken back.
        raised += 24 * (-other.grad[:, :5]).clamp(min=0).sum(dim=0)
        lowered += 24 * other.grad[:, :5].clamp(min=0).sum(dim=0)
        torch.testing.assert_close(loss.balance['eql'].positive.float(), raised, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(loss.balance['eql'].negative.float(), lowered, rtol=1e-4, atol=1e-5)
    assert min(low) < 0.5


@pytest.mark.parametrize('scheme', SOFTMAX)
def test_eql_leaves_frequent_classes_of_a_softmax_alone(scheme: str) -> None:
    loss, plain = build(scheme, BALANCES['eql']), build(scheme, None)
    loss.balance['eql'].positive.fill_(40)
    loss.balance['eql'].negative.fill_(10)
    logits, labels = random_batch(loss, seed=0)
    mine, other = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    found, expected = loss(mine, labels), plain(other, labels)
    torch.testing.assert_close(found, expected)
    found.backward()
    expected.backward()
    torch.testing.assert_close(mine.grad, other.grad)


@pytest.mark.parametrize('hidden', [False, True], ids=['fixed features', 'learnt features'])
@pytest.mark.parametrize('scheme', SOFTMAX)
def test_eql_keeps_a_softmax_bounded(scheme: str, hidden: bool) -> None:
    """Long-tailed labels that nothing in the features tells: what the loss cannot undo adds up."""
    middles = [a + b for a in 'abcd' for b in 'abcd']
    leaves = [ab + c for ab in middles for c in 'abcd']
    taxonomy = Taxonomy.from_edges([*'abcd', *middles, *leaves], [(name, name[:-1]) for name in middles + leaves])
    loss = HierarchicalLoss(taxonomy, scheme=scheme, balance=BALANCES['eql'])
    plain = HierarchicalLoss(taxonomy, scheme=scheme)
    generator = torch.Generator().manual_seed(0)
    shares = 1 / torch.arange(1.0, 85)
    shares = torch.cat([0.25 * shares / shares.sum(), torch.tensor([0.75])])
    labels = torch.multinomial(shares, 4096, replacement=True, generator=generator)
    features = (torch.randn(4096, 64, generator=generator) + 1).relu()
    layers = [nn.Linear(64, 64), nn.ReLU()] if hidden else []
    model = nn.Sequential(*layers, nn.Linear(64, 85))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1 if parameter.dim() == 2 else 0, generator=generator)
    start = plain(model(features), labels).item()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    largest = 0.0
    for _ in range(300):
        chosen = torch.randint(0, 4096, (64,), generator=generator)
        logits = model(features[chosen])
        cost = loss(logits, labels[chosen])
        assert cost.isfinite()
        largest = max(largest, logits.abs().max().item())
        optimiser.zero_grad()
        cost.backward()
        optimiser.step()
    end = plain(model(features), labels).item()
    assert end < start
    assert largest < 30


def test_eql_does_not_see_the_scale_of_mixed_precision() -> None:
    loss, scaled = build('path_sum', BALANCES['eql']), build('path_sum', BALANCES['eql'])
    logits, labels = random_batch(loss, seed=0)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        (scaled(logits.clone().requires_grad_(), labels) * 65536).backward()
    loss(logits.requires_grad_(), labels).backward()
    assert scaled.balance['eql'].positive.equal(loss.balance['eql'].positive)


def test_logit_adjustment_of_outcomes() -> None:
    loss, plain = build('flat', BALANCES['logit_adjustment']), build('flat', None)
    logits, labels = random_batch(loss, seed=0)
    # Outcomes compete with one another by instances labelled exactly so, 5 of them sharing 100.
    offsets = torch.tensor([math.log(5 * count / 100) for count in COUNTS] + [0])
    torch.testing.assert_close(loss(logits, labels), plain(logits + offsets, labels))
    torch.testing.assert_close(loss.get_activation(logits), plain.get_activation(logits))


def test_logit_adjustment_among_siblings() -> None:
    loss, plain = build('sigmoid', BALANCES['logit_adjustment']), build('sigmoid', None)
    logits, labels = random_batch(loss, seed=0)
    # With all below: toy 45, animal 35, car 25 of 105; bear 25 alone under animal, teddy 5 alone under toy.
    expanded = [3 * 45 / 105, 3 * 35 / 105, 1, 1, 3 * 25 / 105]
    torch.testing.assert_close(loss(logits, labels), plain(logits + torch.tensor(expanded).log(), labels))


def test_logit_adjustment_counts_a_store_when_the_first_loss_asks(pets: Prepared, tmp_path) -> None:  # noqa: F811
    balance = dict(type='logit_adjustment', class_counts=str(pets.store))
    # A teddy and two dogs train; groups do not.
    counted = HierarchicalLoss(PETS, balance=balance)
    logits, labels = random_batch(counted, seed=0)
    # Nor does the dog of half a pixel.
    expected = HierarchicalLoss(PETS, balance=dict(type='logit_adjustment', class_counts=[0, 0, 1, 2]))
    torch.testing.assert_close(counted(logits, labels), expected(logits, labels))

    missing = HierarchicalLoss(PETS, balance=dict(type='logit_adjustment', class_counts=str(tmp_path / 'missing')))
    missing.get_activation(logits)
    with pytest.raises(StoreError, match='missing'):
        missing(logits, labels)
    other = HierarchicalLoss(teddy_taxonomy(), balance=balance)
    batch = random_batch(other, seed=0)
    with pytest.raises(ConfigError, match='counts of 4 classes for a taxonomy of 5'):
        other(*batch)


@pytest.mark.parametrize(
    ('scheme', 'balance', 'cars', 'steps'),
    [
        ('flat', dict(type='logit_adjustment', class_counts=[1, 0, 0, 0, 19]), 19, 50),
        ('flat', dict(type='seesaw', q=0), 19, 50),
        # It keeps negatives from wearing a rare class down; in the end the gradients balance out by themselves.
        ('sigmoid', dict(type='eql'), 499, 100),
        ('flat', dict(type='eql'), 499, 100),
        ('path_sum', dict(type='eql'), 499, 100),
    ],
)
def test_a_rare_class_gains(scheme: str, balance: dict, cars: int, steps: int) -> None:
    """A RoI that always looks the same, labelled toy once and car else."""
    labels = torch.tensor([CAR] * cars + [TOY])
    toy = []
    for option in (None, balance):
        loss = HierarchicalLoss(teddy_taxonomy(), scheme=scheme, balance=option)
        logits = torch.zeros(1, loss.get_cls_channels(5), requires_grad=True)
        optimiser = torch.optim.SGD([logits], lr=5)
        for _ in range(steps):
            optimiser.zero_grad()
            loss(logits.expand(len(labels), -1), labels).backward()
            optimiser.step()
        toy.append(loss.get_activation(logits.detach())[0, TOY].item())
    assert toy[0] == pytest.approx(1 / (cars + 1), rel=0.5)
    assert toy[1] > 2 * toy[0]


@pytest.mark.distributed
def test_two_ranks_know_what_one_would(tmp_path: Path) -> None:
    loss = build('path_sum', [BALANCES['seesaw'], BALANCES['eql']])
    batches = [random_batch(loss, seed=seed) for seed in range(3)]
    torch.save(batches, tmp_path / 'batches.pt')
    script = Path(__file__).with_name('balance_one_rank.py')
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(map(str, [script.parents[2], script.parents[1]]))}
    ranks = [
        subprocess.Popen([warm_python(), script, str(rank), tmp_path], cwd=tmp_path, env=environment)
        for rank in range(2)
    ]
    assert [rank.wait(timeout=120) for rank in ranks] == [0, 0]
    for logits, labels in batches:
        loss(logits.requires_grad_(), labels)
    first, second = (torch.load(tmp_path / f'state{rank}.pt') for rank in range(2))
    for name, value in loss.state_dict().items():
        assert first[name].equal(second[name])
        torch.testing.assert_close(first[name], value)


def test_clear_errors() -> None:
    for balance, message in [
        (dict(type='focal'), "unknown balance type 'focal'"),
        (dict(p=1), 'unknown balance type None'),
        ([dict(type='eql'), dict(type='eql')], "'eql' occurs twice"),
        (dict(type='seesaw', r=1), 'unexpected keyword argument'),
        (dict(type='seesaw', p=-1), 'p=-1'),
        (dict(type='eql', mu='high'), "mu='high'"),
        (dict(type='logit_adjustment'), 'class_counts'),
        (dict(type='logit_adjustment', class_counts=[1, 2]), 'counts of 2 classes for a taxonomy of 5'),
        (dict(type='logit_adjustment', class_counts=[1, 2, 3, 4, -5]), 'class_counts'),
    ]:
        with pytest.raises(ConfigError, match=message):
            HierarchicalLoss(teddy_taxonomy(), balance=balance)
