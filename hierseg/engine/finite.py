"""Training that stops where its numbers end: at the first loss that is NaN or infinite, before weights take it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapperDict
from mmengine.runner import Runner
from torch import Tensor, nn

from hierseg.engine.checkpoints import require_finite
from hierseg.engine.layerwise import trained_parts
from hierseg.errors import ConfigError, TrainingError
from hierseg.registry import HOOKS

SHOWN = 16  # images that an error names


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Ends a training at the first loss that is not finite, with its parts, its iteration and the names of its images.

    Nothing takes a step from such a loss, on a GPU either: whether the loss is finite is copied while the gradients are
    computed, and waited for before the optimiser's step. In mixed precision the scaler leaves such steps out itself,
    and gradients that are too large are ordinary; the loss is then looked at after the step. A process among several
    may still take a step from another's loss, so weights that are not finite are never written into a checkpoint.

    Raises:
        TrainingError: A loss, or weights that were about to be written, are NaN or infinite.
    """

    # Before hooks that average the weights, evaluate or write them.
    priority = 'VERY_HIGH'

    def __init__(self) -> None:
        self._losses: dict[str, Tensor] = {}
        self._is_finite: Tensor | None = None
        self._copied: torch.cuda.Event | None = None
        self._where = ''
        self._batch: Any = None

    def before_train(self, runner: Runner) -> None:
        """Watches the losses of all parts of the model, and the steps of all optimisers."""
        for part in trained_parts(runner):
            part.model.register_forward_hook(self._note, with_kwargs=True)
        wrappers = runner.optim_wrapper
        for wrapper in wrappers.values() if isinstance(wrappers, OptimWrapperDict) else [wrappers]:
            wrapper.optimizer.register_step_pre_hook(lambda *_: self._check())

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Keeps what an error would say."""
        self._where, self._batch = f'iteration {runner.iter + 1}', data_batch

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict[str, Any] | None = None
    ) -> None:
        """Looks at losses from which no step was taken: gradients that add up, and steps that a scaler left out."""
        self._check()
        self._losses, self._is_finite, self._batch = {}, None, None

    def _note(self, module: nn.Module, _: Any, options: Mapping[str, Any], output: Any) -> None:
        if not (module.training and options.get('mode') == 'loss' and isinstance(output, dict)):
            return
        self._losses = {name: _total(value) for name, value in output.items() if 'loss' in name}
        is_finite = torch.stack([*self._losses.values()]).isfinite().all()
        if is_finite.is_cuda:
            self._is_finite = torch.empty((), dtype=torch.bool, pin_memory=True)
            self._is_finite.copy_(is_finite, non_blocking=True)
            self._copied = torch.cuda.Event()
            self._copied.record()
        else:
            self._is_finite, self._copied = is_finite, None

    def _check(self) -> None:
        if self._is_finite is None:
            return
        if self._copied is not None:
            self._copied.synchronize()
        if not self._is_finite:
            losses = ', '.join(f'{name} {float(value):g}' for name, value in self._losses.items())
            raise TrainingError(
                f'the loss is not finite ({losses}) on the images {", ".join(_images(self._batch))}',
                where=self._where,
                fix='Lower the learning rate, clip gradients (optim_wrapper.clip_grad) or look at these images; '
                'the checkpoints written so far are not touched.',
            )

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Refuses weights that no run could go on from; the checkpoint before stays the latest."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        try:
            require_finite(dict(model.named_parameters()), where=f'iteration {runner.iter}')
        except ConfigError as error:
            fix = 'Lower the learning rate, or clip gradients (optim_wrapper.clip_grad).'
            raise TrainingError(f'no checkpoint is written: {error.what}', where=error.where, fix=fix) from error


def _total(value: Any) -> Tensor:
    """The sum of a loss, one tensor or several, as one float."""
    tensors = value if isinstance(value, (list, tuple)) else [value]
    return torch.stack([tensor.detach().float().sum() for tensor in tensors]).sum()


def _images(batch: Any) -> Iterator[str]:
    """Names of a batch's images, as far as they are known; a mosaic is named by its first one."""
    samples = batch.get('data_samples', []) if isinstance(batch, dict) else []
    for sample in samples[:SHOWN]:
        known = (getattr(sample, name, None) for name in ('img_path', 'img_id'))
        yield next((str(name) for name in known if name is not None), str(sample)[:40])
    if len(samples) > SHOWN:
        yield '…'
