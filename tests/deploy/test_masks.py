"""Masks in numpy against those on tensors, run lengths against pycocotools."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from hierseg.deploy.masks import run_lengths_in_boxes, runs_of_part
from hierseg.formats.run_lengths import compress_runs
from hierseg.functional.mask_sampling import masks_in_boxes


@given(
    size=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    steps=st.tuples(st.floats(0.6, 20), st.floats(0.6, 20)),
    threshold=st.floats(0.2, 0.8),
    seed=st.integers(0, 99),
)
def test_masks_are_those_of_torch(
    size: tuple[int, int], steps: tuple[float, float], threshold: float, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 3, (6, 9, 7)).astype(np.float32)
    corners = generator.uniform(-10, 100, (6, 2, 2)).astype(np.float32)
    boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    options = {'steps': steps, 'threshold': threshold}
    expected = masks_in_boxes(torch.from_numpy(logits), torch.from_numpy(boxes), size, **options).numpy()
    found = coco_mask.decode(run_lengths_in_boxes(logits, boxes, size, **options)).transpose(2, 0, 1)
    # A pixel on the threshold may round either way.
    assert (found != expected).sum() <= 1


@given(data=st.data(), height=st.integers(1, 8), width=st.integers(1, 8), seed=st.integers(0, 999))
def test_run_lengths_of_a_part_are_those_of_the_whole(data: st.DataObject, height: int, width: int, seed: int) -> None:
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    bottom, right = data.draw(st.integers(top + 1, height)), data.draw(st.integers(left + 1, width))
    mask = np.zeros((height, width), dtype=np.uint8, order='F')
    part = np.random.default_rng(seed).random((bottom - top, right - left)) < data.draw(
        st.sampled_from([0, 0.5, 0.9, 1])
    )
    mask[top:bottom, left:right] = part
    assert compress_runs(runs_of_part(part, left, top, (height, width))) == coco_mask.encode(mask)['counts']
