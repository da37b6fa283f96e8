"""The files around the code: version and address in one place, the citation, the container, the workflow."""

from __future__ import annotations

import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import hierseg

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
VERSION_HEADING = re.compile(r'^## (\d+\.\d+\.\d+) \((\d{4}-\d\d-\d\d)\)$', flags=re.MULTILINE)


def read_yaml(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text())


@pytest.fixture(scope='module')
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']


class TestVersion:
    def test_is_that_of_the_newest_release_in_the_changelog(self) -> None:
        newest, date = VERSION_HEADING.findall((ROOT / 'docs/changelog.md').read_text())[0]
        citation = read_yaml('CITATION.cff')
        assert hierseg.__version__ == newest == citation['version']
        assert str(citation['date-released']) == date

    def test_the_citation_says_what_the_package_says(self, project: dict[str, Any]) -> None:
        citation = read_yaml('CITATION.cff')
        assert citation['cff-version'] == '1.2.0'
        assert {'message', 'title', 'authors'} <= citation.keys()  # what the format requires
        assert citation['license'] == project['license']
        assert citation['keywords'] == project['keywords']


class TestAddress:
    """No address of the repository is written anywhere but in pyproject.toml."""

    def test_no_other_file_names_one(self) -> None:
        listed = subprocess.run(['git', 'ls-files'], cwd=ROOT, capture_output=True, text=True, check=False)
        if listed.returncode:
            pytest.skip('not a clone')
        addresses = re.compile(r'https?://[\w./-]*/hierseg\b(?!-)')
        naming = [
            name
            for name in listed.stdout.splitlines()
            if name != 'pyproject.toml'
            and (ROOT / name).is_file()
            and addresses.search((ROOT / name).read_text(errors='ignore'))
        ]
        assert naming == []

    @pytest.mark.parametrize('urls', ['', "[project.urls]\nRepository = 'https://code.example/h'\n"])
    def test_the_documentation_takes_it_from_there(self, tmp_path: Path, urls: str) -> None:
        (tmp_path / 'docs').mkdir()
        (tmp_path / 'pyproject.toml').write_text(f"[project]\nname = 'h'\n{urls}")
        shutil.copy(ROOT / 'docs/conf.py', tmp_path / 'docs')
        options = runpy.run_path(str(tmp_path / 'docs/conf.py')).get('html_theme_options', {})
        assert options.get('source_repository') == ('https://code.example/h' if urls else None)


def instructions(dockerfile: str) -> list[tuple[str, str]]:
    """Instructions of a Dockerfile and what they say, continued lines joined, comments left out."""
    lines = [line for line in dockerfile.splitlines() if not line.lstrip().startswith('#')]
    joined = re.sub(r'\\\n', ' ', '\n'.join(lines))
    return [(name, rest) for name, _, rest in (line.partition(' ') for line in joined.splitlines()) if name]


def is_ignored(path: str) -> bool:
    """Whether .dockerignore leaves a file or folder of the root out of the image."""
    patterns = [line for line in (ROOT / '.dockerignore').read_text().splitlines() if line and line[0] != '#']
    return any(Path(path).match(pattern.removeprefix('**/')) for pattern in patterns)


class TestContainer:
    @pytest.fixture
    def steps(self) -> list[tuple[str, str]]:
        return instructions((ROOT / 'Dockerfile').read_text())

    def test_copies_what_is_there_and_sets_up_by_the_script(self, steps: list[tuple[str, str]]) -> None:
        names = [name for name, _ in steps]
        copied = [source for name, rest in steps if name == 'COPY' for source in shlex.split(rest)[:-1]]
        assert copied
        assert [source for source in copied if not (ROOT / source).exists()] == []
        (set_up,) = [index for index, (name, rest) in enumerate(steps) if name == 'RUN' and 'tools/setup.sh' in rest]
        assert set_up > names.index('COPY')
        assert steps[set_up][1].rstrip().endswith('bash tools/setup.sh')

    def test_the_environment_of_the_set_up_is_the_one_that_runs(self, steps: list[tuple[str, str]]) -> None:
        (environment,) = [dict(pair.split('=') for pair in shlex.split(rest)) for name, rest in steps if name == 'ENV']
        assert environment['PATH'].split(':')[0] == f'{environment["VIRTUAL_ENV"]}/bin'

    def test_takes_a_supported_python(self, steps: list[tuple[str, str]], project: dict[str, Any]) -> None:
        (version,) = [rest.split('=')[1] for name, rest in steps if name == 'ARG' and rest.startswith('PYTHON=')]
        assert version in supported(project)

    def test_leaves_out_what_is_made_and_nothing_else(self) -> None:
        made = ('.git', '.venv', 'data', 'work_dirs', '.mypy_cache', 'x/__pycache__')
        assert [name for name in made if not is_ignored(name)] == []
        needed = ('hierseg', 'tools', 'configs', 'pyproject.toml', 'constraints.txt', 'README.md', 'LICENSE')
        assert [name for name in needed if is_ignored(name)] == []

    def test_lint(self) -> None:
        if shutil.which('hadolint') is None:
            pytest.skip('hadolint is not installed')
        subprocess.run(['hadolint', ROOT / 'Dockerfile'], check=True)


def supported(project: dict[str, Any]) -> list[str]:
    """Versions of Python in the order of the classifiers."""
    prefix = 'Programming Language :: Python :: '
    return [line.removeprefix(prefix) for line in project['classifiers'] if line.startswith(prefix)]


class TestWorkflow:
    @pytest.fixture
    def job(self) -> dict[str, Any]:
        return read_yaml('.github/workflows/ci.yml')['jobs']['checks']

    def test_runs_what_the_checks_run(self, job: dict[str, Any]) -> None:
        (command,) = re.findall(r'^exec (.*)$', (ROOT / '.ci/run').read_text(), flags=re.MULTILINE)
        assert [step['run'] for step in job['steps'] if 'run' in step] == [command]

    def test_on_every_supported_python(self, job: dict[str, Any], project: dict[str, Any]) -> None:
        assert job['strategy']['matrix']['python'] == supported(project)
        (uses,) = [step for step in job['steps'] if 'setup-python' in step.get('uses', '')]
        assert uses['with']['python-version'] == '${{ matrix.python }}'

    @pytest.mark.parametrize('minor', range(9, 16))
    def test_supported_means_the_same_everywhere(self, project: dict[str, Any], minor: int) -> None:
        lowest, below = (int(bound) for bound in re.findall(r'3\.(\d+)', project['requires-python']))
        low, high = re.findall(r'\(3, (\d+)\)', (ROOT / 'tools/setup.sh').read_text())
        expected = f'3.{minor}' in supported(project)
        assert expected == (lowest <= minor < below) == (int(low) <= minor <= int(high))
