"""Calibration of the threshold by which a model of one network backs off to a parent: search, table and picture.

Shape letters: P pairs, C classes, T thresholds.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.figure import Figure
from mmengine.config import Config
from terminaltables import AsciiTable

from hierseg.apis.configs import load_config
from hierseg.apis.runner import build_runner, stores_in
from hierseg.engine.checkpoint_files import check_checkpoint, safe_loading
from hierseg.errors import ConfigError, EvaluationError
from hierseg.evaluation import LocalisedPairsMetric
from hierseg.files import finite, write_atomically, write_json
from hierseg.functional import Relations
from hierseg.locks import locked_file
from hierseg.metrics.localised_pairs import LocalisedPairs
from hierseg.metrics.names import OperatingCurve, OperatingPoint, operating_curve, operating_point
from hierseg.models.detections import Decision
from hierseg.taxonomy import TaxonomyArrays

CURVE, INFORMATION, WANTED, CHOSEN = '#2563eb', '#a1a1aa', '#71717a', '#dc2626'
MARKERS = 'sD^v'


@dataclass(frozen=True, eq=False)
class Calibration:
    """Names of localised pairs and how they change with the threshold, and the threshold that was wanted.

    Attributes:
        store: The store whose images were used.
        is_training_data: Whether the config trains on that store, whose threshold would be too low for other images.
        pairs: Objects that were found, of those that could have been.
        relative: Whether thresholds are parts of the root class's probability.
        key: Place of the rule in a config.
        wanted: The correctness to reach.
        curve: Names by threshold, ascending.
        other_rules: Names by the rules without a threshold on the same pairs.
        threshold: The smallest one whose correctness reaches the wanted one; None if none does.
        interval: Of the correctness at that threshold, or at :attr:`shown` if there is none; 95 %, over
            images.
    """

    store: str
    is_training_data: bool
    pairs: LocalisedPairs
    relative: bool
    key: str
    wanted: float
    curve: OperatingCurve
    other_rules: Mapping[str, OperatingPoint]
    threshold: float | None
    interval: tuple[float, float]

    @property
    def shown(self) -> int:
        """Position of the threshold; the smallest of the best correctness if none reaches the wanted one."""
        return self.best if self.threshold is None else self.curve.thresholds.index(self.threshold)

    @property
    def best(self) -> int:
        """Position of the first of the most correct thresholds."""
        return int(np.nanargmax(self.curve.correctness))

    @property
    def found(self) -> str:
        """The number of pairs in words."""
        return f'{len(self.pairs):,} of {self.pairs.num_objects:,} objects found'

    @property
    def options(self) -> str | None:
        """The threshold as command-line text; None without one."""
        if self.threshold is None:
            return None
        settings = {'rule': 'back_off', 'threshold': f'{self.threshold:g}', 'relative': self.relative}
        return '--cfg-options ' + ' '.join(f'{self.key}.{name}={value}' for name, value in settings.items())

    def to_json(self) -> dict[str, Any]:
        """Everything, for ``calibration.json``; values that do not exist are None."""
        return {
            'store': self.store,
            'is_training_data': self.is_training_data,
            'images': self.pairs.num_images,
            'objects': self.pairs.num_objects,
            'pairs': len(self.pairs),
            'match_rate': len(self.pairs) / self.pairs.num_objects,
            'relative': self.relative,
            'wanted_correctness': self.wanted,
            'threshold': self.threshold,
            'options': self.options,
            'best_threshold': self.curve.thresholds[self.best],
            'correctness_interval_95': list(self.interval),
            'back_off': [
                {'threshold': threshold, **finite(asdict(point))}
                for threshold, point in zip(self.curve.thresholds, self.curve.points, strict=True)
            ],
            **{rule: finite(asdict(point)) for rule, point in self.other_rules.items()},
        }

    def __str__(self) -> str:
        """The table of every tenth threshold, the other rules and the result."""
        share = len(self.pairs) / self.pairs.num_objects
        heading = f'{self.store}: {self.pairs.num_images:,} images; {self.found} ({share:.1%}), whose names are judged'
        if self.is_training_data:
            heading += '\nWARNING: the config trains on these images; on others the correctness will be lower.'
        position, curve = self.shown, self.curve
        threshold, point = curve.thresholds[position], curve.points[position]
        of_root = " of its root class's probability" if self.relative else ''
        rows = [
            _row(f'back_off {value:g}' + (' ←' if at == position else ''), point)
            for at, (value, point) in enumerate(zip(curve.thresholds, curve.points, strict=True))
            if at == position or math.isclose(value * 10, round(value * 10))
        ]
        rows += [_row(rule, point) for rule, point in self.other_rules.items()]
        table = AsciiTable([['rule', 'correctness', 'exact', 'distance', 'information', 'unknown'], *rows])
        table.inner_footing_row_border = False
        table.justify_columns.update(dict.fromkeys(range(1, 6), 'right'))
        reached = f'{point.correctness:.3f} ({self.interval[0]:.3f} to {self.interval[1]:.3f})'
        result = f'No threshold reaches a correctness of {self.wanted:g}: the best is {reached}, at {threshold:g}.'
        if self.threshold is not None:
            result = f'A correctness of {self.wanted:g} takes {threshold:g}{of_root}: {reached}.\n{self.options}'
        return f'{heading}\n{table.table}\n{result}'


def draw_calibration(calibration: Calibration) -> bytes:
    """A PNG: correctness against information, one dot for each threshold, and both against the threshold."""
    figure = Figure(figsize=(11.5, 4.6), layout='constrained')
    trade_off, by_threshold = figure.subplots(1, 2)
    curve, chosen = calibration.curve, calibration.shown
    thresholds, information, correctness = curve.thresholds, curve.information, curve.correctness
    label = f'threshold {thresholds[chosen]:g}' + ('' if calibration.threshold else ', the most correct')
    trade_off.plot(information, correctness, color=CURVE, marker='.', markersize=4, linewidth=1.6, label='back_off')
    for marker, (rule, point) in zip(MARKERS, calibration.other_rules.items(), strict=False):
        trade_off.plot(point.information, point.correctness, marker, color='#3f3f46', markersize=7, label=rule)
    place = information[chosen], correctness[chosen]
    trade_off.plot(*place, 'o', color=CHOSEN, markersize=9, label=label, zorder=4)
    trade_off.set_xlabel('information: how much is said (1: a leaf)')
    trade_off.set_ylabel('correctness: how much of it is true')
    by_threshold.plot(thresholds, correctness, color=CURVE, label='correctness')
    by_threshold.plot(thresholds, information, color=INFORMATION, label='information')
    by_threshold.axvline(thresholds[chosen], color=CHOSEN, linewidth=1.2, label=label)
    by_threshold.plot(
        [thresholds[chosen]] * 2, calibration.interval, color=CHOSEN, linewidth=5, alpha=0.4, solid_capstyle='butt',
        label='95 % interval of its correctness',
    )  # fmt: skip
    by_threshold.set_xlabel("threshold, part of the root class's probability" if calibration.relative else 'threshold')
    by_threshold.set_xlim(0, 1)
    for axes in (trade_off, by_threshold):
        axes.axhline(calibration.wanted, color=WANTED, linewidth=1, linestyle='--', label='wanted', zorder=1)
        axes.grid(color='#e4e4e7', linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[['top', 'right']].set_visible(False)
        axes.legend(frameon=False)
    warning = ' – TRAINING DATA' if calibration.is_training_data else ''
    title = f'Back-off by threshold on {calibration.store}: {calibration.found}{warning}'
    figure.suptitle(title, x=0.01, ha='left', fontsize=11)
    content = io.BytesIO()
    figure.savefig(content, format='png', dpi=110)
    return content.getvalue()


def _row(name: str, point: OperatingPoint) -> list[str]:
    values = (point.correctness, point.exact, point.distance, point.information, point.unknown)
    return [name, *(f'{value:.3f}' for value in values)]


THRESHOLDS = tuple(step / 100 for step in range(1, 101))
CHUNK = 4096
"""Pairs that are decided at once."""


def calibrate(
    config: str | Path,
    checkpoint: str,
    *,
    correctness: float = 0.9,
    score_threshold: float = 0.0,
    work_dir: str | Path | None = None,
    options: Mapping[str, Any] | None = None,
) -> tuple[Calibration, Path]:
    """Finds the threshold at which the names that a model gives are as right as wanted; writes table and picture.

    The model runs once over the config's validation data, or its test data where it has no other. Pairs of
    detections and objects are judged for every threshold; see ``docs/decisions.md``.

    Args:
        config: The config file of an end-to-end or real-time model.
        checkpoint: The weights.
        correctness: Part of the names that shall be the true class or an ancestor of it, in (0, 1].
        score_threshold: Detections whose most probable class is less probable do not count.
        work_dir: Folder of the log, ``calibration.json`` and ``calibration.png``, as for :func:`~hierseg.apis.train`.
        options: Values by dotted key that override the config's.

    Returns:
        What was found, and the work directory.

    Raises:
        ConfigError: A file does not exist, the model has no such threshold, or the data are not of one store.
        EvaluationError: The model finds no object whose name is known to be right or wrong.
        OutputError: The files cannot be written, or another calibration writes them.
    """
    for name, value, lowest in (('correctness', correctness, 0.0), ('score_threshold', score_threshold, -1.0)):
        if not lowest < value <= 1:
            raise ConfigError(f'{name}={value}', fix='It is a part of 1, such as 0.9.')
    settled = load_config(config, options=options, work_dir=work_dir)
    settled.load_from = check_checkpoint(checkpoint)
    store = _use_validation_data(settled, where=str(config))
    settled.test_evaluator = dict(type='hierseg.LocalisedPairsMetric', store=store, score_thr=score_threshold)
    table = Path(settled.work_dir) / 'calibration.json'
    with locked_file(table):
        calibration = _calibrated(settled, store, where=str(config), correctness=correctness)
        write_json(calibration.to_json(), table)
        write_atomically(draw_calibration(calibration), table.with_suffix('.png'))
    return calibration, table.parent


def _calibrated(settled: Config, store: str, *, where: str, correctness: float) -> Calibration:
    """Runs the model over the images of a store, the test data of a config."""
    with safe_loading():
        runner = build_runner(settled)
        decision = next((module for module in runner.model.modules() if isinstance(module, Decision)), None)
        if decision is None:
            raise ConfigError(
                f'the {type(runner.model).__name__} has no threshold on class probabilities to calibrate',
                where=where,
                fix='Name a config of an end-to-end or real-time model; '
                "the ensemble's merge.decision_thr is about two models' scores.",
            )
        runner.test()
    metric: LocalisedPairsMetric = runner.test_evaluator.metrics[0]
    trained_on = {Path(path).resolve() for path in stores_in(settled.get('train_dataloader'))}
    return calibrate_pairs(
        metric.pairs,
        metric.taxonomy.arrays,
        store=store,
        correctness=correctness,
        relative=decision.relative,
        key=f'model.{decision.where}.decision',
        is_training_data=Path(store).resolve() in trained_on,
    )


def calibrate_pairs(
    pairs: LocalisedPairs,
    arrays: TaxonomyArrays,
    *,
    store: str,
    correctness: float,
    relative: bool = True,
    key: str = 'model.test_cfg.rcnn.decision',
    is_training_data: bool = False,
) -> Calibration:
    """Judges every threshold on P pairs from a store, and takes the smallest one that is right enough.

    Arguments are the attributes of :class:`Calibration`; ``correctness`` is the wanted one.

    Raises:
        EvaluationError: No name is known to be right or wrong.
    """
    relations, (curve, named) = Relations.of(arrays), curve_by_threshold(pairs, arrays, relative=relative)
    if not np.isfinite(curve.correctness).any():
        raise EvaluationError(
            f'of {pairs.num_objects} objects, {len(pairs)} were found, and no name of them can be judged',
            where=store,
            fix='The model must find objects first, with a mask IoU of at least 0.5: train it longer.',
        )
    enough = np.flatnonzero(curve.correctness >= correctness).tolist()
    shown = enough[0] if enough else int(np.nanargmax(curve.correctness))
    correct = pairs.image_sums(*pairs.judged(named[:, shown], arrays))
    return Calibration(
        store=store,
        is_training_data=is_training_data,
        pairs=pairs,
        relative=relative,
        key=key,
        wanted=correctness,
        curve=curve,
        other_rules={
            rule: operating_point(pairs, _named(Decision(relations, rule=rule), pairs.class_scores), arrays)
            for rule in ('leaf', 'distance')
        },
        threshold=THRESHOLDS[enough[0]] if enough else None,
        interval=correct.effects.interval(bounds=(0.0, 1.0)),
    )


def curve_by_threshold(
    pairs: LocalisedPairs, arrays: TaxonomyArrays, *, relative: bool
) -> tuple[OperatingCurve, npt.NDArray[np.int64]]:
    """The curve of the back-off rule at each of ``THRESHOLDS``, and the (P, T) int64 names that it gives."""
    relations = Relations.of(arrays)
    decisions = [Decision(relations, threshold=threshold, relative=relative) for threshold in THRESHOLDS]
    named = np.stack([_named(decision, pairs.class_scores) for decision in decisions], axis=1)
    return operating_curve(pairs, named, arrays, thresholds=THRESHOLDS), named


def _named(decision: Decision, class_scores: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """(P,) int64 labels that a rule names."""
    parts = torch.from_numpy(class_scores).split(CHUNK)
    return torch.cat([decision(part) for part in parts]).numpy()


def _use_validation_data(config: Config, *, where: str) -> str:
    """Makes the test loop read the validation data; gives back their store."""
    if config.get('val_dataloader') is not None:
        config.test_dataloader = config.val_dataloader
    stores = sorted(set(stores_in(config.get('test_dataloader'))))
    if len(stores) != 1:
        raise ConfigError(
            f'the validation data are of {len(stores)} stores {stores}',
            where=where,
            fix='Calibrate on a hierseg.StoreDataset in val_dataloader, or in test_dataloader without that.',
        )
    return stores[0]
