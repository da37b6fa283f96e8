"""A real-time model that has learnt a few coloured shapes in seconds, its pictures, and what it exports to."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from PIL import Image
from taxonomies import BEAR, CAR, TEDDY, teddy_taxonomy

from hierseg.apis.export import Differences, export
from hierseg.registry import MODELS

COLORS = {BEAR: (200, 40, 40), TEDDY: (40, 200, 40), CAR: (40, 40, 200)}
PIPELINE = [
    dict(type='LoadImageFromFile', color_type='color_ignore_orientation'),
    dict(type='Resize', scale=(96, 96), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
STEPS = 32


class Trained(NamedTuple):
    """Files of a config and a checkpoint, and pictures that are larger than the network's input, and oblong."""

    config: Path
    checkpoint: Path
    pictures: tuple[str, ...]


def drawn(generator: np.random.Generator, size: tuple[int, int]) -> tuple[np.ndarray, InstanceData]:
    """A picture, (H, W, 3) RGB, of three shapes on noise."""
    height, width = size
    picture = generator.integers(90, 130, (height, width, 3), dtype=np.uint8)
    rows, columns = np.mgrid[:height, :width]
    boxes, masks = [], []
    for label in COLORS:
        half = generator.integers(min(size) // 8, min(size) // 4, 2)
        x, y = (int(generator.integers(side, most - side)) for side, most in zip(half, (width, height), strict=True))
        mask = ((columns - x) / half[0]) ** 2 + ((rows - y) / half[1]) ** 2 <= 1
        picture[mask] = COLORS[label]
        boxes.append([x - half[0], y - half[1], x + half[0], y + half[1]])
        masks.append(mask)
    planes = BitmapMasks(np.stack(masks).astype(np.uint8), height, width)
    return picture, InstanceData(
        bboxes=torch.tensor(np.array(boxes), dtype=torch.float32), labels=torch.tensor(list(COLORS)), masks=planes
    )


def tiny_settings(taxonomy: str) -> dict[str, Any]:
    """The real-time model in a width of 16."""
    config = Config.fromfile('configs/_base_/models/hier_rtmdet_ins.py')
    config.merge_from_dict(
        {
            'model.backbone': dict(deepen_factor=0.167, widen_factor=0.125),
            'model.neck': dict(in_channels=[32, 64, 128], out_channels=32),
            'model.bbox_head': dict(in_channels=32, feat_channels=32, num_classes=5),
            'model.bbox_head.loss_cls.taxonomy': taxonomy,
            'model.test_cfg': dict(max_per_img=20),
        }
    )
    return config.model


def train_tiny(settings: dict[str, Any]) -> torch.nn.Module:
    """The model after some steps on one batch."""
    torch.manual_seed(0)
    model = MODELS.build(settings)
    model.init_weights()
    generator = np.random.default_rng(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    model.train()
    for _ in range(STEPS):
        batch: dict[str, list[Any]] = {'inputs': [], 'data_samples': []}
        for _ in range(4):
            picture, objects = drawn(generator, (96, 96))
            sample = DetDataSample(metainfo=dict(img_shape=(96, 96), ori_shape=(96, 96), scale_factor=(1.0, 1.0)))
            sample.gt_instances = objects
            sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=objects.labels[:0])
            batch['inputs'].append(torch.from_numpy(picture[:, :, ::-1].copy()).permute(2, 0, 1))
            batch['data_samples'].append(sample)
        losses = model(**model.data_preprocessor(batch, training=True), mode='loss')
        optimizer.zero_grad()
        sum(loss.sum() for name, loss in losses.items() if 'loss' in name).backward()
        optimizer.step()
    return model.eval()


@cache
def _trained(folder: Path) -> Trained:
    folder.mkdir()
    (folder / 'taxonomy.json').write_text(json.dumps(teddy_taxonomy().to_json()))
    init_default_scope('mmdet')
    settings = tiny_settings(str(folder / 'taxonomy.json'))
    Config(dict(model=settings, test_dataloader=dict(dataset=dict(pipeline=PIPELINE)), default_scope='mmdet')).dump(
        folder / 'tiny.py'
    )
    meta = {'dataset_meta': teddy_taxonomy().dataset_meta()}
    torch.save({'state_dict': train_tiny(settings).state_dict(), 'meta': meta}, folder / 'tiny.pth')
    generator = np.random.default_rng(1)
    names = []
    for number, size in enumerate([(150, 200), (240, 170), (96, 96)]):
        names.append(str(folder / f'{number}.png'))
        Image.fromarray(drawn(generator, size)[0]).save(names[-1])
    return Trained(folder / 'tiny.py', folder / 'tiny.pth', tuple(names))


# Fixtures of a session, also where several modules import them.
@pytest.fixture(scope='session')
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return _trained(tmp_path_factory.getbasetemp() / 'tiny')


class Exported(NamedTuple):
    """Two files, and how what each finds differs from what the trained model finds."""

    exact: Path
    int8: Path
    differences: tuple[Differences, ...]


@pytest.fixture(scope='session')
def exported(trained: Trained) -> Exported:
    return _exported(trained)


@cache
def _exported(trained: Trained) -> Exported:
    out = trained.config.with_suffix('.onnx')
    written = export(
        trained.config, str(trained.checkpoint), out, images=trained.pictures, int8=trained.config.with_name('*.png')
    )
    return Exported(*written, tuple(written.values()))
