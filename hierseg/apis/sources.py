"""Where the systems of a comparison come from: a trained model, or a submission that any program wrote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mmengine.config import Config

from hierseg.annotations import Store
from hierseg.apis.costs import measure_costs
from hierseg.apis.runner import build_runner, check_checkpoint, load_config, running
from hierseg.evaluation import ImagePrediction, SystemEvaluation, SystemMetric, evaluate_system
from hierseg.evaluation.predictions import read_predictions
from hierseg.report.comparison import Costs
from hierseg.report.curves import read_losses

Groups = Mapping[str, tuple[int, ...]]
Curves = Mapping[str, Sequence[tuple[float, float]]]


@dataclass(frozen=True)
class RunSource:
    """A trained model.

    Attributes:
        name: What the system is called.
        config: Its config file.
        checkpoint: Its weights; the folder that they lie in has the log of the training.
    """

    name: str
    config: str
    checkpoint: str

    def settled(self, options: Mapping[str, Any] | None, *, work_dir: Path | None = None) -> Config:
        """The config with overridden values, for the checkpoint.

        Raises:
            ConfigError: A file does not exist, or the config cannot be read.
        """
        config = load_config(self.config, options=options, work_dir=work_dir)
        config.load_from = check_checkpoint(self.checkpoint)
        return config


@dataclass(frozen=True)
class PredictionsSource:
    """A submission CSV.

    Attributes:
        name: What the system is called.
        path: The file.
    """

    name: str
    path: str


@dataclass(frozen=True, eq=False)
class EvaluatedSystem:
    """A system, what it said and what it costs.

    Attributes:
        name: What it is called.
        config: Its config file, '' for a submission.
        weights: Its checkpoint, or the submission.
        predictions: One for each image.
        evaluation: Of these.
        costs: As far as they are known.
        training_curves: (epoch, loss) by the curve's name.
    """

    name: str
    config: str
    weights: str
    predictions: Sequence[ImagePrediction]
    evaluation: SystemEvaluation
    costs: Costs = field(default_factory=Costs)
    training_curves: Curves = field(default_factory=dict)


def evaluate_run(
    source: RunSource,
    store: Store,
    *,
    groups: Groups,
    score_thr: float,
    timed_images: int,
    work_dir: Path,
    options: Mapping[str, Any] | None = None,
) -> EvaluatedSystem:
    """Tests a trained model on its config's test data, and measures what it costs.

    Args:
        source: The model.
        store: The ground truth, which has all images of the test data.
        groups: Groups of classes whose mean AP is told apart.
        score_thr: Of kinds of errors.
        timed_images: Images that latency and arithmetic are measured on.
        work_dir: Where the log of the test goes.
        options: Values by dotted key that override the config's.

    Raises:
        ConfigError: A file does not exist, or config and checkpoint do not fit.
        StoreError: The store does not have an image.
    """
    config = source.settled(options, work_dir=work_dir)
    config.test_evaluator = dict(type='hierseg.SystemMetric', store=str(store.path), score_thr=score_thr)
    if 'visualizer' in config:
        # Of one name, the second run would get the visualizer of the first, which writes into that one's folder.
        config.visualizer.name = str(work_dir)
    with running(source.checkpoint):
        costs = measure_costs(config, source.checkpoint, images=timed_images)
        runner = build_runner(config)
        runner.test()
    metric = next(found for found in runner.test_evaluator.metrics if isinstance(found, SystemMetric))
    return EvaluatedSystem(
        name=source.name,
        config=source.config,
        weights=source.checkpoint,
        predictions=metric.predictions,
        evaluation=replace(metric.evaluation, groups=groups),
        costs=costs,
        training_curves=loss_curves(Path(source.checkpoint).parent),
    )


def evaluate_submission(
    source: PredictionsSource, store: Store, *, groups: Groups, score_thr: float
) -> EvaluatedSystem:
    """Evaluates a submission on all images of a store.

    Args:
        source: The submission.
        store: The ground truth.
        groups: Groups of classes whose mean AP is told apart.
        score_thr: Of kinds of errors.

    Raises:
        EvaluationError: If the file cannot be used; it names the line.
    """
    predictions = read_predictions(source.path, store)
    return EvaluatedSystem(
        name=source.name,
        config='',
        weights=source.path,
        predictions=predictions,
        evaluation=evaluate_system(store, predictions, groups=groups, score_threshold=score_thr, name=source.name),
    )


def loss_curves(work_dir: Path) -> Curves:
    """Training and validation loss by epoch of the run in a work directory, of each layer; empty without a log."""
    curves = {}
    for losses in read_losses(work_dir):
        for what, values in (('training', losses.training), ('validation', losses.validation)):
            if values:
                name = ' '.join(filter(None, [losses.name.replace('layer', 'layer '), what]))
                curves[name] = [(float(epoch), values[epoch]) for epoch in sorted(values)]
    return curves
