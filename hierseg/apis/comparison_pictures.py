"""The pictures of a comparison: which images, and what is drawn on them.

Shape letters: S systems, N images, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import mmcv
import numpy as np
import numpy.typing as npt

from hierseg.annotations import Store
from hierseg.apis.score_names import SHOWN_KINDS
from hierseg.apis.sources import EvaluatedSystem
from hierseg.errors import ConfigError
from hierseg.evaluation import ImagePrediction
from hierseg.metrics import ErrorKind, ImageErrors
from hierseg.report.canvas import Picture
from hierseg.report.comparison import ComparedImage, PanelInstance, draw_panel

RIGHT = {ErrorKind.CORRECT: 1.0, ErrorKind.FINER: 1.0, ErrorKind.COARSER: 0.5}
NOT_COUNTED = (ErrorKind.IGNORED, ErrorKind.UNVERIFIED)
NO_ERRORS = (ErrorKind.CORRECT, ErrorKind.FINER)
SCORE = 'F1 of the detections; a name coarser than the annotated class counts half'
"""What :func:`image_score` is, for the page."""


def image_score(errors: ImageErrors) -> float:
    """How good a system is on one image: the harmonic mean of precision and recall of its detections.

    A name that is coarser than the annotated class counts half. 1 where there is nothing to find and nothing was said.
    """
    right = sum(worth * int((errors.kinds == kind).sum()) for kind, worth in RIGHT.items())
    found = int(np.isin(errors.kinds, list(RIGHT)).sum())
    counted = int((~np.isin(errors.kinds, NOT_COUNTED)).sum())
    objects = found + len(errors.missed)
    return 2 * right / (counted + objects) if counted + objects else 1.0


def choose_images(scores: npt.NDArray[np.float64], count: int, *, seed: int) -> npt.NDArray[np.int64]:
    """Half of the pictures where systems differ most, or a single one is worst, and half drawn from the others.

    Args:
        scores: (S, N) of :func:`image_score`.
        count: How many.
        seed: Of the draw.

    Returns:
        (min(count, N),) int64, ascending.
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
    score_thr: float,
    seed: int,
    folder: Path | None = None,
) -> list[ComparedImage]:
    """Draws images, each with its ground truth and with what every system found.

    Args:
        systems: S systems with predictions of the same images in the same order.
        store: The ground truth.
        count: How many images.
        score_thr: Detections whose most probable class is less probable are not drawn.
        seed: Of the choice.
        folder: Where the images lie, if the predictions do not know.

    Raises:
        ConfigError: An image cannot be read.
    """
    scores = np.array([[image_score(image.errors) for image in system.evaluation.images] for system in systems])
    shown = []
    for position in choose_images(scores, count, seed=seed).tolist():
        row = store.row_of(systems[0].predictions[position].image_id)
        path = _path(systems, position, store, row, folder)
        if path is None:
            return []
        picture = _read(path)
        instances = store.instances(row)
        annotated = [
            PanelInstance(label, box, mask if has_mask else None, group_of=group_of)
            for label, box, mask, has_mask, group_of in zip(
                instances.labels.tolist(), instances.boxes, instances.masks, instances.has_mask.tolist(),
                instances.group_of.tolist(), strict=True,
            )
        ]  # fmt: skip
        panels = {}
        for system, of_images in zip(systems, scores, strict=True):
            found = _found(system.predictions[position], picture.shape[:2], store.taxonomy.num_classes, score_thr)
            kinds = _kinds(system.evaluation.images[position].errors)
            panels[system.name] = draw_panel(
                picture, found, taxonomy=store.taxonomy, errors=kinds, score=float(of_images[position])
            )
        shown.append(
            ComparedImage(
                image_id=store.image(row).id,
                classes=np.unique(instances.labels).tolist(),
                ground_truth=draw_panel(picture, annotated, taxonomy=store.taxonomy),
                panels=panels,
            )
        )
    return shown


def _read(path: Path) -> Picture:
    try:
        picture: Picture = mmcv.imread(str(path), flag='color_ignore_orientation', channel_order='rgb')
    except (OSError, AssertionError) as error:  # the latter of mmcv, of a file that OpenCV cannot decode
        raise ConfigError('the image cannot be read', where=str(path), fix='Name the folder with --images.') from error
    return picture


def _path(
    systems: Sequence[EvaluatedSystem], position: int, store: Store, row: int, folder: Path | None
) -> Path | None:
    if folder is not None:
        return folder / store.image(row).file_name
    known = (system.predictions[position].image_path for system in systems)
    return next((Path(path) for path in known if path is not None), None)


def _found(
    prediction: ImagePrediction, size: tuple[int, int], num_classes: int, score_thr: float
) -> list[PanelInstance]:
    height, width = size
    scores = prediction.class_scores(num_classes)
    boxes = prediction.detections.boxes * np.array([width, height, width, height])
    drawn = np.flatnonzero(scores.max(axis=1, initial=0) >= score_thr)
    return [
        PanelInstance(
            int(prediction.named_labels[region]),
            boxes[region],
            prediction.detections.masks[region],
            class_scores=scores[region],
        )
        for region in drawn.tolist()
    ]


def _kinds(errors: ImageErrors) -> list[str]:
    """Keys of what is wrong on the image, in the order in which it is shown."""
    found = {ErrorKind(kind).name.lower() for kind in errors.kinds.tolist() if kind not in NO_ERRORS}
    if len(errors.missed):
        found.add('missed')
    return [kind.key for kind in SHOWN_KINDS if kind.key in found]
