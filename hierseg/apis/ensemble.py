"""The two-layer ensemble: a checkpoint joined from two detectors that were trained alone, and one image through it."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.structures import InstanceData

from hierseg import __version__
from hierseg.apis.configs import load_config
from hierseg.apis.runner import image_batch, load_detector, picture_pipeline, read_checkpoint
from hierseg.engine.checkpoints import meta_of, require_finite, weights_of
from hierseg.errors import ConfigError
from hierseg.files import output_file, write_atomically
from hierseg.models import TwoLayerEnsemble
from hierseg.prediction.inputs import read_shot
from hierseg.report.flow import Flow
from hierseg.taxonomy import Taxonomy
from hierseg.taxonomy.graph import require_same_taxonomy


def join_layers(layer0: str, layer1: str, out: str | Path) -> dict[str, Any]:
    """Writes a checkpoint of the ensemble with the weights of two layers.

    The layers are told from the metainfo of the data that they were trained on, a ``StoreDataset`` with ``layer``.
    The checkpoint tests and can be fine-tuned from; there is no training of both to resume.

    Args:
        layer0: Checkpoint of ``configs/two_layer/layer0.py`` or of one like it.
        layer1: Checkpoint of ``configs/two_layer/layer1.py`` or of one like it.
        out: Where to write; a file that exists is replaced once the new one is whole.

    Returns:
        The checkpoint: ``state_dict`` with names such as ``layer0.backbone.conv1.weight``; in ``meta``, the
        ``dataset_meta`` of the whole taxonomy and, under ``layers``, what the two checkpoints had.

    Raises:
        ConfigError: A file does not exist, is no checkpoint of its layer, or would be overwritten; or the layers
            are of different taxonomies.
    """
    sources = {'layer0': layer0, 'layer1': layer1}
    if Path(out).resolve() in {Path(source).resolve() for source in sources.values()}:
        raise ConfigError('the result would replace one of the layers', where=str(out), fix='Name another --out.')
    output_file(out)
    weights: dict[str, Any] = {}
    metas: dict[str, Mapping[str, Any]] = {}
    for number, (name, source) in enumerate(sources.items()):
        checkpoint = read_checkpoint(source)
        metas[name] = _meta_of_layer(checkpoint, number, source)
        state = weights_of(checkpoint, where=source)
        require_finite(state, where=source)
        weights |= {f'{name}.{tensor}': value for tensor, value in state.items()}
    taxonomy, other = (
        Taxonomy.from_json(metas[name]['dataset_meta']['whole_taxonomy'], where=source)
        for name, source in sources.items()
    )
    require_same_taxonomy(taxonomy, other, where=' against '.join(sources.values()))
    meta = {'hierseg_version': __version__, 'dataset_meta': taxonomy.dataset_meta(), 'layers': metas}
    joined = {'meta': meta, 'state_dict': weights}
    content = io.BytesIO()
    torch.save(joined, content)
    write_atomically(content.getvalue(), Path(out))
    return joined


def _meta_of_layer(checkpoint: Mapping[str, Any], number: int, source: str) -> Mapping[str, Any]:
    """The checkpoint's meta, once it is known to be of this layer."""
    meta = meta_of(checkpoint, where=source)
    data = meta['dataset_meta']
    if any(name.startswith(('layer0.', 'layer1.')) for name in weights_of(checkpoint, where=source)):
        raise ConfigError('the checkpoint is of a whole ensemble', where=source, fix='Nothing is left to join.')
    if 'layer' not in data or 'whole_taxonomy' not in data:
        raise ConfigError(
            'the checkpoint does not say which layer of which taxonomy it is',
            where=source,
            fix=f'Train on StoreDataset with layer={number}, as configs/two_layer/layer{number}.py does.',
        )
    if data['layer'] != number:
        raise ConfigError(
            f'the checkpoint is of layer {data["layer"]}, not {number}', where=source, fix='Name layer 0 first.'
        )
    return meta


def explain_ensemble(
    config: str | Path,
    checkpoint: str,
    image: str,
    *,
    device: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Flow:
    """Tells what each layer of the ensemble finds on an image file, and how it is merged.

    ``device`` is that of :func:`~hierseg.apis.runner.load_detector`; options are values by dotted key that override the
    config's.

    Raises:
        ConfigError: A file does not exist or cannot be read, the config is of another model, or the checkpoint is.
        AnnotationError: The image file is no image.
    """
    settled = load_config(config, options=options)
    model = load_detector(settled, checkpoint, device=device)
    if not isinstance(model, TwoLayerEnsemble):
        raise ConfigError(
            f'the model is a {type(model).__name__}', where=str(config), fix='Name a config of the two-layer ensemble.'
        )
    picture = read_shot(image, 'stored').image
    with torch.no_grad():
        batch = image_batch(picture_pipeline(settled), [picture])
        first, second = (samples[0].pred_instances for samples in model.predict_layers(batch))
        merged, joining = model.merged(first, second)
    layers = [
        InstanceData(**{**found.cpu(), 'labels': torch.from_numpy(labels)[found.labels.cpu()]})
        for found, labels in zip((first, second), model.layer_labels, strict=True)
    ]
    return Flow(picture, model.taxonomy, (layers[0], layers[1]), merged.cpu(), joining)
