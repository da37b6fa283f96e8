"""Everything that was measured about one or more systems on the same images, as the comparison page shows it.

Shape letters: C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from hierseg.files import finite
from hierseg.formats import IntArray
from hierseg.metrics.declarations import CountedKind, Estimate, Metric
from hierseg.metrics.system import System
from hierseg.report.comparison.panels import Photograph, ShownPanel
from hierseg.taxonomy import Taxonomy

FORMAT = 'hierseg-comparison'
VERSION = 2


@dataclass(frozen=True)
class Head:
    """Origin of a comparison: what was compared, where and how.

    Images and their objects are those of the evaluated store, the command is that which made the comparison. The seed
    is of the choice of pictures, the confidence of all intervals. Versions are by package, hierseg
    first; training images are None where unknown.
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
class ComparedImage:
    """One image with labels of its annotated classes, its ground truth, and what each system found, by name."""

    image_id: str
    file_name: str
    classes: Sequence[int]
    photograph: Photograph
    ground_truth: ShownPanel
    panels: Mapping[str, ShownPanel]

    @property
    def scores(self) -> list[float]:
        """Those of the systems that have one."""
        return [panel.score for panel in self.panels.values() if panel.score is not None]

    @property
    def spread(self) -> float:
        """Distance of the best from the worst system; images on which it is large come first."""
        return max(self.scores, default=0.0) - min(self.scores, default=0.0)

    def to_json(self) -> dict[str, Any]:
        """All but the pictures."""
        return {
            'image_id': self.image_id,
            'file_name': self.file_name,
            'classes': list(self.classes),
            'ground_truth': self.ground_truth.to_json(),
            'panels': {name: panel.to_json() for name, panel in self.panels.items()},
        }


@dataclass(frozen=True, eq=False)
class Comparison:
    """The whole document.

    Attributes:
        head: What was compared, where and how.
        taxonomy: C classes.
        objects: (C,) int64; evaluated objects.
        train_images: (C,) int64; None where unknown.
        metrics: In their order. The first one gives the answer.
        systems: At least one. The others are compared with the first.
        differences: By the name of each further system and key of the metric, its score minus the first one's,
            with the interval of the paired difference.
        error_kinds: In the order in which they are shown.
        images: Pictures.
        panel_score: What the score of a panel is, such as "part of the objects named rightly"; '' to show none.
        score_threshold: Detections with a lower score are hidden at first, and have no kind of error.
    """

    head: Head
    taxonomy: Taxonomy
    objects: IntArray
    train_images: IntArray | None
    metrics: Sequence[Metric]
    systems: Sequence[System]
    differences: Mapping[str, Mapping[str, Estimate]] = field(default_factory=dict)
    error_kinds: Sequence[CountedKind] = ()
    images: Sequence[ComparedImage] = ()
    panel_score: str = ''
    score_threshold: float = 0.3

    @property
    def shown_metrics(self) -> list[Metric]:
        """Those of the page."""
        return [metric for metric in self.metrics if metric.on_page]

    @property
    def untrained(self) -> Metric | None:
        """The score that says of every system that it has not learnt; None if one has, or no score tells."""
        for metric in self.metrics:
            values = [system.scores.get(metric.key, Estimate()).value for system in self.systems]
            if metric.learnt_from is not None and all(
                value is not None and value < metric.learnt_from for value in values
            ):
                return metric
        return None

    def difference(self, system: System, metric: Metric) -> Estimate:
        """The score of a further system minus that of the first; without numbers where it was not computed."""
        return self.differences.get(system.name, {}).get(metric.key, Estimate())

    def to_json(self) -> dict[str, Any]:
        """Everything but the pictures, JSON-serialisable."""
        document: dict[str, Any] = finite({
            'format': FORMAT,
            'version': VERSION,
            'head': asdict(self.head),
            'taxonomy': self.taxonomy.to_json(),
            'counts': {
                'objects': self.objects.tolist(),
                'train_images': None if self.train_images is None else self.train_images.tolist(),
            },
            'metrics': [asdict(metric) for metric in self.metrics],
            'systems': [system.to_json() for system in self.systems],
            'differences': {
                name: {key: asdict(entry) for key, entry in entries.items()}
                for name, entries in self.differences.items()
            },
            'error_kinds': [asdict(kind) for kind in self.error_kinds],
            'images': [image.to_json() for image in self.images],
            'panel_score': self.panel_score,
            'score_threshold': self.score_threshold,
        })  # fmt: skip
        return document
