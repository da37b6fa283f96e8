from __future__ import annotations

import copy
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from small_store import PETS, Prepared, pets
from taxonomies import ANIMAL, BEAR, CAR, TEDDY, TOY, random_taxonomies, teddy_taxonomy
from tiny_models import losses, sample, tiny_model

from hierseg.errors import ConfigError, StoreError
from hierseg.models import HierarchicalLoss
from hierseg.models.verified import KnownClasses, known_classes, pass_known_classes, weighted_draw
from hierseg.registry import MODELS
from hierseg.synthetic import AnnotationRates, SplitOptions, default_taxonomy
from hierseg.synthetic.population import long_tail_shares, plan_population, verified_labels
from hierseg.taxonomy import Taxonomy

__all__ = ['pets']

TEDDIES = teddy_taxonomy()


def labels(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


@pytest.mark.parametrize(
    ('positive', 'negative', 'expected'),
    [
        ([], [], set()),
        # A bear is an animal; whether it is a teddy, nobody said.
        ([BEAR], [], {ANIMAL, BEAR}),
        # Up by all paths, whichever parent is the preferred one.
        ([TEDDY], [], {TOY, ANIMAL, BEAR, TEDDY}),
        # No toy, so no teddy.
        ([], [TOY], {TOY, TEDDY}),
        ([], [ANIMAL], {ANIMAL, BEAR, TEDDY}),
        # A toy, and no bear: not a teddy, then.
        ([TOY], [BEAR], {TOY, BEAR, TEDDY}),
        # "A bear and no animal": there is an animal, and of a teddy we know nothing.
        ([BEAR], [ANIMAL], {ANIMAL, BEAR}),
        ([CAR, CAR], [CAR], {CAR}),
    ],
)
def test_what_follows_from_verified_labels(positive: list[int], negative: list[int], expected: set[int]) -> None:
    found = known_classes(labels(*positive), labels(*negative), TEDDIES.arrays)
    assert set(np.flatnonzero(found).tolist()) == expected


@given(st.data())
def test_equals_a_walk_over_the_graph(data: st.DataObject) -> None:
    taxonomy = data.draw(random_taxonomies())
    some = st.lists(st.integers(0, taxonomy.num_classes - 1), max_size=4)
    positive, negative = data.draw(some), data.draw(some)
    present = set(positive).union(*(taxonomy.ancestors(label) for label in positive))
    absent = {label for label in negative if label not in present}
    absent = absent.union(*(taxonomy.descendants(label) for label in absent))
    found = known_classes(labels(*positive), labels(*negative), taxonomy.arrays)
    assert set(np.flatnonzero(found).tolist()) == present | absent


def test_no_object_without_annotation_is_taken_for_absent() -> None:
    """On synthetic images with 30 % of the objects not annotated, whose truth is known."""
    taxonomy = default_taxonomy()
    ancestor_mask = taxonomy.arrays.ancestor_mask
    generator = np.random.default_rng(0)
    split = SplitOptions('train', 300, None, AnnotationRates(unannotated=0.3))
    shares = long_tail_shares(taxonomy, 30.0)
    planned = plan_population(taxonomy, shares, split, objects_per_image=3.5, generator=generator)
    hidden = wrong = negatives = 0
    for first, last in pairwise(planned.first_objects):
        objects, annotated = planned.labels[first:last], planned.annotated_labels[first:last]
        positive, negative = verified_labels(taxonomy, objects, annotated, negatives=4, generator=generator)
        known = known_classes(np.concatenate([positive, annotated[annotated >= 0]]), negative, taxonomy.arrays)
        is_there = ancestor_mask[objects].any(axis=0)
        is_annotated = ancestor_mask[annotated[annotated >= 0]].any(axis=0)
        hidden += int((is_there & ~is_annotated).sum())
        wrong += int((known & is_there & ~is_annotated).sum())
        negatives += int((known & ~is_there).sum())
    assert (planned.annotated_labels < 0).mean() == pytest.approx(0.3, abs=0.05)
    # Two classes to an image are there without an annotation; without the option each would be a negative.
    assert hidden > 1.5 * 300
    assert wrong == 0
    assert negatives > 4 * 300


def test_draws_in_proportion_and_never_twice() -> None:
    # Two of three with weights 1, 2, 3. The first is in the draw with 1/6 as first and with
    # 2/6 · 1/4 + 3/6 · 1/3 as second, 5/12 in all; the second with 2/6 + 1/6 · 2/5 + 3/6 · 2/3 = 11/15.
    torch.manual_seed(0)
    candidates = torch.ones(40_000, 4, dtype=torch.bool)
    candidates[:, 3] = False
    drawn = weighted_draw(torch.tensor([1.0, 2.0, 3.0, 100.0]), candidates, 2)
    assert (drawn.sum(dim=1) == 2).all()
    expected = torch.tensor([5 / 12, 11 / 15, 2 - 5 / 12 - 11 / 15, 0.0])
    # Four standard deviations of a share of 40,000.
    torch.testing.assert_close(drawn.float().mean(dim=0), expected, atol=0.01, rtol=0)


def test_draws_what_there_is() -> None:
    candidates = torch.tensor([[True, False, True], [False, False, False], [True, True, True]])
    assert torch.equal(weighted_draw(torch.ones(3), candidates, 7), candidates)
    assert not weighted_draw(torch.ones(3), candidates, 0).any()


def test_weights_follow_from_the_store(pets: Prepared) -> None:
    # Images with a toy (through its teddy): 1, an animal: 2, a teddy: 1, a dog: 2. The groups and the dog half a
    # pixel wide train nothing.
    found = KnownClasses(PETS, class_counts=str(pets.store)).weights
    torch.testing.assert_close(found, torch.tensor([1, 2**0.5, 1, 2**0.5], dtype=torch.float64))
    linear = KnownClasses(PETS, class_counts=pets.store, power=1.0).weights
    torch.testing.assert_close(linear, torch.tensor([1, 2, 1, 2], dtype=torch.float64))


def test_a_class_of_no_image_can_be_drawn() -> None:
    known = KnownClasses(TEDDIES, class_counts=[4, 0, 9, 1, 0], num_negatives=5)
    torch.testing.assert_close(known.weights, torch.tensor([2.0, 1, 3, 1, 1], dtype=torch.float64))
    assert known([image()]).all()


def image(*, positive: Any = (), negative: Any = (), annotated: Any = (), ignored: Any = ()) -> DetDataSample:
    found = sample([*annotated, *ignored], masks=[True] * len([*annotated, *ignored]), ignored=len(ignored))
    found.set_metainfo(dict(img_id='a', verified_positive=labels(*positive), verified_negative=labels(*negative)))
    return found


def test_instances_are_there_and_so_is_what_a_group_holds() -> None:
    known = KnownClasses(TEDDIES, class_counts=[1] * 5, num_negatives=0)
    found = known([image(annotated=[BEAR]), image(annotated=[CAR], ignored=[TOY]), image(positive=[CAR]), image()])
    assert found.dtype == torch.bool
    sets = [set(row.nonzero().flatten().tolist()) for row in found]
    assert sets == [{ANIMAL, BEAR}, {TOY, CAR}, {CAR}, set()]
    # An instance of what is said to be absent: the instance is right.
    contradiction = known([image(negative=[ANIMAL], annotated=[BEAR])])
    assert contradiction.nonzero()[:, 1].tolist() == [ANIMAL, BEAR]


def test_what_is_not_annotated_exhaustively_is_unknown_and_never_drawn() -> None:
    # All that is not known would be drawn. More bears without an annotation are animals without one; the toy among
    # their neighbours is known all the same.
    known = KnownClasses(TEDDIES, class_counts=[1] * 5, num_negatives=5)
    open_bears = image(annotated=[BEAR, TOY, CAR])
    open_bears.set_metainfo(dict(not_exhaustive=labels(BEAR)))
    found = known([open_bears, image(annotated=[BEAR])])
    assert found[0].nonzero().flatten().tolist() == sorted({*range(5)} - {ANIMAL, BEAR})
    assert found[1].all()


def test_each_image_draws_its_own_negatives_and_a_seed_draws_them_again() -> None:
    wide = Taxonomy.from_edges([f'c{index}' for index in range(40)], [])
    known = KnownClasses(wide, class_counts=[1] * 40, num_negatives=10)
    batch = [image(positive=[0, 1], negative=[2]) for _ in range(3)]
    torch.manual_seed(5)
    found = known(batch)
    assert found[:, :3].all()
    assert found.sum(dim=1).tolist() == [13, 13, 13]
    assert not torch.equal(found[0], found[1])
    assert not torch.equal(found, known(batch))
    torch.manual_seed(5)
    assert torch.equal(found, known(batch))


def test_a_loss_is_told_for_as_long_as_the_context_lasts() -> None:
    loss = HierarchicalLoss(TEDDIES)
    logits, targets = torch.randn(6, 6, generator=torch.Generator().manual_seed(0)), torch.arange(6)
    known = torch.zeros(6, 5, dtype=torch.bool)
    known[:, CAR] = True
    told, plain = loss(logits, targets, known=known), loss(logits, targets)
    assert not torch.isclose(told, plain)
    with pass_known_classes(loss, known):
        torch.testing.assert_close(loss(logits, targets, None, avg_factor=6.0), told)
    torch.testing.assert_close(loss(logits, targets), plain)
    with pytest.raises(RuntimeError), pass_known_classes(loss, known):
        raise RuntimeError
    torch.testing.assert_close(loss(logits, targets), plain)


def test_clear_errors(pets: Prepared) -> None:
    with pytest.raises(ConfigError, match='num_negatives=-1'):
        KnownClasses(TEDDIES, class_counts=[1] * 5, num_negatives=-1)
    with pytest.raises(ConfigError, match='power=-2'):
        KnownClasses(TEDDIES, class_counts=[1] * 5, power=-2)
    for counts in ([1] * 4, [1, 1, 1, 1, -1]):
        with pytest.raises(ConfigError, match='5 of 0 or more expected'):
            KnownClasses(TEDDIES, class_counts=counts)
    known = KnownClasses(TEDDIES, class_counts=[1] * 5)
    with pytest.raises(ConfigError, match=r'image a comes without verified labels.*meta_keys of PackDetInputs'):
        known([DetDataSample(metainfo=dict(img_id='a'))])
    with pytest.raises(ConfigError, match='the taxonomies differ'):
        KnownClasses(TEDDIES, class_counts=pets.store)([image()])


def model_with(verified: dict[str, Any] | None) -> Any:
    config = copy.deepcopy(tiny_model())
    config.roi_head.verified = verified
    torch.manual_seed(0)
    return MODELS.build(config).train()


def test_a_store_that_is_not_here_is_no_obstacle_to_testing() -> None:
    model = model_with(dict(class_counts='nowhere/store'))
    with pytest.raises(StoreError, match='nowhere'):
        losses(model, [image(annotated=[CAR])])
    model.eval()
    images = [torch.randint(0, 255, (3, 64, 96), dtype=torch.uint8)]
    with torch.no_grad():
        assert len(model.test_step(dict(inputs=images, data_samples=[image()]))) == 1


def trained_rows(model: Any, samples: list[DetDataSample]) -> list[bool]:
    """Which of the classifier's channels, background last, a step would change."""
    model.zero_grad()
    losses(model, samples)['loss_cls'].backward()
    return (model.roi_head.bbox_head.fc_cls.weight.grad.abs().sum(dim=1) > 0).tolist()


def seen_by_the_loss(model: Any, samples: list[DetDataSample]) -> tuple[torch.Tensor, torch.Tensor]:
    """Labels of the RoIs, and which classes count for each."""
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    hook = model.roi_head.bbox_head.loss_cls.register_forward_hook(
        lambda _, given, named, __: seen.append((given[1], named['known'])), with_kwargs=True
    )
    with hook:
        losses(model, samples)
    return seen[0]


def test_nothing_is_learnt_about_classes_that_nobody_looked_for() -> None:
    model = model_with(dict(class_counts=[1] * 5, num_negatives=0))
    assert trained_rows(model, [image(annotated=[CAR])]) == [False, False, False, False, True, True]
    # "No toy" also says something of teddies, and through them, by path-sum, of bears and animals.
    assert all(trained_rows(model, [image(annotated=[CAR], negative=[TOY])]))
    # A car with all others drawn, and the model without the option.
    assert all(trained_rows(model_with(dict(class_counts=[1] * 5, num_negatives=4)), [image(annotated=[CAR])]))
    assert all(trained_rows(model_with(None), [image(annotated=[CAR])]))


def test_a_coarse_label_leaves_its_descendants_open() -> None:
    """Of an animal, bear and teddy may be the truth; elsewhere on the image they are unknown."""
    model = model_with(dict(class_counts=[1] * 5, num_negatives=0))
    targets, known = seen_by_the_loss(model, [image(annotated=[ANIMAL])])
    assert set(targets.tolist()) == {ANIMAL, 5}
    assert known.nonzero()[:, 1].unique().tolist() == [ANIMAL]
    logits = torch.zeros(len(targets), 6, requires_grad=True)
    model.roi_head.bbox_head.loss_cls(logits, targets, known=known, reduction_override='sum').backward()
    # Positive gradient is a push down. Boxes that are no animal push only "an animal and nothing deeper" down;
    # those that are push bear up.
    on_object = targets == ANIMAL
    assert (logits.grad[on_object][:, [BEAR, TEDDY]] < 0).all()
    assert (logits.grad[~on_object][:, [BEAR, TEDDY]] == 0).all()
    assert (logits.grad[~on_object][:, ANIMAL] > 0).all()


def test_every_box_gets_what_is_known_on_its_own_image() -> None:
    model = model_with(dict(class_counts=[1] * 5, num_negatives=0))
    samples = [image(annotated=[CAR]), image(), image(annotated=[BEAR], negative=[TOY])]
    targets, known = seen_by_the_loss(model, samples)
    assert known.shape == (len(targets), 5)
    assert known[targets == CAR].nonzero()[:, 1].unique().tolist() == [CAR]
    expected = torch.tensor([[0, 0, 0, 0, 1], [0, 0, 0, 0, 0], [1, 1, 1, 1, 0]], dtype=torch.bool)
    assert (known[targets == BEAR] == expected[2]).all()
    # Backgrounds, too: in three runs, in the order of the images.
    runs = known[torch.cat([torch.tensor([True]), (known[1:] != known[:-1]).any(dim=1)])]
    assert torch.equal(runs, expected)


def test_known_everywhere_is_mmdets_training() -> None:
    samples = [image(positive=[BEAR], negative=[TOY, CAR], annotated=[BEAR])]
    found = []
    for verified in (dict(class_counts=[1] * 5, num_negatives=1), None):
        model = model_with(verified)
        # Which boxes are sampled must not depend on what was drawn before.
        model.roi_head.bbox_sampler.num = 10_000
        found.append(losses(model, samples)['loss_cls'])
    torch.testing.assert_close(*found)


def test_boxes_in_a_group_train_nothing() -> None:
    """A proposal inside a group-of box is neither object nor background, in both stages."""
    model = model_with(None)
    # Boxes of the sample: a car at x 4 to 28 and a group at x 34 to 58; y 20 to 44.
    found = image(annotated=[CAR], ignored=[ANIMAL])
    proposals = torch.tensor([[5.0, 21, 27, 43], [35, 21, 50, 40], [34, 20, 58, 44], [60, 2, 90, 18], [40, 30, 80, 60]])
    inside = torch.tensor([False, True, True, False, False])
    for assigner in (model.rpn_head.assigner, model.roi_head.bbox_assigner):
        assigned = assigner.assign(InstanceData(priors=proposals), found.gt_instances, found.ignored_instances)
        assert ((assigned.gt_inds == -1) == inside).all()
    seen = []
    hook = model.roi_head.bbox_roi_extractor.register_forward_pre_hook(lambda _, given: seen.append(given[1]))
    features = model.extract_feat(torch.zeros(1, 3, 64, 96))
    with hook:
        model.roi_head.loss(features, [InstanceData(bboxes=proposals)], [found])
    sampled = {tuple(row) for row in seen[0][:, 1:].tolist()}
    car = (4.0, 20.0, 28.0, 44.0)  # mmdet adds the annotated boxes to the proposals
    assert sampled == {tuple(row) for row in proposals[~inside].tolist()} | {car}
