"""What a system said of one image, in the form that all measures share.

Shape letters: R detections of an image (regions), C classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from os import PathLike
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hierseg.annotations import ImageRow, Store
from hierseg.errors import EvaluationError
from hierseg.evaluation.arrays import detections_of
from hierseg.functional import Relations
from hierseg.metrics import ImageDetections, read_detections
from hierseg.models.decision import Decision


@dataclass(frozen=True, eq=False)
class ImagePrediction:
    """The detections of one image, each with the class that it names.

    Attributes:
        image_id: Id of the image in the store.
        detections: R regions and the classes that are claimed of each; box coordinates are parts of the image's size.
        named_labels: (R,) int64.
        image_path: The file; None where it is not known.
    """

    image_id: str
    detections: ImageDetections
    named_labels: npt.NDArray[np.int64]
    image_path: str | None = None

    @classmethod
    def of(
        cls, instances: Mapping[str, Any], image: ImageRow, *, num_classes: int, image_path: str | None = None
    ) -> ImagePrediction:
        """From the ``pred_instances`` of a model.

        Args:
            instances: As of :func:`~hierseg.evaluation.arrays.detections_of`, with ``masks`` and ``labels``.
            image: The image.
            num_classes: C.
            image_path: Its file.

        Raises:
            EvaluationError: If something is missing, not finite or does not fit image or classes.
        """
        detections = detections_of(instances, image, num_classes=num_classes, by_mask=True)
        if 'labels' not in instances:
            raise EvaluationError('pred_instances has no labels', where=f'image {image.id}')
        named = np.asarray(torch.as_tensor(instances['labels']).cpu(), dtype=np.int64)
        return cls(image.id, detections, named, image_path)

    def class_scores(self, num_classes: int) -> npt.NDArray[np.float32]:
        """(R, C) float32; the probability of every class that a region claims, else 0."""
        return class_scores_of(self.detections, num_classes)


def class_scores_of(detections: ImageDetections, num_classes: int) -> npt.NDArray[np.float32]:
    """(R, C) float32; the probability of every class that a region claims, else 0; of several claims the best."""
    scores = np.zeros((len(detections.boxes), num_classes), dtype=np.float32)
    np.maximum.at(scores, (detections.regions, detections.labels), detections.scores.astype(np.float32))
    return scores


def read_predictions(path: str | PathLike[str], store: Store) -> list[ImagePrediction]:
    """Reads a submission CSV of masks as predictions of every image of a store.

    Rows of an image with the same mask are one detection with a path of classes, as ``submission_file`` of
    ``OpenImagesInstanceMetric`` writes them. A detection names the deepest class that has half of its root class's
    score, the rule of both systems. Rows on other images are dropped.

    Args:
        path: The file.
        store: The images, and their sizes.

    Returns:
        One for each image, in the order of image ids.

    Raises:
        EvaluationError: If the file cannot be used; it names the line.
    """
    image_ids = store.image_ids.tolist()
    sizes = np.stack([store.image_column(side) for side in ('height', 'width')], axis=1).astype(np.int64)
    table = read_detections(path, image_ids, sizes, taxonomy=store.taxonomy, iou_type='segm', progress=True)
    decision = Decision(Relations.of(store.taxonomy.arrays))
    predictions = []
    for index in sorted(range(len(image_ids)), key=image_ids.__getitem__):
        detections = with_shared_regions(table.image(index))
        scores = class_scores_of(detections, store.taxonomy.num_classes)
        predictions.append(ImagePrediction(image_ids[index], detections, decision(torch.from_numpy(scores)).numpy()))
    return predictions


def with_shared_regions(detections: ImageDetections) -> ImageDetections:
    """The same detections, those of one mask on one region."""
    first_of: dict[bytes, int] = {}
    regions = np.array([first_of.setdefault(mask, len(first_of)) for mask in detections.masks], dtype=np.int64)
    _, kept = np.unique(regions, return_index=True)
    return replace(
        detections,
        regions=regions,
        boxes=detections.boxes[kept],
        masks=list(first_of),
        mask_areas=detections.mask_areas[kept],
    )
