"""Evaluation of instances by the Open Images Challenge protocol: matching, average precision, official files."""

from hierseg.metrics.average_precision import average_precision, summarise
from hierseg.metrics.expansion import Expansion
from hierseg.metrics.joining import InstanceRows, join_boxes_and_masks
from hierseg.metrics.mask_text import decode_masks, encode_mask
from hierseg.metrics.matching import match_image
from hierseg.metrics.official_csv import (
    BOX_SUBMISSION_COLUMNS,
    MASK_SUBMISSION_COLUMNS,
    read_detections,
    read_ground_truth,
)
from hierseg.metrics.open_images import evaluate_files
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
    'InstanceRows',
    'Measures',
    'OpenImagesResult',
    'average_precision',
    'checked_iou_type',
    'decode_masks',
    'encode_mask',
    'evaluate_files',
    'join_boxes_and_masks',
    'match_image',
    'measure',
    'read_detections',
    'read_ground_truth',
    'regular',
    'summarise',
]
