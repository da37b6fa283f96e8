"""The soak test of training: what it notes, and what it calls flat."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from pathlib import Path

import pytest
from stub_training import alone_settings, make_runner

from hierseg.errors import ConfigError

sys.path.insert(0, str(Path(__file__).parents[2] / 'tools/benchmarks'))
from soak import resources, summarise


def rows(memory: float, files: float) -> list[tuple[float, float, int]]:
    """Twenty epochs of half a minute that grow so much a minute after ten that fill caches."""
    late = [(epoch / 2, 500 + memory * epoch / 2, round(80 + files * epoch / 2)) for epoch in range(10)]
    return [(epoch / 2 - 5, 100.0 + 40 * epoch, 80 - 10 + epoch) for epoch in range(10)] + late


@pytest.mark.parametrize(('memory', 'files', 'is_flat'), [(0, 0, True), (0.5, 0, True), (3, 0, False), (0, 2, False)])
def test_growth_is_told_from_caches(memory: float, files: float, is_flat: bool) -> None:
    found = summarise(rows(memory, files))
    assert found['is_flat'] is is_flat
    assert found['memory_mb_per_minute'] == pytest.approx(memory)
    assert found['files_per_minute'] == pytest.approx(files)
    assert found['epochs'] == 20


def test_few_epochs_are_refused() -> None:
    with pytest.raises(ConfigError, match='5 epochs are too few'):
        summarise(rows(0, 0)[:5])


def test_files_and_processes_are_counted(tmp_path: Path) -> None:
    memory, files = resources(os.getpid())
    opened = [(tmp_path / str(number)).open('w') for number in range(5)]
    held = mmap.mmap(-1, 30_000_000)  # not from what the allocator has left
    held.write(b'1' * len(held))
    with subprocess.Popen(['sleep', '60']) as child:
        more = resources(os.getpid())
        child.terminate()
    assert more[1] - files >= 5 + 3
    assert more[0] - memory > 25
    held.close()
    for file in opened:
        file.close()


def test_the_hook_notes_every_epoch_and_ends_the_training(tmp_path: Path) -> None:
    hook = dict(type='SoakHook', minutes=-1.0)
    runner = make_runner(alone_settings('layer0'), tmp_path, custom_hooks=[hook])
    runner.train()
    assert runner.epoch == 1
    (soak,) = (found for found in runner.hooks if type(found).__name__ == 'SoakHook')
    assert len(soak.rows) == 1
