"""What a system said of one image, in the form that all measures share.

Shape letters: R detections of an image (regions), C classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hierseg.annotations import ImageRow
from hierseg.errors import EvaluationError
from hierseg.evaluation.arrays import detections_of
from hierseg.metrics import ImageDetections


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
        scores = np.zeros((len(self.named_labels), num_classes), dtype=np.float32)
        scores[self.detections.regions, self.detections.labels] = self.detections.scores
        return scores
