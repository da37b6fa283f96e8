"""What hierseg predict leaves, read back with other programs."""

from __future__ import annotations

import json
import math
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
from pycocotools.coco import COCO

import hierseg.prediction.outputs as outputs
from hierseg.__main__ import main
from hierseg.errors import ConfigError, HiersegError
from hierseg.found import Found
from hierseg.pictures import read_picture
from hierseg.prediction import Predictor, predict
from hierseg.prediction.inputs import read_shot


@pytest.fixture
def loaded(model: Predictor, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What load_model was asked for; it gives the model that is loaded already."""
    asked: list[tuple[Any, ...]] = []

    def load(config: Any, checkpoint: Any, **options: Any) -> Predictor:
        asked.append((config, checkpoint, options))
        known = {name: options[name] for name in ('score_thr', 'batch_size', 'orientation') if name in options}
        return Predictor(model.finder, **known)

    monkeypatch.setattr(outputs, 'load_model', load)
    return asked


@pytest.fixture(scope='module')
def photographs(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three photographs of COCO, and one of the same name below it that is damaged, and one that is not."""
    folder = tmp_path_factory.mktemp('photographs')
    (folder / 'more').mkdir()
    for path in sorted((test_data / 'coco-by/images').iterdir())[:3]:
        shutil.copy(path, folder)
    first = min(path.name for path in folder.glob('*.jpg'))
    (folder / 'broken.jpg').write_bytes((folder / first).read_bytes()[:64])
    (folder / 'empty.png').write_bytes(b'')
    shutil.copy(folder / first, folder / 'more')
    return folder


@pytest.fixture(scope='module')
def written(
    model: Predictor, photographs: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, outputs.Summary]:
    """The folder that a prediction on the photographs left, and what it said."""
    out = tmp_path_factory.mktemp('out') / 'found'
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outputs, 'load_model', lambda *_, **options: Predictor(model.finder, score_thr=0.02))
        return out, predict('c.py', 'w.pth', [photographs], out, formats=['jsonl', 'coco', 'csv'], progress=False)


class TestPhotographs:
    @pytest.fixture
    def expected(self, model: Predictor, photographs: Path) -> list[Found]:
        files = [*sorted(photographs.glob('[0-9]*.jpg')), *(photographs / 'more').iterdir()]
        return model([str(file) for file in files], score_thr=0.02)

    def test_unreadable_files_are_counted_and_stop_nothing(self, written: Any, photographs: Path) -> None:
        _, summary = written
        assert summary.images == 4
        assert sorted(summary.unreadable) == [
            f'{photographs / "broken.jpg"}: is no readable image (Truncated File Read). Fetch it again.',
            f'{photographs / "empty.png"}: is no readable image. Fetch it again.',
        ]

    def test_large_ones_are_not_read(self, loaded: list[Any], photographs: Path, tmp_path: Path) -> None:
        sizes = sorted(math.prod(read_shot(path, 'stored').image.shape[:2]) for path in photographs.glob('[0-9]*.jpg'))
        done = predict('c.py', 'w.pth', [photographs], tmp_path, max_pixels=sizes[0], pictures=False, progress=False)
        too_large = [said for said in done.unreadable if '--max-pixels' in said]
        assert done.images + len(too_large) == 4
        assert too_large
        assert done.images

    def test_json_lines(self, written: Any, expected: list[Found]) -> None:
        out, summary = written
        lines = [json.loads(line) for line in (out / 'found.jsonl').read_text(encoding='utf-8').splitlines()]
        assert lines == [json.loads(json.dumps(found.to_json())) for found in expected]
        assert sum(len(line['instances']) for line in lines) == summary.instances > 4

    def test_coco(self, written: Any, expected: list[Found], capsys: pytest.CaptureFixture[str]) -> None:
        coco = COCO(str(written[0] / 'found.json'))
        for number, found in enumerate(expected, 1):
            assert coco.imgs[number]['file_name'] == found.source
            annotations = coco.loadAnns(coco.getAnnIds(imgIds=[number]))
            assert [annotation['category_id'] - 1 for annotation in annotations] == found.labels.tolist()
            masks = [coco.annToMask(annotation).astype(bool) for annotation in annotations]
            np.testing.assert_array_equal(masks, found.decoded_masks())
        assert [coco.cats[label + 1]['name'] for label in range(22)] == list(expected[0].names)

    def test_csv(self, written: Any, expected: list[Found]) -> None:
        table = pd.read_csv(written[0] / 'found.csv')
        whole = pd.concat([found.to_pandas() for found in expected], ignore_index=True)
        assert table['path'].tolist() == whole['path'].tolist()
        assert table['source'].tolist() == whole['source'].tolist()
        np.testing.assert_allclose(table[['score', 'x1', 'area']], whole[['score', 'x1', 'area']], rtol=1e-6)

    def test_pictures(self, written: Any, expected: list[Found]) -> None:
        out, _ = written
        first, *_, last = expected
        stem = Path(first.source).stem
        for name, found in ((f'{stem}.jpg', first), (f'{stem}_2.jpg', last)):
            picture = read_picture(out / 'pictures' / name)
            drawn = found.draw()
            assert picture.shape == drawn.shape
            assert np.abs(picture.astype(int) - drawn).mean() < 6  # JPEG loses some
        assert len(list((out / 'pictures').iterdir())) == 4
        assert not (out / 'videos').exists()


@pytest.mark.usefixtures('loaded')
class TestVideos:
    def test_videos_and_cameras_are_drawn(
        self, model: Predictor, video: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        original = cv2.VideoCapture
        monkeypatch.setattr(cv2, 'VideoCapture', lambda name: original(video if name == 0 else name))
        options = {'score_thr': 0, 'batch_size': 2, 'progress': False}
        summary = predict('c.py', 'w.pth', [video, 'camera:0'], tmp_path, max_frames=3, **options)
        assert (summary.images, summary.unreadable) == (6, [])
        lines = [json.loads(line) for line in (tmp_path / 'found.jsonl').read_text().splitlines()]
        assert [(line['source'], line['frame']) for line in lines] == [
            (source, frame) for source in (video, 'camera:0') for frame in (0, 1, 2)
        ]
        first = next(model(video))
        for name in ('clip.mp4', 'camera0.mp4'):
            capture = original(str(tmp_path / 'videos' / name))
            assert capture.get(cv2.CAP_PROP_FPS) == 10
            frames = []
            while (read := capture.read())[0]:
                frames.append(read[1])
            assert len(frames) == 3
            drawn = first.draw()
            assert frames[0].shape == drawn.shape
            assert np.abs(frames[0][..., ::-1].astype(int) - drawn).mean() < 12  # MPEG-4 loses some

    def test_sides_of_odd_length(self, video: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Encoders of video want even ones: a row and a column are lost."""
        monkeypatch.setattr(Found, 'draw', lambda self: np.zeros((351, 641, 3), np.uint8))
        predict('c.py', 'w.pth', [video], tmp_path / 'out', score_thr=0, progress=False, max_frames=1)
        there, frame = cv2.VideoCapture(str(tmp_path / 'out/videos/clip.mp4')).read()
        assert there
        assert frame.shape == (350, 640, 3)

    def test_one_that_breaks_off_is_said(self, video: str, tmp_path: Path, images: list[str]) -> None:
        cut = tmp_path / 'cut.avi'
        content = Path(video).read_bytes()
        cut.write_bytes(content[: content.rindex(b'00dc', 0, content.index(b'idx1'))])
        summary = predict('c.py', 'w.pth', [cut, images[0]], tmp_path / 'out', pictures=False, progress=False)
        assert 1 < summary.images < 6
        assert all(str(cut) in line for line in summary.unreadable)
        assert not (tmp_path / 'out/videos').exists()

    def test_ctrl_c_keeps_what_was_found(
        self, video: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        class Interrupted(outputs.Video):
            def __iter__(self) -> Iterator[Any]:
                yield next(super().__iter__())
                raise KeyboardInterrupt

        monkeypatch.setattr(outputs, 'Video', Interrupted)
        summary = predict('c.py', 'w.pth', [video], tmp_path, formats=['coco', 'csv'], score_thr=0, progress=False)
        assert summary.images == 1
        assert len(json.loads((tmp_path / 'found.json').read_text())['images']) == 1
        assert len(pd.read_csv(tmp_path / 'found.csv')) == summary.instances > 0
        assert cv2.VideoCapture(str(tmp_path / 'videos/clip.mp4')).read()[0]
        assert capsys.readouterr().err == 'stopped\n'


class TestRefusals:
    @pytest.mark.parametrize(
        ('changed', 'message'),
        [
            ({'inputs': ['nowhere.jpg']}, 'nowhere.jpg: the input does not exist'),
            ({'formats': ['xml']}, 'unknown format xml. Use jsonl, coco, csv'),
            ({'max_frames': 0}, 'max_frames=0'),
            ({'out': __file__}, 'the output folder is a file'),
        ],
    )
    def test_come_before_the_model_is_loaded(
        self, loaded: list[Any], images: list[str], tmp_path: Path, changed: dict[str, Any], message: str
    ) -> None:
        arguments = {'inputs': images[:1], 'out': tmp_path / 'out', **changed}
        with pytest.raises(HiersegError, match=message):
            predict('c.py', 'w.pth', arguments.pop('inputs'), arguments.pop('out'), **arguments)
        assert loaded == []
        assert not (tmp_path / 'out').exists()


class TestCommand:
    def test_passes_its_options_on(
        self, loaded: list[Any], images: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch
    ) -> None:
        monkeypatch.setattr(sys, 'argv', ['hierseg'])
        options = [
            '--score-thr',
            '0.01',
            '--rule',
            'leaf',
            '--threshold',
            '0.7',
            '--device',
            'cpu',
            '--batch-size',
            '2',
        ]
        options += [
            '--max-pixels',
            '99999999',
            '--orientation',
            'stored',
            '--formats',
            'csv',
            '--no-pictures',
            '--cfg-options',
            'a.b=3',
        ]
        main(['predict', 'c.py', 'w.pth', *images[:2], '--out', str(tmp_path), *options])
        assert loaded == [
            ('c.py', 'w.pth', {'orientation': 'stored', 'score_thr': 0.01, 'rule': 'leaf', 'threshold': 0.7,
                               'device': 'cpu', 'batch_size': 2, 'options': {'a.b': 3}})
        ]  # fmt: skip
        rows = pd.read_csv(tmp_path / 'found.csv')
        assert capsys.readouterr().out == f'{len(rows)} instances on 2 images, in {tmp_path}\n'
        assert [path.name for path in tmp_path.iterdir()] == ['found.csv']

    def test_an_exported_model_has_no_checkpoint(self, loaded: list[Any], images: list[str], tmp_path: Path) -> None:
        main(['predict', 'model.onnx', images[0], '--out', str(tmp_path), '--no-pictures'])
        assert loaded[0][:2] == ('model.onnx', None)

    @pytest.mark.usefixtures('loaded')
    def test_says_what_it_could_not_read(
        self, images: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / 'x.png').write_bytes(b'x')
        with pytest.raises(SystemExit) as caught:
            main(['predict', 'c.py', 'w.pth', str(tmp_path / 'x.png'), images[0], '--out', str(tmp_path / 'out')])
        assert caught.value.code == 1
        said = capsys.readouterr()
        assert 'on 1 images' in said.out
        assert said.err.endswith(f'1 not read:\n  {tmp_path / "x.png"}: is no readable image. Fetch it again.\n')

    @pytest.mark.parametrize(
        ('arguments', 'message'),
        [
            (['c.py', 'w.pth'], 'name an input behind the checkpoint'),
            (['configs/hier_e2e.py', 'w.pth', '{image}'], 'error: w.pth: the checkpoint does not exist'),
            (['c.py', 'w.pth', '{image}'], 'error: c.py: the config file does not exist'),
        ],
    )
    def test_refuses_what_does_not_exist(
        self, images: list[str], tmp_path: Path, capsys, arguments: list[str], message: str
    ) -> None:
        with pytest.raises(SystemExit) as caught:
            main(['predict', *(word.format(image=images[0]) for word in arguments), '--out', str(tmp_path)])
        assert caught.value.code == 2
        assert message in capsys.readouterr().err


def test_a_shot_of_an_unknown_kind() -> None:
    with pytest.raises(ConfigError, match='a NoneType is no input'):
        read_shot(None, 'turned')
