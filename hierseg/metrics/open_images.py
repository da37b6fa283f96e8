"""The Open Images evaluation of a submission file, from official files to the result."""

from __future__ import annotations

from functools import partial
from os import PathLike
from tempfile import TemporaryDirectory

from tqdm import tqdm

from hierseg.errors import EvaluationError
from hierseg.metrics.average_precision import summarise
from hierseg.metrics.criteria import OPEN_IMAGES, Criterion
from hierseg.metrics.detection_parts import part_matcher, split_by_image
from hierseg.metrics.detection_rows import detection_rows
from hierseg.metrics.matching import match_images
from hierseg.metrics.official_csv import read_ground_truth
from hierseg.metrics.records import DEFAULT_GROUP_OF_WEIGHTS, ImageMatches, OpenImagesResult, checked_iou_type
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
    workers: int = 1,
    progress: bool = False,
) -> OpenImagesResult:
    """Evaluates a submission by the Open Images Challenge protocol.

    The submission may have any size and order: it is split by image into a temporary file of about its size
    (in ``TMPDIR``), and a bounded part of it is in memory at a time. Masks of detections that rule 3 drops, of classes
    that nobody verified on the image, are not decoded.

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
        workers: Processes; the result is the same to the last bit for any number.
        progress: Show a progress bar on a terminal.

    Raises:
        EvaluationError: If a file cannot be used or ground truth and predictions do not fit.
    """
    kind = checked_iou_type(iou_type)
    if kind == 'segm' and masks is None:
        raise EvaluationError('ground-truth masks are missing', fix='Give the mask CSV, or evaluate boxes (bbox).')
    weight = DEFAULT_GROUP_OF_WEIGHTS[kind] if group_of_weight is None else group_of_weight
    match = partial(match_images, iou_type=kind, group_of_weight=weight, criterion=criterion)
    matches: list[ImageMatches] = []
    with part_matcher(match, workers=workers) as match_parts, TemporaryDirectory(prefix='hierseg-') as folder:
        used_masks = masks if kind == 'segm' else None
        ground_truth = read_ground_truth(boxes, labels, used_masks, taxonomy=taxonomy, expand=expand)
        image_ids, quiet = ground_truth.image_ids, None if progress else True
        rows = detection_rows(predictions, image_ids, taxonomy=taxonomy, iou_type=kind)
        blocks = tqdm(rows, 'reading', unit='block', disable=quiet)
        parts = split_by_image(blocks, ground_truth, predictions=predictions, iou_type=kind, folder=folder)
        with tqdm(total=len(image_ids), desc='matching', unit='image', disable=quiet) as bar:
            for found in match_parts(parts):
                matches += found
                bar.update(len(found))
    return summarise(matches, taxonomy.num_classes)
