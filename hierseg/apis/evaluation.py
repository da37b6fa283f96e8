"""Evaluation of a checkpoint of the model that a config describes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.dist import is_main_process

from hierseg.apis.runner import build_runner, check_checkpoint, load_config, running
from hierseg.errors import ConfigError
from hierseg.files import write_json


def evaluate(
    config: str | Path,
    checkpoint: str,
    *,
    work_dir: str | Path | None = None,
    out: str | None = None,
    show: bool = False,
    show_dir: str | None = None,
    wait_time: float = 2,
    tta: bool = False,
    options: Mapping[str, Any] | None = None,
    launcher: str = 'none',
) -> dict[str, float]:
    """Evaluates a model on the config's test data.

    Args:
        config: The config file.
        checkpoint: The weights.
        work_dir: Where the log and `results.json`, the metrics, go; `./work_dirs/<config name>` unless the
            config says otherwise.
        out: Dumps the predictions into this pickle file (`.pkl` or `.pickle`).
        show: Shows the predictions in windows.
        show_dir: Writes the predictions as pictures into this folder; a relative one lies in
            `<work_dir>/<timestamp>/`, as in MMDetection.
        wait_time: How long a window stays, in seconds.
        tta: Averages over augmented versions of each image: the config's `tta_model` and `tta_pipeline`, or
            horizontal flips.
        options: Values by dotted key that override the config's.
        launcher: What started this process: `none`, `pytorch`, `slurm` or `mpi`.

    Returns:
        The metrics by name.

    Raises:
        ConfigError: A file does not exist, or the config does not allow what is asked for.
    """
    settled = load_config(config, options=options, work_dir=work_dir, launcher=launcher)
    settled.load_from = check_checkpoint(checkpoint)
    if show or show_dir:
        _draw(settled, show=show, show_dir=show_dir, wait_time=wait_time)
    if tta:
        _augment(settled)
    if out is not None:
        _dump(settled, out)
    with running(checkpoint):
        runner = build_runner(settled)
        metrics = runner.test()
        if is_main_process():
            _write(metrics, Path(settled.work_dir) / 'results.json')
    return metrics


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


def _augment(config: Config) -> None:
    dataset = config.test_dataloader.dataset
    while 'dataset' in dataset:
        dataset = dataset.dataset
    if 'tta_model' not in config:
        if 'mask_head' in config.model.get('roi_head', {}):
            raise ConfigError(
                "MMDetection's own test-time augmentation does not merge masks, and the config has no other",
                fix='Leave --tta out, or add a tta_model to the config that merges masks.',
            )
        config.tta_model = ConfigDict(
            type='DetTTAModel', tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=100)
        )
    if 'tta_pipeline' not in config:
        keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'flip', 'flip_direction')
        flips = [dict(type='RandomFlip', prob=1.0), dict(type='RandomFlip', prob=0.0)]
        packing = [dict(type='PackDetInputs', meta_keys=keys)]
        config.tta_pipeline = deepcopy(dataset.pipeline)
        config.tta_pipeline[-1] = dict(type='TestTimeAug', transforms=[flips, packing])
    config.model = ConfigDict(**config.tta_model, module=config.model)
    dataset.pipeline = config.tta_pipeline


def _dump(config: Config, out: str) -> None:
    if not out.endswith(('.pkl', '.pickle')):
        raise ConfigError('predictions are dumped as a pickle file', where=out, fix='Name it .pkl or .pickle.')
    evaluators = config.test_evaluator if isinstance(config.test_evaluator, list) else [config.test_evaluator]
    config.test_evaluator = [*evaluators, dict(type='DumpDetResults', out_file_path=out)]


def _write(metrics: Mapping[str, float], path: Path) -> None:
    # JSON knows no NaN: a class without ground truth has no score, which is null.
    finite = {name: float(value) if math.isfinite(value) else None for name, value in metrics.items()}
    write_json(finite, path, error=ConfigError)
