"""``hierseg doctor``: what is installed, what is missing, and how to get it."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, distribution, version
from typing import Literal

from hierseg import __version__
from hierseg.machine import describe_machine
from hierseg.operators import backend

SHARED_MEMORY = '/dev/shm'
ENOUGH_SHARED = 512 * 2**20
ENOUGH_DISK = 2**30
# What must import, and the usual mend where it does not.
IMPORTED = {
    'cv2': 'On a server without libGL: pip install --force-reinstall --no-deps opencv-python-headless, or '
    'apt install libgl1 libglib2.0-0.',
    'mmcv.ops': 'The compiled operators do not fit this torch. Without them hierseg computes its own: '
    'pip install --force-reinstall --no-cache-dir --no-deps onedl-mmcv.',
    'hierseg.models': "Install hierseg's packages again: pip install --upgrade hierseg.",
}


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        name: What was looked at.
        state: An error keeps hierseg from running, a warning does not.
        detail: What was found.
        fix: What would help; empty where all is well.
    """

    name: str
    state: Literal['ok', 'warning', 'error']
    detail: str
    fix: str = ''


def examine() -> list[Finding]:
    """Looks at everything that hierseg needs, in the order in which it is needed."""
    checks: list[Callable[[], Iterator[Finding]]] = [packages, torch_and_devices, torchvision, imports, room]
    return [finding for check in checks for finding in check()]


def packages() -> Iterator[Finding]:
    """Python and every package that hierseg names, against the versions that it names."""
    try:
        found = distribution('hierseg')
        from packaging.requirements import Requirement
        from packaging.specifiers import SpecifierSet
    except (PackageNotFoundError, ModuleNotFoundError) as error:
        yield Finding('packages', 'error', f'{error}', 'pip install hierseg, or bash tools/setup.sh in the repository.')
        return
    python, wanted = platform.python_version(), found.metadata['Requires-Python']
    fits = SpecifierSet(wanted).contains(python)
    yield (
        Finding('Python', 'ok', python)
        if fits
        else Finding('Python', 'error', f'{python} is not {wanted}', 'Make a virtual environment of a Python that is.')
    )
    yield Finding('hierseg', 'ok', __version__)
    for line in found.requires or ():
        requirement = Requirement(line)
        # Those of extras apply only where an extra is asked for.
        if requirement.marker and not requirement.marker.evaluate({'extra': ''}):
            continue
        name, fix = requirement.name, f"pip install '{requirement.name}{requirement.specifier}'"
        try:
            installed = version(name)
        except PackageNotFoundError:
            yield Finding(name, 'error', 'not installed', fix)
            continue
        if requirement.specifier.contains(installed, prereleases=True):
            yield Finding(name, 'ok', installed)
        else:
            yield Finding(name, 'error', f'{installed} is not {requirement.specifier}', fix)


def torch_and_devices() -> Iterator[Finding]:
    """Devices that torch computes on."""
    try:
        import torch
    except Exception as error:  # ImportError, or OSError of a lost library
        yield Finding('device', 'error', f'torch cannot be imported: {error}', 'pip install --force-reinstall torch')
        return
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    if names:
        yield Finding('device', 'ok', f'{len(names)} × CUDA {torch.version.cuda}: {", ".join(sorted(set(names)))}')
    elif shutil.which('nvidia-smi'):
        build = f'CUDA {torch.version.cuda}' if torch.version.cuda else 'the CPU alone'
        yield Finding(
            'device', 'warning', f'CPU: there is an NVIDIA driver, but torch, built for {build}, sees no GPU',
            'See nvidia-smi; for another build of torch: https://pytorch.org/get-started.',
        )  # fmt: skip
    else:
        yield Finding('device', 'ok', 'CPU')


def torchvision() -> Iterator[Finding]:
    """A torchvision that does not fit torch ends every run; none at all is fine."""
    try:
        installed = version('torchvision')
    except PackageNotFoundError:
        yield Finding('torchvision', 'ok', 'not installed; not needed')
        return
    try:
        import_module('torchvision')
    except Exception as error:  # RuntimeError, of operators that do not exist
        fix = 'pip uninstall torchvision, or install the build that fits this torch.'
        yield Finding('torchvision', 'error', f'{installed} does not fit torch ({error})', fix)
    else:
        yield Finding('torchvision', 'ok', installed)


def imports() -> Iterator[Finding]:
    """Packages with compiled parts import, and mmcv's operators compute."""
    for module, fix in IMPORTED.items():
        try:
            import_module(module)
        except Exception as error:
            yield Finding(module, 'error', f'cannot be imported: {type(error).__name__}: {error}', fix)
            if module != 'cv2':
                return
    import torch
    from mmcv.ops import nms

    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 9.0], [20.0, 20.0, 30.0, 30.0]])
    devices = ['cpu', *['cuda'] * torch.cuda.is_available()]
    for device in devices:
        try:
            kept = nms(boxes.to(device), torch.tensor([0.9, 0.8, 0.7]).to(device), 0.5)[1].tolist()
        except Exception as error:
            kept = f'{type(error).__name__}: {error}'
        if kept != [0, 2]:
            yield Finding('operators', 'error', f'{backend()}: nms on {device} gave {kept}', IMPORTED['mmcv.ops'])
            return
    yield Finding('operators', 'ok', f'{backend()}, on {" and ".join(devices)}')


def room() -> Iterator[Finding]:
    """Processor, memory, the memory that loading processes share, and the disk of the current folder."""
    machine = describe_machine()
    yield Finding('machine', 'ok', f'{machine["cores"]} cores, {machine["memory_gib"]} GiB, {machine["processor"]}')
    if os.path.isdir(SHARED_MEMORY):
        free = shutil.disk_usage(SHARED_MEMORY).free
        yield Finding('shared memory', 'ok', f'{free / 2**30:.1f} GiB') if free >= ENOUGH_SHARED else Finding(
            'shared memory', 'warning', f'{free / 2**20:.0f} MiB free: loading in several processes may fail',
            'In a container: docker run --shm-size=8g. Else train with num_workers=0.',
        )  # fmt: skip
    free = shutil.disk_usage('.').free
    yield (
        Finding('disk', 'ok', f'{free / 2**30:.0f} GiB free here')
        if free >= ENOUGH_DISK
        else Finding(
            'disk',
            'warning',
            f'{free / 2**20:.0f} MiB free here',
            'Work in a folder with more room: checkpoints are large.',
        )
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the report; 1 if something keeps hierseg from running."""
    parser = argparse.ArgumentParser(
        prog='hierseg doctor',
        description='Says what is installed, what is missing, and how to get it.',
        epilog='Exit status: 0 hierseg can run, 1 it cannot.',
    )
    parser.add_argument('--json', action='store_true', help='print the report as JSON')
    as_json = parser.parse_args(arguments).json
    findings = examine()
    usable = all(finding.state != 'error' for finding in findings)
    if as_json:
        print(json.dumps({'usable': usable, 'findings': [asdict(finding) for finding in findings]}, indent=1))
        return int(not usable)
    for finding in findings:
        mark = {'ok': '  ', 'warning': '? ', 'error': '! '}[finding.state]
        print(f'{mark}{finding.name:<22}{finding.detail}' + (f'\n  {"":<22}→ {finding.fix}' if finding.fix else ''))
    print('\nhierseg can run here.' if usable else '\nhierseg cannot run here: see the lines with "!".')
    return int(not usable)
