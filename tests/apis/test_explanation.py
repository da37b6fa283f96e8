"""The flow of a model with two random layers, from files to the picture."""

from __future__ import annotations

import copy
import json
import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image
from taxonomies import teddy_taxonomy
from tiny_models import tiny_ensemble

from hierseg.apis import explain_ensemble
from hierseg.errors import HiersegError
from hierseg.registry import MODELS

TOOL = Path(__file__).parents[2] / 'tools' / 'analysis_tools' / 'explain_ensemble.py'
PIPELINE = [
    dict(type='LoadImageFromFile', color_type='color_ignore_orientation'),
    dict(type='Resize', scale=(96, 96), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]


@pytest.fixture(scope='module')
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A config, a checkpoint and a photograph that a camera held sideways."""
    folder = tmp_path_factory.mktemp('explained')
    model = copy.deepcopy(tiny_ensemble())
    (folder / 'taxonomy.json').write_text(json.dumps(teddy_taxonomy().to_json()))
    model.taxonomy = str(folder / 'taxonomy.json')
    config = Config(dict(model=model, test_dataloader=dict(dataset=dict(pipeline=PIPELINE)), default_scope='mmdet'))
    config.dump(folder / 'ensemble.py')
    config.model = config.model.layer0
    config.dump(folder / 'layer0.py')
    torch.manual_seed(0)
    weights = MODELS.build(model).state_dict()
    torch.save({'state_dict': weights}, folder / 'ensemble.pth')
    part = {name.removeprefix('layer0.'): value for name, value in weights.items() if name.startswith('layer0.')}
    torch.save({'state_dict': part}, folder / 'layer0.pth')
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(folder / 'photo.jpg', exif=exif)
    return {file.name: str(file) for file in folder.iterdir()}


def run_tool(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, 'argv', [str(TOOL), *arguments, '--device', 'cpu'])
    runpy.run_path(str(TOOL), run_name='__main__')


def test_prints_the_table_and_draws_the_picture(
    files: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / 'new' / 'flow.png'
    run_tool(
        monkeypatch,
        *(files['ensemble.py'], files['ensemble.pth'], '--image', files['photo.jpg']),
        *('--out', str(out), '--score-thr', '0.05'),
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == f'picture: {out}'
    assert any(' ← ' in line and ' = (' in line for line in lines[:-1])
    # 64 × 48, as in the file's header, enlarged six times: the camera's turn counts neither here nor in training.
    assert Image.open(out).size[0] == 3 * 6 * 64 + 2 * 8


def test_the_flow_has_labels_of_the_whole_taxonomy(files: dict[str, str]) -> None:
    flow = explain_ensemble(files['ensemble.py'], files['ensemble.pth'], files['photo.jpg'], device='cpu')
    taxonomy = teddy_taxonomy()
    assert flow.image.shape == (48, 64, 3)
    for layer, classes in zip(flow.layers, (taxonomy.root_classes, taxonomy.deeper_classes), strict=True):
        assert len(layer) > 0
        assert {*layer.labels.tolist()} <= {*classes}
        assert layer.masks.shape[1:] == (48, 64)
    assert len(flow.merged) == len(flow.joining.sources)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({1: 'layer0.pth'}, r'layer0\.pth: the checkpoint is of another model: .* tensors do not fit'),
        ({0: 'layer0.py', 1: 'layer0.pth'}, r'layer0\.py: the model is a MaskRCNN'),
        ({2: 'taxonomy.json'}, r'taxonomy\.json: is no readable image'),
    ],
)
def test_clear_errors(files: dict[str, str], changes: dict[int, str], message: str) -> None:
    arguments: list[Any] = ['ensemble.py', 'ensemble.pth', 'photo.jpg']
    for place, name in changes.items():
        arguments[place] = name
    with pytest.raises(HiersegError, match=message):
        explain_ensemble(*(files[name] for name in arguments), device='cpu')


def test_an_image_that_is_not_there(files: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit) as caught:
        run_tool(monkeypatch, files['ensemble.py'], files['ensemble.pth'], '--image', 'nowhere.jpg')
    assert caught.value.code == 2
