"""A start from another model's weights, and checkpoints that must fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import BaseLoop, Runner
from mmengine.runner.checkpoint import get_state_dict

from hierseg.engine.checkpoint_fit import (
    Fate,
    TensorFit,
    as_csv,
    fit_tensors,
    fitted,
    require_all,
    summary,
    weights_of,
)
from hierseg.engine.layerwise_loop import unwrapped
from hierseg.errors import ConfigError
from hierseg.files import write_atomically
from hierseg.models.two_layer_ensemble import LAYERS, TwoLayerEnsemble
from hierseg.registry import HOOKS

TABLE = 'load_from.csv'
SHOWN = 3


@HOOKS.register_module()
class LoadFromHook(Hook):
    """Says what a model takes from a checkpoint, and insists on all of it where that is meant.

    MMEngine loads whatever fits, and its message about the rest is easily missed: a test of another model's
    checkpoint scores random weights.

    - **Training from** ``load_from``: tensors of the same name and shape are taken, as from Mask R-CNN on COCO for
      other classes. The log tells how many of each module and lists every tensor that was not, with the
      reason; ``load_from.csv`` beside the log has them all. From a checkpoint of one detector, both layers of a
      ``TwoLayerEnsemble`` take theirs.
    - **Resuming and testing**: every tensor of the model must be in the checkpoint, in its shape.

    Raises:
        ConfigError: A checkpoint that must fit does not, nothing at all fits, or the file is no checkpoint.
    """

    # Before hooks that copy the weights, such as MMEngine's EMAHook.
    priority = 'VERY_HIGH'

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Puts what the model takes into the place of the checkpoint's weights."""
        where = str(runner._load_from or runner.work_dir)
        weights = weights_of(checkpoint, where=where)
        if runner._resume and 'epoch' not in checkpoint.get('meta', {}):
            raise ConfigError(
                'the checkpoint has weights and no state of a training to resume',
                where=where,
                fix='To start from its weights, use --cfg-options load_from=... without --resume.',
            )
        parts = LAYERS if isinstance(unwrapped(runner.model), TwoLayerEnsemble) else ()
        own = get_state_dict(runner.model)
        fits = fit_tensors(own, weights, parts=parts)
        # MMEngine's loop is a config until training begins.
        if runner._resume or not isinstance(runner._train_loop, BaseLoop):
            require_all(fits, where=where)
        elif not any(fit.fate is Fate.TAKEN for fit in fits):
            raise ConfigError(
                f'no tensor of the checkpoint fits the model: the checkpoint has {_some(weights)}, '
                f'the model {_some(own)}',
                where=where,
            )
        else:
            self._report(runner, fits, parts)
        checkpoint['state_dict'] = fitted(own, weights, fits)

    def _report(self, runner: Runner, fits: list[TensorFit], parts: tuple[str, ...]) -> None:
        table = Path(runner.log_dir) / TABLE
        if is_main_process():
            write_atomically(as_csv(fits).encode(), table)
        runner.logger.info(f'load_from {runner._load_from}: {summary(fits, parts=parts)}\nall of them: {table}')


def _some(names: Any) -> str:
    return ', '.join([*names][:SHOWN]) + ', …'
