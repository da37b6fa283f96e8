"""Choice of OpenMP's threads: what a busy machine, a limited container and the user's own settings lead to."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hierseg import threads

VARIABLES = ('OMP_NUM_THREADS', 'OMP_WAIT_POLICY', 'GOMP_SPINCOUNT', 'CUDA_VISIBLE_DEVICES')


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Four free cores without a limit, no GPU, torch not imported, nothing set."""
    for name in VARIABLES:
        monkeypatch.setenv(name, '')  # so that what the test sets is undone
        monkeypatch.delenv(name)
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '-1')
    monkeypatch.delitem(sys.modules, 'torch', raising=False)
    monkeypatch.setattr(threads, '_cores', lambda: {0, 1, 2, 3})
    monkeypatch.setattr(threads, 'free_cores', lambda: 4.0)
    monkeypatch.setattr(threads, 'CGROUPS', tmp_path)


def test_a_free_machine_is_left_as_torch_comes() -> None:
    assert threads.choose_threads() == ''
    assert not {'OMP_NUM_THREADS', 'OMP_WAIT_POLICY'} & os.environ.keys()


def test_beside_a_busy_process_threads_wait_passively(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(threads, 'free_cores', lambda: 2.96)
    assert (
        threads.choose_threads() == '3.0 of 4 cores are free: OMP_WAIT_POLICY=PASSIVE (set it yourself to overrule it)'
    )
    assert capsys.readouterr().err.startswith('3.0 of 4 cores are free')
    assert os.environ['OMP_WAIT_POLICY'] == 'PASSIVE'
    assert 'OMP_NUM_THREADS' not in os.environ


def test_one_process_of_several_says_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(threads, 'free_cores', lambda: 2.96)
    monkeypatch.setenv('LOCAL_RANK', '1')
    assert threads.choose_threads()
    assert capsys.readouterr().err == ''


@pytest.mark.parametrize('name', ['OMP_WAIT_POLICY', 'GOMP_SPINCOUNT'])
def test_what_the_user_set_stays(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(threads, 'free_cores', lambda: 0.0)
    monkeypatch.setenv(name, '7')
    assert threads.choose_threads() == ''
    assert os.environ[name] == '7'


@pytest.mark.parametrize(
    ('files', 'expected'),
    [
        ({'cpu.max': '150000 100000\n'}, '2'),
        ({'cpu.max': 'max 100000\n'}, None),
        ({'cpu.max': '800000 100000\n'}, None),
        ({'cpu/cpu.cfs_quota_us': '100000\n', 'cpu/cpu.cfs_period_us': '100000\n'}, '1'),
        ({'cpu/cpu.cfs_quota_us': '-1\n', 'cpu/cpu.cfs_period_us': '100000\n'}, None),
        ({}, None),
    ],
)
def test_no_more_threads_than_the_container_may_use(
    tmp_path: Path, files: dict[str, str], expected: str | None
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    said = threads.choose_threads()
    assert os.environ.get('OMP_NUM_THREADS') == expected
    assert ('this container may use' in said) == (expected is not None)
    assert threads.usable_cores() == int(expected or 4)


def test_nothing_is_chosen_once_torch_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, 'free_cores', lambda: 0.0)
    monkeypatch.setitem(sys.modules, 'torch', sys)
    assert threads.choose_threads() == ''


class Statistics:
    """A file that reads differently each time."""

    def __init__(self, *texts: str) -> None:
        self.texts: Iterator[str] = iter(texts)

    def read_text(self) -> str:
        return next(self.texts)


def test_free_cores_are_the_idle_share_of_those_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(threads, '_cores', lambda: {0, 1})
    # Core 0: 10 of 20 ticks idle. Core 1: 15 idle and 5 waiting for a disk. Core 2 is another's.
    before = [
        'cpu  9 9 9 9 9 9 9 9 0 0',
        'cpu0 5 0 5 100 10 0 0 0 0 0',
        'cpu1 0 0 0 100 0 0 0 0 0 0',
        'cpu2' + 10 * ' 0',
    ]
    after = [
        'cpu  9 9 9 9 9 9 9 9 0 0',
        'cpu0 10 0 7 110 10 1 1 1 0 0',
        'cpu1 0 0 0 115 5 0 0 0 0 0',
        'cpu2' + 10 * ' 9',
    ]
    monkeypatch.setattr(threads, 'STATISTICS', Statistics('\n'.join(before), '\n'.join(after)))
    assert threads.free_cores(seconds=0) == 2 * 30 / 40


def test_a_system_that_does_not_tell_has_all_cores_free(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(threads, '_cores', lambda: {0, 1})
    monkeypatch.setattr(threads, 'STATISTICS', tmp_path / 'absent')
    assert threads.free_cores(seconds=0) == 2.0
