"""Training of the model that a config describes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.runner import Runner, find_latest_checkpoint

from hierseg.apis.runner import build_runner, check_checkpoint, load_config, running
from hierseg.errors import ConfigError


def train(
    config: str | Path,
    *,
    work_dir: str | Path | None = None,
    amp: bool = False,
    auto_scale_lr: bool = False,
    resume: str | None = None,
    options: Mapping[str, Any] | None = None,
    launcher: str = 'none',
) -> Runner:
    """Trains a model.

    Args:
        config: The config file.
        work_dir: Where logs and checkpoints go; `./work_dirs/<config name>` unless the config says otherwise.
        amp: Trains in mixed precision.
        auto_scale_lr: Scales the learning rate with the batch size, from the config's `base_batch_size`.
        resume: A checkpoint to go on from, or `auto`: the latest one in the work directory, if there is one.
        options: Values by dotted key that override the config's.
        launcher: What started this process: `none`, `pytorch`, `slurm` or `mpi`.

    Returns:
        The runner, with the trained model.

    Raises:
        ConfigError: A file does not exist, or the config does not allow what is asked for.
    """
    settled = load_config(config, options=options, work_dir=work_dir, launcher=launcher)
    if amp:
        _use_mixed_precision(settled)
    if auto_scale_lr:
        _scale_learning_rate(settled, where=str(config))
    if resume == 'auto':
        # Without a checkpoint the run begins, from `load_from` if the config has it.
        settled.resume = find_latest_checkpoint(settled.work_dir) is not None
        settled.load_from = None if settled.resume else settled.get('load_from')
    elif resume is not None:
        settled.resume, settled.load_from = True, check_checkpoint(resume)
    with running(settled.get('load_from')):
        runner = build_runner(settled)
        runner.train()
    return runner


def _use_mixed_precision(config: Config) -> None:
    if not torch.cuda.is_available():
        raise ConfigError('mixed precision needs a GPU, and torch sees none here', fix='Leave --amp out.')
    settings = config.optim_wrapper
    # Of one optimiser, or of one for each layer by name.
    of_layers = [settings[name] for name in settings if name != 'constructor'] if 'optimizer' not in settings else []
    for wrapper in of_layers or [settings]:
        wrapper.update(type='AmpOptimWrapper', loss_scale='dynamic')


def _scale_learning_rate(config: Config, *, where: str) -> None:
    settings = config.get('auto_scale_lr') or {}
    if not {'enable', 'base_batch_size'} <= settings.keys():
        raise ConfigError(
            'the learning rate cannot be scaled without a batch size that it was chosen for',
            where=where,
            fix='Add auto_scale_lr = dict(enable=False, base_batch_size=16) to the config.',
        )
    settings.enable = True
