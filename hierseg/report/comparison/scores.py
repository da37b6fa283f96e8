"""Scores and costs as text for page and table: rows, big numbers, and an answer that claims no more than they do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from hierseg.metrics.declarations import FEWEST_IMAGES, Estimate, Metric
from hierseg.metrics.system import System
from hierseg.report.comparison.document import Comparison

NONE = '–'
MINUS = '−'


def number(value: float | None, metric: Metric, *, signed: bool = False) -> str:
    """A score in the metric's format, with a typographic minus; a dash for None."""
    return NONE if value is None else formatted(value, metric.format, signed=signed)


def formatted(value: float, spec: str, *, signed: bool = False) -> str:
    """A number in a format, with a typographic minus, and without a sign where nothing but zeros is left."""
    text = f'{value:{"+" if signed else ""}{spec}}'
    if not any(digit in text for digit in '123456789'):
        text = text.lstrip('+-')
    return text.replace('-', MINUS)


def interval_text(estimate: Estimate, metric: Metric, *, signed: bool = False) -> str:
    """Such as ``0.310 to 0.358``; '' where there is none."""
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return ''
    return f'{number(estimate.low, metric, signed=signed)} to {number(estimate.high, metric, signed=signed)}'


def large(value: float) -> str:
    """Three digits and a power of a thousand, such as ``3.98 M``."""
    for size, letter in ((1e12, ' T'), (1e9, ' G'), (1e6, ' M'), (1e3, ' k')):
        if value >= size * 0.9995:
            return f'{value / size:#.3g}'.rstrip('.') + letter
    return f'{value:.3g}'


def duration(seconds: float) -> str:
    """Such as ``4 min 56 s``, ``3 h 20 min`` or ``2 d 4 h``: the two largest units."""
    whole = round(seconds)
    if whole < 60:
        return f'{seconds:.3g} s'
    units = ((86400, 'd'), (3600, 'h'), (60, 'min'), (1, 's'))
    first = next(index for index, (size, _) in enumerate(units) if whole >= size)
    parts = []
    for size, letter in units[first : first + 2]:
        amount, whole = divmod(whole, size)
        parts.append(f'{amount} {letter}')
    return ' '.join(parts)


def times(ratio: float) -> str:
    """Such as ``0.50 ×``."""
    return f'{ratio:.2f} ×' if ratio < 9.995 else f'{ratio:.0f} ×'


@dataclass(frozen=True)
class CostKind:
    """A cost, for people: its label, its name in an answer, its text."""

    label: str
    phrase: str
    text: Callable[[float], str]


COSTS: Mapping[str, CostKind] = {
    'parameters': CostKind('Parameters', 'the parameters', large),
    'flops': CostKind('Floating-point operations per image', 'the operations per image', large),
    'latency_ms': CostKind(
        'Time per image',
        'the time per image',
        lambda milliseconds: duration(milliseconds / 1000) if milliseconds >= 1000 else f'{milliseconds:.3g} ms',
    ),
    'peak_memory_mb': CostKind('Peak memory', 'the memory', '{:,.0f} MB'.format),
    'training_seconds': CostKind('Training time', 'the training time', duration),
}
"""By the field of :class:`~hierseg.metrics.system.Costs`."""


@dataclass(frozen=True)
class Conclusion:
    """The answer of a comparison: a sentence about the first metric, then its numbers and what else to know.

    It is a warning where nothing can be concluded.
    """

    headline: str
    sentences: tuple[str, ...]
    is_warning: bool = False


def leading(difference: Estimate, metric: Metric) -> int:
    """1 if the further system is better than the first, -1 if worse, 0 if the interval leaves it open."""
    return difference.sign if metric.higher_is_better else -difference.sign


def lead(document: Comparison, system: System, metric: Metric) -> int:
    """As :func:`leading`, of a further system; 0 where no system has learnt anything."""
    return 0 if document.untrained else leading(document.difference(system, metric), metric)


def winners(document: Comparison, metric: Metric) -> frozenset[int]:
    """Positions of the systems that a metric marks.

    A further system is marked where it is better than the first; the first where it is better than all others.
    Further systems are not compared with each other.
    """
    leads = [lead(document, system, metric) for system in document.systems[1:]]
    if leads and all(lead < 0 for lead in leads):
        return frozenset([0])
    return frozenset(position for position, lead in enumerate(leads, start=1) if lead > 0)


def answer(document: Comparison) -> Conclusion:
    """Answers by the first metric; the others are counted."""
    metric, first, others = document.shown_metrics[0], document.systems[0], document.systems[1:]
    if not others:
        score = first.scores.get(metric.key, Estimate())
        if score.value is None:
            return Conclusion(f'{first.name} has no value of {metric.label}.', ())
        within = interval_text(score, metric)
        sentences = [f'The {document.head.confidence:.0%} interval is {within}.'] if within else []
        headline = f'{first.name} reaches {number(score.value, metric)} in {metric.label}.'
        return Conclusion(_untrained(document) or headline, tuple(sentences), document.untrained is not None)
    sentences = []
    for system in others:
        sentences.append(_difference(document, metric, system))
        sentences += filter(None, [_counts(document, system), _costs(first, system) if len(others) == 1 else ''])
    is_warning = document.untrained is not None or any(
        document.difference(system, metric).rests_on_few for system in others
    )
    return Conclusion(_untrained(document) or _headline(document, metric), tuple(sentences), is_warning)


def _untrained(document: Comparison) -> str:
    """The warning where no system has learnt; '' otherwise."""
    metric = document.untrained
    if metric is None or metric.learnt_from is None:
        return ''
    names = [system.name for system in document.systems]
    who = f'{names[0]} has not' if len(names) == 1 else 'No system has'
    return f'{who} learnt enough to be judged: {metric.label} is below {metric.learnt_from:g}.'


def _headline(document: Comparison, metric: Metric) -> str:
    first, others = document.systems[0], document.systems[1:]
    differences = [document.difference(system, metric) for system in others]
    counted = [difference.images for difference in differences if difference.rests_on_few]
    if len(counted) == len(others):
        return f'Too few images to tell: {counted[0]}, and at least {FEWEST_IMAGES} are needed.'
    leads = {system.name: lead(document, system, metric) for system in others}
    better, worse = ([name for name, lead in leads.items() if lead == sign] for sign in (1, -1))
    if better:
        return f'{_listed(better)} {"is" if len(better) == 1 else "are"} better than {first.name} in {metric.label}.'
    if worse:
        text = f'{first.name} is better than {_listed(worse)} in {metric.label}'
        return f'{text}.' if len(worse) == len(others) else f'{text}, but not clearly better than the rest.'
    return f'No clear difference in {metric.label}.'


def _difference(document: Comparison, metric: Metric, system: System) -> str:
    first, difference = document.systems[0], document.difference(system, metric)
    values = [other.scores.get(metric.key, Estimate()).value for other in (system, first)]
    if None in values:
        missing = first if values[1] is None else system
        return f'{missing.name} has no value of {metric.label}.'
    text = (
        f'{system.name} has {number(values[0], metric)} {metric.unit}'.rstrip()
        + f' against {number(values[1], metric)} of {first.name}'
    )
    within = interval_text(difference, metric, signed=True)
    if not within:
        return f'{text}; no interval of the difference was computed.'
    text += f': {number(difference.value, metric, signed=True)}, {document.head.confidence:.0%} interval {within}'
    if difference.rests_on_few:
        return f'{text}, on {difference.images} images.'
    return f'{text}.' if difference.sign else f'{text}, which includes 0.'


def _counts(document: Comparison, system: System) -> str:
    """The number of clear metrics, and in whose favour they are."""
    first = document.systems[0]
    differences = [(document.difference(system, metric), metric) for metric in document.shown_metrics]
    known = [
        leading(estimate, metric)
        for estimate, metric in differences
        if interval_text(estimate, metric) and not estimate.rests_on_few
    ]
    if len(known) < 2 or document.untrained:
        return ''
    better, worse, unclear = known.count(1), known.count(-1), known.count(0)
    text = f'Of {len(known)} scores, {system.name} is clearly better in {better or "none"}'
    text += f' and {first.name} in {worse or "none"}'
    return f'{text}; {unclear} {"is" if unclear == 1 else "are"} open.' if unclear else f'{text}.'


def doubt_of(system: System, cost: str) -> str:
    """The reason why a cost is not to be relied on; '' without one."""
    return system.costs.doubts.get(cost, '')


def _costs(first: System, system: System) -> str:
    """Ratios of what is known of both systems."""
    ratios = []
    for name, kind in COSTS.items():
        before, after = getattr(first.costs, name), getattr(system.costs, name)
        if before and after is not None:
            doubt = doubt_of(first, name) or doubt_of(system, name)
            ratios.append(f'{times(after / before)} {kind.phrase}' + (f' (measured {doubt})' if doubt else ''))
    return f'{system.name} costs {_listed(ratios)} of {first.name}.' if ratios else ''


def _listed(texts: list[str]) -> str:
    return texts[0] if len(texts) == 1 else f'{", ".join(texts[:-1])} and {texts[-1]}'


BIG_NUMBERS = 4
"""So many are shown large: the headlines, then the first ones."""


@dataclass(frozen=True)
class ScoreCell:
    """The score of a system: its text, its interval, whether it is marked, and its bar and whisker in percent."""

    text: str = NONE
    interval: str = ''
    wins: bool = False
    bar: float | None = None
    whisker: tuple[float, float] | None = None


@dataclass(frozen=True)
class DifferenceCell:
    """A further system's score minus the first one's: text, interval, verdict, and position of a clear winner.

    Middle and whisker are the difference and its interval on a scale from 0 (the first system is better) to 100 (the
    further one is), also where lower scores are better.
    """

    text: str = NONE
    interval: str = ''
    verdict: str = ''
    winner: int | None = None
    middle: float | None = None
    whisker: tuple[float, float] | None = None


@dataclass(frozen=True)
class ScoreRow:
    """A metric with a cell for each system and one for each difference.

    It says nothing where all systems are equal, or where a row before it has the very same numbers, such as that of
    depth 0 after that of root classes.
    """

    metric: Metric
    cells: tuple[ScoreCell, ...]
    differences: tuple[DifferenceCell, ...]
    says_nothing: bool = False


@dataclass(frozen=True)
class CostCell:
    """A cost: its text, its part of the highest one in percent, and a further system's multiple of the first one's.

    The doubt says why it is not to be relied on, such as ``under load``.
    """

    text: str = NONE
    bar: float | None = None
    ratio: str = ''
    doubt: str = ''


def score_groups(document: Comparison) -> dict[str, list[ScoreRow]]:
    """Rows by the metric's group, in the order of the document; metrics without any value are left out.

    Differences of one unit share a scale, whose end is the largest of them or of the ends of their intervals.
    """
    extents: dict[str, float] = {}
    for metric in document.shown_metrics:
        found = [document.difference(system, metric) for system in document.systems[1:]]
        ends = [end for entry in found for end in (entry.value, entry.low, entry.high) if end is not None]
        extents[metric.unit] = max([extents.get(metric.unit, 0.0), *map(abs, ends)])
    groups: dict[str, list[ScoreRow]] = {}
    seen: list[list[Estimate | None]] = []
    for metric in document.shown_metrics:
        cells = _score_cells(document, metric)
        differences = tuple(
            _difference_cell(document, metric, position, extents[metric.unit])
            for position in range(1, len(document.systems))
        )
        if all(cell.text == NONE for cell in cells):
            continue
        numbers = [system.scores.get(metric.key) for system in document.systems]
        is_equal = len(cells) > 1 and len({(cell.text, cell.interval) for cell in cells}) == 1
        says_nothing = (is_equal or numbers in seen) and not metric.headline and metric != document.shown_metrics[0]
        seen.append(numbers)
        groups.setdefault(metric.group, []).append(ScoreRow(metric, cells, differences, says_nothing))
    return groups


def big_numbers(document: Comparison) -> list[ScoreRow]:
    """The rows that are shown large."""
    rows = [row for rows in score_groups(document).values() for row in rows]
    first = sorted(document.shown_metrics, key=lambda metric: not metric.headline)[:BIG_NUMBERS]
    return sorted((row for row in rows if row.metric in first), key=lambda row: first.index(row.metric))


def cost_rows(document: Comparison) -> dict[str, list[CostCell]]:
    """Cells of the systems by the label of a cost that is known of at least one of them."""
    rows = {}
    for name, kind in COSTS.items():
        values: list[float | None] = [getattr(system.costs, name) for system in document.systems]
        highest = max((value for value in values if value is not None), default=None)
        if highest is None:
            continue
        rows[kind.label] = []
        for position, value in enumerate(values):
            ratio = times(value / values[0]) if position and value is not None and values[0] else ''
            if value is None:
                rows[kind.label].append(CostCell())
                continue
            doubt = doubt_of(document.systems[position], name)
            rows[kind.label].append(CostCell(kind.text(value), _percent(value, highest), ratio, doubt))
    return rows


def _score_cells(document: Comparison, metric: Metric) -> tuple[ScoreCell, ...]:
    """Cells whose bars end at 1 for parts of 1, else at the highest end of an interval."""
    marked = winners(document, metric)
    scores = [system.scores.get(metric.key, Estimate()) for system in document.systems]
    highest = max((end for score in scores for end in (score.value, score.high) if end is not None), default=0.0)
    if metric.unit == '' and highest <= 1:
        highest = 1.0
    cells = []
    for position, score in enumerate(scores):
        if score.value is None:
            cells.append(ScoreCell(wins=position in marked))
            continue
        whisker = None
        if score.low is not None and score.high is not None:
            whisker = (_percent(score.low, highest), _percent(score.high, highest))
        text, bar = number(score.value, metric), _percent(score.value, highest)
        cells.append(ScoreCell(text, interval_text(score, metric), position in marked, bar, whisker))
    return tuple(cells)


def _difference_cell(document: Comparison, metric: Metric, position: int, extent: float) -> DifferenceCell:
    first, system = document.systems[0], document.systems[position]
    difference = document.difference(system, metric)
    if difference.value is None:
        return DifferenceCell()
    ahead, direction = lead(document, system, metric), 1 if metric.higher_is_better else -1
    verdict, whisker = 'no interval', None
    if difference.low is not None and difference.high is not None:
        verdict = {1: f'{system.name} better', -1: f'{first.name} better', 0: 'no clear difference'}[ahead]
        if difference.rests_on_few:
            verdict = f'too few images: {difference.images}'
        if document.untrained:
            verdict = 'nothing learnt yet'
        low, high = sorted(_centred(direction * end, extent) for end in (difference.low, difference.high))
        whisker = (low, high)
    return DifferenceCell(
        text=number(difference.value, metric, signed=True),
        interval=interval_text(difference, metric, signed=True),
        verdict=verdict,
        winner={1: position, -1: 0}.get(ahead),
        middle=_centred(direction * difference.value, extent),
        whisker=whisker,
    )


def _percent(value: float, highest: float) -> float:
    return round(min(max(100 * value / highest, 0), 100), 1) if highest > 0 else 0.0


def _centred(value: float, extent: float) -> float:
    return round(50 + 50 * value / extent, 1) if extent > 0 else 50.0
