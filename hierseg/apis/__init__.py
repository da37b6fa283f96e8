"""What the command-line tools do, as functions: train, evaluate, calibrate and compare models."""

from hierseg.apis.calibrate import calibrate
from hierseg.apis.compare import compare
from hierseg.apis.ensemble import explain_ensemble, join_layers
from hierseg.apis.runner import (
    build_runner,
    end_process,
    evaluate,
    load_config,
    read_config,
    train,
)

__all__ = [
    'build_runner',
    'calibrate',
    'compare',
    'end_process',
    'evaluate',
    'explain_ensemble',
    'join_layers',
    'load_config',
    'read_config',
    'train',
]
