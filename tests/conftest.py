"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# It registers types under fixed names; collecting it for doctests would import it twice.
collect_ignore = ['stub_training.py']

# The same examples in every run, and no time limit: a busy machine is no mistake of the code.
settings.register_profile('hierseg', deadline=None, derandomize=True)
settings.load_profile('hierseg')

# The files that take longest, so that they begin first: where several processes share the tests, a long file that
# begins last is waited for. The longest first.
LONGEST = (
    'engine/test_killed_runs.py',
    'tools/test_train_and_test.py',
    'docs/test_commands.py',
    'datasets/test_balanced_samplers.py',
    'operators/test_detectors.py',
    'test_configs.py',
    'apis/test_comparison.py',
    'tools/test_benchmarks.py',
    'engine/test_two_stages.py',
    'prediction/test_predictor.py',
    'converters/test_open_images_restart.py',
    'apis/test_calibration.py',
    'docs/test_notebook.py',
    'tools/test_operators_benchmark.py',
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the longest files first; the order within files, and of all others, stays."""
    ranks = {Path(__file__).parent / file: rank for rank, file in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(item.path, len(ranks)))


@pytest.fixture(scope='session')
def test_data() -> Path:
    """The folder of real data that HIERSEG_TEST_DATA names; without it the test skips."""
    if 'HIERSEG_TEST_DATA' not in os.environ:
        pytest.skip('HIERSEG_TEST_DATA is not set')
    return Path(os.environ['HIERSEG_TEST_DATA'])
