"""Everything that is measured about one system on one store: one pass over its predictions.

Shape letters: C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from hierseg.errors import EvaluationError
from hierseg.evaluation.predictions import ImageTruth
from hierseg.formats import IntArray
from hierseg.metrics.average_precision import summarise_by
from hierseg.metrics.coco_average_precision import (
    COCO_METRICS,
    ImageCocoMatches,
    coco_average_precision,
    match_image_as_coco,
)
from hierseg.metrics.declarations import Metric
from hierseg.metrics.error_kinds import ImageErrors, error_kinds
from hierseg.metrics.intervals import ImageSums
from hierseg.metrics.localised_pairs import ImagePairs, LocalisedPairs, pair_image
from hierseg.metrics.matching import match_image
from hierseg.metrics.names import NAME_METRICS, hierarchical_sums
from hierseg.metrics.records import (
    AREA_RANGES,
    IOU_THRESHOLDS,
    OPEN_IMAGES,
    Criterion,
    Expansion,
    ImageMatchTable,
    ImagePrediction,
    OpenImagesResult,
    mean_over_classes,
)
from hierseg.store import Store
from hierseg.store.frequency import count_classes
from hierseg.taxonomy.graph import require_same_taxonomy

SIZES = {name: Criterion(area_range=area_range) for name, area_range in AREA_RANGES.items()}
OVERLAPS = tuple(Criterion(threshold) for threshold in IOU_THRESHOLDS)
CRITERIA = (*OVERLAPS, *SIZES.values())
HEADLINES = ('mAP', 'mAP_layer0', 'mAP_layer1')
LEARNT = 0.05
"""A mAP below this is that of a model which has hardly learnt; by chance it would be about 0."""


@dataclass(frozen=True, eq=False)
class ImageMeasures:
    """Records that matching leaves of one image, for every kind of measure; matches are by all of ``CRITERIA``."""

    matches: ImageMatchTable
    coco: ImageCocoMatches
    pairs: ImagePairs
    errors: ImageErrors


@dataclass(frozen=True, eq=False)
class SystemEvaluation:
    """Everything that is measured about one system.

    Attributes:
        groups: Labels of the groups of classes whose mean AP is told apart, by name; ``all`` is among them.
        images: The measures of each image, in the order given.
        results: By criterion.
        pairs: Of all images.
        names: How right and how deep the names of the pairs are, as sums over images.
        coco: The twelve COCO statistics by their names.
    """

    groups: Mapping[str, tuple[int, ...]]
    images: Sequence[ImageMeasures]
    results: Mapping[Criterion, OpenImagesResult]
    pairs: LocalisedPairs
    names: Mapping[str, ImageSums]
    coco: Mapping[str, float]

    @classmethod
    def gather(
        cls, images: Sequence[ImageMeasures], store: Store, *, groups: Mapping[str, tuple[int, ...]]
    ) -> SystemEvaluation:
        """Computes the results; an EvaluationError without images, or if one occurs twice."""
        if not images:
            raise EvaluationError('there are no predictions', where=str(store.path), fix='Test on at least one image.')
        arrays = store.taxonomy.arrays
        pairs = LocalisedPairs.gather([image.pairs for image in images], arrays)
        return cls(
            groups=groups,
            images=images,
            results=summarise_by((image.matches for image in images), store.taxonomy.num_classes, criteria=CRITERIA),
            pairs=pairs,
            names=hierarchical_sums(pairs, pairs.named_labels, arrays),
            coco=coco_average_precision((image.coco for image in images), store.taxonomy.num_classes),
        )

    @property
    def open_images(self) -> OpenImagesResult:
        """The result of the Open Images Challenge: overlap 0.5, every size."""
        return self.results[OPEN_IMAGES]

    @property
    def scores(self) -> dict[str, float]:
        """All numbers by name: see ``docs/evaluation.md``; nan where nothing counts."""
        over_thresholds = np.mean([self.results[criterion].average_precision for criterion in OVERLAPS], axis=0)
        everything = self.groups['all']
        return {
            **{group_score(name): self.open_images.mean_over(labels) for name, labels in self.groups.items()},
            'mAP50_95': float(mean_over_classes(over_thresholds, everything)),
            **{f'mAP_{size}': self.results[criterion].mean_over(everything) for size, criterion in SIZES.items()},
            **{f'coco_{name}': value for name, value in self.coco.items()},
            **{name: sums.ratio for name, sums in self.names.items()},
        }


def group_score(group: str) -> str:
    """The name of a group's mean AP among the scores."""
    return 'mAP' if group == 'all' else f'mAP_{group}'


_GROUPS = (
    ('mAP', 'mAP@0.5', 'Mean average precision at mask IoU 0.5, Open Images Challenge.'),
    ('mAP_layer0', 'root classes', 'The mean over classes without a parent.'),
    ('mAP_layer1', 'deeper classes', 'The mean over all classes with a parent.'),
    ('mAP_rare', 'rare classes', 'The third of the classes with the fewest training images.'),
    ('mAP_common', 'common classes', 'The middle third.'),
    ('mAP_frequent', 'frequent classes', 'The third with the most training images.'),
)
_SIZES = {'small': 'up to 32² pixels', 'medium': '32² to 96² pixels', 'large': '96² pixels and more'}


def declared_metrics(groups: Iterable[str]) -> tuple[Metric, ...]:
    """Declarations of all scores of a system in the order of the page, with those of each depth among the groups."""
    depths = sorted((name for name in groups if name.startswith('depth')), key=lambda name: int(name[len('depth') :]))
    return (
        *(
            Metric(key, label, 'Open Images protocol', text, has_interval=True, headline=key in HEADLINES,
                   learnt_from=LEARNT if key == 'mAP' else None)
            for key, label, text in _GROUPS
        ),
        Metric('mAP50_95', 'mAP@0.5:0.95', 'Open Images protocol',
               'The mean over IoU 0.5, 0.55, …, 0.95: how well masks fit.'),
        *NAME_METRICS,
        *(
            Metric(f'mAP_{size}', f'{size} objects', 'By size of object', f'Masks of {area}.')
            for size, area in _SIZES.items()
        ),
        *COCO_METRICS,
        *(
            Metric(group_score(name), name.replace('depth', 'depth '), 'By depth',
                   'Classes so many edges below a root class.', has_interval=True)
            for name in depths
        ),
    )  # fmt: skip


def train_images_of(training: Store, store: Store) -> IntArray:
    """(C,) int64; images of the training data with an instance of each class or of one below it.

    Another taxonomy than that of ``store`` is a ConfigError.
    """
    require_same_taxonomy(store.taxonomy, training.taxonomy, where=f'training data {training.path}')
    return count_classes(training).images


def image_measurer(store: Store, *, score_threshold: float) -> Callable[[ImagePrediction], ImageMeasures]:
    """A function that measures one image, whatever the order of images.

    Args:
        store: The ground truth.
        score_threshold: Detections whose most probable class is less probable get no kind of error. All count for
            average precision, and for pairs.
    """
    expansion, arrays = Expansion.of(store.taxonomy), store.taxonomy.arrays

    def measures(prediction: ImagePrediction) -> ImageMeasures:
        truth = ImageTruth.read(store, store.row_of(prediction.image_id), expansion=expansion)
        (expanded, expanded_mask), (annotated, annotated_mask) = truth.expanded, truth.annotated
        by_mask = truth.common_pixels(prediction)
        common = by_mask[:, annotated_mask]
        return ImageMeasures(
            matches=match_image(
                expanded,
                prediction.claims(),
                image_id=prediction.image_id,
                criteria=CRITERIA,
                common=by_mask[:, expanded_mask],
            ),
            coco=match_image_as_coco(annotated, prediction, common=common),
            pairs=pair_image(annotated, prediction, absent=truth.absent, common=common),
            errors=error_kinds(
                annotated, prediction, arrays, absent=truth.absent, score_threshold=score_threshold, common=common
            ),
        )

    return measures


def evaluate_system(
    store: Store,
    predictions: Sequence[ImagePrediction],
    *,
    groups: Mapping[str, tuple[int, ...]],
    score_threshold: float = 0.3,
    name: str = '',
) -> SystemEvaluation:
    """Evaluates a system on the images that it gives predictions of, with a progress bar.

    Args:
        store: The ground truth.
        predictions: One for every image that counts, without detections too.
        groups: From :func:`~hierseg.metrics.average_precision.class_groups`.
        score_threshold: As of :func:`image_measurer`.
        name: Stands at the progress bar.

    Raises:
        EvaluationError: If predictions do not fit the ground truth, or there are none.
        StoreError: If the store does not have an image.
    """
    measures = image_measurer(store, score_threshold=score_threshold)
    bar = tqdm(predictions, desc=f'evaluating {name}'.rstrip(), unit='image', disable=None)
    return SystemEvaluation.gather([measures(prediction) for prediction in bar], store, groups=groups)
