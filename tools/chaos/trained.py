"""Entries of models: configs, checkpoints, exported models, logs of a training; needs torch and MMDetection."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope

from chaos.data import TAXONOMY
from chaos.entries import Case, Entry
from chaos.runs import ROOT, make_data, train_here, trained_state
from hierseg import deploy
from hierseg.apis.configs import load_config
from hierseg.apis.evaluated_systems import loss_curves
from hierseg.apis.export import write_graph
from hierseg.apis.runner import load_detector
from hierseg.deploy.identity import sealed
from hierseg.registry import MODELS
from hierseg.report.curves import draw_losses, read_losses

PIPELINE = [
    dict(type='LoadImageFromFile', color_type='color_ignore_orientation'),
    dict(type='Resize', scale=(64, 64), keep_ratio=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]


def write_config(folder: Path) -> Path:
    """The real-time model in the smallest width, as one file that names its taxonomy's."""
    (folder / 'taxonomy.json').write_text(json.dumps(TAXONOMY.to_json()))
    config = Config.fromfile(ROOT / 'configs/_base_/models/hier_rtmdet_ins.py')
    config.merge_from_dict(
        {
            'model.backbone': dict(deepen_factor=0.167, widen_factor=0.125),
            'model.neck': dict(in_channels=[32, 64, 128], out_channels=16),
            'model.bbox_head': dict(in_channels=16, feat_channels=16, stacked_convs=1, num_classes=5),
            'model.bbox_head.loss_cls.taxonomy': str(TAXONOMY_OF_MODELS),
        }
    )
    path = folder / 'model.py'
    settings = dict(model=config.model, test_dataloader=dict(dataset=dict(pipeline=PIPELINE)), default_scope='mmdet')
    Config(settings).dump(path)
    return path


TAXONOMY_OF_MODELS = Path('taxonomy_of_the_checkpoint.json')
"""A file that is not there, so that the checkpoint's taxonomy is taken."""


@cache
def settings_at(path: Path) -> Config:
    """The honest config, read once a process."""
    return load_config(path)


def make_checkpoint(folder: Path) -> None:
    """A config, and a checkpoint as a training leaves it, without its optimiser."""
    config = load_config(write_config(folder))
    init_default_scope('mmdet')
    config.model.bbox_head.loss_cls.taxonomy = str(folder / 'taxonomy.json')
    torch.manual_seed(0)
    model = MODELS.build(config.model)
    meta = {'epoch': 1, 'iter': 3, 'dataset_meta': TAXONOMY.dataset_meta()}
    torch.save({'state_dict': model.state_dict(), 'meta': meta}, folder / 'model.pth')


def read_checkpoint(case: Case) -> Any:
    """Loads it into the model of the honest config."""
    model = load_detector(settings_at(case.corpus / 'model.py'), str(case.folder / 'model.pth'), device='cpu')
    return model.state_dict(), model.dataset_meta


def make_export(folder: Path) -> None:
    """An exported model of a few hundred kilobytes."""
    make_checkpoint(folder)
    config = load_config(folder / 'model.py')
    model = load_detector(config, str(folder / 'model.pth'), device='cpu')
    picture = folder / 'sample.png'
    _save_picture(picture)
    path = folder / 'model.onnx'
    write_graph(model, config, path, sample=str(picture))
    path.write_bytes(sealed(path.read_bytes()))
    for name in ('model.pth', 'model.py', 'taxonomy.json', 'sample.png'):
        (folder / name).unlink()


def _save_picture(path: Path) -> None:
    from hierseg.pictures import write_picture

    write_picture(_picture(), path)


def _picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)


def read_export(case: Case) -> Any:
    """Opens it and calls it on a picture."""
    found = deploy.load_model(case.folder / 'model.onnx', providers=['CPUExecutionProvider'], threads=1)(_picture())
    return found.boxes, found.class_scores, found.labels, found.names


def make_configs(folder: Path) -> None:
    """A config of one file, one that builds on it, and one in JSON and YAML each."""
    write_config(folder)
    config = load_config(folder / 'model.py')
    config.dump(folder / 'model.json')
    config.dump(folder / 'model.yaml')
    (folder / 'above.py').write_text("_base_ = './model.py'\nmodel = dict(test_cfg=dict(max_per_img=20))\nx = 1\n")


def read_configs(case: Case) -> Any:
    """Reads them all, which runs those in Python."""
    return [
        load_config(case.folder / name, options={'model.test_cfg.max_per_img': 3}).to_dict()
        for name in ('model.py', 'above.py', 'model.json', 'model.yaml')
    ]


def make_logs(folder: Path) -> None:
    """Scalars of a run of two layers that was begun twice."""
    for start, first in (('20260101_000000', 1), ('20260101_010000', 3)):
        place = folder / start / 'vis_data'
        place.mkdir(parents=True)
        entries = [
            {'loss': 1 / step, 'layer0/loss': 1 / step, 'lr': 0.01, 'iter': step, 'epoch': step, 'step': step}
            for step in range(first, 6)
        ]
        entries += [{'val/layer0/loss': 0.5, 'iter': 5, 'epoch': 5, 'step': 5}]
        (place / 'scalars.json').write_text('\n'.join(map(json.dumps, entries)))


def read_logs(case: Case) -> Any:
    """Takes the curves for the page of a comparison, and draws them."""
    curves = read_losses(case.folder)
    return loss_curves(case.folder), len(draw_losses(curves)) > 0 if curves else None


def make_resumed(folder: Path) -> None:
    """A training that has done the first of its three epochs, from the whole one, so that a new one ends alike."""
    make_data(folder)
    train_here(folder / 'end_to_end.py', folder / 'work', **{'default_hooks.checkpoint.max_keep_ckpts': -1})
    for later in (2, 3):
        (folder / f'work/epoch_{later}.pth').unlink()
    # As if it had been trained wherever the copy lies.
    (folder / 'work/last_checkpoint').write_text('work/epoch_1.pth')


def read_resumed(case: Case) -> Any:
    """Goes on with it to its end."""
    train_here(case.folder / 'end_to_end.py', case.folder / 'work')
    return trained_state(case.folder / 'work')


ENTRIES = (
    Entry('configs', make_configs, read_configs, ('*.py', '*.json', '*.yaml')),
    Entry('checkpoints', make_checkpoint, read_checkpoint, ('model.pth',), sealed=True),
    Entry('exports', make_export, read_export, ('model.onnx',), sealed=True),
    Entry('logs', make_logs, read_logs, ('*/vis_data/scalars.json',)),
    Entry('resumed', make_resumed, read_resumed, ('work/last_checkpoint', 'work/epoch_1.pth'), sealed=True, at_once=2),
)
