"""Training that a resumed run goes on with exactly: nothing depends on what a process drew before."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import Any

from mmengine.dist import all_reduce, get_rank, is_distributed
from mmengine.hooks import EMAHook, Hook
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from torch import Tensor
from torch.utils.data import DataLoader

from hierseg.datasets.samplers import can_seek, seek
from hierseg.engine.layerwise import part_in_training, trained_parts
from hierseg.errors import ConfigError
from hierseg.registry import HOOKS
from hierseg.seeding import Purpose, seed_all, seeded

BATCHES_DONE = 'batches_of_epoch'  # key in the message hub, and so in checkpoints: of the epoch in training
FROM_WEIGHTS = 'To start from its weights, use --cfg-options load_from=... without --resume.'
HUB = ('log_scalars', 'runtime_info', 'resumed_keys')  # parts of the message hub


@HOOKS.register_module()
class ExactResumeHook(Hook):
    """Makes a training run a function of its seed, so that a run resumed anywhere ends with the same weights.

    With the stream samplers, which do the same for the data, it holds bit by bit on a CPU and as far as the
    kernels are deterministic on a GPU.

    - Initial weights are drawn from the run's seed; those of each layer of a ``LayerwiseTrainLoop`` as
      if it were trained alone.
    - Before each step the generators are seeded by the run's seed, the process and the iteration (of the
      layer), for what draws at random in a step: samplers of proposals, dropout.
    - After each epoch all processes take the mean of their buffers (running statistics of batch
      normalisation), of which a checkpoint holds one process's only; an averaged model (``EMAHook``) too.
    - A run without a seed in its config gets the first run's when it is resumed, its samplers included.
    - MMEngine's loops go on with the batch after the checkpoint, whichever it is, without loading those before.
      Left to itself, ``EpochBasedTrainLoop`` begins the epoch again, and ``IterBasedTrainLoop`` draws all earlier
      batches. A batch sampler that cannot be entered anywhere (``AspectRatioBatchSampler``) keeps the latter way,
      and cannot be resumed within an epoch of the former.
    """

    # Before ValidationLossHook and CheckpointHook.
    priority = 'ABOVE_NORMAL'

    def __init__(self) -> None:
        self._first_batch = 0

    def before_run(self, runner: Runner) -> None:
        """Draws initial weights of layers, or prepares the generators for the runner to do so."""
        for part in trained_parts(runner):
            if part.name:
                with seeded(runner.seed, Purpose.WEIGHTS):
                    part.model.init_weights()
        seed_all(runner.seed, Purpose.WEIGHTS)

    def before_train(self, runner: Runner) -> None:
        """Gives samplers the seed, which may have come with the checkpoint, and sets the data to the next batch."""
        for part in trained_parts(runner):
            sampler = getattr(part.dataloader.batch_sampler, 'sampler', part.dataloader.sampler)
            if hasattr(sampler, 'seed'):
                sampler.seed = runner.seed
        loop = runner.train_loop
        if isinstance(loop, IterBasedTrainLoop) and can_seek(loop.dataloader):
            loop.dataloader_iterator = EndlessBatches(loop.dataloader)
        # Not from the iterations done: a resumed run may have had epochs of another length before.
        if isinstance(loop, EpochBasedTrainLoop) and loop.iter > 0:
            self._begin_at(runner, runner.message_hub.get_info(BATCHES_DONE, 0))

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Seeds the generators for this step."""
        seed_all(runner.seed, Purpose.STEP, get_rank(), part_in_training(runner).iteration)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict[str, Any] | None = None
    ) -> None:
        """Counts batches, for a checkpoint within an epoch."""
        if isinstance(runner.train_loop, EpochBasedTrainLoop):
            runner.message_hub.update_info(BATCHES_DONE, self._first_batch + batch_idx + 1)

    def after_train_epoch(self, runner: Runner) -> None:
        """Gives all processes the same buffers."""
        if is_distributed():
            averaged = [hook.ema_model for hook in runner.hooks if isinstance(hook, EMAHook)]
            for buffer in chain.from_iterable(model.buffers() for model in [part_in_training(runner).model, *averaged]):
                if buffer.is_floating_point():
                    all_reduce(buffer, op='mean')
        if isinstance(runner.train_loop, EpochBasedTrainLoop):
            runner.message_hub.update_info(BATCHES_DONE, 0)
            self._begin_at(runner, 0)

    def _begin_at(self, runner: Runner, batch: int) -> None:
        """Sets the data to a batch of the epoch."""
        if batch != self._first_batch:
            loop = runner.train_loop
            seek(loop.dataloader, epoch=loop.epoch, batch=batch, where='ExactResumeHook')
            self._first_batch = batch


def require_resumable(checkpoint: Mapping[str, Any], runner: Runner, *, where: str) -> None:
    """Refuses a checkpoint that lacks a part of what a run goes on from, or has it in another form.

    MMEngine leaves out what is not there, and ends with other weights.

    Args:
        checkpoint: All of it.
        runner: The run, with its optimisers, schedulers and hooks.
        where: For the message.

    Raises:
        ConfigError: Progress, messages, or the state of an optimiser, a scheduler or an averaged model is missing,
            damaged or of another training.
    """
    meta, hub = checkpoint.get('meta'), checkpoint.get('message_hub')
    meta = meta if isinstance(meta, dict) else {}
    parts = {
        'its epoch and iteration': all(_is_count(meta.get(name)) for name in ('epoch', 'iter')),
        'its seed': meta.get('seed') is None or _is_count(meta['seed']),
        'its messages': isinstance(hub, dict) and all(isinstance(hub.get(name), dict) for name in HUB),
        'its optimiser': _same(_states(checkpoint, 'optimizer'), _named(runner.optim_wrapper), _fits_optimiser),
        # A run that has none needs none.
        'its schedulers': not runner.param_schedulers
        or _same(_states(checkpoint, 'param_schedulers'), _named(runner.param_schedulers), _fits_schedulers),
    }
    averages = [hook.ema_model for hook in runner.hooks if isinstance(hook, EMAHook)]
    if averages:
        found = checkpoint.get('ema_state_dict')
        parts['its averaged weights'] = isinstance(found, dict) and all(
            isinstance(found.get(name), Tensor) and found[name].shape == own.shape
            for name, own in averages[0].state_dict().items()
        )
    missing = [name for name, is_there in parts.items() if not is_there]
    if missing:
        what = f'the checkpoint cannot be resumed: {", ".join(missing)} is missing or of another training'
        raise ConfigError(what, where=where, fix=FROM_WEIGHTS)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _named(parts: Any) -> dict[str, Any]:
    """What a run has for each layer by its name, or for the whole model under an empty one."""
    return dict(parts.items()) if isinstance(parts, (dict, OptimWrapperDict)) else {'': parts}


def _states(checkpoint: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The states under a key of a checkpoint, as :func:`_named` has what they are for."""
    found = checkpoint.get(key)
    is_of_parts = isinstance(found, dict) and 'param_groups' not in found
    return found if is_of_parts else {'': found}  # type: ignore[return-value]


def _same(states: dict[str, Any], own: dict[str, Any], fits: Callable[[Any, Any], bool]) -> bool:
    return states.keys() == own.keys() and all(fits(states[name], own[name]) for name in own)


def _fits_schedulers(states: Any, own: Any) -> bool:
    states = [] if states is None else states
    return isinstance(states, list) and len(states) == len(own) and all(isinstance(state, dict) for state in states)


def _fits_optimiser(state: Any, wrapper: OptimWrapper) -> bool:
    groups = wrapper.optimizer.param_groups
    if not (
        isinstance(state, dict)
        and isinstance(state.get('state'), dict)
        and isinstance(state.get('param_groups'), list)
        and [len(group['params']) for group in groups]
        == [len(group.get('params', ())) for group in state['param_groups'] if isinstance(group, dict)]
    ):
        return False
    numbers = chain.from_iterable(group['params'] for group in state['param_groups'])
    parameters = chain.from_iterable(group['params'] for group in groups)
    of = dict(zip(numbers, parameters, strict=True))
    return all(
        number in of
        and isinstance(values, dict)
        and all(
            value.dim() == 0 or value.shape == of[number].shape
            for value in values.values()
            if isinstance(value, Tensor)
        )
        for number, values in state['state'].items()
    )


class EndlessBatches:
    """Source of batches for MMEngine's ``IterBasedTrainLoop``, epoch after epoch, for loaders that can seek.

    MMEngine's own loads, and throws away, all earlier batches when a run is resumed with workers, and pauses for
    two seconds after every epoch. The batches are the same.
    """

    def __init__(self, loader: DataLoader[Any]) -> None:
        self._loader = loader
        self.skip_iter(0)

    def skip_iter(self, num_iters: int) -> None:
        """Goes to where that many batches have been taken from the beginning."""
        self._batches = self._from(*divmod(num_iters, len(self._loader)))

    def _from(self, epoch: int, batch: int) -> Iterator[Any]:
        while True:
            seek(self._loader, epoch=epoch, batch=batch, where='EndlessBatches')
            yield from self._loader
            epoch, batch = epoch + 1, 0

    def __iter__(self) -> EndlessBatches:
        return self

    def __next__(self) -> Any:
        return next(self._batches)
