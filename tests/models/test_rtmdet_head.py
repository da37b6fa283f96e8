"""RTMDet-Ins with a taxonomy: mmdet's own on a flat one, and what a hierarchy, groups and missing masks change."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from mmdet.models.dense_heads import RTMDetInsSepBNHead
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.registry import init_default_scope
from taxonomies import ANIMAL, BEAR, CAR, TOY, teddy_taxonomy
from tiny_models import losses, sample, tiny_model, tiny_real_time_model

from hierseg.errors import ConfigError
from hierseg.models import rtmdet_head
from hierseg.registry import MODELS
from hierseg.taxonomy import Taxonomy

STEPS = 120
FLAT = Taxonomy.from_edges(['a', 'b', 'c', 'd', 'e'], [])


def build(config: ConfigDict) -> Any:
    init_default_scope('mmdet')
    torch.manual_seed(0)
    model = MODELS.build(config)
    model.init_weights()
    return model


@pytest.fixture(scope='module')
def built() -> Any:
    return build(tiny_real_time_model())


@pytest.fixture
def model(built: Any) -> Any:
    return copy.deepcopy(built)


def lively(model: Any) -> Any:
    """Weights of a usual size: from mmdet's small ones all points say the same."""
    torch.manual_seed(1)
    for layer in model.modules():
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(layer.weight)
    for level in model.bbox_head.rtm_cls:
        torch.nn.init.normal_(level.weight, std=0.2)
    return model


def mmdets_head(ours: Any) -> RTMDetInsSepBNHead:
    """mmdet's, of the same weights, with one sigmoid for each channel of ours."""
    config = tiny_real_time_model().bbox_head
    config['num_classes'] = ours.cls_out_channels
    # An update would keep the options of the losses that these replace.
    config['loss_cls'] = dict(type='QualityFocalLoss', use_sigmoid=True, beta=2.0, loss_weight=1.0)
    config['train_cfg'] = ConfigDict(
        assigner=dict(type='DynamicSoftLabelAssigner', topk=13), allowed_border=-1, pos_weight=-1, debug=False
    )
    config.pop('type')
    head = RTMDetInsSepBNHead(**config, test_cfg=ours.test_cfg)
    head.load_state_dict(ours.state_dict())
    return head


def seen(module: torch.nn.Module, run: Callable[[], Any]) -> list[Any]:
    """The arguments with which ``run`` calls a module."""
    calls: list[Any] = []
    with module.register_forward_hook(lambda _, given, named, __: calls.append((given, named)), with_kwargs=True):
        run()
    return calls


def images(count: int, *, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(0, 255, (3, 64, 96), dtype=torch.uint8, generator=generator) for _ in range(count)]


def test_forward_is_mmdets(model: Any) -> None:
    head = lively(model).bbox_head
    features = tuple(torch.randn(2, 32, size, size + 4) for size in (16, 8, 4))
    for training in (True, False):
        ours, theirs = head.train(training), mmdets_head(head).train(training)
        found, expected = ours(features), theirs(features)
        for mine, other in zip(found[:3], expected[:3], strict=True):
            for level, wanted in zip(mine, other, strict=True):
                torch.testing.assert_close(level, wanted)
        torch.testing.assert_close(found[3], expected[3])


def test_mask_logits_are_mmdets(model: Any) -> None:
    head = model.bbox_head
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(head.num_prototypes, 30, 40, generator=generator)
    kernels = torch.randn(7, head.num_gen_params, generator=generator)
    priors = torch.tensor(
        [[8.0 * i, 300 - 40.0 * i, stride, stride] for i, stride in enumerate([8, 8, 8, 16, 16, 32, 32])]
    )
    expected = head._mask_predict_by_feat_single(features, kernels, priors)
    assert expected.std() > 1
    torch.testing.assert_close(head.mask_logits(features, kernels, priors), expected, rtol=1e-4, atol=1e-4)
    assert head.mask_logits(features, kernels[:0], priors[:0]).shape == (0, 30, 40)


def test_mask_logits_lose_nothing_far_from_the_corner(model: Any) -> None:
    """In half precision, too: 1,000 pixels and as many back are no more than the eight between."""
    head = model.bbox_head
    features = torch.zeros(head.num_prototypes, 160, 160)
    weights = torch.zeros(8, head.num_prototypes + 2), torch.zeros(8, 8), torch.zeros(1, 8)
    weights[0][0, 0] = weights[1][0, 0] = weights[2][0, 0] = 1 / 3
    kernels = torch.cat([*(weight.flatten() for weight in weights), torch.zeros(17)])[None]
    with torch.autocast('cpu', dtype=torch.bfloat16):
        found = head.mask_logits(features.bfloat16(), kernels.bfloat16(), torch.tensor([[1000.0, 1000, 8, 8]]))
    # One cell to the left of the point: 8 pixels of 8 · 8, times three weights of a third.
    assert found[0, 125, 124].item() == pytest.approx(8 / 64 / 27, rel=0.02)
    assert found[0, 125, 125].item() == 0


def three_images(second_width: int) -> dict[str, Any]:
    """A batch whose second image may be padded and whose third has no object."""
    samples = [sample([1, 4, 0], masks=[True] * 3), sample([3, 2], masks=[True] * 2), sample([], masks=[])]
    pixels = images(3)
    pixels[1] = pixels[1][:, :, :second_width]
    shape = (64, second_width)
    samples[1].set_metainfo(dict(img_shape=shape, ori_shape=shape))
    planes = samples[1].gt_instances.masks
    samples[1].gt_instances.masks = type(planes)(planes.masks[:, :, :second_width], *shape)
    return dict(inputs=pixels, data_samples=samples)


@pytest.mark.parametrize(('scheme', 'second_width'), [('sigmoid', 96), ('mcm', 64)])
def test_losses_and_gradients_are_mmdets_on_a_flat_taxonomy(scheme: str, second_width: int) -> None:
    model = lively(build(tiny_real_time_model(FLAT, scheme=scheme))).train()
    head, theirs = model.bbox_head, mmdets_head(model.bbox_head).train()
    for level in theirs.rtm_cls:
        # A logit of zero is a probability of 0.01 in ours.
        level.bias.data -= math.log(99)
    data = model.data_preprocessor(three_images(second_width), training=True)
    features = [level.detach() for level in model.extract_feat(data['inputs'])]
    # Ours first, and it leaves what it is given as it was: mmdet's turns the masks into tensors.
    found = head.loss(features, data['data_samples'])
    expected = theirs.loss(features, data['data_samples'])
    assert found.keys() == expected.keys() == {'loss_cls', 'loss_bbox', 'loss_mask'}
    for name in ('loss_cls', 'loss_bbox'):
        expected[name] = sum(expected[name])
    if second_width < 96:
        # Of a padded image mmdet takes the kernels of other points: it counts the valid ones, and indexes all.
        del found['loss_mask'], expected['loss_mask']
    for name, value in found.items():
        assert value > 0.01
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-5)
    sum(found.values()).backward()
    sum(expected.values()).backward()
    others = dict(theirs.named_parameters())
    for name, parameter in head.named_parameters():
        if parameter.grad is None:
            assert others[name].grad is None
            continue
        scale = others[name].grad.abs().max().clamp(min=1e-3).item()
        torch.testing.assert_close(parameter.grad, others[name].grad, rtol=1e-3, atol=1e-3 * scale)


def test_points_beyond_the_border_of_a_smaller_image_count_nowhere(model: Any) -> None:
    head = model.train().bbox_head
    data = model.data_preprocessor(three_images(64), training=True)
    features = model.extract_feat(data['inputs'])
    (((_, (labels, _), weights), _),) = seen(head.loss_cls, lambda: head.loss(features, data['data_samples']))
    sizes = [level.shape[-2:] for level in features]
    x = torch.cat(head.prior_generator.grid_priors(sizes, device='cpu'))[:, 0]
    first, second, third = weights.view(3, -1)
    assert first.all()
    assert third.all()
    assert torch.equal(second == 0, x >= 64)
    assert (x >= 64).any()
    assert [(row < 5).any().item() for row in labels.view(3, -1)] == [True, True, False]


def test_a_box_without_a_mask_trains_no_mask(model: Any) -> None:
    model.train()
    found = losses(model, [sample([BEAR, CAR], masks=[False, False])])
    assert found['loss_mask'].item() == 0
    assert found['loss_bbox'].item() > 0
    sum(found.values()).backward()
    assert all(not level.weight.grad.any() for level in model.bbox_head.rtm_kernel)
    assert any(level.weight.grad.any() for level in model.bbox_head.rtm_reg)
    # With one mask of two, the mean is that of the object that has it.
    one = losses(model, [sample([BEAR, CAR], masks=[True, False])])['loss_mask']
    alone = losses(model, [sample([BEAR], masks=[True])])['loss_mask']
    torch.testing.assert_close(one, alone, rtol=1e-3, atol=1e-3)


def test_points_in_a_group_train_nothing(model: Any) -> None:
    # Boxes at x 4 to 28, 34 to 58 and, of a group, 64 to 88; y 20 to 44.
    head = model.train().bbox_head
    for level in head.rtm_reg:
        torch.nn.init.zeros_(level.weight)
    group = sample([BEAR, CAR, ANIMAL], masks=[True] * 3, ignored=1)
    (((_, _, weights), _),) = seen(head.loss_cls, lambda: losses(model, [group]))
    # Boxes then reach one stride, 8 pixels, from their points on the first level.
    y, x = torch.meshgrid(torch.arange(8) * 8, torch.arange(12) * 8, indexing='ij')
    across = (x + 8).clamp(max=88) - (x - 8).clamp(min=64)
    down = (y + 8).clamp(max=44) - (y - 8).clamp(min=20)
    inside = across.clamp(min=0) * down.clamp(min=0) > 0.5 * 16 * 16
    assert inside.sum() >= 4
    assert torch.equal(weights[:96].view(8, 12) == 0, inside)


def test_images_without_objects_reach_every_weight(model: Any) -> None:
    """A rank that holds none of them must have gradients for the others to wait for."""
    model.train()
    found = losses(model, [sample([], masks=[]), sample([], masks=[])])
    assert found['loss_bbox'].item() == found['loss_mask'].item() == 0
    assert found['loss_cls'] > 0
    sum(found.values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_ranks_with_and_without_objects_reduce_alike(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As often, in the same form, and before any of them returns early."""
    model.train()
    asked: list[torch.Tensor] = []

    def reduce_mean(value: torch.Tensor) -> torch.Tensor:
        asked.append(value)
        return value.clone()

    monkeypatch.setattr(rtmdet_head, 'reduce_mean', reduce_mean)
    shapes = []
    for one in (sample([], masks=[]), sample([BEAR], masks=[False]), sample([BEAR, CAR], masks=[True, True])):
        asked.clear()
        losses(model, [one])
        shapes.append([(value.shape, value.dtype) for value in asked])
    assert shapes[0] == shapes[1] == shapes[2] == [((), torch.float32)] * 2


def test_normalisers_are_means_over_ranks(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the other ranks hold much more, this one's losses count as much less."""
    model.train()
    one = [sample([BEAR, CAR], masks=[True, True])]
    alone = losses(model, one)
    monkeypatch.setattr(rtmdet_head, 'reduce_mean', lambda value: torch.full_like(value, 1e6))
    among_others = losses(model, one)
    for name, value in among_others.items():
        assert value < 1e-3 * alone[name]


def test_nothing_is_learnt_about_classes_that_nobody_looked_for() -> None:
    config = tiny_real_time_model()
    config.bbox_head.verified = dict(class_counts=[1] * 5, num_negatives=0)
    model = build(config).train()

    def image(annotated: list[int], negative: list[int]) -> DetDataSample:
        found = sample(annotated, masks=[True] * len(annotated))
        positive = np.array([], dtype=np.int64)
        found.set_metainfo(
            dict(img_id='a', verified_positive=positive, verified_negative=np.array(negative, dtype=np.int64))
        )
        return found

    def trained(samples: list[DetDataSample]) -> list[bool]:
        model.zero_grad()
        losses(model, samples)['loss_cls'].backward()
        weights = [level.bias.grad.abs() for level in model.bbox_head.rtm_cls]
        return (sum(weights) > 0).tolist()

    assert trained([image([CAR], [])]) == [False, False, False, False, True, True]
    # "No toy" also says something of teddies, and through them, by path-sum, of bears and animals.
    assert all(trained([image([CAR], [TOY])]))
    # Each point gets what is known on its own image.
    ((_, named),) = seen(model.bbox_head.loss_cls, lambda: losses(model, [image([CAR], []), image([BEAR], [TOY])]))
    first, second = named['known'].view(2, -1, 5)
    assert first.any(dim=0).tolist() == first.all(dim=0).tolist() == [False, False, False, False, True]
    assert second.any(dim=0).tolist() == second.all(dim=0).tolist() == [True, True, True, True, False]


def test_learns_two_images_by_heart() -> None:
    model = build(tiny_real_time_model())
    model.test_cfg.score_thr = model.bbox_head.test_cfg.score_thr = 0.1
    samples = [sample([BEAR, CAR], masks=[True, True]), sample([TOY], masks=[True])]
    pixels = images(2)
    colours = {BEAR: 20, CAR: 240, TOY: 130}
    for picture, one in zip(pixels, samples, strict=True):
        for label, box in zip(one.gt_instances.labels.tolist(), one.gt_instances.bboxes.int().tolist(), strict=True):
            picture[:, box[1] : box[3], box[0] : box[2]] = colours[label]
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.002)
    model.train()
    totals = []
    for _ in range(STEPS):
        batch = dict(inputs=[picture.clone() for picture in pixels], data_samples=copy.deepcopy(samples))
        data = model.data_preprocessor(batch, training=True)
        found = model.loss(data['inputs'], data['data_samples'])
        optimiser.zero_grad()
        sum(found.values()).backward()
        optimiser.step()
        totals.append({name: value.item() for name, value in found.items()})
    for name in ('loss_cls', 'loss_bbox', 'loss_mask'):
        assert totals[-1][name] < 0.5 * totals[0][name], (name, totals[0], totals[-1])
    model.eval()
    with torch.no_grad():
        results = model.test_step(dict(inputs=pixels, data_samples=copy.deepcopy(samples)))
    for one, result in zip(samples, results, strict=True):
        found = result.pred_instances[: len(one.gt_instances)]
        places = found.bboxes[:, 0].argsort()
        # Of a coarse label, what lies below is open.
        assert found.class_scores[places, one.gt_instances.labels].min() > 0.3
        assert (found.bboxes[places] - one.gt_instances.bboxes).abs().max() < 4
        planes = torch.from_numpy(one.gt_instances.masks.masks).bool()
        shared, either = found.masks[places] & planes, found.masks[places] | planes
        assert (shared.sum(dim=(1, 2)) / either.sum(dim=(1, 2))).min() > 0.7


def predict(model: Any, **meta: Any) -> Any:
    found = sample([], masks=[])
    found.set_metainfo(meta)
    with torch.no_grad():
        return model.eval().test_step(dict(inputs=images(1), data_samples=[found]))[0].pred_instances


def form(found: Any) -> dict[str, tuple[Any, ...]]:
    return {
        name: (value.dtype, *value.shape[1:]) if isinstance(value, torch.Tensor) else (type(value),)
        for name, value in found.items()
    }


def test_results_have_the_form_of_the_two_stage_models(model: Any) -> None:
    two_stage = build(tiny_model())
    two_stage.roi_head.test_cfg.score_thr = 0.01
    expected = form(predict(two_stage))
    model.bbox_head.test_cfg.score_thr = 0.001
    detections = predict(lively(model))
    assert form(detections) == expected
    assert 0 < len(detections) <= 100
    taxonomy = teddy_taxonomy()
    for label, score, row in zip(detections.labels, detections.scores, detections.class_scores, strict=True):
        assert row[label] == score > 0
        for child, parents in enumerate(taxonomy.parents):
            assert all(row[parent] == 0 or row[parent] >= row[child] for parent in parents)
    assert (detections.class_scores.amax(dim=1).diff() <= 0).all()
    x, y = torch.arange(96), torch.arange(64)[:, None]
    left, top, right, bottom = detections.bboxes[:, :, None, None].unbind(dim=1)
    assert not (detections.masks & ((x + 1 <= left) | (x >= right) | (y + 1 <= top) | (y >= bottom))).any()
    model.bbox_head.test_cfg.score_thr = 1.0
    nothing = predict(model)
    assert len(nothing) == 0
    assert form(nothing) == expected


def test_results_are_those_of_the_original_image(model: Any) -> None:
    lively(model).bbox_head.test_cfg.score_thr = 0.001
    own = predict(model)
    # The image was shown at half of its height and a third of its width.
    scaled = predict(model, ori_shape=(128, 288), scale_factor=(1 / 3, 1 / 2))
    assert scaled.masks.shape[1:] == (128, 288)
    torch.testing.assert_close(scaled.bboxes, own.bboxes * torch.tensor([3.0, 2.0, 3.0, 2.0]))
    torch.testing.assert_close(scaled.class_scores, own.class_scores)
    # Every third pixel of a row and every second of a column, but for what lies at the level.
    assert own.masks.any()
    assert (scaled.masks[:, 1::2, 1::3] != own.masks).float().mean() < 0.02


def test_as_many_candidates_as_are_asked_for(model: Any) -> None:
    head = model.bbox_head
    logits = torch.zeros(9, 6)
    # Bears, with all of their ancestors' logits the same: the probability falls with the row, and row 4 has the most.
    logits[:, BEAR] = torch.linspace(3, 1, 9)
    logits[4, BEAR] = 5
    cfg = ConfigDict(score_thr=0.3, nms_pre=3)
    rows, probabilities = head.probable(logits, cfg)
    assert rows.tolist() == [4, 0, 1]
    torch.testing.assert_close(probabilities, head.loss_cls.get_activation(logits)[[4, 0, 1], :5])
    cfg.nms_pre = -1
    assert head.probable(logits, cfg)[0].tolist() == [4, 0, 1, 2, 3, 5, 6, 7, 8]
    cfg.score_thr = 0.9
    assert head.probable(logits, cfg)[0].tolist() == [4, 0, 1]
    cfg.score_thr = 1.0
    assert head.probable(logits, cfg)[1].shape == (0, 5)


@pytest.mark.parametrize('scheme', ['path_sum', 'flat', 'sigmoid', 'tree_min'])
def test_what_has_learnt_nothing_says_that_objects_are_rare(scheme: str) -> None:
    head = build(tiny_real_time_model(scheme=scheme)).bbox_head
    for level in head.rtm_cls:
        probabilities = head.loss_cls.get_activation(level.bias.detach()[None])
        assert probabilities[0, -1].item() == pytest.approx(0.99)


def test_a_copy_assigns_by_its_own_loss(model: Any) -> None:
    """As an average of the weights has."""
    assert model.bbox_head.assigner.class_costs.__self__ is model.bbox_head.loss_cls


@pytest.mark.parametrize(
    ('key', 'value', 'message'),
    [
        (
            'loss_cls',
            dict(type='QualityFocalLoss'),
            'loss_cls is a QualityFocalLoss.*HierarchicalQualityLoss.*_delete_',
        ),
        (
            'loss_cls',
            dict(type='hierseg.HierarchicalLoss', taxonomy=teddy_taxonomy()),
            'loss_cls is a HierarchicalLoss.*HierarchicalQualityLoss',
        ),
        ('num_classes', 7, 'num_classes=7 but the taxonomy 5'),
        ('with_objectness', True, r'with_objectness=True.*p\(background\)'),
        ('test_cfg', dict(decision=dict(rule='best')), r"test_cfg\.decision: rule='best'"),
        (
            'train_cfg',
            dict(assigner=dict(type='DynamicSoftLabelAssigner')),
            'assigner is a DynamicSoftLabelAssigner.*HierarchicalSoftLabelAssigner',
        ),
    ],
)
def test_clear_errors(key: str, value: Any, message: str) -> None:
    config = tiny_real_time_model()
    head = config if key.endswith('_cfg') else config.bbox_head
    head[key] = ConfigDict(value) if isinstance(value, dict) else value
    with pytest.raises(ConfigError, match=message):
        build(config)
