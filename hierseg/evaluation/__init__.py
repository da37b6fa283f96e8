"""MMEngine metrics around :mod:`hierseg.metrics`."""

from hierseg.evaluation.instance_metric import OpenImagesInstanceMetric
from hierseg.evaluation.localised_pairs_metric import LocalisedPairsMetric

__all__ = ['LocalisedPairsMetric', 'OpenImagesInstanceMetric']
