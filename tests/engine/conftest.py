"""Finished stub runs and a folder of small data that several tests look at."""

from __future__ import annotations

import pytest
from mmengine.runner import Runner
from stub_training import layerwise_settings, make_runner
from tiny_runs import tiny

__all__ = ['tiny']


@pytest.fixture(scope='session')
def finished(tmp_path_factory: pytest.TempPathFactory) -> Runner:
    """A layerwise run from beginning to end."""
    runner = make_runner(layerwise_settings(), tmp_path_factory.mktemp('finished'))
    runner.train()
    return runner
