"""Tables in place of steps over pairs: the same scores and probabilities."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from taxonomies import random_taxonomies
from torch import nn

from hierseg.apis.onnx_graph import ClassProbabilities, at_most, fold_scores
from hierseg.functional import SCHEMES, Relations
from hierseg.taxonomy import Taxonomy


@pytest.mark.parametrize('name', sorted(SCHEMES))
@settings(max_examples=30)
@given(data=st.data())
def test_convolution_and_tables_give_the_probabilities_of_the_scheme(name: str, data: st.DataObject) -> None:
    scheme = SCHEMES[name]
    taxonomy: Taxonomy = data.draw(random_taxonomies(max_parents=1 if scheme.trees_only else 3))
    relations = Relations.of(taxonomy.arrays)
    torch.manual_seed(data.draw(st.integers(0, 99)))
    convolution = nn.Conv2d(4, scheme.channels(taxonomy.num_classes), 1)
    nn.init.normal_(convolution.weight, std=3)
    features = torch.randn(2, 4, 3, 5)

    def by_point(maps: torch.Tensor) -> torch.Tensor:
        return maps.flatten(2).transpose(1, 2)

    with torch.no_grad():
        logits = by_point(convolution(features)).flatten(0, 1)
        expected = scheme.probabilities(scheme.scores(logits, relations), relations)[:, :-1]
        fold_scores(convolution, scheme.scores, relations)
        scores = by_point(convolution(features))
        found = ClassProbabilities(scheme.probabilities, relations)(scores)
        roots = ClassProbabilities(scheme.probabilities, relations, columns=relations.root_classes)(scores)
    torch.testing.assert_close(found.flatten(0, 1), expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(roots.flatten(0, 1), expected[:, relations.root_classes], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(('most', 'expected'), [(3, 3), (7, 5), (0, 0), (-1, 5)])
def test_below_zero_is_no_limit(most: int, expected: int) -> None:
    assert int(at_most(torch.tensor(5), most)) == expected
