"""Charts of lines: precision, recall and F1 of a group of classes or of one, names, and training losses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hierseg.metrics.class_curves import THRESHOLDS, ClassCurve, mean_curve
from hierseg.report.comparison.charts import Chart, Series, averaged, line_chart, x_scale, y_scale
from hierseg.report.comparison.document import Comparison


@dataclass(frozen=True)
class CurveChoice:
    """A group of classes, or one class by its path, with its charts; the key is part of an address of the page."""

    key: str
    title: str
    charts: tuple[Chart, ...]
    is_group: bool = False


def curve_choices(document: Comparison) -> list[CurveChoice]:
    """The groups, then all classes of which a system has a curve, along the tree."""
    taxonomy = document.taxonomy
    groups = {
        'all': ('all classes', range(taxonomy.num_classes)),
        'root': ('root classes', taxonomy.root_classes),
        'deeper': ('deeper classes', taxonomy.deeper_classes),
    }
    choices = []
    for key, (title, labels) in groups.items():
        curves = [
            _mean([system.class_curves[at] for at in labels if system.class_curves]) for system in document.systems
        ]
        # Without a hierarchy, all classes are root classes.
        if any(curves) and (key == 'all' or len(labels) < taxonomy.num_classes):
            choices.append(CurveChoice(key, title, _charts(document, curves), is_group=True))
    for label in sorted(range(taxonomy.num_classes), key=taxonomy.preferred_path):
        curves = [system.class_curves[label] if system.class_curves else None for system in document.systems]
        if any(curves):
            choices.append(CurveChoice(str(label), taxonomy.path_name(label), _charts(document, curves)))
    return choices


def _mean(curves: Sequence[ClassCurve | None]) -> ClassCurve | None:
    known = [curve for curve in curves if curve is not None]
    return mean_curve(known) if known else None


def _charts(document: Comparison, curves: Sequence[ClassCurve | None]) -> tuple[Chart, Chart]:
    """Precision by recall as steps, whose area is the average precision, and F1 by the score threshold."""
    steps, f1 = [], []
    for position, (system, curve) in enumerate(zip(document.systems, curves, strict=True)):
        if curve is None:
            continue
        dash, (best, threshold) = max(position - 1, 0), curve.best
        recall = np.repeat(np.insert(curve.recall, 0, 0.0), 2)[1:]
        precision = np.append(np.repeat(curve.precision, 2), 0.0)
        steps.append(Series(system.name, recall.tolist(), precision.tolist(), position, dash, f'area {curve.area:.3f}'))
        note = f'best {best:.2f} from score {threshold:.2f}'
        f1.append(Series(system.name, THRESHOLDS.tolist(), curve.f1.tolist(), position, dash, note))
    x, y = x_scale(0, 1), y_scale(0, 1)
    return (
        line_chart('Precision by recall', steps, x=x, y=y, x_label='recall', y_label='precision'),
        line_chart('F1 by score', f1, x=x, y=y, x_label='least score that counts', y_label='F1'),
    )


def operating_chart(document: Comparison) -> Chart | None:
    """Right names against telling names; None where nothing was found."""
    curves = (system.operating_curve for system in document.systems)
    points = (None if curve is None else np.stack([curve.information, curve.correctness], 1) for curve in curves)
    series = _series(document, points)
    lowest = min((value for entry in series for value in entry.y), default=1.0)
    y = y_scale(0.5 if lowest >= 0.5 else 0, 1)
    title = 'Right names against telling names'
    chart = line_chart(title, series, x=x_scale(0, 1), y=y, x_label='information', y_label='correctness')
    return chart if chart.lines else None


def training_charts(document: Comparison) -> list[tuple[int, Chart]]:
    """A chart for every system that has curves, all on one vertical scale, with the system's position."""
    of_systems = [
        [
            Series(name, *averaged(points), position, dash)
            for dash, (name, points) in enumerate(system.training_curves.items())
        ]
        for position, system in enumerate(document.systems)
    ]
    losses = [loss for series in of_systems for entry in series for loss in entry.y]
    y = y_scale(min([*losses, 0]), max(losses, default=1.0))
    charts = []
    for position, (system, series) in enumerate(zip(document.systems, of_systems, strict=True)):
        epochs = [epoch for entry in series for epoch in entry.x]
        if epochs:
            x = x_scale(0, max(epochs), counts=True)
            charts.append((position, line_chart(system.name, series, x=x, y=y, x_label='epoch', y_label='loss')))
    return charts


def _series(document: Comparison, curves: Iterable[npt.ArrayLike | None]) -> list[Series]:
    """A line for every system that has a curve, (P, 2); two are told apart by colour, more need the pattern too."""
    return [
        Series(system.name, *averaged(curve), position, max(position - 1, 0))
        for position, (system, curve) in enumerate(zip(document.systems, curves, strict=True))
        if curve is not None
    ]
