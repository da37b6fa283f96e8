"""What a comparison accepts."""

from __future__ import annotations

from dataclasses import replace

import pytest
from comparison_documents import made_up

from hierseg.errors import EvaluationError
from hierseg.report.comparison import (
    ClassCounts,
    Comparison,
    Estimate,
    NamedPath,
    Panel,
    PrecisionRecall,
)


@pytest.fixture(scope='module')
def document() -> Comparison:
    return made_up(images=1)


def changed_system(document: Comparison, **changes: object) -> Comparison:
    return replace(document, systems=[replace(document.systems[0], **changes), *document.systems[1:]])


def changed_image(document: Comparison, **changes: object) -> Comparison:
    return replace(document, images=[replace(document.images[0], **changes)])


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda d: replace(d, systems=()), 'no systems'),
        (lambda d: replace(d, systems=[d.systems[0]] * 2), r"system names \['two-layer ensemble'\] occur twice"),
        (lambda d: replace(d, metrics=[*d.metrics, d.metrics[0]]), r"metric keys \['mask_map'\]"),
        (lambda d: replace(d, metrics=[replace(d.metrics[0], format='.3q')]), "'.3q' is no format"),
        (lambda d: replace(d, counts=ClassCounts([1])), 'counts of objects: 1 values. Give 22'),
        (lambda d: replace(d, differences={'two-layer ensemble': {}}), 'no further systems'),
        (lambda d: replace(d, differences={'end-to-end': {'x': Estimate()}}), r"differences of 'end-to-end': \['x'\]"),
        (lambda d: changed_system(d, scores={'x': Estimate()}), "'two-layer ensemble', scores"),
        (lambda d: changed_system(d, errors={'x': 1}), 'no error kinds'),
        (lambda d: changed_system(d, class_ap=[0.5]), 'class_ap: 1 values'),
        (lambda d: changed_system(d, confusion=[(0, 22, 1)]), 'a confusion of 0 and 22 among 22'),
        (lambda d: changed_system(d, confusion=[(0, 1, 1), (0, 1, 2)]), 'occur twice'),
        (lambda d: changed_system(d, precision_recall={'all': PrecisionRecall([0, 1], [1])}), "recall of 'all'"),
        (lambda d: changed_image(d, panels={}), "image 'made_up_000': panels of"),
        (lambda d: changed_image(d, classes=[22]), r'classes \[22\] among 22'),
        (lambda d: changed_image(d, ground_truth=Panel(b'PNG')), 'no JPEG'),
        (
            lambda d: changed_image(d, ground_truth=replace(d.images[0].ground_truth, paths=[NamedPath('Dog', 'red')])),
            "'red' is no colour",
        ),
    ],
)  # fmt: skip
def test_a_document_that_does_not_fit_together(document, change, message):
    with pytest.raises(EvaluationError, match=message):
        change(document)
