"""The work of the command-line tools as functions: train, evaluate, calibrate, join and compare models.

``runner`` takes a config file to an MMEngine runner and has what every command needs; ``compare`` evaluates systems and
writes the comparison page, for which ``costs`` measures them; ``calibrate`` finds a threshold; ``ensemble`` joins and
explains the two-layer ensemble.
"""

import hierseg.screen  # noqa: F401  before mmdet, whose notes it keeps back
from hierseg.apis.calibrate import calibrate
from hierseg.apis.compare import compare
from hierseg.apis.configs import read_config
from hierseg.apis.ensemble import explain_ensemble, join_layers
from hierseg.apis.runner import end_process, evaluate, train

__all__ = ['calibrate', 'compare', 'end_process', 'evaluate', 'explain_ensemble', 'join_layers', 'read_config', 'train']
