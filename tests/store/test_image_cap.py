"""The cap on images per class."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from hierseg.store.layers import capped_images, random_order

instance_lists = st.lists(st.tuples(st.integers(0, 11), st.integers(0, 4)), min_size=1, max_size=60)
orders = st.permutations(range(12))


def keep(pairs, order, images_per_class):
    images, labels = np.array(pairs).T
    return capped_images(images, labels, np.array(order), images_per_class=images_per_class).tolist()


def test_by_hand():
    # Class 0 is in images 0 to 3, class 1 in 2 and 4, class 2 in 5 (twice). In the order 3 1 4 0 2 5, at most 2
    # images each: class 0 takes 3 and 1, class 1 takes 4 and 2, class 2 takes 5. Image 2 brings class 0 a third one.
    pairs = [(0, 0), (1, 0), (2, 0), (2, 1), (3, 0), (4, 1), (5, 2), (5, 2)]
    assert keep(pairs, [3, 1, 4, 0, 2, 5], 2) == [1, 2, 3, 4, 5]
    assert keep(pairs, [3, 1, 4, 0, 2, 5], 1) == [3, 4, 5]


@settings(max_examples=100, deadline=None)
@given(pairs=instance_lists, order=orders, cap=st.integers(1, 5))
def test_it_is_the_greedy_rule(pairs, order, cap):
    """An image is taken if it holds a class of which fewer than ``cap`` images were taken."""
    classes_of = {image: {label for other, label in pairs if other == image} for image in range(12)}
    taken, count = [], dict.fromkeys(range(5), 0)
    for image in order:
        if any(count[label] < cap for label in classes_of[image]):
            taken.append(image)
            for label in classes_of[image]:
                count[label] += 1
    assert keep(pairs, order, cap) == sorted(taken)


@settings(max_examples=50, deadline=None)
@given(pairs=instance_lists, order=orders, cap=st.integers(1, 5))
def test_every_class_keeps_its_share_and_a_larger_cap_keeps_more(pairs, order, cap):
    kept = set(keep(pairs, order, cap))
    for wanted in range(5):
        images = {image for image, label in pairs if label == wanted}
        assert len(images & kept) >= min(cap, len(images))
    assert kept <= set(keep(pairs, order, cap + 1))
    assert set(keep(pairs, order, 12)) == {image for image, _ in pairs}


def test_the_order_depends_on_ids_and_seed_alone():
    ids = np.array([f'{number:016x}' for number in range(500)], dtype=object)
    order = ids[random_order(ids, 7)].tolist()
    assert sorted(order) == ids.tolist()
    assert order != ids.tolist()
    shuffled = np.random.default_rng(0).permutation(ids)
    assert shuffled[random_order(shuffled, 7)].tolist() == order
    assert ids[random_order(ids, 8)].tolist() != order
    # Fewer images stand in the same order.
    half = ids[::2]
    assert half[random_order(half, 7)].tolist() == [one for one in order if one in set(half)]


def test_the_order_is_the_same_on_every_machine_and_version():
    # Written down once: another order would silently change everybody's training images.
    ids = np.array(['0a', '1b', '2c', '3d', '4e', 'é', ''], dtype=object)
    assert random_order(ids, 0).tolist() == [2, 3, 5, 1, 0, 6, 4]
    assert random_order(ids, 2**64 - 1).tolist() == [3, 2, 1, 0, 6, 4, 5]


def test_the_order_is_even():
    ids = np.array([str(number) for number in range(1000)], dtype=object)
    times = sum(np.bincount(random_order(ids, seed)[:100], minlength=1000) for seed in range(100))
    # How often an id is among the first tenth is binomial (100, 0.1): mean 10, standard deviation 3.
    assert 2.7 < times.std() < 3.3
    assert 9.5 < times[:500].mean() < 10.5
