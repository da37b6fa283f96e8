"""Numbers as text, verdicts and the answer of a comparison."""

from __future__ import annotations

from dataclasses import replace

import pytest
from comparison_documents import made_up
from hypothesis import given
from hypothesis import strategies as st

from hierseg.metrics.declarations import Estimate, Metric
from hierseg.metrics.system import Costs
from hierseg.report.comparison import Comparison
from hierseg.report.comparison.page import render_page, scores_table
from hierseg.report.comparison.scores import (
    answer,
    big_numbers,
    cost_rows,
    duration,
    formatted,
    interval_text,
    large,
    leading,
    score_groups,
    times,
    winners,
)

HIGHER = Metric('map', 'mAP', 'scores', 'Mean average precision.')
LOWER = Metric('distance', 'distance', 'names', 'In edges.', unit='edges', format='.2f', higher_is_better=False)


def with_scores(
    metric: Metric, scores: list[Estimate], differences: list[Estimate], *, costs: list[Costs] | None = None
) -> Comparison:
    """A comparison of as many systems as there are scores, by a single metric."""
    document = made_up(systems=len(scores), images=0)
    costs = costs or [Costs()] * len(scores)
    systems = [
        replace(system, scores={metric.key: score}, costs=cost)
        for system, score, cost in zip(document.systems, scores, costs, strict=True)
    ]
    further = {system.name: {metric.key: entry} for system, entry in zip(systems[1:], differences, strict=True)}
    return replace(document, metrics=[metric], systems=systems, differences=further)


@pytest.mark.parametrize(
    ('value', 'text'),
    [(0, '0'), (999, '999'), (1000, '1.00 k'), (3_982_098, '3.98 M'), (63_300_000, '63.3 M'), (999_600, '1.00 M')],
)
def test_large_numbers(value, text):
    assert large(value) == text


@pytest.mark.parametrize(
    ('seconds', 'text'),
    [(0.5, '0.5 s'), (59.4, '59.4 s'), (296, '4 min 56 s'), (3600, '1 h 0 min'), (7 * 3600 + 130, '7 h 2 min'),
     (187_200, '2 d 4 h')],
)  # fmt: skip
def test_durations(seconds, text):
    # 187,200 s = 2 × 86,400 + 4 × 3,600.
    assert duration(seconds) == text


def test_signs():
    assert formatted(-0.125, '.2f') == '−0.12'
    assert formatted(0.125, '.1f', signed=True) == '+0.1'
    assert formatted(-0.001, '.2f', signed=True) == '0.00'
    assert times(0.4987) == '0.50 ×'
    assert interval_text(Estimate(0.1, -0.05, 0.25), HIGHER, signed=True) == '−0.050 to +0.250'
    assert interval_text(Estimate(0.1), HIGHER) == ''


def test_numbers_that_are_not_finite_are_none():
    assert Estimate(float('nan'), float('-inf'), 0.5) == Estimate(None, None, 0.5)


@given(st.floats(-1, 1), st.floats(0, 1), st.floats(0, 1))
def test_a_verdict_needs_an_interval_without_zero(value, below, above):
    difference = Estimate(value, value - below, value + above)
    expected = 1 if value - below > 0 else -1 if value + above < 0 else 0
    assert leading(difference, HIGHER) == expected
    assert leading(difference, LOWER) == -expected
    assert leading(Estimate(value), HIGHER) == 0


@pytest.mark.parametrize(
    ('differences', 'expected'),
    [
        ([Estimate(0.1, 0.05, 0.15)], {1}),
        ([Estimate(0.1, 0.0, 0.2)], set()),  # an end at 0 leaves it open
        ([Estimate(-0.1, -0.2, -0.05)], {0}),
        ([Estimate(0.1)], set()),
        ([Estimate(0.1, 0.05, 0.15), Estimate(0.2, 0.1, 0.3)], {1, 2}),
        ([Estimate(-0.1, -0.2, -0.05), Estimate(0.2, 0.1, 0.3)], {2}),
        ([Estimate(-0.1, -0.2, -0.05), Estimate(-0.1, -0.3, 0.1)], set()),  # not better than all others
        ([Estimate(-0.1, -0.2, -0.05), Estimate(-0.2, -0.3, -0.1)], {0}),
    ],
)
def test_winners(differences, expected):
    document = with_scores(HIGHER, [Estimate(0.5)] * (len(differences) + 1), differences)
    assert winners(document, HIGHER) == expected
    marked = [cell.wins for cell in score_groups(document)['scores'][0].cells]
    assert {position for position, wins in enumerate(marked) if wins} == expected


def test_an_answer_names_the_better_system():
    document = with_scores(
        HIGHER,
        [Estimate(0.542, 0.52, 0.56), Estimate(0.876, 0.86, 0.89)],
        [Estimate(0.334, 0.31, 0.358)],
        costs=[Costs(parameters=8_000_000, latency_ms=90), Costs(parameters=4_000_000)],
    )
    found = answer(document)
    assert found.headline == 'end-to-end is better than two-layer ensemble in mAP.'
    assert found.sentences == (
        'end-to-end has 0.876 against 0.542 of two-layer ensemble: +0.334, 95% interval +0.310 to +0.358.',
        'end-to-end costs 0.50 × the parameters of two-layer ensemble.',
    )


def test_an_answer_knows_that_less_can_be_better():
    document = with_scores(LOWER, [Estimate(0.4), Estimate(1.2)], [Estimate(0.8, 0.6, 1.0)])
    assert answer(document).headline == 'two-layer ensemble is better than end-to-end in distance.'
    assert answer(document).sentences[0].startswith('end-to-end has 1.20 edges against 0.40 of two-layer ensemble')


def test_an_answer_claims_nothing_that_is_open():
    document = with_scores(HIGHER, [Estimate(0.5), Estimate(0.51)], [Estimate(0.01, -0.02, 0.04)])
    found = answer(document)
    assert found.headline == 'No clear difference in mAP.'
    assert found.sentences[0].endswith('which includes 0.')
    without = with_scores(HIGHER, [Estimate(0.5), Estimate(0.51)], [Estimate()])
    assert answer(without).headline == 'No clear difference in mAP.'
    assert answer(without).sentences[0].endswith('no interval of the difference was computed.')
    missing = with_scores(HIGHER, [Estimate(), Estimate(0.51)], [Estimate()])
    assert answer(missing).sentences == ('two-layer ensemble has no value of mAP.',)


def test_too_few_images_decide_nothing():
    few = Estimate(0.3, 0.2, 0.4, images=12)
    document = with_scores(HIGHER, [Estimate(0.5), Estimate(0.8)], [few])
    found = answer(document)
    assert (found.headline, found.is_warning) == ('Too few images to tell: 12, and at least 30 are needed.', True)
    assert found.sentences[0].endswith('+0.200 to +0.400, on 12 images.')
    assert winners(document, HIGHER) == set()
    cell = score_groups(document)['scores'][0].differences[0]
    assert (cell.winner, cell.verdict) == (None, 'too few images: 12')
    # One of three systems was compared on enough.
    enough = replace(few, images=30)
    document = with_scores(HIGHER, [Estimate(0.5), Estimate(0.8), Estimate(0.8)], [few, enough])
    assert answer(document).headline == 'end-to-end, flat loss is better than two-layer ensemble in mAP.'
    assert winners(document, HIGHER) == {2}


def test_systems_that_have_not_learnt_have_no_winner():
    metric = replace(HIGHER, learnt_from=0.05)
    clear = [Estimate(0.02, 0.01, 0.03)]
    document = with_scores(metric, [Estimate(0.01), Estimate(0.03)], clear)
    found = answer(document)
    assert (found.headline, found.is_warning) == ('No system has learnt enough to be judged: mAP is below 0.05.', True)
    assert winners(document, metric) == set()
    cell = score_groups(document)['scores'][0].differences[0]
    assert (cell.winner, cell.verdict) == (None, 'nothing learnt yet')
    assert '**No system has learnt' in scores_table(document)
    assert 'class="headline warning"' in render_page(document)
    # One that has learnt is better than one that has not.
    learnt = with_scores(metric, [Estimate(0.01), Estimate(0.05)], clear)
    assert (winners(learnt, metric), answer(learnt).is_warning) == ({1}, False)
    assert 'class="headline warning"' not in render_page(learnt)
    alone = answer(with_scores(metric, [Estimate(0.01, 0.005, 0.02)], []))
    assert alone.headline == 'two-layer ensemble has not learnt enough to be judged: mAP is below 0.05.'


def test_times_that_are_not_to_be_relied_on_say_so():
    alone = Costs(latency_ms=50, training_seconds=100, timed_images=20, load=1.0, unevenness=1.1)
    shared = Costs(latency_ms=20, training_seconds=36, timed_images=20, load=1.5, unevenness=4.7)
    assert (alone.doubts, shared.doubts) == ({}, {'latency_ms': 'under load', 'training_seconds': 'under load'})
    assert replace(alone, timed_images=2).doubts == {'latency_ms': 'of 2 images only'}
    document = with_scores(HIGHER, [Estimate(0.5)] * 2, [Estimate()], costs=[shared, alone])
    assert answer(document).sentences[-1] == (
        'end-to-end costs 2.50 × the time per image (measured under load) and 2.78 × the training time '
        '(measured under load) of two-layer ensemble.'
    )
    assert [cell.doubt for cell in cost_rows(document)['Time per image']] == ['under load', '']
    assert '| Training time | 36 s (under load) | 1 min 40 s | 2.78 × |' in scores_table(document)
    assert 'class="doubt">under load<' in render_page(document)


def test_an_answer_counts_the_other_scores():
    # made_up: nine differences with an interval, of which found (+0.002 ± at least 0.008) leaves it open.
    sentences = answer(made_up(images=0)).sentences
    assert sentences[1] == ('Of 9 scores, end-to-end is clearly better in 8 and two-layer ensemble in none; 1 is open.')


def test_an_answer_about_one_system():
    document = with_scores(HIGHER, [Estimate(0.5, 0.4, 0.6)], [])
    assert answer(document).headline == 'two-layer ensemble reaches 0.500 in mAP.'
    assert answer(document).sentences == ('The 95% interval is 0.400 to 0.600.',)


def test_an_answer_about_three_systems():
    better, worse, unclear = Estimate(0.2, 0.1, 0.3), Estimate(-0.2, -0.3, -0.1), Estimate(0.0, -0.1, 0.1)
    scores = [Estimate(0.5)] * 3

    def headline(*differences: Estimate) -> str:
        return answer(with_scores(HIGHER, scores, list(differences))).headline

    assert headline(better, unclear) == 'end-to-end is better than two-layer ensemble in mAP.'
    assert headline(better, better).startswith('end-to-end and end-to-end, flat loss are better than')
    assert headline(worse, worse) == 'two-layer ensemble is better than end-to-end and end-to-end, flat loss in mAP.'
    assert (
        headline(worse, unclear)
        == 'two-layer ensemble is better than end-to-end in mAP, but not clearly better than the rest.'
    )


def test_the_better_side_is_right_whatever_the_metric():
    # On a scale to ±0.3, +0.15 stands at 50 + 50 × 0.15 / 0.3 = 75.
    higher = with_scores(HIGHER, [Estimate(0.5)] * 2, [Estimate(0.15, 0.0, 0.3)])
    lower = with_scores(LOWER, [Estimate(0.5)] * 2, [Estimate(-0.15, -0.3, 0.0)])
    for document, group in ((higher, 'scores'), (lower, 'names')):
        cell = score_groups(document)[group][0].differences[0]
        assert (cell.middle, cell.whisker) == (75.0, (50.0, 100.0))
        assert (cell.winner, cell.verdict) == (None, 'no clear difference')


def test_costs_that_nobody_measured_have_no_row():
    document = with_scores(
        HIGHER, [Estimate(0.5)] * 2, [Estimate()], costs=[Costs(parameters=200, latency_ms=50), Costs(parameters=50)]
    )
    rows = cost_rows(document)
    assert list(rows) == ['Parameters', 'Time per image']
    assert [(cell.text, cell.bar, cell.ratio) for cell in rows['Parameters']] == [
        ('200', 100.0, ''),
        ('50', 25.0, '0.25 ×'),
    ]
    assert [(cell.text, cell.bar, cell.ratio) for cell in rows['Time per image']] == [
        ('50 ms', 100.0, ''),
        ('–', None, ''),
    ]


def test_what_the_page_does_not_show_counts_nowhere_on_it():
    document = made_up(images=0)
    metrics = [replace(metric, on_page=metric.key != 'top1') for metric in document.metrics]
    hidden = replace(document, metrics=metrics)
    assert 'Of 8 scores' in answer(hidden).sentences[1]
    rows = [row.metric.key for rows in score_groups(hidden).values() for row in rows]
    assert 'top1' not in rows
    assert len(rows) == len(metrics) - 1
    assert 'top1' in {metric['key'] for metric in hidden.to_json()['metrics']}
    assert 'top1' in hidden.to_json()['systems'][0]['scores']


def test_headlines_are_large_and_then_the_first_ones():
    document = made_up(images=0)
    metrics = [replace(metric, headline=metric.key in ('top1', 'mask_map')) for metric in document.metrics]
    shown = [row.metric.key for row in big_numbers(replace(document, metrics=metrics))]
    assert shown == ['mask_map', 'top1', 'mask_map_root', 'mask_map_deeper']
