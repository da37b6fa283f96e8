"""Other overlaps than 0.5, and sizes of objects. Images are 8 × 8 pixels where they are drawn by hand."""

from __future__ import annotations

import contextlib
import io
import math
import pickle

import numpy as np
import pytest
from drawn_instances import detections, ground_truth
from hypothesis import given
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from hierseg.errors import EvaluationError
from hierseg.metrics import ImageDetections, matching
from hierseg.metrics.average_precision import RECALLS, summarise, summarise_by
from hierseg.metrics.matching import match_image, match_images
from hierseg.metrics.records import ANY_AREA, AREA_RANGES, IOU_THRESHOLDS, OPEN_IMAGES, Criterion

ONE = (0, 0, 4, 4)  # 16 pixels


def scored(objects, claims, *, iou=0.5, areas=ANY_AREA, weight=0.0, iou_type='segm'):
    """(score, weight) of every scored entry, by descending score."""
    criteria = [Criterion(iou, areas)]
    table = match_image(objects, claims, image_id='i', iou_type=iou_type, group_of_weight=weight, criteria=criteria)
    matches = table.at(0)
    return sorted(zip(matches.scores.tolist(), matches.weights.tolist(), strict=True), reverse=True)


class TestThresholds:
    """Each stage of rule 4 takes the criterion's threshold."""

    @pytest.mark.parametrize(('iou', 'weight'), [(0.5, 1.0), (0.75, 1.0), (0.8, 0.0)])
    def test_masks(self, iou, weight):
        # 12 of 16 pixels: 0.75.
        assert scored(ground_truth((ONE, 'mask')), detections(((0, 0, 4, 3), 0.9)), iou=iou) == [(0.9, weight)]

    @pytest.mark.parametrize('iou', IOU_THRESHOLDS)
    @pytest.mark.parametrize('iou_type', ['segm', 'bbox'])
    def test_an_overlap_that_equals_it_is_enough(self, iou, iou_type):
        # Columns 0 to 20·iou - 1 of 20: 0.7 as float32 is below 0.7, so that comparing the two would refuse 14 of 20.
        width = round(20 * iou)
        objects, claims = (
            ground_truth(((0, 0, 20, 1), 'mask'), size=(1, 20)), detections(((0, 0, width, 1), 0.9), size=(1, 20)),
        )  # fmt: skip
        assert scored(objects, claims, iou=iou, iou_type=iou_type) == [(0.9, 1.0)]
        assert scored(objects, claims, iou=iou + 0.01, iou_type=iou_type) == [(0.9, 0.0)]

    @pytest.mark.parametrize('kind', ['mask group', 'box group'])
    def test_groups(self, kind):
        # 3 of 4 rows inside: 0.75 of the detection.
        objects, claims = ground_truth(((0, 0, 8, 4), kind)), detections(((0, 1, 2, 5), 0.9))
        assert scored(objects, claims, iou=0.75) == []
        assert scored(objects, claims, iou=0.8) == [(0.9, 0.0)]

    def test_a_group_that_counts(self):
        objects, claims = ground_truth(((0, 0, 8, 4), 'mask group')), detections(((0, 1, 2, 5), 0.9))
        assert scored(objects, claims, iou=0.75, weight=0.5) == [(0.9, 0.5)]
        assert scored(objects, claims, iou=0.8, weight=0.5) == [(0.9, 0.0)]

    def test_objects_without_a_mask(self):
        objects, claims = ground_truth((ONE, 'box')), detections(((0, 0, 4, 3), 0.9))
        assert scored(objects, claims, iou=0.75) == []
        assert scored(objects, claims, iou=0.8) == [(0.9, 0.0)]

    def test_no_second_choice_at_any_threshold(self):
        # The worse-placed detection takes the object at 0.5; at 0.75 it cannot, and the other one is first.
        objects, claims = ground_truth((ONE, 'mask')), detections(((0, 0, 4, 2), 0.9), (ONE, 0.8))
        assert scored(objects, claims, iou=0.5) == [(0.9, 1.0), (0.8, 0.0)]
        assert scored(objects, claims, iou=0.75) == [(0.9, 0.0), (0.8, 1.0)]


SMALL, LARGE = (0, 10), (10, math.inf)
NINE = (5, 5, 8, 8)  # 9 pixels: small


class TestAreas:
    """Objects out of the range are ignored as in COCO."""

    def test_what_finds_an_object_out_of_the_range_is_removed(self):
        objects, claims = ground_truth((ONE, 'mask'), (NINE, 'mask')), detections((ONE, 0.9), (NINE, 0.8))
        assert scored(objects, claims, areas=SMALL) == [(0.8, 1.0)]
        assert scored(objects, claims, areas=LARGE) == [(0.9, 1.0)]

    def test_only_the_first_that_finds_it_is(self):
        # Both detections have 16 pixels, so the duplicate counts among large objects, and not among small ones.
        objects, claims = ground_truth((ONE, 'mask')), detections((ONE, 0.9), (ONE, 0.8))
        assert scored(objects, claims, areas=LARGE) == [(0.9, 1.0), (0.8, 0.0)]
        assert scored(objects, claims, areas=SMALL) == []
        # A duplicate of 8 pixels: small itself, and its object is taken.
        claims = detections((ONE, 0.9), ((0, 0, 4, 2), 0.8))
        assert scored(objects, claims, areas=SMALL) == [(0.8, 0.0)]

    def test_what_finds_nothing_counts_by_its_own_area(self):
        objects, claims = ground_truth(verified=[0]), detections((ONE, 0.9), (NINE, 0.8))
        assert scored(objects, claims, areas=SMALL) == [(0.8, 0.0)]
        assert scored(objects, claims, areas=LARGE) == [(0.9, 0.0)]

    def test_a_hit_counts_whatever_its_own_area(self):
        # 12 pixels on the small object of 9: overlap 0.75.
        objects, claims = ground_truth((NINE, 'mask')), detections(((4, 5, 8, 8), 0.9))
        assert scored(objects, claims, areas=SMALL) == [(0.9, 1.0)]

    def test_an_object_in_the_range_comes_first(self):
        # The detection is the object of 16 pixels (overlap 1), in which lies another of 9 (9 / 16).
        objects, claims = ground_truth((ONE, 'mask'), ((0, 0, 3, 3), 'mask')), detections((ONE, 0.9))
        assert scored(objects, claims) == [(0.9, 1.0)]
        assert scored(objects, claims, areas=SMALL) == [(0.9, 1.0)]
        assert scored(objects, claims, areas=LARGE) == [(0.9, 1.0)]

    def test_both_bounds_are_within(self):
        objects, claims = ground_truth((ONE, 'mask')), detections((ONE, 0.9))
        assert scored(objects, claims, areas=(0, 16)) == scored(objects, claims, areas=(16, 20)) == [(0.9, 1.0)]
        assert scored(objects, claims, areas=(0, 15)) == scored(objects, claims, areas=(17, 20)) == []

    def test_a_group_counts_in_its_range_and_is_ignored_in_all(self):
        # 32 pixels.
        objects, claims = ground_truth(((0, 0, 8, 4), 'mask group')), detections((ONE, 0.9), ((0, 0, 2, 2), 0.8))
        assert scored(objects, claims, areas=LARGE, weight=1.0) == [(0.9, 1.0)]
        assert scored(objects, claims, areas=SMALL, weight=1.0) == []

    def test_objects_without_a_mask_are_ignored_in_all(self):
        objects, claims = ground_truth((ONE, 'box')), detections((ONE, 0.9), ((0, 0, 3, 3), 0.8))
        assert scored(objects, claims, areas=LARGE) == []
        # The second one is small and no longer finds the object, which the first one took.
        assert scored(objects, claims, areas=SMALL) == [(0.8, 0.0)]

    def test_counts(self):
        objects = ground_truth((ONE, 'mask'), (NINE, 'mask'), (NINE, 'mask group'), (ONE, 'box'), (ONE, 'mask', 1))
        criteria = (Criterion(0.5), Criterion(0.5, SMALL), Criterion(0.5, LARGE))
        table = match_image(objects, detections(), criteria=criteria, image_id='i', group_of_weight=0.5)
        assert table.counted_labels.tolist() == [0, 1]
        assert table.counts.tolist() == [[2.5, 1], [1.5, 0], [1, 1]]

    @pytest.mark.parametrize('iou_type', ['segm', 'bbox'])
    def test_boxes_have_no_area(self, iou_type):
        claims = ImageDetections(np.zeros(1, int), np.ones(1), np.zeros(1, int), np.array([[0, 0, 1.0, 1]]))
        with pytest.raises(EvaluationError, match=r'^image i: .*area'):
            scored(ground_truth((ONE, 'box')), claims, areas=SMALL, iou_type=iou_type)


@pytest.mark.parametrize('threshold', [0, -0.5, 1.01, math.nan])
def test_thresholds_are_shares(threshold):
    with pytest.raises(EvaluationError, match='iou_threshold'):
        Criterion(threshold)


@pytest.mark.parametrize('areas', [(-1, 5), (5, 4), (0, math.nan)])
def test_ranges_ascend(areas):
    with pytest.raises(EvaluationError, match='area_range'):
        Criterion(0.5, areas)


def test_sizes_are_those_of_coco():
    evaluator = COCOeval(iouType='segm').params
    found = {size: (low, min(high, 1e10)) for size, (low, high) in AREA_RANGES.items()}
    assert found == {
        size: tuple(area) for size, area in zip(evaluator.areaRngLbl[1:], evaluator.areaRng[1:], strict=True)
    }


PLACES = [(0, 0, 4, 4), (0, 0, 4, 3), (0, 0, 3, 4), (0, 0, 8, 4), (4, 0, 8, 4), (2, 2, 6, 6), (0, 0, 1, 1)]
some_objects = st.lists(
    st.tuples(
        st.sampled_from(PLACES), st.sampled_from(['mask', 'mask', 'box', 'mask group', 'box group']), st.integers(0, 1)
    ),
    max_size=6,
)
some_claims = st.lists(
    st.tuples(st.sampled_from(PLACES), st.sampled_from([0.0, 0.3, 0.6, 0.9]), st.integers(0, 1)), max_size=8
)


@given(some_objects, some_claims, st.sampled_from([0.0, 0.5, 1.0]))
def test_many_criteria_at_once_are_each_alone(objects, claims, weight):
    objects, claims = ground_truth(*objects), detections(*claims)
    criteria = [Criterion(iou, areas) for iou in (0.5, 0.7, 0.75, 0.9) for areas in (ANY_AREA, SMALL, LARGE)]
    table = match_image(objects, claims, criteria=criteria, image_id='i', group_of_weight=weight)
    table = pickle.loads(pickle.dumps(table))
    for index, criterion in enumerate(criteria):
        alone = match_image(objects, claims, image_id='i', group_of_weight=weight, criteria=[criterion]).at(0)
        for name in ('labels', 'scores', 'weights', 'counted_labels', 'counts'):
            np.testing.assert_array_equal(getattr(table.at(index), name), getattr(alone, name), strict=True)


@pytest.mark.parametrize('max_pairs', [0, 20, 1 << 20])  # each image alone, some together, all together
@given(st.lists(st.tuples(some_objects, some_claims), max_size=5), st.sampled_from(['segm', 'bbox']))
def test_many_images_at_once_are_each_alone(max_pairs, images, iou_type):
    images = [
        (ground_truth(*objects, verified=[number % 3], size=(8, 8 + number)), detections(*claims, size=(8, 8 + number)))
        for number, (objects, claims) in enumerate(images)
    ]
    truths, found = [truth for truth, _ in images], [claims for _, claims in images]
    options = {'criteria': [Criterion(0.5), Criterion(0.75)], 'iou_type': iou_type, 'group_of_weight': 0.5}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matching, 'MAX_PAIRS', max_pairs)
        tables = match_images(truths, found, image_ids=[str(number) for number in range(len(images))], **options)
    assert len(tables) == len(images)
    for number, (table, (truth, claims)) in enumerate(zip(tables, images, strict=True)):
        alone = match_image(truth, claims, image_id=str(number), **options)
        assert table.image_id == alone.image_id
        for name in ('labels', 'scores', 'verdicts', 'counted_labels', 'counts'):
            np.testing.assert_array_equal(getattr(table, name), getattr(alone, name), strict=True)


def test_a_bad_image_among_many_is_named():
    truths = [ground_truth((ONE, 'mask'))] * 3
    found = [detections((ONE, 0.9)), detections((ONE, 0.9), size=(9, 16)), detections()]
    with pytest.raises(EvaluationError, match=r'^image b: detection masks are 16×9'):
        match_images(truths, found, image_ids=['a', 'b', 'c'])


@given(some_objects, some_claims)
def test_a_stricter_threshold_finds_no_more(objects, claims):
    criteria = [Criterion(iou) for iou in IOU_THRESHOLDS]
    table = match_image(ground_truth(*objects), detections(*claims), criteria=criteria, image_id='i')
    found = [table.at(index).weights.sum() for index in range(len(criteria))]
    assert found == sorted(found, reverse=True)


@given(some_objects, some_claims)
def test_every_object_has_one_size(objects, claims):
    # No place has 10 pixels.
    criteria = [Criterion(0.5, areas) for areas in (ANY_AREA, SMALL, LARGE)]
    table = match_image(
        ground_truth(*objects), detections(*claims), criteria=criteria, image_id='i', group_of_weight=1.0
    )
    np.testing.assert_array_equal(table.counts[0], table.counts[1] + table.counts[2])


class TestSummary:
    """Results by criterion."""

    CRITERIA = (Criterion(0.5), Criterion(0.75), Criterion(0.9))

    @pytest.fixture
    def results(self):
        # Image a: IoU 0.75, found by the first two. Image b: IoU 1, found by all. Precision 1, recall 1, 1, then a
        # false positive at 0.9 before the true one at 0.8: precision 1/2 at recall 1/2.
        tables = [
            match_image(ground_truth((ONE, 'mask')), claims, criteria=self.CRITERIA, image_id=image_id)
            for image_id, claims in (('b', detections((ONE, 0.8))), ('a', detections(((0, 0, 4, 3), 0.9))))
        ]
        return summarise_by(tables, 2, criteria=self.CRITERIA)

    def test_by_criterion(self, results):
        assert [result.average_precision[0] for result in results.values()] == [1, 1, 0.25]
        assert tuple(results) == self.CRITERIA

    def test_all_images_need_the_same_criteria(self):
        table = match_image(ground_truth(), detections(), criteria=[OPEN_IMAGES], image_id='a')
        with pytest.raises(EvaluationError, match=r'image a: .*same criteria'):
            summarise_by([table], 1, criteria=self.CRITERIA)


class TestAgainstCoco:
    """Where the definitions coincide: single objects that do not overlap, all classes known, scores without ties."""

    CLASSES = 3
    AREAS = ((0, math.inf), (0, 30), (30, 70), (70, math.inf))
    SIZE = (64, 64)

    def image(self, seed):
        """Objects within cells of 16 pixels, a label each, and moved, missed and invented detections."""
        generator = np.random.default_rng(seed)
        objects, claims = [], []
        for cell in range(16):
            x, y = 16 * (cell % 4) + 2, 16 * (cell // 4) + 2
            width, height = generator.integers(3, 12, size=2).tolist()
            label = int(generator.integers(self.CLASSES))
            place = np.array([x, y, x + width, y + height])
            if generator.random() < 0.7:
                objects.append((tuple(place.tolist()), 'mask', label))
            for _ in range(generator.integers(3)):
                moved = place + generator.choice([-1, 0, 0, 0, 1], size=4)
                named = label if generator.random() < 0.8 else int(generator.integers(self.CLASSES))
                claims.append((tuple(moved.tolist()), float(generator.random()), named))
        known = ground_truth(*objects, verified=range(self.CLASSES), size=self.SIZE)
        return known, detections(*claims, size=self.SIZE)

    def coco_precision(self, images):
        """pycocotools' precision at our recalls, (threshold, recall, class, range of area)."""
        size = {'size': self.SIZE}
        sides = []
        for side in range(2):
            coco = COCO()
            annotations = []
            for number, pair in enumerate(images):
                one = pair[side]
                for index, label in enumerate(one.labels.tolist()):
                    entry = {
                        'id': len(annotations) + 1, 'image_id': number, 'category_id': label, 'iscrowd': 0,
                        'segmentation': {**size, 'counts': one.masks[index]}, 'area': int(one.mask_areas[index]),
                    }  # fmt: skip
                    annotations.append({**entry, 'score': one.scores[index]} if side else entry)
            coco.dataset = {
                'images': [{'id': number, 'height': 64, 'width': 64} for number in range(len(images))],
                'categories': [{'id': label} for label in range(self.CLASSES)],
                'annotations': annotations,
            }
            coco.createIndex()
            sides.append(coco)
        evaluator = COCOeval(*sides, 'segm')
        evaluator.params.iouThrs, evaluator.params.recThrs = np.array(IOU_THRESHOLDS), RECALLS
        evaluator.params.areaRng = [list(areas) for areas in self.AREAS]
        evaluator.params.areaRngLbl = ['all', 'small', 'medium', 'large']
        evaluator.evaluate()
        evaluator.accumulate()
        return evaluator.eval['precision'][..., 2]

    def test_precision_at_every_recall_threshold_size_and_class(self):
        images = [self.image(seed) for seed in range(20)]
        criteria = [Criterion(iou, areas) for iou in IOU_THRESHOLDS for areas in self.AREAS]
        tables = [
            match_image(objects, claims, criteria=criteria, image_id=f'{number:02}')
            for number, (objects, claims) in enumerate(images)
        ]
        results = summarise_by(tables, self.CLASSES, criteria=criteria)
        with contextlib.redirect_stdout(io.StringIO()):
            expected = self.coco_precision(images)
        assert (expected >= 0).all()
        assert len(np.unique(expected.mean(axis=1))) > 80  # of 120: the case tells thresholds, sizes and classes apart
        for row, iou in enumerate(IOU_THRESHOLDS):
            for column, areas in enumerate(self.AREAS):
                found = results[Criterion(iou, areas)].precision_curves
                np.testing.assert_allclose(found, expected[row, :, :, column].T, atol=1e-12, err_msg=f'{iou}, {areas}')


def test_the_default_is_that_of_open_images():
    objects, claims = ground_truth((ONE, 'mask')), detections(((0, 0, 4, 2), 0.9))
    assert Criterion(0.5, (0, math.inf)) == OPEN_IMAGES
    assert summarise([match_image(objects, claims, image_id='i').at(0)], 1).average_precision.tolist() == [1.0]
