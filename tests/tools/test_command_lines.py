"""Every tool answers --help; the small ones, print_config.py and the launch scripts, do their job once."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from mmengine.config import Config

TOOLS = Path(__file__).parents[2] / 'tools'
CONFIG = str(TOOLS.parent / 'configs' / 'quickstart' / 'hier_e2e.py')


def run_tool(monkeypatch: pytest.MonkeyPatch, tool: str | Path, *arguments: str) -> None:
    """Runs a tool in this process, which has the slow imports behind it."""
    monkeypatch.setattr(sys, 'argv', [str(TOOLS / tool), *arguments])
    runpy.run_path(str(TOOLS / tool), run_name='__main__')


PARTS = {'drawn_data.py', 'stopwatch.py'}  # what several tools import


@pytest.mark.parametrize(
    'tool',
    sorted(path for path in TOOLS.rglob('*.py') if path.name not in PARTS and path.parent.name != 'chaos'),
    ids=lambda path: str(path.relative_to(TOOLS)),
)
def test_every_tool_answers_help(
    tool: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        run_tool(monkeypatch, tool, '--help')
    assert caught.value.code == 0
    assert 'usage: ' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('tool', 'flags'),
    [
        ('train.py', '--work-dir --amp --auto-scale-lr --resume --cfg-options --launcher'),
        ('test.py', '--work-dir --out --show --show-dir --wait-time --cfg-options --launcher'),
    ],
)
def test_flags_are_those_of_mmdetection(
    tool: str, flags: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run_tool(monkeypatch, tool, '--help')
    usage = capsys.readouterr().out
    assert [flag for flag in flags.split() if f'[{flag}' not in usage] == []
    assert '{none,pytorch,slurm,mpi}' in usage


@pytest.mark.parametrize(
    ('tool', 'arguments', 'message'),
    [
        ('train.py', ['nowhere.py'], 'error: nowhere.py: the config file does not exist.'),
        ('train.py', [CONFIG, '--resume', 'nowhere.pth'], 'error: nowhere.pth: the checkpoint does not exist.'),
        ('test.py', [CONFIG, 'nowhere.pth'], 'error: nowhere.pth: the checkpoint does not exist.'),
        ('test.py', [CONFIG, CONFIG, '--out', 'out.json'], 'error: out.json: predictions are dumped as a pickle file.'),
        ('misc/print_config.py', ['nowhere.py'], 'error: nowhere.py: the config file does not exist.'),
        ('misc/print_config.py', [CONFIG, '--save-path', 'a.txt'], 'error: a.txt: a config is saved as .py, .json'),
    ],
)
def test_bad_arguments_end_with_one_line(
    tool: str,
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('LOCAL_RANK', '0')
    with pytest.raises(SystemExit) as caught:
        run_tool(monkeypatch, tool, *arguments)
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(message)
    assert error.count('\n') == 1


def test_print_config_applies_options_and_saves_what_loads_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    saved = tmp_path / 'new' / 'whole.py'
    run_tool(
        monkeypatch,
        'misc/print_config.py',
        CONFIG,
        '--save-path',
        str(saved),
        '--cfg-options',
        'model.backbone.depth=34',
    )
    printed = capsys.readouterr().out
    assert printed.startswith('Config:\n')
    assert 'MaskRCNN' in printed, 'what the file builds on is printed too'
    assert Config.fromfile(saved).model.backbone.depth == 34


def run_script(script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = ['bash', str(TOOLS / script), *arguments]
    variables = {**os.environ, **environment}
    return subprocess.run(command, env=variables, capture_output=True, text=True, check=False)


class TestLaunchScripts:
    @pytest.fixture
    def stand_in(self, tmp_path: Path) -> Path:
        """Prints its arguments, one a line, and the threads that it may use."""
        path = tmp_path / 'stand-in'
        path.write_text('#!/bin/sh\nprintf "%s\\n" "$@" "OMP_NUM_THREADS=$OMP_NUM_THREADS"\n')
        path.chmod(0o755)
        return path

    def test_dist_train_passes_arguments_whole(self, stand_in: Path) -> None:
        environment = dict(PYTHON=str(stand_in), NNODES='2', NODE_RANK='1', MASTER_ADDR='10.0.0.1', PORT='29511')
        answer = run_script('dist_train.sh', 'a b.py', '4', '--cfg-options', 'x="[1, 2]"', **environment)
        lines = answer.stdout.splitlines()
        assert lines[:2] == ['-m', 'torch.distributed.run']
        expected = '--nnodes=2 --node_rank=1 --master_addr=10.0.0.1 --master_port=29511 --nproc_per_node=4'
        assert lines[2:7] == expected.split()
        arguments = ['a b.py', '--launcher', 'pytorch', '--cfg-options', 'x="[1, 2]"']
        assert lines[7:-1] == [str(TOOLS / 'train.py'), *arguments]

    def test_dist_test_passes_arguments_whole(self, stand_in: Path) -> None:
        answer = run_script('dist_test.sh', 'c.py', 'w.pth', '2', '--out', 'x y.pkl', PYTHON=str(stand_in))
        lines = answer.stdout.splitlines()
        assert lines[7:-1] == [str(TOOLS / 'test.py'), 'c.py', 'w.pth', '--launcher', 'pytorch', '--out', 'x y.pkl']

    @pytest.mark.parametrize(('processes', 'threads'), [(1, len(os.sched_getaffinity(0))), (10_000, 1)])
    def test_processes_share_the_cores(
        self, stand_in: Path, processes: int, threads: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv('OMP_NUM_THREADS', raising=False)
        answer = run_script('dist_train.sh', 'c.py', str(processes), PYTHON=str(stand_in))
        assert f'OMP_NUM_THREADS={threads}' in answer.stdout

    def test_a_set_number_of_threads_stays(self, stand_in: Path) -> None:
        answer = run_script('dist_train.sh', 'c.py', '1', PYTHON=str(stand_in), OMP_NUM_THREADS='3')
        assert 'OMP_NUM_THREADS=3' in answer.stdout

    def test_slurm_train_asks_for_the_gpus_and_starts_train(self, stand_in: Path) -> None:
        stand_in.rename(stand_in.parent / 'srun')
        environment = dict(PATH=f'{stand_in.parent}:{os.environ["PATH"]}', GPUS='16', SRUN_ARGS='--qos=high --time=1')
        answer = run_script('slurm_train.sh', 'part', 'job', 'c.py', 'work dir', '--amp', PYTHON='py', **environment)
        lines = answer.stdout.splitlines()
        assert {'-p', 'part', '--job-name=job', '--ntasks=16', '--gres=gpu:8', '--qos=high', '--time=1'} <= {*lines}
        start = ['py', '-u', str(TOOLS / 'train.py'), 'c.py', '--work-dir=work dir', '--launcher=slurm', '--amp']
        assert lines[lines.index('py') : -1] == start

    @pytest.mark.parametrize(
        ('script', 'arguments', 'message'),
        [
            ('dist_train.sh', ['c.py'], 'usage: dist_train.sh CONFIG GPUS'),
            ('dist_test.sh', ['c.py', 'w.pth'], 'usage: dist_test.sh CONFIG CHECKPOINT GPUS'),
            ('dist_train.sh', ['c.py', '--amp'], "must be a whole number from 1, not '--amp'"),
            ('slurm_train.sh', ['part', 'job'], 'usage: slurm_train.sh PARTITION'),
            ('quickstart.sh', ['--frsh'], 'error: unknown argument --frsh'),
        ],
    )
    def test_wrong_usage_is_said(self, script: str, arguments: list[str], message: str) -> None:
        answer = run_script(script, *arguments, HIERSEG_SKIP_SETUP='1')
        assert answer.returncode == 2
        assert message in answer.stderr

    def test_quickstart_answers_help(self) -> None:
        answer = run_script('quickstart.sh', '--help')
        assert answer.returncode == 0
        assert '--fresh' in answer.stdout
