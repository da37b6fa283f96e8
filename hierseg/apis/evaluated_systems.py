"""Systems that are compared: trained models or submissions of any program, each with one evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mmengine.config import Config

from hierseg.apis.configs import load_config
from hierseg.apis.costs import measure_costs
from hierseg.apis.runner import build_runner, tested_images
from hierseg.engine.checkpoint_files import check_checkpoint, safe_loading
from hierseg.evaluation import SystemEvaluation, SystemMetric, evaluate_system
from hierseg.evaluation.predictions import read_predictions
from hierseg.limits import MAX_PIXELS
from hierseg.metrics import ImagePrediction
from hierseg.metrics.system import Costs
from hierseg.report.curves import read_losses
from hierseg.store import Store

Groups = Mapping[str, tuple[int, ...]]
Curves = Mapping[str, Sequence[tuple[float, float]]]


@dataclass(frozen=True)
class RunSource:
    """A trained model.

    Attributes:
        name: Of the system.
        config: Its file.
        checkpoint: Its file, in whose folder the log of the training lies.
        detections: What the model found on the config's test data, as ``tools/test.py --coco-results`` writes it; the
            model is tested when omitted.
    """

    name: str
    config: str
    checkpoint: str
    detections: str | None = None

    def settled(self, options: Mapping[str, Any] | None, *, work_dir: Path | None = None) -> Config:
        """The config with overridden values, for the checkpoint; a ConfigError if a file is not there."""
        config = load_config(self.config, options=options, work_dir=work_dir)
        config.load_from = check_checkpoint(self.checkpoint)
        return config


@dataclass(frozen=True)
class PredictionsSource:
    """Detections of any program: the name of the system and the file, a submission CSV or COCO results (.json)."""

    name: str
    path: str


@dataclass(frozen=True, eq=False)
class EvaluatedSystem:
    """A system with its predictions, one for each image, and their evaluation; see also :class:`System`."""

    name: str
    config: str
    weights: str
    predictions: Sequence[ImagePrediction]
    evaluation: SystemEvaluation
    costs: Costs = field(default_factory=Costs)
    training_curves: Curves = field(default_factory=dict)


def evaluate_source(
    source: RunSource | PredictionsSource,
    store: Store,
    *,
    groups: Groups,
    score_threshold: float,
    timed_images: int,
    work_dir: Path,
    max_pixels: int = MAX_PIXELS,
    options: Mapping[str, Any] | None = None,
) -> EvaluatedSystem:
    """Evaluates a submission on a store; tests a trained model on its config's test data and measures its costs.

    A model that comes with its detections is not tested again; its costs are measured.

    ``groups`` are the classes whose mean AP is told apart; ``work_dir`` takes the log. A mask of a submission that has
    more than ``max_pixels`` is refused.

    Raises:
        ConfigError: A file does not exist, or config and checkpoint do not fit.
        EvaluationError: The submission cannot be used; it names the line or entry.
        StoreError: The store does not have an image.
    """

    def judged(predictions: Sequence[ImagePrediction]) -> tuple[Sequence[ImagePrediction], SystemEvaluation]:
        return predictions, evaluate_system(
            store, predictions, groups=groups, score_threshold=score_threshold, name=source.name
        )

    if isinstance(source, PredictionsSource):
        read = read_predictions(source.path, store, max_pixels=max_pixels)
        return EvaluatedSystem(source.name, '', source.path, *judged(read))
    config = source.settled(options, work_dir=work_dir)
    config.test_evaluator = dict(type='hierseg.SystemMetric', store=str(store.path), score_thr=score_threshold)
    if 'visualizer' in config:
        # Of one name, the second run would get the visualizer of the first, which writes into that one's folder.
        config.visualizer.name = str(work_dir)
    weights, curves = source.checkpoint, loss_curves(Path(source.checkpoint).parent)
    with safe_loading():
        costs = measure_costs(config, source.checkpoint, images=timed_images)
        if source.detections is None:
            found = _tested(config, groups)
        else:
            read = read_predictions(source.detections, store, max_pixels=max_pixels)
            found = judged(_of_images(read, dict(tested_images(config))))
            weights += f', its detections read from {source.detections}'
    return EvaluatedSystem(source.name, source.config, weights, *found, costs, curves)


def _of_images(predictions: Sequence[ImagePrediction], files: Mapping[str, str]) -> list[ImagePrediction]:
    """The predictions of some images, whose files are given by id."""
    return [replace(each, image_path=files[each.image_id]) for each in predictions if each.image_id in files]


def _tested(config: Config, groups: Groups) -> tuple[Sequence[ImagePrediction], SystemEvaluation]:
    runner = build_runner(config)
    runner.test()
    metric: SystemMetric = runner.test_evaluator.metrics[0]
    return metric.predictions, replace(metric.evaluation, groups=groups)


def loss_curves(work_dir: Path) -> Curves:
    """Training and validation loss by epoch of the run in a work directory, of each layer; empty without a log."""
    curves = {}
    for losses in read_losses(work_dir):
        for what, values in (('training', losses.training), ('validation', losses.validation)):
            if values:
                name = ' '.join(filter(None, [losses.name.replace('layer', 'layer '), what]))
                curves[name] = [(float(epoch), values[epoch]) for epoch in sorted(values)]
    return curves
