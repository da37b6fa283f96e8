"""MMEngine metrics around :mod:`hierseg.metrics`."""

from hierseg.evaluation.instance_metric import OpenImagesInstanceMetric
from hierseg.evaluation.localised_pairs_metric import LocalisedPairsMetric
from hierseg.evaluation.predictions import ImagePrediction
from hierseg.evaluation.system_evaluation import SystemEvaluation, evaluate_system
from hierseg.evaluation.system_metric import SystemMetric

__all__ = [
    'ImagePrediction',
    'LocalisedPairsMetric',
    'OpenImagesInstanceMetric',
    'SystemEvaluation',
    'SystemMetric',
    'evaluate_system',
]
