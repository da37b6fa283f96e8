"""The command that trains systems ever longer, with trainings that take no time; its schedule with a real one."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch.utils.data import Dataset

from hierseg.errors import ConfigError

ROOT = Path(__file__).parents[2]
TOOLS, DOCS = ROOT / 'tools/benchmarks', ROOT / 'docs'


@pytest.fixture
def curves(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(TOOLS))
    for name in ('ablation', 'curves'):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import curves

    return curves


class Killed(Exception):
    """Stands for a process that is killed before a tool began or ended."""


@pytest.fixture
def calls(curves: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Tools that were run; a training leaves the checkpoint that its config asks for."""
    done: list[list[str]] = []

    def run(tool: str, *arguments: Any, cwd: Path, threads: int, keep_open: Any) -> float:
        assert threads == 1
        words = [tool, *map(str, arguments)]
        options = dict(word.removeprefix('--').split('=', 1) for word in words if word.startswith('--'))
        if tool == 'train.py':
            folder = Path(options['work-dir'])
            (epochs,) = re.findall(r"'max_epochs': (\d+)", Path(words[1]).read_text())
            checkpoint = folder / f'epoch_{epochs}.pth'
            weights = {'w': torch.zeros(4, 3), 'bn.running_mean': torch.zeros(7)}
            torch.save({'state_dict': weights, 'param_schedulers': [{'last_step': 49}]}, checkpoint)
            (folder / 'last_checkpoint').write_text(str(checkpoint))
        elif tool.endswith('merge_layers.py'):
            torch.save({'state_dict': {'w': torch.zeros(5)}}, options['out'])
        else:
            length = int(Path(options['out']).parent.name)
            scores = dict.fromkeys(curves.PANELS, length / 10_000) | {'mAP_layer1': None}
            Path(options['out']).write_text(json.dumps({'scores': scores, 'classes': {'man': 0.5}}))
        done.append(words)
        return 11.2

    monkeypatch.setattr(curves, 'run_tool', run)
    return done


@pytest.fixture
def run_of(curves: ModuleType, tmp_path: Path) -> Callable[..., Any]:
    return lambda name, seed=0: curves.Run(name, seed, tmp_path / 'data-1600-200', tmp_path)


def trained(calls: list[list[str]]) -> list[tuple[str, str]]:
    """Folder and what it goes on from of each training."""
    found = []
    for tool, *words in calls:
        if tool == 'train.py':
            options = dict(word.removeprefix('--').split('=', 1) for word in words if word.startswith('--'))
            resume = options['resume'] if options['resume'] == 'auto' else Path(options['resume']).name
            found.append((Path(options['work-dir']).name, resume))
    return found


def test_short_trainings_branch_off_a_long_one(curves, calls, run_of):
    run = run_of('end_to_end', 3)
    run([560, 280])
    # 56 steps an epoch: 4 at a constant rate, and one in which it falls; twice as many of both.
    assert trained(calls) == [
        ('model-constant', 'auto'),
        ('model-280', 'epoch_4.pth'),
        ('model-constant', 'auto'),
        ('model-560', 'epoch_8.pth'),
    ]
    config = curves.read_config(run.folder / 'model-560/config.py')
    assert config.randomness.seed == 3
    assert (config.train_cfg.max_epochs, config.train_dataloader.batch_sampler.iterations) == (10, 56)
    assert config.param_scheduler[1].end == 2 * 56
    found = json.loads(run.result_file.read_text())
    assert found['points'].keys() == {'280', '560'}
    assert found['points']['560']['steps'] == 560
    assert found['points']['560']['parameters'] == 12
    # Of 4 trainings, 11.2 seconds each, of 224, 56, 224 and 112 steps.
    assert found['points']['560']['seconds_per_step'] == pytest.approx(44.8 / 616)
    before = len(calls)
    run([280, 560])
    assert len(calls) == before


def test_an_ensemble_shares_the_steps_and_is_joined(curves, calls, run_of):
    run = run_of('report_ensemble')
    run([280])
    assert [words[0] for words in calls] == ['train.py'] * 4 + ['misc/merge_layers.py', 'benchmarks/curves.py']
    # 7 to 3 of 56 steps.
    lengths = [curves.read_config(run.folder / f'layer{n}-280/config.py') for n in (0, 1)]
    assert [config.train_dataloader.batch_sampler.iterations for config in lengths] == [39, 17]
    assert [config.model.roi_head.bbox_head.num_classes for config in lengths] == [8, 14]
    assert [config.train_dataloader.dataset.layer for config in lengths] == [0, 1]
    assert calls[-1][3].endswith('280/joined.pth')
    (point,) = json.loads(run.result_file.read_text())['points'].values()
    assert (point['steps'], point['parameters']) == (280, 5)
    # Each layer as long as the end-to-end model, on its sampler and without a cap.
    strong = run_of('strong_ensemble')
    assert [strong.epoch_of(part) for part in ('layer0', 'layer1')] == [56, 56]
    loader = strong.configured('layer1', 4).train_dataloader
    assert loader.sampler.type == 'hierseg.ClassAwareStreamSampler'
    assert loader.dataset.images_per_class is None


@pytest.mark.parametrize('before', range(6))
@pytest.mark.parametrize('ended', [False, True], ids=['before a tool', 'after a tool'])
def test_goes_on_where_it_was_killed(curves, calls, run_of, monkeypatch, before, ended):
    run, real = run_of('end_to_end'), curves.run_tool

    def killed(*arguments: Any, **options: Any) -> float:
        if len(calls) == before:
            if ended:
                real(*arguments, **options)
            raise Killed
        return real(*arguments, **options)

    monkeypatch.setattr(curves, 'run_tool', killed)
    with pytest.raises(Killed):
        run([280, 560])
    monkeypatch.setattr(curves, 'run_tool', real)
    run([280, 560])
    # Nothing but a test is done twice.
    assert trained(calls) == [
        ('model-constant', 'auto'),
        ('model-280', 'epoch_4.pth'),
        ('model-constant', 'auto'),
        ('model-560', 'epoch_8.pth'),
    ]
    assert json.loads(run.result_file.read_text())['points'].keys() == {'280', '560'}


def test_a_branch_that_was_killed_goes_on_from_its_own_checkpoint(curves, calls, run_of):
    run = run_of('end_to_end')
    run([280])
    calls.clear()
    for name, epochs in (('constant', 8), ('560', 9)):
        folder = run.folder / f'model-{name}'
        folder.mkdir(exist_ok=True)
        (folder / 'last_checkpoint').write_text(str(folder / f'epoch_{epochs}.pth'))
    run([560])
    assert trained(calls) == [('model-560', 'auto')]
    *_, last = (run.folder / 'costs.jsonl').read_text().splitlines()
    assert json.loads(last)['steps'] == 56


def test_what_cannot_be_is_refused(curves, calls, run_of, tmp_path, monkeypatch, capsys):
    run = run_of('end_to_end')
    run([560])
    with pytest.raises(ConfigError, match='it is 8 epochs long, and 280 steps branch off after 4'):
        run([280])
    found = json.loads(run.result_file.read_text())
    run.result_file.write_text(json.dumps({**found, 'settings': 'others'}))
    with pytest.raises(ConfigError, match='the results are of other settings'):
        run([560])
    for given, message in ((['nobody'], 'unknown system nobody'), (['--lengths', '300'], 'lengths [300]')):
        monkeypatch.setattr(sys, 'argv', ['curves.py', 'train', *given, f'--out={tmp_path}'])
        with pytest.raises(SystemExit):
            curves.main()
        assert message in capsys.readouterr().err
    with pytest.raises(ConfigError, match='there are no results'):
        curves.read_results(tmp_path / 'nowhere')


def test_trains_on_another_kind_of_data(curves, calls, tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(curves, 'make_data', lambda name, folder, **sizes: made.append((name, folder, sizes)))
    given = ['end_to_end', '--lengths', '280', '--data', 'coarse', '--images', '20', '--val-images', '4']
    monkeypatch.setattr(sys, 'argv', ['curves.py', 'train', *given, f'--out={tmp_path}'])
    curves.main()
    assert made == [('coarse', tmp_path / 'data/coarse-20-4', {'images': 20, 'val_images': 4})]
    assert calls
    # Results of one kind of data do not go on with another's.
    monkeypatch.setattr(sys, 'argv', ['curves.py', 'train', 'end_to_end', '--lengths', '560', f'--out={tmp_path}'])
    with pytest.raises(SystemExit):
        curves.main()


def test_a_run_that_another_process_trains_is_left_to_it(curves, calls, run_of, capsys):
    run = run_of('end_to_end')
    with curves.locked(run.folder / 'lock', wait=False) as lock:
        assert lock is not None
        run([280])
    assert calls == []
    assert 'another process trains it' in capsys.readouterr().out
    run([280])
    assert calls


def test_every_system_is_one_of_a_kind(curves, run_of):
    texts = {name: [curves.text_of(run_of(name).configured(part, 4)) for part in system.parts]
             for name, system in curves.SYSTEMS.items()}  # fmt: skip
    assert len({tuple(text) for text in texts.values()}) == len(curves.SYSTEMS)
    assert len({system.title for system in curves.SYSTEMS.values()}) == len(curves.SYSTEMS) == len(curves.COLORS)


class Slope(BaseModel):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, inputs: Any, mode: str = 'tensor') -> dict[str, torch.Tensor]:
        return {'loss': self.weight.sum()}


class Ten(Dataset[int]):
    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> int:
        return index


def rates(curves: ModuleType, folder: Path, *, epochs: int, decay: int = 0, resume: str | None = None) -> np.ndarray:
    """Learning rates of the steps of a training of epochs of 10 steps."""
    runner = Runner(
        Slope(), str(folder), dict(batch_size=1, sampler=dict(type='DefaultSampler'), dataset=Ten(),
                                   collate_fn=pseudo_collate, num_workers=0),
        train_cfg=dict(by_epoch=True, max_epochs=epochs), optim_wrapper=dict(optimizer=dict(type='AdamW', lr=2.0)),
        param_scheduler=curves.schedulers(decay), load_from=resume, resume=resume is not None,
        default_scope='mmengine', experiment_name=folder.name,
        default_hooks=dict(logger=dict(type='LoggerHook', interval=1)),
    )  # fmt: skip
    runner.train()
    lines = (folder / runner.timestamp / 'vis_data/scalars.json').read_text().splitlines()
    return np.array([json.loads(line)['lr'] for line in lines])


def test_the_rate_is_constant_after_the_warm_up_and_falls_in_a_branch(curves, tmp_path):
    constant = rates(curves, tmp_path / 'constant', epochs=8)
    assert constant[0] == pytest.approx(0.05 * 2)
    assert (np.diff(constant[:49]) > 0).all()
    assert constant[50:] == pytest.approx(2.0)
    (tmp_path / 'branch').mkdir()
    checkpoint = str(curves.branched(tmp_path / 'constant/epoch_8.pth', tmp_path / 'branch', 20))
    branch = rates(curves, tmp_path / 'branch', epochs=10, decay=20, resume=checkpoint)
    # In a straight line to 1 / 200 of the rate.
    assert branch == pytest.approx(np.linspace(2.0, 0.01, 20), rel=1e-3)
    # Killed after an epoch, it goes on with the same rates.
    rest = rates(curves, tmp_path / 'rest', epochs=10, decay=20, resume=str(tmp_path / 'branch/epoch_9.pth'))
    assert rest == pytest.approx(branch[10:])


def test_the_calibration_error_by_hand(curves):
    # In the bin from 0.8 on, 3 claims of 0.9 of which 2 are right; in the first, one of 0.05 that is wrong.
    scores, right = np.array([0.9, 0.9, 0.9, 0.05]), np.array([True, True, False, False])
    assert curves.calibration_error(scores, right) == pytest.approx((abs(2 - 2.7) + 0.05) / 4)
    assert curves.calibration_error(np.array([1.0]), np.array([True])) == 0
    assert np.isnan(curves.calibration_error(np.zeros(0), np.zeros(0, dtype=bool)))


def test_figure_and_table_of_what_is_there(curves, calls, run_of, tmp_path, monkeypatch, capsys):
    run_of('end_to_end', 0)([280, 560])
    run_of('end_to_end', 1)([280])
    run_of('strong_ensemble', 0)([560])
    monkeypatch.setattr(sys, 'argv', ['curves.py', 'draw', f'--out={tmp_path}'])
    curves.main()
    printed = capsys.readouterr().out
    lines = [line for line in printed.splitlines() if line.startswith('| ')]
    cells = [[cell.strip() for cell in line.strip('|').split('|')] for line in lines]
    rows = [dict(zip(cells[0], row, strict=True)) for row in cells[1:] if '---' not in row[0]]
    assert [(row[''], row['seeds'], row['steps'], row['mAP'], row['±']) for row in rows] == [
        ('end-to-end model', '2', '280', '0.028', '0.000'),
        ('end-to-end model', '1', '560', '0.056', ''),
        ('strong ensemble', '1', '1,120', '0.056', ''),
    ]
    assert rows[0]['deeper'] == 'nan'
    assert (tmp_path / 'curves.svg').read_text().startswith('<?xml')
    assert (tmp_path / 'curves.png').stat().st_size > 10_000
    assert (tmp_path / 'curves.md').read_text().strip() in printed


def test_the_page_has_the_table_of_the_committed_results(curves):
    for folder in (DOCS / 'curves').iterdir():
        rows = curves.table(curves.read_results(folder / 'results')).splitlines()
        page = (DOCS / 'end_to_end.md').read_text(encoding='utf-8').splitlines()
        assert rows == page[page.index(rows[0], start_of(folder.name, page)) :][: len(rows)]


def start_of(data: str, page: list[str]) -> int:
    """The line of a page that names a kind of data's curves."""
    return next(number for number, line in enumerate(page) if f'--out docs/curves/{data}' in line)
