"""From a config file to an MMEngine runner, on one process or several, on GPUs or a CPU."""

from __future__ import annotations

import atexit
import os
import pickle
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from mmdet.registry import RUNNERS
from mmdet.utils import setup_cache_size_limit_of_dynamo
from mmengine.config import Config
from mmengine.runner import Runner
from mmengine.runner.checkpoint import get_torch_safe_globals

from hierseg.errors import ConfigError


def read_config(path: str | Path) -> Config:
    """Reads a config file with everything that it builds on.

    Raises:
        ConfigError: The file, or one that it builds on, does not exist or cannot be read.
    """
    if not Path(path).is_file():
        raise ConfigError('the config file does not exist', where=str(path), fix='Check the path.')
    try:
        return Config.fromfile(str(path))
    except (FileNotFoundError, SyntaxError, KeyError) as error:
        raise ConfigError(f'the config cannot be read: {error}', where=str(path)) from error


def load_config(
    path: str | Path,
    *,
    options: Mapping[str, Any] | None = None,
    work_dir: str | Path | None = None,
    launcher: str = 'none',
) -> Config:
    """Reads a config and settles what the command line may say about it.

    Args:
        path: The config file.
        options: Values by dotted key that override the file's.
        work_dir: Where logs and checkpoints go; else the config's own, else `./work_dirs/<config name>`.
        launcher: What started this process: `none`, `pytorch`, `slurm` or `mpi`.

    Raises:
        ConfigError: The file, or one that it builds on, does not exist or cannot be read.
    """
    config = read_config(path)
    config.launcher = launcher
    if options:
        config.merge_from_dict(dict(options))
    if work_dir is not None:
        config.work_dir = str(work_dir)
    elif config.get('work_dir') is None:
        config.work_dir = os.path.join('./work_dirs', Path(path).stem)
    return config


def check_checkpoint(checkpoint: str) -> str:
    """Gives the checkpoint back, if it is a file or an address.

    Raises:
        ConfigError: It is neither.
    """
    if '://' not in checkpoint and not Path(checkpoint).is_file():
        raise ConfigError('the checkpoint does not exist', where=checkpoint, fix='Check the path.')
    return checkpoint


def prepare_distributed(config: Config) -> None:
    """Makes a run of several processes possible on a CPU; changes nothing on GPUs or for one process.

    MMEngine's own start selects a CUDA device, which fails without one, but is skipped when a process group
    exists already. Its default wrapper names a device, which torch refuses for a module on the CPU.

    Raises:
        ConfigError: The processes were started by something other than PyTorch's launcher.
    """
    if config.launcher == 'none' or torch.cuda.is_available():
        return
    if config.launcher != 'pytorch':
        raise ConfigError(
            f'launcher {config.launcher!r} needs GPUs, and torch sees none here',
            fix="On a CPU use 'pytorch', as tools/dist_train.sh does.",
        )
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group('gloo')
    config.model_wrapper_cfg = {
        'type': 'MMDistributedDataParallel',
        'broadcast_buffers': False,
        'find_unused_parameters': config.get('find_unused_parameters', False),
        **(config.get('model_wrapper_cfg') or {}),
        'device_ids': None,
    }


def build_runner(config: Config) -> Runner:
    """Builds the runner that a config describes: `runner_type`'s, or MMEngine's default one."""
    setup_cache_size_limit_of_dynamo()
    prepare_distributed(config)
    return RUNNERS.build(config) if 'runner_type' in config else Runner.from_cfg(config)


def end_process(launcher: str) -> None:
    """Ends the process of a tool that is done; one of several on a CPU without Python's finalisation.

    Threads of gloo may still let go of tensors that Python knows while the interpreter is being torn down. Rarely,
    such a process aborts after all its work is done ("terminate called without an active exception"; pytorch
    #179291), and the launcher reports a failure.

    Args:
        launcher: What started this process: `none`, `pytorch`, `slurm` or `mpi`.
    """
    if launcher == 'none' or torch.cuda.is_available():
        return
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


@contextmanager
def running(checkpoint: str | None = None) -> Iterator[None]:
    """Holds what a run needs around it: safe loading of checkpoints, and the end of the process group.

    onedl-mmengine falls back to unpickling arbitrary objects, which can run code, where torch's safe loader
    refuses a checkpoint. Here the safe loader has the last word, unless TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD says
    that the file is trusted.

    Raises:
        ConfigError: The checkpoint holds more than tensors and plain values.
    """
    before = os.environ.get('TORCH_FORCE_WEIGHTS_ONLY_LOAD', '')
    if 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD' not in os.environ:
        os.environ['TORCH_FORCE_WEIGHTS_ONLY_LOAD'] = '1'
    # MMEngine allows the harmless types of its own checkpoints for files; checkpoints by address need them, too.
    torch.serialization.add_safe_globals(get_torch_safe_globals())
    try:
        yield
    except pickle.UnpicklingError as error:
        raise ConfigError(
            f'the checkpoint cannot be loaded safely: {str(error).splitlines()[0]}',
            where=checkpoint or '',
            fix='If you trust whoever made it, set TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1.',
        ) from error
    finally:
        os.environ['TORCH_FORCE_WEIGHTS_ONLY_LOAD'] = before
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
