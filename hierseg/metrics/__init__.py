"""Evaluation of instances: the Open Images Challenge protocol, and how right the names of found objects are."""

from hierseg.metrics.average_precision import average_precision, summarise
from hierseg.metrics.expansion import Expansion
from hierseg.metrics.joining import InstanceRows, join_boxes_and_masks
from hierseg.metrics.localised_pairs import ImagePairs, LocalisedPairs, pair_image
from hierseg.metrics.mask_text import decode_masks, encode_mask
from hierseg.metrics.matching import match_image
from hierseg.metrics.official_csv import (
    BOX_SUBMISSION_COLUMNS,
    MASK_SUBMISSION_COLUMNS,
    read_detections,
    read_ground_truth,
)
from hierseg.metrics.open_images import evaluate_files
from hierseg.metrics.operating_curve import OperatingPoint, correctness_interval, information, operating_point
from hierseg.metrics.records import (
    DEFAULT_GROUP_OF_WEIGHTS,
    ImageDetections,
    ImageGroundTruth,
    ImageMatches,
    OpenImagesResult,
    checked_iou_type,
)
from hierseg.metrics.run_lengths import Measures, measure, regular

__all__ = [
    'BOX_SUBMISSION_COLUMNS',
    'DEFAULT_GROUP_OF_WEIGHTS',
    'MASK_SUBMISSION_COLUMNS',
    'Expansion',
    'ImageDetections',
    'ImageGroundTruth',
    'ImageMatches',
    'ImagePairs',
    'InstanceRows',
    'LocalisedPairs',
    'Measures',
    'OpenImagesResult',
    'OperatingPoint',
    'average_precision',
    'checked_iou_type',
    'correctness_interval',
    'decode_masks',
    'encode_mask',
    'evaluate_files',
    'information',
    'join_boxes_and_masks',
    'match_image',
    'measure',
    'operating_point',
    'pair_image',
    'read_detections',
    'read_ground_truth',
    'regular',
    'summarise',
]
