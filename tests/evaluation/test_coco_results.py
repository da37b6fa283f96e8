"""Detections as COCO results: they say what the submission of the same model says, and COCO's own tools read them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from small_store import rectangle_mask

from hierseg.apis.compare import compare
from hierseg.apis.evaluated_systems import PredictionsSource
from hierseg.converters.coco import convert_coco, write_coco
from hierseg.errors import EvaluationError, HiersegError
from hierseg.evaluation import CocoResults, OpenImagesInstanceMetric
from hierseg.evaluation.predictions import read_predictions
from hierseg.evaluation.result_keys import keys_of_file
from hierseg.metrics.submissions import detection_rows
from hierseg.store import Store
from hierseg.taxonomy import Taxonomy

TOY, ANIMAL, TEDDY, DOG = range(4)
DOGS = np.zeros((2, 30, 40), dtype=bool)
DOGS[0, 5:15, 4:14] = True  # the dog of image 0, exactly
DOGS[1, 20:28, 30:38] = True
# The first is named Dog, although Animal, by the rule of submissions, would be named Dog only from 0.4 on.
SCORES = np.zeros((2, 4), dtype=np.float32)
SCORES[0, [ANIMAL, DOG]] = 0.8, 0.3
SCORES[1, [TOY, TEDDY]] = 0.7, 0.1 + 0.2
INSTANCES = {
    'bboxes': np.array([[3.5, 5, 14, 15.25], [30, 20, 38, 28]], dtype=np.float32),
    'labels': np.array([DOG, TOY]),
    'class_scores': SCORES,
    'masks': DOGS,
}
NONE = {name: values[:0] for name, values in INSTANCES.items()}


def sizes_of(store: Store) -> list[tuple[int, int]]:
    return [(store.image(row).height, store.image(row).width) for row in range(len(store))]


def samples(store: Store):
    """The detections on image 0, nothing on the others."""
    for row, size in enumerate(sizes_of(store)):
        instances = INSTANCES if row == 0 else {**NONE, 'masks': np.zeros((0, *size), dtype=bool)}
        yield {'img_id': store.image(row).id, 'pred_instances': instances}


def write_results(store: Path, out: Path) -> list[dict]:
    metric = CocoResults(str(store), out_file=str(out))
    for sample in samples(metric.store):
        metric.process(None, [sample])
    assert metric.evaluate(len(metric.store)) == {}
    assert [path for path in out.parent.iterdir() if path.name.endswith('.partial')] == []
    return json.loads(out.read_text())


def test_what_is_written(pets, tmp_path):
    dog, toy = write_results(pets.store, tmp_path / 'results.json')
    # Class ids are no numbers, so that categories are numbered from 1 as by write_coco; image ids are none either.
    assert dog == {
        'image_id': '0000000000000000',
        'category_id': 4,
        'score': float(np.float32(0.3)),
        'bbox': [3.5, 5, 10.5, 10.25],
        'segmentation': {'size': [30, 40], 'counts': rectangle_mask(30, 40, (4, 5, 14, 15)).decode()},
        'class_scores': {'2': float(np.float32(0.8)), '4': float(np.float32(0.3))},
    }
    assert (toy['category_id'], toy['class_scores'].keys()) == (1, {'1', '3'})


def test_no_detections_are_an_empty_list(pets, tmp_path):
    metric = CocoResults(str(pets.store), out_file=str(tmp_path / 'results.json'))
    metric.process(None, [{'img_id': metric.store.image(0).id, 'pred_instances': {**NONE, 'masks': DOGS[:0]}}])
    metric.evaluate(1)
    assert json.loads((tmp_path / 'results.json').read_text()) == []


def test_empty_masks_are_left_out(pets, tmp_path):
    metric = CocoResults(str(pets.store), out_file=str(tmp_path / 'results.json'))
    masks = DOGS & np.array([True, False])[:, None, None]
    metric.process(None, [{'img_id': metric.store.image(0).id, 'pred_instances': {**INSTANCES, 'masks': masks}}])
    metric.evaluate(1)
    assert [entry['category_id'] for entry in json.loads((tmp_path / 'results.json').read_text())] == [4]


def test_reading_gives_the_same_as_the_submission_and_keeps_names(pets, tmp_path):
    write_results(pets.store, tmp_path / 'results.json')
    metric = OpenImagesInstanceMetric(str(pets.store), submission_file=str(tmp_path / 'submission.csv'))
    for sample in samples(metric.store):
        metric.process(None, [sample])
    metric.evaluate(4)
    store = Store.open(pets.store)
    of_results, of_rows = (read_predictions(tmp_path / name, store) for name in ('results.json', 'submission.csv'))
    for mine, theirs in zip(of_results, of_rows, strict=True):
        assert (mine.image_id, mine.masks, mine.size) == (theirs.image_id, theirs.masks, theirs.size)
        for name in ('boxes', 'class_scores', 'mask_areas'):
            np.testing.assert_array_equal(getattr(mine, name), getattr(theirs, name))
    np.testing.assert_array_equal(of_results[0].class_scores, SCORES)
    assert of_results[0].named_labels.tolist() == [DOG, TOY]
    assert of_rows[0].named_labels.tolist() == [ANIMAL, TOY]


def test_an_entry_with_a_path_stays_one_detection_beside_another_of_the_same_mask(pets, tmp_path):
    dog, toy = write_results(pets.store, tmp_path / 'results.json')
    second = {**dog, 'category_id': 2, 'score': 0.7, 'class_scores': {'2': 0.7}}  # of one class: joins its like
    again = {**dog, 'class_scores': {'2': 0.4, '4': 0.1}}
    third = {**second, 'category_id': 4, 'score': 0.6, 'class_scores': {'4': 0.6}}
    (tmp_path / 'more.json').write_text(json.dumps([second, dog, toy, again, third]))
    found = read_predictions(tmp_path / 'more.json', Store.open(pets.store))[0]
    mask = dog['segmentation']['counts'].encode()
    assert [given == mask for given in found.masks] == [True, True, False, True]
    np.testing.assert_allclose(found.class_scores[:, [ANIMAL, DOG]], [[0.7, 0.6], [0.8, 0.3], [0, 0], [0.4, 0.1]])
    assert found.named_labels.tolist() == [ANIMAL, DOG, TOY, DOG]
    assert found.mask_areas is not None
    assert found.mask_areas[[0, 1, 3]].tolist() == [100] * 3


@pytest.mark.parametrize('names', ['ids', 'numbers of the COCO file', 'numbers of file names'])
def test_a_foreign_detector_names_images_in_its_own_way(pets, tmp_path, names):
    # Image 3 is the fourth of the file that write_coco makes, so its number there is 4; its file is 000…03.jpg.
    mask = {'size': [16, 20], 'counts': rectangle_mask(16, 20, (2, 2, 10, 10)).decode()}
    image = {'ids': '0000000000000003', 'numbers of the COCO file': 4, 'numbers of file names': 3}[names]
    entries = [{'image_id': image, 'category_id': 4, 'score': 0.5, 'segmentation': mask}]
    if names != 'ids':
        # Another image, so that only one way fits both: number 1 is image 0 there, and 0 is a name of a file only.
        other = {'size': [30, 40], 'counts': rectangle_mask(30, 40, (4, 5, 14, 15)).decode()}
        first = {'numbers of the COCO file': 1, 'numbers of file names': 0}[names]
        entries.append({'image_id': first, 'category_id': '/m/dog', 'score': 0.25, 'segmentation': other})
    path = tmp_path / 'results.json'
    path.write_text(json.dumps(entries))
    found = {image.image_id: image for image in read_predictions(path, Store.open(pets.store))}
    assert found['0000000000000003'].named_labels.tolist() == [DOG]
    assert found['0000000000000003'].mask_areas.tolist() == [64]
    assert len(found['0000000000000000'].class_scores) == len(entries) - 1


@pytest.fixture
def farm(tmp_path: Path) -> Path:
    """A store of a COCO file with image ids 7 and 9 and category ids 20 and 10, and a class above both."""
    images = tmp_path / 'images'
    images.mkdir()
    for name in ('7.jpg', '8.jpg'):  # the name of the second is the id of none
        Image.new('RGB', (40, 30)).save(images / name)
    document = {
        'images': [{'id': 7, 'file_name': '7.jpg', 'width': 40, 'height': 30},
                   {'id': 9, 'file_name': '8.jpg', 'width': 40, 'height': 30}],
        'categories': [{'id': 20, 'name': 'dog', 'supercategory': 'animal'},
                       {'id': 10, 'name': 'cat', 'supercategory': 'animal'}],
        'annotations': [
            {'id': 1, 'image_id': 7, 'category_id': 20, 'bbox': [4, 5, 10, 10], 'area': 100, 'iscrowd': 0,
             'segmentation': [[4, 5, 14, 5, 14, 15, 4, 15]]},
            {'id': 2, 'image_id': 9, 'category_id': 10, 'bbox': [0, 0, 8, 8], 'area': 64, 'iscrowd': 0,
             'segmentation': [[0, 0, 8, 0, 8, 8, 0, 8]]},
        ],
    }  # fmt: skip
    (tmp_path / 'farm.json').write_text(json.dumps(document))
    convert_coco(tmp_path / 'farm.json', images=images, out=tmp_path / 'farm')
    return tmp_path / 'farm'


def test_pycocotools_reads_what_is_written(farm, tmp_path):
    store = Store.open(farm)
    dog, animal = (store.taxonomy.names.index(name) for name in ('dog', 'animal'))
    scores = np.zeros((2, 3), dtype=np.float32)
    scores[0, [dog, animal]] = 0.75, 0.5
    scores[1, animal] = 0.5
    instances = {**INSTANCES, 'labels': np.array([dog, animal]), 'class_scores': scores}
    metric = CocoResults(str(farm), out_file=str(tmp_path / 'results.json'))
    metric.process(None, [{'img_id': '7', 'pred_instances': instances}])
    metric.evaluate(1)
    entries = json.loads((tmp_path / 'results.json').read_text())
    # Animal is no category of the file: it stands by its class id.
    assert [(entry['image_id'], entry['category_id']) for entry in entries] == [
        (7, 20),
        (7, store.taxonomy.ids[animal]),
    ]
    write_coco(store, tmp_path / 'back.json')
    truth = COCO(str(tmp_path / 'back.json'))
    judge = COCOeval(truth, truth.loadRes(str(tmp_path / 'results.json')), 'segm')
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
    # The dog is found in full, the cat is not: mean of 1 and 0.
    assert judge.stats[0] == pytest.approx(0.5)
    assert read_predictions(tmp_path / 'results.json', store)[0].named_labels.tolist() == [dog, animal]


def test_keys_of_a_coco_file(farm, tmp_path):
    # The official ids are the names of the files, 7 and 8; the file's own are 7 and 9.
    taxonomy = Taxonomy.from_edges(['/m/dog', '/m/cat'], [], names=['dog', 'cat'])
    keys = keys_of_file(tmp_path / 'farm.json', taxonomy)
    assert (keys.categories['20'], keys.categories['10'], keys.categories['/m/cat']) == (0, 1, 1)
    assert (keys.sizes['7'], keys.sizes['9'], keys.sizes['8']) == ((30, 40),) * 3
    path = tmp_path / 'results.json'
    path.write_text(
        json.dumps([{'image_id': image, 'category_id': 10, 'score': 0.5, 'bbox': [4, 3, 8, 6]} for image in (7, 9)])
    )
    [batch] = detection_rows(path, ['8', '7'], taxonomy=taxonomy, iou_type='bbox', keys=keys)
    # x 4 / 40, y 3 / 30, x 12 / 40, y 9 / 30.
    assert batch.to_pylist() == [
        {'row': row, 'image': image, 'label': 1, 'score': 0.5, 'XMin': 0.1, 'YMin': 0.1, 'XMax': 0.3, 'YMax': 0.3}
        for row, image in ((0, 1), (1, 0))
    ]


def test_a_foreign_detector_enters_a_comparison(pets, tmp_path):
    write_results(pets.store, tmp_path / 'ours.json')
    mask = {'size': [30, 40], 'counts': rectangle_mask(30, 40, (4, 5, 14, 15)).decode()}
    foreign = {'image_id': 0, 'category_id': 4, 'score': 0.9, 'segmentation': mask}
    (tmp_path / 'theirs.json').write_text(json.dumps([foreign]))
    sources = [PredictionsSource(name, str(tmp_path / f'{name}.json')) for name in ('ours', 'theirs')]
    compare(sources, tmp_path / 'page', store=pets.store, images=pets.images, num_pictures=1)
    with pytest.raises(HiersegError, match=r'has 40 x 30 pixels .*--max-pixels'):
        compare(sources, tmp_path / 'page', store=pets.store, images=pets.images, max_pixels=1199)
    ours, theirs = json.loads((tmp_path / 'page' / 'results.json').read_text())['systems']
    # Dogs with a mask are on images 0 and 3, one each. Ours claims Dog and Animal on the first, theirs Dog alone.
    assert [system['class_ap'][DOG] for system in (ours, theirs)] == [0.5, 0.5]
    assert [system['class_ap'][ANIMAL] for system in (ours, theirs)] == [0.5, 0.0]


def test_boxes_alone_are_refused_where_masks_are_compared(pets, tmp_path):
    path = tmp_path / 'boxes.json'
    path.write_text(json.dumps([{'image_id': 1, 'category_id': 4, 'score': 0.9, 'bbox': [4, 5, 10, 10]}]))
    with pytest.raises(EvaluationError, match=r'boxes\.json, entry 1: the detection has no segmentation'):
        read_predictions(path, Store.open(pets.store))
