"""Everything that was measured about one or more systems on the same images, as the comparison page shows it.

Shape letters: C classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import numpy as np

from hierseg.report.comparison.checks import check_comparison
from hierseg.taxonomy import Taxonomy

FORMAT = 'hierseg-comparison'
VERSION = 1


@dataclass(frozen=True)
class Estimate:
    """A score or a difference with its interval; a number that is not finite becomes None.

    Attributes:
        value: None where there is none.
        low: Lower end of the interval; None where it was not computed.
        high: Upper end.
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        for name in ('value', 'low', 'high'):
            number = getattr(self, name)
            finite = number is not None and math.isfinite(number)
            object.__setattr__(self, name, float(number) if finite else None)

    @property
    def sign(self) -> int:
        """1 or -1 where the whole interval lies above or below 0, else 0."""
        if self.value is None or self.low is None or self.high is None:
            return 0
        return int(self.low > 0) - int(self.high < 0)


@dataclass(frozen=True)
class Head:
    """What was compared, where and how.

    Attributes:
        title: Stands on top of the page.
        date: As it is to be shown.
        store: The evaluated data.
        images: Evaluated images.
        objects: Annotated objects on them.
        training_images: None where unknown.
        command: What made the comparison.
        machine: What it ran on.
        seed: Of the bootstrap and of the choice of pictures.
        versions: By package, hierseg first.
        confidence: Of all intervals.
    """

    title: str
    date: str
    store: str
    images: int
    objects: int
    command: str
    machine: str
    seed: int
    versions: Mapping[str, str]
    training_images: int | None = None
    confidence: float = 0.95


@dataclass(frozen=True)
class Metric:
    """How a score is shown.

    Attributes:
        key: Its name in the systems' scores.
        label: Its name for people.
        group: Heading under which it stands.
        explanation: A sentence or two.
        unit: Scores of one unit share the scale of their differences; '' for a part of 1.
        format: Python's format of the number, such as ``.3f``.
        higher_is_better: False for a distance.
    """

    key: str
    label: str
    group: str
    explanation: str
    unit: str = ''
    format: str = '.3f'
    higher_is_better: bool = True


@dataclass(frozen=True)
class ErrorKind:
    """A kind of outcome that objects or detections are counted by: its key, its name for people, a sentence."""

    key: str
    label: str
    explanation: str = ''


@dataclass(frozen=True)
class ClassCounts:
    """How often classes occur, by label.

    Attributes:
        objects: (C,) objects evaluated.
        train_images: (C,) training images; None where unknown.
    """

    objects: Sequence[int]
    train_images: Sequence[int] | None = None


@dataclass(frozen=True)
class Costs:
    """What a system costs; None for what was not measured."""

    parameters: int | None = None
    flops: float | None = None
    latency_ms: float | None = None
    peak_memory_mb: float | None = None
    training_seconds: float | None = None


@dataclass(frozen=True)
class PrecisionRecall:
    """A curve; both sequences are equally long, recall ascends."""

    recall: Sequence[float]
    precision: Sequence[float]


@dataclass(frozen=True)
class OperatingCurve:
    """How right names are (correctness) and how much they say (information) by the threshold of the back-off rule."""

    threshold: Sequence[float]
    correctness: Sequence[float]
    information: Sequence[float]


@dataclass(frozen=True)
class System:
    """One evaluated system.

    Attributes:
        name: Unique, for people.
        config: Its config file, '' for a submission.
        weights: Its checkpoint, or the predictions that were read.
        scores: By the key of the metric.
        class_ap: (C,) average precision; None for a class without objects.
        costs: What it costs.
        precision_recall: Curves by group of classes.
        operating_curve: None where names have no probabilities.
        errors: Counts by the key of the error kind.
        confusion: (true label, named label or ``hierseg.metrics.names.MISSED``, count), each pair of labels once.
        training_curves: (epoch, loss) by the curve's name.
    """

    name: str
    config: str
    weights: str
    scores: Mapping[str, Estimate]
    class_ap: Sequence[float | None]
    costs: Costs = Costs()
    precision_recall: Mapping[str, PrecisionRecall] = field(default_factory=dict)
    operating_curve: OperatingCurve | None = None
    errors: Mapping[str, int] = field(default_factory=dict)
    confusion: Sequence[tuple[int, int, int]] = ()
    training_curves: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, 'class_ap', tuple(Estimate(value).value for value in self.class_ap))
        entries = tuple((int(true), int(named), int(count)) for true, named, count in self.confusion)
        object.__setattr__(self, 'confusion', entries)


@dataclass(frozen=True)
class NamedPath:
    """The text of one instance, such as ``Person › Man 0.87``, and its colour on the picture, such as ``#2f6df2``."""

    text: str
    color: str


@dataclass(frozen=True)
class Panel:
    """A picture of the ground truth or of what a system found.

    Attributes:
        picture: JPEG.
        paths: Its instances in words.
        errors: Keys of the error kinds on it.
        score: How good the system is on this image; higher is better. Pictures on which systems differ most
            come first.
    """

    picture: bytes
    paths: Sequence[NamedPath] = ()
    errors: Sequence[str] = ()
    score: float | None = None


@dataclass(frozen=True)
class ComparedImage:
    """One image, drawn once with its ground truth and once for each system.

    Attributes:
        image_id: Its name.
        classes: Labels of the annotated classes.
        ground_truth: The annotated objects.
        panels: By the system's name.
    """

    image_id: str
    classes: Sequence[int]
    ground_truth: Panel
    panels: Mapping[str, Panel]


@dataclass(frozen=True, eq=False)
class Comparison:
    """The whole document.

    Attributes:
        head: What was compared, where and how.
        taxonomy: C classes.
        counts: How often they occur.
        metrics: In the order in which they are shown. The first one gives the answer, the first four the big numbers.
        systems: At least one. The others are compared with the first.
        differences: By the name of each further system and key of the metric, its score minus the first one's,
            with the interval of a paired bootstrap.
        error_kinds: In the order in which they are shown.
        images: Pictures.
        panel_score: What the score of a panel is, such as "part of the objects named rightly"; '' to show none.

    Raises:
        EvaluationError: If its parts do not fit together.
    """

    head: Head
    taxonomy: Taxonomy
    counts: ClassCounts
    metrics: Sequence[Metric]
    systems: Sequence[System]
    differences: Mapping[str, Mapping[str, Estimate]] = field(default_factory=dict)
    error_kinds: Sequence[ErrorKind] = ()
    images: Sequence[ComparedImage] = ()
    panel_score: str = ''

    def __post_init__(self) -> None:
        check_comparison(self)

    def difference(self, system: System, metric: Metric) -> Estimate:
        """The score of a further system minus that of the first; without numbers where it was not computed."""
        return self.differences.get(system.name, {}).get(metric.key, Estimate())

    def to_json(self) -> dict[str, Any]:
        """Everything but the pictures, JSON-serialisable."""
        return {'format': FORMAT, 'version': VERSION, **_plain(self)}


def _plain(value: Any) -> Any:
    """What ``json`` can write: dataclasses as objects without their pictures, numbers that are not finite as null."""
    if isinstance(value, Taxonomy):
        return value.to_json()
    if is_dataclass(value):
        entries = {entry.name: getattr(value, entry.name) for entry in fields(value)}
        return {name: _plain(entry) for name, entry in entries.items() if not isinstance(entry, bytes)}
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
