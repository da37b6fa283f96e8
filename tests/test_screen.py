"""The screen of a run: quiet before the first step, with everything in the log file."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from stub_training import alone_settings

from hierseg import screen
from hierseg.screen import NOTE, QuietRunner

ROOT = Path(__file__).parents[1]
TITLES = ('System environment:', 'Config:', 'Hooks will be executed in the following order:')


def train(folder: Path) -> tuple[str, str]:
    """Trains for an epoch; the log's name and content."""
    settings = alone_settings('layer0')
    del settings['hooks'], settings['validation']
    runner = QuietRunner(
        **settings, work_dir=str(folder), default_scope='mmdet', experiment_name=f'screen_{folder.name}',
        default_hooks=dict(logger=dict(type='LoggerHook', interval=1)), cfg=dict(a_value=17),
    )  # fmt: skip
    runner.logger.warning('a warning\nof two lines')
    runner.train()
    (log,) = folder.glob('*/*.log')
    return str(log), log.read_text()


def test_the_log_keeps_what_the_screen_does_not_show(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name, log = train(tmp_path)
    shown = capsys.readouterr().out
    assert [title for title in TITLES if title not in log] == []
    assert [title for title in TITLES if title in shown] == []
    assert 'a_value = 17' in log
    assert 'a_value' not in shown
    before, step, _ = shown.partition('Epoch(train) [1][1/3]')
    assert step, shown
    assert 'a warning\nof two lines' in before
    assert f'log, with environment and config: {name}' in before
    assert before.count('\n') < 10


def test_all_is_shown_on_demand(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(screen, 'VERBOSE', True)
    train(tmp_path)
    shown = capsys.readouterr().out
    assert [title for title in TITLES if title not in shown] == []


@pytest.mark.parametrize('verbose', ['0', '1'])
def test_importing_says_nothing_unless_asked(verbose: str) -> None:
    variables = {**os.environ, 'PYTHONPATH': str(ROOT), 'HIERSEG_VERBOSE': verbose}
    answer = subprocess.run(
        [sys.executable, '-c', 'import hierseg.report'], env=variables, capture_output=True, text=True, check=True
    )
    assert (NOTE in answer.stdout) == (verbose == '1')
    if verbose == '0':
        assert answer.stdout == answer.stderr == ''
