"""MMEngine metrics around :mod:`hierseg.metrics`, and the evaluation of whole systems.

Ground truth comes from a store; predictions come from a model or from a submission, as one record of each image.
"""

from hierseg.evaluation.coco_results import CocoResults
from hierseg.evaluation.metrics import LocalisedPairsMetric, OpenImagesInstanceMetric, SystemMetric
from hierseg.evaluation.system_evaluation import SystemEvaluation, evaluate_system

__all__ = [
    'CocoResults',
    'LocalisedPairsMetric',
    'OpenImagesInstanceMetric',
    'SystemEvaluation',
    'SystemMetric',
    'evaluate_system',
]
