"""The command ``hierseg``: what it starts, what it answers, and that asking for help imports nothing heavy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import hierseg
from hierseg import doctor
from hierseg.__main__ import COMMANDS, main
from hierseg.doctor import Finding

ROOT = Path(__file__).parents[1]
TOOLS = [tool for tool in sorted((ROOT / 'tools').rglob('*.py')) if tool.parent.name not in ('benchmarks', 'chaos')]


def ask(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, '-m', 'hierseg', *arguments]
    environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_help_imports_nothing_heavy() -> None:
    questions = [['-m', 'hierseg', *name.split(), '--help'] for name in COMMANDS if name != 'quickstart']
    questions += [[str(tool), '--help'] for tool in TOOLS]
    answers = run_all(questions)
    assert {name: heavy for name, (heavy, _) in answers.items() if heavy} == {}
    assert {name for name, (_, said) in answers.items() if not said.startswith('usage: ')} == set()
    assert answers['-m hierseg convert coco --help'][1].startswith('usage: hierseg convert coco ')
    assert '--auto-scale-lr' in answers['-m hierseg train --help'][1]


def test_what_is_heavy_is_seen() -> None:
    assert {'mmdet', 'torch'} <= {*run_all([['-m', 'hierseg', 'doctor']])['-m hierseg doctor'][0]}


def run_all(commands: list[list[str]]) -> dict[str, tuple[list[str], str]]:
    """Runs Python commands, each in a copy of one process; which heavy packages it imported, and what it printed."""
    script = """
        import contextlib, io, json, os, runpy, sys
        for words in json.loads(sys.argv[1]):
            read, write = os.pipe()
            if os.fork() == 0:
                said = io.StringIO()
                sys.argv = words[1:] if words[0] == '-m' else words
                with contextlib.suppress(SystemExit), contextlib.redirect_stdout(said):
                    if words[0] == '-m':
                        runpy.run_module(words[1], run_name='__main__', alter_sys=True)
                    else:
                        runpy.run_path(words[0], run_name='__main__')
                heavy = sorted({'torch', 'mmdet', 'mmcv'} & sys.modules.keys())
                os.write(write, json.dumps([heavy, said.getvalue()]).encode())
                os._exit(0)
            os.close(write)
            print(json.dumps([' '.join(words), json.loads(open(read).read())]))
            sys.stdout.flush()
    """
    command = [sys.executable, '-c', textwrap.dedent(script), json.dumps(commands)]
    environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    return {name: (heavy, said) for name, (heavy, said) in map(json.loads, answer.stdout.splitlines())}


def test_every_command_is_listed() -> None:
    said = ask('--help').stdout
    assert [name for name in COMMANDS if f'\n  {name} ' not in said] == []
    assert ask('--version').stdout == f'hierseg {hierseg.__version__}\n'


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ([], 'name a command'),
        (['trian', '--amp'], "there is no command 'trian'"),
        (['convert', 'voc'], "there is no command 'convert voc'"),
    ],
)
def test_an_unknown_command_is_refused(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_a_tool_runs_with_its_own_arguments(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('LOCAL_RANK', '0')
    monkeypatch.setattr(sys, 'argv', ['hierseg'])
    with pytest.raises(SystemExit) as caught:
        main(['train', 'hierseg::quickstart/hier_e2e.py', '--resume', 'nowhere.pth'])
    assert caught.value.code == 2
    # The config was found.
    assert (
        capsys.readouterr().err.splitlines()[-1] == 'error: nowhere.pth: the checkpoint does not exist. Check the path.'
    )


def test_a_module_gives_its_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edges = tmp_path / 'edges.csv'
    edges.write_text('child,parent\ncar,machine\n')
    assert main(['taxonomy', str(edges)]) == 0
    assert '└── car' in capsys.readouterr().out
    edges.write_text('child,parent\ncar,machine\nmachine,car\n')
    assert main(['taxonomy', str(edges)]) == 1


def test_the_quickstart_uses_this_python() -> None:
    answer = ask('quickstart', '--frsh')
    assert answer.returncode == 2
    assert answer.stderr == 'error: unknown argument --frsh; see --help\n'
    assert '[setup]' not in answer.stdout


class TestDoctor:
    def test_says_what_is_here(self) -> None:
        answer = ask('doctor', '--json')
        report = json.loads(answer.stdout)
        found = {finding['name']: finding for finding in report['findings']}
        assert answer.returncode == int(not report['usable'])
        assert {'Python', 'torch', 'device', 'operators', 'torchvision', 'onedl-mmcv', 'disk'} <= found.keys()
        assert found['Python']['detail'] == '.'.join(map(str, sys.version_info[:3]))
        assert found['operators']['state'] == 'ok'
        assert found['operators']['detail'].startswith(hierseg.operators.backend())
        assert not any(name in found for name in ('sphinx', 'pytest')), 'extras are no business of a run'

    def test_names_what_is_missing_or_too_old(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def version(name: str) -> str:
            if name == 'onedl-mmcv':
                raise doctor.PackageNotFoundError(name)
            return {'torch': '2.3.1'}.get(name, original(name))

        original = doctor.version
        monkeypatch.setattr(doctor, 'version', version)
        found = {finding.name: finding for finding in doctor.packages()}
        assert found['onedl-mmcv'] == Finding(
            'onedl-mmcv', 'error', 'not installed', "pip install 'onedl-mmcv<2.4,>=2.3.6'"
        )
        assert found['torch'] == Finding('torch', 'error', '2.3.1 is not >=2.4', "pip install 'torch>=2.4'")
        assert found['numpy'].state == 'ok'

        monkeypatch.setattr(doctor, 'examine', lambda: list(found.values()))
        assert doctor.main([]) == 1
        said = capsys.readouterr().out
        assert '! onedl-mmcv            not installed\n' in said
        assert "→ pip install 'torch>=2.4'\n" in said

    def test_a_torchvision_of_another_torch_is_an_error(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        (tmp_path / 'torchvision.py').write_text('raise RuntimeError("operator torchvision::nms does not exist")')
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, 'torchvision', raising=False)
        monkeypatch.setattr(doctor, 'version', lambda name: '0.20')
        (finding,) = doctor.torchvision()
        assert finding.state == 'error'
        assert finding.detail == '0.20 does not fit torch (operator torchvision::nms does not exist)'

    def test_little_room_is_a_warning(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(doctor, 'ENOUGH_DISK', 2**80)
        monkeypatch.setattr(doctor, 'ENOUGH_SHARED', 2**80)
        found = {finding.name: finding for finding in doctor.room()}
        assert found['disk'].state == found['shared memory'].state == 'warning'
        assert '--shm-size' in found['shared memory'].fix
