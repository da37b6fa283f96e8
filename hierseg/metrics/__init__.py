"""Evaluation of instances: the Open Images Challenge protocol, and how right the names of found objects are."""

from hierseg.metrics.average_precision import average_precision, summarise
from hierseg.metrics.bootstrap import (
    ImageSums,
    PairedDifference,
    Resampling,
    interval,
    paired_difference,
    resampled_mean_average_precision,
)
from hierseg.metrics.confusion import Confusion, labels_at_depth
from hierseg.metrics.error_kinds import ErrorKind, ImageErrors, count_kinds, error_kinds
from hierseg.metrics.expansion import Expansion
from hierseg.metrics.hierarchical import (
    HierarchicalResult,
    consistent_paths,
    distances_at,
    hierarchical_result,
    hierarchical_sums,
)
from hierseg.metrics.joining import InstanceRows, join_boxes_and_masks
from hierseg.metrics.localised_pairs import ImagePairs, LocalisedPairs, pair_image, possible_names
from hierseg.metrics.mask_text import decode_masks, encode_mask
from hierseg.metrics.matching import match_image
from hierseg.metrics.official_csv import (
    BOX_SUBMISSION_COLUMNS,
    MASK_SUBMISSION_COLUMNS,
    read_detections,
    read_ground_truth,
)
from hierseg.metrics.open_images import evaluate_files
from hierseg.metrics.operating_curve import (
    OperatingCurve,
    OperatingPoint,
    correctness_interval,
    information,
    information_shares,
    operating_curve,
    operating_point,
    operating_sums,
)
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
    'Confusion',
    'ErrorKind',
    'Expansion',
    'HierarchicalResult',
    'ImageDetections',
    'ImageErrors',
    'ImageGroundTruth',
    'ImageMatches',
    'ImagePairs',
    'ImageSums',
    'InstanceRows',
    'LocalisedPairs',
    'Measures',
    'OpenImagesResult',
    'OperatingCurve',
    'OperatingPoint',
    'PairedDifference',
    'Resampling',
    'average_precision',
    'checked_iou_type',
    'consistent_paths',
    'correctness_interval',
    'count_kinds',
    'decode_masks',
    'distances_at',
    'encode_mask',
    'error_kinds',
    'evaluate_files',
    'hierarchical_result',
    'hierarchical_sums',
    'information',
    'information_shares',
    'interval',
    'join_boxes_and_masks',
    'labels_at_depth',
    'match_image',
    'measure',
    'operating_curve',
    'operating_point',
    'operating_sums',
    'pair_image',
    'paired_difference',
    'possible_names',
    'read_detections',
    'read_ground_truth',
    'regular',
    'resampled_mean_average_precision',
    'summarise',
]
