"""Evaluation of instances on arrays: the protocols of Open Images and COCO, the names of found objects, intervals.

Masks of an image are compared once, in :mod:`~hierseg.metrics.matching`; average precision, localised pairs of
detections and objects, kinds of errors and COCO's statistics follow from the pixels that they have in common. Each
image leaves a small record, and results are computed of the records of all images. No torch.
"""

from hierseg.metrics.open_images import evaluate_files
from hierseg.metrics.records import ImageDetections, ImageGroundTruth, ImagePrediction, OpenImagesResult

__all__ = ['ImageDetections', 'ImageGroundTruth', 'ImagePrediction', 'OpenImagesResult', 'evaluate_files']
