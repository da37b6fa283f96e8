"""MMDetection data sets over the store."""

from hierseg.datasets.balanced_samplers import ClassAwareStreamSampler, RepeatFactorSampler
from hierseg.datasets.maskless import IgnoreMaskless
from hierseg.datasets.paint_boxes import PaintBoxes
from hierseg.datasets.samplers import StreamBatchSampler, StreamSampler
from hierseg.datasets.store_dataset import StoreDataset
from hierseg.datasets.transforms import LoadAnnotations, PackDetInputs

__all__ = [
    'ClassAwareStreamSampler',
    'IgnoreMaskless',
    'LoadAnnotations',
    'PackDetInputs',
    'PaintBoxes',
    'RepeatFactorSampler',
    'StoreDataset',
    'StreamBatchSampler',
    'StreamSampler',
]
