"""The quickstart's configs on a few small images, with models that take a step in milliseconds; real processes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections import OrderedDict
from functools import cache
from pathlib import Path

import pytest
import torch
from mmengine.runner.checkpoint import get_torch_safe_globals
from warm_python import launched_warm, warm_python

from hierseg.apis import train as train_model
from hierseg.report import HierLocalVisualizer

ROOT = Path(__file__).parents[1]
TOOLS = ROOT / 'tools'

# Imported through the configs, into every process.
HOOKS = """
import os
import signal

import torch
from mmengine.config import Config
from mmengine.dist import get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

if 'KILL_AFTER' in os.environ:
    # MMEngine formats the config anew for every checkpoint, which takes longer than an epoch here.
    Config.pretty_text = property(lambda config: repr(config.to_dict()))


@HOOKS.register_module()
class KillingHook(Hook):
    '''Kills the last process after an iteration, as the kernel does when memory runs out.'''

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter + 1 == int(os.environ.get('KILL_AFTER', 0)) and get_rank() == get_world_size() - 1:
            os.kill(os.getpid(), signal.SIGKILL)


@HOOKS.register_module()
class NotingHook(Hook):
    '''Writes down what each process ends with.'''

    def after_train(self, runner):
        model = getattr(runner.model, 'module', runner.model)
        torch.save(model.state_dict(), f'{runner.work_dir}/rank{get_rank()}.pt')
"""

SMALL = dict(
    backbone=dict(base_channels=8, stem_channels=8),
    neck=dict(in_channels=[8, 16, 32, 64], out_channels=16),
    rpn_head=dict(in_channels=16, feat_channels=16),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=16),
        mask_roi_extractor=dict(out_channels=16),
        bbox_head=dict(in_channels=16, fc_out_channels=32),
        mask_head=dict(in_channels=16, conv_out_channels=8, num_convs=1),
    ),
)
COMMON = """
# Only what is used: writing a config down takes MMEngine longer than an epoch takes here.
slim_detector = train_pipeline = test_pipeline = validation_loss = None
custom_imports = dict(imports=['hierseg.registry', 'extra_hooks'], allow_failed_imports=False)
custom_hooks = [dict(type='KillingHook'), dict(type='NotingHook')]
default_hooks = dict(
    logger=dict(interval=1),
    checkpoint=dict(interval=1),
    validation_loss=dict(num_batches=1, dataloader=dict(batch_size=2)))
"""
# Layer 0 takes iterations 1 to 6, layer 1 takes 7 to 10.
ENSEMBLE = f"""
_base_ = {str(ROOT / 'configs/quickstart/two_layer_ensemble.py')!r}
{COMMON}
model = dict(layer0={SMALL}, layer1={SMALL})
train_dataloader = dict(
    batch_size=2, layer0=dict(batch_sampler=dict(iterations=3)), layer1=dict(batch_sampler=dict(iterations=2)))
train_cfg = dict(max_epochs=dict(layer0=2, layer1=2))
test_dataloader = dict(batch_size=1)
"""
# Three epochs of three iterations; classes are drawn at random in a step (`verified`).
END_TO_END = f"""
_base_ = {str(ROOT / 'configs/quickstart/hier_e2e.py')!r}
{COMMON}
model = {SMALL}
train_dataloader = dict(batch_size=2, batch_sampler=dict(iterations=3))
train_cfg = dict(max_epochs=3, val_interval=9)
val_dataloader = None
val_cfg = None
val_evaluator = None
"""
# The smallest real-time model in its two stages: epochs 1 and 2 with mosaics and mix-up, 3 without, of 2 iterations
# each. A checkpoint after every iteration.
REAL_TIME = f"""
_base_ = {str(ROOT / 'configs/hier_rtmdet_tiny.py')!r}
custom_imports = dict(imports=['hierseg.registry', 'extra_hooks'], allow_failed_imports=False)
model = dict(
    backbone=dict(widen_factor=0.125, init_cfg=None),
    neck=dict(in_channels=[32, 64, 128], out_channels=16),
    bbox_head=dict(num_classes=22, in_channels=16, feat_channels=16, stacked_convs=1, verified=dict(num_negatives=4)))
stages = [_base_.train_pipeline, _base_.train_pipeline_stage2]
for step in [*stages[0], *stages[1]]:
    for key in step:
        if key in ('scale', 'img_scale', 'crop_size', 'size'):
            step[key] = (96, 96)
train_dataloader = dict(
    batch_size=2, num_workers=0, persistent_workers=False, dataset=dict(indices=4, pipeline=stages[0]))
train_cfg = dict(max_epochs=3, dynamic_intervals=None)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=2),
    dict(type='CosineAnnealingLR', begin=1, end=3, T_max=2, by_epoch=True, convert_to_iter_based=True)]
_base_.averaging.update(momentum=0.2, gamma=2)
custom_hooks = [
    dict(type='KillingHook'),
    _base_.averaging,
    dict(type='PipelineSwitchHook', switch_epoch=2, switch_pipeline=stages[1])]
default_hooks = dict(
    logger=dict(interval=1),
    checkpoint=dict(interval=1, by_epoch=False, max_keep_ckpts=1, save_best=None),
    validation_loss=None,
    loss_curves=None)
validation_loss = test_pipeline = val_dataloader = val_cfg = val_evaluator = None
test_dataloader = test_cfg = test_evaluator = None
del step, key
"""
REAL_TIME_WITH_WORKERS = """
_base_ = 'real_time.py'
train_dataloader = dict(num_workers=2, persistent_workers=True)
"""


def alone(layer: str) -> str:
    """The config of a layer alone, made of the tiny ensemble's by the text of configs/two_layer/."""
    text = (ROOT / f'configs/two_layer/{layer}.py').read_text()
    return text.replace("'../two_layer_ensemble.py'", "'ensemble.py'")


def run(*command: str | Path, cwd: Path, expected: int = 0, **environment: str) -> str:
    """Runs a command as a user would and gives back what it printed."""
    variables = {**os.environ, 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': '-1', **launched_warm()}
    variables |= {
        'KILL_AFTER': '0',
        'PYTHONPATH': os.pathsep.join([str(ROOT), str(cwd)]),
        'PORT': free_port(),
        **environment,
    }
    variables.pop('LOCAL_RANK', None)
    answer = subprocess.run(
        command, cwd=cwd, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    assert answer.returncode == expected, answer.stdout[-4000:]
    return answer.stdout


def free_port() -> str:
    with socket.socket() as held:
        held.bind(('127.0.0.1', 0))
        return str(held.getsockname()[1])


def train(
    config: str, work_dir: str, *, cwd: Path, processes: int = 1, kill_after: int = 0, python: Path | None = None
) -> str:
    """Trains by the command line, resuming if there is a checkpoint, and kills the process after an iteration."""
    python = python or warm_python()
    arguments = [config, '--work-dir', work_dir, '--resume']
    command = [python, TOOLS / 'train.py', *arguments]
    expected = -signal.SIGKILL if kill_after else 0
    if processes > 1:
        command = ['bash', TOOLS / 'dist_train.sh', config, str(processes), *arguments[1:]]
        expected = 1 if kill_after else 0  # PyTorch's launcher ends the others
    programs = {name: str(python) for name in launched_warm()}
    return run(*command, cwd=cwd, expected=expected, KILL_AFTER=str(kill_after), **programs)


def train_here(config: str, work_dir: str, *, cwd: Path) -> Path:
    """Does in this process what the command line does in another, without the seconds that importing takes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(cwd)
            patch.syspath_prepend(cwd)
            patch.setenv('CUDA_VISIBLE_DEVICES', '-1')
            # MMEngine would give the visualizer of the run before, which draws into that one's folder.
            patch.setattr(HierLocalVisualizer, '_instance_dict', OrderedDict())
            train_model(config, work_dir=work_dir, resume='auto')
    finally:
        torch.set_num_threads(threads)
    return cwd / work_dir


def killed_here(config: str, work_dir: str, *, cwd: Path, kill_after: int) -> None:
    """Trains in a copy of this process, which is killed after an iteration."""
    child = os.fork()
    if child == 0:
        os.environ['KILL_AFTER'] = str(kill_after)
        try:
            train_here(config, work_dir, cwd=cwd)
        finally:
            os._exit(1)  # nothing of pytest must go on in the copy
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), os.waitstatus_to_exitcode(status)
    assert os.WTERMSIG(status) == signal.SIGKILL


def last_checkpoint(work_dir: Path) -> dict[str, object]:
    with torch.serialization.safe_globals(get_torch_safe_globals()):
        checkpoint: dict[str, object] = torch.load((work_dir / 'last_checkpoint').read_text(), weights_only=True)
    return checkpoint


def make_folder(folder: Path) -> Path:
    """A folder with data and configs, as the quickstart's commands write them."""
    data = folder / 'data/quickstart'
    script = [warm_python(), TOOLS / 'synthesize.py', data, '--images', '16', '--val-images', '6', '--size', '96']
    run(*script, cwd=folder)
    official = f'{data}/challenge-2019'
    for split in ('train', 'validation'):
        tables = [f'--{table}={official}-{split}-segmentation-{file}.csv' for table, file in TABLES.items()]
        run(
            warm_python(), TOOLS / 'dataset_converters/openimages.py', f'--out={data}/store/{split}', '--workers=1',
            f'--hierarchy={official}-label-hierarchy.json', f'--classes={official}-classes-description.csv', *tables,
            f'--mask-dir={data}/{split}-masks', f'--images={data}/{split}', cwd=folder,
        )  # fmt: skip
    (folder / 'data/openimages').symlink_to('quickstart')  # where the configs of 300 classes look
    (folder / 'extra_hooks.py').write_text(HOOKS)
    configs = {'ensemble': ENSEMBLE, 'end_to_end': END_TO_END, 'layer0': alone('layer0'), 'layer1': alone('layer1')}
    configs |= {'real_time': REAL_TIME, 'real_time_with_workers': REAL_TIME_WITH_WORKERS}
    for name, text in configs.items():
        (folder / f'{name}.py').write_text(text)
    return folder


TABLES = {'boxes': 'bbox', 'labels': 'labels', 'masks': 'masks'}


# One folder of a session, also where several modules import the fixture.
@pytest.fixture(scope='session')
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with data and configs."""
    return _made(tmp_path_factory.getbasetemp() / 'tiny_runs')


@cache
def _made(folder: Path) -> Path:
    folder.mkdir()
    return make_folder(folder)
