"""Every config loads, its model builds and its pipelines build: a misspelt key would load silently."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mmdet
import pytest
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import nn

from hierseg.datasets import StreamSampler
from hierseg.registry import (
    DATA_SAMPLERS,
    HOOKS,
    LOOPS,
    METRICS,
    MODELS,
    TRANSFORMS,
    VISUALIZERS,
)
from hierseg.synthetic import default_taxonomy
from hierseg.taxonomy import Taxonomy, read_taxonomy

ROOT = Path(__file__).parents[1]
CONFIGS = sorted(file for file in (ROOT / 'configs').rglob('*.py') if '_base_' not in file.parts)
ENSEMBLES = [file for file in CONFIGS if file.stem == 'two_layer_ensemble']
LAYERS = [file for file in CONFIGS if file.parent.name == 'two_layer']
END_TO_END = [file for file in CONFIGS if file.stem == 'hier_e2e']
RETINANET = ROOT / 'configs/hier_retinanet.py'
REAL_TIME = [file for file in CONFIGS if file.stem.startswith('hier_rtmdet')]


def name(file: Path) -> str:
    return str(file.relative_to(ROOT / 'configs'))


def read(file: Path) -> Config:
    config = Config.fromfile(file)
    init_default_scope(config.default_scope)
    return config


def use(taxonomy: Taxonomy, settings: Any, folder: Path) -> None:
    """Puts a file with the taxonomy in the place of the one that does not exist here."""
    path = folder / 'taxonomy.json'
    path.write_text(json.dumps(taxonomy.to_json()))
    settings.taxonomy = str(path)


def two_levels(num_roots: int, num_deeper: int) -> Taxonomy:
    """As many root classes and children of them as a config wants."""
    roots, deeper = ([f'{kind}{label}' for label in range(n)] for kind, n in (('r', num_roots), ('d', num_deeper)))
    return Taxonomy.from_edges(roots + deeper, [(child, roots[i % num_roots]) for i, child in enumerate(deeper)])


def datasets(settings: Any) -> Iterator[Any]:
    """All settings of data sets, wherever they stand."""
    if isinstance(settings, dict):
        if settings.get('type') == 'hierseg.StoreDataset':
            yield settings
        settings = list(settings.values())
    if isinstance(settings, list):
        for value in settings:
            yield from datasets(value)


@pytest.mark.parametrize('file', CONFIGS, ids=name)
def test_parts_fit_together(file: Path) -> None:
    config = read(file)
    running = [config.get('train_dataloader'), config.get('val_dataloader'), config.get('test_dataloader')]
    found = [*datasets([*running, config.default_hooks])]
    assert len(found) >= 2
    for dataset in found:
        assert dataset.taxonomy == config.taxonomy
        assert dataset.data_root == config.data_root
        assert dataset.store.startswith(config.data_root)
        for transform in dataset.pipeline:
            TRANSFORMS.build(transform)
        # An image of a scale of its own would make another problem of validation or test.
        assert scales(dataset.pipeline) == scales(found[0].pipeline)
    for evaluator in (config.get('val_evaluator'), config.get('test_evaluator')):
        if evaluator is not None:
            assert evaluator.store.startswith(config.data_root)
            METRICS.get(evaluator.type)
    for hook in config.get('custom_hooks', []):
        HOOKS.build(hook)
        if 'switch_pipeline' in hook:
            assert 0 < hook.switch_epoch < config.train_cfg.max_epochs
            assert scales(hook.switch_pipeline) == scales(found[0].pipeline)
            assert hook.switch_pipeline[-1] == found[0].pipeline[-1]
            for transform in hook.switch_pipeline:
                TRANSFORMS.build(transform)
    for key, hook in config.default_hooks.items():
        if key != 'visualization':  # wants the runner's visualizer
            HOOKS.build(hook)
    assert LOOPS.get(config.train_cfg.type) is not None
    assert VISUALIZERS.get(config.visualizer.type) is not None
    # Runs resume exactly: see docs/design.md.
    assert {'exact_resume', 'validation_loss', 'loss_curves'} <= config.default_hooks.keys()
    assert config.default_hooks.checkpoint.type == 'hierseg.AtomicCheckpointHook'
    assert issubclass(DATA_SAMPLERS.get(config.train_dataloader.sampler.type), StreamSampler)
    assert config.randomness.seed is not None
    # What a checkpoint or a work directory keeps of the config can be read again.
    Config.fromstring(config.pretty_text, '.py')


def scales(pipeline: list[Any]) -> list[Any]:
    """The sizes that a model gets to see."""
    sizes = {'Resize': 'scale', 'hierseg.RandomResizeCrop': 'crop_size'}
    return [tuple(step[sizes[step.type]]) for step in pipeline if step.type in sizes]


@pytest.mark.parametrize('file', END_TO_END, ids=name)
def test_the_end_to_end_model_builds(file: Path, tmp_path: Path) -> None:
    config = read(file)
    assert config.model.roi_head.bbox_head.loss_cls.taxonomy == config.taxonomy
    built_in = default_taxonomy()
    is_built_in = config.num_classes == built_in.num_classes
    num_deeper = config.num_classes - config.num_root_classes
    taxonomy = built_in if is_built_in else two_levels(config.num_root_classes, num_deeper)
    use(taxonomy, config.model.roi_head.bbox_head.loss_cls, tmp_path)
    model = MODELS.build(config.model)
    assert model.roi_head.bbox_head.fc_cls.out_features == config.num_classes + 1
    assert model.roi_head.mask_head.conv_logits.out_channels == config.num_root_classes
    assert model.roi_head.known_classes.class_counts == config.train_dataloader.dataset.store


@pytest.mark.parametrize(('opponent', 'channels'), [('flat_propagated', 23), ('flat_multilabel', 22)])
def test_flat_opponents_differ_in_their_loss_alone(opponent: str, channels: int, tmp_path: Path) -> None:
    config, known = (read(ROOT / f'configs/quickstart/{stem}.py') for stem in (opponent, 'hier_e2e'))
    known.model.roi_head.bbox_head.loss_cls = config.model.roi_head.bbox_head.loss_cls
    assert config.pretty_text == known.pretty_text
    use(default_taxonomy(), config.model.roi_head.bbox_head.loss_cls, tmp_path)
    assert MODELS.build(config.model).roi_head.bbox_head.fc_cls.out_features == channels


def test_the_strong_ensemble_has_the_sampler_and_the_steps_of_the_end_to_end_model() -> None:
    strong, single = (read(ROOT / f'configs/quickstart/{stem}.py') for stem in ('strong_ensemble', 'hier_e2e'))
    loader = strong.train_dataloader
    assert loader.sampler == single.train_dataloader.sampler
    for layer in (loader.layer0, loader.layer1):
        assert layer.batch_sampler == single.train_dataloader.batch_sampler
        assert layer.dataset.images_per_class is None
    assert {*strong.train_cfg.max_epochs.values()} == {single.train_cfg.max_epochs}
    assert strong.model == read(ROOT / 'configs/quickstart/two_layer_ensemble.py').model


@pytest.mark.parametrize('file', REAL_TIME, ids=name)
def test_the_real_time_model_builds(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('mmdet.models.detectors.rtmdet.get_world_size', lambda: 2)
    config = read(file)
    head = config.model.bbox_head
    assert head.loss_cls.taxonomy == config.taxonomy
    built_in = default_taxonomy()
    is_built_in = head.num_classes == built_in.num_classes
    use(built_in if is_built_in else two_levels(213, 87), head.loss_cls, tmp_path)
    model = MODELS.build(config.model)
    assert {layer.out_channels for layer in model.bbox_head.rtm_cls} == {head.num_classes + 1}
    assert model.bbox_head.known_classes.class_counts == config.train_dataloader.dataset.store
    # In several processes, too, where mmdet makes SyncBN of it.
    assert not [module for module in model.modules() if isinstance(module, nn.SyncBatchNorm)]
    assert any(isinstance(module, nn.BatchNorm2d) for module in model.modules())


def test_the_model_of_boxes_builds(tmp_path: Path) -> None:
    config = read(RETINANET)
    head = config.model.bbox_head
    assert head.loss_cls.taxonomy == config.taxonomy
    use(two_levels(213, 87), head.loss_cls, tmp_path)
    model = MODELS.build(config.model)
    # 9 anchors of 300 classes and background.
    assert model.bbox_head.retina_cls.out_channels == 9 * 301
    assert model.bbox_head.known_classes.class_counts == config.train_dataloader.dataset.store
    assert config.val_evaluator.iou_type == config.test_evaluator.iou_type == 'bbox'
    assert config.default_hooks.checkpoint.save_best == 'bbox/mAP'
    stock = read(Path(mmdet.__file__).parent / '.mim/configs/retinanet/retinanet_r50_fpn_1x_coco.py')
    assert config.optim_wrapper.optimizer == stock.optim_wrapper.optimizer
    assert config.auto_scale_lr.base_batch_size == stock.auto_scale_lr.base_batch_size
    loading = [step for dataset in datasets([config.train_dataloader, config.val_dataloader, config.default_hooks])
               for step in dataset.pipeline if step.type.endswith('LoadAnnotations')]  # fmt: skip
    assert [step.with_mask for step in loading] == [False] * 3


@pytest.mark.parametrize('size', ['tiny', 's', 'm'])
def test_the_real_time_models_are_those_of_mmdet_trained_on_as_many_images(size: str) -> None:
    ours, theirs = (read(path) for path in (
        ROOT / f'configs/hier_rtmdet_{size}.py',
        Path(mmdet.__file__).parent / f'.mim/configs/rtmdet/rtmdet-ins_{size}_8xb32-300e_coco.py',
    ))  # fmt: skip
    sizes = [(model.backbone.deepen_factor, model.backbone.widen_factor, model.neck.in_channels,
              model.neck.out_channels, model.neck.num_csp_blocks, model.bbox_head.feat_channels)
             for model in (ours.model, theirs.model)]  # fmt: skip
    assert sizes[0] == sizes[1]
    if size != 'm':  # mmdet's has random weights
        assert ours.model.backbone.init_cfg == theirs.model.backbone.init_cfg
    # The rate for a batch, by the number of images in it: 8 GPUs of 32 there, 4 of 16 here.
    rates = [config.optim_wrapper.optimizer.lr / images for config, images in ((ours, 64), (theirs, 256))]
    assert rates[0] == pytest.approx(rates[1])
    assert ours.train_dataloader.batch_size * 4 == ours.auto_scale_lr.base_batch_size == 64
    stages = zip(
        (ours.train_dataloader.dataset.pipeline, ours.custom_hooks[1].switch_pipeline),
        (theirs.train_dataloader.dataset.pipeline, theirs.custom_hooks[1].switch_pipeline),
        strict=True,
    )
    for mine, stock in stages:
        (crop,) = [step for step in mine if step.type == 'hierseg.RandomResizeCrop']
        (resize,) = [step for step in stock if step.type == 'RandomResize']
        assert (crop.scale, crop.ratio_range) == (resize.scale, resize.ratio_range)
        probabilities = [
            [step.get('prob', 1.0) for step in pipeline if step.type.endswith(('Mosaic', 'MixUp'))]
            for pipeline in (mine, stock)
        ]
        assert probabilities[0] == probabilities[1]
    assert {key: ours.custom_hooks[0][key] for key in ours.custom_hooks[0]} == dict(theirs.custom_hooks[0])


@pytest.mark.parametrize('file', ENSEMBLES, ids=name)
def test_the_ensemble_builds(file: Path, tmp_path: Path) -> None:
    config = read(file)
    assert config.model.taxonomy == config.taxonomy
    counts = config.num_classes
    use(two_levels(counts.layer0, counts.layer1), config.model, tmp_path)
    model = MODELS.build(config.model)
    for layer, num_classes in counts.items():
        assert getattr(model, layer).roi_head.bbox_head.fc_cls.out_features == num_classes + 1


@pytest.mark.parametrize('file', LAYERS, ids=name)
def test_a_layer_builds_as_a_plain_detector(file: Path) -> None:
    config = read(file)
    model = MODELS.build(config.model)
    assert type(model).__module__.startswith('mmdet.')
    assert model.roi_head.bbox_head.fc_cls.out_features == config.num_classes + 1
    assert model.roi_head.mask_head.conv_logits.out_channels == config.num_classes


def test_the_layers_alone_have_the_settings_of_the_ensemble() -> None:
    ensemble = read(ROOT / 'configs/two_layer_ensemble.py')
    # The report: 213 and 87 classes, 150 epochs of 700 and 160 of 280 steps with 8 images on 4 GPUs, 50 batches.
    report = {'layer0': (213, 150, 700), 'layer1': (87, 160, 280)}
    for layer, (num_classes, epochs, iterations) in report.items():
        alone = read(ROOT / f'configs/two_layer/{layer}.py')
        assert alone.num_classes == num_classes
        assert alone.model == ensemble.model[layer]
        assert alone.model.backbone.depth == 101
        assert alone.train_cfg == {'type': 'EpochBasedTrainLoop', 'max_epochs': epochs}
        assert alone.train_dataloader.batch_sampler.iterations == iterations
        assert alone.train_dataloader.batch_size * 4 == 8
        assert alone.train_dataloader.dataset.layer == int(layer[-1])
        assert alone.optim_wrapper == ensemble.optim_wrapper[layer]
        assert alone.param_scheduler == ensemble.param_scheduler[layer]
        validation = alone.default_hooks.validation_loss
        assert (validation.num_batches, validation.dataloader.batch_size * 4) == (50, 8)
        assert validation.dataloader.dataset.layer == int(layer[-1])
        together = ensemble.default_hooks.validation_loss.dataloader[layer].dataset
        assert validation.dataloader.dataset == together


def test_the_advice_for_tensorboard_gives_it_beside_the_curves(tmp_path: Path) -> None:
    runtime = ROOT / 'configs/_base_/runtime.py'
    (advice,) = [line[2:].strip() for line in runtime.read_text().splitlines() if line.startswith('#   visualizer')]
    (tmp_path / 'own.py').write_text(f'_base_ = {str(END_TO_END[0])!r}\n{advice}\n')
    visualizer = read(tmp_path / 'own.py').visualizer
    assert visualizer.type == 'hierseg.HierLocalVisualizer'
    # The loss curves are drawn of what the first one writes.
    assert [backend.type for backend in visualizer.vis_backends] == ['LocalVisBackend', 'TensorboardVisBackend']


def test_the_quickstart_trains_both_systems_equally_long() -> None:
    end_to_end = read(ROOT / 'configs/quickstart/hier_e2e.py')
    ensemble = read(ROOT / 'configs/quickstart/two_layer_ensemble.py')
    alone = end_to_end.train_cfg.max_epochs * end_to_end.train_dataloader.batch_sampler.iterations
    together = sum(
        epochs * ensemble.train_dataloader[layer].batch_sampler.iterations
        for layer, epochs in ensemble.train_cfg.max_epochs.items()
    )
    assert together == alone == 560
    assert ensemble.train_dataloader.batch_size == end_to_end.train_dataloader.batch_size


@pytest.mark.parametrize(
    ('mask_channels', 'num_channels', 'parameters'),
    [('shared', 1, 63_269_761), ('root', 213, 63_324_245), ('class', 300, 63_346_604)],
)
def test_the_end_to_end_model_on_the_real_hierarchy(
    mask_channels: str, num_channels: int, parameters: int, test_data: Path, tmp_path: Path
) -> None:
    folder = test_data / 'openimages'
    taxonomy = read_taxonomy(
        folder / 'challenge-2019-label300-segmentable-hierarchy.json',
        classes=folder / 'challenge-2019-classes-description-segmentable.csv',
    )
    config = read(ROOT / 'configs/hier_e2e.py')
    use(taxonomy, config.model.roi_head.bbox_head.loss_cls, tmp_path)
    config.model.roi_head.mask_channels = mask_channels
    shared = mask_channels == 'shared'
    config.model.roi_head.mask_head.update(class_agnostic=shared, num_classes=300 if shared else num_channels)
    model = MODELS.build(config.model)
    # Each channel of the mask head has 256 weights and a bias.
    assert parameters == 63_269_761 + (num_channels - 1) * 257
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    # Less than half of the two-layer ensemble's 127.5 million.
    assert parameters < 63.75e6
