"""Calibration of the threshold by which the end-to-end model backs off to a parent.

Shape letters: P pairs, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from mmengine.config import Config

from hierseg.apis.runner import build_runner, check_checkpoint, load_config, running
from hierseg.apis.stores import stores_in
from hierseg.errors import ConfigError, EvaluationError
from hierseg.evaluation import LocalisedPairsMetric
from hierseg.functional import Relations
from hierseg.metrics import LocalisedPairs, Resampling, correctness_interval, operating_curve, operating_point
from hierseg.models import HierarchicalRoIHead
from hierseg.models.decision import Decision
from hierseg.report.calibration import Calibration, most_correct
from hierseg.taxonomy import TaxonomyArrays

THRESHOLDS = tuple(step / 100 for step in range(1, 101))
CHUNK = 4096
"""Pairs that are decided at once."""


def calibrate(
    config: str | Path,
    checkpoint: str,
    *,
    correctness: float = 0.9,
    score_thr: float = 0.0,
    work_dir: str | Path | None = None,
    options: Mapping[str, Any] | None = None,
) -> tuple[Calibration, Path]:
    """Finds the threshold at which the names that a model gives are as right as wanted.

    The model runs once over the config's validation data, or its test data where it has no other. Pairs of
    detections and objects are judged for every threshold; see ``docs/decisions.md``.

    Args:
        config: The config file of an end-to-end model.
        checkpoint: The weights.
        correctness: How many of the names shall be the true class or an ancestor of it, in (0, 1].
        score_thr: Detections whose most probable class is less probable do not count.
        work_dir: Where the log goes; `./work_dirs/<config name>` unless the config says otherwise.
        options: Values by dotted key that override the config's.

    Returns:
        What was found, and the work directory.

    Raises:
        ConfigError: A file does not exist, the model has no such threshold, or the data are not of one store.
        EvaluationError: The model finds no object whose name is known to be right or wrong.
    """
    for name, value, lowest in (('correctness', correctness, 0.0), ('score_thr', score_thr, -1.0)):
        if not lowest < value <= 1:
            raise ConfigError(f'{name}={value}', fix='It is a part of 1, such as 0.9.')
    settled = load_config(config, options=options, work_dir=work_dir)
    settled.load_from = check_checkpoint(checkpoint)
    store = _use_validation_data(settled, where=str(config))
    settled.test_evaluator = dict(type='hierseg.LocalisedPairsMetric', store=store, score_thr=score_thr)
    with running(checkpoint):
        runner = build_runner(settled)
        decision = _decision_of(runner.model, where=str(config))
        runner.test()
    metric: LocalisedPairsMetric = runner.test_evaluator.metrics[0]
    trained_on = {Path(path).resolve() for path in stores_in(settled.get('train_dataloader'))}
    calibration = calibrate_pairs(
        metric.pairs,
        metric.taxonomy.arrays,
        store=store,
        correctness=correctness,
        relative=decision.relative,
        is_training_data=Path(store).resolve() in trained_on,
    )
    return calibration, Path(settled.work_dir)


def calibrate_pairs(
    pairs: LocalisedPairs,
    arrays: TaxonomyArrays,
    *,
    store: str,
    correctness: float,
    relative: bool = True,
    is_training_data: bool = False,
    seed: int = 0,
) -> Calibration:
    """Judges every threshold on pairs and takes the smallest one that is right enough.

    Args:
        pairs: P pairs.
        arrays: The taxonomy.
        store: Where they come from.
        correctness: What is wanted.
        relative: Whether thresholds are parts of the root class's probability.
        is_training_data: Whether the model was trained on them.
        seed: Of the bootstrap.

    Raises:
        EvaluationError: No name is known to be right or wrong.
    """
    relations, named = Relations.of(arrays), names_by_threshold(pairs.class_scores, arrays, relative=relative)
    points = operating_curve(pairs, named, arrays, thresholds=THRESHOLDS).points
    if not any(point.correctness >= 0 for point in points):
        raise EvaluationError(
            f'of {pairs.num_objects} objects, {len(pairs)} were found, and no name of them can be judged',
            where=store,
            fix='The model must find objects first, with a mask IoU of at least 0.5: train it longer.',
        )
    enough = [at for at, point in enumerate(points) if point.correctness >= correctness]
    shown = enough[0] if enough else most_correct(points)
    return Calibration(
        store=store,
        is_training_data=is_training_data,
        num_images=pairs.num_images,
        num_objects=pairs.num_objects,
        num_pairs=len(pairs),
        relative=relative,
        wanted=correctness,
        thresholds=THRESHOLDS,
        points=points,
        other_rules={
            rule: operating_point(pairs, _named(Decision(relations, rule=rule), pairs.class_scores), arrays)
            for rule in ('leaf', 'distance')
        },
        threshold=THRESHOLDS[enough[0]] if enough else None,
        interval=correctness_interval(
            pairs, named[:, shown], arrays, resampling=Resampling.draw(pairs.image_ids, seed=seed)
        ),
    )


def names_by_threshold(
    class_scores: npt.NDArray[np.float32], arrays: TaxonomyArrays, *, relative: bool
) -> npt.NDArray[np.int64]:
    """(P, T) int64; what the back-off rule names at each of ``THRESHOLDS``.

    Args:
        class_scores: (P, C) float32; 0 for classes that are not claimed.
        arrays: The taxonomy.
        relative: Whether thresholds are parts of the root class's probability.
    """
    relations = Relations.of(arrays)
    decisions = [Decision(relations, threshold=threshold, relative=relative) for threshold in THRESHOLDS]
    return np.stack([_named(decision, class_scores) for decision in decisions], axis=1)


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


def _decision_of(model: Any, *, where: str) -> Decision:
    head = getattr(model, 'roi_head', None)
    if not isinstance(head, HierarchicalRoIHead):
        raise ConfigError(
            f'the {type(model).__name__} has no threshold on class probabilities to calibrate',
            where=where,
            fix="Name a config of the end-to-end model; the ensemble's merge.decision_thr is about two models' scores.",
        )
    return head.decision
