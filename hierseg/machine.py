"""The machine that a measurement was taken on."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from hierseg.operators import backend

PACKAGES = (
    'torch', 'onedl-mmengine', 'onedl-mmcv', 'onedl-mmdetection', 'numpy', 'pandas', 'pyarrow', 'pycocotools',
    'opencv-python', 'pillow',
)  # fmt: skip
PROCESSORS = Path('/proc/cpuinfo')
VECTORS = {'avx512f': 'AVX-512', 'avx2': 'AVX2'}
"""Widest first, by Linux's flags of x86 processors."""


def describe_machine() -> dict[str, Any]:
    """Processor, cores that this process may use, memory, load, Python, versions of packages, and mmcv's operators.

    Load is the mean number of processes that ran or waited in the last minute. Packages that are not installed are left
    out, and nothing tells one machine from another of its kind.
    """
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        'processor': _processor(),
        'cores': len(os.sched_getaffinity(0)),
        'memory_gib': round(os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30),
        'load': round(os.getloadavg()[0], 1),
        'python': platform.python_version(),
        'versions': versions,
        'operators': backend(),
    }


def _processor() -> str:
    """The processor's name as Linux knows it, with the widest vectors that it adds up; else its architecture.

    Sums are rounded by their width: a training is the same on processors of equal vectors alone.
    """
    try:
        lines = PROCESSORS.read_text(encoding='utf-8').splitlines()
    except OSError:
        lines = []
    first: dict[str, str] = {}
    for line in lines:
        key, _, value = line.partition(':')
        first.setdefault(key.strip(), value.strip())
    name = first.get('model name', platform.machine())
    flags = first.get('flags', '').split()
    return next((f'{name} with {vectors}' for flag, vectors in VECTORS.items() if flag in flags), name)
