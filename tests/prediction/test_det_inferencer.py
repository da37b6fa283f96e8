"""MMDetection's own inferencer on our configs."""

from __future__ import annotations

import json
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmdet.apis import DetInferencer

from hierseg.pictures import read_picture
from hierseg.prediction import Predictor
from hierseg.report import HierLocalVisualizer


@pytest.fixture(scope='module')
def inferencer(trained: dict[str, Any]) -> DetInferencer:
    config, checkpoint, folder = trained['end_to_end']
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(folder)
        patch.setattr(HierLocalVisualizer, '_instance_dict', OrderedDict())
        return DetInferencer(model=str(config), weights=str(checkpoint), device='cpu', show_progress=False)


def test_results_carry_the_path(inferencer: DetInferencer, model: Predictor, images: list[str]) -> None:
    (sample,) = inferencer(images[0], return_datasamples=True)['predictions']
    found = model(images[0])
    assert len(found) > 5
    assert sample.pred_instances.paths == [instance.path for instance in found]
    np.testing.assert_array_equal(sample.pred_instances.bboxes.numpy(), found.boxes)


def test_dictionaries_and_files_have_what_mmdetection_puts_there(
    inferencer: DetInferencer, model: Predictor, images: list[str], tmp_path: Path
) -> None:
    (result,) = inferencer(images[0], out_dir=str(tmp_path), no_save_pred=False)['predictions']
    found = model(images[0])
    assert json.loads((tmp_path / 'preds' / f'{Path(images[0]).stem}.json').read_text()) == result
    assert result['labels'] == found.labels.tolist()
    assert [mask['counts'] for mask in result['masks']] == [mask['counts'] for mask in found.masks]


def test_pictures_show_the_path(
    inferencer: DetInferencer, images: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts: list[tuple[str, ...]] = []
    module = sys.modules['hierseg.report.visualizer']
    original = module.label_variants

    def noted(steps: tuple[str, ...], *, mark: str) -> tuple[str, ...]:
        texts.append(steps)
        return original(steps, mark=mark)

    monkeypatch.setattr(module, 'label_variants', noted)
    inferencer(images[0], out_dir=str(tmp_path), pred_score_thr=0.01)
    assert read_picture(tmp_path / 'vis' / Path(images[0]).name).shape[1] >= 96
    assert any(len(steps) > 1 for steps in texts)
