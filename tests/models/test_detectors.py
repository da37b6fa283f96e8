"""The hierarchical loss in mmdet's detectors: built from their own configs, stepped and tested, or refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config, ConfigDict
from taxonomies import ANIMAL, BEAR, teddy_taxonomy
from tiny_detectors import batch, build, settings

from hierseg.errors import ConfigError
from hierseg.models.hierarchical_loss import require_box_heads
from hierseg.registry import MODELS

TABLE = (Path(__file__).parents[2] / 'docs/extending.md').read_text().partition('## In another detector')[2]
TABLE = TABLE.partition('\n## ')[0]
TAKEN = re.findall(r'^\| ([A-Z].*?) \| .*loss_cls', TABLE, re.MULTILINE)
REFUSED = {
    'RetinaNet': 'RetinaHead',
    'FCOS': 'FCOSHead',
    'RTMDet-Ins': 'RTMDetInsSepBNHead',
    'SOLOv2': 'SOLOV2Head',
    'DETR': 'DETRHead',
    'Deformable DETR': 'DeformableDETRHead',
    'Mask2Former': 'Mask2FormerHead',
}


def with_loss(name: str) -> ConfigDict:
    """A detector for five classes, with the hierarchical loss where its classes are learnt."""
    model = settings(name)
    use_loss({key: part for key, part in model.items() if key != 'rpn_head'})
    return model


def use_loss(part: Any) -> None:
    if isinstance(part, dict):
        for key in {'num_classes', 'num_things_classes'} & part.keys():
            part[key] = 5
        if 'loss_cls' in part or part.get('type') == 'SOLOV2Head':
            part['loss_cls'] = dict(type='hierseg.HierarchicalLoss', taxonomy=teddy_taxonomy())
        part = list(part.values())
    if isinstance(part, list):
        for value in part:
            use_loss(value)


def test_the_page_has_a_table() -> None:
    assert TAKEN == ['Faster R-CNN', 'Mask R-CNN', 'PointRend', 'Cascade Mask R-CNN', 'HTC']
    for name in REFUSED:
        assert name in TABLE


def test_the_lines_of_the_page_replace_the_loss() -> None:
    lines = TABLE.partition('```python\n')[2].partition('```')[0]
    config = Config.fromstring(f"_base_ = 'mmdet::_base_/models/faster-rcnn_r50_fpn.py'\n{lines}", '.py')
    assert config.model.roi_head.bbox_head.loss_cls == {
        'type': 'hierseg.HierarchicalLoss',
        'taxonomy': 'data/farm/store/train/taxonomy.json',
    }


@pytest.mark.parametrize('name', TAKEN)
def test_a_detector_of_the_table_learns_and_tests(name: str) -> None:
    model = build(with_loss(name)).train()
    heads = model.roi_head.bbox_head if hasattr(model.roi_head, 'num_stages') else [model.roi_head.bbox_head]
    data = batch(2, num_classes=5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    before = [head.fc_cls.weight.detach().clone() for head in heads]
    torch.manual_seed(1)
    total, logged = model.parse_losses(model(**model.data_preprocessor(data, training=True), mode='loss'))
    assert torch.isfinite(total)
    # The accuracy is the loss' own, which counts outcomes below a label.
    assert sum('acc_classes' in key for key in logged) == len(heads)
    total.backward()
    optimizer.step()
    for head, weight in zip(heads, before, strict=True):
        assert head.fc_cls.out_features == 6
        assert not torch.equal(head.fc_cls.weight, weight)

    # Whatever is seen, all heads say Bear alone; by the taxonomy Animal is then as probable.
    for head in heads:
        torch.nn.init.zeros_(head.fc_cls.weight)
        head.fc_cls.bias.data = torch.zeros(6).index_fill_(0, torch.tensor(BEAR), 9.0)
    model.eval()
    with torch.no_grad():
        found = model.test_step(batch(1, num_classes=5))[0].pred_instances
    expected = heads[0].loss_cls.get_activation(heads[0].fc_cls.bias.detach()[None])[0]
    assert expected[ANIMAL] >= expected[BEAR] > 0.9
    torch.testing.assert_close(found.scores[found.labels == ANIMAL].max(), expected[ANIMAL])


@pytest.mark.parametrize(('name', 'head'), REFUSED.items(), ids=REFUSED)
def test_every_other_detector_is_refused(name: str, head: str) -> None:
    sentence = (
        rf'HierarchicalLoss: {head} does not ask its loss .* such as Mask R-CNN: docs/extending\.md has a table\.'
    )
    with pytest.raises(ConfigError, match=sentence):
        require_box_heads(with_loss(name))
    # Mask2Former's head reads an option of mmdet's own loss before it builds the one that it has.
    if name != 'Mask2Former':
        with pytest.raises(ConfigError, match=sentence):
            MODELS.build(with_loss(name))


def test_a_proposal_network_is_refused() -> None:
    model = settings('Mask R-CNN')
    model.rpn_head.loss_cls = dict(type='hierseg.HierarchicalLoss', taxonomy=teddy_taxonomy())
    with pytest.raises(ConfigError, match='RPNHead does not ask its loss'):
        MODELS.build(model)


def test_a_cascade_keeps_its_own_roi_head() -> None:
    model = with_loss('Cascade Mask R-CNN')
    model.roi_head.type = 'hierseg.HierarchicalRoIHead'
    with pytest.raises(ConfigError, match=r"HierarchicalRoIHead: a cascade .* Keep mmdet's CascadeRoIHead"):
        MODELS.build(model)
