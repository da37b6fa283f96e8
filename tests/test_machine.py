"""The machine that a measurement was taken on."""

from __future__ import annotations

import json
import os
import platform

import pytest

from hierseg import machine
from hierseg.machine import describe_machine


def test_tells_kind_and_versions_and_no_name():
    found = describe_machine()
    assert found['cores'] == len(os.sched_getaffinity(0))
    assert found['memory_gib'] > 0
    assert {'numpy', 'torch'} <= found['versions'].keys()
    text = json.dumps(found)
    assert os.uname().nodename not in text


@pytest.mark.parametrize(
    ('content', 'name'),
    [
        ('processor : 0\nmodel name : New\nflags : fpu avx2 avx512f\n\nmodel name : Other\n', 'New with AVX-512'),
        ('model name\t: Old\nflags\t\t: fpu avx2\n', 'Old with AVX2'),
        ('model name : Plain\n', 'Plain'),
        ('', platform.machine()),
        (None, platform.machine()),
    ],
)
def test_a_processor_with_its_vectors(content, name, tmp_path, monkeypatch):
    monkeypatch.setattr(machine, 'PROCESSORS', tmp_path / 'cpuinfo')
    if content is not None:
        (tmp_path / 'cpuinfo').write_text(content)
    assert describe_machine()['processor'] == name
