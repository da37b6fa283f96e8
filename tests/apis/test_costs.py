import json
import os
import time

import numpy as np
import pytest
import torch
from torch import nn

from hierseg.apis.costs import (
    WARM_UP,
    PeakMemory,
    SharedCores,
    measure_steps,
    training_seconds,
    training_unevenness,
)


class Products(nn.Module):
    """A test step of one known matrix product."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(20, 30, bias=False)
        self.steps = 0

    def test_step(self, batch):
        self.steps += 1
        return self.layer(batch)


def test_arithmetic_of_a_known_product_and_number_of_steps():
    model = Products()
    costs = measure_steps(model, (torch.ones(4, 20) for _ in range(50)), images=3)
    # (4, 20) by (20, 30): a multiplication and an addition each.
    assert costs.flops == 2 * 4 * 20 * 30
    assert costs.latency_ms > 0
    assert model.steps == WARM_UP + 3 + 3
    assert costs.parameters == 600
    assert costs.timed_images == 3


def test_fewer_images_than_asked_for_serve():
    assert measure_steps(Products(), [torch.ones(1, 20)], images=5).flops == 2 * 20 * 30


def test_no_image_is_an_error():
    with pytest.raises(ValueError, match='no image'):
        measure_steps(Products(), [], images=5)


@pytest.mark.skipif(torch.cuda.is_available(), reason='what a GPU holds is another number')
def test_peak_memory_is_that_of_the_work_alone():
    held = np.ones(10_000_000)
    with PeakMemory() as memory:
        worked = np.ones(25_000_000)  # 200 MB
        del worked
    assert memory.megabytes == pytest.approx(200, abs=40)
    del held


def _log(folder, lines):
    (folder / 'vis_data').mkdir(parents=True)
    (folder / 'vis_data/scalars.json').write_text(''.join(json.dumps(line) + '\n' for line in lines))


def test_training_time_of_a_run_that_was_resumed(tmp_path):
    step = {'loss': 1.0}
    _log(
        tmp_path / '20260101_000000',
        [
            {**step, 'time': 0.5, 'iter': 20},
            {'val/loss': 2.0, 'time': 9.0, 'iter': 20},
            {**step, 'time': 0.25, 'iter': 40},
        ],
    )
    _log(tmp_path / '20260102_000000', [{**step, 'time': 1.0, 'iter': 60}, {**step, 'time': 1.0, 'iter': 80}])
    # 20 steps of 0.5 s and 20 of 0.25 s; then 20 and 20 of 1 s.
    assert training_seconds(tmp_path) == pytest.approx(10 + 5 + 20 + 20)


def test_other_programs_are_seen():
    with SharedCores() as cores:
        time.sleep(0.05)
    threads = torch.get_num_threads() / os.cpu_count()
    # Whatever runs beside this test, it has not more than all cores; a clock tick is 0.01 s.
    assert threads <= cores.load <= threads + 1.5


def test_what_this_process_does_is_no_load_of_others(monkeypatch):
    # The others worked 0.5 s of each second of the clock.
    seconds, clock = iter([100.0, 101.0]), iter([7.0, 9.0])
    monkeypatch.setattr('hierseg.apis.costs._seconds_of_others', lambda: next(seconds))
    monkeypatch.setattr('hierseg.apis.costs.time.perf_counter', lambda: next(clock))
    monkeypatch.setattr('hierseg.apis.costs.os.cpu_count', lambda: 4)
    with SharedCores() as cores:
        pass
    assert cores.load == pytest.approx((0.5 + torch.get_num_threads()) / 4)


def test_uneven_steps_of_a_training(tmp_path):
    step = {'loss': 1.0}
    times = [9.0] + [0.5] * 6 + [1.5] * 4
    _log(tmp_path / '20260101_000000', [{**step, 'time': each, 'iter': at} for at, each in enumerate(times)])
    # Without the first line (6 × 0.5 + 4 × 1.5) / 10 = 0.9, and the fastest tenth takes 0.5.
    assert training_unevenness(tmp_path) == pytest.approx(1.8)
    assert training_unevenness(tmp_path / 'nowhere') is None


def test_training_time_of_a_single_line_and_of_no_log(tmp_path):
    assert training_seconds(tmp_path) is None
    _log(tmp_path / '20260101_000000', [{'loss': 1.0, 'time': 0.5, 'iter': 70}])
    with (tmp_path / '20260101_000000/vis_data/scalars.json').open('a') as file:
        file.write('{"loss": 1.0, "ti')  # killed while writing
    assert training_seconds(tmp_path) == pytest.approx(35)
