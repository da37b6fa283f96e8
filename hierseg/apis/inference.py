"""Trained models, ready to be applied to images."""

from __future__ import annotations

from typing import Any

import torch
from mmdet.utils import get_test_pipeline_cfg
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import init_default_scope
from mmengine.runner import CheckpointLoader
from torch import nn

from hierseg.apis.runner import check_checkpoint, running
from hierseg.engine.checkpoints import fit_tensors, fitted, require_all, weights_of
from hierseg.errors import ConfigError
from hierseg.registry import MODELS


def read_checkpoint(checkpoint: str) -> dict[str, Any]:
    """Reads a checkpoint in safe mode.

    Raises:
        ConfigError: It does not exist, cannot be read, or has no ``state_dict``.
    """
    with running(check_checkpoint(checkpoint)):
        try:
            found = CheckpointLoader.load_checkpoint(checkpoint, map_location='cpu', logger='silent')
        except (RuntimeError, EOFError, OSError) as error:
            reason = str(error).partition('\n')[0]
            raise ConfigError(f'the checkpoint cannot be read: {reason}', where=checkpoint) from error
    if not isinstance(found, dict) or not isinstance(found.get('state_dict'), dict):
        raise ConfigError('the file is no checkpoint of a training: it has no state_dict', where=checkpoint)
    return found


def load_model(config: Config, checkpoint: str, *, device: str | None = None) -> nn.Module:
    """Builds a config's model with the weights of a checkpoint, to be tested.

    Args:
        config: A config, from ``load_config``.
        checkpoint: A file or an address.
        device: Such as ``cuda:0``; the first GPU, or the CPU without one, when omitted.

    Raises:
        ConfigError: The checkpoint does not exist, cannot be read, or is of another model.
    """
    init_default_scope(config.get('default_scope', 'mmdet'))
    weights = weights_of(read_checkpoint(checkpoint), where=checkpoint)
    model: nn.Module = MODELS.build(config.model)
    own = model.state_dict()
    fits = fit_tensors(own, weights)
    require_all(fits, where=checkpoint)
    model.load_state_dict(fitted(own, weights, fits))
    return model.to(device or ('cuda:0' if torch.cuda.is_available() else 'cpu')).eval()


def prepare_image(config: Config, path: str) -> dict[str, Any]:
    """An image as a batch of one, for ``test_step``: through the config's test pipeline, without annotations.

    Raises:
        ConfigError: The file does not exist or is no image.
    """
    steps = [step for step in get_test_pipeline_cfg(config) if step['type'] != 'LoadAnnotations']
    try:
        packed = Compose(steps)({'img_path': path, 'img_id': path})
    except (OSError, AssertionError) as error:  # the latter of mmcv, of a file that OpenCV cannot decode
        raise ConfigError('the image cannot be read', where=path, fix='Check the path and the file.') from error
    return {'inputs': [packed['inputs']], 'data_samples': [packed['data_samples']]}
