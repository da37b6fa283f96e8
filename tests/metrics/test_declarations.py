"""Declarations of scores: complete, of use to a reader, and explained in the documentation."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from hierseg.errors import EvaluationError
from hierseg.evaluation.system_evaluation import declared_metrics
from hierseg.metrics.average_precision import FREQUENCY_BANDS
from hierseg.metrics.coco_average_precision import COCO_METRICS, COCO_STATISTICS
from hierseg.metrics.declarations import Metric, declared
from hierseg.metrics.error_kinds import COUNTED_KINDS, MISSED, ErrorKind
from hierseg.metrics.localised_pairs import LocalisedPairs
from hierseg.metrics.names import NAME_METRICS, hierarchical_sums
from hierseg.taxonomy import Taxonomy

MEASURES = Path(__file__).parents[2] / 'docs/measures.md'
GROUPS = ('all', 'layer0', 'layer1', 'depth0', 'depth1', 'depth10', *FREQUENCY_BANDS)
ALL = declared_metrics(GROUPS)
A, B = Metric('a', 'A', 'g', 'First.'), Metric('b', 'B', 'g', 'Second.', has_interval=True)


def test_everything_that_is_computed_is_declared() -> None:
    arrays, nothing = Taxonomy.from_edges(['a'], []).arrays, np.zeros(0, dtype=np.int64)
    names = set(hierarchical_sums(LocalisedPairs.gather([], arrays), nothing, arrays))
    assert {metric.key for metric in NAME_METRICS} == names | {'recall_at_90', 'recall_at_95'}
    assert [metric.key for metric in COCO_METRICS] == [f'coco_{name}' for name in COCO_STATISTICS]
    assert {kind.key for kind in COUNTED_KINDS} < {*(kind.name.lower() for kind in ErrorKind), MISSED}
    assert [metric.key for metric in ALL[-3:]] == ['mAP_depth0', 'mAP_depth1', 'mAP_depth10']


def test_the_order_is_that_of_the_declarations() -> None:
    assert declared([A, B], ['b', 'a'], ['b']) == [A, B]
    assert declared([A, B], ['b'], ['b']) == [B]


@pytest.mark.parametrize(
    ('metrics', 'scores', 'intervals', 'message'),
    [
        ([A], ['a', 'luck'], [], 'the scores luck are not declared once. Declare each by one Metric'),
        ([A, A], ['a'], [], 'the scores a are not declared once'),
        ([A, B], ['a', 'b'], [], 'the score b has no interval. Say has_interval=False'),
        ([A], ['a'], ['a'], 'the score a has an interval. Say has_interval=True'),
    ],
)
def test_a_score_that_is_declared_wrongly(metrics, scores, intervals, message) -> None:
    with pytest.raises(EvaluationError, match=message):
        declared(metrics, scores, intervals)


@pytest.mark.parametrize('metric', ALL, ids=lambda metric: metric.key)
def test_people_can_read_it(metric: Metric) -> None:
    assert metric.label
    assert metric.explanation.endswith('.')
    assert f'{-1.5:+{metric.format}}'.startswith('-1.5')
    assert metric.unit == 'edges' or metric.higher_is_better or metric.key == 'unknown'


def explained() -> set[str]:
    """Scores that a row of a table in the documentation begins with, their short forms written out."""
    found: set[str] = set()
    for line in MEASURES.read_text(encoding='utf-8').splitlines():
        if not line.startswith('| `'):
            continue
        names = re.findall(r'`(\w+)`', line.split('|')[1])
        stem = names[0].rsplit('_', 1)[0]
        found |= {f'{stem}{name}' if name.startswith('_') else name for name in names}
    return found


@pytest.mark.parametrize('metric', declared_metrics(['depth0', 'depth1']), ids=lambda metric: metric.key)
def test_the_documentation_explains_it(metric: Metric) -> None:
    assert metric.key in explained()


def test_the_documentation_names_every_kind_of_error() -> None:
    text = MEASURES.read_text(encoding='utf-8').lower()
    assert not [kind.key for kind in COUNTED_KINDS if not re.search(rf'\b{kind.key}\b', text)]
