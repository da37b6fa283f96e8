"""From a config file to an MMEngine runner that trains or evaluates its model, on one process or several.

Also trained detectors with the preprocessing of their config, and the stores that a config reads.
"""

from __future__ import annotations

import atexit
import copy
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from mmdet.registry import RUNNERS
from mmdet.utils import get_test_pipeline_cfg, setup_cache_size_limit_of_dynamo
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.dist import is_main_process
from mmengine.registry import init_default_scope
from mmengine.runner import CheckpointLoader, Runner
from torch import nn

from hierseg.apis.configs import load_config
from hierseg.engine.checkpoint_files import (
    check_checkpoint,
    latest_checkpoint,
    read_checkpoint_file,
    safe_loading,
)
from hierseg.engine.checkpoints import fit_tensors, fitted, meta_of, require_all, require_finite, weights_of
from hierseg.errors import ConfigError
from hierseg.files import disk_faults, finite, make_folder, tidy, write_json
from hierseg.locks import locked, locked_file
from hierseg.models.hierarchical_loss import require_box_heads
from hierseg.registry import MODELS
from hierseg.screen import QuietRunner
from hierseg.taxonomy import Taxonomy

OWN_HOOKS = ('runtime_info', 'timer', 'sampler_seed', 'logger', 'param_scheduler', 'checkpoint')
"""Default hooks that a Runner has whatever the config says, unless it says None."""


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
    """Builds the runner that a config describes: `runner_type`'s, or MMEngine's default one with a quiet screen.

    A default hook that is None is left out; MMEngine knows that of its own hooks only.
    """
    hooks = config.get('default_hooks') or {}
    for name in [name for name, hook in hooks.items() if hook is None and name not in OWN_HOOKS]:
        del hooks[name]
    require_box_heads(config.get('model'))
    setup_cache_size_limit_of_dynamo()
    prepare_distributed(config)
    return RUNNERS.build(config) if 'runner_type' in config else QuietRunner.from_cfg(config)


def end_process(launcher: str) -> None:
    """Ends the process of a tool that is done; one of several on a CPU without Python's finalisation.

    Threads of gloo may still let go of tensors that Python knows while the interpreter is being torn down. Rarely,
    such a process aborts after all its work is done ("terminate called without an active exception"; pytorch
    #179291), and the launcher reports a failure.
    """
    if launcher == 'none' or torch.cuda.is_available():
        return
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


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
        work_dir: Folder of logs and checkpoints; `./work_dirs/<config name>` unless the config says otherwise.
        amp: Trains in mixed precision.
        auto_scale_lr: Scales the learning rate with the batch size, from the config's `base_batch_size`.
        resume: A checkpoint to go on from, or `auto`: the latest one in the work directory, if there is one.
        options: Values by dotted key that override the config's.
        launcher: What started this process: `none`, `pytorch`, `slurm` or `mpi`.

    Returns:
        The runner, with the trained model.

    Raises:
        ConfigError: A file does not exist, or the config does not allow what is asked for.
        OutputError: Another training runs in the work directory, or the disk is full.
    """
    settled = load_config(config, options=options, work_dir=work_dir, launcher=launcher)
    if amp:
        _use_mixed_precision(settled)
    if auto_scale_lr:
        if not {'enable', 'base_batch_size'} <= (settled.get('auto_scale_lr') or {}).keys():
            raise ConfigError(
                'the learning rate cannot be scaled without a batch size that it was chosen for',
                where=str(config),
                fix='Add auto_scale_lr = dict(enable=False, base_batch_size=16) to the config.',
            )
        settled.auto_scale_lr.enable = True
    if resume == 'auto':
        # Without a checkpoint the run begins, from `load_from` if the config has it.
        latest = latest_checkpoint(settled.work_dir)
        settled.resume, settled.load_from = latest is not None, latest or settled.get('load_from')
    elif resume is not None:
        settled.resume, settled.load_from = True, check_checkpoint(resume)
    with (
        _only_training(settled.work_dir, launcher),
        safe_loading(),
        disk_faults(settled.work_dir, only_full=True),  # logs are written by MMEngine
    ):
        runner = build_runner(settled)
        runner.train()
    return runner


@contextmanager
def _only_training(work_dir: str, launcher: str) -> Iterator[None]:
    """Keeps other trainings out of a work directory, and removes what killed ones left; the first process does."""
    if _rank(launcher):
        yield
        return
    with locked(make_folder(work_dir)):
        for folder, _, _ in os.walk(work_dir):  # each start has a folder of its own
            tidy(Path(folder))
        yield


def _rank(launcher: str) -> int:
    """Number of this process before there is a process group."""
    variables = {'pytorch': 'RANK', 'slurm': 'SLURM_PROCID', 'mpi': 'OMPI_COMM_WORLD_RANK'}
    return int(os.environ.get(variables.get(launcher, ''), 0))


def _use_mixed_precision(config: Config) -> None:
    if not torch.cuda.is_available():
        raise ConfigError('mixed precision needs a GPU, and torch sees none here', fix='Leave --amp out.')
    settings = config.optim_wrapper
    # Of one optimiser, or of one for each layer by name.
    of_layers = [settings[name] for name in settings if name != 'constructor'] if 'optimizer' not in settings else []
    for wrapper in of_layers or [settings]:
        wrapper.update(type='AmpOptimWrapper', loss_scale='dynamic')


def evaluate(
    config: str | Path,
    checkpoint: str,
    *,
    work_dir: str | Path | None = None,
    out: str | None = None,
    show: bool = False,
    show_dir: str | None = None,
    wait_time: float = 2,
    coco_results: str | None = None,
    options: Mapping[str, Any] | None = None,
    launcher: str = 'none',
) -> dict[str, float]:
    """Evaluates a model on the config's test data.

    Args:
        config: The config file.
        checkpoint: The weights.
        work_dir: As for :func:`train`; it gets `results.json`, the metrics, too.
        out: Dumps the predictions into this pickle file (`.pkl` or `.pickle`).
        show: Shows the predictions in windows.
        show_dir: Writes the predictions as pictures into this folder; a relative one lies in
            `<work_dir>/<timestamp>/`, as in MMDetection.
        wait_time: How long a window stays, in seconds.
        coco_results: Writes the detections into this JSON file, see :class:`hierseg.evaluation.CocoResults`.
        options: As for :func:`train`.
        launcher: As for :func:`train`.

    Returns:
        The metrics by name.

    Raises:
        ConfigError: A file does not exist, or the config does not allow what is asked for.
    """
    settled = load_config(config, options=options, work_dir=work_dir, launcher=launcher)
    settled.load_from = check_checkpoint(checkpoint)
    if show or show_dir:
        _draw(settled, show=show, show_dir=show_dir, wait_time=wait_time)
    written: list[dict[str, Any]] = []
    if out is not None:
        if not out.endswith(('.pkl', '.pickle')):
            raise ConfigError('predictions are dumped as a pickle file', where=out, fix='Name it .pkl or .pickle.')
        # Imported where it is wanted: it imports mmdet, and readers of predictions do without.
        from hierseg.evaluation.dumped_results import DumpedResults

        written.append(dict(type=f'hierseg.{DumpedResults.__name__}', out_file_path=out))
    if coco_results is not None:
        written.append(dict(type='hierseg.CocoResults', store=_tested_store(settled), out_file=coco_results))
    evaluators = settled.test_evaluator if isinstance(settled.test_evaluator, list) else [settled.test_evaluator]
    settled.test_evaluator = [*evaluators, *written] if written else settled.test_evaluator
    results = Path(settled.work_dir) / 'results.json'
    with ExitStack() as stack:
        for path in [results, out, coco_results] if not _rank(launcher) else []:
            if path is not None:
                stack.enter_context(locked_file(path))
        stack.enter_context(disk_faults(settled.work_dir, only_full=True))
        stack.enter_context(safe_loading())
        runner = build_runner(settled)
        metrics = runner.test()
        if is_main_process():
            scores = finite({name: float(value) for name, value in metrics.items()})
            write_json(scores, results)
    return metrics


def _tested_store(config: Config) -> str:
    stores = sorted(set(stores_in(config.test_dataloader)))
    if len(stores) != 1:
        what = f'COCO results are written of one store, the test data have {len(stores)}'
        raise ConfigError(what, where=config.filename, fix='Test on one store at a time.')
    return stores[0]


def _draw(config: Config, *, show: bool, show_dir: str | None, wait_time: float) -> None:
    hook = config.default_hooks.get('visualization')
    if hook is None:
        raise ConfigError(
            'pictures are drawn by a hook that the config does not have',
            fix="Add visualization=dict(type='DetVisualizationHook') to default_hooks.",
        )
    hook.draw = True
    if show:
        hook.update(show=True, wait_time=wait_time)
    if show_dir:
        hook.test_out_dir = show_dir


def read_checkpoint(checkpoint: str) -> dict[str, Any]:
    """Reads a checkpoint in safe mode.

    Raises:
        ConfigError: It does not exist, cannot be read, or has no ``state_dict``.
    """
    if '://' in checkpoint:
        with safe_loading():
            found = CheckpointLoader.load_checkpoint(checkpoint, map_location='cpu', logger='silent')
    else:
        found = read_checkpoint_file(check_checkpoint(checkpoint), 'cpu')
    if not isinstance(found, dict) or not isinstance(found.get('state_dict'), dict):
        raise ConfigError('the file is no checkpoint of a training: it has no state_dict', where=checkpoint)
    return found


def load_detector(config: Config, checkpoint: str, *, device: str | None = None) -> nn.Module:
    """Builds a config's model with the weights of a checkpoint, a file or an address, to be tested.

    It lies on a device such as ``cuda:0``; on the first GPU, or the CPU without one, when omitted. As in MMDetection,
    its ``dataset_meta`` describes the classes. A taxonomy that the config names by a file comes from the checkpoint
    where there is no such file, so that the data that it was trained on need not be there.

    Raises:
        ConfigError: The checkpoint does not exist, cannot be read, or is of another model.
    """
    init_default_scope(config.get('default_scope', 'mmdet'))
    found = read_checkpoint(checkpoint)
    weights = weights_of(found, where=checkpoint)
    meta = meta_of(found, where=checkpoint)['dataset_meta']
    require_box_heads(config.model)
    settings = copy.deepcopy(config.model)
    if meta.get('taxonomy'):
        _replace_missing_taxonomies(settings, meta['taxonomy'], where=checkpoint)
    model: nn.Module = MODELS.build(settings)
    own = model.state_dict()
    fits = fit_tensors(own, weights)
    require_all(fits, where=checkpoint)
    require_finite({name: weights[name] for name in own.keys() & weights.keys()}, where=checkpoint)
    model.load_state_dict(fitted(own, weights, fits))
    model.dataset_meta = meta
    return model.to(device or ('cuda:0' if torch.cuda.is_available() else 'cpu')).eval()


def _replace_missing_taxonomies(settings: Any, described: Any, *, where: str) -> None:
    """Puts a checkpoint's taxonomy where a model's settings name a file that does not exist."""
    if isinstance(settings, dict):
        named = settings.get('taxonomy')
        if isinstance(named, str) and not Path(named).exists():
            settings['taxonomy'] = Taxonomy.from_json(described, where=where)
        settings = list(settings.values())
    if isinstance(settings, (list, tuple)):
        for value in settings:
            _replace_missing_taxonomies(value, described, where=where)


def picture_pipeline(config: Config) -> Compose:
    """The preprocessing of a config's test images, for pictures that are read already and have no annotations."""
    steps = []
    for step in get_test_pipeline_cfg(config):
        name = step['type'].rpartition('.')[2]
        if name == 'LoadImageFromFile':
            steps.append({'type': 'mmdet.LoadImageFromNDArray', 'to_float32': step.get('to_float32', False)})
        elif name != 'LoadAnnotations':
            steps.append(step)
    return Compose(steps)


def image_batch(pipeline: Compose, images: Sequence[npt.NDArray[np.uint8]]) -> dict[str, Any]:
    """RGB pictures, (H, W, 3) uint8, through :func:`picture_pipeline`: a batch for ``test_step``."""
    # MMDetection's detectors take OpenCV's order of channels and turn it in their preprocessor.
    packed = [pipeline({'img': np.ascontiguousarray(image[..., ::-1]), 'img_id': 0}) for image in images]
    return {key: [sample[key] for sample in packed] for key in ('inputs', 'data_samples')}


def tested_images(config: Config) -> Iterator[tuple[str, str]]:
    """Id and file of each image of the test data that a config names."""
    init_default_scope(config.get('default_scope', 'mmdet'))
    dataset = Runner.build_dataloader({**config.test_dataloader, 'num_workers': 0, 'persistent_workers': False}).dataset
    for index in range(len(dataset)):
        image = dataset.get_data_info(index)
        yield str(image['img_id']), image['img_path']


def stores_in(settings: Any) -> Iterator[str]:
    """The stores of all data sets in a part of a config."""
    if isinstance(settings, Mapping):
        if isinstance(settings.get('store'), str):
            yield settings['store']
        settings = list(settings.values())
    if isinstance(settings, (list, tuple)):
        for value in settings:
            yield from stores_in(value)
