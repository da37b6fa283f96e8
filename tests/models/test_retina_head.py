"""The head of RetinaNet, which stands for all heads that the mixin makes hierarchical."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from documented import ROOT, written_files
from mmdet.models.dense_heads import FCOSHead
from mmdet.structures.bbox import bbox_overlaps
from mmengine.config import ConfigDict
from mmengine.registry import init_default_scope
from taxonomies import ANIMAL, BEAR, CAR, TEDDY, TOY, teddy_taxonomy
from tiny_detectors import settings as detector
from tiny_models import losses, sample, tiny_retinanet

from hierseg.errors import ConfigError
from hierseg.models import HierarchicalDenseHead
from hierseg.registry import MODELS
from hierseg.taxonomy import Taxonomy

ANCHORS = 9
SAYS = [0.0, 0.0, 0.0, 3.0, -9.0, 0.0]
"""Logits for a teddy, by path sums surely a toy, an animal and a bear; the last is background's."""


def build(settings: ConfigDict) -> Any:
    init_default_scope('mmdet')
    torch.manual_seed(0)
    model = MODELS.build(settings)
    model.bbox_head.init_weights()
    return model


@pytest.fixture
def model() -> Any:
    return build(tiny_retinanet())


def painted() -> torch.Tensor:
    """A picture with one colour for each of the first two boxes of a sample."""
    image = torch.full((3, 64, 96), 128, dtype=torch.uint8)
    for left, colour in ((4, [20, 60, 230]), (34, [230, 200, 20])):
        image[:, 20:44, left : left + 24] = torch.tensor(colour, dtype=torch.uint8)[:, None, None]
    return image


def found_by(model: Any, **meta: Any) -> Any:
    model.eval()
    shown = sample([], masks=[])
    shown.set_metainfo(meta)
    with torch.no_grad():
        return model.test_step(dict(inputs=[painted()], data_samples=[shown]))[0].pred_instances


def saying(model: Any, logits: list[float]) -> torch.Tensor:
    """Makes the model say the same of all anchors, whatever is seen; gives back the probabilities of the classes."""
    layer = getattr(model.bbox_head, model.bbox_head.classifiers)
    torch.nn.init.zeros_(layer.weight)
    layer.bias.data = torch.tensor(logits).repeat(len(layer.bias) // len(logits))
    return model.bbox_head.loss_cls.get_activation(torch.tensor([logits]))[0, :-1]


def check_claims(found: Any, probabilities: torch.Tensor) -> None:
    """Each detection says teddy, and of the classes above all those whose root has it, equal scores being ties."""
    assert 0 < len(found) <= 100
    claims = found.class_scores > 0
    assert (claims[:, TEDDY] & (claims[:, TOY] | claims[:, ANIMAL])).all()
    assert (claims[:, ANIMAL] == claims[:, BEAR]).all()
    assert claims.any(dim=0).tolist() == [True, True, True, True, False]
    torch.testing.assert_close(found.class_scores, probabilities * claims)


def test_it_learns_classes_with_their_paths_of_boxes_alone(model: Any) -> None:
    shown = sample([TEDDY, CAR], masks=[False, False])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(40):
        model.train()
        data = model.data_preprocessor(dict(inputs=[painted()], data_samples=[shown]), training=True)
        total, _ = model.parse_losses(model.loss(data['inputs'], data['data_samples']))
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    found = found_by(model)
    assert 'masks' not in found
    for label, box in ((TEDDY, [4.0, 20, 28, 44]), (CAR, [34.0, 20, 58, 44])):
        named = found[(found.labels == label) & (found.scores > 0.5)]
        assert bbox_overlaps(named.bboxes, torch.tensor([box])).max() > 0.6
    teddy = found[found.labels == TEDDY].class_scores[0]
    assert (teddy[[TOY, BEAR, ANIMAL]] >= teddy[TEDDY]).all()


def test_an_untrained_head_sees_nothing(model: Any) -> None:
    assert model.bbox_head.retina_cls.out_channels == ANCHORS * 6
    bias = model.bbox_head.retina_cls.bias.view(ANCHORS, 6)
    probabilities = model.bbox_head.loss_cls.get_activation(bias)
    torch.testing.assert_close(probabilities[:, -1], torch.full((ANCHORS,), 0.99))


def test_a_box_has_all_classes_that_it_claims(model: Any) -> None:
    expected = saying(model, SAYS)
    assert expected[CAR] < model.test_cfg.score_thr
    found = found_by(model)
    check_claims(found, expected)
    assert found.labels.unique().tolist() == [TEDDY]
    torch.testing.assert_close(found.scores, expected[TEDDY].expand(len(found)))
    # Boxes in the pixels of the picture as it was.
    torch.testing.assert_close(
        found_by(model, scale_factor=(2.0, 0.5)).bboxes * torch.tensor([2, 0.5, 2, 0.5]), found.bboxes
    )
    saying(model, [0.0, 0, 0, 0, 0, 9])
    nothing = found_by(model)
    assert nothing.class_scores.shape == (0, 5)
    assert nothing.bboxes.shape == (0, 4)


def test_without_a_hierarchy_it_is_mmdets() -> None:
    """A sigmoid for each class of a flat taxonomy, β = 2: the focal loss whose α weighs both sides equally."""
    ours = tiny_retinanet()
    flat = Taxonomy.from_edges(['a', 'b', 'c', 'd', 'e'], [])
    ours.bbox_head.loss_cls.update(taxonomy=flat, scheme='sigmoid')
    theirs = tiny_retinanet()
    theirs.bbox_head.type = 'RetinaHead'
    theirs.bbox_head.loss_cls = dict(type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.5, loss_weight=2.0)
    first, second = build(ours), build(theirs)
    weights = first.state_dict()
    # What our sigmoids add to logits, an object being rare, mmdet has in the bias.
    assert set(weights) == set(second.state_dict())
    second.load_state_dict(weights)
    shift = first.bbox_head.loss_cls._scheme.scores(torch.zeros(1, 5), first.bbox_head.loss_cls._relations)
    second.bbox_head.retina_cls.bias.data += shift.repeat(1, ANCHORS)[0]
    samples = [sample([0, 4, 2], masks=[True, True, True], ignored=1), sample([], masks=[])]
    for model in (first, second):
        model.train()
    found, expected = losses(first, samples), losses(second, samples)
    assert found.keys() == expected.keys()
    for name in found:
        torch.testing.assert_close(found[name], expected[name])
    assert sum(found['loss_cls']) > 0.1


def test_anchors_in_a_group_train_nothing(model: Any) -> None:
    model.train()
    weights = []
    hook = model.bbox_head.loss_cls.register_forward_hook(lambda _, given, __: weights.append(given[1:3]))
    with hook:
        losses(model, [sample([CAR, ANIMAL], masks=[True, True], ignored=1)])
    (labels, counted), *_ = weights
    # Of 8 × 12 cells of 8 pixels, that with its corner at (48, 32) in the group, x 34 to 58 and y 20 to 44.
    cell = (4 * 12 + 6) * ANCHORS
    assert counted[cell] == 0
    # Cell (0, 11) is far from both.
    assert counted[11 * ANCHORS] == 1
    assert labels[11 * ANCHORS] == 5
    assert (labels[counted > 0] != ANIMAL).all()


def test_classes_that_nobody_looked_for_leave_the_loss_of_their_image() -> None:
    settings = tiny_retinanet()
    settings.bbox_head.verified = dict(class_counts=[1] * 5, num_negatives=0)
    model = build(settings).train()
    samples = [sample([CAR], masks=[True]), sample([], masks=[])]
    for shown, absent in zip(samples, ([], [TOY]), strict=True):
        shown.set_metainfo(dict(verified_positive=np.array([], int), verified_negative=np.array(absent, int)))
    seen = []
    hook = model.bbox_head.loss_cls.register_forward_hook(
        lambda _, given, named, __: seen.append((given[1], named['known'])), with_kwargs=True
    )
    with hook:
        losses(model, samples)
    assert len(seen) == 5  # levels
    for labels, known in seen:
        first, second = known.chunk(2)
        assert len(known) == len(labels)
        assert (first == torch.tensor([False, False, False, False, True])).all()
        # Without toys there are no teddies.
        assert (second == torch.tensor([True, False, False, True, False])).all()


@pytest.fixture
def atss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The model that the page on extending writes, of the size of the tests."""
    pages = written_files()
    base = ROOT / 'configs/_base_/models/hier_retinanet_r50_fpn.py'
    (tmp_path / 'hier_retinanet.py').write_text(f'_base_ = {str(base)!r}')
    (tmp_path / 'hier_atss.py').write_text(pages['configs/hier_atss.py'])
    (tmp_path / 'own_detector.py').write_text(pages['own_detector.py'])
    monkeypatch.syspath_prepend(tmp_path)
    try:
        yield build(tiny_retinanet(tmp_path / 'hier_atss.py'))
    finally:
        MODELS.module_dict.pop('HierarchicalATSSHead', None)
        sys.modules.pop('own_detector', None)


def test_an_own_head_is_the_mixin_and_a_name(atss: Any) -> None:
    found = losses(atss.train(), [sample([TEDDY, CAR], masks=[False, True]), sample([], masks=[])])
    total, _ = atss.parse_losses(found)
    total.backward()
    head = atss.bbox_head
    assert head.atss_cls.weight.grad.abs().sum() > 0
    assert found.keys() == {'loss_cls', 'loss_bbox', 'loss_centerness'}
    # Every box is half as good: sigmoid(0).
    expected = saying(atss, SAYS) / 2
    torch.nn.init.zeros_(head.atss_centerness.weight)
    torch.nn.init.zeros_(head.atss_centerness.bias)
    check_claims(found_by(atss), expected)


class HierarchicalFCOSHead(HierarchicalDenseHead, FCOSHead):
    """Points instead of anchors."""

    classifiers = 'conv_cls'


@pytest.fixture
def fcos() -> ConfigDict:
    found = tiny_retinanet()
    head = found.bbox_head = detector('FCOS').bbox_head
    head.type, head.num_classes, head.feat_channels = HierarchicalFCOSHead, 5, 64
    head.loss_cls = dict(type='hierseg.HierarchicalQualityLoss', taxonomy=teddy_taxonomy())
    found.type = 'FCOS'
    return found


def test_a_head_of_points_fits_too(fcos: ConfigDict) -> None:
    model = build(fcos)
    total, _ = model.parse_losses(losses(model.train(), [sample([TEDDY], masks=[True]), sample([], masks=[])]))
    assert torch.isfinite(total)
    expected = saying(model, SAYS)
    torch.nn.init.zeros_(model.bbox_head.conv_centerness.weight)
    check_claims(found_by(model), expected / 2)


def test_clear_errors(fcos: ConfigDict) -> None:
    fcos.bbox_head.verified = dict(class_counts=[1] * 5)
    with pytest.raises(ConfigError, match='HierarchicalFCOSHead does not keep the boxes of an image together'):
        MODELS.build(fcos)
    plain = tiny_retinanet()
    plain.bbox_head.loss_cls = dict(type='FocalLoss', use_sigmoid=True)
    with pytest.raises(ConfigError, match=r'loss_cls is a FocalLoss.*HierarchicalQualityLoss'):
        MODELS.build(plain)
    short = tiny_retinanet()
    short.bbox_head.num_classes = 4
    with pytest.raises(ConfigError, match='num_classes=4 but the taxonomy 5'):
        MODELS.build(short)
    rule = tiny_retinanet()
    rule.test_cfg.decision.rule = 'best'
    with pytest.raises(ConfigError, match=r"test_cfg\.decision: rule='best'"):
        MODELS.build(rule)
