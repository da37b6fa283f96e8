"""Tiny models of both systems with random weights that are sure of themselves, and what they are shown."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pytest
import torch
from mmengine.registry import init_default_scope
from tiny_runs import ROOT, tiny

from hierseg.apis import read_config
from hierseg.prediction import Predictor, load_model
from hierseg.registry import MODELS
from hierseg.store import Store

__all__ = ['tiny']

# The real-time model of the quickstart.
THIRD = f"""
_base_ = {str(ROOT / 'configs/quickstart/hier_rtmdet.py')!r}
custom_hooks = []
model = dict(
    backbone=dict(widen_factor=0.125),
    neck=dict(in_channels=[32, 64, 128], out_channels=16),
    bbox_head=dict(in_channels=16, feat_channels=16, stacked_convs=1))
"""


class Trained(NamedTuple):
    """A config and a checkpoint, and the folder in which the config finds its data."""

    config: Path
    checkpoint: Path
    folder: Path


@pytest.fixture(scope='session')
def trained(tiny: Path) -> dict[str, Trained]:
    """Checkpoints as trainings leave them, of weights that nothing was learnt with: their detections are many."""
    taxonomy = Store.open(tiny / 'data/quickstart/store/validation').taxonomy
    (tiny / 'third.py').write_text(THIRD)
    found = {}
    for name in ('end_to_end', 'ensemble', 'third'):
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(tiny)
            patch.syspath_prepend(tiny)
            init_default_scope('mmdet')
            torch.manual_seed(0)
            model = MODELS.build(copy.deepcopy(read_config(f'{name}.py').model))
        weights = model.state_dict()
        for key in weights:
            if key.endswith(('fc_cls.weight', 'conv_logits.weight')):
                weights[key] *= 300
            if 'rtm_cls' in key and key.endswith('bias'):
                weights[key] += 2
        checkpoint = tiny / f'{name}.pth'
        torch.save({'state_dict': weights, 'meta': {'dataset_meta': taxonomy.dataset_meta()}}, checkpoint)
        found[name] = Trained(tiny / f'{name}.py', checkpoint, tiny)
    return found


@pytest.fixture(scope='session')
def model(trained: dict[str, Trained]) -> Predictor:
    """The end-to-end model, which keeps all that it finds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(trained['end_to_end'].folder)
        config, checkpoint, _ = trained['end_to_end']
        return load_model(config, checkpoint, device='cpu', score_thr=0)


@pytest.fixture(scope='session')
def images(tiny: Path) -> list[str]:
    """The validation images of the tiny data, whose longer side has 96 pixels."""
    return sorted(str(path) for path in (tiny / 'data/quickstart/validation').iterdir())


@pytest.fixture(scope='session')
def video(tmp_path_factory: pytest.TempPathFactory, images: list[str]) -> str:
    """Five frames, 80 x 64 pixels, ten a second, that show five of the images from closer by."""
    path = str(tmp_path_factory.mktemp('videos') / 'clip.avi')
    writer = cv2.VideoWriter(path, cv2.VideoWriter.fourcc(*'MJPG'), 10, (80, 64))
    for image in images[:5]:
        writer.write(np.ascontiguousarray(cv2.resize(cv2.imread(image), (80, 64))))
    writer.release()
    return path
