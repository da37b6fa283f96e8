"""A model on every kind of input, and against tools/test.py."""

from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import ExifTags, Image
from tiny_detectors import settings

import hierseg
from hierseg.apis import evaluate
from hierseg.apis.trained import decide_by
from hierseg.errors import AnnotationError, ConfigError
from hierseg.found import Found
from hierseg.functional import Relations
from hierseg.functional.decisions import RULES
from hierseg.pictures import read_picture
from hierseg.prediction import Predictor, load_model
from hierseg.registry import MODELS
from hierseg.report import HierLocalVisualizer
from hierseg.taxonomy import read_taxonomy


def assert_same(found: Found, expected: Found) -> None:
    np.testing.assert_array_equal(found.boxes, expected.boxes)
    np.testing.assert_array_equal(found.class_scores, expected.class_scores)
    assert found.labels.tolist() == expected.labels.tolist()
    assert found.masks == expected.masks


def found_again(expected: Found, found: Found, *, pixels: float) -> float:
    """The part of detections that others have with a box that differs by so much at most."""
    differences = np.abs(expected.boxes[:, None] - found.boxes[None]).max(axis=2)
    return float((differences.min(axis=1) <= pixels).mean())


class TestAgainstTheTest:
    """Predictions are those of tools/test.py on the same images, to the last bit."""

    @pytest.mark.parametrize('system', ['end_to_end', 'ensemble', 'third'])
    def test_on_the_validation_images(
        self, trained: dict[str, Any], system: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        config, checkpoint, folder = trained[system]
        monkeypatch.chdir(folder)
        monkeypatch.syspath_prepend(folder)
        monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '-1')
        monkeypatch.setattr(HierLocalVisualizer, '_instance_dict', OrderedDict())
        dump, options = tmp_path / 'tested.pkl', {'test_dataloader.batch_size': 1, 'test_dataloader.dataset.indices': 3}
        evaluate(config, str(checkpoint), work_dir=tmp_path, out=str(dump), options=options)
        tested = pickle.loads(dump.read_bytes())

        model = load_model(config, checkpoint, device='cpu', score_thr=0, orientation='stored')
        assert len(tested) == 3
        for sample in tested:
            found, expected = model(sample['img_path']), sample['pred_instances']
            assert len(found) == len(expected['labels']) > 5
            np.testing.assert_array_equal(found.boxes, expected['bboxes'].numpy())
            np.testing.assert_array_equal(found.scores, expected['scores'].numpy())
            np.testing.assert_array_equal(found.class_scores, expected['class_scores'].numpy())
            assert found.labels.tolist() == expected['labels'].tolist()
            assert [instance.path for instance in found] == expected['paths']
            assert found.masks == [
                {'size': list(mask['size']), 'counts': mask['counts'].decode()} for mask in expected['masks']
            ]

    def test_names_are_those_of_the_data(self, model: Predictor, images: list[str], trained: dict[str, Any]) -> None:
        folder = trained['end_to_end'].folder
        taxonomy = read_taxonomy(folder / 'data/quickstart/store/validation/taxonomy.json')
        found = model(images[0])
        paths = [' › '.join(instance.path) for instance in found]
        assert paths == [taxonomy.path_name(label) for label in found.labels.tolist()]
        assert any(len(instance.path) > 1 for instance in found)


class TestInputs:
    def test_a_path_an_array_and_an_image_of_pillow(self, model: Predictor, images: list[str]) -> None:
        found = model(images[0])
        assert found.source == images[0]
        assert found.image is None
        assert_same(model(Path(images[0])), found)
        array = model(read_picture(images[0]))
        assert_same(array, found)
        assert array.source is None
        np.testing.assert_array_equal(array.image, found.picture())
        # Pillow decodes JPEG by another rounding than OpenCV, so a lossless file.
        Image.fromarray(array.image).save(Path(images[0]).with_suffix('.bmp'))
        with Image.open(Path(images[0]).with_suffix('.bmp')) as opened:
            assert_same(model(opened), found)
        Path(images[0]).with_suffix('.bmp').unlink()

    def test_channels_are_red_green_blue(self, model: Predictor, images: list[str]) -> None:
        picture = read_picture(images[0])
        swapped = model(np.ascontiguousarray(picture[..., ::-1]))
        assert swapped.boxes.tolist() != model(picture).boxes.tolist()

    def test_lists_folders_and_patterns(self, model: Predictor, images: list[str]) -> None:
        singles = [model(image) for image in images]
        folder = Path(images[0]).parent
        pattern, mixed = str(folder / f'{Path(images[1]).stem[:4]}*'), [images[0], read_picture(images[1])]
        for results, expected in (
            (model(images), singles),
            (model(folder), singles),
            (model(pattern), [singles[1]]),
            (model(mixed), singles[:2]),
        ):
            assert [type(found) for found in results] == [Found] * len(expected)
            for found, single in zip(results, expected, strict=True):
                assert_same(found, single)
        assert model([]) == []

    def test_a_video_is_an_iterator_of_frames(self, model: Predictor, video: str) -> None:
        frames = model(video)
        first = next(frames)
        assert (first.source, first.frame, first.image_size) == (video, 0, (64, 80))
        rest = list(frames)
        assert [found.frame for found in rest] == [1, 2, 3, 4]
        for found in (first, *rest):
            assert_same(model(found.image), found)
        capture = cv2.VideoCapture(video)
        np.testing.assert_array_equal(first.image, capture.read()[1][..., ::-1])

    def test_a_camera(self, model: Predictor, video: str, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[int] = []
        original = cv2.VideoCapture
        monkeypatch.setattr(cv2, 'VideoCapture', lambda number: asked.append(number) or original(video))
        frames = [found.frame for found in model('camera:3')]
        assert (asked, frames) == ([3], [0, 1, 2, 3, 4])

    @pytest.mark.parametrize('orientation', ['turned', 'stored'])
    def test_a_photograph_that_was_taken_sideways(
        self, trained: dict[str, Any], images: list[str], orientation: str, tmp_path: Path, monkeypatch
    ) -> None:
        monkeypatch.syspath_prepend(trained['end_to_end'].folder)
        config, checkpoint, _ = trained['end_to_end']
        model = load_model(config, checkpoint, device='cpu', score_thr=0, orientation=orientation)
        pixels = read_picture(images[0])[:60]
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = 6  # what is stored as the left side is the top
        Image.fromarray(pixels).save(tmp_path / 'photo.png', exif=exif)
        seen = np.ascontiguousarray(np.rot90(pixels, -1)) if orientation == 'turned' else pixels
        found = model(tmp_path / 'photo.png')
        assert found.image_size == seen.shape[:2]
        assert_same(found, model(seen))
        with Image.open(tmp_path / 'photo.png') as opened:
            assert_same(model(opened), found)
        np.testing.assert_array_equal(found.picture(), seen)

    @pytest.mark.parametrize(
        ('given', 'message'),
        [
            ('nowhere.jpg', 'nowhere.jpg: the image cannot be read'),
            ('nowhere/*.jpg', 'no image or video matches'),
            ('nowhere.mp4', 'the input does not exist'),
            ('camera:front', 'a camera is named by its number'),
            (np.zeros((4, 4), np.uint8), r'an array \(4, 4\) of uint8 is no input'),
            (np.zeros((4, 4, 3)), 'of float64 is no input'),
            (7, 'a int is no input'),
            (['a.jpg', 'b.mp4'], 'b.mp4: a list holds images'),
        ],
    )
    def test_what_is_none(self, model: Predictor, given: Any, message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            model(given)

    def test_damaged_files(self, model: Predictor, tmp_path: Path) -> None:
        for name, message in (('x.jpg', 'is no readable image'), ('x.mp4', 'is no readable video')):
            (tmp_path / name).write_bytes(b'neither')
            with pytest.raises(AnnotationError, match=message):
                model(tmp_path / name)


class TestOptions:
    def test_a_score_threshold(self, model: Predictor, images: list[str]) -> None:
        everything = model(images[0])
        middle = float(np.median(everything.scores))
        some = model(images[0], score_thr=middle)
        assert 0 < len(some) < len(everything)
        assert_same(some, everything[everything.scores >= middle])

    def test_batches_change_nothing(self, model: Predictor, images: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
        """A picture is never padded to the size of another; the kernels round differently, so nearly equal."""
        whole = [read_picture(image) for image in images]
        pictures = [*(picture[:64, :64] for picture in whole[:3]), whole[3][:40, :64], whole[4][:64, :64]]
        singles, sizes, finder = model(pictures), [], model.finder
        monkeypatch.setattr(
            model, 'finder', lambda batch, **options: sizes.append(len(batch)) or finder(batch, **options)
        )
        batches = model(pictures, batch_size=2)
        assert sizes == [2, 1, 1, 1]
        assert [found.image_size for found in batches] == [(64, 64)] * 3 + [(40, 64), (64, 64)]
        for found, single in zip(batches, singles, strict=True):
            assert found_again(single, found, pixels=0.1) > 0.9

    @pytest.mark.parametrize('system', ['end_to_end', 'ensemble'])
    def test_rules_and_thresholds(
        self, trained: dict[str, Any], images: list[str], system: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        config, checkpoint, folder = trained[system]
        monkeypatch.syspath_prepend(folder)
        model = load_model(config, checkpoint, device='cpu', score_thr=0, threshold=0.9)
        found = model(images[0])
        assert_same(found, found.back_off(0.9))
        detector, relations = model.finder.detector, Relations.of(model.finder.taxonomy.arrays)
        if system == 'ensemble':
            assert detector.merge_options['decision_threshold'] == 0.9
        else:
            for rule in ('leaf', 'distance'):
                decide_by(detector, rule=rule, threshold=None)
                found = model(images[0])
                expected = RULES[rule].choose(torch.from_numpy(found.class_scores), relations)
                assert found.labels.tolist() == expected.tolist()
        if system == 'ensemble':
            with pytest.raises(ConfigError, match='It knows back_off alone'):
                decide_by(detector, rule='leaf', threshold=None)

    @pytest.mark.parametrize(
        ('wrong', 'message'),
        [
            ({'batch_size': 0}, 'batch_size=0'),
            ({'orientation': 'upright'}, "orientation='upright'"),
            ({'checkpoint': None}, 'a config alone has no weights'),
            ({'rule': 'deepest'}, "rule='deepest'.* Use one of the rules back_off, leaf, distance"),
            ({'threshold': 0.0}, 'threshold=0.0'),
            ({'threshold': 2}, 'threshold=2'),
        ],
    )
    def test_that_are_wrong_are_refused_at_once(
        self, trained: dict[str, Any], wrong: dict[str, Any], message: str
    ) -> None:
        config, checkpoint, _ = trained['end_to_end']
        with pytest.raises(ConfigError, match=message):
            load_model(config, **{'checkpoint': checkpoint, **wrong})


class TestWithoutTheData:
    def test_the_checkpoint_has_the_classes(
        self, trained: dict[str, Any], model: Predictor, images: list[str], tmp_path: Path, monkeypatch
    ) -> None:
        """Config and checkpoint are enough: the store that the config names is not there."""
        config, checkpoint, folder = trained['end_to_end']
        monkeypatch.syspath_prepend(folder)
        monkeypatch.chdir(tmp_path)
        assert not Path(Config.fromfile(config).taxonomy).exists()
        moved = load_model(config, shutil.copy(checkpoint, tmp_path), device='cpu', score_thr=0)
        assert_same(moved(images[0]), model(images[0]))

    def test_a_detector_without_a_hierarchy(self, images: list[str], tmp_path: Path) -> None:
        description = settings('RetinaNet')
        description.bbox_head.num_classes = 2
        pipeline = [
            dict(type='LoadImageFromFile'),
            dict(type='Resize', scale=(96, 96), keep_ratio=True),
            dict(type='LoadAnnotations', with_bbox=True),
            dict(type='PackDetInputs', meta_keys=('ori_shape', 'img_shape', 'scale_factor')),
        ]
        loader = dict(dataset=dict(pipeline=pipeline))
        Config(dict(model=description, test_dataloader=loader, default_scope='mmdet')).dump(tmp_path / 'plain.py')
        torch.manual_seed(0)
        meta = {'dataset_meta': {'classes': ('cat', 'dog')}}
        torch.save({'state_dict': MODELS.build(description).state_dict(), 'meta': meta}, tmp_path / 'plain.pth')
        model = load_model(tmp_path / 'plain.py', tmp_path / 'plain.pth', device='cpu', score_thr=0)
        found = model(images[0])
        assert len(found) > 0
        assert found.masks is None
        assert {instance.path for instance in found} <= {('cat',), ('dog',)}
        np.testing.assert_array_equal(found.class_scores[np.arange(len(found)), found.labels], found.scores)
        with pytest.raises(ConfigError, match='without a rule'):
            load_model(tmp_path / 'plain.py', tmp_path / 'plain.pth', device='cpu', threshold=0.7)
        torch.save({'state_dict': MODELS.build(description).state_dict()}, tmp_path / 'plain.pth')
        with pytest.raises(ConfigError, match='does not name its classes'):
            load_model(tmp_path / 'plain.py', tmp_path / 'plain.pth', device='cpu')


class TestExportedModels:
    @pytest.fixture
    def opened(self, monkeypatch: pytest.MonkeyPatch, images: list[str], model: Predictor) -> list[tuple[Any, ...]]:
        """What hierseg.deploy was asked for; in its place the torch model answers."""
        asked: list[tuple[Any, ...]] = []

        class Exported:
            rule = 'leaf'

            def __call__(self, pictures: list[Any], *, batch_size: int) -> list[Found]:
                asked.append((len(pictures), batch_size))
                return model(pictures)

        module = ModuleType('hierseg.deploy')
        module.load_model = lambda path, *, providers: asked.append((path, providers)) or Exported()
        monkeypatch.setitem(sys.modules, 'hierseg.deploy', module)
        monkeypatch.setattr(hierseg, 'deploy', module, raising=False)
        return asked

    def test_are_called_like_others(
        self, opened: list[tuple[Any, ...]], images: list[str], video: str, model: Predictor
    ) -> None:
        exported = load_model('model.onnx', device='cpu', score_thr=0.4, batch_size=2)
        results = exported(images[:3])
        assert opened == [('model.onnx', ['CPUExecutionProvider']), (2, 2), (1, 1)]
        for found, image in zip(results, images, strict=False):
            assert_same(found, model(image, score_thr=0.4))
            assert found.source == image
        assert [found.frame for found in exported(video)] == [0, 1, 2, 3, 4]

    def test_name_by_another_threshold(
        self, opened: list[tuple[Any, ...]], images: list[str], model: Predictor
    ) -> None:
        wary = load_model('model.onnx', threshold=0.9, score_thr=0)(images[0])
        assert_same(wary, model(images[0]).back_off(0.9))
        # Its own rule is another one.
        backing = load_model('model.onnx', rule='back_off', score_thr=0)(images[0])
        assert_same(backing, model(images[0]).back_off(0.5))

    def test_need_onnxruntime(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, 'onnxruntime', None)
        for name in [name for name in sys.modules if name.startswith('hierseg.deploy')]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.delattr(hierseg, 'deploy', raising=False)
        with pytest.raises(ConfigError, match=r"onnxruntime is not installed.* pip install 'hierseg\[deploy\]'"):
            load_model('model.onnx')

    @pytest.mark.parametrize(
        'wrong',
        [{'checkpoint': 'x.pth'}, {'rule': 'distance'}, {'device': 'tpu'}, {'options': {'a': 1}}, {'threshold': 0}],
    )
    def test_have_their_options_inside(self, wrong: dict[str, Any]) -> None:
        with pytest.raises(ConfigError):
            load_model('model.onnx', **wrong)


def test_hierseg_itself_has_it_and_stays_light() -> None:
    script = (
        'import sys, hierseg\n'
        "assert not {'torch', 'numpy', 'cv2', 'mmdet'} & sys.modules.keys()\n"
        'load = hierseg.load_model\n'
        "assert not {'torch', 'mmdet', 'mmcv', 'mmengine'} & sys.modules.keys()\n"
        'from hierseg.prediction import load_model\n'
        'assert load is load_model\n'
    )
    subprocess.run([sys.executable, '-c', script], check=True)
    with pytest.raises(AttributeError, match='no attribute'):
        _ = hierseg.lode_model
