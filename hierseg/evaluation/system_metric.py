"""Everything that is measured about a system, as one MMEngine metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hierseg.annotations import Store
from hierseg.evaluation.predictions import ImagePrediction
from hierseg.evaluation.store_metric import StoreMetric
from hierseg.evaluation.system_evaluation import (
    ImageMeasures,
    SystemEvaluation,
    image_measurer,
    train_images_of,
)
from hierseg.metrics import class_groups
from hierseg.registry import METRICS


@METRICS.register_module()
class SystemMetric(StoreMetric):
    """All scores of ``docs/evaluation.md`` in one test: Open Images, COCO, names, by groups of classes.

    It takes more time and memory than ``OpenImagesInstanceMetric``, which suits the validation within a training;
    ``tools/compare.py`` uses this one.

    Args:
        store: Folder of the store.
        train_store: Folder of the training data's store, for ``mAP_rare``, ``mAP_common`` and ``mAP_frequent``; without
            it there are no such results.
        score_thr: Detections whose most probable class is less probable get no kind of error.
        collect_device: As of MMEngine.
        prefix: Put before the names of results.
        collect_dir: As of MMEngine.

    Attributes:
        evaluation: The last evaluation, on the main rank.
        predictions: Those that it is of, in the order of image ids.

    Raises:
        EvaluationError: On predictions that do not fit image or classes, or have no masks.
        StoreError: If there is no store, or it does not have an image.
        ConfigError: If the data set's taxonomy is another one, or the training data's.
    """

    def __init__(
        self,
        store: str,
        *,
        train_store: str | None = None,
        score_thr: float = 0.3,
        collect_device: str = 'cpu',
        prefix: str = 'segm',
        collect_dir: str | None = None,
    ) -> None:
        super().__init__(store, collect_device=collect_device, prefix=prefix, collect_dir=collect_dir)
        self.train_images = None if train_store is None else train_images_of(Store.open(train_store), self.store)
        self.evaluation: SystemEvaluation | None = None
        self.predictions: list[ImagePrediction] = []
        self._measures = image_measurer(self.store, score_threshold=score_thr)

    def process(self, data_batch: Any, data_samples: Sequence[Mapping[str, Any]]) -> None:
        """Measures a batch.

        Args:
            data_batch: Not used.
            data_samples: With ``img_id`` and ``pred_instances``; these with ``masks``, ``labels``, and
                ``class_scores`` (R, C) or ``scores``.
        """
        num_classes = self.taxonomy.num_classes
        for sample, (row, instances) in zip(data_samples, self.rows_of(data_samples), strict=True):
            prediction = ImagePrediction.of(
                instances, self.store.image(row), num_classes=num_classes, image_path=sample.get('img_path')
            )
            self.results.append((prediction, self._measures(prediction)))

    def compute_metrics(self, results: list[tuple[ImagePrediction, ImageMeasures]]) -> dict[str, float]:
        """Computes the results from the records of all images; on the main rank only."""
        results = sorted(results, key=lambda result: result[0].image_id)
        self.predictions = [prediction for prediction, _ in results]
        groups = class_groups(self.taxonomy, train_images=self.train_images)
        self.evaluation = SystemEvaluation.gather([measures for _, measures in results], self.store, groups=groups)
        return self.evaluation.scores
