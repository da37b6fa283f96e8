"""The visualizer as MMEngine's hooks call it, and pictures of data sets by functions and by the tool."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import mmcv
import numpy as np
import pytest
import torch
from mmcv.transforms import LoadImageFromFile
from mmdet.datasets.transforms import PackDetInputs
from mmdet.engine.hooks import DetVisualizationHook
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks
from mmengine.config import Config
from mmengine.registry import VISUALIZERS, init_default_scope
from mmengine.structures import InstanceData
from PIL import ExifTags, Image
from warm_python import warm_python

from hierseg import drawing
from hierseg.datasets import StoreDataset
from hierseg.drawing import GAP, DrawnInstance, line_height
from hierseg.errors import ConfigError
from hierseg.locks import locked
from hierseg.report import HierLocalVisualizer
from hierseg.report.visualizer import browse_dataset, configured_dataset, store_dataset
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
    draw = drawing.draw_instances

    def record(image: np.ndarray, instances: list[DrawnInstance]):
        seen.append([(instance.texts[0], instance.dashed) for instance in instances])
        return draw(image, instances)

    monkeypatch.setattr(drawing, 'draw_instances', record)
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
    upright = Image.new('RGB', (WIDTH, HEIGHT), (200, 0, 0))
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
    drawn = np.asarray(Image.open(tmp_path / 'drawn.png'))
    assert drawn.shape[1] == WIDTH * FACTOR
    red, _, blue = np.median(drawn, axis=(0, 1))
    assert red > blue + 50  # a red picture stays red


ROOT = Path(__file__).parents[2]
TOOL = ROOT / 'tools' / 'analysis_tools' / 'browse_dataset.py'
CONFIG = """
default_scope = 'mmdet'
pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='Resize', scale=(20, 15), keep_ratio=True),
    dict(type='PackDetInputs'),
]
train_dataloader = dict(
    dataset=dict(
        type='hierseg.StoreDataset',
        store={store!r},
        data_prefix=dict(img={images!r}),
        filter_cfg=dict(filter_empty_gt=True),
        pipeline=pipeline,
    )
)
"""


@pytest.fixture
def run_tool(monkeypatch):
    """Runs the tool's main function in this process."""
    spec = importlib.util.spec_from_file_location('browse_dataset_tool', TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def run(*arguments: object) -> None:
        monkeypatch.setattr(sys, 'argv', ['browse_dataset.py', *map(str, arguments)])
        module.main()

    return run


def test_a_store_is_drawn_as_it_is(pets, tmp_path):
    dataset = store_dataset(pets.store, pets.images)
    written = browse_dataset(dataset, HierLocalVisualizer(), output_dir=tmp_path / 'out', progress=False)
    assert [path.name for path in written] == [f'{row:016x}.jpg' for row in range(4)]
    # 40 pixels six times enlarged.
    assert mmcv.imread(written[0]).shape[1] == 240


def test_a_few_images_are_spread_over_the_data_set(pets, tmp_path):
    dataset = store_dataset(pets.store, pets.images)
    written = browse_dataset(dataset, HierLocalVisualizer(), output_dir=tmp_path, max_images=2, progress=False)
    assert [int(path.stem, 16) for path in written] == [0, 3]


def test_a_split_that_the_config_lacks():
    with pytest.raises(ConfigError, match='no val_dataloader'):
        configured_dataset(Config(dict(train_dataloader=dict())), 'val')


def test_a_pipeline_without_annotations(pets, tmp_path):
    pipeline = [LoadImageFromFile(), PackDetInputs(meta_keys=('img_path',))]
    dataset = StoreDataset(pets.store, data_prefix=dict(img=str(pets.images)), pipeline=pipeline)
    with pytest.raises(ConfigError, match='StoreDataset: the pipeline loads no annotations'):
        browse_dataset(dataset, HierLocalVisualizer(), output_dir=tmp_path, progress=False)


def test_a_config_is_drawn_after_its_pipeline(pets, tmp_path):
    init_default_scope('mmdet')
    path = tmp_path / 'config.py'
    path.write_text(CONFIG.format(store=str(pets.store), images=str(pets.images)))
    dataset = configured_dataset(Config.fromfile(path), 'train')
    written = browse_dataset(dataset, HierLocalVisualizer(), output_dir=tmp_path / 'out', progress=False)
    # The filter leaves two; they are read with 20 pixels and enlarged six times.
    assert [int(path.stem, 16) for path in written] == [0, 3]
    assert mmcv.imread(written[0]).shape[1] == 120


def test_the_tool_writes_pictures_and_says_where(pets, tmp_path):
    out = tmp_path / 'pictures'
    options = ['--store', pets.store, '--images', pets.images, '--output-dir', out, '--not-show', '--max-images', '1']
    environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
    done = subprocess.run([warm_python(), TOOL, *options], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.endswith(f'1 picture written to {out}\n')
    assert len(list(out.iterdir())) == 1


def test_the_tool_reads_a_config_and_its_overrides(pets, tmp_path, run_tool, capsys):
    path = tmp_path / 'config.py'
    path.write_text(CONFIG.format(store=str(pets.store), images=str(pets.images)))
    out = tmp_path / 'pictures'
    override = 'train_dataloader.dataset.filter_cfg.filter_empty_gt=False'
    run_tool(path, '--output-dir', out, '--not-show', '--cfg-options', override)
    assert f'4 pictures written to {out}' in capsys.readouterr().out


def test_a_second_tool_at_once_is_told_so(pets, tmp_path, run_tool, capsys):
    with locked(tmp_path), pytest.raises(SystemExit, match='2'):
        run_tool('--store', pets.store, '--images', pets.images, '--output-dir', tmp_path, '--not-show')
    assert 'another run writes here (process' in capsys.readouterr().err


def test_the_tool_ends_with_one_clear_line(pets, tmp_path, run_tool, capsys):
    with pytest.raises(SystemExit, match='2'):
        run_tool('--store', tmp_path / 'nowhere', '--images', pets.images, '--output-dir', tmp_path, '--not-show')
    assert capsys.readouterr().err.startswith(f'error: {tmp_path}/nowhere: ')


@pytest.mark.parametrize(
    ('arguments', 'complaint'),
    [
        ([], 'name a config or --store'),
        (['--store', 's', '--output-dir', 'o'], '--store and --images go together'),
        (['c.py', '--not-show'], '--not-show without --output-dir'),
        (['c.py', '--max-images', '0'], '--max-images must be at least 1'),
    ],
)
def test_contradictory_arguments(run_tool, capsys, arguments, complaint):
    with pytest.raises(SystemExit, match='2'):
        run_tool(*arguments)
    assert complaint in capsys.readouterr().err


def test_a_config_with_a_data_set_for_each_layer_is_refused() -> None:
    with pytest.raises(ConfigError, match='Name the config of a layer alone'):
        configured_dataset(Config.fromfile(ROOT / 'configs/two_layer_ensemble.py'), 'train')
