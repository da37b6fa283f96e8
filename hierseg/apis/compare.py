"""Comparison of systems on the same images: one evaluation each, intervals, paired differences, and a page.

The systems are trained models, or submissions that any program wrote.

Shape letters: S systems, N images, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from mmengine.config import Config

import hierseg
from hierseg.apis.calibrate import curve_by_threshold
from hierseg.apis.compared_images import SCORE, compared_images
from hierseg.apis.evaluated_systems import EvaluatedSystem, PredictionsSource, RunSource, evaluate_source
from hierseg.apis.runner import stores_in
from hierseg.errors import ConfigError, EvaluationError
from hierseg.evaluation.system_evaluation import declared_metrics, group_score, train_images_of
from hierseg.files import make_folder, output_folder
from hierseg.limits import MAX_PIXELS
from hierseg.locks import locked
from hierseg.machine import describe_machine
from hierseg.metrics.average_precision import class_groups
from hierseg.metrics.class_curves import class_curves
from hierseg.metrics.declarations import Estimate, Metric, declared
from hierseg.metrics.error_kinds import COUNTED_KINDS, count_kinds
from hierseg.metrics.intervals import ImageEffects, mean_average_precision_effects
from hierseg.metrics.names import Confusion, OperatingCurve
from hierseg.metrics.records import OPEN_IMAGES, ImageMatches
from hierseg.metrics.system import System
from hierseg.report.comparison import ComparedImage, Comparison, Head, write_comparison
from hierseg.store import Store

CURVES = {'all': 'all classes', 'layer0': 'root classes', 'layer1': 'deeper classes'}
"""Groups of classes with a precision-recall curve in ``results.json``."""

Effects = Mapping[str, ImageEffects]


def compare(
    sources: Sequence[RunSource | PredictionsSource],
    out: str | Path,
    *,
    store: str | Path | None = None,
    train_store: str | Path | None = None,
    images: str | Path | None = None,
    title: str = 'Which system is better?',
    score_threshold: float = 0.3,
    num_pictures: int | None = 200,
    timed_images: int = 20,
    seed: int = 0,
    max_pixels: int = MAX_PIXELS,
    options: Mapping[str, Any] | None = None,
    command: str = '',
) -> Path:
    """Evaluates systems and writes a page that compares them; see ``docs/comparing.md``.

    Args:
        sources: The systems; the others are compared with the first.
        out: Folder of ``index.html``, ``results.json``, ``table.md`` and ``tables``, and of the tests' logs.
        store: The ground truth; that of the first run's test data when omitted.
        train_store: The training data, for class frequencies; those of the first run when omitted.
        images: Folder of the images, for pictures where all systems are submissions.
        title: Of the page.
        score_threshold: Of kinds of errors, and of pictures at first; there is a slider.
        num_pictures: Images that are shown; all for None.
        timed_images: Images that latency and arithmetic are measured on.
        seed: Of the choice of pictures.
        max_pixels: Of an image that is shown, or a mask of a submission; larger ones are refused.
        options: Values by dotted key that override those of all configs.
        command: Written on the page as its origin.

    Returns:
        The page.

    Raises:
        ConfigError: A file does not exist, two systems have one name, or no ground truth is named.
        AnnotationError: An image to show cannot be read.
        EvaluationError: The systems were not tested on the same images.
        OutputError: The page cannot be written, or another run writes there.
    """
    output_folder(out)
    config = _check_sources(sources, options)
    truth_path = store or _store_of(config, 'test_dataloader')
    if truth_path is None:
        raise ConfigError('no store of the ground truth is named', fix='Give --store, or a run among the systems.')
    truth, training_path = Store.open(truth_path), train_store or _store_of(config, 'train_dataloader')
    training = None if training_path is None else Store.open(training_path)
    train_images = None if training is None else train_images_of(training, truth)
    groups = class_groups(truth.taxonomy, train_images=train_images)
    with locked(make_folder(out)):
        systems = [
            evaluate_source(
                source, truth, groups=groups, score_threshold=score_threshold, timed_images=timed_images,
                work_dir=Path(out) / 'logs' / str(position), max_pixels=max_pixels, options=options,
            )
            for position, source in enumerate(sources)
        ]  # fmt: skip
        _require_same_images(systems)
        head = _head(title=title, truth=truth, systems=systems, training=training, seed=seed, command=command)
        folder = None if images is None else Path(images)
        shown = compared_images(
            systems,
            truth,
            count=num_pictures,
            score_threshold=score_threshold,
            seed=seed,
            folder=folder,
            max_pixels=max_pixels,
        )
        document = comparison_of(
            systems, truth, head=head, train_images=train_images, images=shown, score_threshold=score_threshold
        )
        return write_comparison(document, out)


def comparison_of(
    systems: Sequence[EvaluatedSystem],
    truth: Store,
    *,
    head: Head,
    train_images: npt.NDArray[np.int64] | None,
    images: Sequence[ComparedImage] = (),
    score_threshold: float = 0.3,
) -> Comparison:
    """The document that page, table and JSON are made of, of systems evaluated on the same images.

    ``train_images`` are (C,) int64, those of each class; the threshold is that of kinds of errors.

    Raises:
        EvaluationError: A score is not declared, or none has a value.
    """
    effects = [effects_of(system) for system in systems]
    # Names by the threshold on a class's own probability.
    arrays = truth.taxonomy.arrays
    curves = [curve_by_threshold(system.evaluation.pairs, arrays, relative=False)[0] for system in systems]
    scores = [{**system.evaluation.scores, **curve.recalls} for system, curve in zip(systems, curves, strict=True)]
    metrics = [
        metric
        for metric in declared(declared_metrics(systems[0].evaluation.groups), scores[0], effects[0])
        if any(np.isfinite(found[metric.key]) for found in scores)
    ]
    if not metrics:
        raise EvaluationError('no score has a value', where=str(truth.path), fix='Test on images with objects.')
    return Comparison(
        head=head,
        taxonomy=truth.taxonomy,
        objects=systems[0].evaluation.open_images.num_ground_truth.astype(np.int64),
        train_images=train_images,
        metrics=metrics,
        systems=[
            _in_numbers(system, truth, _estimates(values, found, metrics, bounds=(0.0, 1.0)), curve)
            for system, values, found, curve in zip(systems, scores, effects, curves, strict=True)
        ],
        differences={
            system.name: _estimates(_less(values, scores[0]), _less(found, effects[0]), metrics, bounds=(-1.0, 1.0))
            for system, values, found in zip(systems[1:], scores[1:], effects[1:], strict=True)
        },
        error_kinds=COUNTED_KINDS,
        images=images,
        panel_score=SCORE,
        score_threshold=score_threshold,
    )


def effects_of(system: EvaluatedSystem) -> Effects:
    """What each image changes, for each score with an interval: mean AP of the groups of classes, all about names."""
    evaluation = system.evaluation
    matches = _open_images_matches(system)
    means = mean_average_precision_effects(matches, groups=evaluation.groups)
    return {
        **{group_score(name): effects for name, effects in means.items()},
        **{name: of_images.effects for name, of_images in evaluation.names.items()},
    }


def _open_images_matches(system: EvaluatedSystem) -> list[ImageMatches]:
    images = system.evaluation.images
    at = images[0].matches.criteria.index(OPEN_IMAGES)
    return [image.matches.at(at) for image in images]


def _in_numbers(system: EvaluatedSystem, truth: Store, scores: Mapping[str, Estimate], curve: OperatingCurve) -> System:
    evaluation = system.evaluation
    pairs, result, counts = evaluation.pairs, evaluation.open_images, count_kinds(i.errors for i in evaluation.images)
    return System(
        name=system.name,
        config=system.config,
        weights=system.weights,
        scores=scores,
        class_ap=result.average_precision,
        confusion=Confusion.of(pairs, pairs.named_labels, truth.taxonomy.arrays),
        costs=system.costs,
        precision_curves={
            title: result.mean_curve(evaluation.groups[group])
            for group, title in CURVES.items()
            if np.isfinite(result.mean_over(evaluation.groups[group]))
        },
        class_curves=class_curves(_open_images_matches(system), truth.taxonomy.num_classes),
        operating_curve=curve if len(pairs) else None,
        errors={kind.key: counts[kind.key] for kind in COUNTED_KINDS},
        training_curves=system.training_curves,
    )


def _estimates(
    scores: Mapping[str, float], effects: Effects, metrics: Sequence[Metric], *, bounds: tuple[float, float]
) -> dict[str, Estimate]:
    """Scores with their intervals; ``bounds`` are those of scores that are parts of 1, which have no unit."""
    estimates = {}
    for metric in metrics:
        within = {} if metric.unit else {'bounds': bounds}
        found = effects.get(metric.key)
        rest = () if found is None else (*found.interval(**within), found.num_counted)
        estimates[metric.key] = Estimate(scores[metric.key], *rest)
    return estimates


def _less(minuend: Mapping[str, Any], subtrahend: Mapping[str, Any]) -> dict[str, Any]:
    """Differences by key; those of effects are paired, image by image."""
    return {key: value - subtrahend[key] for key, value in minuend.items()}


def _head(
    *, title: str, truth: Store, systems: Sequence[EvaluatedSystem], training: Store | None, seed: int, command: str
) -> Head:
    machine = describe_machine()
    gpu = f', {torch.cuda.get_device_name()}' if torch.cuda.is_available() else ''
    pairs = systems[0].evaluation.pairs
    return Head(
        title=title,
        date=date.today().isoformat(),
        store=str(truth.path),
        images=len(systems[0].predictions),
        objects=pairs.num_objects,
        command=command,
        machine=f'{machine["processor"]}, {machine["cores"]} cores, {machine["memory_gib"]} GiB{gpu}',
        seed=seed,
        versions={'hierseg': hierseg.__version__, 'python': machine['python'], **machine['versions']},
        training_images=None if training is None else len(training),
    )


def _check_sources(
    sources: Sequence[RunSource | PredictionsSource], options: Mapping[str, Any] | None
) -> Config | None:
    """Checks what can be known before the first system is tested; gives back the config of the first run, if any."""
    names = [source.name for source in sources]
    if len(set(names)) < len(names):
        raise ConfigError(f'the systems are called {", ".join(names)}', fix='Give each a name of its own.')
    configs = []
    for source in sources:
        if isinstance(source, RunSource):
            configs.append(source.settled(options))
        path = source.detections if isinstance(source, RunSource) else source.path
        if path is not None and not Path(path).is_file():
            raise ConfigError('the predictions do not exist', where=path, fix='Check the path.')
    return configs[0] if configs else None


def _store_of(config: Config | None, loader: str) -> str | None:
    """The store that a config names for a data loader, if there is one."""
    found = sorted(set(stores_in(config.get(loader)))) if config is not None else []
    if len(found) > 1:
        raise ConfigError(f'{loader} reads {len(found)} stores', where=config.filename, fix='Name the one that counts.')
    return found[0] if found else None


def _require_same_images(systems: Sequence[EvaluatedSystem]) -> None:
    first = {prediction.image_id for prediction in systems[0].predictions}
    for system in systems[1:]:
        others = {prediction.image_id for prediction in system.predictions}
        if others != first:
            example = min(first ^ others)
            raise EvaluationError(
                f'{systems[0].name} was tested on {len(first)} images, {system.name} on {len(others)} others',
                where=f'image {example}',
                fix='Test all systems on the same images.',
            )
