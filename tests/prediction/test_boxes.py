"""A model of boxes alone, where other models give masks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.registry import init_default_scope
from PIL import Image
from tiny_runs import ROOT, tiny  # noqa: F401

from hierseg.apis import read_config
from hierseg.prediction import load_model, predict
from hierseg.registry import MODELS
from hierseg.store import Store

CONFIG = f"""
_base_ = {str(ROOT / 'configs/hier_retinanet.py')!r}
model = dict(
    backbone=dict(
        depth=18, base_channels=8, stem_channels=8, frozen_stages=-1, norm_eval=False, init_cfg=None),
    neck=dict(in_channels=[8, 16, 32, 64], out_channels=16),
    bbox_head=dict(in_channels=16, feat_channels=16, stacked_convs=1, num_classes=22),
    test_cfg=dict(score_thr=0.001, max_per_img=5))
test_pipeline = _base_.test_pipeline
test_pipeline[1].scale = (96, 96)
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
"""


def test_paths_tables_and_pictures_without_masks(tiny: Path, images: list[str], tmp_path: Path) -> None:  # noqa: F811
    config, checkpoint = tiny / 'boxes.py', str(tmp_path / 'boxes.pth')
    config.write_text(CONFIG)
    taxonomy = Store.open(tiny / 'data/quickstart/store/validation').taxonomy
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tiny)
        init_default_scope('mmdet')
        torch.manual_seed(0)
        model = MODELS.build(read_config(config).model)
    torch.save({'state_dict': model.state_dict(), 'meta': {'dataset_meta': taxonomy.dataset_meta()}}, checkpoint)

    found = load_model(config, checkpoint, device='cpu', score_thr=0)(images[0])
    assert found.masks is None
    assert (len(found), found.class_scores.shape) == (5, (5, 22))
    assert [instance.path[-1] for instance in found] == [taxonomy.names[label] for label in found.labels]

    formats = ('coco', 'csv', 'jsonl')
    options = {'device': 'cpu', 'score_thr': 0, 'progress': False}
    assert predict(config, checkpoint, images[:1], tmp_path / 'out', formats=formats, **options).instances == 5
    document = json.loads((tmp_path / 'out/found.json').read_text())
    assert [entry['bbox'][:2] for entry in document['annotations']] == found.boxes[:, :2].tolist()
    assert not any('segmentation' in entry for entry in document['annotations'])
    assert len((tmp_path / 'out/found.csv').read_text().splitlines()) == 6
    (picture,) = (tmp_path / 'out/pictures').iterdir()
    drawn = np.asarray(Image.open(picture).convert('RGB'))
    plain = Image.open(images[0]).convert('RGB').resize(drawn.shape[1::-1], Image.Resampling.NEAREST)
    assert (np.abs(drawn.astype(int) - np.asarray(plain)) > 40).any(axis=2).mean() > 0.005
