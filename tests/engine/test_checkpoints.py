from __future__ import annotations

from collections import OrderedDict

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from hierseg.engine.checkpoints import TensorStatus, as_csv, fit_tensors, fitted, summary

PARTS = ('layer0', 'layer1')


def zeros(**shapes: tuple[int, ...]) -> dict[str, Tensor]:
    return {name.replace('__', '.'): torch.zeros(shape) for name, shape in shapes.items()}


def test_every_tensor_has_a_status_and_a_reason() -> None:
    model = zeros(backbone__conv__weight=(4, 3), head__weight=(9, 4), head__bias=(9,), extra=())
    checkpoint = zeros(backbone__conv__weight=(4, 3), head__weight=(81, 4), head__bias=(81,), old__weight=(2,))
    fits = fit_tensors(model, checkpoint)
    assert [(fit.name, fit.source, fit.status) for fit in fits] == [
        ('backbone.conv.weight', 'backbone.conv.weight', TensorStatus.TAKEN),
        ('head.weight', 'head.weight', TensorStatus.OTHER_SHAPE),
        ('head.bias', 'head.bias', TensorStatus.OTHER_SHAPE),
        ('extra', '', TensorStatus.MISSING),
        ('', 'old.weight', TensorStatus.UNUSED),
    ]
    assert str(fits[1]) == 'head.weight: (81, 4) in the checkpoint, (9, 4) in the model'
    assert as_csv(fits).splitlines()[1:3] == [
        'backbone.conv.weight,backbone.conv.weight,4×3,4×3,taken',
        'head.weight,head.weight,9×4,81×4,skipped: other shape',
    ]


def test_every_part_takes_from_a_checkpoint_of_one_model() -> None:
    model = zeros(layer0__conv=(3,), layer0__head=(5,), layer1__conv=(3,), layer1__head=(2,))
    fits = fit_tensors(model, zeros(conv=(3,), head=(2,)), parts=PARTS)
    assert [(fit.name, fit.source, fit.status) for fit in fits] == [
        ('layer0.conv', 'conv', TensorStatus.TAKEN),
        ('layer0.head', 'head', TensorStatus.OTHER_SHAPE),
        ('layer1.conv', 'conv', TensorStatus.TAKEN),
        ('layer1.head', 'head', TensorStatus.TAKEN),
    ]


def test_a_checkpoint_that_has_parts_gives_each_its_own() -> None:
    model = zeros(layer0__conv=(3,), layer1__conv=(3,))
    fits = fit_tensors(model, zeros(layer1__conv=(3,), conv=(3,)), parts=PARTS)
    assert [(fit.name, fit.source, fit.status) for fit in fits] == [
        ('layer0.conv', '', TensorStatus.MISSING),
        ('layer1.conv', 'layer1.conv', TensorStatus.TAKEN),
        ('', 'conv', TensorStatus.UNUSED),
    ]


def test_the_backbone_s_own_layer1_is_no_part() -> None:
    # ResNet calls its stages layer1 to layer4.
    fits = fit_tensors(zeros(layer0__backbone__layer1__w=(1,)), zeros(backbone__layer1__w=(1,)), parts=PARTS)
    assert [fit.status for fit in fits] == [TensorStatus.TAKEN]


def test_the_summary_counts_by_module_and_names_what_was_not_taken() -> None:
    model = zeros(layer0__backbone__layer1__w=(1,), layer0__roi_head__bbox_head__fc_cls__weight=(9,))
    checkpoint = zeros(backbone__layer1__w=(1,), roi_head__bbox_head__fc_cls__weight=(81,), mask__w=(1,))
    assert summary(fit_tensors(model, checkpoint, parts=PARTS), parts=PARTS).splitlines() == [
        '1 of 2 tensors of the model taken',
        '  layer0.backbone            1 of 1',
        '  layer0.roi_head.bbox_head  0 of 1',
        '1 keep their initial values',
        '  layer0.roi_head.bbox_head.fc_cls.weight: (81,) in the checkpoint, (9,) in the model',
        '1 of the checkpoint are not in the model',
        '  mask.w',
    ]


def test_module_versions_move_with_the_tensors() -> None:
    model = nn.ModuleDict({'layer0': nn.BatchNorm1d(2), 'layer1': nn.BatchNorm1d(2)}).state_dict()
    checkpoint = OrderedDict((name.removeprefix('layer0.'), value) for name, value in model.items() if 'layer0' in name)
    checkpoint._metadata = OrderedDict({'': {'version': 7}})
    state = fitted(model, checkpoint, fit_tensors(model, checkpoint, parts=PARTS))
    assert state._metadata['layer0'] == state._metadata['layer1'] == {'version': 7}


shapes = st.dictionaries(st.sampled_from('abcdefgh'), st.lists(st.integers(1, 3), max_size=2).map(tuple), max_size=8)


@given(shapes, shapes)
def test_what_is_fitted_loads_strictly_and_nothing_is_lost(own: dict, other: dict) -> None:
    model = {name: torch.zeros(shape) for name, shape in own.items()}
    checkpoint = {name: torch.ones(shape) for name, shape in other.items()}
    fits = fit_tensors(model, checkpoint)
    state = fitted(model, checkpoint, fits)
    assert {name: tuple(value.shape) for name, value in state.items()} == own
    # A tensor is the checkpoint's exactly where name and shape are the same.
    assert {name for name, value in state.items() if value is checkpoint.get(name)} == {
        name for name in own if own[name] == other.get(name)
    }
    assert {fit.source for fit in fits} - {''} == set(other)
