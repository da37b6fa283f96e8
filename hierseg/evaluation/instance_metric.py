"""The Open Images protocol as an MMEngine metric.

Shape letters: C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from mmengine.dist import get_rank
from mmengine.logging import MMLogger
from terminaltables import AsciiTable

from hierseg.errors import EvaluationError
from hierseg.evaluation.arrays import detections_of, ground_truth_of
from hierseg.evaluation.store_metric import StoreMetric
from hierseg.evaluation.submission import Span, SubmissionWriter
from hierseg.files import write_json
from hierseg.metrics import (
    DEFAULT_GROUP_OF_WEIGHTS,
    Expansion,
    ImageMatches,
    OpenImagesResult,
    checked_iou_type,
    match_image,
    summarise,
)
from hierseg.registry import METRICS
from hierseg.taxonomy import Taxonomy


@dataclass(frozen=True)
class _Record:
    """What a rank hands over of one image: small arrays, and where its submission rows are."""

    matches: ImageMatches
    span: Span | None


@METRICS.register_module()
class OpenImagesInstanceMetric(StoreMetric):
    """AP at IoU 0.5 of every class and its mean, by the Open Images Challenge protocol.

    Ground truth comes from the store by the ``img_id`` of each data sample and is expanded through the store's
    taxonomy; predictions are not. See :func:`~hierseg.evaluation.arrays.detections_of` for what it reads of
    ``pred_instances``. Only the images that are processed count. The result is that of
    ``tools/eval_openimages.py`` on the official files, up to boxes and masks that the converter pairs
    although their coordinates differ in a digit: the official join makes two objects of those.

    Results: ``mAP``, ``mAP_layer0`` and ``mAP_layer1`` (mean over root classes and over deeper ones) and
    ``num_classes_evaluated``, under the prefix; nan where no class has ground truth.

    Args:
        store: Folder of the store.
        iou_type: ``segm`` compares masks, ``bbox`` boxes.
        group_of_weight: What finding a group counts; None for the protocol's default: 0 for ``segm``, 1 for ``bbox``.
        submission_file: Also write the detections as the official submission CSV.
        results_file: Also write the AP of every class as JSON, as ``tools/eval_openimages.py`` does.
        classwise: Log a table of all classes with a value.
        collect_device: As of MMEngine.
        prefix: Put before the names of results; ``segm`` or ``bbox`` when omitted.
        collect_dir: As of MMEngine.

    Raises:
        EvaluationError: On an unknown ``iou_type``, and on predictions that do not fit image or classes.
        StoreError: If there is no store, or it does not have an image.
        ConfigError: If the data set's taxonomy is another one.
    """

    def __init__(
        self,
        store: str,
        *,
        iou_type: str = 'segm',
        group_of_weight: float | None = None,
        submission_file: str | None = None,
        results_file: str | None = None,
        classwise: bool = True,
        collect_device: str = 'cpu',
        prefix: str | None = None,
        collect_dir: str | None = None,
    ) -> None:
        self.iou_type = checked_iou_type(iou_type)
        super().__init__(store, collect_device=collect_device, prefix=prefix or iou_type, collect_dir=collect_dir)
        self.group_of_weight = DEFAULT_GROUP_OF_WEIGHTS[iou_type] if group_of_weight is None else group_of_weight
        self.results_file, self.classwise = results_file, classwise
        self._expansion = Expansion.of(self.taxonomy)
        self._submission = (
            None
            if submission_file is None
            else SubmissionWriter(submission_file, class_ids=self.taxonomy.ids, rank=get_rank())
        )

    def process(self, data_batch: Any, data_samples: Sequence[Mapping[str, Any]]) -> None:
        """Matches a batch and keeps one small record of each image.

        Args:
            data_batch: Not used.
            data_samples: With ``img_id`` and ``pred_instances``.
        """
        by_mask = self.iou_type == 'segm'
        for row, instances in self.rows_of(data_samples):
            image = self.store.image(row)
            detections = detections_of(instances, image, num_classes=self.taxonomy.num_classes, by_mask=by_mask)
            matches = match_image(
                ground_truth_of(self.store, row, expansion=self._expansion, by_mask=by_mask),
                detections,
                image_id=image.id,
                iou_type=self.iou_type,
                group_of_weight=self.group_of_weight,
            )
            span = self._submission.add(image, detections) if self._submission else None
            self.results.append(_Record(matches, span))

    def evaluate(self, size: int) -> dict[str, float]:
        """Gathers the records of all ranks and computes the results; see ``BaseMetric.evaluate``."""
        if self._submission is None:
            return super().evaluate(size)
        self._submission.close()
        try:
            return super().evaluate(size)
        finally:
            self._submission.remove_part()

    def compute_metrics(self, results: list[_Record]) -> dict[str, float]:
        """Computes the results from the records of all images; on the main rank only."""
        logger = MMLogger.get_current_instance()
        result = summarise([record.matches for record in results], self.taxonomy.num_classes)
        if result.num_images < len(self.store):
            logger.warning('%d of the %d images of %s count', result.num_images, len(self.store), self.store.path)
        if self.classwise:
            logger.info('AP of %s at IoU 0.5\n%s', self.iou_type, class_table(result, self.taxonomy))
        if self.results_file is not None:
            write_json(result.to_json(self.taxonomy.ids), self.results_file, error=EvaluationError)
        if self._submission is not None:
            spans = [record.span for record in results if record.span is not None]
            self._submission.merge(spans, by_mask=self.iou_type == 'segm')
            logger.info('submission written to %s', self._submission.path)
        return {
            'mAP': result.mean_average_precision,
            'mAP_layer0': result.mean_over(self.taxonomy.root_classes),
            'mAP_layer1': result.mean_over(self.taxonomy.deeper_classes),
            'num_classes_evaluated': result.num_classes_evaluated,
        }


def class_table(result: OpenImagesResult, taxonomy: Taxonomy) -> str:
    """A table of all classes with a value, by the class's path, and the means below."""
    labels = sorted(np.flatnonzero(result.has_value).tolist(), key=taxonomy.path_name)
    rows = [
        [
            taxonomy.path_name(label),
            f'{result.num_ground_truth[label]:g}',
            f'{result.num_scored[label]}',
            f'{result.num_true_positives[label]:g}',
            f'{result.average_precision[label]:.3f}',
        ]
        for label in labels
    ]
    means = (
        ('mean', range(taxonomy.num_classes)),
        ('layer 0', taxonomy.root_classes),
        ('layer 1', taxonomy.deeper_classes),
    )
    rows += [[name, '', '', '', f'{result.mean_over(members):.3f}'] for name, members in means]
    table = AsciiTable([['class', 'ground truth', 'scored', 'true positives', 'AP'], *rows])
    table.inner_footing_row_border = False
    for column in range(1, 5):
        table.justify_columns[column] = 'right'
    return str(table.table)
