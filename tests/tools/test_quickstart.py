"""The words of quickstart.sh: what it announces, and what it says of a failing step. test_train_and_test.py runs it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / 'tools'
SYSTEMS = ('two_layer_ensemble', 'hier_e2e', 'hier_rtmdet')


# A stand-in for Python: leaves the results of data and tests, does what $TRAIN says in place of training, counts cores.
PYTHON = f"""#!/bin/sh
case $1 in
    */synthesize.py) mkdir -p data/quickstart/train ;;
    */openimages.py) mkdir -p $3 ;;
    */train.py) system=$(basename $2 .py); eval "$TRAIN" ;;
    */test.py) touch $5/results.json ;;
    -c) exec {sys.executable} "$@" ;;
esac
"""


@pytest.fixture
def python(tmp_path: Path) -> Path:
    stand_in = tmp_path / 'python'
    stand_in.write_text(PYTHON)
    stand_in.chmod(0o755)
    return stand_in


def variables(python: Path, train: str, at_once: int) -> dict[str, str]:
    own = {'HIERSEG_SKIP_SETUP': '1', 'PYTHON': str(python), 'TRAIN': train, 'AT_ONCE': str(at_once)}
    return {**os.environ, **own}


def quickstart(python: Path, train: str, *arguments: str, at_once: int = 1) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ['bash', TOOLS / 'quickstart.sh', *arguments],
        cwd=python.parent, env=variables(python, train, at_once), capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(('arguments', 'whole', 'training'), [((), '28 min', '9 min'), (('--smoke',), '4 min', '29 s')])
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


# A program that is training, as far as the script can tell, with a worker: both say who they are.
TRAINING = f"""exec {sys.executable} -c "
import os, sys, time
if os.fork():
    print(os.environ['OMP_NUM_THREADS'], 'threads')
with open('pids', 'a') as pids:
    print(os.getpid(), file=pids)
time.sleep(60)
" """


@pytest.mark.parametrize(('at_once', 'name'), [(1, 'SIGINT'), (1, 'SIGTERM'), (3, 'SIGINT'), (3, 'SIGTERM')])
def test_an_interruption_is_no_failure_and_ends_all(python: Path, at_once: int, name: str) -> None:
    """Control-C goes to all processes of the terminal, here those of one session; SIGTERM to the script alone."""
    process = subprocess.Popen(
        ['bash', TOOLS / 'quickstart.sh', '--smoke'],
        cwd=python.parent, env={**variables(python, TRAINING, at_once), 'OMP_NUM_THREADS': '1'}, text=True,
        start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    pids = python.parent / 'pids'
    wait_until(lambda: pids.exists() and pids.read_text().count('\n') == 2 * at_once)
    (os.killpg if name == 'SIGINT' else os.kill)(process.pid, signal.Signals[name])
    printed, said = process.communicate(timeout=10)
    assert process.returncode == {'SIGINT': 130, 'SIGTERM': 143}[name]
    steps = [f'step {number} of 11, train {system}' for number, system in zip((4, 6, 8), SYSTEMS, strict=True)]
    assert f'Interrupted at {" and ".join(steps[:at_once])}.' in said
    assert 'goes on from there' in said
    assert 'mend' not in said
    assert 'failed' not in printed
    wait_until(lambda: not any(is_running(int(pid)) for pid in pids.read_text().split()))


def wait_until(happened: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    """Whether a process is there and no corpse that nobody has looked at."""
    try:
        return Path(f'/proc/{pid}/stat').read_text().rpartition(') ')[2][0] != 'Z'
    except FileNotFoundError:
        return False


# Trainings that end only if all of them run at the same time; they print what real ones do.
TOGETHER = r"""
touch begun-$system
while [ $(ls begun-* | wc -l) -lt $AT_ONCE ]; do sleep 0.02; done
echo "a line for the log"
echo "11/30 09:16:25 - mmengine - INFO - Epoch(train) [1][20/98]  lr: 1e-04  eta: 0:18:46  time: 2.0  loss: 2.7  acc: 1"
mkdir -p work_dirs/quickstart/$system
echo weights >work_dirs/quickstart/$system/last_checkpoint
"""


def test_systems_are_trained_side_by_side(python: Path) -> None:
    answer = quickstart(python, TOGETHER, '--smoke', at_once=3)
    assert '== 3 systems side by side on ' in answer.stdout
    logs = python.parent / 'work_dirs/quickstart/logs'
    for number, system in zip((4, 6, 8), SYSTEMS, strict=True):
        assert f'{system:<18} | Epoch(train) [1][20/98]  eta: 0:18:46  loss: 2.7\n' in answer.stdout
        assert (logs / f'{number}-train-{system}.log').read_text().startswith('a line for the log\n')
        assert re.search(rf'== {number}/11 train {system}: took \d+ s', answer.stdout)
        assert re.search(rf'== {number + 1}/11 test {system}: took \d+ s', answer.stdout)
    assert 'a line for the log' not in answer.stdout
    # The stand-in compares nothing, so there is no table in the end.
    assert re.search(r'== 11/11 compare all: took \d+ s', answer.stdout)


def test_what_runs_beside_a_failing_training_ends_whole(python: Path) -> None:
    fails = 'case $system in hier_e2e) echo MemoryError >&2; exit 7 ;; esac'
    late = 'while [ ! -e work_dirs/quickstart/.unfinished/failed ]; do sleep 0.02; done'
    train = TOGETHER.replace('echo "a line', f'{fails}\n{late}\necho "a line')
    answer = quickstart(python, train, '--smoke', at_once=2)
    assert answer.returncode == 7
    assert '== step 6 of 11, train hier_e2e: failed; what runs beside it goes on to its end' in answer.stdout
    assert re.search(r'== 5/11 test two_layer_ensemble: took \d+ s', answer.stdout)
    assert '8/11' not in answer.stdout  # nothing new is begun
    assert answer.stderr.count('error: ') == 1
    assert 'failed at step 6 of 11, train hier_e2e (status 7)' in answer.stderr
    assert '  | MemoryError\n' in answer.stderr
    assert 'too little memory' in answer.stderr
    # Put right, it goes on with what is missing.
    again = quickstart(python, TOGETHER, '--smoke', at_once=2)
    assert re.findall(r'== (\d+)/11 .*: done before', again.stdout) == ['1', '2', '3', '4', '5']
    assert '== 6/11 train hier_e2e: took' in again.stdout
    assert '== 8/11 train hier_rtmdet: took' in again.stdout


@pytest.mark.parametrize(
    ('cores', 'free', 'said'),
    [
        ('0', 64_000_000, '== one system after another: there is one core\n'),
        ('0,1', 1_999_000, '== one system after another: 2000 MB of free memory are needed for each\n'),
        ('0,1', 5_999_000, '== 2 systems side by side on 2 cores: 2000 MB of free memory are needed for each; '),
        ('0,1', 6_000_000, '== 3 systems side by side on 2 cores; '),
    ],
)
def test_no_more_at_once_than_cores_and_memory_allow(python: Path, cores: str, free: int, said: str) -> None:
    folder = python.parent
    (folder / 'meminfo').write_text(f'MemTotal: 99000000 kB\nMemFree: 1 kB\nMemAvailable: {free} kB\n')
    stand_in = folder / 'awk'
    stand_in.write_text(f'#!/bin/sh\nexec {shutil.which("awk")} "$1" "$2" "$3" {folder}/meminfo\n')
    stand_in.chmod(0o755)
    environment = {**variables(python, 'exit 1', 1), 'PATH': f'{folder}:{os.environ["PATH"]}', 'AT_ONCE': ''}
    environment['CUDA_VISIBLE_DEVICES'] = '-1'
    command = ['taskset', '-c', cores, 'bash', str(TOOLS / 'quickstart.sh'), '--smoke']
    answer = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if 'taskset: failed' in answer.stderr:
        pytest.skip(f'cores {cores} are not there')
    assert said in answer.stdout


@pytest.mark.parametrize('number', ['0', '4', 'all'])
def test_a_wrong_number_of_trainings_is_refused(python: Path, number: str) -> None:
    environment = {**variables(python, '', 1), 'AT_ONCE': number}
    command = ['bash', str(TOOLS / 'quickstart.sh')]
    answer = subprocess.run(command, cwd=python.parent, env=environment, capture_output=True, text=True, check=False)
    assert answer.returncode == 2
    assert f"AT_ONCE is a number from 1 to 3, not '{number}'" in answer.stderr


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
