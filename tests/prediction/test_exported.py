"""An exported real-time model and the trained one that it comes from, called alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from exported_models import Exported, Trained, exported, trained

import hierseg
from hierseg.pictures import read_picture

__all__ = ['exported', 'trained']


def test_files_are_found_as_by_the_trained_model(trained: Trained, exported: Exported, tmp_path: Path) -> None:
    torch_model = hierseg.load_model(trained.config, trained.checkpoint, device='cpu', score_thr=0.1)
    model = hierseg.load_model(exported.exact, score_thr=0.1)
    results = model(list(trained.pictures), batch_size=2)
    assert sum(map(len, results)) > 3
    for found, expected, path in zip(results, torch_model(list(trained.pictures)), trained.pictures, strict=True):
        assert (found.source, found.image_size) == (path, expected.image_size)
        assert [instance.path for instance in found] == [instance.path for instance in expected]
        np.testing.assert_allclose(found.boxes, expected.boxes, atol=1e-3)
        np.testing.assert_allclose(found.class_scores, expected.class_scores, atol=1e-5)
        drawn = found.draw(tmp_path / 'drawn.png')
        np.testing.assert_array_equal(read_picture(tmp_path / 'drawn.png'), drawn)


def test_a_threshold_names_anew(trained: Trained, exported: Exported) -> None:
    wary = hierseg.load_model(exported.exact, score_thr=0, threshold=1.0)(trained.pictures[0])
    plain = hierseg.load_model(exported.exact, score_thr=0)(trained.pictures[0])
    assert wary.labels.tolist() == plain.back_off(1.0).labels.tolist() != plain.labels.tolist()
