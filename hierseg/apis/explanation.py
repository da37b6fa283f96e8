"""One image through the two-layer ensemble, step by step."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mmcv
import torch
from mmengine.structures import InstanceData

from hierseg.apis.inference import load_model, prepare_image
from hierseg.apis.runner import load_config
from hierseg.errors import ConfigError
from hierseg.models import TwoLayerEnsemble
from hierseg.report.flow import Flow


def explain_ensemble(
    config: str | Path,
    checkpoint: str,
    image: str,
    *,
    device: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Flow:
    """Tells what each layer of the ensemble finds on an image, and how it is merged.

    Args:
        config: The config file of an ensemble.
        checkpoint: Its weights.
        image: The image file.
        device: Such as ``cuda:0``; the first GPU, or the CPU without one, when omitted.
        options: Values by dotted key that override the config's.

    Raises:
        ConfigError: A file does not exist or cannot be read, the config is of another model, or the checkpoint is.
    """
    settled = load_config(config, options=options)
    model = load_model(settled, checkpoint, device=device)
    if not isinstance(model, TwoLayerEnsemble):
        raise ConfigError(
            f'the model is a {type(model).__name__}', where=str(config), fix='Name a config of the two-layer ensemble.'
        )
    with torch.no_grad():
        first, second = (samples[0].pred_instances for samples in model.predict_layers(prepare_image(settled, image)))
        merged, joining = model.merged(first, second)
    layers = [
        InstanceData(**{**found.cpu(), 'labels': torch.from_numpy(labels)[found.labels.cpu()]})
        for found, labels in zip((first, second), model.layer_labels, strict=True)
    ]
    picture = mmcv.imread(image, flag='color_ignore_orientation', channel_order='rgb')
    return Flow(picture, model.taxonomy, (layers[0], layers[1]), merged.cpu(), joining)
