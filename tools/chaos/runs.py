"""Trainings of seconds: the quickstart's configs on a few small images, with small models."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.runner.checkpoint import get_torch_safe_globals

from chaos import data
from hierseg.apis import train
from hierseg.converters.open_images import convert_open_images
from hierseg.report import HierLocalVisualizer
from hierseg.synthetic import AnnotationRates, SplitOptions, SynthesisOptions, synthesize
from hierseg.synthetic.options import default_taxonomy

ROOT = Path(__file__).resolve().parents[2]
SMALL = """
slim_detector = train_pipeline = test_pipeline = validation_loss = None
SMALL = dict(
    backbone=dict(base_channels=8, stem_channels=8),
    neck=dict(in_channels=[8, 16, 32, 64], out_channels=16),
    rpn_head=dict(in_channels=16, feat_channels=16),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=16),
        mask_roi_extractor=dict(out_channels=16),
        bbox_head=dict(in_channels=16, fc_out_channels=32),
        mask_head=dict(in_channels=16, conv_out_channels=8, num_convs=1)))
default_hooks = dict(
    logger=dict(interval=1),
    checkpoint=dict(interval=1),
    validation_loss=dict(num_batches=1, dataloader=dict(batch_size=2)))
val_dataloader = val_cfg = val_evaluator = None
"""
CONFIGS = {
    'end_to_end': f"""
_base_ = {str(ROOT / 'configs/quickstart/hier_e2e.py')!r}
{SMALL}
model = SMALL
train_dataloader = dict(
    batch_size=2, num_workers=0, persistent_workers=False, batch_sampler=dict(iterations=2))
train_cfg = dict(max_epochs=3, val_interval=9)
""",
    'ensemble': f"""
_base_ = {str(ROOT / 'configs/quickstart/two_layer_ensemble.py')!r}
{SMALL}
model = dict(layer0=SMALL, layer1=SMALL)
train_dataloader = dict(
    batch_size=2, num_workers=0, persistent_workers=False, layer0=dict(batch_sampler=dict(iterations=2)),
    layer1=dict(batch_sampler=dict(iterations=2)))
train_cfg = dict(max_epochs=dict(layer0=2, layer1=2))
""",
}


def make_data(folder: Path) -> None:
    """Data as the quickstart lays them out, and the configs."""
    rates = AnnotationRates(negatives=2)
    splits = tuple(SplitOptions(name, 8, 3.0, rates) for name in ('train', 'validation'))
    place = folder / 'data/quickstart'
    place.parent.mkdir()
    synthesize(place, SynthesisOptions(splits, size=96), taxonomy=default_taxonomy())
    for split in ('train', 'validation'):
        convert_open_images(inputs_of(place, split), default_taxonomy(), out=place / 'store' / split)
    for name, text in CONFIGS.items():
        (folder / f'{name}.py').write_text(text)


def inputs_of(place: Path, split: str) -> data.OpenImagesFiles:
    """The official files of a split."""
    tables = [place / f'challenge-2019-{split}-segmentation-{name}.csv' for name in data.TABLES.values()]
    return data.OpenImagesFiles(*tables, place / split, place / f'{split}-masks')


def train_here(config: Path, work_dir: Path, **options: Any) -> None:
    """Trains, or goes on from the latest checkpoint, as ``tools/train.py --resume``; the data lie beside the config."""
    # MMEngine formats the config anew for every checkpoint, which takes longer than an epoch here.
    Config.pretty_text = property(lambda config: repr(config.to_dict()))  # type: ignore[assignment]
    # MMEngine would give the visualizer of the run before, which draws into that one's folder.
    HierLocalVisualizer._instance_dict.clear()
    torch.set_num_threads(1)
    os.chdir(config.parent)
    launcher = 'pytorch' if 'WORLD_SIZE' in os.environ else 'none'
    train(config, work_dir=work_dir, resume='auto', launcher=launcher, options=options)


def trained_state(work_dir: Path) -> Any:
    """Weights, optimisers and schedules of the last checkpoint."""
    with torch.serialization.safe_globals(get_torch_safe_globals()):
        found = torch.load(work_dir / Path((work_dir / 'last_checkpoint').read_text()).name, weights_only=True)
    return {key: found[key] for key in ('state_dict', 'optimizer', 'param_schedulers')}
