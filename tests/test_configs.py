"""Every config loads, its model builds and its pipelines build: a misspelt key would load silently."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.registry import init_default_scope

from hierseg.registry import MODELS, TRANSFORMS
from hierseg.taxonomy import Taxonomy, read_taxonomy

ROOT = Path(__file__).parents[1]
CONFIGS = sorted(file for file in (ROOT / 'configs').rglob('*.py') if '_base_' not in file.parts)


def load(file: Path, taxonomy: Taxonomy, folder: Path) -> Config:
    config = Config.fromfile(file)
    init_default_scope(config.default_scope)
    path = folder / 'taxonomy.json'
    path.write_text(json.dumps(taxonomy.to_json()))
    assert config.model.roi_head.bbox_head.loss_cls.taxonomy == config.taxonomy
    config.model.roi_head.bbox_head.loss_cls.taxonomy = str(path)
    return config


def chain(num_classes: int) -> Taxonomy:
    """As many classes as the config wants, every third one a root class."""
    ids = [f'c{label}' for label in range(num_classes)]
    return Taxonomy.from_edges(ids, [(ids[label], ids[label - 1]) for label in range(num_classes) if label % 3])


@pytest.mark.parametrize('file', CONFIGS, ids=lambda file: str(file.relative_to(ROOT / 'configs')))
def test_config_builds(file: Path, tmp_path: Path) -> None:
    num_classes = Config.fromfile(file).num_classes
    config = load(file, chain(num_classes), tmp_path)
    model = MODELS.build(config.model)
    assert model.roi_head.bbox_head.fc_cls.out_features == num_classes + 1
    for loader in (config.train_dataloader, config.val_dataloader, config.test_dataloader):
        assert loader.dataset.taxonomy == config.taxonomy
        assert loader.dataset.data_root == config.data_root
        assert loader.dataset.store.startswith(config.data_root)
        for transform in loader.dataset.pipeline:
            TRANSFORMS.build(transform)
    for evaluator in (config.val_evaluator, config.test_evaluator):
        assert evaluator.store.startswith(config.data_root)


def test_the_end_to_end_model_on_the_real_hierarchy(test_data: Path, tmp_path: Path) -> None:
    folder = test_data / 'openimages'
    taxonomy = read_taxonomy(
        folder / 'challenge-2019-label300-segmentable-hierarchy.json',
        classes=folder / 'challenge-2019-classes-description-segmentable.csv',
    )
    model = MODELS.build(load(ROOT / 'configs/hier_e2e.py', taxonomy, tmp_path).model)
    # Less than half of the two-layer ensemble's 127.5 million parameters.
    assert sum(parameter.numel() for parameter in model.parameters()) < 63.75e6
