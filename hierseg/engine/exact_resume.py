"""Training that a resumed run goes on with exactly: nothing depends on what a process drew before."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mmengine.dist import all_reduce, get_rank, is_distributed
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

from hierseg.engine.layerwise_loop import LayerwiseTrainLoop, unwrapped
from hierseg.registry import HOOKS
from hierseg.seeding import Purpose, seed_all, seeded


@HOOKS.register_module()
class ExactResumeHook(Hook):
    """Makes a training run a function of its seed, so that a run resumed anywhere ends with the same weights.

    With the stream samplers, which do the same for the data, it holds bit by bit on a CPU and as far as the
    kernels are deterministic on a GPU.

    - Initial weights are drawn from the run's seed; those of each layer of a :class:`LayerwiseTrainLoop` as
      if it were trained alone.
    - Before each step the generators are seeded by the run's seed, the process and the iteration (of the
      layer), for what draws at random in a step: samplers of proposals, dropout.
    - After each epoch all processes take the mean of their buffers (running statistics of batch
      normalisation), of which a checkpoint holds one process's only.
    - A run without a seed in its config gets the first run's when it is resumed, its samplers included.
    """

    # Before ValidationLossHook and CheckpointHook.
    priority = 'ABOVE_NORMAL'

    def before_run(self, runner: Runner) -> None:
        """Draws initial weights of layers, or prepares the generators for the runner to do so."""
        if isinstance(runner._train_loop, LayerwiseTrainLoop):
            model = unwrapped(runner.model)
            for layer in runner._train_loop.layers:
                with seeded(runner.seed, Purpose.WEIGHTS):
                    unwrapped(getattr(model, layer.name)).init_weights()
        seed_all(runner.seed, Purpose.WEIGHTS)

    def before_train(self, runner: Runner) -> None:
        """Gives samplers the seed, which may have come with the checkpoint after they were built."""
        loop = runner.train_loop
        loaders = loop.dataloaders.values() if isinstance(loop, LayerwiseTrainLoop) else [loop.dataloader]
        for sampler in map(_sampler, loaders):
            if hasattr(sampler, 'seed'):
                sampler.seed = runner.seed

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Seeds the generators for this step."""
        loop = runner.train_loop
        iteration = loop.layer_iter if isinstance(loop, LayerwiseTrainLoop) else loop.iter
        seed_all(runner.seed, Purpose.STEP, get_rank(), iteration)

    def after_train_epoch(self, runner: Runner) -> None:
        """Gives all processes the same buffers."""
        if is_distributed():
            for buffer in _trained_buffers(runner):
                all_reduce(buffer, op='mean')


def _sampler(loader: DataLoader[Any]) -> Any:
    return getattr(loader.batch_sampler, 'sampler', loader.sampler)


def _trained_buffers(runner: Runner) -> Iterator[Any]:
    """Buffers of real numbers that training may have changed differently in each process."""
    loop = runner.train_loop
    model: nn.Module = loop.layer_model if isinstance(loop, LayerwiseTrainLoop) else runner.model
    return (buffer for buffer in model.buffers() if buffer.is_floating_point())
