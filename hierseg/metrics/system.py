"""One evaluated system in numbers: scores with intervals, curves, kinds of errors, confusions and costs.

Shape letters: C classes, P recalls.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from hierseg.formats import FloatArray
from hierseg.metrics.average_precision import RECALLS
from hierseg.metrics.declarations import Estimate
from hierseg.metrics.names import Confusion, OperatingCurve


@dataclass(frozen=True)
class Costs:
    """Costs of a system; None for what was not measured."""

    parameters: int | None = None
    flops: float | None = None
    latency_ms: float | None = None
    peak_memory_mb: float | None = None
    training_seconds: float | None = None


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
    operating_curve: OperatingCurve | None = None
    errors: Mapping[str, int] = field(default_factory=dict)
    training_curves: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """All of it in lists and numbers, nan included."""
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
