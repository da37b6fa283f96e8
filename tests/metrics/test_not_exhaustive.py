"""The rule of LVIS: where not every object of a class is annotated, detections of it that find nothing are ignored.

Classes: 0 animal, 1 dog (an animal), 2 car. Objects and detections are columns of an image.
"""

from __future__ import annotations

import numpy as np
import pytest
from strips import objects_of, prediction_of, strip

from hierseg.metrics.average_precision import summarise
from hierseg.metrics.coco_average_precision import coco_average_precision, match_image_as_coco
from hierseg.metrics.error_kinds import ErrorKind, error_kinds
from hierseg.metrics.matching import common_pixels, match_image, match_images
from hierseg.metrics.records import IOU_THRESHOLDS, Criterion
from hierseg.taxonomy import Taxonomy

ANIMAL, DOG, CAR = range(3)
TAXONOMY = Taxonomy.from_edges(['animal', 'dog', 'car'], [('dog', 'animal')])
# A dog and a car; of each a better detection that finds nothing, and one that finds it.
OBJECTS = [(DOG, 0, 10), (CAR, 20, 30)]
FOUND = prediction_of(
    [({DOG: 0.9}, 50, 60), ({DOG: 0.8}, 0, 10), ({CAR: 0.7}, 70, 80), ({CAR: 0.6}, 20, 30)],
    names=[DOG, DOG, CAR, CAR],
    num_classes=3,
)


def common_of(objects, prediction):
    return common_pixels(
        prediction.masks, prediction.mask_areas, [mask or strip(0, 1) for mask in objects.masks], (10, 100)
    )


def test_average_precision_of_open_images() -> None:
    # The dog: precision 1/2 at recall 1, and 1 where the detection of score 0.9 is ignored. The car stays at 1/2.
    for beyond, dog in (([], 0.5), ([DOG], 1.0), ([ANIMAL], 0.5)):
        matches = match_image(objects_of(OBJECTS, not_exhaustive=beyond), FOUND.claims(), image_id='a').at(0)
        result = summarise([matches], 3)
        np.testing.assert_allclose(result.average_precision[[DOG, CAR]], [dog, 0.5])


def test_of_several_images_only_those_that_say_so() -> None:
    truths = [objects_of(OBJECTS, not_exhaustive=[DOG]), objects_of(OBJECTS)]
    first, second = match_images(truths, [FOUND.claims()] * 2, image_ids=['a', 'b'])
    assert first.at(0).scores[first.at(0).labels == DOG].tolist() == pytest.approx([0.8])
    assert second.at(0).scores[second.at(0).labels == DOG].tolist() == pytest.approx([0.9, 0.8])


def test_a_detection_that_only_a_strict_threshold_fails_is_ignored_there() -> None:
    # Columns 0 to 7 of 0 to 10: IoU 0.7. It is true at 0.5 and, unmatched, ignored at 0.75.
    loose = prediction_of([({DOG: 0.9}, 0, 7)], names=[DOG], num_classes=3)
    criteria = [Criterion(threshold) for threshold in IOU_THRESHOLDS]
    table = match_image(objects_of(OBJECTS, not_exhaustive=[DOG]), loose.claims(), image_id='a', criteria=criteria)
    assert [table.at(index).weights.tolist() for index in (0, 4, 5)] == [[1.0], [1.0], []]


def test_coco_statistics() -> None:
    # Means of dog and car: (0.5 + 0.5) / 2, or (1 + 0.5) / 2. COCO's 101 recalls give 1/2 at each of them.
    for beyond, mean in (([], 0.5), ([DOG], 0.75)):
        objects = objects_of(OBJECTS, not_exhaustive=beyond)
        matches = match_image_as_coco(objects, FOUND, common=common_of(objects, FOUND))
        assert coco_average_precision([matches], 3)['AP50'] == pytest.approx(mean)


def test_coco_without_an_object_of_the_class() -> None:
    objects = objects_of([(CAR, 20, 30)], not_exhaustive=[DOG])
    matches = match_image_as_coco(objects, FOUND, common=common_of(objects, FOUND))
    ignored = {of_class.label: of_class.ignored[0, 0].tolist() for of_class in matches.classes}
    assert ignored == {DOG: [True, True], CAR: [False, False]}


def test_kinds_of_errors() -> None:
    nothing = np.zeros(0, dtype=np.int64)
    for beyond, kind in (([], ErrorKind.BACKGROUND), ([DOG, ANIMAL], ErrorKind.UNVERIFIED)):
        objects = objects_of(OBJECTS, not_exhaustive=beyond)
        errors = error_kinds(objects, FOUND, TAXONOMY.arrays, common=common_of(objects, FOUND), absent=nothing)
        assert errors.kinds.tolist() == [kind, ErrorKind.CORRECT, ErrorKind.BACKGROUND, ErrorKind.CORRECT]
