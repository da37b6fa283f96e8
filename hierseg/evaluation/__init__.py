"""MMEngine metrics around :mod:`hierseg.metrics`."""

from hierseg.evaluation.instance_metric import OpenImagesInstanceMetric

__all__ = ['OpenImagesInstanceMetric']
