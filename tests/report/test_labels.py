"""What is written beside an instance."""

from __future__ import annotations

import numpy as np
import pytest

from hierseg.report.drawing import label_variants, path_steps
from hierseg.taxonomy import Taxonomy


@pytest.fixture
def taxonomy() -> Taxonomy:
    return Taxonomy.from_edges(
        ['toy', 'animal', 'dog', 'puppy', 'teddy'],
        [('dog', 'animal'), ('puppy', 'dog'), ('teddy', 'toy'), ('teddy', 'animal')],
        names=['Toy', 'Animal', 'Dog', 'Puppy', 'Teddy bear'],
    )


def test_ground_truth_is_the_preferred_path(taxonomy):
    assert path_steps(taxonomy, 3) == ('Animal', 'Dog', 'Puppy')
    assert path_steps(taxonomy, 4) == ('Toy', 'Teddy bear')


def test_each_claimed_step_carries_its_probability(taxonomy):
    scores = np.array([0.0, 0.984, 0.0, 0.706, 0.2])
    assert path_steps(taxonomy, 3, class_scores=scores) == ('Animal 0.98', 'Dog', 'Puppy 0.71')


def test_a_score_alone_belongs_to_the_decided_class(taxonomy):
    assert path_steps(taxonomy, 2, score=0.5) == ('Animal', 'Dog 0.50')


def test_forms_get_shorter_and_keep_the_remark():
    assert label_variants(('A', 'B', 'C', 'D')) == ('A › B › C › D', '… › B › C › D', '… › C › D', 'D')
    assert label_variants(('A', 'B'), mark='(group)') == ('A › B (group)', 'B (group)')
    assert label_variants(('A',)) == ('A',)
