"""MMEngine metrics on a store: the Open Images protocol, the names of found objects, and everything about a system.

Shape letters: R detections, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger
from terminaltables import AsciiTable

from hierseg.errors import EvaluationError
from hierseg.evaluation.predictions import ImageTruth, Span, SubmissionWriter, prediction_of
from hierseg.evaluation.system_evaluation import ImageMeasures, SystemEvaluation, image_measurer, train_images_of
from hierseg.files import write_json
from hierseg.metrics.average_precision import class_groups, summarise
from hierseg.metrics.localised_pairs import ImagePairs, LocalisedPairs, pair_image
from hierseg.metrics.matching import match_image
from hierseg.metrics.names import operating_point
from hierseg.metrics.records import (
    DEFAULT_GROUP_OF_WEIGHTS,
    Expansion,
    ImageMatches,
    ImagePrediction,
    OpenImagesResult,
    checked_iou_type,
)
from hierseg.registry import METRICS
from hierseg.store import Store
from hierseg.taxonomy import Taxonomy
from hierseg.taxonomy.graph import require_same_taxonomy


class StoreMetric(BaseMetric):
    """A metric that finds the ground truth of each data sample in a store, by the sample's ``img_id``.

    Args:
        store: Folder of the store.
        **options: ``collect_device``, ``prefix`` (put before the names of results) and ``collect_dir``, as of
            MMEngine's ``BaseMetric``. All metrics take them.

    Raises:
        EvaluationError: On predictions that do not fit image or classes.
        StoreError: If there is no store, or it does not have an image.
        ConfigError: If the data set's taxonomy is another one.
    """

    def __init__(self, store: str, **options: Any) -> None:
        super().__init__(**options)
        self.store = Store.open(store)

    @property
    def taxonomy(self) -> Taxonomy:
        """The classes of the store."""
        return self.store.taxonomy

    @BaseMetric.dataset_meta.setter
    def dataset_meta(self, dataset_meta: Mapping[str, Any]) -> None:
        """The data set's meta information, whose taxonomy must be the store's."""
        if dataset_meta and 'taxonomy' in dataset_meta:
            found = Taxonomy.from_json(dataset_meta['taxonomy'], where='metainfo of the data set')
            require_same_taxonomy(self.taxonomy, found, where=f'data set of the metric on {self.store.path}')
        self._dataset_meta = dataset_meta

    def rows_of(self, data_samples: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """Row of the image and ``pred_instances`` of every data sample; an EvaluationError if it lacks one of them."""
        for sample in data_samples:
            missing = [name for name in ('img_id', 'pred_instances') if name not in sample]
            if missing:
                raise EvaluationError(
                    f'a data sample has no {", ".join(missing)}',
                    fix="PackDetInputs needs 'img_id' among its meta_keys, and the model must predict instances.",
                )
            yield self.store.row_of(str(sample['img_id'])), sample['pred_instances']


Record = tuple[ImageMatches, Span | None]
"""What ranks exchange of one image: small arrays, and the place of its submission rows."""


@METRICS.register_module()
class OpenImagesInstanceMetric(StoreMetric):
    """AP at IoU 0.5 of every class and its mean, by the Open Images Challenge protocol.

    Ground truth comes from the store by the ``img_id`` of each data sample and is expanded through the store's
    taxonomy; predictions are not. See :func:`~hierseg.evaluation.predictions.prediction_of` for what it reads of
    ``pred_instances``. Only the images that are processed count. The result is that of
    ``tools/eval_openimages.py`` on the official files, up to boxes and masks that the converter pairs
    although their coordinates differ in a digit: the official join makes two objects of those.

    Results: ``mAP``, ``mAP_layer0`` and ``mAP_layer1`` (mean over root classes and over deeper ones) and
    ``num_classes_evaluated``, under the prefix; nan where no class has ground truth.

    Args:
        store: Folder of the store.
        iou_type: ``segm`` compares masks, ``bbox`` boxes; the prefix if none is given.
        group_of_weight: What finding a group counts; None for the protocol's default: 0 for ``segm``, 1 for ``bbox``.
        submission_file: Also write the detections as the official submission CSV.
        results_file: Also write the AP of every class as JSON, as ``tools/eval_openimages.py`` does.
        classwise: Log a table of all classes with a value.
        **options: As of :class:`StoreMetric`, and its errors.

    Raises:
        EvaluationError: Also on an unknown ``iou_type``.
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
        **options: Any,
    ) -> None:
        self.iou_type = self.default_prefix = checked_iou_type(iou_type)
        super().__init__(store, **options)
        self.group_of_weight = DEFAULT_GROUP_OF_WEIGHTS[iou_type] if group_of_weight is None else group_of_weight
        self.results_file, self.classwise = results_file, classwise
        self._expansion = Expansion.of(self.taxonomy)
        self._submission: SubmissionWriter | None = None
        if submission_file is not None:
            self._submission = SubmissionWriter(submission_file, class_ids=self.taxonomy.ids)

    def process(self, data_batch: Any, data_samples: Sequence[Mapping[str, Any]]) -> None:
        """Matches a batch, by ``img_id`` and ``pred_instances``, and keeps one small record of each image."""
        by_mask = self.iou_type == 'segm'
        for row, instances in self.rows_of(data_samples):
            image = self.store.image(row)
            prediction = prediction_of(
                instances, image, num_classes=self.taxonomy.num_classes, by_mask=by_mask, named=False
            )
            claims = prediction.claims()
            matches = match_image(
                ImageTruth.read(self.store, row, expansion=self._expansion, by_mask=by_mask).expanded[0],
                claims,
                image_id=image.id,
                iou_type=self.iou_type,
                group_of_weight=self.group_of_weight,
            ).at(0)
            span = self._submission.add(image, claims) if self._submission else None
            self.results.append((matches, span))

    def evaluate(self, size: int) -> dict[str, float]:
        """Gathers the records of all ranks and computes the results; see ``BaseMetric.evaluate``."""
        if self._submission is None:
            return super().evaluate(size)
        self._submission.close()
        try:
            return super().evaluate(size)
        finally:
            self._submission.remove_part()

    def compute_metrics(self, results: list[Record]) -> dict[str, float]:
        """Computes the results from the records of all images; on the main rank only."""
        logger = MMLogger.get_current_instance()
        result = summarise([matches for matches, _ in results], self.taxonomy.num_classes)
        if result.num_images < len(self.store):
            logger.warning('%d of the %d images of %s count', result.num_images, len(self.store), self.store.path)
        if self.classwise:
            logger.info('AP of %s at IoU 0.5\n%s', self.iou_type, class_table(result, self.taxonomy))
        if self.results_file is not None:
            write_json(result.to_json(self.taxonomy.ids), self.results_file)
        if self._submission is not None:
            spans = [span for _, span in results if span is not None]
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


@METRICS.register_module()
class LocalisedPairsMetric(StoreMetric):
    """Judges the class that each detection names, on the object that its mask lies on.

    Pairs are made whatever the classes; see :func:`~hierseg.metrics.localised_pairs.pair_image`. That an object's
    class was verified on the image plays no part, since somebody annotated the object itself; a class that was
    verified as absent is wrong even below a coarse label.

    Results: ``match_rate``, the part of the objects that were found, without which the others mean little; and of
    those that were found ``correctness``, ``exact``, ``distance``, ``information`` and ``unknown``, see
    :class:`~hierseg.metrics.names.OperatingPoint`.

    Args:
        store: Folder of the store.
        score_thr: Detections whose most probable class is less probable do not count.
        **options: As of :class:`StoreMetric`, and its errors; predictions without masks are one.

    Attributes:
        pairs: The pairs of the last evaluation, on the main rank.
    """

    default_prefix = 'pairs'

    def __init__(self, store: str, *, score_thr: float = 0.0, **options: Any) -> None:
        super().__init__(store, **options)
        self.score_thr = score_thr
        self.pairs: LocalisedPairs | None = None
        self._expansion = Expansion.of(self.taxonomy)

    def process(self, data_batch: Any, data_samples: Sequence[Mapping[str, Any]]) -> None:
        """Pairs a batch and keeps the class scores of its pairs."""
        num_classes = self.taxonomy.num_classes
        for row, instances in self.rows_of(data_samples):
            prediction = prediction_of(instances, self.store.image(row), num_classes=num_classes)
            truth = ImageTruth.read(self.store, row, expansion=self._expansion)
            objects, mask_of = truth.annotated
            common = truth.common_pixels(prediction)[:, mask_of]
            self.results.append(
                pair_image(objects, prediction, common=common, absent=truth.absent, score_threshold=self.score_thr)
            )

    def compute_metrics(self, results: list[ImagePairs]) -> dict[str, float]:
        """Judges the pairs of all images; on the main rank only."""
        arrays = self.taxonomy.arrays
        self.pairs = LocalisedPairs.gather(results, arrays)
        return {
            'match_rate': self.pairs.match_sums.ratio,
            **asdict(operating_point(self.pairs, self.pairs.named_labels, arrays)),
        }


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
        **options: As of :class:`StoreMetric`, and its errors; predictions without masks are one, and another taxonomy
            of the training data.

    Attributes:
        evaluation: The last evaluation, on the main rank.
        predictions: Those that it is of, in the order of image ids.
    """

    default_prefix = 'segm'

    def __init__(self, store: str, *, train_store: str | None = None, score_thr: float = 0.3, **options: Any) -> None:
        super().__init__(store, **options)
        self.train_images = None if train_store is None else train_images_of(Store.open(train_store), self.store)
        self.evaluation: SystemEvaluation | None = None
        self.predictions: list[ImagePrediction] = []
        self._measures = image_measurer(self.store, score_threshold=score_thr)

    def process(self, data_batch: Any, data_samples: Sequence[Mapping[str, Any]]) -> None:
        """Measures a batch and keeps its predictions."""
        num_classes = self.taxonomy.num_classes
        for sample, (row, instances) in zip(data_samples, self.rows_of(data_samples), strict=True):
            prediction = prediction_of(
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
