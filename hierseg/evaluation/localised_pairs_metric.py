"""How right and how deep the names of detections are, as an MMEngine metric.

Shape letters: R detections, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from hierseg.evaluation.arrays import absent_classes, ground_truth_of
from hierseg.evaluation.predictions import ImagePrediction
from hierseg.evaluation.store_metric import StoreMetric
from hierseg.metrics import Expansion, ImagePairs, LocalisedPairs, operating_point, pair_image
from hierseg.registry import METRICS


@METRICS.register_module()
class LocalisedPairsMetric(StoreMetric):
    """Judges the class that each detection names, on the object that its mask lies on.

    Pairs are made whatever the classes; see :func:`~hierseg.metrics.pair_image`. That an object's class was verified
    on the image plays no part, since somebody annotated the object itself; a class that was verified as absent is
    wrong even below a coarse label.

    Results: ``match_rate``, the part of the objects that were found, without which the others mean little; and of
    those that were found ``correctness``, ``exact``, ``distance``, ``information`` and ``unknown``, see
    :class:`~hierseg.metrics.OperatingPoint`.

    Args:
        store: Folder of the store.
        score_thr: Detections whose most probable class is less probable do not count.
        collect_device: As of MMEngine.
        prefix: Put before the names of results.
        collect_dir: As of MMEngine.

    Attributes:
        pairs: The pairs of the last evaluation, on the main rank.

    Raises:
        EvaluationError: On predictions that do not fit image or classes, or have no masks.
        StoreError: If there is no store, or it does not have an image.
        ConfigError: If the data set's taxonomy is another one.
    """

    def __init__(
        self,
        store: str,
        *,
        score_thr: float = 0.0,
        collect_device: str = 'cpu',
        prefix: str = 'pairs',
        collect_dir: str | None = None,
    ) -> None:
        super().__init__(store, collect_device=collect_device, prefix=prefix, collect_dir=collect_dir)
        self.score_thr = score_thr
        self.pairs: LocalisedPairs | None = None
        self._expansion = Expansion.of(self.taxonomy)
        self._as_annotated = Expansion.none(self.taxonomy.num_classes)

    def process(self, data_batch: Any, data_samples: Sequence[Mapping[str, Any]]) -> None:
        """Pairs a batch and keeps the class scores of its pairs.

        Args:
            data_batch: Not used.
            data_samples: With ``img_id`` and ``pred_instances``; these with ``masks``, ``labels``, and
                ``class_scores`` (R, C) or ``scores``.
        """
        num_classes = self.taxonomy.num_classes
        for row, instances in self.rows_of(data_samples):
            image = self.store.image(row)
            prediction = ImagePrediction.of(instances, image, num_classes=num_classes)
            pairs = pair_image(
                ground_truth_of(self.store, row, expansion=self._as_annotated, by_mask=True),
                prediction.detections,
                image_id=image.id,
                named_labels=prediction.named_labels,
                absent=absent_classes(self.store, row, expansion=self._expansion),
                num_classes=num_classes,
                score_threshold=self.score_thr,
            )
            self.results.append(pairs)

    def compute_metrics(self, results: list[ImagePairs]) -> dict[str, float]:
        """Judges the pairs of all images; on the main rank only."""
        arrays = self.taxonomy.arrays
        self.pairs = LocalisedPairs.gather(results, arrays)
        return {
            'match_rate': self.pairs.match_rate,
            **asdict(operating_point(self.pairs, self.pairs.named_labels, arrays)),
        }
