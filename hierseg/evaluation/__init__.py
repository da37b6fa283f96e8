"""MMEngine metrics around :mod:`hierseg.metrics`."""

from hierseg.evaluation.metrics import LocalisedPairsMetric, OpenImagesInstanceMetric, SystemMetric
from hierseg.evaluation.predictions import ImagePrediction
from hierseg.evaluation.system_evaluation import SystemEvaluation, evaluate_system

__all__ = [
    'ImagePrediction',
    'LocalisedPairsMetric',
    'OpenImagesInstanceMetric',
    'SystemEvaluation',
    'SystemMetric',
    'evaluate_system',
]
