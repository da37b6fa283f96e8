"""Every function that reads a checkpoint ends in one error of ours for every kind of damage."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from damaged_checkpoints import KINDS, LACKS, damaged
from exported_models import Trained
from mmengine.config import Config
from stub_training import alone_settings

from hierseg.apis import evaluate, explain_ensemble, join_layers, train
from hierseg.apis.calibrate import calibrate
from hierseg.apis.costs import costs_here
from hierseg.apis.export import export
from hierseg.engine.checkpoint_files import latest_checkpoint
from hierseg.errors import ConfigError
from hierseg.prediction import load_model, predict

HOOKS = dict(
    checkpoint=dict(type='hierseg.AtomicCheckpointHook', interval=1),
    load_from=dict(type='hierseg.LoadFromHook'),
    exact_resume=dict(type='hierseg.ExactResumeHook'),
    finite_loss=dict(type='hierseg.FiniteLossHook'),
)


@pytest.fixture(scope='module')
def stub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a config that trains in milliseconds, ``stub.py``, and what it trains to, ``work/epoch_2.pth``."""
    folder = tmp_path_factory.mktemp('stub')
    settings = alone_settings('layer0')
    del settings['hooks'], settings['validation']
    settings |= dict(
        default_scope='mmdet',
        default_hooks=HOOKS,
        randomness=dict(seed=3),
        log_level='ERROR',
        test_dataloader=dict(
            batch_size=1,
            num_workers=0,
            dataset=settings['train_dataloader']['dataset'],
            sampler=dict(type='DefaultSampler'),
        ),
        test_cfg=dict(type='TestLoop'),
        test_evaluator=dict(type='DumpDetResults', out_file_path=str(folder / 'out.pkl')),
    )
    Config(settings).dump(folder / 'stub.py')
    train(folder / 'stub.py', work_dir=folder / 'work')
    return folder


@pytest.fixture
def tools(stub: Path, trained: Trained, tmp_path: Path) -> dict[str, Callable[[str], Any]]:
    """What reads a checkpoint, by name; predict, serve and page load models alike."""
    work, config = tmp_path / 'work', trained.config
    return {
        'train --resume': lambda path: train(stub / 'stub.py', work_dir=work, resume=path),
        'train, load_from': lambda path: train(stub / 'stub.py', work_dir=work, options={'load_from': path}),
        'test': lambda path: evaluate(stub / 'stub.py', path, work_dir=work),
        'load_model': lambda path: load_model(config, path, device='cpu'),
        'predict': lambda path: predict(config, path, list(trained.pictures), out=tmp_path / 'out', device='cpu'),
        'export': lambda path: export(config, path, tmp_path / 'model.onnx', images=trained.pictures),
        'explain': lambda path: explain_ensemble(config, path, trained.pictures[0], device='cpu'),
        'costs of compare': lambda path: costs_here(Config.fromfile(config), path, images=1, threads=1),
        'merge': lambda path: join_layers(path, path, tmp_path / 'joined.pth'),
    }


STUB = ('train --resume', 'train, load_from', 'test')
NAMES = (*STUB, 'load_model', 'predict', 'export', 'explain', 'costs of compare', 'merge')


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('kind', KINDS)
def test_one_error_names_the_file(
    name: str, kind: str, tools: dict[str, Callable[[str], Any]], stub: Path, trained: Trained, tmp_path: Path
) -> None:
    path = damaged(kind, stub / 'work/epoch_2.pth' if name in STUB else trained.checkpoint, tmp_path)
    before = {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()}
    # From some tensors of another kind a training may start, if the rest fits.
    if name == 'train, load_from' and kind in ('whole numbers', 'complex'):
        tools[name](str(path))
        return
    with pytest.raises(ConfigError) as caught:
        tools[name](str(path))
    message = str(caught.value)
    assert message.startswith(str(path))
    assert '\n' not in message
    assert '\x1b' not in message
    assert not Path(f'{path}.made').exists()
    assert {file for file in tmp_path.iterdir() if file.name != 'work'} == {*before}


@pytest.mark.parametrize('kind', LACKS)
def test_a_training_goes_on_from_all_of_its_state_or_not_at_all(kind: str, stub: Path, tmp_path: Path) -> None:
    path = damaged(kind, stub / 'work/epoch_2.pth', tmp_path)
    with pytest.raises(ConfigError, match=r'damaged\.pth: the checkpoint (has weights and no state|cannot be resumed)'):
        train(stub / 'stub.py', work_dir=tmp_path / 'work', resume=str(path))
    assert not [*tmp_path.rglob('epoch_*.pth')]


def test_the_sound_one_is_taken(tools: dict[str, Callable[[str], Any]], stub: Path, trained: Trained) -> None:
    tools['train --resume'](str(stub / 'work/epoch_1.pth'))
    tools['load_model'](str(trained.checkpoint))


NOTES = {
    'empty': (b'', 'the file is empty'),
    'of blanks': (b' \n', 'the file is empty'),
    'of a missing file': (b'gone.pth', 'it names no checkpoint: the checkpoint does not exist'),
    'of a folder': (b'folder', 'it names no checkpoint: the checkpoint is a folder'),
    'binary': (b'\x80\x81\x82', 'the name of the latest checkpoint cannot be read'),
    'with zeros': (b'\0' * 20, 'it names no checkpoint'),
    'of a very long name': (b'a' * 10_000, 'it names no checkpoint'),
}


@pytest.mark.parametrize('kind', NOTES)
def test_a_damaged_note_of_the_latest_checkpoint_is_named(
    kind: str, stub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, expected = NOTES[kind]
    (tmp_path / 'folder').mkdir()
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'last_checkpoint').write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        train(stub / 'stub.py', work_dir=tmp_path, resume='auto')
    assert str(caught.value).startswith(f'{tmp_path}/last_checkpoint: {expected}')
    assert 'to begin anew' in str(caught.value)
    assert [path.name for path in tmp_path.iterdir() if path.suffix == '.pth'] == []


def test_without_a_note_a_run_begins(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path) is None


def test_the_config_in_a_checkpoint_is_not_run(stub: Path, tmp_path: Path) -> None:
    # MMEngine reads it when it resumes, as a program.
    whole = torch.load(stub / 'work/epoch_1.pth', weights_only=False)
    whole['meta']['config'] = f'open({str(tmp_path / "made")!r}, "w").close()\n'
    torch.save(whole, tmp_path / 'hostile.pth')
    train(stub / 'stub.py', work_dir=tmp_path / 'work', resume=str(tmp_path / 'hostile.pth'))
    assert (tmp_path / 'work/epoch_2.pth').exists()
    assert not (tmp_path / 'made').exists()


def test_calibration_reads_a_checkpoint_as_a_test_does(trained: Trained, tmp_path: Path) -> None:
    assert calibrate.__globals__['safe_loading'] is evaluate.__globals__['safe_loading']
    with pytest.raises(ConfigError, match='the checkpoint is a folder'):
        calibrate(trained.config, str(tmp_path))


@pytest.fixture(autouse=True)
def _own_visualizer(monkeypatch: pytest.MonkeyPatch) -> None:
    # MMEngine would give a later run the visualizer of the one before, which writes into its folder.
    from mmengine.visualization import Visualizer

    monkeypatch.setattr(Visualizer, '_instance_dict', OrderedDict())
