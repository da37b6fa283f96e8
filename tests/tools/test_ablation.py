"""The command that measures what each part is worth, with trainings that take no time."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from layer_stores import BEAR, CAR, MAN, Picture, Row, write_store

from hierseg.errors import ConfigError

TOOL = Path(__file__).parents[2] / 'tools/benchmarks/ablation.py'
BOX = (10, 10, 50, 50)


@pytest.fixture
def ablation(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location('ablation', TOOL)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, 'ablation', module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def calls(ablation: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[str]]]:
    """What was run; a training leaves a checkpoint, a test scores."""
    done: list[tuple[str, list[str]]] = []
    # Man on one image, bear on two, car on three; person and carnivore with them.
    pictures = [[MAN, BEAR, CAR], [BEAR, CAR], [CAR]]
    (tmp_path / 'data' / ablation.STORE).mkdir(parents=True)
    write_store(
        tmp_path / 'data' / ablation.STORE / 'train',
        [Picture(str(number), [Row(label, BOX) for label in labels]) for number, labels in enumerate(pictures)],
    )

    def run(tool: str, *arguments: Any, cwd: Path, threads: int) -> None:
        words = [str(argument) for argument in arguments]
        done.append((tool, words))
        folder = Path(words[words.index('--work-dir') + 1])
        folder.mkdir(parents=True, exist_ok=True)
        if tool == 'train.py':
            weights = {'w': torch.zeros(5, 3), 'bn.running_mean': torch.zeros(7)}
            torch.save({'state_dict': weights}, folder / 'epoch_4.pth')
            (folder / 'last_checkpoint').write_text(str(folder / 'epoch_4.pth'))
        else:
            assert str(folder / 'classes.json') in Path(words[0]).read_text()
            scores = dict.fromkeys(ablation.COLUMNS.values(), 0.5)
            scores['segm/mAP'] += 0.25 * ('model.roi_head.mask_channels=shared' not in words)
            (folder / 'results.json').write_text(json.dumps(scores))
            precisions = {'man': 0.1, 'bear': 0.2, 'car': 0.6, 'toy': None}
            (folder / 'classes.json').write_text(json.dumps({'AP': precisions}))

    monkeypatch.setattr(ablation, 'run_tool', run)
    return done


def test_trains_and_tests_with_the_options_of_the_variant(ablation, calls, tmp_path):
    found = ablation.Run('masks', 'root', 3, 280, tmp_path / 'data', tmp_path)(threads=1)
    (train, training), (test, testing) = calls
    assert (train, test) == ('train.py', 'test.py')
    assert 'model.roi_head.verified=None' in training
    assert 'model.roi_head.verified=None' in testing
    assert {'randomness.seed=3', 'train_dataloader.batch_sampler.iterations=70'} <= {*training}
    assert found['parameters'] == 15
    # Man is rarest, car most frequent; nobody evaluated toys.
    assert found['bands'] == {'rare': 0.1, 'common': 0.2, 'frequent': 0.6}


def test_does_nothing_twice_unless_the_question_changed(ablation, calls, tmp_path):
    run = ablation.Run('masks', 'shared', 0, 280, tmp_path / 'data', tmp_path)
    first = run(threads=1)
    assert run(threads=1) == first
    # The same model, asked for by another question.
    assert ablation.Run('schemes', 'path_sum', 0, 280, tmp_path / 'data', tmp_path)(threads=1) == first
    assert len(calls) == 2
    # A lost score needs no new training, another length does.
    (run.folder / 'tested.json').unlink()
    run(threads=1)
    assert [tool for tool, _ in calls[2:]] == ['test.py']
    ablation.Run('masks', 'shared', 0, 140, tmp_path / 'data', tmp_path)(threads=1)
    assert [tool for tool, _ in calls[3:]] == ['train.py', 'test.py']
    # So does another data set.
    shutil.copytree(tmp_path / 'data', tmp_path / 'more')
    ablation.Run('masks', 'shared', 0, 280, tmp_path / 'more', tmp_path)(threads=1)
    assert [tool for tool, _ in calls[5:]] == ['train.py', 'test.py']


def test_the_ensemble_shares_the_steps_among_its_layers(ablation, calls, tmp_path):
    ablation.Run('systems', 'two_layer_ensemble', 0, 280, tmp_path / 'data', tmp_path)(threads=1)
    assert calls[0][1][0].endswith('configs/quickstart/two_layer_ensemble.py')
    lengths = {f'train_dataloader.layer{n}.batch_sampler.iterations={count}' for n, count in ((0, 49), (1, 21))}
    assert lengths <= {*calls[0][1]}
    half = ablation.Run('systems', 'hier_e2e, half the steps', 0, 280, tmp_path / 'data', tmp_path)
    assert half(threads=1)['settings']['iterations'] == 140


def test_the_table_compares_with_the_first(ablation, calls, tmp_path):
    results = {
        variant: {
            seed: ablation.Run('masks', variant, seed, 4, tmp_path / 'data', tmp_path)(threads=1) for seed in (0, 1)
        }
        for variant in ('shared', 'root')
    }
    results['root'][1]['scores']['segm/mAP'] = 0.65
    results['root'][1]['scores']['pairs/exact'] = None
    lines = ablation.table('masks', results).splitlines()
    cells = [[cell.strip() for cell in line.strip('|').split('|')] for line in (lines[1], *lines[3:])]
    rows = [dict(zip(cells[0], row, strict=True)) for row in cells[1:]]
    assert [row[''] for row in rows] == ['shared', 'root']
    assert (rows[0]['mAP'], rows[0]['mAP against the first']) == ('0.500', '')
    # Gains 0.25 and 0.15: mean 0.2, standard error |0.25 - 0.15| / 2.
    assert (rows[1]['mAP'], rows[1]['mAP against the first']) == ('0.700', '+0.200 ± 0.050')
    assert (rows[1]['top-1'], rows[1]['rare'], rows[1]['parameters']) == ('nan', '0.100', '15')


def test_a_failing_run_says_what_it_printed(ablation, tmp_path):
    with pytest.raises(ConfigError, match=r'(?s)train\.py failed: .*nowhere\.py: the config file does not exist'):
        ablation.run_tool('train.py', 'nowhere.py', cwd=tmp_path, threads=1)


def test_every_variant_is_one_of_a_kind(ablation):
    for experiment in ablation.EXPERIMENTS.values():
        assert {*experiment.configs, *experiment.steps} <= {*experiment.variants}
        assert experiment.data in ablation.DATA
        options = [(*found, experiment.configs.get(name), experiment.steps.get(name))
                   for name, found in experiment.variants.items()]  # fmt: skip
        assert len({*options}) == len(options)
