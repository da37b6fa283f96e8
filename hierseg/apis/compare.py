"""Comparison of systems on the same images: one evaluation each, intervals, paired differences, and a page.

The systems are trained models, or submissions that any program wrote.

Shape letters: S systems, N images, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from mmengine.config import Config

import hierseg
from hierseg.apis.calibrate import curve_by_threshold
from hierseg.apis.configs import load_config
from hierseg.apis.costs import measure_costs
from hierseg.apis.runner import build_runner, stores_in
from hierseg.engine.checkpoint_files import check_checkpoint, safe_loading
from hierseg.errors import ConfigError, EvaluationError
from hierseg.evaluation import SystemEvaluation, SystemMetric, evaluate_system
from hierseg.evaluation.predictions import read_predictions
from hierseg.evaluation.system_evaluation import declared_metrics, group_score, train_images_of
from hierseg.files import make_folder, output_folder
from hierseg.limits import MAX_PIXELS
from hierseg.locks import locked
from hierseg.machine import describe_machine
from hierseg.metrics import ImagePrediction
from hierseg.metrics.average_precision import class_groups
from hierseg.metrics.declarations import Estimate, Metric, declared
from hierseg.metrics.error_kinds import COUNTED_KINDS, ErrorKind, ImageErrors, count_kinds
from hierseg.metrics.intervals import ImageEffects, mean_average_precision_effects
from hierseg.metrics.names import Confusion, OperatingCurve
from hierseg.metrics.records import OPEN_IMAGES
from hierseg.metrics.system import Costs, System
from hierseg.pictures import read_picture
from hierseg.report.comparison import ComparedImage, Comparison, Head, PanelInstance, draw_panel, write_comparison
from hierseg.report.curves import read_losses
from hierseg.store import Store

Groups = Mapping[str, tuple[int, ...]]
Curves = Mapping[str, Sequence[tuple[float, float]]]


@dataclass(frozen=True)
class RunSource:
    """A trained model: name, config file, and checkpoint, in whose folder the log of the training lies."""

    name: str
    config: str
    checkpoint: str

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

    ``groups`` are the classes whose mean AP is told apart; ``work_dir`` takes the log. A mask of a submission that has
    more than ``max_pixels`` is refused.

    Raises:
        ConfigError: A file does not exist, or config and checkpoint do not fit.
        EvaluationError: The submission cannot be used; it names the line or entry.
        StoreError: The store does not have an image.
    """
    if isinstance(source, PredictionsSource):
        predictions = read_predictions(source.path, store, max_pixels=max_pixels)
        name = source.name
        evaluation = evaluate_system(store, predictions, groups=groups, score_threshold=score_threshold, name=name)
        return EvaluatedSystem(name, '', source.path, predictions, evaluation)
    config = source.settled(options, work_dir=work_dir)
    config.test_evaluator = dict(type='hierseg.SystemMetric', store=str(store.path), score_thr=score_threshold)
    if 'visualizer' in config:
        # Of one name, the second run would get the visualizer of the first, which writes into that one's folder.
        config.visualizer.name = str(work_dir)
    with safe_loading():
        costs = measure_costs(config, source.checkpoint, images=timed_images)
        runner = build_runner(config)
        runner.test()
    metric: SystemMetric = runner.test_evaluator.metrics[0]
    evaluation, curves = replace(metric.evaluation, groups=groups), loss_curves(Path(source.checkpoint).parent)
    origin = source.name, source.config, source.checkpoint
    return EvaluatedSystem(*origin, metric.predictions, evaluation, costs, curves)


def loss_curves(work_dir: Path) -> Curves:
    """Training and validation loss by epoch of the run in a work directory, of each layer; empty without a log."""
    curves = {}
    for losses in read_losses(work_dir):
        for what, values in (('training', losses.training), ('validation', losses.validation)):
            if values:
                name = ' '.join(filter(None, [losses.name.replace('layer', 'layer '), what]))
                curves[name] = [(float(epoch), values[epoch]) for epoch in sorted(values)]
    return curves


RIGHT = {ErrorKind.CORRECT: 1.0, ErrorKind.FINER: 1.0, ErrorKind.COARSER: 0.5}
NOT_COUNTED = (ErrorKind.IGNORED, ErrorKind.UNVERIFIED)
NO_ERRORS = (ErrorKind.CORRECT, ErrorKind.FINER)
SCORE = 'F1 of the detections; a name coarser than the annotated class counts half'
"""The meaning of :func:`image_score`, for the page."""


def image_score(errors: ImageErrors) -> float:
    """The quality of a system on one image: the harmonic mean of precision and recall of its detections.

    A name that is coarser than the annotated class counts half. 1 where there is nothing to find and nothing was said.
    """
    right = sum(worth * int((errors.kinds == kind).sum()) for kind, worth in RIGHT.items())
    found = int(np.isin(errors.kinds, list(RIGHT)).sum())
    counted = int((~np.isin(errors.kinds, NOT_COUNTED)).sum())
    objects = found + len(errors.missed)
    return 2 * right / (counted + objects) if counted + objects else 1.0


def choose_images(scores: npt.NDArray[np.float64], count: int, *, seed: int) -> npt.NDArray[np.int64]:
    """Half of the pictures where systems differ most, or a single one is worst, and half drawn from the others.

    Of (S, N) scores by :func:`image_score`, gives back (min(count, N),) int64 positions of images, ascending.
    """
    spread = np.ptp(scores, axis=0) if len(scores) > 1 else 1 - scores[0]
    order = np.argsort(-spread, kind='stable')
    telling, others = order[: -(-count // 2)], order[-(-count // 2) :]
    drawn = np.random.default_rng(seed).permutation(others)[: count - len(telling)]
    return np.sort(np.concatenate([telling, drawn]))


def compared_images(
    systems: Sequence[EvaluatedSystem],
    store: Store,
    *,
    count: int,
    score_threshold: float,
    seed: int,
    folder: Path | None = None,
    max_pixels: int = MAX_PIXELS,
) -> list[ComparedImage]:
    """Draws ``count`` images, each with its ground truth and with detections of every system above the threshold.

    All systems have predictions of the same images in the same order; ``folder`` is where the images lie, if the
    predictions do not know. Without either there are no pictures.

    Raises:
        ConfigError: There is no such image.
        AnnotationError: A file is no readable image, or one of more than ``max_pixels``.
    """
    scores = np.array([[image_score(image.errors) for image in system.evaluation.images] for system in systems])
    shown = []
    for position in choose_images(scores, count, seed=seed).tolist():
        row = store.row_of(systems[0].predictions[position].image_id)
        known = (system.predictions[position].image_path for system in systems)
        path = next(filter(None, known), None) if folder is None else folder / store.image(row).file_name
        if path is None:
            return []
        try:
            picture = read_picture(path, store.orientation, max_pixels=max_pixels)
        except OSError as error:
            what, fix = 'the image cannot be read', 'Name the folder with --images.'
            raise ConfigError(what, where=str(path), fix=fix) from error
        instances = store.instances(row)
        annotated = [
            PanelInstance(label, box, mask if has_mask else None, group_of=group_of)
            for label, box, mask, has_mask, group_of in zip(
                instances.labels.tolist(), instances.boxes, instances.masks, instances.has_mask.tolist(),
                instances.group_of.tolist(), strict=True,
            )
        ]  # fmt: skip
        panels = {
            system.name: draw_panel(
                picture,
                _found(system.predictions[position], picture.shape[:2], score_threshold),
                taxonomy=store.taxonomy,
                errors=_kinds(system.evaluation.images[position].errors),
                score=float(of_images[position]),
            )
            for system, of_images in zip(systems, scores, strict=True)
        }
        ground_truth = draw_panel(picture, annotated, taxonomy=store.taxonomy)
        labels = np.unique(instances.labels).tolist()
        shown.append(ComparedImage(store.image(row).id, labels, ground_truth, panels))
    return shown


def _found(prediction: ImagePrediction, size: tuple[int, int], score_threshold: float) -> list[PanelInstance]:
    height, width = size
    labels, scores = prediction.named_labels.tolist(), prediction.class_scores
    boxes = prediction.boxes * np.array([width, height, width, height])
    return [
        PanelInstance(labels[region], boxes[region], prediction.masks[region], class_scores=scores[region])
        for region in np.flatnonzero(scores.max(axis=1, initial=0) >= score_threshold).tolist()
    ]


def _kinds(errors: ImageErrors) -> list[str]:
    """Keys of the kinds of errors on the image, in the order in which they are shown."""
    found = {ErrorKind(kind).name.lower() for kind in errors.kinds.tolist() if kind not in NO_ERRORS}
    found |= {'missed'} if len(errors.missed) else set()
    return [kind.key for kind in COUNTED_KINDS if kind.key in found]


CURVES = {'all': 'all classes', 'layer0': 'root classes', 'layer1': 'deeper classes'}
"""Groups of classes with a precision-recall curve."""

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
    num_pictures: int = 24,
    timed_images: int = 20,
    seed: int = 0,
    max_pixels: int = MAX_PIXELS,
    options: Mapping[str, Any] | None = None,
    command: str = '',
) -> Path:
    """Evaluates systems and writes a page that compares them; see ``docs/comparing.md``.

    Args:
        sources: The systems; the others are compared with the first.
        out: Folder of ``index.html``, ``results.json`` and ``table.md``, and of the tests' logs.
        store: The ground truth; that of the first run's test data when omitted.
        train_store: The training data, for class frequencies; those of the first run when omitted.
        images: Folder of the images, for pictures where all systems are submissions.
        title: Of the page.
        score_threshold: Of pictures and kinds of errors.
        num_pictures: Images that are shown.
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
        document = comparison_of(systems, truth, head=head, train_images=train_images, images=shown)
        return write_comparison(document, out)


def comparison_of(
    systems: Sequence[EvaluatedSystem],
    truth: Store,
    *,
    head: Head,
    train_images: npt.NDArray[np.int64] | None,
    images: Sequence[ComparedImage] = (),
) -> Comparison:
    """The document that page, table and JSON are made of, of systems evaluated on the same images.

    ``train_images`` are (C,) int64, those of each class.

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
    )


def effects_of(system: EvaluatedSystem) -> Effects:
    """What each image changes, for each score with an interval: mean AP of the groups of classes, all about names."""
    evaluation = system.evaluation
    at = evaluation.images[0].matches.criteria.index(OPEN_IMAGES)
    matches = [image.matches.at(at) for image in evaluation.images]
    means = mean_average_precision_effects(matches, groups=evaluation.groups)
    return {
        **{group_score(name): effects for name, effects in means.items()},
        **{name: of_images.effects for name, of_images in evaluation.names.items()},
    }


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
        elif not Path(source.path).is_file():
            raise ConfigError('the predictions do not exist', where=source.path, fix='Check the path.')
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
