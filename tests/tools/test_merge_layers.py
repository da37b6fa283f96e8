"""Two layers that were trained alone, joined: the same predictions, and clear errors."""

from __future__ import annotations

import io
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.logging import HistoryBuffer
from taxonomies import teddy_taxonomy
from tiny_models import tiny_ensemble

from hierseg.apis import join_layers
from hierseg.errors import ConfigError
from hierseg.registry import MODELS
from hierseg.taxonomy import Taxonomy

TOOL = Path(__file__).parents[2] / 'tools' / 'misc' / 'merge_layers.py'


def saved(folder: Path, layer: int, model: Any, taxonomy: Taxonomy | None = None, **meta: Any) -> str:
    """A checkpoint as the runner writes it for configs/two_layer/."""
    whole = taxonomy or teddy_taxonomy()
    dataset_meta = {'classes': ('any',), 'layer': layer, 'whole_taxonomy': whole.to_json()}
    path = folder / f'layer{layer}.pth'
    checkpoint = {
        'meta': {'dataset_meta': dataset_meta, 'epoch': 2, 'seed': 3, **meta},
        'message_hub': {'log_scalars': {'loss': HistoryBuffer([1.0], [1])}},
        'state_dict': model.state_dict(),
    }
    torch.save(checkpoint, path)
    return str(path)


@pytest.fixture(scope='module')
def layers() -> list[Any]:
    torch.manual_seed(0)
    config = tiny_ensemble()
    return [MODELS.build(config[name]).eval() for name in ('layer0', 'layer1')]


def batch() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(1)
    images = [torch.randint(0, 255, (3, 64, 96), dtype=torch.uint8, generator=generator) for _ in range(2)]
    meta = dict(img_shape=(64, 96), ori_shape=(64, 96), scale_factor=(1.0, 1.0))
    return dict(inputs=images, data_samples=[DetDataSample(metainfo=meta) for _ in images])


@torch.no_grad()
def test_the_joined_checkpoint_predicts_as_its_parts(
    layers: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [saved(tmp_path, number, model) for number, model in enumerate(layers)]
    out = tmp_path / 'new' / 'ensemble.pth'
    monkeypatch.setattr(sys, 'argv', [str(TOOL), *files, '--out', str(out)])
    runpy.run_path(str(TOOL), run_name='__main__')
    tensors = sum(len(model.state_dict()) for model in layers)
    assert capsys.readouterr().out == f'{out}: {tensors} tensors, 5 classes\n'
    assert [file.name for file in out.parent.iterdir()] == ['ensemble.pth']

    joined = torch.load(out, weights_only=True)
    torch.manual_seed(7)
    ensemble = MODELS.build(tiny_ensemble()).eval()
    ensemble.load_state_dict(joined['state_dict'], strict=True)
    expected = [model.test_step(batch()) for model in layers]
    for found, first, second in zip(ensemble.test_step(batch()), *expected, strict=True):
        merged, _ = ensemble.merged(first.pred_instances, second.pred_instances)
        assert len(merged) > 0
        for key in ('bboxes', 'labels', 'scores', 'class_scores', 'masks'):
            assert torch.equal(found.pred_instances[key], merged[key]), key


def test_meta_is_that_of_the_whole_and_keeps_that_of_the_parts(layers: list[Any], tmp_path: Path) -> None:
    files = [saved(tmp_path, number, model) for number, model in enumerate(layers)]
    meta = join_layers(*files, tmp_path / 'ensemble.pth')['meta']
    assert meta['dataset_meta']['classes'] == ('Toy', 'Animal', 'Bear', 'Teddy', 'Car')
    assert Taxonomy.from_json(meta['dataset_meta']['taxonomy']) == teddy_taxonomy()
    assert [meta['layers'][name]['seed'] for name in ('layer0', 'layer1')] == [3, 3]


class TestErrors:
    @pytest.fixture
    def files(self, layers: list[Any], tmp_path: Path) -> list[str]:
        return [saved(tmp_path, number, model) for number, model in enumerate(layers)]

    def test_layers_in_the_wrong_order(self, files: list[str], tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r'layer1\.pth: the checkpoint is of layer 1, not 0'):
            join_layers(*reversed(files), tmp_path / 'out.pth')

    def test_layers_of_different_taxonomies(self, files: list[str], layers: list[Any], tmp_path: Path) -> None:
        other = Taxonomy.from_edges(['toy', 'animal', 'teddy'], [('teddy', 'toy')])
        files[1] = saved(tmp_path, 1, layers[1], other)
        with pytest.raises(ConfigError, match=r'layer0\.pth against .*layer1\.pth: the taxonomies differ: 5 classes'):
            join_layers(*files, tmp_path / 'out.pth')
        assert not (tmp_path / 'out.pth').exists()

    def test_a_joined_checkpoint_has_nothing_to_join(self, files: list[str], tmp_path: Path) -> None:
        join_layers(*files, tmp_path / 'out.pth')
        with pytest.raises(ConfigError, match=r'out\.pth: the checkpoint is of a whole ensemble'):
            join_layers(str(tmp_path / 'out.pth'), files[1], tmp_path / 'again.pth')

    def test_the_layers_themselves_stay(self, files: list[str]) -> None:
        with pytest.raises(ConfigError, match='would replace one of the layers'):
            join_layers(*files, files[1])

    @pytest.mark.parametrize(
        ('content', 'message'),
        [
            (None, 'does not exist'),
            ('cut', 'the checkpoint cannot be read'),
            ([1], 'the file holds a list'),
            ({'weight': torch.zeros(1)}, 'no checkpoint of a training'),
            ({'state_dict': {}, 'meta': {}}, 'the checkpoint has no weights'),
            ({'state_dict': {'weight': torch.zeros(1)}, 'meta': None}, 'does not say which layer of which taxonomy'),
        ],
    )
    def test_files_that_are_no_layer(self, files: list[str], tmp_path: Path, content: Any, message: str) -> None:
        path = tmp_path / 'odd.pth'
        if content == 'cut':
            path.write_bytes(Path(files[0]).read_bytes()[:1000])
        elif content is not None:
            buffer = io.BytesIO()
            torch.save(content, buffer)
            path.write_bytes(buffer.getvalue())
        with pytest.raises(ConfigError, match=rf'odd\.pth: .*{message}'):
            join_layers(str(path), files[1], tmp_path / 'out.pth')
