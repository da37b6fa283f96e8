"""Parts of a model that a training loop trains, and the loop that trains them one after the other by one command.

Whatever has to know what a run trains and how far it is asks :func:`trained_parts`, and no loop for its class.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any, NamedTuple

from mmengine.hooks import ParamSchedulerHook
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapperDict, build_optim_wrapper
from mmengine.runner import BaseLoop, Runner
from torch import nn
from torch.utils.data import DataLoader

from hierseg.datasets.samplers import seek
from hierseg.errors import ConfigError
from hierseg.registry import HOOKS, LOOPS, OPTIM_WRAPPER_CONSTRUCTORS
from hierseg.taxonomy import Taxonomy

WHERE = 'LayerwiseTrainLoop'


class Part(NamedTuple):
    """Part of a model that is trained by itself, or the whole model, and how far its training is."""

    name: str  # the model's attribute; empty for the whole model
    model: nn.Module  # without a distributed wrapper
    dataloader: DataLoader[Any]
    epoch: int  # epochs done of the part
    iteration: int  # iterations done of the part
    in_training: bool  # the run is at this part, or ended with it; true of one part


def trained_parts(runner: Runner) -> list[Part]:
    """The parts that a run trains, in their order; none where it only tests.

    A loop that trains parts has an attribute ``parts``, a list of them. Any other trains the model as a whole.
    """
    loop = runner._train_loop
    if not isinstance(loop, BaseLoop):  # MMEngine's is a config until training begins
        return []
    if hasattr(loop, 'parts'):
        return [*loop.parts]
    return [Part('', unwrapped(runner.model), loop.dataloader, loop.epoch, loop.iter, in_training=True)]


def part_in_training(runner: Runner) -> Part:
    """The part of a run's model that is in training; the last one when all are done."""
    return next(part for part in trained_parts(runner) if part.in_training)


def unwrapped(model: nn.Module) -> nn.Module:
    """A model without its distributed wrapper, if it has one."""
    return model.module if is_model_wrapper(model) else model


class Layer(NamedTuple):
    """Name of a layer, its length, and where in the whole run it begins."""

    name: str
    max_epochs: int
    iterations_per_epoch: int
    first_epoch: int
    first_iteration: int

    @property
    def max_iterations(self) -> int:
        """Iterations of all its epochs."""
        return self.max_epochs * self.iterations_per_epoch


@LOOPS.register_module()
class LayerwiseTrainLoop(BaseLoop):
    """Trains each layer to its end before the next: with its own data, optimiser, schedulers and length.

    A layer is an attribute of the model, and a key of ``max_epochs``, which orders the layers, ``optim_wrapper``,
    ``param_scheduler`` and ``train_dataloader``, whose other keys all layers share. Epochs and iterations of the
    runner, and so of checkpoints and logs, count through all layers. A step of a layer is that layer's own
    ``train_step``: under a distributed wrapper of each layer (``MMSeparateDistributedDataParallel``) gradients are
    averaged over the processes as for a model alone.

    Logged losses are named after the layer, ``layer0/loss_bbox``; their sum is also logged as ``loss``, which
    other hooks look for. The whole model is evaluated once, at the end, if the config has a ``val_cfg``: before
    its last layer is trained, its score says nothing.

    Schedulers begin with their layer: where a scheduler has no ``end``, it is the layer's.
    ``hierseg.LayerwiseHook`` must take the place of ``ParamSchedulerHook``.

    Raises:
        ConfigError: Layers are missing in one of the settings, batch sizes differ, a layer would not be
            trained, or the hook is missing.
    """

    def __init__(self, runner: Runner, dataloader: Mapping[str, Any], max_epochs: Mapping[str, int]) -> None:
        self._runner = runner
        self.dataloaders = self._build_dataloaders(dataloader, max_epochs)
        self.layers: list[Layer] = []
        self.max_epochs = self.max_iters = 0  # of all layers
        for name, epochs in max_epochs.items():
            layer = Layer(name, epochs, len(self.dataloaders[name]), self.max_epochs, self.max_iters)
            self.layers.append(layer)
            self.max_epochs += epochs
            self.max_iters += layer.max_iterations
        self._epoch = self._iter = 0  # set by the runner when it resumes
        runner.param_schedulers = self._bind_schedulers(runner.param_schedulers)

    def _build_dataloaders(
        self, config: Mapping[str, Any], max_epochs: Mapping[str, int]
    ) -> dict[str, DataLoader[Any]]:
        for name, epochs in max_epochs.items():
            if name not in config or 'dataset' not in config[name]:
                raise ConfigError(f'train_dataloader has no dataset for {name}', where=WHERE)
            if epochs < 1:
                raise ConfigError(f'{name} must be trained for an epoch at least, not {epochs}', where=WHERE)
        shared = {key: value for key, value in config.items() if key not in max_epochs}
        settings = {name: {**shared, **config[name]} for name in max_epochs}
        sizes = {setting.get('batch_size') for setting in settings.values()}
        if sizes != {config.get('batch_size')}:
            # By it the runner scales the learning rates of all layers (--auto-scale-lr).
            fix = 'Set batch_size once, beside the layers in train_dataloader.'
            raise ConfigError(f'batch sizes of the layers are {sizes}', where=WHERE, fix=fix)
        seeds = {'seed': self.runner.seed, 'diff_rank_seed': self.runner._randomness_cfg.get('diff_rank_seed', False)}
        return {name: self.runner.build_dataloader(setting, **seeds) for name, setting in settings.items()}

    def _bind_schedulers(self, config: Any) -> dict[str, list[Any]] | None:
        """Scheduler configs with the length of their own layer, before the runner fills in the loop's."""
        if config is None:
            return None
        names = [layer.name for layer in self.layers]
        if not isinstance(config, Mapping) or set(config) != set(names):
            raise ConfigError(f'param_scheduler must be a dict with the keys {names}', where=WHERE)
        bound = {}
        for layer in self.layers:
            given = config[layer.name]
            bound[layer.name] = deepcopy(list(given) if isinstance(given, Sequence) else [given])
            for scheduler in bound[layer.name]:
                end = layer.max_epochs if scheduler.get('by_epoch', True) else layer.max_iterations
                scheduler.setdefault('end', end)
                scheduler['epoch_length'] = layer.iterations_per_epoch
        return bound

    @property
    def epoch(self) -> int:
        """Epochs done, of all layers."""
        return self._epoch

    @property
    def iter(self) -> int:
        """Iterations done, of all layers."""
        return self._iter

    @property
    def layer(self) -> Layer:
        """The layer in training; the last one when all are done."""
        return self.layer_of(self._epoch)

    def layer_of(self, epoch: int) -> Layer:
        """The layer that an epoch, counted through all layers, belongs to."""
        return self.layers[bisect_right([layer.first_epoch for layer in self.layers], epoch) - 1]

    @property
    def layer_iter(self) -> int:
        """Iterations done of the layer in training."""
        return self._iter - self.layer.first_iteration

    @property
    def _batches_done(self) -> int:
        """Batches done of the epoch in training."""
        return self.layer_iter - (self._epoch - self.layer.first_epoch) * self.layer.iterations_per_epoch

    @property
    def parts(self) -> list[Part]:
        """The layers as parts of the model."""
        return [
            Part(
                name=layer.name,
                model=unwrapped(self._wrapped(layer)),
                dataloader=self.dataloaders[layer.name],
                epoch=min(max(self._epoch - layer.first_epoch, 0), layer.max_epochs),
                iteration=min(max(self._iter - layer.first_iteration, 0), layer.max_iterations),
                in_training=layer is self.layer,
            )
            for layer in self.layers
        ]

    @property
    def dataloader(self) -> DataLoader[Any]:
        """The dataloader of the layer in training."""
        return self.dataloaders[self.layer.name]

    def run(self) -> nn.Module:
        """Trains what is left of all layers."""
        self._check()
        self.runner.call_hook('before_train')
        while self._epoch < self.max_epochs:
            layer = self.layer
            self._begin(layer)
            while self._epoch < layer.first_epoch + layer.max_epochs:
                self._run_epoch()
            # Ends its workers, which persistent_workers keeps.
            self.dataloaders[layer.name]._iterator = None
        if self.runner.val_loop is not None:
            self.runner.val_loop.run()
        self.runner.call_hook('after_train')
        return self.runner.model

    def _check(self) -> None:
        for layer in self.layers:
            if layer.name not in self.runner.optim_wrapper:
                raise ConfigError(f'optim_wrapper has no {layer.name}', where=WHERE)
        if any(type(hook) is ParamSchedulerHook for hook in self.runner.hooks):
            fix = "Use default_hooks=dict(param_scheduler=dict(type='hierseg.LayerwiseHook'))."
            raise ConfigError(
                'ParamSchedulerHook would step the schedulers of all layers at once', where=WHERE, fix=fix
            )
        # Epochs and iterations that a checkpoint brought must be one place in this run.
        if not 0 <= self._batches_done <= self.layer.iterations_per_epoch or self._iter > self.max_iters:
            lengths = [f'{layer.name}: {layer.max_epochs} × {layer.iterations_per_epoch}' for layer in self.layers]
            raise ConfigError(
                f'the checkpoint is of {self._epoch} epochs and {self._iter} iterations, '
                f'which do not meet where epochs × iterations are {", ".join(lengths)}',
                where=WHERE,
                fix='Resume with the epochs and iterations of each layer that it was trained with.',
            )

    def _begin(self, layer: Layer) -> None:
        self.runner.logger.info(
            f'{layer.name}: {layer.max_epochs} epochs of {layer.iterations_per_epoch} iterations, '
            f'{self.layer_iter} of {layer.max_iterations} done'
        )
        self.runner.visualizer.dataset_meta = getattr(self.dataloader.dataset, 'metainfo', None)
        # Else each line of the log would repeat the last losses of the layers before.
        done = tuple(f'train/{other.name}/' for other in self.layers if other.first_epoch < layer.first_epoch)
        hub = self.runner.message_hub
        for key in [*hub.log_scalars]:
            if key.startswith(done) or (key == 'train/loss' and self.layer_iter == 0):
                del hub.log_scalars[key], hub._resumed_keys[key]
        optimiser = self.runner.optim_wrapper[layer.name]
        optimiser.initialize_count_status(self._wrapped(layer), self.layer_iter, layer.max_iterations)

    def _wrapped(self, layer: Layer) -> nn.Module:
        """A layer's part of the model, in its distributed wrapper if there is one."""
        part: nn.Module = getattr(unwrapped(self.runner.model), layer.name)
        return part

    def _run_epoch(self) -> None:
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        layer, first = self.layer, self._batches_done
        # The sampler counts the layer's own epochs, so that a layer alone draws the same images.
        seek(self.dataloader, epoch=self._epoch - layer.first_epoch, batch=first, where=WHERE)
        for number, batch in enumerate(self.dataloader, first):
            self.runner.call_hook('before_train_iter', batch_idx=number, data_batch=batch)
            losses = self._wrapped(layer).train_step(batch, optim_wrapper=self.runner.optim_wrapper[layer.name])
            outputs = {'loss': losses['loss'], **{f'{layer.name}/{key}': value for key, value in losses.items()}}
            self.runner.call_hook('after_train_iter', batch_idx=number, data_batch=batch, outputs=outputs)
            self._iter += 1
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerwiseOptimWrapperConstructor:
    """Builds an optimiser wrapper for each layer, an attribute of the model, of the config by its name.

    A ``paramwise_cfg`` of all layers together, or a layer that the model lacks, is a ConfigError.
    """

    def __init__(self, optim_wrapper_cfg: Mapping[str, Any], paramwise_cfg: Mapping[str, Any] | None = None) -> None:
        if paramwise_cfg is not None:
            raise ConfigError('paramwise_cfg belongs into the config of a layer', where='optim_wrapper')
        self.configs = optim_wrapper_cfg

    def __call__(self, model: nn.Module) -> OptimWrapperDict:
        """The optimiser wrappers by layer."""
        wrappers = {}
        for name, config in self.configs.items():
            part = getattr(unwrapped(model), name, None)
            if not isinstance(part, nn.Module):
                raise ConfigError(f'the model has no part {name}', where='optim_wrapper')
            wrappers[name] = build_optim_wrapper(part, config)
        return OptimWrapperDict(**wrappers)


@HOOKS.register_module()
class LayerwiseHook(ParamSchedulerHook):
    """Steps the schedulers of the layer in training, and saves checkpoints of the model as a whole.

    In a checkpoint, weights have the same names whether the layers were in distributed wrappers or not, and
    ``dataset_meta``, from which inference takes the class names, is that of the model's ``taxonomy``.
    """

    def before_train(self, runner: Runner) -> None:
        """Refuses a loop that trains the model as a whole."""
        if not part_in_training(runner).name:
            raise ConfigError('LayerwiseHook needs a LayerwiseTrainLoop', where='default_hooks')

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
        name = part_in_training(runner).name
        for scheduler in (runner.param_schedulers or {}).get(name, []):
            if scheduler.by_epoch == by_epoch:
                scheduler.step()

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Makes a checkpoint of the whole model, of what the runner takes from the layer in training."""
        loop, meta, weights = runner.train_loop, checkpoint['meta'], checkpoint['state_dict']
        for name in [*weights]:
            layer, _, rest = name.partition('.module.')
            if layer in loop.dataloaders:
                weights[f'{layer}.{rest}'] = weights.pop(name)
        following = loop.dataloaders[loop.layer_of(meta['epoch']).name]
        meta['layer_meta'] = getattr(following.dataset, 'metainfo', None)
        taxonomy = getattr(unwrapped(runner.model), 'taxonomy', None)
        if isinstance(taxonomy, Taxonomy):
            meta['dataset_meta'] = taxonomy.dataset_meta()

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """On resuming, lets the runner compare the data of the layer in training."""
        meta = checkpoint.get('meta', {})
        if runner._resume and 'layer_meta' in meta:
            meta['dataset_meta'] = meta['layer_meta']
