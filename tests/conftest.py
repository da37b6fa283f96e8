"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope='session')
def test_data() -> Path:
    """The folder of real data that HIERSEG_TEST_DATA names; without it the test skips."""
    if 'HIERSEG_TEST_DATA' not in os.environ:
        pytest.skip('HIERSEG_TEST_DATA is not set')
    return Path(os.environ['HIERSEG_TEST_DATA'])
