"""The report's own example as table and picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData
from taxonomies import ANIMAL, BEAR, TEDDY, TOY, teddy_taxonomy

from hierseg.models.two_layer_ensemble import LayerInstances, merge_layers
from hierseg.report.flow import Flow, draw_flow, flow_rows
from hierseg.taxonomy import Taxonomy

Box = tuple[int, int, int, int]
NAMES = ['Person', 'Trousers', 'Man', 'Woman', 'Boy', 'Girl', 'Jeans']
PERSON, TROUSERS, MAN, WOMAN, BOY, GIRL, JEANS = range(7)
SIZE = (110, 260)


def found(rows: Sequence[tuple[int, Box, float]]) -> InstanceData:
    masks = torch.zeros(len(rows), *SIZE, dtype=torch.bool)
    y, x = torch.meshgrid(torch.arange(SIZE[0]) + 0.5, torch.arange(SIZE[1]) + 0.5, indexing='ij')
    for mask, (_, (left, top, right, bottom), _) in zip(masks, rows, strict=True):
        across, down = (2 * x - left - right) / (right - left), (2 * y - top - bottom) / (bottom - top)
        mask |= across**2 + down**2 <= 1
    return InstanceData(
        bboxes=torch.tensor([box for _, box, _ in rows], dtype=torch.float).reshape(-1, 4),
        labels=torch.tensor([label for label, _, _ in rows], dtype=torch.long),
        scores=torch.tensor([score for _, _, score in rows]),
        masks=masks,
    )


def flow_of(taxonomy: Taxonomy, first: InstanceData, second: InstanceData, *, keep_unmatched: bool = True) -> Flow:
    layers = [
        LayerInstances(layer.labels.numpy(), layer.scores.double().numpy(), layer.masks) for layer in (first, second)
    ]
    joining = merge_layers(*layers, taxonomy.arrays, keep_unmatched=keep_unmatched)
    labels, class_scores = torch.from_numpy(joining.labels), torch.from_numpy(joining.class_scores)
    merged = InstanceData(
        bboxes=torch.cat([first.bboxes, second.bboxes])[joining.sources],
        masks=torch.cat([first.masks, second.masks])[joining.sources],
        labels=labels,
        scores=class_scores.gather(1, labels[:, None]).squeeze(1),
        class_scores=class_scores,
    )
    image = np.full((*SIZE, 3), (190, 205, 215), dtype=np.uint8)
    return Flow(image, taxonomy, (first, second), merged, joining)


def seed_report(**options) -> Flow:
    taxonomy = Taxonomy.from_edges(
        NAMES, [(child, 'Person') for child in ('Man', 'Woman', 'Boy', 'Girl')] + [('Jeans', 'Trousers')]
    )
    places = [(4 + 42 * index, 10, 42 + 42 * index, 100) for index in range(6)]
    worn = (12, 55, 36, 100)
    first = [(PERSON, place, score) for place, score in zip(places, (0.99, 0.98, 0.97, 0.96, 0.95, 0.94), strict=True)]
    second = [
        (MAN, (4, 14, 42, 96), 0.91),
        (WOMAN, places[0], 0.33),
        (BOY, places[3], 0.84),
        (GIRL, places[4], 0.12),
        (MAN, places[5], 0.77),
        (JEANS, worn, 0.66),
        (JEANS, (215, 70, 235, 105), 0.4),
    ]
    return flow_of(taxonomy, found([*first, (TROUSERS, worn, 0.72)]), found(second), **options)


def test_the_table_of_the_seed_report() -> None:
    # Jeans of layer 1 that belong to no trousers come last.
    assert [row.final for row in flow_rows(seed_report())] == [
        '(Person, Man)', '(Person)', '(Person)', '(Person, Boy)', '(Person)', '(Person, Man)', '(Trousers, Jeans)',
        '(Trousers, Jeans)',
    ]  # fmt: skip
    lines = [str(row) for row in flow_rows(seed_report())]
    # Ellipses around one centre, 82 and 90 pixels high: 82 / 90 is 0.91.
    assert lines[0] == '  1  Person 0.99 ← Man 0.91 = (Person, Man)  IoU 0.91  (also Woman 0.33)'
    assert lines[1] == '  2  Person 0.98 ← – = (Person)'
    # The girl is too unlikely to give the name, and is told all the same.
    assert lines[4] == '  5  Person 0.95 ← Girl 0.12 = (Person)  IoU 1.00'
    assert lines[7] == '  8  – ← Jeans 0.40 = (Trousers, Jeans)'


def test_what_was_dropped_is_told() -> None:
    lines = [str(row) for row in flow_rows(seed_report(keep_unmatched=False))]
    assert len(lines) == 8
    assert lines[7] == '  –  – ← Jeans 0.40 = dropped'


def test_instances_below_the_threshold_are_left_out() -> None:
    rows = flow_rows(seed_report(), score_threshold=0.5)
    assert [row.number for row in rows] == [1, 2, 3, 4, 5, 6, 7]
    assert rows[0].others == ''


@pytest.mark.parametrize(('root', 'path'), [(TOY, '(Toy, Teddy)'), (ANIMAL, '(Animal, Bear, Teddy)')])
def test_the_path_goes_through_what_layer_0_said(root: int, path: str) -> None:
    place = (10, 10, 60, 60)
    flow = flow_of(teddy_taxonomy(), found([(root, place, 0.9)]), found([(TEDDY, place, 0.8)]))
    assert [row.final for row in flow_rows(flow)] == [path]


def test_a_bear_alone_has_its_preferred_path() -> None:
    flow = flow_of(teddy_taxonomy(), found([]), found([(BEAR, (10, 10, 60, 60), 0.8)]))
    assert [str(row) for row in flow_rows(flow)] == ['  1  – ← Bear 0.80 = (Animal, Bear)']


def test_the_picture_has_three_panels_and_the_table() -> None:
    flow = seed_report()
    picture = draw_flow(flow)
    # 110 × 260 is enlarged by 2 (to about 640); eight rows, a heading and the panels' own headings are below and above.
    assert picture.dtype == np.uint8
    assert picture.shape[1] == 3 * 2 * 260 + 2 * 8
    assert picture.shape[0] > 2 * 110 + 9 * 12
    without = draw_flow(flow, score_threshold=0.999)
    assert without.shape[0] < picture.shape[0]
    # The middle panel shows layer 1 only: the second person, whom it does not see, is not in it.
    background = np.array((190, 205, 215))
    center = (slice(120, 160), slice(2 * 60, 2 * 70))
    offset = 2 * 260 + 8
    assert (picture[center] != background).any()
    middle = picture[center[0], 2 * 60 + offset : 2 * 70 + offset]
    assert (middle == background).all()


def test_nothing_found() -> None:
    flow = flow_of(teddy_taxonomy(), found([]), found([]))
    assert flow_rows(flow) == []
    assert draw_flow(flow).shape[1] == 3 * 2 * 260 + 2 * 8
