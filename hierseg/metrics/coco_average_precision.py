"""COCO's average precision and recall of masks, by pycocotools itself, under the most specific label of each object.

Ground truth is taken as annotated, not expanded, and a detection has one label: the one that it names. COCO knows no
verified labels, so a class that nobody looked for on an image counts as absent there. Of LVIS it has one rule: where
not every object of a class is annotated on an image, detections of the class that find nothing are ignored.

Images are matched one by one, which leaves small records; the statistics come from the records of all images and are
those of one run of pycocotools over all files.

Shape letters: R detections, C classes; for one class of one image A ranges of area, T overlap thresholds,
D detections, G objects.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.cocoeval import COCOeval

from hierseg.errors import EvaluationError
from hierseg.formats import BoolArray, FloatArray, IntArray
from hierseg.metrics.declarations import Metric
from hierseg.metrics.matching import common_pixels
from hierseg.metrics.records import ImageGroundTruth, ImagePrediction, check_once

COCO_METRICS = tuple(
    Metric(f'coco_{key}', label, 'COCO, masks', explanation, on_page=key == 'AR100' or key.startswith('AP'))
    for key, label, explanation in (
        ('AP', 'AP', 'By pycocotools under the most specific label, IoU 0.5 to 0.95.'),
        ('AP50', 'AP50', 'At IoU 0.5.'),
        ('AP75', 'AP75', 'At IoU 0.75.'),
        ('APs', 'AP, small', 'Masks of up to 32² pixels.'),
        ('APm', 'AP, medium', 'Masks of 32² to 96² pixels.'),
        ('APl', 'AP, large', 'Masks of 96² pixels and more.'),
        ('AR1', 'AR, 1 detection', 'Average recall with one detection of a class per image.'),
        ('AR10', 'AR, 10 detections', 'Average recall with 10 detections of a class per image.'),
        ('AR100', 'AR', 'Average recall with 100 detections of a class per image.'),
        ('ARs', 'AR, small', 'Average recall of masks of up to 32² pixels.'),
        ('ARm', 'AR, medium', 'Average recall of masks of 32² to 96² pixels.'),
        ('ARl', 'AR, large', 'Average recall of masks of 96² pixels and more.'),
    )
)
"""Of recalls, the page has that at 100 detections alone."""
COCO_STATISTICS = tuple(metric.key.removeprefix('coco_') for metric in COCO_METRICS)
_IMAGE = 1  # id of the only image that a comparison is about
_NOTHING = -1  # what pycocotools says where there is no ground truth


@dataclass(frozen=True, eq=False)
class ClassCocoMatches:
    """Matches by pycocotools of one class on one image.

    Attributes:
        label: The class.
        scores: (D,) float64, descending; at most 100.
        matched: (A, T, D) bool; detections that found an object, be it an ignored one.
        ignored: (A, T, D) bool; detections that do not count.
        objects_ignored: (A, G) bool; objects that do not count.
    """

    label: int
    scores: FloatArray
    matched: BoolArray
    ignored: BoolArray
    objects_ignored: BoolArray


@dataclass(frozen=True, eq=False)
class ImageCocoMatches:
    """Matches by pycocotools of each class that the image has an object or a detection of."""

    image_id: str
    classes: tuple[ClassCocoMatches, ...]


def match_image_as_coco(
    ground_truth: ImageGroundTruth, prediction: ImagePrediction, *, common: IntArray
) -> ImageCocoMatches:
    """Matches one image by pycocotools.

    Groups are crowds. An object without a mask, a group or not, is a crowd over its box: it does not count, and
    detections of its class that lie in the box are ignored, for nobody knows whether they are right.

    Args:
        ground_truth: Its objects with their masks, as annotated; boxes normalised to [0, 1].
        prediction: Its detections with their masks; each counts under the class that it names.
        common: (R, G) int64; pixels that detections and objects with a mask have in common.

    Raises:
        EvaluationError: If the detections have no masks or not one name each.
    """
    size, areas, names = ground_truth.size or prediction.size, prediction.mask_areas, prediction.named_labels
    if areas is None or not len(prediction.masks) == len(names) == len(prediction.class_scores):
        raise EvaluationError(
            f'{len(prediction.masks)} masks, {len(names)} labels and {len(prediction.class_scores)} rows of scores',
            where=f'image {prediction.image_id}',
            fix='Each detection needs a mask, the label that it names and its score.',
        )
    if size is None:
        if len(names):
            raise EvaluationError('the size of the masks is not given', where=f'image {prediction.image_id}')
        return ImageCocoMatches(prediction.image_id, ())  # objects without a mask, and nothing to ignore
    boxed, pixels = np.flatnonzero(ground_truth.mask_areas == 0), common.copy()
    boxes = [_filled_box(box, size) for box in ground_truth.boxes[boxed]]
    pixels[:, boxed] = common_pixels(prediction.masks, areas, boxes, size)
    matcher = _Matcher(ground_truth, prediction, areas, pixels)
    labels = np.union1d(ground_truth.labels, names).tolist()
    return ImageCocoMatches(prediction.image_id, tuple(matcher.matches(label) for label in labels))


def coco_average_precision(images: Iterable[ImageCocoMatches], num_classes: int) -> dict[str, float]:
    """The twelve :data:`COCO_STATISTICS` of masks, each a mean over C classes; nan without ground truth.

    Images may come in any order; an EvaluationError if one occurs twice.
    """
    ordered = sorted(images, key=attrgetter('image_id'))
    check_once([image.image_id for image in ordered])
    evaluator = COCOeval(iouType='segm')
    parameters = evaluator.params
    # A class whose objects all are ignored has no value.
    counted = {matches.label for image in ordered for matches in image.classes if not matches.objects_ignored.all()}
    labels = sorted(counted & set(range(num_classes)))
    # Statistics by size take a hundred detections; only that of every size is asked for with fewer.
    precision = np.full(
        (len(parameters.iouThrs), len(parameters.recThrs), len(labels), len(parameters.areaRng), 3), float(_NOTHING)
    )
    recall = precision[:, 0].copy()
    for areas, limits in ((slice(0, 1), slice(0, 3)), (slice(1, None), slice(2, 3))):
        part = _accumulated(ordered, labels, areas, limits)
        precision[:, :, :, areas, limits], recall[:, :, areas, limits] = part['precision'], part['recall']
    evaluator.eval = {'precision': precision, 'recall': recall}
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator.summarize()
    values = [float('nan') if value == _NOTHING else float(value) for value in evaluator.stats]
    return dict(zip(COCO_STATISTICS, values, strict=True))


def _accumulated(images: Sequence[ImageCocoMatches], labels: Sequence[int], areas: slice, limits: slice) -> Any:
    """Accumulates the precision and recall of classes by pycocotools.

    Images come in the order of their ids; ``areas`` and ``limits`` say which ranges of area and which limits on the
    number of detections are asked for.
    """
    evaluator = COCOeval(iouType='segm')
    parameters = evaluator.params
    all_areas = range(len(parameters.areaRng))
    parameters.imgIds, parameters.catIds = list(range(len(images))), list(labels)
    parameters.areaRng, parameters.maxDets = parameters.areaRng[areas], parameters.maxDets[limits]
    evaluator._paramsEval = parameters
    position_of = {label: position for position, label in enumerate(labels)}
    evaluator.evalImgs = [None] * (len(labels) * len(parameters.areaRng) * len(images))
    for at, image in enumerate(images):
        for matches in image.classes:
            if matches.label not in position_of:
                continue
            for position, area in enumerate(all_areas[areas]):
                place = (position_of[matches.label] * len(parameters.areaRng) + position) * len(images) + at
                evaluator.evalImgs[place] = {
                    'dtScores': matches.scores,
                    'dtMatches': matches.matched[area],
                    'dtIgnore': matches.ignored[area],
                    'gtIgnore': matches.objects_ignored[area],
                }
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator.accumulate()
    return evaluator.eval


def _filled_box(box: FloatArray, size: tuple[int, int]) -> bytes:
    """The pixels of a normalised box, as run lengths."""
    height, width = size
    x1, y1, x2, y2 = np.rint(np.clip(box, 0, 1) * [width, height, width, height]).astype(int)
    pixels = np.zeros(size, dtype=np.uint8, order='F')
    pixels[y1:y2, x1:x2] = 1
    return bytes(coco_mask.encode(pixels)['counts'])


class _Matcher(COCOeval):  # type: ignore[misc]  # pycocotools has no types
    """pycocotools' matching on one image whose overlaps are known.

    Args:
        ground_truth: G objects.
        prediction: R detections.
        areas: (R,) int64; pixels of their masks.
        common: (R, G) int64; pixels in common with the mask of each object, or with its box where it has none.
    """

    def __init__(
        self, ground_truth: ImageGroundTruth, prediction: ImagePrediction, areas: IntArray, common: IntArray
    ) -> None:
        super().__init__(iouType='segm')
        self.truth_labels, self.names = ground_truth.labels, prediction.named_labels
        self.crowds = ground_truth.group_of | (ground_truth.mask_areas == 0)
        self.scores, self.areas = prediction.named_scores, areas
        self.truth_areas, self.common = ground_truth.mask_areas, common
        self.open_labels = set(ground_truth.not_exhaustive.tolist())

    def matches(self, label: int) -> ClassCocoMatches:
        """Matches the objects and detections of a class."""
        objects, found = np.flatnonzero(self.truth_labels == label), np.flatnonzero(self.names == label)
        found = found[np.argsort(-self.scores[found], kind='mergesort')][: self.params.maxDets[-1]]
        scores, areas = self.scores[found], self.areas[found]
        ranges = self.params.areaRng
        if not len(objects):
            # Without an object there is nothing to match; detections of another size are ignored.
            outside = np.array([(areas < low) | (areas > high) for low, high in ranges])
            shape = len(ranges), len(self.params.iouThrs), len(found)
            nothing, no_objects = np.zeros(shape, dtype=bool), np.zeros((len(ranges), 0), dtype=bool)
            ignored = nothing | outside[:, None] | (label in self.open_labels)
            return ClassCocoMatches(label, scores, nothing, ignored, no_objects)
        key = _IMAGE, label
        # Ids count from 1: pycocotools takes 0 for no match.
        self._gts[key] = [
            {'id': number, 'area': area, 'iscrowd': crowd, 'ignore': crowd}
            for number, (area, crowd) in enumerate(
                zip(self.truth_areas[objects].tolist(), self.crowds[objects].astype(int).tolist(), strict=True), start=1
            )
        ]
        self._dts[key] = [
            {'id': number, 'area': area, 'score': score}
            for number, (area, score) in enumerate(zip(areas.tolist(), scores.tolist(), strict=True), start=1)
        ]
        self.ious[key] = self._overlaps(objects, found)
        of_class = [self.evaluateImg(*key, area_range, self.params.maxDets[-1]) for area_range in ranges]
        matched, ignored = (np.stack([entry[name] for entry in of_class]) > 0 for name in ('dtMatches', 'dtIgnore'))
        if label in self.open_labels:
            ignored |= ~matched
        objects_ignored = np.stack([entry['gtIgnore'] for entry in of_class]).astype(bool)
        return ClassCocoMatches(label, scores, matched, ignored, objects_ignored)

    def _overlaps(self, objects: IntArray, found: IntArray) -> FloatArray:
        """Overlaps as pycocotools has them: of crowds, over the area of the detection."""
        common, areas = self.common[np.ix_(found, objects)], self.areas[found][:, None]
        divisor = np.where(self.crowds[objects], areas, areas + self.truth_areas[objects] - common)
        overlaps: FloatArray = common / np.where(common > 0, divisor, 1)
        return overlaps
