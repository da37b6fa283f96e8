from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image
from stub_training import layerwise_settings, make_runner

from hierseg.errors import ConfigError
from hierseg.report.curves import LossCurves, LossCurvesHook, draw_losses, read_losses


def write(folder: Path, start: str, *entries: dict[str, Any]) -> None:
    file = folder / start / 'vis_data' / 'scalars.json'
    file.parent.mkdir(parents=True)
    file.write_text(''.join(json.dumps(entry) + '\n' for entry in entries))


def step(iteration: int, epoch: int, **losses: float) -> dict[str, Any]:
    named = {name.replace('_', '/'): value for name, value in losses.items()}
    return {'lr': 0.1, **named, 'loss_mask': 9.0, 'epoch': epoch, 'iter': iteration, 'step': iteration}


def test_a_point_is_the_mean_of_what_an_epoch_logged(tmp_path: Path) -> None:
    write(
        tmp_path,
        '20260101_000000',
        step(10, 1, loss=4.0),
        step(20, 1, loss=2.0),
        step(20, 1, val_loss=3.5),
        step(30, 2, loss=1.0),
        # Scores of an evaluation, whose step is an epoch.
        {'segm/mAP': 0.5, 'step': 2},
    )
    assert read_losses(tmp_path) == [LossCurves('', {1: 3.0, 2: 1.0}, {1: 3.5})]


def test_layers_have_curves_of_their_own(tmp_path: Path) -> None:
    write(
        tmp_path,
        '20260101_000000',
        step(10, 1, loss=4.0, layer0_loss=4.0),
        step(10, 1, val_layer0_loss=5.0),
        step(20, 2, loss=3.0, layer1_loss=3.0),
        step(20, 2, val_layer1_loss=2.0),
    )
    assert read_losses(tmp_path) == [
        LossCurves('layer0', {1: 4.0}, {1: 5.0}),
        LossCurves('layer1', {2: 3.0}, {2: 2.0}),
    ]


def test_keys_with_their_phase_are_read_too(tmp_path: Path) -> None:
    # LogProcessor(log_with_hierarchy=True).
    entry = {'train/loss': 4.0, 'train/layer0/loss': 4.0, 'epoch': 1, 'iter': 10}
    write(tmp_path, '20260101_000000', entry)
    assert read_losses(tmp_path) == [LossCurves('layer0', {1: 4.0}, {})]


def test_a_resumed_run_replaces_what_the_killed_one_logged_beyond_its_checkpoint(tmp_path: Path) -> None:
    write(
        tmp_path,
        '20260101_000000',
        step(10, 1, loss=4.0),
        step(10, 1, val_loss=4.5),
        step(20, 2, loss=3.0),
        step(20, 2, val_loss=3.5),
        step(30, 3, loss=99.0),
    )
    # Resumed from the checkpoint of epoch 1, of which the file of scalars ends in half a line.
    write(tmp_path, '20260102_000000', step(20, 2, loss=2.0))
    file = tmp_path / '20260102_000000' / 'vis_data' / 'scalars.json'
    file.write_text(file.read_text() + '{"loss": 7.0, "ep')
    assert read_losses(tmp_path) == [LossCurves('', {1: 4.0, 2: 2.0}, {1: 4.5})]


def test_a_new_run_in_an_old_directory_begins_anew(tmp_path: Path) -> None:
    write(tmp_path, '20260101_000000', step(10, 1, loss=4.0), step(10, 1, val_loss=4.5), step(20, 2, loss=3.0))
    write(tmp_path, '20260102_000000', step(5, 1, loss=1.0))
    assert read_losses(tmp_path) == [LossCurves('', {1: 1.0}, {})]


def test_nothing_is_logged_yet(tmp_path: Path) -> None:
    assert read_losses(tmp_path) == []


@pytest.mark.parametrize(
    'line',
    [
        b'{"loss": 1',
        b'\0\0\0',
        b'\xff',
        b'5',
        b'[1]',
        b'{"loss": "a", "iter": 1, "epoch": 1}',
        b'[' * 5000,
        b'{"%s/loss": 1, "iter": 1, "epoch": 1}' % (b'- ' * 100_000),
    ],
    ids=range(8),
)
def test_a_damaged_log_is_refused_with_its_line_but_stops_no_training(tmp_path: Path, line: bytes) -> None:
    write(tmp_path, '20260101_000000', step(10, 1, loss=4.0), step(20, 2, loss=3.0))
    file = tmp_path / '20260101_000000' / 'vis_data' / 'scalars.json'
    file.write_bytes(line + b'\n' + file.read_bytes())
    with pytest.raises(ConfigError, match=r'scalars\.json, line 1'):
        read_losses(tmp_path)
    runner = Mock(work_dir=str(tmp_path), log_dir=str(tmp_path))
    LossCurvesHook().after_train_epoch(runner)
    runner.logger.warning.assert_called_once()
    assert not (tmp_path / 'loss_curves.png').exists()


def test_more_layers_than_a_picture_can_show_are_refused(tmp_path: Path) -> None:
    losses = {f'layer{layer}/loss': 1.0 for layer in range(25)}
    write(tmp_path, '20260101_000000', step(10, 1, **losses))
    with pytest.raises(ConfigError, match='losses of 25 layers, beginning with layer0, layer1, layer2'):
        read_losses(tmp_path)


def test_the_picture_has_a_panel_for_each_layer() -> None:
    curve = LossCurves('layer0', {1: 2.0, 2: 1.0}, {1: 2.5, 2: 1.5})
    one = Image.open(io.BytesIO(draw_losses([curve])))
    two = Image.open(io.BytesIO(draw_losses([curve, LossCurves('layer1', {3: 1.0}, {})])))
    assert two.width == pytest.approx(2 * one.width, abs=2)
    assert two.height == one.height
    # Both curves are seen: without one of them, the picture is another.
    for part in (LossCurves('layer0', curve.training, {}), LossCurves('layer0', {}, curve.validation)):
        other = Image.open(io.BytesIO(draw_losses([part])))
        assert (np.asarray(other) != np.asarray(one)).any()


def test_the_hook_draws_beside_the_log_after_every_epoch(tmp_path: Path) -> None:
    runner = make_runner(layerwise_settings(), tmp_path, custom_hooks=[dict(type='hierseg.LossCurvesHook')])
    runner.train()
    picture = Path(runner.log_dir) / 'loss_curves.png'
    assert [path.suffix for path in picture.parent.iterdir() if path.is_file()].count('.log') == 1
    assert Image.open(picture).width > 1000
    layer0, layer1 = read_losses(tmp_path)
    assert (layer0.name, [*layer0.training], [*layer0.validation]) == ('layer0', [1, 2], [1, 2])
    assert (layer1.name, [*layer1.training], [*layer1.validation]) == ('layer1', [3, 4, 5], [3, 4, 5])
