"""From a store and from a model's results to the arrays that :mod:`hierseg.metrics` compares.

Boxes are divided by the size of their image, as the official files have them. Shape letters: N instances
that a model predicts, H × W pixels of the image, C classes, I objects, D detections, A absent classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from pycocotools import mask as coco_mask

from hierseg.annotations import ImageRow, Store
from hierseg.errors import EvaluationError
from hierseg.metrics import (
    Expansion,
    ImageDetections,
    ImageGroundTruth,
    InstanceRows,
    join_boxes_and_masks,
    measure,
    regular,
)


def ground_truth_of(store: Store, row: int, *, expansion: Expansion, by_mask: bool) -> ImageGroundTruth:
    """The expanded ground truth of an image of a store.

    An instance is a box row and, where it has one, a mask row of the official files.

    Args:
        store: The store.
        row: Row of the image.
        expansion: Through the taxonomy of the store.
        by_mask: Whether masks are compared; without, they are not read.

    Raises:
        EvaluationError: If a mask of the store is malformed.
    """
    image, instances = store.image(row), store.instances(row)
    index = np.arange(len(instances.labels))
    scale = np.array([image.width, image.height, image.width, image.height], dtype=np.float64)
    rows = InstanceRows(np.zeros_like(index), instances.labels, instances.boxes / scale, instances.group_of, index)
    objects = rows.expanded(*expansion.upward(rows.labels))
    masks, areas, size = [b''] * len(objects), np.zeros(len(objects), dtype=np.int64), None
    if by_mask:
        masked = np.flatnonzero(instances.has_mask)
        objects, mask_of = join_boxes_and_masks(objects, objects.take(np.flatnonzero(np.isin(objects.sources, masked))))
        stored, stored_areas = _checked([instances.masks[i] for i in masked.tolist()], image)
        position = np.append(np.cumsum(instances.has_mask) - 1, -1)[mask_of]  # -1 stays -1
        areas = np.append(stored_areas, 0)[position]
        masks = [stored[at] if area else b'' for at, area in zip(position.tolist(), areas.tolist(), strict=True)]
        size = (image.height, image.width) if len(masked) else None
    return ImageGroundTruth(
        labels=objects.labels,
        boxes=objects.boxes,
        group_of=objects.group_of,
        masks=masks,
        mask_areas=areas,
        verified=expansion.verified(*store.verified(row)),
        size=size,
    )


def absent_classes(store: Store, row: int, *, expansion: Expansion) -> npt.NDArray[np.int64]:
    """(A,) int64, ascending; classes that were verified as absent on an image, with all below them."""
    _, labels = expansion.downward(store.verified(row)[1])
    return np.unique(labels)


def detections_of(instances: Mapping[str, Any], image: ImageRow, *, num_classes: int, by_mask: bool) -> ImageDetections:
    """The detections in one image's ``pred_instances``.

    With ``class_scores`` every class of positive probability is a detection on its instance's box and mask;
    without, each instance has its ``labels`` and ``scores`` only.

    Args:
        instances: ``bboxes`` (N, 4) xyxy in pixels, ``masks`` (N, H, W) if masks are compared, and
            ``class_scores`` (N, C) or ``labels`` and ``scores`` (N,).
        image: The image that they belong to.
        num_classes: C of the ground truth.
        by_mask: Whether masks are compared.

    Raises:
        EvaluationError: If something is missing, not finite or does not fit image or classes.
    """
    where = f'image {image.id}'
    needed = [
        'masks' if by_mask else 'bboxes',
        *(['class_scores'] if 'class_scores' in instances else ['labels', 'scores']),
    ]
    missing = [name for name in needed if name not in instances]
    if missing:
        raise EvaluationError(f'pred_instances has no {", ".join(missing)}', where=where, fix='The model must give it.')
    regions, labels, scores = _claims(instances, num_classes, where)
    if not by_mask:
        scale = np.array([image.width, image.height, image.width, image.height], dtype=np.float64)
        return ImageDetections(labels, scores, regions, _array(instances['bboxes']).astype(np.float64) / scale)
    masks = torch.as_tensor(instances['masks'])
    size = (image.height, image.width)
    if masks.ndim != 3 or (len(masks) and tuple(masks.shape[1:]) != size):
        raise EvaluationError(
            f'masks have the shape {tuple(masks.shape)}',
            where=where,
            fix=f'They must be (N, {image.height}, {image.width}), the size of the image.',
        )
    encoded = _encoded(masks)
    heights, widths = (np.full(len(encoded), extent, dtype=np.int64) for extent in size)
    measures = measure(encoded, heights, widths, where=lambda index: f'{where}, mask {index}')
    boxes = measures.boxes / np.array([image.width, image.height, image.width, image.height], dtype=np.float64)
    return ImageDetections(labels, scores, regions, boxes, encoded, measures.areas, size)


def _claims(instances: Mapping[str, Any], num_classes: int, where: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(D,) instance, label and score of every detection; instance after instance, ascending labels."""
    if 'class_scores' in instances:
        class_scores = _array(instances['class_scores']).astype(np.float64)
        if class_scores.ndim != 2 or class_scores.shape[1] != num_classes:
            raise EvaluationError(
                f'class_scores have the shape {class_scores.shape}, the store has {num_classes} classes',
                where=where,
                fix='Model and store need one taxonomy.',
            )
        regions, labels = np.nonzero(~(class_scores <= 0))  # nan is kept, to be refused below
        scores = class_scores[regions, labels]
    else:
        labels = _array(instances['labels']).astype(np.int64)
        scores = _array(instances['scores']).astype(np.float64)
        regions = np.arange(len(labels))
        if len(labels) and not 0 <= labels.min() <= labels.max() < num_classes:
            raise EvaluationError(
                f'labels run from {labels.min()} to {labels.max()}, the store has {num_classes} classes',
                where=where,
                fix='Model and store need one taxonomy.',
            )
    if not np.isfinite(scores).all():
        raise EvaluationError('a score is not finite', where=where, fix='Has training diverged?')
    return regions, labels, scores


def _encoded(masks: torch.Tensor) -> list[bytes]:
    """Run lengths of (N, H, W) masks; pycocotools wants them column by column."""
    if not len(masks):
        return []
    columns = masks.to(dtype=torch.uint8).permute(0, 2, 1).contiguous().cpu().numpy()
    return [mask['counts'] for mask in coco_mask.encode(columns.transpose(2, 1, 0))]


def _checked(masks: list[bytes], image: ImageRow) -> tuple[list[bytes], np.ndarray]:
    """Masks of the store that pycocotools can compare, and their areas."""
    heights, widths = (np.full(len(masks), extent, dtype=np.int64) for extent in (image.height, image.width))
    measures = measure(masks, heights, widths, where=lambda index: f'image {image.id} of the store, mask {index}')
    for index in np.flatnonzero(measures.irregular).tolist():
        masks[index] = regular(masks[index], (image.height, image.width))
    return masks, measures.areas


def _array(values: Any) -> np.ndarray:
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
