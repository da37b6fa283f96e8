"""The Open Images evaluation of a submission file, from official files to the result."""

from __future__ import annotations

from os import PathLike

from tqdm import tqdm

from hierseg.errors import EvaluationError
from hierseg.metrics.average_precision import summarise
from hierseg.metrics.criteria import OPEN_IMAGES, Criterion
from hierseg.metrics.matching import match_image
from hierseg.metrics.official_csv import read_detections, read_ground_truth
from hierseg.metrics.records import DEFAULT_GROUP_OF_WEIGHTS, OpenImagesResult, checked_iou_type
from hierseg.taxonomy import Taxonomy


def evaluate_files(
    boxes: str | PathLike[str],
    labels: str | PathLike[str],
    *,
    predictions: str | PathLike[str],
    taxonomy: Taxonomy,
    masks: str | PathLike[str] | None = None,
    iou_type: str = 'segm',
    group_of_weight: float | None = None,
    expand: bool = True,
    criterion: Criterion = OPEN_IMAGES,
    progress: bool = False,
) -> OpenImagesResult:
    """Evaluates a submission by the Open Images Challenge protocol.

    Args:
        boxes: Ground-truth boxes, CSV.
        labels: Image-level labels, CSV.
        predictions: The submission, CSV.
        taxonomy: The hierarchy.
        masks: Ground-truth masks, CSV; needed for ``segm``, not read for ``bbox``.
        iou_type: ``segm`` or ``bbox``.
        group_of_weight: What finding a group counts; None for the protocol's default: 0 for ``segm``, 1 for ``bbox``.
        expand: Expand the ground truth through the hierarchy; False where it is expanded already.
        criterion: The overlap that a detection needs, and the size of object that is asked for.
        progress: Show a progress bar on a terminal.

    Raises:
        EvaluationError: If a file cannot be used or ground truth and predictions do not fit.
    """
    kind = checked_iou_type(iou_type)
    if kind == 'segm' and masks is None:
        raise EvaluationError('ground-truth masks are missing', fix='Give the mask CSV, or evaluate boxes (bbox).')
    weight = DEFAULT_GROUP_OF_WEIGHTS[kind] if group_of_weight is None else group_of_weight
    ground_truth = read_ground_truth(boxes, labels, masks if kind == 'segm' else None, taxonomy=taxonomy, expand=expand)
    detections = read_detections(predictions, ground_truth, taxonomy=taxonomy, iou_type=kind)
    images = tqdm(ground_truth.image_ids, desc='matching', unit='image', disable=None if progress else True)
    return summarise(
        (
            match_image(
                ground_truth.image(index),
                detections.image(index),
                image_id=image_id,
                iou_type=kind,
                group_of_weight=weight,
                criterion=criterion,
            )
            for index, image_id in enumerate(images)
        ),
        taxonomy.num_classes,
    )
