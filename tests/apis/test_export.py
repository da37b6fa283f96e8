"""Exports of a trained model: equal to it, or not written."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from exported_models import PIPELINE, Exported, Trained, drawn
from mmengine.config import Config
from PIL import Image
from pycocotools import mask as coco_mask
from taxonomies import BEAR, CAR, TEDDY, teddy_taxonomy
from tiny_models import tiny_model

from hierseg.apis import onnx_graph
from hierseg.apis.export import export
from hierseg.errors import ConfigError
from hierseg.registry import MODELS
from hierseg.store import ImageRow, Instances, StoreWriter

TOOL = Path(__file__).parents[2] / 'tools' / 'export.py'


def test_both_models_find_the_same(exported: Exported) -> None:
    exact, int8 = exported.differences
    assert (exact.images, exact.unmatched, exact.names) == (3, 0, 0)
    assert exact.detections > 0
    assert exact.score <= 1e-5
    assert exact.box <= 1e-3
    assert exact.mask <= 0.01
    assert int8.detections == exact.detections
    assert exact.score < int8.score < 0.5


def test_int8_is_small(exported: Exported) -> None:
    assert exported.int8.name == 'tiny.int8.onnx'
    assert exported.int8.stat().st_size < 0.6 * exported.exact.stat().st_size
    operators = {node.op_type for node in onnx.load(exported.int8).graph.node}
    assert 'QuantizeLinear' in operators


def test_the_file_says_what_a_program_must_know(exported: Exported, trained: Trained) -> None:
    document = onnx.load(exported.exact)
    found = {entry.key.removeprefix('hierseg.'): json.loads(entry.value) for entry in document.metadata_props}
    taxonomy = json.loads(trained.config.with_name('taxonomy.json').read_text())
    assert found['taxonomy'] == taxonomy
    assert found['decision'] == {'rule': 'back_off', 'threshold': 0.5, 'relative': True}
    assert found['input_size'] == [96, 96]
    # What the network sees as nothing; of RGB, where the config's numbers are of BGR.
    assert found['padding'] == pytest.approx([123.675, 116.28, 103.53])
    assert (found['mask_stride'], found['mask_threshold'], found['size_divisor']) == (8, 0.5, 32)
    shapes = {
        value.name: [dimension.dim_param or dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
        for value in document.graph.input
    }
    assert shapes == {'images': ['images', 3, 'height', 'width'], 'sizes': ['images', 2]}
    suppressions = [node for node in document.graph.node if node.op_type == 'NonMaxSuppression']
    assert len(suppressions) == 1


def test_a_wrong_graph_is_not_written(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = onnx_graph.fold_scores

    def wrong(convolution: torch.nn.Conv2d, *others: object) -> None:
        right(convolution, *others)
        convolution.bias.data[0] += 0.01

    monkeypatch.setattr(onnx_graph, 'fold_scores', wrong)
    with pytest.raises(ConfigError, match='disagrees with the trained one: 1 images'):
        export(trained.config, str(trained.checkpoint), tmp_path / 'out.onnx', images=trained.pictures[:1])
    assert list(tmp_path.iterdir()) == []


def test_the_tool_says_how_they_differ(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of all candidates and all detections, which trained models find as many of."""
    read, from_file = [], Config.fromfile
    monkeypatch.setattr(Config, 'fromfile', lambda path: read.append(path) or from_file(path))
    out = tmp_path / 'made' / 'model.onnx'
    words = [str(trained.config), str(trained.checkpoint), '--out', str(out), '--images', trained.pictures[2]]
    words += ['--cfg-options', 'model.test_cfg.nms_pre=-1', 'model.test_cfg.max_per_img=-1']
    monkeypatch.setattr(sys, 'argv', ['export.py', *words])
    runpy.run_path(str(TOOL), run_name='__main__')
    said = capsys.readouterr().out.strip().splitlines()[-1]
    assert said.startswith(f'{out} ({out.stat().st_size / 1e6:.1f} MB): 1 images, ')
    assert ': 0 without a partner, 0 of another name; ' in said
    assert int(said.partition(' images, ')[2].split()[0]) > 20, 'as many as the config would leave'
    assert read == [str(trained.config)], 'once'


def test_two_stages_are_refused_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tiny_model()
    meta = {'dataset_meta': model.roi_head.bbox_head.loss_cls.taxonomy.dataset_meta()}
    torch.save({'state_dict': MODELS.build(model).state_dict(), 'meta': meta}, tmp_path / 'model.pth')
    (tmp_path / 'taxonomy.json').write_text(json.dumps(model.roi_head.bbox_head.loss_cls.taxonomy.to_json()))
    model.roi_head.bbox_head.loss_cls.taxonomy = str(tmp_path / 'taxonomy.json')
    data = dict(dataset=dict(pipeline=PIPELINE))
    Config(dict(model=model, test_dataloader=data, default_scope='mmdet')).dump(tmp_path / 'config.py')
    words = ['export.py', str(tmp_path / 'config.py'), str(tmp_path / 'model.pth'), '--out', str(tmp_path / 'm.onnx')]
    monkeypatch.setattr(sys, 'argv', words)
    with pytest.raises(SystemExit):
        runpy.run_path(str(TOOL), run_name='__main__')
    assert 'error: MaskRCNN has no export: ' in capsys.readouterr().err
    assert not (tmp_path / 'm.onnx').exists()


@pytest.mark.parametrize(
    ('options', 'out', 'message'),
    [
        ({}, 'model.pt', 'an exported model is an ONNX file'),
        (
            {'test_dataloader.dataset.pipeline.1.keep_ratio': False},
            'model.onnx',
            'the test pipeline has the steps LoadImageFromFile, Resize',
        ),
        ({'model.test_cfg.nms.type': 'soft_nms'}, 'model.onnx', "'type': 'soft_nms'"),
    ],
)
def test_refuses_what_it_cannot_say(
    options: dict[str, object],
    out: str,
    message: str,
    trained: Trained,
    tmp_path: Path,
) -> None:
    with pytest.raises(ConfigError, match=message):
        export(trained.config, str(trained.checkpoint), tmp_path / out, images=trained.pictures[:1], options=options)


def test_the_benchmark_judges_exports_beside_their_model(
    trained: Trained,
    exported: Exported,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    generator = np.random.default_rng(1)  # which drew the pictures
    verified = np.array([BEAR, TEDDY, CAR]), np.zeros(0, dtype=np.int64)
    with StoreWriter(tmp_path / 'store', taxonomy=teddy_taxonomy()) as writer:
        for picture in trained.pictures:
            width, height = Image.open(picture).size
            _, objects = drawn(generator, (height, width))
            masks = np.asfortranarray(objects.masks.masks.transpose(1, 2, 0))
            rows = Instances(
                labels=objects.labels.numpy(),
                boxes=objects.bboxes.numpy().astype(np.float64),
                masks=[found['counts'] for found in coco_mask.encode(masks)],
                has_mask=np.ones(len(objects), dtype=bool),
                group_of=np.zeros(len(objects), dtype=bool),
                areas=masks.sum(axis=(0, 1)).astype(np.float64),
                annotation_ids=[''] * len(objects),
            )
            row = ImageRow(Path(picture).stem, Path(picture).name, width=width, height=height)
            writer.add(row, rows, *verified)
    data = dict(
        batch_size=1,
        sampler=dict(type='DefaultSampler', shuffle=False),
        dataset=dict(
            type='hierseg.StoreDataset',
            store=str(tmp_path / 'store'),
            data_prefix=dict(img=str(Path(trained.pictures[0]).parent)),
            pipeline=PIPELINE,
        ),
    )
    evaluator = dict(type='hierseg.OpenImagesInstanceMetric', store=str(tmp_path / 'store'))
    config = Config.fromfile(trained.config)
    config.merge_from_dict(dict(test_dataloader=data, test_evaluator=evaluator))
    config.dump(tmp_path / 'config.py')
    out = tmp_path / 'figures.json'
    words = [tmp_path / 'config.py', trained.checkpoint, exported.exact, exported.int8, '--out', out]
    monkeypatch.setattr(sys, 'argv', ['exported.py', *map(str, words)])
    runpy.run_path(str(TOOL.parent / 'benchmarks' / 'exported.py'), run_name='__main__')
    figures = json.loads(out.read_text())
    model, exact, int8 = (figures[name] for name in ('torch', str(exported.exact), str(exported.int8)))
    # It has learnt something of these shapes; the export knows as much.
    assert model['segm/mAP'] >= 0.1
    assert exact['segm/mAP'] == pytest.approx(model['segm/mAP'], abs=1e-3)
    assert {'segm/mAP_layer0', 'segm/mAP_layer1'} < model.keys()
    assert (exact['images'], exact['unmatched']) == (3, 0)
    assert exact['score'] < int8['score']
    assert int8['megabytes'] == pytest.approx(exported.int8.stat().st_size / 1e6)
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(':')[0] for line in lines[-3:]] == ['torch', str(exported.exact), str(exported.int8)]
