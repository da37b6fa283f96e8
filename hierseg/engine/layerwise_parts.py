"""What the runner needs beside the loop when layers are trained one after the other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.hooks import ParamSchedulerHook
from mmengine.optim import OptimWrapperDict, build_optim_wrapper
from mmengine.runner import Runner
from torch import nn

from hierseg.engine.layerwise_loop import LayerwiseTrainLoop, unwrapped
from hierseg.errors import ConfigError
from hierseg.registry import HOOKS, OPTIM_WRAPPER_CONSTRUCTORS
from hierseg.taxonomy import Taxonomy


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerwiseOptimWrapperConstructor:
    """Builds an optimiser wrapper for each layer of a model.

    Args:
        optim_wrapper_cfg: The config of an optimiser wrapper by the name of the layer, which is an attribute of
            the model.
        paramwise_cfg: Not for all layers together; each layer's config may have its own.

    Raises:
        ConfigError: ``paramwise_cfg`` is given.
    """

    def __init__(self, optim_wrapper_cfg: Mapping[str, Any], paramwise_cfg: Mapping[str, Any] | None = None) -> None:
        if paramwise_cfg is not None:
            raise ConfigError('paramwise_cfg belongs into the config of a layer', where='optim_wrapper')
        self.configs = optim_wrapper_cfg

    def __call__(self, model: nn.Module) -> OptimWrapperDict:
        """The optimiser wrappers by layer."""
        model = unwrapped(model)
        for name in self.configs:
            if not isinstance(getattr(model, name, None), nn.Module):
                raise ConfigError(f'the model has no part {name}', where='optim_wrapper')
        return OptimWrapperDict(
            **{name: build_optim_wrapper(getattr(model, name), config) for name, config in self.configs.items()}
        )


@HOOKS.register_module()
class LayerwiseHook(ParamSchedulerHook):
    """Steps the schedulers of the layer in training, and saves checkpoints of the model as a whole.

    In a checkpoint, weights have the same names whether the layers were in distributed wrappers or not, and
    ``dataset_meta``, from which inference takes the class names, is that of the model's ``taxonomy``.
    """

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict[str, Any] | None = None
    ) -> None:
        """Steps what counts iterations."""
        self._step(runner, by_epoch=False)

    def after_train_epoch(self, runner: Runner) -> None:
        """Steps what counts epochs."""
        self._step(runner, by_epoch=True)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Nothing: the whole model is evaluated when all schedules have ended."""

    def _step(self, runner: Runner, *, by_epoch: bool) -> None:
        name = _loop(runner).layer.name
        for scheduler in (runner.param_schedulers or {}).get(name, []):
            if scheduler.by_epoch == by_epoch:
                scheduler.step()

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Makes a checkpoint of the whole model, of what the runner takes from the layer in training."""
        loop, meta = _loop(runner), checkpoint['meta']
        weights = checkpoint['state_dict']
        for name in [*weights]:
            layer, _, rest = name.partition('.module.')
            if layer in loop.dataloaders:
                weights[f'{layer}.{rest}'] = weights.pop(name)
        meta['layer_meta'] = _metainfo(loop, meta['epoch'])
        taxonomy = getattr(unwrapped(runner.model), 'taxonomy', None)
        if isinstance(taxonomy, Taxonomy):
            # As StoreDataset has it without a layer.
            meta['dataset_meta'] = {
                'classes': taxonomy.names,
                'class_ids': taxonomy.ids,
                'taxonomy': taxonomy.to_json(),
            }

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """On resuming, lets the runner compare the data of the layer in training."""
        meta = checkpoint.get('meta', {})
        if runner._resume and 'layer_meta' in meta:
            meta['dataset_meta'] = meta['layer_meta']


def _loop(runner: Runner) -> LayerwiseTrainLoop:
    if not isinstance(runner.train_loop, LayerwiseTrainLoop):
        raise ConfigError('LayerwiseHook needs a LayerwiseTrainLoop', where='default_hooks')
    return runner.train_loop


def _metainfo(loop: LayerwiseTrainLoop, epoch: int) -> Any:
    """What the runner sees of the data of the layer that follows ``epoch``."""
    return getattr(loop.dataloaders[loop.layer_of(epoch).name].dataset, 'metainfo', None)
