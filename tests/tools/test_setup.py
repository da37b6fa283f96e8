"""The set-up: which Python it takes, what it checks before it builds, and in which order it installs."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

TOOLS = Path(__file__).parents[2] / 'tools'
SCRIPTS = [*sorted(TOOLS.rglob('*.sh')), TOOLS.parent / '.ci' / 'run']


@pytest.fixture
def setup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """tools/setup_environment.py as a module whose files lie in a folder of the test's own."""
    spec = importlib.util.spec_from_file_location('setup_environment', TOOLS / 'setup_environment.py')
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, 'ENVIRONMENT', tmp_path)
    monkeypatch.setattr(module, 'LOG', tmp_path / 'setup.log')
    monkeypatch.setattr(module, 'STAMP', tmp_path / 'setup.json')
    monkeypatch.setattr(module, 'BUILT_WHEELS', tmp_path / 'wheels')
    settings = ('HIERSEG_CPU_ONLY', 'HIERSEG_CONSTRAINTS', 'HIERSEG_COMPILE_OPS')
    for name in (*settings, 'CUDA_HOME', 'CUDA_PATH', 'CXX', 'MAX_JOBS'):
        monkeypatch.delenv(name, raising=False)
    return module


def executable(path: Path, body: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'#!/bin/sh\n{body}\n')
    path.chmod(0o755)
    return path


@pytest.mark.parametrize('script', SCRIPTS, ids=lambda path: path.name)
def test_shell_scripts_parse(script: Path) -> None:
    subprocess.run(['bash', '-n', script], check=True)


class TestWhichPython:
    """tools/setup.sh in a project of its own whose second half only says where it runs."""

    @pytest.fixture
    def project(self, tmp_path: Path) -> Path:
        (tmp_path / 'tools').mkdir()
        shutil.copy(TOOLS / 'setup.sh', tmp_path / 'tools')
        (tmp_path / 'tools' / 'setup_environment.py').write_text('import sys; print("runs in", sys.prefix)')
        # Only what the script needs, so that no Python is found unless the test puts one there.
        for name in ('bash', 'dirname'):
            found = shutil.which(name)
            assert found is not None
            (tmp_path / 'bin').mkdir(exist_ok=True)
            (tmp_path / 'bin' / name).symlink_to(found)
        return tmp_path

    def run(self, project: Path, **environment: str) -> subprocess.CompletedProcess[str]:
        variables = {'PATH': str(project / 'bin'), 'HOME': str(project), **environment}
        command = ['bash', str(project / 'tools' / 'setup.sh')]
        return subprocess.run(command, env=variables, capture_output=True, text=True, check=False)

    def test_makes_an_environment_from_the_first_python_that_fits(self, project: Path) -> None:
        executable(project / 'bin' / 'python3', 'exit 1')  # as 3.9 or 3.14 answers
        executable(project / 'bin' / 'python3.11', f'exec {sys.executable} "$@"')
        answer = self.run(project)
        assert f'runs in {project / ".venv"}' in answer.stdout, answer.stderr
        # The second time it is there, whatever Python the system has.
        (project / 'bin' / 'python3.11').unlink()
        assert self.run(project).stdout == f'runs in {project / ".venv"}\n'

    def test_uses_the_active_environment(self, project: Path) -> None:
        answer = self.run(project, VIRTUAL_ENV=sys.prefix)
        assert answer.stdout == f'runs in {sys.prefix}\n'
        assert not (project / '.venv').exists()

    def test_refuses_an_active_environment_of_another_python(self, project: Path) -> None:
        executable(project / 'other' / 'bin' / 'python', 'exit 1')
        answer = self.run(project, VIRTUAL_ENV=str(project / 'other'))
        assert answer.returncode == 1
        assert 'other is not Python 3.10 to 3.13' in answer.stderr

    def test_says_what_to_install_when_no_python_fits(self, project: Path) -> None:
        answer = self.run(project)
        assert answer.returncode == 1
        assert 'apt install python3 python3-venv' in answer.stderr

    def test_installs_nothing_when_told_to_skip(self, project: Path) -> None:
        assert self.run(project, HIERSEG_SKIP_SETUP='1').stdout == ''


def test_refuses_a_python_outside_of_virtual_environments() -> None:
    base = Path(sys.base_prefix) / 'bin' / f'python{sys.version_info.major}.{sys.version_info.minor}'
    answer = subprocess.run([base, TOOLS / 'setup_environment.py'], capture_output=True, text=True, check=False)
    assert answer.returncode == 1
    assert 'is not in a virtual environment' in answer.stderr


class TestGpu:
    @pytest.fixture
    def path(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """An empty folder that is all of PATH."""
        (tmp_path / 'bin').mkdir()
        monkeypatch.setenv('PATH', str(tmp_path / 'bin'))
        return tmp_path / 'bin'

    def test_is_wanted_when_the_driver_lists_one(
        self, setup: ModuleType, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert not setup.gpu_wanted()
        executable(path / 'nvidia-smi', 'echo "GPU 0: NVIDIA"')
        assert setup.gpu_wanted()
        monkeypatch.setenv('HIERSEG_CPU_ONLY', '1')
        assert not setup.gpu_wanted()

    def test_is_not_wanted_when_the_driver_fails(self, setup: ModuleType, path: Path) -> None:
        executable(path / 'nvidia-smi', 'echo "GPU 0"; exit 9')
        assert not setup.gpu_wanted()

    def test_without_nvcc_stops_before_the_build(
        self, setup: ModuleType, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        executable(path / 'g++', '')
        monkeypatch.setattr(setup, 'cuda_compiler', lambda: None)
        setup.check_build_tools(False)
        with pytest.raises(setup.SetupError, match='no nvcc') as caught:
            setup.check_build_tools(True)
        for way in ('install the CUDA toolkit', 'PIP_FIND_LINKS', 'unset HIERSEG_COMPILE_OPS', 'HIERSEG_CPU_ONLY=1'):
            assert way in str(caught.value)

    def test_takes_the_nvcc_of_cuda_home_before_that_of_path(
        self, setup: ModuleType, path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        on_path = executable(path / 'nvcc', '')
        assert setup.cuda_compiler() == str(on_path)
        at_home = executable(tmp_path / 'cuda' / 'bin' / 'nvcc', '')
        monkeypatch.setenv('CUDA_HOME', str(tmp_path / 'cuda'))
        assert setup.cuda_compiler() == str(at_home)

    @pytest.mark.parametrize(('release', 'fits'), [('13.1', True), ('12.4', False)])
    def test_nvcc_must_be_of_the_cuda_of_torch(
        self, setup: ModuleType, path: Path, monkeypatch: pytest.MonkeyPatch, release: str, fits: bool
    ) -> None:
        executable(path / 'nvcc', f'echo "Cuda compilation tools, release {release}, V{release}.99"')
        monkeypatch.setattr(setup.sys, 'executable', str(executable(path / 'python', 'echo 13.0')))
        if fits:
            setup.check_cuda_versions()
        else:
            with pytest.raises(setup.SetupError, match=r'is CUDA 12, but torch .* was built for CUDA 13\.0'):
                setup.check_cuda_versions()


def test_no_compiler_stops_before_the_build(setup: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('CXX', 'no-such-compiler')
    with pytest.raises(setup.SetupError, match='no C\\+\\+ compiler'):
        setup.check_build_tools(False)


class Pip:
    """Stands in for everything that setup_environment.py runs: notes commands and fails those it is told to."""

    def __init__(self, setup: ModuleType, monkeypatch: pytest.MonkeyPatch, *, fails: tuple[str, ...]) -> None:
        self.commands: list[str] = []
        self.fails = fails
        self.setup = setup
        monkeypatch.setattr(setup, 'run', self.run)
        monkeypatch.setattr(setup, 'gpu_wanted', lambda: False)
        monkeypatch.setattr(setup, 'found_by_pip', lambda requirement, *arguments: '2.13.0+cpu')
        monkeypatch.setattr(setup, 'installed', lambda package: None)
        monkeypatch.setattr(setup, 'import_failure', lambda module: '')

    def run(self, command: list[str], *, environment: dict[str, str] | None = None) -> bool:
        line = ' '.join(command)
        self.commands.append(line)
        if '-m pip wheel ' in line:
            self.setup.BUILT_WHEELS.mkdir(exist_ok=True)
            (self.setup.BUILT_WHEELS / 'onedl_mmcv-2.3.6-cp311-cp311-linux_x86_64.whl').touch()
        for index, part in enumerate(self.fails):
            if part in line:
                # Each fails once: a ready wheel's operators may, and those of the one built then not.
                self.fails = self.fails[:index] + self.fails[index + 1 :]
                return False
        return True

    def position(self, part: str) -> int:
        return next(index for index, command in enumerate(self.commands) if part in command)


class TestOrder:
    def test_a_ready_wheel_saves_the_build(self, setup: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
        pip = Pip(setup, monkeypatch, fails=())
        setup.set_up(test=False)
        assert not any('-m pip wheel ' in command for command in pip.commands)
        assert pip.commands[-1].endswith(f'--editable {setup.ROOT}')

    @pytest.mark.parametrize('failing', ['--only-binary onedl-mmcv onedl-mmcv', 'roi_align'])
    def test_no_wheel_or_one_that_does_not_work_leads_to_mmcv_without_compiled_operators(
        self, setup: ModuleType, monkeypatch: pytest.MonkeyPatch, failing: str
    ) -> None:
        monkeypatch.setenv('CXX', 'no-such-compiler')
        pip = Pip(setup, monkeypatch, fails=(failing,))
        setup.set_up(test=False)
        pure = pip.commands[pip.position('--force-reinstall onedl-mmcv')]
        # Beside torch it would compile, and from pip's cache it might come compiled for another torch.
        assert '--no-build-isolation' not in pure
        assert '--no-cache-dir' in pure
        assert not any('-m pip wheel ' in command for command in pip.commands)

    @pytest.mark.parametrize('failing', ['--only-binary onedl-mmcv onedl-mmcv', 'roi_align'])
    def test_where_it_is_asked_for_they_lead_to_a_build(
        self, setup: ModuleType, monkeypatch: pytest.MonkeyPatch, failing: str
    ) -> None:
        monkeypatch.setenv('HIERSEG_COMPILE_OPS', '1')
        pip = Pip(setup, monkeypatch, fails=(failing,))
        setup.set_up(test=True)
        build = pip.commands[pip.position('-m pip wheel ')]
        # Isolated, or from pip's cache of isolated builds, it would come without its operators.
        assert '--no-build-isolation' in build
        assert '--no-cache-dir' in build
        assert pip.position(' torch') < pip.position('-m pip wheel ') < pip.position('--editable')
        assert pip.commands[-1].endswith(f'--editable {setup.ROOT}[test]')

    def test_operators_that_do_not_work_after_the_build_are_an_error(
        self, setup: ModuleType, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv('HIERSEG_COMPILE_OPS', '1')
        Pip(setup, monkeypatch, fails=('roi_align', 'roi_align'))
        with pytest.raises(setup.SetupError, match='operators do not work'):
            setup.set_up(test=False)
        assert not setup.STAMP.exists()

    def test_a_failing_installation_shows_the_end_of_the_log(
        self, setup: ModuleType, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        Pip(setup, monkeypatch, fails=('onedl-mmengine',))
        monkeypatch.setattr(setup, 'log_tail', lambda: 'No space left on device')
        with pytest.raises(setup.SetupError, match='No space left on device'):
            setup.set_up(test=False)

    def test_a_torchvision_for_another_torch_is_reported_with_the_mend(
        self, setup: ModuleType, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        Pip(setup, monkeypatch, fails=())
        monkeypatch.setattr(setup, 'installed', lambda package: '0.29.1' if package == 'torchvision' else None)
        failure = 'RuntimeError: operator torchvision::nms does not exist'
        monkeypatch.setattr(setup, 'import_failure', lambda module: failure if module == 'torchvision' else '')
        with pytest.raises(setup.SetupError, match=r'nms does not exist.* pip uninstall torchvision'):
            setup.set_up(test=False)


class TestSecondRun:
    def test_finds_everything_in_place(self, setup: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
        Pip(setup, monkeypatch, fails=())
        setup.set_up(test=True)
        assert setup.in_place(test=True)
        assert setup.in_place(test=False), 'the test tools do not hurt'

    def test_adds_the_test_tools(self, setup: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
        Pip(setup, monkeypatch, fails=())
        setup.set_up(test=False)
        assert not setup.in_place(test=True)

    def test_starts_again_when_a_package_or_a_pin_changed(
        self, setup: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        Pip(setup, monkeypatch, fails=())
        setup.set_up(test=False)
        with monkeypatch.context() as changed:
            changed.setattr(setup, 'installed', lambda package: '9.9')
            assert not setup.in_place(test=False)
        pins = tmp_path / 'pins.txt'
        pins.write_text('torch==2.9.1\n')
        monkeypatch.setenv('HIERSEG_CONSTRAINTS', str(pins))
        assert not setup.in_place(test=False)

    def test_names_a_constraints_file_that_does_not_exist(
        self, setup: ModuleType, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv('HIERSEG_CONSTRAINTS', 'no-such-pins.txt')
        with pytest.raises(setup.SetupError, match=r'no-such-pins\.txt does not exist'):
            setup.constraints()


def test_a_command_is_logged_with_its_output(setup: ModuleType) -> None:
    assert setup.run([sys.executable, '-c', 'print("good" + "bye")'])
    assert not setup.run([sys.executable, '-c', 'raise SystemExit("too " + "bad")'])
    assert 'goodbye' in setup.log_tail()
    assert 'too bad' in setup.log_tail()


def test_operators_of_this_environment_work(setup: ModuleType) -> None:
    assert setup.operators_work()


def test_jobs_fit_the_machine(setup: ModuleType) -> None:
    assert 1 <= setup.parallel_jobs() <= (os.cpu_count() or 1)
