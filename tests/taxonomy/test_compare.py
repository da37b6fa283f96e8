"""Comparing the taxonomies of two parts of a set-up."""

from __future__ import annotations

import pytest

from hierseg.errors import ConfigError
from hierseg.taxonomy.compare import require_same_class_names, require_same_taxonomy
from hierseg.taxonomy.graph import Taxonomy

IDS = ['toy', 'animal', 'teddy', 'dog']
EDGES = [('teddy', 'toy'), ('teddy', 'animal'), ('dog', 'animal')]


@pytest.fixture
def taxonomy() -> Taxonomy:
    return Taxonomy.from_edges(IDS, EDGES)


def test_equal_taxonomies_pass_and_names_do_not_count(taxonomy):
    require_same_taxonomy(taxonomy, Taxonomy.from_edges(IDS, EDGES, names=['A', 'B', 'C', 'D']), where='loss')


def test_two_swapped_classes_are_both_named(taxonomy):
    swapped = Taxonomy.from_edges(['animal', 'toy', 'teddy', 'dog'], EDGES)
    with pytest.raises(ConfigError, match=r"loss: .*class 0 is 'toy' expected, 'animal' found; class 1 is 'animal'"):
        require_same_taxonomy(taxonomy, swapped, where='loss')


def test_a_missing_class_gives_both_counts(taxonomy):
    smaller = Taxonomy.from_edges(IDS[:3], EDGES[:2])
    with pytest.raises(ConfigError, match=r"4 classes expected, 3 found; class 3 is 'dog' expected, none found"):
        require_same_taxonomy(taxonomy, smaller, where='loss')


def test_another_preferred_parent_is_a_difference(taxonomy):
    other = Taxonomy.from_edges(IDS, EDGES, preferred_parents={'teddy': 'animal'})
    with pytest.raises(ConfigError, match=r'class 2 \(teddy\) has parents \[toy, animal\] expected, \[animal, toy\]'):
        require_same_taxonomy(taxonomy, other, where='loss')


def test_a_lost_edge_is_a_difference(taxonomy):
    with pytest.raises(ConfigError, match=r'class 3 \(dog\) has parents \[animal\] expected, none found'):
        require_same_taxonomy(taxonomy, Taxonomy.from_edges(IDS, EDGES[:2]), where='loss')


def test_many_differences_are_counted():
    # Ten names against none: one sentence for the counts, ten for the labels; three are shown.
    with pytest.raises(ConfigError, match='; and 8 more'):
        require_same_class_names([f'c{label}' for label in range(10)], [], where='config')
