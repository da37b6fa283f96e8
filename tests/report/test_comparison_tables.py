"""Curves and tables of the page: what is drawn and what can be downloaded is what was measured."""

from __future__ import annotations

import base64
import csv
import io
import re
from dataclasses import replace

import numpy as np
import pytest
from comparison_documents import made_up
from match_records import image_matches

from hierseg.metrics.average_precision import summarise
from hierseg.metrics.class_curves import class_curves
from hierseg.metrics.declarations import Estimate, Metric
from hierseg.report.comparison import Comparison, write_comparison
from hierseg.report.comparison.charts import BOTTOM, LEFT, RIGHT, TOP
from hierseg.report.comparison.curve_charts import curve_choices
from hierseg.report.comparison.page import render_page
from hierseg.report.comparison.scores import score_groups
from hierseg.report.comparison.tables import csv_tables


def matched() -> Comparison:
    """Two systems whose curves and average precisions are of detections drawn at random, none of the last class."""
    base, systems = made_up(images=0), []
    size = base.taxonomy.num_classes
    for position, system in enumerate(base.systems):
        generator = np.random.default_rng(position)
        labels, scores = generator.integers(size - 1, size=4000), generator.random(4000)
        right = generator.random(4000) < scores ** (2 - position)
        found = list(zip(labels.tolist(), scores.tolist(), right.astype(float).tolist(), strict=True))
        matches = [image_matches('a', found, dict.fromkeys(range(size - 1), 200))]
        result = summarise(matches, size)
        score = Estimate(result.mean_average_precision)
        systems.append(
            replace(
                system,
                scores={**system.scores, 'mask_map': score},
                class_ap=result.average_precision,
                class_curves=class_curves(matches, size),
            )
        )
    return replace(base, systems=systems)


@pytest.fixture(scope='module')
def document() -> Comparison:
    return matched()


def drawn_areas(page: str, key: str) -> list[float]:
    """Areas under the lines of the first chart of a choice of curves, in units of recall times precision."""
    block = re.search(rf'data-curve="{key}".*?</figure>', page, flags=re.DOTALL)
    areas = []
    for points in re.findall(r'points="([^"]*)"', block.group()):
        places = np.array([point.split(',') for point in points.split()], dtype=float)
        recall, precision = (places[:, 0] - LEFT) / (RIGHT - LEFT), (places[:, 1] - BOTTOM) / (TOP - BOTTOM)
        areas.append(float((np.diff(recall) * (precision[1:] + precision[:-1]) / 2).sum()))
    return areas


def test_the_area_of_a_drawn_curve_is_the_average_precision_of_the_table(document):
    page = render_page(document)
    rows = list(csv.DictReader(io.StringIO(csv_tables(document)['classes'])))
    for label in range(document.taxonomy.num_classes - 1):
        (row,) = (row for row in rows if row['id'] == document.taxonomy.ids[label])
        expected = [float(row[f'{system.name} average precision']) for system in document.systems]
        # Places are drawn to a tenth of a pixel of 344 × 216.
        assert drawn_areas(page, str(label)) == pytest.approx(expected, abs=1e-3)
        assert expected == [system.class_ap[label] for system in document.systems]
    means = [system.scores['mask_map'].value for system in document.systems]
    assert drawn_areas(page, 'all') == pytest.approx(means, abs=1e-3)
    assert 'data-curve="21"' not in page  # no object


def test_groups_come_first_and_then_the_tree(document):
    keys = [choice.key for choice in curve_choices(document)]
    assert keys[:3] == ['all', 'root', 'deeper']
    paths = [document.taxonomy.preferred_path(int(key)) for key in keys[3:]]
    assert paths == sorted(paths)
    assert len(paths) == document.taxonomy.num_classes - 1


def test_downloads_are_the_files_beside_the_page(tmp_path):
    document = made_up(images=2)
    page = write_comparison(document, tmp_path)
    links = re.findall(r'download="([\w.]+)" href="data:text/csv;charset=utf-8;base64,([\w+/=]+)"', page.read_text())
    beside = {file.name: file.read_bytes() for file in (tmp_path / 'tables').iterdir()}
    assert {name: base64.b64decode(content) for name, content in links} == {
        name: content for name, content in beside.items() if name != 'curves.csv'
    }
    scores = list(csv.DictReader(io.StringIO(beside['scores.csv'].decode())))
    assert [row['score'] for row in scores] == [metric.label for metric in document.metrics]
    assert float(scores[0]['end-to-end']) == document.systems[1].scores['mask_map'].value
    low = float(scores[0]['end-to-end - two-layer ensemble low'])
    assert low == document.differences['end-to-end']['mask_map'].low
    images = list(csv.DictReader(io.StringIO(beside['images.csv'].decode())))
    assert [row['file'] for row in images] == [image.file_name for image in document.images]
    shown = [entry.score >= 30 for entry in document.images[0].panels['end-to-end'].instances]
    assert int(images[0]['end-to-end detections']) == sum(shown)
    confusions = list(csv.DictReader(io.StringIO(beside['confusions.csv'].decode())))
    counts = [int(row['objects']) for row in confusions if row['system'] == 'end-to-end']
    assert sum(counts) == document.systems[1].confusion.counts.sum()


def test_a_table_that_is_gone_does_not_stay(document, tmp_path):
    write_comparison(made_up(images=1), tmp_path)
    write_comparison(document, tmp_path)
    assert not (tmp_path / 'tables/images.csv').exists()
    assert (tmp_path / 'tables/scores.csv').exists()


def test_rows_that_say_nothing():
    metrics = [Metric(key, key, 'g', '') for key in ('map', 'equal', 'again', 'other')]
    first = {'map': Estimate(0.5), 'equal': Estimate(1.0), 'again': Estimate(0.5), 'other': Estimate(0.3)}
    second = {'map': Estimate(0.7), 'equal': Estimate(1.0), 'again': Estimate(0.7), 'other': Estimate(0.4)}
    base = made_up(images=0)
    systems = [replace(system, scores=scores) for system, scores in zip(base.systems, (first, second), strict=True)]
    document = replace(base, metrics=metrics, systems=systems, differences={})

    def silent(document: Comparison) -> list[str]:
        return [row.metric.key for row in score_groups(document)['g'] if row.says_nothing]

    assert silent(document) == ['equal', 'again']
    assert 'Show 2 more rows, which explain nothing' in render_page(document)
    # Of one system, being equal means nothing.
    assert silent(replace(document, systems=systems[:1])) == ['again']
    # What a large number is made of stays.
    headlines = [replace(metric, headline=True) for metric in metrics]
    assert silent(replace(document, metrics=headlines)) == []
