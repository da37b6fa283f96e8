"""The visualizer as MMEngine's hooks call it."""

from __future__ import annotations

from types import SimpleNamespace

import mmcv
import numpy as np
import pytest
import torch
from mmdet.engine.hooks import DetVisualizationHook
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks
from mmengine.registry import VISUALIZERS, init_default_scope
from mmengine.structures import InstanceData
from PIL import ExifTags, Image

from hierseg.errors import ConfigError
from hierseg.report import HierLocalVisualizer
from hierseg.report.drawing import GAP, DrawnInstance, line_height
from hierseg.taxonomy import Taxonomy

TAXONOMY = Taxonomy.from_edges(['animal', 'dog', 'toy'], [('dog', 'animal')], names=['Animal', 'Dog', 'Toy'])
HEIGHT, WIDTH, FACTOR = 120, 160, 4


@pytest.fixture
def visualizer() -> HierLocalVisualizer:
    visualizer = HierLocalVisualizer()
    visualizer.dataset_meta = dict(taxonomy=TAXONOMY.to_json())
    return visualizer


@pytest.fixture
def image() -> np.ndarray:
    return np.full((HEIGHT, WIDTH, 3), 128, dtype=np.uint8)


@pytest.fixture
def sample() -> DetDataSample:
    """A dog with a mask and a toy without one, a group of animals, and a dog that was found."""
    masks = np.zeros((2, HEIGHT, WIDTH), dtype=np.uint8)
    masks[0, 20:60, 30:80] = 1
    sample = DetDataSample(metainfo=dict(verified_positive=np.array([1]), verified_negative=np.array([0, 2])))
    sample.gt_instances = InstanceData(
        bboxes=HorizontalBoxes(torch.tensor([[30.0, 20, 80, 60], [90, 50, 150, 100]])),
        labels=torch.tensor([1, 2]),
        masks=BitmapMasks(masks, HEIGHT, WIDTH),
    )
    sample.ignored_instances = InstanceData(
        bboxes=HorizontalBoxes(torch.tensor([[0.0, 70, 60, 118]])),
        labels=torch.tensor([0]),
        masks=BitmapMasks(np.zeros((1, HEIGHT, WIDTH), dtype=np.uint8), HEIGHT, WIDTH),
    )
    sample.pred_instances = InstanceData(
        bboxes=torch.tensor([[31.0, 21, 79, 61], [100, 5, 150, 40]]),
        labels=torch.tensor([1, 2]),
        scores=torch.tensor([0.71, 0.1]),
        class_scores=torch.tensor([[0.98, 0.71, 0], [0, 0, 0.1]]),
        masks=torch.from_numpy(masks.astype(bool)),
    )
    return sample


@pytest.fixture
def texts(monkeypatch) -> list[list[tuple[str, bool]]]:
    """The longest text of each instance drawn and whether it is dashed, one list for each panel."""
    seen: list[list[tuple[str, bool]]] = []
    from hierseg.report import visualizer

    draw = visualizer.draw_instances

    def record(image: np.ndarray, instances: list[DrawnInstance]):
        seen.append([(instance.texts[0], instance.dashed) for instance in instances])
        return draw(image, instances)

    monkeypatch.setattr(visualizer, 'draw_instances', record)
    return seen


def test_ground_truth_beside_prediction(visualizer, image, sample, texts, tmp_path):
    visualizer.add_datasample('x', image, sample, out_file=str(tmp_path / 'x.png'))
    drawn = mmcv.imread(tmp_path / 'x.png', channel_order='rgb')
    enlarged = np.full((HEIGHT * FACTOR, WIDTH * FACTOR, 3), 128, dtype=np.uint8)
    line = line_height(enlarged)
    # A heading and two lines of verified labels.
    assert drawn.shape == (3 * line + HEIGHT * FACTOR, 2 * WIDTH * FACTOR + GAP, 3)
    truth, found = drawn[line : line + HEIGHT * FACTOR, : WIDTH * FACTOR], drawn[line:, WIDTH * FACTOR + GAP :]
    # Centre of the dog's mask: tinted on both sides alike. The toy's box: on the left only.
    assert truth[40 * FACTOR, 55 * FACTOR].tolist() == found[40 * FACTOR, 55 * FACTOR].tolist() != [128, 128, 128]
    assert (truth[75 * FACTOR, 90 * FACTOR - 1 : 90 * FACTOR + 2] != 128).any()
    assert (found[75 * FACTOR, 90 * FACTOR - 1 : 90 * FACTOR + 2] == 128).all()
    assert texts == [
        [('Animal › Dog', False), ('Toy (box only)', False), ('Animal (group)', True)],
        [('Animal 0.98 › Dog 0.71', False)],
    ]


@pytest.mark.parametrize(('threshold', 'count'), [(0.05, 2), (0.5, 1), (0.9, 0)])
def test_the_threshold_hides_weak_detections(visualizer, image, sample, texts, threshold, count):
    visualizer.add_datasample('x', image, sample, draw_gt=False, pred_score_thr=threshold)
    assert [len(panel) for panel in texts] == [count]


def test_a_plain_detector_without_masks(visualizer, image, texts):
    sample = DetDataSample()
    sample.pred_instances = InstanceData(
        bboxes=torch.tensor([[30.0, 20, 80, 60]]), labels=torch.tensor([1]), scores=torch.tensor([0.5])
    )
    visualizer.add_datasample('x', image, sample)
    assert texts == [[('Animal › Dog 0.50', False)]]


def test_classes_without_a_hierarchy(image, sample, texts):
    visualizer = HierLocalVisualizer()
    visualizer.dataset_meta = dict(classes=('animal', 'dog', 'toy'))
    visualizer.add_datasample('x', image, sample, draw_gt=False)
    assert texts == [[('dog 0.71', False)]]
    visualizer.dataset_meta = dict(classes=('cat', 'cow', 'car'))
    visualizer.add_datasample('x', image, sample, draw_gt=False)
    assert texts[1] == [('cow 0.71', False)]


def test_a_pipeline_without_annotations_shows_the_prediction_alone(visualizer, image, sample, texts):
    sample.gt_instances, sample.ignored_instances = InstanceData(), InstanceData()  # as PackDetInputs leaves them
    visualizer.add_datasample('x', image, sample)
    assert texts == [[('Animal 0.98 › Dog 0.71', False)]]


def test_an_image_without_anything(visualizer, image, texts, tmp_path):
    sample = DetDataSample()
    sample.gt_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.int64))
    visualizer.add_datasample('x', image, sample, out_file=str(tmp_path / 'x.png'))
    assert texts == [[]]
    visualizer.add_datasample('x', image, None, out_file=str(tmp_path / 'y.png'))
    assert (mmcv.imread(tmp_path / 'y.png') == image).all()


def test_no_classes_is_an_error(image, sample):
    with pytest.raises(ConfigError, match='neither taxonomy nor classes'):
        HierLocalVisualizer().add_datasample('x', image, sample)


def test_it_is_found_by_its_scope_and_hands_pictures_to_backends(image, sample, tmp_path):
    init_default_scope('mmdet')
    visualizer = VISUALIZERS.build(
        dict(
            type='hierseg.HierLocalVisualizer',
            name=f'by scope {tmp_path}',
            vis_backends=[dict(type='LocalVisBackend')],
            save_dir=str(tmp_path),
        )
    )
    visualizer.dataset_meta = dict(taxonomy=TAXONOMY.to_json())
    visualizer.add_datasample('picture', image, sample, step=7)
    assert [path.name for path in tmp_path.rglob('*.png')] == ['picture_7.png']


def test_mmdets_hook_writes_pictures(image, sample, tmp_path):
    visualizer = HierLocalVisualizer.get_instance(f'by hook {tmp_path}')
    visualizer.dataset_meta = dict(taxonomy=TAXONOMY.to_json())
    mmcv.imwrite(image, str(tmp_path / 'x.jpg'))
    sample.set_metainfo(dict(img_path=str(tmp_path / 'x.jpg')))
    hook = DetVisualizationHook(draw=True, test_out_dir='shown')
    hook.after_test_iter(SimpleNamespace(work_dir=str(tmp_path), timestamp='now'), 0, {}, [sample])
    assert mmcv.imread(tmp_path / 'now' / 'shown' / 'x.jpg').shape[1] == 2 * WIDTH * FACTOR + GAP


def test_an_image_that_the_hook_read_turned(visualizer, tmp_path):
    upright = Image.new('RGB', (WIDTH, HEIGHT), (0, 200, 0))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # to be turned by a quarter
    upright.save(tmp_path / 'x.jpg', exif=exif)
    turned = mmcv.imread(tmp_path / 'x.jpg', channel_order='rgb')
    assert turned.shape == (WIDTH, HEIGHT, 3)
    sample = DetDataSample(
        metainfo=dict(img_path=str(tmp_path / 'x.jpg'), ori_shape=(HEIGHT, WIDTH), img_shape=(240, 320))
    )
    sample.pred_instances = InstanceData(
        bboxes=torch.tensor([[0.0, 0, 150, 100]]),
        labels=torch.tensor([1]),
        scores=torch.tensor([0.9]),
        masks=torch.ones(1, HEIGHT, WIDTH, dtype=torch.bool),
    )
    visualizer.add_datasample('x', turned, sample, out_file=str(tmp_path / 'drawn.png'))
    assert mmcv.imread(tmp_path / 'drawn.png').shape[1] == WIDTH * FACTOR
