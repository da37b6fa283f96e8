"""One evaluated system in numbers: scores with intervals, curves, kinds of errors, confusions and costs.

Shape letters: C classes, P recalls.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from hierseg.formats import FloatArray
from hierseg.metrics.average_precision import RECALLS
from hierseg.metrics.class_curves import ClassCurve
from hierseg.metrics.declarations import Estimate
from hierseg.metrics.names import Confusion, OperatingCurve

FEWEST_TIMED = 10
"""A median of fewer images is marked."""
HIGHEST_LOAD = 1.1
"""Where more of the machine's cores are asked for, programs wait for each other."""
MOST_UNEVEN = 1.3
"""Steps of a training that has its machine for itself differ less: by 1.1 in the quickstart."""


@dataclass(frozen=True)
class Costs:
    """Costs of a system; None for what was not measured.

    Attributes:
        parameters: All of them.
        flops: Floating-point operations of an image.
        latency_ms: Milliseconds of an image.
        peak_memory_mb: 10⁶ bytes.
        training_seconds: Of the logged training steps.
        timed_images: Images that the latency is the median of.
        load: Cores that were asked for while it was timed, by this and by other programs, as a part of the machine's.
        unevenness: Mean time of a logged training step, as a multiple of that of the fastest tenth.
    """

    parameters: int | None = None
    flops: float | None = None
    latency_ms: float | None = None
    peak_memory_mb: float | None = None
    training_seconds: float | None = None
    timed_images: int | None = None
    load: float | None = None
    unevenness: float | None = None

    @property
    def doubts(self) -> dict[str, str]:
        """Reasons why a time is not to be relied on, by the name of the time."""
        doubts = {}
        if self.load is not None and self.load > HIGHEST_LOAD:
            doubts['latency_ms'] = 'under load'
        elif self.timed_images is not None and self.timed_images < FEWEST_TIMED:
            doubts['latency_ms'] = f'of {self.timed_images} image{"s" if self.timed_images > 1 else ""} only'
        if self.unevenness is not None and self.unevenness > MOST_UNEVEN:
            doubts['training_seconds'] = 'under load'
        return doubts


@dataclass(frozen=True, eq=False)
class System:
    """One evaluated system.

    Attributes:
        name: Unique among those compared.
        config: Its config file, '' for a submission.
        weights: Its checkpoint, or the predictions that were read.
        scores: By the key of the metric.
        class_ap: (C,) float64; average precision, nan for a class without objects.
        confusion: Names of the objects.
        costs: As far as they are known.
        precision_curves: (P,) float64 precision at :data:`RECALLS` by group of classes.
        class_curves: Of each of the C classes, None for one without objects; empty where they are not known.
        operating_curve: By the threshold of the back-off rule; None where nothing was found.
        errors: Counts by the key of the kind.
        training_curves: (epoch, loss) by the curve's name.
    """

    name: str
    config: str
    weights: str
    scores: Mapping[str, Estimate]
    class_ap: FloatArray
    confusion: Confusion
    costs: Costs = Costs()
    precision_curves: Mapping[str, FloatArray] = field(default_factory=dict)
    class_curves: Sequence[ClassCurve | None] = ()
    operating_curve: OperatingCurve | None = None
    errors: Mapping[str, int] = field(default_factory=dict)
    training_curves: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """All of it but the curves of classes, in lists and numbers, nan included."""
        curve, confusion = self.operating_curve, self.confusion
        cells = (confusion.true_labels, confusion.named_labels, confusion.counts)
        return {
            'name': self.name,
            'config': self.config,
            'weights': self.weights,
            'scores': {key: asdict(score) for key, score in self.scores.items()},
            'class_ap': self.class_ap.tolist(),
            'costs': asdict(self.costs),
            'precision_recall': {
                group: {'recall': RECALLS.tolist(), 'precision': precision.tolist()}
                for group, precision in self.precision_curves.items()
            },
            'operating_curve': None if curve is None else {
                'threshold': list(curve.thresholds),
                'correctness': curve.correctness.tolist(),
                'information': curve.information.tolist(),
            },
            'errors': dict(self.errors),
            'confusion': [list(cell) for cell in zip(*(part.tolist() for part in cells), strict=True)],
            'training_curves': self.training_curves,
        }  # fmt: skip
