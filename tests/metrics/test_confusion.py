from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from taxonomies import ANIMAL, BEAR, CAR, TEDDY, TOY, random_taxonomies, teddy_taxonomy

from hierseg.errors import EvaluationError
from hierseg.metrics.localised_pairs import ImagePairs, LocalisedPairs
from hierseg.metrics.names import Confusion, labels_at_depth
from hierseg.taxonomy import Taxonomy

ARRAYS = teddy_taxonomy().arrays
MISSED = -1


def confusion(true, named, missed, arrays):
    labels, missing = (np.array(values, dtype=np.int64) for values in (true, missed))
    scores = np.zeros((len(true), len(arrays.depths)), dtype=np.float32)
    images = [ImagePairs('a', labels, labels, scores, missing, np.zeros(0, dtype=np.int64))]
    return Confusion.of(LocalisedPairs.gather(images, arrays), np.array(named, dtype=np.int64), arrays)


def cells(found):
    triples = zip(found.true_labels, found.named_labels, found.counts, strict=True)
    return {(int(true), int(named)): int(count) for true, named, count in triples}


def test_by_hand():
    found = confusion([TEDDY, BEAR, TEDDY, CAR], [BEAR, TEDDY, BEAR, CAR], [CAR, TEDDY, CAR], ARRAYS)
    expected = {(BEAR, TEDDY): 1, (TEDDY, MISSED): 1, (TEDDY, BEAR): 2, (CAR, MISSED): 2, (CAR, CAR): 1}
    assert list(cells(found).items()) == list(expected.items())
    dense = found.dense()
    assert dense.shape == (5, 6)
    assert dense[TEDDY].tolist() == [0, 0, 2, 0, 0, 1]
    # A teddy is a toy by its preferred parent, a bear an animal.
    expected = {(TOY, MISSED): 1, (TOY, ANIMAL): 2, (ANIMAL, TOY): 1, (CAR, MISSED): 2, (CAR, CAR): 1}
    assert cells(found.collapsed(ARRAYS, depth=0)) == expected
    assert cells(found.collapsed(ARRAYS, depth=1)) == cells(found)


def test_depth_is_that_of_the_preferred_path():
    # Teddy is 2 edges below animal, but 1 below toy, its preferred parent.
    assert labels_at_depth(ARRAYS, depth=0).tolist() == [TOY, ANIMAL, ANIMAL, TOY, CAR]
    assert labels_at_depth(ARRAYS, depth=1).tolist() == [TOY, ANIMAL, BEAR, TEDDY, CAR]
    with pytest.raises(EvaluationError, match='depth=-1'):
        labels_at_depth(ARRAYS, depth=-1)


def test_nothing():
    assert cells(confusion([], [], [], ARRAYS)) == {}


@given(random_taxonomies(), st.integers(0, 9999), st.integers(0, 4))
def test_by_brute_force(taxonomy: Taxonomy, seed: int, depth: int) -> None:
    generator = np.random.default_rng(seed)
    true, named = generator.integers(taxonomy.num_classes, size=(2, 12)).tolist()
    missed = generator.integers(taxonomy.num_classes, size=5).tolist()
    found = confusion(true, named, missed, taxonomy.arrays)
    every = [*zip(true, named, strict=True), *((label, MISSED) for label in missed)]
    assert cells(found) == Counter(every)

    def at_depth(label: int) -> int:
        return MISSED if label == MISSED else taxonomy.preferred_path(label)[: depth + 1][-1]

    collapsed = found.collapsed(taxonomy.arrays, depth=depth)
    assert cells(collapsed) == Counter((at_depth(label), at_depth(name)) for label, name in every)
    assert collapsed.dense().sum() == found.counts.sum() == 17
    assert cells(collapsed.collapsed(taxonomy.arrays, depth=depth)) == cells(collapsed)
