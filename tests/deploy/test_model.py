"""An exported model without torch: what it finds, what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from exported_models import Exported, Trained
from PIL import Image

from hierseg.deploy import load_model
from hierseg.errors import AnnotationError, ConfigError
from hierseg.found import Found

NOT_THERE = (
    'torch', 'torchvision', 'mmdet', 'mmcv', 'mmengine', 'cv2', 'pycocotools', 'networkx', 'pandas', 'pyarrow', 'PIL',
    'matplotlib', 'onnx',
)  # fmt: skip
ALONE = f"""
import json
import sys

import numpy as np

for name in {NOT_THERE!r}:
    sys.modules[name] = None  # importing it fails
from hierseg.deploy import load_model

found = load_model(sys.argv[1])(np.load(sys.argv[2]))
print(json.dumps([found.to_json(), found[0].path, sum(int(instance.mask.sum()) for instance in found)]))
"""


def picture(path: str) -> np.ndarray:
    return np.asarray(Image.open(path))


@pytest.fixture(scope='module')
def found(exported: Exported, trained: Trained) -> list[Found]:
    return load_model(exported.exact)([picture(path) for path in trained.pictures])


def test_needs_numpy_and_onnxruntime_alone(
    exported: Exported, trained: Trained, found: list[Found], tmp_path: Path
) -> None:
    np.save(tmp_path / 'picture.npy', picture(trained.pictures[0]))
    command = [sys.executable, '-c', ALONE, str(exported.exact), str(tmp_path / 'picture.npy')]
    answer = subprocess.run(command, check=False, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    document, path, pixels = json.loads(answer.stdout)
    # Resized without OpenCV, to the same pixels.
    assert document == json.loads(json.dumps(found[0].to_json()))
    assert tuple(path) == found[0][0].path
    assert pixels == sum(instance.mask.sum() for instance in found[0]) > 0


def test_finds_what_lies_where_it_lies(found: list[Found]) -> None:
    sizes = [(150, 200), (240, 170), (96, 96)]
    assert [one.image_size for one in found] == sizes
    for one, (height, width) in zip(found, sizes, strict=True):
        assert len(one) > 0
        assert (one.boxes >= 0).all()
        assert (one.boxes <= np.array([width, height, width, height]) + 1e-3).all()
        assert np.all(np.diff(one.class_scores.max(axis=1)) <= 0)
        assert one.scores.tolist() == [one.class_scores[row, label] for row, label in enumerate(one.labels)]
        assert all(instance.mask.shape == (height, width) for instance in one)
    paths = {instance.path for one in found for instance in one}
    assert paths <= {('Toy',), ('Animal',), ('Animal', 'Bear'), ('Toy', 'Teddy'), ('Car',)}


def test_a_batch_finds_the_same(exported: Exported, trained: Trained, found: list[Found]) -> None:
    one, other = picture(trained.pictures[0]), picture(trained.pictures[2])
    both = load_model(exported.exact, threads=1)([one, one, other], batch_size=2)
    for again, expected in zip(both, [found[0], found[0], found[2]], strict=True):
        np.testing.assert_allclose(again.boxes, expected.boxes, atol=1e-3)
        np.testing.assert_allclose(again.class_scores, expected.class_scores, atol=1e-5)


def test_nothing_on_no_picture(exported: Exported) -> None:
    model = load_model(exported.exact)
    assert model([]) == []
    nothing = model(np.full((80, 60, 3), 110, dtype=np.uint8))[:0]
    assert (nothing.class_scores.shape, nothing.masks) == ((0, 5), [])


@pytest.mark.parametrize(
    'wrong',
    [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((4, 4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8)],
)
def test_refuses_what_is_no_picture(exported: Exported, wrong: np.ndarray) -> None:
    with pytest.raises(AnnotationError, match='image 1: is no RGB picture'):
        load_model(exported.exact)([np.zeros((4, 4, 3), np.uint8), wrong])


def test_refuses_other_files(exported: Exported, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r'nowhere\.onnx: the model does not exist'):
        load_model(tmp_path / 'nowhere.onnx')
    (tmp_path / 'text.onnx').write_text('text')
    with pytest.raises(ConfigError, match='cannot be opened'):
        load_model(tmp_path / 'text.onnx')
    document = onnx.load(exported.exact)
    del document.metadata_props[:]
    onnx.save(document, tmp_path / 'silent.onnx')
    with pytest.raises(ConfigError, match=r'silent\.onnx: expected an export of version 1, found none'):
        load_model(tmp_path / 'silent.onnx')
