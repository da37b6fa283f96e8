"""The machine that a measurement was taken on."""

from __future__ import annotations

import json
import os

from hierseg.machine import describe_machine


def test_tells_kind_and_versions_and_no_name():
    found = describe_machine()
    assert found['cores'] == len(os.sched_getaffinity(0))
    assert found['memory_gib'] > 0
    assert {'numpy', 'torch'} <= found['versions'].keys()
    text = json.dumps(found)
    assert os.uname().nodename not in text
