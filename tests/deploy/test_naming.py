"""The rules in numpy against those on tensors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from taxonomies import random_taxonomies

from hierseg.deploy.naming import Classes
from hierseg.functional import Relations
from hierseg.functional.decisions import RULES
from hierseg.taxonomy import Taxonomy


@pytest.mark.parametrize('relative', [True, False])
@pytest.mark.parametrize('rule', sorted(RULES))
@given(taxonomy=random_taxonomies(), seed=st.integers(0, 2**16))
def test_rules_name_the_same_classes(rule: str, relative: bool, taxonomy: Taxonomy, seed: int) -> None:
    generator = np.random.default_rng(seed)
    scores = generator.random((40, taxonomy.num_classes), dtype=np.float32)
    # What a detection does not claim is zero; a class is claimed only where one of its root classes is.
    above = taxonomy.arrays.ancestor_mask
    roots = np.array(taxonomy.root_classes)
    survives = generator.random((40, len(roots))) < 0.6
    survives[:, 0] = True
    scores *= (survives @ above[:, roots].T) & (generator.random(scores.shape) < 0.8)
    scores[:, roots[0]] += 0.01
    options = {'threshold': 0.4, 'relative': relative} if rule == 'back_off' else {}
    expected = RULES[rule].choose(torch.from_numpy(scores), Relations.of(taxonomy.arrays), **options)
    named = getattr(Classes(taxonomy.parents), rule)(scores, **options)
    assert named.tolist() == expected.tolist()


@given(taxonomy=random_taxonomies())
def test_tables_are_those_of_the_taxonomy(taxonomy: Taxonomy) -> None:
    classes, arrays = Classes(taxonomy.parents), taxonomy.arrays
    assert np.array_equal(np.where(classes.above, classes.steps, -1), arrays.up_steps)
    assert np.array_equal(classes.depths, arrays.depths)
    assert np.array_equal(classes.is_leaf, arrays.is_leaf)


def test_nothing_found_is_nothing_named() -> None:
    classes = Classes(((), (0,)))
    none = np.zeros((0, 2), dtype=np.float32)
    assert [len(classes.back_off(none, threshold=0.5, relative=True)), len(classes.leaf(none))] == [0, 0]
    assert len(classes.distance(none)) == 0
