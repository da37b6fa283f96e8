"""Compares systems on the same images: one evaluation each, intervals, paired differences, and a page.

Shape letters: B resamples, P pairs, T thresholds, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from mmengine.config import Config

import hierseg
from hierseg.annotations import Store
from hierseg.apis.calibration import THRESHOLDS, names_by_threshold
from hierseg.apis.comparison_pictures import SCORE, compared_images
from hierseg.apis.score_names import SHOWN_KINDS, shown_metrics
from hierseg.apis.sources import EvaluatedSystem, PredictionsSource, RunSource, evaluate_run, evaluate_submission
from hierseg.apis.stores import stores_in
from hierseg.errors import ConfigError, EvaluationError
from hierseg.evaluation.system_evaluation import group_score, train_images_of
from hierseg.machine import describe_machine
from hierseg.metrics import (
    OPEN_IMAGES,
    RECALLS,
    Confusion,
    Resampling,
    class_groups,
    count_kinds,
    hierarchical_sums,
    interval,
    operating_curve,
    paired_difference,
    resampled_mean_average_precision,
)
from hierseg.metrics import OperatingCurve as NamesCurve
from hierseg.report.comparison import (
    ClassCounts,
    Comparison,
    Estimate,
    Head,
    OperatingCurve,
    PrecisionRecall,
    System,
    write_comparison,
)

CURVES = {'all': 'all classes', 'layer0': 'root classes', 'layer1': 'deeper classes'}
"""Groups of classes with a precision-recall curve."""

Resampled = Mapping[str, npt.NDArray[np.float64]]


@dataclass(frozen=True)
class Written:
    """Where a comparison was written.

    Attributes:
        page: The page; ``results.json`` and ``table.md`` lie beside it.
        table: The scores as Markdown.
    """

    page: Path
    table: str


def compare(
    sources: Sequence[RunSource | PredictionsSource],
    out: str | Path,
    *,
    store: str | Path | None = None,
    train_store: str | Path | None = None,
    images: str | Path | None = None,
    title: str = 'Which system is better?',
    score_thr: float = 0.3,
    num_pictures: int = 24,
    resamples: int = 1000,
    timed_images: int = 20,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
    command: str = '',
) -> Written:
    """Evaluates systems and writes a page that compares them; see ``docs/comparing.md``.

    Args:
        sources: The systems; the others are compared with the first.
        out: Folder of ``index.html``, ``results.json`` and ``table.md``, and of the tests' logs.
        store: The ground truth; that of the first run's test data when omitted.
        train_store: The training data, for class frequencies; those of the first run when omitted.
        images: Folder of the images, for pictures where all systems are submissions.
        title: Of the page.
        score_thr: Of pictures and kinds of errors.
        num_pictures: Images that are shown.
        resamples: Of the bootstrap.
        timed_images: Images that latency and arithmetic are measured on.
        seed: Of bootstrap and choice of pictures.
        options: Values by dotted key that override those of all configs.
        command: What to write on the page as its origin.

    Raises:
        ConfigError: A file does not exist, two systems have one name, or no ground truth is named.
        EvaluationError: The systems were not tested on the same images.
    """
    config = _check_sources(sources, options)
    truth_path = store or _store_of(config, 'test_dataloader')
    if truth_path is None:
        raise ConfigError('no store of the ground truth is named', fix='Give --store, or a run among the systems.')
    truth, training_path = Store.open(truth_path), train_store or _store_of(config, 'train_dataloader')
    training = None if training_path is None else Store.open(training_path)
    train_images = None if training is None else train_images_of(training, truth)
    groups = class_groups(truth.taxonomy, train_images=train_images)
    systems = []
    for position, source in enumerate(sources):
        if isinstance(source, PredictionsSource):
            systems.append(evaluate_submission(source, truth, groups=groups, score_thr=score_thr))
        else:
            log = Path(out) / 'logs' / str(position)
            systems.append(
                evaluate_run(
                    source, truth, groups=groups, score_thr=score_thr, timed_images=timed_images, work_dir=log,
                    options=options,
                )
            )  # fmt: skip
    _require_same_images(systems)
    head = _head(title=title, truth=truth, systems=systems, training=training, seed=seed, command=command)
    document = comparison_of(systems, truth, head=head, train_images=train_images, resamples=resamples, seed=seed)
    shown = compared_images(
        systems,
        truth,
        count=num_pictures,
        score_thr=score_thr,
        seed=seed,
        folder=None if images is None else Path(images),
    )
    page = write_comparison(replace(document, images=shown, panel_score=SCORE), out)
    return Written(page, (page.parent / 'table.md').read_text(encoding='utf-8'))


def comparison_of(
    systems: Sequence[EvaluatedSystem],
    truth: Store,
    *,
    head: Head,
    train_images: npt.NDArray[np.int64] | None,
    resamples: int,
    seed: int,
) -> Comparison:
    """Everything that the page shows but the pictures.

    Args:
        systems: Evaluated on the same images.
        truth: The ground truth.
        head: Of the page.
        train_images: (C,) int64; training images of each class.
        resamples: B.
        seed: Of the draws.
    """
    ids = [prediction.image_id for prediction in systems[0].predictions]
    resampling = Resampling.draw(ids, resamples=resamples, seed=seed)
    resampled = [resampled_scores(system, truth, resampling) for system in systems]
    curves = [names_curve(system, truth) for system in systems]
    scores = [{**system.evaluation.scores, **recalls_of(curve)} for system, curve in zip(systems, curves, strict=True)]
    metrics = shown_metrics(key for key, value in scores[0].items() if any(np.isfinite(found[key]) for found in scores))
    keys = [metric.key for metric in metrics]
    objects = systems[0].evaluation.open_images.num_ground_truth
    return Comparison(
        head=head,
        taxonomy=truth.taxonomy,
        counts=ClassCounts(objects.astype(int).tolist(), None if train_images is None else train_images.tolist()),
        metrics=metrics,
        systems=[
            _shown_system(system, truth, values, drawn, curve, keys)
            for system, values, drawn, curve in zip(systems, scores, resampled, curves, strict=True)
        ],
        differences={
            system.name: {key: _difference(values, scores[0], drawn, resampled[0], key) for key in keys}
            for system, values, drawn in zip(systems[1:], scores[1:], resampled[1:], strict=True)
        },
        error_kinds=SHOWN_KINDS,
    )


def names_curve(system: EvaluatedSystem, truth: Store) -> NamesCurve:
    """How right the names are, and how much they say, at every threshold on a class's own probability."""
    pairs, arrays = system.evaluation.pairs, truth.taxonomy.arrays
    names = names_by_threshold(pairs.class_scores, arrays, relative=False)
    return operating_curve(pairs, names, arrays, thresholds=THRESHOLDS)


def recalls_of(curve: NamesCurve) -> dict[str, float]:
    """Information recall at which 90 and 95 % of the names are right."""
    return {f'recall_at_{percent}': curve.recall_at_correctness(percent / 100) for percent in (90, 95)}


def resampled_scores(system: EvaluatedSystem, truth: Store, resampling: Resampling) -> Resampled:
    """(B,) float64 of each score that is resampled: mean AP of the groups of classes, and all about names."""
    evaluation = system.evaluation
    at = evaluation.images[0].matches.criteria.index(OPEN_IMAGES)
    matches = [image.matches.at(at) for image in evaluation.images]
    means = resampled_mean_average_precision(matches, resampling, groups=evaluation.groups)
    sums = hierarchical_sums(evaluation.pairs, evaluation.pairs.named_labels, truth.taxonomy.arrays)
    return {
        **{group_score(name): values for name, values in means.items()},
        **{name: resampling.ratios(of_images) for name, of_images in sums.items()},
    }


def _shown_system(
    system: EvaluatedSystem,
    truth: Store,
    scores: Mapping[str, float],
    resampled: Resampled,
    curve: NamesCurve,
    keys: Sequence[str],
) -> System:
    evaluation, arrays = system.evaluation, truth.taxonomy.arrays
    pairs, result = evaluation.pairs, evaluation.open_images
    confusion = Confusion.of(pairs, pairs.named_labels, arrays)
    counts = count_kinds(image.errors for image in evaluation.images)
    return System(
        name=system.name,
        config=system.config,
        weights=system.weights,
        scores={key: Estimate(scores[key], *_interval(resampled, key)) for key in keys},
        class_ap=result.average_precision.tolist(),
        costs=system.costs,
        precision_recall={
            title: PrecisionRecall(RECALLS.tolist(), result.mean_curve(evaluation.groups[group]).tolist())
            for group, title in CURVES.items()
            if np.isfinite(result.mean_over(evaluation.groups[group]))
        },
        operating_curve=OperatingCurve(curve.thresholds, curve.correctness.tolist(), curve.information.tolist())
        if len(pairs)
        else None,
        errors={kind.key: counts[kind.key] for kind in SHOWN_KINDS},
        confusion=list(
            zip(
                confusion.true_labels.tolist(), confusion.named_labels.tolist(), confusion.counts.tolist(), strict=True
            )
        ),
        training_curves=system.training_curves,
    )  # fmt: skip


def _interval(resampled: Resampled, key: str) -> tuple[float, float] | tuple[None, None]:
    return interval(resampled[key]) if key in resampled else (None, None)


def _difference(
    scores: Mapping[str, float], first: Mapping[str, float], drawn: Resampled, first_drawn: Resampled, key: str
) -> Estimate:
    """A score minus the first system's, with a paired interval where the score is resampled."""
    value = scores[key] - first[key]
    if key not in drawn:
        return Estimate(value)
    between = paired_difference(drawn[key], first_drawn[key])
    return Estimate(value, between.low, between.high)


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
