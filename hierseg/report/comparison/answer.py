"""What the numbers say, in a sentence or two that claims no more than they do."""

from __future__ import annotations

from dataclasses import dataclass

from hierseg.report.comparison.document import Comparison, Estimate, Metric, System
from hierseg.report.comparison.numbers import COSTS, cost, interval, number, times


@dataclass(frozen=True)
class Answer:
    """The answer of a comparison.

    Attributes:
        headline: One sentence about the first metric.
        sentences: What stands behind it, and what else to know.
    """

    headline: str
    sentences: tuple[str, ...]


def leading(difference: Estimate, metric: Metric) -> int:
    """1 if the further system is better than the first, -1 if worse, 0 if the interval leaves it open."""
    return difference.sign if metric.higher_is_better else -difference.sign


def winners(document: Comparison, metric: Metric) -> frozenset[int]:
    """Positions of the systems that a metric marks.

    A further system is marked where it is better than the first; the first where it is better than all others.
    Further systems are not compared with each other.
    """
    leads = [leading(document.difference(system, metric), metric) for system in document.systems[1:]]
    if leads and all(lead < 0 for lead in leads):
        return frozenset([0])
    return frozenset(position for position, lead in enumerate(leads, start=1) if lead > 0)


def answer(document: Comparison) -> Answer:
    """Answers by the first metric; the others are counted."""
    metric, first = document.metrics[0], document.systems[0]
    others = document.systems[1:]
    if not others:
        return _of_one(document, metric, first)
    sentences = []
    for system in others:
        sentences.append(_difference(document, metric, system))
        sentences += filter(None, [_counts(document, system), _costs(first, system) if len(others) == 1 else ''])
    return Answer(_headline(document, metric), tuple(sentences))


def _of_one(document: Comparison, metric: Metric, system: System) -> Answer:
    score = system.scores.get(metric.key, Estimate())
    if score.value is None:
        return Answer(f'{system.name} has no value of {metric.label}.', ())
    within = interval(score, metric)
    sentences = (f'The {document.head.confidence:.0%} interval is {within}.',) if within else ()
    return Answer(f'{system.name} reaches {number(score.value, metric)} in {metric.label}.', sentences)


def _headline(document: Comparison, metric: Metric) -> str:
    first, others = document.systems[0], document.systems[1:]
    leads = [leading(document.difference(system, metric), metric) for system in others]
    better = [system.name for system, lead in zip(others, leads, strict=True) if lead > 0]
    worse = [system.name for system, lead in zip(others, leads, strict=True) if lead < 0]
    if better:
        return f'{_listed(better)} {"is" if len(better) == 1 else "are"} better than {first.name} in {metric.label}.'
    if len(worse) == len(others):
        return f'{first.name} is better than {_listed(worse)} in {metric.label}.'
    if worse:
        return f'{first.name} is better than {_listed(worse)} in {metric.label}, but not clearly better than the rest.'
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
    within = interval(difference, metric, signed=True)
    if not within:
        return f'{text}; no interval of the difference was computed.'
    text += f': {number(difference.value, metric, signed=True)}, {document.head.confidence:.0%} interval {within}'
    return f'{text}.' if difference.sign else f'{text}, which includes 0.'


def _counts(document: Comparison, system: System) -> str:
    """How many metrics are clear, and in whose favour."""
    first = document.systems[0]
    differences = [(document.difference(system, metric), metric) for metric in document.metrics]
    known = [leading(estimate, metric) for estimate, metric in differences if interval(estimate, metric)]
    if len(known) < 2:
        return ''
    better, worse, unclear = known.count(1), known.count(-1), known.count(0)
    text = f'Of {len(known)} scores, {system.name} is clearly better in {better or "none"}'
    text += f' and {first.name} in {worse or "none"}'
    return f'{text}; {unclear} {"is" if unclear == 1 else "are"} open.' if unclear else f'{text}.'


def _costs(first: System, system: System) -> str:
    """Ratios of what is known of both systems."""
    ratios = []
    for name, kind in COSTS.items():
        before, after = cost(first.costs, name), cost(system.costs, name)
        if before and after is not None:
            ratios.append(f'{times(after / before)} {kind.phrase}')
    return f'{system.name} costs {_listed(ratios)} of {first.name}.' if ratios else ''


def _listed(texts: list[str]) -> str:
    return texts[0] if len(texts) == 1 else f'{", ".join(texts[:-1])} and {texts[-1]}'
