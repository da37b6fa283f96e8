"""What the command-line tools do, as functions: train, evaluate, calibrate and compare models."""

from hierseg.apis.calibration import calibrate
from hierseg.apis.comparison import compare
from hierseg.apis.evaluation import evaluate
from hierseg.apis.explanation import explain_ensemble
from hierseg.apis.joining import join_layers
from hierseg.apis.runner import build_runner, end_process, load_config, read_config
from hierseg.apis.training import train

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
