"""The scores and costs of the systems as rows and as big numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hierseg.report.comparison.answer import leading, winners
from hierseg.report.comparison.document import Comparison, Estimate, Metric, System
from hierseg.report.comparison.numbers import COSTS, NONE, CostKind, cost, interval, number, times

BIG_NUMBERS = 4
"""The first metrics are shown large."""


@dataclass(frozen=True)
class ScoreCell:
    """The score of a system: its text, its interval, whether it is marked, and its bar and whisker in percent."""

    text: str
    interval: str
    wins: bool
    bar: float | None
    whisker: tuple[float, float] | None


@dataclass(frozen=True)
class DifferenceCell:
    """How a further system differs from the first.

    Attributes:
        text: Its score minus the first one's.
        interval: Of it.
        verdict: In words.
        winner: Position of the better system; None where that is open.
        middle: The difference on a scale from 0 (the first system is better) to 100 (the further one is); the middle
            is 50, also where lower scores are better. None where there is none.
        whisker: The interval on that scale.
    """

    text: str
    interval: str
    verdict: str
    winner: int | None
    middle: float | None
    whisker: tuple[float, float] | None


@dataclass(frozen=True)
class ScoreRow:
    """A metric with a cell for each system and one for each difference."""

    metric: Metric
    cells: tuple[ScoreCell, ...]
    differences: tuple[DifferenceCell, ...]


@dataclass(frozen=True)
class CostCell:
    """A cost: its text, its part of the highest one in percent, and a further system's multiple of the first one's."""

    text: str
    bar: float | None
    ratio: str


@dataclass(frozen=True)
class CostRow:
    """A kind of cost with a cell for each system."""

    label: str
    cells: tuple[CostCell, ...]


def score_groups(document: Comparison) -> dict[str, list[ScoreRow]]:
    """Rows by the metric's group, in the order of the document; metrics without any value are left out."""
    extents = _extents(document)
    groups: dict[str, list[ScoreRow]] = {}
    for metric in document.metrics:
        row = score_row(document, metric, extent=extents[metric.unit])
        if any(cell.text != NONE for cell in row.cells):
            groups.setdefault(metric.group, []).append(row)
    return groups


def big_numbers(document: Comparison) -> list[ScoreRow]:
    """The rows of the first metrics that have values."""
    rows = [row for rows in score_groups(document).values() for row in rows]
    first = list(document.metrics[:BIG_NUMBERS])
    return sorted((row for row in rows if row.metric in first), key=lambda row: first.index(row.metric))


def cost_rows(document: Comparison) -> list[CostRow]:
    """The costs that are known of at least one system."""
    rows = []
    for name, kind in COSTS.items():
        values = [cost(system.costs, name) for system in document.systems]
        known = [value for value in values if value is not None]
        if not known:
            continue
        cells = [
            _cost_cell(value, kind, values[0] if position else None, max(known))
            for position, value in enumerate(values)
        ]
        rows.append(CostRow(kind.label, tuple(cells)))
    return rows


def _cost_cell(value: float | None, kind: CostKind, first: float | None, highest: float) -> CostCell:
    if value is None:
        return CostCell(NONE, None, '')
    return CostCell(kind.text(value), _percent(value, highest), times(value / first) if first else '')


def score_row(document: Comparison, metric: Metric, *, extent: float) -> ScoreRow:
    """One metric.

    Args:
        document: The comparison.
        metric: One of its metrics.
        extent: The difference at the end of the scale.
    """
    marked = winners(document, metric)
    scores = [system.scores.get(metric.key, Estimate()) for system in document.systems]
    highest = _highest(scores, metric)
    cells = tuple(
        _score_cell(score, metric, wins=position in marked, highest=highest) for position, score in enumerate(scores)
    )
    differences = tuple(
        _difference_cell(document, metric, position=position, extent=extent)
        for position in range(1, len(document.systems))
    )
    return ScoreRow(metric, cells, differences)


def _score_cell(score: Estimate, metric: Metric, *, wins: bool, highest: float) -> ScoreCell:
    if score.value is None:
        return ScoreCell(NONE, '', wins, None, None)
    whisker = None
    if score.low is not None and score.high is not None:
        whisker = (_percent(score.low, highest), _percent(score.high, highest))
    return ScoreCell(
        number(score.value, metric), interval(score, metric), wins, _percent(score.value, highest), whisker
    )


def _difference_cell(document: Comparison, metric: Metric, *, position: int, extent: float) -> DifferenceCell:
    system, difference = document.systems[position], document.difference(document.systems[position], metric)
    if difference.value is None:
        return DifferenceCell(NONE, '', '', None, None, None)
    lead = leading(difference, metric)
    direction = 1 if metric.higher_is_better else -1
    within = interval(difference, metric, signed=True)
    whisker = None
    if difference.low is not None and difference.high is not None:
        ends = sorted(_centred(direction * end, extent) for end in (difference.low, difference.high))
        whisker = (ends[0], ends[1])
    return DifferenceCell(
        text=number(difference.value, metric, signed=True),
        interval=within,
        verdict=_verdict(lead, system, document.systems[0]) if within else 'no interval',
        winner={1: position, -1: 0}.get(lead),
        middle=_centred(direction * difference.value, extent),
        whisker=whisker,
    )


def _verdict(lead: int, system: System, first: System) -> str:
    if lead == 0:
        return 'no clear difference'
    return f'{system.name if lead > 0 else first.name} better'


def _extents(document: Comparison) -> Mapping[str, float]:
    """The largest difference or end of an interval among the metrics of each unit."""
    extents: dict[str, float] = {}
    for metric in document.metrics:
        differences = [document.difference(system, metric) for system in document.systems[1:]]
        ends = [end for entry in differences for end in (entry.value, entry.low, entry.high) if end is not None]
        extents[metric.unit] = max([extents.get(metric.unit, 0.0), *map(abs, ends)])
    return extents


def _highest(scores: list[Estimate], metric: Metric) -> float:
    """The end of the bars' scale: 1 for parts of 1, else the highest end of an interval."""
    ends = [end for score in scores for end in (score.value, score.high) if end is not None]
    highest = max(ends, default=0.0)
    return 1.0 if metric.unit == '' and highest <= 1 else highest


def _percent(value: float, highest: float) -> float:
    return round(min(max(100 * value / highest, 0), 100), 1) if highest > 0 else 0.0


def _centred(value: float, extent: float) -> float:
    return round(50 + 50 * value / extent, 1) if extent > 0 else 50.0
