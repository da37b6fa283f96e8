from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mmengine.runner import Runner
from stub_training import alone_settings, layerwise_settings, make_runner
from tiny_models import tiny_model

from hierseg.errors import ConfigError
from hierseg.registry import MODELS


def runner_of(settings: dict[str, Any], folder: Path) -> Runner:
    return make_runner(settings, folder, custom_hooks=[dict(type='hierseg.ClassCountHook')])


def test_each_layer_is_compared_with_its_own_data(tmp_path: Path) -> None:
    # The stub's data sets have one class.
    runner = runner_of(layerwise_settings(), tmp_path)
    runner.model.layer0.linear.num_classes = 1
    runner.model.layer1.linear.num_classes = 2
    with pytest.raises(ConfigError, match=r'model\.layer1\.linear is for 2 classes, and its data set has 1'):
        runner.train()
    # Before anything was trained.
    assert runner.model.layer0.seen == []


def test_a_model_as_a_whole(tmp_path: Path) -> None:
    runner = runner_of(alone_settings('layer0'), tmp_path)
    runner.model.norm.num_classes = 3
    with pytest.raises(ConfigError, match=r'model\.norm is for 3 classes'):
        runner.train()
    runner.model.norm.num_classes = 1
    runner.model.rpn_head = runner.model.linear
    runner.model.rpn_head.num_classes = 5
    del runner.model.linear
    runner.model.forward = lambda inputs, data_samples, mode: {'loss': runner.model.rpn_head.weight.sum()}
    runner.train()


def test_a_mask_head_may_have_a_mask_for_each_root_class(tmp_path: Path) -> None:
    runner = runner_of(alone_settings('layer0'), tmp_path)
    config = tiny_model()
    config.roi_head.mask_channels = 'root'
    config.roi_head.mask_head.update(class_agnostic=False, num_classes=3)
    runner.model.roi_head = MODELS.build(config).roi_head
    # The box head of the same RoI head is looked at: it has five classes, and the stub's data one.
    with pytest.raises(ConfigError, match=r'roi_head\.bbox_head is for 5 classes'):
        runner.train()
    runner.train_loop.dataloader.dataset.metainfo = {'classes': tuple('abcde')}
    runner.train()
    # Of a mask head that stands elsewhere, nobody knows better.
    runner.model.roi_head = runner.model.roi_head.mask_head
    with pytest.raises(ConfigError, match=r'model\.roi_head is for 3 classes'):
        runner.call_hook('before_train')
