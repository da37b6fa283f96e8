"""COCO's average precision and recall of masks, by pycocotools itself, under the most specific label of each object.

Ground truth is taken as annotated, not expanded, and a detection has one label: the one that it names. COCO knows no
verified labels, so a class that nobody looked for on an image counts as absent there.

Images are matched one by one, which leaves small records; the statistics come from the records of all images and are
those of one run of pycocotools over all files.

Shape letters: R detections, C classes; for one class of one image A ranges of area, T overlap thresholds,
D detections, G objects.
"""

from __future__ import annotations

import contextlib
import copy
import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from hierseg.errors import EvaluationError
from hierseg.formats import BoolArray, FloatArray, IntArray
from hierseg.metrics.average_precision import in_order
from hierseg.metrics.declarations import Metric
from hierseg.metrics.matching import check_sizes
from hierseg.metrics.records import ImageDetections, ImageGroundTruth

COCO_STATISTICS = (
    'AP', 'AP50', 'AP75', 'APs', 'APm', 'APl', 'AR1', 'AR10', 'AR100', 'ARs', 'ARm', 'ARl',
)  # fmt: skip
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
"""Declarations of :data:`COCO_STATISTICS`; the page has the recall at 100 detections alone."""
_IMAGE = 1  # id of the only image that a comparison is about
_NOTHING = -1  # what pycocotools says where there is no ground truth


@dataclass(frozen=True, eq=False)
class ClassCocoMatches:
    """What pycocotools makes of one class on one image.

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
    """What pycocotools makes of one image.

    Attributes:
        image_id: Decides the order of equal scores.
        classes: One record for each class that the image has an object or a detection of.
    """

    image_id: str
    classes: tuple[ClassCocoMatches, ...]


def match_image_as_coco(
    ground_truth: ImageGroundTruth,
    detections: ImageDetections,
    *,
    image_id: str,
    named_labels: IntArray,
    named_scores: FloatArray,
) -> ImageCocoMatches:
    """Matches one image by pycocotools.

    Groups are crowds. An object without a mask, a group or not, is a crowd over its box: it does not count, and
    detections of its class that lie in the box are ignored, for nobody knows whether they are right.

    Args:
        ground_truth: Its objects with their masks, as annotated; boxes normalised to [0, 1].
        detections: Its detections with their masks; labels and scores of classes are not looked at.
        image_id: Its id.
        named_labels: (R,) int64; what the detections name.
        named_scores: (R,) float64; their scores under that name.

    Raises:
        EvaluationError: If the detections have no masks or not one name each, or their masks and those of the
            ground truth differ in size.
    """
    check_sizes(ground_truth, detections, image_id)
    size = ground_truth.size or detections.size
    if detections.mask_areas is None or not len(detections.masks) == len(named_labels) == len(named_scores):
        raise EvaluationError(
            f'{len(detections.masks)} masks, {len(named_labels)} labels and {len(named_scores)} scores of detections',
            where=f'image {image_id}',
            fix='Each detection needs a mask, the label that it names and its score.',
        )
    if size is None:
        if len(named_labels):
            raise EvaluationError('the size of the masks is not given', where=f'image {image_id}')
        return ImageCocoMatches(image_id, ())  # objects without a mask, and nothing to ignore
    objects = [_annotation(ground_truth, index, size) for index in range(len(ground_truth.labels))]
    found = [
        {'category_id': label, 'segmentation': {'size': size, 'counts': mask}, 'area': area, 'iscrowd': 0,
         'score': score}
        for label, mask, area, score in zip(
            named_labels.tolist(), detections.masks, detections.mask_areas.tolist(), named_scores.tolist(), strict=True
        )
    ]  # fmt: skip
    return ImageCocoMatches(image_id, tuple(_matches_of_classes(objects, found, size)))


def coco_average_precision(images: Iterable[ImageCocoMatches], num_classes: int) -> dict[str, float]:
    """The twelve COCO statistics of masks.

    Args:
        images: One record for every image, in any order.
        num_classes: C.

    Returns:
        ``AP`` (mean over overlaps 0.5, 0.55, …, 0.95), ``AP50``, ``AP75``; ``APs``, ``APm`` and ``APl`` of small,
        medium and large objects; ``AR1``, ``AR10`` and ``AR100`` with so many detections of a class per image;
        ``ARs``, ``ARm``, ``ARl``. Each is a mean over classes; nan without ground truth.

    Raises:
        EvaluationError: If an image occurs twice.
    """
    ordered = in_order(images)
    evaluator = COCOeval(iouType='segm')
    num_areas = len(evaluator.params.areaRng)
    evaluator.params.imgIds, evaluator.params.catIds = list(range(len(ordered))), list(range(num_classes))
    evaluator._paramsEval = copy.deepcopy(evaluator.params)
    evaluator.evalImgs = [None] * (num_classes * num_areas * len(ordered))
    for position, image in enumerate(ordered):
        for matches in image.classes:
            for area in range(num_areas):
                place = (matches.label * num_areas + area) * len(ordered) + position
                evaluator.evalImgs[place] = {
                    'dtScores': matches.scores,
                    'dtMatches': matches.matched[area],
                    'dtIgnore': matches.ignored[area],
                    'gtIgnore': matches.objects_ignored[area],
                }
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator.accumulate()
        evaluator.summarize()
    values = [float('nan') if value == _NOTHING else float(value) for value in evaluator.stats]
    return dict(zip(COCO_STATISTICS, values, strict=True))


def _annotation(ground_truth: ImageGroundTruth, index: int, size: tuple[int, int]) -> dict[str, Any]:
    """An object as a COCO annotation."""
    has_mask = bool(ground_truth.mask_areas[index] > 0)
    if has_mask:
        mask = {'size': size, 'counts': ground_truth.masks[index]}
    else:
        mask = _filled_box(ground_truth.boxes[index], size)
    return {
        'category_id': int(ground_truth.labels[index]),
        'segmentation': mask,
        'area': int(ground_truth.mask_areas[index]),
        'iscrowd': int(ground_truth.group_of[index] or not has_mask),
    }


def _filled_box(box: FloatArray, size: tuple[int, int]) -> dict[str, Any]:
    """The pixels of a normalised box, as a mask."""
    height, width = size
    x1, y1, x2, y2 = np.rint(np.clip(box, 0, 1) * [width, height, width, height]).astype(int)
    pixels = np.zeros(size, dtype=np.uint8, order='F')
    pixels[y1:y2, x1:x2] = 1
    mask: dict[str, Any] = coco_mask.encode(pixels)
    return mask


def _matches_of_classes(
    objects: list[dict[str, Any]], found: list[dict[str, Any]], size: tuple[int, int]
) -> Iterator[ClassCocoMatches]:
    labels = sorted({entry['category_id'] for entry in [*objects, *found]})
    if not labels:
        return
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator = COCOeval(_coco(objects, labels, size), _coco(found, labels, size), 'segm')
        evaluator.evaluate()
    num_areas = len(evaluator.params.areaRng)
    for position, label in enumerate(labels):
        of_class: list[Mapping[str, Any]] = evaluator.evalImgs[position * num_areas : (position + 1) * num_areas]
        yield ClassCocoMatches(
            label=label,
            scores=np.array(of_class[0]['dtScores'], dtype=np.float64),
            matched=np.stack([entry['dtMatches'] for entry in of_class]) > 0,
            ignored=np.stack([entry['dtIgnore'] for entry in of_class]).astype(bool),
            objects_ignored=np.stack([entry['gtIgnore'] for entry in of_class]).astype(bool),
        )


def _coco(entries: list[dict[str, Any]], labels: list[int], size: tuple[int, int]) -> Any:
    """The entries of one image in pycocotools' index. Ids count from 1: pycocotools takes 0 for no match."""
    coco = COCO()
    coco.dataset = {
        'images': [{'id': _IMAGE, 'height': size[0], 'width': size[1]}],
        'categories': [{'id': label} for label in labels],
        'annotations': [{**entry, 'id': number, 'image_id': _IMAGE} for number, entry in enumerate(entries, start=1)],
    }
    coco.createIndex()
    return coco
