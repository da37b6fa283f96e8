"""Images of a comparison: which are shown, how good each system is on them, and what is drawn.

Shape letters: S systems, N images, R detections, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from hierseg.apis.evaluated_systems import EvaluatedSystem
from hierseg.errors import ConfigError
from hierseg.evaluation.predictions import ImageTruth
from hierseg.limits import MAX_PIXELS
from hierseg.metrics import ImagePrediction
from hierseg.metrics.error_kinds import COUNTED_KINDS, ErrorKind, ImageErrors
from hierseg.metrics.records import Expansion, ImageGroundTruth
from hierseg.pictures import read_picture
from hierseg.report.comparison import ComparedImage, PanelInstance, draw_panel, photograph, photograph_side
from hierseg.store import Store

RIGHT = {ErrorKind.CORRECT: 1.0, ErrorKind.FINER: 1.0, ErrorKind.COARSER: 0.5}
NOT_COUNTED = (ErrorKind.IGNORED, ErrorKind.UNVERIFIED)
NO_ERRORS = (ErrorKind.CORRECT, ErrorKind.FINER)
SCORE = 'F1 of the detections; a name coarser than the annotated class counts half'
"""The meaning of :func:`image_score`, for the page."""
LOWEST_SCORE = 0.1
"""Detections from here on are on the page, hidden at first where they are below its threshold."""


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
    count: int | None,
    score_threshold: float,
    seed: int,
    folder: Path | None = None,
    max_pixels: int = MAX_PIXELS,
) -> list[ComparedImage]:
    """Draws ``count`` images, or all for None, each with its ground truth and the detections of every system.

    Detections are those from ``LOWEST_SCORE`` on, or from the threshold if it is lower. All systems have predictions
    of the same images in the same order; ``folder`` is where the images lie, if the predictions do not know. Without
    either there are no pictures.

    Raises:
        ConfigError: There is no such image.
        AnnotationError: A file is no readable image, or one of more than ``max_pixels``.
    """
    scores = np.array([[image_score(image.errors) for image in system.evaluation.images] for system in systems])
    chosen = choose_images(scores, scores.shape[1] if count is None else count, seed=seed).tolist()
    taxonomy, side, shown = store.taxonomy, photograph_side(len(chosen)), []
    expansion = Expansion.of(taxonomy)
    for position in tqdm(chosen, desc='drawing', unit='image', disable=None):
        row = store.row_of(systems[0].predictions[position].image_id)
        image = store.image(row)
        known = (system.predictions[position].image_path for system in systems)
        path = next(filter(None, known), None) if folder is None else folder / image.file_name
        if path is None:
            return []
        try:
            picture = read_picture(path, store.orientation, max_pixels=max_pixels)
        except OSError as error:
            what, fix = 'the image cannot be read', 'Name the folder with --images.'
            raise ConfigError(what, where=str(path), fix=fix) from error
        shape = picture.shape[0], picture.shape[1]
        truth = ImageTruth.read(store, row, expansion=expansion).annotated[0]
        panels = {
            system.name: draw_panel(
                shape,
                _found(
                    system.predictions[position], system.evaluation.images[position].errors, shape,
                    least=min(LOWEST_SCORE, score_threshold), num_objects=len(truth.labels),
                ),
                taxonomy=taxonomy,
                errors=_kinds(system.evaluation.images[position].errors),
                score=float(of_images[position]),
                shown_from=score_threshold,
                side=side,
            )
            for system, of_images in zip(systems, scores, strict=True)
        }  # fmt: skip
        ground_truth = draw_panel(shape, _annotated(truth, shape), taxonomy=taxonomy, side=side)
        labels = np.unique(truth.labels).tolist()
        taken = photograph(picture, side=side)
        shown.append(ComparedImage(image.id, image.file_name, labels, taken, ground_truth, panels))
    return shown


def _annotated(truth: ImageGroundTruth, shape: tuple[int, int]) -> list[PanelInstance]:
    boxes = _in_pixels(truth.boxes, shape)
    return [
        PanelInstance(label, boxes[at], truth.masks[at] or None, group_of=bool(truth.group_of[at]), identity=at)
        for at, label in enumerate(truth.labels.tolist())
    ]


def _found(
    prediction: ImagePrediction, errors: ImageErrors, shape: tuple[int, int], *, least: float, num_objects: int
) -> list[PanelInstance]:
    """Detections of at least a score; what took an object has its identity, all others have new ones."""
    labels, scores = prediction.named_labels.tolist(), prediction.class_scores
    boxes = _in_pixels(prediction.boxes, shape)
    taken = {
        region: found
        for region, kind, found in zip(
            errors.regions.tolist(), errors.kinds.tolist(), errors.objects.tolist(), strict=True
        )
        if kind in RIGHT
    }
    return [
        PanelInstance(
            labels[region], boxes[region], prediction.masks[region], class_scores=scores[region],
            identity=taken.get(region, num_objects + region),
        )
        for region in np.flatnonzero(scores.max(axis=1, initial=0) >= least).tolist()
    ]  # fmt: skip


def _in_pixels(boxes: npt.NDArray[np.floating], shape: tuple[int, int]) -> npt.NDArray[np.floating]:
    height, width = shape
    return boxes * np.array([width, height, width, height])


def _kinds(errors: ImageErrors) -> list[str]:
    """Keys of the kinds of errors on the image, in the order in which they are shown."""
    found = {ErrorKind(kind).name.lower() for kind in errors.kinds.tolist() if kind not in NO_ERRORS}
    found |= {'missed'} if len(errors.missed) else set()
    return [kind.key for kind in COUNTED_KINDS if kind.key in found]
