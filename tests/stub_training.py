"""Models, data and a runner so small that a test of the training loop takes milliseconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dataset import Compose
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.utils.data import Dataset

from hierseg.registry import DATASETS, MODELS
from hierseg.seeding import SeededSamples, from_the_start
from hierseg.taxonomy import Taxonomy

BATCH_SIZE = 2
ITERATIONS = {'layer0': 3, 'layer1': 2}
EPOCHS = {'layer0': 2, 'layer1': 3}


class _Numbers(Dataset[Any]):
    """Image i is the number i plus noise that stands for augmentation; every third image is a portrait."""

    metainfo: dict[str, Any]

    def __init__(self, size: int = 10, name: str = 'numbers') -> None:
        self.size, self.metainfo = size, {'classes': (name,)}
        self.pipeline = Compose([])

    def __len__(self) -> int:
        return self.size

    def get_data_info(self, index: int) -> dict[str, Any]:
        return {'width': 10, 'height': 20 if index % 3 == 0 else 5}

    def __getitem__(self, index: int) -> dict[str, Any]:
        noise = np.random.uniform()  # noqa: NPY002  as the transforms of mmcv draw
        return {'inputs': torch.tensor([float(index), noise]), 'data_samples': index}


@DATASETS.register_module()
class StubNumbers(SeededSamples, _Numbers):
    """The numbers, in a data set as hierseg's."""


@MODELS.register_module()
class StubModel(BaseModel):
    """Has all that training may change: weights, running statistics, a counting loss, and random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(2)
        self.linear = nn.Linear(2, 1)
        self.register_buffer('calls', torch.zeros(1))
        self.seen: list[list[int]] = []
        self.noises: list[float] = []

    def forward(self, inputs: list[Tensor], data_samples: list[int], mode: str = 'tensor') -> dict[str, Tensor]:
        batch = torch.stack(inputs)
        self.seen.append([int(index) for index in data_samples])
        self.noises += batch[:, 1].tolist()
        self.calls += 1
        noise = torch.rand(1) * 0.1  # as the samplers of proposals draw
        return {'loss_a': (self.linear(self.norm(batch)) - 1).square().mean() + noise, 'acc': noise}


@MODELS.register_module()
class StubLayers(BaseModel):
    """Two stub models as layers."""

    def __init__(self) -> None:
        super().__init__()
        for name in EPOCHS:
            with from_the_start():
                setattr(self, name, StubModel())
        self.taxonomy = Taxonomy.from_edges(['/m/a', '/m/b'], [('/m/b', '/m/a')], names=['Whole', 'Part'])

    def forward(self, inputs: Any, data_samples: Any = None, mode: str = 'tensor') -> None:
        """The loop trains the layers, not the whole."""


def numbers(size: int, name: str) -> dict[str, Any]:
    return dict(type='hierseg.StubNumbers', size=size, name=name)


def stream(iterations: int) -> dict[str, Any]:
    return dict(
        sampler=dict(type='hierseg.StreamSampler'),
        batch_sampler=dict(type='hierseg.StreamBatchSampler', iterations=iterations),
    )


def optimizer(lr: float) -> dict[str, Any]:
    return dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=lr, momentum=0.9))


SCHEDULERS = [
    dict(type='LinearLR', start_factor=0.5, by_epoch=False, begin=0, end=2),
    dict(type='MultiStepLR', by_epoch=True, milestones=[1], gamma=0.1),
]
SIZES = {'layer0': 10, 'layer1': 7}
RATES = {'layer0': 0.01, 'layer1': 0.02}


def layerwise_settings() -> dict[str, Any]:
    return dict(
        model=dict(type='hierseg.StubLayers'),
        train_cfg=dict(type='hierseg.LayerwiseTrainLoop', max_epochs=dict(EPOCHS)),
        train_dataloader=dict(
            batch_size=BATCH_SIZE,
            num_workers=0,
            **{name: dict(dataset=numbers(SIZES[name], name), **stream(ITERATIONS[name])) for name in EPOCHS},
        ),
        optim_wrapper=dict(
            constructor='hierseg.LayerwiseOptimWrapperConstructor',
            **{name: optimizer(RATES[name]) for name in EPOCHS},
        ),
        param_scheduler=dict.fromkeys(EPOCHS, SCHEDULERS),
        hooks=dict(param_scheduler=dict(type='hierseg.LayerwiseHook')),
        validation=dict(
            batch_size=BATCH_SIZE, num_workers=0, **{name: dict(dataset=numbers(9, 'val')) for name in EPOCHS}
        ),
    )


def alone_settings(name: str) -> dict[str, Any]:
    """The same training of one layer as a plain config."""
    return dict(
        model=dict(type='hierseg.StubModel'),
        train_cfg=dict(type='EpochBasedTrainLoop', max_epochs=EPOCHS[name]),
        train_dataloader=dict(
            batch_size=BATCH_SIZE, num_workers=0, dataset=numbers(SIZES[name], name), **stream(ITERATIONS[name])
        ),
        optim_wrapper=optimizer(RATES[name]),
        param_scheduler=SCHEDULERS,
        hooks={},
        validation=dict(batch_size=BATCH_SIZE, num_workers=0, dataset=numbers(9, 'val')),
    )


def make_runner(
    settings: dict[str, Any],
    work_dir: Path,
    *,
    seed: int | None = 3,
    resume: bool = False,
    custom_hooks: list[Any] | None = None,
    checkpoint: dict[str, Any] | None = None,
    **overrides: Any,
) -> Runner:
    settings = {**settings, **overrides}
    validation = dict(type='hierseg.ValidationLossHook', num_batches=2, dataloader=settings.pop('validation'))
    hooks = dict(
        logger=dict(type='LoggerHook', interval=1),
        checkpoint=checkpoint or dict(type='hierseg.AtomicCheckpointHook', interval=1, max_keep_ckpts=2),
        **settings.pop('hooks'),
    )
    return Runner(
        **settings,
        work_dir=str(work_dir),
        default_hooks=hooks,
        custom_hooks=[dict(type='hierseg.ExactResumeHook'), validation, *(custom_hooks or [])],
        default_scope='mmdet',
        randomness=dict(seed=seed),
        resume=resume,
        log_level='WARNING',
        experiment_name=f'{work_dir.name}_{id(settings)}',
    )
