"""Where the systems of a comparison come from: a trained model, or a submission that any program wrote."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.runner import Runner

from hierseg.annotations import Store
from hierseg.apis.costs import PeakMemory, count_parameters, measure_steps, training_seconds
from hierseg.apis.runner import build_runner, check_checkpoint, load_config, running
from hierseg.errors import ConfigError
from hierseg.evaluation import ImagePrediction
from hierseg.evaluation.recorder import PredictionRecorder
from hierseg.evaluation.submission import read_submission
from hierseg.models.decision import Decision
from hierseg.report.comparison import Costs
from hierseg.report.curves import read_losses


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

    def settled(self, options: Mapping[str, Any] | None) -> Any:
        """The config with overridden values.

        Raises:
            ConfigError: A file does not exist, or the config cannot be read.
        """
        config = load_config(self.config, options=options)
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
class SystemOutput:
    """What a system said of each image, and what it costs.

    Attributes:
        name: What it is called.
        config: Its config file, '' for a submission.
        weights: Its checkpoint, or the submission.
        predictions: One for each image.
        costs: What is known of them.
        training_curves: (epoch, value) by the curve's name.
    """

    name: str
    config: str
    weights: str
    predictions: Sequence[ImagePrediction]
    costs: Costs = Costs()
    training_curves: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)


def run_system(
    source: RunSource, store: Store, *, timed_images: int, options: Mapping[str, Any] | None = None
) -> SystemOutput:
    """Tests a trained model on its config's test data and measures what it costs.

    Args:
        source: The model.
        store: The ground truth; images that the test data have and the store has not are refused.
        timed_images: Images that latency and arithmetic are measured on.
        options: Values by dotted key that override the config's.

    Raises:
        ConfigError: A file does not exist, or config and checkpoint do not fit.
        StoreError: The store does not have an image.
    """
    config = source.settled(options)
    config.test_evaluator = dict(type='hierseg.PredictionRecorder', store=str(store.path))
    with running(source.checkpoint):
        with PeakMemory() as memory:
            runner = build_runner(config)
            runner.test()
        recorder = runner.test_evaluator.metrics[0]
        assert_recorder(recorder)
        loader = Runner.build_dataloader({**config.test_dataloader, 'batch_size': 1})
        steps = measure_steps(_unwrapped(runner.model), loader, images=timed_images)
    work_dir = Path(source.checkpoint).parent
    return SystemOutput(
        name=source.name,
        config=source.config,
        weights=source.checkpoint,
        predictions=recorder.predictions,
        costs=Costs(
            parameters=count_parameters(runner.model),
            flops=steps.flops,
            latency_ms=steps.latency_ms,
            peak_memory_mb=memory.megabytes,
            training_seconds=training_seconds(work_dir),
        ),
        training_curves=dict(_curves(work_dir)),
    )
