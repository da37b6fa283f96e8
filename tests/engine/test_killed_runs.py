"""Runs that are really killed, with one process and two: resumed, they end as if nothing had happened."""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path

import pytest
import torch
from tiny_runs import TOOLS, last_checkpoint, run, train, train_here
from warm_python import warm_python

pytestmark = [pytest.mark.slow, pytest.mark.distributed]
LAYERS = ('layer0', 'layer1')


def assert_same(found: Path, expected: Path) -> None:
    """Weights, optimisers and schedules of the last checkpoints are equal bit by bit."""
    checkpoints = [last_checkpoint(folder) for folder in (found, expected)]
    weights = [checkpoint['state_dict'] for checkpoint in checkpoints]
    assert weights[0].keys() == weights[1].keys()
    assert [name for name in weights[0] if not torch.equal(weights[0][name], weights[1][name])] == []
    torch.testing.assert_close(checkpoints[0]['optimizer'], checkpoints[1]['optimizer'], rtol=0, atol=0)
    assert checkpoints[0]['param_schedulers'] == checkpoints[1]['param_schedulers']


@pytest.fixture(scope='module')
def ensemble(tiny: Path) -> Path:
    """The work directory of an ensemble trained without interruption, by one process."""
    return train_here('ensemble.py', 'one', cwd=tiny)


@pytest.fixture(scope='module')
def together(tiny: Path) -> Path:
    """The same by two processes, none of them a copy of another: they share no order of sets."""
    train('ensemble.py', 'two', cwd=tiny, processes=2, python=Path(sys.executable))
    return tiny / 'two'


def test_the_ensemble_killed_in_each_layer(tiny: Path, ensemble: Path) -> None:
    train('ensemble.py', 'killed', cwd=tiny, kill_after=5)  # of 6 iterations of layer 0
    printed = train('ensemble.py', 'killed', cwd=tiny, kill_after=10)  # the last of layer 1
    assert 'resumed epoch: 1, iter: 3' in printed
    assert_same(train_here('ensemble.py', 'killed', cwd=tiny), ensemble)
    starts = sorted((tiny / 'killed').glob('*/vis_data/scalars.json'))
    first = [json.loads(file.read_text().splitlines()[0])['iter'] for file in starts]
    assert first == [1, 4, 9]


def test_the_ensemble_killed_with_two_processes(tiny: Path, together: Path) -> None:
    train('ensemble.py', 'two-killed', cwd=tiny, processes=2, kill_after=9)
    printed = train('ensemble.py', 'two-killed', cwd=tiny, processes=2)
    assert 'resumed epoch: 3, iter: 8' in printed
    assert_same(tiny / 'two-killed', together)


def test_the_end_to_end_model_killed(tiny: Path) -> None:
    train('end_to_end.py', 'e2e-killed', cwd=tiny, kill_after=5)
    resumed = train_here('end_to_end.py', 'e2e-killed', cwd=tiny)
    assert_same(resumed, train_here('end_to_end.py', 'e2e', cwd=tiny))


def test_the_end_to_end_model_killed_with_two_processes(tiny: Path) -> None:
    train('end_to_end.py', 'e2e-two-killed', cwd=tiny, processes=2, kill_after=8)
    train('end_to_end.py', 'e2e-two-killed', cwd=tiny, processes=2)
    train('end_to_end.py', 'e2e-two', cwd=tiny, processes=2)
    assert_same(tiny / 'e2e-two-killed', tiny / 'e2e-two')


@pytest.mark.parametrize('layer', LAYERS)
def test_a_layer_alone_has_the_weights_of_the_ensemble(tiny: Path, ensemble: Path, layer: str) -> None:
    alone = last_checkpoint(train_here(f'{layer}.py', layer, cwd=tiny))['state_dict']
    whole = last_checkpoint(ensemble)['state_dict']
    part = {name.removeprefix(f'{layer}.'): whole[name] for name in whole if name.startswith(f'{layer}.')}
    assert part.keys() == alone.keys()
    assert [name for name in alone if not torch.equal(alone[name], part[name])] == []


class TestTwoProcesses:
    def test_end_with_the_same_weights(self, together: Path) -> None:
        # Their images differ, so gradients that were not exchanged would give different weights in either layer.
        first, second = (torch.load(together / f'rank{rank}.pt', weights_only=True) for rank in (0, 1))
        assert first.keys() == second.keys()
        assert [name for name in first if not torch.equal(first[name], second[name])] == []

    def test_train_both_layers_on_images_of_their_own(self, together: Path, ensemble: Path) -> None:
        alone, both = last_checkpoint(ensemble)['state_dict'], last_checkpoint(together)['state_dict']
        # The checkpoint does not tell by its names how it was trained.
        assert alone.keys() == both.keys()
        for layer in LAYERS:
            name = f'{layer}.roi_head.bbox_head.fc_cls.weight'
            assert not torch.equal(alone[name], both[name])

    def test_take_the_iterations_of_the_config(self, together: Path) -> None:
        (file,) = together.glob('*/vis_data/scalars.json')
        entries = [json.loads(line) for line in file.read_text().splitlines()]
        counts = {layer: sum(f'{layer}/loss' in entry for entry in entries) for layer in LAYERS}
        assert counts == {'layer0': 6, 'layer1': 4}
        validated = [key for entry in entries for key in entry if key.startswith('val/')]
        assert validated == ['val/layer0/loss'] * 2 + ['val/layer1/loss'] * 2

    def test_leave_one_checkpoint(self, together: Path) -> None:
        assert [path.name for path in together.glob('*.pth')] == ['epoch_4.pth']

    def test_find_and_score_what_one_process_does(self, tiny: Path, together: Path) -> None:
        checkpoint = (together / 'last_checkpoint').read_text()
        arguments = ['ensemble.py', checkpoint]
        run('bash', TOOLS / 'dist_test.sh', *arguments, '2', '--work-dir=both', '--out=both.pkl', cwd=tiny)
        run(warm_python(), TOOLS / 'test.py', *arguments, '--work-dir=alone', '--out=alone.pkl', cwd=tiny)
        alone, both = (json.loads((tiny / folder / 'results.json').read_text()) for folder in ('alone', 'both'))
        assert alone == pytest.approx(both, rel=1e-6)
        # So small a model scores nothing, but what it finds is the same.
        alone, both = (pickle.loads((tiny / file).read_bytes()) for file in ('alone.pkl', 'both.pkl'))
        assert [sample['img_id'] for sample in alone] == [sample['img_id'] for sample in both]
        assert sum(len(sample['pred_instances']['labels']) for sample in alone) > 0
        for one, other in zip(alone, both, strict=True):
            for key in ('bboxes', 'labels', 'scores', 'class_scores'):
                torch.testing.assert_close(one['pred_instances'][key], other['pred_instances'][key])
