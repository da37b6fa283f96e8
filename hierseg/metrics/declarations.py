"""Declarations of what is measured: a score or a kind of error says beside its computation what it is.

Without one, a score reaches neither ``results.json`` nor the comparison page: :func:`declared` refuses it by name.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from hierseg.errors import EvaluationError

FEWEST_IMAGES = 30
"""Differences on fewer images decide nothing: the simulation in ``docs/measures.md`` says how far intervals hold."""


@dataclass(frozen=True)
class Metric:
    """A score, for people.

    Attributes:
        key: Its name among the scores.
        label: Its name on the page.
        group: Heading under which it stands there.
        explanation: One sentence.
        unit: Scores of one unit share the scale of their differences; '' for a part of 1.
        format: Python's format of the number.
        higher_is_better: False for a distance.
        has_interval: Whether it has an interval over images.
        on_page: Whether the page shows it; ``results.json`` has every score.
        headline: Whether it is one of the large numbers on top of the page.
        learnt_from: A system with less has not learnt its task; None for a score that does not tell.
    """

    key: str
    label: str
    group: str
    explanation: str
    unit: str = ''
    format: str = '.3f'
    higher_is_better: bool = True
    has_interval: bool = False
    on_page: bool = True
    headline: bool = False
    learnt_from: float | None = None


@dataclass(frozen=True)
class Estimate:
    """A score or a difference and the ends of its interval; a number that does not exist or is not finite is None.

    ``images`` are those that the interval rests on: with something that counts. None where that is not known.
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None
    images: int | None = None

    def __post_init__(self) -> None:
        for name in ('value', 'low', 'high'):
            number = getattr(self, name)
            finite = number is not None and math.isfinite(number)
            object.__setattr__(self, name, float(number) if finite else None)

    @property
    def rests_on_few(self) -> bool:
        """Whether there are too few images to decide anything."""
        return self.images is not None and self.images < FEWEST_IMAGES

    @property
    def sign(self) -> int:
        """1 or -1 where the whole interval lies above or below 0, else 0; 0 on too few images."""
        if self.value is None or self.low is None or self.high is None or self.rests_on_few:
            return 0
        return int(self.low > 0) - int(self.high < 0)


@dataclass(frozen=True)
class CountedKind:
    """A kind that detections or objects are counted by: its key, its name for people, a sentence."""

    key: str
    label: str
    explanation: str = ''


def declared(metrics: Sequence[Metric], scores: Collection[str], intervals: Collection[str]) -> list[Metric]:
    """The declarations of the scores that were computed, some of them with an interval, in the order of declaration.

    Raises:
        EvaluationError: A score is not declared, or twice, or an interval was declared and not computed, or reversely.
    """
    keys = [metric.key for metric in metrics]
    if len(set(keys)) < len(keys) or not set(scores) <= set(keys):
        wrong = sorted(set(scores) - set(keys)) or sorted({key for key in keys if keys.count(key) > 1})
        raise EvaluationError(
            f'the scores {", ".join(wrong)} are not declared once',
            fix='Declare each by one Metric beside its computation, in the tuple of that module.',
        )
    found = [metric for metric in metrics if metric.key in scores]
    for metric in found:
        if metric.has_interval != (metric.key in intervals):
            raise EvaluationError(
                f'the score {metric.key} has {"an" if metric.key in intervals else "no"} interval',
                fix=f'Say has_interval={metric.key in intervals} in its Metric.',
            )
    return found
