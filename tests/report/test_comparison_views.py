"""Classes along the tree, confusions by level and charts of a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from comparison_documents import confusion_of, made_up
from hypothesis import given
from hypothesis import strategies as st

from hierseg.report.comparison import Comparison
from hierseg.report.comparison.charts import MOST_POINTS, Scale, Series, averaged, line_chart, x_scale, y_scale
from hierseg.report.comparison.class_tree import class_tree, frequency_chart
from hierseg.report.comparison.confusions import CORRECT, LOST, POSSIBLE, SHALLOW, WRONG, collapsed, confusion, levels
from hierseg.taxonomy import Taxonomy

# 0 Toy, 1 Animal, 2 Bear (an Animal), 3 Teddy (a Toy before a Bear), 4 Dog (an Animal), 5 Lamp.
TAXONOMY = Taxonomy.from_edges(
    ['toy', 'animal', 'bear', 'teddy', 'dog', 'lamp'],
    [('bear', 'animal'), ('teddy', 'toy'), ('teddy', 'bear'), ('dog', 'animal')],
    names=['Toy', 'Animal', 'Bear', 'Teddy', 'Dog', 'Lamp'],
)
TOY, ANIMAL, BEAR, TEDDY, DOG, LAMP = range(6)


def document(
    *,
    class_ap: Sequence[Sequence[float | None]] = ((0.5,) * 6, (0.5,) * 6),
    confusions: Sequence[Sequence[tuple[int, int, int]]] = ((), ()),
    train_images: Sequence[int] | None = None,
    taxonomy: Taxonomy = TAXONOMY,
) -> Comparison:
    base = made_up(taxonomy, systems=len(class_ap), images=0)
    systems = [
        replace(
            system,
            class_ap=np.array(values, dtype=np.float64),
            confusion=confusion_of(entries, taxonomy.num_classes),
        )
        for system, values, entries in zip(base.systems, class_ap, confusions, strict=True)
    ]
    objects = np.ones(taxonomy.num_classes, dtype=np.int64)
    images = None if train_images is None else np.array(train_images)
    return replace(base, systems=systems, objects=objects, train_images=images)


def test_every_class_stands_once_along_the_tree():
    tree = class_tree(document())
    assert [row.name for row in tree.rows] == ['Toy', 'Animal', 'Lamp']  # childless root classes last
    toy, animal, lamp = tree.rows
    assert [row.name for row in toy.children] == ['Teddy']
    assert toy.children[0].also_under == ('Animal › Bear',)
    assert [(row.name, row.depth) for row in animal.children] == [('Bear', 1), ('Dog', 1)]
    assert animal.children[0].children == lamp.children == ()


def test_differences_of_classes_share_a_scale():
    first = [0.5, 0.6, 0.5, 0.2, 0.5, None]
    second = [0.7, 0.5, 0.5, 0.6, None, 0.9]
    tree = class_tree(document(class_ap=[first, second]))
    # The largest difference is Teddy's, 0.4: +0.2 is half way to the right, −0.1 a quarter to the left.
    assert tree.extent == pytest.approx(0.4)
    toy, animal, lamp = (row.differences[0] for row in tree.rows)
    assert (toy.text, toy.winner, toy.start, toy.width) == ('+0.20', 1, 50.0, 25.0)
    assert (animal.text, animal.winner, animal.start, animal.width) == ('−0.10', 0, 37.5, 12.5)
    assert (lamp.text, lamp.winner, lamp.width) == ('–', None, 0.0)
    assert toy.below == (100.0,)
    assert animal.below == (50.0, 100.0)  # Bear, and Teddy by its other parent; Dog has no value


def test_dots_lie_by_frequency():
    first, second = [0.5] * 6, [0.7, 0.4, 0.5, 0.5, 0.5, 0.5]
    assert frequency_chart(document(class_ap=[first, second])) is None  # training images unknown
    chart = frequency_chart(document(class_ap=[first, second], train_images=[0, 99, 9, 9, 9, 9]))
    # The scale runs in log(1 + n) from 0 to 99, so 9 images stand half way.
    assert [dot.x for dot in chart.dots] == [46, 390, 218, 218, 218, 218]
    assert [dot.color for dot in chart.dots] == [1, 0, None, None, None, None]
    assert chart.dots[0].title == 'Toy: +0.20, 0 training images'
    assert [text for _, text in chart.x.ticks] == ['0', '1', '10']


def test_confusions_collapse_to_a_level():
    entries = [(BEAR, BEAR, 3), (BEAR, DOG, 2), (TEDDY, BEAR, 5), (DOG, ANIMAL, 1), (DOG, -1, 4), (LAMP, TOY, 6)]
    system = document(confusions=[entries, ()]).systems[0]
    # Teddy counts as a Toy, by its preferred parent.
    assert collapsed(TAXONOMY, system, 0) == {
        (ANIMAL, ANIMAL): 6, (TOY, ANIMAL): 5, (ANIMAL, -1): 4, (LAMP, TOY): 6,
    }  # fmt: skip
    assert collapsed(TAXONOMY, system, 1) == {(true, named): count for true, named, count in entries}


def test_confusions_are_judged_by_the_taxonomy():
    entries = [
        (BEAR, BEAR, 8), (TEDDY, ANIMAL, 4), (ANIMAL, DOG, 3), (BEAR, TOY, 2), (DOG, BEAR, 2), (DOG, -1, 1),
    ]  # fmt: skip
    found = confusion(document(confusions=[entries, ()]), 0, 2)
    kinds = {(found.rows[cell.row], found.columns[cell.column]): cell.kind for cell in found.cells}
    assert kinds == {
        ('Bear', 'Bear'): CORRECT,
        ('Teddy', 'Animal'): SHALLOW,  # an ancestor, though not by the preferred parent
        ('Animal', 'Dog'): POSSIBLE,
        ('Bear', 'Toy'): POSSIBLE,  # a Teddy is both
        ('Dog', 'Bear'): WRONG,
        ('Dog', 'missed'): LOST,
    }
    # Of 20 objects.
    assert found.summary == '40% right, 20% right but less deep, 25% deeper than annotated, 10% wrong, 5% missed'
    assert found.frequent == (('Dog → Bear', 2),)
    assert {cell.title for cell in found.cells} >= {'Dog missed: 1 (33%)', 'Bear named Toy: 2 (20%)'}


def test_many_classes_are_merged_into_other():
    ids = [f'class {index}' for index in range(30)]
    flat = Taxonomy.from_edges(ids, [])
    entries = [(label, label, 10) for label in range(30)] + [(20, 25, 3), (29, -1, 2)]
    found = confusion(document(class_ap=[(0.5,) * 30], confusions=[entries], taxonomy=flat), 0, 0)
    # Two take part in a confusion, one has the most objects; then the first ones.
    assert found.rows == (*(f'class {index}' for index in (*range(13), 20, 25, 29)), 'other')
    assert found.columns == (*found.rows, 'missed')
    counts = {(found.rows[cell.row], found.columns[cell.column]): (cell.count, cell.kind) for cell in found.cells}
    assert counts['other', 'other'] == (140, CORRECT)
    assert counts['class 20', 'class 25'] == (3, WRONG)
    assert counts['class 29', 'missed'] == (2, LOST)


def test_levels_are_those_of_the_taxonomy():
    some = [(0, 0, 1)]
    assert levels(document(confusions=[some, ()])) == ['root classes', 'down to level 1', 'all classes']
    assert levels(document()) == []
    flat = Taxonomy.from_edges(['a', 'b'], [])
    assert levels(document(class_ap=[(0.5, 0.5)], confusions=[some], taxonomy=flat)) == ['all classes']


def test_scales_place_values():
    assert Scale(0, 10, 100, 200).place(2.5) == 125
    assert Scale(0, 1, 200, 100).place(0.25) == 175
    assert Scale(0, 999, 0, 300, logarithmic=True).place(9) == 100
    assert [text for _, text in Scale(-0.3, 0.3, 0, 1).ticks] == ['−0.3', '−0.15', '0', '0.15', '0.3']
    assert [text for _, text in Scale(0, 4, 0, 1, counts=True).ticks] == ['0', '1', '2', '3', '4']  # not 0.8
    assert [text for _, text in Scale(5, 30_000, 0, 1, logarithmic=True).ticks] == ['10', '100', '1k', '10k']
    assert [text for _, text in Scale(14, 800, 0, 1, logarithmic=True).ticks] == ['20', '50', '100', '200', '500']
    assert x_scale(3, 3).high == 4


def test_a_line_goes_through_its_points():
    chart = line_chart(
        'all', [Series('A', [0, 1], [1, 0.5], 0), Series('empty', [], [], 1)],
        x=x_scale(0, 1), y=y_scale(0, 1), x_label='recall', y_label='precision',
    )  # fmt: skip
    # x from 46 to 390, y from 242 (0) up to 26 (1): 0.5 stands at 134.
    assert [chart.points(line) for line in chart.lines] == ['46,26 390,134']
    assert chart.summary == 'precision by recall. A: 1 at 0, 0.5 at 1'


@given(st.integers(1, 6))
def test_averaging_keeps_the_mean(times):
    points = [(float(step), float(step % 7)) for step in range(MOST_POINTS * times)]
    x, y = averaged(points)
    assert len(x) == MOST_POINTS
    assert np.mean(x) == pytest.approx(np.mean([point[0] for point in points]))
    assert np.mean(y) == pytest.approx(np.mean([point[1] for point in points]))


def test_values_that_are_no_numbers_leave_a_line():
    assert averaged([(0, 1.0), (1, float('nan')), (2, 3.0)]) == ([0, 2], [1, 3])
    assert averaged([]) == ([], [])
