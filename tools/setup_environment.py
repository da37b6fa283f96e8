"""Installs what hierseg needs into the virtual environment that runs this file. Standard library only.

Called by tools/setup.sh. What makes this more than one `pip install`:

* mmcv is released as source. Built in pip's isolated environment, where torch is absent, it installs without its
  compiled operators, in under a minute; hierseg.operators takes their place. A ready wheel with compiled ones is
  preferred where pip finds one.
* HIERSEG_COMPILE_OPS=1 compiles them against the torch that is installed. This takes long and fails late, so what it
  needs is checked before anything is downloaded.
* PyPI's torch for Linux carries CUDA, some gigabytes of it; without a GPU the CPU build is preferred.
* mmcv names opencv-python, which needs libGL; a server without it gets the headless build.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = Path(sys.prefix)
LOG = ENVIRONMENT / 'hierseg-setup.log'
STAMP = ENVIRONMENT / 'hierseg-setup.json'
BUILT_WHEELS = ENVIRONMENT / 'hierseg-wheels'
CPU_INDEX = 'https://download.pytorch.org/whl/cpu'
HEARTBEAT_SECONDS = 120

VERIFY_OPERATORS = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
import hierseg.operators
import torch
from mmcv.ops import nms, roi_align
print('operators:', hierseg.operators.backend())
for device in ['cpu'] + ['cuda'] * torch.cuda.is_available():
    boxes = torch.tensor([[0., 0., 10., 10.], [0., 0., 10., 9.], [20., 20., 30., 30.]], device=device)
    _, keep = nms(boxes, torch.tensor([.9, .8, .7], device=device), 0.5)
    if keep.tolist() != [0, 2]:
        raise SystemExit(f'nms on {{device}} kept {{keep.tolist()}}, not [0, 2]')
    image = torch.full((1, 1, 8, 8), 3., device=device)
    pooled = roi_align(image, torch.tensor([[0., 1., 1., 5., 5.]], device=device), (2, 2))
    if not torch.allclose(pooled, torch.full_like(pooled, 3.)):
        raise SystemExit(f'roi_align on {{device}} is wrong: {{pooled.flatten().tolist()}}')
"""


class SetupError(Exception):
    """What stands in the way of the installation, and what to do about it."""


def say(message: str) -> None:
    """Prints one line of progress at once, since the next step may take minutes."""
    print(f'[setup] {message}', flush=True)


def run(command: list[str], *, environment: dict[str, str] | None = None) -> bool:
    """Runs a command into the log, with a sign of life every two minutes; true when it succeeded."""
    start = time.monotonic()
    with LOG.open('a') as log:
        log.write(f'\n$ {" ".join(command)}\n')
        log.flush()
        process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, **(environment or {})}
        )
        while True:
            try:
                return process.wait(timeout=HEARTBEAT_SECONDS) == 0
            except subprocess.TimeoutExpired:
                say(f'  still working ({(time.monotonic() - start) / 60:.0f} min)')
            except BaseException:
                process.kill()
                raise


def pip(*arguments: str, environment: dict[str, str] | None = None) -> bool:
    """Runs pip of this environment; true when it succeeded."""
    return run([sys.executable, '-m', 'pip', *arguments], environment=environment)


def install(what: str, *arguments: str, environment: dict[str, str] | None = None) -> None:
    """Installs by pip under the constraints, or raises :class:`SetupError` with the end of the log."""
    start = time.monotonic()
    if not pip('install', '-c', str(constraints()), *arguments, environment=environment):
        raise SetupError(f'installing {what} failed. The end of {LOG}:\n{log_tail()}')
    say(f'{what}: {time.monotonic() - start:.0f} s')


def log_tail(lines: int = 25) -> str:
    """The last lines of the log."""
    return '\n'.join(LOG.read_text(errors='replace').splitlines()[-lines:])


def constraints() -> Path:
    """The file that pins versions: the tested set, unless HIERSEG_CONSTRAINTS names another."""
    path = Path(os.environ.get('HIERSEG_CONSTRAINTS') or ROOT / 'constraints.txt').resolve()
    if not path.exists():
        raise SetupError(f'the constraints file {path} does not exist. Set HIERSEG_CONSTRAINTS to one that does.')
    return path


def found_by_pip(requirement: str, *arguments: str) -> str | None:
    """The version that pip would install of a package, without installing it; None when it finds none."""
    # A report goes to its own file: pip's warnings share standard output.
    report = ENVIRONMENT / 'hierseg-report.json'
    common = ['install', '--dry-run', '--ignore-installed', '--no-deps', '--report', str(report)]
    try:
        if not pip(*common, '-c', str(constraints()), *arguments, requirement):
            return None
        return str(json.loads(report.read_text())['install'][0]['metadata']['version'])
    finally:
        report.unlink(missing_ok=True)


def installed(package: str) -> str | None:
    """The installed version of a package, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def gpu_wanted() -> bool:
    """Whether an NVIDIA GPU answers and HIERSEG_CPU_ONLY does not forbid it."""
    if os.environ.get('HIERSEG_CPU_ONLY', '0') == '1' or shutil.which('nvidia-smi') is None:
        return False
    answer = subprocess.run(['nvidia-smi', '--list-gpus'], capture_output=True, text=True, check=False)
    return answer.returncode == 0 and 'GPU' in answer.stdout


def cuda_compiler() -> str | None:
    """The nvcc that torch's build would use: CUDA_HOME's, the one on PATH, or /usr/local/cuda's."""
    homes = [os.environ.get('CUDA_HOME'), os.environ.get('CUDA_PATH')]
    places = [f'{home}/bin' for home in homes if home] + [os.environ.get('PATH', ''), '/usr/local/cuda/bin']
    return shutil.which('nvcc', path=os.pathsep.join(places))


WAYS_AROUND_CUDA_BUILD = """Any one of these helps:
  - install the CUDA toolkit{toolkit}, so that nvcc is found on PATH or under CUDA_HOME;
  - export PIP_FIND_LINKS=DIR, where DIR holds a wheel of onedl-mmcv for this Python, torch and GPU, made on a
    machine with nvcc: FORCE_CUDA=1 pip wheel --no-build-isolation --no-deps onedl-mmcv -w DIR{other_torch}
  - unset HIERSEG_COMPILE_OPS to compute them with torch, on the GPU too;
  - export HIERSEG_CPU_ONLY=1 to run on the CPU."""


def check_build_tools(gpu: bool) -> None:
    """Raises :class:`SetupError` when building mmcv is bound to fail, before anything is downloaded for it."""
    if shutil.which(os.environ.get('CXX', 'g++')) is None:
        raise SetupError(
            'HIERSEG_COMPILE_OPS is set, but there is no C++ compiler. Install one (Debian and Ubuntu: apt install '
            'g++), set PIP_FIND_LINKS to a folder with a wheel for this Python and torch, or do without: unset it.'
        )
    if not (Path(sysconfig.get_path('include')) / 'Python.h').exists():
        raise SetupError(
            'HIERSEG_COMPILE_OPS is set, but the headers of Python are missing '
            f'for {sys.executable} (Debian and Ubuntu: apt install python3-dev).'
        )
    if gpu and cuda_compiler() is None:
        raise SetupError(
            'HIERSEG_COMPILE_OPS is set and there is a GPU, but no nvcc to compile its CUDA operators. '
            + WAYS_AROUND_CUDA_BUILD.format(toolkit='', other_torch=';')
        )


def check_cuda_versions() -> None:
    """Raises :class:`SetupError` when nvcc and torch differ in CUDA's major version, which torch refuses late."""
    compiler = cuda_compiler()
    torch_cuda = subprocess.run(
        [sys.executable, '-c', 'import torch; print(torch.version.cuda or "")'],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    if compiler is None or not torch_cuda:
        return
    release = re.search(
        r'release (\d+)\.', subprocess.run([compiler, '--version'], capture_output=True, text=True).stdout
    )
    if release and release[1] != torch_cuda.split('.')[0]:
        raise SetupError(
            f'{compiler} is CUDA {release[1]}, but torch {installed("torch")} was built for CUDA {torch_cuda}; mmcv '
            'cannot be built with both. '
            + WAYS_AROUND_CUDA_BUILD.format(
                toolkit=f' {torch_cuda}',
                other_torch=f';\n  - export HIERSEG_CONSTRAINTS=FILE, a copy of constraints.txt with a torch for CUDA '
                f'{release[1]};',
            )
        )


def install_torch(gpu: bool) -> None:
    """Installs torch: as pip finds it for a GPU, and its CPU build, where that can be had, without one."""
    arguments: list[str] = []
    if not gpu and installed('torch') is None and '+cpu' not in (found_by_pip('torch') or ''):
        if found_by_pip('torch', '--retries', '0', '--timeout', '5', '--index-url', CPU_INDEX):
            arguments = ['--extra-index-url', CPU_INDEX]
        else:
            say('the CPU build of torch is out of reach: installing the one with CUDA, a download of 2.7 GB')
    install('torch', *arguments, 'torch')


def import_failure(module: str) -> str:
    """The last line of what importing a module says on failure, or ''."""
    answer = subprocess.run([sys.executable, '-c', f'import {module}'], capture_output=True, text=True, check=False)
    return '' if answer.returncode == 0 else answer.stderr.strip().splitlines()[-1]


def ensure_opencv() -> None:
    """Puts the headless build of opencv in front where the one with windows cannot be imported."""
    if not (failure := import_failure('cv2')):
        return
    say(f'opencv needs system libraries that are not here ({failure}): taking its headless build')
    install('opencv-python-headless', '--force-reinstall', '--no-deps', 'opencv-python-headless')
    if failure := import_failure('cv2'):
        raise SetupError(f'opencv cannot be imported: {failure}. On Debian and Ubuntu: apt install libgl1 libglib2.0-0')


def operators_work() -> bool:
    """Whether mmcv's operators, compiled or not, compute beside this torch, on the GPU too if torch sees one."""
    return run([sys.executable, '-c', VERIFY_OPERATORS])


def operators_are_compiled() -> bool:
    """Whether the installed mmcv has compiled operators."""
    package = Path(sysconfig.get_path('platlib')) / 'mmcv'
    return any(package.glob('_ext.*'))


def compiling_wanted() -> bool:
    """Whether HIERSEG_COMPILE_OPS asks for compiled operators."""
    return os.environ.get('HIERSEG_COMPILE_OPS', '0') == '1'


def install_ready_mmcv() -> bool:
    """Installs a ready wheel of mmcv whose operators work; false when there is none."""
    # Without sources to choose from, pip does not look into its cache of own builds either.
    wheel_only = ['--no-deps', '--only-binary', 'onedl-mmcv', 'onedl-mmcv']
    if not pip('install', '-c', str(constraints()), *wheel_only):
        return False
    if operators_work():
        say('mmcv: a ready wheel, its operators work')
        return True
    say(f'the ready wheel of mmcv does not work with this torch (details in {LOG})')
    pip('uninstall', '--yes', 'onedl-mmcv')
    return False


def install_pure_mmcv() -> None:
    """Installs mmcv without compiled operators: built in isolation from torch, it is Python alone."""
    start = time.monotonic()
    # Not from pip's cache, where a build with operators for another torch may lie.
    source = ['--no-deps', '--no-cache-dir', '--force-reinstall', 'onedl-mmcv']
    if not pip('install', '-c', str(constraints()), *source):
        raise SetupError(f'installing mmcv failed. The end of {LOG}:\n{log_tail()}')
    if not operators_work():
        raise SetupError(f'the operators of mmcv do not work. The end of {LOG}:\n{log_tail()}')
    say(f'mmcv: {time.monotonic() - start:.0f} s, its operators are computed without compiled ones')


def report_torchvision() -> None:
    """Says how to mend a torchvision that is there and cannot be imported: every training would end on it."""
    if installed('torchvision') and (failure := import_failure('torchvision')):
        raise SetupError(
            f'torchvision {installed("torchvision")} is installed, but does not fit torch {installed("torch")} '
            f'({failure}); MMEngine would end each run on it. hierseg does without: '
            f'{sys.executable} -m pip uninstall torchvision. Or install the build that fits this torch.'
        )


def parallel_jobs() -> int:
    """How many compilers to run at once: one a core, each with 2 GiB of memory."""
    memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    return max(1, min(len(os.sched_getaffinity(0)), memory // 2**31))


def build_mmcv(gpu: bool) -> None:
    """Builds mmcv with its operators, keeps the wheel, and installs it."""
    check_build_tools(gpu)
    if gpu:
        check_cuda_versions()
    jobs = int(os.environ.get('MAX_JOBS', parallel_jobs()))
    say(
        f'building mmcv from source with {jobs} jobs: about 20 minutes on two cores'
        f'{", longer with CUDA" if gpu else ""}. A wheel built once saves this: '
        'pip wheel --no-build-isolation --no-deps onedl-mmcv -w DIR beside the same '
        f'torch and Python, then export PIP_FIND_LINKS=DIR. This build leaves its wheel in {BUILT_WHEELS}.'
    )
    environment = {'MAX_JOBS': str(jobs)} | ({} if gpu else {'CUDA_VISIBLE_DEVICES': '-1', 'FORCE_CUDA': '0'})
    start = time.monotonic()
    source = ['--no-build-isolation', '--no-cache-dir', '--no-deps', '--no-binary', 'onedl-mmcv']
    if not pip(
        'wheel', '-c', str(constraints()), *source, '-w', str(BUILT_WHEELS), 'onedl-mmcv', environment=environment
    ):
        raise SetupError(f'building mmcv failed. The end of {LOG}:\n{log_tail(60)}')
    wheel = max(BUILT_WHEELS.glob('onedl_mmcv-*.whl'), key=lambda path: path.stat().st_mtime)
    install('mmcv', '--no-deps', '--force-reinstall', str(wheel))
    if not operators_work():
        raise SetupError(f'mmcv was built, but its operators do not work. The end of {LOG}:\n{log_tail()}')
    say(f'mmcv: built in {(time.monotonic() - start) / 60:.0f} min, its operators work')


def fingerprint(extras: str) -> dict[str, object]:
    """What the environment must be like for everything to be in place already."""
    files = [ROOT / 'pyproject.toml', constraints(), Path(__file__)]
    packages = ['torch', 'onedl-mmengine', 'onedl-mmcv', 'onedl-mmdetection', 'hierseg']
    return {
        'files': hashlib.sha256(b''.join(file.read_bytes() for file in files)).hexdigest(),
        'root': str(ROOT),
        'cpu_only': os.environ.get('HIERSEG_CPU_ONLY', '0') == '1',
        'compile': compiling_wanted(),
        'extras': extras,
        'installed': {package: installed(package) for package in packages},
    }


def in_place(test: bool) -> bool:
    """Whether an earlier run has installed all of this; one with the test tools serves both."""
    if not STAMP.exists():
        return False
    recorded = json.loads(STAMP.read_text())
    return recorded in [fingerprint(extras) for extras in (['test'] if test else ['test', ''])]


def install_mmcv(gpu: bool) -> None:
    """Installs mmcv, compiled where a wheel is ready or HIERSEG_COMPILE_OPS asks for it."""
    there = installed('onedl-mmcv') and (operators_are_compiled() or not compiling_wanted()) and operators_work()
    if there or install_ready_mmcv():
        return
    if compiling_wanted():
        build_mmcv(gpu)
    else:
        install_pure_mmcv()


def set_up(*, test: bool) -> None:
    """Installs everything that is missing."""
    say(f'installing into {ENVIRONMENT}; the log is {LOG}')
    LOG.write_text('')
    gpu = gpu_wanted()
    say(f'this takes about 5 minutes{", and longer to download 2.7 GB of CUDA libraries" if gpu else ""}')
    install('pip and build tools', 'pip>=23.1', 'setuptools', 'wheel', *['ninja'] * compiling_wanted())
    if compiling_wanted() and found_by_pip('onedl-mmcv', '--only-binary', 'onedl-mmcv') is None:
        check_build_tools(gpu)
    install_torch(gpu)
    install('mmengine and mmdet', 'onedl-mmengine', 'onedl-mmdetection', 'opencv-python')
    ensure_opencv()
    report_torchvision()
    install_mmcv(gpu)
    extras = 'test' if test else ''
    # mmcv is there; should its version not fit, pip must not build it the wrong way.
    never_build = ['--no-build-isolation', '--only-binary', 'onedl-mmcv']
    install('hierseg', *never_build, '--editable', f'{ROOT}[{extras}]' if extras else str(ROOT))
    STAMP.write_text(json.dumps(fingerprint(extras), indent=2))


def main() -> None:
    """Sets the environment up unless it is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--test', action='store_true', help='install the test tools too')
    arguments = parser.parse_args()
    os.environ.update(PIP_DISABLE_PIP_VERSION_CHECK='1', PIP_NO_INPUT='1')
    os.environ.pop('PIP_NO_BUILD_ISOLATION', None)  # it would compile mmcv; where it is wanted, it is said
    try:
        if sys.prefix == sys.base_prefix:
            raise SetupError(f'{sys.executable} is not in a virtual environment. Run tools/setup.sh, which makes one.')
        if not in_place(arguments.test):
            set_up(test=arguments.test)
    except SetupError as error:
        print(f'error: {error}', file=sys.stderr)
        raise SystemExit(1) from None


if __name__ == '__main__':
    main()
