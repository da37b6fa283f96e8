"""Counts of classes, by hand."""

from __future__ import annotations

from layer_stores import BEAR, CAR, CARNIVORE, MAN, PERSON, TEDDY, TOY, Picture, Row, write_store

from hierseg.annotations.frequency import count_classes

BOX = (50, 50, 70, 70)
PICTURES = [
    Picture('a', [Row(PERSON, BOX), Row(MAN, BOX), Row(MAN, BOX), Row(BEAR, (0, 80, 0.5, 90))]),
    Picture('b', [Row(TEDDY, BOX), Row(TOY, BOX), Row(CAR, BOX), Row(MAN, BOX, group_of=True)]),
    Picture('c', [Row(BEAR, BOX)]),
    Picture('d'),
]


def test_by_hand(tmp_path):
    store = write_store(tmp_path / 'store', PICTURES)
    own = count_classes(store, expanded=False)
    expanded = count_classes(store)
    # Each: images and instances of the class alone, and with what lies below it. A teddy bear is a toy and a bear.
    expected = {
        PERSON: (1, 1, 1, 3),
        MAN: (1, 2, 1, 2),
        TEDDY: (1, 1, 1, 1),
        TOY: (1, 1, 1, 2),
        BEAR: (1, 1, 2, 2),
        CARNIVORE: (0, 0, 2, 2),
        CAR: (1, 1, 1, 1),
    }
    for label, counts in expected.items():
        found = (own.images, own.instances, expanded.images, expanded.instances)
        assert tuple(int(values[label]) for values in found) == counts
