"""Hooks of training: a check of class counts before it, and the validation loss after every epoch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.dist import all_reduce, get_rank
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

from hierseg.engine.layerwise import part_in_training, trained_parts
from hierseg.errors import ConfigError
from hierseg.models import HierarchicalRoIHead
from hierseg.registry import HOOKS
from hierseg.seeding import Purpose, seeded

WHERE = 'ValidationLossHook'


@HOOKS.register_module()
class ClassCountHook(Hook):
    """Refuses, with a ConfigError, to train where a head has another number of classes than its data set.

    It is MMDetection's ``NumClassCheckHook`` for all layers of a ``LayerwiseTrainLoop``, before the first is trained.
    """

    priority = 'VERY_HIGH'

    def before_train(self, runner: Runner) -> None:
        """Compares every head with the data that it is trained on."""
        for part in trained_parts(runner):
            prefix = f'{part.name}.' if part.name else ''
            classes = getattr(part.dataloader.dataset, 'metainfo', {}).get('classes')
            modules = dict(part.model.named_modules())
            # Looked at by the RoI head itself: it may have a mask for each root class.
            checked = {f'{name}.mask_head' for name in modules if isinstance(modules[name], HierarchicalRoIHead)}
            for name, module in modules.items():
                count = getattr(module, 'num_classes', None)
                if classes is None or count in (None, len(classes)) or name in checked:
                    continue
                if not name.endswith('rpn_head'):  # proposals have one class
                    what = f'model.{prefix}{name} is for {count} classes, and its data set has {len(classes)}'
                    raise ConfigError(what, where='ClassCountHook', fix=f'Set num_classes={len(classes)}.')


@HOOKS.register_module()
class ValidationLossHook(Hook):
    """After every epoch, logs the mean loss over some random batches of validation images.

    The loss is the sum that training minimises, of the model in evaluation mode: as in the framework of the
    seed report, layers such as dropout and batch normalisation work as at test time, while targets are sampled
    as in training. Each epoch takes other images, the next ones of a shuffled stream, so the curve fluctuates.
    Weights, buffers, modes and random generators are afterwards as before. With several processes, each takes its own
    images and the mean is over all. Logged as ``val/loss``, or ``val/layer0/loss`` for the layer in training of a
    ``LayerwiseTrainLoop``, at the number of training iterations done.

    Args:
        dataloader: A dataloader config without samplers; for a ``LayerwiseTrainLoop`` one for each layer, with
            other keys shared, as in its ``train_dataloader``. Its data set must load annotations.
        num_batches: Batches of one process in each epoch.

    Raises:
        ConfigError: A layer has no data set, or the data set is in test mode.
    """

    # After the buffers are synchronised, and before a checkpoint is written: a resumed run has all points.
    priority = 'NORMAL'

    def __init__(self, dataloader: Mapping[str, Any], num_batches: int = 50) -> None:
        self.config = dataloader
        self.num_batches = num_batches
        self.dataloaders: dict[str, DataLoader[Any]] = {}

    def before_train(self, runner: Runner) -> None:
        """Opens the data of all layers, so that a mistake shows before the first is trained for days."""
        names = [part.name for part in trained_parts(runner)]
        shared = {key: value for key, value in self.config.items() if key not in names}
        configs = {name: {**shared, **self.config.get(name, {})} for name in names}
        self.dataloaders = {name: self._build(config, name, runner) for name, config in configs.items()}

    def _build(self, config: Mapping[str, Any], name: str, runner: Runner) -> DataLoader[Any]:
        if 'dataset' not in config:
            raise ConfigError(f'dataloader has no dataset{name and f" for {name}"}', where=WHERE)
        if config['dataset'].get('test_mode', False):
            what = 'a data set in test mode has no filter and may have no annotations'
            raise ConfigError(what, where=WHERE, fix='Set test_mode=False.')
        samplers = {
            'sampler': {'type': 'hierseg.StreamSampler'},
            'batch_sampler': {'type': 'hierseg.StreamBatchSampler', 'iterations': self.num_batches},
        }
        return runner.build_dataloader({**config, **samplers}, seed=runner.seed)

    def after_train_epoch(self, runner: Runner) -> None:
        """Measures and logs."""
        name, model, _, epoch, *_ = part_in_training(runner)
        loader = self.dataloaders[name]
        loader.batch_sampler.sampler.set_epoch(epoch)
        with seeded(runner.seed, Purpose.VALIDATION, get_rank(), epoch), unchanged(model):
            loss = mean_loss(model, loader)
        key = f'val/{name}/loss' if name else 'val/loss'
        runner.logger.info(f'{key}: {loss:.4f} after epoch {epoch + 1}, over {self.num_batches} batches')
        scalars = {key: loss, 'epoch': runner.epoch + 1, 'iter': runner.iter}
        runner.visualizer.add_scalars(scalars, step=runner.iter, file_path=f'{runner.timestamp}.json')


@torch.no_grad()
def mean_loss(model: nn.Module, loader: DataLoader[Any]) -> float:
    """The mean, over the batches of all processes, of the loss that training minimises."""
    losses = []
    for batch in loader:
        data = model.data_preprocessor(batch, training=True)
        total, _ = model.parse_losses(model(**data, mode='loss'))
        losses.append(total.detach().double())
    mean = torch.stack(losses).mean()
    all_reduce(mean, op='mean')
    return float(mean)


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """Puts a model into evaluation mode, and afterwards modes and buffers back: some losses count in buffers."""
    modes = [(module, module.training) for module in model.modules()]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for buffer, before in buffers:
            buffer.copy_(before)
