"""COCO's statistics: equal to pycocotools on files, and the rules for what COCO does not know."""

from __future__ import annotations

import contextlib
import io
import json
import math
import pickle
from dataclasses import replace

import numpy as np
import pytest
from drawn_instances import detections, ground_truth
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from strips import common_of

from hierseg.errors import EvaluationError
from hierseg.metrics import ImageDetections, ImageGroundTruth, ImagePrediction
from hierseg.metrics.coco_average_precision import COCO_STATISTICS, coco_average_precision, match_image_as_coco

ONE, OTHER = (0, 0, 4, 4), (4, 4, 8, 8)


def statistics(objects, claims, *, classes=1):
    """The statistics of one image; claims name the labels that they are drawn with."""
    return coco_average_precision([matched(objects, named(claims))], classes)


def matched(objects, prediction):
    return match_image_as_coco(objects, prediction, common=common_of(objects, prediction))


def named(claims, image_id='i'):
    """One detection for each claim, which names the class that it claims."""
    class_scores = np.zeros((len(claims.labels), claims.labels.max(initial=0) + 1))
    class_scores[np.arange(len(claims.labels)), claims.labels] = claims.scores
    return ImagePrediction(
        image_id, claims.boxes, class_scores, claims.labels, claims.masks, claims.mask_areas, claims.size
    )


class TestRules:
    """What average precision at 0.5 shows; images are 8 × 8 pixels, so all objects are small."""

    def test_perfect(self):
        found = statistics(ground_truth((ONE, 'mask')), detections((ONE, 0.9)))
        assert set(found) == set(COCO_STATISTICS)
        no_value = {'APm', 'APl', 'ARm', 'ARl'}
        assert all(math.isnan(found[name]) for name in no_value)
        assert all(found[name] == pytest.approx(1) for name in set(COCO_STATISTICS) - no_value)

    def test_overlap(self):
        # 12 of 16 pixels: found at 0.5, 0.55, …, 0.75, six of ten thresholds.
        found = statistics(ground_truth((ONE, 'mask')), detections(((0, 0, 4, 3), 0.9)))
        assert [found[name] for name in ('AP', 'AP50', 'AP75', 'AR100')] == pytest.approx([0.6, 1, 1, 0.6])

    def test_a_false_positive_in_front(self):
        # Precision 1/2 at every recall. The best detection of the image alone finds nothing.
        found = statistics(ground_truth((ONE, 'mask')), detections((ONE, 0.8), (OTHER, 0.9)))
        assert (found['AP50'], found['AR1'], found['AR10']) == pytest.approx((0.5, 0, 1))

    def test_classes_are_averaged(self):
        # Class 0 found, class 1 missed under the name of class 2, which has no ground truth.
        found = statistics(
            ground_truth((ONE, 'mask'), (OTHER, 'mask', 1)), detections((ONE, 0.9), (OTHER, 0.9, 2)), classes=3
        )
        assert found['AP50'] == pytest.approx(0.5)

    @pytest.mark.parametrize('kind', ['mask group', 'box group', 'box'])
    def test_groups_and_objects_without_a_mask_are_ignored(self, kind):
        # Both detections on the place of 32 pixels would be false positives in front of the true one.
        place = (0, 0, 8, 4)
        claims = detections(((0, 0, 2, 2), 0.9), (place, 0.8), ((4, 5, 8, 8), 0.7))
        objects = ((4, 5, 8, 8), 'mask')
        assert statistics(ground_truth(objects, (place, kind)), claims)['AP50'] == pytest.approx(1)
        assert statistics(ground_truth(objects), claims)['AP50'] == pytest.approx(1 / 3)
        # They are no ground truth themselves, and other classes do not see them.
        assert math.isnan(statistics(ground_truth((place, kind)), claims)['AP'])
        assert statistics(ground_truth(objects, (place, kind, 1)), claims, classes=2)['AP50'] == pytest.approx(1 / 3)

    def test_a_blank_mask_is_a_false_positive(self):
        claims = detections(((0, 0, 0, 0), 0.9), (ONE, 0.8))
        assert statistics(ground_truth((ONE, 'mask')), claims)['AP50'] == pytest.approx(0.5)

    def test_ground_truth_without_detections(self):
        found = statistics(ground_truth((ONE, 'mask')), detections())
        assert (found['AP'], found['AR100']) == (0, 0)

    def test_detections_without_ground_truth(self):
        assert all(math.isnan(value) for value in statistics(ground_truth(), detections((ONE, 0.9))).values())

    def test_nothing(self):
        assert all(math.isnan(value) for value in coco_average_precision([], 2).values())


class TestBadInput:
    def test_an_image_counts_once(self):
        image = matched(ground_truth(), named(detections(), 'a'))
        with pytest.raises(EvaluationError, match=r'image a: .*twice'):
            coco_average_precision([image, image], 1)

    def test_detections_need_masks(self):
        claims = ImageDetections(np.zeros(1, int), np.ones(1), np.zeros(1, int), np.array([[0, 0, 1.0, 1]]))
        with pytest.raises(EvaluationError, match=r'^image i: 0 masks, 1 labels and 1 rows of scores'):
            statistics(ground_truth((ONE, 'mask')), claims)

    def test_one_name_for_each_detection(self):
        claims = detections((ONE, 0.9))
        with pytest.raises(EvaluationError, match=r'^image i: 1 masks, 2 labels and 1 rows of scores'):
            matched(ground_truth(), replace(named(claims), named_labels=np.zeros(2, int)))


def test_prints_nothing(capsys):
    statistics(ground_truth((ONE, 'mask')), detections((ONE, 0.9)))
    assert capsys.readouterr().out == ''


class TestAgainstFiles:
    """pycocotools on real COCO annotations and on detections made of them, both read from JSON."""

    @pytest.fixture
    def document(self, test_data):
        return json.loads((test_data / 'coco-by/instances_val.json').read_text())

    @pytest.fixture
    def annotated(self, document):
        """The compressed mask of every annotation."""
        coco = COCO()
        coco.dataset = document
        with contextlib.redirect_stdout(io.StringIO()):
            coco.createIndex()
        return {entry['id']: coco.annToRLE(entry) for entry in document['annotations']}

    @pytest.fixture
    def results(self, document, annotated):
        """Masks moved, dropped, doubled and put in another class, with random scores: COCO's result format."""
        generator = np.random.default_rng(7)
        categories = [entry['id'] for entry in document['categories']]
        found = []
        for entry in document['annotations']:
            pixels = coco_mask.decode(annotated[entry['id']])
            for _ in range(generator.choice([0, 1, 2], p=[0.2, 0.6, 0.2])):
                reach = max(1, round(0.1 * math.sqrt(pixels.sum())))
                moved = np.roll(pixels, generator.integers(-reach, reach + 1, size=2), axis=(0, 1))
                wrong = generator.random() < 0.1
                mask = coco_mask.encode(np.asfortranarray(moved))
                found.append(
                    {
                        'image_id': entry['image_id'],
                        'category_id': int(generator.choice(categories)) if wrong else entry['category_id'],
                        'segmentation': {'size': mask['size'], 'counts': mask['counts'].decode()},
                        'score': float(generator.random()),
                    }
                )
        return found

    def ours(self, document, annotated, results):
        """The same from arrays, one pickled record of each image."""
        label_of = {entry['id']: label for label, entry in enumerate(document['categories'])}
        records = []
        for image in document['images']:
            size = (image['height'], image['width'])
            objects = [entry for entry in document['annotations'] if entry['image_id'] == image['id']]
            claims = [entry for entry in results if entry['image_id'] == image['id']]
            masks = [annotated[entry['id']]['counts'] for entry in objects]
            found = [entry['segmentation']['counts'].encode() for entry in claims]
            labels, names = (
                np.array([label_of[entry['category_id']] for entry in some], dtype=np.int64)
                for some in (objects, claims)
            )
            areas, areas_found = (
                np.array([coco_mask.area({'size': size, 'counts': mask}) for mask in some], dtype=np.int64)
                for some in (masks, found)
            )
            no_boxes, scores = np.zeros((len(found), 4)), np.array([entry['score'] for entry in claims])
            match = matched(
                ImageGroundTruth(
                    labels, np.zeros((len(labels), 4)), np.array([entry['iscrowd'] == 1 for entry in objects], bool),
                    masks, areas, np.zeros(0, np.int64), size,
                ),
                named(
                    ImageDetections(names, scores, np.arange(len(found)), no_boxes, found, areas_found, size),
                    f'{image["id"]:012}',
                ),
            )  # fmt: skip
            records.append(pickle.loads(pickle.dumps(match)))
        return coco_average_precision(records[::-1], len(label_of))

    def theirs(self, document, results, folder):
        (folder / 'ground_truth.json').write_text(json.dumps(document))
        (folder / 'results.json').write_text(json.dumps(results))
        with contextlib.redirect_stdout(io.StringIO()):
            coco = COCO(folder / 'ground_truth.json')
            evaluator = COCOeval(coco, coco.loadRes(str(folder / 'results.json')), 'segm')
            evaluator.evaluate()
            evaluator.accumulate()
            evaluator.summarize()
        return dict(zip(COCO_STATISTICS, evaluator.stats, strict=True))

    def test_all_statistics(self, document, annotated, results, tmp_path):
        # COCO's areas are those of polygons; ours are the pixels of masks, so the file gets these.
        entries = [{**entry, 'area': int(coco_mask.area(annotated[entry['id']]))} for entry in document['annotations']]
        expected = self.theirs({**document, 'annotations': entries}, results, tmp_path)
        found = self.ours(document, annotated, results)
        assert found == pytest.approx(expected, abs=1e-12)
        assert len({round(value, 3) for value in found.values()}) > 8
        assert all(0.05 < value < 0.95 for value in found.values())

    def test_areas_of_polygons_only_matter_to_sizes(self, document, annotated, results, tmp_path):
        expected = self.theirs(document, results, tmp_path)
        found = self.ours(document, annotated, results)
        for name in ('AP', 'AP50', 'AP75', 'AR1', 'AR10', 'AR100'):
            assert found[name] == pytest.approx(expected[name], abs=1e-12), name
