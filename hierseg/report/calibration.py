"""What calibrating the threshold of the back-off rule finds: the record, its table and its picture."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from terminaltables import AsciiTable

from hierseg.metrics import OperatingPoint

CURVE, INFORMATION, WANTED, CHOSEN = '#2563eb', '#a1a1aa', '#71717a', '#dc2626'
MARKERS = 'sD^v'
KEY = 'model.test_cfg.rcnn.decision'


@dataclass(frozen=True, eq=False)
class Calibration:
    """How the names of localised pairs change with the threshold, and the threshold that was wanted.

    Attributes:
        store: The store whose images were used.
        is_training_data: Whether the config trains on that store, whose threshold would be too low for other images.
        num_images: Images.
        num_objects: Objects that could have been found.
        num_pairs: Objects that were.
        relative: Whether thresholds are parts of the root class's probability.
        wanted: The correctness to reach.
        thresholds: Ascending.
        points: What each gives.
        other_rules: What the rules without a threshold give on the same pairs.
        threshold: The smallest one whose correctness reaches the wanted one; None if none does.
        interval: Of the correctness at that threshold, or at :attr:`shown` if there is none; 95 %, by bootstrap
            over images.
    """

    store: str
    is_training_data: bool
    num_images: int
    num_objects: int
    num_pairs: int
    relative: bool
    wanted: float
    thresholds: Sequence[float]
    points: Sequence[OperatingPoint]
    other_rules: Mapping[str, OperatingPoint]
    threshold: float | None
    interval: tuple[float, float]

    @property
    def shown(self) -> int:
        """Position of the threshold; the smallest of the best correctness if none reaches the wanted one."""
        if self.threshold is not None:
            return list(self.thresholds).index(self.threshold)
        return most_correct(self.points)

    @property
    def options(self) -> str | None:
        """The threshold as command-line text; None without one."""
        if self.threshold is None:
            return None
        settings = {'rule': 'back_off', 'threshold': f'{self.threshold:g}', 'relative': self.relative}
        return '--cfg-options ' + ' '.join(f'{KEY}.{name}={value}' for name, value in settings.items())

    def to_json(self) -> dict[str, Any]:
        """Everything, for ``calibration.json``; values that do not exist are None."""
        return {
            'store': self.store,
            'is_training_data': self.is_training_data,
            'images': self.num_images,
            'objects': self.num_objects,
            'pairs': self.num_pairs,
            'match_rate': self.num_pairs / self.num_objects,
            'relative': self.relative,
            'wanted_correctness': self.wanted,
            'threshold': self.threshold,
            'options': self.options,
            'best_threshold': self.thresholds[most_correct(self.points)],
            'correctness_interval_95': list(self.interval),
            'back_off': [
                {'threshold': threshold, **_finite(point)}
                for threshold, point in zip(self.thresholds, self.points, strict=True)
            ],
            **{rule: _finite(point) for rule, point in self.other_rules.items()},
        }

    def __str__(self) -> str:
        """The table of every tenth threshold, the other rules and the result."""
        position = self.shown
        of_root = " of its root class's probability" if self.relative else ''
        rows = [
            _row(f'back_off {threshold:g}' + (' ←' if at == position else ''), point)
            for at, (threshold, point) in enumerate(zip(self.thresholds, self.points, strict=True))
            if at == position or math.isclose(threshold * 10, round(threshold * 10))
        ]
        rows += [_row(rule, point) for rule, point in self.other_rules.items()]
        table = AsciiTable([['rule', 'correctness', 'exact', 'distance', 'information', 'unknown'], *rows])
        table.inner_footing_row_border = False
        table.justify_columns.update(dict.fromkeys(range(1, 6), 'right'))
        point, interval = self.points[position], f'{self.interval[0]:.3f} to {self.interval[1]:.3f}'
        if self.threshold is None:
            result = (
                f'No threshold reaches a correctness of {self.wanted:g}: the best is {point.correctness:.3f} '
                f'({interval}), at {self.thresholds[position]:g}.'
            )
        else:
            result = (
                f'A correctness of {self.wanted:g} takes {self.threshold:g}{of_root}: '
                f'{point.correctness:.3f} ({interval}).\n{self.options}'
            )
        return '\n'.join([*self._heading(), str(table.table), result])

    def _heading(self) -> list[str]:
        lines = [
            f'{self.store}: {self.num_images:,} images; {self.num_pairs:,} of {self.num_objects:,} objects found '
            f'({self.num_pairs / self.num_objects:.1%}), whose names are judged'
        ]
        if self.is_training_data:
            lines.append('WARNING: the config trains on these images; on others the correctness will be lower.')
        return lines


def most_correct(points: Sequence[OperatingPoint]) -> int:
    """Position of the first of the most correct points."""
    return max(range(len(points)), key=lambda at: (_known(points[at].correctness), -at))


def draw_calibration(calibration: Calibration) -> bytes:
    """A PNG: correctness against information, one dot for each threshold, and both against the threshold."""
    figure = Figure(figsize=(11.5, 4.6), layout='constrained')
    trade_off, by_threshold = figure.subplots(1, 2)
    chosen = calibration.shown
    label = f'threshold {calibration.thresholds[chosen]:g}' + ('' if calibration.threshold else ', the most correct')
    _draw_trade_off(trade_off, calibration)
    point = calibration.points[chosen]
    trade_off.plot(point.information, point.correctness, 'o', color=CHOSEN, markersize=9, label=label, zorder=4)
    thresholds = calibration.thresholds
    correctness = [point.correctness for point in calibration.points]
    by_threshold.plot(thresholds, correctness, color=CURVE, label='correctness')
    by_threshold.plot(
        thresholds, [point.information for point in calibration.points], color=INFORMATION, label='information'
    )
    by_threshold.axvline(thresholds[chosen], color=CHOSEN, linewidth=1.2, label=label)
    low, high = calibration.interval
    ends = [thresholds[chosen]] * 2, [low, high]
    by_threshold.plot(
        *ends, color=CHOSEN, linewidth=5, alpha=0.4, solid_capstyle='butt', label='95 % interval of its correctness'
    )
    by_threshold.set_xlabel("threshold, part of the root class's probability" if calibration.relative else 'threshold')
    by_threshold.set_xlim(0, 1)
    for axes in (trade_off, by_threshold):
        axes.axhline(calibration.wanted, color=WANTED, linewidth=1, linestyle='--', label='wanted', zorder=1)
        axes.grid(color='#e4e4e7', linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[['top', 'right']].set_visible(False)
        axes.legend(frameon=False)
    figure.suptitle(_title(calibration), x=0.01, ha='left', fontsize=11)
    content = io.BytesIO()
    figure.savefig(content, format='png', dpi=110)
    return content.getvalue()


def _draw_trade_off(axes: Axes, calibration: Calibration) -> None:
    known = [(point.information, point.correctness) for point in calibration.points]
    axes.plot(*zip(*known, strict=True), color=CURVE, marker='.', markersize=4, linewidth=1.6, label='back_off')
    for marker, (rule, point) in zip(MARKERS, calibration.other_rules.items(), strict=False):
        axes.plot(point.information, point.correctness, marker, color='#3f3f46', markersize=7, label=rule)
    axes.set_xlabel('information: how much is said (1: a leaf)')
    axes.set_ylabel('correctness: how much of it is true')


def _title(calibration: Calibration) -> str:
    found = f'{calibration.num_pairs:,} of {calibration.num_objects:,} objects found'
    warning = ' – TRAINING DATA' if calibration.is_training_data else ''
    return f'Back-off by threshold on {calibration.store}: {found}{warning}'


def _row(name: str, point: OperatingPoint) -> list[str]:
    values = (point.correctness, point.exact, point.distance, point.information, point.unknown)
    return [name, *(f'{value:.3f}' for value in values)]


def _finite(point: OperatingPoint) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in asdict(point).items()}


def _known(correctness: float) -> float:
    return correctness if math.isfinite(correctness) else -1.0
