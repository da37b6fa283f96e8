from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from pycocotools import mask as coco_mask
from taxonomies import ANIMAL, BEAR, CAR, TEDDY, TOY, teddy_taxonomy
from tiny_models import tiny_ensemble

from hierseg.errors import ConfigError
from hierseg.models import TwoLayerEnsemble
from hierseg.models.two_layer_ensemble import LayerInstances, MergedInstances, mask_bounds, mask_overlaps, merge_layers
from hierseg.registry import MODELS
from hierseg.taxonomy import Taxonomy


@pytest.fixture(scope='module')
def model() -> TwoLayerEnsemble:
    torch.manual_seed(0)
    return MODELS.build(tiny_ensemble()).eval()


def instances(labels: list[int], boxes: list[list[int]], scores: list[float]) -> InstanceData:
    masks = torch.zeros(len(labels), 32, 32, dtype=torch.bool)
    for mask, (left, top, right, bottom) in zip(masks, boxes, strict=True):
        mask[top:bottom, left:right] = True
    return InstanceData(
        bboxes=torch.tensor(boxes, dtype=torch.float).reshape(-1, 4),
        labels=torch.tensor(labels, dtype=torch.long),
        scores=torch.tensor(scores),
        masks=masks,
    )


def test_merges_into_the_record_of_the_end_to_end_model(model: TwoLayerEnsemble) -> None:
    # Labels of the layers: root classes are toy 0, animal 1, car 2; deeper ones bear 0, teddy 1.
    first = instances([2, 1], [[0, 0, 8, 8], [10, 10, 30, 30]], [0.5, 0.9])
    second = instances([0, 1], [[10, 10, 30, 29], [0, 20, 8, 30]], [0.6, 0.7])
    merged, _ = model.merged(first, second)
    # Animal > Bear, then the car; the teddy belongs to nothing.
    assert merged.labels.tolist() == [BEAR, CAR]
    assert merged.scores.tolist() == pytest.approx([0.6, 0.5])
    assert merged.class_scores[0, ANIMAL].item() == pytest.approx(0.9)
    assert merged.bboxes[0].tolist() == [10, 10, 30, 30]
    assert merged.masks[1].sum() == 64


def test_keeps_what_belongs_to_nothing_where_it_is_told_to() -> None:
    model = MODELS.build({**tiny_ensemble(), 'merge': {'unmatched': 'keep'}})
    merged, _ = model.merged(instances([2], [[0, 0, 8, 8]], [0.5]), instances([1], [[0, 20, 8, 30]], [0.7]))
    assert merged.labels.tolist() == [TEDDY, CAR]
    assert merged.scores.tolist() == pytest.approx([0.7, 0.5])
    assert merged.masks[0].sum() == 80


def test_predicts_with_both_layers(model: TwoLayerEnsemble) -> None:
    images = [torch.randint(0, 255, (3, 64, 96), dtype=torch.uint8) for _ in range(2)]
    meta = dict(img_shape=(64, 96), ori_shape=(64, 96), scale_factor=(1.0, 1.0))
    with torch.no_grad():
        results = model.test_step(dict(inputs=images, data_samples=[DetDataSample(metainfo=meta) for _ in images]))
    for result in results:
        found = result.pred_instances
        assert len(found) > 0
        assert found.class_scores.shape == (len(found), 5)
        assert found.masks.shape == (len(found), 64, 96)
        assert (found.class_scores.gather(1, found.labels[:, None]).squeeze(1) == found.scores).all()


def test_a_layer_starts_with_the_weights_that_it_has_alone() -> None:
    config = tiny_ensemble()
    torch.manual_seed(3)
    together = MODELS.build(copy.deepcopy(config))
    for name in ('layer0', 'layer1'):
        torch.manual_seed(3)
        alone = MODELS.build(copy.deepcopy(config[name]))
        for key, value in alone.state_dict().items():
            assert torch.equal(value, together.state_dict()[f'{name}.{key}']), key


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'merge': {'unmatched': 'guess'}}, "unmatched='keep' or 'drop'"),
        ({'merge': {'iou': 0.5}}, 'Use iou_threshold'),
        ({'merge': {'iou_threshold': 0}}, r'iou_threshold in \(0, 1\]'),
        ({'merge': {'decision_thr': 2}}, r'decision_thr in \[0, 1\]'),
    ],
)
def test_clear_errors(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MODELS.build({**tiny_ensemble(), **change})


def test_refuses_a_head_of_another_size() -> None:
    config = tiny_ensemble()
    config.layer1.roi_head.bbox_head.num_classes = 7
    with pytest.raises(ConfigError, match=r'layer1 has num_classes=7, the layer 2 classes'):
        MODELS.build(config)


Box = tuple[int, int, int, int]


def found(labels: Sequence[int], boxes: Sequence[Box], scores: Sequence[float] | None = None) -> LayerInstances:
    """Rectangles in a picture of 40 × 100 pixels."""
    masks = torch.zeros(len(boxes), 40, 100, dtype=torch.bool)
    for mask, (left, top, right, bottom) in zip(masks, boxes, strict=True):
        mask[top:bottom, left:right] = True
    return LayerInstances(
        np.array(labels, dtype=np.int64), np.array(scores if scores is not None else [0.9] * len(labels)), masks
    )


def merge(layer0: LayerInstances, layer1: LayerInstances, **options) -> MergedInstances:
    return merge_layers(layer0, layer1, teddy_taxonomy().arrays, **options)


def test_the_example_of_the_seed_report() -> None:
    names = ['Person', 'Trousers', 'Man', 'Woman', 'Boy', 'Girl', 'Jeans']
    edges = [(child, 'Person') for child in ('Man', 'Woman', 'Boy', 'Girl')] + [('Jeans', 'Trousers')]
    taxonomy = Taxonomy.from_edges(names, edges)
    person, trousers, man, boy, jeans = (names.index(name) for name in ('Person', 'Trousers', 'Man', 'Boy', 'Jeans'))
    places = [(14 * index, 0, 14 * index + 12, 30) for index in range(6)]
    worn = (0, 15, 12, 30)
    layer0 = found([person] * 6 + [trousers], [*places, worn])
    layer1 = found([man, boy, man, jeans], [places[0], places[3], places[5], worn])
    merged = merge_layers(layer0, layer1, taxonomy.arrays)
    paths = [tuple(names[step] for step in taxonomy.preferred_path(label)) for label in merged.labels]
    assert paths == [
        ('Person', 'Man'), ('Person',), ('Person',), ('Person', 'Boy'), ('Person',), ('Person', 'Man'),
        ('Trousers', 'Jeans'),
    ]  # fmt: skip
    assert merged.joined.tolist() == [0, 3, 5, 6]


def test_joins_the_ancestor_that_overlaps_most_and_no_other_class() -> None:
    # The bear's mask is the second animal's (IoU 1) and half of the first's; the car lies on it exactly, too.
    layer0 = found([ANIMAL, ANIMAL, CAR], [(0, 0, 20, 20), (0, 0, 20, 14), (0, 0, 20, 14)])
    assert merge(layer0, found([BEAR], [(0, 0, 20, 14)])).joined.tolist() == [1]


def test_overlap_decides_at_the_threshold() -> None:
    # 10 × 20 in 20 × 20: intersection over union is exactly 1/2.
    layer0, layer1 = found([ANIMAL], [(0, 0, 20, 20)]), found([BEAR], [(0, 0, 10, 20)])
    assert merge(layer0, layer1).joined.tolist() == [0]
    assert merge(layer0, layer1, iou_threshold=0.51).joined.tolist() == [-1]


def test_an_instance_takes_the_best_child_and_keeps_the_other_opinion() -> None:
    layer0 = found([ANIMAL], [(0, 0, 20, 20)], [0.8])
    layer1 = found([BEAR, TEDDY], [(0, 0, 20, 19), (0, 0, 20, 20)], [0.7, 0.3])
    merged = merge(layer0, layer1)
    assert merged.labels.tolist() == [BEAR]
    # Teddy is a toy as well, by its other path; the animal keeps what layer 0 says.
    np.testing.assert_allclose(merged.class_scores, [[0.3, 0.8, 0.7, 0.3, 0]])


def test_a_class_with_two_parents_joins_either_root() -> None:
    layer1 = found([TEDDY], [(0, 0, 20, 20)], [0.6])
    for root, other in ((TOY, ANIMAL), (ANIMAL, TOY)):
        merged = merge(found([root], [(0, 0, 20, 20)], [0.9]), layer1)
        assert merged.labels.tolist() == [TEDDY]
        row = merged.class_scores[0]
        assert (row[root], row[other], row[BEAR], row[TEDDY]) == (0.9, 0.6, 0.6, 0.6)


def test_the_deepest_confident_class_gives_the_name() -> None:
    # The best child is the bear; the teddy has half of the animal's score (0.45 of 0.9), and is deeper.
    layer0 = found([ANIMAL], [(0, 0, 20, 20)], [0.9])
    layer1 = found([BEAR, TEDDY, TEDDY], [(0, 0, 20, 20)] * 3, [0.8, 0.5, 0.2])
    merged = merge(layer0, layer1)
    assert (merged.labels.tolist(), merged.best.tolist()) == ([TEDDY], [1])
    coarser = merge(layer0, layer1, decision_threshold=0.6)
    assert (coarser.labels.tolist(), coarser.best.tolist()) == ([BEAR], [0])


def test_an_unmatched_instance_is_kept_under_its_ancestors_or_dropped() -> None:
    layer0, layer1 = found([CAR], [(0, 0, 20, 20)]), found([BEAR], [(50, 0, 70, 20)], [0.4])
    kept = merge(layer0, layer1, keep_unmatched=True)
    assert (kept.sources.tolist(), kept.labels.tolist()) == ([0, 1], [CAR, BEAR])
    np.testing.assert_allclose(kept.class_scores[1], [0, 0.4, 0.4, 0, 0])
    dropped = merge(layer0, layer1)
    assert (dropped.sources.tolist(), dropped.labels.tolist()) == ([0], [CAR])


@pytest.mark.parametrize(('first', 'second'), [([], []), ([CAR], []), ([], [BEAR])])
def test_a_layer_may_find_nothing(first: list[int], second: list[int]) -> None:
    layers = [found(labels, [(0, 0, 9, 9)] * len(labels)) for labels in (first, second)]
    assert merge(*layers).labels.tolist() == first
    assert merge(*layers, keep_unmatched=True).labels.tolist() == first + second


def test_an_unlikely_child_gives_no_name() -> None:
    layer0 = found([ANIMAL], [(0, 0, 20, 20)], [0.8])
    at_half, below = (found([BEAR], [(0, 0, 20, 20)], [score]) for score in (0.4, 0.39))
    assert merge(layer0, at_half).labels.tolist() == [BEAR]
    unlikely = merge(layer0, below)
    assert unlikely.labels.tolist() == [ANIMAL]
    assert unlikely.class_scores[0, BEAR] == 0.39
    assert merge(layer0, below, decision_threshold=0).labels.tolist() == [BEAR]


def test_tells_which_instance_of_layer_1_speaks() -> None:
    layer0 = found([ANIMAL, CAR], [(0, 0, 20, 20), (0, 0, 9, 9)])
    layer1 = found([BEAR, TEDDY, BEAR], [(0, 0, 20, 20), (0, 0, 20, 20), (50, 0, 70, 20)], [0.3, 0.5, 0.2])
    assert merge(layer0, layer1).best.tolist() == [1, -1]
    assert merge(layer0, layer1, keep_unmatched=True).best.tolist() == [1, -1, 2]


rectangles = st.tuples(st.integers(0, 60), st.integers(0, 20), st.integers(1, 30), st.integers(1, 15)).map(
    lambda box: (box[0], box[1], box[0] + box[2], box[1] + box[3])
)
ABOVE = {BEAR: {ANIMAL}, TEDDY: {TOY, ANIMAL, BEAR}}


def overlap(one: Box, other: Box) -> float:
    (a, b, c, d), (e, f, g, h) = one, other
    common = max(0, min(c, g) - max(a, e)) * max(0, min(d, h) - max(b, f))
    return common / ((c - a) * (d - b) + (g - e) * (h - f) - common)


@st.composite
def scenes(draw: st.DrawFn) -> tuple[list, list]:
    """(label, box, score) of each layer; no two scores are equal, and boxes are often."""
    places = draw(st.lists(rectangles, min_size=1, max_size=4))
    box = st.sampled_from(places) | rectangles
    first = draw(st.lists(st.tuples(st.sampled_from([TOY, ANIMAL, CAR]), box), max_size=5))
    second = draw(st.lists(st.tuples(st.sampled_from([BEAR, TEDDY]), box), max_size=6))
    scores = draw(st.permutations([step / 20 for step in range(1, 20)]))
    scored = [(*instance, score) for instance, score in zip(first + second, scores, strict=False)]
    return scored[: len(first)], scored[len(first) :]


def layers_of(scene: tuple[list, list]) -> list[LayerInstances]:
    return [found(*([row[column] for row in layer] for column in range(3))) for layer in scene]


def plainly(first: list, second: list, *, threshold: float, keep: bool, part: float) -> list[tuple]:
    """The rules, one instance after the other: box, named class and claims of each merged instance."""
    children: dict[int, list] = {}
    alone = []
    for label, box, score in second:
        fits = [
            (overlap(box, other), other_score, index)
            for index, (root, other, other_score) in enumerate(first)
            if root in ABOVE[label] and overlap(box, other) >= threshold
        ]
        (children.setdefault(max(fits)[2], []) if fits else alone).append((label, box, score))
    merged = []
    for index, (root, box, score) in enumerate(first):
        claims: dict[int, float] = {}
        for label, _, child in children.get(index, []):
            for claimed in {label} | ABOVE[label]:
                claims[claimed] = max(claims.get(claimed, 0), child)
        claims[root] = score
        top = max((label for label in claims if label not in ABOVE), key=claims.get)
        at_or_below = [label for label in claims if label == top or top in ABOVE.get(label, ())]
        sure = [label for label in at_or_below if claims[label] >= part * claims[top]]
        merged.append((box, max(sure, key=[TOY, ANIMAL, CAR, BEAR, TEDDY].index), claims))
    if keep:
        merged += [(box, label, dict.fromkeys({label} | ABOVE[label], score)) for label, box, score in alone]
    return merged


def described(scene: tuple[list, list], merged: MergedInstances) -> list[tuple]:
    boxes = [box for layer in scene for _, box, _ in layer]
    return [
        (boxes[source], label, {claim: float(row[claim]) for claim in np.flatnonzero(row)})
        for source, label, row in zip(merged.sources, merged.labels.tolist(), merged.class_scores, strict=True)
    ]


@given(scenes(), st.sampled_from([0.1, 0.5, 0.9]), st.booleans(), st.sampled_from([0.0, 0.5, 1.0]))
def test_merges_as_the_rules_say_one_instance_after_the_other(scene, threshold, keep, part) -> None:
    merged = merge(*layers_of(scene), iou_threshold=threshold, keep_unmatched=keep, decision_threshold=part)
    assert described(scene, merged) == plainly(*scene, threshold=threshold, keep=keep, part=part)


@given(scenes(), st.randoms(use_true_random=False))
def test_the_order_of_instances_does_not_matter(scene, random) -> None:
    shuffled = tuple(random.sample(layer, len(layer)) for layer in scene)
    results = [described(each, merge(*layers_of(each))) for each in (scene, shuffled)]
    assert sorted(results[0], key=repr) == sorted(results[1], key=repr)


@given(scenes())
def test_nothing_that_a_layer_says_is_lost_or_changed(scene) -> None:
    merged = merge(*layers_of(scene), keep_unmatched=True)
    for row, (label, _, score) in enumerate(scene[0]):
        assert merged.sources[row] == row
        assert merged.class_scores[row, label] == score
    # Every opinion of layer 1 is said, and never without the classes above it.
    for label, _, score in scene[1]:
        assert (merged.class_scores[:, label] >= score).any()
    for claims in merged.class_scores:
        for label, above in ABOVE.items():
            assert claims[label] == 0 or all(claims[list(above)] > 0)


def masks(count: int) -> st.SearchStrategy[torch.Tensor]:
    """Empty ones among them."""
    planes = arrays.arrays(np.bool_, (count, 6, 7)) | arrays.arrays(np.bool_, (count, 6, 7), fill=st.just(False))
    return planes.map(torch.from_numpy)


def by_run_lengths(first: torch.Tensor, second: torch.Tensor) -> np.ndarray:
    encoded = [
        [coco_mask.encode(np.asfortranarray(plane, dtype=np.uint8)) for plane in planes.numpy()]
        for planes in (first, second)
    ]
    return np.asarray(coco_mask.iou(*encoded, [0] * len(second)))


@given(masks(3), masks(4), arrays.arrays(np.bool_, (3, 4)), st.sampled_from([0.05, 0.25, 0.5, 1.0]))
def test_is_what_pycocotools_finds_where_it_is_wanted_and_enough(first, second, wanted, at_least) -> None:
    expected = by_run_lengths(first, second)
    expected = np.where(wanted & (expected >= at_least), expected, 0)
    np.testing.assert_array_equal(mask_overlaps(first, second, wanted, at_least=at_least), expected)


def test_bounds_by_hand() -> None:
    planes = torch.zeros(3, 5, 9, dtype=torch.bool)
    planes[0, 1:3, 2:8] = True
    planes[1, 4, 8] = True
    assert mask_bounds(planes).tolist() == [[2, 1, 8, 3], [8, 4, 9, 5], [0, 0, 0, 0]]


def test_no_masks() -> None:
    planes = torch.zeros(2, 5, 9, dtype=torch.bool)
    assert mask_overlaps(planes[:0], planes, np.ones((0, 2), dtype=bool), at_least=0.5).shape == (0, 2)
    assert mask_overlaps(planes, planes[:0], np.ones((2, 0), dtype=bool), at_least=0.5).shape == (2, 0)
