"""Pictures of a data set: the functions, and the tool as a user starts it."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import mmcv
import pytest
from mmcv.transforms import LoadImageFromFile
from mmdet.datasets.transforms import PackDetInputs
from mmengine.config import Config
from mmengine.registry import init_default_scope

from hierseg.datasets import StoreDataset
from hierseg.errors import ConfigError
from hierseg.report import HierLocalVisualizer
from hierseg.report.visualizer import browse_dataset, configured_dataset, store_dataset

ROOT = Path(__file__).parents[2]
TOOL = ROOT / 'tools' / 'analysis_tools' / 'browse_dataset.py'
CONFIG = """
default_scope = 'mmdet'
pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='Resize', scale=(20, 15), keep_ratio=True),
    dict(type='PackDetInputs'),
]
train_dataloader = dict(
    dataset=dict(
        type='hierseg.StoreDataset',
        store={store!r},
        data_prefix=dict(img={images!r}),
        filter_cfg=dict(filter_empty_gt=True),
        pipeline=pipeline,
    )
)
"""


@pytest.fixture
def run_tool(monkeypatch):
    """Runs the tool's main function in this process."""
    spec = importlib.util.spec_from_file_location('browse_dataset_tool', TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def run(*arguments: object) -> None:
        monkeypatch.setattr(sys, 'argv', ['browse_dataset.py', *map(str, arguments)])
        module.main()

    return run


def test_a_store_is_drawn_as_it_is(pets, tmp_path):
    dataset = store_dataset(pets.store, pets.images)
    written = browse_dataset(dataset, HierLocalVisualizer(), output_dir=tmp_path / 'out', progress=False)
    assert [path.name for path in written] == [f'{row:016x}.jpg' for row in range(4)]
    # 40 pixels six times enlarged.
    assert mmcv.imread(written[0]).shape[1] == 240


def test_a_few_images_are_spread_over_the_data_set(pets, tmp_path):
    dataset = store_dataset(pets.store, pets.images)
    written = browse_dataset(dataset, HierLocalVisualizer(), output_dir=tmp_path, max_images=2, progress=False)
    assert [int(path.stem, 16) for path in written] == [0, 3]


def test_a_split_that_the_config_lacks():
    with pytest.raises(ConfigError, match='no val_dataloader'):
        configured_dataset(Config(dict(train_dataloader=dict())), 'val')


def test_a_pipeline_without_annotations(pets, tmp_path):
    pipeline = [LoadImageFromFile(), PackDetInputs(meta_keys=('img_path',))]
    dataset = StoreDataset(pets.store, data_prefix=dict(img=str(pets.images)), pipeline=pipeline)
    with pytest.raises(ConfigError, match='StoreDataset: the pipeline loads no annotations'):
        browse_dataset(dataset, HierLocalVisualizer(), output_dir=tmp_path, progress=False)


def test_a_config_is_drawn_after_its_pipeline(pets, tmp_path):
    init_default_scope('mmdet')
    path = tmp_path / 'config.py'
    path.write_text(CONFIG.format(store=str(pets.store), images=str(pets.images)))
    dataset = configured_dataset(Config.fromfile(path), 'train')
    written = browse_dataset(dataset, HierLocalVisualizer(), output_dir=tmp_path / 'out', progress=False)
    # The filter leaves two; they are read with 20 pixels and enlarged six times.
    assert [int(path.stem, 16) for path in written] == [0, 3]
    assert mmcv.imread(written[0]).shape[1] == 120


def test_the_tool_writes_pictures_and_says_where(pets, tmp_path):
    out = tmp_path / 'pictures'
    options = ['--store', pets.store, '--images', pets.images, '--output-dir', out, '--not-show', '--max-images', '1']
    environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
    done = subprocess.run([sys.executable, TOOL, *options], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.endswith(f'\n1 picture written to {out}\n')
    assert len(list(out.iterdir())) == 1


def test_the_tool_reads_a_config_and_its_overrides(pets, tmp_path, run_tool, capsys):
    path = tmp_path / 'config.py'
    path.write_text(CONFIG.format(store=str(pets.store), images=str(pets.images)))
    out = tmp_path / 'pictures'
    override = 'train_dataloader.dataset.filter_cfg.filter_empty_gt=False'
    run_tool(path, '--output-dir', out, '--not-show', '--cfg-options', override)
    assert f'4 pictures written to {out}' in capsys.readouterr().out


def test_the_tool_ends_with_one_clear_line(pets, tmp_path, run_tool, capsys):
    with pytest.raises(SystemExit, match='2'):
        run_tool('--store', tmp_path / 'nowhere', '--images', pets.images, '--output-dir', tmp_path, '--not-show')
    assert capsys.readouterr().err.startswith(f'error: {tmp_path}/nowhere: ')


@pytest.mark.parametrize(
    ('arguments', 'complaint'),
    [
        ([], 'name a config or --store'),
        (['--store', 's', '--output-dir', 'o'], '--store and --images go together'),
        (['c.py', '--not-show'], '--not-show without --output-dir'),
        (['c.py', '--max-images', '0'], '--max-images must be at least 1'),
    ],
)
def test_contradictory_arguments(run_tool, capsys, arguments, complaint):
    with pytest.raises(SystemExit, match='2'):
        run_tool(*arguments)
    assert complaint in capsys.readouterr().err


def test_a_config_with_a_data_set_for_each_layer_is_refused() -> None:
    with pytest.raises(ConfigError, match='Name the config of a layer alone'):
        configured_dataset(Config.fromfile(ROOT / 'configs/two_layer_ensemble.py'), 'train')
