"""The words of quickstart.sh: what it announces, and what it says of a failing step. test_train_and_test.py runs it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / 'tools'


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """A stand-in for Python that does nothing, but what $TRAIN says in place of training."""
    stand_in = tmp_path / 'python'
    stand_in.write_text('#!/bin/sh\ncase $1 in */train.py) eval "$TRAIN" ;; esac\n')
    stand_in.chmod(0o755)
    return stand_in


def quickstart(python: Path, train: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, 'HIERSEG_SKIP_SETUP': '1', 'PYTHON': str(python), 'TRAIN': train}
    return subprocess.run(
        ['bash', TOOLS / 'quickstart.sh', *arguments],
        cwd=python.parent, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(('arguments', 'whole', 'training'), [((), '14 min', '5 min'), (('--smoke',), '4 min', '29 s')])
def test_says_beforehand_what_it_does_and_how_long_it_takes(
    python: Path, arguments: tuple[str, ...], whole: str, training: str
) -> None:
    said = quickstart(python, 'exit 1', *arguments).stdout
    assert f'== 11 steps, together about {whole} ' in said
    assert '== 1/11 write a synthetic data set: about ' in said
    assert re.search(r'== 1/11 write a synthetic data set: took \d+ s', said)
    assert said.rstrip().endswith(f'== 4/11 train two_layer_ensemble: about {training}')


@pytest.mark.parametrize(
    ('failure', 'mend'),
    [
        ('echo "OSError: [Errno 28] No space left on device" >&2; exit 1', 'the disk is full'),
        ('echo "torch.OutOfMemoryError: CUDA out of memory." >&2; exit 1', 'export HIERSEG_CPU_ONLY=1'),
        ('echo "RuntimeError: DataLoader worker (pid 7) is killed by signal: Bus error." >&2; exit 1', '--shm-size 2g'),
        ('echo "ModuleNotFoundError: No module named \'mmdet\'" >&2; exit 1', '-m hierseg doctor'),
        ('echo "RuntimeError: DefaultCPUAllocator: not enough memory" >&2; exit 1', 'End other programs'),
        ('exit 137', 'want of memory'),
        ('echo "error: the taxonomy is another one" >&2; exit 1', 'what the last lines of the log say'),
    ],
)
def test_a_failing_step_is_named_with_its_log_and_the_mend(python: Path, failure: str, mend: str) -> None:
    answer = quickstart(python, f'echo first; {failure}', '--smoke')
    assert answer.returncode == int(failure.split()[-1])
    assert 'failed at step 4 of 11, train two_layer_ensemble' in answer.stderr
    (line,) = re.findall(r'^  mend:  (.*)$', answer.stderr, flags=re.MULTILINE)
    assert mend in line
    (log,) = re.findall(r'^  log:   (.*)$', answer.stderr, flags=re.MULTILINE)
    assert Path(log).is_relative_to(python.parent)
    # What went by on the screen is in the log, too.
    assert Path(log).read_text().startswith('first\n')
    assert Path(log).read_text() in answer.stdout
    assert '5/11' not in answer.stdout


def test_an_interruption_is_no_failure(python: Path) -> None:
    # Control-C goes to all processes of the terminal, here those of one session.
    train = f'exec {sys.executable} -c "import time; print(3, flush=True); time.sleep(60)"'
    environment = {**os.environ, 'HIERSEG_SKIP_SETUP': '1', 'PYTHON': str(python), 'TRAIN': train}
    process = subprocess.Popen(
        ['bash', TOOLS / 'quickstart.sh', '--smoke'],
        cwd=python.parent, env=environment, start_new_session=True, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert any(line == '3\n' for line in process.stdout)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert 'Interrupted at step 4 of 11, train two_layer_ensemble' in said
    assert 'goes on from there' in said
    assert 'mend' not in said


def test_a_failing_set_up_is_named_with_its_log(tmp_path: Path) -> None:
    """The real script beside a set-up that fails in its environment."""
    tools = tmp_path / 'tools'
    tools.mkdir()
    shutil.copy(TOOLS / 'quickstart.sh', tools)
    environment = tmp_path / '.venv'
    (environment / 'bin').mkdir(parents=True)
    log = environment / 'hierseg-setup.log'
    log.write_text("NewConnectionError('Failed to establish a new connection')\n")
    (tools / 'setup.sh').write_text(
        f'PYTHON={environment}/bin/python\necho "error: installing torch failed" >&2\nexit 1\n'
    )
    variables = {name: value for name, value in os.environ.items() if name not in ('HIERSEG_SKIP_SETUP', 'PYTHON')}
    command = ['bash', str(tools / 'quickstart.sh')]
    answer = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, check=False)
    assert answer.returncode == 1
    assert answer.stdout.startswith('== set up: ')
    assert 'installing torch failed' in answer.stderr
    assert 'failed at the set-up' in answer.stderr
    assert f'  log:   {log}\n' in answer.stderr
    assert 'HTTPS_PROXY' in answer.stderr
