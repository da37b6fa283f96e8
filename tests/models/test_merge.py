from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from taxonomies import ANIMAL, BEAR, CAR, TEDDY, TOY, teddy_taxonomy

from hierseg.models.merge import LayerInstances, MergedInstances, merge_layers
from hierseg.taxonomy import Taxonomy

Box = tuple[int, int, int, int]


def found(labels: Sequence[int], boxes: Sequence[Box], scores: Sequence[float] | None = None) -> LayerInstances:
    """Rectangles in a picture of 40 × 100 pixels."""
    masks = []
    for left, top, right, bottom in boxes:
        plane = np.zeros((40, 100), dtype=np.uint8, order='F')
        plane[top:bottom, left:right] = 1
        masks.append(coco_mask.encode(plane))
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


def test_an_unmatched_instance_is_kept_under_its_ancestors_or_dropped() -> None:
    layer0, layer1 = found([CAR], [(0, 0, 20, 20)]), found([BEAR], [(50, 0, 70, 20)], [0.4])
    kept = merge(layer0, layer1)
    assert (kept.sources.tolist(), kept.labels.tolist()) == ([0, 1], [CAR, BEAR])
    np.testing.assert_allclose(kept.class_scores[1], [0, 0.4, 0.4, 0, 0])
    dropped = merge(layer0, layer1, keep_unmatched=False)
    assert (dropped.sources.tolist(), dropped.labels.tolist()) == ([0], [CAR])


@pytest.mark.parametrize(('first', 'second'), [([], []), ([CAR], []), ([], [BEAR])])
def test_a_layer_may_find_nothing(first: list[int], second: list[int]) -> None:
    merged = merge(*(found(labels, [(0, 0, 9, 9)] * len(labels)) for labels in (first, second)))
    assert merged.labels.tolist() == first + second


rectangles = st.tuples(st.integers(0, 60), st.integers(0, 20), st.integers(1, 30), st.integers(1, 15)).map(
    lambda box: (box[0], box[1], box[0] + box[2], box[1] + box[3])
)


@given(
    st.lists(st.tuples(st.sampled_from([TOY, ANIMAL, CAR]), rectangles), max_size=5),
    st.lists(st.tuples(st.sampled_from([BEAR, TEDDY]), rectangles), max_size=5),
)
def test_joins_as_pixels_compared_one_pair_at_a_time(first, second) -> None:
    layers = [found([label for label, _ in layer], [box for _, box in layer]) for layer in (first, second)]
    above = {BEAR: {ANIMAL}, TEDDY: {TOY, ANIMAL}}
    expected = []
    for label, (a, b, c, d) in second:
        best = (0.5, -1)
        for index, (root, (e, f, g, h)) in enumerate(first):
            common = max(0, min(c, g) - max(a, e)) * max(0, min(d, h) - max(b, f))
            overlap = common / ((c - a) * (d - b) + (g - e) * (h - f) - common)
            if root in above[label] and (overlap > best[0] or (overlap >= 0.5 and best[1] < 0)):
                best = (overlap, index)
        expected.append(best[1])
    assert merge(*layers).joined.tolist() == expected
