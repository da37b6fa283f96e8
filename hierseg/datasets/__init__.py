"""The store in MMDetection's pipelines: one data set, transforms, and samplers over endless streams.

Any place of a stream can be found without drawing those before, so that a run resumes at any batch.
"""

from hierseg.datasets.balanced_samplers import ClassAwareStreamSampler, RepeatFactorSampler
from hierseg.datasets.mixing import MixUp, Mosaic, RandomResizeCrop
from hierseg.datasets.samplers import StreamBatchSampler, StreamSampler
from hierseg.datasets.store_dataset import StoreDataset
from hierseg.datasets.transforms import IgnoreMaskless, LoadAnnotations, PackDetInputs, PaintBoxes

__all__ = [
    'ClassAwareStreamSampler',
    'IgnoreMaskless',
    'LoadAnnotations',
    'MixUp',
    'Mosaic',
    'PackDetInputs',
    'PaintBoxes',
    'RandomResizeCrop',
    'RepeatFactorSampler',
    'StoreDataset',
    'StreamBatchSampler',
    'StreamSampler',
]
