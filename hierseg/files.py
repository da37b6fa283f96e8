"""Files that are whole or not there, whenever a process is killed, and the machine that a measurement was taken on."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import platform
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

from hierseg.errors import HiersegError
from hierseg.operators import backend


@contextmanager
def whole_file(path: str | PathLike[str]) -> Iterator[BinaryIO]:
    """A file to write, which takes its name when the block ends without an exception.

    Whoever reads ``path``, now or after a crash, finds the old content or the new. What a killed process left
    beside it is overwritten by the next attempt.
    """
    target = Path(path)
    partial = target.with_name(f'.{target.name}.partial')
    try:
        with partial.open('wb') as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def write_atomically(content: bytes, path: str | PathLike[str]) -> None:
    """Writes a whole file, in a folder that is made if need be."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as file:
        file.write(content)


def csv_text(rows: Iterable[Iterable[Any]]) -> str:
    """Rows as CSV, whose lines end in a line feed on all systems."""
    text = io.StringIO()
    csv.writer(text, lineterminator='\n').writerows(rows)
    return text.getvalue()


def write_json(document: Any, path: str | PathLike[str], *, error: type[HiersegError] = HiersegError) -> None:
    """Writes a document as JSON, which knows no NaN.

    Args:
        document: What ``json`` can write.
        path: In a folder that exists.
        error: What to raise if the file cannot be written.

    Raises:
        HiersegError: As ``error`` says.
    """
    text = json.dumps(document, ensure_ascii=False, indent=1, allow_nan=False) + '\n'
    try:
        with whole_file(path) as file:
            file.write(text.encode('utf-8'))
    except OSError as fault:
        raise error(f'cannot write the file ({fault.strerror})', where=str(path)) from None


def finite(document: Any) -> Any:
    """The same with null in place of numbers that JSON does not know, such as the score of a class without objects."""
    if isinstance(document, Mapping):
        return {key: finite(value) for key, value in document.items()}
    if isinstance(document, list | tuple):
        return [finite(value) for value in document]
    return None if isinstance(document, float) and not math.isfinite(document) else document


PACKAGES = (
    'torch', 'onedl-mmengine', 'onedl-mmcv', 'onedl-mmdetection', 'numpy', 'pandas', 'pyarrow', 'pycocotools',
    'opencv-python', 'pillow',
)  # fmt: skip


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
    """The processor's name as Linux knows it, else its architecture."""
    try:
        lines = Path('/proc/cpuinfo').read_text(encoding='utf-8').splitlines()
    except OSError:
        lines = []
    names = [line.partition(':')[2].strip() for line in lines if line.startswith('model name')]
    return names[0] if names else platform.machine()
