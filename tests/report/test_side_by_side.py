"""The table of several systems' scores."""

from __future__ import annotations

import json

import pytest

from hierseg.errors import ConfigError
from hierseg.report.side_by_side import read_scores, scores_table


def test_each_system_has_a_column_and_each_metric_a_row():
    table = scores_table({
        'one': {'segm/mAP': 0.12345, 'segm/mAP_layer1': None, 'classes': 22.0},
        'two': {'segm/mAP': 1.0, 'classes': 21.0, 'seconds': 1234.5},
    })  # fmt: skip
    cells = [[cell.strip() for cell in line.split('|')[1:-1]] for line in table.splitlines() if '|' in line]
    assert cells == [
        ['', 'one', 'two'],
        ['segm/mAP', '0.123', '1.000'],
        ['segm/mAP_layer1', '–', '–'],
        ['classes', '22', '21'],
        ['seconds', '–', '1234.500'],
    ]


def test_reads_what_the_test_tool_writes(tmp_path):
    (tmp_path / 'results.json').write_text('{"segm/mAP": 0.5, "segm/mAP_layer1": null}')
    assert read_scores(tmp_path / 'results.json') == {'segm/mAP': 0.5, 'segm/mAP_layer1': None}


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (None, 'cannot be read'),
        ('{', 'is not JSON'),
        ('[1]', 'holds no scores by name'),
        (json.dumps({'hier_e2e': {'segm/mAP': 0.5}}), 'holds no scores by name'),
    ],
)
def test_anything_else_is_refused(tmp_path, content, message):
    path = tmp_path / 'results.json'
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=rf'results\.json: {message}.*tools/test\.py'):
        read_scores(path)
