"""Assignment by the hierarchical cost: mmdet's on a flat taxonomy, and what mmdet leaves out."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from mmdet.models.task_modules.assigners import DynamicSoftLabelAssigner
from mmdet.models.task_modules.assigners.dynamic_soft_label_assigner import center_of_mass
from mmengine.structures import InstanceData
from torch.utils._python_dispatch import TorchDispatchMode

from hierseg.models import HierarchicalQualityLoss, HierarchicalSoftLabelAssigner
from hierseg.models.assigner import centers_of_mass
from hierseg.taxonomy import Taxonomy

SIZE = 128


def flat(count: int) -> Taxonomy:
    return Taxonomy.from_edges([f'c{index}' for index in range(count)], [])


def assigner_of(taxonomy: Taxonomy, scheme: str = 'sigmoid', **options: Any) -> HierarchicalSoftLabelAssigner:
    assigner = HierarchicalSoftLabelAssigner(**options)
    assigner.class_costs = HierarchicalQualityLoss(taxonomy, scheme=scheme).pairwise
    return assigner


def points() -> torch.Tensor:
    """The points of an image's three levels: centre and stride."""
    levels = []
    for stride in (8, 16, 32):
        line = torch.arange(0, SIZE, stride).float()
        y, x = torch.meshgrid(line, line, indexing='ij')
        levels.append(torch.stack([x, y, torch.full_like(x, stride), torch.full_like(x, stride)], dim=-1).view(-1, 4))
    return torch.cat(levels)


def image(seed: int, objects: int, *, classes: int, channels: int | None = None) -> tuple[InstanceData, InstanceData]:
    """Predictions of a head that has learnt something, and objects with masks."""
    generator = torch.Generator().manual_seed(seed)
    priors = points()
    corners = torch.rand(objects, 2, generator=generator) * 80
    boxes = torch.cat([corners, corners + 9 + torch.rand(objects, 2, generator=generator) * 36], dim=1)
    labels = torch.randint(0, classes, (objects,), generator=generator)
    masks = torch.rand(objects, SIZE, SIZE, generator=generator) < 0.5
    y, x = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing='ij')
    inside = (x >= boxes[:, 0, None, None]) & (x < boxes[:, 2, None, None])
    masks &= inside & (y >= boxes[:, 1, None, None]) & (y < boxes[:, 3, None, None])
    reach = priors[:, 2:3] * (0.5 + 2 * torch.rand(len(priors), 4, generator=generator))
    found = torch.cat([priors[:, :2] - reach[:, :2], priors[:, :2] + reach[:, 2:]], dim=1)
    scores = 2 * torch.randn(len(priors), channels or classes, generator=generator) - 2
    return (
        InstanceData(scores=scores, bboxes=found, priors=priors),
        InstanceData(bboxes=boxes, labels=labels, masks=masks),
    )


@pytest.mark.parametrize('objects', [0, 1, 3, 12])
@pytest.mark.parametrize('seed', range(4))
def test_is_mmdets_on_a_flat_taxonomy(seed: int, objects: int) -> None:
    predicted, annotated = image(seed, objects, classes=20)
    expected = DynamicSoftLabelAssigner(topk=13).assign(predicted, annotated)
    # A logit of zero is a probability of 0.01.
    ours = predicted.new(scores=predicted.scores + math.log(99), bboxes=predicted.bboxes, priors=predicted.priors)
    found = assigner_of(flat(20), topk=13).assign(ours, annotated)
    assert found.num_gts == expected.num_gts == objects
    assert torch.equal(found.gt_inds, expected.gt_inds)
    taken = expected.gt_inds > 0
    # Each object has a point, and some more than one.
    assert taken.sum() >= 0.8 * objects
    assert torch.equal(found.labels[taken], expected.labels[taken])
    torch.testing.assert_close(found.max_overlaps[taken], expected.max_overlaps[taken])
    assert (found.labels[~taken] == -1).all()
    assert (found.max_overlaps[~taken] == 0).all()


def test_is_mmdets_without_masks() -> None:
    predicted, annotated = image(5, 6, classes=20)
    del annotated.masks
    expected = DynamicSoftLabelAssigner().assign(predicted, annotated)
    ours = predicted.new(scores=predicted.scores + math.log(99), bboxes=predicted.bboxes, priors=predicted.priors)
    assert torch.equal(assigner_of(flat(20)).assign(ours, annotated).gt_inds, expected.gt_inds)


def test_an_object_without_a_mask_has_the_centre_of_its_box() -> None:
    predicted, annotated = image(6, 6, classes=20)
    annotated.masks = torch.zeros_like(annotated.masks)
    found = assigner_of(flat(20)).assign(predicted, annotated)
    del annotated.masks
    assert torch.equal(found.gt_inds, assigner_of(flat(20)).assign(predicted, annotated).gt_inds)


def test_centres_of_mass() -> None:
    masks = torch.zeros(3, 40, 60, dtype=torch.bool)
    masks[0, 10:13, 20:24] = True  # rows 10, 11, 12 and columns 20 to 23
    masks[2, [0, 30], [59, 1]] = True
    boxes = torch.tensor([[1.0, 2.0], [7.0, 9.0], [3.0, 4.0]])
    expected = torch.tensor([[21.5, 11.0], [7.0, 9.0], [30.0, 15.0]])
    torch.testing.assert_close(centers_of_mass(masks, boxes), expected)
    assert centers_of_mass(masks[:0], boxes[:0]).shape == (0, 2)
    many = torch.rand(4, 300, 500, generator=torch.Generator().manual_seed(0)) < 0.5
    expected = center_of_mass(many)
    # In half precision as well: the sums are beyond what it can hold.
    with torch.autocast('cpu', dtype=torch.bfloat16):
        torch.testing.assert_close(centers_of_mass(many, torch.zeros(4, 2)), expected)


def test_boxes_in_an_ignored_one_are_left_out() -> None:
    predicted = InstanceData(
        scores=torch.zeros(5, 3),
        priors=torch.tensor([[20.0, 20, 8, 8], [60, 60, 8, 8], [60, 60, 8, 8], [60, 60, 8, 8], [100, 100, 8, 8]]),
        bboxes=torch.tensor([
            [10.0, 10, 30, 30],  # on the object
            [50, 50, 70, 70],  # within
            [50, 50, 90, 70],  # 0.75 within
            [50, 50, 110, 70],  # one half within, which is not over it
            [90, 90, 110, 110],  # outside
        ]),
    )  # fmt: skip
    annotated = InstanceData(bboxes=torch.tensor([[10.0, 10, 30, 30]]), labels=torch.tensor([1]))
    ignored = InstanceData(bboxes=torch.tensor([[0.0, 0, 5, 5], [0, 0, 80, 80]]))
    # The object lies within as well; it is known, and its point trained.
    assert assigner_of(flat(3)).assign(predicted, annotated, ignored).gt_inds.tolist() == [1, -1, -1, 0, 0]
    strict = assigner_of(flat(3), ignore_iof_thr=0.8).assign(predicted, annotated, ignored)
    assert strict.gt_inds.tolist() == [1, -1, 0, 0, 0]
    nothing = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long))
    assert assigner_of(flat(3)).assign(predicted, nothing, ignored).gt_inds.tolist() == [-1, -1, -1, 0, 0]
    for none in (None, nothing, InstanceData()):
        assert assigner_of(flat(3)).assign(predicted, annotated, none).gt_inds.tolist() == [1, 0, 0, 0, 0]


def test_the_hierarchy_decides_between_objects() -> None:
    """Of two objects in one place a point takes the one whose class it tells, by an ancestor if need be."""
    taxonomy = Taxonomy.from_edges(['animal', 'bear', 'cat', 'car'], [('bear', 'animal'), ('cat', 'animal')])
    logits = torch.tensor([[3.0, 2.0, -3.0, -3.0, 0.0]])
    predicted = InstanceData(
        scores=logits, priors=torch.tensor([[20.0, 20, 8, 8]]), bboxes=torch.tensor([[10.0, 10, 30, 30]])
    )
    box = torch.tensor([[10.0, 10, 30, 30]])
    for labels, expected in (([3, 0], 2), ([1, 3], 1), ([2, 1], 2), ([0, 2], 1)):
        annotated = InstanceData(bboxes=box.repeat(2, 1), labels=torch.tensor(labels))
        found = assigner_of(taxonomy, 'path_sum').assign(predicted, annotated)
        assert found.gt_inds.tolist() == [expected]
        assert found.labels.tolist() == [labels[expected - 1]]


class Largest(TorchDispatchMode):
    """Remembers how many numbers the largest result of an operation had."""

    numbers = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for value in result if isinstance(result, tuple | list) else [result]:
            if isinstance(value, torch.Tensor):
                self.numbers = max(self.numbers, value.numel())
        return result


@pytest.mark.parametrize('scheme', ['path_sum', 'tree_min'])
def test_takes_no_memory_of_points_times_objects_times_classes(scheme: str) -> None:
    classes, objects = 400, 60
    channels = classes + (scheme == 'path_sum')
    predicted, annotated = image(0, objects, classes=classes, channels=channels)
    with Largest() as largest:
        found = assigner_of(flat(classes), scheme).assign(predicted, annotated)
    assert (found.gt_inds > 0).sum() > 30
    # The masks are larger than all else that mmdet's products would be compared to.
    assert largest.numbers <= max(annotated.masks.numel(), 2 * len(predicted) * channels)
    assert largest.numbers < len(predicted) * objects * classes / 8
