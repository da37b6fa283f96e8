"""Numbers as text, for the page and the table alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from hierseg.report.comparison.document import Costs, Estimate, Metric

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


def interval(estimate: Estimate, metric: Metric, *, signed: bool = False) -> str:
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
    """How a cost is shown: its label, what an answer calls it, its text."""

    label: str
    phrase: str
    text: Callable[[float], str]


COSTS: Mapping[str, CostKind] = {
    'parameters': CostKind('Parameters', 'the parameters', large),
    'flops': CostKind('Floating-point operations per image', 'the operations per image', large),
    'latency_ms': CostKind('Time per image', 'the time per image', '{:.3g} ms'.format),
    'peak_memory_mb': CostKind('Peak memory', 'the memory', '{:,.0f} MB'.format),
    'training_seconds': CostKind('Training time', 'the training time', duration),
}
"""By the field of :class:`Costs`."""


def cost(costs: Costs, kind: str) -> float | None:
    """A cost by its field."""
    value: float | None = getattr(costs, kind)
    return value
