"""Evaluation of instances: the protocols of Open Images and COCO, and how right the names of found objects are."""

from hierseg.metrics.average_precision import RECALLS, average_precision, precision_at_recalls, summarise, summarise_by
from hierseg.metrics.bootstrap import (
    ImageSums,
    PairedDifference,
    Resampling,
    interval,
    paired_difference,
    resampled_mean_average_precision,
)
from hierseg.metrics.class_groups import FREQUENCY_BANDS, class_groups, frequency_bands
from hierseg.metrics.coco_average_precision import (
    COCO_STATISTICS,
    ClassCocoMatches,
    ImageCocoMatches,
    coco_average_precision,
    match_image_as_coco,
)
from hierseg.metrics.confusion import Confusion, labels_at_depth
from hierseg.metrics.criteria import (
    ANY_AREA,
    IOU_THRESHOLDS,
    OPEN_IMAGES,
    Criterion,
    ImageMatchTable,
    Verdict,
    area_ranges,
)
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
from hierseg.metrics.matching import match_image, match_image_by, match_images, match_images_by
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
    mean_over_classes,
    mean_over_thresholds,
)
from hierseg.metrics.run_lengths import Measures, measure, regular

__all__ = [
    'ANY_AREA',
    'BOX_SUBMISSION_COLUMNS',
    'COCO_STATISTICS',
    'DEFAULT_GROUP_OF_WEIGHTS',
    'FREQUENCY_BANDS',
    'IOU_THRESHOLDS',
    'MASK_SUBMISSION_COLUMNS',
    'OPEN_IMAGES',
    'RECALLS',
    'ClassCocoMatches',
    'Confusion',
    'Criterion',
    'ErrorKind',
    'Expansion',
    'HierarchicalResult',
    'ImageCocoMatches',
    'ImageDetections',
    'ImageErrors',
    'ImageGroundTruth',
    'ImageMatchTable',
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
    'Verdict',
    'area_ranges',
    'average_precision',
    'checked_iou_type',
    'class_groups',
    'coco_average_precision',
    'consistent_paths',
    'correctness_interval',
    'count_kinds',
    'decode_masks',
    'distances_at',
    'encode_mask',
    'error_kinds',
    'evaluate_files',
    'frequency_bands',
    'hierarchical_result',
    'hierarchical_sums',
    'information',
    'information_shares',
    'interval',
    'join_boxes_and_masks',
    'labels_at_depth',
    'match_image',
    'match_image_as_coco',
    'match_image_by',
    'match_images',
    'match_images_by',
    'mean_over_classes',
    'mean_over_thresholds',
    'measure',
    'operating_curve',
    'operating_point',
    'operating_sums',
    'pair_image',
    'paired_difference',
    'possible_names',
    'precision_at_recalls',
    'read_detections',
    'read_ground_truth',
    'regular',
    'resampled_mean_average_precision',
    'summarise',
    'summarise_by',
]
