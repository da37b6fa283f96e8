"""Detectors by stand-in operators against mmcv's compiled ones, in loss and prediction; skipped where mmcv has none."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.optim import OptimWrapper
from mmengine.registry import init_default_scope
from tiny_detectors import DETECTORS, batch, build, settings

import hierseg.operators
import hierseg.registry
from hierseg.converters.open_images import ConversionOptions, OpenImagesFiles, convert_open_images
from hierseg.synthetic import AnnotationRates, SplitOptions, SynthesisOptions, default_taxonomy, synthesize

pytestmark = pytest.mark.skipif(
    hierseg.operators.backend() != 'compiled', reason='mmcv has no compiled operators to compare with'
)
QUICKSTART = Path(__file__).parents[2] / 'configs' / 'quickstart' / 'hier_e2e.py'


def outcome(model: torch.nn.Module, data: dict[str, list[Any]]) -> dict[str, torch.Tensor]:
    """Losses, gradients and predictions."""
    model.train()
    model.zero_grad()
    torch.manual_seed(1)
    prepared = model.data_preprocessor(copy.deepcopy(data), training=True)
    losses = model(**prepared, mode='loss')
    found = {name: sum(torch.as_tensor(part) for part in torch.utils._pytree.tree_leaves(loss))
             for name, loss in losses.items()}  # fmt: skip
    sum(loss for name, loss in found.items() if 'loss' in name).backward()
    found |= {f'gradient of {name}': each.grad for name, each in model.named_parameters() if each.grad is not None}
    model.eval()
    with torch.no_grad():
        predictions = model.test_step(copy.deepcopy(data))
    for index, sample in enumerate(predictions):
        for name, value in sample.pred_instances.items():
            found[f'{name} of image {index}'] = torch.as_tensor(value)
    return found


@pytest.mark.parametrize('name', DETECTORS)
def test_losses_and_predictions_are_the_same(name: str, in_mmcv: Callable[[], Any]) -> None:
    model, data = build(settings(name)), batch(2, num_classes=80)
    state = copy.deepcopy(model.state_dict())
    expected = outcome(model, data)
    model.load_state_dict(state)
    with in_mmcv():
        found = outcome(model, data)
    assert len(expected['scores of image 0']) > 0
    assert found.keys() == expected.keys()
    close = {'rtol': 1e-3, 'atol': 1e-4}
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, **close, msg=lambda text, key=key: f'{key}: {text}')


@pytest.fixture
def batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Four batches of four images that the quickstart draws, loaded as it does, in its folder."""
    data = tmp_path / 'data/quickstart'
    splits = (SplitOptions('train', 16, 30.0, AnnotationRates()),)
    synthesize(data, SynthesisOptions(splits=splits, seed=0, size=160), taxonomy=default_taxonomy())
    tables = {
        name: data / f'challenge-2019-train-segmentation-{file}.csv'
        for name, file in (('boxes', 'bbox'), ('labels', 'labels'), ('masks', 'masks'))
    }
    files = OpenImagesFiles(**tables, images=data / 'train', mask_dir=data / 'train-masks')
    convert_open_images(files, default_taxonomy(), out=data / 'store/train', options=ConversionOptions())
    monkeypatch.chdir(tmp_path)
    init_default_scope('mmdet')
    np.random.seed(0)  # noqa: NPY002
    dataset = DATASETS.build(Config.fromfile(QUICKSTART).train_dataloader.dataset)
    return [pseudo_collate([dataset[index % len(dataset)] for index in range(first, first + 4)])
            for first in range(0, 16, 4)]  # fmt: skip


def train(batches: list[dict[str, Any]]) -> list[float]:
    """Losses of a step on each batch, of the quickstart's end-to-end model, with its optimizer and warm-up."""
    config = Config.fromfile(QUICKSTART)
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    model = MODELS.build(config.model)
    model.init_weights()
    model.train()
    settings, warm_up = config.optim_wrapper.optimizer, config.param_scheduler[0]
    weights = torch.optim.AdamW(model.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
    scheduler = torch.optim.lr_scheduler.LinearLR(weights, warm_up.start_factor, total_iters=warm_up.end)
    optimizer = OptimWrapper(weights, clip_grad=dict(config.optim_wrapper.clip_grad))
    losses = []
    for data in batches:
        losses.append(model.train_step(copy.deepcopy(data), optimizer)['loss'].item())
        scheduler.step()
    return losses


@pytest.mark.slow
def test_first_steps_of_the_quickstart(
    stand_in: ModuleType, in_mmcv: Callable[[], Any], batches: list[dict[str, Any]]
) -> None:
    expected = train(batches)
    with in_mmcv():
        found = train(batches)
    # Later steps tell nothing: a proposal that rounding moves over a threshold changes what is drawn from then on. The
    # compiled operators themselves part from a training whose RoI align is a rounding step larger: by 0.0005 at the
    # third step, 0.03 at the sixth.
    differences = [abs(one - other) for one, other in zip(found, expected, strict=True)]
    assert max(differences) <= (0 if stand_in.get_compiler_version().endswith('torchvision') else 0.02), differences
