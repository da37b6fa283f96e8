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


@pytest.fixture(scope='session')
def test_data() -> Path:
    """The folder of real data that HIERSEG_TEST_DATA names; without it the test skips."""
    if 'HIERSEG_TEST_DATA' not in os.environ:
        pytest.skip('HIERSEG_TEST_DATA is not set')
    return Path(os.environ['HIERSEG_TEST_DATA'])
