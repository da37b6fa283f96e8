"""Rules 3 and 4 of the protocol on images of 8 × 8 pixels; a rectangle is (x1, y1, x2, y2), ends exclusive."""

from __future__ import annotations

import numpy as np
import pytest
from drawn_instances import detections, ground_truth
from open_images_files import counts_of, rectangle
from plain_open_images import tight_box
from pycocotools import mask as coco_mask

from hierseg.errors import EvaluationError
from hierseg.metrics import ImageDetections, ImageGroundTruth
from hierseg.metrics.average_precision import summarise
from hierseg.metrics.matching import MAX_DETECTIONS, box_overlaps, common_pixels, match_image, overlaps_of_masks

NAN = float('nan')
ONE = (0, 0, 4, 4)  # 16 pixels


def scored(objects, claims, *, iou_type='segm', weight=0.0):
    """(score, weight) of every scored entry of class 0, by descending score."""
    matches = match_image(objects, claims, image_id='i', iou_type=iou_type, group_of_weight=weight).at(0)
    entries = zip(matches.labels.tolist(), matches.scores.tolist(), matches.weights.tolist(), strict=True)
    return sorted(((score, value) for label, score, value in entries if label == 0), reverse=True)


class TestRule3:
    """Which detections are looked at."""

    def test_a_verified_absent_class_makes_false_positives(self):
        assert scored(ground_truth(verified=[0]), detections((ONE, 0.9))) == [(0.9, 0.0)]

    def test_an_unverified_class_without_objects_is_dropped(self):
        assert scored(ground_truth((ONE, 'mask', 1), verified=[2]), detections((ONE, 0.9))) == []

    def test_the_class_of_an_object_counts_without_a_label(self):
        assert scored(ground_truth((ONE, 'mask')), detections(((4, 4, 8, 8), 0.9))) == [(0.9, 0.0)]

    def test_blank_masks_are_dropped(self):
        assert scored(ground_truth((ONE, 'mask')), detections(((0, 0, 0, 0), 0.9))) == []

    def test_boxes_without_extent_are_dropped(self):
        flat = ImageDetections(
            np.zeros(2, np.int64),
            np.array([0.9, 0.8]),
            np.arange(2),
            np.array([[0.1, 0.2, 0.1, 0.8], [0.5, 0.2, 0.4, 0.8]]),
        )
        assert scored(ground_truth((ONE, 'box')), flat, iou_type='bbox') == []

    def test_other_classes_do_not_match(self):
        assert scored(ground_truth((ONE, 'mask', 1), verified=[0]), detections((ONE, 0.9))) == [(0.9, 0.0)]


class TestRule4a:
    """Mask IoU ≥ 0.5 with masked singles: the best only, the first detection to take it."""

    def test_half_is_enough(self):
        # 8 of 16 pixels: IoU 8 / 16.
        assert scored(ground_truth((ONE, 'mask')), detections(((0, 0, 4, 2), 0.9))) == [(0.9, 1.0)]

    def test_less_is_not(self):
        # 8 pixels inside, 1 × 2 outside: 8 / 18.
        assert scored(ground_truth((ONE, 'mask')), detections(((0, 0, 5, 2), 0.9))) == [(0.9, 0.0)]

    def test_the_higher_score_takes_it_whatever_the_overlap(self):
        claims = detections((ONE, 0.5), ((0, 0, 4, 3), 0.9))
        assert scored(ground_truth((ONE, 'mask')), claims) == [(0.9, 1.0), (0.5, 0.0)]

    def test_no_second_choice(self):
        # Objects: columns 0–3 and 0–2 of rows 0–3 (16 and 12 pixels). Both detections are the 16 pixels: IoU 1 and
        # 12 / 16. The second one's second choice would do, but it only tries the first object.
        objects = ground_truth((ONE, 'mask'), ((0, 0, 3, 4), 'mask'))
        assert scored(objects, detections((ONE, 0.9), (ONE, 0.8))) == [(0.9, 1.0), (0.8, 0.0)]

    def test_ties_try_the_first_object(self):
        # Columns 0–3 against columns 0–2 (12 / 16) twice, as k² equal objects have it: one hit, one false positive.
        objects = ground_truth(((0, 0, 3, 4), 'mask'), ((0, 0, 3, 4), 'mask'))
        assert scored(objects, detections((ONE, 0.9), (ONE, 0.8))) == [(0.9, 1.0), (0.8, 0.0)]

    def test_of_equal_scores_the_last_row_is_first(self):
        # Both take the object; the second row is the tighter one and comes first, so the first row fails.
        claims = detections(((0, 0, 4, 2), 0.9), (ONE, 0.9))
        matches = match_image(ground_truth((ONE, 'mask')), claims, image_id='i').at(0)
        assert matches.weights.tolist() == [1.0, 0.0]

    def test_boxes_do_not_matter_for_masked_objects(self):
        # An L of 7 + 7 pixels around the object's 3 × 3: same box as a 4 × 4 square, no common pixel.
        claims = detections((ONE, 0.9))
        objects = ground_truth(((3, 3, 4, 4), 'mask'))
        assert scored(objects, claims) == [(0.9, 0.0)]  # mask IoU 1 / 16


class TestRule4b:
    """Mask intersection over detection area ≥ 0.5 with masked groups: removed from scoring."""

    GROUP = ((0, 0, 8, 4), 'mask group')

    def test_inside_is_removed(self):
        assert scored(ground_truth(self.GROUP), detections(((0, 0, 2, 2), 0.9), ((6, 2, 8, 4), 0.8))) == []

    def test_half_inside_is_removed_and_less_is_not(self):
        # Rows 3–4 of 2 columns: 2 of 4 pixels inside. Rows 3–5: 2 of 6.
        claims = detections(((0, 3, 2, 5), 0.9), ((4, 3, 6, 6), 0.8))
        assert scored(ground_truth(self.GROUP), claims) == [(0.8, 0.0)]

    def test_a_single_is_matched_first_and_the_rest_goes_to_the_group(self):
        objects = ground_truth(self.GROUP, (ONE, 'mask'))
        assert scored(objects, detections((ONE, 0.9), (ONE, 0.8))) == [(0.9, 1.0)]

    def test_with_weight_the_group_counts_once_at_its_best_score(self):
        claims = detections(((0, 0, 2, 2), 0.4), ((6, 2, 8, 4), 0.8), ((6, 6, 8, 8), 0.6))
        assert scored(ground_truth(self.GROUP), claims, weight=1.0) == [(0.8, 1.0), (0.6, 0.0)]
        assert scored(ground_truth(self.GROUP), claims, weight=0.5) == [(0.8, 0.5), (0.6, 0.0)]

    def test_a_detection_belongs_to_the_group_that_covers_it_most(self):
        # 4 columns of the detection: 1 in the left group, 3 in the right one. Only the right one is found.
        objects = ground_truth(((0, 0, 3, 4), 'mask group'), ((3, 0, 8, 4), 'mask group'))
        assert scored(objects, detections(((2, 0, 6, 4), 0.9)), weight=1.0) == [(0.9, 1.0)]

    def test_of_equal_scores_a_found_group_comes_before_singles(self):
        # The reference appends groups to the singles and sorts in reverse: true before false, whatever the rows' order.
        claims = [((0, 0, 2, 2), 0.8), ((6, 6, 8, 8), 0.8)]
        for rows in (claims, claims[::-1]):
            table = match_image(ground_truth(self.GROUP), detections(*rows), image_id='i', group_of_weight=1.0)
            assert summarise([table.at(0)], 1).average_precision.tolist() == [1.0]

    def test_a_best_score_of_zero_does_not_count(self):
        assert scored(ground_truth(self.GROUP), detections(((0, 0, 2, 2), 0.0)), weight=1.0) == []
        assert scored(ground_truth(self.GROUP), detections(((0, 0, 2, 2), -1.0)), weight=1.0) == []


class TestRule4c:
    """Box IoU ≥ 0.5 of the mask's tight box with box-only singles: the first detection of each is removed."""

    def test_the_first_is_removed_and_later_ones_stay(self):
        claims = detections((ONE, 0.7), (ONE, 0.9), (ONE, 0.8))
        assert scored(ground_truth((ONE, 'box')), claims) == [(0.8, 0.0), (0.7, 0.0)]

    def test_the_box_is_the_tight_box_of_the_mask(self):
        # Diagonal corners of a 4 × 4 square: 2 pixels, but the box is the square.
        corners = rectangle(0, 0, 1, 1) | rectangle(3, 3, 4, 4)
        claims = detections((ONE, 0.9))
        claims = ImageDetections(
            claims.labels,
            claims.scores,
            claims.regions,
            np.array([tight_box(corners)]),
            [counts_of(corners)],
            np.array([2]),
            (8, 8),
        )
        assert scored(ground_truth((ONE, 'box')), claims) == []

    def test_half_is_enough_and_less_is_not(self):
        # 4 × 2 of 4 × 4: box IoU 0.5. 4 × 1: 0.25.
        assert scored(ground_truth((ONE, 'box')), detections(((0, 0, 4, 2), 0.9))) == []
        assert scored(ground_truth((ONE, 'box')), detections(((0, 0, 4, 1), 0.9))) == [(0.9, 0.0)]

    def test_only_the_best_object_is_tried(self):
        objects = ground_truth((ONE, 'box'), ((0, 0, 3, 4), 'box'))
        assert scored(objects, detections((ONE, 0.9), (ONE, 0.8))) == [(0.8, 0.0)]

    def test_what_took_a_masked_object_takes_no_box(self):
        # The hit leaves in stage a; the duplicate takes the box-only object; the third one stays.
        objects = ground_truth((ONE, 'mask'), (ONE, 'box'))
        claims = detections((ONE, 0.9), (ONE, 0.8), (ONE, 0.7))
        assert scored(objects, claims) == [(0.9, 1.0), (0.7, 0.0)]


class TestRule4d:
    """Box intersection over detection area ≥ 0.5 with box-only groups: removed, whatever the weight."""

    GROUP = ((0, 0, 8, 4), 'box group')

    @pytest.mark.parametrize('weight', [0.0, 1.0])
    def test_inside_is_removed(self, weight):
        claims = detections(((0, 0, 2, 2), 0.9), ((0, 3, 2, 5), 0.8), ((4, 3, 6, 6), 0.7))
        assert scored(ground_truth(self.GROUP), claims, weight=weight) == [(0.7, 0.0)]

    def test_box_only_singles_come_first(self):
        objects = ground_truth(self.GROUP, (ONE, 'box'))
        assert scored(objects, detections((ONE, 0.9), (ONE, 0.8))) == []


class TestBoxes:
    """The boxes variant: the same with boxes only, and everything counts."""

    def test_singles_and_groups_count(self):
        objects = ground_truth((ONE, 'mask'), ((4, 0, 8, 8), 'box group'))
        claims = detections((ONE, 0.9), (ONE, 0.8), ((4, 0, 6, 2), 0.7), ((5, 4, 8, 8), 0.6))
        assert scored(objects, claims, iou_type='bbox', weight=1.0) == [(0.9, 1.0), (0.8, 0.0), (0.7, 1.0)]
        assert scored(objects, claims, iou_type='bbox', weight=0.0) == [(0.9, 1.0), (0.8, 0.0)]
        matches = match_image(objects, claims, image_id='i', iou_type='bbox', group_of_weight=1.0).at(0)
        assert (matches.counted_labels.tolist(), matches.counts.tolist()) == ([0], [2.0])

    def test_coordinates_are_taken_as_they_are(self):
        # No clipping to [0, 1] and no pixel added: [-1, 1] against [0, 1] is one half exactly.
        objects = ImageGroundTruth(
            np.zeros(1, np.int64), np.array([[0.0, 0.0, 1.0, 1.0]]), np.zeros(1, bool), [b''], np.zeros(1, np.int64),
            np.zeros(0, np.int64),
        )  # fmt: skip
        claims = ImageDetections(
            np.zeros(1, np.int64), np.array([0.5]), np.arange(1), np.array([[-1.0, 0.0, 1.0, 1.0]])
        )
        assert scored(objects, claims, iou_type='bbox') == [(0.5, 1.0)]


def test_rule_5_counts_leave_box_only_objects_out():
    objects = ground_truth((ONE, 'mask'), (ONE, 'mask', 2), (ONE, 'box', 1), (ONE, 'mask group'), (ONE, 'box group'))
    counts = {
        weight: match_image(objects, detections(), image_id='i', group_of_weight=weight).at(0) for weight in (0.0, 1.0)
    }
    assert counts[0.0].counted_labels.tolist() == [0, 1, 2]
    assert counts[0.0].counts.tolist() == [1.0, 0.0, 1.0]
    assert counts[1.0].counts.tolist() == [2.0, 0.0, 1.0]


def test_rule_7_masks_of_different_size_are_refused():
    with pytest.raises(EvaluationError, match=r'^image i: .*16×9.*8×8'):
        match_image(ground_truth((ONE, 'mask')), detections((ONE, 0.9), size=(9, 16)), image_id='i')


def test_rule_7_without_ground_truth_masks_any_size_will_do():
    assert scored(ground_truth((ONE, 'box')), detections(((0, 0, 8, 8), 0.9), size=(16, 16))) == []


def test_several_classes_may_share_a_region():
    objects = ground_truth((ONE, 'mask', 0), (ONE, 'mask', 1))
    one = detections((ONE, 0.9))
    claims = ImageDetections(
        np.array([0, 1, 0]),
        np.array([0.9, 0.4, 0.3]),
        np.array([0, 0, 0]),
        one.boxes,
        one.masks,
        one.mask_areas,
        one.size,
    )
    matches = match_image(objects, claims, image_id='i').at(0)
    assert matches.labels.tolist() == [0, 0, 1]
    assert matches.scores.tolist() == [0.9, 0.3, 0.4]
    assert matches.weights.tolist() == [1.0, 0.0, 1.0]


def test_an_image_without_anything():
    matches = match_image(ground_truth(), detections(), image_id='i').at(0)
    assert len(matches.labels) == len(matches.scores) == len(matches.weights) == len(matches.counts) == 0


def test_the_reference_looks_at_ten_thousand_detections_of_a_class():
    count = MAX_DETECTIONS + 5
    claims = ImageDetections(
        np.zeros(count, np.int64), np.linspace(0, 1, count), np.zeros(count, np.int64), np.array([[0.0, 0.0, 0.5, 0.5]])
    )
    entries = scored(ground_truth((ONE, 'box')), claims, iou_type='bbox')
    assert len(entries) == MAX_DETECTIONS
    assert entries[-1][0] == np.linspace(0, 1, count)[5]


def test_mask_overlaps_agree_with_pycocotools():
    generator = np.random.default_rng(3)
    masks = [generator.random((13, 17)) < share for share in (0.1, 0.5, 0.9, 0.3)]
    coco = [coco_mask.encode(np.asfortranarray(mask.astype(np.uint8))) for mask in masks]
    areas = np.array([mask.sum() for mask in masks])
    counts = [mask['counts'] for mask in coco]
    iou, ioa = overlaps_of_masks(common_pixels(counts, areas, counts[:3], (13, 17)), areas[:, None], areas[:3])
    np.testing.assert_allclose(iou, coco_mask.iou(coco, coco[:3], [0] * 3), rtol=1e-6)
    np.testing.assert_allclose(ioa, coco_mask.iou(coco, coco[:3], [1] * 3), rtol=1e-6)


def test_box_overlaps_agree_with_pycocotools():
    corners = np.random.default_rng(4).random((6, 2, 2))
    boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    xywh = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    pairs = boxes[:, None], boxes[:4]
    np.testing.assert_allclose(box_overlaps(*pairs), coco_mask.iou(xywh, xywh[:4], [0] * 4), rtol=1e-12)
    np.testing.assert_allclose(
        box_overlaps(*pairs, over_first_area=True), coco_mask.iou(xywh, xywh[:4], [1] * 4), rtol=1e-12
    )
